"""Kinds of a shipped head behind the user's classes: what a name says before many examples do.

Who calls a class ``microtubule`` means what the shipped head calls so. Its simulated microtubules
are then examples of the class as well, and together count for a few of the user's: they say where
the class lies where the user has named one or two, and nearly nothing where he has named many.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from tomocensus.errors import InputError
from tomocensus.models import Model

# How many examples the objects of a kind count for in the class of the same name.
WEIGHT = 10.0
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
    """Objects of the kinds that classes are called like.

    Parameters
    ----------
    vectors : numpy.ndarray
        ``(m, d)``.
    target : numpy.ndarray
        ``(m,)`` number of the class of each.
    weight : numpy.ndarray
        ``(m,)`` how many examples each counts for.
    """

    vectors: np.ndarray
    target: np.ndarray
    weight: np.ndarray

    @classmethod
    def behind(cls, kinds: list[str | None], base: Model | None) -> Kinds | None:
        """Return the objects that a head keeps of each class's kind, None where there are none."""
        if base is None or not any(kinds):
            return None
        number = {kind: k for k, kind in enumerate(base.card["classes"])}
        of_kind = base.weights["example_class"]
        rows = [np.nonzero(of_kind == number[kind])[0] if kind else [] for kind in kinds]
        target = np.repeat(np.arange(len(kinds)), [len(mine) for mine in rows])
        rows = np.concatenate(rows).astype(int)
        # From the space where the head's classes scatter alike.
        back = np.linalg.inv(base.weights["transform"].astype(float))
        vectors = base.weights["examples"][rows] @ back + base.weights["centre"]
        # Heads of former versions have examples that count alike.
        counts = base.weights.get("example_weight", np.ones(len(of_kind)))[rows].astype(float)
        return cls(vectors, target, WEIGHT * counts / np.bincount(target, counts)[target])
