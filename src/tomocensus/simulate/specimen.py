"""What a drawn scene becomes before it is imaged: uneven matter, lamella, ice, carbon.

Only densities change; labels change where a lamella cuts objects off. All draws come from a
generator of their own, so that a scene's truth does not depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tomocensus.simulate.scenes import SMALLEST

GOLD = 2.0  # density; what is above belongs to metal


@dataclass(frozen=True)
class Specimen:
    """What the matter and its surroundings are like; the defaults change nothing.

    Attributes
    ----------
    cytosol, grain, complexes : float
        Density of the cytosol, of its fine texture, and of complexes that are not labelled.
    lumen : float
        Standard deviation of what is added to the inside of each object.
    membrane : float
        Standard deviation of the logarithm of each object's membrane density.
    gaps : float
        0-1, how much weaker membranes are in patches.
    proteins : float
        Density of proteins in membranes.
    lamella : float
        Thickness of the slab as a share of the field's depth; 1 for none.
    rise : float
        Largest slope of the slab, voxels per voxel.
    curtains : float
        Depth of milling stripes as a share of the slab's thickness.
    ice : int
        Contaminations on the surface.
    carbon : bool
        A film with the edge of a hole.
    """

    cytosol: float = 0.0
    grain: float = 0.0
    complexes: float = 0.0
    lumen: float = 0.0
    membrane: float = 0.0
    gaps: float = 0.0
    proteins: float = 0.0
    lamella: float = 1.0
    rise: float = 0.0
    curtains: float = 0.0
    ice: int = 0
    carbon: bool = False


def prepare(scene, specimen: Specimen, voxel_size: float, rng: np.random.Generator) -> None:
    """Change a scene in place.

    Parameters
    ----------
    scene : Scene
        As drawn.
    specimen : Specimen
        What is to change.
    voxel_size : float
        Å.
    rng : numpy.random.Generator
        Source of the details.
    """
    _vary_matter(scene, specimen, rng)
    if specimen.lamella < 1:
        _cut_slab(scene, specimen, rng)
    if specimen.carbon:
        _add_carbon(scene, voxel_size, rng)
    for _ in range(specimen.ice):
        _add_ice(scene, voxel_size, rng)


def split_gold(density: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the density without gold, and the gold (None where there is none)."""
    if density.max() <= 1.5 * GOLD:
        return density, None
    return np.minimum(density, GOLD), np.maximum(density - GOLD, 0)


def _waves(shape, rng, period):
    """Return a smooth field, deviation about 1, as the product of waves along the axes."""
    field = np.zeros(shape, np.float32)
    for _ in range(3):
        parts = []
        for size in shape:
            k = rng.normal() * 2 * np.pi / period
            parts.append(np.sin(k * np.arange(size) + rng.uniform(0, 6)).astype(np.float32))
        field += parts[0][:, None, None] * parts[1][:, None] * parts[2]
    return field / (field.std() + 1e-6)


def _vary_matter(scene, specimen, rng):
    """Make cytosol, lumens and membranes differ from tomogram to tomogram and object to object."""
    count = len(scene.classes) + 1
    kinds = np.array(["", *scene.classes.values()])
    texture = scene.texture
    if specimen.lumen:
        hollow = np.isin(
            kinds,
            ("mitochondrion", "vesicle", "er", "nuclear_envelope", "golgi", "autophagosome"),
        )
        # Some lumens are as full as the cytosol, some clear.
        full = specimen.cytosol * rng.uniform(0, 1.3, count) * (rng.random(count) < 0.7)
        added = rng.normal(full, specimen.lumen)
        # A microtubule is open at its ends.
        tubes = kinds == "microtubule"
        hollow |= tubes
        added[tubes] = specimen.cytosol * rng.uniform(0.6, 1.1)
        added = np.where(hollow, added, 0).astype(np.float32)
        scene.density += np.where(scene.membrane, 0, added[scene.labels])
    where = np.nonzero(scene.membrane)
    if len(where[0]):
        factor = np.exp(rng.normal(0, specimen.membrane, count)).astype(np.float32)
        factor = factor[scene.labels[where]]
        if specimen.gaps:
            weak = _waves(scene.density.shape, rng, 40)[where] > 0.6
            factor = factor * np.where(weak, 1 - specimen.gaps, 1)
        scene.density[where] *= factor
        if specimen.proteins:
            scene.density[where] += specimen.proteins * np.maximum(texture[where] - 0.5, 0)
    free = scene.labels == 0
    if specimen.cytosol or specimen.grain or specimen.complexes:
        matter = specimen.cytosol + specimen.grain * texture
        if specimen.complexes:
            matter = matter + specimen.complexes * np.clip(texture - 1.2, 0, 1.5)
        scene.density += np.where(free, np.maximum(matter, 0), 0)


def _cut_slab(scene, specimen, rng):
    """Cut the scene to a tilted slab with milling stripes: nothing is outside."""
    depth, height, width = scene.labels.shape
    y = np.arange(height)[:, np.newaxis] - height / 2
    x = np.arange(width) - width / 2
    slope = rng.uniform(-1, 1, 2) * specimen.rise
    bump = ndimage.gaussian_filter(rng.normal(size=(2, height, width)), (0, 8, 8)) * 12
    half = specimen.lamella * depth / 2
    # Stripes run along the way of the ion beam, across or along the tilt axis.
    angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.2)
    across = (y * np.sin(angle) + x * np.cos(angle)).astype(int)
    stripes = ndimage.gaussian_filter1d(rng.normal(size=2 * (height + width)), rng.uniform(2, 8))
    stripes *= specimen.curtains * half / (stripes.std() + 1e-9)
    stripe = np.maximum(stripes[across - across.min()], 0)
    middle = depth / 2 + slope[0] * y + slope[1] * x
    # The clip keeps something in view of a steep slab at the corners of the field.
    middle = np.clip(middle, 0.25 * depth, 0.75 * depth)
    top, bottom = middle - half + bump[0] + stripe, middle + half + bump[1]
    z = np.arange(depth)[:, np.newaxis, np.newaxis]
    within = np.clip(np.minimum(z - top, bottom - z) + 0.5, 0, 1).astype(np.float32)
    scene.density += 0.25
    scene.density *= within
    outside = within < 0.5
    scene.labels[outside] = 0
    scene.membrane[outside] = False
    sizes = np.bincount(scene.labels.ravel(), minlength=len(scene.classes) + 1)
    slivers = (sizes < SMALLEST)[scene.labels] & (scene.labels > 0)
    scene.membrane[slivers] = False
    scene.labels[slivers] = 0


def _add_ice(scene, voxel_size, rng):
    """Add a lump of ice at the top or bottom where no object is."""
    shape = np.array(scene.labels.shape)
    radius = rng.uniform(200, 1000) / voxel_size
    centre = rng.uniform(0, 1, 3) * shape
    centre[0] = rng.choice([-0.3 * radius, shape[0] + 0.3 * radius])
    low = np.maximum((centre - 1.3 * radius).astype(int), 0)
    high = np.minimum((centre + 1.3 * radius).astype(int) + 1, shape)
    if (high <= low).any():
        return
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    z, y, x = (np.arange(a, b) - at for a, b, at in zip(low, high, centre, strict=True))
    # Crystals have facets: a ball cut by a few planes.
    away = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
    for _ in range(5):
        way = rng.normal(size=3)
        way /= np.linalg.norm(way)
        plane = z[:, None, None] * way[0] + y[:, None] * way[1] + x * way[2]
        away = np.maximum(away, plane / rng.uniform(0.6, 1))
    lump = np.clip(radius - away, 0, 1).astype(np.float32) * rng.uniform(0.3, 1.2)
    scene.density[box] += np.where(scene.labels[box] == 0, lump, 0)


def _add_carbon(scene, voxel_size, rng):
    """Add a film at the top or bottom, beyond the edge of a hole, where no object is."""
    depth, height, width = scene.labels.shape
    thick = min(rng.uniform(100, 250) / voxel_size, 0.3 * depth)
    hole = rng.uniform(5000, 12000) / voxel_size
    turn = rng.uniform(0, 2 * np.pi)
    reach = hole + rng.uniform(-0.2, 0.45) * min(height, width)
    y = np.arange(height)[:, np.newaxis] - height / 2 - reach * np.sin(turn)
    x = np.arange(width) - width / 2 - reach * np.cos(turn)
    film = np.clip(np.hypot(y, x) - hole, 0, 1) < 0.5
    film = film if rng.random() < 0.5 else ~film
    layers = slice(0, max(int(thick), 1))
    if rng.random() < 0.5:
        layers = slice(depth - max(int(thick), 1), depth)
    matter = rng.uniform(0.4, 0.9) + 0.15 * scene.texture[layers]
    scene.density[layers] += np.where((scene.labels[layers] == 0) & film, matter, 0)
