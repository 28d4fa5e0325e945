"""The loops over voxels that necks, shells and outlines are judged by, against slow references."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tomocensus.cluster import ClusterParameters, cluster, fill_slices, necks, outlines, shells

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from cluster_scenes import ball, shell

SMALL = ClusterParameters(minimum_volume=60)
SEEDS = st.integers(0, 2**32 - 1)
FACES = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]


def neighbours(shape, steps):
    """Yield all pairs of voxels that one of the steps leads from and to."""
    for place, step in itertools.product(np.ndindex(shape), steps):
        other = tuple(np.add(place, step))
        if all(0 <= at < side for at, side in zip(other, shape, strict=True)):
            yield place, other


def drawn(seed, labels=4):
    """Return random labels and depths of few values, for many are the same then."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(2, 6, 3))
    basins = rng.integers(0, labels, shape).astype(np.int32)
    depth = rng.integers(1, 5, shape).astype(np.float32) * (basins > 0)
    return rng, basins, depth


@settings(max_examples=20)
@given(SEEDS)
def test_saddles_are_the_deepest_contacts(seed):
    _, basins, depth = drawn(seed)
    steps = [step for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]
    found = {}
    for one, two in neighbours(basins.shape, steps):
        pair = tuple(sorted((int(basins[one]), int(basins[two]))))
        if 0 < pair[0] < pair[1]:
            middle = np.add(one, two) / 2
            found.setdefault(pair, []).append((min(depth[one], depth[two]), middle))
    keys, heights, points = necks._saddles(basins, depth)
    assert sorted((int(key) >> 32, int(key) & 0xFFFFFFFF) for key in keys) == sorted(found)
    for key, height, point in zip(keys, heights, points, strict=True):
        contacts = found[int(key) >> 32, int(key) & 0xFFFFFFFF]
        assert height == max(depth for depth, _ in contacts)
        deepest = [middle for depth, middle in contacts if depth == height]
        np.testing.assert_allclose(point, np.mean(deepest, axis=0))


@settings(max_examples=20)
@given(SEEDS)
def test_what_is_measured_at_a_neck_is_what_counting_says(seed):
    rng, basins, depth = drawn(seed, labels=5)
    # Basin 4 was merged into 1.
    root = np.array([0, 1, 2, 3, 1])
    parts = root[basins]
    grid = np.moveaxis(np.indices(parts.shape), 0, -1)
    point, reach = rng.uniform(0, 5, 3), float(rng.uniform(1, 6))

    away = np.linalg.norm(grid - point, axis=-1)
    deep = away[(parts == 1) & (depth >= 2)].min(initial=reach)
    assert necks._nearest_deep(basins, root, depth, 1, point, 2, reach) == pytest.approx(deep)

    low = np.minimum(rng.integers(0, 2, 3), np.array(parts.shape) - 1)
    high = np.array(parts.shape) - rng.integers(0, 2, 3)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    normal, middles = np.zeros(3), []
    for one, two in neighbours(parts[box].shape, FACES):
        pair = parts[box][one], parts[box][two]
        if sorted(pair) == [1, 2]:
            normal += np.subtract(two, one) * (1 if pair == (1, 2) else -1)
            middles.append(low + np.add(one, two) / 2)
    found = necks._shared_plane(basins, root, 1, 2, low, high)
    np.testing.assert_allclose(found[0], normal)
    np.testing.assert_allclose(found[1], np.mean(middles, axis=0) if middles else 0)

    way = rng.normal(size=3)
    way /= np.linalg.norm(way)
    inner = np.isin(parts[box], (1, 2))
    along = (grid[box] - point) @ way
    aside = np.linalg.norm(grid[box] - point - along[..., None] * way, axis=-1)
    half = int(rng.integers(1, 5))
    areas = [
        np.maximum(1 - np.abs(along - n), 0)[inner & (aside <= reach)].sum()
        for n in range(-half, half + 1)
    ]
    given = (basins, root, (1, 2), point, way, reach, half, low, high)
    np.testing.assert_allclose(necks._areas(*given), areas, atol=1e-9)


def test_parts_that_no_neck_joins_are_not_doubtful():
    """They meet at the corner of a voxel, which smoothing takes off."""
    mask = np.zeros((20, 20, 20), bool)
    mask[3:10, 3:10, 3:10] = mask[10:17, 10:17, 10:17] = True
    found = cluster(mask, 1.0, SMALL).table
    assert list(found["component"]) == [1, 1]
    assert list(found["origin"]) == ["split", "split"]
    assert list(found["neck_ratio"]) == [0, 0]
    assert list(found["score"]) == [1, 1]


def test_a_blurred_boundary_map_narrows_necks():
    shape = (24, 24, 44)
    mask = ball(shape, (12, 12, 22), (9, 9, 17))
    haze = np.full(shape, 0.3, np.float32)
    wall = haze.copy()
    wall[:, :, 21:24] = 1
    counts = [len(cluster(mask, 1.0, SMALL, boundary).table) for boundary in (None, haze, wall)]
    assert counts == [1, 1, 2]


def test_what_is_filled_is_counted_where_it_is_seen():
    """A shell in a shell: the inner one is painted over the outer one's filling."""
    shape, middle = (36, 36, 36), (18, 18, 18)
    mask = shell(shape, middle, 16, 3) | shell(shape, middle, 7, 3)
    result = cluster(mask, 1.0, SMALL)
    added = [np.count_nonzero((result.labels == n) & ~mask) for n in (1, 2)]
    assert list(result.table["filled_voxels"]) == added
    assert min(added) > 0
    assert result.facts["filled_voxels"] == sum(added)


@settings(max_examples=20)
@given(SEEDS, st.floats(0.1, 0.6))
def test_gaps_are_closed_as_by_morphology(seed, density):
    rng = np.random.default_rng(seed)
    mask = rng.random(tuple(rng.integers(1, 10, 3))) < density
    wide, inner = np.pad(mask, 5), (slice(5, -5),) * 3
    for close, ways in ((shells._bridged, (5, 1, 1)), (shells._close_gaps, (3, 3, 3))):
        expected = ndimage.binary_closing(wide, np.ones(ways))[inner]
        np.testing.assert_array_equal(close(mask), expected)


def test_filling_shells_with_pinholes_adds_nothing_between_them():
    shape = (40, 40, 76)
    solid, mask = np.zeros((2, *shape), bool)
    for centre in ((20, 20, 19), (20, 20, 56)):
        solid |= ball(shape, centre, 18)
        mask |= shell(shape, centre, 18, 3)
    # A hole through each wall, and a bridge between them.
    mask[:, :5, :] &= np.arange(76) % 37 != 19
    mask[:, 19:21, 37:39] = solid[:, 19:21, 37:39] = True
    filled = fill_slices(mask)
    assert not np.any(filled & ~solid)
    assert np.count_nonzero(filled) > 0.97 * np.count_nonzero(solid)


@settings(max_examples=20)
@given(SEEDS)
def test_faces_borders_and_enclosed_regions_are_those_of_all_pairs(seed):
    rng, regions, _ = drawn(seed)
    boundary = rng.random(regions.shape)
    faces, cut, beside = {}, np.zeros(regions.shape, bool), {}
    for one, two in neighbours(regions.shape, FACES):
        a, b = int(regions[one]), int(regions[two])
        if a != b:
            beside.setdefault(a, set()).add(b)
            beside.setdefault(b, set()).add(a)
        if a and b and a != b:
            weight = 0.3 if one[0] != two[0] else 1.0
            before = faces.get((min(a, b), max(a, b)), (0, 0))
            height = max(boundary[one], boundary[two])
            faces[min(a, b), max(a, b)] = (before[0] + weight * height, before[1] + weight)
            cut[one] = cut[two] = True
    found = outlines._faces(regions, boundary, 0.3)
    assert set(found) == set(faces)
    for pair, values in faces.items():
        assert found[pair] == pytest.approx(values)
    np.testing.assert_array_equal(outlines.borders(regions), cut)
    alone = sorted(n for n, others in beside.items() if n and len(others) == 1 and 0 not in others)
    assert outlines._enclosed(regions, regions > 0, found).tolist() == alone


@settings(max_examples=20)
@given(SEEDS)
def test_regrown_voxels_have_the_nearest_label_of_their_region(seed):
    rng, regions, _ = drawn(seed)
    labels = rng.integers(1, 9, regions.shape) * (rng.random(regions.shape) < 0.3) * (regions > 0)
    grown = labels.copy()
    outlines.regrow(grown, regions)
    for place in np.ndindex(labels.shape):
        if labels[place] or not regions[place]:
            assert grown[place] == labels[place]
            continue
        there = np.argwhere((labels > 0) & (regions == regions[place]))
        away = ((there - place) ** 2).sum(axis=1)
        nearest = {int(labels[tuple(at)]) for at in there[away == away.min(initial=99)]}
        assert int(grown[place]) in (nearest if len(away) and away.min() <= 4 else {0})
