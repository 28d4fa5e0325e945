import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tomocensus.export import (
    copick_objects,
    remove_other_runs,
    write_copick_config,
    write_copick_run,
)
from tomocensus.io import read_header, read_volume
from tomocensus.picks import in_voxels, read
from tomocensus.segment.annotated import read_annotated

FACTS = {"tomogram": "cell_01", "shape": (9, 140, 12), "voxel_size": 10.0}
COLOURS = {"dense_body": (1, 2, 3), "dense body": (4, 5, 6), "vesicle": (7, 8, 9)}


@pytest.fixture
def labels():
    found = np.zeros(FACTS["shape"], np.int16)
    found[2:4, 3:6, 2:9], found[5, 135:, 1], found[6:, 20:30, 4:8] = 1, 3, 300
    return found


@pytest.fixture
def table():
    rows = [
        (1, "vesicle", 0.9, 200.0, 5.0, 4.0, 2.5, 0.6, 0.0, 0.8),
        (3, "dense_body", np.nan, 100.0, 1.0, 137.0, 5.0, 0.0, -1.0, 0.0),
        (300, "vesicle", 0.7, 400.0, 5.5, 24.5, 7.0, 0.0, 0.0, 1.0),
    ]
    names = ["instance", "class", "confidence", "equivalent_diameter_angstrom"]
    names += ["x_voxel", "y_voxel", "z_voxel", "major_x", "major_y", "major_z"]
    return pd.DataFrame(rows, columns=names)


@pytest.fixture
def project(tmp_path, table, labels):
    other = table.head(1).assign(**{"class": "dense body"})
    objects = copick_objects([table, other], COLOURS)
    folder = tmp_path / "results" / "copick"
    write_copick_config(folder / "copick.json", objects, tmp_path / "copick")
    write_copick_run(folder / "ExperimentRuns" / "cell_01", table, FACTS, labels, objects)
    return folder


def test_each_class_is_an_object_of_its_own_with_a_name_that_copick_takes(project):
    told = json.loads((project / "copick.json").read_text())
    found = {one["name"]: one for one in told["pickable_objects"]}
    assert list(found) == ["dense-body", "dense-body-2", "vesicle"]
    assert [one["metadata"]["class"] for one in found.values()] == [
        "dense body", "dense_body", "vesicle",
    ]  # fmt: skip
    assert [one["label"] for one in found.values()] == [1, 2, 3]
    assert found["vesicle"]["radius"] == 150.0
    assert found["dense-body"]["color"] == [4, 5, 6, 255]


def test_copick_saves_picks_where_no_export_replaces_them(project):
    told = json.loads((project / "copick.json").read_text())
    assert told["static_root"] == f"local://{project}"
    overlay = told["overlay_root"].removeprefix("local://")
    assert overlay == str(project.parents[1] / "copick")
    assert told["overlay_fs_args"] == {"auto_mkdir": True}
    assert not Path(overlay).is_relative_to(project.parent)


def test_runs_of_tomograms_that_are_gone_go(project):
    runs = project / "ExperimentRuns"
    (runs / "cell_00" / "Picks").mkdir(parents=True)
    remove_other_runs(runs, ["cell_01", "cell_02"])
    assert [run.name for run in runs.iterdir()] == ["cell_01"]
    assert list((runs / "cell_01" / "Picks").iterdir())
    remove_other_runs(project / "none", [])


def test_picks_are_read_again_and_point_along_the_long_axis(project, table):
    folder = project / "ExperimentRuns" / "cell_01" / "Picks"
    assert sorted(path.name for path in folder.iterdir()) == [
        "tomocensus_0_dense-body-2.json", "tomocensus_0_vesicle.json",
    ]  # fmt: skip
    path = folder / "tomocensus_0_vesicle.json"
    found = read(path)
    expected = np.rint(table.loc[[0, 2], ["x_voxel", "y_voxel", "z_voxel"]])
    np.testing.assert_array_equal(in_voxels(found, FACTS["shape"], 10.0), expected)
    assert set(found["tomogram"]) == {"cell_01"}
    points = json.loads(path.read_text())["points"]
    assert [(one["instance_id"], one["score"]) for one in points] == [(1, 0.9), (300, 0.7)]
    other = json.loads((folder / "tomocensus_0_dense-body-2.json").read_text())["points"]
    assert other[0]["score"] == 0
    turned = np.array([one["transformation_"] for one in [*points, *other]])[:, :3, :3]
    axes = table.loc[[0, 2, 1], ["major_x", "major_y", "major_z"]]
    np.testing.assert_allclose(turned @ [0, 0, 1], axes, atol=1e-6)
    np.testing.assert_allclose(turned @ turned.transpose(0, 2, 1), [np.eye(3)] * 3, atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(turned), 1, atol=1e-5)


def test_segmentations_hold_classes_and_instances(project, labels):
    folder = project / "ExperimentRuns" / "cell_01"
    whole = folder / "Segmentations" / "10.000_tomocensus_0_classes-multilabel.zarr"
    assert read_header(whole).voxel_size == 10.0
    expected = np.select([labels == 0, labels == 3], [0, 2], 3)
    np.testing.assert_array_equal(np.asarray(read_volume(whole).data), expected)
    single = folder / "InstanceSegmentations" / "10.000_tomocensus_0_vesicle.zarr"
    found = np.asarray(read_volume(single).data)
    np.testing.assert_array_equal(found, np.where(labels == 3, 0, labels))
    assert found.dtype == np.uint16


def test_a_tomogram_beside_makes_it_training_data(project, labels):
    from tomocensus.io.zarr import write_ome_zarr

    rng = np.random.default_rng(0)
    density = rng.integers(1, 200, labels.shape)
    run = project.parents[1] / "copick" / "ExperimentRuns" / "cell_01"
    (run / "VoxelSpacing10.000").mkdir(parents=True)
    values = np.arange(200, dtype=np.float32)
    write_ome_zarr(run / "VoxelSpacing10.000" / "wbp.zarr", density, 10.0, values)
    (pair,) = read_annotated(project / "copick.json")
    assert pair.kind == "instance"
    np.testing.assert_array_equal(pair.annotation > 0, labels > 0)
    assert len(np.unique(pair.annotation)) == 4
    np.testing.assert_array_equal(np.asarray(pair.tomogram.data), density)


def test_a_tomogram_without_objects_is_a_run_too(tmp_path, table, labels):
    objects = copick_objects([table], COLOURS)
    folder = tmp_path / "cell_02"
    write_copick_run(folder, table.head(0), FACTS, np.zeros_like(labels), objects)
    assert list((folder / "Picks").iterdir()) == []
    (whole,) = (folder / "Segmentations").iterdir()
    assert not np.asarray(read_volume(whole).data).any()
    assert copick_objects([table.head(0)], {}) == []
