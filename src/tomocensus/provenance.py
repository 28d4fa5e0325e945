"""What made an output: content hashes of inputs, models and code, parameters and versions.

No time stamps: the same inputs give the same bytes, and a re-run is judged by content alone.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tomocensus.atomic import write_json

SOURCES = Path(__file__).resolve().parents[1]
BLOCK = 1 << 16
BLOCKS = 64


def fingerprint(path: str | os.PathLike) -> str:
    """Return a hash of a file's (or folder's) content, cheap for large volumes.

    Up to 4 MiB all bytes count. Above, the size, the first and last 64 KiB and 62 blocks spread
    evenly between them do: a tomogram replaced by another one differs there, while a terabyte of
    tomograms costs seconds. Time stamps do not count.

    Parameters
    ----------
    path : path-like
        A file or a folder (OME-Zarr).

    Returns
    -------
    str
        32 hexadecimal digits; ``"missing"`` where nothing is there.
    """
    path = Path(path)
    digest = hashlib.sha256()
    if path.is_dir():
        return folder_fingerprint(path, lambda part: b"")
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    digest.update(str(size).encode())
    with open(path, "rb") as stream:
        if size <= BLOCK * BLOCKS:
            digest.update(stream.read())
        else:
            for index in range(BLOCKS):
                stream.seek((size - BLOCK) * index // (BLOCKS - 1))
                digest.update(stream.read(BLOCK))
    return digest.hexdigest()[:32]


def content_hash(path: str | os.PathLike) -> str:
    """Return a hash of every byte of a file or folder.

    Returns
    -------
    str
        32 hexadecimal digits; ``"missing"`` where nothing is there.

    Raises
    ------
    OSError
        Where it cannot be read.
    """
    if os.path.isdir(path):
        return folder_fingerprint(path, Path.read_bytes)
    if not os.path.isfile(path):
        return "missing"
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:32]


def folder_fingerprint(path: str | os.PathLike, large: Callable[[Path], bytes]) -> str:
    """Return a hash of names, sizes and content of a folder's files.

    Parameters
    ----------
    path : path-like
        The folder.
    large : callable
        Says what of a file above 64 KiB counts beside its size.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for part in sorted(Path(path).rglob("*")):
        if part.is_file():
            size = part.stat().st_size
            digest.update(f"{part.relative_to(path)}:{size}".encode())
            digest.update(part.read_bytes() if size < BLOCK else large(part))
    return digest.hexdigest()[:32]


@cache
def code_hash(script: str | os.PathLike, sources: Path = SOURCES) -> str:
    """Return a hash of a script and of every project module that it imports, directly or not.

    Comments, docstrings and layout do not count (the syntax tree is hashed), so only what can
    change a result makes it stale. Imports inside functions count.

    Parameters
    ----------
    script : path-like
        The Python script of a stage.
    sources : pathlib.Path
        Folder that holds the package ``tomocensus``.
    """
    digest = hashlib.sha256()
    for path in code_files(script, sources):
        digest.update(path.name.encode() + _read_code(path).tree)
    return digest.hexdigest()[:32]


@dataclass(frozen=True)
class _Code:
    """Hash of a module's syntax tree without docstrings, and the names that it imports."""

    tree: bytes
    imports: tuple[str, ...]


@cache
def _read_code(path: Path) -> _Code:
    """Read a module once, however many stages import it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = tuple(_imported_names(tree))
    _drop_docstrings(tree)
    return _Code(hashlib.sha256(ast.dump(tree).encode()).digest(), imports)


def code_files(script: str | os.PathLike, sources: Path = SOURCES) -> list[Path]:
    """Return a script and the project's modules it can import, the script first, then sorted."""
    script = Path(script)
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for name in _read_code(path).imports:
            waiting.extend(_module_files(name, path, sources))
    return [script, *sorted(found - {script})]


def _imported_names(tree: ast.AST) -> list[str]:
    """Return dotted names that a module imports, ``from a import b`` as ``a.b``."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def _module_files(name: str, importer: Path, sources: Path) -> list[Path]:
    """Return the files that importing a dotted name runs: its packages and the module itself."""
    parts = name.split(".")
    files = []
    for root in (sources, importer.parent):
        for depth in range(1, len(parts) + 1):
            stem = root.joinpath(*parts[:depth])
            if root == importer.parent and depth > 1:
                break
            files += [
                path for path in (stem / "__init__.py", stem.with_suffix(".py")) if path.is_file()
            ]
    return files


def _drop_docstrings(tree: ast.AST) -> None:
    """Remove docstrings from a syntax tree in place."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str)
        ):
            node.body = body[1:] or [ast.Pass()]


def versions(packages: tuple[str, ...] = ("tomocensus", "numpy", "scipy")) -> dict[str, str]:
    """Return the installed versions of packages; those not installed are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_provenance(
    path: str | os.PathLike,
    stage: str,
    script: str | os.PathLike,
    inputs: dict[str, str | os.PathLike | None],
    parameters: dict,
    models: dict[str, str] | None = None,
    facts: dict | None = None,
) -> None:
    """Write the record of how a stage's outputs came about as JSON.

    Parameters
    ----------
    path : path-like
        The record's file.
    stage : str
        Name of the stage.
    script : path-like
        The script that ran; its code hash is recorded.
    inputs : dict
        Name to path; fingerprints are recorded. ``None`` values are left out.
    parameters : dict
        Parameters of the stage.
    models : dict, optional
        Name of each model to the SHA-256 of its weights.
    facts : dict, optional
        What the stage found worth telling (counts, thresholds).
    """
    given = {name: value for name, value in inputs.items() if value is not None}
    write_json(
        path,
        {
            "stage": stage,
            "code": code_hash(Path(script).resolve()),
            "inputs": {
                name: {"path": os.fspath(value), "fingerprint": fingerprint(value)}
                for name, value in given.items()
            },
            "parameters": parameters,
            "models": models or {},
            "facts": facts or {},
            "versions": versions(),
        },
    )


def read_json(path: str | os.PathLike) -> dict:
    """Read a JSON file that another stage wrote."""
    return json.loads(Path(path).read_text(encoding="utf-8"))
