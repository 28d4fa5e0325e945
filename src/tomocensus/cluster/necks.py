"""Splitting one component at its necks: basins of the depth below the surface, merged again."""

from __future__ import annotations

import heapq

import numba
import numpy as np
from scipy import ndimage

from tomocensus.cluster.smoothing import smooth
from tomocensus.cluster.solidity import lattice_hull, reaches_solidity, row_extremes
from tomocensus.distances import distance_inside


def depth_map(mask: np.ndarray, edge: np.ndarray | None = None) -> np.ndarray:
    """Return each voxel's distance to the surface in voxels, lightly smoothed.

    Parameters
    ----------
    mask : numpy.ndarray
        Boolean, one component; the border of the array is no surface of the object beyond it.
    edge : numpy.ndarray, optional
        Boolean; where an outline is predicted. A wall inside the mask counts like its surface.
    """
    depth = distance_inside(mask)
    if edge is not None:
        wall = mask & edge
        if wall.any():
            # The surface itself is predicted as outline too, one voxel deep: hence + 1.
            depth = np.minimum(depth, distance_inside(~wall, border=False) + 1)
    return (smooth(depth, SIGMA) + np.float32(SIGMA)) * mask


# Voxels by which depth is smoothed. That lowers its ridges by about as much: hence added again.
SIGMA = 0.7


def split_at_necks(mask, solidity=0.98, neck=0.8, edge=None, smallest=1.0):
    """Split one component into convex parts at its necks.

    Basins of the distance to the surface are merged again, the widest neck first, while the union
    is solid or the neck between them is wide compared with the thinner of the two.

    Parameters
    ----------
    mask : numpy.ndarray
        Boolean, one component.
    solidity : float
        A union at least this solid is one object.
    neck : float
        Ratio of the neck's to the thinner part's half-width from which two parts are one.
    edge : numpy.ndarray, optional
        Boolean; where an outline is predicted. Narrows the necks that it crosses.
    smallest : float
        Voxels; a smaller part is never cut off.

    Returns
    -------
    parts : numpy.ndarray
        int32 labels 1..N of the parts.
    necks : dict
        Ratio of the widest neck by which each part touches another, 0 where none does; 1 for a
        whole component.
    origins : dict
        ``whole``, ``split`` or ``merged`` for each part.
    """
    small = edge is None and mask.size < FINE_VOXELS
    if small and distance_inside(mask).max() < FINE_DEPTH:
        return _split_fine(mask, solidity, neck, smallest)
    return _split(mask, solidity, neck, edge, smallest)


# Objects thinner than this many voxels from surface to middle are split on a grid twice as fine.
FINE_DEPTH = 8
FINE_VOXELS = 200_000


def _split_fine(mask, solidity, neck, smallest):
    """Split a small component on a grid twice as fine, with its steps smoothed."""
    fine = smooth(np.pad(mask, 2), 0.35)
    for axis in range(3):
        fine = _twice(fine, axis)
    fine = fine >= 0.5
    parts, necks, origins = _split(fine, solidity, neck, None, 8 * smallest, fine=True)
    nz, ny, nx = (n // 2 for n in parts.shape)
    coarse = parts.reshape(nz, 2, ny, 2, nx, 2).max(axis=(1, 3, 5))[2:-2, 2:-2, 2:-2] * mask
    if np.any(mask & (coarse == 0)):
        nearest = ndimage.distance_transform_edt(
            coarse == 0, return_distances=False, return_indices=True
        )
        coarse = coarse[tuple(nearest)] * mask
    return coarse.astype(np.int32), necks, origins


def _twice(volume, axis):
    """Return a volume with twice as many samples along an axis, interpolated linearly."""
    near = np.swapaxes(volume, 0, axis)
    result = np.repeat(near * np.float32(0.75), 2, axis=0)
    result[2::2] += np.float32(0.25) * near[:-1]
    result[1:-1:2] += np.float32(0.25) * near[1:]
    result[0] += np.float32(0.25) * near[0]
    result[-1] += np.float32(0.25) * near[-1]
    return np.swapaxes(result, 0, axis)


def _split(mask, solidity, neck, edge, smallest, fine=False):
    """Split one component on its own grid; see `split_at_necks`."""
    depth = depth_map(mask, edge)
    basins, count = find_basins(depth)
    if count <= 1:
        return mask.astype(np.int32), {1: 1.0}, {1: "whole"}
    graph = Basins(basins, depth, count)
    if fine:
        graph.merge_shallow(smallest, ripple=0.2, part=0.04)
        graph.merge(_one_small_object(solidity, neck))
    else:
        graph.merge_shallow(smallest)
        graph.merge(_one_object(solidity, neck, walls=edge is not None))
    return graph.result()


def find_basins(depth):
    """Label every voxel deeper than 0 by the peak that steepest ascent leads to.

    Parameters
    ----------
    depth : numpy.ndarray
        float32, ``(nz, ny, nx)``.

    Returns
    -------
    basins : numpy.ndarray
        int32; numbers in the order of the first voxels of the basins' roots.
    count : int
        Basins; neighbouring voxels of equal depth share one.
    """
    # Half of the memory where indices are that small.
    index = np.int32 if depth.size < 2**31 else np.int64
    return _find_basins(depth, np.full(depth.size, -1, index))


@numba.njit(cache=True, nogil=True)
def _find_basins(depth, up):
    """Return basins and their number; `up`, all -1, is where each voxel's ascent goes."""
    nz, ny, nx = depth.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                here = depth[z, y, x]
                if here <= 0:
                    continue
                best, to = np.float32(0), (z * ny + y) * nx + x
                for dz in range(-1, 2):
                    for dy in range(-1, 2):
                        for dx in range(-1, 2):
                            i, j, k = z + dz, y + dy, x + dx
                            if i < 0 or j < 0 or k < 0 or i >= nz or j >= ny or k >= nx:
                                continue
                            rise = depth[i, j, k] - here
                            if rise <= 0:
                                continue
                            rise /= np.sqrt(np.float32(dz * dz + dy * dy + dx * dx))
                            if rise > best:
                                best, to = rise, (i * ny + j) * nx + k
                up[(z * ny + y) * nx + x] = to
    # Voxels of one plateau are one, and go where any of them goes.
    for n in range(depth.size):
        if up[n] != n:
            continue
        z, y, x = n // (ny * nx), n // nx % ny, n % nx
        for m in range(27):
            i, j, k = z + m // 9 - 1, y + m // 3 % 3 - 1, x + m % 3 - 1
            if i < 0 or j < 0 or k < 0 or i >= nz or j >= ny or k >= nx:
                continue
            if depth[i, j, k] == depth[z, y, x]:
                one, two = n, (i * ny + j) * nx + k
                while up[one] != one:
                    one = up[one]
                while up[two] != two:
                    two = up[two]
                up[max(one, two)] = min(one, two)
    number = np.zeros(depth.size, np.int32)
    count = 0
    for n in range(depth.size):
        if up[n] == n:
            count += 1
            number[n] = count
    for n in range(depth.size):
        if up[n] < 0:
            continue
        root = n
        while up[root] != root:
            root = up[root]
        # Shorten the way for those who come later.
        at = n
        while at != root:
            following = up[at]
            up[at] = root
            at = following
        number[n] = number[root]
    return number.reshape(depth.shape), count


@numba.njit(cache=True, nogil=True)
def _peaks(basins, depth, count):
    """Return the greatest depth and the voxels of each basin; index 0 is outside."""
    peak, voxels = np.zeros(count + 1, np.float32), np.zeros(count + 1, np.int64)
    labels, depths = basins.ravel(), depth.ravel()
    for n in range(len(labels)):
        voxels[labels[n]] += 1
        peak[labels[n]] = max(peak[labels[n]], depths[n])
    return peak, voxels


@numba.njit(cache=True, nogil=True)
def _saddles(basins, depth):
    """Find the deepest contact of each pair of neighbouring basins.

    Returns keys (low << 32 | high), heights and the mean position of the voxels at that height.
    """
    nz, ny, nx = basins.shape
    place = {np.int64(0): 0}
    keys = [np.int64(0)]
    heights = [0.0]
    sums = [(0.0, 0.0, 0.0, 0.0)]
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                one = basins[z, y, x]
                if one == 0:
                    continue
                for n in range(14, 27):
                    dz, dy, dx = n // 9 - 1, n // 3 % 3 - 1, n % 3 - 1
                    i, j, k = z + dz, y + dy, x + dx
                    if i < 0 or j < 0 or k < 0 or i >= nz or j >= ny or k >= nx:
                        continue
                    two = basins[i, j, k]
                    if two == 0 or two == one:
                        continue
                    key = np.int64(min(one, two)) << 32 | np.int64(max(one, two))
                    height = min(depth[z, y, x], depth[i, j, k])
                    at = (z + dz / 2, y + dy / 2, x + dx / 2, 1.0)
                    if key not in place:
                        place[key] = len(keys)
                        keys.append(key)
                        heights.append(height)
                        sums.append(at)
                        continue
                    number = place[key]
                    if height > heights[number] + 1e-4:
                        heights[number] = height
                        sums[number] = at
                    elif height > heights[number] - 1e-4:
                        old = sums[number]
                        sums[number] = (
                            old[0] + at[0],
                            old[1] + at[1],
                            old[2] + at[2],
                            old[3] + 1.0,
                        )
    count = len(keys) - 1
    points = np.empty((count, 3))
    for n in range(count):
        z, y, x, weight = sums[n + 1]
        points[n, 0], points[n, 1], points[n, 2] = z / weight, y / weight, x / weight
    return np.array(keys)[1:], np.array(heights)[1:], points


@numba.njit(cache=True, nogil=True)
def _nearest_deep(basins, root, depth, one, point, level, reach):
    """Return the distance from `point` to the nearest voxel of part `one` at least `level` deep."""
    best = reach * reach
    low = np.empty(3, np.int64)
    high = np.empty(3, np.int64)
    for axis in range(3):
        low[axis] = max(0, int(np.floor(point[axis] - reach)))
        high[axis] = min(basins.shape[axis] - 1, int(np.ceil(point[axis] + reach)))
    for z in range(low[0], high[0] + 1):
        for y in range(low[1], high[1] + 1):
            flat = (z - point[0]) ** 2 + (y - point[1]) ** 2
            if flat >= best:
                continue
            for x in range(low[2], high[2] + 1):
                if depth[z, y, x] >= level and root[basins[z, y, x]] == one:
                    best = min(best, flat + (x - point[2]) ** 2)
    return np.sqrt(best)


@numba.njit(cache=True, nogil=True)
def _shared_plane(basins, root, a, b, low, high):
    """Return the sum of the normals of the faces between two parts in a box, and their middle."""
    normal, centre, count = np.zeros(3), np.zeros(3), 0.0
    for z in range(low[0], high[0]):
        for y in range(low[1], high[1]):
            for x in range(low[2], high[2]):
                one = root[basins[z, y, x]]
                if one != a and one != b:
                    continue
                sign, other = (1.0, b) if one == a else (-1.0, a)
                for axis in range(3):
                    i, j, k = z + (axis == 0), y + (axis == 1), x + (axis == 2)
                    if i >= high[0] or j >= high[1] or k >= high[2]:
                        continue
                    if root[basins[i, j, k]] == other:
                        normal[axis] += sign
                        centre[0] += (z + i) / 2
                        centre[1] += (y + j) / 2
                        centre[2] += (x + k) / 2
                        count += 1
    return normal, centre / max(count, 1.0)


@numba.njit(cache=True, nogil=True)
def _areas(basins, root, parts, centre, normal, reach, half, low, high):
    """Return the areas of cross-sections of two parts up to `half` voxels from a plane.

    Each voxel counts for the two nearest cross-sections; those farther than `reach` from the axis
    do not count.
    """
    areas = np.zeros(2 * half + 1)
    for z in range(low[0], high[0]):
        for y in range(low[1], high[1]):
            for x in range(low[2], high[2]):
                part = root[basins[z, y, x]]
                if part != parts[0] and part != parts[1]:
                    continue
                dz, dy, dx = z - centre[0], y - centre[1], x - centre[2]
                along = dz * normal[0] + dy * normal[1] + dx * normal[2]
                if dz * dz + dy * dy + dx * dx - along * along > reach * reach:
                    continue
                first = int(np.floor(along))
                for n in range(first, first + 2):
                    if -half <= n <= half:
                        areas[n + half] += 1 - abs(along - n)
    return areas


# Half-widths (voxels) of the thinner part between which a smooth waist is cut ever more readily.
LIMITS = (2.2, 2.9)
# Voxels of the finer grid by which a wide neck's cross-section must rise to both sides.
DROP = 0.6


def _one_object(solidity: float, neck: float, walls: bool):
    """Return the rule that tells whether two neighbouring parts are one object.

    A crease, where two surfaces meet at an angle, is evidence for two objects even where it is
    wide; a smooth waist is so only where it is narrow.
    """
    crease = min(neck + 0.1, 0.9)
    waist = max(neck - 0.3, 0.0)

    def rule(graph: Basins, a: int, b: int) -> bool:
        ratio = graph.ratio(a, b)
        if ratio >= crease:
            return True
        if walls and ratio < waist:
            return False
        if ratio >= waist:
            # Voxels blur the creases of small objects.
            soft = np.interp(min(graph.peak[a], graph.peak[b]), (8, 16), (0.45, 0.6))
            limit = np.interp(graph.sharpness(a, b), (soft, soft + 0.15), (waist, crease))
            if ratio >= limit:
                return True
        return graph.solid(a, b, solidity)

    return rule


def _one_small_object(solidity: float, neck: float):
    """Return the rule for objects of which a voxel is a large part.

    The depth at one point is uncertain by half a voxel; the areas of the cross-sections next to the
    neck are means over many voxels. So both are asked how wide the neck is and how like a crease.
    """
    crease = min(neck + 0.13, 0.93)
    cut = max(neck - 0.3, 0.0)

    def rule(graph: Basins, a: int, b: int) -> bool:
        ratio = graph.ratio(a, b)
        if ratio >= 0.96:
            return True
        # In voxels; the thinner, the more of a neck may be half a voxel's error.
        thick = min(graph.peak[a], graph.peak[b]) / 2
        waist = np.interp(thick, LIMITS, (0.8 * cut, cut))
        if ratio >= waist:
            wide, steep, step = graph.cross_sections(a, b)
            wide = (wide + ratio) / 2
            soft = np.interp(min(graph.peak[a], graph.peak[b]), (8, 16), (0.45, 0.6))
            sharp = graph.sharpness(a, b) + 0.5 * (steep - 0.2)
            if wide > 0.9 and step < DROP:
                return True
            if wide >= np.interp(sharp, (soft, soft + 0.15), (waist, crease)):
                return True
        return graph.solid(a, b, solidity)

    return rule


class Basins:
    """Basins of one component as a graph; edges are the saddles between neighbours."""

    def __init__(self, basins: np.ndarray, depth: np.ndarray, count: int):
        self.basins, self.depth = basins, depth
        self.peak, self.voxels = _peaks(basins, depth, count)
        self.members = {label: [label] for label in range(1, count + 1)}
        self.root = np.arange(count + 1)
        self.corners: dict[int, np.ndarray] = {}
        self.boxes = ndimage.find_objects(basins)
        self.saddle: dict[int, dict[int, tuple[float, np.ndarray]]]
        self.saddle = {label: {} for label in self.members}
        for key, height, point in zip(*_saddles(basins, depth), strict=True):
            a, b = int(key) >> 32, int(key) & 0xFFFFFFFF
            self.saddle[a][b] = self.saddle[b][a] = (float(height), point)

    def ratio(self, a: int, b: int) -> float:
        """Return the neck's width over the thinner part's."""
        return self.saddle[a][b][0] / max(min(self.peak[a], self.peak[b]), 1e-6)

    def points(self, label: int) -> np.ndarray:
        """Return voxels of a part that contain the vertices of its hull."""
        if label not in self.corners:
            points = []
            for member in self.members[label]:
                box = self.boxes[member - 1]
                corner = [side.start for side in box]
                points.append(row_extremes(self.basins[box] == member) + corner)
            self.corners[label] = np.concatenate(points)
        if len(self.corners[label]) > 1000:
            self.corners[label] = lattice_hull(self.corners[label])[1]
        return self.corners[label]

    def solid(self, a: int, b: int, least: float) -> bool:
        """Tell whether the digital solidity of the union of two parts is at least `least`."""
        points = np.concatenate([self.points(a), self.points(b)])
        return reaches_solidity(points, self.voxels[a] + self.voxels[b], least)

    def sharpness(self, a: int, b: int) -> float:
        """Return how much like a crease the neck is: 1 where two surfaces meet at an angle.

        On the way from a crease of half-width s into either part, the depth grows as
        sqrt(s^2 + t^2) with the distance t; from a smooth waist it grows later.
        """
        height, point = self.saddle[a][b]
        level = height + 0.75 * (min(self.peak[a], self.peak[b]) - height)
        expected = np.sqrt(level**2 - height**2)
        away = [
            _nearest_deep(self.basins, self.root, self.depth, part, point, level, 3 * expected + 2)
            for part in (a, b)
        ]
        return expected / max(np.mean(away), 1e-6)

    def cross_sections(self, a: int, b: int) -> tuple[float, float, float]:
        """Return how wide the neck is by the areas of the cross-sections next to it.

        Returns
        -------
        wide : float
            Radius of the neck over that of the narrower side's widest cross-section.
        steep : float
            Mean slope of the radius on the less steep side of the neck.
        step : float
            The rise of the radius there, voxels.
        """
        _, point = self.saddle[a][b]
        thin = float(min(self.peak[a], self.peak[b]))
        reach = 2.2 * thin + 2
        low = np.maximum(0, np.floor(point - 1.5 * reach)).astype(np.int64)
        high = np.ceil(point + 1.5 * reach).astype(np.int64) + 1
        high = np.minimum(self.basins.shape, high)
        normal, centre = _shared_plane(self.basins, self.root, a, b, low, high)
        half = int(np.ceil(1.2 * thin)) + 2
        length = np.linalg.norm(normal)
        if not length:
            return 1.0, 0.0, 0.0
        radii = np.sqrt(
            _areas(self.basins, self.root, (a, b), centre, normal / length, reach, half, low, high)
            / np.pi
        )
        near = round(0.25 * thin)
        middle = half - near + int(np.argmin(radii[half - near : half + near + 1]))
        neck, away, far = radii[middle], max(2.0, 0.4 * thin), int(thin) + 1
        aside = np.interp([middle - away, middle + away], np.arange(len(radii)), radii)
        rise = float(aside.min() - neck)
        sides = radii[max(0, middle - far) : middle + 1], radii[middle : middle + far + 1]
        return float(neck / min(side.max() for side in sides)), rise / away, rise

    def merge_shallow(self, smallest, ripple=0.6, part=0.1, thin=0.0):
        """Undo basins that are ripples of the surface, thin ones, and parts that are specks."""

        def rule(graph, a, b):
            thinner = min(graph.peak[a], graph.peak[b])
            shallow = thinner - graph.saddle[a][b][0] < max(ripple, part * thinner)
            return shallow or thinner <= thin or min(graph.voxels[a], graph.voxels[b]) < smallest

        # Larger parts are no specks, and less shallow: who may not be merged never may.
        self.merge(rule, again=False)

    def merge(self, rule, again=True):
        """Merge greedily by a rule, the widest neck first, until no pair may be merged.

        `again`: a part that has grown may suit neighbours that it did not suit before.
        """
        pairs = ((a, b) for a, others in self.saddle.items() for b in others if a < b)
        heap = [(-self.ratio(a, b), a, b) for a, b in pairs]
        heapq.heapify(heap)
        while heap:
            ratio, a, b = heapq.heappop(heap)
            if b not in self.saddle.get(a, {}) or self.ratio(a, b) != -ratio:
                continue
            if not rule(self, a, b):
                continue
            theirs, deepest = list(self.saddle[b]), self.peak[a]
            self._join(a, b)
            every = again or self.peak[a] != deepest
            for other in self.saddle[a] if every else theirs:
                if other == a:
                    continue
                low, high = min(a, other), max(a, other)
                heapq.heappush(heap, (-self.ratio(low, high), low, high))

    def _join(self, a, b):
        """Make `b` part of `a`."""
        if a in self.corners and b in self.corners:
            self.corners[a] = np.concatenate([self.corners[a], self.corners[b]])
        else:
            self.corners.pop(a, None)
        self.corners.pop(b, None)
        self.voxels[a] += self.voxels[b]
        self.peak[a] = max(self.peak[a], self.peak[b])
        self.root[self.members[b]] = a
        self.members[a] += self.members.pop(b)
        for other, contact in self.saddle.pop(b).items():
            del self.saddle[other][b]
            if other != a:
                if other in self.saddle[a]:
                    contact = max(contact, self.saddle[a][other], key=lambda pair: pair[0])
                self.saddle[a][other] = self.saddle[other][a] = contact

    def result(self):
        """Return labels 1..N, widest neck and origin of each."""
        number = np.zeros(len(self.voxels), np.int32)
        necks, origins = {}, {}
        # Of parts that smoothing took off, no neck was cut.
        none = 1.0 if len(self.members) == 1 else 0.0
        for new, old in enumerate(sorted(self.members), start=1):
            number[self.members[old]] = new
            ratios = [self.ratio(old, other) for other in self.saddle[old]]
            necks[new] = float(max(ratios, default=none))
            joined = "merged" if len(self.members[old]) > 1 else "whole"
            origins[new] = "split" if len(self.members) > 1 else joined
        return number[self.basins], necks, origins
