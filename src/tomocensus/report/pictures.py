"""Slices of one tomogram with map, instances and classes, as JSON-able base64 images."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
from PIL import Image

from tomocensus.padding import shown_range
from tomocensus.report.colours import class_colours, colour, heat
from tomocensus.volume import Volume

_MINIMUM, _MAXIMUM = 480, 720
_LEVELS = 10
_INSTANCE_COLOURS = 24
_FILL = 110
_CLASS_LIMIT = 127


def picture(
    tomogram: Volume,
    probability: np.ndarray | None,
    labels: np.ndarray,
    instances: pd.DataFrame,
    slices: int = 15,
    certain: float = 100.0,
) -> dict:
    """Draw slices of a tomogram and what was found in them.

    Parameters
    ----------
    tomogram : Volume
        Shape ``(nz, ny, nx)``; may be memory-mapped, only the drawn sections are read.
    probability : numpy.ndarray or None
        Same shape, 0 to `certain`.
    labels : numpy.ndarray
        Same shape, 0 is background.
    instances : pandas.DataFrame
        Columns ``instance`` and ``class``; either may be missing.
    slices : int
        Number of sections, spread evenly over the z range that holds instances.
    certain : float
        The probability of what is surely an object.

    Returns
    -------
    dict
        ``shape`` [z, y, x], ``voxel_size`` (Å), ``classes`` (names in the order of the class
        overlays' palette, from index 1, filled and outlined in turn), ``slices`` (list of
        ``z`` and the images) and ``xz`` (``y`` and the images of the central cut, z downward).
        Images are base64: ``density`` JPEG, the mean of up to three sections, stretched from the
        1st to the 99th percentile of what is no padding; ``probability`` (None without a map),
        ``instances`` and ``class`` palette PNG of the same size with transparency. Row 0 is y = 0.

    Raises
    ------
    ValueError
        If shapes differ.
    """
    shape = tuple(tomogram.shape)
    for name, array in (("labels", labels), ("probability", probability)):
        if array is not None and array.shape != shape:
            raise ValueError(f"{name} have shape {array.shape}, the tomogram {shape}")
    classes, lookup = _class_index(instances)
    levels = choose_slices(labels, slices)
    middle = shape[1] // 2
    limits = shown_range(tomogram.data, levels)

    def draw(axis, index):
        take = (slice(None),) * axis + (index,)
        near = (slice(None),) * axis + (slice(max(index - 1, 0), index + 2),)
        chance = None if probability is None else np.asarray(probability[take]) / certain
        density = np.asarray(tomogram.data[near], dtype=np.float32).mean(axis=axis)
        return _images(density, limits, chance, np.asarray(labels[take]), lookup, classes)

    return {
        "shape": [int(n) for n in shape],
        "voxel_size": float(tomogram.voxel_size),
        "classes": classes,
        "slices": [{"z": z, **draw(0, z)} for z in levels],
        "xz": {"y": middle, **draw(1, middle)},
    }


def choose_slices(labels: np.ndarray, count: int) -> list[int]:
    """Return z indices spread evenly over the sections that hold instances, or over all."""
    held = [z for z in range(labels.shape[0]) if np.any(labels[z])]
    low, high = (held[0], held[-1]) if held else (0, labels.shape[0] - 1)
    if count <= 1:
        return [(low + high) // 2]
    return sorted({int(z) for z in np.linspace(low, high, count).round()})


def _class_index(instances: pd.DataFrame) -> tuple[list[str], dict[int, int]]:
    """Return class names and, for each instance, the 0-based place of its class."""
    if "instance" not in instances or not len(instances):
        return [], {}
    named = instances["class"] if "class" in instances else pd.Series("", index=instances.index)
    named = named.fillna("unknown").astype(str).replace("", "unknown")
    names = sorted(named.unique())[:_CLASS_LIMIT]
    place = {name: i for i, name in enumerate(names)}
    pairs = zip(instances["instance"], named, strict=True)
    return names, {int(number): place[name] for number, name in pairs if name in place}


def _images(density, limits, probability, labels, lookup, classes) -> dict:
    """Return the images of one cut as base64."""
    size = _display_size(labels.shape)
    rows = np.arange(size[0]) * labels.shape[0] // size[0]
    columns = np.arange(size[1]) * labels.shape[1] // size[1]
    shown = labels[np.ix_(rows, columns)].astype(np.int64)
    edge = _outline(shown)
    chance = None if probability is None else probability[np.ix_(rows, columns)]
    return {
        "width": size[1],
        "height": size[0],
        "density": _jpeg(density, limits, size),
        "probability": None if chance is None else _probability_png(chance),
        "instances": _instance_png(shown, edge),
        "class": _class_png(shown, edge, lookup, classes),
    }


def _display_size(shape: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns to draw: whole multiples up, any factor down."""
    factor = max(1, -(-_MINIMUM // shape[1]))
    if factor * max(shape) > _MAXIMUM:
        factor = _MAXIMUM / max(shape)
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _outline(labels: np.ndarray) -> np.ndarray:
    """Return the outermost pixels of every instance."""
    padded = np.pad(labels, 1, mode="edge")
    edge = np.zeros(labels.shape, bool)
    for moved in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        edge |= moved != labels
    return edge & (labels > 0)


def _jpeg(density, limits, size) -> str:
    """Return a stretched section as base64 JPEG."""
    low, high = limits
    stretched = np.clip((np.nan_to_num(density, nan=low) - low) / (high - low), 0, 1) * 255
    image = Image.fromarray(stretched.astype(np.float32))
    image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    grey = np.clip(np.asarray(image), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "JPEG", quality=80, optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def _probability_png(chance: np.ndarray) -> str:
    """Return a map (0-1) as a heat overlay, the more opaque the surer; below 5 % clear."""
    index = np.clip(np.floor(chance * _LEVELS + 0.5), 0, _LEVELS).astype(np.uint8)
    fractions = [i / _LEVELS for i in range(_LEVELS + 1)]
    return _png(index, [heat(f) for f in fractions], [round(230 * f) for f in fractions])


def _instance_png(labels: np.ndarray, edge: np.ndarray) -> str:
    """Return instances in changing colours, outlined."""
    index = np.where(labels > 0, (labels - 1) % _INSTANCE_COLOURS * 2 + 1 + edge, 0)
    return _png(index, *_pairs([colour(i) for i in range(_INSTANCE_COLOURS)]))


def _class_png(labels, edge, lookup, classes) -> str:
    """Return instances in the colours of their classes, outlined; those without a row clear."""
    numbers, back = np.unique(labels, return_inverse=True)
    place = np.array([lookup.get(int(n), -1) for n in numbers])[back].reshape(labels.shape)
    index = np.where((labels > 0) & (place >= 0), place * 2 + 1 + edge, 0)
    colours = class_colours(classes)
    return _png(index, *_pairs([colours[name] for name in classes]))


def _pairs(colours):
    """Return palette and opacities: clear, then each colour for the fill and for the outline."""
    doubled = [one for rgb in colours for one in (rgb, rgb)]
    return [(0, 0, 0), *doubled], [0, *([_FILL, 255] * len(colours))]


def _png(index, palette, opacity) -> str:
    """Return a palette image with transparency as base64 PNG."""
    image = Image.fromarray(index.astype(np.uint8)).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([part for rgb in palette for part in rgb])
    stream = io.BytesIO()
    image.save(stream, "PNG", transparency=bytes(opacity), optimize=False, bits=8)
    return base64.b64encode(stream.getvalue()).decode()
