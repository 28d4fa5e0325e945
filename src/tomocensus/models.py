"""Models on disk: a folder with ``model.safetensors`` and ``model.json``, hash checked on load.

Only tensors and plain JSON are stored; nothing that could run code on loading (no pickles).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from tomocensus.atomic import atomic_path, write_json
from tomocensus.errors import InputError

WEIGHTS = "model.safetensors"
CARD = "model.json"


@dataclass(frozen=True)
class Model:
    """Weights and card of a model.

    Parameters
    ----------
    card : dict
        Kind, architecture, voxel size in Å, heads or classes, recipe, metrics, ``sha256`` of the
        weights.
    weights : dict of str to numpy.ndarray
        Named tensors.
    path : pathlib.Path or None
        The folder it came from.
    """

    card: dict
    weights: dict[str, np.ndarray] = field(repr=False)
    path: Path | None = None

    @property
    def sha256(self) -> str:
        """SHA-256 of the weights' file."""
        return self.card["sha256"]


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_card(folder: str | Path, kind: str | None = None) -> dict:
    """Read ``model.json`` without touching the weights.

    Raises
    ------
    InputError
        Where the folder or its card is missing, unreadable or of another kind.
    """
    path = Path(folder) / CARD
    if not path.is_file():
        raise InputError(
            f"{folder}: no model there ({CARD} is missing). Name a folder that holds {CARD} and "
            f"{WEIGHTS}, or train one."
        )
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        found = card["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not a model card ({error}). Restore the model, or remove its folder and "
            "train again."
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Change its mode.") from error
    if kind is not None and found != kind:
        raise InputError(f"{path}: this is a model of kind '{found}', '{kind}' is needed here.")
    return card


def load_model(folder: str | Path, kind: str | None = None) -> Model:
    """Load a model and check its weights against the hash in its card.

    Parameters
    ----------
    folder : path-like
        Holds ``model.json`` and ``model.safetensors``.
    kind : str, optional
        ``segmenter``, ``encoder`` or ``classifier``; another kind is an error.

    Raises
    ------
    InputError
        Where something is missing, broken, of another kind, or the hash does not agree.
    """
    card = read_card(folder, kind)
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise InputError(f"{path}: missing. Restore the model's weights or retrain it.")
    digest = file_sha256(path)
    if digest != card.get("sha256"):
        raise InputError(
            f"{path}: SHA-256 {digest[:12]} differs from the {str(card.get('sha256'))[:12]} that "
            f"{CARD} states: the file is damaged or from another model. Restore both together."
        )
    try:
        weights = load_file(path)
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{path}: not a safetensors file ({error}). Restore the model.") from error
    return Model(card=card, weights=weights, path=Path(folder))


def save_model(folder: str | Path, card: dict, weights: dict[str, np.ndarray]) -> dict:
    """Write a model folder whole or not at all; return the card with the hash filled in.

    Parameters
    ----------
    folder : path-like
        An existing model there is replaced.
    card : dict
        Must have ``kind``; ``sha256`` is set here.
    weights : dict of str to numpy.ndarray
        Named tensors.
    """
    if "kind" not in card:
        raise ValueError("a model's card needs 'kind'")
    with atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        contiguous = {name: np.ascontiguousarray(value) for name, value in weights.items()}
        # save_file would make the file unreadable for the group.
        (temporary / WEIGHTS).write_bytes(save(contiguous))
        card = {**card, "sha256": file_sha256(temporary / WEIGHTS)}
        write_json(temporary / CARD, card)
    return card
