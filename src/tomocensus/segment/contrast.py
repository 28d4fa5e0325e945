"""Contrast and scale: what the network sees, slice by slice.

Slices are read, normalised and rescaled on demand, so memory does not grow with the tomogram.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage

from tomocensus.errors import InputError
from tomocensus.padding import SAMPLE, padding_value, thinned, without_data
from tomocensus.shading import shading
from tomocensus.volume import Volume, release_pages

CLIP = 5.0
SAME_SCALE = 0.10


def robust_contrast(
    data: np.ndarray, sample: int = SAMPLE, shade: np.ndarray | None = None
) -> tuple[float, float, float | None]:
    """Return median, half the 16-84 % range (the standard deviation of noise), and padding's value.

    Gold beads and dark edges hold few voxels and do not move these. Padding with one value is left
    out (:func:`tomocensus.padding.padding_value`).

    Parameters
    ----------
    data : numpy.ndarray
        Shape ``(nz, ny, nx)``, any numeric type.
    sample : int
        About how many voxels are looked at, on a regular grid.
    shade : numpy.ndarray, optional
        Shape ``(ny, nx)``, of :func:`tomocensus.shading.shading`; the data less this are looked at.
    """
    voxels, step = thinned(data, sample)
    known = np.isfinite(voxels)
    if not known.any():
        raise InputError("the tomogram holds no finite value. Reconstruct it again.")
    padding = padding_value(data, voxels[known])
    if padding is not None:
        known &= voxels != padding
    values = voxels[known].astype(np.float32)
    if shade is not None:
        values -= np.broadcast_to(shade[::step, ::step], voxels.shape)[known]
    low, median, high = np.percentile(values, [16, 50, 84])
    scale = (high - low) / 2
    if scale <= 0:
        scale = float(values.std()) or 1.0
    return float(median), float(scale), padding


def model_shape(
    shape: tuple[int, int, int], voxel_size: float, model_voxel_size: float
) -> tuple[int, int, int]:
    """Return the shape at the model's voxel size; the same shape where they differ under 10 %."""
    factor = voxel_size / model_voxel_size
    if abs(factor - 1) <= SAME_SCALE:
        return tuple(int(n) for n in shape)
    return tuple(max(1, round(n * factor)) for n in shape)


def mirrored(at: np.ndarray, length: int) -> np.ndarray:
    """Return which of `length` voxels stand in at places that may lie outside, as in a mirror.

    The voxel at the border is its own neighbour.
    """
    at = at % (2 * length)
    return np.where(at < length, at, 2 * length - 1 - at)


def resize_slice(image: np.ndarray, shape: tuple[int, int], order: int = 1) -> np.ndarray:
    """Resize ``(ny, nx)`` so that the outer edges of both grids agree (no shift of content).

    Shrinking smooths first (order 1), so that noise does not alias. Order 0 is for labels.
    """
    if image.shape == tuple(shape):
        return image
    ratio = [old / new for old, new in zip(image.shape, shape, strict=True)]
    if order and max(ratio) > 1:
        image = ndimage.gaussian_filter(image, [max(0.0, (r - 1) / 2) for r in ratio])
    axes = [
        np.clip((np.arange(new) + 0.5) * r - 0.5, 0, old - 1)
        for old, new, r in zip(image.shape, shape, ratio, strict=True)
    ]
    if order == 0:
        # The middle between two voxels is that of both: the greater label counts there, so neither
        # side is preferred, and thin objects stay.
        ends = [
            [rounded.astype(int) for rounded in (np.ceil(axis - 0.5), np.floor(axis + 0.5))]
            for axis in axes
        ]
        return np.maximum.reduce([image[np.ix_(y, x)] for y in ends[0] for x in ends[1]])
    rows = _blend(image, axes[0])
    return np.ascontiguousarray(_blend(rows.T, axes[1]).T)


def _blend(image: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Interpolate the rows of an image linearly at fractional positions."""
    low = np.floor(positions).astype(int)
    high = np.minimum(low + 1, len(image) - 1)
    part = (positions - low).astype(np.float32)[:, None]
    return image[low] * (1 - part) + image[high] * part


class Slices:
    """Normalised slices of a tomogram on the model's grid; protein is dark (negative).

    Padding has the median, so that nothing is seen there; shading is taken away.

    Parameters
    ----------
    tomogram : Volume
        Density; may be a memory map.
    model_voxel_size : float
        Å.
    polarity : str
        ``dark`` or ``bright``; bright is inverted.
    cache : int
        How many slices are kept.
    """

    def __init__(self, tomogram: Volume, model_voxel_size: float, polarity: str, cache: int = 16):
        if polarity not in ("dark", "bright"):
            raise InputError(f"polarity '{polarity}' is unknown; use 'dark' or 'bright'.")
        self.data = tomogram.data
        self.shape = model_shape(tomogram.shape, tomogram.voxel_size, model_voxel_size)
        contrast = robust_contrast(tomogram.data)
        self.shade = shading(tomogram.data, *contrast[1:])
        if self.shade is not None:
            contrast = robust_contrast(tomogram.data, shade=self.shade)
        self.median, scale, self.padding = contrast
        release_pages(tomogram.data)
        self.scale = scale if polarity == "dark" else -scale
        # Whether any of the slices that were read is.
        self.padded = False
        self._cached = lru_cache(maxsize=cache)(self._make)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, z: int) -> np.ndarray:
        """Return slice `z`, shape ``(ny, nx)``, float32; outside, the nearest slice."""
        return self._cached(int(min(max(z, 0), len(self) - 1)))

    def slab(self, z: int, thickness: int) -> np.ndarray:
        """Return `thickness` slices centred on `z`, shape ``(thickness, ny, nx)``."""
        half = thickness // 2
        return np.stack([self[k] for k in range(z - half, z + half + 1)])

    def _make(self, z: int) -> np.ndarray:
        ratio = self.data.shape[0] / len(self)
        if ratio == 1:
            image = self._read(z)
        elif ratio > 1:
            image = self._average(z * ratio, (z + 1) * ratio)
        else:
            position = min(max((z + 0.5) * ratio - 0.5, 0), self.data.shape[0] - 1)
            low = int(position)
            high = min(low + 1, self.data.shape[0] - 1)
            part = position - low
            image = self._read(low) * (1 - part) + self._read(high) * part
        image = (image - self.median) / self.scale
        np.nan_to_num(image, copy=False, nan=0.0, posinf=CLIP, neginf=-CLIP)
        image = np.clip(image, -CLIP, CLIP)
        return resize_slice(image.astype(np.float32), self.shape[1:])

    def _average(self, start: float, stop: float) -> np.ndarray:
        """Average the slices between two fractional positions, each by its share."""
        total = 0.0
        for k in range(int(start), int(np.ceil(stop - 1e-9))):
            share = min(stop, k + 1) - max(start, k)
            total = total + self._read(k) * share
        return total / (stop - start)

    def _read(self, z: int) -> np.ndarray:
        """Return a slice of the tomogram as float32."""
        section = np.asarray(self.data[z])
        image = np.array(section, dtype=np.float32)
        if self.shade is not None:
            image -= self.shade
        blank = without_data(section, self.padding)
        if blank is not None:
            self.padded = True
            image[blank] = self.median
        return image


def scale_annotation(annotation: np.ndarray, shape: tuple[int, int, int]) -> dict[int, np.ndarray]:
    """Put annotated slices on the model's grid.

    Every annotated slice goes to the model's nearest slice; where two meet, the first wins and the
    second fills what the first left open. No slice is invented.

    Returns
    -------
    dict of int to numpy.ndarray
        int32 slices ``(ny, nx)`` by index; -1 not annotated.
    """
    slices: dict[int, np.ndarray] = {}
    factor = shape[0] / annotation.shape[0]
    for z in range(annotation.shape[0]):
        if not (annotation[z] >= 0).any():
            continue
        target = int((z + 0.5) * factor)
        new = resize_slice(np.asarray(annotation[z], dtype=np.int32), shape[1:], order=0)
        old = slices.get(target)
        slices[target] = new.copy() if old is None else np.where(old >= 0, old, new)
    return slices
