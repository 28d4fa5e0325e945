"""Tomograms, groups and classes may have names that look like numbers, or like options."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_project import VOXEL_SIZE, run, write_project, write_sheet

from tomocensus.export import read_imod_points, read_picks, read_star
from tomocensus.io import write_labels, write_mrc
from tomocensus.tables import read_table
from tomocensus.volume import Volume

pytestmark = pytest.mark.slow

NAMES = ("007", "1e2")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names") / "project"
    write_project(folder, NAMES)
    z, y, x = np.indices((16, 48, 48))
    truth = np.zeros(z.shape, np.int32)
    for number, (cy, cx) in enumerate([(12, 12), (12, 36), (36, 12), (36, 36)], start=1):
        radius = 7 if cy == 12 else 4
        truth[(z - 8) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
    for seed, name in enumerate(NAMES):
        noise = np.random.default_rng(seed).normal(size=truth.shape)
        density = ((truth > 0) * 8.0 + noise).astype(np.float32)
        write_mrc(folder / "data" / f"{name}.mrc", Volume(density, VOXEL_SIZE))
    write_labels(folder / "data" / "truth.mrc", Volume(truth, VOXEL_SIZE))
    (folder / "data" / "classes.csv").write_text("instance,class\n1,01\n2,01\n3,02\n4,02\n")
    write_sheet(
        folder,
        NAMES,
        polarity=dict.fromkeys(NAMES, "bright"),
        group={"007": "-/-", "1e2": "2.50"},
        ground_truth={"007": "data/truth.mrc"},
        ground_truth_classes={"007": "data/classes.csv"},
    )
    rows = [f"1e2\t{x}\t{y}\t8\t{'01' if y < 24 else '02'}" for y in (12, 36) for x in (12, 36)]
    (folder / "examples.tsv").write_text("\n".join(["tomogram\tx\ty\tz\tclass", *rows]) + "\n")
    config = folder / "config.yaml"
    text = config.read_text().replace("none.tsv", "examples.tsv")
    config.write_text(text + "classify: {minimum_confidence: 0}\n")
    for targets in (["--", "train_classifier"], []):
        status, said = run(folder, *targets)
        assert status == 0, said
    return folder


def test_tables_keep_the_names(project):
    table = read_table(project / "results" / "census.csv")
    assert set(table["tomogram"]) == set(NAMES)
    assert set(table["group"]) == {"-/-", "2.50"}
    assert set(table["class"]) <= {"01", "02", "unknown"}
    assert {"01", "02"} & set(table["class"])
    stored = pd.read_parquet(project / "results" / "census.parquet")
    for name in ("tomogram", "group", "class", "contact_instances"):
        assert stored[name].tolist() == table[name].tolist()
    assert np.issubdtype(stored["contacts"].dtype, np.number)
    counts = read_table(project / "results" / "counts.csv")
    assert counts["count"].sum() == len(table)
    assert set(counts["tomogram"]) == set(NAMES)


def test_the_report_has_pictures_and_rows_under_the_same_names(project):
    page = (project / "results" / "report.html").read_text()
    drawn = {name: project / "results" / name / "pictures.json" for name in NAMES}
    for name, path in drawn.items():
        assert all(isinstance(kind, str) for kind in json.loads(path.read_text())["classes"])
        assert re.search(rf'"{name}"', page)
    assert '"7"' not in page
    assert "100.0" not in page


def test_exports_keep_the_names(project):
    status, said = run(project, "--", "export")
    assert status == 0, said
    table = read_table(project / "results" / "census.csv")
    for name, part in table.groupby("class"):
        found = read_star(project / "results" / "particles" / f"{name}.star")
        assert found["rlnTomoName"].tolist() == part["tomogram"].tolist()
        assert set(found["tomocensusClass"]) == {name}
    folder = project / "results" / "007" / "export"
    own = table[table["tomogram"] == "007"]
    for name, part in own.groupby("class"):
        assert len(read_imod_points(folder / "points" / f"{name}.txt")) == len(part)
    picks = read_picks(folder / "instances.ndjson")
    assert picks["class"].tolist() == own["class"].tolist()
    status, said = run(project, "--", "export")
    assert "Nothing to be done" in said


def test_a_copick_project_keeps_the_names(project):
    status, said = run(project, "--", "export_copick")
    assert status == 0, said
    table = read_table(project / "results" / "census.csv")
    folder = project / "results" / "copick"
    told = json.loads((folder / "copick.json").read_text())["pickable_objects"]
    assert [one["metadata"]["class"] for one in told] == sorted(set(table["class"]))
    for (tomogram, name), part in table.groupby(["tomogram", "class"]):
        path = folder / "ExperimentRuns" / tomogram / "Picks" / f"tomocensus_0_{name}.json"
        picks = json.loads(path.read_text())
        assert picks["run_name"] == tomogram
        assert [point["instance_id"] for point in picks["points"]] == part["instance"].tolist()
    status, said = run(project, "--", "export_copick")
    assert "Nothing to be done" in said


def test_what_is_saved_in_copick_stays_and_a_moved_project_is_told_its_new_place(project):
    config = project / "results" / "copick" / "copick.json"
    assert run(project, "--", "export_copick")[0] == 0
    overlay = json.loads(config.read_text())["overlay_root"].removeprefix("local://")
    own = Path(overlay, "ExperimentRuns", "007", "Picks", "me_1_01.json")
    own.parent.mkdir(parents=True)
    own.write_text("{}")
    (config.parent / "ExperimentRuns" / "gone").mkdir()
    again = ("--forcerun", "copick_objects", "copick_run")
    assert run(project, *again, "--", "export_copick")[0] == 0
    assert own.read_text() == "{}"
    runs = (config.parent / "ExperimentRuns").iterdir()
    assert sorted(path.name for path in runs) == ["007", "1e2"]
    moved = project.rename(project.with_name("moved"))
    status, said = run(moved, "-n", "--", "export_copick")
    moved.rename(project)
    assert status == 0, said
    assert "rule copick_objects" in said
    assert "rule measure" not in said


def test_classes_are_scored_against_the_truth(project):
    scores = read_table(project / "results" / "evaluation.csv")
    assert set(scores["tomogram"]) == {"007"}
    assert scores.set_index("metric")["value"]["class_accuracy"] == 1
    review = json.loads((project / "results" / "review.json").read_text())
    assert review["columns"] == ["tomogram", "x", "y", "z", "class"]
    # The other one's objects have names.
    assert {row["tomogram"] for row in review["rows"]} == {"007"}
    assert {row["class"] for row in review["rows"]} <= {"01", "02", "unknown"}
    for row in review["rows"]:
        assert [row[f"{axis}_angstrom"] for axis in "xyz"] == [row[a] * VOXEL_SIZE for a in "xyz"]


def test_braces_in_groups_and_names_of_tables_are_no_wildcards(tmp_path):
    project = tmp_path / "project"
    write_project(project)
    write_sheet(project, ["one"], group={"one": "ctrl {x}"})
    for name in ("tomograms", "none"):
        (project / f"{name}.tsv").touch()
        (project / f"{name}.tsv").rename(project / f"{name} {{x}}.tsv")
    (project / "none {x}.tsv").write_text("tomogram\tx\ty\tz\tclass\none\t12\t12\t8\ta\n")
    config = project / "config.yaml"
    config.write_text(config.read_text().replace(".tsv", " {x}.tsv"))
    targets = ("everything", "train_classifier", "export", "export_copick")
    status, said = run(project, "-n", "-p", "--", *targets)
    assert status == 0, said
    assert "tomograms {x}.tsv" in said
    assert "none {x}.tsv" in said
    assert "ctrl {x}" in said
