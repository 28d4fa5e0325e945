import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.special import expit

from tomocensus.errors import InputError
from tomocensus.models import Model, load_model, save_model
from tomocensus.padding import without_data
from tomocensus.parallel import ahead
from tomocensus.segment import (
    AnnotatedVolume,
    TrainSettings,
    inference,
    predict,
    predict_to_files,
    train,
    training,
)
from tomocensus.segment.calibration import (
    best_offset,
    calibrate,
    calibration_error,
    dice_annotated,
    dice_by_group,
    dice_held_out,
    logits_of_slice,
    platt,
)
from tomocensus.segment.contrast import (
    Slices,
    mirrored,
    model_shape,
    resize_slice,
    robust_contrast,
    scale_annotation,
)
from tomocensus.segment.inference import Predictor
from tomocensus.segment.network import build, fold, from_card, halo, widened
from tomocensus.segment.optimisation import _schedule, masked_loss, optimise
from tomocensus.segment.patches import STRONG_NOISE, ZOOM, Patches
from tomocensus.segment.targets import (
    IGNORE,
    TargetSlice,
    boundary_target,
    check,
    hold_out,
    make_targets,
    outline,
)
from tomocensus.volume import Volume

CPU = torch.device("cpu")
TINY = TrainSettings(steps=240, patch=48, batch=4, width=8, depth=3, slices=3, learning_rate=5e-3)


def scene(seed=0, shape=(12, 96, 96), voxel_size=10.0):
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape)
    labels = np.zeros(shape, np.int32)
    for number in range(1, 11):
        c = rng.uniform((0, 0, 0), shape)
        ball = (z - c[0]) ** 2 + (y - c[1]) ** 2 + (x - c[2]) ** 2 < rng.uniform(6, 12) ** 2
        labels[ball] = number
    density = rng.normal(0, 0.5, shape) - (labels > 0)
    return Volume(density.astype(np.float32), voxel_size), labels


def sparse(labels, slices=(3, 8)):
    annotation = np.full(labels.shape, -1, np.int32)
    annotation[list(slices)] = labels[list(slices)]
    return annotation


def dice(one, two):
    return 2 * (one & two).sum() / (one.sum() + two.sum())


@pytest.fixture(scope="module")
def trained():
    tomogram, labels = scene()
    pair = AnnotatedVolume("a", tomogram, sparse(labels), "dark", "instance")
    card, weights, history = train([pair], None, TINY)
    return Model(card, weights), history


def untrained(depth=3, heads=("probability", "boundary"), voxel_size=10.0, slices=3):
    torch.manual_seed(1)
    architecture = {"slices": slices, "width": 4, "depth": depth}
    network = build(architecture, len(heads))
    network.train()
    for _ in range(3):  # batch statistics that are not the defaults
        network(torch.randn(2, slices, 32, 32))
    weights = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    card = {
        "kind": "segmenter",
        "architecture": architecture,
        "heads": list(heads),
        "voxel_size": voxel_size,
    }
    return Model(card, weights), network


def test_loss_has_no_gradient_where_not_annotated():
    logits = torch.randn(2, 2, 8, 8, requires_grad=True)
    target = torch.randint(0, 2, (2, 2, 8, 8)).float()
    target[:, :, :4] = IGNORE
    masked_loss(logits, target).backward()
    assert (logits.grad[:, :, :4] == 0).all()
    assert (logits.grad[:, :, 4:] != 0).all()


def test_loss_falls_with_better_logits_and_survives_no_annotation():
    target = torch.randint(0, 2, (1, 1, 8, 8)).float()
    right = (target * 2 - 1) * 5
    assert masked_loss(right, target) < 0.1 < masked_loss(-right, target)
    assert masked_loss(right, torch.full_like(target, IGNORE)) == 0


def test_weights_say_how_much_a_voxel_counts_in_the_loss():
    target = torch.randint(0, 2, (2, 2, 8, 8)).float()
    logits, weight = torch.randn(2, 2, 8, 8), torch.ones(2, 1, 8, 8)
    weight[:, :, :4] = 3
    twice = [torch.cat([one, one[:, :, :4], one[:, :, :4]], dim=2) for one in (logits, target)]
    told, wanted = masked_loss(logits, target, 0.7, weight), masked_loss(*twice, 0.7)
    # The Dice loss adds 1 above and below, in either case.
    torch.testing.assert_close(told, wanted, rtol=1e-5, atol=1e-5)
    assert not torch.isclose(told, masked_loss(logits, target, 0.7))


def test_weights_reach_the_patches_on_the_models_grid():
    tomogram, labels = scene()
    weight = np.where(labels > 0, 3, 1).astype(np.uint8)
    pair = AnnotatedVolume("a", tomogram, labels, kind="instance", weight=weight)
    targets = make_targets(pair, 10.0, 3, ["probability", "boundary"])
    image, target, counts = Patches(targets, 32, np.random.default_rng(0)).batch(8)
    assert image.shape == (8, 3, 32, 32)
    assert counts.shape == (8, 1, 32, 32)
    known = target[:, 0] != IGNORE
    assert torch.equal(counts[:, 0][known], 1 + 2 * target[:, 0][known])
    coarse = make_targets(pair, 20.0, 3, ["probability", "boundary"])
    assert all((one.weight[one.target[0] == 1] == 3).all() for one in coarse)
    with pytest.raises(InputError, match="shape"):
        replace(pair, weight=weight[1:])


def test_learns_a_simple_scene_from_two_slices(trained):
    model, history = trained
    tomogram, labels = scene()
    found = predict(tomogram, model)["probability"] > 50
    rest = [z for z in range(12) if z not in (3, 8)]
    assert dice(found[rest], labels[rest] > 0) > 0.9
    assert history[-1]["loss"] < history[0]["loss"]


def test_too_little_annotation_is_told(trained):
    warnings = trained[0].card["warnings"]
    assert any("voxels are annotated" in line for line in warnings)
    assert any("not validated" in line for line in warnings)


def test_polarity_inversion_gives_the_same_map(trained):
    tomogram, _ = scene(3)
    inverted = tomogram.with_data(-tomogram.data)
    one = predict(tomogram, trained[0], "dark")["probability"].astype(int)
    two = predict(inverted, trained[0], "bright")["probability"].astype(int)
    assert np.abs(one - two).max() <= 1


def test_intensity_scale_does_not_matter(trained):
    tomogram, _ = scene(3)
    other = tomogram.with_data(tomogram.data * 37 + 1000)
    one = predict(tomogram, trained[0])["probability"].astype(int)
    two = predict(other, trained[0])["probability"].astype(int)
    assert np.abs(one - two).mean() < 0.2


def test_training_and_prediction_are_deterministic():
    tomogram, labels = scene(2, (6, 64, 64))
    pair = AnnotatedVolume("a", tomogram, sparse(labels, (2, 4)))
    short = replace(TINY, steps=4, patch=32, voxel_size="auto")
    one, two = (train([pair], None, short) for _ in range(2))
    assert all(np.array_equal(one[1][name], two[1][name]) for name in one[1])
    other = train([pair], None, replace(short, seed=1))
    assert any(not np.array_equal(one[1][name], other[1][name]) for name in one[1])
    maps = [predict(tomogram, Model(one[0], one[1]))["probability"] for _ in range(2)]
    assert np.array_equal(*maps)


@pytest.mark.parametrize("tile", [96, 120])
def test_prediction_does_not_depend_on_tiles(tile):
    model, _ = untrained()
    slab = np.random.default_rng(0).normal(size=(3, 150, 173)).astype(np.float32)
    whole = Predictor(model, "cpu", precision="float32", tile=10_000)(slab)
    tiled = Predictor(model, "cpu", precision="float32", tile=tile)(slab)
    assert whole.shape == (2, 150, 173)
    assert np.abs(whole - tiled).max() < 1e-5
    assert whole.std() > 1e-3


@pytest.mark.parametrize("voxel_size", [10.0, 7.0, 13.0])
def test_maps_made_ahead_are_the_same(voxel_size, monkeypatch):
    model, _ = untrained()
    model.card["voxel_size"] = 10.0
    tomogram = Volume(scene()[0].data, voxel_size)
    mask = np.zeros(tomogram.shape, np.uint8)
    mask[2:5], mask[9:] = 1, 1
    alone = predict(tomogram, model, mask=mask)
    signed = predict(tomogram, model, mask=(255 * mask).view(np.int8))
    assert all(np.array_equal(signed[head], alone[head]) for head in alone)
    monkeypatch.setattr(inference, "ahead", lambda function, items, _: ahead(function, items, 3))
    for head, made in predict(tomogram, model, mask=mask).items():
        assert made[2:5].any()
        assert not made[5:9].any()
        assert np.array_equal(made, alone[head])


class Through:
    """A predictor that returns the middle slice."""

    slices, device = 3, CPU

    def __call__(self, slab):
        return slab[1:2]


@pytest.mark.parametrize("voxel_size", [6.0, 10.0, 23.0])
def test_maps_between_two_model_slices_are_blended(rng, voxel_size):
    tomogram = Volume(rng.normal(size=(11, 20, 20)).astype(np.float32), voxel_size)
    source = Slices(tomogram, 10.0, "dark")
    mask = np.zeros(tomogram.shape, np.uint8)
    mask[[0, 3, 4, 10], 5] = 1
    shown = np.stack([resize_slice(source[k], (20, 20)) for k in range(len(source))])
    for looked, wanted in ((None, range(11)), (mask, [0, 3, 4, 10])):
        made = dict(inference._output_slices(Through(), source, tomogram.shape, looked))
        assert list(made) == list(wanted)
        for z, image in made.items():
            place = np.clip((z + 0.5) * len(source) / 11 - 0.5, 0, len(source) - 1)
            below, above = int(np.floor(place)), int(np.ceil(place))
            expected = shown[below] * (1 - place % 1) + shown[above] * (place % 1)
            assert np.allclose(image[0], expected, atol=1e-4)


@pytest.mark.parametrize(("length", "pad"), [(5, 3), (4, 9)])
def test_mirrored_places_are_those_of_numpys_symmetric_padding(length, pad):
    row = np.arange(length)
    found = mirrored(np.arange(-pad, length + pad), length)
    assert np.array_equal(found, np.pad(row, pad, mode="symmetric"))


@pytest.mark.parametrize("depth", [2, 3])
def test_halo_covers_the_reach_of_a_pixel(depth):
    _, network = untrained(depth)
    network.eval()
    image = torch.randn(1, 3, 160, 160)
    changed = image.clone()
    changed[:, :, 80, 80] += 10
    with torch.no_grad():
        moved = (network(image) != network(changed)).any(dim=1)[0].nonzero()
    assert int((moved - 80).abs().max()) <= halo(depth)


def test_folding_keeps_the_result():
    _, network = untrained()
    network.eval()
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before = network(image)
        after = fold(network)(image)
    assert torch.allclose(before, after, atol=1e-4)


def test_bfloat16_stays_close_to_float32(trained):
    tomogram, _ = scene(4)
    exact = predict(tomogram, trained[0], precision="float32")["probability"].astype(int)
    fast = predict(tomogram, trained[0], precision="bfloat16")["probability"].astype(int)
    assert np.abs(exact - fast).mean() < 1


def test_tta_of_a_mirrored_tomogram_is_the_mirrored_map(trained):
    tomogram, _ = scene(4, (4, 64, 64))
    one = predict(tomogram, trained[0], tta=True, precision="float32")["probability"]
    mirrored = tomogram.with_data(tomogram.data[:, ::-1, ::-1])
    two = predict(mirrored, trained[0], tta=True, precision="float32")["probability"]
    assert np.abs(one.astype(int) - two[:, ::-1, ::-1]).max() <= 1


@pytest.mark.parametrize("new", [0.5, 0.8, 1.3, 2.0])
def test_rescaling_round_trip_keeps_the_place(new):
    y, x = np.indices((60, 80))
    blob = np.exp(-((y - 22.3) ** 2 + (x - 51.7) ** 2) / 50).astype(np.float32)
    small = resize_slice(blob, (round(60 * new), round(80 * new)))
    back = resize_slice(small, (60, 80))
    centre = [(axis * back).sum() / back.sum() for axis in (y, x)]
    assert np.allclose(centre, [22.3, 51.7], atol=0.15)


@pytest.mark.parametrize("voxel_size", [6.0, 20.0])
def test_a_map_of_another_voxel_size_lies_where_the_objects_lie(trained, voxel_size):
    model = trained[0]
    size = {6.0: 150, 20.0: 48}[voxel_size]
    shape = (max(6, round(120 / voxel_size)), size, size)
    z, y, x = np.indices(shape) * voxel_size
    centre = (shape[0] * voxel_size / 2, 350.0, 600.0)
    ball = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < 110**2
    noise = np.random.default_rng(0).normal(0, 0.2, shape)
    tomogram = Volume((noise - ball).astype(np.float32), voxel_size)
    found = predict(tomogram, model)["probability"]
    assert found.shape == shape
    blobs, _ = ndimage.label(found > 50)
    largest = np.bincount(blobs[blobs > 0]).argmax()
    weight = np.where(blobs == largest, found.astype(float), 0)
    middle = [(axis * weight).sum() / weight.sum() for axis in (y, x)]
    truth = [axis[ball].mean() for axis in (y, x)]
    assert np.allclose(middle, truth, atol=voxel_size)


def test_shape_is_kept_within_ten_per_cent():
    assert model_shape((10, 20, 30), 10.5, 10.0) == (10, 20, 30)
    assert model_shape((10, 20, 30), 20.0, 10.0) == (20, 40, 60)
    assert model_shape((1, 20, 30), 2.0, 10.0) == (1, 4, 6)


@pytest.mark.parametrize("voxel_size", [7.0, 10.0, 14.0, 3.1])
def test_slices_are_means_of_those_they_span_or_lie_between_two(rng, voxel_size):
    values = rng.uniform(-1, 1, 23)
    data = values[:, None, None] + rng.normal(scale=1e-4, size=(23, 16, 16))
    source = Slices(Volume(data.astype(np.float32), voxel_size), 10.0, "dark")
    count = round(23 * voxel_size / 10)
    assert len(source) == count
    ratio = 23 / count
    if ratio > 1:
        whole = np.concatenate([[0], np.cumsum(values)])
        expected = np.diff(np.interp(np.arange(count + 1) * ratio, np.arange(24), whole)) / ratio
    else:
        expected = np.interp((np.arange(count) + 0.5) * ratio - 0.5, np.arange(23), values)
    found = [(source[z] * source.scale + source.median).mean() for z in range(count)]
    assert np.allclose(found, expected, atol=1e-3)
    around = source.slab(count - 2, 5)
    assert np.array_equal(
        around, [source[z] for z in (count - 4, count - 3, count - 2, count - 1, count)]
    )


def test_every_annotated_slice_survives_rescaling():
    annotation = np.full((40, 8, 8), -1, np.int32)
    annotation[[5, 21, 22]] = 1
    annotation[21] = -1
    annotation[21, :4] = 2
    slices = scale_annotation(annotation, (20, 4, 4))
    assert sorted(slices) == [2, 10, 11]
    assert sorted(scale_annotation(annotation, (80, 16, 16))) == [11, 43, 45]
    assert (slices[10][:2] == 2).all()
    assert (slices[10][2:] == -1).all()
    # Where two meet, the first counts, and the second where that says nothing.
    annotation[20, 2:6], annotation[33] = 5, 0
    slices = scale_annotation(annotation, (20, 4, 4))
    assert sorted(slices) == [2, 10, 11, 16]
    assert slices[10][:, 0].tolist() == [2, 5, 5, -1]
    assert (slices[16] == 0).all()


def test_gold_and_padding_do_not_shift_contrast():
    rng = np.random.default_rng(0)
    data = rng.normal(5, 2, (10, 100, 100)).astype(np.float32)
    *plain, none = robust_contrast(data)
    gold = data.copy()
    gold[:, :8, :12] = -500
    padded = data.copy()
    padded[:, :, :30] = 0
    assert np.allclose(plain, (5, 2), atol=0.05)
    assert np.allclose(robust_contrast(gold)[:2], plain, atol=0.1)
    assert np.allclose(robust_contrast(padded), (*plain, 0), atol=0.05)
    assert none is None


def test_constant_tomogram_and_wrong_values():
    assert np.isfinite(robust_contrast(np.zeros((3, 8, 8), np.float32))[:2]).all()
    with pytest.raises(InputError, match="finite"):
        robust_contrast(np.full((3, 8, 8), np.nan, np.float32))
    data = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    data[1, 2, 3] = np.nan
    assert np.isfinite(Slices(Volume(data, 10.0), 10.0, "dark").slab(0, 5)).all()


def test_outline_parts_touching_instances():
    labels = np.zeros((7, 10), np.int32)
    labels[1:6, 1:5] = 1
    labels[1:6, 5:9] = 2
    touching = boundary_target(labels, "instance")
    merged = boundary_target(labels, "binary")
    assert (touching[3, 4:6] == 1).all()
    assert (merged[3, 4:6] == 0).all()
    assert touching[3, 2] == 0
    assert touching[3, 1] == touching[3, 0] == 1
    semantic = np.where(labels == 2, 1, labels)
    assert np.array_equal(boundary_target(semantic, "semantic"), merged)


def test_outline_leaves_doubt_at_the_edge_of_annotation():
    labels = np.full((6, 6), -1)
    labels[:, :3] = 1
    result = outline(labels)
    assert (result[:, :2] == 0).all()
    assert (result[:, 2:] == IGNORE).all()


@given(arrays(np.int8, st.tuples(*[st.integers(1, 7)] * 2), elements=st.integers(-1, 2)))
def test_outline_is_what_its_four_neighbours_say(labels):
    wanted = np.zeros(labels.shape, np.uint8)
    for y, x in np.ndindex(labels.shape):
        around = [
            labels[at]
            for at in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
            if 0 <= at[0] < labels.shape[0] and 0 <= at[1] < labels.shape[1]
        ]
        if labels[y, x] < 0:
            wanted[y, x] = IGNORE
        elif any(other >= 0 and other != labels[y, x] for other in around):
            wanted[y, x] = 1
        elif min(around, default=0) < 0:
            wanted[y, x] = IGNORE
    assert np.array_equal(outline(labels), wanted)


def test_platt_finds_slope_and_offset():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, 40_000)
    y = rng.random(x.size) < 1 / (1 + np.exp(-(0.6 * x + 0.4)))
    slope, offset = platt(x, y)
    assert slope == pytest.approx(0.6, abs=0.03)
    assert offset == pytest.approx(0.4, abs=0.05)
    before = calibration_error(1 / (1 + np.exp(-x)), y)
    assert calibration_error(1 / (1 + np.exp(-(slope * x + offset))), y) < 0.2 * before


def test_the_calibration_error_is_the_mean_gap_over_bins():
    p, truth = np.repeat([0.05, 0.95, 1.0], 100), np.tile([False, True], 150)
    # The last two share a bin; over all of them the gaps would nearly cancel out.
    assert calibration_error(p, truth) == pytest.approx((0.45 + 2 * 0.475) / 3)
    assert calibration_error(truth.astype(float), truth) == 0


def test_a_slice_of_any_size_is_scored_as_it_is_predicted(rng):
    model, network = untrained()
    image = rng.normal(size=(3, 61, 74)).astype(np.float32)
    logits = logits_of_slice(network.eval(), image, CPU)
    predicted = Predictor(model, "cpu")(image)
    reach = halo(3)  # as far as it matters how slices go on beyond their border
    assert logits.shape == predicted.shape
    inner = (slice(None), slice(reach, -reach), slice(reach, -reach))
    assert np.allclose(expit(logits[inner]), predicted[inner], atol=1e-5)


def halves(rng, heads=1):
    """Return a network and what of two slices it finds, and targets it fits, and half fits."""
    _, network = untrained(heads=["probability", "boundary", "membrane"][:heads])
    images = rng.normal(size=(2, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        middle = [logits_of_slice(network.eval(), image, CPU).mean(axis=(1, 2)) for image in images]
        network.head.bias -= torch.from_numpy(np.mean(middle, axis=0))
    targets = []
    for group, image, fitting in zip(("", "b"), images, (32, 16), strict=True):
        found = logits_of_slice(network, image, CPU) > 0
        target = np.where(np.arange(32) < fitting, found, ~found).astype(np.uint8)
        target[0, :2] = IGNORE
        held = np.zeros((32, 32), bool)
        held[:16] = True
        targets.append(TargetSlice("a", 0, image, target, held, group))
    return network, targets


def test_scores_are_those_of_what_is_annotated_and_of_what_is_held_out(rng):
    network, targets = halves(rng)
    fits, differs = (
        [
            dice(logits_of_slice(network, t.image, CPU)[0, rows] > 0, t.target[0, rows] == 1)
            for t in targets
        ]
        for rows in (slice(2, 16), slice(2, 32))
    )
    scores = dice_by_group(network, targets, CPU)
    assert scores == {
        "no group": {"held_out_dice": 1, "held_out_voxels": 14 * 32},
        "b": {"held_out_dice": pytest.approx(fits[1]), "held_out_voxels": 14 * 32},
    }
    assert dice_by_group(network, targets[:1], CPU) == {}
    assert dice_held_out(network, targets[1:], CPU) == pytest.approx(fits[1])
    assert dice_annotated(network, targets[1:], CPU) == pytest.approx(differs[1])
    assert fits[1] < 0.9


@pytest.mark.parametrize("trust", [1.0, 0.5])
def test_what_calibration_finds_is_in_the_network(rng, trust):
    network, targets = halves(rng, heads=3)
    before = [logits_of_slice(network, t.image, CPU) for t in targets]
    x = np.concatenate([logits[0, 2:16].ravel() for logits in before])
    y = np.concatenate([t.target[0, 2:16].ravel() for t in targets]) == 1
    slope, offset = platt(x, y)
    heads = ["probability", "boundary", "membrane"]
    metrics, fitted = calibrate(network, targets, heads, CPU, trust)
    assert fitted["probability"] == pytest.approx([slope**trust, offset * trust])
    assert fitted["membrane"][0] == 1
    change = np.array([fitted[head] for head in heads])[:, :, None, None]
    after = [logits_of_slice(network, t.image, CPU) for t in targets]
    for old, new in zip(before, after, strict=True):
        assert np.allclose(old * change[:, 0] + change[:, 1], new, atol=1e-5)
    seen = np.concatenate([logits[0, 2:16].ravel() for logits in after])
    error = calibration_error(expit(seen), y)
    assert metrics["held_out_dice"] == pytest.approx(dice(seen > 0, y))
    assert metrics["held_out_probability_calibration_error"] == pytest.approx(error, abs=1e-4)
    assert metrics["held_out_probability_voxels"] == y.size
    assert metrics["held_out_boundary_voxels"] == 2 * 16 * 32


def test_rare_and_doubtful_voxels_pass_one_half_with_the_best_offset():
    rng = np.random.default_rng(0)
    truth = rng.random(40_000) < 0.05
    # Calibrated, and hardly ever above one half: what a thin bilayer's map looks like.
    logits = np.where(truth, -1.0, -3.0) + rng.normal(0, 0.5, truth.size)
    offset = best_offset(logits, truth)
    assert 1.3 <= offset <= 1.5
    found = logits + offset > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.7
    assert best_offset(truth * 20.0 - 10, truth) == 0


def learner():
    """Return a network and what it may learn: a stripe."""
    _, network = untrained()
    target = np.zeros((64, 64), np.uint8)
    target[20:40] = 1
    image = np.random.default_rng(0).normal(size=(3, 64, 64)).astype(np.float32)
    one = TargetSlice("a", 0, image, np.stack([target, target]), np.zeros((64, 64), bool))
    return network, Patches([one], 16, np.random.default_rng(0))


def optimised(scores, steps=24, **options):
    """Train a little; return the network, the history, and the averages that were scored."""
    network, patches = learner()
    seen, left = [], iter(scores)

    def validate(averaged):
        seen.append({name: value.clone() for name, value in averaged.state_dict().items()})
        return next(left)

    settings = replace(TINY, steps=steps, batch=1)
    weight = torch.tensor([0.5, 0.5])
    given = (network, patches, settings, 1e-3, weight, CPU, validate if scores else None)
    return (*optimise(*given, **options), seen, network)


def same(one, two):
    return all(torch.equal(value, two[name]) for name, value in one.items())


def test_steps_are_those_of_adamw_on_the_clipped_gradient_of_the_loss():
    network, patches = learner()
    weights = list(network.train().parameters())
    first, second = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    losses = []
    for step in (1, 2, 3):
        rate = 1e-3 * _schedule(step, replace(TINY, steps=3), step / 3)
        image, target, counts = patches.batch(1)
        loss = masked_loss(network(image), target, torch.tensor([0.5, 0.5]), counts)
        losses.append(loss.item())
        found = torch.autograd.grad(loss, weights)
        length = torch.sqrt(sum((one**2).sum() for one in found))
        with torch.no_grad():
            for weight, one, mean, square in zip(weights, found, first, second, strict=True):
                one = one * min(1, 5 / (length + 1e-6))
                mean += 0.1 * (one - mean)
                square += 0.001 * (one**2 - square)
                move = mean / (1 - 0.9**step)
                weight *= 1 - 1e-3 * rate
                weight -= rate * move / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
    _, history, _, trained = optimised([], steps=3)
    assert [line["loss"] for line in history] == pytest.approx(losses, rel=1e-3)
    for one, two in zip(trained.parameters(), weights, strict=True):
        assert torch.allclose(one, two, atol=2e-5)


def test_the_best_average_is_kept_and_training_ends_where_none_is_better():
    # The first four come too early to count, the sixth is the best, and five after it are not.
    scores = [0.9] * 4 + [0.3, 0.5, 0.5, 0.1, 0.2, 0.5, 0.4, 0.8]
    averaged, history, seen, _ = optimised(scores)
    assert [line["validation"] for line in history] == scores[:11]
    assert [line["step"] for line in history] == list(range(2, 24, 2))
    assert same(averaged.state_dict(), seen[5])
    averaged, history, seen, _ = optimised([0.1 * number for number in range(12)])
    assert len(history) == 12
    assert same(averaged.state_dict(), seen[-1])


def test_the_average_lags_behind_and_frozen_statistics_stay():
    _, before = untrained()
    averaged, _, _, network = optimised([], steps=1)
    old, new = before.state_dict(), network.state_dict()
    for name, value in averaged.state_dict().items():
        if value.dtype.is_floating_point:
            assert torch.allclose(value, old[name] + (new[name] - old[name]) * 9 / 11, atol=1e-6)
    assert not same({"": old["head.weight"]}, {"": new["head.weight"]})
    frozen = optimised([], steps=3, frozen_statistics=True)[3].state_dict()
    free = optimised([], steps=3)[3].state_dict()
    running = [name for name in old if "running" in name]
    assert all(torch.equal(frozen[name], old[name]) for name in running)
    assert not any(torch.equal(free[name], old[name]) for name in running)


def test_the_rate_rises_then_falls_to_a_hundredth():
    settings = replace(TINY, steps=400)
    rates = [_schedule(step, settings, step / 400) for step in range(1, 401)]
    assert np.allclose(rates[:20], np.arange(1, 21) / 20)
    assert (np.diff(rates[19:]) < 0).all()
    assert rates[210 - 1] == pytest.approx(0.505)
    assert rates[-1] == pytest.approx(0.01)
    timed = replace(settings, minutes=1.0)
    assert _schedule(100, timed, 0.1) == 0.5
    assert [_schedule(500, timed, part) for part in (0, 0.5, 1)] == pytest.approx([1, 0.505, 0.01])


def test_dice_weight_counts_for_its_own_head():
    target = torch.zeros(1, 2, 8, 8)
    target[..., 0] = 1
    logits = torch.full((1, 2, 8, 8), -1.0)
    even = masked_loss(logits, target, torch.tensor([0.5, 0.5]))
    dice = masked_loss(logits, target, 1.5) - masked_loss(logits, target, 0.5)
    more = masked_loss(logits, target, torch.tensor([0.5, 2.5]))
    assert float(more - even) == pytest.approx(float(dice), rel=1e-5)


def test_card_and_weights_through_a_folder(trained, tmp_path):
    model = trained[0]
    save_model(tmp_path / "m", model.card, model.weights)
    again = load_model(tmp_path / "m", "segmenter")
    tomogram, _ = scene(5, (4, 48, 48))
    one, two = predict(tomogram, model), predict(tomogram, again)
    assert list(one) == again.card["heads"] == ["probability", "boundary"]
    assert all(np.array_equal(one[head], two[head]) for head in one)
    assert one["probability"].dtype == np.int8
    assert 0 <= one["probability"].min() <= one["probability"].max() <= 100


def test_files_hold_what_predict_returns(trained, tmp_path):
    import mrcfile

    tomogram, _ = scene(5, (4, 48, 48))
    tomogram = replace(tomogram, origin=(10.0, 20.0, 30.0))
    mask = np.ones(tomogram.shape, bool)
    mask[1] = False
    outputs = {head: tmp_path / f"{head}.mrc" for head in ("probability", "boundary")}
    facts = predict_to_files(
        tomogram, trained[0], outputs, mask=mask, uncertainty=tmp_path / "u.mrc"
    )
    expected = predict(tomogram, trained[0], mask=mask)
    for head, path in outputs.items():
        with mrcfile.open(path) as file:
            assert np.array_equal(file.data, expected[head])
            assert file.voxel_size.x == pytest.approx(10.0)
            assert file.header.origin.x == pytest.approx(10.0)
    assert (expected["probability"][1] == 0).all()
    assert facts["heads"] == ["probability", "boundary"]
    slab = Slices(tomogram, 10.0, "dark").slab(2, 3)
    percent = 100 * Predictor(trained[0], "cpu")(slab)[0]
    assert np.abs(expected["probability"][2] - percent).max() <= 0.5 + 1e-3
    p = np.clip(expected["probability"] / 100, 1e-6, 1 - 1e-6)
    entropy = -100 * (p * np.log2(p) + (1 - p) * np.log2(1 - p))
    with mrcfile.open(tmp_path / "u.mrc") as file:
        assert np.abs(file.data - entropy).max() < 5  # of rounded per cent
        assert file.data.max() == 100


def test_missing_head_is_told(trained, tmp_path):
    tomogram, _ = scene(5, (4, 48, 48))
    with pytest.raises(InputError, match="membrane"):
        predict_to_files(tomogram, trained[0], {"membrane": tmp_path / "m.mrc"})


def test_training_from_a_base_keeps_its_heads_and_adds_membrane(trained):
    tomogram, labels = scene(6)
    membrane = np.where(sparse(labels) < 0, -1, outline_stack(labels))
    pair = AnnotatedVolume("b", tomogram, sparse(labels), membrane=membrane)
    card, weights, _ = train([pair], trained[0], replace(TINY, steps=2, learning_rate=1e-4))
    assert card["heads"] == ["probability", "boundary", "membrane"]
    found = predict(tomogram, Model(card, weights))["probability"] > 50
    assert dice(found, labels > 0) > 0.8


def test_fine_tuning_keeps_what_the_base_says_where_annotation_is_silent(trained):
    tomogram, labels = scene(6)
    membrane = np.where(sparse(labels) < 0, -1, outline_stack(labels))
    given = AnnotatedVolume("b", tomogram, sparse(labels), "dark", "instance", membrane)
    card, weights, _ = train([given], None, TINY)
    base = Model({**card, "sha256": "base"}, weights)
    before = predict(tomogram, base)
    # Other annotation: the head of membranes would be spoilt if nothing held it.
    other = AnnotatedVolume("c", tomogram, np.where(sparse(labels) < 0, -1, labels % 2))
    card, weights, _ = train([other], base, replace(TINY, hold_out=0.0, base_share=0.0))
    after = predict(tomogram, Model(card, weights))
    assert dice(after["membrane"] > 50, before["membrane"] > 50) > 0.85
    # Every second object is said to be background.
    faded = (labels > 0) & (labels % 2 == 0)
    assert after["probability"][faded].mean() < before["probability"][faded].mean() - 3


def test_the_base_keeps_its_share_unless_the_annotation_contradicts_it(trained, monkeypatch):
    tomogram, labels = scene(6)
    settings = replace(TINY, steps=60)
    agreeing = AnnotatedVolume("b", tomogram, sparse(labels), "dark", "instance")
    card, weights, _ = train([agreeing], trained[0], settings)
    assert card["recipe"]["base_share"] == settings.base_share > 0
    alone, _, _ = train([agreeing], trained[0], replace(settings, base_share=0.0))
    assert alone["recipe"]["base_share"] == 0.0
    name = next(iter(weights))
    share = settings.base_share
    statistics = next(one for one in weights if one.endswith("running_mean"))
    np.testing.assert_allclose(weights[statistics], trained[0].weights[statistics], atol=1e-6)
    with monkeypatch.context() as patch:
        patch.setattr(training, "BLENDS", (0.0,))  # what was learnt, with the same statistics
        learnt, other, _ = train([agreeing], trained[0], settings)
    assert learnt["recipe"]["base_share"] == 0.0
    mean = share * trained[0].weights[name] + (1 - share) * other[name]
    np.testing.assert_allclose(weights[name], mean, atol=1e-5)
    # Not the objects, but what surrounds them.
    around = ndimage.binary_dilation(labels > 0, iterations=4) & (labels == 0)
    other = np.where(sparse(labels) < 0, -1, around)
    card, _, _ = train([AnnotatedVolume("b", tomogram, other)], trained[0], TINY)
    assert card["recipe"]["base_share"] < settings.base_share


def test_the_base_gives_up_as_much_of_its_share_as_the_annotation_asks_for():
    _, network = untrained()
    begun = {name: value + 1 for name, value in network.state_dict().items()}
    before = network.head.weight.detach().clone()

    def blended(cost, *scores):
        found = iter(scores)
        new = np.array([False, True])
        return training._blend(network, begun, 0.7, new, lambda _: next(found), cost)

    share = blended(0.15, 0.5, 0.7, 0.76, 0.8, 0.9, 0.85)
    assert share == pytest.approx(0.6 * 0.7)  # 0.56 costs 0.2, 0.42 costs 0.14
    moved = (network.head.weight - before).detach().numpy()
    np.testing.assert_allclose(moved[0], 0.42, atol=1e-5)
    np.testing.assert_allclose(moved[1], 0, atol=1e-5)  # a head that the base lacks
    now = {name: value.clone() for name, value in network.state_dict().items()}
    assert blended(0.15, 0.7, 0.7, 0.7, 0.7, 0.7, 0.9) == 0.0
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, now[name], rtol=0, atol=0)
    assert blended(0.02, 0.8, 0.885, 0.89, 0.9, 0.8, 0.8) == pytest.approx(0.8 * 0.7)


@pytest.mark.parametrize(
    ("hold_out", "names", "cost"), [(0, "a", 0.15), (0.2, "a", 0.1), (0.2, "ab", 0.02)]
)
def test_what_the_base_may_cost_depends_on_what_can_tell(
    trained, monkeypatch, hold_out, names, cost
):
    tomogram, labels = scene(6)
    whole = [AnnotatedVolume(name, tomogram, labels, "dark", "instance") for name in names]
    asked = []
    monkeypatch.setattr(training, "_blend", lambda *given: asked.append(given[-1]) or 0.0)
    train(whole, trained[0], replace(TINY, steps=1, hold_out=hold_out))
    assert asked == [cost]


def test_what_the_base_says_fills_only_annotated_slices_and_heads_it_knows():
    target = np.full((3, 4, 4), IGNORE, np.uint8)
    target[0, :2] = 1
    target[1, 0] = 0
    expected = np.full(target.shape, 0.4, np.float32)
    expected[2] = np.nan
    one = TargetSlice("a", 0, np.zeros((3, 4, 4), np.float32), target, np.zeros((4, 4), bool))
    one.expected, one.held_out[1, :2] = expected, True
    shifted = Patches([one], 4, np.random.default_rng(0)).targets[0]
    assert (shifted[1, 0] == 1).all()  # annotated: 0
    assert (shifted[1, 1] == torch.tensor([0, 0, 101, 101])).all()  # held out, then 0.4
    assert (shifted[:3, 2:] == 0).all()
    assert (shifted[2] == 0).all()
    assert (shifted[3] == 1).all()  # all voxels count alike


def test_what_the_base_says_is_that_of_its_prediction_for_heads_it_knows(rng):
    model, network = untrained(heads=("probability", "boundary", "membrane"))
    image = rng.normal(size=(3, 32, 40)).astype(np.float32)
    target = np.full((3, 32, 40), IGNORE, np.uint8)
    target[0] = 1
    untold = TargetSlice("a", 0, image, target, np.zeros((32, 40), bool))
    told = replace(untold, target=np.ones_like(target))
    training._expect(network.train(), [untold, told], np.array([True, True, False]))
    said = expit(logits_of_slice(from_card(model.card, model.weights, "a").eval(), image, CPU))
    assert np.allclose(untold.expected[:2], said[:2], atol=1e-6)
    assert np.isnan(untold.expected[2]).all()
    assert told.expected is None


def test_heads_start_at_the_odds_of_their_annotation():
    network = build({"slices": 3, "width": 4, "depth": 2}, 3)
    targets = slices_of(9_000, 20_999, shape=(150, 300))
    for t in targets:
        t.target = np.concatenate([t.target, np.full((1, 150, 300), IGNORE, np.uint8)])
        t.target[1, :75] = IGNORE
    training._start_head(network, targets)
    odds = [30_000 / 60_002, 1 / 45_001, 1]
    assert np.allclose(network.head.bias.detach().numpy(), np.log(odds), atol=1e-6)


def slice_of(image, target):
    held = np.zeros(target.shape, bool)
    return TargetSlice("a", 0, image.astype(np.float32), target[None].astype(np.uint8), held)


def test_patches_turn_image_and_target_alike():
    coarse = np.random.default_rng(0).random((8, 9)) > 0.5
    target = np.kron(coarse, np.ones((12, 12))).astype(np.uint8)
    patches = Patches([slice_of(target[None] * 2.0 - 1, target)], 32, np.random.default_rng(1))
    image, wanted, _ = patches.batch(16)
    assert image.shape == wanted.shape == (16, 1, 32, 32)
    known = wanted != IGNORE
    # Beyond the border (a window may reach there) nothing is known.
    assert 0.4 < known.float().mean() < 1
    # Brightness, contrast and noise change; what is object stays brighter than what is not.
    for one, here, truth in zip(image, known, wanted, strict=True):
        inside, outside = one[here & (truth == 1)], one[here & (truth == 0)]
        if len(inside) > 50 and len(outside) > 50:
            assert inside.mean() > outside.mean() + 0.8


def test_patches_are_turned_mirrored_and_scaled():
    target = np.zeros((64, 64), np.uint8)
    target[31:34, 8:56] = 1
    patches = Patches([slice_of(np.zeros((1, 64, 64)), target)], 48, np.random.default_rng(2))
    angles = []
    for wanted in patches.batch(40)[1][:, 0].numpy() == 1:
        if wanted.sum() > 60:
            y, x = np.nonzero(wanted)
            angles.append(np.degrees(np.linalg.eigh(np.cov(y, x))[1][0, 1]))
    assert len(angles) > 10
    assert len({round(angle / 10) for angle in angles}) > 5


def test_patches_are_cut_from_turned_squares_within_their_windows(rng):
    patches = Patches([slice_of(np.zeros((1, 64, 64)), np.ones((64, 64)))], 33, rng)
    grids = patches._grids(200).numpy()
    assert np.abs(grids).max() <= 1
    assert np.allclose(grids[:, 16, 16], 0, atol=1e-6)
    # What a step along rows and columns of a patch is in voxels of the slice: x, y.
    along = (grids[:, 1:] - grids[:, :-1]).mean(axis=(1, 2)) * patches._side() / 2
    across = (grids[:, :, 1:] - grids[:, :, :-1]).mean(axis=(1, 2)) * patches._side() / 2
    assert np.allclose((along * across).sum(axis=1), 0, atol=1e-5)
    zoom = np.hypot(*along.T)
    assert np.allclose(zoom, np.hypot(*across.T), rtol=1e-4)
    assert np.isclose(np.log([zoom.min(), zoom.max()]), [-ZOOM, ZOOM], atol=0.02).all()
    turned = np.sign(across[:, 0] * along[:, 1] - across[:, 1] * along[:, 0])
    assert 0.35 < (turned > 0).mean() < 0.65
    angles = np.histogram(np.arctan2(along[:, 1], along[:, 0]), 8, (-np.pi, np.pi))[0]
    assert angles.min() > 8


def test_half_of_the_patches_lie_on_objects_and_half_are_upside_down(rng):
    target = np.zeros((500, 600), np.uint8)
    target[200:209, 300:309] = 1
    image = np.broadcast_to(np.array([-3.0, 0, 3])[:, None, None], (3, 500, 600))
    images, wanted, _ = Patches([slice_of(image, target)], 40, rng).batch(80)
    assert 0.4 < (wanted == 1).any(dim=(1, 2, 3)).float().mean() < 0.6
    low, middle, high = images.mean(dim=(2, 3)).T
    up = (low < middle) & (middle < high)
    assert (up | ((low > middle) & (middle > high))).all()
    assert 0.3 < up.float().mean() < 0.7


def test_more_slices_join_the_patches():
    one = slice_of(np.zeros((1, 32, 32)), np.ones((32, 32)))
    patches = Patches([one], 16, np.random.default_rng(0))
    patches.add([slice_of(np.full((1, 32, 32), 50.0), np.ones((32, 32)))])
    bright = (patches.batch(40)[0].mean(dim=(1, 2, 3)) > 5).float().mean()
    assert 0.2 < bright < 0.8


def test_a_part_of_the_patches_drowns_in_noise_of_some_texture_and_contrast_stays(rng):
    one = slice_of(np.zeros((9, 64, 64)), np.ones((64, 64)))
    clear = torch.from_numpy(rng.normal(size=(400, 9, 48, 48)).astype(np.float32))
    patches = Patches([one], 48, rng, noisier=0.5)
    noisy = patches._noisier(clear)
    alike = torch.stack(
        [
            torch.corrcoef(torch.stack([a.ravel(), b.ravel()]))[0, 1]
            for a, b in zip(clear, noisy, strict=True)
        ]
    )
    changed = alike < 0.999
    assert 0.4 < changed.float().mean() < 0.6
    assert (noisy[~changed] == clear[~changed]).all()
    low, high = (1 / np.sqrt(1 + amount**2) for amount in STRONG_NOISE[::-1])
    assert torch.isclose(alike[changed].min(), torch.tensor(low).float(), atol=0.02)
    assert torch.isclose(alike[changed].max(), torch.tensor(high).float(), atol=0.02)
    assert torch.allclose(noisy.std(dim=(1, 2, 3)), torch.tensor(1.0), atol=0.03)
    for axis in (1, 2):
        steps = noisy[changed].diff(dim=axis).std(dim=(1, 2, 3))
        # White noise alone has the square root of two.
        assert steps.min() < 1.1
        assert steps.max() > 1.35
    assert Patches([one], 48, rng)._noisier(clear) is clear


def test_a_widened_network_says_the_same_until_noise_parts_its_copies():
    narrow = build({"slices": 3, "width": 4, "depth": 3}, 2)
    for _ in range(3):
        narrow(torch.randn(2, 3, 32, 32) * 2 + 1)
    narrow.eval()
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        said = narrow(image)
        same = widened(narrow, 7, np.random.default_rng(0))
        assert same.head.in_channels == 7
        torch.testing.assert_close(same(image), said, atol=1e-5, rtol=1e-5)
        noisy = widened(narrow, 7, np.random.default_rng(0), 0.1)
        assert 0 < (noisy(image) - said).abs().mean() < said.abs().mean()


def outline_stack(labels):
    return np.stack([outline(one) for one in labels]).astype(np.int32)


def test_one_sort_of_annotation_only_is_an_error():
    tomogram, _ = scene(0, (4, 32, 32))
    nothing = np.full(tomogram.shape, -1)
    with pytest.raises(InputError, match="no background"):
        train([AnnotatedVolume("a", tomogram, np.where(nothing < 0, 1, 1))], None, TINY)
    with pytest.raises(InputError, match="no object"):
        train([AnnotatedVolume("a", tomogram, nothing * 0)], None, TINY)
    with pytest.raises(InputError, match="no object"):
        train([AnnotatedVolume("a", tomogram, nothing)], None, TINY)
    with pytest.raises(InputError, match="shape"):
        AnnotatedVolume("a", tomogram, nothing[1:])
    with pytest.raises(InputError, match="unknown"):
        predict(tomogram, untrained()[0], "grey")


def test_the_inside_of_binary_annotation_does_not_teach_a_base_that_nothing_touches():
    annotation = np.zeros((20, 20), np.int32)
    annotation[5:15, 5:15] = 1
    known = boundary_target(annotation, "binary")
    kept = boundary_target(annotation, "binary", inside=False)
    assert known[10, 10] == 0
    assert kept[10, 10] == IGNORE
    outside_or_outline = (annotation == 0) | (known == 1)
    assert np.array_equal(known[outside_or_outline], kept[outside_or_outline])
    assert np.array_equal(boundary_target(annotation, "instance", inside=False), known)


def test_contacts_across_slices_are_outlines():
    tomogram, labels = scene()
    contacts = np.zeros(labels.shape, bool)
    inside = ndimage.binary_erosion(labels == labels.max(), np.ones((1, 5, 5)))
    contacts |= inside
    pair = AnnotatedVolume("a", tomogram, labels, "dark", "instance", contacts=contacts)
    heads = ["probability", "boundary"]
    targets = make_targets(pair, 10.0, 3, heads)
    plain = make_targets(replace(pair, contacts=None), 10.0, 3, heads)
    for z, (one, two) in enumerate(zip(targets, plain, strict=True)):
        assert (one.target[1][contacts[z]] == 1).all()
        assert np.array_equal(one.target[1][~contacts[z]], two.target[1][~contacts[z]])


def test_scores_are_given_for_each_imaging_condition():
    pairs = []
    for number, group in enumerate(("krios", "glacios")):
        tomogram, labels = scene(number, shape=(12, 128, 128))
        pairs.append(
            AnnotatedVolume(
                group, tomogram, sparse(labels, (2, 5, 8)), "dark", "instance", group=group
            )
        )
    card, _, _ = train(pairs, None, replace(TINY, steps=30))
    assert set(card["groups"]) == {"krios", "glacios"}
    voxels = [one["held_out_voxels"] for one in card["groups"].values()]
    assert sum(voxels) == card["metrics"]["held_out_probability_voxels"]


def test_fine_tuning_is_slower_than_training_from_scratch(trained):
    model, _ = trained
    tomogram, labels = scene(3)
    pair = AnnotatedVolume("a", tomogram, sparse(labels), "dark", "instance")
    settings = replace(TINY, steps=2, learning_rate=None)
    scratch, tuned = (train([pair], base, settings)[0] for base in (None, model))
    assert tuned["recipe"]["learning_rate"] < scratch["recipe"]["learning_rate"]


def test_openvino_predicts_what_torch_predicts():
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    model = untrained()[0]
    tomogram, _ = scene()
    one, two = (
        predict(tomogram, model, device="cpu", precision="float32", engine=engine)
        for engine in ("torch", "openvino")
    )
    for head, found in one.items():
        # Rounded to per cent.
        assert np.abs(found.astype(int) - two[head]).max() <= 1


def test_an_engine_that_is_not_there_is_an_error_with_a_remedy(monkeypatch):
    tomogram, _ = scene()
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match="pip install"):
        predict(tomogram, untrained()[0], engine="openvino")
    with pytest.raises(InputError, match="unknown"):
        predict(tomogram, untrained()[0], engine="steam")


@pytest.mark.parametrize("factor", [2, 4, 2.4])
def test_annotation_on_a_coarser_grid_is_not_shifted(factor):
    rng = np.random.default_rng(0)
    y, x = np.indices((240, 240))
    shifts = []
    for _ in range(40):
        centre, radius = rng.uniform(60, 180, 2), rng.uniform(15, 50)
        disc = (np.hypot(y - centre[0], x - centre[1]) <= radius).astype(np.int32)
        size = round(240 / factor)
        coarse = scale_annotation(disc[None], (1, size, size))[0]
        middle = (np.argwhere(coarse > 0).mean(axis=0) + 0.5) * 240 / size - 0.5
        shifts.append(middle - np.argwhere(disc).mean(axis=0))
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.15


def test_thin_annotation_stays_at_half_the_size():
    for column in range(50, 60):
        drawn = np.full((1, 120, 120), -1, np.int32)
        drawn[:, 20:100, 20:100] = 0
        drawn[:, 20:100, column] = 7
        coarse = scale_annotation(drawn, (1, 60, 60))[0]
        assert (coarse[10:50] == 7).any(axis=1).all()
        assert set(np.unique(coarse)) == {-1, 0, 7}
        assert (coarse[10:50, 10:50] >= 0).all()


@pytest.mark.parametrize("share", [0.0, 0.16, 0.4, 0.78])
def test_padding_with_a_middle_value_does_not_change_contrast(share):
    noise = np.random.default_rng(0).normal(0, 1000, (32, 64, 64))
    for dtype in (np.int16, np.float32):
        data = noise.round().astype(dtype)
        data[:, :, : round(64 * share)] = 0
        median, scale, _ = robust_contrast(data)
        assert abs(median) < 20
        assert scale == pytest.approx(1000, rel=0.02)


@pytest.mark.parametrize("voxel_size", [10.0, 7.0, 14.0])
@pytest.mark.parametrize("value", [0.0, -5.0, np.nan])
def test_nothing_is_found_in_padding_and_the_rest_is_as_without(trained, value, voxel_size):
    tomogram, _ = scene(seed=3, voxel_size=voxel_size)
    data = tomogram.data - tomogram.data.mean()
    frame = ((4, 0), (0, 0), (0, 40))
    padded = Volume(np.pad(data, frame, constant_values=np.float32(value)), voxel_size)
    before = predict(Volume(data, voxel_size), trained[0])["probability"]
    after = predict(padded, trained[0])["probability"]
    assert after[:4].max() == after[..., -40:].max() == 0
    inside = after[4:, :, :-40]
    assert dice(inside[2:, :, :-16] > 50, before[2:, :, :-16] > 50) > 0.97


def test_single_voxels_of_the_commonest_value_are_no_padding():
    steps = np.random.default_rng(0).normal(scale=8, size=(3, 64, 64)).round().astype(np.float32)
    steps[:, 10:13, 20:50] = 0
    assert all(without_data(section, 0.0) is None for section in steps)
    steps[:, 20:25, 20:50] = 0
    assert all(without_data(section, 0.0) is None for section in steps)  # in the middle
    assert robust_contrast(steps)[2] is None
    steps[:, 30:45, 30:] = 0
    assert without_data(steps[0], 0.0)[30:45, 30:].all()
    assert without_data(steps[0], 0.0).sum() < 1.2 * 15 * 34
    assert robust_contrast(steps)[2] == 0


def test_few_objects_are_held_out_whatever_the_draw():
    held = []
    for seed in range(20):
        targets = []
        for z in range(3):
            target = np.zeros((2, 400, 400), np.uint8)
            target[0, 100:150, 120:170] = z == 0
            targets.append(
                TargetSlice("a", z, np.zeros((3, 400, 400)), target, np.zeros((400, 400), bool))
            )
        held.append(hold_out(targets, 0.2, np.random.default_rng(seed)))
        inside = sum((t.target[0] == 1)[t.held_out].sum() for t in targets)
        assert 100 <= inside <= 2400 or not held[-1]
    assert np.mean(held) > 0.9


def slices_of(*objects, shape=(150, 400)):
    """Return slices in which the first so many voxels are objects and the rest background."""
    targets = []
    for z, count in enumerate(objects):
        target = np.zeros((2, *shape), np.uint8)
        target[0].flat[:count] = 1
        image = np.zeros((3, *shape), np.float32)
        targets.append(TargetSlice("a", z, image, target, np.zeros(shape, bool)))
    return targets


def test_as_much_as_asked_for_is_held_out_and_nothing_of_little(rng):
    targets = slices_of(9000, 9000)
    targets[1].target[:, :100] = IGNORE
    assert hold_out(targets, 0.3, rng)
    held = sum((t.held_out & (t.target[0] != IGNORE)).sum() for t in targets)
    assert 0 <= held - 0.3 * (150 + 50) * 400 < 48**2
    assert not hold_out(slices_of(9000), 0, rng)
    few = slices_of(9000, shape=(100, 299))
    assert not hold_out(few, 0.3, rng)
    assert not few[0].held_out.any()
    none = slices_of(99)
    assert not hold_out(none, 0.3, rng)
    assert not none[0].held_out.any()


@pytest.mark.parametrize(
    ("objects", "shape", "told"),
    [
        ((20_000, 0), (150, 400), []),
        ((20_000, 20_000), (150, 400), []),
        ((40_000, 40_000), (150, 400), ["more object than"]),
        ((40_000, 0), (150, 200), []),
        ((40_000,), (150, 400), []),
        ((200, 200), (150, 400), ["object voxels"]),
        ((59_800, 0), (150, 400), []),
        ((29_600, 29_500), (100, 297), ["background voxels", "more object than"]),
        ((9_000,), (199, 100), ["19900 voxels"]),
    ],
)
def test_what_keeps_annotation_from_teaching_is_told(objects, shape, told):
    warnings = check(slices_of(*objects, shape=shape))
    assert len(warnings) == len(told)
    assert all(part in text for part, text in zip(told, warnings, strict=True))


def test_membranes_are_targets_where_they_are_annotated():
    shape = (6, 20, 20)
    annotation = np.full(shape, -1)
    annotation[2:4] = 0
    annotation[2:4, 5:15, 5:15] = 4
    membrane = np.full(shape, -1)
    membrane[2, 4:16] = 0
    membrane[2, 4:16, 9] = 1
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    pair = AnnotatedVolume("a", Volume(noise, 10.0), annotation, "dark", "instance", membrane)
    heads = ["probability", "boundary", "membrane"]
    told, untold = make_targets(pair, 10.0, 3, heads)
    assert np.array_equal(told.target[0], annotation[2] > 0)
    assert np.array_equal(told.target[2], np.where(membrane[2] < 0, IGNORE, membrane[2]))
    assert (untold.target[2] == IGNORE).all()
    assert np.array_equal(untold.untold(), untold.target == IGNORE)


def test_what_an_unannotated_slice_says_does_not_stand_in_for_the_next():
    shape = (12, 24, 24)
    annotation = np.full(shape, -1, np.int32)
    annotation[1] = 0
    annotation[1, 8:16, 8:16] = 1
    annotation[1, :2] = -1
    weight = np.ones(shape, np.uint8)
    weight[1] = 7
    contacts = np.zeros(shape, bool)
    contacts[1, 9:15, 9:15] = True
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    given = {"kind": "instance", "weight": weight, "contacts": contacts}
    pair = AnnotatedVolume("a", Volume(noise, 7.0), annotation, "dark", **given)
    (one,) = make_targets(pair, 14.0, 3, ["probability", "boundary"])
    assert (one.weight == 7).all()
    assert (one.target[1][5:7, 5:7] == 1).all()
