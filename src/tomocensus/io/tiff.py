"""TIFF stacks, also ImageJ's and OME's, with tifffile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import tifffile

from tomocensus.errors import InputError
from tomocensus.io.header import ANGSTROM, Header, override, usable_voxel_size


def read_header(path: Path, voxel_size: float | None = None) -> Header:
    """Read shape, type and, where stated, voxel size; see `tomocensus.io.read_header`."""
    with _opened(path) as (file, series, shape):
        warnings: list[str] = []
        if len(file.series) > 1 and series is file.series[0]:
            warnings.append(f"holds {len(file.series)} images; the first, of {shape}, is read")
        header = Header(
            shape=shape,
            dtype=np.dtype(np.int16) if _shifted(file, series) else series.dtype.newbyteorder("="),
            voxel_size=usable_voxel_size(_voxel_sizes(file), warnings),
            format="tiff",
            warnings=warnings,
        )
        _check_length(path, file, series)
    return override(header, voxel_size)


def open_array(path: Path, voxel_size: float | None = None) -> np.ndarray:
    """Return the voxels, ZYX; a memory map where they lie in one piece, not compressed."""
    with _opened(path) as (file, series, shape):
        _check_length(path, file, series)
        offset = series.dataoffset
        dtype = series.dtype.newbyteorder(file.byteorder)
        shifted = _shifted(file, series)
        if offset is not None and dtype.isnative and not shifted:
            return np.memmap(path, dtype, mode="r", offset=offset, shape=shape)
        data = series.asarray().reshape(shape)
    if shifted:
        data = (data.astype(np.uint16, copy=False) ^ np.uint16(2**15)).view(np.int16)
    return data.astype(data.dtype.newbyteorder("="), copy=False)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple]:
    """Open a file; yield it, its first series and the shape ``(nz, ny, nx)``."""
    try:
        with tifffile.TiffFile(path) as file:
            if not file.series:
                raise InputError(f"{path}: holds no image. Check how it was made.")
            series = _stack(file)
            yield file, series, _shape(path, series)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # tifffile and its codecs raise a dozen kinds for damaged files
        raise InputError(
            f"{path}: not a readable TIFF stack ({error}). Write or copy it again."
        ) from error


def _stack(file: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    """Return the first image of a file; slices that were written one by one are one stack."""
    first, *more = file.series
    if not more:
        return first
    alike = all((one.shape, one.dtype) == (first.shape, first.dtype) for one in more)
    if not alike or any(len(one.pages) > 1 for one in file.series) or len(first.shape) != 2:
        return first
    pages = [one.pages[0] for one in file.series]
    shape = (len(pages), *first.shape)
    return tifffile.TiffPageSeries(pages, shape=shape, dtype=first.dtype, axes="QYX", parent=file)


def _shape(path: Path, series: tifffile.TiffPageSeries) -> tuple[int, int, int]:
    """Return ``(nz, ny, nx)``; other axes must have length 1."""
    if "S" in series.axes and series.shape[series.axes.index("S")] > 1:
        raise InputError(f"{path}: holds colours. Write it as a stack of grey values.")
    if series.dtype.kind not in "iufb":
        raise InputError(f"{path}: holds {series.dtype}, not grey values. Write it as float32.")
    shape = tuple(size for size in series.shape[:-2] if size != 1) + tuple(series.shape[-2:])
    if len(shape) == 2:
        shape = (1, *shape)
    if len(shape) != 3:
        raise InputError(
            f"{path}: has axes {series.axes} of sizes {series.shape}. Write one stack of slices "
            "without channels and time points."
        )
    return shape


def _shifted(file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> bool:
    """Tell whether ImageJ wrote signed numbers, which it keeps as unsigned ones 32,768 higher."""
    told = file.imagej_metadata or {}
    line = (told.get("cf", 0), told.get("c0"), told.get("c1"))
    return line == (0, -(2**15), 1) and series.dtype.newbyteorder("=") == np.uint16


def _check_length(path: Path, file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    """Raise where the file ends before its last strip."""
    last = series.dataoffset + series.nbytes if series.dataoffset is not None else 0
    if last == 0:
        page = series.pages[-1]
        if page is None:
            raise InputError(f"{path}: truncated, its last page is missing. Copy it again.")
        ends = zip(page.dataoffsets, page.databytecounts, strict=True)
        last = max((start + count for start, count in ends), default=0)
    length = file.filehandle.size
    if length < last:
        raise InputError(
            f"{path}: truncated; the file should have {last} bytes and has {length}. Copy or "
            "write it again."
        )


def _voxel_sizes(file: tifffile.TiffFile) -> tuple[float | None, ...]:
    """Return the voxel size ``(x, y, z)`` in Å from OME's or ImageJ's metadata."""
    if file.is_ome and file.ome_metadata:
        return _ome_sizes(file.ome_metadata)
    if file.is_imagej and file.imagej_metadata:
        return _imagej_sizes(file)
    return None, None, None


def _ome_sizes(xml: str) -> tuple[float | None, ...]:
    """Read PhysicalSizeX, Y and Z; OME's unit is µm where none is stated."""
    for element in ElementTree.fromstring(xml).iter():
        if element.tag.endswith("Pixels"):
            sizes = []
            for axis in "XYZ":
                size = element.get(f"PhysicalSize{axis}")
                unit = ANGSTROM.get(element.get(f"PhysicalSize{axis}Unit", "µm").lower())
                sizes.append(_decimal(float(size) * unit) if size and unit else None)
            return tuple(sizes)
    return None, None, None


def _imagej_sizes(file: tifffile.TiffFile) -> tuple[float | None, ...]:
    """Read the resolution tags and ``spacing`` in ImageJ's unit."""
    metadata = file.imagej_metadata
    unit = ANGSTROM.get(str(metadata.get("unit", "")).strip("\x00 ").lower())
    if unit is None:
        return None, None, None
    sizes: list[float | None] = []
    for name in ("XResolution", "YResolution"):
        tag = file.pages[0].tags.get(name)
        numerator, denominator = tag.value if tag is not None else (0, 1)
        sizes.append(_decimal(unit * denominator / numerator) if numerator else None)
    spacing = metadata.get("spacing")
    sizes.append(_decimal(unit * float(spacing)) if spacing else None)
    return tuple(sizes)


def _decimal(value: float) -> float:
    """Drop the digits that conversion between units and fractions leaves behind."""
    return float(f"{value:.6g}")
