"""RELION particle STAR files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from tomocensus.atomic import write_text
from tomocensus.export.classes import write_files_of_classes

_XYZ = ["x_voxel", "y_voxel", "z_voxel"]
_ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
# RELION keeps columns that it does not know.
_CLASS = "tomocensusClass"
_TEXT = ("rlnTomoName", _CLASS)


def euler_from_major_axis(major: np.ndarray) -> np.ndarray:
    """Return RELION angles ``(n, 3)`` rot, tilt, psi (degrees) that turn z onto the major axis.

    The turn about the axis is not known: rot is 0. RELION's ZYZ matrix A maps the reference
    onto the tomogram; its third column is where the reference's z axis goes.

    Parameters
    ----------
    major : numpy.ndarray
        Unit vectors ``(n, 3)``, x, y, z.
    """
    x, y, z = np.asarray(major, dtype=float).reshape(-1, 3).T
    # Third column of A(rot, tilt, psi): (-sin t cos p, sin t sin p, cos t).
    tilt = np.degrees(np.arccos(np.clip(z, -1, 1)))
    psi = np.where(np.hypot(x, y) > 1e-9, np.degrees(np.arctan2(y, -x)), 0.0)
    return np.column_stack([np.zeros_like(tilt), tilt, psi])


def write_star(
    path: str | os.PathLike,
    table: pd.DataFrame,
    facts: dict,
    version: int = 5,
    centre: str = "half",
) -> None:
    """Write centroids and orientations for RELION.

    Parameters
    ----------
    table : pandas.DataFrame
        Instance table.
    facts : dict
        ``tomogram``, ``shape`` (z, y, x; voxels), ``voxel_size`` (Å).
    version : {5, 4}
        5: ``rlnCenteredCoordinate?Angst``, Å from the tomogram's centre.
        4: ``rlnCoordinate?``, pixels, the first voxel's centre at 0.
    centre : {'half', 'exact'}
        The centre of n voxels: index ``n / 2`` as RELION counts, or ``(n - 1) / 2``, halfway.
    """
    write_text(path, _star([(table, facts)], version, centre))


def write_stars_of_classes(
    folder: str | os.PathLike, tomograms: Iterable[tuple[pd.DataFrame, dict]]
) -> list[str]:
    """Write a STAR file of each class, of all tomograms, for RELION 5; all of them or none.

    Parameters
    ----------
    folder : path-like
        Takes ``CLASS.star``; see :func:`write_files_of_classes`.
    tomograms : iterable of tuple
        Instance table and facts of each, as of :func:`write_star`.

    Returns
    -------
    list of str
        Names of the files.
    """
    tomograms = list(tomograms)

    def text_of(name: str) -> str:
        return _star([(table[table["class"] == name], facts) for table, facts in tomograms])

    classes = {name for table, _ in tomograms for name in table["class"]}
    return write_files_of_classes(folder, classes, ".star", text_of)


def _star(tomograms, version: int = 5, centre: str = "half") -> str:
    """Return the text of a STAR file of some tomograms' instances."""
    if version not in (4, 5):
        raise ValueError(f"version is {version}; it can be 4 or 5")
    names = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
    if version == 4:
        names = [f"rlnCoordinate{axis}" for axis in "XYZ"]
    names = ["rlnTomoName", *names, *_ANGLES, "rlnTomoParticleId", _CLASS]
    lines = ["# version 30001\n\ndata_particles\n\nloop_\n"]
    lines += [f"_{name} #{number}\n" for number, name in enumerate(names, start=1)]
    for table, facts in tomograms:
        points = table[_XYZ].to_numpy(dtype=float)
        if version == 5:
            points = (points - _centre(facts["shape"], centre)) * facts["voxel_size"]
        major = table[["major_x", "major_y", "major_z"]].to_numpy(dtype=float)
        rows = (points, euler_from_major_axis(major), table["instance"], table["class"])
        for point, angle, number, kind in zip(*rows, strict=True):
            values = " ".join(f"{value:.4f}" for value in (*point, *angle))
            lines.append(f"{facts['tomogram']} {values} {int(number)} {_plain(kind)}\n")
    return "".join(lines) + "\n"


def _plain(name: str) -> str:
    """Return a class as a STAR file can hold it: space parts columns, ``#`` begins a comment."""
    return re.sub(r"[\s#\"']+", "_", name.strip())


def read_star(path: str | os.PathLike) -> pd.DataFrame:
    """Read the one loop of a STAR file that `write_star` wrote."""
    names, rows = [], []
    with open(path, encoding="utf-8") as lines:
        for line in map(str.split, lines):
            if line and line[0].startswith("_"):
                names.append(line[0][1:])
            elif names and line:
                rows.append(line)
    table = pd.DataFrame(rows, columns=names)
    numbers = [name for name in names if name not in _TEXT]
    table[numbers] = table[numbers].astype(float)
    return table


def _centre(shape, centre: str) -> np.ndarray:
    """Return the centre ``(x, y, z)`` in voxels of a volume of `shape` (z, y, x)."""
    if centre not in ("half", "exact"):
        raise ValueError(f"centre is {centre!r}; it can be 'half' or 'exact'")
    size = np.array(shape[::-1], dtype=float)
    return size / 2 if centre == "half" else (size - 1) / 2
