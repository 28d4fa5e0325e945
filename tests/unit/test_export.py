import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tomocensus.export import (
    euler_from_major_axis,
    read_imod_points,
    read_picks,
    read_star,
    write_imod_points,
    write_imod_points_of_classes,
    write_picks,
    write_star,
    write_stars_of_classes,
)
from tomocensus.measure import measure

FACTS = {"tomogram": "t", "shape": [20, 30, 40], "voxel_size": 4.0}
PLACE = ["x_voxel", "y_voxel", "z_voxel"]


@pytest.fixture
def instances():
    labels = np.zeros((20, 30, 40), dtype=int)
    labels[2:5, 4:6, 8:20], labels[10:18, 20:22, 30:33] = 1, 4
    return measure(labels, 4.0, (0, 0, 0))


def test_round_trips(tmp_path, instances):
    write_imod_points(tmp_path / "p.txt", instances)
    np.testing.assert_allclose(read_imod_points(tmp_path / "p.txt"), instances[PLACE], atol=1e-3)
    write_picks(tmp_path / "p.ndjson", instances, FACTS)
    picks = read_picks(tmp_path / "p.ndjson")
    np.testing.assert_allclose(picks[PLACE], instances[PLACE], atol=1e-3)
    assert list(picks["instance"]) == [1, 4]


def test_points_of_each_class(tmp_path, instances):
    named = instances.iloc[[0, 1, 0]].assign(**{"class": ["b/c", "a", "b/c"]})
    assert write_imod_points_of_classes(tmp_path / "points", named) == ["a.txt", "b_c.txt"]
    for name, row in (("a.txt", [1]), ("b_c.txt", [0, 0])):
        found = read_imod_points(tmp_path / "points" / name)
        np.testing.assert_allclose(found, instances[PLACE].iloc[row], atol=1e-3)


@pytest.mark.parametrize(("centre", "middle"), [("half", 20.0), ("exact", 19.5)])
def test_star(tmp_path, instances, centre, middle):
    write_star(tmp_path / "5.star", instances, FACTS, centre=centre)
    found = read_star(tmp_path / "5.star")["rlnCenteredCoordinateXAngst"] / 4 + middle
    np.testing.assert_allclose(found, instances["x_voxel"], atol=1e-3)
    write_star(tmp_path / "4.star", instances, FACTS, version=4)
    found = read_star(tmp_path / "4.star")
    np.testing.assert_allclose(found["rlnCoordinateZ"], instances["z_voxel"], atol=1e-3)


def test_a_star_file_of_each_class_has_the_particles_of_all_tomograms(tmp_path, instances):
    one, two = instances.assign(**{"class": ["b c", "b/c"]}), instances.assign(**{"class": "B c"})
    folder = tmp_path / "particles"
    folder.mkdir()
    (folder / "old.star").write_text("")
    facts = [FACTS, {**FACTS, "tomogram": "007"}]
    files = write_stars_of_classes(folder, zip([one, two], facts, strict=True))
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    assert len({name.lower() for name in files}) == 3
    # In the order of the classes' names.
    found = [read_star(folder / name) for name in files]
    assert [table["tomocensusClass"].tolist() for table in found] == [["B_c"] * 2, ["b_c"], ["b/c"]]
    assert [set(table["rlnTomoName"]) for table in found] == [{"007"}, {"t"}, {"t"}]
    assert found[2]["rlnTomoParticleId"].tolist() == [4]
    place = found[2]["rlnCenteredCoordinateXAngst"] / 4 + 20
    np.testing.assert_allclose(place, instances["x_voxel"][1:], atol=1e-3)
    assert write_stars_of_classes(folder, [(instances[:0], FACTS)]) == []
    assert list(folder.iterdir()) == []


def test_classes_with_letters_that_end_a_star_row_stay_in_one_column(tmp_path, instances):
    named = instances.assign(**{"class": ["er #2", '5\' "cap" end']})
    write_star(tmp_path / "a.star", named, FACTS)
    found = read_star(tmp_path / "a.star")
    assert found["tomocensusClass"].tolist() == ["er_2", "5_cap_end"]
    assert found["rlnTomoParticleId"].tolist() == [1, 4]


def test_euler_angles_turn_z_onto_the_axis():
    major = np.random.default_rng(1).normal(size=(20, 3))
    major /= np.linalg.norm(major, axis=1)[:, None]
    # As rounding leaves it, too.
    major = np.vstack([major, np.eye(3), -np.eye(3), [0, 0, np.nextafter(1, 2)]])
    turned = Rotation.from_euler("ZYZ", euler_from_major_axis(major), degrees=True)
    np.testing.assert_allclose(turned.inv().apply([0, 0, 1]), major, atol=1e-9)
