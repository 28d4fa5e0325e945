"""IMOD's binary models (3dmod's ``.mod``), as far as points go."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

from tomocensus.errors import InputError

_HEADER, _OBJECT, _CONTOUR, _MESH = 240, 176, 16, 16
# Flags of a model: y and z are exchanged; the origin of the image is told.
_FLIPPED, _ORIGIN_KNOWN = 1 << 16, 1 << 14


def read_model(path: str | os.PathLike) -> list[tuple[str, np.ndarray]]:
    """Read the points of all contours, as ``model2point`` writes them.

    Parameters
    ----------
    path : path-like
        Binary model. Numbers are big-endian on every machine.

    Returns
    -------
    list of tuple
        Name and points ``(n, 3)`` of each object: x, y, z in pixels of the whole image, x and y
        from the corner of the first pixel, z from the middle of the first section.

    Raises
    ------
    InputError
        Where it is no binary model, or ends early.
    """
    content = Path(path).read_bytes()
    if content[:8] != b"IMODV1.2":
        raise InputError(f"{path}: no binary model of IMOD. Save it in 3dmod.")
    try:
        return _objects(content)
    except (struct.error, ValueError, IndexError) as error:
        raise InputError(f"{path}: ends early or is damaged ({error}). Copy it again.") from error


def _objects(content: bytes) -> list[tuple[str, np.ndarray]]:
    """Walk through the chunks; what holds no points is passed over."""
    (flags,) = struct.unpack_from(">I", content, 152)
    names: list[str] = []
    points: list[list[np.ndarray]] = []
    shift = np.zeros(3)
    at = _HEADER
    while (kind := content[at : at + 4]) != b"IEOF":
        at += 4
        if kind == b"OBJT":
            names.append(content[at : at + 64].split(b"\0")[0].decode("utf-8", "replace").strip())
            points.append([])
            at += _OBJECT
        elif kind == b"CONT":
            (count,) = struct.unpack_from(">I", content, at)
            found = np.frombuffer(content, ">f4", 3 * count, at + _CONTOUR)
            points[-1].append(found.reshape(-1, 3).astype(float))
            at += _CONTOUR + 12 * count
        elif kind == b"MESH":
            vertices, indices = struct.unpack_from(">2I", content, at)
            at += _MESH + 12 * vertices + 4 * indices
        else:
            (length,) = struct.unpack_from(">I", content, at)
            if kind == b"MINX" and flags & _ORIGIN_KNOWN:
                shift = _start(np.frombuffer(content, ">f4", 18, at + 4).reshape(6, 3))
            at += 4 + length
    joined = [np.concatenate([np.zeros((0, 3)), *some]) for some in points]
    if flags & _FLIPPED:
        joined = [some[:, [0, 2, 1]] for some in joined]
    return [(name, some + shift) for name, some in zip(names, joined, strict=True)]


def _start(reference: np.ndarray) -> np.ndarray:
    """Return where the part of the image began that 3dmod had loaded, in pixels."""
    whole, scale, part = reference[1], reference[3], reference[4]
    return (whole - part) / scale if scale.all() else np.zeros(3)
