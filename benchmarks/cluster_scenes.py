"""Analytic shapes and dense scenes with known instances, for benchmarks and tests."""

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment


def ball(shape, centre, radius):
    """Return a solid ball; radius may be one number or three half axes (z, y, x)."""
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    half = np.broadcast_to(radius, 3)
    return sum(((g - c) / h) ** 2 for g, c, h in zip(grid, centre, half, strict=True)) <= 1


def shell(shape, centre, radius, wall=2.0, cap=0.0):
    """Return a hollow ball; the part within `cap` degrees of the +-z poles is missing."""
    hollow = ball(shape, centre, radius) & ~ball(shape, centre, radius - wall)
    z, y, x = np.ogrid[tuple(slice(0, n) for n in shape)]
    z, y, x = z - centre[0], y - centre[1], x - centre[2]
    angle = np.degrees(np.arctan2(np.hypot(y, x), np.abs(z)))
    return hollow & (angle >= cap)


def tube(shape, points, radius):
    """Return all voxels within `radius` (one number, or one for each point) of a path."""
    mask = np.zeros(shape, bool)
    radii = np.broadcast_to(radius, len(points))
    for point, r in zip(np.asarray(points, float), radii, strict=True):
        low = np.maximum(np.floor(point - r).astype(int), 0)
        high = np.minimum(np.ceil(point + r).astype(int) + 1, shape)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        mask[box] |= ball(mask[box].shape, point - low, r)
    return mask


def rough(mask, rng, strength=1.0):
    """Move the surface by smooth noise of about `strength` voxels."""
    inside = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    noise = ndimage.gaussian_filter(rng.standard_normal(mask.shape), 1.5)
    return inside + strength * noise / noise.std() * 0.5 > 0.5


def double_membrane(rng, holes, shape=(64, 200, 200), radius=150, gap=6):
    """Return a piece of a wide double membrane as a mask: bridges across its gap, and holes.

    Parameters
    ----------
    rng : numpy.random.Generator
        Of the holes.
    holes : float
        Part of all places without membrane.
    shape : tuple of int
        Voxels.
    radius, gap : float
        Of the inner membrane, and between the two, voxels.
    """
    z, y, x = np.indices(shape)
    out, along = np.hypot(y, x) - radius, np.arctan2(y, x) * radius
    membranes = (np.abs(out) <= 1) | (np.abs(out - gap - 2) <= 1)
    bridges = (out > 0) & (out < gap + 2) & ((along % 24 < 3) | (z % 24 < 3))
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 1)
    return (membranes | bridges) & (noise > np.quantile(noise, holes))


def dense_scene(seed, shape=(96, 160, 160), count=60, kind="solid", radii=(7, 14)):
    """Pack balls that touch or overlap a little; return the object mask and the true labels.

    `kind`: solid, shell (closed), caps (40 degrees missing at +-z), torn (caps and holes) or
    mixed. Truth is always solid.
    """
    rng = np.random.default_rng(seed)
    truth = np.zeros(shape, np.int32)
    mask = np.zeros(shape, bool)
    placed = []
    for _ in range(200 * count):
        if len(placed) == count:
            break
        radius = rng.uniform(*radii)
        if placed and rng.random() < 0.7:
            # Against an object that is there already, one voxel into it.
            near, other = placed[rng.integers(len(placed))]
            way = rng.standard_normal(3)
            centre = near + way / np.linalg.norm(way) * (other + radius - 1)
        else:
            centre = rng.uniform(radius + 1, np.array(shape) - radius - 1)
        if np.any(centre < radius + 1) or np.any(centre > np.array(shape) - radius - 1):
            continue
        if any(np.linalg.norm(centre - c) < r + radius - 1.01 for c, r in placed):
            continue
        placed.append((centre, radius))
        # Drawn in its own box.
        low = np.floor(centre - radius).astype(int) - 1
        high = np.ceil(centre + radius).astype(int) + 2
        box = tuple(slice(a, b) for a, b in zip(np.maximum(low, 0), high, strict=True))
        size, middle = truth[box].shape, centre - np.maximum(low, 0)
        solid = ball(size, middle, radius)
        look = rng.choice(["solid", "shell", "caps"]) if kind == "mixed" else kind
        if look == "solid":
            visible = solid
        else:
            visible = shell(size, middle, radius, 2.0, 0 if look == "shell" else 40)
        if look == "torn":
            for _ in range(4):
                way = rng.standard_normal(3)
                hole = middle + way / np.linalg.norm(way) * radius
                visible &= ~ball(size, hole, 0.3 * radius)
        truth[box][solid & (truth[box] == 0)] = len(placed)
        mask[box] |= visible
    return mask, truth


def ragged(mask, rng, blur=1.2, noise=0.25):
    """Return a float32 map as a network predicts it: soft edges, speckle, bridges."""
    soft = ndimage.gaussian_filter(mask.astype(np.float32), blur)
    speckle = ndimage.gaussian_filter(rng.standard_normal(mask.shape).astype(np.float32), 0.8)
    return np.clip(soft + noise * speckle / speckle.std(), 0, 1).astype(np.float32)


def f1(labels, truth, least=0.5):
    """Return instance F1 of one-to-one matches with an IoU of at least `least`."""
    width = int(truth.max()) + 1
    pairs = np.bincount(
        labels.ravel().astype(np.int64) * width + truth.ravel(),
        minlength=width * (int(labels.max()) + 1),
    ).reshape(-1, width)
    union = pairs.sum(1, keepdims=True) + pairs.sum(0, keepdims=True) - pairs
    iou = (pairs / np.maximum(union, 1))[1:, 1:]
    rows, columns = linear_sum_assignment(-iou)
    hits = np.count_nonzero(iou[rows, columns] >= least)
    return 2 * hits / max(sum(iou.shape), 1)


def analytic(scale=1.0):
    """Return ``{name: (mask, expected number of instances)}``; sizes grow with `scale`."""
    s = scale
    n = int(72 * s)
    shape = (n, n, n)
    middle = np.array([n / 2] * 3)
    x = np.array([0, 0, 1.0])
    t = np.linspace(-1, 1, int(100 * s) + 1)[:, None]
    arc = np.linspace(0, np.pi, int(150 * s) + 1)
    turn = np.linspace(0, 2 * np.pi, int(250 * s) + 1)

    def circle(angles, radius):
        flat = np.stack([0 * angles, np.sin(angles), np.cos(angles)], axis=1)
        return middle + radius * flat

    def pair(overlap, first=12 * s, second=12 * s):
        apart = (first + second) - overlap * 2 * min(first, second)
        return ball(shape, middle - x * apart / 2, first) | ball(
            shape, middle + x * apart / 2, second
        )

    line = middle + t * x * 22 * s
    scenes = {
        "sphere": (ball(shape, middle, 14 * s), 1),
        "ellipsoid": (ball(shape, middle, (8 * s, 14 * s, 26 * s)), 1),
        "capsule": (tube(shape, line, 9 * s), 1),
        "banana": (tube(shape, circle(arc, 20 * s), 8 * s), 1),
        "ring": (tube(shape, circle(turn, 22 * s), 7 * s), 1),
        "taper": (tube(shape, line, (6 + 4 * t[:, 0]) * s), 1),
        "branched tube": (
            tube(shape, line, 7 * s)
            | tube(shape, middle + (t + 1) / 2 * np.array([0, 26 * s, 0]), 7 * s),
            1,
        ),
        "sheet": (ball(shape, middle, (3 * s, 30 * s, 30 * s)), 1),
        "bent sheet": (shell(shape, middle + np.array([26 * s, 0, 0]), 40 * s, 4 * s)[: n // 2], 1),
        "touching": (pair(0.02), 2),
        "overlap 10 %": (pair(0.10), 2),
        "overlap 20 %": (pair(0.20), 2),
        "overlap 30 %": (pair(0.30), 2),
        "unequal": (pair(0.10, 14 * s, 7 * s), 2),
        "closed shell": (shell(shape, middle, 18 * s, 3 * s), 1),
        "open shell": (shell(shape, middle, 18 * s, 3 * s, cap=40), 1),
        "two open shells": (
            shell(shape, middle - x * 14.5 * s, 15 * s, 3 * s, cap=40)
            | shell(shape, middle + x * 14.5 * s, 15 * s, 3 * s, cap=40),
            2,
        ),
        "nested shells": (
            shell(shape, middle, 28 * s, 3 * s) | shell(shape, middle, 12 * s, 3 * s),
            2,
        ),
        "nested open shells": (
            shell(shape, middle, 28 * s, 3 * s, 40) | shell(shape, middle, 12 * s, 3 * s, 40),
            2,
        ),
        "ball at banana": (
            tube(shape, circle(arc, 18 * s), 7 * s)
            | ball(shape, middle - np.array([0, 15 * s, 18 * s + 1]), 9 * s),
            2,
        ),
    }
    for width, parts in ((0.3, 2), (0.5, 2), (0.6, 2), (0.9, 1)):
        waist = 9 * s * (1 - (1 - width) * np.exp(-((t[:, 0] / 0.25) ** 2)))
        scenes[f"tube with a neck of {width:.0%}"] = (tube(shape, line, waist), parts)
    return scenes


def sponge(seed=0):
    """Return truth and a map in which haze joins the objects at most thresholds.

    The haze wanders between 0.3 and 0.85 and the objects stand out from it everywhere.
    """
    rng = np.random.default_rng(seed)
    _, truth = dense_scene(seed, (40, 80, 80), 25, radii=(8, 13))
    haze = ndimage.gaussian_filter(rng.standard_normal(truth.shape), 14)
    haze = np.interp(haze, (haze.min(), haze.max()), (0.3, 0.85))
    grain = ndimage.gaussian_filter(rng.standard_normal(truth.shape), 0.8)
    soft = ndimage.gaussian_filter((truth > 0).astype(np.float32), 1.2)
    chance = haze + (1 - haze) * soft + 0.05 * grain / grain.std()
    return np.clip(chance, 0, 1).astype(np.float32), truth
