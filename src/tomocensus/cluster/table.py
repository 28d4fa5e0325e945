"""The instances' labels in the volume, and a row of the table for each."""

from __future__ import annotations

import numba
import numpy as np
import pandas as pd

from tomocensus.cluster.pieces import Piece
from tomocensus.parallel import each, spans
from tomocensus.volume import release_pages, releasing

# Pieces looked at before the pages that they lie in are let go of.
_FEW = 64
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


def for_each(work, count: int, threads: int, *arrays: np.ndarray) -> list:
    """Return ``work(index)`` of `count` pieces, and let go of pages after some of them."""

    def some(part):
        found = [work(index) for index in range(part.start, part.stop)]
        for array in arrays:
            release_pages(array)
        return found

    return [one for found in each(some, spans(count, _FEW), threads) for one in found]


def paint(pieces: list[Piece], labels: np.ndarray, threads: int = 1) -> list[Piece]:
    """Paint the largest first, so that nested objects stay; number by first voxel.

    Parameters
    ----------
    pieces : list of Piece
        Objects in their crops.
    labels : numpy.ndarray
        int32 zeros; gets 1..N.
    threads : int
        The result does not depend on it.

    Returns
    -------
    list of Piece
        Those of which something is seen, in the order of their numbers.
    """
    order = sorted(range(len(pieces)), key=lambda i: (-pieces[i].voxels, pieces[i].start))
    for index in releasing(order, labels):
        labels[pieces[index].box][pieces[index].mask] = index + 1

    def first(index):
        place = np.array(_first(labels[pieces[index].box], index + 1))
        return tuple((place + pieces[index].start).tolist()) if place[0] >= 0 else None

    places = for_each(first, len(pieces), threads, labels)
    seen = sorted((place, index) for index, place in enumerate(places) if place is not None)
    shown = [pieces[index] for _, index in seen]
    numbers = np.arange(1, len(shown) + 1)
    before = np.array([index for _, index in seen], np.int64) + 1
    # By way of negative numbers, for old and new ones overlap.
    for old, new in ((before, -numbers), (-numbers, numbers)):

        def rename(at, old=old, new=new):
            _rename(labels[shown[at].box], old[at], new[at])

        for_each(rename, len(shown), threads, labels)
    return shown


@numba.njit(cache=True, nogil=True)
def _first(labels, number):
    """Return the first voxel of a label, -1 where there is none."""
    for z in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                if labels[z, y, x] == number:
                    return z, y, x
    return -1, -1, -1


@numba.njit(cache=True, nogil=True)
def _rename(labels, old, new):
    """Give a label another number."""
    for z in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                if labels[z, y, x] == old:
                    labels[z, y, x] = new


@numba.njit(cache=True, nogil=True)
def _measure(labels, objects, probability, number):
    """Return a label's voxels, those of them that are object voxels, and the sum of their map."""
    voxels, own, total = 0, 0, 0.0
    for z in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                if labels[z, y, x] == number:
                    voxels += 1
                    if objects[z, y, x]:
                        own += 1
                        total += probability[z, y, x]
    return voxels, own, total


def describe(
    pieces: list[Piece],
    labels: np.ndarray,
    objects: np.ndarray,
    probability: np.ndarray,
    voxel_size: np.ndarray,
    threads: int = 1,
) -> pd.DataFrame:
    """Describe every instance; probabilities are those of its unfilled voxels.

    Parameters
    ----------
    pieces : list of Piece
        In the order of their labels 1..N.
    labels, objects, probability : numpy.ndarray
        ``(nz, ny, nx)``; probability as floats 0-1 or integers in per cent.
    voxel_size : float
        Å.
    threads : int
        The result does not depend on it.

    Returns
    -------
    pandas.DataFrame
        One row an instance; its ``attrs`` hold ``object_voxels``, those of all instances together.
    """
    scale = 100 if probability.dtype.kind in "iu" else 1

    def measure(index):
        box = pieces[index].box
        crop = labels[box]
        border = any(
            np.any(crop.take(end, axis) == index + 1)
            for axis, side in enumerate(box)
            for end in (0, -1)
            if (side.start, side.stop - labels.shape[axis])[end] == 0
        )
        return *_measure(crop, objects[box], probability[box], index + 1), border

    found = for_each(measure, len(pieces), threads, labels, objects, probability)
    found = np.array(found, float).reshape(-1, 4)
    voxels, own = found[:, :2].astype(np.int64).T
    # Of what is seen: what lies inside another object is painted over that one's filling.
    gained = voxels - own
    table = pd.DataFrame(
        {
            "instance": np.arange(1, len(pieces) + 1),
            "voxels": voxels,
            "volume_angstrom3": voxels * float(np.prod(voxel_size)),
            "solidity": [piece.solidity for piece in pieces],
            "origin": [piece.origin for piece in pieces],
            "component": [piece.component for piece in pieces],
            "neck_ratio": [piece.neck_ratio for piece in pieces],
            "fill": [
                piece.fill if some else "none" for piece, some in zip(pieces, gained, strict=True)
            ],
            "filled_voxels": gained,
            "touches_border": found[:, 3] > 0,
            "mean_probability": found[:, 2] / np.maximum(own, 1) / scale,
        }
    )
    # A cut through a wide neck is a doubtful one: half the score at a ratio of 1.
    doubt = np.where(table["origin"] == "split", 0.5 * table["neck_ratio"].clip(0, 1), 0.0)
    table["score"] = table["mean_probability"] * (1 - doubt)
    table = table[list(COLUMNS)]
    table.attrs["object_voxels"] = int(own.sum())
    return table
