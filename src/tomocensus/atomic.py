"""Outputs appear whole or not at all: write to a temporary name, then rename."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

_HOST = socket.gethostname().replace(".", "-")
_A_DAY = 86400
# renameat2's flag and Linux's AT_FDCWD.
_EXCHANGE = 2
_HERE = -100


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends without error.

    The suffix of the temporary name equals that of `path`, so writers that look at it still work.
    What an error leaves is removed, and what a killed process has left of the same output. Works
    for a file and for a folder (OME-Zarr, model).

    Parameters
    ----------
    path : path-like
        The final name. Its folder is created when missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = path.with_name(f".{_HOST}.{os.getpid()}.partial.{path.name}")
    try:
        yield temporary
        if temporary.is_dir() and path.exists():
            _swap(temporary, path)
        else:
            os.replace(temporary, path)
    finally:
        _remove(temporary)


@contextlib.contextmanager
def scratch_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yield an empty folder beside the output `path` for a job's own files; gone when it ends.

    What a killed job has left there goes when the same output is made again.
    """
    name = Path(path).with_name(f"{Path(path).name}.scratch")
    name.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(name)
    folder = name.with_name(f".{_HOST}.{os.getpid()}.partial.{name.name}")
    folder.mkdir()
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(path: Path) -> None:
    """Remove a file or folder where there is one."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes have left of an output; never what another one still writes.

    Of another machine's processes only the age of their file tells that they are gone.
    """
    for left in path.parent.glob(f".*.*.partial.{path.name}"):
        host, _, process = left.name.removesuffix(f".partial.{path.name}")[1:].rpartition(".")
        with contextlib.suppress(OSError, ValueError):
            old = time.time() - left.stat().st_mtime > _A_DAY
            if old or (host == _HOST and not _lives(int(process))):
                _remove(left)


def _lives(process: int) -> bool:
    """Tell whether a process of this machine is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _swap(temporary: Path, path: Path) -> None:
    """Put a folder in the place of another, which goes to `temporary`; neither is ever missing.

    File systems that cannot exchange names (NFS) see the old one moved away for a moment; a
    process killed right then leaves it as `temporary`'s neighbour ``.old``.
    """
    try:
        renamed = ctypes.CDLL(None, use_errno=True).renameat2
        names = (os.fsencode(temporary), os.fsencode(path))
        if renamed(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0:
            return
    except AttributeError:
        pass
    old = path.with_name(f".{_HOST}.{os.getpid()}.old.{path.name}")
    os.replace(path, old)
    os.replace(temporary, path)
    shutil.rmtree(old, ignore_errors=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file (UTF-8) whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: object) -> None:
    """Write `value` as indented JSON with sorted keys, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, default=_plain) + "\n")


def write_table(path: str | os.PathLike, table) -> None:
    """Write a pandas table as CSV (comma, no index, 6 significant digits), whole or not at all."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def _plain(value: object) -> object:
    """Turn NumPy scalars, arrays and paths into what JSON knows."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
