"""The classifier's head: a linear model on standardised vectors, with a reject option."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold

from tomocensus.classify.embeddings import Embeddings
from tomocensus.errors import InputError
from tomocensus.models import Model

UNKNOWN = "unknown"


def fit_head(
    embeddings: dict[str, Embeddings], named: pd.DataFrame, seed: int = 0
) -> tuple[dict, dict[str, np.ndarray]]:
    """Fit a head to named instances.

    Multinomial logistic regression, classes weighted alike. Where every class has two examples or
    more, a stratified cross-validation (up to 5 folds) gives accuracy, macro-F1 and the confusion
    matrix, and a temperature that calibrates the probabilities.

    Parameters
    ----------
    embeddings : dict of str to Embeddings
        Of each tomogram with examples.
    named : pandas.DataFrame
        Columns tomogram, instance, class.
    seed : int
        Of the folds.

    Returns
    -------
    card : dict
        Kind, classes, figures.
    weights : dict of str to numpy.ndarray
        Mean, scale, coefficients, intercept, temperature, centres of the classes and reach.

    Raises
    ------
    InputError
        With fewer than two classes, or examples from different encoders.
    """
    vectors, names, encoder = _gather(embeddings, named)
    classes = sorted(set(names))
    if len(classes) < 2:
        raise InputError(
            f"the examples name {len(classes)} class that meets an instance; two are needed. Name "
            "objects of another kind as well (debris will do)."
        )
    target = np.array([classes.index(name) for name in names])
    mean, scale = vectors.mean(axis=0), vectors.std(axis=0) + 0.05
    standard = (vectors - mean) / scale
    outside = _cross_validate(standard, target, len(classes), seed)
    coefficients, intercept = _fit(standard, target, len(classes))
    temperature = _temperature(outside, target) if outside is not None else 1.5
    centres = np.stack([standard[target == k].mean(axis=0) for k in range(len(classes))])
    reach = 3.0 * float(np.sqrt(((standard - centres[target]) ** 2).sum(axis=1)).max() + 1.0)
    card = {
        "kind": "classifier",
        "classes": classes,
        "examples": {name: int((target == k).sum()) for k, name in enumerate(classes)},
        "feature_names": list(next(iter(embeddings.values())).feature_names),
        "encoder": encoder,
        "method": "multinomial logistic regression on standardised embedding and features",
        "seed": seed,
        **_figures(outside, target, classes),
    }
    weights = {
        "mean": mean,
        "scale": scale,
        "coefficients": coefficients,
        "intercept": intercept,
        "temperature": np.array([temperature]),
        "centres": centres,
        "reach": np.array([reach]),
    }
    return card, {key: value.astype(np.float32) for key, value in weights.items()}


def _gather(embeddings, named):
    """Return vectors and class names of the named instances, and the encoder's hash."""
    vectors, names, encoders = [], [], set()
    for tomogram, part in named.groupby("tomogram", sort=True):
        known = embeddings[tomogram]
        encoders.add(known.encoder)
        row = {int(number): index for index, number in enumerate(known.instance)}
        table = known.table()
        for instance, kind in zip(part["instance"], part["class"], strict=True):
            vectors.append(table[row[int(instance)]])
            names.append(kind)
    if len(encoders) > 1:
        raise InputError("the embeddings come from different encoders. Run snakemake first.")
    if not vectors:
        raise InputError("no example meets an instance. Check their positions (x, y, z voxels).")
    return np.stack(vectors).astype(float), names, next(iter(encoders))


def _fit(standard, target, count):
    """Return coefficients ``(count, d)`` and intercepts ``(count,)``."""
    model = LogisticRegression(C=0.5, class_weight="balanced", max_iter=2000)
    model.fit(standard, target)
    coefficients = np.zeros((count, standard.shape[1]))
    intercept = np.full(count, -30.0)
    if len(model.classes_) == 2:
        coefficients[model.classes_[1]] = model.coef_[0]
        intercept[model.classes_] = [0.0, model.intercept_[0]]
    else:
        coefficients[model.classes_] = model.coef_
        intercept[model.classes_] = model.intercept_
    return coefficients, intercept


def _cross_validate(standard, target, count, seed):
    """Return logits of every example from a model that did not see it; None with too few."""
    folds = min(5, int(np.bincount(target, minlength=count).min()))
    if folds < 2:
        return None
    logits = np.zeros((len(target), count))
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for train, test in splitter.split(standard, target):
        coefficients, intercept = _fit(standard[train], target[train], count)
        logits[test] = standard[test] @ coefficients.T + intercept
    return logits


def _temperature(logits, target) -> float:
    """Return the temperature that makes held-out probabilities most likely."""
    grid = np.geomspace(0.5, 5, 40)
    losses = [
        -np.log(softmax(logits / value)[np.arange(len(target)), target] + 1e-9).mean()
        for value in grid
    ]
    return float(grid[int(np.argmin(losses))])


def _figures(outside, target, classes) -> dict:
    """Return the figures of the cross-validation."""
    if outside is None:
        return {"warnings": ["a class has a single example: no cross-validation"]}
    found = outside.argmax(axis=1)
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (target, found), 1)
    return {
        "accuracy": float((found == target).mean()),
        "macro_f1": float(f1_score(target, found, average="macro", zero_division=0)),
        "confusion_matrix": confusion.tolist(),
    }


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities ``(n, k)`` whose rows sum to 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def apply_head(
    head: Model, embeddings: Embeddings, minimum_confidence: float = 0.5
) -> pd.DataFrame:
    """Name instances.

    Parameters
    ----------
    head : Model
        Of kind ``classifier``.
    embeddings : Embeddings
        From the encoder that the head was fitted on.
    minimum_confidence : float
        Below it, and far from all examples, the class is ``unknown``.

    Returns
    -------
    pandas.DataFrame
        Columns instance, class, confidence and ``p_CLASS`` for every class.

    Raises
    ------
    InputError
        Where the head belongs to another encoder.
    """
    if head.card["encoder"] != embeddings.encoder:
        raise InputError(
            f"{head.path}: this classifier was fitted with another encoder. Run "
            "`snakemake train_classifier` again."
        )
    classes = head.card["classes"]
    weights = head.weights
    standard = (embeddings.table() - weights["mean"]) / weights["scale"]
    logits = standard @ weights["coefficients"].T + weights["intercept"]
    chances = softmax(logits / float(weights["temperature"][0])) if len(logits) else logits
    best = chances.argmax(axis=1) if len(logits) else np.zeros(0, int)
    confidence = chances[np.arange(len(best)), best]
    gaps = np.linalg.norm(standard[:, None] - weights["centres"][None], axis=2)
    far = gaps.min(axis=1) > float(weights["reach"][0]) if len(gaps) else np.zeros(0, bool)
    names = np.array(classes, dtype=object)[best]
    names[(confidence < minimum_confidence) | far] = UNKNOWN
    table = pd.DataFrame(
        {"instance": embeddings.instance, "class": names, "confidence": confidence}
    )
    for index, name in enumerate(classes):
        table[f"p_{name}"] = chances[:, index]
    return table
