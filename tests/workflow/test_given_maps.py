"""Another program's map, and the outlines that the segmenter sees beside it."""

import json
import sys

import numpy as np
import pytest
import zarr
from small_project import REPOSITORY, VOXEL_SIZE, run, write_project, write_segmenter, write_sheet

from tomocensus.io import read_volume, write_mrc
from tomocensus.tables import read_table
from tomocensus.volume import Volume

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
from cluster_scenes import sponge

pytestmark = pytest.mark.slow

LABELS = "results/one/labels.mrc"


@pytest.fixture
def project(tmp_path):
    """Two blocks with a gap between, which the given map does not show."""
    folder = tmp_path / "project"
    write_project(folder)
    density = np.random.default_rng(0).normal(size=(16, 48, 80))
    one, two = np.s_[4:12, 12:36, 16:36], np.s_[4:12, 12:36, 42:62]
    density[one] += 8
    density[two] += 8
    given = np.zeros(density.shape, np.float32)
    given[4:12, 12:36, 16:62] = 0.9
    write_mrc(folder / "data" / "one.mrc", Volume(density.astype(np.float32), VOXEL_SIZE))
    write_mrc(folder / "data" / "given.mrc", Volume(given, VOXEL_SIZE))
    write_sheet(folder, ["one"], polarity={"one": "bright"}, probability={"one": "data/given.mrc"})
    return folder


def outlines_asked_for(project):
    path = project / "config.yaml"
    text = path.read_text()
    path.write_text(text.replace("cluster: {", "cluster: {predict_outlines: true, "))


def test_outlines_of_the_segmenter_part_what_a_given_map_joins(project):
    write_segmenter(project / "models" / "segmenter", outlines=True)
    status, said = run(project, "--", LABELS)
    assert status == 0, said
    assert "rule segment" not in said
    assert read_volume(project / LABELS).data.max() == 1
    outlines_asked_for(project)
    status, said = run(project, "--", LABELS)
    assert status == 0, said
    assert "rule segment" in said
    labels = np.asarray(read_volume(project / LABELS).data)
    assert labels.max() == 2
    assert labels[8, 24, 20] != labels[8, 24, 58]
    # It is the given map that says what an object is.
    assert labels[8, 24, 38] > 0
    record = json.loads((project / "results" / "one" / "cluster.json").read_text())
    assert set(record["inputs"]) == {"given", "boundary"}


def test_a_given_map_of_outlines_parts_what_the_map_beside_it_joins(project):
    outlines = np.zeros((16, 48, 80), np.float32)
    outlines[4:12, 12:36, 38:40] = 255
    (project / "data" / "outlines").mkdir()
    path = project / "data" / "outlines" / "given.mrc"
    write_mrc(path, Volume(outlines, VOXEL_SIZE))
    maps = {"probability": {"one": "data/given.mrc"}, "boundary": {"one": str(path)}}
    write_sheet(project, ["one"], polarity={"one": "bright"}, **maps)
    # Given ones count, and the segmenter is not asked.
    outlines_asked_for(project)
    write_segmenter(project / "models" / "segmenter", outlines=True)
    status, said = run(project, "--", LABELS)
    assert status == 0, said
    assert "rule segment" not in said
    labels = np.asarray(read_volume(project / LABELS).data)
    assert labels.max() == 2
    assert labels[8, 24, 20] != labels[8, 24, 58]
    record = json.loads((project / "results" / "one" / "cluster.json").read_text())
    assert set(record["inputs"]) == {"given", "boundary"}
    write_mrc(path, Volume(outlines * 0, VOXEL_SIZE))
    status, said = run(project, "--", LABELS)
    assert status == 0, said
    assert read_volume(project / LABELS).data.max() == 1


def test_a_segmenter_without_outlines_is_told_also_where_there_are_results(project):
    # What an input function of `cluster` raises is dropped here, where labels are there.
    classes = "results/one/classes.csv"
    status, said = run(project, "--", classes)
    assert status == 0, said
    outlines_asked_for(project)
    status, said = run(project, "-n", "--", classes)
    assert status != 0
    assert "writes no boundary map" in said
    assert "set cluster.predict_outlines to false" in said
    # The remedy can be had, and it is no fault where none is asked for.
    maps = {"probability": {"one": "data/given.mrc"}, "annotation": {"one": "data/given.mrc"}}
    write_sheet(project, ["one"], polarity={"one": "bright"}, **maps)
    status, said = run(project, "-n", "--", "train_segmenter")
    assert status == 0, said
    maps["boundary"] = {"one": "data/given.mrc"}
    write_sheet(project, ["one"], polarity={"one": "bright"}, **maps)
    status, said = run(project, "-n", "--", LABELS)
    assert status == 0, said


def test_the_report_warns_of_a_map_whose_objects_hang_together(project):
    given, _ = sponge()
    density = np.random.default_rng(0).normal(size=given.shape) + 3 * (given > 0.9)
    write_mrc(project / "data" / "one.mrc", Volume(density.astype(np.float32), VOXEL_SIZE))
    write_mrc(project / "data" / "given.mrc", Volume(given, VOXEL_SIZE))
    status, said = run(project)
    assert status == 0, said
    assert "cluster.predict_outlines to true" in (project / "results" / "report.html").read_text()


@pytest.mark.parametrize("by_class", [True, False])
def test_a_map_of_classes_given_as_labels_is_told(project, by_class):
    labels = np.zeros((16, 48, 80), np.uint8)
    for number, x in enumerate(range(2, 78, 10)):
        labels[4:10, 12:20, x : x + 6] = 1 + number % 2 if by_class else 1 + number
    write_mrc(project / "data" / "labels.mrc", Volume(labels, VOXEL_SIZE))
    write_sheet(project, ["one"], polarity={"one": "bright"}, labels={"one": "data/labels.mrc"})
    status, said = run(project, "--", LABELS)
    assert status == 0, said
    facts = json.loads((project / "results" / "one" / "cluster.json").read_text())["facts"]
    told = "data/labels.mrc: its 2 numbers lie in 8 separate places"
    assert any(told in text for text in facts.get("warnings", [])) == by_class
    assert (told in (project / "logs" / "cluster" / "one.log").read_text()) == by_class


def test_a_mask_counts_where_labels_are_given(project):
    labels = np.zeros((16, 48, 80), np.int16)
    labels[4:12, 12:36, 16:36], labels[4:12, 12:36, 42:62] = 9, 5
    mask = np.zeros(labels.shape, np.uint8)
    mask[:, :, :40] = 255
    for name, data in {"labels": labels, "mask": mask}.items():
        write_mrc(project / "data" / f"{name}.mrc", Volume(data, VOXEL_SIZE))
    given = {name: {"one": f"data/{name}.mrc"} for name in ("labels", "mask")}
    given["ground_truth"] = given["labels"]
    write_sheet(project, ["one"], polarity={"one": "bright"}, **given)
    status, said = run(project)
    assert status == 0, said
    np.testing.assert_array_equal(read_volume(project / LABELS).data, labels == 9)
    table = read_table(project / "results" / "one" / "clusters.csv")
    assert table["component"].tolist() == [9]
    # Densities and scores are those of what was looked at.
    (counts,) = read_table(project / "results" / "counts.csv").to_dict("records")
    assert counts["volume_micrometre3"] == pytest.approx(16 * 48 * 40 * VOXEL_SIZE**3 * 1e-12)
    assert read_table(project / "results" / "groups.csv")["count"].tolist() == [1]
    scores = read_table(project / "results" / "evaluation.csv").set_index("metric")["value"]
    assert scores["instance_f1"] == scores["voxel_recall"] == 1
    # The end of the mask cuts it then.
    mask[:, :, 30:] = 0
    write_mrc(project / "data" / "mask.mrc", Volume(mask, VOXEL_SIZE))
    status, said = run(project, "--", "results/groups.csv", "results/evaluation.csv")
    assert status == 0, said
    assert read_table(project / "results" / "census.csv")["touches_border"].tolist() == [True]
    assert read_table(project / "results" / "groups.csv")["count_whole"].tolist() == [0]


def write_pyramid(path, data):
    """Write OME-Zarr whose first level is twice as fine as `data`, the second `data`."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    datasets = []
    for level, voxels in enumerate((data.repeat(2, 0).repeat(2, 1).repeat(2, 2), data)):
        group.create_array(str(level), data=voxels)
        scale = [{"type": "scale", "scale": [VOXEL_SIZE / 2 * 2**level] * 3}]
        datasets.append({"path": str(level), "coordinateTransformations": scale})
    axes = [{"name": name, "type": "space", "unit": "angstrom"} for name in "zyx"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]


def test_of_zarr_companions_the_level_of_the_tomogram_is_read(project):
    density = np.asarray(read_volume(project / "data" / "one.mrc").data)
    labels = np.zeros(density.shape, np.uint8)
    labels[4:12, 12:36, 16:36], labels[4:12, 12:36, 42:62] = 9, 5
    mask = np.ones(labels.shape, np.uint8)
    mask[:, :, 42:] = 0
    given = np.where(labels, np.float32(0.9), 0)
    for name, data in {"one": density, "labels": labels, "mask": mask, "map": given}.items():
        write_pyramid(project / "data" / f"{name}.zarr", data)
    sheet = {"path": {"one": "data/one.zarr"}, "voxel_size": {"one": "20"}}
    sheet |= {"mask": {"one": "data/mask.zarr"}, "polarity": {"one": "bright"}}
    sheet["annotation"] = {"one": "data/labels.zarr"}
    targets = ["--", LABELS, "results/one/pictures.json"]
    for column, name in (("labels", "labels"), ("probability", "map")):
        write_sheet(project, ["one"], **sheet, **{column: {"one": f"data/{name}.zarr"}})
        status, said = run(project, *targets)
        assert status == 0, said
        found = np.asarray(read_volume(project / LABELS).data)
        assert found.max() == 1
        assert found[8, 24, 26] == 1
        assert not found[:, :, 42:].any()
        facts = json.loads((project / "results" / "one" / "input.json").read_text())
        assert facts["shape"] == [16, 48, 80]
        assert not any("is used" in text for text in facts["warnings"])
