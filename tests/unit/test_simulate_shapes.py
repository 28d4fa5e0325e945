"""Shapes whose distances, volumes and surfaces are known."""

import numpy as np
import pytest

from tomocensus.simulate import shapes
from tomocensus.simulate.shapes import Sheet, balls, branched, path, refine, sample, sheet, slab

FIELD = (40, 56, 48)


def everywhere():
    return np.ix_(*[np.arange(size, dtype=float) for size in FIELD])


@pytest.mark.parametrize("squash", [(1, 1, 1), (1.4, 1, 0.8)])
def test_balls_have_the_distance_to_the_nearest_one(rng, squash):
    points, radii, reach = rng.uniform(10, 30, (4, 3)), np.array([3.0, 5.0, 8.0, 4.0]), 3.0
    body = balls(points, radii, reach, squash)
    grid = np.stack(np.meshgrid(*map(np.ravel, everywhere()), indexing="ij"), axis=-1)
    away = np.linalg.norm((grid[..., None, :] - points) * squash, axis=-1)
    truth = (away - radii).min(axis=-1)
    found = body.distance(everywhere())
    near = truth < reach - 1e-3
    assert np.allclose(found[near], truth[near], atol=1e-4)
    assert (found[~near] >= reach - 2e-3).all()
    inside = grid[near]
    assert (inside >= body.low).all()
    assert (inside <= body.high).all()
    assert body.radius == 8


def test_a_coarse_field_is_sampled_in_its_box_and_refined(rng):
    margin = 3.0
    body = balls([[20.0, 52.0, 24.0]], 19.0, margin)
    box, step, coarse = sample(body, FIELD, rng, margin)
    assert step == 2
    truth = body.distance(everywhere())
    outside = np.ones(FIELD, bool)
    outside[box] = False
    assert (truth[outside] > margin).all()
    near = np.abs(truth[box]) < margin - 1
    fine = refine(coarse, step, truth[box].shape)
    assert np.abs(fine - truth[box])[near].max() < 0.08  # curved by 2^2 / (8 r) along two axes
    assert sample(balls([[20.0, 90.0, 24.0]], 19.0, margin), FIELD, rng, margin) is None


@pytest.mark.parametrize("shape", [(13, 8, 2), (2, 3, 31)])
@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_refining_keeps_a_linear_field(shape, step):
    sampled = [np.arange(0, size + step - 1, step) for size in shape]
    z, y, x = np.ix_(*sampled)
    coarse = (0.5 * z - 0.2 * y + 0.3 * x).astype(np.float32)
    z, y, x = np.ix_(*map(np.arange, shape))
    assert np.allclose(refine(coarse, step, shape), 0.5 * z - 0.2 * y + 0.3 * x, atol=1e-5)


def test_a_waved_surface_is_as_rough_as_asked(rng):
    body = balls([[20.0, 28.0, 24.0]], 9.0, 6.0, waviness=0.1)
    box, _, waved = sample(body, FIELD, rng, 6.0)
    smooth = body.distance(np.ix_(*[np.arange(span.start, span.stop) for span in box]))
    waves = waved - smooth
    assert np.isclose(waves.std(), 0.1 * 9, rtol=0.01)
    assert max(np.abs(np.diff(waves, axis=axis)).max() for axis in range(3)) < 0.1 * 9


def test_a_path_has_its_length_middle_and_turn(rng):
    centre = np.array([5.0, -3.0, 8.0])
    for flatness in (0.0, 1.0):
        straight = path(rng, centre, 60, 0.5, 0.0, flatness)
        assert len(straight) == 121
        assert np.allclose(straight[60], centre)
        steps = np.diff(straight, axis=0)
        assert np.allclose(steps, (straight[-1] - straight[0]) / 120)
        assert np.allclose(np.linalg.norm(steps, axis=1), 0.5)
        assert (np.ptp(straight[:, 0]) < 1e-9) == (flatness == 0)
    turns = []
    for _ in range(60):
        bent = np.diff(path(rng, centre, 60, 0.5, 0.8), axis=0)
        assert np.allclose(np.linalg.norm(bent, axis=1), 0.5)
        turns.append(np.arccos(bent[0] @ bent[-1] / 0.25))
    assert np.isclose(np.mean(turns), 0.8, rtol=0.15)


def test_branches_start_on_the_trunk(rng):
    points = branched(rng, (0, 0, 0), 30, 0.5, 0.3, 3)
    trunk, sides = points[:61], points[61:].reshape(3, -1, 3)
    for side in sides:
        assert np.linalg.norm(trunk - side[0], axis=1).min() < 1e-9
        assert np.allclose(np.linalg.norm(np.diff(side, axis=0), axis=1), 0.5)


@pytest.mark.parametrize("steep", [0.0, 1.0, 20.0])
def test_points_put_on_a_sheet_lie_on_it(rng, steep):
    made = sheet(rng, (20.0, 28.0, 24.0), 30.0, 0.4, steep)
    frame = np.stack([made.along, made.across, made.normal])
    assert np.allclose(frame @ frame.T, np.eye(3))
    assert steep or abs(made.normal[0]) < 1e-9
    u, v, w = rng.uniform(-10, 10, (3, 50))
    bow = made.curves[0] * u**2 + made.curves[1] * v**2
    for (height, period, phase, _), at in zip(made.waves, (u, v), strict=True):
        bow += height * np.sin(2 * np.pi * at / period + phase)
    points = made.centre + np.stack([u, v, w + bow], axis=1) @ frame
    assert np.allclose(made.coordinates(points.T), (u, v, w), atol=1e-4)


def flat(normal=(0.0, 0.6, 0.8)):
    return Sheet(
        np.array([20.0, 28.0, 24.0]),
        np.array(normal),
        np.array([1.0, 0, 0]),
        np.array([0, 0.8, -0.6]),
        (0.0, 0.0),
        (),
    )


def test_a_slab_has_its_volume_and_its_holes_take_theirs(rng):
    half, extent = 4.0, 16.0
    body = slab(flat(), half, extent, FIELD)
    voxels = np.count_nonzero(body.distance(everywhere()) <= 0)
    # A disc and the half torus around it (Pappus).
    disc = extent - half
    volume = 2 * half * np.pi * disc**2 + np.pi**2 * half**2 * disc + 4 / 3 * np.pi * half**3
    assert np.isclose(voxels, volume, rtol=0.01)
    pierced = slab(flat(), half, extent, FIELD, [(3.0, -4.0, 5.0)])
    left = np.count_nonzero(pierced.distance(everywhere()) <= 0)
    assert np.isclose(voxels - left, 2 * half * np.pi * 5**2, rtol=0.03)


def test_a_slab_without_end_fills_the_field():
    body = slab(flat(), 4.0, np.inf, FIELD)
    _, y, x = np.indices(FIELD)
    truth = np.abs(0.6 * (y - 28) + 0.8 * (x - 24)) - 4
    assert np.allclose(body.distance(everywhere()), truth, atol=1e-4)
    box, _, _ = sample(body, FIELD, np.random.default_rng(0), 3.0)
    assert [span.stop - span.start for span in box] == list(FIELD)


def test_a_bent_slab_lies_in_its_box(rng):
    for _ in range(20):
        body = slab(sheet(rng, (20.0, 28.0, 24.0), 12.0, 0.5), 2.0, 12.0, FIELD)
        inside = np.argwhere(body.distance(everywhere()) <= 0)
        assert len(inside)
        assert (inside >= body.low).all()
        assert (inside <= body.high).all()


def test_what_is_far_has_no_distance():
    body = balls([[20.0, 28.0, 24.0]], 3.0, 2.0)
    assert body.distance(everywhere())[0, 0, 0] == np.float32(shapes.FAR)
