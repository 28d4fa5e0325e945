"""Scenes: density, instance labels and membranes of cellular objects in a slab of ice."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

# Å: ranges of the radii, and how many objects in 1000 nm x 1000 nm x 200 nm of cell.
KINDS = {
    "nuclear_envelope": ((130, 200), 1.5),
    "plasma_membrane": ((24, 30), 2),
    "golgi": ((250, 550), 3),
    "autophagosome": ((700, 1500), 2),
    "mitochondrion": ((450, 750), 12),
    "vesicle": ((220, 600), 60),
    "virus_like_particle": ((480, 620), 14),
    "dense_body": ((250, 500), 20),
    "lipid_droplet": ((350, 800), 6),
    "er": ((150, 260), 14),
    "microtubule": ((125, 125), 10),
    "actin": ((35, 40), 20),
    "ribosome": ((125, 140), 220),
    "particle": ((45, 90), 150),
    "gold": ((25, 60), 4),
}
SHEETS = ("nuclear_envelope", "plasma_membrane")
BENT = ("mitochondrion", "er", "microtubule", "actin")
# Share of objects with an inner one, of ribosomes on membranes, of ER that is a flat cisterna.
NESTED, BOUND, FLAT_ER = 0.12, 0.25, 0.4
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
    room = {"touching": touching, "largest": largest, "look_first": look_first}
    for kind, (radii, count) in KINDS.items():
        expected = count * volume * (abundance or {}).get(kind, 1.0)
        number = int(expected) + (rng.random() < expected % 1)
        for _ in range(number):
            for _ in range(attempts):
                if _place(rng, scene, kind, rng.uniform(*radii), voxel_size, **room):
                    break
    for number in [n for n, kind in scene.classes.items() if kind == "vesicle"]:
        if rng.random() < NESTED:
            _nest(rng, scene, number, voxel_size)
    _crowd(rng, scene, voxel_size)
    return scene


def _place(
    rng, scene, kind, radius, voxel_size, touching=0.0, largest=1.0, look_first=False, inside_of=0
) -> bool:
    """Try to place one object; False where there is no room.

    `inside_of` is the object whose voxels it may take: 0 for free space.
    """
    shape = np.array(scene.labels.shape)
    r = radius / voxel_size
    centre = rng.uniform(-0.02, 1.02, 3) * shape
    if inside_of:
        centre = np.argwhere(scene.labels == inside_of).mean(axis=0) + rng.normal(size=3) * r / 4
    elif kind in ("vesicle", "virus_like_particle", "dense_body") and rng.random() < touching:
        centre = _beside(rng, scene, r, centre)
    elif kind == "ribosome" and rng.random() < BOUND:
        centre = _bound(rng, scene, r, centre)
    flat = kind in (*SHEETS, "golgi") or (kind == "er" and rng.random() < FLAT_ER)
    if flat:
        distance, height, box = _flat_distance(rng, kind, centre, r, scene.labels, voxel_size)
    else:
        path = _path(rng, kind, centre, r, shape)
        if look_first and not inside_of and _meets(rng, path, 0.75 * r, scene.labels):
            return False
        distance, box = _distance(path, r, scene.labels.shape, _squash(rng, kind), rng, kind)
        height = None
    if distance is None:
        return False
    inside = distance <= 0
    most = 0.3 if flat else largest
    if (
        not 8 <= np.count_nonzero(inside) <= most * scene.labels.size
        or (scene.labels[box][inside] != inside_of).any()
    ):
        return False
    number = len(scene.classes) + 1
    scene.classes[number] = kind
    scene.labels[box][inside] = number
    height = None if height is None else height * voxel_size
    _fill(rng, scene, kind, box, inside, distance * voxel_size, voxel_size, height)
    return True


def _nest(rng, scene, number, voxel_size) -> None:
    """Put a vesicle into an object that has room for one."""
    room = np.cbrt(np.count_nonzero(scene.labels == number) * 3 / 4 / np.pi) * voxel_size
    if room > 300:
        radius = rng.uniform(0.35, 0.65) * room
        _place(rng, scene, "vesicle", radius, voxel_size, inside_of=number)


def _bound(rng, scene, r, centre):
    """Return a centre on the outside of some ER or nuclear envelope."""
    known = [n for n, kind in scene.classes.items() if kind in ("er", "nuclear_envelope")]
    if not known:
        return centre
    points = np.argwhere(scene.labels == rng.choice(known))
    place = points[rng.integers(len(points))].astype(float)
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    shape = np.array(scene.labels.shape)
    while ((place >= 0) & (place < shape)).all() and scene.labels[tuple(place.astype(int))]:
        place = place + direction
    return place + direction * (r + 0.5)


def _flat_distance(rng, kind, centre, r, labels, voxel_size):
    """Return signed distance, height over the middle plane (voxels) and box of a flat object.

    A slab of half thickness `r`, waved; sheets cross the field, the rest are discs with a round
    rim. The height runs across the layers.
    """
    shape = np.array(labels.shape)
    normal = rng.normal(size=3) * (0.4, 1, 1)
    normal /= np.linalg.norm(normal)
    extent = np.inf if kind in SHEETS else rng.uniform(1000, 2500) / voxel_size
    reach = np.where(np.isfinite(extent), extent + 3, shape.max() * 2)
    low = np.maximum(np.floor(centre - reach), 0).astype(int)
    high = np.minimum(np.ceil(centre + reach + 1), shape).astype(int)
    if (high - low < 2).any():
        return None, None, None
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    if _crossed(centre, normal, 0.5 * r, extent, labels):
        return None, None, None
    grid = np.ogrid[box]
    offset = [(axis - at).astype(np.float32) for axis, at in zip(grid, centre, strict=True)]
    height = sum(part * np.float32(n) for part, n in zip(offset, normal, strict=True))
    away = np.sqrt(np.maximum(sum(part**2 for part in offset) - height**2, 0))
    waves = _waves(rng, height.shape, rng.uniform(400, 1200) / voxel_size)
    height = height + waves / (waves.std() + 1e-9) * rng.uniform(0, 250) / voxel_size
    height = height + rng.normal(0, 0.15) * away**2 / min(3000 / voxel_size, 2 * shape.max())
    over, beyond = np.abs(height) - r, away - extent + r
    rim = np.hypot(np.maximum(over + r, 0), np.maximum(beyond, 0)) - r
    distance = np.where(beyond > 0, rim, over) if np.isfinite(extent) else over
    return distance.astype(np.float32), height.astype(np.float32), box


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
    strength = {"mitochondrion": 0.15, "vesicle": 0.12, "dense_body": 0.15, "autophagosome": 0.2}
    strength = strength.get(kind, 0.03)
    return 1 + rng.uniform(-strength, strength, 3)


def _crossed(centre, normal, half, extent, labels, stride=5) -> bool:
    """Tell whether some object lies in the plane of a flat one, on a coarse grid."""
    axes = [np.arange(0, n, stride) - at for n, at in zip(labels.shape, centre, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    height = normal[0] * z + normal[1] * y + normal[2] * x
    near = z**2 + y**2 + x**2 < (0.8 * extent) ** 2
    taken = labels[::stride, ::stride, ::stride] > 0
    return bool((taken & near & (np.abs(height) < max(half, stride / 2))).any())


def _path(rng, kind, centre, r, shape):
    """Return the points ``(n, 3)`` of the object's axis."""
    if kind == "particle":
        return centre + rng.normal(size=(rng.integers(2, 6), 3)) * r * 0.8
    if kind not in BENT:
        return centre[np.newaxis]
    lengths = {
        "mitochondrion": rng.uniform(0.3, 3.0) * r,
        "er": rng.uniform(6, 16) * r,
        "actin": rng.uniform(30, 90) * r,
    }
    path = _walk(rng, kind, centre, lengths.get(kind, 2.0 * shape.max()), r)
    if kind == "er":
        for _ in range(rng.integers(0, 3)):
            joint = path[rng.integers(len(path))]
            branch = _walk(rng, kind, joint, lengths["er"], r)
            path = np.concatenate([path, branch[len(branch) // 2 :]])
    return path


def _walk(rng, kind, centre, length, r):
    """Return the points of a bent line through a centre."""
    bend = {"mitochondrion": 0.15, "er": 0.25, "microtubule": 0.01, "actin": 0.01}[kind]
    step = max(1.0, r / 4 if kind in ("mitochondrion", "er") else r / 2)
    direction = rng.normal(size=3) * (0.25, 1, 1)
    direction /= np.linalg.norm(direction)
    turn = np.cross(direction, rng.normal(size=3))
    halves = []
    for sign in (-1, 1):
        heading, points = sign * direction, [centre]
        for _ in range(int(length / 2 / step)):
            heading = (
                heading
                + bend * turn * step / r * 0.3
                + bend * rng.normal(size=3) * 0.2 * np.sqrt(step / r)
            )
            heading /= np.linalg.norm(heading)
            points.append(points[-1] + heading * step)
        halves.append(np.array(points))
    return np.concatenate([halves[0][:0:-1], halves[1]])


def _distance(path, r, shape, squash, rng, kind):
    """Return the signed distance to the surface in voxels in the object's box."""
    low = np.maximum(np.floor(path.min(axis=0) - 1.3 * r - 2), 0).astype(int)
    high = np.minimum(np.ceil(path.max(axis=0) + 1.3 * r + 3), shape).astype(int)
    if (high - low < 2).any():
        return None, None
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    grid = np.indices(high - low).reshape(3, -1).T + low
    if len(path) == 1:
        far = np.linalg.norm((grid - path[0]) * squash, axis=1) - r
    else:
        # Nothing is drawn farther out; a bound makes the search many times faster.
        far, nearest = cKDTree(path).query(grid, distance_upper_bound=1.5 * r + 4)
        far -= np.append(r * _girth(rng, kind, len(path)), r)[nearest]
    distance = far.reshape(tuple(high - low)).astype(np.float32)
    if kind in ("mitochondrion", "vesicle", "er", "dense_body", "autophagosome"):
        waves = _waves(rng, distance.shape, max(r / 2, 1))
        distance += waves / (waves.std() + 1e-9) * 0.05 * r
    return distance, box


def _girth(rng, kind, count):
    """Return factors on the radius along a path: constrictions and swellings."""
    if kind not in ("mitochondrion", "er"):
        return np.ones(count)
    waves = ndimage.gaussian_filter1d(rng.normal(size=count + 20), 5, mode="wrap")[:count]
    return np.clip(1 + 0.25 * waves / (waves.std() + 1e-9) * rng.random(), 0.6, 1.25)


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


def _fill(rng, scene, kind, box, inside, depth, voxel_size, height=None):
    """Write density and membrane of one object; depth in Å is negative inside."""
    density = np.zeros(depth.shape, np.float32)
    membrane = np.zeros(depth.shape, bool)
    noise = ndimage.gaussian_filter(rng.normal(size=depth.shape).astype(np.float32), 1)
    noise /= noise.std() + 1e-9
    enclosed = ("vesicle", "mitochondrion", "er", "virus_like_particle", "autophagosome")
    if kind in (*enclosed, "nuclear_envelope"):
        density += _bilayer(depth, -BILAYER / 2, voxel_size)
        membrane |= (depth <= 0) & (depth > -BILAYER - voxel_size / 2)
    if kind == "vesicle":
        if rng.random() < 0.4:
            density += np.where(depth < -60, rng.uniform(0.1, 0.5) + 0.15 * noise, 0)
        if rng.random() < 0.2:  # a protein coat
            coat = _layer(depth, 70, 45) * rng.uniform(0.3, 0.7) * (1 + 0.5 * noise)
            density = np.maximum(density, np.where(depth > 0, coat, density))
            inside = inside | ((depth < 120) & (scene.labels[box] == 0))
    elif kind == "er":
        density += np.where(depth < -60, 0.15, 0)
    elif kind == "virus_like_particle":
        density += 0.8 * _layer(depth, -130, 40)
    elif kind == "dense_body":
        density += np.where(depth < 0, rng.uniform(0.4, 0.9) + 0.1 * noise, 0)
    elif kind == "lipid_droplet":
        density += np.where(depth < 0, rng.uniform(0.1, 0.4), 0) + 0.5 * _layer(depth, -15, 20)
    elif kind == "ribosome":
        density += np.where(depth < 0, 1.3 + 0.3 * noise, 0)
    elif kind in ("actin", "particle"):
        density += np.where(depth < 0, rng.uniform(0.7, 1.2) + 0.2 * noise, 0)
    elif kind == "gold":
        density += np.where(depth < 0, 12, 0)
    elif kind == "microtubule":
        density += 1.0 * _layer(depth, -25, 25)
    elif kind == "plasma_membrane":
        density += _bilayer(height, 0, voxel_size) * (depth < voxel_size)
        membrane |= depth <= 0
    elif kind == "golgi":
        _cisternae(rng, density, membrane, depth, height, voxel_size)
    elif kind == "autophagosome":
        gap = -BILAYER / 2 - rng.uniform(150, 300)
        density += _bilayer(depth, gap, voxel_size)
        membrane |= (np.abs(depth - gap) < BILAYER / 2 + voxel_size / 2) & (depth < 0)
        density += np.where(depth < gap - 60, 0.3 + 0.25 * noise, 0)
    elif kind == "mitochondrion":
        density += _bilayer(depth, -BILAYER / 2 - 180, voxel_size)
        cristae = np.sin(ndimage.gaussian_filter(rng.normal(size=depth.shape), 6) * 90)
        sheet = np.exp(-((cristae / 0.35) ** 2)).astype(np.float32)
        density += np.where(depth < -250, 0.35 + 0.1 * noise + 0.8 * sheet, 0)
        membrane |= (np.abs(depth + BILAYER / 2 + 180) < BILAYER / 2 + voxel_size / 2) & (depth < 0)
    reach = inside | (depth < voxel_size)
    scene.density[box][reach] = np.maximum(scene.density[box], density)[reach]
    scene.membrane[box] |= membrane & inside


def _cisternae(rng, density, membrane, depth, height, voxel_size):
    """Draw a stack of flattened cisternae, one instance together."""
    period = rng.uniform(180, 260)
    phase = np.mod(height, period)
    for at in (0.2 * period, 0.2 * period + rng.uniform(70, 110)):
        density += np.where(depth < 0, _bilayer(phase, at, voxel_size), 0)
        membrane |= (np.abs(phase - at) < BILAYER / 2 + voxel_size / 4) & (depth <= 0)


def _crowd(rng, scene, voxel_size):
    """Add small proteins in the cytosol as unlabelled density."""
    specks = rng.random(scene.density.shape) < rng.uniform(0.002, 0.01) * (voxel_size / 15) ** 3
    small = ndimage.gaussian_filter(specks.astype(np.float32), 45 / voxel_size)
    small *= 0.5 / (small.max() + 1e-9)
    scene.density += np.where(scene.labels > 0, 0, small)
