"""The clustering stage: threshold, label, fill, judge by solidity, split at necks, merge back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import cc3d
import edt
import fill_voids
import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from tomocensus.cluster.solidity import digital_solidity, lattice_hull, row_extremes

COLUMNS = (
    "instance",
    "voxels",
    "volume_angstrom3",
    "solidity",
    "origin",
    "component",
    "neck_ratio",
    "fill",
    "filled_voxels",
    "touches_border",
    "mean_probability",
    "score",
)


@dataclass(frozen=True)
class ClusterParameters:
    """What decides where one object ends.

    Parameters
    ----------
    threshold : float or "auto"
        Probability (0-1) from which a voxel is object; auto is Otsu's of the map.
    minimum_volume : float
        Å³; smaller objects are specks and dropped.
    solidity : float
        A component at least this solid is one object.
    neck : float
        Two parts stay one where the neck's width is at least this part of the thinner one's.
    fill : bool
        Fill shells slice by slice.
    convexity : bool
        False: connectivity alone.
    """

    threshold: float | str = 0.5
    minimum_volume: float = 50_000.0
    solidity: float = 0.93
    neck: float = 0.8
    fill: bool = True
    convexity: bool = True


@dataclass
class Clustering:
    """Instances ``labels`` (int32, 0 background), one row each in ``table``, totals in ``facts``."""

    labels: np.ndarray
    table: pd.DataFrame
    facts: dict = field(default_factory=dict)


@dataclass
class _Piece:
    """One instance in its crop."""

    start: tuple[int, int, int]
    mask: np.ndarray
    solidity: float
    origin: str
    component: int
    neck_ratio: float
    fill: str
    filled_voxels: int


def decode_probability(data: np.ndarray, scale: float | None = None) -> np.ndarray:
    """Turn another program's map into float32 probabilities.

    Parameters
    ----------
    data : numpy.ndarray
        Binary mask or map.
    scale : float, optional
        The value that means certainty: 1, 100 or 255. By default judged from the largest value.
    """
    if scale is None:
        largest = float(np.max(data)) if data.size else 1.0
        scale = 1.0 if largest <= 1 else 100.0 if largest <= 100 else 255.0
    return np.clip(np.asarray(data, dtype=np.float32) / np.float32(scale), 0, 1)


def cluster(
    probability: np.ndarray,
    voxel_size: float,
    parameters: ClusterParameters | None = None,
    boundary: np.ndarray | None = None,
    membrane: np.ndarray | None = None,
    threads: int = 1,
    mask: np.ndarray | None = None,
) -> Clustering:
    """Group object voxels into instances.

    Parameters
    ----------
    probability : numpy.ndarray
        ``(nz, ny, nx)``; floats 0-1, or integers in per cent.
    voxel_size : float
        Å.
    parameters : ClusterParameters, optional
        Defaults where missing.
    boundary : numpy.ndarray, optional
        Probability of an instance's outline, same scale; lowers the depth of what it crosses.
    membrane : numpy.ndarray, optional
        Not used yet.
    threads : int
        Components are handled in parallel; the result does not depend on it.
    mask : numpy.ndarray, optional
        Voxels outside are background.

    Returns
    -------
    Clustering
        Labels 1..N in the order of their first voxel.
    """
    parameters = parameters or ClusterParameters()
    chance, binary = _chances(probability)
    smooth = chance if binary else ndimage.gaussian_filter(chance, 1.0)
    threshold = parameters.threshold
    if threshold == "auto":
        threshold = float(threshold_otsu(smooth)) if smooth.min() < smooth.max() else 0.5
    objects = smooth >= threshold if threshold > 0 else smooth > 0
    if mask is not None:
        objects &= mask
    edge = None if boundary is None else ndimage.gaussian_filter(_chances(boundary)[0], 0.7)
    components = cc3d.connected_components(objects, connectivity=26)
    boxes = ndimage.find_objects(components)
    smallest = max(1.0, parameters.minimum_volume / voxel_size**3)

    def work(number: int) -> list[_Piece]:
        box = boxes[number - 1]
        crop = components[box] == number
        if np.count_nonzero(crop) < min(smallest, 8) and not parameters.fill:
            return []
        start = tuple(side.start for side in box)
        return _separate(crop, start, number, parameters, None if edge is None else edge[box])

    numbers = range(1, len(boxes) + 1)
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            results = list(pool.map(work, numbers))
    else:
        results = [work(number) for number in numbers]
    pieces = [piece for result in results for piece in result]
    kept = [piece for piece in pieces if np.count_nonzero(piece.mask) >= smallest]
    dropped = sum(int(np.count_nonzero(p.mask)) - p.filled_voxels for p in pieces) - sum(
        int(np.count_nonzero(p.mask)) - p.filled_voxels for p in kept
    )
    labels = _paint(kept, objects.shape)
    table = _table(labels, kept, chance, voxel_size)
    facts = {
        "threshold": float(threshold),
        "object_voxels": int(np.count_nonzero(objects)),
        "components": len(boxes),
        "dropped_specks": len(pieces) - len(kept),
        "dropped_voxels": int(dropped),
        "filled_voxels": int(np.count_nonzero((labels > 0) & ~objects)),
        "instances": len(table),
    }
    return Clustering(labels, table, facts)


def _chances(data: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return a map as float32 0-1 and whether it is binary."""
    data = np.asarray(data)
    if data.dtype == bool:
        return data.astype(np.float32), True
    chance = data.astype(np.float32)
    if data.dtype.kind in "iu":
        chance /= 100
    return chance, bool(np.all((chance == 0) | (chance == 1)))


def fill_slices(mask: np.ndarray) -> np.ndarray:
    """Fill closed rings in every XY slice: shells whose caps the missing wedge took become solid.

    Parameters
    ----------
    mask : numpy.ndarray
        Boolean, ``(nz, ny, nx)``.
    """
    filled = np.zeros_like(mask)
    for z in range(mask.shape[0]):
        if mask[z].any():
            filled[z] = fill_voids.fill(np.ascontiguousarray(mask[z]))
    return filled


def _separate(crop, start, number, parameters, edge) -> list[_Piece]:
    """Judge one component and split it where necks say so."""
    filled = fill_slices(crop) if parameters.fill else crop
    gained = int(np.count_nonzero(filled)) - int(np.count_nonzero(crop))
    how = "slices" if gained else "none"
    solidity = digital_solidity(filled)
    if not parameters.convexity or solidity >= parameters.solidity:
        return [_Piece(start, filled, solidity, "whole", number, 1.0, how, gained)]
    parts, necks, origins = split_at_necks(filled, parameters.solidity, parameters.neck, edge)
    pieces = []
    for label, box in enumerate(ndimage.find_objects(parts), start=1):
        if box is None:
            continue
        piece = parts[box] == label
        place = tuple(a + side.start for a, side in zip(start, box, strict=True))
        extra = int(np.count_nonzero(piece & ~crop[box]))
        pieces.append(
            _Piece(
                place,
                piece,
                digital_solidity(piece),
                origins[label],
                number,
                necks[label],
                "slices" if extra else "none",
                extra,
            )
        )
    return pieces


def split_at_necks(mask, solidity=0.93, neck=0.8, edge=None):
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
        Probability of an outline, 0-1; makes necks narrower where it crosses them.

    Returns
    -------
    parts : numpy.ndarray
        int32 labels 1..N of the parts.
    necks : dict
        Ratio of the widest neck by which each part touches another, 1 for a whole component.
    origins : dict
        ``whole``, ``split`` or ``merged`` for each part.
    """
    padded = np.pad(mask, 1)
    distance = edt.edt(padded, black_border=False)[1:-1, 1:-1, 1:-1]
    depth = ndimage.gaussian_filter(distance, 0.7) * mask
    if edge is not None:
        depth = depth * (1 - 0.5 * edge)
    peaks = (ndimage.maximum_filter(depth, size=3) == depth) & mask & (depth > 0)
    seeds, count = ndimage.label(peaks, np.ones((3, 3, 3)))
    if count <= 1:
        return mask.astype(np.int32), {1: 1.0}, {1: "whole"}
    basins = watershed(-depth, seeds, mask=mask).astype(np.int32)
    merged = _merge(basins, depth, solidity, neck)
    return merged


def _saddles(basins: np.ndarray, depth: np.ndarray) -> dict[tuple[int, int], float]:
    """Return the largest depth at which each pair of neighbouring basins meets."""
    found: dict[tuple[int, int], float] = {}
    for axis in range(3):
        here = [slice(None)] * 3
        there = [slice(None)] * 3
        here[axis], there[axis] = slice(None, -1), slice(1, None)
        a, b = basins[tuple(here)], basins[tuple(there)]
        touching = (a != b) & (a > 0) & (b > 0)
        low, high = np.minimum(a, b)[touching], np.maximum(a, b)[touching]
        height = np.minimum(depth[tuple(here)], depth[tuple(there)])[touching]
        if not len(low):
            continue
        keys = low.astype(np.int64) << 32 | high
        order = np.lexsort((height, keys))
        last = np.append(np.nonzero(np.diff(keys[order]))[0], len(order) - 1)
        for index in order[last]:
            pair = int(low[index]), int(high[index])
            found[pair] = max(found.get(pair, 0.0), float(height[index]))
    return found


def _merge(basins, depth, solidity, neck):
    """Merge basins greedily; the hull of a union comes from the two hulls' vertices."""
    count = int(basins.max())
    peaks = ndimage.maximum(depth, basins, np.arange(count + 1))
    voxels = np.bincount(basins.ravel(), minlength=count + 1)
    corners = {}
    for label, box in enumerate(ndimage.find_objects(basins), start=1):
        points = row_extremes(basins[box] == label)
        corners[label] = lattice_hull(points)[1] + [side.start for side in box]
    saddles = _saddles(basins, depth)
    parent = np.arange(count + 1)
    joined = dict.fromkeys(corners, 1)
    refused: set[tuple[int, int]] = set()
    while True:
        ratios = {
            pair: height / max(min(peaks[pair[0]], peaks[pair[1]]), 1e-6)
            for pair, height in saddles.items()
            if pair not in refused
        }
        if not ratios:
            break
        pair = max(ratios, key=lambda pair: (ratios[pair], -pair[0], -pair[1]))
        a, b = pair
        points = np.concatenate([corners[a], corners[b]])
        shallow = min(peaks[a], peaks[b]) - saddles[pair] < max(
            0.75, 0.15 * min(peaks[a], peaks[b])
        )
        total, vertices = lattice_hull(points)
        solid = (voxels[a] + voxels[b]) / max(total, 1) >= solidity
        if not (solid or shallow or ratios[pair] >= neck):
            refused.add(pair)
            continue
        corners[a] = vertices
        voxels[a] += voxels[b]
        peaks[a] = max(peaks[a], peaks[b])
        joined[a] += joined.pop(b)
        parent[parent == b] = a
        saddles, refused = _rename(saddles, refused, a, b)
    kept = sorted(joined)
    number = np.zeros(count + 1, np.int32)
    for new, old in enumerate(kept, start=1):
        number[parent == old] = new
    number[0] = 0
    necks, origins = {}, {}
    for new, old in enumerate(kept, start=1):
        ratios = [
            height / max(min(peaks[p[0]], peaks[p[1]]), 1e-6)
            for p, height in saddles.items()
            if old in p
        ]
        necks[new] = float(max(ratios, default=1.0))
        origins[new] = "split" if len(kept) > 1 else ("merged" if joined[old] > 1 else "whole")
    return number[basins], necks, origins


def _rename(saddles, refused, a, b):
    """Give the neighbours of `b` to `a` after a merge."""
    renamed: dict[tuple[int, int], float] = {}
    for (first, second), height in saddles.items():
        first, second = (a if first == b else first), (a if second == b else second)
        if first != second:
            pair = min(first, second), max(first, second)
            renamed[pair] = max(renamed.get(pair, 0.0), height)
    # A merged part may be solid with neighbours that it was not with before: try those again.
    return renamed, {pair for pair in refused if not {a, b} & set(pair)}


def _paint(pieces: list[_Piece], shape) -> np.ndarray:
    """Paint the largest first, so that nested objects stay; number by first voxel."""
    labels = np.zeros(shape, np.int32)
    order = sorted(
        range(len(pieces)), key=lambda i: (-np.count_nonzero(pieces[i].mask), pieces[i].start)
    )
    for index in order:
        piece = pieces[index]
        box = tuple(
            slice(a, a + n) for a, n in zip(piece.start, piece.mask.shape, strict=True)
        )
        labels[box][piece.mask] = index + 1
    flat = labels.ravel()
    present, first = np.unique(flat, return_index=True)
    first = first[present > 0]
    present = present[present > 0]
    number = np.zeros(len(pieces) + 1, np.int32)
    number[present[np.argsort(first)]] = np.arange(1, len(present) + 1)
    reordered = [None] * len(present)
    for old, new in enumerate(number):
        if new:
            reordered[new - 1] = pieces[old - 1]
    pieces[:] = reordered
    return number[labels]


def _table(labels, pieces, chance, voxel_size) -> pd.DataFrame:
    """Describe every instance."""
    count = len(pieces)
    index = np.arange(1, count + 1)
    voxels = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    border = np.zeros(count + 1, bool)
    for axis in range(3):
        for side in (0, -1):
            border[np.unique(np.take(labels, side, axis=axis))] = True
    mean = ndimage.mean(chance, labels, index) if count else np.zeros(0)
    table = pd.DataFrame(
        {
            "instance": index,
            "voxels": voxels,
            "volume_angstrom3": voxels * float(voxel_size) ** 3,
            "solidity": [piece.solidity for piece in pieces],
            "origin": [piece.origin for piece in pieces],
            "component": [piece.component for piece in pieces],
            "neck_ratio": [piece.neck_ratio for piece in pieces],
            "fill": [piece.fill for piece in pieces],
            "filled_voxels": [piece.filled_voxels for piece in pieces],
            "touches_border": border[1:],
            "mean_probability": np.asarray(mean, dtype=float),
        }
    )
    table["score"] = table["mean_probability"] * table["solidity"]
    return table[list(COLUMNS)]


def cluster_labels(labels: np.ndarray, voxel_size: float) -> Clustering:
    """Take over another program's labelmap: number it 1..N and describe its objects.

    Parameters
    ----------
    labels : numpy.ndarray
        Integers (or whole floats), 0 background.
    voxel_size : float
        Å.
    """
    given = np.rint(np.asarray(labels)).astype(np.int64)
    given[given < 0] = 0
    names, inverse = np.unique(given, return_inverse=True)
    number = np.arange(len(names)) + (0 if len(names) and names[0] == 0 else 1)
    fresh = number[inverse].reshape(given.shape).astype(np.int32)
    pieces = []
    for label, box in enumerate(ndimage.find_objects(fresh), start=1):
        mask = fresh[box] == label
        start = tuple(side.start for side in box)
        solid = digital_solidity(mask)
        pieces.append(_Piece(start, mask, solid, "given", label, 1.0, "none", 0))
    ones = (fresh > 0).astype(np.float32)
    return Clustering(fresh, _table(fresh, pieces, ones, voxel_size), {"instances": len(pieces)})
