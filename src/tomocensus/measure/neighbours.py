"""Distances between the surfaces of objects."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

# Voxels; the surface of an object is cut into cubes with such edges, each of which is near or far.
BLOCK = 8
# Surface voxels of an object that are all looked at rather than told apart.
FEW = 300


class _Surface:
    """Surface voxels of one object, in blocks."""

    def __init__(self, points: np.ndarray):
        self.tree = cKDTree(points)
        _, block = np.unique(points // BLOCK, axis=0, return_inverse=True)
        order = np.argsort(block, kind="stable")
        self.points = points[order]
        self.starts = np.searchsorted(block[order], np.arange(block.max() + 1))
        self.low = np.minimum.reduceat(self.points, self.starts)
        self.high = np.maximum.reduceat(self.points, self.starts)

    def _apart(self, other: _Surface) -> np.ndarray:
        """Return for each block how far the other object's blocks are at least."""
        between = np.maximum(
            self.low[:, None] - other.high[None], other.low[None] - self.high[:, None]
        )
        return np.linalg.norm(np.maximum(between, 0), axis=2).min(axis=1)

    def distance(self, other: _Surface, limit: float) -> float:
        """Return the least distance between both objects' voxels, infinity above the limit."""
        points = self.points
        if len(points) > FEW:
            apart = self._apart(other)
            if apart.min() > limit:
                return np.inf
            # No block that is farther away than some voxel can be nearest.
            some = points[self.starts[apart <= limit]]
            limit = min(limit, other.nearest(some, limit))
            points = points[np.repeat(apart <= limit, np.diff([*self.starts, len(points)]))]
        return other.nearest(points, limit)

    def nearest(self, points: np.ndarray, limit: float) -> float:
        """Return the least distance to any of some points, infinity above the limit."""
        # The bound itself is left out.
        return float(self.tree.query(points, distance_upper_bound=limit + 1e-3)[0].min())


class _Around:
    """Tells which objects may be near another one."""

    def __init__(self, parts: list[_Surface]):
        self.low = np.array([part.low.min(axis=0) for part in parts])
        self.high = np.array([part.high.max(axis=0) for part in parts])
        self.middles = [(part.low + part.high) / 2 for part in parts]
        self.owner = np.repeat(np.arange(len(parts)), [len(some) for some in self.middles])
        self.tree = cKDTree(np.concatenate(self.middles))
        # Of two blocks the middles are farther apart than the voxels by this at most.
        self.room = max(np.linalg.norm(part.high - part.low, axis=1).max() for part in parts)

    def within(self, i: int, reach: float, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return all others but those seen that a voxel of which may lie within reach of `i`.

        In the order of the distance between their boxes, which is returned as well, less a voxel.
        """
        found = self.tree.query_ball_point(self.middles[i], reach + self.room)
        others = np.setdiff1d(self.owner[np.concatenate(found)], seen)
        apart = np.maximum(self.low[others] - self.high[i], self.low[i] - self.high[others])
        bound = np.maximum(np.linalg.norm(np.maximum(apart, 0), axis=1) - 1, 0)
        order = np.argsort(bound, kind="stable")
        return bound[order], others[order]


def neighbours(
    surfaces: list[np.ndarray], contact_distance: float
) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
    """Find each object's nearest other object and those within a distance.

    The distance is that of the nearest voxel centres less one voxel, at least 0. Pairs whose
    bounding boxes, or those of all parts of their surfaces, are too far apart are never looked at.

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
    parts = [_Surface(points) for points in surfaces]
    around = _Around(parts)
    known: dict[tuple[int, int], float] = {}

    def gap(a: int, b: int, limit: float) -> float:
        """Return the distance, or infinity where it is above the limit."""
        pair = (min(a, b), max(a, b))
        if pair not in known:
            few, many = (parts[k] for k in sorted(pair, key=lambda k: len(surfaces[k])))
            found = few.distance(many, limit + 1)
            if np.isinf(found):
                return np.inf
            known[pair] = max(0.0, found - 1)
        return known[pair]

    for i in range(count):
        best = np.inf
        reach = contact_distance + 1
        seen = np.array([i])
        while True:
            bound, others = around.within(i, reach, seen)
            seen = np.append(seen, others)
            for least, j in zip(bound, others, strict=True):
                limit = max(best, contact_distance)
                found = np.inf if least > limit else gap(i, int(j), limit)
                if found < best:
                    best, nearest[i] = found, j
                if found <= contact_distance:
                    contacts[i].append(int(j))
            if reach >= best + 1 or len(seen) == count:
                break
            reach = best + 1 if np.isfinite(best) else 2 * reach
        distance[i] = best
        contacts[i].sort()
    return nearest, distance, contacts
