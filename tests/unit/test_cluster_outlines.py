import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tomocensus.cluster import ClusterParameters, cluster
from tomocensus.cluster.outlines import borders, regrow, split_by_outlines
from tomocensus.errors import InputError
from tomocensus.segment.targets import outline


def row(gap=0.0):
    """Three boxes side by side and their outlines; a part of each wall is not seen."""
    labels = np.zeros((20, 20, 50), np.int32)
    for number in range(3):
        labels[3:17, 3:17, 4 + 14 * number : 18 + 14 * number] = number + 1
    edges = np.stack([outline(plane) for plane in labels]).astype(np.float32)
    inner = edges * ndimage.binary_erosion(labels > 0, iterations=2)
    hole = np.zeros(labels.shape, bool)
    hole[:, 3 : 3 + round(14 * gap)] = True
    return labels, np.where(hole & (inner > 0), 0, edges)


def same(one, two):
    """Tell whether two labelmaps are one partition of the same voxels."""
    pairs = np.unique(np.stack([one.ravel(), two.ravel()]), axis=1)
    return all(len(np.unique(side)) == len(side) for side in pairs)


@pytest.mark.parametrize("gap", [0.0, 0.3])
def test_outlines_part_boxes_that_fill_each_others_faces(gap):
    labels, edges = row(gap)
    regions = split_by_outlines(labels > 0, edges)
    assert same(regions, labels)


def test_without_outlines_an_object_is_one_region_however_long():
    labels, edges = row()
    assert split_by_outlines(labels > 0, edges * 0).max() == 1


def bent_plate(thickness=5.0):
    """A piece of a wide shell and, touching each other, two boxes; their blurred, uneven map."""
    _, y, x = np.indices((24, 90, 90))
    radius = np.hypot(y, x)
    labels = (np.abs(radius - 70) <= thickness / 2).astype(np.int32)
    labels[6:18, 10:24, 10:24], labels[6:18, 10:24, 24:38] = 2, 3
    edges = np.stack([outline(plane) for plane in labels]).astype(np.float32)
    uneven = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=labels.shape), 2)
    edges = ndimage.gaussian_filter(edges, (0, 0.8, 0.8)) * (1 + 0.4 * uneven / uneven.std())
    return labels, np.clip(edges, 0, 1).astype(np.float32)


def test_a_thin_wall_that_its_own_outlines_fill_is_not_shredded():
    labels, edges = bent_plate()
    wall = labels == 1
    assert np.median(edges[wall]) > 0.25  # an outline all over, by its height alone
    regions = split_by_outlines(labels > 0, edges)
    assert len(np.unique(regions[wall])) == 1
    # The boxes, on whose face much more is seen than inside them, stay two.
    assert regions.max() == 3
    assert regions[12, 17, 17] != regions[12, 17, 31]


def test_every_object_voxel_has_a_region_and_no_other_has():
    rng = np.random.default_rng(0)
    mask = ndimage.gaussian_filter(rng.normal(size=(20, 30, 30)), 2) > 0
    edges = np.clip(ndimage.gaussian_filter(rng.normal(size=mask.shape), 1) * 2, 0, 1)
    regions = split_by_outlines(mask, edges)
    assert np.array_equal(regions > 0, mask)
    assert np.array_equal(np.unique(regions), np.arange(regions.max() + 1))


@settings(max_examples=10)
@given(st.permutations([0, 1, 2]), st.lists(st.booleans(), min_size=3, max_size=3))
def test_equal_weights_give_the_same_regions_turned_and_mirrored(order, mirrored):
    labels, edges = row(0.2)
    flips = [axis for axis, flip in enumerate(mirrored) if flip]
    turned = [np.flip(part.transpose(order), flips).copy() for part in (labels, edges)]
    # Across slices as within: turning changes which faces those are.
    found = split_by_outlines(turned[0] > 0, turned[1], across=1.0)
    assert same(found, turned[0])


def test_borders_lie_on_both_sides_and_regrowing_undoes_the_cut():
    labels, _ = row()
    cut = borders(labels)
    assert cut[10, 10, 17]
    assert cut[10, 10, 18]
    assert not cut[10, 10, 16]
    assert not cut[10, 10, 4]
    parted = np.where(cut, 0, labels)
    regrow(parted, labels)
    assert np.array_equal(parted, labels)


def test_haze_is_dropped_and_counted_and_can_be_kept():
    chance = np.zeros((20, 40, 40), np.float32)
    chance[4:16, 4:16, 4:16] = 0.95
    chance[4:16, 24:36, 24:36] = 0.56
    found = cluster(chance, 10.0)
    assert len(found.table) == 1
    assert found.facts["dropped_weak"] == 1
    assert found.table["mean_probability"].iloc[0] > 0.8
    kept = cluster(chance, 10.0, ClusterParameters(minimum_probability=0))
    assert len(kept.table) == 2


def test_parted_objects_are_called_split_and_are_in_order():
    labels, edges = row()
    found = cluster((labels > 0).astype(np.float32), 10.0, boundary=edges)
    assert same(found.labels, labels)
    assert set(found.table["origin"]) == {"split"}
    assert found.table["component"].nunique() == 1
    first = [np.nonzero(found.labels.ravel() == n)[0][0] for n in found.table["instance"]]
    assert first == sorted(first)


def test_a_blurred_boundary_map_does_not_shred():
    labels, _ = row()
    haze = np.full(labels.shape, 0.3, np.float32)
    found = cluster((labels == 1).astype(np.float32), 10.0, boundary=haze)
    assert len(found.table) == 1


def touching_pairs():
    """Boxes in touching pairs, a pair through a slab's end, specks and noise; their outlines."""
    rng = np.random.default_rng(0)
    labels = np.zeros((44, 60, 60), np.int32)
    number = 0
    for z, y in ((2, 3), (15, 3), (30, 3), (2, 30), (15, 30), (30, 30)):
        for x in (4, 18):
            number += 1
            labels[z : z + 12, y : y + 14, x : x + 14] = number
    edges = np.stack([outline(plane) for plane in labels]).astype(np.float32)
    edges = np.clip(edges + 0.1 * rng.random(labels.shape), 0, 1).astype(np.float32)
    chance = (0.9 * (labels > 0) + 0.1 * rng.random(labels.shape)).astype(np.float32)
    chance[:, 50, 50] = 1
    return chance, edges


@pytest.mark.parametrize("haze", [0.0, 0.4], ids=["sharp", "blurred"])
def test_slabs_threads_and_files_give_the_same_with_outlines(haze, tmp_path):
    chance, edges = touching_pairs()
    edges = np.maximum(edges, np.float32(haze))
    memory = cluster(chance, 10.0, boundary=edges)
    disk = cluster(chance, 10.0, boundary=edges, slab=10, threads=2, scratch=tmp_path)
    assert isinstance(disk.labels, np.memmap)
    assert len(memory.table) > 1
    np.testing.assert_array_equal(memory.labels, disk.labels)
    assert memory.table.equals(disk.table)
    assert memory.facts == disk.facts


def test_regions_of_an_object_do_not_depend_on_what_lies_far_away():
    chance, edges = touching_pairs()
    whole = cluster(chance, 10.0, boundary=edges).labels
    part = cluster(chance[:, :28, :44], 10.0, boundary=edges[:, :28, :44]).labels
    assert same(part[:, :20], whole[:, :20, :44])


@pytest.mark.parametrize("size", [(10.0, 10.0), 0.0, (10.0, -1.0, 10.0), (10.0, np.nan, 10.0)])
def test_a_wrong_voxel_size_is_an_error(size):
    labels, _ = row()
    assert len(cluster(labels > 0, (10.0, 10.0, 10.0)).table) == 1
    with pytest.raises(InputError, match="three"):
        cluster(labels > 0, size)


def test_an_object_that_is_all_outline_is_one():
    """Alone in its box, with no voxel that could be a seed."""
    mask = np.zeros((7, 7, 7), bool)
    mask[2:5, 2:5, 2:5] = True
    regions = split_by_outlines(mask, np.ones(mask.shape, np.float32))
    assert np.array_equal(regions > 0, mask)
    assert regions.max() == 1


def test_what_lies_inside_another_object_stays_apart_beside_a_gap_of_the_map():
    z, y, x = np.indices((48, 48, 48)) - 23.5
    from_inner = np.sqrt(z**2 + y**2 + (x - 4) ** 2)
    probability = (z**2 + y**2 + x**2 < 21**2).astype(np.float32)
    boundary = np.where(np.abs(from_inner - 7) < 1, 0.9, 0.0).astype(np.float32)
    # Around the gap the regions of both meet at corners of voxels.
    probability[(np.abs(from_inner - 7) < 2) & (x - 4 > 0.4 * from_inner)] = 0
    labels = cluster(probability, 16.0, boundary=boundary).labels
    assert labels.max() == 2
    inner = np.bincount(labels[from_inner < 6]).argmax()
    found, wanted = labels == inner, (from_inner < 7) & (probability > 0)
    assert np.count_nonzero(found & wanted) > 0.6 * np.count_nonzero(found | wanted)


@pytest.mark.parametrize("radius", [5, 7, 10])
def test_what_lies_inside_another_object_reaches_to_the_middle_of_its_outline(radius):
    """However small it is: of a small one nearly all is outline, as of a thin wall."""
    z, y, x = np.indices((48, 48, 48)) - 23.5
    away, from_inner = np.sqrt(z**2 + y**2 + x**2), np.sqrt(z**2 + y**2 + (x - 4) ** 2)
    truth = np.where(from_inner < radius, 2, away < 21).astype(np.int32)
    edges = np.stack([outline(plane) for plane in truth]).astype(np.float32)
    edges = ndimage.gaussian_filter(0.8 * edges, (0, 0.8, 0.8))
    labels = cluster((truth > 0).astype(np.float32), 16.0, boundary=edges).labels
    assert labels.max() == 2
    found, wanted = labels == labels[23, 23, 27], truth == 2
    assert np.count_nonzero(found & wanted) > 0.85 * np.count_nonzero(found | wanted)
    assert np.array_equal(labels > 0, truth > 0)
