"""The analytic suite at three sizes, real membranes, ragged maps, slabs and frames."""

import errno
import os
import sys
from pathlib import Path

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomocensus.cluster import ClusterParameters, cluster, find_shared_walls, label_slabs
from tomocensus.cluster.pieces import to_cubes
from tomocensus.errors import InputError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from cluster_ragged import corrupted
from cluster_scenes import ball, dense_scene, f1, rough
from cluster_shapes import cases, draw_solid, solids, unit

MEMBRANES = Path(__file__).parents[2] / ".." / "shared" / "data" / "membranes"

# What is wrong today, also listed in docs/clustering.md: name and noise. A shape that turns right
# may be struck off.
KNOWN = {
    400: {
        ("unequal balls overlapping 30 %", 0.0),
        ("unequal balls overlapping 30 %", 0.6),
        ("balls overlapping 40 %", 0.6),
        ("capsules end to end", 0.6),
    },
    30_000: {("torn banana shell", 0.6)},
    3_000_000: set(),
}
LARGE = [
    "ball",
    "banana 180",
    "T",
    "taper",
    "balls overlapping 20 %",
    "tube with a neck of 70 %",
    "open shell",
]


def wrong(size, names=None, noises=(0.0, 0.6)):
    parameters = ClusterParameters(minimum_volume=size / 12)
    failed, total = set(), 0
    for name, _, _, noise, mask, expected in cases([size], 1, noises, names):
        total += 1
        if len(cluster(mask, 1.0, parameters).table) != expected:
            failed.add((name, noise))
    return failed, total


@pytest.mark.slow
@pytest.mark.parametrize(("size", "least"), [(400, 0.95), (30_000, 0.95)])
def test_analytic_suite(size, least):
    failed, total = wrong(size)
    assert failed <= KNOWN[size]
    assert 1 - len(failed) / total >= least


@pytest.mark.parametrize("noise", [0.0, 0.6])
def test_torn_shells_with_thick_walls(noise):
    names = ["torn shell", "torn shells, touching", "torn nested shells", "torn capsule shell"]
    assert wrong(300_000, names, (noise,)) == (set(), 4)


@pytest.mark.slow
def test_shapes_of_millions_of_voxels():
    failed, _ = wrong(3_000_000, LARGE, (0.6,))
    assert failed <= KNOWN[3_000_000]


@pytest.mark.slow
@pytest.mark.parametrize("edges", [(2, 1, 1), (1, 1.5, 1.5)])
def test_analytic_suite_of_voxels_that_are_no_cubes(edges):
    spacing, failed, total = unit(edges), [], 0
    for name, _, _, noise, mask, expected in cases([3000], 1, (0.0, 0.6), spacing=spacing):
        found = cluster(mask, spacing, ClusterParameters(minimum_volume=250)).table
        total += 1
        if len(found) != expected:
            failed.append((name, noise))
    assert total == 136
    assert len(failed) <= 0.05 * total, failed


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.tuples(*[st.sampled_from([1.0, 1.3, 2.0, 3.5])] * 3))
def test_on_the_grid_of_cubes_every_voxel_is_as_it_was(seed, aspect):
    aspect = tuple(a / min(aspect) for a in aspect)
    mask = np.random.default_rng(seed).random((5, 7, 6)) < 0.5
    cubes, at = to_cubes(mask, aspect)
    np.testing.assert_array_equal(cubes[np.ix_(*at)], mask)
    assert cubes.shape == tuple(middles[-1] + 1 for middles in at)


@pytest.mark.filterwarnings("error")
def test_nothing_stays_nothing_on_the_grid_of_cubes():
    assert not to_cubes(np.zeros((3, 4, 5), bool), (2.0, 1.0, 1.5))[0].any()


@pytest.mark.parametrize("percent", [10, 30])
def test_flat_voxels_part_balls_as_cubes_do(percent):
    spacing = unit((2, 1, 1))
    solid, _ = solids()[f"balls overlapping {percent} %"]
    mask = draw_solid(solid, 20_000, noise=0.6, spacing=spacing)
    found = cluster(mask, spacing, ClusterParameters(minimum_volume=500))
    assert np.array_equal(found.labels > 0, mask)
    assert found.table["voxels"].min() > 0.45 * mask.sum()
    assert found.table["volume_angstrom3"].sum() == pytest.approx(mask.sum())


@pytest.mark.parametrize(
    "name",
    ["S", "helix", "tight banana", "wavy tube", "Y", "thin branch", "cisterna", "bent taper"],
)
def test_bends_tapers_and_branches_never_cut(name):
    solid, parts = solids()[name]
    assert parts == 1
    for seed in range(2):
        mask = draw_solid(solid, 15_000, noise=0.6, seed=seed)
        table = cluster(mask, 1.0, ClusterParameters(minimum_volume=500)).table
        assert len(table) == 1
        # Of what was taken apart and put together again, nothing is doubtful.
        assert table["origin"][0] != "split"
        assert table["neck_ratio"][0] == table["score"][0] == 1


@pytest.mark.parametrize("percent", [0, 10, 20, 30, 40])
def test_overlapping_balls_part_in_the_middle(percent):
    solid, _ = solids()[f"balls overlapping {percent} %"]
    mask = draw_solid(solid, 20_000, noise=0.6)
    table = cluster(mask, 1.0, ClusterParameters(minimum_volume=500)).table
    assert len(table) == 2
    assert table["voxels"].min() > 0.45 * mask.sum()


@pytest.mark.parametrize("kind", ["solid", "shell", "caps", "torn", "mixed"])
def test_dense_scene_of_fifty(kind):
    mask, truth = dense_scene(6, shape=(80, 128, 128), count=50, kind=kind)
    mask = rough(mask, np.random.default_rng(6), 0.8)
    labels = cluster(mask, 1.0, ClusterParameters(minimum_volume=60)).labels
    assert f1(labels, truth) >= (0.8 if kind == "torn" else 0.95)


@pytest.mark.parametrize(
    ("strength", "least"), [("ragged", 0.75), pytest.param("bad", 0.6, marks=pytest.mark.slow)]
)
def test_ragged_maps(strength, least):
    _, truth = dense_scene(0, count=60)
    chance, outline = corrupted(truth, np.random.default_rng(0), strength)
    parameters = ClusterParameters(minimum_volume=300)
    assert f1(cluster(chance, 1.0, parameters).labels, truth) >= least
    both = cluster(chance, 1.0, parameters, boundary=outline)
    assert f1(both.labels, truth) >= 0.7


@pytest.mark.skipif(not MEMBRANES.is_dir(), reason="real membranes are not here")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["AP", "Phagophore"])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_real_membranes_stay_whole(name, label):
    tifffile = pytest.importorskip("tifffile")
    volume = tifffile.imread(MEMBRANES / f"bieber_{name}_middle_labels.tif")
    mask = volume == label if label else volume > 0
    box = tuple(slice(max(0, at.min() - 3), at.max() + 4) for at in np.nonzero(mask))
    mask = np.ascontiguousarray(mask[box])
    parameters = ClusterParameters()
    table = cluster(mask, 14.08, parameters).table
    voxels = np.bincount(cc3d.connected_components(mask, connectivity=26).ravel())[1:]
    assert len(table) == np.count_nonzero(voxels >= parameters.minimum_volume / 14.08**3)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.floats(0.02, 0.5), st.integers(1, 12))
def test_slabs_give_the_very_same_components(seed, density, slab):
    mask = np.random.default_rng(seed).random((11, 9, 10)) < density
    out = np.zeros(mask.shape, np.int32)
    count = label_slabs(mask, out, slab)
    whole = cc3d.connected_components(mask, connectivity=26)
    assert count == whole.max()
    np.testing.assert_array_equal(out, whole)


@settings(max_examples=6)
@given(
    st.integers(0, 1000),
    st.sampled_from(["solid", "caps", "mixed"]),
    st.integers(0, 3),
    st.sampled_from([None, 0, 1, 2]),
    st.tuples(*[st.integers(0, 4)] * 3),
)
def test_frame_does_not_matter(seed, kind, turns, flip, shift):
    mask, _ = dense_scene(seed, shape=(48, 64, 64), count=9, kind=kind)

    def change(volume):
        volume = np.rot90(volume, turns, (1, 2))
        volume = volume if flip is None else np.flip(volume, flip)
        return np.ascontiguousarray(np.pad(volume, [(n, 4 - n) for n in shift]))

    parameters = ClusterParameters(minimum_volume=60)
    before = change(cluster(mask, 1.0, parameters).labels)
    after = cluster(change(mask), 1.0, parameters, threads=2, slab=17).labels
    assert before.max() == after.max()
    # Voxels half way between two parts may fall to either.
    assert f1(after, before, least=0.95) == 1.0


def test_arrays_on_disk_give_the_same(tmp_path):
    mask, _ = dense_scene(3, shape=(48, 64, 64), count=9, kind="mixed")
    parameters = ClusterParameters(minimum_volume=60)
    memory = cluster(mask, 1.0, parameters)
    disk = cluster(mask, 1.0, parameters, slab=10, scratch=tmp_path)
    assert isinstance(disk.labels, np.memmap)
    np.testing.assert_array_equal(memory.labels, disk.labels)
    assert memory.table.equals(disk.table)
    assert memory.facts == disk.facts


def test_a_full_disk_is_told_before_arrays_on_it_are_used(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"No space left on device.*Free some space"):
        cluster(np.ones((8, 8, 8), bool), 1.0, scratch=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_shared_wall_is_no_bar_of_a_net():
    shape = (40, 40, 70)
    solid = ball(shape, (20, 20, 24), 16) | ball(shape, (20, 20, 46), 16)
    lumens = ball(shape, (20, 20, 24), 14) & (np.arange(70) < 34)
    lumens |= ball(shape, (20, 20, 46), 14) & (np.arange(70) > 36)
    wall = find_shared_walls(solid & ~lumens, solid)
    assert wall is not None
    assert set(np.nonzero(wall)[2]) <= set(range(31, 40))
    assert len(cluster(solid & ~lumens, 1.0, ClusterParameters(minimum_volume=60)).table) == 2
    assert find_shared_walls(solid, solid) is None
