"""What a GPU does: prediction, fine-tuning and describing objects, and whether it says the same.

``python benchmarks/gpu.py --folder FOLDER --output benchmarks/gpu.md``

Prediction goes from file to file, through every head, at the model's own voxel size; beside it, in
turns, the same without reading and predicting ahead, and MONAI's sliding window over the same slabs
where MONAI is installed (in memory, nothing written). Fine-tuning sees three slices of each of two
simulated tomograms. 1,000 objects are described as in `embed_size.py`.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
from embed_size import write_labels
from end_to_end import annotated
from inference import peak
from segment_size import write_noise

from tomocensus.atomic import write_text
from tomocensus.classify import embed
from tomocensus.io import read_volume
from tomocensus.models import load_model
from tomocensus.segment import (
    AnnotatedVolume,
    TrainSettings,
    inference,
    predict,
    predict_to_files,
    train,
)
from tomocensus.segment.contrast import Slices
from tomocensus.segment.network import from_card
from tomocensus.simulate import simulate_tomogram
from tomocensus.volume import Volume

SEED = 910_000


def best_of(run, turns: int) -> float:
    """Return the seconds of the best of some turns, after one that warms up."""
    seconds = []
    for _ in range(turns + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def to_files(tomogram: Volume, model, folder: Path, count: int):
    """Return a function that predicts file to file with so many slices made ahead."""
    outputs = {head: folder / f"{head}.mrc" for head in model.card["heads"]}

    def run():
        inference.AHEAD = count
        predict_to_files(tomogram, model, outputs)

    return run


def by_monai(tomogram: Volume, model, device: torch.device):
    """Return a function that runs MONAI's sliding window: 256 x 256, overlap 0.25, Gaussian."""
    from monai.inferers import sliding_window_inference

    network = from_card(model.card, model.weights).to(device, memory_format=torch.channels_last)
    source = Slices(tomogram, model.card["voxel_size"], "dark")

    @torch.inference_mode()
    def run():
        for z in range(len(source)):
            slab = source.slab(z, model.card["architecture"]["slices"])
            with torch.autocast(device.type, torch.bfloat16):
                logits = sliding_window_inference(
                    torch.from_numpy(slab)[None].to(device),
                    (256, 256),
                    16,
                    network,
                    0.25,
                    "gaussian",
                )
            (torch.sigmoid(logits.float()) * 100).round().to(torch.int8).cpu().numpy()

    return run


def rows_of_prediction(model, folder: Path, shape, device) -> list[str]:
    """Return a row for each way to predict one volume."""
    write_noise(folder / "tomogram.mrc", shape, model.card["voxel_size"])
    tomogram = read_volume(folder / "tomogram.mrc")
    ways = {
        "TomoCensus, file to file": to_files(tomogram, model, folder, inference.AHEAD),
        "the same, nothing ahead": to_files(tomogram, model, folder, 0),
    }
    try:
        ways["MONAI sliding window, bfloat16, in memory"] = by_monai(tomogram, model, device)
    except ImportError:
        print("MONAI is not installed: left out")
    seconds = {name: best_of(run, 1) for name, run in ways.items()}
    ours = next(iter(seconds.values()))
    return [
        f"| {name} | {taken:.1f} | {taken / ours:.2f} | {taken / np.prod(shape) * 1e9:.0f} |"
        for name, taken in seconds.items()
    ]


def network_alone(model, shape, device) -> tuple[float, float]:
    """Return seconds of the network for as many slices, and its share of the measured peak."""
    predictor = inference.Predictor(model, device.type)
    slices = model.card["architecture"]["slices"]
    sides = [-(-n // 16) * 16 + 32 for n in shape[1:]]
    image = torch.randn(1, slices, *sides, device=device).to(predictor.dtype)
    image = image.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run():
        for _ in range(shape[0]):
            predictor.network(image)
        if device.type == "cuda":
            torch.cuda.synchronize()

    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        predictor.network(image)
    seconds = best_of(run, 2)
    return seconds, counter.get_total_flops() * shape[0] / seconds / peak_of(
        device, predictor.dtype
    )


def peak_of(device: torch.device, dtype: torch.dtype) -> float:
    """Return floating-point operations a second of the device, measured."""
    if device.type == "cpu":
        return peak(dtype)
    one, two = (torch.randn(8192, 8192, device=device).to(dtype) for _ in range(2))

    def run():
        for _ in range(20):
            torch.mm(one, two)
        torch.cuda.synchronize()

    return 20 * 2 * 8192**3 / best_of(run, 3)


def rows_of_agreement(model, device) -> list[str]:
    """Return how far maps of the device are from those of the CPU in float32."""
    made = simulate_tomogram(SEED, shape=(24, 256, 256), voxel_size=14.0, snr=0.2, preset="cell")
    exact = predict(made.tomogram, model, made.polarity, device="cpu", precision="float32")
    rows = []
    for precision in ("float32", "bfloat16"):
        found = predict(
            made.tomogram, model, made.polarity, device=device.type, precision=precision
        )
        for head, values in found.items():
            gap = np.abs(values.astype(int) - exact[head])
            other = np.mean((values > 50) != (exact[head] > 50))
            rows.append(
                f"| {precision} | {head} | {gap.mean() / 100:.5f} | {gap.max() / 100:.2f} "
                f"| {other:.6f} |"
            )
    return rows


def seconds_of_training(base, device, steps: int) -> tuple[float, int, float]:
    """Return seconds and steps of fine-tuning on six slices of 400 x 400, and its Dice."""
    settings = {"shape": (32, 400, 400), "voxel_size": 14.0, "snr": 0.2, "preset": "cell"}
    pairs = []
    for seed in (SEED + 1, SEED + 2):
        made = simulate_tomogram(seed, **settings)
        truth = annotated(made)
        annotation = np.full(truth.shape, -1, np.int32)
        for z in (8, 16, 24):
            annotation[z] = truth[z]
        pairs.append(
            AnnotatedVolume(str(seed), made.tomogram, annotation, made.polarity, "instance")
        )
    start = time.perf_counter()
    card, _, _ = train(pairs, base, TrainSettings(device=device.type, steps=steps))
    seconds = time.perf_counter() - start
    return seconds, card["recipe"]["steps_done"], card["metrics"]["held_out_dice"]


def seconds_of_objects(folder: Path, shape, device) -> tuple[float, float, int]:
    """Return seconds of reading and describing 1,000 objects, those of the reading, and number."""
    write_noise(folder / "objects.mrc", shape, 14.0)
    write_labels(folder / "labels.mrc", shape, 14.0)
    encoder = load_model("models/base-encoder", "encoder")
    tomogram = read_volume(folder / "objects.mrc")
    found = []

    def run():
        start = time.perf_counter()
        labels = np.asarray(read_volume(folder / "labels.mrc").data).astype(np.int32)
        read = time.perf_counter() - start
        threads = min(16, os.cpu_count() or 1)
        done = embed(tomogram, labels, encoder, "dark", device.type, threads)
        found.append((read, len(done.instance)))

    seconds = best_of(run, 1)
    return seconds, *found[-1]


def main() -> None:
    """Measure, print and write the page."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--base", default="models/base-segmenter")
    options.add_argument("--shape", type=int, nargs=3, default=[300, 928, 960])
    options.add_argument("--steps", type=int, default=TrainSettings().steps, help="fine-tuning")
    options.add_argument("--device", default="cuda")
    options.add_argument("--folder", required=True, help="for tomograms and maps")
    options.add_argument("--output")
    chosen = options.parse_args()
    device, folder, shape = torch.device(chosen.device), Path(chosen.folder), tuple(chosen.shape)
    folder.mkdir(parents=True, exist_ok=True)
    model = load_model(chosen.base, "segmenter")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    lines = [
        "# On a GPU: figures",
        "",
        f"`python benchmarks/gpu.py --shape {' '.join(map(str, shape))}` on {name} with "
        f"{os.cpu_count()} processors, PyTorch {torch.__version__}.",
    ]

    def tell(*more: str) -> None:
        print("\n".join(more), flush=True)
        lines.extend(more)

    tell("", "| agreement with the CPU in float32 | map | mean gap | largest | other side of 0.5 |")
    tell("|" + "---|" * 5, *rows_of_agreement(model, device))
    taken, share = network_alone(model, shape, device)
    tell("", f"The network alone takes {taken:.1f} s for such a volume, {share:.0%} of the peak.")
    tell("", "| prediction of the volume | s | time against ours | ns a voxel |", "|" + "---|" * 4)
    tell(*rows_of_prediction(model, folder, shape, device))
    taken, steps, dice = seconds_of_training(model, device, chosen.steps)
    tell(
        "",
        f"Fine-tuning on six slices of 400 x 400: {taken:.0f} s for {steps} steps, held-out Dice "
        f"{dice:.2f}.",
    )
    taken, read, count = seconds_of_objects(folder, shape, device)
    tell(
        "",
        f"Describing {count} objects in four directions: {taken:.1f} s, of it {read:.1f} s reading "
        "the labels.",
        "",
    )
    if chosen.output:
        write_text(chosen.output, "\n".join(lines))


if __name__ == "__main__":
    main()
