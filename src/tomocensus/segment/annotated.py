"""Annotated tomograms, wherever a lab keeps them: a sample sheet, a folder, a copick project."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tomocensus.errors import InputError
from tomocensus.inspect import inspect
from tomocensus.io import read_volume
from tomocensus.samples import Sample, read_annotation, read_samples
from tomocensus.segment.settings import AnnotatedVolume
from tomocensus.volume import Volume

VOLUMES = (".mrc", ".rec", ".map", ".tif", ".tiff", ".zarr", ".gz", ".bz2")
COMPRESSED = (".gz", ".bz2")
ENDINGS = ("_annotation", "_labels")
# Where copick (https://copick.github.io/copick) keeps segmentations of a run, and what they are.
DIRECTORIES = {
    "InstanceSegmentations": "instance",
    "PanopticSegmentations": "instance",
    "Segmentations": "semantic",
}


def read_annotated(source: str | Path, kind: str = "binary") -> list[AnnotatedVolume]:
    """Read annotated tomograms.

    Parameters
    ----------
    source : path-like
        A sample sheet (``.tsv``; rows without annotation are passed over), a folder of volumes
        with ``NAME_annotation`` or ``NAME_labels`` beside ``NAME``, or a copick configuration
        (``.json``) of files on this machine. A copick segmentation counts as complete: 0 is
        background.
    kind : str
        What numbers in sheets and folders mean: ``binary``, ``semantic`` or ``instance``. copick
        says so itself.

    Returns
    -------
    list of AnnotatedVolume
        In the order of their names; volumes are memory-mapped where the format allows.

    Raises
    ------
    InputError
        Where nothing annotated is found, or something does not fit.
    """
    source = Path(source)
    if source.is_dir():
        pairs = [_pair(sample, kind) for sample in _in_folder(source)]
    elif source.suffix == ".json":
        pairs = _in_copick(source)
    else:
        samples = sorted(read_samples(source).items())
        pairs = [_pair(sample, kind) for _, sample in samples if sample.annotation]
    if not pairs:
        raise InputError(
            f"{source}: nothing annotated is found. Give a sample sheet whose column 'annotation' "
            "is filled, a folder with NAME_annotation.mrc beside NAME.mrc, or a copick "
            "configuration whose runs hold segmentations."
        )
    return pairs


def _pair(sample: Sample, kind: str) -> AnnotatedVolume:
    """Read one tomogram, inspected, and its annotation."""
    facts = inspect(sample)
    volume = read_volume(sample.path, facts["voxel_size"])
    annotation = read_annotation(
        sample.annotation, tuple(facts["shape"]), voxel_size=facts["voxel_size"]
    )
    return AnnotatedVolume(
        sample.tomogram, volume, annotation, facts["polarity"], kind, group=sample.group
    )


def _in_folder(folder: Path) -> list[Sample]:
    """Return a sample for each volume that has an annotation beside it."""
    found = []
    for path in sorted(folder.iterdir()):
        name, ending = _name(path)
        if ending not in VOLUMES or name.endswith(ENDINGS):
            continue
        beside = [
            other
            for other in sorted(folder.iterdir())
            if _name(other)[0] in [name + end for end in ENDINGS] and _name(other)[1] in VOLUMES
        ]
        if len(beside) > 1:
            raise InputError(f"{path}: has two annotations, {beside[0].name} and {beside[1].name}.")
        if beside:
            found.append(Sample(tomogram=name, path=str(path), annotation=str(beside[0])))
    return found


def _name(path: Path) -> tuple[str, str]:
    """Return the name without endings, and the last ending; dots within the name are its own."""
    name = path.name
    for endings in (COMPRESSED, VOLUMES, (".ome",)):
        stem, dot, ending = name.rpartition(".")
        if dot and f".{ending.lower()}" in endings:
            name = stem
    return name, path.suffix.lower()


def _in_copick(configuration: Path) -> list[AnnotatedVolume]:
    """Return the tomograms of a copick project that have segmentations."""
    try:
        settings = json.loads(configuration.read_text())
        roots = [settings[key] for key in ("overlay_root", "static_root") if settings.get(key)]
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{configuration}: no copick configuration ({error}).") from error
    runs: dict[str, list[Path]] = {}
    for root in roots:
        scheme, _, rest = root.rpartition("://")
        if scheme not in ("", "file", "local"):
            raise InputError(
                f"{configuration}: '{root}' is not on this machine. Download the project (or mount "
                "it) and name the folder."
            )
        for run in sorted((configuration.parent / rest / "ExperimentRuns").glob("*")):
            runs.setdefault(run.name, []).append(run)
    pairs = []
    for name, folders in sorted(runs.items()):
        pairs += _copick_run(name, folders)
    return pairs


def _copick_run(name: str, folders: list[Path]) -> list[AnnotatedVolume]:
    """Return the run's tomogram with its segmentations in one volume, or nothing."""
    for directory, kind in DIRECTORIES.items():
        stores = [s for folder in folders for s in sorted(folder.glob(f"{directory}/*.zarr"))]
        # The finest of those that have a tomogram.
        sizes = sorted({store.name.split("_")[0] for store in stores}, key=_number)
        for size in sizes:
            tomograms = [
                t for f in folders for t in sorted(f.glob(f"VoxelSpacing{size}/*.zarr"))
                if "_features" not in t.name
            ]  # fmt: skip
            if tomograms:
                chosen = [store for store in stores if store.name.startswith(size + "_")]
                return [_copick_pair(name, tomograms[0], float(size), chosen, kind)]
    return []


def _number(size: str) -> float:
    """Return the voxel size that a segmentation's name begins with; what begins otherwise: last."""
    try:
        return float(size)
    except ValueError:
        return np.inf


def _copick_pair(name, tomogram, voxel_size, stores, kind) -> AnnotatedVolume:
    """Put the segmentations of a run into one volume; numbers do not collide, the last wins."""
    sample = Sample(tomogram=name, path=str(tomogram), voxel_size=voxel_size)
    facts = inspect(sample)
    annotation = np.zeros(tuple(facts["shape"]), np.int32)
    for store in stores:
        labels = np.asarray(read_volume(store, voxel_size).data).astype(np.int32)
        if labels.shape != annotation.shape:
            raise InputError(
                f"{store}: has shape {labels.shape}, its tomogram {annotation.shape}. Both must be "
                "of one voxel size."
            )
        annotation = np.where(labels > 0, labels + annotation.max(), annotation)
    volume: Volume = read_volume(tomogram, voxel_size)
    return AnnotatedVolume(name, volume, annotation, facts["polarity"], kind)
