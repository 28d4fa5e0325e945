"""Gaussian smoothing of maps, slab by slab."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np

from tomocensus.volume import releasing


def smooth(volume: np.ndarray, sigma: float) -> np.ndarray:
    """Return a volume smoothed by a Gaussian (float32, mirrored at its border, cut at 4 sigma).

    Parameters
    ----------
    volume : numpy.ndarray
        ``(nz, ny, nx)``.
    sigma : float
        Voxels.

    Notes
    -----
    The same as ``scipy.ndimage.gaussian_filter`` to single precision and about five times as fast,
    for rows are worked on as a whole.
    """
    volume = np.ascontiguousarray(volume, dtype=np.float32)
    reach = int(4 * sigma + 0.5)
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    return _smooth(volume, (weights / weights.sum()).astype(np.float32))


@numba.njit(cache=True, nogil=True)
def _mirror(at, length):
    """Return the index inside that an index outside is the mirror image of."""
    while at < 0 or at >= length:
        at = -at - 1 if at < 0 else 2 * length - 1 - at
    return at


@numba.njit(nogil=True, fastmath=True)
def _add(target, source, weight):
    """Add one row times a weight to another."""
    for x in range(len(target)):
        target[x] += weight * source[x]


@numba.njit(cache=True, nogil=True)
def _smooth(volume, weights):
    """Convolve along z, y and x; rows along x are the innermost loop everywhere."""
    nz, ny, nx = volume.shape
    reach = len(weights) // 2
    result = np.empty_like(volume)
    plane = np.empty((ny, nx), np.float32)
    line = np.empty(nx + 2 * reach, np.float32)
    for z in range(nz):
        for y in range(ny):
            row = plane[y]
            row[:] = 0
            for k in range(len(weights)):
                _add(row, volume[_mirror(z + k - reach, nz), y], weights[k])
        for y in range(ny):
            line[:] = 0
            for k in range(len(weights)):
                _add(line[reach : reach + nx], plane[_mirror(y + k - reach, ny)], weights[k])
            for x in range(reach):
                line[x] = line[reach + _mirror(x - reach, nx)]
                line[reach + nx + x] = line[reach + _mirror(nx + x, nx)]
            out = result[z, y]
            out[:] = 0
            for k in range(len(weights)):
                _add(out, line[k : k + nx], weights[k])
    return result


def chances(data: np.ndarray) -> np.ndarray:
    """Return a map (0-1, per cent or boolean) as float32 0-1."""
    chance = np.asarray(data, dtype=np.float32)
    return chance / 100 if data.dtype.kind in "iu" else chance


def smooth_slabs(
    data: np.ndarray, sigma: float, depth: int = 32
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield z slices and the smoothed probabilities there; the same as smoothing all at once.

    Parameters
    ----------
    data : numpy.ndarray
        ``(nz, ny, nx)``; floats 0-1, or integers in per cent.
    sigma : float
        Voxels; 0 for none.
    depth : int
        Slices at a time.
    """
    halo = int(4 * sigma + 0.5)
    for z in releasing(range(0, data.shape[0], depth), data, every=1):
        low, end = max(0, z - halo), min(z + depth, data.shape[0])
        slab = chances(data[low : min(end + halo, data.shape[0])])
        if sigma:
            slab = smooth(slab, sigma)
        yield slice(z, end), slab[z - low : end - low]


def widened(box: tuple, shape: tuple, room: int) -> tuple[tuple, tuple]:
    """Return a box with some room around it, and where the box lies in that.

    Parameters
    ----------
    box : tuple of slice
        Three slices.
    shape : tuple of int
        The volume's, where the room ends.
    room : int
        Voxels to each side.
    """
    wide = tuple(
        slice(max(0, side.start - room), min(side.stop + room, n))
        for side, n in zip(box, shape, strict=True)
    )
    inner = tuple(
        slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, wide, strict=True)
    )
    return wide, inner


def smooth_box(data: np.ndarray, box: tuple, sigma: float) -> np.ndarray:
    """Return a box of a smoothed map; the same as smoothing all of it.

    Parameters
    ----------
    data : numpy.ndarray
        ``(nz, ny, nx)``; floats 0-1, or integers in per cent.
    box : tuple of slice
        Three slices.
    sigma : float
        Voxels.
    """
    wide, inner = widened(box, data.shape, int(4 * sigma + 0.5))
    return smooth(chances(data[wide]), sigma)[inner]
