import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment

from tomocensus.evaluate import (
    class_scores,
    evaluate_tomogram,
    instance_scores,
    match,
    overlaps,
    sphere_truth,
    voxel_scores,
)


def test_voxel_scores_by_hand_and_excluded_slice():
    truth = np.zeros((2, 2, 4), dtype=int)
    truth[:, 0] = 1
    predicted = np.zeros(truth.shape, dtype=np.int8)
    predicted[0, 0, :2] = 90
    assert voxel_scores(predicted, truth)["dice"] == pytest.approx(2 * 2 / (2 + 8))
    assert voxel_scores(predicted, truth, [1])["recall"] == pytest.approx(0.5)


@given(
    arrays(np.int8, (3, 2, 3), elements=st.sampled_from([0, 29, 30, 31, 50, 100])),
    arrays(np.int8, (3, 2, 3), elements=st.sampled_from([-1, 0, 1, 7])),
    st.sets(st.integers(0, 2)),
    st.sampled_from([0.3, 0.5]),
)
def test_voxel_scores_are_those_of_counting(per_cent, truth, excluded, threshold):
    both = ours = true = 0
    for place in np.ndindex(truth.shape):
        if place[0] not in excluded and truth[place] >= 0:
            found, there = per_cent[place] > 100 * threshold, truth[place] > 0
            both, ours, true = both + (found and there), ours + found, true + there
    parts = {"dice": (2 * both, ours + true), "iou": (both, ours + true - both)}
    parts |= {"precision": (both, ours), "recall": (both, true)}
    expected = {name: a / b if b else np.nan for name, (a, b) in parts.items()}
    # A float of 0.3 may lie to either side of a threshold of 0.3.
    chance = np.where(per_cent == 30, 0.29, per_cent / 100)
    for predicted in (per_cent, per_cent > 100 * threshold, chance):
        scores = voxel_scores(predicted, truth, excluded, threshold)
        assert scores == pytest.approx(expected, nan_ok=True)


def test_instance_scores_by_hand():
    truth = np.zeros((1, 4, 40), dtype=int)
    truth[..., :10], truth[..., 10:20], truth[..., 30:40] = 1, 2, 3
    predicted = np.zeros_like(truth)
    predicted[..., :20] = 5
    predicted[..., 30:34], predicted[..., 34:40] = 6, 9
    scores = instance_scores(predicted, truth)
    # 5 holds 1 and 2 with IoU exactly one half; 9 is 6 tenths of 3.
    assert scores["matched"] == 2
    assert scores["f1"] == pytest.approx(4 / 6)
    assert scores["panoptic_quality"] == pytest.approx(2 * (0.5 + 0.6) / 6)
    assert (scores["splits"], scores["merges"]) == (1, 1)


@given(
    arrays(np.int32, (3, 2, 3), elements=st.sampled_from([0, 1, 2, 70000])),
    arrays(np.int8, (3, 2, 3), elements=st.sampled_from([-1, 0, 1, 127])),
    st.sets(st.integers(0, 2)),
    st.booleans(),
)
def test_overlaps_are_those_of_masks(predicted, truth, excluded, without_unlabelled):
    ignore = truth < 0 if without_unlabelled else None
    ours, true, pairs = overlaps(predicted, truth, excluded, ignore)
    iou, shared = np.zeros((2, len(ours), len(true)))
    iou[pairs["row"], pairs["column"]] = pairs["iou"]
    shared[pairs["row"], pairs["column"]] = pairs["shared"]
    counts = np.isin(np.arange(3), list(excluded), invert=True)[:, None, None]
    counts = counts & ~(np.zeros(truth.shape, bool) if ignore is None else ignore)
    assert set(ours) == set(predicted[counts]) - {0}
    assert set(true) == set(truth[counts]) - {-1, 0}
    for row, a in enumerate(ours):
        for column, b in enumerate(true):
            one, two = (predicted == a) & counts, (truth == b) & counts
            assert shared[row, column] == (one & two).sum()
            assert iou[row, column] == (one & two).sum() / (one | two).sum()


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.3, 0.5]))
def test_matches_are_those_of_one_hungarian_table(seed, threshold):
    rng = np.random.default_rng(seed)
    # Rows of objects that overlap their neighbours by some voxels.
    predicted, truth = (
        np.repeat(np.arange(1, 60), rng.integers(1, 6, 59))[:100].reshape(1, 2, 50)
        for _ in range(2)
    )
    ours, true, pairs = overlaps(predicted, truth)
    iou = np.zeros((len(ours), len(true)))
    iou[pairs["row"], pairs["column"]] = pairs["iou"]
    value = np.where(iou >= threshold, 1 + iou / (2 * max(iou.shape)), 0)
    best = value[linear_sum_assignment(value, maximize=True)].sum()
    chosen = match(pairs, threshold)
    assert chosen["row"].is_unique
    assert chosen["column"].is_unique
    assert (chosen["iou"] >= threshold).all()
    assert value[chosen["row"], chosen["column"]].sum() == pytest.approx(best)


def test_thousands_of_objects_need_no_table_of_all_pairs():
    side = 120
    numbers = np.arange(1, side**2 + 1).reshape(1, side, side)
    tracemalloc.start()
    scores = instance_scores(numbers, numbers[:, ::-1])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert scores["f1"] == scores["panoptic_quality"] == 1
    assert most < 100e6  # of all pairs 1.6 GB


def test_class_scores():
    scores = class_scores([(1, 1), (2, 2), (3, 3)], {1: "a", 2: "b"}, {1: "a", 2: "a", 3: "b"})
    assert scores["accuracy"] == pytest.approx(1 / 3)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert scores["confusion"].loc["a"].to_dict() == {"a": 1, "b": 1, "unknown": 0}
    none = class_scores([], {1: "a"}, {1: "a"})
    assert np.isnan([none["accuracy"], none["macro_f1"]]).all()


def test_unknown_is_right_where_the_classifier_has_no_such_class():
    labels = np.repeat(np.arange(5), 30).reshape(1, 10, 15)
    truth = {1: "a", 2: "b", 3: "c", 4: "c"}

    def scored(called, names):
        rows = evaluate_tomogram("t", labels, labels, None, truth, called, names=names)
        return rows.set_index("metric")

    called = {1: "a", 2: "unknown", 3: "unknown", 4: "a"}
    rows = scored(called, {"a", "b", "unknown"})
    assert rows["value"]["class_accuracy"] == 0.5
    assert rows["value"]["class_macro_f1"] == pytest.approx((2 / 3 + 0 + 2 / 4) / 3)
    assert "classes without examples (c)" in rows["note"]["class_accuracy"]
    for names in ({"a", "b", "c", "unknown"}, None):
        rows = scored(called, names)
        assert rows["value"]["class_accuracy"] == 0.25
        assert set(rows["note"]) == {""}


def test_balls_are_drawn_where_their_surfaces_say():
    random = np.random.default_rng(1)
    unit = random.normal(size=(2, 900, 3))
    unit /= np.linalg.norm(unit, axis=2, keepdims=True)
    # They overlap: the middle between two of one size parts them.
    centres, radius = np.array([[14, 16, 15], [14, 16, 29]]), 8.3
    points = (centres[:, None] + radius * unit).reshape(-1, 3)
    inside_other = np.linalg.norm(points - np.repeat(centres[::-1], 900, axis=0), axis=1) < 12
    _, labels = sphere_truth(points[~inside_other], (29, 33, 44))
    places = np.moveaxis(np.indices(labels.shape), 0, -1)
    away = np.linalg.norm(places[..., None, :] - centres, axis=-1)
    expected = np.where(away.min(axis=-1) < radius, 1 + away.argmin(axis=-1), 0)
    even = away[..., 0] == away[..., 1]
    assert np.array_equal(np.where(even, 0, labels), np.where(even, 0, expected))


def test_every_metric_is_told_and_stands_in_the_document():
    truth = np.zeros((3, 6, 6), int)
    truth[:, :3], truth[:, 3:, 3:] = 1, 2
    found = np.where(truth == 1, 5, 0)
    classes = {1: "a", 2: "b"}
    rows = evaluate_tomogram(
        "t", found, truth, None, classes, {5: "b"}, excluded_slices=[1, 1, 0], excluded_truth={1}
    )
    values = rows.set_index("metric")["value"]
    page = Path(__file__).parents[2] / "docs" / "evaluation.md"
    told = re.findall(r"`([a-z]+_[a-z0-9_]+)`", page.read_text("utf-8").split("## Incomplete")[0])
    assert sorted(values.index) == sorted(told)
    assert set(rows["note"]) == {"without annotated slices [0, 1]"}
    assert (values["instances_truth"], values["instance_predicted"]) == (2, 1)
    assert values["voxel_recall"] == pytest.approx(18 / 27)
    # The one that was found taught the classifier.
    assert np.isnan(values["class_accuracy"])


def test_sphere_truth_finds_spheres_and_perfect_labels_score_one():
    random = np.random.default_rng(0)
    points = []
    for centre in ((20, 20, 20), (20, 20, 45)):
        direction = random.normal(size=(800, 3))
        unit = direction / np.linalg.norm(direction, axis=1)[:, None]
        points.append(np.array(centre) + 9 * unit)
    spheres, labels = sphere_truth(np.concatenate(points), (40, 40, 64))
    np.testing.assert_allclose(spheres[["z", "y", "x"]], [[20, 20, 20], [20, 20, 45]], atol=1e-6)
    np.testing.assert_allclose(spheres["radius"], 9)
    rows = evaluate_tomogram("t", labels, labels, None, {1: "a", 2: "b"}, {1: "a", 2: "b"})
    values = rows.set_index("metric")["value"]
    assert values["instance_f1"] == values["voxel_dice"] == values["class_accuracy"] == 1
    few = evaluate_tomogram("t", labels, labels, complete=False)
    assert "instance_recall" in set(few["metric"])
    assert not any("precision" in metric or "f1" in metric for metric in few["metric"])


def test_empty_prediction():
    truth = np.ones((2, 2, 2), dtype=int)
    assert instance_scores(truth * 0, truth)["recall"] == 0
