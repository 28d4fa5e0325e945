"""Digital solidity: voxels over lattice points of the hull, 1 for any convex voxel object."""

from __future__ import annotations

import numba
import numpy as np
from scipy.spatial import ConvexHull, QhullError

# Half of the neighbours in a 5 x 5 x 5 cube without multiples: ways to look for a hull's corners.
_WAYS = np.array(
    [
        way
        for way in np.ndindex(5, 5, 5)
        if tuple(np.subtract(way, 2)) > (0, 0, 0) and np.gcd.reduce(np.subtract(way, 2)) == 1
    ]
) - np.array([2, 2, 2])


def row_extremes(mask: np.ndarray) -> np.ndarray:
    """Return voxels ``(n, 3)`` (z, y, x) that contain all vertices of the hull, and few others.

    A vertex of the hull is a vertex of the 2D hull of its slice, along each axis.
    """
    left, right = _row_ends(np.ascontiguousarray(mask))
    _keep_corners(left, right)
    # The same for slices across y: the tables transposed.
    left, right = np.ascontiguousarray(left.T), np.ascontiguousarray(right.T)
    _keep_corners(left, right)
    y, z = np.nonzero(left >= 0)
    low = np.stack([z, y, left[y, z]], axis=1)
    y, z = np.nonzero((right >= 0) & (right != left))
    return np.concatenate([low, np.stack([z, y, right[y, z]], axis=1)])


@numba.njit(cache=True, nogil=True)
def _row_ends(mask):
    """Return the first and last x of every row (z, y), -1 where it is empty."""
    nz, ny, nx = mask.shape
    left, right = np.full((nz, ny), -1, np.int64), np.full((nz, ny), -1, np.int64)
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if mask[z, y, x]:
                    left[z, y] = x
                    break
            if left[z, y] < 0:
                continue
            for x in range(nx - 1, -1, -1):
                if mask[z, y, x]:
                    right[z, y] = x
                    break
    return left, right


@numba.njit(cache=True, nogil=True)
def _keep_corners(left, right):
    """Set to -1 all row ends that are no vertices of their slice's hull (monotone chains)."""
    stack = np.empty(left.shape[1], np.int64)
    for z in range(left.shape[0]):
        for side, ends in ((1, left), (-1, right)):
            row = ends[z]
            height = 0
            for y in range(len(row)):
                if row[y] < 0:
                    continue
                while height >= 2:
                    a, b = stack[height - 2], stack[height - 1]
                    turn = (b - a) * (row[y] - row[a]) - (y - a) * (row[b] - row[a])
                    if side * turn > 0:
                        break
                    height -= 1
                    row[b] = -1
                stack[height] = y
                height += 1


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
    planes = hull.equations
    # The triangles of one facet follow each other.
    fresh = np.any(np.abs(np.diff(planes, axis=0, prepend=np.nan)) > 1e-9, axis=1)
    fresh[0] = True
    count = _count_inside(planes[fresh], points.min(axis=0), points.max(axis=0))
    return count, points[hull.vertices]


@numba.njit(cache=True, nogil=True)
def _count_inside(planes, low, high):
    """Count integer points on the inner side of all planes, row by row."""
    total = 0
    for z in range(low[0], high[0] + 1):
        for y in range(low[1], high[1] + 1):
            left, right = float(low[2]), float(high[2])
            for n in range(len(planes)):
                c = planes[n, 2]
                rest = -(planes[n, 0] * z + planes[n, 1] * y + planes[n, 3])
                if c > 1e-9:
                    right = min(right, rest / c)
                elif c < -1e-9:
                    left = max(left, rest / c)
                elif rest < -1e-6:
                    right = left - 2
                # Facets through lattice points are inexact in floating point: hence the tolerance.
                if right < left - 1e-5:
                    break
            inside = np.floor(right + 1e-6) - np.ceil(left - 1e-6) + 1
            if inside > 0:
                total += int(inside)
    return total


def reaches_solidity(points: np.ndarray, voxels: int, least: float) -> bool:
    """Tell whether an object's digital solidity is at least `least`.

    Parameters
    ----------
    points : numpy.ndarray
        ``(n, 3)`` voxels that contain the vertices of the hull.
    voxels : int
        Voxels of the object.
    least : float
        0 to 1.

    Notes
    -----
    The hull of a few extreme points lies inside the whole hull: where already that is too large,
    the expensive whole one is not needed.
    """
    if len(points) > 2 * len(_WAYS):
        along = points @ _WAYS.T
        few = np.unique(np.concatenate([along.argmax(axis=0), along.argmin(axis=0)]))
        if voxels < least * lattice_hull(points[few])[0]:
            return False
    return voxels >= least * lattice_hull(points)[0]


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
    return min(1.0, voxels / count)
