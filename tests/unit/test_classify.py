from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from tomocensus.classify import (
    Embeddings,
    append_examples,
    apply_head,
    embed,
    examples_header,
    fit_head,
    look_up_examples,
    named_kinds,
    read_examples,
)
from tomocensus.classify.embeddings import vectors_of
from tomocensus.classify.encoder import build
from tomocensus.classify.examples import ANGSTROM, named_at
from tomocensus.classify.features import DEPTHS, NAMES, shape_and_density
from tomocensus.classify.gaussians import (
    Prior,
    _about_means,
    _parameters,
    best_temperature,
    fit_gaussians,
    leave_out,
    scores_of,
    softmax,
)
from tomocensus.classify.head import (
    _doubt_of_single_ones,
    _expected,
    _figures,
    _shares,
    calibration_error,
    chances_of,
    part_of,
    seen_by_second,
    with_shares,
)
from tomocensus.classify.kinds import WEIGHT, Kinds, _unlike, kind_called
from tomocensus.classify.review import rank_for_review
from tomocensus.classify.views import (
    CLOSE,
    CONTEXT,
    LOOKS,
    SIDE,
    WHOLE,
    Pyramid,
    crop,
    looks,
    normalise,
    views,
)
from tomocensus.errors import InputError
from tomocensus.models import Model, load_model, save_model
from tomocensus.simulate import training
from tomocensus.volume import Volume

MODELS = Path(__file__).resolve().parents[2] / "models"


def ball(side, radius, centre=None):
    centre = (side - 1) / 2 if centre is None else centre
    grid = np.indices((side, side, side)) - np.reshape(np.broadcast_to(centre, 3), (3, 1, 1, 1))
    return (grid**2).sum(axis=0) <= radius**2


def features(mask, density=None, voxel_size=10.0):
    density = np.zeros(mask.shape, np.float32) if density is None else density
    return dict(zip(NAMES, shape_and_density(mask, density, voxel_size), strict=True))


def clouds(counts, seed=0, distance=6.0, encoder="e"):
    """Make one tomogram's embeddings: a separable cloud for each class."""
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(99).normal(size=(8, 10)) * distance
    names = [name for name, count in counts.items() for _ in range(count)]
    kinds = sorted(counts)
    vectors = np.stack([means[kinds.index(name)] + rng.normal(size=10) for name in names])
    number = np.arange(1, len(names) + 1)
    known = Embeddings(
        number,
        vectors[:, :7].astype(np.float32),
        vectors[:, 7:].astype(np.float32),
        ("a", "b", "c"),
        encoder,
    )
    named = pd.DataFrame({"tomogram": "t", "instance": number, "class": names})
    return known, named


def fitted(counts, **options):
    known, named = clouds(counts, **options)
    card, weights = fit_head({"t": known}, named)
    return Model({**card, "sha256": ""}, weights), known, named


# Features


def test_a_ball_has_its_diameter_and_no_elongation():
    found = features(ball(31, 12), voxel_size=10.0)
    assert np.exp(found["log_diameter_nm"]) == pytest.approx(24, rel=0.02)
    assert found["elongation"] == pytest.approx(0, abs=0.01)
    assert found["flatness"] == pytest.approx(0, abs=0.01)
    assert found["extent"] == pytest.approx(4 / 3 * np.pi * 12**3 / 25**3, rel=0.02)


def test_a_rod_is_as_long_as_it_is():
    mask = np.zeros((12, 12, 48), bool)
    mask[4:8, 4:8, 4:44] = True
    assert np.exp(features(mask)["elongation"]) == pytest.approx(10, rel=0.01)
    assert features(mask)["flatness"] == pytest.approx(0, abs=0.01)


def test_a_plate_is_flat_and_not_elongated():
    mask = np.zeros((12, 28, 28), bool)
    mask[4:8, 4:24, 4:24] = True
    assert features(mask)["elongation"] == pytest.approx(0, abs=0.01)
    assert np.exp(features(mask)["flatness"]) == pytest.approx(5, rel=0.02)


@pytest.mark.parametrize("voxel_size", [5.0, 10.0, 20.0])
def test_voxel_size_scales_the_diameter_only_of_the_shape_features(voxel_size):
    one, other = features(ball(31, 12), voxel_size=10.0), features(ball(31, 12), None, voxel_size)
    gain = other["log_diameter_nm"] - one["log_diameter_nm"]
    assert gain == pytest.approx(np.log(voxel_size / 10), abs=1e-5)
    for name in ("elongation", "flatness", "extent"):
        assert other[name] == one[name]


def test_a_dense_shell_is_told_from_a_dense_core():
    mask, inner = ball(41, 16), ball(41, 9)
    shell = features(mask, (mask & ~ball(41, 12)).astype(np.float32), 12.0)
    core = features(mask, inner.astype(np.float32), 12.0)
    assert shell["shell_minus_core"] > 0.5 > -0.5 > core["shell_minus_core"]
    assert shell["membrane_contrast"] > 0.5 > core["membrane_contrast"]


def test_sphericity_is_that_of_a_ball_and_less_for_a_plate():
    assert features(ball(41, 16))["sphericity"] == pytest.approx(0, abs=0.06)
    plate = np.zeros((8, 44, 44), bool)
    plate[2:6, 2:42, 2:42] = True
    # Surface of a box of 4 x 40 x 40, voxel faces counted at two thirds.
    truth = np.log(36 * np.pi * 6400.0**2) / 3 - np.log((2 * 1600 + 4 * 160) / 1.5)
    assert features(plate)["sphericity"] == pytest.approx(truth, abs=1e-5)


def test_depths_are_those_of_a_ball():
    found = features(ball(41, 16), voxel_size=10.0)
    assert np.exp(found["log_depth_nm"]) == pytest.approx(16, rel=0.07)
    assert np.exp(found["log_depth_in_plane_nm"]) == pytest.approx(16, rel=0.07)
    # Mean distance to the surface is a quarter of the radius.
    assert np.exp(found["log_mean_depth_nm"]) == pytest.approx(4, rel=0.12)
    assert np.exp(found["log_height_nm"]) == pytest.approx(33)


def test_a_shell_has_the_hole_of_its_ring():
    found = features(ball(41, 16) & ~ball(41, 11))
    # Mean over the middle half in Z of r² / (R² - r²) with the radii at each height.
    z = np.arange(-8, 9)
    ratio = (121 - z**2) / (256 - 121)
    assert found["ring"] == pytest.approx(ratio.mean(), rel=0.05)
    assert features(ball(41, 16))["ring"] == 0


def test_the_profile_follows_the_density_below_and_above_the_outline():
    radius = np.sqrt(
        ((np.indices((9, 61, 61)) - np.reshape([4, 30, 30], (3, 1, 1, 1)))[1:] ** 2).sum(0)
    )
    depth = (20.5 - radius) * 10
    rod = depth > 0
    found = features(rod, depth.astype(np.float32), 10.0)
    middles = {-80: -67.5, -55: -45, -35: -26, -17: -8.5, 0: 8.5, 17: 26, 35: 45, 55: 67.5, 80: 95}
    for start, middle in middles.items():
        assert found[f"density_at_{start}"] == pytest.approx(middle, abs=6), start
    shares = [found[f"density_from_{share:g}"] for share in (0, 0.2, 0.4, 0.6, 0.8)]
    # Outer rings are larger: the mean lies outside the middle of its bin.
    assert np.allclose(np.array(shares) / 205, [0.1, 0.3, 0.5, 0.7, 0.87], atol=0.03)
    # Deeper than the object: the nearest depth that it has.
    thin = features(radius < 4, depth.astype(np.float32), 10.0)
    assert thin["density_at_160"] == thin["density_at_35"]


def test_a_neighbour_is_touched_and_not_part_of_the_profile():
    mask, others = np.zeros((2, 5, 40, 40), bool)
    mask[1:4, 10:30, 10:20], others[1:4, 10:30, 20:30] = True, True
    density = np.where(others, 100, np.where(mask, 1, 0)).astype(np.float32)
    found = dict(zip(NAMES, shape_and_density(mask, density, 10.0, others), strict=True))
    assert max(found[f"density_at_{depth}"] for depth in DEPTHS[:-1]) <= 1
    # Three voxels wide around 10 x 20 voxels, on one of the long sides.
    assert found["touching"] == pytest.approx(60 / 225, abs=0.05)
    assert dict(zip(NAMES, shape_and_density(mask, density, 10.0), strict=True))["touching"] == 0


def test_densities_and_contacts_are_those_of_distances_to_the_surface():
    rng = np.random.default_rng(0)
    size = 10.0
    away = np.indices((44, 56, 60)) - np.reshape([22, 28, 30], (3, 1, 1, 1))
    mask = sum((a / s) ** 2 for a, s in zip(away, (16, 13, 12), strict=True)) <= 1
    density = rng.normal(size=mask.shape).astype(np.float32)
    others = ~mask & (away[2] > 3) & (rng.random(mask.shape) < 0.8)
    found = dict(zip(NAMES, shape_and_density(mask, density, size, others), strict=True))
    depth = ndimage.distance_transform_edt(mask) * size
    outside = ndimage.distance_transform_edt(~mask) * size
    core = depth > 0.6 * depth.max()
    expected = {
        "density": density[mask].mean(),
        "density_spread": density[mask].std(),
        "shell_density": density[mask & (depth <= 60)].mean(),
        "core_density": density[core].mean(),
        "middle_density": density[(depth > 60) & ~core].mean(),
        "outside_density": density[(outside > 0) & (outside <= 120)].mean(),
    }
    expected["shell_minus_core"] = expected["shell_density"] - expected["core_density"]
    expected["membrane_contrast"] = expected["shell_density"] - expected["outside_density"]
    touching, deepest = [], 0
    for z in range(22 - 8, 22 + 9, 2):  # every other slice of the middle half
        beside = ndimage.distance_transform_edt(~mask[z]) - 0.5
        touching.append(others[z][(beside > 0) & (beside < 3)].mean())
        deepest = max(deepest, ndimage.distance_transform_edt(mask[z]).max() - 0.5)
    expected["touching"] = np.mean(touching)
    expected["log_depth_in_plane_nm"] = np.log(deepest)
    expected["log_height_nm"] = np.log(33)
    expected["log_depth_nm"] = np.log(depth.max() / 10)
    expected["log_mean_depth_nm"] = np.log(depth[mask].mean() / 10)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)


def test_an_object_that_fills_the_volume_has_finite_features():
    mask = np.ones((12, 40, 40), bool)
    found = shape_and_density(mask, np.full(mask.shape, 0.5), 20.0)
    assert np.isfinite(found).all()
    assert found[NAMES.index("density_at_17")] == pytest.approx(0.5)


def test_one_voxel_has_finite_features():
    mask = np.zeros((7, 7, 7), bool)
    mask[3, 3, 3] = True
    assert np.isfinite(list(features(mask).values())).all()


# Crops


def pyramid(density, voxel_size=10.0):
    """Density that is already normalised: centre 0, spread 1."""
    made = Pyramid(Volume(density, voxel_size), "bright")
    made.centre, made.spread, made.levels, made.shade = 0.0, 1.0, [], None
    level = None
    for _ in range(2):
        level = made._halve(level)
        made.levels.append(level)
    return made


@pytest.mark.parametrize("radius", [3, 6, 14])
def test_the_whole_view_centres_the_object_and_scales_it_to_two_thirds(radius):
    mask = ball(41, radius)
    rng = np.random.default_rng(0)
    noise = Volume(rng.normal(size=mask.shape).astype(np.float32), 10.0)
    (view,) = views(noise, mask.astype(np.int32), "bright")
    assert view.crops.shape[1:] == (2, SIDE, SIDE, SIDE)
    filled = np.argwhere(view.crops[list(view.kinds).index(WHOLE), 1] > 0.5)
    assert filled.mean(axis=0) == pytest.approx([(SIDE - 1) / 2] * 3, abs=0.1)
    extent = np.ptp(filled, axis=0) + 1
    assert np.abs(extent - 2 * SIDE / 3).max() <= 2


def test_a_crop_at_a_corner_is_padded_with_the_background():
    mask = ball(20, 6, centre=0)
    seen = crop(pyramid(np.ones(mask.shape, np.float32)), mask, True, np.zeros(3), 0.5)
    assert seen[0, 0, 0, 0] == 0
    assert seen[1, 0, 0, 0] == 0
    assert seen[0, SIDE // 2, SIDE // 2, SIDE // 2] == pytest.approx(1)
    assert seen[1, SIDE // 2, SIDE // 2, SIDE // 2] == 1


@pytest.mark.parametrize("step", [0.6, 1.0, 2.0, 3.7])
def test_a_ramp_keeps_its_place_at_every_level(step):
    z, y, x = np.indices((64, 64, 64)).astype(np.float32) / 20
    made = pyramid((z + 2 * y - x) / 2)
    axes = [np.arange(6) * step + start for start in (20, 25, 30)]
    grid = np.meshgrid(*axes, indexing="ij")
    expected = (grid[0] + 2 * grid[1] - grid[2]) / 40
    np.testing.assert_allclose(made.sample(axes, step), expected, atol=2e-2)


def test_small_objects_get_one_close_look_and_long_ones_several_on_their_surface():
    small = looks(ball(41, 6), 10.0)
    assert small.tolist() == [[20, 20, 20]]
    rod = np.zeros((20, 20, 100), bool)
    rod[8:12, 8:12, 5:95] = True
    found = looks(rod, 10.0)
    assert len(found) == LOOKS
    assert all(rod[tuple(place)] for place in found.astype(int))
    assert np.ptp(found[:, 2]) > 80


@pytest.mark.parametrize("voxel_size", [8.0, 20.0])
def test_each_kind_of_view_has_its_own_scale(voxel_size, monkeypatch):
    monkeypatch.setattr("tomocensus.classify.views.shading", lambda *_: None)  # ramps are some
    shape, centre, radius = (70, 90, 100), np.array([34, 47, 45]), 160 / voxel_size
    ramp = np.indices(shape).astype(np.float32)
    ramp = ramp[0] + 2 * ramp[1] - 3 * ramp[2]
    away = np.indices(shape) - np.reshape(centre, (3, 1, 1, 1))
    labels = np.zeros(shape, np.int32)
    labels[(away**2).sum(axis=0) <= radius**2] = 3
    tomogram = Volume(ramp, voxel_size)
    (view,) = views(tomogram, labels, "bright")
    assert view.number == 3
    middle, spread, _ = normalise(tomogram, "bright")
    size = 2 * np.floor(radius) + 1  # of the object
    steps = {WHOLE: 1.5 * size / SIDE, CONTEXT: 80 / voxel_size, CLOSE: 20 / voxel_size}
    assert sorted(view.kinds) == sorted(steps)
    for kind, (density, mask) in zip(view.kinds, view.crops, strict=True):
        offsets = (np.indices((SIDE,) * 3) - (SIDE - 1) / 2) * steps[kind]
        length = np.sqrt((offsets**2).sum(axis=0))
        assert mask[length < radius - 1].all()
        assert not mask[length > radius + 1].any()
        places = offsets + np.reshape(centre, (3, 1, 1, 1))
        # Coarse voxels at the border reach beyond it.
        inside = np.all([(p >= 4) & (p < n - 8) for p, n in zip(places, shape, strict=True)], 0)
        expected = (places[0] + 2 * places[1] - 3 * places[2] - middle) / spread
        np.testing.assert_allclose(density[inside], expected[inside], atol=0.02)
        beyond = np.any([(p < -9) | (p > n + 8) for p, n in zip(places, shape, strict=True)], 0)
        assert not density[beyond].any()


def test_of_large_objects_fewer_voxels_say_the_same(monkeypatch, rng):
    labels = np.zeros((80, 128, 128), np.int32)
    away = np.indices(labels.shape) - np.reshape([40, 60, 66], (3, 1, 1, 1))
    length = np.sqrt((4 * away[0] ** 2) + away[1] ** 2 + away[2] ** 2)
    labels[length <= 55] = 1
    tomogram = Volume((rng.normal(size=labels.shape) + 2 * (length < 40)).astype(np.float32), 10.0)
    (whole,) = views(tomogram, labels, "bright")
    monkeypatch.setattr("tomocensus.classify.views._FEATURE_VOXELS", 80_000)
    (thinned,) = views(tomogram, labels, "bright")
    np.testing.assert_array_equal(whole.kinds, thinned.kinds)
    assert np.abs(whole.features - thinned.features).max() < 0.25
    assert (whole.features != thinned.features).any()
    close = np.array([crop[1] for crop in thinned.crops[thinned.kinds == CLOSE]])
    middle = close[(slice(None), *[slice(SIDE // 2 - 2, SIDE // 2 + 2)] * 3)].mean((1, 2, 3))
    assert (np.abs(middle - 0.5) < 0.3).all()  # on the surface


def test_close_looks_are_far_apart_and_not_at_top_and_bottom():
    mask = ball(61, 28)
    found = looks(mask, 10.0)
    assert (mask[tuple(found.astype(int).T)]).all()
    assert np.abs(np.linalg.norm(found - 30, axis=1) - 28).max() < 1.5
    assert np.abs(found[:, 0] - 30).max() <= 14
    apart = np.linalg.norm(found[:, None] - found[None], axis=2)
    # Four points around the equator, two of them opposite each other.
    assert apart.max() > 55
    assert apart[~np.eye(LOOKS, dtype=bool)].min() > 30


def test_polarity_turns_the_sign_so_that_matter_is_positive(rng):
    data = rng.normal(100, 5, size=(24, 24, 24)).astype(np.float32)
    for polarity, sign in (("bright", 1), ("dark", -1)):
        centre, spread, _ = normalise(Volume(sign * data, 10.0), polarity)
        np.testing.assert_allclose((sign * data - centre) / spread, (data - 100) / 5, atol=0.5)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_views_do_not_show_shading(rng, dtype):
    shape, radius = (32, 90, 100), 8
    labels = np.zeros(shape, np.int32)
    away = np.indices(shape) - np.reshape([16, 60, 70], (3, 1, 1, 1))
    labels[(away**2).sum(axis=0) <= radius**2] = 1
    data = (rng.normal(size=shape) + 2 * (labels > 0)) * 12 + 120
    data[:, :20] = 0
    ramp = np.linspace(-20, 20, shape[2]) * (data > 0)
    plain, shaded = (
        Volume(np.clip(one, 0, 255).astype(dtype), 10.0) for one in (data, data + ramp)
    )
    assert Pyramid(plain, "bright").shade is None
    (one,), (two,) = (views(volume, labels, "bright") for volume in (plain, shaded))
    assert np.abs(one.crops - two.crops).mean() < 0.05
    np.testing.assert_allclose(two.features, one.features, atol=0.15)
    left = Pyramid(shaded, "bright")
    assert left.shade is not None
    assert (left.box(*np.s_[:, :20, :]) == 0).all()
    assert (left.levels[0][:, :10] == 0).all()


# Embedding


@pytest.fixture(scope="module")
def encoder():
    return load_model(MODELS / "base-encoder", "encoder")


@pytest.fixture
def scene(rng):
    """Balls and a rod, at the border and within; number 3 is not used."""
    labels = np.zeros((24, 40, 40), np.int32)
    labels[4:10, 4:10, 4:10] = 1
    labels[0:5, 20:26, 34:40] = 2
    labels[14:17, 5:35, 25:28] = 4
    data = rng.normal(size=labels.shape).astype(np.float32) + 2 * (labels > 0)
    return Volume(data, 15.0), labels


def test_embedding_has_a_row_for_each_instance_and_repeats_exactly(scene, encoder):
    one = embed(*scene, encoder, "bright", device="cpu", threads=1)
    two = embed(*scene, encoder, "bright", device="cpu", threads=1)
    assert one.instance.tolist() == [1, 2, 4]
    assert one.embedding.shape == (3, encoder.card["dimensions"])
    np.testing.assert_allclose(np.linalg.norm(one.embedding, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(one.table(), two.table())


def test_a_darkfield_copy_gives_the_same_vectors(scene, encoder):
    tomogram, labels = scene
    one = embed(tomogram, labels, encoder, "bright", "cpu", 1)
    two = embed(tomogram.with_data(-7 * tomogram.data + 3), labels, encoder, "dark", "cpu", 1)
    np.testing.assert_allclose(one.table(), two.table(), atol=1e-3)


@pytest.mark.parametrize(("turns", "blind_to"), [(1, []), (2, [2]), (4, [1, 2, 3])])
def test_vectors_do_not_change_where_an_object_is_turned(scene, encoder, turns, blind_to):
    network, seen = build(encoder), list(views(*scene, "bright"))
    vectors = vectors_of(network, seen, turns)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    for quarter in (1, 2, 3):
        turned = [
            replace(view, crops=np.rot90(view.crops, quarter, (3, 4)).copy()) for view in seen
        ]
        change = np.abs(vectors_of(network, turned, turns) - vectors).max()
        assert (change < 1e-4) == (quarter in blind_to)


def test_a_head_may_say_that_a_class_is_rare():
    head, known, _ = fitted({"a": 8, "b": 8, "c": 8}, distance=1.0)
    weights = {name: value.astype(float) for name, value in head.weights.items()}
    vectors = known.table().astype(float)
    plain = chances_of(vectors, weights)
    rare = chances_of(vectors, weights | {"common": np.array([1.0, 0.25, 1.0])})
    np.testing.assert_allclose(rare.sum(axis=1), 1)
    np.testing.assert_allclose(rare[:, 1] / rare[:, 0], plain[:, 1] / plain[:, 0] / 4)
    np.testing.assert_allclose(rare[:, 3] / rare[:, 2], plain[:, 3] / plain[:, 2])


def test_many_doubtful_objects_do_not_make_a_rare_class_common():
    head, known, _ = fitted({"a": 8, "b": 8}, distance=1.0)
    table = known.table()
    a, b = table[:8].mean(axis=0), table[8:].mean(axis=0)
    # A little nearer to b, two hundred times.
    many = np.repeat((0.45 * a + 0.55 * b)[None], 200, axis=0)
    size = known.embedding.shape[1]
    objects = replace(
        known, instance=np.arange(1, 201), embedding=many[:, :size], features=many[:, size:]
    )
    plain = apply_head(head, objects)
    assert (plain["p_b"] > 0.5).all()
    for common, expected, found in (([1.0, 0.1], [1.0, 1.0], "p_a"), ([1, 1], [1.9, 0.1], "p_b")):
        arrays = {"common": np.array(common), "expected": np.array(expected)}
        rare = apply_head(replace(head, weights=head.weights | arrays), objects)
        assert (rare[found] > 0.5).all()


def test_the_encoders_card_says_in_how_many_directions_it_looks(scene, encoder):
    seen = list(views(*scene, "bright"))
    for turns in (1, 2, 4):
        model = replace(encoder, card={**encoder.card, "turns": turns})
        found = embed(*scene, model, "bright", "cpu", 1).embedding
        np.testing.assert_allclose(found, vectors_of(build(model), seen, turns), atol=1e-5)


def test_threads_change_nothing(rng):
    labels = np.zeros((20, 80, 80), np.int32)
    for number, (y, x) in enumerate(np.ndindex(8, 8), start=1):
        labels[rng.integers(0, 10) :, 10 * y : 10 * y + 6, 10 * x : 10 * x + 7] = number
    volume = Volume(rng.normal(size=labels.shape).astype(np.float32) + (labels > 0), 12.0)
    one, four = (list(views(volume, labels, "bright", threads)) for threads in (1, 4))
    assert [view.number for view in four] == list(range(1, 65))
    for a, b in zip(one, four, strict=True):
        assert a.number == b.number
        np.testing.assert_array_equal(a.crops, b.crops)
        np.testing.assert_array_equal(a.kinds, b.kinds)
        np.testing.assert_array_equal(a.features, b.features)


def test_an_empty_labelmap_gives_no_rows_and_no_classes(scene, encoder):
    tomogram, labels = scene
    none = embed(tomogram, np.zeros_like(labels), encoder, "dark", "cpu", 1)
    assert none.table().shape == (0, encoder.card["dimensions"] + len(NAMES))
    head = load_model(MODELS / "base-classifier", "classifier")
    assert len(apply_head(head, none)) == 0


def test_embeddings_survive_the_disk(tmp_path, scene, encoder):
    made = embed(*scene, encoder, "bright", "cpu", 1)
    made.save(tmp_path / "embeddings.npz")
    read = Embeddings.load(tmp_path / "embeddings.npz")
    np.testing.assert_array_equal(read.table(), made.table())
    assert (read.encoder, read.feature_names) == (encoder.sha256, NAMES)
    assert read.instance.tolist() == [1, 2, 4]


def test_the_shipped_models_name_what_is_simulated(encoder, monkeypatch):
    """An encoder fits the views, features and layers that it was trained with."""
    monkeypatch.setattr("tomocensus.classify.embeddings._BATCH", 10)
    monkeypatch.setattr(training, "SHAPE", (32, 112, 112))
    made = training.training_tomogram(6)
    kinds = pd.Series(made.classes)
    labels = np.asarray(made.instances.data)
    labels = np.where(np.isin(labels, kinds.groupby(kinds).head(4).index), labels, 0)
    found = embed(made.tomogram, labels, encoder, made.polarity, "cpu", 1)
    table = apply_head(load_model(MODELS / "base-classifier", "classifier"), found, 0)
    truth = kinds[table["instance"]].to_numpy()
    assert len(set(truth)) > 5
    assert (table["class"] == truth).mean() > 0.8


def test_weights_of_another_version_are_told(encoder):
    name, other = "out.0.weight", replace(encoder, weights=dict(encoder.weights))
    other.weights[name] = other.weights[name][:, 1:]
    with pytest.raises(InputError, match=f"weights {name} are missing or of another shape"):
        build(other)
    del other.weights[name]
    with pytest.raises(InputError, match=name):
        build(other)


def test_a_broken_file_of_embeddings_is_named(tmp_path):
    (tmp_path / "e.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"e\.npz"):
        Embeddings.load(tmp_path / "e.npz")


def test_the_shipped_head_belongs_to_the_shipped_encoder(scene, encoder):
    head = load_model(MODELS / "base-classifier", "classifier")
    table = apply_head(head, embed(*scene, encoder, "bright", "cpu", 1))
    chances = table[[f"p_{name}" for name in [*head.card["classes"], "unknown"]]]
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-5)


# Head


def test_separable_classes_are_named_right():
    head, _, _ = fitted({"a": 10, "b": 10, "c": 10})
    fresh, truth = clouds({"a": 40, "b": 40, "c": 40}, seed=5)
    table = apply_head(head, fresh)
    chances = table[["p_a", "p_b", "p_c", "p_unknown"]].to_numpy()
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-5)
    assert (table["class"] == truth["class"]).mean() > 0.95
    assert head.card["accuracy"] > 0.95


def test_rare_classes_are_named_as_well():
    head, _, _ = fitted({"a": 300, "b": 4}, distance=3.0)
    fresh, truth = clouds({"a": 50, "b": 50}, seed=5, distance=3.0)
    right = apply_head(head, fresh, 0)["class"] == truth["class"]
    assert right[truth["class"] == "b"].mean() > 0.9


def test_far_from_every_example_is_unknown_however_sure():
    head, known, _ = fitted({"a": 10, "b": 10})
    far = Embeddings(
        np.array([1]), known.embedding[:1] * 1000, known.features[:1], known.feature_names, "e"
    )
    table = apply_head(head, far, minimum_confidence=0)
    assert table["class"].tolist() == ["unknown"]
    assert table["p_unknown"][0] > 0.5


def test_the_minimum_confidence_rejects_what_lies_between():
    head, known, _ = fitted({"a": 10, "b": 10}, distance=1.5)
    half = 0.5 * (known.table()[:10].mean(axis=0) + known.table()[10:].mean(axis=0))[None]
    middle = Embeddings(np.array([1]), half[:, :7], half[:, 7:], known.feature_names, "e")
    assert apply_head(head, middle, 0.999)["class"].tolist() == ["unknown"]
    assert apply_head(head, middle, 0.0)["class"].tolist() != ["unknown"]


def test_both_forms_of_a_class_are_near_although_its_mean_is_farther_than_another_class():
    line = np.eye(10)[0]
    forms = np.repeat([12 * line, -12 * line, 5 * line], 12, axis=0)
    kinds = np.repeat([0, 0, 1], 12)
    weights = {
        "centre": np.zeros(10),
        "transform": np.eye(10),
        "spread": np.full(10, 50.0),
        "means": np.stack([0 * line, 5 * line]),
        "counts": np.array([24.0, 12.0]),
        "examples": forms + np.random.default_rng(1).normal(size=(36, 10)),
        "example_class": kinds,
    }
    places = forms + np.random.default_rng(2).normal(size=(36, 10))
    assert list(scores_of(places, weights).argmax(axis=1)) == list(kinds)
    assert (_about_means(places, weights)[:12].argmax(axis=1) == 1).all()


@pytest.mark.parametrize("folds", [60, 3])
def test_left_out_examples_are_named_by_models_fitted_without_them(folds, monkeypatch):
    monkeypatch.setattr("tomocensus.classify.gaussians._MOST_FOLDS", folds)
    known, named = clouds({"a": 5, "b": 4, "c": 1}, distance=1.0)
    vectors = known.table().astype(float)
    target = np.array(["abc".index(name) for name in named["class"]])
    scores, usable = leave_out(vectors, target, None, seed=0)
    assert list(usable) == [True] * 9 + [False]
    assert np.isfinite(scores).all()  # no class was left out as a whole
    if folds < 9:
        return
    for row in range(9):
        rest = np.arange(10) != row
        weights = fit_gaussians(vectors[rest], target[rest], None, 0)
        np.testing.assert_allclose(scores[row], scores_of(vectors[row : row + 1], weights)[0])


def test_each_class_has_its_own_forms_and_not_too_many(monkeypatch):
    monkeypatch.setattr("tomocensus.classify.gaussians._MOST_FORMS", 6)
    head, known, named = fitted({"a": 20, "b": 2, "c": 7})
    kinds = head.weights["example_class"].astype(int)
    assert np.bincount(kinds).tolist() == [6, 2, 6]
    shown = known.table().astype(float) - head.weights["centre"]
    shown = shown @ head.weights["transform"].astype(float)
    away = cdist(head.weights["examples"].astype(float), shown)
    assert (away.min(axis=1) < 1e-2).all()
    assert len(set(away.argmin(axis=1))) == 14
    assert (named["class"].to_numpy()[away.argmin(axis=1)] == np.array(list("abc"))[kinds]).all()


def test_names_without_meaning_get_no_good_figures():
    """Half right is luck; how the one kind scatters must not give away the examples' names."""
    found = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        known = Embeddings(
            np.arange(1, 13),
            rng.normal(size=(12, 60)),
            rng.normal(size=(12, 9)),
            tuple("abcdefghi"),
            "e",
        )
        classes = rng.permutation(["a", "b"] * 6)
        named = pd.DataFrame({"tomogram": "t", "instance": known.instance, "class": classes})
        found.append(fit_head({"t": known}, named)[0]["accuracy"])
    assert np.mean(found) < 0.65


def test_scores_are_densities_given_the_examples():
    """Against plain conditioning of Gaussians, in the space of the vectors."""
    rng = np.random.default_rng(3)
    within, between = (a @ a.T + 0.1 * np.eye(4) for a in rng.normal(size=(2, 4, 4)))
    prior = Prior(rng.normal(size=4), within, between)
    vectors, target = rng.normal(size=(9, 4)) * 2, np.array([0] * 5 + [1] * 3 + [2])
    seen = rng.normal(size=(6, 4)) * 3
    found = scores_of(seen, fit_gaussians(vectors, target, prior, seed=0))

    means = np.stack([vectors[target == k].mean(axis=0) for k in range(3)])
    away = vectors - means[target]
    within = (300 * within + away.T @ away) / (300 + 9 - 3)  # 9 examples, 3 means
    between = between + 0.3 * within
    centre = (means.sum(axis=0) + 3 * prior.mean) / 6

    def given(mean, number):
        """Return the log density of an object of a kind with so many examples of this mean."""
        gain = between @ np.linalg.inv(between + within / number)
        spread = within + between - gain @ between
        return multivariate_normal(centre + gain @ (mean - centre), spread).logpdf(seen)

    columns = []
    for kind in range(3):
        mine = vectors[target == kind]
        forms = logsumexp([given(one, 1) for one in mine], axis=0) - np.log(len(mine))
        columns.append(np.logaddexp(given(means[kind], len(mine)), forms) - np.log(2))
    columns.append(multivariate_normal(centre, within + between).logpdf(seen))
    # Volumes are others in the space of the head: by the same factor for all.
    difference = found - np.stack(columns, axis=1)
    np.testing.assert_allclose(difference, difference[0, 0], atol=1e-8)


def test_a_prior_is_that_of_many_kinds_each_counting_alike():
    rng = np.random.default_rng(0)
    within, between = np.array([0.5, 1.0, 4.0]), np.array([9.0, 1.0, 0.25])
    counts = np.where(np.arange(4000) % 2, 4, 12)
    target = np.repeat(np.arange(4000), counts)
    means = 2 + rng.normal(size=(4000, 3)) * np.sqrt(between)
    means[1::2] += 1  # of the kinds with few objects
    vectors = means[target] + rng.normal(size=(len(target), 3)) * np.sqrt(within)
    found = Prior.measure(vectors, target)
    np.testing.assert_allclose(found.mean, 2.5, atol=0.2)
    # About means of 4 and of 12 objects, and a fiftieth to be on the safe side.
    shrunk = (3 / 4 + 11 / 12) / 2
    np.testing.assert_allclose(np.diag(found.within), 1.02 * shrunk * within, rtol=0.05)
    grown = between + 0.25 + within * (1 / 4 + 1 / 12) / 2
    np.testing.assert_allclose(np.diag(found.between), grown, rtol=0.1)
    assert np.abs(found.within[~np.eye(3, dtype=bool)]).max() < 0.1
    again = Prior.of(Model({"kind": "encoder", "sha256": "e"}, found.to_weights()))
    np.testing.assert_allclose(again.within, found.within, rtol=1e-6)
    assert again.temperature == 3.0


def test_the_temperature_is_that_with_which_classes_were_drawn():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(20_000, 4)) * 20
    odds = scores / 5 + np.log([0.95 / 3, 0.95 / 3, 0.95 / 3, 0.05])
    right = (softmax(odds).cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    assert best_temperature(scores, right, before=2.0, weight=0.0) == pytest.approx(5, rel=0.05)
    assert best_temperature(scores[:1], right[:1], before=2.0) == pytest.approx(2, rel=0.05)
    assert best_temperature(scores[:0], right[:0], before=2.0) == 2.0


def test_figures_are_those_of_the_named_examples():
    chances = np.array(
        [
            [0.97, 0.01, 0.02],
            [0.96, 0.03, 0.01],  # wrong
            [0.25, 0.74, 0.01],
            [0.30, 0.65, 0.05],
            [0.40, 0.41, 0.19],  # wrong
        ]
    )
    target = np.array([0, 1, 1, 1, 2, 0])
    usable = np.array([True, True, True, True, False, True])
    found = _figures(chances, target, usable, ["a", "b", "c"])
    assert found["accuracy"] == pytest.approx(0.6)
    assert found["confusion_matrix"] == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert found["warnings"] == ["class c has a single example: it cannot be checked"]
    told = {one["minimum_confidence"]: (one["named"], one["error"]) for one in found["rejection"]}
    assert told == {
        0.5: pytest.approx((0.8, 0.25)),
        0.7: pytest.approx((0.6, 1 / 3)),
        0.9: pytest.approx((0.4, 0.5)),
        0.95: pytest.approx((0.4, 0.5)),
    }
    # Two lie in the last bin, the others each in its own.
    gaps = [2 * abs(0.965 - 0.5), abs(0.74 - 1), abs(0.65 - 1), abs(0.41 - 0)]
    assert found["calibration_error"] == pytest.approx(sum(gaps) / 5)
    assert calibration_error(np.array([1.0, 1.0]), np.array([True, False])) == 0.5


def test_common_classes_are_likelier_and_rare_ones_are_still_found():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], [380, 20])
    logits = rng.normal(size=400) + np.where(truth == 0, 1.0, -1.0)
    scores = np.stack([logits, -logits, np.full(400, -9.0)], axis=1)
    found = with_shares(scores, np.ones(2))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    equal = softmax(scores)
    assert (found.argmax(axis=1) == truth).mean() > (equal.argmax(axis=1) == truth).mean() + 0.05
    # 20 of them, and the belief in equal shares counts for 15 more of each.
    assert 20 < found[:, 1].sum() < 45 < equal[:, 1].sum()


def test_shares_of_a_single_object_are_nearly_equal():
    scores = np.array([[1.0, 0.0, -2.0]])
    plain = softmax(scores + np.log([0.475, 0.475, 0.05]))
    np.testing.assert_allclose(with_shares(scores, np.ones(2)), plain, atol=0.01)


def test_shares_of_a_single_object_are_nearly_those_that_are_expected():
    scores = np.array([[1.0, 0.0, -2.0]])
    plain = softmax(scores + np.log([0.95 * 0.8, 0.95 * 0.2, 0.05]))
    np.testing.assert_allclose(with_shares(scores, np.array([4.0, 1.0])), plain, atol=0.01)


def test_one_example_a_class_is_enough_and_warns():
    head, known, named = fitted({"a": 1, "b": 1})
    assert "single example" in head.card["warnings"][0]
    assert (apply_head(head, known)["class"] == named["class"]).all()


def test_one_class_is_not_enough():
    with pytest.raises(InputError, match="two are needed"):
        fitted({"a": 5})


def test_no_example_is_an_error_of_its_own():
    known, named = clouds({"a": 2})
    with pytest.raises(InputError, match="no example"):
        fit_head({"t": known}, named[:0])


def test_a_head_of_another_encoder_is_refused():
    head, _, _ = fitted({"a": 5, "b": 5})
    other, _ = clouds({"a": 5, "b": 5}, encoder="other")
    with pytest.raises(InputError, match="another encoder"):
        apply_head(head, other)


def test_the_confusion_matrix_counts_every_example():
    head, _, _ = fitted({"a": 12, "b": 7, "c": 5}, distance=1.0)
    matrix = np.array(head.card["confusion_matrix"])
    assert matrix.sum(axis=1).tolist() == [12, 7, 5]
    assert head.card["accuracy"] == pytest.approx(np.trace(matrix) / 24)


def test_a_head_survives_the_disk_and_repeats_exactly(tmp_path):
    known, named = clouds({"a": 8, "b": 8, "c": 8}, distance=1.0)
    hashes = []
    for name in ("one", "two"):
        card, weights = fit_head({"t": known}, named, seed=3)
        hashes.append(save_model(tmp_path / name, card, weights)["sha256"])
    assert hashes[0] == hashes[1]
    direct = apply_head(Model({**card, "sha256": ""}, weights), known)
    pd.testing.assert_frame_equal(apply_head(load_model(tmp_path / "one"), known), direct)


@settings(max_examples=30)
@given(st.lists(st.lists(st.floats(-500, 500), min_size=3, max_size=3), min_size=1, max_size=5))
def test_softmax_sums_to_one_for_any_logits(rows):
    chances = softmax(np.array(rows))
    assert (chances >= 0).all()
    np.testing.assert_allclose(chances.sum(axis=1), 1)


# Examples


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


PLACES = {"t": {"voxel_size": 10.0, "origin": [100.0, 0.0, 0.0], "nstart": [0, 0, 0]}}


@pytest.fixture
def labels():
    array = np.zeros((4, 5, 6), np.int32)
    array[1, 2, 3] = 7
    array[1, 2, 4] = 7
    array[3, 4, 5] = 9
    return {"t": array}


def test_positions_are_x_y_z_and_looked_up_in_the_labelmap(tmp_path, labels):
    path = write(tmp_path / "e.tsv", "tomogram\tx\ty\tz\tclass\nt\t3\t2\t1\ta\nt\t5\t4\t3\tb\n")
    named, problems = look_up_examples(read_examples(path), labels, PLACES)
    assert named.to_numpy().tolist() == [["t", 7, "a"], ["t", 9, "b"]]
    assert problems == []


def test_positions_in_angstrom_use_the_origin(tmp_path, labels):
    text = "tomogram,x_angstrom,y_angstrom,z_angstrom,class\nt,133,18,9,a\n"
    named, problems = look_up_examples(read_examples(write(tmp_path / "e", text)), labels, PLACES)
    assert named["instance"].tolist() == [7]
    assert problems == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("t,0,0,0,a", "no instance"),
        ("t,6,0,0,a", "outside"),
        ("t,-1,0,0,a", "outside"),
        ("t,1e300,-1e300,0,a", "outside"),
        ("u,1,1,1,a", "no such tomogram"),
        ("t,3,2,1,unknown", "no class"),
    ],
)
def test_rows_that_meet_nothing_are_reported_and_left_out(tmp_path, labels, row, reason):
    path = write(tmp_path / "e.csv", f"tomogram,x,y,z,class\nt,5,4,3,b\n{row}\n")
    named, problems = look_up_examples(read_examples(path), labels, PLACES)
    assert named["instance"].tolist() == [9]
    assert len(problems) == 1
    assert "row 3" in problems[0]
    assert reason in problems[0]


def test_two_classes_for_one_instance_are_reported_and_left_out(tmp_path, labels):
    path = write(tmp_path / "e.csv", "tomogram,x,y,z,class\nt,3,2,1,a\nt,4,2,1,b\nt,5,4,3,b\n")
    named, problems = look_up_examples(read_examples(path), labels, PLACES)
    assert named["instance"].tolist() == [9]
    assert len(problems) == 2
    assert all("instance 7" in problem for problem in problems)


def test_the_same_name_twice_counts_once(tmp_path, labels):
    path = write(tmp_path / "e.csv", "tomogram,x,y,z,class\nt,3,2,1,a\nt,4,2,1,a\n")
    named, problems = look_up_examples(read_examples(path), labels, PLACES)
    assert named["instance"].tolist() == [7]
    assert problems == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tomogram,x,y,class\nt,1,2,a\n", "column z missing"),
        ("tomogram,x,y,z,class\nt,1,2,near,a\n", "row 2, column z: not a number"),
        ("tomogram,x,y,z,class\nt,1,2,3,\n", "row 2, column class: empty"),
        ("tomogram,x,y,z,class\nt,1,2,inf,a\n", "row 2, column z: not a number"),
        ("# mine\ntomogram,x,y,z,class\n\n# a\nt,1,2,q,a\n", "row 5, column z: not a number"),
        ("tomogram,x,y,z,class\nt,1,2,3,a\nt,1,2,3,a,b\n", "row 3: 6 cells, .* 5 columns"),
        ("tomogram,x,y,z,class\nt,1,2\n", "row 2, column class: empty"),
        ('tomogram,x,y,z,class\nt,1,2,"3\nt,1,2,3,a\n', "row 2, column class: empty"),
        (
            "tomogram,x,y,z,class\nt,1,2,3,a\nt\t1\t2\t3\ta\n",
            "row 3: .* tabs, .* by commas",
        ),
        ("tomogram\tx\ty\tz\tclass\nt,1,2,3,a\n", "row 2: .* commas, the header by tabs"),
        ("tomogram,x,x_angstrom,y,z,class\nt,1,1,2,3,a\n", "twice"),
        ("tomogram,x_angstrom,y,z,class\nt,10,1,2,a\n", "x_angstrom in Å, the other axes in vox"),
        ("tomogram,x,y_angstrom,z,class\nt,1,10,2,a\n", "y_angstrom in Å, the other axes in vox"),
        ("", "empty"),
        ("\n# nothing yet\n", "empty"),
    ],
)
def test_a_wrong_file_of_examples_says_where(tmp_path, text, reason):
    with pytest.raises(InputError, match=reason):
        read_examples(write(tmp_path / "e.csv", text))


def test_examples_may_have_comments_and_empty_columns_at_the_end(tmp_path):
    text = "# mine\ntomogram\tx\ty\tz\tclass\t\nt\t3\t2\t1\ta # sure\t\n\nt\t5\t4\t3\t b \t\n"
    table = read_examples(write(tmp_path / "e.tsv", text))
    assert table["class"].tolist() == ["a", "b"]
    assert table["row"].tolist() == [3, 5]
    assert table[["x", "y", "z"]].to_numpy().tolist() == [[3, 2, 1], [5, 4, 3]]


def test_a_file_of_examples_that_is_no_text_is_told(tmp_path):
    path = tmp_path / "e.csv"
    path.write_bytes(b"tomogram,x,y,z,class\nt,1,2,3,v\xe9sicule\n")
    with pytest.raises(InputError, match=r"e\.csv: cannot be read .* UTF-8"):
        read_examples(path)


def test_a_missing_file_of_examples_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.tsv"):
        read_examples(tmp_path / "none.tsv")


# Review


def test_review_starts_with_the_least_sure_and_spreads_over_the_clouds():
    known, truth = clouds({"a": 20, "b": 20, "c": 20})
    sure = np.full(60, 0.5)
    sure[33] = 0.2
    classes = pd.DataFrame({"instance": known.instance, "class": "a", "confidence": sure})
    listed = rank_for_review({"t": known}, {"t": classes}, count=3)
    assert listed["instance"][0] == 34
    kinds = truth.set_index("instance")["class"].loc[listed["instance"]]
    assert set(kinds) == {"a", "b", "c"}


def test_review_lists_each_instance_once_and_no_more_than_there_are():
    known, _ = clouds({"a": 4, "b": 3})
    classes = pd.DataFrame({"instance": known.instance, "class": "a", "confidence": 1.0})
    listed = rank_for_review({"t": known}, {"t": classes}, count=50)
    assert sorted(listed["instance"]) == known.instance.tolist()
    assert list(listed.columns) == ["tomogram", "instance", "class", "confidence"]
    alike = replace(known, embedding=0 * known.embedding, features=0 * known.features)
    listed = rank_for_review({"t": alike}, {"t": classes}, count=50)
    assert sorted(listed["instance"]) == known.instance.tolist()
    none = Embeddings(*(a[:0] for a in (known.instance, known.embedding, known.features)), (), "e")
    assert len(rank_for_review({}, {})) == 0
    assert len(rank_for_review({"t": none}, {"t": classes[:0]})) == 0


def test_review_lists_nothing_that_has_a_name_and_keeps_away_from_it():
    known, truth = clouds({"a": 20, "b": 20, "c": 20})
    classes = pd.DataFrame({"instance": known.instance, "class": "a", "confidence": 0.5})
    named = {("t", number) for number in (1, 2, 21)} | {("t", 0), ("other", 50)}
    every = rank_for_review({"t": known}, {"t": classes}, count=100, named=named)
    assert sorted(every["instance"]) == sorted({*range(1, 61)} - {1, 2, 21})
    first = rank_for_review({"t": known}, {"t": classes}, count=1, named=named)["instance"][0]
    assert truth.set_index("instance")["class"][first] == "c"
    everything = {("t", number) for number in range(1, 61)}
    assert len(rank_for_review({"t": known}, {"t": classes}, named=everything)) == 0


def test_review_takes_the_greatest_product_of_doubt_and_distance():
    known, classes = {}, {}
    rng = np.random.default_rng(0)
    for name in "ab":
        part, _ = clouds({"x": 50, "y": 60}, seed=ord(name))
        known[name] = replace(part, instance=rng.permutation(part.instance))
        sure = rng.uniform(0.9, 1, 110)
        rows = {"instance": part.instance, "class": "x", "confidence": sure}
        classes[name] = pd.DataFrame(rows)
    named = {("a", number) for number in range(1, 80)}
    listed = rank_for_review(known, classes, 12, named)
    keys = [(name, number) for name in "ab" for number in known[name].instance]
    points = np.concatenate([known[name].table() for name in "ab"])
    points = (points - points.mean(axis=0)) / (points.std(axis=0) + 0.05)
    sure = [classes[name]["confidence"][number - 1] for name, number in keys]
    for name, number, confidence in listed[["tomogram", "instance", "confidence"]].to_numpy():
        distance = cdist(points, points[[key in named for key in keys]]).min(axis=1)
        best = np.argmax(np.maximum(1 - np.array(sure), 0.05) * distance)
        assert keys[best] == (name, number)
        assert sure[best] == confidence
        named = {*named, keys[best]}
    assert len(listed) == 12


def test_rows_to_add_are_as_the_examples_file_has_them(tmp_path):
    path = tmp_path / "examples.csv"
    assert examples_header(path) == (["tomogram", "x", "y", "z", "class"], "\t")
    path.write_text("\n")
    assert examples_header(path) == (["tomogram", "x", "y", "z", "class"], "\t")
    path.write_text("# by hand\nclass,tomogram,x_angstrom,y_angstrom,z_angstrom,note\n")
    assert examples_header(path) == (["class", "tomogram", *ANGSTROM, "note"], ",")


def two_views(embedding_tells: bool, features_tell: bool, seed=0, each=20):
    """Make embeddings of three classes; embedding or features, or both, tell them apart."""
    rng = np.random.default_rng(seed)
    kinds = np.repeat(np.arange(3), each)
    places = np.random.default_rng(5).normal(size=(2, 3, 6)) * 4
    embedding, seen = rng.normal(size=(2, len(kinds), 6)) + places[:, kinds]
    if not embedding_tells:
        embedding = rng.normal(size=(len(kinds), 6)) * 4
    if not features_tell:
        seen = rng.normal(size=(len(kinds), 6)) * 4
    number = np.arange(1, len(kinds) + 1)
    arrays = (embedding.astype(np.float32), seen.astype(np.float32))
    known = Embeddings(number, *arrays, tuple("abcdef"), "e")
    named = pd.DataFrame(
        {"tomogram": "t", "instance": number, "class": np.array(list("xyz"))[kinds]}
    )
    return {"t": known}, named


def first_model(weights):
    """Leave out the arrays of the other models."""
    return {name: value for name, value in weights.items() if "." not in name}


def right_of_fresh(card, weights, embedding_tells, features_tell):
    """Return the part of objects that no head has seen that one names rightly."""
    fresh, truth = two_views(embedding_tells, features_tell, seed=1)
    found = apply_head(Model({**card, "sha256": "h"}, weights), fresh["t"], 0.0)
    return (found["class"].to_numpy() == truth["class"].to_numpy()).mean()


def misleading_prior():
    """Return an encoder whose prior takes what the features tell for noise within a kind."""
    size = np.r_[np.full(6, 1.0), np.full(6, 400.0)]
    prior = Prior(np.zeros(12), np.diag(size), np.diag(np.r_[np.full(6, 16.0), np.full(6, 0.1)]))
    return Model({"kind": "encoder", "sha256": "e"}, prior.to_weights())


def test_what_simulation_does_not_know_takes_over_where_it_misleads():
    known, named = two_views(embedding_tells=False, features_tell=True)
    card, weights = fit_head(known, named, misleading_prior())
    assert card["share_without_simulation"] > 0.8
    assert right_of_fresh(card, weights, False, True) > 0.95
    assert right_of_fresh(card, first_model(weights), False, True) < 0.7


def test_shares_of_models_are_the_likeliest():
    """Against other shares: the best product of what each share makes likely, and of beliefs."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, 50)
    chances = [softmax(rng.normal(size=(50, 4)) * 2) for _ in range(3)]
    chances[1][np.arange(50), target] += 0.5

    def worth(shares):
        parts = [one[:, :3] / one[:, :3].sum(axis=1, keepdims=True) for one in chances]
        mean = sum(share * one for share, one in zip(shares, parts, strict=True))
        beliefs = np.log(shares) @ [3, 2, 1]
        return np.log(mean[np.arange(50), target]).sum() + beliefs

    found = _shares(chances, target)
    assert found.sum() == pytest.approx(1)
    assert found[1] > 0.5
    others = [found + 0.01 * step for step in np.r_[np.eye(3), rng.normal(size=(30, 3))]]
    others += list(rng.dirichlet(np.ones(3), 30))
    assert all(worth(found) > worth(other / other.sum()) for other in others)


def test_features_that_tell_nothing_do_no_harm():
    known, named = two_views(embedding_tells=True, features_tell=False)
    card, weights = fit_head(known, named, misleading_prior())
    assert card["accuracy"] > 0.95
    assert right_of_fresh(card, weights, True, False) > 0.95


def test_to_the_second_model_the_units_of_features_are_nothing_and_outliers_little():
    known, named = two_views(True, True)
    _, weights = fit_head(known, named)
    vectors = known["t"].table().astype(float)
    other = replace(known["t"], features=(known["t"].features * 1000 + 7).astype(np.float32))
    _, in_other_units = fit_head({"t": other}, named)
    seen, again = (
        seen_by_second(table, part_of(arrays, "second."))
        for table, arrays in ((vectors, weights), (other.table().astype(float), in_other_units))
    )
    np.testing.assert_allclose(seen, again, atol=1e-4)
    assert np.abs(seen[:, 6:]).max() < 0.2
    vectors[:, 6:] *= 1e6
    assert np.abs(seen_by_second(vectors, part_of(weights, "second."))[:, 6:]).max() < 2


def test_features_that_are_alike_in_all_examples_are_no_fault():
    known, named = two_views(True, False)
    flat = {"t": replace(known["t"], features=np.ones((60, 6), np.float32))}
    card, weights = fit_head(flat, named)
    assert card["accuracy"] > 0.95
    assert all(np.isfinite(value).all() for value in weights.values())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vesicle", "vesicle"),
        ("Vesicles", "vesicle"),
        ("MT", "microtubule"),
        ("mts", "microtubule"),
        ("Mitochondria", "mitochondrion"),
        ("virus-like particle", "virus_like_particle"),
        ("VLPs", "virus_like_particle"),
        (" dense body ", "dense_body"),
        ("dense bodies", "dense_body"),
        ("coated vesicle", None),
        ("debris", None),
        ("s", None),
    ],
)
def test_classes_are_called_like_kinds_whatever_case_plural_and_separators(name, kind):
    kinds = ["dense_body", "microtubule", "mitochondrion", "vesicle", "virus_like_particle"]
    assert kind_called(name, kinds) == kind


def of_kinds(names, *, each=200, seed=5, distance=1.0):
    """Return a head of kinds, and embeddings of objects of each that it has not seen."""
    known, named = clouds(dict.fromkeys(names, each + 60), distance=distance, seed=seed)
    first = named.groupby("class").cumcount() < each
    card, weights = fit_head({"t": known}, named[first])
    return Model({**card, "sha256": "base"}, weights), known, named[~first]


def right_with(base, known, named, test):
    """Return the part of a test's objects that a head fitted to examples names rightly."""
    card, weights = fit_head({"t": known}, named, base=base)
    found = apply_head(Model({**card, "sha256": "h"}, weights), known, 0.0)
    classes = card["classes"]
    best = found[[f"p_{name}" for name in classes]].to_numpy().argmax(axis=1)
    found = found.assign(best=np.array(classes)[best]).set_index("instance")["best"]
    return (found[test["instance"]].to_numpy() == test["class"].to_numpy()).mean()


def test_what_classes_are_called_helps_where_examples_are_few():
    base, known, rest = of_kinds(["microtubule", "ribosome", "vesicle"])
    one, test = rest.groupby("class").head(1), rest.groupby("class").tail(50)
    renamed = {"microtubule": "MT", "ribosome": "Ribosomes", "vesicle": "vesicle"}
    with_names = right_with(
        base,
        known,
        one.assign(**{"class": one["class"].map(renamed)}),
        test.assign(**{"class": test["class"].map(renamed)}),
    )
    called_otherwise = [
        frame.assign(**{"class": frame["class"].map(dict(zip(renamed, "abc", strict=True)))})
        for frame in (one, test)
    ]
    assert with_names > right_with(base, known, *called_otherwise) + 0.1
    assert right_with(base, known, *called_otherwise) == right_with(None, known, *called_otherwise)


def test_names_that_mean_something_else_are_not_trusted():
    base, known, rest = of_kinds(["microtubule", "ribosome", "vesicle"])
    wrong = {"microtubule": "ribosome", "ribosome": "vesicle", "vesicle": "microtubule"}
    rest = rest.assign(**{"class": rest["class"].map(wrong)})
    examples, test = rest.groupby("class").head(40), rest.groupby("class").tail(20)
    alone = right_with(None, known, examples, test)
    assert right_with(base, known, examples, test) == alone > 0.7
    card, _ = fit_head({"t": known}, examples, base=base)
    assert card["kinds"] == {}
    assert "unlike the simulated objects of that name" in card["warnings"][-1]


def test_a_class_of_many_examples_and_one_that_is_called_like_a_kind_are_recorded():
    base, known, rest = of_kinds(["microtubule", "ribosome", "vesicle"])
    rest = rest.replace({"class": {"ribosome": "debris", "vesicle": "Vesicles"}})
    card, weights = fit_head({"t": known}, rest, base=base)
    assert card["kinds"] == {"Vesicles": "vesicle", "microtubule": "microtubule"}
    assert card["examples"] == {"Vesicles": 60, "debris": 60, "microtubule": 60}
    np.testing.assert_allclose(weights["counts"], [60 + WEIGHT, 60, 60 + WEIGHT])
    alone, by_itself = fit_head({"t": known}, rest)
    assert alone["kinds"] == {}
    assert weights["softness"] < by_itself["softness"]


def test_kinds_are_the_vectors_that_their_head_was_fitted_to():
    known, named = clouds({"ribosome": 30, "vesicle": 20}, distance=2.0)
    card, weights = fit_head({"t": known}, named)
    base = Model({**card, "sha256": "base"}, weights)
    unlike = np.zeros((2, 2)), np.array([0, 1])
    kinds = Kinds.of(base, ["vesicle", "ribosome"], *unlike)
    mine = known.table()[named["class"] == "vesicle"]
    np.testing.assert_allclose(kinds.vectors[kinds.target == 0], mine, atol=1e-3)
    np.testing.assert_allclose(np.bincount(kinds.target, kinds.weight), [WEIGHT, WEIGHT])
    assert kinds.others == []
    kinds = Kinds.of(base, [None, "ribosome"], np.array([[1.0, 0.0], [0.0, 1.0]]), unlike[1])
    np.testing.assert_allclose(np.bincount(kinds.target, kinds.weight), [0, WEIGHT, WEIGHT])
    assert kinds.others == ["vesicle"]
    np.testing.assert_allclose(kinds.vectors[kinds.target == 2], mine, atol=1e-3)


@pytest.mark.parametrize(
    ("chances", "others"),
    [
        # One example looks like what it is 0.07 likely to be, ten like what they are 0.17.
        ([[0.9, 0.06, 0.04]], ["b", "c"]),
        ([[0.9, 0.07, 0.03]], ["c"]),
        ([[0.6, 0.16, 0.24]] * 10, ["b"]),
        ([[0.6, 0.17, 0.23]] * 10, []),
        ([[0.9, 0.1, 0.0], [0.5, 0.1, 0.4]] * 50, ["b"]),
        # Always like the likeliest, however many there are.
        ([[0.05, 0.06, 0.04]], ["a", "c"]),
    ],
)
def test_a_class_called_otherwise_looks_like_some_kinds(chances, others):
    chances = np.array(chances)
    found = _unlike(["a", "b", "c"], [None], chances, np.zeros(len(chances), int))
    assert found == others


def test_what_a_class_that_is_called_like_a_kind_looks_like_does_not_count():
    chances, classes = np.array([[0.1, 0.9, 0.0], [0.0, 1.0, 0.0]]), np.array([0, 1])
    assert _unlike(["a", "b", "c"], ["a", "c"], chances, classes) == ["b"]
    assert _unlike(["a", "b", "c"], ["a", None], chances, classes) == ["c"]


FOUR = ["golgi", "microtubule", "ribosome", "vesicle"]


def with_two_of_four(each=5, called=None):
    """Return a head fitted to examples of two of four kinds, and objects of all four."""
    base, known, rest = of_kinds(FOUR, distance=2.0)
    mine = rest[rest["class"].isin(FOUR[2:])].groupby("class").head(each)
    test = rest.groupby("class").tail(50)
    # Kinds that nobody named may lie anywhere near.
    prior = Prior(np.zeros(10), np.eye(10), np.eye(10), temperature=1.0)
    encoder = Model({}, prior.to_weights())
    named = mine.replace({"class": called or {}})
    head = Model(*fit_head({"t": known}, named, encoder, base=base))
    alone = Model(*fit_head({"t": known}, mine, encoder))
    return head, alone, known, test.set_index("instance")["class"]


def names_of(head, known, test, **options):
    return apply_head(head, known, **options).set_index("instance").loc[test.index, "class"]


@pytest.mark.parametrize("called", [{}, {"ribosome": "TRiC", "vesicle": "bleb"}])
def test_kinds_that_nobody_named_are_unknown(called):
    head, alone, known, test = with_two_of_four(called=called)
    assert head.card["others"] == FOUR[:2]
    named = test.isin(FOUR[2:])
    found, before = names_of(head, known, test), names_of(alone, known, test)
    assert (found[named] == test[named].replace(called)).mean() > 0.85
    assert (found[~named] == "unknown").mean() > 0.95
    assert (before[~named] == "unknown").mean() < 0.85


def test_kinds_that_nobody_named_are_names_where_that_is_asked_for():
    head, _, known, test = with_two_of_four()
    one = names_of(head, known, test, kinds=["golgi"])
    assert (one[test == "golgi"] == "golgi").mean() > 0.85
    assert (one[test == "microtubule"] == "unknown").mean() > 0.85
    both = names_of(head, known, test, kinds="all")
    assert (both == test).mean() > 0.85
    # Classes may be asked for as well.
    assert names_of(head, known, test, kinds=["golgi", "vesicle"]).equals(one)
    assert named_kinds(head.card, ["golgi", "vesicle", "er"]) == ["golgi"]


@pytest.mark.parametrize("kinds", [[], ["golgi"], "all"])
def test_chances_of_kinds_that_are_no_names_are_those_of_unknown(kinds):
    head, _, known, _ = with_two_of_four()
    every = apply_head(head, known, kinds="all").set_index("instance")
    some = apply_head(head, known, kinds=kinds).set_index("instance")
    chances = [name for name in some if name.startswith("p_") and name != "p_unknown"]
    pd.testing.assert_frame_equal(some[chances], every[chances])
    np.testing.assert_allclose(some[[*chances, "p_unknown"]].sum(axis=1), 1, rtol=1e-5)
    assert (some["confidence"] == some[chances].max(axis=1)).all()


def test_a_single_class_is_enough_beside_kinds():
    base, known, rest = of_kinds(FOUR, distance=3.0)
    mine = rest[rest["class"] == "vesicle"].head(5)
    head = Model(*fit_head({"t": known}, mine, base=base))
    assert head.card["classes"] == ["vesicle"]
    test = rest.groupby("class").tail(50).set_index("instance")["class"]
    found = names_of(head, known, test)
    assert (found == test.where(test == "vesicle", "unknown")).mean() > 0.85


def test_a_class_that_is_no_kind_of_the_same_name_leaves_it_beside():
    base, known, rest = of_kinds(FOUR, distance=3.0)
    wrong = {"vesicle": "ribosome", "ribosome": "vesicle"}
    mine = rest[rest["class"].isin(wrong)].groupby("class").head(30).replace({"class": wrong})
    head = Model(*fit_head({"t": known}, mine, base=base))
    assert head.card["kinds"] == {}
    assert head.card["others"] == FOUR[:2]
    test = rest.groupby("class").tail(50).set_index("instance")["class"].replace(wrong)
    assert (names_of(head, known, test, kinds="all") == test).mean() > 0.85


def test_names_that_mean_something_else_are_not_trusted_of_single_examples():
    base, known, rest = of_kinds(FOUR, distance=3.0)
    one, test = rest.groupby("class").head(1), rest.groupby("class").tail(20)
    card, _ = fit_head({"t": known}, one, base=base)
    assert set(card["kinds"]) == set(FOUR)
    wrong = dict(zip(FOUR, [*FOUR[1:], FOUR[0]], strict=True))
    one, test = (frame.assign(**{"class": frame["class"].map(wrong)}) for frame in (one, test))
    card, _ = fit_head({"t": known}, one, base=base)
    assert card["kinds"] == {}
    assert "unlike the simulated objects of that name" in card["warnings"][-1]
    assert right_with(base, known, one, test) > 0.4


def test_single_examples_are_doubted_as_much_as_guessing_is_likelier():
    kinds, called = ["a", "b", "c"], ["c", None, "a"]
    chances = np.array([[0.2, 0.5, 0.3], [0.1, 0.8, 0.1], [0.9, 0.1, 0.0]])
    doubt = _doubt_of_single_ones(chances, np.array([0, 1, 2]), called, kinds)
    np.testing.assert_allclose(doubt, np.log(0.5 / 0.6) + np.log(0.5 / 1.0))
    doubt = _doubt_of_single_ones(chances[2:], np.array([0]), called, kinds)
    np.testing.assert_allclose(doubt, np.log(0.5 / 0.03))


@given(st.integers(1, 20), st.integers(0, 20))
def test_others_are_never_commoner_than_classes(classes, others):
    expected = _expected(classes, others)
    assert len(expected) == classes + others
    np.testing.assert_allclose(expected.mean(), 1)
    assert (expected[classes:] <= expected[:1] + 1e-9).all()
    if others > classes:
        np.testing.assert_allclose(0.95 * expected[classes:].sum() / expected.sum(), 0.1)


def test_kinds_of_another_encoder_are_refused():
    base, _, _ = of_kinds(["ribosome", "vesicle"])
    known, named = clouds({"ribosome": 3, "vesicle": 3}, encoder="another")
    with pytest.raises(InputError, match=r"train_classifier\.base"):
        fit_head({"t": known}, named, base=base)


@given(st.lists(st.integers(1, 4), min_size=5, max_size=12), st.integers(0, 100))
def test_an_example_that_counts_for_several_is_as_good_as_several(times, seed):
    rng = np.random.default_rng(seed)
    vectors, target = rng.normal(size=(len(times), 4)), np.arange(len(times)) % 3
    prior = Prior(np.zeros(4), np.eye(4), np.diag([4.0, 3.0, 2.0, 1.0]))
    weighted = _parameters(vectors, target, np.array(times, float), prior)
    ones = np.ones(sum(times))
    repeated = _parameters(np.repeat(vectors, times, axis=0), np.repeat(target, times), ones, prior)
    for name in ("centre", "spread", "counts"):
        np.testing.assert_allclose(weighted[name], repeated[name], atol=1e-9)
    np.testing.assert_allclose(np.abs(weighted["means"]), np.abs(repeated["means"]), atol=1e-6)


def test_heads_of_former_versions_with_fewer_models_still_name():
    known, named = two_views(embedding_tells=False, features_tell=True)
    card, weights = fit_head(known, named, misleading_prior())
    former = {name: value for name, value in weights.items() if not name.startswith("second.")}
    former["features.share"] = np.array([0.9])
    assert right_of_fresh(card, former, False, True) > 0.95


def test_a_new_kind_is_told_by_the_first_model_alone():
    known, named = two_views(True, True)
    _, weights = fit_head(known, named)
    arrays = {name: value.astype(float) for name, value in weights.items()}
    alone = first_model(arrays)
    table = known["t"].table().astype(float) + np.linspace(0, 30, 60)[:, None]
    both, first = chances_of(table, arrays), chances_of(table, alone)
    np.testing.assert_allclose(both[:, -1], first[:, -1])
    np.testing.assert_allclose(both.sum(axis=1), 1)
    assert np.abs(both - first).max() > 1e-3


def test_rows_follow_the_order_and_separator_of_the_file(tmp_path):
    path = tmp_path / "examples.csv"
    path.write_text("class,tomogram,x,y,z,note\nb,t,1,1,1,mine")
    append_examples(path, [{"tomogram": "t", "x": 3, "y": 4, "z": 5, "class": "c"}])
    assert path.read_text() == "class,tomogram,x,y,z,note\nb,t,1,1,1,mine\nc,t,3,4,5,\n"


def test_a_file_without_the_columns_is_left_alone(tmp_path):
    path = tmp_path / "examples.csv"
    path.write_text("class,tomogram\n")
    with pytest.raises(InputError, match="column x"):
        append_examples(path, [{"class": "c"}])
    assert path.read_text() == "class,tomogram\n"


HEADERS = (
    "tomogram\tx\ty\tz\tclass\n",
    "tomogram,x,y,z,class,note\r\n",
    "# mine, of May\n\nclass, z, y, x, tomogram",
    '"tomogram","x","y","z","class"\n',
    "\ufefftomogram,x,y,z,class\n",
    "",
)


@pytest.mark.parametrize("header", HEADERS)
@given(
    # Control characters and the like are passed over below: few shall be drawn for nothing.
    name=st.text(st.characters(exclude_categories=["C"]), min_size=1),
    more=st.sampled_from(["", ",", "#", '"', "\t", ' # "a", b']),
)
def test_whatever_is_named_is_read_again(tmp_path_factory, header, name, more):
    name = " ".join((name + more).replace("\x00", "").split())
    assume(name and name.isprintable())
    path = tmp_path_factory.mktemp("named") / "examples"
    path.write_bytes(header.encode())
    for x in (3, 4):
        append_examples(path, [{"tomogram": "t", "x": x, "y": 2, "z": 1, "class": name}])
    found = read_examples(path)
    assert found["class"].tolist() == [name, name]
    assert found[["tomogram", "x", "y", "z"]].to_numpy().tolist() == [
        ["t", 3, 2, 1],
        ["t", 4, 2, 1],
    ]


@pytest.mark.parametrize(("each", "softness"), [(1, 7 / 6), (3, 7 / 6), (10, 1.05), (50, 1.01)])
def test_few_examples_make_the_classes_less_certain_and_name_the_same(each, softness):
    known, named = two_views(True, True, each=each)
    _, weights = fit_head(known, named)
    assert weights["softness"] == pytest.approx(softness)
    fresh, _ = two_views(True, True, seed=1)
    vectors = fresh["t"].table().astype(float)
    hard = chances_of(vectors, {name: a for name, a in weights.items() if name != "softness"})
    soft = chances_of(vectors, weights)
    # Odds between classes shrink to that root, and the chance of a new kind stays.
    odds = np.log(hard[:, 0] / hard[:, 1]) / softness
    assert np.log(soft[:, 0] / soft[:, 1]) == pytest.approx(odds, abs=1e-4)
    assert soft[:, -1] == pytest.approx(hard[:, -1])
    assert soft.sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("unit", ["voxel", "angstrom"])
def test_objects_named_in_either_unit_are_found(tmp_path, unit):
    labels = np.zeros((8, 12, 16), np.int32)
    labels[2:5, 3:6, 9:12], labels[6, 6, 6] = 7, 9
    facts = {"voxel_size": 10.0, "origin": [-50.0, 0.0, 20.0], "nstart": [0, 0, 0]}
    columns, place = {
        "voxel": ("x y z", "10 4 3"),
        "angstrom": ("x_angstrom y_angstrom z_angstrom", "50 40 50"),
    }[unit]
    rows = [f"tomogram {columns} class", f"t {place} a", f"u {place} a", "t 1e9 0 0 a"]
    path = tmp_path / "examples.tsv"
    path.write_text("\n".join(rows).replace(" ", "\t") + "\n")
    examples = read_examples(path)
    assert named_at(examples, "t", labels, facts) == {7}
    assert named_at(examples, "v", labels, facts) == set()
    found, problems = look_up_examples(examples, {"t": labels}, {"t": facts})
    assert found["instance"].tolist() == [7]
    assert len(problems) == 2


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_padding_does_not_change_what_is_seen_of_objects(dtype):
    rng = np.random.default_rng(0)
    data = rng.normal(1280, 100, (48, 64, 64))
    labels = np.zeros(data.shape, np.int32)
    labels[18:30, 26:38, 26:38] = 1
    data[labels == 1] -= 100
    data = data.round().astype(dtype)
    padded = data.copy()
    padded[:, :, :20] = 0
    one, two = (next(iter(views(Volume(some, 10.0), labels, "dark"))) for some in (data, padded))
    np.testing.assert_allclose(two.features, one.features, atol=0.05)
    np.testing.assert_allclose(two.crops[2][..., 12:], one.crops[2][..., 12:], atol=0.1)
    # Padding is as the surroundings of the volume are.
    assert (two.crops[2][0, ..., :3] == 0).all()


def test_thin_objects_in_large_boxes_are_described():
    labels = np.zeros((100, 400, 400), np.int32)
    labels[1, 0:399, 1] = labels[1, 1, 0:399] = labels[1:100, 1, 399] = 1
    noise = np.random.default_rng(0).normal(size=labels.shape).astype(np.float32)
    (view,) = views(Volume(noise, 14.0), labels, "dark")
    assert np.isfinite(view.features).all()
    assert np.isfinite(view.crops).all()
    assert (view.kinds == CLOSE).any()


def test_what_is_not_viewed_still_is_a_neighbour():
    labels = np.zeros((24, 40, 40), np.int32)
    labels[8:16, 8:20, 8:20], labels[8:16, 20:32, 8:20] = 1, 2
    tomogram = Volume(np.random.default_rng(0).normal(size=labels.shape).astype(np.float32), 10.0)
    every = list(views(tomogram, labels, "dark"))
    (one,) = views(tomogram, labels, "dark", wanted={1})
    assert one.number == 1
    np.testing.assert_array_equal(one.features, every[0].features)
    alone = np.where(labels == 1, 1, 0)
    (lonely,) = views(tomogram, alone, "dark")
    assert lonely.features[NAMES.index("touching")] < one.features[NAMES.index("touching")]


def test_grey_values_that_a_conversion_cut_off_are_no_padding():
    """The darkest voxels of a stretched eight-bit tomogram are its objects."""
    labels = np.zeros((32, 64, 64), np.int32)
    labels[4:28, 20:44, 20:44] = ball(24, 10)
    noise = np.random.default_rng(0).normal(size=labels.shape)
    grey = 128 + 40 * noise - 140 * (labels > 0)
    stretched = Volume(np.clip(grey, 0, 255).round().astype(np.uint8), 10.0)
    assert (stretched.data == 0).mean() > 0.01
    one, two = (
        next(iter(views(some, labels, "dark")))
        for some in (Volume(grey.astype(np.float32), 10.0), stretched)
    )
    row = NAMES.index("density")
    assert two.features[row] > 0.5 * one.features[row]
    middle = (0, 0, *[slice(SIDE // 2 - 3, SIDE // 2 + 3)] * 3)
    assert two.crops[middle].mean() > 0.5 * one.crops[middle].mean() > 0
