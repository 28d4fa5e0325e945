"""A project whose stages take a second each: made volumes, and a segmenter made, not trained."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tomocensus.io import write_mrc
from tomocensus.models import save_model
from tomocensus.volume import Volume

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = ("one", "two")
VOXEL_SIZE = 20.0


def balls(seed):
    """Four bright balls in noise, and their labels."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((16, 48, 48), np.int32)
    z, y, x = np.indices(truth.shape)
    for number, (cy, cx) in enumerate([(12, 12), (12, 36), (36, 12), (36, 36)], start=1):
        truth[(z - 8) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= 36] = number
    return (truth > 0) * 8.0 + rng.normal(size=truth.shape), truth


def write_tomogram(path, seed):
    density, truth = balls(seed)
    write_mrc(path, Volume(density.astype(np.float32), VOXEL_SIZE))
    return truth


def write_segmenter(folder, sharpness=4.0, outlines=False):
    """Write a valid segmenter that is made, not trained: sigmoid of the smoothed contrast.

    With `outlines` it has a boundary head, which sees one wherever there is nothing.
    """
    average = np.full((1, 1, 3, 3), 1 / 9, np.float32)
    heads = {"probability": sharpness, **({"boundary": -sharpness} if outlines else {})}
    slopes = np.array(list(heads.values()), np.float32)
    weights = {
        # The network sees protein dark.
        "down.0.conv1.weight": -average,
        "down.0.conv2.weight": average,
        "head.weight": slopes[:, None, None, None],
        "head.bias": -2 * slopes,
    }
    for norm in ("down.0.norm1", "down.0.norm2"):
        weights[f"{norm}.weight"] = np.ones(1, np.float32)
        weights[f"{norm}.bias"] = np.zeros(1, np.float32)
        weights[f"{norm}.running_mean"] = np.zeros(1, np.float32)
        weights[f"{norm}.running_var"] = np.ones(1, np.float32)
        weights[f"{norm}.num_batches_tracked"] = np.array(0, np.int64)
    card = {
        "kind": "segmenter",
        "architecture": {"name": "unet-2.5d", "slices": 1, "width": 1, "depth": 1},
        "voxel_size": VOXEL_SIZE,
        "heads": list(heads),
        "polarity": "bright",
    }
    save_model(folder, card, weights)


def write_sheet(project, names=NAMES, **columns):
    """Write the sample sheet; `columns` as column={tomogram: value}."""
    columns = {"path": {name: f"data/{name}.mrc" for name in names}, **columns}
    rows = [[name, *[cells.get(name, "") for cells in columns.values()]] for name in names]
    lines = [["tomogram", *columns], *rows]
    (project / "tomograms.tsv").write_text("".join("\t".join(line) + "\n" for line in lines))


def write_project(project, names=("one",)):
    """Write a project that needs no training."""
    (project / "data").mkdir(parents=True)
    for seed, name in enumerate(names):
        write_tomogram(project / "data" / f"{name}.mrc", seed)
    write_segmenter(project / "models" / "segmenter")
    write_sheet(project, names, polarity=dict.fromkeys(names, "bright"))
    (project / "config.yaml").write_text(
        "tomograms: tomograms.tsv\nexamples: none.tsv\ncluster: {minimum_volume: 1000000}\n"
        "report: {slices: 3}\n"
    )


def start(project, *arguments, **options):
    """Start the workflow in a project, what it says in the file `output`."""
    command = [sys.executable, "-m", "snakemake", "--directory", str(project), "--cores", "2"]
    command += ["--configfile", str(project / "config.yaml"), *map(str, arguments)]
    with open(project.with_name(f"{project.name}.output"), "w") as output:
        return subprocess.Popen(
            command, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT, **options
        )


def output(project):
    """What the last run said."""
    return project.with_name(f"{project.name}.output").read_text()


def run(project, *arguments):
    """Run the workflow; return its exit status and what it said."""
    status = start(project, *arguments).wait(300)
    return status, output(project)


def results(project):
    """Bytes of all results, by their path."""
    return {
        os.fspath(path.relative_to(project)): path.read_bytes()
        for path in sorted((project / "results").rglob("*"))
        if path.is_file()
    }
