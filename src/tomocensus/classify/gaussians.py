"""A Gaussian for each class, with what simulation taught about Gaussians.

Probabilistic linear discriminant analysis (Prince and Elder, ICCV 2007). Objects of one kind
scatter with covariance W about their mean, the means of kinds scatter with covariance B. Both are
measured once, on simulated objects, and shipped with the encoder; the user's examples then only
have to say where each class lies. A class may have several forms (empty, filled and coated
vesicles): half of its density stands about its mean, half about its single examples. The same model
says how likely an object is under a kind that nobody named: that is the probability of ``unknown``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from tomocensus.classify.kinds import Kinds
from tomocensus.models import Model

# Prior probability that an object is of a kind without examples.
NEW_KIND = 0.05
# How many examples the simulated covariance and temperature count for.
_PRIOR_WEIGHT = 300.0
_TEMPERATURE_WEIGHT = 100.0
# Part of W added to B: kinds may differ in directions in which the simulated ones do not.
_OPEN_DIRECTIONS = 0.3
# Of a class, more examples than these say nothing new about its forms.
_MOST_FORMS = 500
# Heads that are fitted without some of the examples, to tell how well these are named.
_MOST_FOLDS = 60


@dataclass(frozen=True)
class Prior:
    """What is known of vectors before any example.

    Parameters
    ----------
    mean : numpy.ndarray
        ``(d,)``, of the kinds.
    within : numpy.ndarray
        ``(d, d)`` covariance of one kind's objects.
    between : numpy.ndarray
        ``(d, d)`` covariance of the kinds' means.
    temperature : float
        Log-likelihoods are divided by it: real vectors are not quite Gaussian.
    """

    mean: np.ndarray
    within: np.ndarray
    between: np.ndarray
    temperature: float = 3.0

    @classmethod
    def of(cls, encoder: Model | None) -> Prior | None:
        """Return the prior that an encoder brings, None where it brings none."""
        if encoder is None or "prior.mean" not in encoder.weights:
            return None
        parts = ("mean", "within", "between")
        stored = {name: encoder.weights[f"prior.{name}"].astype(float) for name in parts}
        return cls(**stored, temperature=float(encoder.weights["prior.temperature"][0]))

    def to_weights(self) -> dict[str, np.ndarray]:
        """Return what :meth:`of` reads, to be saved with the encoder."""
        return {
            "prior.mean": self.mean.astype(np.float32),
            "prior.within": self.within.astype(np.float32),
            "prior.between": self.between.astype(np.float32),
            "prior.temperature": np.array([self.temperature], np.float32),
        }

    @classmethod
    def measure(cls, vectors: np.ndarray, target: np.ndarray, temperature: float = 3.0) -> Prior:
        """Measure a prior on many objects of many kinds.

        Parameters
        ----------
        vectors : numpy.ndarray
            ``(n, d)``.
        target : numpy.ndarray
            ``(n,)`` kinds; each counts alike, however many objects it has.
        temperature : float
            As above.
        """
        kinds = [vectors[target == kind] for kind in np.unique(target)]
        means = np.stack([kind.mean(axis=0) for kind in kinds])
        within = np.mean([np.cov(kind.T, bias=True) for kind in kinds if len(kind) > 2], axis=0)
        within = within + 0.02 * np.diag(np.diag(within)) + 1e-6 * np.eye(vectors.shape[1])
        return cls(means.mean(axis=0), within, np.cov(means.T, bias=True), temperature)

    @classmethod
    def vague(cls, vectors: np.ndarray) -> Prior:
        """Return a prior for an encoder that brings none: each dimension on its own."""
        spread = np.diag(vectors.var(axis=0) + 0.05**2)
        return cls(vectors.mean(axis=0), 0.1 * spread, spread)


def _parameters(vectors: np.ndarray, target: np.ndarray, weight, prior: Prior) -> dict:
    """Return what :func:`fit_gaussians` does, without the forms; ``places`` are all vectors."""
    number = np.bincount(target, weight)
    means = np.zeros((len(number), vectors.shape[1]))
    np.add.at(means, target, weight[:, None] * vectors)
    means /= number[:, None]
    # The user's classes and the simulated kinds, as one more class, say where the middle is.
    centre = (means.sum(axis=0) + 3 * prior.mean) / (len(number) + 3)
    apart = np.sqrt(weight)[:, None] * (vectors - means[target])
    freedom = max(weight.sum() - len(number), 0)
    within = (_PRIOR_WEIGHT * prior.within + apart.T @ apart) / (_PRIOR_WEIGHT + freedom)
    between = prior.between + _OPEN_DIRECTIONS * within
    spread, transform = eigh(between, within)
    return {
        "centre": centre,
        "transform": transform,
        "spread": np.maximum(spread, 1e-3),
        "means": (means - centre) @ transform,
        "places": (vectors - centre) @ transform,
        "counts": number,
        "temperature": np.array([prior.temperature]),
    }


def fit_gaussians(
    vectors: np.ndarray,
    target: np.ndarray,
    prior: Prior | None,
    seed: int,
    kinds: Kinds | None = None,
) -> dict[str, np.ndarray]:
    """Fit a Gaussian to each class.

    Parameters
    ----------
    vectors : numpy.ndarray
        ``(n, d)``, of the examples.
    target : numpy.ndarray
        ``(n,)`` classes, 0 to k - 1.
    prior : Prior or None
        Without it the examples alone have to say how kinds scatter.
    seed : int
        Picks those that stand for the forms of a class with very many examples.
    kinds : Kinds, optional
        Simulated objects behind the classes, and further kinds beside them, numbered from k on.

    Returns
    -------
    dict of str to numpy.ndarray
        ``centre``, ``transform`` and ``spread``: the space in which W is the identity and B
        diagonal; ``means`` and ``counts`` of classes and kinds; ``examples``, which stand for
        forms, with ``example_class`` and ``example_weight``; ``temperature``.
    """
    prior = prior or Prior.vague(vectors)
    forms, weight = _forms(target, seed), np.ones(len(target))
    kept = target[forms]
    weight_of_form = np.bincount(target)[kept] / np.bincount(kept)[kept]
    if kinds is not None:
        forms = np.append(forms, len(target) + np.arange(len(kinds.target)))
        vectors = np.concatenate([vectors, kinds.vectors])
        target = np.append(target, kinds.target)
        weight = np.append(weight, kinds.weight)
        weight_of_form = np.append(weight_of_form, kinds.weight)
    weights = _parameters(vectors, target, weight, prior)
    return weights | {
        "examples": weights.pop("places")[forms],
        "example_class": target[forms],
        "example_weight": weight_of_form,
    }


def _forms(target: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows of the examples that stand for the forms of their classes."""
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(np.nonzero(target == k)[0])[:_MOST_FORMS] for k in np.unique(target)]
    return np.sort(np.concatenate(rows))


def scores_of(vectors: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Return log-likelihoods ``(n, k + 1)`` of vectors ``(n, d)``; the last column: a new kind.

    Parameters
    ----------
    vectors : numpy.ndarray
        ``(n, d)``.
    weights : dict of str to numpy.ndarray
        From :func:`fit_gaussians`.
    """
    places = (vectors - weights["centre"]) @ weights["transform"]
    # The mean of both densities.
    both = np.logaddexp(_about_means(places, weights), _about_examples(places, weights))
    new = _log_normal(places, 0.0, 1 + weights["spread"])
    return np.column_stack([both - np.log(2), new])


def _about_means(places, weights):
    """Return the log density about the mean of each class, ``(n, k)``."""
    posteriors = (
        _posterior(mean, number, weights["spread"])
        for mean, number in zip(weights["means"], weights["counts"], strict=True)
    )
    return np.stack([_log_normal(places, *posterior) for posterior in posteriors], axis=1)


def _about_examples(places, weights):
    """Return the log of the mean density about the single examples of each class, ``(n, k)``."""
    means, variance = _posterior(weights["examples"], 1.0, weights["spread"])
    here, there = places / np.sqrt(variance), means / np.sqrt(variance)
    squares = (here**2).sum(axis=1)[:, None] + (there**2).sum(axis=1) - 2 * here @ there.T
    density = -0.5 * (squares + np.log(2 * np.pi * variance).sum())
    # Heads of former versions have examples that count alike.
    weight = weights.get("example_weight", np.ones(len(means)))
    columns = []
    for kind in range(len(weights["counts"])):
        mine = weights["example_class"] == kind
        total = np.log(weight[mine].sum())
        columns.append(logsumexp(density[:, mine], axis=1, b=weight[mine]) - total)
    return np.stack(columns, axis=1)


def _posterior(mean, number, spread):
    """Return mean and variance of a new object of a class with `number` examples."""
    keep = number * spread / (number * spread + 1)
    return keep * mean, 1 + spread / (number * spread + 1)


def _log_normal(places, mean, variance):
    """Return the log density of rows under a diagonal Gaussian."""
    return -0.5 * ((places - mean) ** 2 / variance + np.log(2 * np.pi * variance)).sum(axis=1)


def leave_out(
    vectors: np.ndarray,
    target: np.ndarray,
    prior: Prior | None,
    seed: int,
    kinds: Kinds | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Score each example by a model without it; parameters as in :func:`fit_gaussians`.

    The model is fitted anew: how kinds scatter is learnt from the examples as well, and where these
    are few a single one says most of how its own kind does. Many examples are left out some at a
    time, no class all at once.

    Returns
    -------
    scores : numpy.ndarray
        ``(m, k + 1)`` log-likelihoods of those that can be left out.
    usable : numpy.ndarray
        ``(n,)``, bool: which can, as there is a second example of their class.
    """
    counts = np.bincount(target)
    usable = counts[target] > 1
    others = 0 if kinds is None else len(kinds.others)
    scores = np.zeros((len(target), len(counts) + others + 1))
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(np.nonzero(usable & (target == k))[0]) for k in range(len(counts))]
    order = np.concatenate(rows)
    folds = min(len(order), _MOST_FOLDS)
    for fold in range(folds):
        out = order[fold::folds]
        rest, theirs = np.delete(vectors, out, axis=0), np.delete(target, out)
        scores[out] = scores_of(vectors[out], fit_gaussians(rest, theirs, prior, seed, kinds))
    return scores[usable], usable


def log_priors(columns: int) -> np.ndarray:
    """Return the log prior of each column: classes alike, the new kind last."""
    return np.log(np.append(np.full(columns - 1, (1 - NEW_KIND) / (columns - 1)), NEW_KIND))


def best_temperature(
    scores: np.ndarray,
    target: np.ndarray,
    before: float = 3.0,
    weight: float = _TEMPERATURE_WEIGHT,
) -> float:
    """Return the temperature that makes the targets most likely (Guo et al., ICML 2017).

    Parameters
    ----------
    scores : numpy.ndarray
        Log-likelihoods ``(n, k + 1)``, of objects that the head was not fitted to.
    target : numpy.ndarray
        ``(n,)`` right columns.
    before : float
        What it is held to.
    weight : float
        How many objects that counts for.
    """
    if not len(target):
        return before
    rows = np.arange(len(target))

    def loss(log_value):
        chances = softmax(scores / np.exp(log_value) + log_priors(scores.shape[1]))
        missed = -np.log(chances[rows, target] + 1e-9).sum()
        return missed + 0.5 * weight * (log_value - np.log(before)) ** 2

    return float(np.exp(minimize_scalar(loss, bounds=np.log([0.5, 50]), method="bounded").x))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities ``(n, k)`` whose rows sum to 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
