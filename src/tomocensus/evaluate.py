"""Scores against ground truth. docs/evaluation.md defines every metric."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import DBSCAN

COLUMNS = ["tomogram", "metric", "value", "note"]


def voxel_scores(
    predicted: np.ndarray, truth: np.ndarray, excluded_slices=(), threshold: float = 0.5
) -> dict[str, float]:
    """Return Dice, IoU, precision and recall over voxels.

    Parameters
    ----------
    predicted : numpy.ndarray
        Shape ``(nz, ny, nx)``: a mask, a labelmap's mask, per cent as integers (int8, uint8), or
        0-1 as floats; integers are compared with 100 times the threshold.
    truth : numpy.ndarray
        Same shape; 0 is background, above 0 object, below 0 unlabelled and left out.
    excluded_slices : iterable of int
        z indices left out: annotated slices were trained on.
    threshold : float
        0-1.
    """
    keep = _kept(truth.shape, excluded_slices)
    if predicted.dtype != bool:
        whole = np.issubdtype(predicted.dtype, np.integer)
        predicted = predicted > threshold * (100 if whole else 1)
    known = truth[keep] >= 0
    a, b = predicted[keep][known], truth[keep][known] != 0
    both, ours, true = np.count_nonzero(a & b), np.count_nonzero(a), np.count_nonzero(b)
    return {
        "dice": _ratio(2 * both, ours + true),
        "iou": _ratio(both, ours + true - both),
        "precision": _ratio(both, ours),
        "recall": _ratio(both, true),
    }


def overlaps(
    predicted: np.ndarray, truth: np.ndarray, excluded_slices=(), ignore: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Count shared voxels of two labelmaps, outside excluded slices and the mask `ignore`.

    Below 0 the truth is background.

    Returns
    -------
    predicted_numbers, true_numbers : numpy.ndarray
        Labels present, without 0; shapes ``(p,)`` and ``(t,)``.
    pairs : pandas.DataFrame
        Of each pair that shares voxels: its places in both (``row``, ``column``), ``shared``,
        ``iou``, and which part of all voxels shared with predicted (``of_row``) and with true
        objects (``of_column``) these are.
    """
    width = max(int(truth.max()), 0) + 1
    found = []
    for z in np.nonzero(_kept(truth.shape, excluded_slices))[0]:
        pairs = predicted[z].astype(np.int64) * width + np.maximum(truth[z], 0)
        pairs = pairs if ignore is None else pairs[~ignore[z].astype(bool)]
        found.append(pd.Series(pairs.ravel()).value_counts())
    counts = pd.concat(found).groupby(level=0).sum() if found else pd.Series(dtype=np.int64)
    ours, true = np.divmod(counts.index.to_numpy(np.int64), width)
    names_a, row = np.unique(np.append(0, ours), return_inverse=True)
    names_b, column = np.unique(np.append(0, true), return_inverse=True)
    row, column, voxels = row[1:], column[1:], counts.to_numpy(np.int64)
    of_ours, of_true = (
        np.bincount(index, voxels, len(names)).astype(np.int64)
        for index, names in ((row, names_a), (column, names_b))
    )
    both = (row > 0) & (column > 0)
    row, column, voxels = row[both], column[both], voxels[both]
    pairs = pd.DataFrame({"row": row - 1, "column": column - 1, "shared": voxels})
    pairs["iou"] = voxels / (of_ours[row] + of_true[column] - voxels)
    for side in ("row", "column"):
        pairs[f"of_{side}"] = voxels / pairs.groupby(side)["shared"].transform("sum")
    return names_a[1:], names_b[1:], pairs


def match(pairs: pd.DataFrame, threshold: float = 0.5) -> pd.DataFrame:
    """Choose pairs one to one: most pairs at or above `threshold`, then the largest IoU.

    The Hungarian method, in each group of objects that such pairs connect.

    Parameters
    ----------
    pairs : pandas.DataFrame
        As of :func:`overlaps`: ``row``, ``column``, ``iou``.
    threshold : float
        Smallest IoU.

    Returns
    -------
    pandas.DataFrame
        The rows chosen, in the order of ``row``.
    """
    pairs = pairs[pairs["iou"] >= threshold]
    if not len(pairs):
        return pairs
    rows, row = np.unique(pairs["row"], return_inverse=True)
    columns, column = np.unique(pairs["column"], return_inverse=True)
    count = len(rows) + len(columns)
    graph = coo_array((np.ones(len(pairs), bool), (row, len(rows) + column)), (count, count))
    group = connected_components(graph, directed=False)[1][row]
    alone = np.bincount(group)[group] == 1
    chosen = [pairs[alone]]
    for _, some in pairs[~alone].groupby(group[~alone]):
        table = some.pivot(index="row", columns="column", values="iou")
        value = np.where(table > 0, 1 + table / (2 * min(table.shape)), 0)
        i, j = linear_sum_assignment(value, maximize=True)
        assigned = dict(zip(table.index[i], table.columns[j], strict=True))
        chosen.append(some[some["column"] == some["row"].map(assigned)])
    return pd.concat(chosen).sort_values("row")


def instance_scores(
    predicted: np.ndarray,
    truth: np.ndarray,
    threshold: float = 0.5,
    excluded_slices=(),
    ignore: np.ndarray | None = None,
) -> dict[str, object]:
    """Return precision, recall, F1, panoptic quality, splits, merges and the matched pairs.

    Parameters
    ----------
    predicted, truth : numpy.ndarray of int
        Labelmaps of one shape ``(nz, ny, nx)``; 0 is background.
    threshold : float
        Smallest IoU of a match.
    excluded_slices : iterable of int
        z indices left out.
    ignore : numpy.ndarray of bool, optional
        Voxels left out.

    Returns
    -------
    dict
        ``matched``, ``predicted``, ``truth`` are counts; ``pairs`` lists (predicted, true)
        numbers. Panoptic quality: Kirillov et al., CVPR 2019.
    """
    ours, true, shared = overlaps(predicted, truth, excluded_slices, ignore)
    pairs = match(shared, threshold)
    hits = len(pairs)
    total = float(pairs["iou"].sum())
    return {
        "precision": _ratio(hits, len(ours)),
        "recall": _ratio(hits, len(true)),
        "f1": _ratio(2 * hits, len(ours) + len(true)),
        "panoptic_quality": _ratio(2 * total, len(ours) + len(true)),
        "mean_iou": _ratio(total, hits),
        "splits": _covering(shared, "column"),
        "merges": _covering(shared, "row"),
        "matched": hits,
        "predicted": len(ours),
        "truth": len(true),
        "pairs": list(
            zip(ours[pairs["row"]].tolist(), true[pairs["column"]].tolist(), strict=True)
        ),
    }


def class_scores(pairs, predicted: dict[int, str], truth: dict[int, str]) -> dict[str, object]:
    """Return accuracy, macro-F1 and the confusion table (truth by row) over matched instances."""
    names = [(truth[t], predicted.get(p, "unknown")) for p, t in pairs if t in truth]
    if not names:
        return {"accuracy": float("nan"), "macro_f1": float("nan"), "confusion": pd.DataFrame()}
    true, ours = (np.array(side, dtype=object) for side in zip(*names, strict=True))
    scores = [
        _ratio(2 * np.sum((true == n) & (ours == n)), np.sum(true == n) + np.sum(ours == n))
        for n in sorted(set(true))
    ]
    return {
        "accuracy": float(np.mean(true == ours)),
        "macro_f1": float(np.mean(scores)),
        "confusion": pd.crosstab(pd.Series(true, name="truth"), pd.Series(ours, name="predicted")),
    }


def sphere_truth(
    points: np.ndarray, shape: tuple[int, int, int], eps: float = 3.5, min_samples: int = 10
) -> tuple[pd.DataFrame, np.ndarray]:
    """Fit a sphere to every cluster of points and draw solid balls.

    Parameters
    ----------
    points : numpy.ndarray
        Shape ``(n, 3)``, z, y, x, voxels.
    shape : tuple of int
        Of the labelmap.
    eps, min_samples : float, int
        Of DBSCAN (Ester et al., KDD 1996); `eps` in voxels.

    Returns
    -------
    spheres : pandas.DataFrame
        Columns instance, z, y, x, radius (voxels), points.
    labels : numpy.ndarray of int32
        Balls; a voxel of two goes to the one whose surface it lies deeper under.
    """
    groups = DBSCAN(eps=eps, min_samples=min_samples).fit_predict(points)
    labels = np.zeros(shape, dtype=np.int32)
    depth = np.zeros(shape, dtype=np.float32)
    z, y, x = np.ogrid[tuple(slice(0, n) for n in shape)]
    rows = []
    for number in range(1, groups.max() + 2 if len(groups) else 1):
        own = points[groups == number - 1]
        # |p|^2 = 2 c.p + (r^2 - |c|^2) is linear in c and the last term.
        design = np.column_stack([2 * own, np.ones(len(own))])
        *centre, rest = np.linalg.lstsq(design, (own**2).sum(axis=1), rcond=None)[0]
        radius = float(np.sqrt(rest + np.dot(centre, centre)))
        inside = radius - np.sqrt(
            (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2
        )
        labels[inside > depth] = number
        np.maximum(depth, inside, out=depth, casting="unsafe")
        rows.append((number, *centre, radius, len(own)))
    return pd.DataFrame(rows, columns=["instance", "z", "y", "x", "radius", "points"]), labels


def evaluate_tomogram(
    name: str,
    labels: np.ndarray,
    truth_labels: np.ndarray,
    probability: np.ndarray | None = None,
    truth_classes: dict[int, str] | None = None,
    classes: dict[int, str] | None = None,
    excluded_slices=(),
    complete: bool = True,
    excluded_truth=(),
    names: set[str] | None = None,
) -> pd.DataFrame:
    """Score one tomogram.

    Voxels where the truth is negative are unlabelled and left out. `excluded_truth` holds true
    instances that taught the classifier: the class scores leave them out. `names` holds the classes
    that the classifier knows: objects of other true classes are rightly ``unknown``.
    With ``complete=False`` the truth lacks objects, so an unmatched instance is no error: only
    recall is reported.

    Returns
    -------
    pandas.DataFrame
        Columns tomogram, metric, value, note.
    """
    excluded = sorted(set(excluded_slices))
    notes = [f"without annotated slices {excluded}"] if excluded else []
    found = instance_scores(labels, truth_labels, excluded_slices=excluded, ignore=truth_labels < 0)
    rows = {"instance_recall": found["recall"], "instances_matched": found["matched"]}
    rows["instances_truth"] = found["truth"]
    if complete:
        keys = ("precision", "f1", "panoptic_quality", "splits", "merges", "predicted")
        rows |= {f"instance_{key}": found[key] for key in keys}
        scored = labels != 0 if probability is None else np.asarray(probability)
        voxels = voxel_scores(scored, truth_labels, excluded)
        rows |= {f"voxel_{key}": value for key, value in voxels.items()}
    else:
        notes.append("truth is incomplete: recall only")
    if truth_classes and classes:
        unseen = [pair for pair in found["pairs"] if pair[1] not in excluded_truth]
        if nameless := set(truth_classes.values()) - (names or set(truth_classes.values())):
            listed = ", ".join(sorted(nameless))
            notes.append(f"of classes without examples ({listed}) unknown is right")
            truth_classes = {
                number: "unknown" if kind in nameless else kind
                for number, kind in truth_classes.items()
            }
        named = class_scores(unseen, classes, truth_classes)
        rows |= {f"class_{key}": named[key] for key in ("accuracy", "macro_f1")}
    note = "; ".join(notes)
    return pd.DataFrame([(name, k, float(v), note) for k, v in rows.items()], columns=COLUMNS)


def _kept(shape, excluded_slices) -> np.ndarray:
    """Return a mask of the z slices that count."""
    keep = np.ones(shape[0], dtype=bool)
    keep[list(excluded_slices)] = False
    return keep


def _covering(pairs: pd.DataFrame, side: str) -> int:
    """Count objects of a side of which at least two others each share a fifth.

    See docs/evaluation.md.
    """
    large = pairs.loc[pairs[f"of_{side}"] >= 0.2, side]
    return int((large.value_counts() >= 2).sum())


def _ratio(part: float, whole: float) -> float:
    """Return part over whole, NaN for 0 over 0."""
    return float(part / whole) if whole else float("nan")
