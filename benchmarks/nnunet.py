"""The same six annotated slices and some minutes: nnU-Net v2 beside fine-tuning the base.

``pip install nnunetv2``
``python benchmarks/nnunet.py --minutes 15 --output benchmarks/nnunet.md``

Tomograms are those of ``other_simulator.py``, which neither has seen. nnU-Net plans by itself (2D,
its own augmentation, schedule and mirroring in prediction); its schedule is as long as the budget
allows on this machine. Minutes are those of the CPU, of this process, so that other work does not
count. Its map goes through the project's clustering too.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from other_simulator import CASES, fine_tuned, tomogram

from tomocensus.atomic import write_text
from tomocensus.cluster import ClusterParameters, cluster
from tomocensus.evaluate import instance_scores, voxel_scores
from tomocensus.models import load_model
from tomocensus.segment import predict

ITERATIONS = 10


def annotated_slices(labels: np.ndarray) -> np.ndarray:
    """Return the slices that :func:`other_simulator.fine_tuned` annotates."""
    return np.linspace(0, len(labels), 5).astype(int)[1:4]


def write_slices(fields, folder: Path) -> None:
    """Write the annotated slices as a data set of nnU-Net."""
    import SimpleITK as sitk

    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    count = 0
    for volume, labels, *_ in fields:
        for z in annotated_slices(labels):
            name = f"slice_{count:03d}"
            image = np.asarray(volume.data[z : z + 1], np.float32)
            mask = (labels[z : z + 1] > 0).astype(np.uint8)
            sitk.WriteImage(
                sitk.GetImageFromArray(image), str(folder / f"imagesTr/{name}_0000.nii.gz")
            )
            sitk.WriteImage(sitk.GetImageFromArray(mask), str(folder / f"labelsTr/{name}.nii.gz"))
            count += 1
    about = {
        "channel_names": {"0": "tomogram"},
        "labels": {"background": 0, "object": 1},
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(about))


def trained(fields, folder: Path, seconds: float):
    """Plan and train nnU-Net within the time; return a predictor and what was done."""
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(folder / name)
    os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f"}
    begun = time.process_time()
    write_slices(fields, folder / "raw" / "Dataset001_Slices")
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    extract_fingerprints([1], num_processes=1)
    plan_experiments([1])
    preprocess([1], configurations=("2d",), num_processes=(1,))
    done = folder / "preprocessed" / "Dataset001_Slices"
    plans = json.loads((done / "nnUNetPlans.json").read_text())
    dataset = json.loads((done / "dataset.json").read_text())

    def trainer(epochs: int) -> nnUNetTrainer:
        given = {**plans, "continue_training": False}
        made = nnUNetTrainer(given, "2d", "all", dataset, device=torch.device("cpu"))
        made.num_epochs, made.num_iterations_per_epoch = epochs, ITERATIONS
        made.num_val_iterations_per_epoch = 1
        return made

    # One epoch tells how many the rest of the time allows.
    start = time.process_time()
    trainer(1).run_training()
    each = time.process_time() - start
    left = seconds - (time.process_time() - begun)
    epochs = max(1, int(left / each))
    final = trainer(epochs)
    final.run_training()
    final.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.manual_initialization(
        final.network,
        final.plans_manager,
        final.configuration_manager,
        [final.network.state_dict()],
        dataset,
        "nnUNetTrainer",
        (0, 1),
    )
    facts = {
        "iterations": epochs * ITERATIONS,
        "batch": plans["configurations"]["2d"]["batch_size"],
        "patch": plans["configurations"]["2d"]["patch_size"],
        "parameters": sum(p.numel() for p in final.network.parameters()),
        "seconds": time.process_time() - begun,
    }
    return predictor, facts


def by_nnunet(predictor, volume) -> np.ndarray:
    """Return the probability map of a volume."""
    data = np.asarray(volume.data, np.float32)[None]
    properties = {"spacing": [1.0, 1.0, 1.0]}
    _, chances = predictor.predict_single_npy_array(
        data, properties, save_or_return_probabilities=True
    )
    return np.asarray(chances[1], np.float32)


def scores(chance, boundary, made) -> dict:
    """Return Dice, and instance scores of the project's clustering."""
    volume, labels, *_ = made
    found = cluster(chance, volume.voxel_size, ClusterParameters(), boundary).labels
    return {
        "Dice": voxel_scores(chance, labels)["dice"],
        "F1": instance_scores(found, labels)["f1"],
    }


def main() -> None:
    """Train both on each case and write the page."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cases", nargs="+", default=["CTF", "coloured noise"], choices=CASES)
    options.add_argument("--minutes", type=float, default=15.0)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--output")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    base = load_model("models/base-segmenter", "segmenter")
    rows = []
    for case in chosen.cases:
        polarity = CASES[case].polarity
        made, *fields = (tomogram(case, number) for number in (0, 4, 5))
        start = time.process_time()
        model = fine_tuned(fields, polarity, base, 300, chosen.threads)
        spent = time.process_time() - start
        for name, used, seconds in (("base", base, 0.0), ("fine-tuned base", model, spent)):
            start = time.process_time()
            maps = predict(made[0], used, polarity, threads=chosen.threads)
            took = time.process_time() - start
            for what, boundary in ((name, maps["boundary"]), (f"{name}, map alone", None)):
                found = scores(maps["probability"], boundary, made)
                rows.append([case, what, seconds, took, *found.values()])
                print(rows[-1], flush=True)
        with tempfile.TemporaryDirectory() as folder:
            predictor, facts = trained(fields, Path(folder), 60 * chosen.minutes)
            start = time.process_time()
            chance = by_nnunet(predictor, made[0])
            took = time.process_time() - start
        print(facts)
        rows.append(
            [case, "nnU-Net v2, 2D", facts["seconds"], took, *scores(chance, None, made).values()]
        )
        print(rows[-1], flush=True)
    columns = ["case", "model", "training, CPU s", "prediction, CPU s", "Dice", "F1"]
    table = pd.DataFrame(rows, columns=columns)
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += [
        f"| {r[0]} | {r[1]} | {r[2]:.0f} | {r[3]:.0f} | {r[4]:.2f} | {r[5]:.2f} |" for r in rows
    ]
    text = f"""# Beside nnU-Net v2: figures

`python benchmarks/nnunet.py --minutes {chosen.minutes:g} --threads {chosen.threads}`, CPU.

Six annotated slices (three of each of two tomograms) train; the figures are of a third tomogram.
F1 at IoU 0.5 of the project's clustering with default settings: with the boundary map where there
is one, else the map alone. nnU-Net: {facts["iterations"]} iterations of batch {facts["batch"]},
patch {facts["patch"]}, {facts["parameters"] / 1e6:.0f} million parameters, mirroring in prediction
as it is by default (four passes). The base had its training on simulated tomograms before; nnU-Net
starts from scratch, as its users do.

{chr(10).join(lines)}
"""
    if chosen.output:
        write_text(chosen.output, text)
    print(table.round(2).to_string())


if __name__ == "__main__":
    main()
