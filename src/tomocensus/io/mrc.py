"""MRC files (MRC2014, CCP4 and IMOD flavours).

The header is decoded here rather than by mrcfile, because a memory map is wanted even where stamps
are broken, and because mrcfile writes the time into its label, which would make the bytes of equal
results differ.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from tomocensus.atomic import atomic_path
from tomocensus.errors import InputError
from tomocensus.io.header import Header, override, usable_voxel_size
from tomocensus.volume import Volume, release_pages

HEADER_BYTES = 1024
LABEL = b"Written by TomoCensus"
_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_MODE_OF = {np.dtype(code): mode for mode, code in _MODES.items()}
_PACKED_NIBBLES = 101
_IMOD_STAMP = 1146047817
# Space groups that mean a stack of volumes.
_STACKS = range(401, 631)
_NOT_VOLUMES = {3: "complex numbers", 4: "complex numbers (a Fourier transform)", 16: "RGB colours"}


def read_header(path: Path, voxel_size: float | None = None) -> Header:
    """Decode an MRC header; see `tomocensus.io.read_header`."""
    raw, _, warnings = _raw_header(path)
    shape = _file_shape(raw)
    _check_length(path, raw, shape, warnings)
    axes = _axes(raw, warnings)
    nstart = [int(raw[f"n{axis}start"]) for axis in "xyz"]
    placed = [0, 0, 0]
    for file_axis, axis in enumerate(axes):
        placed[axis] = nstart[file_axis]
    header = Header(
        shape=tuple(shape[2 - axes.index(axis)] for axis in (2, 1, 0)),
        dtype=_dtype(raw).newbyteorder("="),
        voxel_size=usable_voxel_size(_voxel_sizes(raw), warnings),
        origin=_origin(raw, warnings),
        nstart=tuple(placed),
        format="mrc",
        warnings=warnings,
    )
    return override(header, voxel_size)


def open_array(path: Path, voxel_size: float | None = None) -> np.ndarray:
    """Return the voxels, ZYX: a memory map where the file is not packed and in native byte order.

    The voxel size plays no part; it is taken so that all formats are called alike.
    """
    raw, order, warnings = _raw_header(path)
    shape = _file_shape(raw)
    start = HEADER_BYTES + int(raw["nsymbt"])
    stored_shape, dtype = _stored(raw, shape, order)
    count = int(np.prod(stored_shape))
    if _opener(path) is open:
        _check_length(path, raw, shape, warnings)
        data = np.memmap(path, dtype=dtype, mode="r", offset=start, shape=stored_shape)
    else:
        content = _unpack(path)[start : start + count * dtype.itemsize]
        if len(content) < count * dtype.itemsize:
            raise _truncated(path, start + count * dtype.itemsize, start + len(content))
        data = np.frombuffer(content, dtype).reshape(stored_shape)
    if int(raw["mode"]) == _PACKED_NIBBLES:
        data = _unpack_nibbles(data, shape[2])
    if not data.dtype.isnative:
        data = data.astype(data.dtype.newbyteorder("="))
    axes = _axes(raw, [])
    if axes != (0, 1, 2):
        data = data.transpose([2 - axes.index(axis) for axis in (2, 1, 0)])
    return data


def write_mrc(path: str | os.PathLike, volume: Volume) -> None:
    """Write a volume as MRC, whole or not at all; equal volumes give equal bytes.

    Parameters
    ----------
    path : path-like
        The file's name; not packed, whatever its suffix.
    volume : Volume
        int8, int16, uint16, float16 and float32 are kept; float64 becomes float32; bool and other
        integers become the smallest type that holds their values.
    """
    _write(path, volume, _type_for(volume.data))


def write_labels(path: str | os.PathLike, volume: Volume) -> None:
    """Write a labelmap: uint16, where a label is negative int16, float32 where these are too small.

    Raises
    ------
    ValueError
        For labels that are not whole numbers or exceed 2^24, the last that float32 tells apart.
    """
    data = volume.data
    if data.dtype.kind not in "iub":
        raise ValueError(f"labels must be integers, not {data.dtype}")
    _write(path, volume, _integer_type(data, (np.uint16, np.int16)))


@contextlib.contextmanager
def open_mrc_writer(
    path: str | os.PathLike,
    shape: tuple[int, int, int],
    dtype: np.typing.DTypeLike,
    voxel_size: float,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    nstart: tuple[int, int, int] = (0, 0, 0),
) -> Iterator[np.memmap]:
    """Yield a writable memory map, all 0, that becomes the MRC file when the block ends well.

    Parameters
    ----------
    path : path-like
        The file's name.
    shape : tuple of int
        ``(nz, ny, nx)``.
    dtype : dtype
        int8, int16, uint16, float16 or float32.
    voxel_size : float
        Å.
    origin, nstart : tuple
        ``(x, y, z)`` in Å and in voxels.

    Raises
    ------
    ValueError
        For a type that MRC does not know.
    """
    dtype = np.dtype(dtype)
    if dtype not in _MODE_OF:
        raise ValueError(f"MRC has no mode for {dtype}")
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as stream:
            # Claims the space: a map of a hole on a full disk ends in a bus error, not a message.
            length = HEADER_BYTES + int(np.prod(shape)) * dtype.itemsize
            os.posix_fallocate(stream.fileno(), 0, length)
        data = np.memmap(temporary, dtype, mode="r+", offset=HEADER_BYTES, shape=tuple(shape))
        yield data
        data.flush()
        header = _new_header(data, voxel_size, origin, nstart)
        del data
        with open(temporary, "r+b") as stream:
            stream.write(header.tobytes())


def _write(path: str | os.PathLike, volume: Volume, dtype: np.dtype) -> None:
    """Copy a volume section by section, so that memory stays small."""
    place = (volume.voxel_size, volume.origin, volume.nstart)
    with open_mrc_writer(path, volume.shape, dtype, *place) as out:
        for z in range(volume.shape[0]):
            out[z] = volume.data[z]
            if z % 32 == 0:
                release_pages(out)


def _type_for(data: np.ndarray) -> np.dtype:
    """Return the MRC type that holds an array."""
    if data.dtype.newbyteorder("=") in _MODE_OF:
        return data.dtype.newbyteorder("=")
    if data.dtype.kind == "f":
        return np.dtype(np.float32)
    if data.dtype.kind not in "iub":
        raise ValueError(f"MRC has no mode for {data.dtype}")
    return _integer_type(data, (np.int8, np.int16, np.uint16))


def _integer_type(data: np.ndarray, candidates: tuple[type, ...]) -> np.dtype:
    """Return the first type that holds whole numbers, float32 where none of them does."""
    low, high = (int(data.min()), int(data.max())) if data.size else (0, 0)
    for dtype in candidates:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    if max(-low, high) > 2**24:
        raise ValueError(f"integers {low}..{high} do not fit into an MRC file without loss")
    return np.dtype(np.float32)


def _new_header(data: np.ndarray, voxel_size: float, origin, nstart) -> np.ndarray:
    """Build the header of a new file; statistics are taken section by section."""
    header = np.zeros((), dtype=HEADER_DTYPE)
    for axis, size in zip("zyx", data.shape, strict=True):
        header[f"n{axis}"] = header[f"m{axis}"] = size
        header["cella"][axis] = size * voxel_size
    for axis, start, place in zip("xyz", nstart, origin, strict=True):
        header[f"n{axis}start"] = start
        header["origin"][axis] = place
    for angle in ("alpha", "beta", "gamma"):
        header["cellb"][angle] = 90
    header["mode"] = _MODE_OF[data.dtype]
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["ispg"], header["nversion"], header["nlabl"] = 1, 20141, 1
    header["map"], header["machst"] = b"MAP ", (0x44, 0x44, 0, 0)
    if data.dtype == np.int8:
        # IMOD takes bytes without this stamp and flag for unsigned ones in some versions.
        extra = bytearray(84)
        extra[40:44] = _IMOD_STAMP.to_bytes(4, "little")
        extra[44:48] = (1).to_bytes(4, "little")
        header["extra2"] = np.void(bytes(extra))
    header["label"][0] = LABEL.ljust(80)
    header["dmin"], header["dmax"], header["dmean"], header["rms"] = _statistics(data)
    return header


def _statistics(data: np.ndarray) -> tuple[float, float, float, float]:
    """Return minimum, maximum, mean and standard deviation."""
    low, high, total, squares = np.inf, -np.inf, 0.0, 0.0
    for number, section in enumerate(data, 1):
        low, high = min(low, section.min()), max(high, section.max())
        total += section.sum(dtype=np.float64)
        squares += np.square(section, dtype=np.float64).sum()
        if number % 32 == 0:
            release_pages(data)
    mean = total / data.size
    with np.errstate(invalid="ignore"):  # infinite voxels are the caller's affair
        variance = max(squares / data.size - mean**2, 0)
    return float(low), float(high), float(mean), float(np.sqrt(variance))


def _opener(path: Path):
    """Return what opens a file that may be packed, judged by its first bytes."""
    with open(path, "rb") as stream:
        start = stream.read(3)
    if start[:2] == b"\x1f\x8b":
        return gzip.open
    return bz2.open if start == b"BZh" else open


def _unpack(path: Path, size: int = -1) -> bytes:
    """Read (the first `size` bytes of) a file, unpacked."""
    try:
        with _opener(path)(path, "rb") as stream:
            return stream.read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile, OSError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}). Copy or pack the file again."
        ) from error


def _raw_header(path: Path) -> tuple[np.void, str, list[str]]:
    """Return the header in its byte order, the byte order and what is odd about the stamps."""
    content = _unpack(path, HEADER_BYTES)
    if len(content) < HEADER_BYTES:
        raise InputError(
            f"{path}: not an MRC file, it is shorter than a header. Check how it was made."
        )
    found = [order for order in "<>" if _plausible(_decode(content, order))]
    if not found:
        raise InputError(
            f"{path}: not an MRC file (size, mode or axes in its header make no sense). Check how "
            "it was made."
        )
    warnings = []
    stamp = content[212:214]
    stamped = {b"DD": "<", b"DA": "<", b"\x11\x11": ">"}.get(stamp)
    order = stamped if stamped in found else found[0]
    if stamped != order:
        warnings.append("broken machine stamp; the byte order was found from the sizes")
    if content[208:211] != b"MAP":
        warnings.append("the map stamp 'MAP' is missing from the header")
    raw = _decode(content, order)
    if int(raw["mode"]) == 0 and _imod_flags(raw) is None and _unsigned(raw):
        warnings.append(
            f"bytes are read as unsigned, for the header states values up to {raw['dmax']:g}"
        )
    return raw, order, warnings


def _decode(content: bytes, order: str) -> np.void:
    """Decode 1024 bytes as a header."""
    return np.frombuffer(content, np.dtype(HEADER_DTYPE).newbyteorder(order), count=1)[0]


def _plausible(raw: np.void) -> bool:
    """Tell whether sizes and mode could be those of an MRC file."""
    sizes = all(0 < int(raw[name]) < 10**6 for name in ("nx", "ny", "nz"))
    known = {*_MODES, *_NOT_VOLUMES, _PACKED_NIBBLES}
    return sizes and int(raw["mode"]) in known and 0 <= int(raw["nsymbt"]) < 2**30


def _dtype(raw: np.void) -> np.dtype:
    """Return the type of the voxels as they are read."""
    mode = int(raw["mode"])
    if mode == _PACKED_NIBBLES or (mode == 0 and _unsigned(raw)):
        return np.dtype(np.uint8)
    return np.dtype(_MODES[mode])


def _unsigned(raw: np.void) -> bool:
    """Tell whether bytes are unsigned: IMOD's flag says so, else the least and greatest value.

    Many programs wrote unsigned bytes before MRC2014 made them signed, and some still do.
    """
    if (flags := _imod_flags(raw)) is not None:
        return not flags & 1
    low, high = float(raw["dmin"]), float(raw["dmax"])
    return 128 <= high <= 255 and -low <= high - 128


def _imod_flags(raw: np.void) -> int | None:
    """Return IMOD's flags, None in a file without its stamp."""
    integer = np.dtype("i4").newbyteorder(raw["nx"].dtype.byteorder)
    stamp, flags = np.frombuffer(bytes(raw["extra2"])[40:48], integer)
    return int(flags) if stamp == _IMOD_STAMP else None


def _stored(raw: np.void, shape: tuple[int, int, int], order: str):
    """Return shape and type of the voxels as they lie in the file."""
    if int(raw["mode"]) == _PACKED_NIBBLES:
        return (shape[0], shape[1], (shape[2] + 1) // 2), np.dtype(np.uint8)
    return shape, _dtype(raw).newbyteorder(order)


def _unpack_nibbles(data: np.ndarray, nx: int) -> np.ndarray:
    """Unpack mode 101: two voxels a byte, the low half first."""
    out = np.empty((*data.shape[:2], 2 * data.shape[2]), np.uint8)
    out[..., ::2] = data & 15
    out[..., 1::2] = data >> 4
    return out[..., :nx]


def _file_shape(raw: np.void) -> tuple[int, int, int]:
    """Return ``(sections, rows, columns)``."""
    return int(raw["nz"]), int(raw["ny"]), int(raw["nx"])


def _check_length(path: Path, raw: np.void, shape, warnings: list[str]) -> None:
    """Raise where voxels are missing, add a warning where there are too many bytes."""
    mode = int(raw["mode"])
    if mode in _NOT_VOLUMES:
        raise InputError(
            f"{path}: holds {_NOT_VOLUMES[mode]} (mode {mode}), not densities. Give a tomogram."
        )
    depth = int(raw["mz"])
    if int(raw["ispg"]) in _STACKS and 0 < depth < shape[0]:
        raise InputError(
            f"{path}: holds {shape[0] // depth} volumes of {depth} sections each. Write the "
            "tomogram as a file of its own."
        )
    if _opener(path) is not open:
        return  # the length shows only on reading everything
    stored_shape, dtype = _stored(raw, shape, "=")
    needed = HEADER_BYTES + int(raw["nsymbt"]) + int(np.prod(stored_shape)) * dtype.itemsize
    length = path.stat().st_size
    if length < needed:
        raise _truncated(path, needed, length)
    if length > needed:
        warnings.append(f"the file is {length - needed} bytes longer than its header states")


def _truncated(path: Path, needed: int, length: int) -> InputError:
    """Build the error for a file that ends early."""
    return InputError(
        f"{path}: truncated; the header announces {needed} bytes, there are {length}. Copy or "
        "reconstruct the file again."
    )


def _axes(raw: np.void, warnings: list[str]) -> tuple[int, int, int]:
    """Return which of x, y, z (0, 1, 2) columns, rows and sections are."""
    axes = tuple(int(raw[name]) - 1 for name in ("mapc", "mapr", "maps"))
    if sorted(axes) != [0, 1, 2]:
        if axes != (-1, -1, -1):
            warnings.append("the header's order of axes makes no sense; x, y, z is taken")
        return 0, 1, 2
    if axes != (0, 1, 2):
        order = ", ".join("xyz"[axis] for axis in axes)
        warnings.append(f"axes are stored in the order {order} and were turned to x, y, z")
    return axes


def _voxel_sizes(raw: np.void) -> tuple[float | None, ...]:
    """Return the voxel size ``(x, y, z)`` in Å, None where it cannot be told."""
    return tuple(_quotient(raw["cella"][axis], int(raw[f"m{axis}"])) for axis in "xyz")


def _quotient(length: np.float32, count: int) -> float | None:
    """Return the shortest decimal number that gives the cell length again when multiplied."""
    if count <= 0 or not np.isfinite(length) or length <= 0:
        return None
    exact = float(length) / count
    for digits in range(3, 9):
        short = float(f"{exact:.{digits}g}")
        if np.float32(short * count) == np.float32(length):
            return short
    return exact


def _origin(raw: np.void, warnings: list[str]) -> tuple[float, float, float]:
    """Return the origin ``(x, y, z)`` in Å as the shortest decimals that float32 stands for."""
    values = [np.float32(raw["origin"][axis]) for axis in "xyz"]
    if not all(np.isfinite(value) for value in values):
        warnings.append("the header's origin is not a number; 0 is taken")
        return 0.0, 0.0, 0.0
    return tuple(float(str(value)) for value in values)
