"""From a tomogram to maps of probability: train a network on sparse annotation, and predict.

PyTorch takes seconds to import, so it is imported by the functions that need it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tomocensus.models import Model
from tomocensus.segment.settings import AnnotatedVolume, TrainSettings
from tomocensus.volume import Volume

__all__ = ["AnnotatedVolume", "TrainSettings", "predict", "predict_to_files", "train"]


def train(
    pairs: list[AnnotatedVolume], base: Model | None = None, settings: TrainSettings | None = None
) -> tuple[dict, dict[str, np.ndarray], list[dict]]:
    """Train a segmenter; see :func:`tomocensus.segment.training.train`."""
    from tomocensus.segment.training import train as run

    return run(pairs, base, settings or TrainSettings())


def predict(tomogram: Volume, model: Model, polarity: str = "dark", **options) -> dict:
    """Predict in memory; see :func:`tomocensus.segment.inference.predict`."""
    from tomocensus.segment.inference import predict as run

    return run(tomogram, model, polarity, **options)


def predict_to_files(
    tomogram: Volume, model: Model, outputs: dict[str, str | Path], **options
) -> dict:
    """Predict to MRC files; see :func:`tomocensus.segment.inference.predict_to_files`."""
    from tomocensus.segment.inference import predict_to_files as run

    return run(tomogram, model, outputs, **options)
