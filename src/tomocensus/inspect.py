"""What an input is and what is wrong with it, before any heavy job starts."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from tomocensus.errors import InputError
from tomocensus.io import Header, open_array, read_header, sections
from tomocensus.padding import padding_value, without_data
from tomocensus.provenance import content_hash
from tomocensus.samples import FILE_COLUMNS, Sample, read_annotation, shape_fault
from tomocensus.volume import ROUNDED, certain_value, looked_in

_CHECK_ALL_VOXELS = 2**29
_SAMPLED_SECTIONS = 32
_LOW_CONFIDENCE = 0.5
_SCALES = (30.0, 60.0, 100.0)
_COARSE = 20.0
# Height over the other sides of a volume that still lies as it was reconstructed, the beam along y.
_LYING = 0.6
# Largest per cent of a map that is more likely no per cent.
FAINT = 5


def inspect(sample: Sample, probability_scale: int | str | None = None) -> dict:
    """Look at a tomogram and at all that its row names.

    Headers are read in full. Statistics come from up to 32 sections; the search for voxels that
    are no numbers goes through the whole volume up to 2^29 voxels, through these sections above.

    Parameters
    ----------
    sample : Sample
        A row of the sample sheet.
    probability_scale : int or str, optional
        What certain means in a given probability map (1, 100 or 255) where the row does not say;
        told from the values where this is None or ``auto``.

    Returns
    -------
    dict
        The content of ``input.json``: ``tomogram``, ``path``, ``format``, ``group``, ``shape``
        ([z, y, x]), ``voxel_size`` (Å), ``origin`` (Å) and ``nstart`` ([x, y, z]), ``dtype``,
        ``polarity`` (dark or bright), ``polarity_source``, ``polarity_confidence`` (None where
        stated), ``statistics``, ``warnings``, and the paths of ``mask``, ``annotation``,
        ``probability``, ``boundary``, ``labels``, ``ground_truth`` and ``ground_truth_classes``
        with ``probability_scale`` and ``boundary_scale`` (None without a map); ``told_of``: hash of
        each annotation or ground truth that a warning is of, see :func:`current_warnings`.

    Raises
    ------
    InputError
        Where the run cannot go on.
    """
    header = read_header(sample.path, sample.voxel_size)
    if header.voxel_size is None:
        stated = next((text for text in header.warnings if "no usable" in text), "")
        raise InputError(
            f"{sample.path}: {stated or 'the header states no usable voxel size'}. Give it in Å in "
            f"the sample sheet's column 'voxel_size' of '{sample.tomogram}'."
        )
    notes = [f"{sample.path}: {text}" for text in header.warnings]
    if min(header.shape) < 8:
        notes.append(f"{sample.path}: only {min(header.shape)} voxels thin; is this a tomogram?")
    nz, ny, nx = header.shape
    if ny < _LYING * min(nz, nx):
        notes.append(
            f"{sample.path}: much thinner along y than along z and x ({nx} x {ny} x {nz} voxels). "
            "Is z the beam? If not, turn it (IMOD: trimvol -rx; AreTomo: -FlipVol 1)"
        )
    _check_companions(sample, header, notes)
    data = open_array(sample.path, sample.voxel_size)
    size = header.voxel_size
    statistics = _statistics(sample.path, data)
    polarity = _polarity(sample, data, size, notes)
    return {
        "tomogram": sample.tomogram,
        "path": str(sample.path),
        "format": header.format,
        "group": sample.group,
        "shape": list(header.shape),
        "voxel_size": size,
        "origin": list(header.origin),
        "nstart": list(header.nstart),
        "dtype": str(header.dtype),
        **polarity,
        "statistics": statistics,
        "mask": sample.mask,
        "annotation": sample.annotation,
        "probability": sample.probability,
        "probability_scale": _scale(sample.probability, sample, size, probability_scale, notes),
        "boundary": sample.boundary,
        "boundary_scale": _scale(sample.boundary, sample, size, probability_scale, notes),
        "labels": sample.labels,
        "ground_truth": sample.ground_truth,
        "ground_truth_classes": sample.ground_truth_classes,
        "warnings": notes,
        "told_of": {
            path: content_hash(path)
            for path in (sample.annotation, sample.ground_truth)
            if path and any(note.startswith(f"{path}: ") for note in notes)
        },
    }


def current_warnings(facts: dict, sample: Sample) -> list[str]:
    """Return the warnings but those of an annotation or truth that was mended or replaced since.

    The workflow does not look at a tomogram again for these two: all of its results would follow.

    Parameters
    ----------
    facts : dict
        What `inspect` returned.
    sample : Sample
        The tomogram's row as it is now.
    """
    named = {getattr(sample, column) for column in FILE_COLUMNS}
    gone = tuple(
        f"{path}: "
        for path, seen in facts["told_of"].items()
        if path not in named or not _holds(path, seen)
    )
    return [note for note in facts["warnings"] if not note.startswith(gone)]


def _holds(path: str, seen: str) -> bool:
    """Tell whether a file still holds what it held."""
    try:
        return content_hash(path) == seen
    except OSError:
        return False


def detect_polarity(data, voxel_size: float) -> tuple[str, float]:
    """Tell whether protein and membranes are dark or bright.

    Dense matter is compact and fills the smaller part of a tomogram, so it makes the longer tail
    of the intensities. The skewness of band-passed intensities (differences of Gaussians of about
    30, 60 and 100 Å) of a central box is averaged; its sign is the polarity.

    Parameters
    ----------
    data : array-like
        Shape ``(nz, ny, nx)``; only a central box of at most 128 x 512 x 512 voxels is read.
    voxel_size : float
        Å.

    Returns
    -------
    polarity : str
        ``dark`` or ``bright``.
    confidence : float
        0 (a guess) to 1; ``tanh(5 |skewness|)``, halved where the scales disagree.
    """
    box = tuple(
        slice(max((size - limit) // 2, 0), max((size - limit) // 2, 0) + limit)
        for size, limit in zip(data.shape, (128, 512, 512), strict=True)
    )
    seen = _without_padding(np.asarray(data[box]))
    coarse, step = _bin(seen, voxel_size)
    skews = [_band_skewness(coarse, scale / step) for scale in _SCALES]
    mean = float(np.mean(skews))
    agree = all(value > 0 for value in skews) or all(value < 0 for value in skews)
    confidence = float(np.tanh(5 * abs(mean))) * (1.0 if agree else 0.5)
    return ("bright" if mean > 0 else "dark"), confidence


def _without_padding(box: np.ndarray) -> np.ndarray:
    """Return a box as float32, padding and what is not finite replaced by the median of the rest.

    The steps at the sides of padding would outweigh all densities; two voxels more are taken, for
    interpolation blurs these.
    """
    seen = box.astype(np.float32)
    finite = np.isfinite(seen)
    few = (slice(None, None, 4),) * 3
    padding = padding_value(box, box[few][finite[few]]) if finite[few].any() else None
    for plane, known in zip(box, finite, strict=True):
        blank = without_data(plane, padding)
        if blank is not None:
            known &= ~ndimage.binary_dilation(blank, iterations=2)
    if finite.any() and not finite.all():
        seen[~finite] = np.median(seen[finite])
    return seen


def _bin(box: np.ndarray, voxel_size: float) -> tuple[np.ndarray, float]:
    """Average to about 20 Å a voxel, clip outliers; return the box and its voxel size."""
    factor = max(1, min(round(_COARSE / voxel_size), *box.shape))
    sizes = [size // factor for size in box.shape]
    box = box[tuple(slice(0, size * factor) for size in sizes)]
    split = [part for size in sizes for part in (size, factor)]
    box = box.reshape(split).mean(axis=(1, 3, 5))
    low, high = np.percentile(box, [0.1, 99.9])
    return np.clip(box, low, high), voxel_size * factor


def _band_skewness(box: np.ndarray, width: float) -> float:
    """Return the skewness of features about `width` voxels wide; 0 of a constant box."""
    sigma = max(width / 2, 0.7)
    band = ndimage.gaussian_filter(box, sigma) - ndimage.gaussian_filter(box, 4 * sigma)
    band = (band - band.mean()).astype(np.float64)
    deviation = band.std()
    return float((band**3).mean() / deviation**3) if deviation > 0 else 0.0


def _polarity(sample: Sample, data, voxel_size: float, notes: list[str]) -> dict:
    """Resolve the polarity; note where the data speak against what is stated or say little."""
    detected, confidence = detect_polarity(data, voxel_size)
    if sample.polarity != "auto":
        if detected != sample.polarity and confidence > 0.9:
            notes.append(
                f"{sample.path}: polarity '{sample.polarity}' is stated, the densities look "
                f"{detected} (confidence {confidence:.2f}); check the column 'polarity'"
            )
        return {
            "polarity": sample.polarity,
            "polarity_source": "sample sheet",
            "polarity_confidence": None,
        }
    if confidence < _LOW_CONFIDENCE:
        notes.append(
            f"{sample.path}: protein seems {detected}, with little confidence ({confidence:.2f}); "
            "state dark or bright in the column 'polarity'"
        )
    return {
        "polarity": detected,
        "polarity_source": "detected",
        "polarity_confidence": round(confidence, 3),
    }


def _sections(depth: int) -> list[int]:
    """Return up to 32 section numbers spread over the depth."""
    return sorted(
        set(np.linspace(0, depth - 1, min(depth, _SAMPLED_SECTIONS)).astype(int).tolist())
    )


def _statistics(path: str, data) -> dict:
    """Return mean, standard deviation and percentiles; raise for NaN and constant volumes."""
    sampled = _sections(data.shape[0])
    small = int(np.prod(data.shape)) <= _CHECK_ALL_VOXELS
    whole = small and np.dtype(data.dtype).kind == "f"
    values = np.empty((len(sampled), *data.shape[1:]), np.float32)
    broken = []
    for z, section in sections(data) if whole else ((z, data[z]) for z in sampled):
        if not _finite(section):
            broken.append(z)
        if z in sampled:
            values[sampled.index(z)] = section
    if broken:
        raise InputError(
            f"{path}: holds voxels that are not finite numbers (first in section z = "
            f"{broken[0]}, {len(broken)} sections). Reconstruct it again or replace them by "
            "the mean."
        )
    if values.min() == values.max():
        raise InputError(
            f"{path}: constant, every voxel looked at is {values.flat[0]:g}. Check the "
            "reconstruction."
        )
    marks = (0.1, 1, 5, 25, 50, 75, 95, 99, 99.9)
    found = np.percentile(values, marks)
    return {
        "mean": float(values.mean(dtype=np.float64)),
        "std": float(values.std(dtype=np.float64)),
        "percentiles": {f"{mark:g}": float(x) for mark, x in zip(marks, found, strict=True)},
        "sections": len(sampled),
    }


def _finite(section) -> bool:
    """Tell whether a section has only finite numbers."""
    return bool(np.isfinite(np.asarray(section)).all())


def _check_companions(sample: Sample, header: Header, notes: list[str]) -> None:
    """Check the volumes that go with a tomogram."""
    for what in ("mask", "annotation", "probability", "boundary", "labels", "ground_truth"):
        path = getattr(sample, what)
        if path is None:
            continue
        name = what.replace("_", " ")
        fitting = read_header(path, header.voxel_size)
        if fitting.shape != header.shape:
            raise InputError(shape_fault(path, name, fitting.shape, header.shape))
        other = read_header(path)
        # A coarser level of an OME-Zarr was found by its voxel size.
        if other.voxel_size not in (None, 1.0) and other.shape == header.shape:
            ratio = other.voxel_size / header.voxel_size
            if not 0.95 < ratio < 1.05:
                notes.append(
                    f"{path}: the {name}'s header states {other.voxel_size:g} Å a voxel, the "
                    f"tomogram {header.voxel_size:g} Å; the tomogram's is used"
                )
        _check_values(path, what, header, notes)


def _check_values(path: str, what: str, header: Header, notes: list[str]) -> None:
    """Check what a mask, annotation or labelmap holds."""
    if what == "annotation":
        labels = read_annotation(path, header.shape, voxel_size=header.voxel_size)
        if not (labels >= 0).any():
            raise InputError(f"{path}: no voxel is labelled. Label some, objects and background.")
        for missing, name in ((labels > 0, "object"), (labels == 0, "background")):
            if not missing.any():
                notes.append(f"{path}: no voxel is labelled as {name}; training needs both")
        return
    if what in ("probability", "boundary"):
        return
    found, most = False, 0
    for z, section in sections(open_array(path, header.voxel_size)):
        found = found or bool((looked_in(section) if what == "mask" else section).any())
        # Unknown truth is negative; a labelmap to start from has no such thing.
        least = -1 if what == "ground_truth" else 0
        if what != "mask" and (
            section.min() < least
            or section.max() > np.iinfo(np.int64).max
            or (section.dtype.kind == "f" and not np.array_equal(section, np.rint(section)))
        ):
            raise InputError(
                f"{path}: section z = {z} holds values that are no labels. Save whole numbers, 0 "
                "for background and 1, 2, ... for the objects."
            )
        most = max(most, section.max())
    if not found and what == "mask":
        raise InputError(f"{path}: the mask is empty. Give one that is not 0 where to look.")
    if not found:
        notes.append(f"{path}: holds no object")
    elif what == "labels" and most == 1:
        notes.append(
            f"{path}: all of it has the number 1 and is taken for one object. A mask of many "
            "belongs in the column 'probability': its objects are then told apart"
        )


def _scale(
    path: str | None,
    sample: Sample,
    voxel_size: float,
    default: int | str | None,
    notes: list[str],
) -> int | None:
    """Return what certain means in a given map; check that its values fit."""
    if path is None:
        return None
    low, high = np.inf, -np.inf
    for z, section in sections(open_array(path, voxel_size)):
        if not _finite(section):
            raise InputError(f"{path}: section z = {z} holds NaN. Replace it by 0.")
        low, high = min(low, float(section.min())), max(high, float(section.max()))
    scale = sample.probability_scale or (default if default != "auto" else None)
    if scale is None:
        scale = certain_value(high)
        if scale == 100 and high <= FAINT:
            notes.append(
                f"{path}: the largest value is {high:g}, and taken for per cent all of it is "
                "faint. If 1 means certain, rescale the map to 0 to 1"
            )
    if scale is None or low < (1 - ROUNDED) * scale or high > ROUNDED * scale:
        wanted = f"0 to {scale}" if scale else "0 to 1, 0 to 100 or 0 to 255"
        raise InputError(
            f"{path}: values from {low:g} to {high:g}; probabilities must lie within {wanted}. "
            "Rescale the map (scores x before a sigmoid by 1 / (1 + exp(-x))) or correct the "
            "column 'probability_scale'."
        )
    return int(scale)
