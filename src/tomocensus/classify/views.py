"""What the encoder sees of an object: crops of density and mask at three scales, and features."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numba
import numpy as np
from scipy import ndimage

from tomocensus.classify.features import DEPTHS, shape_and_density
from tomocensus.padding import padding_value
from tomocensus.parallel import ahead, each
from tomocensus.progress import progress
from tomocensus.shading import shading
from tomocensus.volume import Volume

SIDE = 24
# Kinds of view: the whole object at its own scale, its surroundings, and close looks.
WHOLE, CONTEXT, CLOSE = 0, 1, 2
CONTEXT_STEP = 80.0
CLOSE_STEP = 20.0
# An object longer than this (Å) does not fit one close look: it gets several, on its surface.
CLOSE_FITS = 400.0
LOOKS = 4
_SURFACE_POINTS = 2000
# Views that are made ahead: enough for the time that the network takes for a batch.
_AHEAD = 48
_FEATURE_VOXELS = 1_000_000
# Voxels that tell whether a tomogram is padded.
_FEW = 500_000
# Normalised densities lie within this.
LIMIT = 6.0


@dataclass(frozen=True)
class View:
    """What is known of one instance.

    Parameters
    ----------
    number : int
        In the labelmap.
    crops : numpy.ndarray
        ``(v, 2, SIDE, SIDE, SIDE)`` float32: density and mask.
    kinds : numpy.ndarray
        ``(v,)``: WHOLE, CONTEXT or CLOSE.
    features : numpy.ndarray
        ``(f,)``.
    """

    number: int
    crops: np.ndarray
    kinds: np.ndarray
    features: np.ndarray


def normalise(
    tomogram: Volume, polarity: str, shade: np.ndarray | None = None
) -> tuple[float, float, float]:
    """Return centre, (signed) spread and what the volume is padded with, NaN where with nothing.

    ``(voxel - shade - centre) / spread`` has protein positive, with a shade ``(ny, nx)`` that
    :func:`tomocensus.shading.shading` found, if any. Padding has no part in either
    (:func:`tomocensus.padding.padding_value`).
    """
    step = max(1, tomogram.shape[0] // 24)
    sample = np.asarray(tomogram.data[::step])
    few = max(1, round((sample.size / _FEW) ** 0.5))
    some = sample[:, ::few, ::few]
    padding = padding_value(tomogram.data, some[np.isfinite(some)])
    counts = np.isfinite(sample)
    if padding is not None:
        counts &= sample != padding
    values = sample[counts].astype(np.float32)
    if shade is not None:
        values -= np.broadcast_to(shade, sample.shape)[counts]
    low, centre, high = np.percentile(values, [2, 50, 98])
    spread = max(float(high - low) / 4, 1e-9)
    spread = spread if polarity == "bright" else -spread
    return float(centre), spread, np.nan if padding is None else padding


class Pyramid:
    """A tomogram, normalised, at its own voxel size and at coarser ones.

    Coarse levels are means of 2x2x2 voxels, made once slab by slab and held as float16: a seventh
    of the voxels in all. The finest level stays where it is, on disk.

    Parameters
    ----------
    tomogram : Volume
        Density.
    polarity : str
        ``dark`` or ``bright``: how protein looks in it; here protein is positive.
    threads : int
        Threads that make the coarse levels.
    """

    def __init__(self, tomogram: Volume, polarity: str, threads: int = 1):
        self.threads = threads
        self.data, self.voxel_size = tomogram.data, tomogram.voxel_size
        self.centre, self.spread, self.padding = normalise(tomogram, polarity)
        self.shade = shading(tomogram.data, abs(self.spread), self.padding)
        if self.shade is not None:
            self.centre, self.spread, _ = normalise(tomogram, polarity, self.shade)
        self.levels: list[np.ndarray] = []
        level: np.ndarray | None = None
        while min(tomogram.shape) >> len(self.levels) >= 8 and len(self.levels) < 5:
            level = self._halve(level)
            self.levels.append(level)

    def _halve(self, level: np.ndarray | None) -> np.ndarray:
        """Return the next coarser level; None stands for the tomogram itself."""
        finest = level is None
        shape = self.data.shape if finest else level.shape
        out = np.empty(tuple(n // 2 for n in shape), np.float16)

        def fill(z: int) -> None:
            pair = (self.data if finest else level)[2 * z : 2 * z + 2]
            if finest and self.shade is not None:
                pair = self._read(slice(2 * z, 2 * z + 2), slice(None), slice(None))
            own = (self.centre, self.spread, self.padding) if finest else (0.0, 1.0, np.nan)
            out[z] = _halved(np.ascontiguousarray(pair, np.float32), *own)

        each(fill, range(len(out)), self.threads)
        return out

    def box(self, *box: slice) -> np.ndarray:
        """Return normalised float32 voxels of a box of the finest level."""
        return np.clip((self._read(*box) - self.centre) / self.spread, -LIMIT, LIMIT)

    def _read(self, *box: slice) -> np.ndarray:
        """Return float32 voxels of a box without shading; the centre where nothing is known."""
        raw = np.array(self.data[box], np.float32)
        unknown = np.isnan(raw) | (raw == self.padding)
        if self.shade is not None:
            raw -= self.shade[box[1:]]
        raw[unknown] = self.centre
        return raw

    def sample(self, axes: list[np.ndarray], step: float) -> np.ndarray:
        """Interpolate on a grid, ``(len(z), len(y), len(x))``; 0 outside the tomogram.

        Parameters
        ----------
        axes : list of numpy.ndarray
            Coordinates z, y, x in voxels of the tomogram.
        step : float
            Distance of the grid's points in voxels: it chooses the level.
        """
        level = int(np.clip(round(np.log2(max(step, 1e-6))), 0, len(self.levels)))
        scale = 2**level
        # The centre of a coarse voxel lies between the centres of the fine ones.
        places = [(axis - (scale - 1) / 2) / scale for axis in axes]
        shape = self.data.shape if level == 0 else self.levels[level - 1].shape
        window = []
        for place, length in zip(places, shape, strict=True):
            start = int(np.clip(np.floor(place.min()) - 1, 0, length - 1))
            window.append(slice(start, int(np.clip(np.ceil(place.max()) + 2, start + 1, length))))
        z, y, x = window
        if level == 0:
            values = self.box(z, y, x)
        else:
            values = self.levels[level - 1][z, y, x].astype(np.float32)
        grid = np.meshgrid(
            *(p - w.start for p, w in zip(places, window, strict=True)), indexing="ij"
        )
        return ndimage.map_coordinates(values, grid, order=1, mode="constant", output=np.float32)


@numba.njit(cache=True, nogil=True)
def _halved(pair, centre, spread, padding):
    """Return the means of 2x2x2 voxels of two slices, normalised: odd rows at the end are left."""
    _, ny, nx = pair.shape
    out = np.zeros((ny // 2, nx // 2), np.float32)
    for z in range(2):
        for y in range(ny // 2 * 2):
            for x in range(nx // 2 * 2):
                value = (pair[z, y, x] - centre) / spread
                # No number counts as the centre, and so does padding.
                if value == value and pair[z, y, x] != padding:
                    out[y // 2, x // 2] += min(max(value, -LIMIT), LIMIT) / 8
    return out


def crop(
    pyramid: Pyramid, labels: np.ndarray, number: int, centre: np.ndarray, step: float
) -> np.ndarray:
    """Return density and mask on a cube around a point, ``(2, SIDE, SIDE, SIDE)``.

    Parameters
    ----------
    pyramid : Pyramid
        Density.
    labels : numpy.ndarray
        Labelmap.
    number : int
        The object in it.
    centre : numpy.ndarray
        z, y, x in voxels.
    step : float
        Voxels between the cube's points.
    """
    offsets = (np.arange(SIDE) - (SIDE - 1) / 2) * step
    axes = [at + offsets for at in centre]
    mask = np.zeros((SIDE,) * 3, np.float32)
    places = [np.rint(axis).astype(int) for axis in axes]
    inside = [np.nonzero((p >= 0) & (p < n))[0] for p, n in zip(places, labels.shape, strict=True)]
    nearest = np.ix_(*(p[i] for p, i in zip(places, inside, strict=True)))
    mask[np.ix_(*inside)] = labels[nearest] == number
    return np.stack([pyramid.sample(axes, step), mask])


def looks(mask: np.ndarray, voxel_size: float) -> np.ndarray:
    """Return where to look closely, ``(k, 3)`` z, y, x in voxels of the mask.

    The centre of an object that fits. Of a larger one, points of the surface far from each other
    (farthest-point sampling), where its middle half in Z is: the missing wedge spares it.
    """
    points = np.argwhere(mask)
    low, high = points.min(axis=0), points.max(axis=0)
    if (high - low + 1).max() * voxel_size <= CLOSE_FITS:
        return ((low + high) / 2)[None]
    surface = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    quarter = (high[0] - low[0]) / 4
    middle = np.abs(surface[:, 0] - (low[0] + high[0]) / 2) <= quarter
    surface = surface[middle] if middle.any() else surface
    surface = surface[:: -(-len(surface) // _SURFACE_POINTS)].astype(float)
    chosen = [surface[np.linalg.norm(surface - surface.mean(axis=0), axis=1).argmax()]]
    nearest = np.full(len(surface), np.inf)
    while len(chosen) < min(LOOKS, len(surface)):
        nearest = np.minimum(nearest, np.linalg.norm(surface - chosen[-1], axis=1))
        chosen.append(surface[nearest.argmax()])
    return np.array(chosen)


def views(
    tomogram: Volume,
    labels: np.ndarray,
    polarity: str,
    threads: int = 1,
    wanted: Collection[int] | None = None,
) -> Iterator[View]:
    """Yield the view of each instance, in the order of their numbers.

    Parameters
    ----------
    tomogram : Volume
        Density.
    labels : numpy.ndarray
        Labelmap of the same shape.
    polarity : str
        ``dark`` or ``bright``.
    threads : int
        Threads that make views, some ahead of what is asked for; their result is the same.
    wanted : collection of int, optional
        Instances that are viewed; the others are neighbours only. All by default.
    """
    boxes = ndimage.find_objects(labels)
    numbers = [number for number, box in enumerate(boxes, start=1) if box is not None]
    if wanted is not None:
        numbers = [number for number in numbers if number in wanted]
    if not numbers:
        return
    pyramid = Pyramid(tomogram, polarity, threads)

    def look(number: int) -> View:
        return _view(pyramid, labels, number, boxes[number - 1])

    made = ahead(look, numbers, _AHEAD if threads > 1 else 0, threads)
    yield from progress(made, "describing instances", len(numbers))


def _view(pyramid: Pyramid, labels: np.ndarray, number: int, box: tuple[slice, ...]) -> View:
    size = pyramid.voxel_size
    start = np.array([side.start for side in box])
    stop = np.array([side.stop for side in box])
    centre, extent = (start + stop - 1) / 2, float((stop - start).max())
    crops = [
        crop(pyramid, labels, number, centre, 1.5 * extent / SIDE),
        crop(pyramid, labels, number, centre, CONTEXT_STEP / size),
    ]
    thin = 1 + int(np.prod(stop - start) // _FEATURE_VOXELS) if extent > 100 else 1
    stride = max(1, round(thin ** (1 / 3)))
    thinned = labels[box][(slice(None, None, stride),) * 3] == number
    while not thinned.any():
        # Thinner than the stride, and between the voxels seen.
        stride -= 1
        thinned = labels[box][(slice(None, None, stride),) * 3] == number
    places = looks(thinned, size * stride)
    for place in places * stride + start:
        crops.append(crop(pyramid, labels, number, place, CLOSE_STEP / size))
    return View(
        number,
        np.stack(crops),
        np.array([WHOLE, CONTEXT] + [CLOSE] * len(places)),
        _features(pyramid, labels, number, box, stride),
    )


def _features(pyramid, labels, number, box, stride) -> np.ndarray:
    """Return the features, of every `stride`-th voxel of very large objects."""
    wide = []
    for side, length in zip(box, labels.shape, strict=True):
        margin = 3 + max((side.stop - side.start) // 4, int(-DEPTHS[0] / pyramid.voxel_size))
        start, stop = max(0, side.start - margin), min(length, side.stop + margin)
        wide.append(slice(start, stop, stride))
    density, near = pyramid.box(*wide), labels[tuple(wide)]
    mask = near == number
    if not mask.any():
        return _features(pyramid, labels, number, box, stride - 1)
    return shape_and_density(mask, density, pyramid.voxel_size * stride, (near > 0) & ~mask)
