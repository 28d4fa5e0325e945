import numpy as np
import pytest

from tomocensus.models import Model
from tomocensus.segment import AnnotatedVolume, TrainSettings, calibration, train, training
from tomocensus.segment.calibration import calibrate
from tomocensus.segment.emptiness import EMPTIER, TAKEN, empty_slices
from tomocensus.segment.network import build
from tomocensus.segment.targets import IGNORE, TargetSlice, hold_out_blocks, make_targets
from tomocensus.volume import Volume

SETTINGS = TrainSettings(steps=6, patch=32, batch=2, width=4, depth=3, slices=3)


def lamella(filled=range(12, 28), shape=(40, 64, 64), annotated=(18, 22)):
    """Make a tomogram with objects, dark squares, in some slices alone; two are annotated."""
    labels = np.zeros(shape, np.int32)
    for number, (y, x) in enumerate(np.ndindex(3, 3), start=1):
        labels[list(filled), 20 * y + 4 : 20 * y + 16, 20 * x + 4 : 20 * x + 16] = number
    noise = np.random.default_rng(0).normal(0, 0.3, shape)
    annotation = np.full(shape, -1, np.int32)
    annotation[list(annotated)] = labels[list(annotated)]
    volume = Volume((noise - 2 * (labels > 0)).astype(np.float32), 10.0)
    return AnnotatedVolume("a", volume, annotation, "dark", "instance"), labels


def dark_is_object(slab):
    """Stand in for a base: the darker the middle slice, the surer."""
    middle = -4 * (slab[len(slab) // 2] + 1.5)
    return np.stack([middle, np.full(middle.shape, -2.0)])


def found_in(pair):
    annotated = make_targets(pair, 10.0, 3, ["probability", "boundary"])
    return annotated, empty_slices(pair, annotated, 10.0, dark_is_object)


def test_slices_without_objects_are_found_and_are_background():
    pair, labels = lamella()
    annotated, found = found_in(pair)
    assert 1 < len(found) <= TAKEN
    assert found[0].z < 12
    assert found[-1].z >= 28
    for one in found:
        assert not labels[one.z].any()
        assert (one.target[0] == 0).mean() > 0.9
        assert set(np.unique(one.target[0])) <= {0, IGNORE}
        assert (one.target[1] == IGNORE).all()
        np.testing.assert_allclose(one.expected[1], 1 / (1 + np.exp(2.0)), rtol=1e-5)
        assert one.image.shape == annotated[0].image.shape
        assert not one.held_out.any()


def test_annotated_slices_are_not_empty_whatever_the_base_sees():
    # Two small objects that the base does not see, in slices beside full ones.
    pair, _ = lamella(filled=range(10, 14), annotated=(12, 30))
    pair.annotation[30] = 0
    pair.annotation[30, 20:40, 20:40] = 1
    _, found = found_in(pair)
    assert found
    assert all(abs(one.z - z) > 1 for one in found for z in (12, 30))
    # 26, 29, 31 and 34 are looked at.
    pair, _ = lamella(filled=[*range(26), 27, 28, *range(33, 40)], annotated=(12, 30))
    pair.annotation[30] = 0
    pair.annotation[30, 20:40, 20:40] = 1
    assert [one.z for one in found_in(pair)[1]] == [26]


def test_annotated_slices_that_are_not_learnt_from_are_not_empty_either():
    pair, labels = lamella(annotated=range(2, 38))
    some = make_targets(pair, 10.0, 3, ["probability", "boundary"], most=1)
    assert [one.z for one in some] == [20]
    # Objects that the base does not see lie where it is looked for empty slices.
    assert [one.z for one in empty_slices(pair, some, 10.0, dark_is_object)] == [0, 39]
    pair.annotation[:] = -1
    pair.annotation[[12, 25]] = labels[[12, 25]]
    assert len(empty_slices(pair, some, 10.0, dark_is_object)) == TAKEN


def test_slices_as_full_as_the_annotated_ones_are_left_alone():
    assert found_in(lamella(filled=range(40))[0])[1] == []
    # Half as full is not far emptier than that where the base sees no more in either.
    pair, _ = lamella()
    annotated = make_targets(pair, 10.0, 3, ["probability", "boundary"])
    blind = empty_slices(pair, annotated, 10.0, lambda slab: np.full((2, *slab.shape[1:]), -1.0))
    assert blind == []
    assert 0 < EMPTIER < 1


def test_what_a_base_takes_for_objects_in_an_empty_slice_is_left_open():
    pair, _ = lamella()
    pair.tomogram.data[:8, 8:20, 8:20] -= 2
    first = found_in(pair)[1][0]
    assert first.z < 8
    assert (first.target[0, 10:18, 10:18] == IGNORE).mean() > 0.9


def tiny_base():
    network = build({"slices": 3, "width": 4, "depth": 3}, 2)
    weights = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    card = {
        "kind": "segmenter",
        "architecture": {"name": "unet-2.5d", "slices": 3, "width": 4, "depth": 3},
        "voxel_size": 10.0,
        "heads": ["probability", "boundary"],
        "polarity": "dark",
        "sha256": "base",
    }
    return Model(card, weights)


def test_training_shows_empty_slices_to_a_network_that_keeps_its_base(monkeypatch):
    pair, _ = lamella()
    looked = []
    made = empty_slices

    def watched(pair, annotated, voxel_size, logits):
        looked.append(logits(annotated[0].image).shape)
        return made(pair, annotated, voxel_size, dark_is_object)

    monkeypatch.setattr(training, "empty_slices", watched)
    shown = []
    real = training.Patches

    def patches(targets, *others):
        shown.append([t.z for t in targets])
        return real(targets, *others)

    monkeypatch.setattr(training, "Patches", patches)
    base = tiny_base()
    card, _, _ = train([pair], base, SETTINGS)
    assert looked == [(2, 64, 64)]
    assert card["recipe"]["empty_slices"] == len(shown[0]) - 2 > 0
    for settings, start in (
        (SETTINGS, None),
        (TrainSettings(**{**vars(SETTINGS), "base_share": 0.0}), base),
    ):
        card, _, _ = train([pair], start, settings)
        assert "empty_slices" not in card["recipe"]
        assert shown[-1] == [18, 22]


def test_blocks_of_slices_are_held_out():
    one = TargetSlice(
        "a",
        0,
        np.zeros((3, 300, 200)),
        np.zeros((2, 300, 200), np.uint8),
        np.zeros((300, 200), bool),
    )
    hold_out_blocks([one], 0.3, np.random.default_rng(0))
    assert 0.1 < one.held_out.mean() < 0.5
    assert one.held_out[:48, :48].all() or not one.held_out[:48, :48].any()


@pytest.mark.parametrize(("limit", "with_empty"), [(1.5, False), (0.3, False), (1.5, True)])
def test_calibration_is_bounded_and_heeds_empty_slices(monkeypatch, limit, with_empty):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (2, 100, 100)).astype(np.float32)

    def target(shift):
        truth = rng.random((100, 100)) < 1 / (1 + np.exp(-logits[0] - shift))
        both = np.stack([truth, np.full((100, 100), IGNORE)]).astype(np.uint8)
        return TargetSlice("a", 0, np.zeros((3, 100, 100)), both, np.ones((100, 100), bool))

    full, empty = target(1.0), target(-9.0)
    monkeypatch.setattr(calibration, "logits_of_slice", lambda *_: logits)
    network = build({"slices": 3, "width": 4, "depth": 3}, 2)
    more = [empty] if with_empty else []
    metrics, fitted = calibrate(
        network, [full], ["probability", "boundary"], "cpu", others=more, limit=limit
    )
    offset = fitted["probability"][1]
    assert metrics["held_out_probability_voxels"] == 10_000
    assert fitted["boundary"] == [1.0, 0.0]
    if with_empty:
        assert offset < 0.2
    else:
        assert offset == pytest.approx(min(1.0, limit), abs=0.1)
