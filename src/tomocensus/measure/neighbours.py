"""Distances between the surfaces of objects."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.spatial import cKDTree


def neighbours(
    surfaces: list[np.ndarray], contact_distance: float
) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
    """Find each object's nearest other object and those within a distance.

    The distance is that of the nearest voxel centres less one voxel, at least 0. Pairs whose
    bounding boxes are too far apart are never looked at.

    Parameters
    ----------
    surfaces : list of numpy.ndarray
        Surface voxels of each object, ``(n, 3)``, voxels.
    contact_distance : float
        Voxels.

    Returns
    -------
    nearest : numpy.ndarray of int
        Index of the nearest object, -1 when there is none.
    distance : numpy.ndarray of float
        Voxels; NaN when there is none.
    contacts : list of list of int
        Indices within `contact_distance`, ascending.
    """
    count = len(surfaces)
    nearest, distance = np.full(count, -1), np.full(count, np.nan)
    contacts: list[list[int]] = [[] for _ in range(count)]
    if count < 2:
        return nearest, distance, contacts
    trees = [cKDTree(points) for points in surfaces]
    low = np.array([points.min(axis=0) for points in surfaces])
    high = np.array([points.max(axis=0) for points in surfaces])
    known: dict[tuple[int, int], float] = {}

    def gap(a: int, b: int) -> float:
        pair = (min(a, b), max(a, b))
        if pair not in known:
            few, many = sorted(pair, key=lambda k: len(surfaces[k]))
            found = trees[many].query(surfaces[few])[0].min()
            known[pair] = max(0.0, float(found) - 1)
        return known[pair]

    for i in range(count):
        apart = np.maximum(np.maximum(low - high[i], low[i] - high), 0)
        bound = np.maximum(np.linalg.norm(apart, axis=1) - 1, 0)
        best = np.inf
        for j in _rising(bound):
            if j == i:
                continue
            if bound[j] > max(best, contact_distance):
                break
            found = gap(i, int(j))
            if found < best:
                best, nearest[i] = found, j
            if found <= contact_distance:
                contacts[i].append(int(j))
        distance[i] = best
        contacts[i].sort()
    return nearest, distance, contacts


def _rising(values: np.ndarray, first: int = 32) -> Iterator[int]:
    """Yield the indices of rising values, equal ones in their order; few are sorted at a time."""
    done, most = -np.inf, min(first, len(values))
    while True:
        limit = np.partition(values, most - 1)[most - 1]
        some = np.flatnonzero((values > done) & (values <= limit))
        yield from some[np.argsort(values[some], kind="stable")]
        if most == len(values):
            return
        done, most = limit, min(8 * most, len(values))
