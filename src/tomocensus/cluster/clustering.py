"""The clustering stage: threshold, label, fill, judge by solidity, split at necks, merge back."""

from __future__ import annotations

import heapq
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cc3d
import edt
import fill_voids
import numba
import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from tomocensus.cluster.outlines import borders, regrow, split_by_outlines
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


# A boundary map with a higher median inside objects is too blurred to part them.
_BLURRED = 0.2
# Where outlines part, objects are judged as a whole (`minimum_probability`), so fainter voxels may
# join in: this part of the threshold.
_OUTLINED = 0.8


@dataclass(frozen=True)
class ClusterParameters:
    """What decides where one object ends.

    Parameters
    ----------
    threshold : float or "auto"
        Probability (0-1) from which a voxel is object; auto is Otsu's of the map. Where a boundary
        map parts the objects, 0.8 of it: haze is dropped by `minimum_probability` then.
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
    minimum_probability : float
        Instances with a lower mean probability are dropped: haze that passes the threshold. Not
        used with the threshold ``auto``.
    """

    threshold: float | str = 0.5
    minimum_volume: float = 50_000.0
    solidity: float = 0.98
    neck: float = 0.8
    fill: bool = True
    convexity: bool = True
    minimum_probability: float = 0.65


@dataclass
class Clustering:
    """Labels (int32, 0 background), one row of the table for each, and totals in facts."""

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
    slab: int = 128,
    scratch: str | Path | None = None,
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
        Probability of an instance's outline, same scale: parts what touches before convexity does
        (:func:`tomocensus.cluster.outlines.split_by_outlines`). Volumes with `scratch` are not
        parted so, only cut less deep.
    membrane : numpy.ndarray, optional
        Not used yet.
    threads : int
        Components are handled in parallel; the result does not depend on it.
    mask : numpy.ndarray, optional
        Voxels outside are background.
    slab : int
        Slices labelled at a time; the result does not depend on it.
    scratch : path, optional
        Existing folder for the arrays of the volume's size, which then need no memory: for volumes
        that do not fit. The labels are a memory map of a file there; its owner deletes it.

    Returns
    -------
    Clustering
        Labels 1..N in the order of their first voxel.
    """
    parameters = parameters or ClusterParameters()
    probability = np.asarray(probability)
    binary = _is_binary(probability)
    threshold = parameters.threshold
    if threshold == "auto":
        threshold = _otsu(probability, binary)
    objects = _objects(probability, threshold, binary, mask, scratch)
    edge = regions = None
    if boundary is not None and scratch is None and parameters.convexity:
        chances = _chances(np.asarray(boundary))
        if objects.any() and np.median(chances[objects]) < _BLURRED:
            threshold *= _OUTLINED
            objects = _objects(probability, threshold, binary, mask, scratch)
            regions = split_by_outlines(objects, chances)
    if boundary is not None and regions is None:
        edge = np.zeros(probability.shape, bool)
        for z, smooth in _smooth_slabs(np.asarray(boundary), 0.7):
            edge[z] = smooth >= 0.5
    components = _zeros(objects.shape, np.int32, scratch)
    inside = objects if regions is None else objects & ~borders(regions)
    boxes = ndimage.find_objects(components, label_slabs(inside, components, slab))
    smallest = max(1.0, parameters.minimum_volume / voxel_size**3)

    def work(number: int) -> list[_Piece]:
        box = boxes[number - 1]
        crop = components[box] == number
        start = tuple(side.start for side in box)
        return _separate(
            crop, start, number, parameters, None if edge is None else edge[box], smallest
        )

    numbers = range(1, len(boxes) + 1)
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            results = list(pool.map(work, numbers))
    else:
        results = [work(number) for number in numbers]
    pieces = [piece for result in results for piece in result]
    kept = [piece for piece in pieces if np.count_nonzero(piece.mask) >= smallest]
    # Every piece holds its own mask: the components' memory serves for the labels.
    labels = _paint(kept, components)
    if regions is not None:
        regrow(labels, regions)
        _note_parted(kept, labels, objects)
    labels, kept, weak = _in_order(*_without_weak(labels, kept, probability, objects, parameters))
    table = _table(labels, kept, probability, objects, voxel_size)
    lost = gained = total = 0
    for seen, label in zip(objects, labels, strict=True):
        total += int(np.count_nonzero(seen))
        lost += int(np.count_nonzero(seen & (label == 0)))
        gained += int(np.count_nonzero(~seen & (label > 0)))
    facts = {
        "threshold": float(threshold),
        "object_voxels": total,
        "components": len(boxes),
        "dropped_specks": len(pieces) - len(kept) - weak,
        "dropped_weak": weak,
        "dropped_voxels": lost,
        "filled_voxels": gained,
        "instances": len(table),
    }
    return Clustering(labels, table, facts)


def _objects(probability, threshold, binary, mask, scratch) -> np.ndarray:
    """Return True in the voxels from the threshold on, and within the mask."""
    objects = _zeros(probability.shape, bool, scratch)
    # A binary map needs no smoothing, nor floats.
    for z, smooth in [] if binary else _smooth_slabs(probability, 1.0):
        objects[z] = smooth >= threshold if threshold > 0 else smooth > 0
    for z in range(len(objects)) if binary else ():
        objects[z] = probability[z] > 0
    if mask is not None:
        for plane, allowed in zip(objects, mask, strict=True):
            plane &= np.asarray(allowed, dtype=bool)
    return objects


def _note_parted(pieces, labels, objects) -> None:
    """Call split what shares a component of the objects with another piece."""
    components, _ = ndimage.label(objects, np.ones((3, 3, 3), bool))
    numbers = [
        int(components[tuple(place)])
        for place in (np.argwhere(piece.mask)[0] + np.array(piece.start) for piece in pieces)
    ]
    for piece, number in zip(pieces, numbers, strict=True):
        piece.component = number
        if piece.origin == "whole" and numbers.count(number) > 1:
            piece.origin = "split"


def _in_order(labels, pieces, weak):
    """Number instances by their first voxel again."""
    flat = labels.ravel()
    seen, first = np.unique(flat, return_index=True)
    seen, first = seen[seen > 0], first[seen > 0]
    order = seen[np.argsort(first, kind="stable")]
    if np.array_equal(order, np.arange(1, len(pieces) + 1)):
        return labels, pieces, weak
    number = np.zeros(len(pieces) + 1, labels.dtype)
    number[order] = np.arange(1, len(order) + 1)
    for plane in labels:
        plane[...] = number[plane]
    return labels, [pieces[label - 1] for label in order], weak


def _without_weak(labels, pieces, probability, objects, parameters):
    """Drop instances of low mean probability; return labels, pieces and how many were dropped.

    Not where the threshold is automatic: then the map's scale is its own.
    """
    if parameters.threshold == "auto":
        return labels, pieces, 0
    mean = _mean_probability(labels, len(pieces), probability, objects)
    good = mean >= parameters.minimum_probability - 1e-6
    if good.all():
        return labels, pieces, 0
    number = np.zeros(len(pieces) + 1, labels.dtype)
    number[1:][good] = np.arange(1, good.sum() + 1)
    for plane in labels:
        plane[...] = number[plane]
    return labels, [p for p, keep in zip(pieces, good, strict=True) if keep], int((~good).sum())


def _mean_probability(labels, count, probability, objects) -> np.ndarray:
    """Return the mean probability of each instance's unfilled voxels."""
    total, own = np.zeros(count + 1), np.zeros(count + 1)
    for plane, chance, here in zip(labels, probability, objects, strict=True):
        seen = plane[here]
        own += np.bincount(seen, minlength=count + 1)
        total += np.bincount(seen, weights=_chances(chance)[here], minlength=count + 1)
    return (total / np.maximum(own, 1))[1:]


def _zeros(shape, dtype, scratch) -> np.ndarray:
    """Return zeros in memory, or in a file of their own in the folder `scratch`."""
    if scratch is None:
        return np.zeros(shape, dtype)
    with tempfile.NamedTemporaryFile(dir=scratch, suffix=".raw", delete=False) as file:
        return np.memmap(file.name, dtype, "w+", shape=tuple(shape))


def label_slabs(objects: np.ndarray, out: np.ndarray, slab: int = 128) -> int:
    """Label connected components (26 neighbours) slab by slab, joined by union-find.

    Parameters
    ----------
    objects : numpy.ndarray
        Boolean, ``(nz, ny, nx)``, or anything that gives such slices along z.
    out : numpy.ndarray
        int32, same shape; filled with 1..N in the order of the components' first voxels.
    slab : int
        Slices in memory at a time; the result does not depend on it.

    Returns
    -------
    int
        N.
    """
    joints = []
    count = 0
    last = None
    for z in range(0, objects.shape[0], slab):
        part = np.ascontiguousarray(objects[z : z + slab])
        labels, found = cc3d.connected_components(part, connectivity=26, return_N=True)
        labels = labels.astype(np.int32, copy=False)
        if count:
            _number_on(labels.reshape(-1), count)
        if last is not None:
            joints += _touching(last, labels[0])
        out[z : z + slab] = labels
        last = labels[-1].copy()
        count += found
    parents = np.arange(count + 1)
    for a, b in joints:
        while parents[a] != a:
            parents[a] = a = parents[parents[a]]
        while parents[b] != b:
            parents[b] = b = parents[parents[b]]
        # The smaller number lies first.
        parents[max(a, b)] = min(a, b)
    for number in range(count + 1):
        parents[number] = parents[parents[number]]
    roots = np.flatnonzero(parents == np.arange(count + 1))
    final = np.zeros(count + 1, np.int32)
    final[roots] = np.arange(len(roots))
    final = final[parents]
    if joints:
        for plane in range(objects.shape[0]):
            out[plane] = final[out[plane]]
    return len(roots) - 1


@numba.njit(cache=True, nogil=True)
def _number_on(labels, count):
    """Raise all labels but 0 by `count`."""
    for index in range(len(labels)):
        if labels[index]:
            labels[index] += count


def _touching(one: np.ndarray, two: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of labels that touch between two planes, one upon the other."""
    pairs = []
    wide = np.pad(two, 1)
    for y in range(3):
        for x in range(3):
            other = wide[y : y + one.shape[0], x : x + one.shape[1]]
            both = (one > 0) & (other > 0)
            pairs.append(np.unique(np.stack([one[both], other[both]], axis=1), axis=0))
    return [(int(a), int(b)) for a, b in np.unique(np.concatenate(pairs), axis=0)]


def _chances(data: np.ndarray) -> np.ndarray:
    """Return a map (0-1, per cent or boolean) as float32 0-1."""
    chance = np.asarray(data, dtype=np.float32)
    return chance / 100 if data.dtype.kind in "iu" else chance


def _is_binary(data: np.ndarray) -> bool:
    """Tell whether a map holds only 0 and certainty."""
    if data.dtype == bool:
        return True
    top = 100 if data.dtype.kind in "iu" else 1
    return all(np.all((plane == 0) | (plane == top)) for plane in data)


def _smooth_slabs(data: np.ndarray, sigma: float, depth: int = 32):
    """Yield z slices and the smoothed probabilities there; the same as smoothing all at once."""
    halo = int(np.ceil(4 * sigma))
    for z in range(0, data.shape[0], depth):
        low, end = max(0, z - halo), min(z + depth, data.shape[0])
        slab = _chances(data[low : min(end + halo, data.shape[0])])
        if sigma:
            slab = ndimage.gaussian_filter(slab, sigma)
        yield slice(z, end), slab[z - low : end - low]


def _otsu(data: np.ndarray, binary: bool) -> float:
    """Return Otsu's threshold of the smoothed map, 0.5 for a constant one."""
    counts = np.zeros(256, np.int64)
    for _, smooth in _smooth_slabs(data, 0.0 if binary else 1.0):
        counts += np.histogram(smooth, 256, (0, 1))[0]
    if np.count_nonzero(counts) < 2:
        return 0.5
    return float(threshold_otsu(hist=(counts, (np.arange(256) + 0.5) / 256)))


def fill_slices(mask: np.ndarray) -> np.ndarray:
    """Fill closed rings in every XY slice: shells whose caps the missing wedge took become solid.

    Parameters
    ----------
    mask : numpy.ndarray
        Boolean, ``(nz, ny, nx)``.
    """
    filled = _fill_planes(mask)
    lumens = filled & ~mask
    if lumens.any():
        # A slice whose ring is torn lies between slices whose rings are not.
        bridged = ndimage.binary_closing(
            np.pad(lumens, ((3, 3), (0, 0), (0, 0))), np.ones((5, 1, 1))
        )
        filled |= bridged[3:-3]
        # A closed shell's torn slices are closed rings along both other axes.
        across = [_fill_planes(mask.swapaxes(0, axis)).swapaxes(0, axis) for axis in (1, 2)]
        filled |= across[0] & across[1]
    return filled


def _fill_planes(mask: np.ndarray) -> np.ndarray:
    """Fill the holes of every plane along the first axis."""
    filled = np.zeros_like(mask)
    for z in range(mask.shape[0]):
        if mask[z].any():
            filled[z] = fill_voids.fill(np.ascontiguousarray(mask[z]))
    return filled


def find_lumens(mask: np.ndarray, contact: float = 0.52, solidity: float = 0.87) -> np.ndarray:
    """Find the insides of shells that are torn open, where filling slices cannot.

    Basins of the distance to the membrane are joined over wide openings. A lumen is a basin
    that is convex and mostly walled; the gaps between packed vesicles are walled but concave.

    Parameters
    ----------
    mask : numpy.ndarray
        Boolean, one component.
    contact : float
        Least part of a lumen's surface that is membrane.
    solidity : float
        Least digital solidity of a lumen.

    Returns
    -------
    numpy.ndarray
        int32 labels 1..N of the lumens, in the shape of `mask`.
    """
    # The caps are missing where the crop ends: room for the basins outside.
    padded = np.pad(mask, 4)
    inner = (slice(4, -4),) * 3
    depth = ndimage.gaussian_filter(edt.edt(~padded, black_border=False), 0.7) * ~padded
    peaks = (ndimage.maximum_filter(depth, size=3) == depth) & (depth > 2)
    seeds, count = ndimage.label(peaks, np.ones((3, 3, 3)))
    lumens = np.zeros(mask.shape, np.int32)
    if not count:
        return lumens
    around = np.ones((3, 3, 3), bool)
    basins = watershed(-depth, seeds, connectivity=around, mask=~padded).astype(np.int32)
    graph = _Basins(basins, depth)
    graph.merge_shallow(1.0)
    graph.merge(lambda _, a, b: graph.ratio(a, b) >= 0.8 or graph.solidity(a, b) >= 0.93)
    basins, _, _ = graph.result()
    walled, open_faces = _count_faces(basins, padded)
    basins = basins[inner]
    found = 0
    for label, box in enumerate(ndimage.find_objects(basins), start=1):
        faces = walled[label] + open_faces[label]
        if box is None or walled[label] < contact * faces:
            continue
        part = basins[box] == label
        if digital_solidity(part) >= solidity:
            found += 1
            lumens[box][part] = found
    return lumens


def _count_faces(basins: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count each basin's voxel faces to the mask, and to other basins or out of the array."""
    basins, mask = np.pad(basins, 1), np.pad(mask, 1)
    size = int(basins.max()) + 1
    walled, opened = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for offset in ((0, 0, 1), (0, 1, 0), (1, 0, 0)):
        slices = _shifted(offset)
        for one, two in (slices, slices[::-1]):
            mine = basins[one]
            inside = mine > 0
            walled += np.bincount(mine[inside & mask[two]], minlength=size)
            other = inside & ~mask[two] & (basins[two] != mine)
            opened += np.bincount(mine[other], minlength=size)
    return walled, opened


def _shifted(offset):
    """Return the two slices that lay a volume over itself shifted by `offset`."""
    here = tuple(slice(max(0, -step), -step if step > 0 else None) for step in offset)
    there = tuple(slice(max(0, step), step if step < 0 else None) for step in offset)
    return here, there


def _with_lumens(crop, start, number, parameters, edge, smallest) -> list[_Piece]:
    """Build objects from lumens and the membrane next to them; the rest is judged by itself."""
    lumens = find_lumens(crop)
    if not lumens.any():
        return []
    distance, nearest = ndimage.distance_transform_edt(lumens == 0, return_indices=True)
    depth = edt.edt(np.pad(crop, 1), black_border=False)[1:-1, 1:-1, 1:-1]
    # The median, for a solid neighbour must not pass for a thick wall.
    wall = 2 * np.median(depth[crop & (distance <= 2.5)])
    near = (distance <= wall + 1) & crop
    objects = np.where(near, lumens[tuple(nearest)], lumens)
    pieces = []
    for label, box in enumerate(ndimage.find_objects(objects), start=1):
        piece = objects[box] == label
        place = tuple(a + side.start for a, side in zip(start, box, strict=True))
        gained = int(np.count_nonzero(piece & ~crop[box]))
        solidity = digital_solidity(piece)
        pieces.append(_Piece(place, piece, solidity, "split", number, 0.0, "lumen", gained))
    if len(pieces) == 1:
        pieces[0].origin, pieces[0].neck_ratio = "whole", 1.0
    rest = cc3d.connected_components(crop & (objects == 0), connectivity=26)
    for label, box in enumerate(ndimage.find_objects(rest), start=1):
        place = tuple(a + side.start for a, side in zip(start, box, strict=True))
        near_edge = None if edge is None else edge[box]
        pieces += _by_necks(rest[box] == label, place, number, parameters, near_edge, smallest)
    return pieces


def _separate(crop, start, number, parameters, edge, smallest) -> list[_Piece]:
    """Turn one component into pieces, with lumens where slice-wise filling leaves shells open."""
    pieces = _by_necks(crop, start, number, parameters, edge, smallest)
    if not (parameters.fill and parameters.convexity) or np.count_nonzero(crop) < 4 * smallest:
        return pieces
    total = sum(np.count_nonzero(piece.mask) for piece in pieces)
    if _convex_voxels(pieces) >= 0.8 * total or any(_sparse(piece) for piece in pieces):
        return pieces
    others = _with_lumens(crop, start, number, parameters, edge, smallest)
    return others if _convex_voxels(others) > 1.2 * _convex_voxels(pieces) else pieces


def _convex_voxels(pieces: list[_Piece]) -> int:
    """Count the voxels that nearly convex pieces explain."""
    return sum(np.count_nonzero(piece.mask) for piece in pieces if piece.solidity >= 0.85)


def _sparse(piece: _Piece) -> bool:
    """Tell a wide thin sheet or net, which fills almost nothing of its hull."""
    return piece.solidity < 0.05 and piece.origin == "sheet"


def _by_necks(crop, start, number, parameters, edge, smallest) -> list[_Piece]:
    """Fill one component, judge it and split it where necks say so."""
    filled = fill_slices(crop) if parameters.fill else crop
    gained = int(np.count_nonzero(filled)) - int(np.count_nonzero(crop))
    how = "slices" if gained else "none"
    if np.count_nonzero(filled) < smallest:
        # A speck, which is dropped and counted.
        return [_Piece(start, filled, 0.0, "whole", number, 1.0, how, gained)]
    if gained and parameters.convexity:
        shared = find_shared_walls(crop, filled, smallest)
        if shared is not None:
            edge = shared if edge is None else edge | shared
    solidity = digital_solidity(filled)
    solid = solidity >= parameters.solidity and edge is None
    if not parameters.convexity or solid:
        return [_Piece(start, filled, solidity, "whole", number, 1.0, how, gained)]
    if solidity < 0.05 and _is_sheet(filled, solidity):
        return [_Piece(start, filled, solidity, "sheet", number, 1.0, how, gained)]
    parts, necks, origins = split_at_necks(
        filled, parameters.solidity, parameters.neck, edge, smallest
    )
    pieces = []
    thin = 0
    for label, box in enumerate(ndimage.find_objects(parts), start=1):
        piece = parts[box] == label
        place = tuple(a + side.start for a, side in zip(start, box, strict=True))
        extra = int(np.count_nonzero(piece & ~crop[box]))
        part_solidity = digital_solidity(piece)
        origin = "sheet" if _is_sheet(piece, part_solidity) else origins[label]
        thin += np.count_nonzero(piece) if origin == "sheet" and part_solidity < 0.1 else 0
        fill = how if extra else "none"
        pieces.append(
            _Piece(place, piece, part_solidity, origin, number, necks[label], fill, extra)
        )
    if len(pieces) > 1 and thin > 0.9 * np.count_nonzero(filled):
        # Thin parts of a bent membrane: necks mean nothing there.
        return [_Piece(start, filled, solidity, "sheet", number, 1.0, how, gained)]
    return pieces


def find_shared_walls(mask: np.ndarray, filled: np.ndarray, smallest: float = 1.0):
    """Find the membrane between two neighbouring lumens: two shells pressed against each other.

    Parameters
    ----------
    mask, filled : numpy.ndarray
        Boolean, one component before and after `fill_slices`.
    smallest : float
        Voxels of the smallest object; lumens below a fifth of it, and concave ones such as the
        gaps between packed shells, do not count.

    Returns
    -------
    numpy.ndarray or None
        Boolean; None where there are no two lumens.
    """
    lumens, count = cc3d.connected_components(filled & ~mask, connectivity=6, return_N=True)
    convex = np.zeros(count + 1, bool)
    sizes = np.bincount(lumens.ravel(), minlength=count + 1)
    if np.count_nonzero(sizes[1:] >= 0.2 * smallest) < 2:
        return None
    for label, box in enumerate(ndimage.find_objects(lumens.astype(np.int32)), start=1):
        if sizes[label] >= 0.2 * smallest:
            convex[label] = digital_solidity(lumens[box] == label) >= 0.8
    if np.count_nonzero(convex) < 2:
        return None
    lumens = np.where(convex[lumens], lumens, 0).astype(np.int32)
    beside = mask & ndimage.maximum_filter(lumens > 0, size=3)
    thick = edt.edt(np.pad(mask, 1), black_border=False)[1:-1, 1:-1, 1:-1]
    inner = ndimage.maximum_filter(thick, size=3)[beside]
    reach = int(np.ceil(2 * np.median(inner)))
    # The bars of a net are no membranes: what parts lumens is thin compared with them.
    wide = 2 * edt.edt(np.pad(lumens, 1), black_border=False).max()
    if wide < 2.5 * reach:
        return None
    largest = ndimage.maximum_filter(lumens, size=2 * reach + 1)
    none = np.iinfo(np.int32).max
    least = ndimage.minimum_filter(np.where(lumens, lumens, none), size=2 * reach + 1)
    shared = mask & (largest > 0) & (least != largest)
    return shared if shared.any() else None


def _is_sheet(mask: np.ndarray, solidity: float) -> bool:
    """Tell sheets and nets, whose hull means nothing: hollow hull, thin everywhere."""
    if solidity >= 0.4:
        return False
    thickness = float(edt.edt(np.pad(mask, 1), black_border=False).max())
    return np.count_nonzero(mask) > 500 * thickness**3


def depth_map(mask: np.ndarray, edge: np.ndarray | None = None) -> np.ndarray:
    """Return each voxel's distance to the surface in voxels, lightly smoothed.

    Parameters
    ----------
    mask : numpy.ndarray
        Boolean, one component; the border of the array is no surface of the object beyond it.
    edge : numpy.ndarray, optional
        Boolean; where an outline is predicted. A wall inside the mask counts like its surface.
    """
    inner = (slice(1, -1),) * 3
    depth = edt.edt(np.pad(mask, 1), black_border=False)[inner]
    if edge is not None:
        wall = mask & edge
        if wall.any():
            # The surface itself is predicted as outline too, one voxel deep: hence + 1.
            depth = np.minimum(depth, edt.edt(np.pad(~wall, 1, constant_values=True))[inner] + 1)
    return ndimage.gaussian_filter(depth, 0.7) * mask


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
        Ratio of the widest neck by which each part touches another, 1 for a whole component.
    origins : dict
        ``whole``, ``split`` or ``merged`` for each part.
    """
    small = edge is None and mask.size < FINE_VOXELS
    if small and edt.edt(np.pad(mask, 1), black_border=False).max() < FINE_DEPTH:
        return _split_fine(mask, solidity, neck, smallest)
    return _split(mask, solidity, neck, edge, smallest)


# Objects thinner than this many voxels from surface to middle are split on a grid twice as fine.
FINE_DEPTH = 8
FINE_VOXELS = 200_000


def _split_fine(mask, solidity, neck, smallest):
    """Split a small component on a grid twice as fine, with its steps smoothed."""
    soft = ndimage.gaussian_filter(np.pad(mask, 2).astype(np.float32), 0.35)
    fine = ndimage.zoom(soft, 2, order=1, grid_mode=True, mode="nearest") >= 0.5
    parts, necks, origins = _split(fine, solidity, neck, None, 8 * smallest, ripple=0.3)
    nz, ny, nx = (n // 2 for n in parts.shape)
    coarse = parts.reshape(nz, 2, ny, 2, nx, 2).max(axis=(1, 3, 5))[2:-2, 2:-2, 2:-2] * mask
    if np.any(mask & (coarse == 0)):
        nearest = ndimage.distance_transform_edt(
            coarse == 0, return_distances=False, return_indices=True
        )
        coarse = coarse[tuple(nearest)] * mask
    return coarse.astype(np.int32), necks, origins


def _split(mask, solidity, neck, edge, smallest, ripple=0.6):
    """Split one component on its own grid; see `split_at_necks`."""
    depth = depth_map(mask, edge)
    peaks = (ndimage.maximum_filter(depth, size=3) == depth) & mask & (depth > 0)
    seeds, count = ndimage.label(peaks, np.ones((3, 3, 3)))
    if count <= 1:
        return mask.astype(np.int32), {1: 1.0}, {1: "whole"}
    around = ndimage.generate_binary_structure(3, 3)
    basins = watershed(-depth, seeds, connectivity=around, mask=mask).astype(np.int32)
    graph = _Basins(basins, depth)
    graph.merge_shallow(smallest, ripple)
    graph.merge(_one_object(solidity, neck, walls=edge is not None))
    return graph.result()


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


def _one_object(solidity: float, neck: float, walls: bool):
    """Return the rule that tells whether two neighbouring parts are one object.

    A crease, where two surfaces meet at an angle, is evidence for two objects even where it is
    wide; a smooth waist is so only where it is narrow.
    """
    crease = min(neck + 0.1, 0.9)
    waist = max(neck - 0.3, 0.0)

    def rule(graph: _Basins, a: int, b: int) -> bool:
        ratio = graph.ratio(a, b)
        if ratio >= crease:
            return True
        if walls and ratio < waist:
            return False
        if graph.solidity(a, b) >= solidity:
            return True
        if ratio < waist:
            return False
        # Voxels blur the creases of small objects.
        soft = np.interp(min(graph.peak[a], graph.peak[b]), (8, 16), (0.45, 0.6))
        limit = np.interp(graph.sharpness(a, b), (soft, soft + 0.15), (waist, crease))
        return ratio >= limit

    return rule


class _Basins:
    """Basins of one component as a graph; edges are the saddles between neighbours."""

    def __init__(self, basins: np.ndarray, depth: np.ndarray):
        self.basins, self.depth = basins, depth
        count = int(basins.max())
        self.peak = ndimage.maximum(depth, basins, np.arange(count + 1))
        self.voxels = np.bincount(basins.ravel(), minlength=count + 1)
        self.members = {label: [label] for label in range(1, count + 1)}
        self.root = np.arange(count + 1)
        self.hulls: dict[int, tuple[int, np.ndarray]] = {}
        self.boxes = ndimage.find_objects(basins)
        self.saddle: dict[int, dict[int, tuple[float, np.ndarray]]]
        self.saddle = {label: {} for label in self.members}
        for key, height, point in zip(*_saddles(basins, depth), strict=True):
            a, b = int(key) >> 32, int(key) & 0xFFFFFFFF
            self.saddle[a][b] = self.saddle[b][a] = (float(height), point)

    def ratio(self, a: int, b: int) -> float:
        """Return the neck's width over the thinner part's."""
        return self.saddle[a][b][0] / max(min(self.peak[a], self.peak[b]), 1e-6)

    def hull(self, label: int) -> tuple[int, np.ndarray]:
        """Return lattice points and vertices of a part's hull, made from those of its basins."""
        if label not in self.hulls:
            points = []
            for member in self.members[label]:
                box = self.boxes[member - 1]
                corner = [side.start for side in box]
                points.append(row_extremes(self.basins[box] == member) + corner)
            self.hulls[label] = lattice_hull(np.concatenate(points))
        return self.hulls[label]

    def solidity(self, a: int, b: int) -> float:
        """Return the digital solidity of the union of two parts."""
        points = np.concatenate([self.hull(a)[1], self.hull(b)[1]])
        return (self.voxels[a] + self.voxels[b]) / max(lattice_hull(points)[0], 1)

    def part_solidity(self, a: int) -> float:
        """Return the digital solidity of one part."""
        return self.voxels[a] / max(self.hull(a)[0], 1)

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

    def merge_shallow(self, smallest: float, ripple: float = 0.6):
        """Undo basins that are ripples of the surface, and parts that are specks."""

        def rule(graph, a, b):
            thinner = min(graph.peak[a], graph.peak[b])
            shallow = thinner - graph.saddle[a][b][0] < max(ripple, 0.1 * thinner)
            return shallow or min(graph.voxels[a], graph.voxels[b]) < smallest

        self.merge(rule)

    def merge(self, rule):
        """Merge greedily by a rule, the widest neck first, until no pair may be merged."""
        pairs = ((a, b) for a, others in self.saddle.items() for b in others if a < b)
        heap = [(-self.ratio(a, b), a, b) for a, b in pairs]
        heapq.heapify(heap)
        while heap:
            ratio, a, b = heapq.heappop(heap)
            if b not in self.saddle.get(a, {}) or self.ratio(a, b) != -ratio:
                continue
            if not rule(self, a, b):
                continue
            self._join(a, b)
            # A merged part may suit neighbours that it did not suit before: try them all again.
            for other in self.saddle[a]:
                low, high = min(a, other), max(a, other)
                heapq.heappush(heap, (-self.ratio(low, high), low, high))

    def _join(self, a, b):
        """Make `b` part of `a`."""
        if a in self.hulls and b in self.hulls:
            self.hulls[a] = lattice_hull(np.concatenate([self.hulls[a][1], self.hulls[b][1]]))
        else:
            self.hulls.pop(a, None)
        self.hulls.pop(b, None)
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
        for new, old in enumerate(sorted(self.members), start=1):
            number[self.members[old]] = new
            ratios = [self.ratio(old, other) for other in self.saddle[old]]
            necks[new] = float(max(ratios, default=1.0))
            joined = "merged" if len(self.members[old]) > 1 else "whole"
            origins[new] = "split" if len(self.members) > 1 else joined
        return number[self.basins], necks, origins


def _paint(pieces: list[_Piece], labels: np.ndarray) -> np.ndarray:
    """Paint the largest first, so that nested objects stay; number by first voxel."""
    shape = labels.shape
    for plane in labels:
        plane[:] = 0
    order = sorted(
        range(len(pieces)), key=lambda i: (-np.count_nonzero(pieces[i].mask), pieces[i].start)
    )
    for index in order:
        piece = pieces[index]
        box = tuple(slice(a, a + n) for a, n in zip(piece.start, piece.mask.shape, strict=True))
        labels[box][piece.mask] = index + 1
    places = np.full(len(pieces) + 1, -1, np.int64)
    for z in range(shape[0]):
        _note_first(labels[z].ravel(), z * shape[1] * shape[2], places)
    present = np.flatnonzero(places >= 0)
    number = np.zeros(len(pieces) + 1, np.int32)
    number[present[np.argsort(places[present])]] = np.arange(1, len(present) + 1)
    reordered = [None] * len(present)
    for old, new in enumerate(number):
        if new:
            reordered[new - 1] = pieces[old - 1]
    pieces[:] = reordered
    for plane in labels:
        plane[:] = number[plane]
    return labels


@numba.njit(cache=True, nogil=True)
def _note_first(plane, offset, places):
    """Note where each label comes first."""
    for index in range(len(plane)):
        label = plane[index]
        if label and places[label] < 0:
            places[label] = offset + index


def _table(labels, pieces, probability, objects, voxel_size) -> pd.DataFrame:
    """Describe every instance; probabilities are those of its unfilled voxels."""
    count = len(pieces)
    index = np.arange(1, count + 1)
    voxels = sum(
        (np.bincount(p.ravel(), minlength=count + 1) for p in labels), np.zeros(count + 1, int)
    )[1:]
    border = np.zeros(count + 1, bool)
    for axis in range(3):
        for side in (0, -1):
            border[np.unique(np.take(labels, side, axis=axis))] = True
    mean = _mean_probability(labels, count, probability, objects)
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
            "mean_probability": mean,
        }
    )
    # A cut through a wide neck is a doubtful one: half the score at a ratio of 1.
    doubt = np.where(table["origin"] == "split", 0.5 * table["neck_ratio"].clip(0, 1), 0.0)
    table["score"] = table["mean_probability"] * (1 - doubt)
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
    return Clustering(
        fresh, _table(fresh, pieces, ones, fresh > 0, voxel_size), {"instances": len(pieces)}
    )
