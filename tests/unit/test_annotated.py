import json

import numpy as np
import pytest
import zarr

from tomocensus.errors import InputError
from tomocensus.io import write_labels, write_mrc
from tomocensus.segment.annotated import read_annotated
from tomocensus.volume import Volume

SHAPE = (6, 20, 24)


def tomogram(seed=0):
    rng = np.random.default_rng(seed)
    return Volume(rng.normal(size=SHAPE).astype(np.float32), 10.0)


def labels():
    array = np.zeros(SHAPE, np.int16)
    array[2:4, 4:9, 4:9] = 1
    array[2:4, 12:16, 12:16] = 2
    return array


def write_zarr(path, array, voxel_size=10.0):
    """Write OME-Zarr 0.4 with one level."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    group.create_array("0", data=array)
    axes = [{"name": n, "type": "space", "unit": "angstrom"} for n in "zyx"]
    scale = [{"type": "scale", "scale": [voxel_size] * 3}]
    level = {"path": "0", "coordinateTransformations": scale}
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [level]}]


def test_a_folder_pairs_volumes_with_the_annotation_beside_them(tmp_path):
    for name in ("b", "a", "bare"):
        write_mrc(tmp_path / f"{name}.mrc", tomogram())
    write_mrc(tmp_path / "a_annotation.mrc", tomogram().with_data(labels()))
    write_labels(tmp_path / "b_labels.mrc", tomogram().with_data(labels()))
    pairs = read_annotated(tmp_path, "instance")
    assert [pair.name for pair in pairs] == ["a", "b"]
    for pair in pairs:
        assert np.array_equal(pair.annotation, labels())
        assert pair.kind == "instance"
        assert pair.tomogram.voxel_size == 10.0


def test_dots_in_names_are_their_own(tmp_path):
    for name in ("TS_1_10.00Apx", "TS_2_10.00Apx", "pos.lam1", "pos.lam2"):
        write_mrc(tmp_path / f"{name}.mrc", tomogram())
    for name in ("TS_1_10.00Apx_annotation", "TS_2_10.00Apx_labels", "pos_annotation"):
        write_mrc(tmp_path / f"{name}.mrc.gz", tomogram().with_data(labels()))
    pairs = read_annotated(tmp_path)
    assert [pair.name for pair in pairs] == ["TS_1_10.00Apx", "TS_2_10.00Apx"]


def test_two_annotations_of_one_volume_are_an_error(tmp_path):
    write_mrc(tmp_path / "a.mrc", tomogram())
    for end in ("annotation", "labels"):
        write_mrc(tmp_path / f"a_{end}.mrc", tomogram().with_data(labels()))
    with pytest.raises(InputError, match="two annotations"):
        read_annotated(tmp_path)


def test_a_sheet_gives_its_annotated_rows_and_their_groups(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_mrc("a.mrc", tomogram())
    write_mrc("a_annotation.mrc", tomogram().with_data(labels()))
    (tmp_path / "sheet.tsv").write_text(
        "tomogram\tpath\tannotation\tgroup\none\ta.mrc\ta_annotation.mrc\ttitan\ntwo\ta.mrc\t\t\n"
    )
    (pair,) = read_annotated("sheet.tsv")
    assert (pair.name, pair.group, pair.kind) == ("one", "titan", "binary")


def copick(folder):
    """Write a copick project: two runs, one of them with segmentations of two objects."""
    (folder / "config.json").write_text(json.dumps({"overlay_root": "local://project"}))
    for run in ("run_a", "run_b"):
        base = folder / "project" / "ExperimentRuns" / run
        write_zarr(base / "VoxelSpacing10.000" / "wbp.zarr", tomogram().data)
    base = folder / "project" / "ExperimentRuns" / "run_a" / "Segmentations"
    for number, name in ((1, "membrane"), (2, "ribosome")):
        write_zarr(base / f"10.000_me_0_{name}.zarr", (labels() == number).astype(np.uint8))
    return folder / "config.json"


def test_a_copick_project_gives_its_segmentations_as_classes(tmp_path):
    (pair,) = read_annotated(copick(tmp_path))
    assert (pair.name, pair.kind) == ("run_a", "semantic")
    assert np.array_equal(pair.annotation, labels())
    assert pair.tomogram.voxel_size == 10.0


def test_copick_instances_come_before_classes(tmp_path):
    config = copick(tmp_path)
    base = tmp_path / "project" / "ExperimentRuns" / "run_a" / "InstanceSegmentations"
    write_zarr(base / "10.000_me_0_vesicle.zarr", labels().astype(np.uint16) * 5)
    (pair,) = read_annotated(config)
    assert pair.kind == "instance"
    assert np.array_equal(pair.annotation, labels() * 5)


def test_of_a_copick_run_what_has_no_tomogram_of_its_voxel_size_is_passed_over(tmp_path):
    config = copick(tmp_path)
    config.write_text(
        json.dumps({"overlay_root": "local://mine", "static_root": "local://project"})
    )
    mine = tmp_path / "mine" / "ExperimentRuns" / "run_a" / "Segmentations"
    coarse = np.ones(SHAPE, np.uint8).repeat(2, axis=2)
    for size in ("1.000", "5.000", "20.000"):
        write_zarr(mine / f"{size}_me_0_membrane.zarr", coarse)
    (pair,) = read_annotated(config)
    assert np.array_equal(pair.annotation, labels())


def test_of_a_copick_run_in_several_voxel_sizes_the_finest_is_taken(tmp_path):
    config = copick(tmp_path)
    run = tmp_path / "project" / "ExperimentRuns" / "run_a"
    write_zarr(run / "VoxelSpacing5.000" / "wbp.zarr", tomogram().data)
    write_zarr(run / "Segmentations" / "5.000_me_0_membrane.zarr", labels().astype(np.uint8) * 3)
    # What a name begins with that is no number has no tomogram.
    write_zarr(run / "Segmentations" / "draft_0_membrane.zarr", labels().astype(np.uint8))
    (pair,) = read_annotated(config)
    assert pair.tomogram.voxel_size == 5.0
    assert np.array_equal(pair.annotation, labels() * 3)


def test_a_remote_copick_project_is_refused_with_a_remedy(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"overlay_root": "s3://bucket/project"}))
    with pytest.raises(InputError, match="not on this machine"):
        read_annotated(tmp_path / "c.json")


def test_nothing_annotated_is_an_error(tmp_path):
    with pytest.raises(InputError, match="nothing annotated"):
        read_annotated(tmp_path)
