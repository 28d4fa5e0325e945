"""Which instances are most worth naming next: those the classifier is unsure of, and diverse."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from tomocensus.classify.embeddings import Embeddings

# Farther apart than any vectors: where nothing is named or chosen yet, doubt alone decides.
_FAR = 1e9


def rank_for_review(
    embeddings: dict[str, Embeddings],
    classes: dict[str, pd.DataFrame],
    count: int = 30,
    named: Collection[tuple[str, int]] = (),
) -> pd.DataFrame:
    """List the instances to name next, best first; none that has a name already.

    Greedy: each choice has the largest product of doubt (1 - confidence, at least 0.05) and
    distance to the nearest instance already named or chosen, in standardised vectors. Doubt alone
    would show thirty times the same kind of object. As in farthest-first core sets (Sener and
    Savarese 2018), weighed by doubt.

    Parameters
    ----------
    embeddings : dict of str to Embeddings
        Of each tomogram.
    classes : dict of str to pandas.DataFrame
        Of each tomogram, from :func:`tomocensus.classify.apply_head`: columns instance, class,
        confidence.
    count : int
        Length of the list; shorter where there are fewer instances without a name.
    named : collection of tuple
        Tomogram and number of the instances that the examples name.

    Returns
    -------
    pandas.DataFrame
        Columns tomogram, instance, class, confidence.
    """
    parts, vectors = [], []
    for name, part in embeddings.items():
        table = classes[name].set_index("instance").loc[part.instance, ["class", "confidence"]]
        parts.append(table.reset_index().assign(tomogram=name))
        vectors.append(part.table())
    columns = ["tomogram", "instance", "class", "confidence"]
    if not parts or not sum(len(part) for part in parts):
        return pd.DataFrame(columns=columns)
    table = pd.concat(parts, ignore_index=True)
    points = np.concatenate(vectors)
    points = (points - points.mean(axis=0)) / (points.std(axis=0) + 0.05)
    doubt = np.maximum(1 - table["confidence"].to_numpy(float), 0.05)
    named = set(named)
    pairs = zip(table["tomogram"], table["instance"], strict=True)
    taken = np.array([pair in named for pair in pairs])
    nearest = _distance(points, points[taken])
    chosen = []
    for _ in range(min(count, int((~taken).sum()))):
        chosen.append(int(np.where(taken, -1, doubt * nearest).argmax()))
        taken[chosen[-1]] = True
        nearest = np.minimum(nearest, _distance(points, points[chosen[-1:]]))
    return table.loc[chosen, columns].reset_index(drop=True)


def _distance(points, others) -> np.ndarray:
    """Return the distance of each point to the nearest of the others."""
    squares = np.full(len(points), _FAR**2)
    lengths = (points**2).sum(axis=1)
    # Some at a time: of a large data set all together would not fit.
    for first in range(0, len(others), 64):
        some = others[first : first + 64]
        away = lengths[:, None] + (some**2).sum(axis=1) - 2 * points @ some.T
        squares = np.minimum(squares, away.min(axis=1))
    return np.sqrt(np.maximum(squares, 0))
