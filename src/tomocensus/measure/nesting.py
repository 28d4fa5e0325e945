"""Which object lies inside which."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import ndimage


def enclosing(labels: np.ndarray, boxes: dict[int, tuple[slice, ...]]) -> dict[int, int]:
    """Find the innermost object that surrounds each object.

    Inside is what no way through voxels' faces leads out of: what lies in a fold, or in an object
    that the border cuts open there, is not.

    Parameters
    ----------
    labels : numpy.ndarray of int
        Shape ``(nz, ny, nx)``; 0 is background.
    boxes : dict of int to tuple of slice
        Bounding box of each object.

    Returns
    -------
    dict of int to int
        Number of each object that is surrounded, and of the object around it.
    """
    numbers = list(boxes)
    sides = np.array([[(s.start, s.stop) for s in box] for box in boxes.values()]).reshape(-1, 3, 2)
    places = [_voxel(labels, number, box) for number, box in boxes.items()]
    sizes = np.prod(sides[..., 1] - sides[..., 0], axis=1)
    found: dict[int, int] = {}
    # The innermost has the smallest box.
    for outer in np.argsort(sizes, kind="stable"):
        low, high = sides[outer].T
        within = (sides[..., 0] > low).all(axis=1) & (sides[..., 1] < high).all(axis=1)
        number, crop = numbers[outer], labels[boxes[numbers[outer]]]
        inner = [
            k
            for k in np.flatnonzero(within)
            if numbers[k] not in found and _walled(crop, places[k] - low, number)
        ]
        if not inner:
            continue
        areas, count = ndimage.label(crop != number)
        hidden = np.ones(count + 1, bool)
        for axis, end in itertools.product(range(3), (0, -1)):
            hidden[areas.take(end, axis)] = False
        for k in inner:
            box = tuple(slice(*pair) for pair in sides[k] - low[:, None])
            if hidden[areas[box][crop[box] == numbers[k]]].all():
                found[numbers[k]] = number
    return found


def _voxel(labels: np.ndarray, number: int, box: tuple[slice, ...]) -> np.ndarray:
    """Return the place (z, y, x) of a voxel of an object."""
    first = labels[box][0] == number
    return np.array([0, *np.argwhere(first)[0]]) + [side.start for side in box]


def _walled(crop: np.ndarray, place: np.ndarray, number: int) -> bool:
    """Tell whether an object lies on both sides of a place along each axis.

    Around what it surrounds it does, and around little else.
    """
    z, y, x = place
    lines = ((crop[:, y, x], z), (crop[z, :, x], y), (crop[z, y], x))
    return all((line[:k] == number).any() and (line[k:] == number).any() for line, k in lines)
