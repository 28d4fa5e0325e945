"""The real workflow, by Snakemake, on a small simulated tomogram with annotation and truth."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tomocensus.io import read_header, read_volume, write_labels, write_mrc
from tomocensus.volume import Volume

REPOSITORY = Path(__file__).resolve().parents[2]
ORIGIN = (100.0, -50.0, 25.0)


def snakemake(folder, *arguments):
    command = [sys.executable, "-m", "snakemake", "--directory", str(folder)]
    command += ["--configfile", str(folder / "config" / "config.yaml"), "--cores", "2", *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ}, check=False
    )


def jobs(done):
    """Rules that a dry run would execute."""
    lines = (done.stdout + done.stderr).splitlines()
    return {
        line.split()[1].rstrip(":") for line in lines if line.startswith(("rule ", "localrule "))
    }


def balls(shape=(32, 64, 64)):
    z, y, x = np.indices(shape)
    truth = np.zeros(shape, np.int32)
    places = [(16, 14, 14, 7), (16, 14, 40, 9), (15, 46, 16, 10), (17, 46, 46, 8)]
    for number, (cz, cy, cx, radius) in enumerate(places, start=1):
        truth[(z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
    return truth


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two tomograms, one with protein bright and a non-zero origin, run from training to report."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "config").mkdir()
    truth = balls()
    noise = np.random.default_rng(0).normal(size=truth.shape).astype(np.float32)
    density = np.where(truth > 0, 3.0, 0.0).astype(np.float32) + noise
    annotation = np.full(truth.shape, -1, np.int16)
    annotation[[10, 16, 22]] = truth[[10, 16, 22]]
    write_mrc(folder / "dark.mrc", Volume(-density, 20.0))
    write_mrc(folder / "bright.mrc", Volume(density, 20.0, ORIGIN))
    write_mrc(folder / "annotation.mrc", Volume(annotation, 20.0))
    write_labels(folder / "truth.mrc", Volume(truth, 20.0))
    (folder / "truth.csv").write_text("instance,class\n1,small\n2,big\n3,big\n4,small\n")
    (folder / "config" / "tomograms.tsv").write_text(
        "tomogram\tpath\tpolarity\tgroup\tannotation\tground_truth\tground_truth_classes\n"
        "dark\tdark.mrc\tdark\ta\tannotation.mrc\ttruth.mrc\ttruth.csv\n"
        "bright\tbright.mrc\tbright\tb\t\t\t\n"
    )
    (folder / "config" / "examples.tsv").write_text(
        "tomogram\tx\ty\tz\tclass\nbright\t14\t14\t16\tsmall\nbright\t46\t46\t17\tsmall\n"
        "bright\t40\t14\t16\tbig\nbright\t16\t46\t15\tbig\n"
    )
    (folder / "config" / "config.yaml").write_text(
        yaml.safe_dump(
            {
                "tomograms": "config/tomograms.tsv",
                "examples": "config/examples.tsv",
                "segment": {"uncertainty": True},
                "train_segmenter": {"steps": 50, "annotation": "instance"},
                "cluster": {"minimum_volume": 1e6},
                "report": {"slices": 5},
            }
        )
    )
    for target in ("train_segmenter", "train_classifier", None):
        done = snakemake(folder, *([target] if target else []))
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_objects_are_found_named_and_placed(project):
    table = pd.read_csv(project / "results" / "bright" / "instances.csv")
    assert len(table) >= 4
    first = table.loc[(table["x_voxel"] - 14).abs().add((table["y_voxel"] - 14).abs()).idxmin()]
    assert abs(first["x_angstrom"] - (first["x_voxel"] * 20 + ORIGIN[0])) < 0.1
    assert abs(first["y_angstrom"] - (first["y_voxel"] * 20 + ORIGIN[1])) < 0.1
    assert first["class"] in ("small", "unknown")
    scores = pd.read_csv(project / "results" / "evaluation.csv")
    recall = scores.loc[scores["metric"] == "instance_recall", "value"].iloc[0]
    assert recall >= 0.75


@pytest.mark.slow
def test_origin_and_scale_survive_and_reports_are_written(project):
    for name in ("probability.mrc", "uncertainty.mrc", "labels.mrc"):
        header = read_header(project / "results" / "bright" / name)
        assert header.origin == ORIGIN
        assert header.voxel_size == pytest.approx(20)
    chance, unsure = (
        np.asarray(read_volume(project / "results" / "bright" / f"{name}.mrc").data)
        for name in ("probability", "uncertainty")
    )
    assert (unsure[chance == 50] == 100).all()
    assert unsure[chance == 100].max(initial=0) < 10
    labels = np.asarray(read_volume(project / "results" / "bright" / "labels.mrc").data)
    assert set(np.unique(labels)) == set(range(labels.max() + 1))
    page = (project / "results" / "report.html").read_text()
    assert "bright" in page
    assert "<html" in page
    assert (project / "results" / "census.parquet").stat().st_size > 0


@pytest.mark.slow
def test_only_what_is_stale_runs_again(project):
    assert jobs(snakemake(project, "-n")) == set()
    path = project / "config" / "config.yaml"
    before = path.read_text()
    try:
        path.write_text(before.replace("slices: 5", "slices: 6"))
        assert jobs(snakemake(project, "-n")) == {"picture", "report", "everything"}
    finally:
        path.write_text(before)
