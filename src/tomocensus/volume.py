"""The one volume type that goes through the whole library."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

# Largest value of a map over what means certainty in it: blended tiles are off by rounding.
ROUNDED = 1.001


@dataclass(frozen=True)
class Volume:
    """A 3D image with its physical scale and place.

    Parameters
    ----------
    data : numpy.ndarray
        Voxels, shape ``(nz, ny, nx)``; may be a read-only memory map.
    voxel_size : float
        Edge of the (cubic) voxel in Å.
    origin : tuple of float
        ``(x, y, z)`` of the MRC header's ``origin``, Å.
    nstart : tuple of int
        ``(x, y, z)`` of the MRC header's ``nxstart, nystart, nzstart``, voxels.
    """

    data: np.ndarray
    voxel_size: float
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    nstart: tuple[int, int, int] = (0, 0, 0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape ``(nz, ny, nx)`` in voxels."""
        return self.data.shape

    @property
    def offset(self) -> tuple[float, float, float]:
        """Position ``(x, y, z)`` in Å of the centre of voxel (0, 0, 0)."""
        return corner_offset(self.origin, self.nstart, self.voxel_size)

    def with_data(self, data: np.ndarray) -> Volume:
        """Return the same place and scale with other voxels of the same shape."""
        if data.shape != self.data.shape:
            raise ValueError(f"shape {data.shape} differs from the volume's {self.data.shape}")
        return replace(self, data=data)


def corner_offset(
    origin: tuple[float, float, float], nstart: tuple[int, int, int], voxel_size: float
) -> tuple[float, float, float]:
    """Return the position ``(x, y, z)`` in Å of voxel (0, 0, 0) from an MRC header's fields.

    MRC has two ways to place a volume. As in ChimeraX, ``origin`` counts where it is not zero,
    ``nstart`` times the voxel size otherwise.

    Parameters
    ----------
    origin : tuple of float
        ``(x, y, z)`` in Å.
    nstart : tuple of int
        ``(x, y, z)`` in voxels.
    voxel_size : float
        Å.
    """
    if any(origin):
        return tuple(float(value) for value in origin)
    return tuple(float(value) * voxel_size for value in nstart)


def voxel_to_angstrom(
    points: np.ndarray, voxel_size: float, offset: tuple[float, float, float]
) -> np.ndarray:
    """Convert 0-based voxel indices ``(n, 3)`` in x, y, z order to Å.

    A voxel's index is the place of its centre: ``angstrom = index * voxel_size + offset``.
    """
    return np.asarray(points, dtype=float) * voxel_size + np.asarray(offset)


def angstrom_to_voxel(
    points: np.ndarray, voxel_size: float, offset: tuple[float, float, float]
) -> np.ndarray:
    """Convert positions in Å ``(n, 3)``, x, y, z order, to (fractional) 0-based voxel indices."""
    return (np.asarray(points, dtype=float) - np.asarray(offset)) / voxel_size


def certain_value(largest: float) -> int | None:
    """Return which value means certainty in a map of probabilities, by its largest value.

    1, 100 or 255, with some room for rounding; None where the value is larger.
    """
    return next((value for value in (1, 100, 255) if largest <= ROUNDED * value), None)


def looked_in(mask: np.ndarray) -> np.ndarray:
    """Return where a mask, or slices of one, says that objects are looked for.

    Whole numbers that are not 0, for 255 is -1 in signed bytes; of soft masks what is above 0.
    """
    mask = np.asarray(mask)
    return mask > 0 if mask.dtype.kind == "f" else mask != 0


def release_pages(data: np.ndarray) -> None:
    """Let go of the pages of a memory map that were read or written.

    They stay in the system's file cache, from where they come back when they are touched, but
    count no longer as memory of this process. What is no map of a file is left alone.

    Parameters
    ----------
    data : numpy.ndarray
        Memory map of a file, or a view of one.
    """
    while data is not None and not isinstance(data, np.memmap):
        data = getattr(data, "base", None)
    # A map of mode "c" holds changes that are nowhere else.
    if data is None or data.mode == "c" or not hasattr(mmap, "MADV_DONTNEED"):
        return
    data._mmap.madvise(mmap.MADV_DONTNEED)


def releasing(items: Iterable, *arrays: np.ndarray | None, every: int = 64) -> Iterator:
    """Yield items, and let go of the pages of memory maps after every so many of them.

    Parameters
    ----------
    items : iterable
        What is yielded.
    arrays : numpy.ndarray or None
        See :func:`release_pages`.
    every : int
        Items.
    """
    for number, item in enumerate(items, start=1):
        yield item
        if number % every == 0:
            for array in arrays:
                release_pages(array)
