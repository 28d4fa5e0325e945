"""What objects are made of: density and membrane as a function of the depth below the surface.

All depths are in Å and negative inside; densities are about 1 for protein, 0 for the solvent.
"""

from __future__ import annotations

import numpy as np

BILAYER = 45.0  # Å, thickness
GAP = 180.0  # Å between the middles of the two membranes of a mitochondrion


def layer(depth, at, width):
    """Return a soft layer of a half-width around a depth."""
    return np.exp(-(((depth - at) / width) ** 2))


def bilayer(depth, at, voxel_size):
    """Return two dense leaflets around a depth."""
    width = max(12.0, 0.5 * voxel_size)
    return 0.9 * (layer(depth, at - 20, width) + layer(depth, at + 20, width))


def in_bilayer(depth, at, voxel_size):
    """Tell what belongs to a bilayer around a depth, at least two voxels."""
    return np.abs(depth - at) <= max(BILAYER / 2 + voxel_size / 2, voxel_size)


def _outer(depth, voxel_size):
    """Return density and membrane of the bilayer below the surface."""
    membrane = (depth <= 0) & (depth > -BILAYER - voxel_size / 2)
    return bilayer(depth, -BILAYER / 2, voxel_size), membrane


def plane_wave(rng, points, period):
    """Return a phase that advances by a turn per period (Å) across bent planes."""
    way = rng.normal(size=3) * (0.4, 1, 1)
    way /= np.linalg.norm(way)
    phase = 2 * np.pi / period * (way @ points)
    for _ in range(3):
        side = rng.normal(size=3)
        side /= np.linalg.norm(side) * period * rng.uniform(2, 5)
        phase += rng.uniform(0.3, 1.2) * np.sin(2 * np.pi * (side @ points) + rng.uniform(0, 6))
    return phase


def patches(rng, points, period):
    """Return a smooth field of about -1..1 that changes over a period (Å)."""
    field = 0
    for _ in range(4):
        side = rng.normal(size=3)
        side /= np.linalg.norm(side) * period
        field = field + 0.5 * np.sin(2 * np.pi * (side @ points) + rng.uniform(0, 6))
    return field


def _vesicle(rng, depth, texture, points, size):
    density, membrane = _outer(depth, size)
    what = rng.choice(["empty", "filled", "core", "coated"], p=[0.4, 0.35, 0.1, 0.15])
    if what == "filled":
        inside = rng.uniform(0.1, 0.6) + rng.uniform(0.1, 0.4) * texture
        density += np.where(depth < -60, inside, 0)
    elif what == "core":
        # Secretory granules: a dense ball with a narrow clear rim.
        rim = rng.uniform(70, max(0.35 * -depth.min(), 90))
        density += np.where(depth < -rim, rng.uniform(0.6, 1.1) + 0.15 * texture, 0)
    elif what == "coated":
        period = rng.uniform(120, 300)
        spikes = patches(rng, points, period) + 0.4 > 0
        at = rng.uniform(50, 110)
        density += np.where(spikes, rng.uniform(0.4, 1.0) * layer(depth, at, 35), 0)
    return density, membrane


def _mitochondrion(rng, depth, texture, points, size):
    density, membrane = _outer(depth, size)
    inner = -BILAYER / 2 - rng.uniform(0.8, 1.2) * GAP
    density += bilayer(depth, inner, size)
    membrane |= in_bilayer(depth, inner, size) & (depth <= 0)
    matrix = rng.uniform(0.15, 0.6) + rng.uniform(0.05, 0.25) * texture
    period = rng.uniform(350, 1100)
    phase = plane_wave(rng, points, period)
    # Distance to the middle of the nearest crista; each is a fold, hence two membranes.
    away = np.abs((phase / (2 * np.pi) + 0.5) % 1 - 0.5) * period
    half = rng.uniform(0.06, 0.14) * period
    present = (patches(rng, points, rng.uniform(900, 2500)) > rng.uniform(-1, 0.4)) & (
        depth < inner
    )
    lumen = present & (away < half)
    density += np.where(depth < inner - 30, np.where(lumen, 0.05, matrix), 0)
    density += np.where(present, bilayer(away, half, size), 0)
    return density, membrane


def _autophagosome(rng, depth, texture, points, size):
    density, membrane = _outer(depth, size)
    inner = -BILAYER - rng.uniform(70, 250)
    density += bilayer(depth, inner, size)
    membrane |= in_bilayer(depth, inner, size) & (depth <= 0)
    cargo = rng.uniform(0.1, 0.5) + rng.uniform(0.1, 0.4) * texture
    density += np.where(depth < inner - 30, cargo, 0)
    return density, membrane


def _er(rng, depth, texture, points, size):
    density, membrane = _outer(depth, size)
    density += np.where(depth < -60, rng.uniform(0, 0.3) + 0.1 * texture, 0)
    return density, membrane


def _plasma_membrane(rng, depth, texture, points, size):
    # The label is the bilayer itself, with its surface half a voxel outside.
    middle = depth.min()
    density = bilayer(depth, middle, size)
    proteins = patches(rng, points, rng.uniform(100, 400)) > 0.3
    density += np.where(proteins, rng.uniform(0, 0.5) * layer(depth, middle + 70, 40), 0)
    return density, depth <= 0


def _lipid_droplet(rng, depth, texture, points, size):
    # Lipid looks even, and denser than the cytosol; hardly ever as clear as a vesicle.
    inside = rng.uniform(0.15, 0.9) + rng.uniform(0, 0.1) * texture
    return np.where(depth < 0, inside, 0) + rng.uniform(0.3, 0.9) * layer(depth, -15, 20), None


def _dense_body(rng, depth, texture, points, size):
    return np.where(depth < 0, rng.uniform(0.45, 1.1) + rng.uniform(0.05, 0.3) * texture, 0), None


def _virus_like_particle(rng, depth, texture, points, size):
    density, membrane = _outer(depth, size)
    form = rng.random()
    if form < 0.65:
        # Immature: a lattice below the membrane, around something or nothing.
        density += rng.uniform(0.4, 1.0) * layer(depth, -rng.uniform(110, 160), 40)
        if form < 0.25:
            core = rng.uniform(0.2, 0.8) + 0.2 * texture
            density += np.where(depth < -rng.uniform(200, 300), core, 0)
    else:
        density += np.where(depth < -60, _capsid(rng, depth, texture, points), 0)
    if rng.random() < 0.5:
        spikes = patches(rng, points, rng.uniform(100, 200)) > 0.5
        density += np.where(spikes, 0.6 * layer(depth, 60, 50), 0)
    return density, membrane


def _capsid(rng, depth, texture, points):
    """Return the density of a mature particle: a core, round or a cone, in a clear lumen."""
    radius = max(-float(depth.min()), 1.0)
    core = depth + rng.uniform(0.35, 0.65) * radius
    way = rng.normal(size=3)
    way /= np.linalg.norm(way)
    along = way @ (points - points[:, [int(depth.argmin())]])
    core = core + rng.uniform(0, 0.5) * along
    full = rng.uniform(0.5, 1.3) + rng.uniform(0, 0.25) * texture
    if rng.random() < 0.4:
        # A shell with little in it.
        full = full * np.where(core > -rng.uniform(50, 90), 1.0, rng.uniform(0.2, 1.0))
    return np.where(core < 0, full, rng.uniform(0, 0.25))


def _microtubule(rng, depth, texture, points, size):
    return rng.uniform(0.7, 1.1) * layer(depth, -25, 25), None


def _compact(low, high, grain):
    """Return the matter of something small and full."""

    def fill(rng, depth, texture, points, size):
        soft = np.clip(0.5 - depth / max(20.0, size), 0, 1)
        return soft * (rng.uniform(low, high) + grain * texture), None

    return fill


def golgi(rng, depth, texture, u, v, w, levels, size):
    """Return density and membrane of a stack of cisternae.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the contents.
    depth, texture : numpy.ndarray
        Depth below the stack's hull, and noise.
    u, v, w : numpy.ndarray
        Å along and across the stack.
    levels : list
        ``(w, half thickness, radius)`` of each cisterna, Å.
    size : float
        Voxel size.
    """
    density = np.zeros(len(depth), np.float32)
    membrane = np.zeros(len(depth), bool)
    for at, half, radius in levels:
        # Rims swell: cisternae are flat in the middle and round at the edge.
        rho = np.hypot(u, v)
        thick = half * (1 + 0.6 * np.clip(rho / radius, 0, 1) ** 6)
        below = np.hypot(np.maximum(rho - (radius - half), 0), w - at) - thick
        below = np.maximum(below, depth)
        wall, covered = _outer(below, size)
        density = np.maximum(density, wall)
        density += np.where(below < -60, rng.uniform(0.05, 0.4) + 0.1 * texture, 0)
        membrane |= covered
    return density, membrane


FILLS = {
    "mitochondrion": _mitochondrion,
    "vesicle": _vesicle,
    "virus_like_particle": _virus_like_particle,
    "dense_body": _dense_body,
    "lipid_droplet": _lipid_droplet,
    "er": _er,
    "nuclear_envelope": _er,
    "plasma_membrane": _plasma_membrane,
    "autophagosome": _autophagosome,
    "microtubule": _microtubule,
    "actin": _compact(0.6, 1.1, 0.1),
    "ribosome": _compact(1.1, 1.6, 0.3),
    "particle": _compact(0.6, 1.4, 0.2),
    "gold": _compact(8, 14, 0.0),
}
