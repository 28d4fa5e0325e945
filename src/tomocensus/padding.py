"""Where a volume holds no data: one value fills what turning, masking and tilting leave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from scipy import ndimage

from tomocensus.volume import looked_in, releasing

# Sides of the smallest area that counts as padding, in voxels; slices in which that is looked for.
_AREA, _LOOKS = 5, 9
# Voxels that tell contrast and padding.
SAMPLE = 2_000_000


def padding_value(data: np.ndarray, values: np.ndarray) -> float | None:
    """Return the one value that a volume is padded with, None where there is none.

    More than 1 % of all have it, and most of these lie in areas at the sides of slices: values that
    a conversion to few grey values cut off lie anywhere.

    Parameters
    ----------
    data : numpy.ndarray
        ``(nz, ny, nx)``; a few slices are looked at.
    values : numpy.ndarray
        Finite voxels of it: a few hundred thousand tell.
    """
    value = _repeated(values)
    if value is None:
        return None
    having = padded = 0
    for z in np.unique(np.linspace(0, len(data) - 1, _LOOKS).astype(int)):
        section = np.asarray(data[z])
        having += np.count_nonzero(section == value)
        blank = without_data(section, value)
        padded += 0 if blank is None else np.count_nonzero(blank & (section == value))
    return value if 2 * padded > having else None


def thinned(data: np.ndarray, count: int) -> tuple[np.ndarray, int]:
    """Return about so many voxels of a volume, on a regular grid, and its step along y and x."""
    step = max(1, round((data.size / count) ** (1 / 3)))
    # A copy: what lies on disk would be read again and again.
    values = np.array(data[step // 2 :: step, ::step, ::step])
    return (values if values.size else np.array(data[:, ::step, ::step])), step


def sampled(data: np.ndarray, count: int) -> np.ndarray:
    """Return about so many finite voxels of a volume, on a regular grid."""
    values, _ = thinned(data, count)
    return values[np.isfinite(values)]


def looked_at(data: np.ndarray, mask: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yield where objects are looked for, slice by slice: in the mask, and not in padding.

    Parameters
    ----------
    data : numpy.ndarray
        ``(nz, ny, nx)``.
    mask : numpy.ndarray, optional
        Of its shape; see :func:`tomocensus.volume.looked_in`.

    Yields
    ------
    numpy.ndarray
        Bool, ``(ny, nx)``.
    """
    values = sampled(data, SAMPLE)
    padding = padding_value(data, values) if values.size else None
    for z in releasing(range(len(data)), data, mask):
        # Without such a value the volume need not be read: `inspect` refuses what is not finite.
        blank = None if padding is None else without_data(np.asarray(data[z]), padding)
        inside = np.ones(data.shape[1:], bool) if blank is None else ~blank
        yield inside if mask is None else inside & looked_in(mask[z])


def _repeated(values: np.ndarray) -> float | None:
    """Return the value that more than 1 % of all have, None where there is none.

    Whole numbers repeat in any case: there it is the least or the greatest, or has five times as
    many voxels as the values next to it.
    """
    unique, counts = np.unique(values, return_counts=True)
    if len(unique) < 2:
        return None
    top = int(counts.argmax())
    padded = counts[top] > 0.01 * values.size
    if np.issubdtype(values.dtype, np.integer) and top not in (0, len(unique) - 1):
        padded &= counts[top] > 5 * max(counts[top - 1], counts[top + 1])
    return float(unique[top]) if padded else None


def without_data(section: np.ndarray, padding: float | None) -> np.ndarray | None:
    """Return where a slice is padded, None where nowhere.

    Parameters
    ----------
    section : numpy.ndarray
        ``(ny, nx)``.
    padding : float or None
        Of :func:`padding_value`. Values that are not finite are padding in any case.

    Returns
    -------
    numpy.ndarray or None
        Bool: areas of at least 5 x 5 voxels that reach a side, for others may have the very value.
        Beyond a side they go on, so that 3 voxels along it are enough.
    """
    blank = np.zeros(section.shape, bool) if padding is None else section == padding
    if section.dtype.kind == "f":
        blank = blank | ~np.isfinite(section)
    if not blank.any():
        return None
    inner = ndimage.minimum_filter(blank.astype(np.uint8), _AREA, mode="nearest")
    areas, count = ndimage.label(ndimage.maximum_filter(inner, _AREA, mode="nearest"))
    outer = np.zeros(count + 1, bool)
    for side in (areas[0], areas[-1], areas[:, 0], areas[:, -1]):
        outer[side] = True
    outer[0] = False
    return outer[areas] if outer.any() else None


def shown_range(data: np.ndarray, levels: Iterable[int]) -> tuple[float, float]:
    """Return the values to draw black and white: 1st and 99th percentile of what is no padding.

    Parameters
    ----------
    data : numpy.ndarray
        ``(nz, ny, nx)``.
    levels : iterable of int
        Slices that are looked at.
    """
    sample = np.concatenate([np.asarray(data[z])[::2, ::2].ravel() for z in levels])
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0, 1.0
    padding = padding_value(data, sample)
    if padding is not None:
        sample = sample[sample != padding]
    low, high = (float(value) for value in np.percentile(sample, (1, 99)))
    return low, high if high > low else low + 1.0
