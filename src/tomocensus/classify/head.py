"""The classifier's head: what names objects from a few examples.

The classes' Gaussians (:mod:`tomocensus.classify.gaussians`) know from simulation how kinds
scatter. A class that is called like a kind of the shipped head has that kind's simulated objects as
further examples, which together count for a few. The head's other kinds, which nobody named, stand
beside the classes: what is rather one of them is ``unknown`` as well.

Two more models of the same sort know nothing from simulation: where a user's objects differ from
simulated ones they may be the better. One sees the features alone. The other sees the embedding
as well, and the features standardised, their outliers drawn in, at a tenth of their weight: they
are more than a few examples can weigh. The classes' probabilities are a mean of all three, weighed
by how well each names left-out examples (stacking; Wolpert, Neural Networks 1992).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from tomocensus.classify.embeddings import Embeddings
from tomocensus.classify.gaussians import (
    NEW_KIND,
    Prior,
    best_temperature,
    fit_gaussians,
    leave_out,
    log_priors,
    scores_of,
    softmax,
)
from tomocensus.classify.kinds import Kinds, called_like
from tomocensus.errors import InputError
from tomocensus.models import Model

UNKNOWN = "unknown"
# Prior probability that an object is of one of the shipped head's kinds beside the classes; less
# where these are so few that a single one would be commoner than a class.
_OTHERS = 0.1
# Simulated kinds are left out where left-out examples are e to this power as likely without them.
# The user is told where that is so much for each of them: with very many it hardly matters.
_DOUBT, _TOLD_DOUBT = 3.0, 0.1
# An example that cannot be left out, and that the shipped head calls otherwise, tells no more
# against the kinds than a chance as low as this.
_LEAST_CHANCE = 0.03
# For how many objects of a tomogram the belief counts that its classes are equally common.
_SHARES_WEIGHT = 30.0
# The models beside the first: start of the names of their arrays.
_SECOND, _FEATURES = "second.", "features."
# How many examples the beliefs in the first, the second and the features alone count for.
_BELIEFS = (3.0, 2.0, 1.0)
# Of the second model: weight of a feature of unit deviation beside the embedding, and how much less
# sure it is than left-out examples of the same tomograms say.
_FEATURES_WEIGHT, _SOFTER = 0.1, 3.0
# How much softer one example a class makes the classes' chances, and fewer than how many examples
# make them no softer still.
_FEW_SOFTER, _FEWEST = 0.5, 3


def fit_head(
    embeddings: dict[str, Embeddings],
    named: pd.DataFrame,
    encoder: Model | None = None,
    seed: int = 0,
    base: Model | None = None,
) -> tuple[dict, dict[str, np.ndarray]]:
    """Fit a head to named instances.

    Leave-one-out over all examples whose class has a second one gives accuracy, macro-F1, the
    confusion matrix and the calibration, and a temperature that calibrates the probabilities.

    Parameters
    ----------
    embeddings : dict of str to Embeddings
        Of each tomogram with examples.
    named : pandas.DataFrame
        Columns tomogram, instance, class.
    encoder : Model, optional
        Brings the prior; without it the examples alone have to say how kinds scatter.
    seed : int
        Picks those that stand for the forms of a class with very many examples.
    base : Model, optional
        A head of the same encoder. Its kinds stand behind the classes that are called like them
        (:func:`tomocensus.classify.kinds.kind_called`), the rest beside them.

    Returns
    -------
    card : dict
        Kind, classes, those that a kind of `base` stands behind (``kinds``), the kinds beside them
        (``others``), figures.
    weights : dict of str to numpy.ndarray
        Centre, transform, spread of the kinds, means and counts of classes and kinds beside them,
        the examples that stand for forms with the class and weight of each, temperature; the same
        of the other models, and their shares; the temperature of their mean (``softness``); how
        common classes and kinds beside them are expected to be, 1 in the mean (``expected``).

    Raises
    ------
    InputError
        With fewer than two classes, kinds beside them included, examples from different encoders,
        or a base of another one.
    """
    vectors, names, made_by = _gather(embeddings, named)
    classes = sorted(set(names))
    target = np.array([classes.index(name) for name in names])
    features = next(iter(embeddings.values())).features.shape[1]
    called = called_like(classes, base, made_by)
    (weights, chances, usable), others, doubt = _first_model(
        vectors, target, Prior.of(encoder), seed, base, [called.get(name) for name in classes]
    )
    if len(classes) + len(others) < 2:
        raise InputError(
            "the examples name 1 class that meets an instance; two are needed. Name objects of "
            "another kind as well (debris will do)."
        )
    second, beside, _ = _second_model(vectors, features, target, seed)
    third, plain, _ = _model(vectors[:, -features:], target, None, seed)
    chances = [chances, beside, plain]
    shares = _shares(chances, target[usable])
    weights["softness"] = np.array([_softness(weights["counts"][: len(classes)])])
    weights["expected"] = _expected(len(classes), len(others))
    chances = _as_common(_stacked(chances, shares, weights["softness"][0]), weights["expected"])
    for start, part, share in ((_SECOND, second, shares[1]), (_FEATURES, third, shares[2])):
        weights |= {start + name: value for name, value in part.items()}
        weights[start + "share"] = np.array([share])
    card = {
        "kind": "classifier",
        "classes": classes,
        "examples": {name: int((target == k).sum()) for k, name in enumerate(classes)},
        "feature_names": list(next(iter(embeddings.values())).feature_names),
        "encoder": made_by,
        "kinds": called if doubt < _DOUBT else {},
        "others": others,
        "method": "probabilistic linear discriminant analysis of embedding and features",
        "seed": seed,
        "temperature": float(weights["temperature"][0]),
        "share_without_simulation": float(1 - shares[0]),
        **_figures(chances, target, usable, classes),
    }
    if doubt >= max(_DOUBT, _TOLD_DOUBT * len(target)):
        card["warnings"].append(
            f"the examples of {', '.join(called)} are unlike the simulated objects of that name: "
            "these were left out"
        )
    return card, {key: value.astype(np.float32) for key, value in weights.items()}


def _first_model(vectors, target, prior: Prior | None, seed: int, base: Model | None, called):
    """Return the model that simulation taught, kinds beside the classes, and doubt of the names.

    The doubt that these mean what those of the kinds do is the log of how much likelier the names
    of left-out examples are without; where these cannot be left out, by guessing than by what the
    head that knows the kinds calls them.
    """
    if base is None:
        return _model(vectors, target, prior, seed), [], 0.0
    arrays = {name: value.astype(float) for name, value in base.weights.items()}
    chances = _named(chances_of(vectors, arrays), len(base.card["classes"]))
    kinds = Kinds.of(base, [None] * len(called), chances, target)
    alone = _model(vectors, target, prior, seed, kinds=kinds)
    if not any(called):
        return alone, kinds.others, 0.0
    behind = Kinds.of(base, called, chances, target)
    named = _model(vectors, target, prior, seed, kinds=behind)
    usable = alone[2]
    without, with_kinds = (_likely(one[1], target[usable], len(called)) for one in (alone, named))
    doubt = np.log(without / with_kinds).sum() + _doubt_of_single_ones(
        chances[~usable], target[~usable], called, base.card["classes"]
    )
    model, kinds = (named, behind) if doubt < _DOUBT else (alone, kinds)
    return model, kinds.others, float(doubt)


def _doubt_of_single_ones(chances, target, called: list[str | None], kinds: list[str]) -> float:
    """Return the log of how much likelier guesses are right than the head that knows the kinds."""
    known = [k for k, kind in enumerate(called) if kind]
    mine = np.isin(target, known)
    chances = chances[mine][:, [kinds.index(called[k]) for k in known]]
    chances /= np.maximum(chances.sum(axis=1, keepdims=True), 1e-300)
    named = chances[np.arange(mine.sum()), np.searchsorted(known, target[mine])]
    return float(-np.log(len(known) * np.maximum(named, _LEAST_CHANCE)).sum())


def _expected(classes: int, others: int) -> np.ndarray:
    """Return how common classes and kinds beside them are expected to be, 1 in the mean."""
    if not others:
        return np.ones(classes)
    share = min(_OTHERS / (1 - NEW_KIND), others / (classes + others))
    each = [np.full(classes, (1 - share) / classes), np.full(others, share / others)]
    return (classes + others) * np.concatenate(each)


def _model(vectors, target, prior: Prior | None, seed: int, softer=1.0, kinds=None):
    """Return the arrays of one model, chances of left-out examples, and who these are."""
    weights = fit_gaussians(vectors, target, prior, seed, kinds)
    scores, usable = leave_out(vectors, target, prior, seed, kinds)
    before = float(weights["temperature"][0])
    temperature = softer * best_temperature(scores, target[usable], before)
    weights["temperature"] = np.array([temperature])
    return weights, softmax(scores / temperature + log_priors(scores.shape[1])), usable


def _second_model(vectors, features: int, target, seed: int):
    """Return what :func:`_model` does, of the model that knows nothing from simulation."""
    own = vectors[:, -features:]
    deviation = own.std(axis=0)
    seen_as = {"middle": own.mean(axis=0), "deviation": np.where(deviation > 1e-6, deviation, 1.0)}
    weights, *rest = _model(seen_by_second(vectors, seen_as), target, None, seed, _SOFTER)
    return weights | seen_as, *rest


def seen_by_second(vectors: np.ndarray, second: dict[str, np.ndarray]) -> np.ndarray:
    """Return vectors as the second model sees them: features drawn in, with little weight."""
    count = len(second["middle"])
    features = np.arcsinh((vectors[:, -count:] - second["middle"]) / second["deviation"])
    return np.concatenate([vectors[:, :-count], _FEATURES_WEIGHT * features], axis=1)


def _features_alone(vectors: np.ndarray, third: dict[str, np.ndarray]) -> np.ndarray:
    """Return vectors as the third model sees them."""
    return vectors[:, -len(third["centre"]) :]


def _likely(chances: np.ndarray, target: np.ndarray, count: int) -> np.ndarray:
    """Return how likely the targets ``(n,)`` are of objects of one of the first `count` classes."""
    return _named(chances, count)[np.arange(len(target)), target] + 1e-9


def _shares(chances: list[np.ndarray], target: np.ndarray) -> np.ndarray:
    """Return the weights of the models with which left-out examples are likeliest.

    Expectation-maximisation, held to the beliefs.
    """
    beliefs = np.array(_BELIEFS)
    count = _known_to_all(chances)
    likely = np.stack([_likely(one, target, count) for one in chances])
    shares = beliefs / beliefs.sum()
    for _ in range(200):
        mine = shares[:, None] * likely
        counts = beliefs + (mine / mine.sum(axis=0)).sum(axis=1)
        shares = counts / counts.sum()
    return shares


def _known_to_all(chances: list[np.ndarray]) -> int:
    """Return how many classes each model knows; these come first."""
    return min(one.shape[1] for one in chances) - 1


def _named(chances: np.ndarray, count: int) -> np.ndarray:
    """Return the chances ``(n, count)`` of the first classes where an object is of one of them."""
    return chances[:, :count] / np.maximum(chances[:, :count].sum(axis=1, keepdims=True), 1e-300)


def _softness(counts: np.ndarray) -> float:
    """Return the temperature of the models' mean, by the examples of each class.

    Left-out examples are too few themselves to tell it where there are few of them.
    """
    return 1 + _FEW_SOFTER * float(np.mean(1 / np.maximum(counts, _FEWEST)))


def _stacked(chances: list[np.ndarray], shares, softness: float = 1.0) -> np.ndarray:
    """Return the mean of the models' chances.

    Those of the kinds beside the classes, and of a new one, are the first model's alone.
    """
    count = _known_to_all(chances)
    rest = chances[0][:, count:]
    named = sum(share * _named(one, count) for share, one in zip(shares, chances, strict=True))
    named = named ** (1 / softness)
    named /= np.maximum(named.sum(axis=1, keepdims=True), 1e-300)
    return np.column_stack([(1 - rest.sum(axis=1, keepdims=True)) * named, rest])


def _as_common(chances: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Return chances ``(n, k + 1)`` where kinds are as common as said, not equally so."""
    chances = chances * np.append(common, 1.0)
    return chances / np.maximum(chances.sum(axis=1, keepdims=True), 1e-300)


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


def chances_of(vectors: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Return the chances ``(n, k + 1)`` of classes and kinds beside them; the last is a new kind.

    These are as common as the head expects (``expected``); heads of former versions do not say.
    """
    return _as_common(_equally_common(vectors, weights), expected_of(weights))


def _equally_common(vectors: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Return what :func:`chances_of` does where nothing is expected to be commoner than the rest.

    Whatever a tomogram holds, a head may count some for less (``common``): the shipped one does so
    with kinds that few have. Heads of former versions do not, and have fewer models.
    """
    models, shares = [(vectors, weights)], []
    for start, seen_by in ((_SECOND, seen_by_second), (_FEATURES, _features_alone)):
        if part := part_of(weights, start):
            models.append((seen_by(vectors, part), part))
            shares.append(float(part["share"][0]))
    softness = float(weights.get("softness", [1.0])[0])
    shares = [1 - sum(shares), *shares]
    chances = _stacked([_chances_of_one(*model) for model in models], shares, softness)
    return _as_common(chances, weights.get("common", np.ones(len(weights["counts"]))))


def expected_of(weights: dict[str, np.ndarray]) -> np.ndarray:
    """Return how common a head expects its classes and the kinds beside them to be, 1 in the mean.

    Unlike what it counts them for, the objects of a tomogram correct that.
    """
    return weights.get("expected", np.ones(len(weights["counts"])))


def _chances_of_one(vectors: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Return the chances ``(n, k + 1)`` by a single model."""
    scores = scores_of(vectors, weights) / weights["temperature"]
    return softmax(scores + log_priors(scores.shape[1]))


def part_of(weights: dict[str, np.ndarray], start: str) -> dict[str, np.ndarray]:
    """Return the arrays whose names start so, under the rest of the name."""
    named = ((name, value) for name, value in weights.items() if name.startswith(start))
    return {name.removeprefix(start): value for name, value in named}


def _figures(chances, target, usable, classes) -> dict:
    """Return the figures of leave-one-out."""
    # Large to load, and Snakemake loads this package at each start for the examples' sheet.
    from sklearn.metrics import f1_score

    alone = [name for k, name in enumerate(classes) if (target == k).sum() == 1]
    warnings = [f"class {name} has a single example: it cannot be checked" for name in alone]
    if not usable.any():
        return {"warnings": warnings}
    truth, named = target[usable], chances[:, : len(classes)]
    found, sure = named.argmax(axis=1), named.max(axis=1)
    unknown = (sure < 0.5) | (1 - named.sum(axis=1) > sure)
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (truth, found), 1)
    right = found == truth
    rejection = [
        {
            "minimum_confidence": level,
            "named": float((sure >= level).mean()),
            "error": float(1 - right[sure >= level].mean()) if (sure >= level).any() else 0.0,
        }
        for level in (0.5, 0.7, 0.9, 0.95)
    ]
    return {
        "warnings": warnings,
        "accuracy": float(right.mean()),
        "macro_f1": float(f1_score(truth, found, average="macro", zero_division=0)),
        "calibration_error": calibration_error(sure, right),
        "called_unknown": float(unknown.mean()),
        "rejection": rejection,
        "confusion_matrix": confusion.tolist(),
    }


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> float:
    """Return the expected calibration error (Guo et al., ICML 2017), bins of equal width."""
    index = np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
    gaps = [
        abs(np.mean(confidence[index == k]) - np.mean(correct[index == k])) * np.mean(index == k)
        for k in np.unique(index)
    ]
    return float(sum(gaps))


def with_shares(scores: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return probabilities ``(n, k + 1)`` of a tomogram's objects; common classes are likelier.

    How common each class is, is estimated from the objects themselves by expectation-maximisation
    (Saerens et al., Neural Computation 2002), held to what is expected where there are few of them.
    The share of a new kind stays as it is.

    Parameters
    ----------
    scores : numpy.ndarray
        ``(n, k + 1)`` log-likelihoods over temperature; the last column is that of a new kind.
    expected : numpy.ndarray
        ``(k,)`` how common the classes are expected to be, to each other.
    """
    expected = expected / expected.sum()
    shares = np.append((1 - NEW_KIND) * expected, NEW_KIND)
    for _ in range(30):
        named = softmax(scores + np.log(shares))[:, :-1].sum(axis=0) + _SHARES_WEIGHT * expected
        shares = np.append((1 - NEW_KIND) * named / named.sum(), NEW_KIND)
    return softmax(scores + np.log(shares))


def apply_head(
    head: Model,
    embeddings: Embeddings,
    minimum_confidence: float = 0.5,
    kinds: list[str] | str = (),
) -> pd.DataFrame:
    """Name the instances of one tomogram.

    Parameters
    ----------
    head : Model
        Of kind ``classifier``.
    embeddings : Embeddings
        From the encoder that the head was fitted on.
    minimum_confidence : float
        Where no class is that likely, or another or a new kind is likelier than each, the class is
        ``unknown``. Probabilities are calibrated, so of what is named with confidence c about a
        part of 1 - c is wrong.
    kinds : list of str or "all"
        Those beside the head's classes that are names as well, not ``unknown``.

    Returns
    -------
    pandas.DataFrame
        Columns instance, class, confidence (of the likeliest class, named or not), ``p_CLASS``
        for every class and ``p_unknown``; the last ones sum to 1.

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
    classes, others = head.card["classes"], head.card.get("others", [])
    weights = {name: value.astype(float) for name, value in head.weights.items()}
    chances = np.zeros((0, len(classes) + len(others) + 1))
    if len(embeddings.instance):
        chances = _equally_common(embeddings.table().astype(float), weights)
        scores = np.log(np.maximum(chances, 1e-30)) - log_priors(chances.shape[1])
        chances = with_shares(scores, expected_of(weights))
    names = [*classes, *named_kinds(head.card, kinds)]
    columns = [[*classes, *others].index(name) for name in names]
    named, unknown = chances[:, columns], np.delete(chances, columns, axis=1).sum(axis=1)
    best = named.argmax(axis=1)
    confidence = named[np.arange(len(best)), best]
    found = np.array(names, dtype=object)[best]
    found[(confidence < minimum_confidence) | (unknown > confidence)] = UNKNOWN
    table = pd.DataFrame(
        {"instance": embeddings.instance, "class": found, "confidence": confidence}
    )
    table[[f"p_{name}" for name in names]] = named
    table[f"p_{UNKNOWN}"] = unknown
    return table


def named_kinds(card: dict, asked: list[str] | str) -> list[str]:
    """Return the kinds beside a head's classes that are asked for as names, or all of them.

    A kind that a class is called like, or looks like, stands no longer beside the classes.
    """
    beside = [kind for kind in card.get("others", []) if kind not in card["classes"]]
    return [kind for kind in beside if asked == "all" or kind in asked]
