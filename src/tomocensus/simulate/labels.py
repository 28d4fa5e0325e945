"""Label volumes of real membranes and organelles put through the imaging model."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from tomocensus.simulate import matter
from tomocensus.simulate.scenes import KINDS, draw_scene, empty_scene
from tomocensus.simulate.tomogram import SimulatedTomogram, choose, photograph
from tomocensus.volume import Volume

# Around real membranes: what fills a cell, but no large objects that they would cut through.
AROUND = {"ribosome": 1.0, "particle": 1.0, "vesicle": 0.5, "actin": 0.5}


def simulate_from_labels(
    labels: Volume,
    seed: int,
    instances: dict[int, int] | None = None,
    classes: dict[int, str] | None = None,
    solid: tuple[int, ...] = (),
    around: dict[str, float] | None = None,
    **overrides,
) -> SimulatedTomogram:
    """Image what a label volume shows, in a cytosol of simulated particles.

    A label is a membrane (a bilayer is painted along its middle, and so is its truth) or solid
    (filled with protein). Real shapes, hence known truth that no drawn scene has; the density in
    them is still painted. Memory: about 60 bytes a voxel; crop large volumes first.

    Parameters
    ----------
    labels : Volume
        Integers, 0 is cytosol.
    seed : int
        Seed of all choices.
    instances : dict, optional
        Number of the object that each label is part of, from 1 without gaps; labels that it lacks
        are ignored. Each label is an object of its own by default.
    classes : dict, optional
        Kind of each object; ``membrane`` by default.
    solid : tuple of int
        Labels that are no membranes.
    around : dict, optional
        Abundance of simulated kinds in the free space, `AROUND` by default.
    **overrides
        As in `simulate_tomogram`, but for shape, voxel size and what is drawn (abundance, occupied,
        matter).

    Returns
    -------
    SimulatedTomogram
        Simulated objects are numbered after those of the labels.

    Raises
    ------
    ValueError
        The labels are no 3D integers or all 0, the instances have gaps, or an override is
        unknown or not for labels.
    """
    for name in ("abundance", "occupied", "matter"):
        if name in overrides:
            raise ValueError(f"{name} is not for labels; what is drawn beside them says `around`")
    data = np.asarray(labels.data)
    if data.ndim != 3 or data.dtype.kind not in "iub" or not data.any():
        raise ValueError("labels must be a 3D volume of integers that are not all 0")
    data = data.astype(np.uint8) if data.dtype == bool else data
    chosen, rng, aside = choose(seed, data.shape, labels.voxel_size, "cell", overrides)
    chosen["abundance"] = {kind: (around or AROUND).get(kind, 0.0) for kind in KINDS}
    numbers = [int(number) for number in np.unique(data) if number]
    parts = instances or {number: new for new, number in enumerate(numbers, start=1)}
    if sorted(set(parts.values())) != list(range(1, max(parts.values()) + 1)):
        raise ValueError("instances must be numbered from 1 without gaps")
    scene = empty_scene(rng, data.shape)
    _paint(scene, data, labels.voxel_size, parts, solid, rng)
    last = int(scene.labels.max())
    scene.classes = {
        number: (classes or {}).get(number, "membrane") for number in range(1, last + 1)
    }
    draw_scene(
        rng, data.shape, labels.voxel_size, chosen["abundance"], start=scene, cut_filaments=True
    )
    return photograph(scene, seed, chosen, rng, aside)


def _paint(scene, data, voxel_size, parts, solid, rng):
    """Write density, membrane and instance numbers of the labels into an empty scene."""
    margin = int(np.ceil(2 * matter.BILAYER / voxel_size)) + 2
    for label, box in enumerate(ndimage.find_objects(data), start=1):
        if box is None or label not in parts:
            continue
        box = tuple(slice(max(part.start - margin, 0), part.stop + margin) for part in box)
        near = data[box] == label
        if label in solid:
            density = ndimage.gaussian_filter(near.astype(np.float32), 0.6)
            density *= rng.uniform(0.4, 1.0) + 0.15 * scene.texture[box]
        else:
            away = _from_middle(near) * voxel_size
            density = matter.bilayer(away, 0, voxel_size)
            near = matter.in_bilayer(away, 0, voxel_size)
            scene.membrane[box] |= near
        scene.density[box] = np.maximum(scene.density[box], density)
        scene.labels[box][near & (scene.labels[box] == 0)] = parts[label]


def _from_middle(inside):
    """Return the distance in voxels to the middle of a thin sheet.

    Labels of membranes are one to three voxels thick: the distance to the sheet's faces plus half
    of its thickness. Smoothed by half a voxel, as drawn sheets are stairs.
    """
    outside = ndimage.distance_transform_edt(~inside)
    depth = ndimage.distance_transform_edt(inside)
    # Two voxels beside both faces tell their area; a mean depth is the same for one voxel and two.
    beside = np.count_nonzero((outside > 0) & (outside <= 2.5))
    half = max(2 * np.count_nonzero(inside) / max(beside, 1), 0.5)
    # Distances lie between centres: half a voxel from the face.
    away = np.where(inside, np.maximum(half + 0.5 - depth, 0), outside + half - 0.5)
    return ndimage.gaussian_filter(away.astype(np.float32), 0.5)
