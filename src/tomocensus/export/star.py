"""RELION particle STAR files."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd

from tomocensus.atomic import write_text

_XYZ = ["x_voxel", "y_voxel", "z_voxel"]
_ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]


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
    points = table[_XYZ].to_numpy(dtype=float)
    if version == 5:
        names = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
        points = (points - _centre(facts["shape"], centre)) * facts["voxel_size"]
    elif version == 4:
        names = [f"rlnCoordinate{axis}" for axis in "XYZ"]
    else:
        raise ValueError(f"version is {version}; it can be 4 or 5")
    angles = euler_from_major_axis(table[["major_x", "major_y", "major_z"]].to_numpy(dtype=float))
    names = ["rlnTomoName", *names, *_ANGLES, "rlnTomoParticleId"]
    lines = ["# version 30001\n\ndata_particles\n\nloop_\n"]
    lines += [f"_{name} #{number}\n" for number, name in enumerate(names, start=1)]
    for point, angle, number in zip(points, angles, table["instance"], strict=True):
        values = " ".join(f"{value:.4f}" for value in (*point, *angle))
        lines.append(f"{facts['tomogram']} {values} {int(number)}\n")
    write_text(path, "".join(lines) + "\n")


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
    numbers = [name for name in names if name != "rlnTomoName"]
    table[numbers] = table[numbers].astype(float)
    return table


def _centre(shape, centre: str) -> np.ndarray:
    """Return the centre ``(x, y, z)`` in voxels of a volume of `shape` (z, y, x)."""
    if centre not in ("half", "exact"):
        raise ValueError(f"centre is {centre!r}; it can be 'half' or 'exact'")
    size = np.array(shape[::-1], dtype=float)
    return size / 2 if centre == "half" else (size - 1) / 2
