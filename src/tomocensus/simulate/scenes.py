"""Scenes: density, instance labels and membranes of cellular objects in a slab of ice."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

# Å: ranges of the radii, and how many objects in 1000 nm x 1000 nm x 200 nm of cell.
KINDS = {
    "mitochondrion": ((450, 750), 12),
    "vesicle": ((220, 600), 60),
    "virus_like_particle": ((480, 620), 14),
    "dense_body": ((250, 500), 20),
    "lipid_droplet": ((350, 800), 6),
    "er": ((180, 260), 12),
    "microtubule": ((125, 125), 10),
    "ribosome": ((125, 140), 220),
}
BILAYER = 45.0  # Å, thickness
FIELD = 1e4 * 1e4 * 2e3  # Å^3, the volume that the numbers in KINDS are for


@dataclass
class Scene:
    """What is in a simulated volume, before imaging."""

    density: np.ndarray
    labels: np.ndarray
    membrane: np.ndarray
    classes: dict[int, str] = field(default_factory=dict)


def draw_scene(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    voxel_size: float,
    abundance: dict[str, float] | None = None,
    touching: float = 0.3,
    largest: float = 0.1,
    attempts: int = 12,
    look_first: bool = False,
) -> Scene:
    """Place objects until each kind's number is reached or there is no room.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all choices.
    shape : tuple of int
        ``(nz, ny, nx)``.
    voxel_size : float
        Å.
    abundance : dict, optional
        Factor on the number of each kind.
    touching : float
        Share of compact objects that are placed against another one.
    largest : float
        Share of the volume that one object may fill.
    attempts : int
        Places tried for one object.
    look_first : bool
        Drop a place whose axis or reach meets another object before the shape is drawn, which
        is where the time goes in crowded scenes.

    Returns
    -------
    Scene
        Density is positive where matter is (about 1 for protein); labels are solid.
    """
    scene = Scene(np.zeros(shape, np.float32), np.zeros(shape, np.int32), np.zeros(shape, bool), {})
    volume = np.prod(shape) * voxel_size**3 / FIELD
    for kind, (radii, count) in KINDS.items():
        expected = count * volume * (abundance or {}).get(kind, 1.0)
        number = int(expected) + (rng.random() < expected % 1)
        for _ in range(number):
            for _ in range(attempts):
                if _place(
                    rng, scene, kind, rng.uniform(*radii), voxel_size, touching, largest, look_first
                ):
                    break
    _crowd(rng, scene, voxel_size)
    return scene


def _place(rng, scene, kind, radius, voxel_size, touching, largest, look_first) -> bool:
    """Try to place one object; False where there is no room."""
    shape = np.array(scene.labels.shape)
    centre = rng.uniform(-0.02, 1.02, 3) * shape
    r = radius / voxel_size
    if kind in ("vesicle", "virus_like_particle", "dense_body") and rng.random() < touching:
        centre = _beside(rng, scene, r, centre)
    path = _path(rng, kind, centre, r, shape)
    if look_first and _meets(rng, path, 0.75 * r, scene.labels):
        return False
    distance, box = _distance(path, r, scene.labels.shape, _squash(rng, kind), rng, kind)
    if distance is None:
        return False
    inside = distance <= 0
    if (
        not 8 <= np.count_nonzero(inside) <= largest * scene.labels.size
        or (scene.labels[box][inside] > 0).any()
    ):
        return False
    number = len(scene.classes) + 1
    scene.classes[number] = kind
    scene.labels[box][inside] = number
    _fill(rng, scene, kind, box, inside, distance * voxel_size, voxel_size)
    return True


def _meets(rng, path, reach, labels) -> bool:
    """Tell whether random points within a reach of the axis lie in an object."""
    away = rng.normal(size=(8, len(path), 3))
    away *= reach / np.linalg.norm(away, axis=-1, keepdims=True)
    points = np.rint(np.concatenate([path[np.newaxis], path + away])).reshape(-1, 3).astype(int)
    points = points[((points >= 0) & (points < labels.shape)).all(axis=1)]
    return bool(labels[tuple(points.T)].any())


def _beside(rng, scene, r, centre):
    """Return a centre next to an object that is already there."""
    known = [n for n, kind in scene.classes.items() if kind in ("vesicle", "virus_like_particle")]
    if not known:
        return centre
    points = np.argwhere(scene.labels == rng.choice(known))
    middle, extent = points.mean(axis=0), np.cbrt(len(points) * 3 / 4 / np.pi)
    direction = rng.normal(size=3) * (0.4, 1, 1)
    return middle + direction / np.linalg.norm(direction) * (extent + r + 0.7)


def _squash(rng, kind):
    """Return factors on z, y, x distances: shapes that are not quite round."""
    strength = {"mitochondrion": 0.15, "vesicle": 0.12, "dense_body": 0.15}.get(kind, 0.03)
    return 1 + rng.uniform(-strength, strength, 3)


def _path(rng, kind, centre, r, shape):
    """Return the points ``(n, 3)`` of the object's axis."""
    if kind not in ("mitochondrion", "er", "microtubule"):
        return centre[np.newaxis]
    length = {"mitochondrion": rng.uniform(0.3, 1.2) * r, "er": rng.uniform(6, 16) * r}.get(
        kind, 2.0 * shape.max()
    )
    bend = {"mitochondrion": 0.15, "er": 0.25, "microtubule": 0.01}[kind]
    step = max(1.0, r / 2)
    direction = rng.normal(size=3) * (0.25, 1, 1)
    direction /= np.linalg.norm(direction)
    turn = np.cross(direction, rng.normal(size=3))
    points = [centre - direction * length / 2]
    for _ in range(int(length / step)):
        direction = direction + bend * turn * step / r * 0.3 + bend * rng.normal(size=3) * 0.15
        direction /= np.linalg.norm(direction)
        points.append(points[-1] + direction * step)
    return np.array(points)


def _distance(path, r, shape, squash, rng, kind):
    """Return the signed distance to the surface in voxels in the object's box."""
    low = np.maximum(np.floor(path.min(axis=0) - 1.3 * r - 2), 0).astype(int)
    high = np.minimum(np.ceil(path.max(axis=0) + 1.3 * r + 3), shape).astype(int)
    if (high - low < 2).any():
        return None, None
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    grid = np.indices(high - low).reshape(3, -1).T + low
    if len(path) == 1:
        far = np.linalg.norm((grid - path[0]) * squash, axis=1)
    else:
        # Nothing is drawn farther out; a bound makes the search many times faster.
        far = cKDTree(path).query(grid, distance_upper_bound=1.5 * r + 4)[0]
    distance = (far - r).reshape(tuple(high - low)).astype(np.float32)
    if kind in ("mitochondrion", "vesicle", "er", "dense_body"):
        waves = _waves(rng, distance.shape, max(r / 2, 1))
        distance += waves / (waves.std() + 1e-9) * 0.05 * r
    return distance, box


def _waves(rng, shape, sigma):
    """Return smooth noise of a correlation length in voxels."""
    coarse = int(sigma // 5) if sigma >= 20 else 1
    if coarse == 1:
        return ndimage.gaussian_filter(rng.normal(size=shape), sigma)
    # Wide kernels cost seconds per object at small voxel sizes; the noise needs no such detail.
    small = [-(-n // coarse) + 1 for n in shape]
    noise = ndimage.gaussian_filter(rng.normal(size=small), sigma / coarse)
    return ndimage.affine_transform(noise, np.full(3, 1 / coarse), output_shape=shape, order=1)


def _layer(depth, at, width):
    """Return a soft layer at a depth (Å, negative inside)."""
    return np.exp(-(((depth - at) / width) ** 2)).astype(np.float32)


def _bilayer(depth, at, voxel_size):
    """Return two dense leaflets around a depth."""
    width = max(12.0, 0.5 * voxel_size)
    return 0.9 * (_layer(depth, at - 20, width) + _layer(depth, at + 20, width))


def _fill(rng, scene, kind, box, inside, depth, voxel_size):
    """Write density and membrane of one object; depth in Å is negative inside."""
    density = np.zeros(depth.shape, np.float32)
    membrane = np.zeros(depth.shape, bool)
    noise = ndimage.gaussian_filter(rng.normal(size=depth.shape).astype(np.float32), 1)
    noise /= noise.std() + 1e-9
    if kind in ("vesicle", "mitochondrion", "er", "virus_like_particle"):
        density += _bilayer(depth, -BILAYER / 2, voxel_size)
        membrane |= (depth <= 0) & (depth > -BILAYER - voxel_size / 2)
    if kind == "vesicle" and rng.random() < 0.4:
        density += np.where(depth < -60, rng.uniform(0.1, 0.4) + 0.15 * noise, 0)
    elif kind == "er":
        density += np.where(depth < -60, 0.15, 0)
    elif kind == "virus_like_particle":
        density += 0.8 * _layer(depth, -130, 40)
    elif kind == "dense_body":
        density += np.where(depth < 0, 0.7 + 0.1 * noise, 0)
    elif kind == "lipid_droplet":
        density += np.where(depth < 0, 0.25, 0) + 0.5 * _layer(depth, -15, 20)
    elif kind == "ribosome":
        density += np.where(depth < 0, 1.3 + 0.3 * noise, 0)
    elif kind == "microtubule":
        density += 1.0 * _layer(depth, -25, 25)
    elif kind == "mitochondrion":
        density += _bilayer(depth, -BILAYER / 2 - 180, voxel_size)
        cristae = np.sin(ndimage.gaussian_filter(rng.normal(size=depth.shape), 6) * 90)
        sheet = np.exp(-((cristae / 0.35) ** 2)).astype(np.float32)
        density += np.where(depth < -250, 0.35 + 0.1 * noise + 0.8 * sheet, 0)
        membrane |= (np.abs(depth + BILAYER / 2 + 180) < BILAYER / 2 + voxel_size / 2) & (depth < 0)
    reach = inside | (depth < voxel_size)
    scene.density[box][reach] = np.maximum(scene.density[box], density)[reach]
    scene.membrane[box] |= membrane & inside


def _crowd(rng, scene, voxel_size):
    """Add small proteins in the cytosol as unlabelled density."""
    specks = rng.random(scene.density.shape) < rng.uniform(0.002, 0.01) * (voxel_size / 15) ** 3
    small = ndimage.gaussian_filter(specks.astype(np.float32), 45 / voxel_size)
    small *= 0.5 / (small.max() + 1e-9)
    scene.density += np.where(scene.labels > 0, 0, small)
