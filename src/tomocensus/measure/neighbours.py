"""Distances between the surfaces of objects."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

# Voxels; the surface of an object is cut into cubes with such edges, each of which is near or far.
BLOCK = 8
# Surface voxels, or blocks, of an object that are all looked at rather than told apart.
FEW = 300
# Surface voxels looked at between two looks whether both objects touch.
MANY = 5000


class _Surface:
    """Surface voxels of one object, in blocks."""

    def __init__(self, points: np.ndarray):
        self.tree = cKDTree(points)
        cube = points // BLOCK
        cube -= cube.min(axis=0)
        number = np.ravel_multi_index(tuple(cube.T), tuple(cube.max(axis=0) + 1))
        order = np.argsort(number, kind="stable")
        self.points, number = points[order], number[order]
        self.starts = np.flatnonzero(np.append(True, number[1:] != number[:-1]))
        low = np.minimum.reduceat(self.points, self.starts)
        high = np.maximum.reduceat(self.points, self.starts)
        self.low, self.high = low.min(axis=0), high.max(axis=0)
        self.middles = cKDTree((low + high) / 2)
        # No voxel of a block is farther from its middle.
        self.radius = np.linalg.norm(high - low, axis=1).max() / 2

    def _apart(self, other: _Surface, limit: float) -> np.ndarray:
        """Return for each block how far the other object is at least, infinity above the limit."""
        room = self.radius + other.radius + 1e-3
        away = other.middles.query(self.middles.data, distance_upper_bound=limit + room)[0]
        return away - room

    def distance(self, other: _Surface, limit: float) -> float:
        """Return the least distance between both objects' voxels, infinity above the limit."""
        points = self.points
        if len(points) > FEW:
            apart = self._apart(other, limit)
            if apart.min() > limit:
                return np.inf
            # No block that is farther away than some voxel can be nearest.
            limit = min(limit, other.nearest(points[self.starts[apart <= limit]], limit))
            points = points[np.repeat(apart <= limit, np.diff([*self.starts, len(points)]))]
        best, parts = np.inf, -(-len(points) // MANY)
        for start in range(parts):
            best = min(best, other.nearest(points[start::parts], min(best, limit)))
            # Voxels of two objects are never nearer.
            if best <= 1:
                break
        return best

    def nearest(self, points: np.ndarray, limit: float) -> float:
        """Return the least distance to any of some points, infinity above the limit."""
        # The bound itself is left out.
        return float(self.tree.query(points, distance_upper_bound=limit + 1e-3)[0].min())


class _Around:
    """Tells which objects may be near another one."""

    def __init__(self, parts: list[_Surface]):
        self.low = np.array([part.low for part in parts])
        self.high = np.array([part.high for part in parts])
        self.middles = [part.middles for part in parts]
        self.owner = np.repeat(np.arange(len(parts)), [tree.n for tree in self.middles])
        self.tree = cKDTree(np.concatenate([tree.data for tree in self.middles]))
        # Of two blocks the middles are farther apart than the voxels by this at most.
        self.room = 2 * max(part.radius for part in parts)

    def within(self, i: int, reach: float, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return all others but those seen that a voxel of which may lie within reach of `i`.

        In the order of the distance between their boxes, which is returned as well, less a voxel.
        """
        others = np.setdiff1d(self.owner[self._blocks(i, reach + self.room)], seen)
        apart = np.maximum(self.low[others] - self.high[i], self.low[i] - self.high[others])
        bound = np.maximum(np.linalg.norm(np.maximum(apart, 0), axis=1) - 1, 0)
        order = np.argsort(bound, kind="stable")
        return bound[order], others[order]

    def _blocks(self, i: int, reach: float) -> np.ndarray:
        """Return the blocks whose middles are within reach of a block of `i`."""
        own, every = self.middles[i], self.tree.data
        if own.n <= FEW:
            return np.concatenate(self.tree.query_ball_point(own.data, reach)).astype(int)
        # Each would be found from many blocks of a large object.
        inside = (every >= own.mins - reach).all(axis=1) & (every <= own.maxes + reach).all(axis=1)
        near = np.flatnonzero(inside)
        away = own.query(every[near], distance_upper_bound=reach + 1e-3)[0]
        return near[np.isfinite(away)]


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
