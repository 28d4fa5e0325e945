"""One vector for each instance: the encoder's, and features of shape and density."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from tomocensus.atomic import atomic_path
from tomocensus.classify.features import NAMES
from tomocensus.classify.views import View, views
from tomocensus.errors import InputError
from tomocensus.models import Model
from tomocensus.volume import Volume

_BATCH = 32


@dataclass(frozen=True)
class Embeddings:
    """Vectors of the instances of one tomogram.

    Parameters
    ----------
    instance : numpy.ndarray
        ``(n,)`` numbers in the labelmap.
    embedding : numpy.ndarray
        ``(n, d)`` float32.
    features : numpy.ndarray
        ``(n, f)`` float32.
    feature_names : tuple of str
        Names of the features.
    encoder : str
        SHA-256 of the encoder's weights.
    """

    instance: np.ndarray
    embedding: np.ndarray
    features: np.ndarray
    feature_names: tuple[str, ...]
    encoder: str

    def save(self, path: str | os.PathLike) -> None:
        """Write as ``.npz``, whole or not at all."""
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            np.savez(
                stream,
                instance=self.instance,
                embedding=self.embedding,
                features=self.features,
                feature_names=np.array(self.feature_names),
                encoder=np.array(self.encoder),
            )

    @classmethod
    def load(cls, path: str | os.PathLike) -> Embeddings:
        """Read what :meth:`save` wrote."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(
                    stored["instance"],
                    stored["embedding"],
                    stored["features"],
                    tuple(str(name) for name in stored["feature_names"]),
                    str(stored["encoder"]),
                )
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path}: not a file of embeddings ({error}). Remove it.") from error

    def table(self) -> np.ndarray:
        """Return embedding and features side by side, ``(n, d + f)``."""
        return np.concatenate([self.embedding, self.features], axis=1)


def embed(
    tomogram: Volume,
    labels: np.ndarray,
    encoder: Model,
    polarity: str,
    device: str = "auto",
    threads: int | None = None,
) -> Embeddings:
    """Describe every instance.

    Parameters
    ----------
    tomogram : Volume
        Density.
    labels : numpy.ndarray
        Labelmap of the same shape.
    encoder : Model
        Of kind ``encoder``.
    polarity : str
        ``dark`` or ``bright``.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    threads : int, optional
        Threads of the network, and as many beside it that look at the objects.
    """
    import torch

    from tomocensus.classify.encoder import build, fold
    from tomocensus.devices import choose_device

    if threads:
        torch.set_num_threads(threads)
    network = fold(build(encoder)).to(choose_device(device))
    numbers, vectors, features, waiting = [], [], [], []

    def flush() -> None:
        if waiting:
            vectors.append(vectors_of(network, waiting, encoder.card.get("turns", 1)))
            waiting.clear()

    for view in views(tomogram, labels, polarity, threads or 1):
        numbers.append(view.number)
        features.append(view.features)
        waiting.append(view)
        if len(waiting) == _BATCH:
            flush()
    flush()
    width = encoder.card["dimensions"]
    return Embeddings(
        np.array(numbers, dtype=np.int64),
        np.concatenate(vectors) if vectors else np.zeros((0, width), np.float32),
        np.stack(features) if features else np.zeros((0, len(NAMES)), np.float32),
        NAMES,
        encoder.sha256,
    )


def vectors_of(network, seen: list[View], turns: int = 1) -> np.ndarray:
    """Return the vectors of some views, ``(n, d)``, of unit length.

    What an object is does not depend on how it lies about Z, its vector does a little: that is the
    mean over `turns` directions (1, 2 or 4).
    """
    import torch

    from tomocensus.devices import has_bfloat16

    device = next(network.parameters()).device
    half = torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device))
    with torch.inference_mode(), half:
        crops, *others = batch(seen, device)
        total = sum(
            network(torch.rot90(crops, 4 // turns * turn, (3, 4)), *others).float()
            for turn in range(turns)
        )
        return torch.nn.functional.normalize(total, dim=1).cpu().numpy()


def batch(seen: list[View], device="cpu"):
    """Return crops, kinds, owners and features of some views as tensors for the network."""
    import torch

    owners = np.repeat(np.arange(len(seen)), [len(view.kinds) for view in seen])
    arrays = (
        np.concatenate([view.crops for view in seen]),
        np.concatenate([view.kinds for view in seen]),
        owners,
        np.stack([view.features for view in seen]),
    )
    return tuple(torch.from_numpy(array).to(device) for array in arrays)
