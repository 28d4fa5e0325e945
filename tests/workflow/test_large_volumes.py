"""The script of the rule `cluster` on volumes that go through files instead of memory."""

import json
import subprocess
import sys

import numpy as np
import pytest
from small_project import REPOSITORY, VOXEL_SIZE, balls

from tomocensus.io import read_volume, write_mrc
from tomocensus.volume import Volume

SCRIPT = REPOSITORY / "workflow" / "scripts" / "cluster.py"


def run(folder, name, large, **facts):
    """Run the script; return labels and table."""
    written = {
        "tomogram": name,
        "shape": [16, 48, 48],
        "voxel_size": VOXEL_SIZE,
        "origin": [0, 0, 0],
        "nstart": [0, 0, 0],
        **facts,
    }
    (folder / "input.json").write_text(json.dumps(written))
    outputs = {
        key: folder / name / file
        for key, file in {
            "labels": "labels.mrc",
            "table": "clusters.csv",
            "record": "cluster.json",
        }.items()
    }
    command = [sys.executable, SCRIPT, "--maps", folder / "probability.mrc"]
    command += ["--mask", folder / "mask.mrc", "--inspected", folder / "input.json"]
    command += ["--settings", json.dumps({"minimum_volume": 1e6}), "--large", str(large)]
    for key, path in outputs.items():
        command += [f"--{key}", path]
    subprocess.run(command, check=True, capture_output=True, text=True)
    left = sorted(path.name for path in (folder / name).iterdir())
    assert left == ["cluster.json", "clusters.csv", "labels.mrc"]
    return np.asarray(read_volume(outputs["labels"]).data), outputs["table"].read_text()


@pytest.mark.parametrize("foreign", [False, True], ids=["own map", "another program's map"])
def test_arrays_in_files_give_the_same_and_are_gone_afterwards(tmp_path, foreign):
    _, truth = balls(0)
    chance = np.where(truth > 0, 0.9, 0.02)
    top = 255 if foreign else 100
    dtype = np.uint16 if foreign else np.int8
    write_mrc(tmp_path / "probability.mrc", Volume((chance * top).astype(dtype), VOXEL_SIZE))
    inside = np.ones(truth.shape, np.int8)
    inside[:, :24, :24] = 0
    write_mrc(tmp_path / "mask.mrc", Volume(inside, VOXEL_SIZE))
    facts = {"probability": "given.mrc", "probability_scale": 255} if foreign else {}
    memory = run(tmp_path, "memory", 10**9, **facts)
    files = run(tmp_path, "files", 1, **facts)
    np.testing.assert_array_equal(memory[0], files[0])
    assert memory[1] == files[1]
    assert memory[0].max() == 3  # the fourth ball lies outside of the mask
