"""Tomograms of which many slices are annotated: as many are learnt from as serves."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomocensus.segment import AnnotatedVolume, TrainSettings, train, training
from tomocensus.segment.contrast import Slices
from tomocensus.segment.targets import (
    HELD,
    IGNORE,
    TargetSlice,
    annotated_slices,
    evenly,
    hold_out,
    make_targets,
    shares,
)
from tomocensus.volume import Volume

HEADS = ["probability", "boundary"]


def pair(told, shape=(30, 24, 40), name="a"):
    """Return noise with a dark block, annotated in some slices."""
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    labels = np.full(shape, -1, np.int32)
    labels[told] = 0
    labels[told, 6:14, 8:20] = 1
    data[:, 6:14, 8:20] -= 3
    return AnnotatedVolume(name, Volume(data, 10.0), labels)


@given(st.lists(st.floats(0, 1e6), max_size=8), st.floats(0, 4e6))
def test_room_is_divided_fairly(wanted, room):
    given_ = np.array(shares(wanted, room))
    assert (given_ <= wanted).all()
    assert given_.sum() <= room * (1 + 1e-9) + 1e-9
    short = given_ < np.array(wanted) * (1 - 1e-9) - 1e-9
    if short.any():
        assert given_.sum() == pytest.approx(room)
        # Who gets less than it wants gets as much as anyone.
        np.testing.assert_allclose(given_[short], given_.max(), rtol=1e-6, atol=1e-6)


@given(st.integers(0, 40), st.integers(1, 40))
def test_what_is_taken_evenly_lies_evenly(count, most):
    taken = evenly(list(range(count)), most)
    assert len(taken) == min(count, most)
    gaps = np.diff([-1, *taken, count])
    assert (gaps > 0).all()
    assert gaps[1:-1].max(initial=1) - gaps[1:-1].min(initial=count + 1) <= 1


@pytest.mark.parametrize(("slices", "voxel_size"), [(9, 10.0), (3, 10.0), (5, 20.0), (3, 5.0)])
def test_slices_hold_their_surroundings_and_share_them_in_memory(slices, voxel_size):
    one = pair([0, 1, 2, 7, 20, 29])
    targets = make_targets(one, voxel_size, slices, HEADS)
    source = Slices(one.tomogram, voxel_size, "dark")
    for target in targets:
        np.testing.assert_array_equal(target.image, source.slab(target.z, slices))
        assert target.image.flags.c_contiguous
    for a, b in pairwise(targets):
        assert np.shares_memory(a.image, b.image) == (b.z - a.z < slices)


@pytest.mark.parametrize("voxel_size", [10.0, 7.0, 25.0])
@pytest.mark.parametrize("told", [[], [4], [3, 4, 5, 6, 20], list(range(30))])
def test_annotated_slices_are_counted_on_the_models_grid(told, voxel_size):
    one = pair(told)
    one.annotation[told, 12:] = -1
    there, voxels = annotated_slices(one, voxel_size)
    targets = make_targets(one, voxel_size, 3, HEADS)
    assert there.tolist() == [target.z for target in targets]
    known = [np.count_nonzero(target.target[0] != IGNORE) for target in targets]
    assert voxels == pytest.approx(np.mean(known) if known else 0, rel=0.1)


def test_no_more_slices_are_learnt_from_than_are_seen_well(monkeypatch):
    learnt = []

    def watched(targets):
        learnt.extend((one.name, one.z) for one in targets)
        return []

    monkeypatch.setattr(training, "check", watched)
    monkeypatch.setattr(training, "ENOUGH", 10 * 24 * 40)
    few, many = pair([3, 15, 27]), pair(list(range(30)), name="b")
    settings = TrainSettings(steps=2, patch=16, batch=2, width=4, depth=2, slices=3)
    card, _, _ = train([few, many], None, settings)
    assert card["recipe"]["annotated_slices"] == 33
    assert card["recipe"]["learnt_slices"] == 10
    assert Counter(name for name, _ in learnt) == {"a": 3, "b": 7}
    assert np.diff([z for name, z in learnt if name == "b"]).tolist() == [4, 4, 5, 4, 4, 4]
    # Longer training sees more of them often enough.
    monkeypatch.setattr(training, "LOOKS", 2 * 2 * 16**2 / (20 * 24 * 40))
    card, _, _ = train([few, many], None, settings)
    assert card["recipe"]["learnt_slices"] == 20


def test_beside_what_is_held_out_nothing_is_learnt(rng):
    target = rng.integers(0, 2, (2, 144, 144)).astype(np.uint8)
    shape = target.shape[1:]

    def told(name, z):
        image = np.zeros((5, *shape), np.float32)
        return TargetSlice(name, z, image, target.copy(), np.zeros(shape, bool))

    targets = [told("a", z) for z in range(40)] + [told("b", z) for z in (2, 6, 11)]
    assert hold_out(targets, 0.3, rng)
    every = targets[:40], targets[40:42], targets[42:]
    for near in every:
        blocks = [one.held_out | (one.target[0] == IGNORE) for one in near]
        for one, block in zip(near, blocks, strict=True):
            np.testing.assert_array_equal(block, blocks[0])
            # What is held out is known, and what is forgotten is so for every head.
            assert (one.target[:, one.held_out] != IGNORE).all()
            assert ((one.target == IGNORE).all(axis=0) == (one.target[0] == IGNORE)).all()
    # Far slices have blocks of their own.
    assert not np.array_equal(targets[40].held_out, targets[42].held_out)
    assert {one.name for one in targets if (one.target[0] == IGNORE).any()} == {"a"}
    assert 0.1 < np.mean([one.held_out | (one.target[0] == IGNORE) for one in every[0]]) < 0.6


def test_where_nothing_can_be_held_out_nothing_is_forgotten(rng):
    shape = (96, 96)
    targets = []
    for z in range(30):
        target = np.zeros((1, *shape), np.uint8)
        target[0, :5, :5] = z == 0
        image = np.zeros((5, *shape), np.float32)
        targets.append(TargetSlice("a", z, image, target, np.zeros(shape, bool)))
    assert not hold_out(targets, 0.3, rng)
    assert not any(one.held_out.any() or (one.target == IGNORE).any() for one in targets)


def held(targets):
    """Return the names of the slices of which blocks are held out."""
    return Counter(one.name for one in targets if one.held_out.any())


def test_of_many_slices_some_of_each_tomogram_are_held_out_of(rng):
    target = rng.integers(0, 2, (1, 96, 96)).astype(np.uint8)
    shape = target.shape[1:]
    plain = TargetSlice("a", 0, np.zeros((1, *shape), np.float32), target)
    counts = {"a": 40, "b": 3, "c": 20}
    targets = [
        replace(plain, name=name, z=z, held_out=np.zeros(shape, bool))
        for name, count in counts.items()
        for z in range(count)
    ]
    assert hold_out(targets, 1.0, rng)
    assert held(targets) == {"a": 4, "b": 3, "c": 4}
    assert HELD - 1 == 4 + 3 + 4
    # Of more tomograms than that, one slice of each.
    targets = [
        replace(plain, name=str(n // 2), held_out=np.zeros(shape, bool)) for n in range(4 * HELD)
    ]
    assert hold_out(targets, 1.0, rng)
    assert held(targets) == {str(n): 1 for n in range(2 * HELD)}
