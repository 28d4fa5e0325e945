"""The clustering stage: threshold, label, part by outlines, fill, judge by solidity, split."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

import numba
import numpy as np
import pandas as pd
from skimage.filters import threshold_otsu

from tomocensus.cluster.labelling import Runs, find_runs, renumber
from tomocensus.cluster.levels import LEVELS, part_by_levels, percolates, reaches_across
from tomocensus.cluster.outlines import is_sharp
from tomocensus.cluster.pieces import CONVEX, CUBES, Piece, part_by_outlines, separate
from tomocensus.cluster.smoothing import chances, smooth_box
from tomocensus.cluster.solidity import digital_solidity
from tomocensus.cluster.table import describe, for_each, paint
from tomocensus.errors import InputError
from tomocensus.parallel import each, spans
from tomocensus.volume import certain_value, looked_in, release_pages, releasing

# Slices smoothed at a time by each thread.
_DEPTH = 16
# Where outlines part, objects are judged as a whole (`minimum_probability`), so fainter voxels may
# join in: this part of the threshold.
_OUTLINED = 0.8
# Part of the voxels in convex pieces and sheets from which these explain a map. It was at most 0.05
# of ragged maps, 0.9 of clean crowded ones; where it is less than this, levels did better.
_EXPLAINED = 0.3
# The same, from which shells with fainter walls are not looked for: at this part of the threshold.
_CLEAR, _FAINT = 0.9, 0.6
# What is filled to that part is a shell; shells must hold so many times the voxels then (closed,
# they hold their lumens), and be this part of all.
_HOLLOW, _GAIN, _WORTH = 0.2, 1.3, 0.05
# Part of a given object from which a piece of it, apart from the rest, is no crumb.
PART = 0.01
# Voxels of a volume up to which levels are looked at: they take 40 bytes each.
_LEVELS_UP_TO = 300_000_000


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
    levels : bool
        Where shells close only at 0.6 of the threshold, take that; and where most object voxels
        hang together and necks do not part them into convex objects, look for each object at a
        level of its own (:mod:`tomocensus.cluster.levels`). Not used with a boundary map, a binary
        mask or the threshold ``auto``; levels neither where voxels are no cubes or more than 300
        million.
    """

    threshold: float | str = 0.5
    minimum_volume: float = 300_000.0
    solidity: float = 0.98
    neck: float = 0.8
    fill: bool = True
    convexity: bool = True
    minimum_probability: float = 0.68
    levels: bool = True


@dataclass
class Clustering:
    """Labels (int32, 0 background), one row of the table for each, and totals in facts."""

    labels: np.ndarray
    table: pd.DataFrame
    facts: dict = field(default_factory=dict)


def decode_probability(
    data: np.ndarray, scale: float | None = None, scratch: str | Path | None = None
) -> np.ndarray:
    """Turn another program's map into float32 probabilities.

    Parameters
    ----------
    data : numpy.ndarray
        Binary mask or map.
    scale : float, optional
        The value that means certainty: 1, 100 or 255. By default judged from the largest value.
    scratch : path, optional
        Existing folder for the result, as of :func:`cluster`.
    """
    if scale is None:
        largest = float(np.max(data)) if data.size else 1.0
        scale = certain_value(largest) or 255
    decoded = _zeros(data.shape, np.float32, scratch)
    for index in releasing(range(len(data)), decoded, data):
        decoded[index] = np.clip(np.asarray(data[index], np.float32) / np.float32(scale), 0, 1)
    return decoded


def cluster(
    probability: np.ndarray,
    voxel_size: float | Sequence[float],
    parameters: ClusterParameters | None = None,
    boundary: np.ndarray | None = None,
    threads: int = 1,
    mask: np.ndarray | None = None,
    slab: int = 32,
    scratch: str | Path | None = None,
) -> Clustering:
    """Group object voxels into instances.

    Parameters
    ----------
    probability : numpy.ndarray
        ``(nz, ny, nx)``; floats 0-1, or integers in per cent. A mask may be of any type; signed
        bytes are always per cent, as this program writes them.
    voxel_size : float or sequence of float
        Å, edge of a cubic voxel, or edges (z, y, x). Objects are judged in cubes of the shortest
        edge then (:func:`tomocensus.cluster.pieces.to_cubes`).
    parameters : ClusterParameters, optional
        Defaults where missing.
    boundary : numpy.ndarray, optional
        Probability of an instance's outline, same scale: parts what touches before convexity does
        (:func:`tomocensus.cluster.outlines.split_by_outlines`). A blurred one only makes necks
        narrower.
    threads : int
        Slabs and components are worked on in parallel; the result does not depend on it.
    mask : numpy.ndarray, optional
        Not 0 where objects are looked for (:func:`tomocensus.volume.looked_in`).
    slab : int
        Slices labelled at a time; the result does not depend on it.
    scratch : path, optional
        Existing folder for the arrays of the volume's size, which then need no memory: for volumes
        that do not fit. The labels are a memory map of a file there; its owner deletes it. The
        result does not depend on it, but each component's box must fit in memory.

    Returns
    -------
    Clustering
        Labels 1..N in the order of their first voxel.

    Raises
    ------
    InputError
        Where the voxel size is not one or three positive numbers, or the map is not in per cent.
    """
    sizes = _edges(voxel_size)
    parameters = parameters or ClusterParameters()
    probability = _mask_or_map(_usual(probability))
    boundary = None if boundary is None else _usual(boundary)
    given = (boundary, mask, parameters, scratch, threads)
    objects, threshold, sharp = _objects(probability, *given)
    labels = _zeros(objects.shape, np.int32, scratch)
    smallest = max(1.0, parameters.minimum_volume / float(np.prod(sizes)))
    aspect = tuple((sizes / sizes.min()).tolist())
    job = _Job(labels, [], probability, boundary, parameters, smallest, sharp, aspect)
    cut = _cut(job, objects, threshold, slab, threads)
    if _may_choose(job):
        cut = _chosen(job, objects, cut, mask, slab, threads)
    runs, pieces = cut.runs, cut.pieces
    large = [piece for piece in pieces if piece.voxels >= smallest]
    # Not where the threshold is automatic: then the map's scale is its own.
    least = 0.0 if parameters.threshold == "auto" else cut.scale * parameters.minimum_probability
    sure = [piece for piece in large if piece.chance >= least - 1e-6]
    shown = paint(sure, labels, threads)
    table = describe(shown, labels, objects, probability, sizes, threads)
    weak = len(large) - len(sure)
    facts = {
        "threshold": float(cut.threshold),
        "levels": cut.levels,
        "components": runs.count,
        "dropped_specks": len(cut.specks) + len(pieces) - len(shown) - weak,
        "dropped_weak": weak,
        **_balance(runs, table),
        "instances": len(table),
    }
    return Clustering(labels, table, facts)


@dataclass
class _Job:
    """Makes the pieces of a component, by its number."""

    components: np.ndarray
    boxes: list[tuple[slice, slice, slice]]
    probability: np.ndarray
    boundary: np.ndarray | None
    parameters: ClusterParameters
    smallest: float
    sharp: bool
    aspect: tuple[float, float, float]
    ragged: bool = False
    threads: int = 1

    def __call__(self, number: int) -> list[Piece]:
        """Return the pieces of a component."""
        if number % 64 == 0:
            for array in (self.components, self.probability, self.boundary):
                release_pages(array)
        box = self.boxes[number - 1]
        crop = self.components[box] == number
        start = tuple(side.start for side in box)
        given = (self.parameters, self.smallest, self.aspect)
        if self.ragged:
            given = (self.probability, self.parameters, self.smallest, self.threads)
            pieces = part_by_levels(crop, start, number, *given)
        elif self.sharp and np.count_nonzero(crop) >= self.smallest:
            pieces = part_by_outlines(crop, start, number, self.boundary, *given)
        else:
            edge = None
            if self.boundary is not None and not self.sharp:
                edge = smooth_box(self.boundary, box, 0.7) >= 0.5
            pieces = separate(crop, start, number, edge, *given, self.components.shape)
        for piece in pieces:
            own = piece.mask & (self.components[piece.box] == number)
            seen = chances(self.probability[piece.box][own])
            piece.chance = float(seen.mean(dtype=np.float64)) if len(seen) else 0.0
        return pieces


@dataclass
class _Cut:
    """Components of the map from a threshold on, and their pieces."""

    threshold: float
    runs: Runs
    pieces: list[Piece]
    # Voxels of each component that has no room for an object; they are in no piece.
    specks: np.ndarray
    # Of the least mean probability.
    scale: float = 1.0
    levels: bool = False


def _cut(job: _Job, objects, threshold, slab, threads, levels=False) -> _Cut:
    """Label the object voxels and part their components."""
    runs = find_runs(objects, slab, threads)
    runs.paint(job.components, np.arange(runs.count + 1, dtype=np.int32), threads)
    # One component holds most of a ragged map: there the threads work on what is in it.
    inner, outer = (threads, 1) if levels else (1, threads)
    job = replace(job, boxes=runs.boxes(), ragged=levels, threads=inner)
    # What has no room for the smallest object is dropped, whatever it is: no need to look at it.
    room = np.array([prod(side.stop - side.start for side in box) for box in job.boxes])
    numbers = (1 + np.flatnonzero(room >= job.smallest)).tolist()
    specks = runs.voxels()[room < job.smallest]
    pieces = [piece for found in each(job, numbers, outer) for piece in found]
    # Every piece holds its own mask: the components' memory serves again.
    runs.paint(job.components, np.zeros(runs.count + 1, np.int32), threads)
    return _Cut(float(threshold), runs, pieces, specks, levels=levels)


def _may_choose(job: _Job) -> bool:
    """Tell whether the map may be cut at other levels than the threshold."""
    wanted = job.parameters.levels and job.parameters.convexity
    given = job.parameters.threshold not in ("auto", 0) and job.boundary is None
    return wanted and given and not _is_binary(job.probability)


def _chosen(job: _Job, objects, cut: _Cut, mask, slab, threads) -> _Cut:
    """Return this cut, or one that shows objects better; mark the object voxels of that."""

    def cut_at(level, levels=False):
        _mark(objects, job.probability, level, False, mask, threads)
        return _cut(job, objects, level, slab, threads, levels)

    best = marked = cut
    if _explained(job, cut) < _CLEAR:
        marked = cut_at(_FAINT * cut.threshold)
        if _shells_closed(job, cut, marked):
            best, best.scale = marked, _FAINT
    fits = job.aspect == CUBES and job.probability.size <= _LEVELS_UP_TO
    if fits and percolates(best.runs) and _explained(job, best) < _EXPLAINED:
        marked = cut_at(LEVELS[0], levels=True)
        if _voxels(_convex(job, marked)) > _voxels(_convex(job, best)):
            best = marked
    if best is not marked:
        _mark(objects, job.probability, best.threshold, False, mask, threads)
    return best


def _shells_closed(job: _Job, cut: _Cut, fainter: _Cut) -> bool:
    """Tell whether shells close at the lower threshold, and no other objects are lost."""
    before, now = _convex(job, cut), _convex(job, fainter)
    hollow, closed = (
        _voxels([piece for piece in some if piece.filled_voxels >= _HOLLOW * piece.voxels])
        for some in (before, now)
    )
    every = _voxels(cut.pieces) + cut.specks.sum()
    worth = closed >= max(_GAIN * hollow, _WORTH * every, 1)
    return worth and _voxels(now) >= _voxels(before)


def _explained(job: _Job, cut: _Cut) -> float:
    """Return the part of voxels in convex pieces and sheets: much where objects only touch."""
    large = [piece for piece in cut.pieces if piece.voxels >= job.smallest]
    sheets = [piece for piece in large if piece.origin == "sheet"]
    return (_voxels(_convex(job, cut)) + _voxels(sheets)) / max(_voxels(large), 1)


def _convex(job: _Job, cut: _Cut) -> list[Piece]:
    """Return the convex pieces that are large enough."""
    large = [piece for piece in cut.pieces if piece.voxels >= job.smallest]
    shape = job.components.shape
    # A map that is full is convex too.
    return [p for p in large if p.solidity >= CONVEX and not reaches_across(p.box, shape)]


def _voxels(pieces: list[Piece]) -> int:
    return sum(piece.voxels for piece in pieces)


def _balance(runs, table) -> dict:
    """Return how many voxels were objects, are no longer, and were gained by filling."""
    total = int(np.sum(runs.stop - runs.start, dtype=np.int64))
    kept = int(table.attrs.pop("object_voxels"))
    return {
        "object_voxels": total,
        "dropped_voxels": total - kept,
        "filled_voxels": int(table["voxels"].sum()) - kept,
    }


def _zeros(shape, dtype, scratch) -> np.ndarray:
    """Return zeros in memory, or in a file of their own in the folder `scratch`."""
    if scratch is None:
        return np.zeros(shape, dtype)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with tempfile.NamedTemporaryFile(dir=scratch, suffix=".raw", delete=False) as file:
        try:
            # Claims the space: a map of a hole on a full disk ends in a bus error, not a message.
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            os.unlink(file.name)
            raise InputError(
                f"{scratch}: no {size / 1e9:.3g} GB for arrays of the volume's size "
                f"({error.strerror}). Free some space, or choose another folder for scratch."
            ) from error
    return np.memmap(file.name, dtype, "r+", shape=tuple(shape))


def _edges(voxel_size) -> np.ndarray:
    """Return the edges of a voxel (z, y, x), the very same where they hardly differ."""
    sizes = np.atleast_1d(np.asarray(voxel_size, dtype=float))
    if sizes.shape not in ((1,), (3,)) or not np.all(np.isfinite(sizes) & (sizes > 0)):
        raise InputError(
            f"voxel size {voxel_size}: give one positive number, or three (z, y, x), in Å."
        )
    if np.ptp(sizes) <= 0.01 * sizes.mean():
        sizes = np.full(3, sizes[0])
    return sizes


def _objects(
    probability, boundary, mask, parameters, scratch, threads
) -> tuple[np.ndarray, float, bool]:
    """Return the object voxels, the threshold used, and whether outlines part them."""
    binary = _is_binary(probability)
    threshold = parameters.threshold
    if threshold == "auto":
        threshold = _otsu(probability, binary, threads)
    objects = _zeros(probability.shape, bool, scratch)
    _mark(objects, probability, threshold, binary, mask, threads)
    sharp = boundary is not None and parameters.convexity and is_sharp(boundary, objects)
    if sharp:
        threshold *= _OUTLINED
        _mark(objects, probability, threshold, binary, mask, threads)
    return objects, threshold, sharp


def _mark(objects, probability, threshold, binary, mask, threads=1) -> None:
    """Set `objects` to the voxels from the threshold on, and within the mask."""

    def mark(z):
        # A binary map needs no smoothing, nor floats.
        if binary or threshold <= 0:
            np.greater(_smoothed(probability, z, binary), 0, out=objects[z])
        else:
            np.greater_equal(_smoothed(probability, z), threshold, out=objects[z])
        if mask is not None:
            objects[z] &= looked_in(mask[z])
        for array in (objects, probability, mask):
            release_pages(array)

    each(mark, spans(len(objects), _DEPTH), threads)


def _smoothed(data, z, binary=False) -> np.ndarray:
    """Return slices of the smoothed map; of a binary one as they are."""
    ny, nx = data.shape[1:]
    return data[z] if binary else smooth_box(data, (z, slice(0, ny), slice(0, nx)), 1.0)


def _usual(data: np.ndarray) -> np.ndarray:
    """Return a map as it can be computed with: no half precision, bytes in the machine's order."""
    data = np.asarray(data)
    if data.dtype.kind == "f" and data.itemsize not in (4, 8):
        return data.astype(np.float32)
    return data.astype(data.dtype.newbyteorder("="), copy=False)


def _mask_or_map(data: np.ndarray) -> np.ndarray:
    """Return integers of two values, which are a mask whatever these are, as booleans."""
    if data.dtype.kind not in "iu" or data.dtype == np.int8:
        return data
    top = max((int(plane.max(initial=0)) for plane in releasing(data, data)), default=0)
    if top != 100 and all(_only(np.ascontiguousarray(plane), top) for plane in data):
        return data != 0
    if top > 100:
        raise InputError(
            f"the map has values up to {top}: integers are taken for per cent. Bring it to 0-1 "
            "first (tomocensus.cluster.decode_probability)."
        )
    return data


def _is_binary(data: np.ndarray) -> bool:
    """Tell whether a map holds only 0 and certainty."""
    if data.dtype == bool:
        return True
    top = 100 if data.dtype.kind in "iu" else 1
    return all(_only(np.ascontiguousarray(plane), top) for plane in releasing(data, data))


@numba.njit(cache=True, nogil=True)
def _only(plane, top):
    """Tell whether a plane holds only 0 and `top`."""
    odd = False
    for value in plane.flat:
        odd |= value != 0 and value != top
    return not odd


def _otsu(data: np.ndarray, binary: bool, threads: int = 1) -> float:
    """Return Otsu's threshold of the smoothed map, 0.5 for a constant one."""

    def count(z):
        found = np.histogram(chances(_smoothed(data, z, binary)), 256, (0, 1))[0]
        release_pages(data)
        return found

    counts = np.sum(each(count, spans(len(data), _DEPTH), threads), axis=0)
    if np.count_nonzero(counts) < 2:
        return 0.5
    return float(threshold_otsu(hist=(counts, (np.arange(256) + 0.5) / 256)))


def cluster_labels(
    labels: np.ndarray,
    voxel_size: float | Sequence[float],
    threads: int = 1,
    scratch: str | Path | None = None,
    mask: np.ndarray | None = None,
) -> Clustering:
    """Take over another program's labelmap: number it 1..N and describe its objects.

    The table's column ``component`` holds the numbers that they had.

    Parameters
    ----------
    labels : numpy.ndarray
        ``(nz, ny, nx)`` integers (or whole floats), 0 background.
    voxel_size : float or sequence of float
        Å; one edge or three (z, y, x).
    threads : int
        Objects described at a time; the result does not depend on it.
    scratch : path, optional
        Existing folder for the result, as of :func:`cluster`.
    mask : numpy.ndarray, optional
        Not 0 where objects are looked for (:func:`tomocensus.volume.looked_in`); they end there.

    Returns
    -------
    Clustering
        Its facts count ``instances`` and ``parts``: connected parts (26 neighbours) of all of them
        that hold at least `PART` of the object's voxels. A map of classes has many for each number.
    """
    fresh = _zeros(labels.shape, np.int32, scratch)
    names, boxes = renumber(labels, fresh, mask)
    parts = np.zeros(len(boxes), np.int64)

    def piece(index: int) -> Piece:
        box = boxes[index]
        own = fresh[box] == index + 1
        voxels = find_runs(own).voxels()
        parts[index] = np.count_nonzero(voxels >= PART * voxels.sum())
        start = tuple(side.start for side in box)
        given = int(names[index])
        made = Piece(start, own, digital_solidity(own), "given", given, 1.0, "none", 0)
        # Only the box is wanted from here: boxes of wide nets would hold the volume many times.
        made.mask = np.broadcast_to(np.True_, own.shape)
        return made

    pieces = for_each(piece, len(boxes), threads, fresh)
    sure = np.broadcast_to(np.uint8(100), fresh.shape)
    table = describe(pieces, fresh, sure, sure, _edges(voxel_size), threads)
    table.attrs = {}
    return Clustering(fresh, table, {"instances": len(pieces), "parts": int(parts.sum())})
