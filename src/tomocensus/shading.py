"""Slow changes of brightness across a tomogram, which tell nothing of objects."""

from __future__ import annotations

import numpy as np

from tomocensus.padding import SAMPLE, thinned

# Blocks along y and x whose medians tell of shading, and voxels of a block that tells.
BLOCKS, _TELLING = 12, 50
# Shading is at least so strong (range over the noise's deviation), explains at least this part of
# the medians' variance, and deviates so many times more than what it leaves. Sharp objects of any
# size and place reach 0.87 and 3.5 (straight edges aslant), a ramp of three deviations 0.92.
SHADED, EXPLAINED, CLEAR = 0.5, 0.9, 4.0


def shading(
    data: np.ndarray, scale: float, padding: float | None = None, sample: int = SAMPLE
) -> np.ndarray | None:
    """Return how brightness changes slowly across all slices, None where it hardly does.

    Uneven ice, a wedge-shaped lamella or a reconstruction without its lowest frequencies leave
    ramps and vignettes. A polynomial of second degree is fitted to the medians of blocks, which
    objects of a cell's size cannot look like, by least squares reweighted with Tukey's biweight
    (Beaton and Tukey, Technometrics 1974).

    Parameters
    ----------
    data : numpy.ndarray
        Shape ``(nz, ny, nx)``.
    scale : float
        Deviation of its noise.
    padding : float, optional
        The value that it is padded with (:func:`tomocensus.padding.padding_value`); None or NaN:
        with nothing.
    sample : int
        About how many voxels are looked at, on a regular grid.

    Returns
    -------
    numpy.ndarray or None
        Shape ``(ny, nx)``, float32, in the data's units; its mean is 0.
    """
    places, medians = _block_medians(data, padding, sample)
    if len(medians) < BLOCKS**2 // 4:
        return None
    design = np.stack(np.broadcast_arrays(*_terms(*places.T)), axis=1)
    weight = np.ones(len(medians))
    for _ in range(20):
        root = np.sqrt(weight)
        found = np.linalg.lstsq(design * root[:, None], medians * root, rcond=None)[0]
        rest = medians - design @ found
        spread = 1.4826 * np.median(np.abs(rest)) + 1e-9 * scale
        weight = np.clip(1 - (rest / (4.7 * spread)) ** 2, 0, None) ** 2
    fitted = design @ found
    explained = 1 - rest.var() / max(medians.var(), 1e-20 * scale**2)
    if np.ptp(fitted) < SHADED * scale or explained < EXPLAINED or fitted.std() < CLEAR * spread:
        return None
    ny, nx = data.shape[1:]
    y, x = (2 * (np.arange(n) + 0.5) / n - 1 for n in (ny, nx))
    terms = _terms(y[:, None], x)
    shade = sum(part * term for part, term in zip(found, terms, strict=True))
    return (shade - shade.mean()).astype(np.float32)


def _block_medians(data, padding, sample) -> tuple[np.ndarray, np.ndarray]:
    """Return the middles of blocks (y and x from -1 to 1), ``(n, 2)``, and their medians."""
    voxels, step = thinned(data, sample)
    known = np.isfinite(voxels)
    if padding is not None:
        known &= voxels != padding
    sides = [np.array_split(np.arange(n), min(BLOCKS, n)) for n in voxels.shape[1:]]
    places, medians = [], []
    for rows in sides[0]:
        for columns in sides[1]:
            block = np.s_[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            values = voxels[block][known[block]]
            if len(values) >= _TELLING:
                places.append([step * part.mean() for part in (rows, columns)])
                medians.append(float(np.median(values)))
    span = np.array(data.shape[1:], float)
    return 2 * (np.array(places).reshape(-1, 2) + 0.5) / span - 1, np.array(medians)


def _terms(y: np.ndarray, x: np.ndarray) -> tuple:
    """Return the terms of a polynomial of second degree; they broadcast against each other."""
    return 1.0, x, y, x * y, x * x, y * y
