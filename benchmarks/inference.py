"""Speed of prediction against other ways to run the same network on the same volume.

``python benchmarks/inference.py --shape 24 512 512 --threads 1 --output benchmarks/inference.md``

Every way predicts every slice of one volume; they take turns, `--turns` times, so that what else
the machine does hits all alike. MONAI (``pip install monai``) and OpenVINO join in where they are
installed. The share of the peak is the network's multiplications a second over those of a matrix
product or a wide convolution, whichever is faster, of the same precision on the same threads.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from tomocensus.atomic import write_text
from tomocensus.models import load_model
from tomocensus.segment.contrast import Slices
from tomocensus.segment.inference import Predictor
from tomocensus.segment.network import from_card
from tomocensus.volume import Volume


def slabs(source: Slices, slices: int):
    """Yield what the network sees of each slice."""
    for z in range(len(source)):
        yield source.slab(z, slices)


def by_predictor(model, source, **options):
    """Return a function that predicts with the project's predictor."""
    predictor = Predictor(model, "cpu", **options)

    def run():
        return np.stack([predictor(slab) for slab in slabs(source, predictor.slices)])

    return run


def by_plain_torch(model, source):
    """Return a function that runs the network as it is: float32, a padded slice at a time."""
    network = from_card(model.card, model.weights)
    step = 2 ** (model.card["architecture"]["depth"] - 1)

    @torch.inference_mode()
    def run():
        found = []
        for slab in slabs(source, model.card["architecture"]["slices"]):
            ny, nx = slab.shape[1:]
            image = np.pad(slab, [(0, 0), (0, -ny % step), (0, -nx % step)], mode="symmetric")
            found.append(torch.sigmoid(network(torch.from_numpy(image)[None]))[0, :, :ny, :nx])
        return torch.stack(found).numpy()

    return run


def by_monai(model, source, half: bool):
    """Return a function that runs MONAI's sliding window of 256 x 256, overlap 0.25, Gaussian."""
    from monai.inferers import sliding_window_inference

    network = from_card(model.card, model.weights)

    @torch.inference_mode()
    def run():
        found = []
        for slab in slabs(source, model.card["architecture"]["slices"]):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                found.append(
                    sliding_window_inference(
                        torch.from_numpy(slab)[None], (256, 256), 4, network, 0.25, "gaussian"
                    )
                )
        return torch.sigmoid(torch.cat(found).float()).numpy()

    return run


def peak(dtype: torch.dtype) -> float:
    """Return floating-point operations a second: the most of a matrix product and a convolution.

    A library for matrices may be slow on a processor where that for convolutions is not.
    """
    one, two = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
    image, kernel = (
        torch.randn(shape).to(dtype, memory_format=torch.channels_last)
        for shape in ((1, 128, 128, 128), (128, 128, 3, 3))
    )
    rates = []
    for _ in range(12):
        start = time.perf_counter()
        torch.mm(one, two)
        middle = time.perf_counter()
        torch.nn.functional.conv2d(image, kernel, padding=1)
        rates += [2 * 2048**3 / (middle - start)]
        rates += [2 * 9 * 128**4 / (time.perf_counter() - middle)]
    return max(rates)


def ways_of(model, source, threads: int) -> dict:
    """Return all ways that can run here."""
    alike = {"threads": threads}
    ways = {
        "TomoCensus, as it is": by_predictor(model, source, **alike),
        "TomoCensus, float32": by_predictor(model, source, precision="float32", **alike),
        "plain PyTorch, float32": by_plain_torch(model, source),
    }
    try:
        ways["MONAI sliding window, float32"] = by_monai(model, source, False)
        ways["MONAI sliding window, bfloat16"] = by_monai(model, source, True)
    except ImportError:
        print("MONAI is not installed: left out")
    try:
        import openvino  # noqa: F401

        ways["TomoCensus, engine openvino"] = by_predictor(
            model, source, engine="openvino", **alike
        )
    except ImportError:
        print("OpenVINO is not installed: left out")
    return ways


def main() -> None:
    """Measure and write the page."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--base", default="models/base-segmenter")
    options.add_argument("--shape", type=int, nargs=3, default=[24, 512, 512])
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--turns", type=int, default=3)
    options.add_argument("--output")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    model = load_model(chosen.base, "segmenter")
    data = np.random.default_rng(0).normal(size=chosen.shape).astype(np.float32)
    source = Slices(Volume(data, model.card["voxel_size"]), model.card["voxel_size"], "dark")
    ways = ways_of(model, source, chosen.threads)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network = from_card(model.card, model.weights)
        network(torch.zeros(1, model.card["architecture"]["slices"], 256, 256))
    work = counter.get_total_flops() / 256**2 * data.size
    # Multiplications that are done for what is thrown away again: padding and overlap.
    step = 2 ** (model.card["architecture"]["depth"] - 1)
    padded = [n + 2 * step + -n % step for n in chosen.shape[1:]]
    overlap = np.prod(padded) / np.prod(chosen.shape[1:])
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results = {}
    peaks = {dtype: 0.0 for dtype in (torch.float32, torch.bfloat16)}
    for turn in range(chosen.turns + 1):
        for name, run in ways.items():
            # Beside every way: other jobs slow the peak at some moments and the ways at others.
            for dtype in peaks:
                peaks[dtype] = max(peaks[dtype], peak(dtype))
            start = time.perf_counter()
            results[name] = run()
            if turn:  # the first one compiles and warms up
                seconds[name].append(time.perf_counter() - start)
    ours = min(seconds["TomoCensus, as it is"])
    exact = results["plain PyTorch, float32"]
    lines = [
        "| way | s | time against ours | share of peak | mean difference | largest |",
        "|" + "---|" * 6,
    ]
    for name, taken in seconds.items():
        half = "bfloat16" in name or name in ("TomoCensus, as it is", "TomoCensus, engine openvino")
        share = work / min(taken) / peaks[torch.bfloat16 if half else torch.float32]
        # Borders are padded differently, and what a voxel sees reaches this far.
        inner = (slice(None), slice(None), slice(160, -160), slice(160, -160))
        gap = np.abs(results[name][inner] - exact[inner])
        lines.append(
            f"| {name} | {min(taken):.2f} | {min(taken) / ours:.2f} | {share:.0%} "
            f"| {gap.mean():.4f} | {gap.max():.3f} |"
        )
    page = [
        "# Speed of prediction: figures",
        "",
        f"`python benchmarks/inference.py --shape {' '.join(map(str, chosen.shape))} --threads "
        f"{chosen.threads}`: best of {chosen.turns} turns, float32 peak "
        f"{peaks[torch.float32] / 1e9:.0f} and bfloat16 peak {peaks[torch.bfloat16] / 1e9:.0f} "
        f"GFLOP/s, {work / data.size / 1e3:.0f} kFLOP a voxel; padding makes the predictor do "
        f"{overlap:.2f} times the volume.",
        "",
        *lines,
        "",
    ]
    print("\n".join(page))
    if chosen.output:
        write_text(chosen.output, "\n".join(page))


if __name__ == "__main__":
    main()
