"""Which instances are most worth naming next: those the classifier is unsure of, and diverse."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tomocensus.classify.embeddings import Embeddings


def rank_for_review(
    embeddings: dict[str, Embeddings], classes: dict[str, pd.DataFrame], count: int = 30
) -> pd.DataFrame:
    """List the instances to name next, best first.

    Greedy: each choice has the largest product of doubt (1 - confidence, at least 0.05) and
    distance to the nearest instance already chosen, in standardised vectors. Doubt alone would
    show thirty times the same kind of object. As in farthest-first core sets (Sener and Savarese
    2018), weighed by doubt.

    Parameters
    ----------
    embeddings : dict of str to Embeddings
        Of each tomogram.
    classes : dict of str to pandas.DataFrame
        Of each tomogram, from :func:`tomocensus.classify.apply_head`: columns instance, class,
        confidence.
    count : int
        Length of the list; shorter where there are fewer instances.

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
    chosen = [int(doubt.argmax())]
    nearest = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < min(count, len(table)):
        worth = doubt * nearest
        worth[chosen] = -1
        chosen.append(int(worth.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return table.loc[chosen, columns].reset_index(drop=True)
