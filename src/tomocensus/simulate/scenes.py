"""Scenes: density, instance labels and membranes of cellular objects in a slab of ice."""

from __future__ import annotations

from dataclasses import dataclass, field

import edt
import numpy as np
from scipy import ndimage

from tomocensus.simulate import matter, shapes
from tomocensus.simulate.plain import Style

# Å: ranges of the radii (half thickness of sheets), and how many objects in 1000 nm x 1000 nm x
# 200 nm of cell. The large come first: they need the room.
KINDS = {
    "plasma_membrane": ((30, 36), 0.5),
    "nuclear_envelope": ((140, 260), 0.5),
    "mitochondrion": ((380, 1300), 8),
    "golgi": ((700, 1800), 2),
    "autophagosome": ((450, 1100), 3),
    "lipid_droplet": ((300, 1100), 5),
    "er": ((110, 260), 14),
    "vesicle": ((150, 650), 70),
    "virus_like_particle": ((420, 640), 14),
    "dense_body": ((180, 600), 20),
    "microtubule": ((125, 125), 10),
    "actin": ((32, 40), 16),
    "gold": ((40, 75), 3),
    "ribosome": ((125, 140), 260),
    "particle": ((45, 130), 350),
}
ONCE = ("plasma_membrane", "nuclear_envelope")  # at most one in a field
COMPACT = ("vesicle", "virus_like_particle", "dense_body", "lipid_droplet", "autophagosome")
FILAMENTS = ("microtubule", "actin")
SOFT = (*COMPACT, "mitochondrion", "er", "golgi")  # give way where they meet another
LARGE = ("mitochondrion", "golgi", "autophagosome", "lipid_droplet", "er")
SMALL = (*FILAMENTS, "gold", "ribosome", "particle")  # fill hardly anything
FOR_LARGE = 0.65  # of the volume that objects may fill; the rest is for those that come later
WAVINESS = {
    "mitochondrion": 0.05,
    "vesicle": 0.04,
    "er": 0.06,
    "dense_body": 0.1,
    "autophagosome": 0.05,
    "lipid_droplet": 0.015,
    "virus_like_particle": 0.02,
    "nuclear_envelope": 0.08,
}
FIELD = 1e4 * 1e4 * 2e3  # Å^3, the volume that the numbers in KINDS are for
SMALLEST = 8  # voxels of an object


@dataclass
class Scene:
    """What is in a simulated volume, before imaging."""

    density: np.ndarray
    labels: np.ndarray
    membrane: np.ndarray
    classes: dict[int, str] = field(default_factory=dict)
    surfaces: dict[int, tuple] = field(default_factory=dict, repr=False)
    hosts: list = field(default_factory=list, repr=False)
    filled: int = 0
    texture: np.ndarray | None = field(default=None, repr=False)
    grain: float = 1.0
    style: Style = field(default_factory=Style, repr=False)


def draw_scene(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    voxel_size: float,
    abundance: dict[str, float] | None = None,
    touching: float = 0.3,
    largest: float = 0.1,
    occupied: float = 1.0,
    attempts: int = 12,
    start: Scene | None = None,
    cut_filaments: bool = False,
    grain: float = 1.0,
    style: Style | None = None,
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
    occupied : float
        Share of the volume that all objects together may fill, but for small ones. Below 1 the
        large kinds come in any order, and none takes all the room.
    attempts : int
        Places tried for one object.
    start : Scene, optional
        What is there already, numbered from 1 without gaps; changed in place.
    cut_filaments : bool
        Filaments end where they meet an object; else one that meets any is not placed, and in a
        crowd hardly one is.
    grain : float
        Factor on the texture of all matter; 0 for the even objects of plain simulations.
    style : Style, optional
        How objects are made; as in cells by default.

    Returns
    -------
    Scene
        Density is positive where matter is (about 1 for protein); labels are solid: an object is
        its membrane and all within, but what lies within and is an object of its own has its own
        label.
    """
    scene = start or empty_scene(rng, shape)
    scene.grain = grain
    scene.style = style or Style()
    volume = np.prod(shape) * voxel_size**3 / FIELD
    limits = _limits(rng, occupied)
    for kind in _order(rng, cut_filaments, occupied < 1):
        room = int(limits.get(kind, 1.0) * scene.labels.size)
        radii, count = KINDS[kind]
        expected = count * volume * (abundance or {}).get(kind, 1.0)
        number = int(expected) + (rng.random() < expected % 1)
        if kind in ONCE:
            number = int(rng.random() < min(expected, 0.35))
        for _ in range(number):
            # Small ones are common.
            radius = radii[0] * (radii[1] / radii[0]) ** rng.random()
            radius *= scene.style.scale.get(kind, 1.0)
            for _ in range(attempts):
                most = min(room - scene.filled, int(largest * scene.labels.size))
                if most < SMALLEST:
                    break
                if _place(rng, scene, kind, radius, voxel_size, touching, most, cut_filaments):
                    break
    if grain:
        _crowd(rng, scene, voxel_size)
    return scene


def _limits(rng, occupied) -> dict[str, float]:
    """Return the share of the volume up to which objects of a kind may fill it."""
    if occupied >= 1:
        return {}
    limits = {kind: occupied for kind in KINDS if kind not in SMALL}
    return {
        **limits,
        **{kind: occupied * FOR_LARGE * float(rng.uniform(0.3, 1)) for kind in LARGE},
    }


def _order(rng, cut_filaments, shuffled=False) -> list[str]:
    """Return the kinds in the order of placing; microtubules come early in every second scene.

    Those that come late only find room in gaps.
    """
    kinds = list(KINDS)
    if shuffled:
        first = kinds.index(LARGE[0])
        kinds = [kind for kind in kinds if kind not in LARGE]
        kinds[first:first] = [str(kind) for kind in rng.permutation(LARGE)]
    if cut_filaments and rng.random() < 0.5:
        kinds.remove("microtubule")
        kinds.insert(len(ONCE), "microtubule")
    return kinds


def empty_scene(rng: np.random.Generator, shape: tuple[int, int, int]) -> Scene:
    """Return a scene that holds nothing but a texture for what will be in it."""
    scene = Scene(np.zeros(shape, np.float32), np.zeros(shape, np.int32), np.zeros(shape, bool))
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), 1, truncate=2.5)
    scene.texture = noise / noise.std()
    return scene


def _place(rng, scene, kind, radius, voxel_size, touching, most, cut_filaments) -> bool:
    """Try to place one object of at most so many voxels; False where there is no room."""
    shape = np.array(scene.labels.shape)
    r = radius / voxel_size
    centre, host = _choose_centre(rng, scene, kind, r, voxel_size, touching)
    body, levels = _body(rng, kind, centre, r, voxel_size, shape)
    body.waviness *= scene.style.waviness
    cut = cut_filaments and kind in FILAMENTS
    if cut:
        body = _free_stretch(body, scene.labels, 130 / voxel_size + 2)
        if body is None:
            return False
    if host is None and _meets(body, 0.6 * r, scene.labels):
        return False
    sampled = shapes.sample(body, shape, rng, 130 / voxel_size + 2)
    if sampled is None:
        return False
    box, step, coarse = sampled
    labels = scene.labels[box]
    if host is None and step > 1:
        hits = _overlap(coarse <= 0, labels[::step, ::step, ::step])
        if hits > (0.2 if kind in SOFT else 0.02):
            return False
    distance = shapes.refine(coarse, step, labels.shape)
    inside = distance <= 0
    if not SMALLEST <= np.count_nonzero(inside) <= most:
        return False
    if host is not None:
        # The host's membrane must stay whole around it.
        room = (labels == host) & ~scene.membrane[box]
        if not room[distance <= 1.5].all():
            return False
    elif (labels[inside] > 0).any():
        distance = _give_way(distance, labels, cut) if cut or kind in SOFT else None
        if distance is None:
            return False
    _write(rng, scene, kind, box, distance, body, levels, voxel_size, radius)
    return True


def _overlap(inside, labels) -> float:
    """Return the share of a coarsely sampled object that is taken."""
    part = tuple(slice(0, size) for size in labels.shape)
    inside = inside[part]
    return np.count_nonzero(labels[inside]) / max(np.count_nonzero(inside), 1)


def _free_stretch(body, labels, reach):
    """Return the longest stretch of a filament beside objects; None where all are short."""
    around = np.vstack([np.zeros((1, 3)), np.eye(3), -np.eye(3)]) * (body.radius + 0.5)
    at = np.rint(body.axis[:, np.newaxis] + around).astype(int)
    seen = ((at >= 0) & (at < labels.shape)).all(axis=2)
    at = np.clip(at, 0, np.array(labels.shape) - 1)
    free = ~((labels[tuple(np.moveaxis(at, 2, 0))] > 0) & seen).any(axis=1)
    # Runs of free points, as pairs of first and one past the last.
    steps = np.flatnonzero(np.diff(np.r_[0, free.astype(np.int8), 0]))
    runs = steps.reshape(-1, 2)
    if not len(runs):
        return None
    first, stop = runs[(runs[:, 1] - runs[:, 0]).argmax()]
    points = body.axis[first:stop]
    if np.linalg.norm(points[-1] - points[0]) < 5 * body.radius:
        return None
    return shapes.balls(points, body.radius, reach)


def _give_way(distance, labels, thin):
    """Flatten an object against those it overlaps a little; None where that is no small change."""
    taken = labels > 0
    inside = distance <= 0
    share = np.count_nonzero(taken & inside) / np.count_nonzero(inside)
    if share > 0.2 or distance.size > 3e6:
        return None
    if thin:
        # A filament is only dented; the distance to all else in its long box costs seconds.
        distance = np.where(taken, np.maximum(distance, 0.6), distance)
    else:
        distance = np.maximum(distance, 0.6 - edt.edt(~taken))
    parts, count = ndimage.label(distance <= 0)
    if count > 1:
        sizes = np.bincount(parts.ravel())[1:]
        if sizes.max() < 0.9 * sizes.sum():
            return None
        distance[(parts > 0) & (parts != sizes.argmax() + 1)] = 0.6
    return distance if (distance <= 0).sum() >= SMALLEST else None


def _meets(body, reach, labels) -> bool:
    """Tell whether the axis of a body, or points beside it, lie in an object."""
    away = reach * np.array([(0, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)])
    if body.frame is not None:
        away = away[:1]
    points = np.rint(body.axis[:, np.newaxis] + away).reshape(-1, 3).astype(int)
    points = points[((points >= 0) & (points < labels.shape)).all(axis=1)]
    # A tube in a crowd almost always meets something somewhere: what is soft gives way.
    return bool(len(points)) and np.count_nonzero(labels[tuple(points.T)]) > 0.15 * len(points)


def _choose_centre(rng, scene, kind, r, voxel_size, touching):
    """Return a centre and the number of the object that it is to lie in, or None."""
    shape = np.array(scene.labels.shape)
    if kind in ("vesicle", "particle", "ribosome") and scene.hosts and rng.random() < 0.12:
        number, middle, room = scene.hosts[rng.integers(len(scene.hosts))]
        way = rng.normal(size=3)
        free = room - r - 110 / voxel_size
        if free > 0:
            return middle + way / np.linalg.norm(way) * free * rng.random() ** 0.4, number
    kinds = None
    if kind in COMPACT and rng.random() < touching:
        kinds, gap = (*COMPACT, "mitochondrion", "er", "golgi"), r + rng.uniform(-0.05, 0.03) * r
    elif kind == "ribosome" and rng.random() < 0.5:
        kinds, gap = ("er", "nuclear_envelope"), r + 1.0
    if kinds:
        known = [n for n in scene.surfaces if scene.classes[n] in kinds]
        if known:
            points, normals = scene.surfaces[known[rng.integers(len(known))]]
            chosen = rng.integers(len(points))
            return points[chosen] + normals[chosen] * gap, None
    centre = rng.uniform(-0.02, 1.02, 3) * shape
    if kind == "gold" and rng.random() < 0.7:
        centre[0] = rng.choice([rng.uniform(0, 0.15), rng.uniform(0.85, 1)]) * shape[0]
    return centre, None


def _body(rng, kind, centre, r, voxel_size, shape):
    """Return the body of an object, and the cisternae where it is a stack of them."""
    reach = 130 / voxel_size + 2
    wavy = WAVINESS.get(kind, 0.0) * rng.uniform(0.3, 1.6)
    if kind == "mitochondrion":
        return _mitochondrion(rng, centre, r, reach, wavy), None
    if kind == "vesicle":
        return _vesicle(rng, centre, r, reach, wavy), None
    if kind == "er" and rng.random() < 0.6:
        points = shapes.branched(
            rng, centre, rng.uniform(6, 20) * r, 0.5 * r, rng.uniform(0.3, 2.0), rng.integers(4)
        )
        thick = r * (1 + 0.12 * np.cumsum(rng.normal(size=len(points))) / np.sqrt(len(points)))
        return shapes.balls(points, np.maximum(thick, 0.6 * r), reach, waviness=wavy), None
    if kind == "er":
        extent = rng.uniform(4, 12) * r
        surface = shapes.sheet(rng, centre, extent, rng.uniform(0.05, 0.5), 0.6)
        return shapes.slab(surface, 0.8 * r, extent, shape, (), wavy), None
    if kind == "golgi":
        return _golgi(rng, centre, r, voxel_size, shape)
    if kind in ONCE:
        surface = shapes.sheet(rng, centre, 1.5 * shape.max(), rng.uniform(0.02, 0.25), 0.25)
        holes = ()
        if kind == "nuclear_envelope":
            places = rng.uniform(-1, 1, (rng.integers(6), 2)) * shape.max() / 2
            holes = [(u, v, rng.uniform(380, 480) / voxel_size) for u, v in places]
        half = max(r, 1.0)
        return shapes.slab(surface, half, np.inf, shape, holes, wavy), None
    if kind in ("microtubule", "actin"):
        bend = rng.uniform(0, 0.3) if kind == "microtubule" else rng.uniform(0, 1.2)
        length = (2.0 if kind == "microtubule" else rng.uniform(0.2, 1.2)) * shape.max()
        # Thin ones must not fall between voxels.
        radius = max(r, 1.1)
        points = shapes.path(rng, centre, length, max(0.3 * radius, 0.5), bend)
        near = ((points > -2 * radius) & (points < shape + 2 * radius)).all(axis=1)
        points = points[near] if near.any() else centre[np.newaxis]
        return shapes.balls(points, radius, reach), None
    if kind == "ribosome":
        way = rng.normal(size=3)
        way /= np.linalg.norm(way)
        halves = np.array([centre - 0.18 * r * way, centre + 0.5 * r * way])
        return shapes.balls(halves, np.array([0.85, 0.62]) * r, reach), None
    if kind == "particle":
        return _particle(rng, centre, r, reach), None
    strength = {"dense_body": 0.35, "autophagosome": 0.2}.get(kind, 0.05)
    squash = 1 + rng.uniform(-strength, strength, 3)
    return shapes.balls(centre, r, reach, squash, wavy), None


def _mitochondrion(rng, centre, r, reach, wavy):
    """Return a rod: straight or bent, even, swollen or constricted."""
    points = shapes.path(
        rng, centre, r * rng.uniform(0.2, 4.5), 0.35 * r, rng.uniform(0, 2.2) * rng.random()
    )
    along = np.linspace(0, 1, len(points))
    thick = 1 + rng.uniform(0, 0.2) * np.sin(
        2 * np.pi * (rng.uniform(0.5, 2) * along + rng.random())
    )
    if rng.random() < 0.3:
        dip = np.exp(-(((along - rng.uniform(0.3, 0.7)) * len(points) * 0.35) ** 2))
        thick *= 1 - rng.uniform(0.25, 0.6) * dip
    return shapes.balls(points, thick * r, reach, 1 + rng.uniform(-0.12, 0.12, 3), wavy)


def _vesicle(rng, centre, r, reach, wavy):
    """Return a vesicle: round, long, squashed, or with a bud on a neck."""
    squash = 1 + rng.uniform(-0.15, 0.15, 3)
    form = rng.random()
    if form < 0.15:
        points = shapes.path(rng, centre, r * rng.uniform(0.8, 4), 0.3 * r, rng.uniform(0, 1.5))
        return shapes.balls(points, 0.75 * r, reach, squash, wavy)
    if form < 0.27:
        way = rng.normal(size=3) * (0.5, 1, 1)
        way /= np.linalg.norm(way)
        bud, neck = r * rng.uniform(0.35, 0.8), r * rng.uniform(0.2, 0.35)
        reach_out = r + bud + rng.uniform(-0.1, 0.4) * r
        stalk = np.linspace(0.6 * r, reach_out - 0.5 * bud, 6)
        points = np.vstack([centre, centre + way * reach_out, centre + stalk[:, None] * way])
        return shapes.balls(points, np.r_[r, bud, np.full(6, neck)], reach, squash, wavy)
    if form < 0.35:
        squash = 1 + rng.uniform(-0.4, 0.6, 3)
    return shapes.balls(centre, r, reach, squash, wavy)


def _golgi(rng, centre, r, voxel_size, shape):
    """Return the hull of a stack, and its cisternae as (w, half thickness, radius) in Å."""
    count = rng.integers(3, 7)
    half = rng.uniform(75, 120, count)
    gap = rng.uniform(70, 160)
    at = np.concatenate([[0], np.cumsum(half[:-1] + half[1:] + gap)])
    at -= (at[0] - half[0] + at[-1] + half[-1]) / 2
    extent = r * voxel_size * (0.8 + 0.4 * rng.random(count)) / 1.2
    hull = (np.abs(at) + half).max() / voxel_size
    surface = shapes.sheet(rng, centre, r, rng.uniform(0.05, 0.5), 0.4)
    body = shapes.slab(surface, hull, r + hull, shape)
    body.radius = float(half.min() / voxel_size * 3)
    return body, list(zip(at, half, extent, strict=True))


def _particle(rng, centre, r, reach):
    """Return a macromolecule: blob, rod, ring, or a cluster of domains."""
    form = rng.integers(4)
    way, side = rng.normal(size=(2, 3))
    way /= np.linalg.norm(way)
    side = np.cross(way, side)
    side /= np.linalg.norm(side)
    if form == 0:
        return shapes.balls(centre, 0.8 * r, reach, 1 + rng.uniform(-0.4, 0.4, 3))
    if form == 1:
        along = np.linspace(-1, 1, 7)[:, np.newaxis] * 1.3 * r
        return shapes.balls(centre + along * way, 0.5 * r, reach)
    if form == 2:
        turn = np.linspace(0, 2 * np.pi, 10)[:, np.newaxis]
        ring = 0.65 * r * (np.cos(turn) * side + np.sin(turn) * np.cross(way, side))
        return shapes.balls(centre + ring, 0.4 * r, reach)
    domains = rng.normal(size=(rng.integers(2, 6), 3)).cumsum(axis=0)
    domains -= domains.mean(axis=0)
    domains *= 0.6 * r / (np.linalg.norm(domains, axis=1).max() + 1e-9)
    return shapes.balls(centre + domains, rng.uniform(0.4, 0.6, len(domains)) * r, reach)


def _write(rng, scene, kind, box, distance, body, levels, voxel_size, radius):
    """Write labels, density and membrane of one object."""
    number = len(scene.classes) + 1
    scene.classes[number] = kind
    where = np.flatnonzero(distance < 130 / voxel_size)
    depth = distance.ravel()[where]
    at = np.unravel_index(where, distance.shape)
    spots = tuple(axis + side.start for axis, side in zip(at, box, strict=True))
    points = np.stack(spots).astype(np.float32) * np.float32(voxel_size)
    arguments = (rng, depth * voxel_size, scene.grain * scene.texture[spots])
    if kind == "golgi":
        u, v, w = (axis * voxel_size for axis in body.frame([part for part in np.stack(spots)]))
        density, membrane = matter.golgi(*arguments, u, v, w, levels, voxel_size)
    else:
        density, membrane = scene.style.fills[kind](*arguments, points, voxel_size)
    inside = depth <= 0
    free = scene.labels[spots] == 0
    old = scene.density[spots]
    # Inside it is this object's matter; spikes and soft edges only add to the solvent around.
    scene.density[spots] = np.where(
        inside, density, np.where(free & (depth < 130), np.maximum(old, density), old)
    )
    scene.labels[tuple(axis[inside] for axis in spots)] = number
    scene.filled += int(np.count_nonzero(inside & free))
    if membrane is not None:
        scene.membrane[tuple(axis[membrane & inside] for axis in spots)] = True
    _remember(rng, scene, kind, number, box, distance, body, radius / voxel_size)


def _remember(rng, scene, kind, number, box, distance, body, r):
    """Keep points of the surface, where others can be attached, and room within."""
    if kind in ("vesicle", "autophagosome") and len(body.axis) == 1:
        middle = body.axis[0]
        if r > 12 and ((middle > 0) & (middle < scene.labels.shape)).all():
            scene.hosts.append((number, middle, r))
    if kind not in (*SOFT, "nuclear_envelope"):
        return
    near = np.flatnonzero(np.abs(distance) < 0.6)
    if not len(near):
        return
    at = np.stack(np.unravel_index(rng.choice(near, 40), distance.shape), axis=1)
    at = at[((at > 0) & (at < np.array(distance.shape) - 1)).all(axis=1)]
    if not len(at):
        return
    slope = [
        distance[tuple((at + step).T)] - distance[tuple((at - step).T)]
        for step in np.eye(3, dtype=int)
    ]
    normals = np.stack(slope, axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-6
    scene.surfaces[number] = (at + [side.start for side in box], normals)


def _crowd(rng, scene, voxel_size):
    """Add small proteins in the cytosol as unlabelled density."""
    share = min(rng.uniform(0.002, 0.02) * (voxel_size / 15) ** 3, 0.2)
    specks = (rng.random(scene.density.shape, np.float32) < share).astype(np.float32)
    small = ndimage.gaussian_filter(specks, rng.uniform(20, 45) / voxel_size, truncate=3)
    small *= rng.uniform(0.2, 0.7) / (np.percentile(small, 99.9) + 1e-9)
    scene.density += np.where(scene.labels > 0, 0, small)
