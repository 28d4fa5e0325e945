"""Volume files: the only code that knows file formats.

MRC (also gz and bz2 packed), TIFF stacks and OME-Zarr are read; MRC is written.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

from tomocensus.errors import InputError
from tomocensus.io import mrc
from tomocensus.io.header import Header
from tomocensus.io.mrc import open_mrc_writer, write_labels, write_mrc
from tomocensus.volume import Volume

__all__ = [
    "Header",
    "open_array",
    "open_mrc_writer",
    "read_header",
    "read_volume",
    "sections",
    "write_labels",
    "write_mrc",
]

_TIFF = (".tif", ".tiff", ".btf", ".tf8")
_MRC = (".mrc", ".rec", ".map", ".st", ".mrcs", ".ccp4", ".ali", ".preali")


def read_header(path: str | os.PathLike, voxel_size: float | None = None) -> Header:
    """Read what a file states about its volume, without its voxels.

    Parameters
    ----------
    path : path-like
        MRC, TIFF or OME-Zarr.
    voxel_size : float, optional
        Å; counts instead of the header's. In an OME-Zarr with several levels it chooses the level.

    Raises
    ------
    InputError
        Where there is no such file, or it is truncated or not a volume.
    """
    header = _module(path).read_header(Path(path), voxel_size)
    if 0 in header.shape:
        raise InputError(
            f"{path}: holds no voxels (shape z, y, x = {header.shape}). Check how it was made."
        )
    return header


def open_array(path: str | os.PathLike, voxel_size: float | None = None):
    """Open the voxels for slicing without reading them all, where the format allows.

    Returns
    -------
    array-like
        Shape ``(nz, ny, nx)``; a memory map, an array in memory, or a lazy Zarr view. Slices of it
        become arrays with ``numpy.asarray``.

    Raises
    ------
    InputError
        As `read_header`.
    """
    return _module(path).open_array(Path(path), voxel_size)


def sections(data) -> Iterator[tuple[int, np.ndarray]]:
    """Yield number and voxels ``(ny, nx)`` of each section of what `open_array` opened.

    Those that lie in one chunk are read together, once.
    """
    step = getattr(data, "sections_together", 1)
    for start in range(0, data.shape[0], step):
        yield from enumerate(np.asarray(data[start : start + step]), start)


def read_volume(path: str | os.PathLike, voxel_size: float | None = None) -> Volume:
    """Read a volume; memory-mapped (read-only) where the format allows.

    Parameters
    ----------
    path : path-like
        MRC, TIFF or OME-Zarr.
    voxel_size : float, optional
        Å; counts instead of the header's. In an OME-Zarr with several levels it chooses the level.
        Where neither the file nor the caller states one, 1 Å is taken and Python's `warnings`
        say so: masks and annotations may come without. `inspect` refuses such tomograms.

    Raises
    ------
    InputError
        Where the file cannot be read.
    """
    header = read_header(path, voxel_size)
    if header.voxel_size is None:
        warnings.warn(f"{path}: no voxel size is stated, 1 Å is taken", stacklevel=2)
    data = open_array(path, voxel_size)
    if not isinstance(data, np.ndarray):
        data = np.asarray(data)
    return Volume(data, header.voxel_size or 1.0, header.origin, header.nstart)


def _module(path: str | os.PathLike) -> ModuleType:
    """Return the module that knows the file's format."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file. Check the path and the working directory.")
    # What reads these takes a while and some memory to load, and most volumes are MRC.
    if path.is_dir():
        from tomocensus.io import zarr

        return zarr
    name = path.name.lower().removesuffix(".gz").removesuffix(".bz2")
    if name.endswith(_TIFF):
        from tomocensus.io import tiff

        return tiff
    if name.endswith(_MRC):
        return mrc
    raise InputError(
        f"{path}: unknown kind of file. Known are MRC ({', '.join(_MRC)}; also .gz and .bz2), "
        f"TIFF ({', '.join(_TIFF)}) and OME-Zarr folders. Convert others: EMAN2's e2proc3d.py "
        "does, and in Python mrcfile.write('NAME.mrc', array, voxel_size=10) any array z, y, x."
    )
