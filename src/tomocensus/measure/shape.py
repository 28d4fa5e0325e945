"""Shape of one object from its mask."""

from __future__ import annotations

import itertools

import numpy as np

# Share of the sphere of directions nearest to each lattice direction and its opposite
# (Voronoi weights of the 26 neighbours; Ohser and Mücklich, Statistical Analysis of
# Microstructures in Materials Science, 2000), by number of non-zero components.
_WEIGHTS = {1: 2 * 0.045778, 2: 2 * 0.036981, 3: 2 * 0.035196}
_DIRECTIONS = [d for d in itertools.product((-1, 0, 1), repeat=3) if d > (0, 0, 0)]


def surface_area(mask: np.ndarray) -> float:
    """Estimate the surface area of a mask in voxel faces, without the staircase's excess.

    Crofton's formula: the mean count of crossings of parallel lines is half the area.

    Parameters
    ----------
    mask : numpy.ndarray of bool
        Shape ``(nz, ny, nx)``; outside of it counts as background.
    """
    padded = np.pad(mask, 1)
    area = 0.0
    for direction in _DIRECTIONS:
        here = tuple(
            slice(max(0, -d), min(n, n - d)) for d, n in zip(direction, padded.shape, strict=True)
        )
        there = tuple(
            slice(max(0, d), min(n, n + d)) for d, n in zip(direction, padded.shape, strict=True)
        )
        crossings = np.count_nonzero(padded[here] != padded[there])
        steps = sum(abs(d) for d in direction)
        area += 2 * _WEIGHTS[steps] * crossings / np.sqrt(steps)
    return float(area)


def moments(mask: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Return number, centre and covariance of the voxels of a mask, from its projections.

    Parameters
    ----------
    mask : numpy.ndarray of bool
        Shape ``(nz, ny, nx)``, not empty.

    Returns
    -------
    count : int
        Voxels.
    centre : numpy.ndarray
        ``(3,)`` z, y, x.
    covariance : numpy.ndarray
        ``(3, 3)``.
    """
    planes = [np.count_nonzero(mask, axis=axis) for axis in range(3)]
    lines = (planes[2].sum(axis=1), planes[2].sum(axis=0), planes[1].sum(axis=0))
    count = int(lines[0].sum())
    indices = [np.arange(n) for n in mask.shape]
    centre = np.array([line @ at for line, at in zip(lines, indices, strict=True)]) / count
    away = [at - middle for at, middle in zip(indices, centre, strict=True)]
    covariance = np.diag([line @ d**2 for line, d in zip(lines, away, strict=True)])
    for one, two, plane in ((1, 2, planes[0]), (0, 2, planes[1]), (0, 1, planes[2])):
        covariance[one, two] = covariance[two, one] = away[one] @ plane @ away[two]
    return count, centre, covariance / count


def ellipsoid_axes(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the solid ellipsoid with the moments of a set of voxels.

    Parameters
    ----------
    covariance : numpy.ndarray
        Of their indices z, y, x (:func:`moments`).

    Returns
    -------
    lengths : numpy.ndarray
        Full axes, longest first, voxels.
    major : numpy.ndarray
        Unit vector ``(x, y, z)`` of the longest, with z >= 0.
    """
    # A voxel is a cube, not a point: its own variance is 1/12 along every axis.
    values, vectors = np.linalg.eigh(covariance + np.eye(3) / 12)
    major = vectors[::-1, -1]
    leading = next(c for c in (major[2], major[1], major[0]) if abs(c) > 1e-9)
    # The variance of a solid ellipsoid along a half axis a is a^2 / 5.
    return 2 * np.sqrt(5 * values[::-1]), major * np.sign(leading)


def surface_voxels(mask: np.ndarray) -> np.ndarray:
    """Return indices ``(n, 3)`` of the voxels with a face neighbour outside the mask."""
    padded = np.pad(mask, 1)
    inner = mask.copy()
    for axis in range(3):
        for start in (0, 2):
            window = [slice(1, -1)] * 3
            window[axis] = slice(start, start + mask.shape[axis])
            inner &= padded[tuple(window)]
    return np.argwhere(mask & ~inner)
