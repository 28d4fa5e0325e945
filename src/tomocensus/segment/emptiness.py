"""Slices that are nearly empty, which users do not annotate: a base model finds them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit

from tomocensus.segment.contrast import Slices
from tomocensus.segment.settings import AnnotatedVolume
from tomocensus.segment.targets import IGNORE, TargetSlice, annotated_slices, evenly

# Slices of a tomogram that are looked at, and taken at most.
LOOKED_AT, TAKEN = 16, 3
# Of the mean probability in annotated slices: what has less is far emptier than these.
EMPTIER = 0.6


def empty_slices(
    pair: AnnotatedVolume,
    annotated: list[TargetSlice],
    voxel_size: float,
    logits: Callable[[np.ndarray], np.ndarray],
) -> list[TargetSlice]:
    """Return slices far emptier than the annotated ones: background, where the base sees no object.

    Annotated slices show objects. A network that learns from them alone calls the vacuum above and
    below a lamella object as well, with the objects' shadows that the missing wedge draws there.

    Parameters
    ----------
    pair : AnnotatedVolume
        Tomogram.
    annotated : list of TargetSlice
        Those of its annotated slices that are learnt from.
    voxel_size : float
        Å of the model.
    logits : callable
        The base: from a slab ``(slices, ny, nx)`` to logits ``(heads, ny, nx)``, the first of
        which are those of objects.

    Returns
    -------
    list of TargetSlice
        At most three. What the base says of other heads is expected to stay.
    """
    if not annotated:
        return []
    some = evenly(annotated, LOOKED_AT)
    usual = np.mean([expit(logits(t.image))[0].mean() for t in some])
    source = Slices(pair.tomogram, voxel_size, pair.polarity, cache=64)
    thickness = annotated[0].image.shape[0]
    # Also those of which nothing is learnt.
    told, _ = annotated_slices(pair, voxel_size)
    found = []
    for z in np.unique(np.linspace(0, len(source) - 1, LOOKED_AT).round().astype(int)):
        # What lies in a slab around an annotated slice the user has told better.
        if np.abs(told - z).min() <= thickness // 2:
            continue
        image = source.slab(int(z), thickness)
        chances = expit(logits(image))
        if chances[0].mean() < EMPTIER * usual:
            target = np.full(chances.shape, IGNORE, np.uint8)
            target[0][chances[0] < 0.5] = 0
            unheld = np.zeros(target.shape[1:], bool)
            found.append(TargetSlice(pair.name, int(z), image, target, unheld, pair.group, chances))
    if len(found) > TAKEN:
        found = [found[k] for k in np.linspace(0, len(found) - 1, TAKEN).round().astype(int)]
    return found
