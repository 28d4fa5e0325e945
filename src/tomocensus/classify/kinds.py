"""Kinds of a shipped head behind and beside the user's classes.

Who calls a class ``microtubule`` means what the shipped head calls so. Its simulated microtubules
are then examples of the class as well, and together count for a few of the user's: they say where
the class lies where the user has named one or two, and nearly nothing where he has named many.

Most tomograms hold more kinds than the user names. Those of the shipped head that no class is
called like, and none looks like, stand beside the classes: what is rather one of them is of no
class.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from tomocensus.errors import InputError
from tomocensus.models import Model

# How many examples the objects of a kind count for in the class of the same name.
WEIGHT = 10.0
# A class that is called like no kind looks like those that its examples are as likely in the mean:
# half as likely where they are two, for few say little.
_ALIKE, _ALIKE_COUNT = 0.2, 2
# What else kinds are called.
_SHORT_NAMES = {
    "actin_filament": "actin",
    "endoplasmic_reticulum": "er",
    "fiducial": "gold",
    "gold_bead": "gold",
    "golgi_apparatus": "golgi",
    "mito": "mitochondrion",
    "mitochondria": "mitochondrion",
    "mt": "microtubule",
    "viruslike_particle": "virus_like_particle",
    "vlp": "virus_like_particle",
}


def kind_called(name: str, kinds: list[str]) -> str | None:
    """Return the kind that a class is called like, None where there is none.

    Case, plural and separators do not count (``Ribosomes``, ``Virus-like particle``), and usual
    other names are known (``MT``, ``mito``, ``VLPs``).

    Parameters
    ----------
    name : str
        Of the class.
    kinds : list of str
        Those that there are, such as ``virus_like_particle``.
    """
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    for single in (plain, plain.removesuffix("s"), re.sub("ies$", "y", plain)):
        kind = _SHORT_NAMES.get(single, single)
        if kind in kinds:
            return kind
    return None


def called_like(classes: list[str], base: Model | None, encoder: str) -> dict[str, str]:
    """Return the kind of a head for each class that is called like one.

    Parameters
    ----------
    classes : list of str
        Of the user.
    base : Model or None
        A head.
    encoder : str
        SHA-256 of the encoder that the classes' examples were described with.

    Raises
    ------
    InputError
        Where the head belongs to another encoder.
    """
    if base is None:
        return {}
    if base.card["encoder"] != encoder:
        raise InputError(
            f"{base.path}: this classifier was fitted with another encoder. Name another one as "
            "train_classifier.base, or none."
        )
    found = {name: kind_called(name, base.card["classes"]) for name in classes}
    return {name: kind for name, kind in found.items() if kind}


@dataclass(frozen=True)
class Kinds:
    """Objects of the kinds behind and beside the classes.

    Parameters
    ----------
    vectors : numpy.ndarray
        ``(m, d)``.
    target : numpy.ndarray
        ``(m,)`` number of the class of each; those of the other kinds follow.
    weight : numpy.ndarray
        ``(m,)`` how many examples each counts for.
    others : list of str
        The kinds beside the classes.
    """

    vectors: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    others: list[str]

    @classmethod
    def of(
        cls, base: Model, called: list[str | None], chances: np.ndarray, classes: np.ndarray
    ) -> Kinds:
        """Return the objects that a head keeps of its kinds.

        Parameters
        ----------
        base : Model
            The head.
        called : list of str or None
            The kind that each class is called like.
        chances : numpy.ndarray
            ``(n, kinds)`` of each example to be of each kind, by the head.
        classes : numpy.ndarray
            ``(n,)`` number of the class of each example.
        """
        kinds = base.card["classes"]
        others = _unlike(kinds, called, chances, classes)
        numbers = [kinds.index(kind) if kind else -1 for kind in [*called, *others]]
        of_kind = base.weights["example_class"]
        rows = [np.nonzero(of_kind == number)[0] for number in numbers]
        target = np.repeat(np.arange(len(rows)), [len(mine) for mine in rows])
        rows = np.concatenate(rows)
        # From the space where the head's classes scatter alike.
        back = np.linalg.inv(base.weights["transform"].astype(float))
        vectors = base.weights["examples"][rows] @ back + base.weights["centre"]
        # Heads of former versions have examples that count alike.
        counts = base.weights.get("example_weight", np.ones(len(of_kind)))[rows].astype(float)
        weight = WEIGHT * counts / np.bincount(target, counts)[target]
        return cls(vectors, target, weight, others)


def _unlike(kinds: list[str], called: list[str | None], chances, classes) -> list[str]:
    """Return the kinds that no class is called like and none without such a name looks like."""
    taken = set(called)
    for number, kind in enumerate(called):
        if kind is None:
            mine = chances[classes == number]
            enough = _ALIKE * len(mine) / (len(mine) + _ALIKE_COUNT)
            mean = mine.mean(axis=0)
            taken |= {kinds[k] for k in np.nonzero(mean >= min(enough, mean.max()))[0]}
    return [kind for kind in kinds if kind not in taken]
