"""IMOD point text: x y z a line, for point2model."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd

from tomocensus.atomic import write_text
from tomocensus.export.classes import write_files_of_classes

_XYZ = ["x_voxel", "y_voxel", "z_voxel"]
_SHIFT = np.array([0.5, 0.5, 0.0])


def write_imod_points(path: str | os.PathLike, table: pd.DataFrame) -> None:
    """Write centroids as ``x y z`` lines in pixels of the tomogram.

    IMOD counts x and y from the corner of the first pixel, half a pixel before its centre; z is
    the slice's number, from 0.
    """
    write_text(path, _lines(table))


def write_imod_points_of_classes(folder: str | os.PathLike, table: pd.DataFrame) -> list[str]:
    """Write the centroids of each class into a file of its own, as :func:`write_imod_points` does.

    Parameters
    ----------
    folder : path-like
        Takes ``CLASS.txt``; see :func:`write_files_of_classes`.
    table : pandas.DataFrame
        Instance table.

    Returns
    -------
    list of str
        Names of the files.
    """
    return write_files_of_classes(
        folder, table["class"], ".txt", lambda name: _lines(table[table["class"] == name])
    )


def _lines(table: pd.DataFrame) -> str:
    """Return a line of text for each instance."""
    points = table[_XYZ].to_numpy(dtype=float) + _SHIFT
    return "".join("{:.3f} {:.3f} {:.3f}\n".format(*point) for point in points)


def read_imod_points(path: str | os.PathLike) -> np.ndarray:
    """Return 0-based voxel-centre indices ``(n, 3)``, x, y, z, of such a file."""
    with open(path, encoding="utf-8") as lines:
        values = [[float(v) for v in line.split()] for line in lines if line.strip()]
    return np.array(values, dtype=float).reshape(-1, 3) - _SHIFT
