"""What training takes: annotated volumes and settings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tomocensus.errors import InputError
from tomocensus.volume import Volume

KINDS = ("binary", "semantic", "instance")


@dataclass(frozen=True)
class AnnotatedVolume:
    """A tomogram and what a person (or a simulation) said about some of its voxels.

    Parameters
    ----------
    name : str
        Name of the tomogram, for messages and the model's card.
    tomogram : Volume
        Density.
    annotation : numpy.ndarray
        Integers, shape of the tomogram: -1 not annotated, 0 background, above 0 object.
    polarity : str
        ``dark`` or ``bright``: how protein looks.
    kind : str
        ``binary``, ``semantic`` (a number per class) or ``instance`` (a number per object).
    membrane : numpy.ndarray, optional
        Lipid bilayer, 0 or 1, -1 not annotated; teaches the head ``membrane``.
    contacts : numpy.ndarray, optional
        bool, where an object touches another one in the next or the last slice: outlines that
        single slices do not show.
    group : str
        Imaging condition; scores are given for each.
    weight : numpy.ndarray, optional
        How much a voxel counts, 1 to 255; 1 where not given.
    """

    name: str
    tomogram: Volume
    annotation: np.ndarray
    polarity: str = "dark"
    kind: str = "binary"
    membrane: np.ndarray | None = None
    contacts: np.ndarray | None = None
    group: str = ""
    weight: np.ndarray | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise InputError(
                f"{self.name}: annotation kind '{self.kind}' is unknown; use one of {KINDS}."
            )
        for array in (self.annotation, self.membrane, self.contacts, self.weight):
            if array is not None and array.shape != self.tomogram.shape:
                raise InputError(
                    f"{self.name}: the annotation has shape {array.shape}, the tomogram "
                    f"{self.tomogram.shape}. Give an annotation made on this very tomogram."
                )


@dataclass(frozen=True)
class TrainSettings:
    """How to train.

    Parameters
    ----------
    steps : int
        Most optimiser steps; training stops early when validation no longer improves.
    seed : int
        Seed of all random choices.
    voxel_size : float or str, optional
        Å at which the network works; the base model's, or the median of the tomograms', if None or
        ``auto``.
    patch, batch : int
        Edge of the square patches (a multiple of 8), and how many a step.
    learning_rate : float, optional
        Highest rate of the cosine schedule; if None 2e-3 from scratch, 7e-4 from a base model, so
        that a few slices do not overwrite what it knows.
    slices, width, depth : int
        Slices in (odd), channels of the first level, levels; a base model's own where there is one.
    hold_out : float
        Part of the annotated area kept for validation, where there is enough.
    base_share : float
        Weight of the base's weights in the mean of the base's and the fine-tuned network's, which
        is the result; less where the held-out annotation says so. Above 0 the base's running
        statistics stay as they are, too; 0 is for annotation as wide as what the base has seen.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    threads : int, optional
        CPU threads; PyTorch's choice if None.
    minutes : float, optional
        How long to train, in place of `steps`; such runs cannot be repeated exactly.
    """

    steps: int = 1000
    seed: int = 0
    voxel_size: float | str | None = None
    patch: int = 128
    batch: int = 4
    learning_rate: float | None = None
    slices: int = 5
    width: int = 24
    depth: int = 4
    hold_out: float = 0.15
    base_share: float = 0.7
    device: str = "auto"
    threads: int | None = None
    minutes: float | None = None
