"""OME-Zarr (0.4 on Zarr v2, 0.5 on Zarr v3) and plain Zarr arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

from tomocensus.errors import InputError
from tomocensus.io.header import ANGSTROM, Header, override, usable_voxel_size
from tomocensus.volume import release_pages

_CHUNK = 128
# Largest difference (logarithm) of a level's voxel size to one that is asked for and means it.
SAME = 0.1


@dataclass(frozen=True)
class _Level:
    """One resolution: the array, its voxel size and its translation ``(x, y, z)`` in Å."""

    array: zarr.Array
    sizes: tuple[float | None, float | None, float | None]
    translation: tuple[float, float, float]


class _View:
    """The last three axes of a Zarr array, sliced lazily."""

    def __init__(self, array: zarr.Array, path: Path) -> None:
        self._array, self._path = array, path
        self._lead = (0,) * (array.ndim - 3)
        self.shape = array.shape[-3:]
        self.dtype = array.dtype
        self.ndim = 3
        # Sections that lie in one chunk: to read one of them is to read them all.
        self.sections_together = array.chunks[-3]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        try:
            return np.asarray(self._array[self._lead + key])
        except (IndexError, MemoryError):
            raise
        except Exception as error:  # each codec has its own kinds for damaged chunks
            raise InputError(
                f"{self._path}: a chunk cannot be read ({type(error).__name__}: {error}). Copy or "
                "download the image again."
            ) from error

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        data = self[:, :, :]
        return data.astype(dtype) if dtype is not None else data


def read_header(path: Path, voxel_size: float | None = None) -> Header:
    """Read the metadata of the level that fits; see `tomocensus.io.read_header`."""
    warnings: list[str] = []
    levels = _levels(path, warnings)
    level = _choose(levels, voxel_size)
    header = Header(
        shape=tuple(level.array.shape[-3:]),
        dtype=level.array.dtype.newbyteorder("="),
        voxel_size=usable_voxel_size(level.sizes, warnings),
        origin=level.translation,
        format="zarr",
        warnings=warnings,
    )
    if voxel_size is None or len(levels) == 1 or not _known(levels):
        return override(header, voxel_size)
    if abs(np.log(header.voxel_size / voxel_size)) < SAME:
        return override(header, voxel_size)
    warnings.append(
        f"no level has the asked voxel size {voxel_size:g} Å; the nearest, "
        f"{header.voxel_size:g} Å, is used"
    )
    return header


def open_array(path: Path, voxel_size: float | None = None) -> _View:
    """Return a lazy view, ZYX, of the level whose voxel size is nearest to the asked one."""
    return _View(_choose(_levels(path, []), voxel_size).array, path)


def _levels(path: Path, warnings: list[str]) -> list[_Level]:
    """Return all resolutions, finest first as they are listed."""
    try:
        node = zarr.open(path, mode="r")
        if isinstance(node, zarr.Array):
            levels = [_Level(node, (None, None, None), (0.0, 0.0, 0.0))]
        else:
            levels = _multiscales(path, node, warnings)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(
            f"{path}: not a readable OME-Zarr image ({type(error).__name__}: {error}). Name the "
            "folder that holds the image's .zattrs or zarr.json."
        ) from error
    for level in levels:
        shape = level.array.shape
        if len(shape) < 3 or any(size != 1 for size in shape[:-3]):
            raise InputError(
                f"{path}: has shape {shape}; one volume z, y, x is needed, without further "
                "channels and time points."
            )
        if level.array.dtype.kind not in "iufb":
            raise InputError(
                f"{path}: holds {level.array.dtype}, not grey values. Write it as float32."
            )
    return levels


def _multiscales(path: Path, group: zarr.Group, warnings: list[str]) -> list[_Level]:
    """Decode the first entry of ``multiscales``."""
    attributes = group.attrs.asdict()
    multiscales = attributes.get("ome", attributes).get("multiscales")
    if not multiscales:
        raise InputError(
            f"{path}: a Zarr group without 'multiscales'. Name the folder of the image itself, "
            "for example VOLUME.zarr/0 or the tomogram's own folder."
        )
    image = multiscales[0]
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in image.get("axes", [])]
    axes = axes[-3:] or [{"name": name} for name in "zyx"]
    names = [str(axis.get("name")) for axis in axes]
    if sorted(names) == ["x", "y", "z"] and names != ["z", "y", "x"]:
        raise InputError(
            f"{path}: its axes are in the order {', '.join(names)}. Write it as z, y, x."
        )
    units = [axis.get("unit") for axis in axes]
    if not all(units):
        warnings.append("no unit of length is stated; Å is taken for the voxel size")
    factors = [ANGSTROM.get((unit or "angstrom").lower()) for unit in units]
    if None in factors:
        raise InputError(f"{path}: unknown unit of length {units}. State nanometer or angstrom.")
    whole = image.get("coordinateTransformations", [])
    return [
        _level(
            group[dataset["path"]], [*dataset.get("coordinateTransformations", []), *whole], factors
        )
        for dataset in image["datasets"]
    ]


def _level(array: zarr.Array, transformations: list[dict], factors: list[float]) -> _Level:
    """Combine a level's scales and translations, in their order, into Å."""
    scale, translation, scaled = np.ones(3), np.zeros(3), False
    for step in transformations:
        if step["type"] == "scale":
            values = np.array(step["scale"][-3:], dtype=float)
            scale, translation, scaled = scale * values, translation * values, True
        elif step["type"] == "translation":
            translation = translation + np.array(step["translation"][-3:], dtype=float)
    sizes = [float(f"{value:.7g}") for value in scale * factors]
    place = tuple(float(f"{value:.7g}") for value in (translation * factors)[::-1])
    return _Level(array, tuple(sizes[::-1]) if scaled else (None, None, None), place)


def _known(levels: list[_Level]) -> list[_Level]:
    """Return the levels of a usable voxel size; none where the first is said to have 1 Å."""
    if levels[0].sizes[0] == 1:
        return []
    return [level for level in levels if usable_voxel_size(level.sizes, []) is not None]


def _choose(levels: list[_Level], voxel_size: float | None) -> _Level:
    """Return the level nearest to a voxel size by ratio; the first where none is asked.

    The first as well where the levels' sizes count voxels only: the asked size is that of the whole
    image then.
    """
    known = _known(levels)
    if voxel_size is None or not known:
        return levels[0]
    return min(known, key=lambda level: abs(np.log(level.sizes[0] / voxel_size)))


def write_ome_zarr(path: Path, data, voxel_size: float, values: np.ndarray) -> None:
    """Write what a labelmap's numbers stand for as OME-Zarr 0.4 of one resolution.

    Parameters
    ----------
    path : path-like
        The group's folder, which is made.
    data : array-like
        Whole numbers ``(nz, ny, nx)``; read chunk by chunk.
    voxel_size : float
        Å.
    values : numpy.ndarray
        What is written for each number; its type is the file's.
    """
    group = zarr.create_group(store=path, zarr_format=2)
    array = group.create_array(
        "0",
        shape=data.shape,
        chunks=tuple(min(_CHUNK, side) for side in data.shape),
        dtype=values.dtype,
        fill_value=0,
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )
    for first in range(0, data.shape[0], _CHUNK):
        part = np.asarray(data[first : first + _CHUNK]).astype(np.int64, copy=False)
        array[first : first + _CHUNK] = values[part]
        release_pages(data)
    scale = {"type": "scale", "scale": [float(voxel_size)] * 3}
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "name": Path(path).stem,
            "axes": [{"name": name, "type": "space", "unit": "angstrom"} for name in "zyx"],
            "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
        }
    ]
