import itertools
import pathlib
import tracemalloc
from contextlib import nullcontext
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist

from tomocensus.measure import COLUMNS, extent, measure
from tomocensus.measure.neighbours import neighbours
from tomocensus.measure.nesting import enclosing
from tomocensus.measure.shape import moments, surface_voxels
from tomocensus.padding import looked_at


def ball(shape, centre, semi_axes):
    grid = np.indices(shape)
    return sum(((g - c) / a) ** 2 for g, c, a in zip(grid, centre, semi_axes, strict=True)) <= 1


@pytest.mark.parametrize("radius", [6, 10, 20])
def test_sphere(radius):
    size = 2 * radius + 9
    labels = ball((size,) * 3, (size // 2,) * 3, (radius,) * 3).astype(int)
    row = measure(labels, 2.0, (10, 20, 30)).iloc[0]
    assert row.surface_angstrom2 == pytest.approx(4 * np.pi * (2 * radius) ** 2, rel=0.04)
    assert row.volume_angstrom3 == labels.sum() * 8
    assert row.length_angstrom == pytest.approx(4 * radius, rel=0.03)
    assert row.sphericity > 0.97
    centre = size // 2 * 2
    place = [row.x_angstrom, row.y_angstrom, row.z_angstrom]
    np.testing.assert_allclose(place, [centre + 10, centre + 20, centre + 30])
    assert not row.touches_border


def test_ellipsoid_axes_and_orientation():
    labels = ball((30, 40, 60), (15, 20, 30), (6, 12, 24)).astype(int)
    row = measure(labels, 1.0, (0, 0, 0)).iloc[0]
    axes = [row.length_angstrom, row.width_angstrom, row.thickness_angstrom]
    np.testing.assert_allclose(axes, [48, 24, 12], rtol=0.03)
    np.testing.assert_allclose([row.major_x, row.major_y, row.major_z], [1, 0, 0], atol=1e-6)
    assert row.elongation == pytest.approx(2, rel=0.03)
    assert (row.box_x_min, row.box_x_max) == (6, 54)


@pytest.mark.parametrize("sides", [(1, 1, 1), (3, 5, 8), (8, 3, 5), (5, 8, 3), (1, 2, 40)])
def test_boxes_are_measured_exactly(sides):
    labels = np.zeros(np.add(sides, 5), int)
    starts = (1, 2, 3)
    labels[tuple(slice(at, at + side) for at, side in zip(starts, sides, strict=True))] = 1
    row = measure(labels, 2.0, (0, 0, 0)).iloc[0]
    # Solid ellipsoids with the moments of a box.
    axes = 2 * np.sqrt(5 / 3) * np.array(sorted(sides, reverse=True))
    names = ["length_angstrom", "width_angstrom", "thickness_angstrom"]
    np.testing.assert_allclose(row[names].astype(float), axes)
    # A line through a box crosses its surface twice; those that begin in it are all but one a line.
    area = 0
    for way in np.ndindex(3, 3, 3):
        step = np.abs(np.subtract(way, 1))
        if (number := step.sum()) > 0:
            lines = np.prod(sides) - np.prod(np.maximum(np.subtract(sides, step), 0))
            weight = {1: 0.045778, 2: 0.036981, 3: 0.035196}[number]
            area += 4 * weight * lines / np.sqrt(number)
    assert row.surface_angstrom2 == pytest.approx(area * 4)
    ball = np.pi ** (1 / 3) * (6 * np.prod(sides)) ** (2 / 3)
    assert row.sphericity == pytest.approx(min(1, ball / area))
    assert row.equivalent_diameter_angstrom == pytest.approx(
        2 * np.cbrt(6 * np.prod(sides) / np.pi)
    )
    assert (row.elongation, row.flatness) == pytest.approx((axes[0] / axes[1], axes[1] / axes[2]))
    for axis, at, side in zip("zyx", starts, sides, strict=True):
        assert (row[f"box_{axis}_min"], row[f"box_{axis}_max"]) == (at, at + side - 1)
        assert row[f"{axis}_voxel"] == pytest.approx(at + (side - 1) / 2)


@pytest.mark.parametrize(
    ("step", "axis"),
    [
        ((0, 0, 1), (1, 0, 0)),
        ((0, 1, 0), (0, 1, 0)),
        ((1, 0, 0), (0, 0, 1)),
        ((0, 1, -1), (-1, 1, 0)),
        ((0, -1, -1), (1, 1, 0)),
        ((1, 0, -1), (-1, 0, 1)),
        ((-1, 1, 1), (-1, -1, 1)),
    ],
)
def test_the_long_axis_is_a_unit_vector_upwards(step, axis):
    labels = np.zeros((21, 21, 21), int)
    for place in range(-8, 9):
        labels[tuple(10 + place * np.array(step))] = 1
    row = measure(labels, 3.0, (0, 0, 0)).iloc[0]
    found = [row.major_x, row.major_y, row.major_z]
    np.testing.assert_allclose(found, np.array(axis) / np.linalg.norm(axis), atol=1e-9)


def test_neighbours_equal_brute_force():
    random = np.random.default_rng(3)
    labels = np.zeros((40, 40, 40), dtype=int)
    for number in range(1, 13):
        start, sides = random.integers(0, 36, 3), random.integers(1, 8, 3)
        box = labels[tuple(slice(at, at + side) for at, side in zip(start, sides, strict=True))]
        box[random.random(box.shape) < 0.6] = number
    table = measure(labels, 5.0, (0, 0, 0), contact_distance=40).set_index("instance")
    points = {n: np.argwhere(labels == n) for n in table.index}
    for n, row in table.iterrows():
        gaps = {
            m: max(0, np.linalg.norm(points[n][:, None] - points[m][None], axis=2).min() - 1) * 5
            for m in points
            if m != n
        }
        assert row.nearest_distance_angstrom == pytest.approx(min(gaps.values()))
        assert gaps[row.nearest_instance] == pytest.approx(min(gaps.values()))
        near = [m for m, gap in gaps.items() if gap <= 40]
        assert row.contact_instances == ";".join(map(str, near))
        assert row.contacts == len(near)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1.0, 3.5, 12.0]), st.booleans())
@settings(max_examples=60)
def test_neighbours_are_those_of_all_pairs(seed, contact, large):
    rng = np.random.default_rng(seed)
    side, surfaces = rng.integers(5, 80), []
    for _ in range(rng.integers(1, 9)):
        start, way = rng.integers(0, side, 3), rng.normal(size=3)
        rod = start + np.arange(rng.integers(1, 70))[:, None] * way / np.linalg.norm(way)
        clump = start + rng.integers(0, 12, (rng.integers(1, 700), 3))
        surfaces.append(
            np.unique(np.rint(rod if rng.random() < 0.6 else clump).astype(int), axis=0)
        )
    gaps = np.array([[max(0.0, cdist(a, b).min() - 1) for b in surfaces] for a in surfaces])
    np.fill_diagonal(gaps, np.inf)
    # As of objects too large to be compared with all pairs.
    with (
        patch.multiple("tomocensus.measure.neighbours", FEW=3, MANY=50) if large else nullcontext()
    ):
        nearest, distance, contacts = neighbours(surfaces, contact)
    if len(surfaces) == 1:
        assert nearest.tolist() == [-1]
        assert np.isnan(distance).all()
        return
    assert distance == pytest.approx(gaps.min(axis=1))
    assert gaps[np.arange(len(gaps)), nearest] == pytest.approx(gaps.min(axis=1))
    assert contacts == [np.flatnonzero(row <= contact).tolist() for row in gaps]


def test_large_nets_through_each_other_need_no_table_of_their_parts():
    grid = np.stack(np.meshgrid(*[np.arange(14)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    nets = [9 * grid, 9 * grid + 4]
    tracemalloc.start()
    nearest, distance, contacts = neighbours(nets, 3.0)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert nearest.tolist() == [1, 0]
    assert distance == pytest.approx(4 * np.sqrt(3) - 1)
    assert contacts == [[], []]
    assert most < 10e6  # of all pairs of parts 360 MB


def test_joins_tables_and_keeps_gaps_in_numbers():
    labels = np.zeros((8, 8, 8), dtype=np.int32)
    labels[0, 0, 0], labels[5, 5, 5] = 2, 7
    clusters = pd.DataFrame(
        {"instance": [2, 7], "origin": ["whole", "split"], "solidity": [1.0, 0.5]}
    )
    classes = pd.DataFrame({"instance": [7], "class": ["vesicle"], "confidence": [0.9]})
    table = measure(labels, 1.0, (0, 0, 0), clusters, classes, "t", "g")
    assert list(table["instance"]) == [2, 7]
    assert list(table["class"]) == ["unknown", "vesicle"]
    assert list(table["separation"]) == ["whole", "split"]
    assert list(table["touches_border"]) == [True, False]
    assert set(table["tomogram"]) == {"t"}


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_cut_objects_have_a_face_on_what_was_not_looked_at(seed):
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 8, 3)
    labels = rng.integers(0, 40, shape) * (rng.random(shape) < 0.5)
    seen = rng.random(shape) < 0.9
    near = ndimage.binary_dilation(~seen)
    voxels, cut = extent(labels, seen)
    assert voxels == seen.sum()
    assert cut.tolist() == sorted(set(labels[near].tolist()) - {0})


def test_objects_that_the_mask_cuts_touch_the_border():
    labels = np.zeros((8, 9, 9), np.int32)
    labels[2:5, 2:5, 2:5], labels[2:5, 2:5, 6:8] = 3, 5
    mask = np.ones(labels.shape, np.int8)
    mask[:, :1] = 0
    table = measure(labels, 1.0, (0, 0, 0), cut=extent(labels, mask == 1)[1])
    assert table["touches_border"].tolist() == [False, False]
    mask = np.ones(labels.shape, np.int8)
    mask[..., 8:] = 0
    voxels, cut = extent(labels, mask == 1)
    table = measure(labels, 1.0, (0, 0, 0), cut=cut)
    assert table["touches_border"].tolist() == [False, True]
    assert voxels == 8 * 9 * 8
    assert measure(labels * 0, 1.0, (0, 0, 0), cut=[1]).empty


@pytest.mark.parametrize("value", [0.0, 117.0])
def test_padding_is_not_looked_at(value):
    data = np.random.default_rng(0).normal(100, 10, (6, 60, 60)).astype(np.float32)
    assert all(inside.all() for inside in looked_at(data))
    data[:, :, :12] = value
    mask = np.zeros(data.shape, np.int8)
    mask[:, 30:] = -1
    for z, inside in enumerate(looked_at(data, mask)):
        wanted = np.zeros((60, 60), bool)
        wanted[30:, 12:] = True
        np.testing.assert_array_equal(inside, wanted, err_msg=str(z))


def test_the_innermost_object_around_another_is_told():
    shape = (40, 44, 60)
    labels = np.zeros(shape, np.int32)
    labels[ball(shape, (20, 22, 24), (17, 18, 20))] = 9
    labels[ball(shape, (20, 22, 24), (11, 11, 11))] = 0  # its lumen
    labels[ball(shape, (20, 22, 24), (8, 8, 8))] = 4
    labels[ball(shape, (20, 22, 24), (2, 2, 2))] = 7
    labels[20, 22, 40] = 3  # in the wall
    labels[20, 22, 50] = 5  # beside it
    labels[0:6, 30:44, 48:60], labels[0:3, 34:40, 50:56] = 11, 12  # cut open by the border
    labels[30:38, 2:10, 48:58], labels[32:36, 4:8, 50:58] = 13, 14  # in a fold
    table = measure(labels, 1.0, (0, 0, 0)).set_index("instance")
    told = table["inside_instance"].dropna().to_dict()
    assert told == {3: 9, 4: 9, 7: 4}
    opened = labels.copy()
    opened[20, 22, :24][opened[20, 22, :24] == 9] = 0
    table = measure(opened, 1.0, (0, 0, 0)).set_index("instance")
    assert table["inside_instance"].dropna().to_dict() == {3: 9, 7: 4}


def scattered(rng):
    return rng.integers(0, 4, rng.integers(3, 9, 3))


def boxes_over_boxes(rng):
    """Place boxes, of which most are hollow."""
    labels = np.zeros((9, 9, 9), int)
    for number in range(1, 6):
        low = rng.integers(0, 5, 3)
        high = low + rng.integers(1, 9, 3)
        labels[tuple(slice(*pair) for pair in zip(low, high, strict=True))] = number
        if rng.random() < 0.7:
            labels[tuple(slice(a + 1, b - 1) for a, b in zip(low, high, strict=True))] = 0
    return labels


def shells_in_shells(rng):
    labels, low, high = np.zeros((16, 14, 15), int), np.zeros(3, int), np.array([16, 14, 15])
    for number in rng.permutation(4) + 1:
        low, high = low + rng.integers(1, 3, 3), high - rng.integers(1, 3, 3)
        if (low < high).all():
            labels[tuple(slice(*pair) for pair in zip(low, high, strict=True))] = number
    return labels


def dug_ways(rng):
    """Dig crooked ways, some of them out, into a block; leave objects in them."""
    labels = np.ones((7, 8, 9), int)
    for _ in range(rng.integers(1, 4)):
        place, way = rng.integers(1, np.array(labels.shape) - 1), []
        for axis in rng.permutation(3):
            step = rng.choice((-1, 1)) * (np.arange(3) == axis)
            for _ in range(rng.integers(0, 8)):
                if ((place >= 0) & (place < labels.shape)).all():
                    way.append(tuple(place))
                    place = place + step
        for at in way:
            labels[at] = 0
        for at in rng.permutation(way)[: rng.integers(0, 4)]:
            labels[tuple(at)] = rng.integers(2, 4)
    return np.pad(labels, 1)


@given(
    st.sampled_from([scattered, boxes_over_boxes, shells_in_shells, dug_ways]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=150)
def test_inside_is_what_cannot_be_reached(scene, seed):
    labels = scene(np.random.default_rng(seed))
    numbers = [n for n in np.unique(labels) if n]
    hidden = {n: ndimage.binary_fill_holes(labels == n) & (labels != n) for n in numbers}
    around = {n: [m for m in numbers if hidden[m][labels == n].all()] for n in numbers}
    boxes = {n: box for n, box in enumerate(ndimage.find_objects(labels), 1) if box is not None}
    # The innermost is itself in all the others.
    wanted = {n: max(found, key=lambda m: len(around[m])) for n, found in around.items() if found}
    assert enclosing(labels, boxes) == wanted


def test_objects_at_any_face_of_the_volume_touch_the_border():
    labels = np.zeros((5, 6, 7), int)
    for number, (axis, end) in enumerate(itertools.product(range(3), (0, -1)), start=1):
        place = [2, 3, 3]
        place[axis] = end
        labels[tuple(place)] = number
    labels[1:4, 1:5, 1:6][labels[1:4, 1:5, 1:6] == 0] = 7
    table = measure(labels, 1.0, (0, 0, 0))
    assert table["touches_border"].tolist() == [True] * 6 + [False]


@pytest.mark.parametrize("dtype", [object, float, int])
def test_empty_labelmap_has_all_columns(dtype):
    none = pd.DataFrame({"instance": np.zeros(0, dtype), "class": "", "solidity": 1.0})
    table = measure(np.zeros((4, 4, 4), dtype=int), 1.0, (0, 0, 0), none, none)
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == 0


def test_document_lists_every_column():
    path = pathlib.Path(__file__).parents[2] / "docs" / "instance-table.md"
    lines = path.read_text().split("## Counts")[0].splitlines()
    assert [line for line in lines if line.startswith("| `")] == [
        f"| `{name}` | {text} |" for name, text in COLUMNS.items()
    ]


@settings(max_examples=25)
@given(st.integers(0, 1000), st.tuples(*[st.integers(1, 9)] * 3))
def test_moments_and_surface_are_those_of_the_voxels(seed, shape):
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < rng.choice([0.5, 0.97])
    assume(mask.any())
    points = np.argwhere(mask)
    count, centre, covariance = moments(mask)
    assert count == len(points)
    np.testing.assert_allclose(centre, points.mean(axis=0))
    np.testing.assert_allclose(covariance, np.cov(points.T, bias=True).reshape(3, 3), atol=1e-9)
    outer = mask & ~ndimage.binary_erosion(mask)
    np.testing.assert_array_equal(surface_voxels(mask), np.argwhere(outer))
