"""One vector for each instance: the encoder's, and features of shape and density."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tomocensus.atomic import atomic_path
from tomocensus.classify.features import NAMES, shape_and_density
from tomocensus.errors import InputError
from tomocensus.models import Model
from tomocensus.progress import progress
from tomocensus.volume import Volume

SIDE = 24
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


def normalise(tomogram: Volume, polarity: str) -> tuple[float, float]:
    """Return centre and (signed) spread: ``(voxel - centre) / spread`` has protein positive."""
    step = max(1, tomogram.shape[0] // 24)
    sample = np.asarray(tomogram.data[::step], dtype=np.float32)
    low, centre, high = np.percentile(sample[np.isfinite(sample)], [2, 50, 98])
    spread = max(float(high - low) / 4, 1e-9)
    return float(centre), spread if polarity == "bright" else -spread


def crops(density: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the network's view of an object in a crop around it, ``(2, SIDE, SIDE, SIDE)``.

    Channels are density and mask. The object's largest extent fills two thirds of the cube; its
    true size is told by the features.
    """
    points = np.argwhere(mask)
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    extent = float((points.max(axis=0) - points.min(axis=0) + 1).max())
    step = 1.5 * extent / SIDE
    axes = [centre[axis] + (np.arange(SIDE) - (SIDE - 1) / 2) * step for axis in range(3)]
    grid = np.meshgrid(*axes, indexing="ij")
    smooth = ndimage.gaussian_filter(density, step / 2.5) if step > 1.3 else density
    return np.stack(
        [
            ndimage.map_coordinates(smooth, grid, order=1, mode="constant"),
            ndimage.map_coordinates(mask.astype(np.float32), grid, order=1, mode="constant"),
        ]
    ).astype(np.float32)


def views(tomogram: Volume, labels: np.ndarray, polarity: str):
    """Yield ``(number, crop, features)`` for each instance; one read of each object's box."""
    centre, spread = normalise(tomogram, polarity)
    boxes = ndimage.find_objects(labels)
    numbers = [number for number, box in enumerate(boxes, start=1) if box is not None]
    for number in progress(numbers, "describing instances"):
        wide = []
        for side, length in zip(boxes[number - 1], labels.shape, strict=True):
            margin = 3 + (side.stop - side.start) // 4
            wide.append(slice(max(0, side.start - margin), min(length, side.stop + margin)))
        box = tuple(wide)
        mask = labels[box] == number
        density = (np.nan_to_num(np.asarray(tomogram.data[box], np.float32)) - centre) / spread
        density = np.clip(density, -6, 6)
        yield (
            number,
            crops(density, mask),
            shape_and_density(mask, density, tomogram.voxel_size),
        )


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
        Threads of the network.
    """
    import torch

    from tomocensus.classify.encoder import build

    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    network = build(encoder).to(device)
    numbers, vectors, features, waiting = [], [], [], []

    def flush() -> None:
        if waiting:
            with torch.inference_mode():
                batch = torch.from_numpy(np.stack(waiting)).to(device)
                vectors.append(network(batch).float().cpu().numpy())
            waiting.clear()

    for number, crop, row in views(tomogram, labels, polarity):
        numbers.append(number)
        features.append(row)
        waiting.append(crop)
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
