"""Connected components of a volume of any size, from the runs of voxels along x."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from tomocensus.parallel import each, spans
from tomocensus.volume import looked_in, release_pages, releasing

# Runs painted at a time, before the pages that they lie in are let go of.
_RUNS = 100_000


@dataclass
class Runs:
    """Runs of object voxels: row ``z * ny + y``, first x, x after the last, component 1..count."""

    row: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    label: np.ndarray
    count: int
    shape: tuple[int, int, int]

    def boxes(self) -> list[tuple[slice, slice, slice]]:
        """Return the bounding box of every component."""
        low, high = _boxes(self.row, self.start, self.stop, self.label, self.count, self.shape[1])
        return [
            tuple(slice(int(a), int(b)) for a, b in zip(one, two, strict=True))
            for one, two in zip(low, high, strict=True)
        ]

    def voxels(self) -> np.ndarray:
        """Return the number of voxels of every component."""
        lengths = self.stop - self.start
        return np.bincount(self.label, lengths, self.count + 1)[1:].astype(np.int64)

    def paint(self, out: np.ndarray, values: np.ndarray, threads: int = 1) -> None:
        """Write ``values[label]`` to every run of a volume."""

        def part(runs):
            value = values[self.label[runs]]
            _paint_runs(out, self.row[runs], self.start[runs], self.stop[runs], value)
            release_pages(out)

        each(part, spans(len(self.row), _RUNS), threads)


def find_runs(objects: np.ndarray, slab: int = 32, threads: int = 1) -> Runs:
    """Label connected components (26 neighbours), slab by slab, joined by union-find.

    Parameters
    ----------
    objects : numpy.ndarray
        Boolean, ``(nz, ny, nx)``, or anything that gives such slices along z.
    slab : int
        Slices in memory at a time; the result does not depend on it.
    threads : int
        Slabs worked on at a time; the result does not depend on it.

    Returns
    -------
    Runs
        Components numbered in the order of their first voxels.
    """
    nz, ny, nx = objects.shape

    def runs(z):
        found = _slab_runs(np.asarray(objects[z]), z.start * ny)
        release_pages(objects)
        return found

    found = each(runs, spans(nz, slab), threads)
    row, start, stop = (np.concatenate(parts) for parts in zip(*found, strict=True))
    label = np.zeros(len(row), np.int32)
    count = _join_runs(row, start, stop, nz, ny, label)
    return Runs(row, start, stop, label, count, (nz, ny, nx))


def label_slabs(objects: np.ndarray, out: np.ndarray, slab: int = 32) -> int:
    """Label connected components (26 neighbours) into `out`.

    Parameters
    ----------
    objects : numpy.ndarray
        Boolean, ``(nz, ny, nx)``, or anything that gives such slices along z.
    out : numpy.ndarray
        int32 zeros, same shape; filled with 1..N in the order of the components' first voxels.
    slab : int
        Slices in memory at a time; the result does not depend on it.

    Returns
    -------
    int
        N.
    """
    runs = find_runs(objects, slab)
    runs.paint(out, np.arange(runs.count + 1, dtype=np.int32))
    return runs.count


def renumber(
    labels: np.ndarray, out: np.ndarray, mask: np.ndarray | None = None
) -> tuple[np.ndarray, list[tuple[slice, slice, slice]]]:
    """Number the objects of a labelmap 1..N in the order of their numbers, slice by slice.

    Parameters
    ----------
    labels : numpy.ndarray
        ``(nz, ny, nx)`` integers or whole floats; what is not above 0 is background.
    out : numpy.ndarray
        int32, same shape; filled.
    mask : numpy.ndarray, optional
        Not 0 where objects are looked for (:func:`tomocensus.volume.looked_in`); the rest of the
        labelmap is background.

    Returns
    -------
    names : numpy.ndarray
        int64, the number that each object had.
    boxes : list of tuple of slice
        The box of each object.
    """

    def seen(z):
        return labels[z] if mask is None else np.where(looked_in(mask[z]), labels[z], 0)

    names = np.zeros(0, np.int64)
    for z in releasing(range(len(labels)), labels, mask):
        names = np.union1d(names, _stretches(seen(z))[0])
    names = names[names > 0]
    numbers = np.arange(1, len(names) + 1, dtype=np.int32)
    low = np.full((len(names), 3), np.iinfo(np.int64).max)
    high = np.zeros((len(names), 3), np.int64)
    for z in releasing(range(len(labels)), labels, mask, out):
        values, lengths = _stretches(seen(z))
        fresh = np.zeros(len(values), np.int32)
        there = values > 0
        fresh[there] = numbers[np.searchsorted(names, values[there])]
        out[z] = np.repeat(fresh, lengths).reshape(out.shape[1:])
        _grow_boxes(out[z], z, low, high)
    boxes = [
        tuple(slice(int(a), int(b)) for a, b in zip(one, two, strict=True))
        for one, two in zip(low, high, strict=True)
    ]
    return names, boxes


def _stretches(section: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a slice's stretches of one value, in order, and their lengths."""
    section = np.asarray(section)
    # As floats, large whole numbers are no longer told apart.
    whole = np.rint(section) if section.dtype.kind == "f" else section
    flat = whole.astype(np.int64).ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    return flat[starts], np.diff(np.append(starts, flat.size))


@numba.njit(cache=True, nogil=True)
def _grow_boxes(section, z, low, high):
    """Grow the corners of the boxes of the labels in slice `z`."""
    for y in range(section.shape[0]):
        for x in range(section.shape[1]):
            k = section[y, x] - 1
            if k >= 0:
                low[k, 0], high[k, 0] = min(low[k, 0], z), z + 1
                low[k, 1], high[k, 1] = min(low[k, 1], y), max(high[k, 1], y + 1)
                low[k, 2], high[k, 2] = min(low[k, 2], x), max(high[k, 2], x + 1)


@numba.njit(cache=True, nogil=True)
def _slab_runs(objects, offset):
    """Return rows, starts and stops of the runs of a slab whose first row is `offset`."""
    nz, ny, nx = objects.shape
    count = 0
    for z in range(nz):
        for y in range(ny):
            before = False
            for x in range(nx):
                here = objects[z, y, x]
                count += here and not before
                before = here
    row, start, stop = (
        np.empty(count, np.int64),
        np.empty(count, np.int32),
        np.empty(count, np.int32),
    )
    n = 0
    for z in range(nz):
        for y in range(ny):
            before = False
            for x in range(nx):
                here = objects[z, y, x]
                if here and not before:
                    row[n] = offset + z * ny + y
                    start[n] = x
                elif before and not here:
                    stop[n] = x
                    n += 1
                before = here
            if before:
                stop[n] = nx
                n += 1
    return row, start, stop


@numba.njit(cache=True, nogil=True)
def _root(parent, a):
    while parent[a] != a:
        parent[a] = parent[parent[a]]
        a = parent[a]
    return a


@numba.njit(cache=True, nogil=True)
def _join_runs(row, start, stop, nz, ny, label):
    """Number the components of runs that touch, also by corners; return how many there are."""
    first = np.zeros(nz * ny + 1, np.int64)
    for n in range(len(row)):
        first[row[n] + 1] += 1
    for r in range(nz * ny):
        first[r + 1] += first[r]
    parent = np.arange(len(row))
    for z in range(nz):
        for y in range(ny):
            here = z * ny + y
            if first[here] == first[here + 1]:
                continue
            # The neighbouring rows that come before this one.
            for dz, dy in ((0, -1), (-1, -1), (-1, 0), (-1, 1)):
                if z + dz < 0 or y + dy < 0 or y + dy >= ny:
                    continue
                other = (z + dz) * ny + y + dy
                a, b = first[here], first[other]
                while a < first[here + 1] and b < first[other + 1]:
                    if start[a] <= stop[b] and start[b] <= stop[a]:
                        one, two = _root(parent, a), _root(parent, b)
                        # The smaller number lies first.
                        parent[max(one, two)] = min(one, two)
                    if stop[a] < stop[b]:
                        a += 1
                    else:
                        b += 1
    count = 0
    for n in range(len(row)):
        root = _root(parent, n)
        if root == n:
            count += 1
            label[n] = count
        else:
            label[n] = label[root]
    return count


@numba.njit(cache=True, nogil=True)
def _boxes(row, start, stop, label, count, ny):
    """Return the corners of every component's box."""
    low = np.full((count, 3), np.iinfo(np.int64).max)
    high = np.zeros((count, 3), np.int64)
    for n in range(len(row)):
        k = label[n] - 1
        z, y = row[n] // ny, row[n] % ny
        low[k, 0], high[k, 0] = min(low[k, 0], z), max(high[k, 0], z + 1)
        low[k, 1], high[k, 1] = min(low[k, 1], y), max(high[k, 1], y + 1)
        low[k, 2], high[k, 2] = min(low[k, 2], start[n]), max(high[k, 2], stop[n])
    return low, high


@numba.njit(cache=True, nogil=True)
def _paint_runs(out, row, start, stop, values):
    """Write a value to every run."""
    ny = out.shape[1]
    for n in range(len(row)):
        z, y = row[n] // ny, row[n] % ny
        for x in range(start[n], stop[n]):
            out[z, y, x] = values[n]
