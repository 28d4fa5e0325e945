import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from tomocensus.cluster import ClusterParameters, cluster, clustering
from tomocensus.cluster.labelling import find_runs
from tomocensus.cluster.levels import (
    LEVELS,
    Candidate,
    choose,
    find_candidates,
    part_by_levels,
    percolates,
    scores,
    without_bridges,
)
from tomocensus.distances import distance_inside

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from cluster_scenes import ball, dense_scene, f1, shell, sponge
from cluster_scenes import ragged as as_predicted

SMALL = ClusterParameters(minimum_volume=200)


@pytest.fixture(scope="module")
def ragged():
    return sponge()


def two_balls():
    """Return a map of two balls of 0.98 in a bridge of 0.6."""
    shape, half = (28, 28, 56), 9
    chance = np.zeros(shape, np.float32)
    chance[6:22, 6:22, 10:46] = 0.6
    balls = [ball(shape, (14, 14, x), half) for x in (15, 41)]
    chance[balls[0] | balls[1]] = 0.98
    return chance, balls


def test_balls_bridged_at_a_low_level_part():
    chance, balls = two_balls()
    pieces = part_by_levels(chance >= 0.35, (0, 0, 0), 1, chance, SMALL, 200)
    assert len(pieces) == 2
    for piece, expected in zip(sorted(pieces, key=lambda p: p.start[2]), balls, strict=True):
        found = np.zeros(chance.shape, bool)
        found[piece.box] = piece.mask
        assert np.count_nonzero(found & expected) > 0.8 * np.count_nonzero(found | expected)


def test_balls_far_apart_in_haze_have_no_neck():
    chance = np.full((22, 22, 60), 0.6, np.float32)
    chance[ball(chance.shape, (11, 11, 12), 7) | ball(chance.shape, (11, 11, 47), 7)] = 0.98
    pieces = part_by_levels(chance >= 0.35, (0, 0, 0), 1, chance, SMALL, 200)
    assert [(piece.origin, piece.neck_ratio) for piece in pieces] == [("split", 0.0)] * 2
    (alone,) = part_by_levels(chance[..., :30] >= 0.35, (0, 0, 0), 1, chance[..., :30], SMALL, 200)
    assert (alone.origin, alone.neck_ratio) == ("whole", 1.0)


@pytest.mark.parametrize("fill", [True, False])
def test_shells_in_haze_are_filled_where_that_is_wanted(fill):
    chance = np.full((30, 30, 30), 0.5, np.float32)
    chance[shell(chance.shape, (15, 15, 15), 12, 3)] = 0.98
    chance[ball(chance.shape, (15, 15, 15), 9)] = 0.1
    given = (chance >= 0.35, (0, 0, 0), 1, chance, replace(SMALL, fill=fill), 200)
    best = max(part_by_levels(*given), key=lambda piece: piece.voxels)
    lumen = np.zeros(chance.shape, bool)
    lumen[best.box] = best.mask
    assert lumen[15, 15, 15] == fill
    assert best.fill == ("slices" if fill else "none")
    assert best.filled_voxels == fill * np.count_nonzero(chance < 0.35)


def test_candidates_are_found_at_every_level_and_scored():
    chance, _ = two_balls()
    found = find_candidates(chance, chance >= 0.35, 200)
    assert {one.level for one in found} == set(range(len(LEVELS)))
    assert np.all((scores(found) >= 0) & (scores(found) <= 1))
    for one in found:
        assert one.voxels == np.count_nonzero(one.mask)


def test_stable_candidate_scores_more_than_one_of_a_single_level():
    chance = np.zeros((20, 20, 44), np.float32)
    chance[ball(chance.shape, (10, 10, 12), 7)] = 0.98
    chance[ball(chance.shape, (10, 10, 32), 7)] = 0.6
    found = find_candidates(chance, chance >= 0.35, 200)
    score = scores(found)
    right = np.array([one.box[2].start > 20 for one in found])
    assert right.any()
    assert score[~right].max() > 1.5 * score[right].max()


@pytest.mark.parametrize("width", [2, 4])
def test_what_is_thinner_than_half_the_object_is_no_part_of_it(width):
    one = ball((24, 24, 60), (12, 12, 14), 9)
    mask = one.copy()
    mask[12 - width // 2 : 12 + width // 2, 12 - width // 2 : 12 + width // 2, 14:56] = True
    kept = without_bridges(mask, distance_inside(np.pad(mask, 1))[1:-1, 1:-1, 1:-1])
    assert not kept[..., 30:].any()
    assert np.count_nonzero(kept & one) > 0.97 * np.count_nonzero(one)


def candidate(start, size, level=0):
    """Return a cube."""
    box = tuple(slice(a, a + size) for a in start)
    return Candidate(box, np.packbits(np.ones(size**3, bool)), size**3, 0, level, 1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        # One cube holds the two small ones; the fourth touches it by a corner.
        ([0.5, 0.6, 0.4, 0.3], [1, 2, 3]),
        ([0.7, 0.6, 0.4, 0.3], [0, 3]),
        ([0.05, 0.6, 0.05, 0.05], [1]),
        ([0.05, 0.05, 0.05, 0.05], []),
    ],
)
def test_better_candidate_leaves_no_room_for_those_that_share_much_with_it(score, expected):
    cubes = [candidate(*one) for one in (((0,) * 3, 9), ((0,) * 3, 4), ((4,) * 3, 4))]
    cubes.append(candidate((8, 8, 8), 8))
    assert choose(cubes, np.array(score), (20, 20, 20), 0.1) == expected


def test_percolation_means_one_component_through_all_the_volume():
    rods = np.zeros((20, 20, 20), bool)
    rods[10, 10] = rods[10, :, 10] = rods[:, 10, 10] = True
    assert percolates(find_runs(rods))
    assert not percolates(find_runs(rods & (np.arange(20) < 15)))
    rods[2, :, 2] = rods[17, :, 17] = rods[2, :, 17] = True
    assert not percolates(find_runs(rods))
    assert not percolates(find_runs(np.zeros((4, 4, 4), bool)))


def test_ragged_map_is_parted_where_no_threshold_does(ragged):
    chance, truth = ragged
    found = cluster(chance, 1.0, SMALL)
    assert found.facts["levels"]
    plain = replace(SMALL, levels=False, minimum_probability=0.0)
    best = max(
        f1(cluster(chance, 1.0, replace(plain, threshold=level)).labels, truth)
        for level in (0.5, 0.7)
    )
    assert f1(found.labels, truth) >= max(0.8, best + 0.2)


def test_result_depends_on_neither_threads_nor_slabs_nor_scratch(ragged, tmp_path):
    chance, _ = ragged
    chance = chance[:32, :56, :56]
    one = cluster(chance, 1.0, SMALL)
    assert one.facts["levels"]
    other = cluster(chance, 1.0, SMALL, threads=3, slab=7, scratch=tmp_path)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.facts == other.facts
    assert one.table.equals(other.table)


def test_clean_map_and_mask_are_not_touched():
    mask, _ = dense_scene(1, (48, 72, 72), 40, radii=(6, 11))
    soft = ndimage.gaussian_filter(mask.astype(np.float32), 1.0)
    for given in (mask, soft):
        found = cluster(given, 1.0, SMALL)
        without = cluster(given, 1.0, replace(SMALL, levels=False))
        assert not found.facts["levels"]
        np.testing.assert_array_equal(found.labels, without.labels)


def test_boundary_map_leaves_no_room_for_levels(ragged):
    chance, _ = ragged
    chance = chance[:24, :48, :48]
    assert not cluster(chance, 1.0, SMALL, np.zeros_like(chance)).facts["levels"]


def test_clean_map_of_a_net_is_left_to_necks():
    z, y, x = np.mgrid[:80, :80, :80] * (2 * np.pi / 80)
    gyroid = np.sin(x) * np.cos(y) + np.sin(y) * np.cos(z) + np.sin(z) * np.cos(x)
    chance = ndimage.gaussian_filter((np.abs(gyroid) < 0.25).astype(np.float32), 0.7)
    assert percolates(find_runs(ndimage.gaussian_filter(chance, 1) >= 0.5))
    found = cluster(chance, 1.0, SMALL)
    assert not found.facts["levels"]
    without = cluster(chance, 1.0, replace(SMALL, levels=False))
    np.testing.assert_array_equal(found.labels, without.labels)
    assert found.facts == without.facts


def test_volume_too_large_for_levels_is_left_to_necks(ragged, monkeypatch):
    chance = ragged[0][:24, :48, :48]
    monkeypatch.setattr("tomocensus.cluster.clustering._LEVELS_UP_TO", chance.size - 1)
    assert not cluster(chance, 1.0, SMALL).facts["levels"]


@pytest.fixture(scope="module", params=["caps", "mixed"])
def faint(request):
    """Return a map of thin shells whose walls are in part fainter than the threshold, and truth."""
    mask, truth = dense_scene(3, (56, 110, 110), 22, request.param)
    return as_predicted(mask, np.random.default_rng(0), 0.9, 0.1), truth


def test_shells_with_faint_walls_close_at_a_lower_threshold(faint):
    chance, truth = faint
    found = cluster(chance, 1.0, SMALL)
    assert found.facts["threshold"] == pytest.approx(0.3)
    assert not found.facts["levels"]
    as_given = cluster(chance, 1.0, replace(SMALL, levels=False))
    assert as_given.facts["threshold"] == 0.5
    assert f1(found.labels, truth) >= max(0.95, f1(as_given.labels, truth) + 0.1)


def test_lower_threshold_counts_for_objects_voxels_and_mean_probability(faint):
    chance, _ = faint
    found = cluster(chance, 1.0, SMALL)
    same = replace(SMALL, threshold=0.3, minimum_probability=0.6 * 0.68, levels=False)
    other = cluster(chance, 1.0, same)
    np.testing.assert_array_equal(found.labels, other.labels)
    assert found.table.equals(other.table)
    assert found.facts == pytest.approx(other.facts)


def test_lower_threshold_depends_on_neither_threads_nor_slabs_nor_scratch(faint, tmp_path):
    chance, _ = faint
    one = cluster(chance, 1.0, SMALL)
    other = cluster(chance, 1.0, SMALL, threads=3, slab=7, scratch=tmp_path)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.facts == other.facts
    assert one.table.equals(other.table)


def test_threshold_stays_where_no_shell_closes_below_it(monkeypatch):
    # Ragged solid objects only grow at a lower threshold.
    asked, closed = [], clustering._shells_closed

    def spy(*given):
        asked.append(closed(*given))
        return asked[-1]

    monkeypatch.setattr(clustering, "_shells_closed", spy)
    mask, _ = dense_scene(2, (48, 90, 90), 25)
    chance = as_predicted(mask, np.random.default_rng(1), 1.5, 0.35)
    found = cluster(chance, 1.0, SMALL)
    assert asked == [False]
    assert found.facts["threshold"] == 0.5
