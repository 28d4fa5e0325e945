"""Matter as plain simulators draw it: even walls, lumens and cores with sharp edges.

Membranes are slabs instead of two leaflets, and what fills an object is even. How thick, how dense
and how large each kind is differs from tomogram to tomogram: a model that has seen a few of them
knows what such objects have in common.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tomocensus.simulate import matter

# Kinds whose wall is a membrane, and how likely something dense lies within.
WALLED = {
    "vesicle": 0.2,
    "virus_like_particle": 0.85,
    "er": 0.0,
    "nuclear_envelope": 0.0,
    "autophagosome": 0.0,
    "mitochondrion": 0.0,
}
DOUBLE = ("autophagosome", "mitochondrion")
FULL = {
    "dense_body": (0.4, 1.3),
    "lipid_droplet": (0.3, 1.1),
    "ribosome": (0.8, 1.8),
    "particle": (0.5, 1.4),
    "actin": (0.5, 1.2),
}
# How often a simulation has no membranes at all: its objects are full.
BARE = 0.12


@dataclass(frozen=True)
class Style:
    """How the objects of a scene are made; the defaults are those of cells.

    Attributes
    ----------
    fills : dict
        For each kind, a function of generator, depth (Å, negative inside), texture, points (Å) and
        voxel size (Å) that returns density and membrane.
    scale : dict
        Factor on the radii of each kind.
    waviness : float
        Factor on the waviness of surfaces.
    """

    fills: dict[str, Callable] = field(default_factory=lambda: matter.FILLS)
    scale: dict[str, float] = field(default_factory=dict)
    waviness: float = 1.0


def plain_style(rng: np.random.Generator) -> Style:
    """Draw how one tomogram of a plain simulation makes its objects."""
    thick, dense = rng.uniform(30, 75), rng.uniform(0.6, 1.3)
    fills = dict(matter.FILLS)
    bare = rng.random() < BARE
    for kind, often in WALLED.items():
        # Most simulators have one membrane for all; some have one for each kind.
        wall = thick * (rng.uniform(0.8, 1.3) if rng.random() < 0.3 else 1.0)
        core = _core(rng) if rng.random() < often else None
        lumen = rng.uniform(0, 0.5) * rng.uniform(0.3, 1)
        inner = _inside(rng, kind) if kind in DOUBLE else None
        own = dense * rng.uniform(0.85, 1.15)
        fills[kind] = _even(own, 0.1) if bare else _walled(wall, own, lumen, core, inner)
    fills["plasma_membrane"] = _slab(dense)
    fills["microtubule"] = _tube(rng.uniform(30, 70), rng.uniform(0.7, 1.4), rng.uniform(0, 0.3))
    for kind, (low, high) in FULL.items():
        fills[kind] = _even(low + (high - low) * rng.random(), 0.15 * rng.random())
    scale = {
        kind: float(np.exp(np.clip(rng.normal(0, 0.2), -0.4, 0.4)))
        for kind in (*WALLED, *FULL)
        if kind != "actin"
    }
    return Style(fills, scale, float(rng.choice([0.0, 0.5, 1.0])))


def _core(rng):
    """Draw what lies within: a ball, or a shell below the wall; share of the radius and density."""
    if rng.random() < 0.6:
        return "ball", rng.uniform(0.3, 0.75), rng.uniform(0.5, 1.5)
    return "shell", rng.uniform(60, 160), rng.uniform(0.5, 1.3)


def _inside(rng, kind):
    """Draw an inner membrane: its distance below the wall, what it holds, how common plates are."""
    plates = rng.uniform(0.2, 1.0) if kind == "mitochondrion" and rng.random() < 0.75 else 0.0
    return rng.uniform(60, 220), rng.uniform(0.0, 1.0), plates


def _walled(thick, dense, lumen, core, inner):
    """Return a fill with a membrane at the surface."""

    def fill(rng, depth, texture, points, size):
        wall = max(thick, size)
        inside = depth <= 0
        membrane = inside & (depth > -wall)
        varied = lumen * rng.uniform(0.5, 1.5)
        density = np.where(inside, varied + 0.1 * texture, 0)
        if core is not None:
            form, place, full = core
            radius = -float(depth.min())
            here = depth < (place - 1) * radius if form == "ball" else inside
            if form == "shell":
                here &= (depth < -place) & (depth > -place - wall)
            density = np.where(here, full + 0.1 * texture, density)
        if inner is not None:
            density, more = _second(rng, depth, texture, points, density, wall, dense, inner)
            membrane |= more
        return np.where(membrane, dense, density), membrane

    return fill


def _second(rng, depth, texture, points, density, wall, dense, inner):
    """Return the density with what an inner membrane holds, and that membrane with its plates."""
    gap, matrix, plates = inner
    at = -wall - gap
    second = (depth <= at) & (depth > at - wall)
    within = depth <= at - wall
    density = np.where(within, matrix + 0.1 * texture, density)
    if plates:
        period = rng.uniform(350, 1000)
        phase = matter.plane_wave(rng, points, period)
        away = np.abs((phase / (2 * np.pi) + 0.5) % 1 - 0.5) * period
        present = matter.patches(rng, points, rng.uniform(900, 2500)) < 3 * plates - 1.5
        second |= within & present & (away < wall / 2 * rng.uniform(1, 2))
    return density, second


def _slab(dense):
    def fill(rng, depth, texture, points, size):
        inside = depth <= 0
        return np.where(inside, dense, 0), inside

    return fill


def _tube(wall, dense, lumen):
    def fill(rng, depth, texture, points, size):
        return np.where(depth <= 0, np.where(depth > -max(wall, size), dense, lumen), 0), None

    return fill


def _even(dense, grain):
    def fill(rng, depth, texture, points, size):
        return np.where(depth <= 0, dense * rng.uniform(0.9, 1.1) + grain * texture, 0), None

    return fill
