"""Regions that outlines part: a watershed of the boundary map, merged where no outline is seen."""

from __future__ import annotations

import heapq

import numba
import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from tomocensus.cluster.smoothing import chances
from tomocensus.distances import distance_inside
from tomocensus.volume import releasing

# Mean of the boundary map on a shared face from which two regions stay apart.
APART = 0.25
# A thin wall is nearly all outline, wherever it is cut: so much more than in the inside of the
# regions must be seen on their face. Inside: the boundary below which a quarter of them lies.
CONTRAST, QUARTER = 3.0, 0.25
# What is taken for the inside of a region in the middle of another at most: no piece of a wall lies
# there, and of a small object nearly all is outline as well.
ENCLOSED = 0.1
# Steps of the boundary map (0-1) in which that is counted.
STEPS = 50
# Outlines are seen in slices; faces across slices say less.
ACROSS = 0.3
# Below this a voxel is inside, not on an outline.
INSIDE = 0.3
# A boundary map with a higher median inside objects is too blurred to part them.
BLURRED = 0.2
# Voxels around a component that its regions depend on: the reach of the smoothing.
ROOM = 4


def is_sharp(boundary: np.ndarray, objects: np.ndarray) -> bool:
    """Tell whether a boundary map can part objects: low in most of their voxels.

    Parameters
    ----------
    boundary : numpy.ndarray
        ``(nz, ny, nx)``; floats 0-1, or integers in per cent.
    objects : numpy.ndarray
        Bool, same shape.
    """
    counts = np.zeros(1001, np.int64)
    planes = zip(boundary, objects, strict=True)
    for plane, here in releasing(planes, boundary, objects):
        steps = np.clip(chances(plane[here]) * 1000, 0, 1000).astype(np.int64)
        counts += np.bincount(steps, minlength=1001)
    low = counts[: round(1000 * BLURRED)].sum()
    return bool(counts.sum() and 2 * low > counts.sum())


def split_by_outlines(
    mask: np.ndarray, boundary: np.ndarray, apart: float = APART, across: float = ACROSS
) -> np.ndarray:
    """Part object voxels where a boundary map shows outlines.

    Basins of the boundary map (watershed from the places farthest from outlines and background)
    are merged greedily, the pair with the least mean boundary on its shared face first, as in the
    agglomeration of Funke et al. (IEEE TPAMI 2019): an outline with a gap still parts, where most
    of the face shows it. Then those are merged whose face shows little more than their inside
    does: pieces of a double membrane or a cisterna, whose own two outlines fill it.

    Parameters
    ----------
    mask : numpy.ndarray
        Bool ``(nz, ny, nx)``: object voxels.
    boundary : numpy.ndarray
        Float 0-1, same shape.
    apart : float
        Mean boundary (0-1) of a face from which two regions are two.
    across : float
        Weight of faces between slices against those within.

    Returns
    -------
    numpy.ndarray
        int32 regions, 1..N without gaps; 0 where `mask` is False.
    """
    smooth = ndimage.gaussian_filter(np.asarray(boundary, np.float32), (0.7, 0.5, 0.5))
    basins = _basins(mask, smooth)
    regions = _merge(basins, _faces(basins, smooth, across), apart)
    if regions.max() > 1:
        inside = _histograms(regions, smooth)
        faces = _faces(regions, smooth, across)
        regions = _merge(regions, faces, apart, inside, _enclosed(regions, mask, faces))
    return regions


def borders(regions: np.ndarray) -> np.ndarray:
    """Return True in voxels that have a neighbour (by a face) in another region, not in 0."""
    result = np.zeros(regions.shape, bool)
    for one, two in _sides(3):
        differ = (regions[one] != regions[two]) & (regions[one] > 0) & (regions[two] > 0)
        result[one] |= differ
        result[two] |= differ
    return result


def regrow(labels: np.ndarray, regions: np.ndarray, reach: float = 2.0) -> None:
    """Give unlabelled voxels the nearest label of their own region, in place.

    Parameters
    ----------
    labels : numpy.ndarray
        Integers, 0 where unlabelled.
    regions : numpy.ndarray
        Of :func:`split_by_outlines`.
    reach : float
        Voxels.
    """
    steps = np.arange(-int(reach), int(reach) + 1)
    offsets = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    away = np.sum(offsets**2, axis=1)
    near = np.argsort(away, kind="stable")
    near = near[(away[near] > 0) & (away[near] <= reach**2)]
    _regrow(labels, labels.copy(), regions, offsets[near])


@numba.njit(cache=True, nogil=True)
def _regrow(labels, before, regions, offsets):
    """Give unlabelled voxels the first label of their region that the offsets meet."""
    nz, ny, nx = labels.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                region = regions[z, y, x]
                if region == 0 or before[z, y, x]:
                    continue
                for n in range(len(offsets)):
                    i, j, k = z + offsets[n, 0], y + offsets[n, 1], x + offsets[n, 2]
                    if i < 0 or j < 0 or k < 0 or i >= nz or j >= ny or k >= nx:
                        continue
                    if before[i, j, k] and regions[i, j, k] == region:
                        labels[z, y, x] = before[i, j, k]
                        break


def _sides(dimensions: int):
    """Yield the slices of all voxels that have a next neighbour, and of these neighbours."""
    for axis in range(dimensions):
        yield tuple(
            tuple(part if a == axis else slice(None) for a in range(dimensions))
            for part in (slice(None, -1), slice(1, None))
        )


def _basins(mask: np.ndarray, boundary: np.ndarray) -> np.ndarray:
    """Return the basins of a watershed, each from a seed deep inside; more than objects."""
    core = mask & (boundary < INSIDE)
    # Where nothing else is, the border of the array is as far as it goes.
    depth = np.minimum(distance_inside(core, border=False), np.float32(max(core.shape)))
    peaks = peak_local_max(
        ndimage.gaussian_filter(depth, 1.0),
        min_distance=2,
        labels=core.astype(np.int32),
        exclude_border=False,
    ).reshape(-1, mask.ndim)  # none at all: of another shape
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    # What no seed reaches (an object that is all outline) gets one of its own.
    parts, count = ndimage.label(mask)
    seen = np.zeros(count + 1, bool)
    seen[parts[tuple(peaks.T)]] = True
    missed = np.nonzero(~seen[1:])[0] + 1
    number = np.zeros(count + 1, np.int32)
    number[missed] = len(peaks) + 1 + np.arange(len(missed))
    seeds = np.where(number[parts] > 0, number[parts], seeds)
    return watershed(boundary - 0.02 * np.minimum(depth, 10), seeds, mask=mask)


def _faces(basins, boundary, across) -> dict[tuple[int, int], tuple[float, float]]:
    """Return sum of the boundary and weight of each face between two basins."""
    found: dict[tuple[int, int], tuple[float, float]] = {}
    base = int(basins.max()) + 1
    for axis, (one, two) in enumerate(_sides(3)):
        first, second = basins[one], basins[two]
        touch = (first != second) & (first > 0) & (second > 0)
        height = np.maximum(boundary[one], boundary[two])[touch]
        low = np.minimum(first, second)[touch].astype(np.int64)
        high = np.maximum(first, second)[touch]
        keys, inverse = np.unique(low * base + high, return_inverse=True)
        weight = across if axis == 0 else 1.0
        sums = weight * np.bincount(inverse, height, len(keys))
        counts = weight * np.bincount(inverse, minlength=len(keys))
        for key, total, number in zip(keys.tolist(), sums, counts, strict=True):
            before = found.get(divmod(key, base), (0.0, 0.0))
            found[divmod(key, base)] = (before[0] + float(total), before[1] + float(number))
    return found


def _histograms(regions, boundary) -> np.ndarray:
    """Return how many voxels of each region lie in each step of the boundary map."""
    step = np.minimum((boundary * STEPS).astype(np.int64), STEPS - 1)
    number = regions.astype(np.int64) * STEPS + step
    count = int(regions.max()) + 1
    return np.bincount(number.ravel(), minlength=count * STEPS).reshape(count, STEPS)


def _quarter(histogram) -> float:
    """Return the boundary (0-1) below which a quarter of a region lies."""
    below = histogram.cumsum()
    wanted = QUARTER * below[-1]
    step = int(np.searchsorted(below, wanted))
    first = below[step] - histogram[step]
    return float(step + (wanted - first) / max(1, histogram[step])) / STEPS


def _enclosed(regions, mask, faces) -> np.ndarray:
    """Return the numbers of regions that lie in a single other one: no background beside them."""
    beside = np.zeros(int(regions.max()) + 1, np.int64)
    for pair in faces:
        beside[list(pair)] += 1
    for one, two in _sides(3):
        beside[regions[one][~mask[two]]] += 2
        beside[regions[two][~mask[one]]] += 2
    return np.flatnonzero(beside == 1)


def _merge(regions, faces, apart, histograms=None, enclosed=()) -> np.ndarray:
    """Merge neighbours, least evident outline first, while it is below `apart`; number anew.

    Evident is the mean boundary of the face; less what is inside, where histograms of that are
    given, at most ENCLOSED of the regions `enclosed`.
    """
    beside: dict[int, dict[int, tuple[float, float]]] = {}
    for (one, two), face in faces.items():
        beside.setdefault(one, {})[two] = face
        beside.setdefault(two, {})[one] = face
    count = int(regions.max()) + 1
    inside = [0.0] * count if histograms is None else [CONTRAST * _quarter(h) for h in histograms]
    for number in enclosed:
        inside[number] = min(inside[number], ENCLOSED)

    def entry(one, two):
        total, weight = beside[one][two]
        return (total / weight - max(inside[one], inside[two]), min(one, two), max(one, two))

    root = np.arange(count)
    heap = [entry(one, two) for one, two in faces]
    heapq.heapify(heap)
    while heap:
        item = heapq.heappop(heap)
        evidence, one, two = item
        if evidence >= apart:
            break
        if two not in beside.get(one, {}) or entry(one, two) != item:
            continue  # of an earlier state
        if len(beside[one]) < len(beside[two]):
            one, two = two, one
        root[two] = one
        changed = beside.pop(two)
        for other, (total, share) in changed.items():
            del beside[other][two]
            if other != one:
                before = beside[one].get(other, (0.0, 0.0))
                beside[one][other] = beside[other][one] = (before[0] + total, before[1] + share)
        if histograms is not None:
            histograms[one] += histograms[two]
            inside[one] = CONTRAST * _quarter(histograms[one])
            changed = beside[one]
        for other in changed:
            if other != one:
                heapq.heappush(heap, entry(one, other))
    while not np.array_equal(root, root[root]):
        root = root[root]
    kept = np.flatnonzero(root == np.arange(count))  # 0 is, and stays 0
    return np.searchsorted(kept, root).astype(np.int32)[regions]
