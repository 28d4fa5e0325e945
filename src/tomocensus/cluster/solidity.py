"""Digital solidity: voxels over lattice points of the hull, 1 for any convex voxel object."""

from __future__ import annotations

import numba
import numpy as np
from scipy.spatial import ConvexHull, QhullError


def row_extremes(mask: np.ndarray) -> np.ndarray:
    """Return voxels ``(n, 3)`` (z, y, x) that contain all vertices of the hull: ends of rows."""
    z, y = np.nonzero(mask.any(axis=2))
    rows = mask[z, y]
    first = rows.argmax(axis=1)
    last = mask.shape[2] - 1 - rows[:, ::-1].argmax(axis=1)
    low = np.stack([z, y, first], axis=1)
    high = np.stack([z, y, last], axis=1)
    points = np.concatenate([low, high[last > first]])
    # A vertex of the hull ends its column along z and y as well.
    for axis, others in ((0, (1, 2)), (1, (0, 2))):
        shape = [mask.shape[other] for other in others]
        line = np.ravel_multi_index([points[:, other] for other in others], shape)
        least = np.full(np.prod(shape), mask.shape[axis])
        most = np.full(np.prod(shape), -1)
        np.minimum.at(least, line, points[:, axis])
        np.maximum.at(most, line, points[:, axis])
        points = points[(points[:, axis] == least[line]) | (points[:, axis] == most[line])]
    return points


def lattice_hull(points: np.ndarray) -> tuple[int, np.ndarray]:
    """Count the lattice points in the convex hull of integer points.

    For every row (z, y) the hull's planes bound x to an interval; the integers in it are counted.

    Parameters
    ----------
    points : numpy.ndarray
        ``(n, 3)`` integers.

    Returns
    -------
    count : int
        Lattice points inside or on the hull.
    vertices : numpy.ndarray
        Points ``(m, 3)`` that span the hull.

    Notes
    -----
    Points in one plane or line have no 3D hull; they count as their own number, solidity 1.
    """
    points = np.asarray(points)
    try:
        hull = ConvexHull(points)
    except (QhullError, ValueError):
        return len(np.unique(points, axis=0)), points
    planes = np.unique(np.round(hull.equations, 9), axis=0)
    count = _count_inside(planes, points.min(axis=0), points.max(axis=0))
    return count, points[hull.vertices]


@numba.njit(cache=True)
def _count_inside(planes, low, high):
    """Count integer points on the inner side of all planes, row by row."""
    total = 0
    for z in range(low[0], high[0] + 1):
        for y in range(low[1], high[1] + 1):
            left, right = float(low[2]), float(high[2])
            for a, b, c, d in planes:
                rest = -(a * z + b * y + d)
                if c > 1e-9:
                    right = min(right, rest / c)
                elif c < -1e-9:
                    left = max(left, rest / c)
                elif rest < -1e-6:
                    right = left - 2
                    break
            # Facets through lattice points are inexact in floating point: hence the tolerance.
            inside = np.floor(right + 1e-6) - np.ceil(left - 1e-6) + 1
            if inside > 0:
                total += int(inside)
    return total


def digital_solidity(mask: np.ndarray) -> float:
    """Return the digital solidity of one object.

    Parameters
    ----------
    mask : numpy.ndarray
        Boolean, ``(nz, ny, nx)``.

    Returns
    -------
    float
        0 to 1; exactly 1 where every lattice point of the hull is an object voxel; 0 when empty.
    """
    voxels = int(np.count_nonzero(mask))
    if not voxels:
        return 0.0
    count, _ = lattice_hull(row_extremes(mask))
    return min(1.0, voxels / max(count, 1))
