"""What part of a volume was looked at, and which objects end where that does."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import ndimage

from tomocensus.volume import releasing


def extent(labels: np.ndarray, seen: Iterable[np.ndarray]) -> tuple[int, np.ndarray]:
    """Count the voxels that were looked at; find the objects that end at others.

    Parameters
    ----------
    labels : numpy.ndarray of int
        Shape ``(nz, ny, nx)``; 0 is background.
    seen : iterable of numpy.ndarray
        Slices ``(ny, nx)``, True where objects are looked for
        (:func:`tomocensus.padding.looked_at`).

    Returns
    -------
    voxels : int
        Looked at.
    cut : numpy.ndarray of int
        Numbers of the objects with a face on a voxel that was not, ascending.
    """
    voxels, found = 0, [np.zeros(0, labels.dtype)]
    below = None
    for z, inside in zip(releasing(range(len(labels)), labels), seen, strict=True):
        voxels += np.count_nonzero(inside)
        outside = ~inside
        if outside.any():
            near = ndimage.binary_dilation(outside)
            found.append(np.unique(labels[z][near]))
            if z:
                found.append(np.unique(labels[z - 1][outside]))
        if below is not None and below.any():
            found.append(np.unique(labels[z][below]))
        below = outside
    numbers = np.unique(np.concatenate(found))
    return int(voxels), numbers[numbers != 0]
