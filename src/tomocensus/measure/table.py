"""The instance table of one tomogram."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd
from scipy import ndimage

from tomocensus.measure.columns import COLUMNS
from tomocensus.measure.neighbours import neighbours
from tomocensus.measure.nesting import enclosing
from tomocensus.measure.shape import ellipsoid_axes, moments, surface_area, surface_voxels
from tomocensus.volume import voxel_to_angstrom


def measure(
    labels: np.ndarray,
    voxel_size: float,
    offset: tuple[float, float, float],
    clusters: pd.DataFrame | None = None,
    classes: pd.DataFrame | None = None,
    tomogram: str = "",
    group: str = "",
    contact_distance: float = 100.0,
    cut: Collection[int] = (),
) -> pd.DataFrame:
    """Measure every instance of a labelmap.

    Parameters
    ----------
    labels : numpy.ndarray of int
        Shape ``(nz, ny, nx)``; 0 is background.
    voxel_size : float
        Å.
    offset : tuple of float
        Position ``(x, y, z)`` of the centre of voxel (0, 0, 0), Å.
    clusters, classes : pandas.DataFrame, optional
        Tables of the stages before, matched by column ``instance``.
    tomogram, group : str
        Written into every row.
    contact_distance : float
        Surfaces no farther apart than this are in contact, Å.
    cut : collection of int
        Objects that end where nothing was looked for (:func:`tomocensus.measure.extent`): they
        count as touching the border.

    Returns
    -------
    pandas.DataFrame
        The columns of `COLUMNS`, one row an instance, ascending.
    """
    rows, surfaces, boxes = [], [], {}
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        mask = labels[box] == number
        boxes[number] = box
        corner = np.array([s.start for s in box])
        rows.append({"instance": number, **_one(mask, corner, labels.shape, voxel_size, offset)})
        surfaces.append(surface_voxels(mask) + corner)
    table = pd.DataFrame(rows or {"instance": np.zeros(0, int)})
    numbers = table["instance"].to_numpy(dtype=int)
    if len(table):
        table["touches_border"] |= table["instance"].isin(list(cut))
    near, distance, contacts = neighbours(surfaces, contact_distance / voxel_size)
    table["nearest_instance"] = pd.array(
        [numbers[j] if j >= 0 else None for j in near], dtype="Int64"
    )
    table["nearest_distance_angstrom"] = distance * voxel_size
    table["contacts"] = np.array([len(found) for found in contacts], dtype=int)
    table["contact_instances"] = [";".join(str(numbers[j]) for j in found) for found in contacts]
    around = enclosing(labels, boxes)
    table["inside_instance"] = pd.array([around.get(n) for n in numbers], dtype="Int64")
    table = _join(table, clusters, {"solidity": None, "origin": "separation"} | _PROBABILITY)
    table = _join(table, classes, {"class": None, "confidence": None})
    table["tomogram"], table["group"] = tomogram, group
    table = table.reindex(columns=list(COLUMNS))
    table["class"] = table["class"].astype(object).where(table["class"].notna(), "unknown")
    return table


_PROBABILITY = {"mean_probability": None}


def _join(table: pd.DataFrame, other: pd.DataFrame | None, columns: dict) -> pd.DataFrame:
    """Add those `columns` of `other` that it has, under their new names."""
    if other is None or "instance" not in other:
        return table
    # An empty table's column is of no type in particular.
    kept = other[["instance", *(c for c in columns if c in other)]].astype({"instance": int})
    renamed = kept.rename(columns={old: new for old, new in columns.items() if new})
    return table.merge(renamed, on="instance", how="left")


def _one(mask, corner, shape, voxel_size, offset) -> dict:
    """Measure one object from its crop at `corner` (z, y, x) of a volume of `shape`."""
    volume, middle, covariance = moments(mask)
    centre = (middle + corner)[::-1]
    low, high = corner[::-1], (corner + mask.shape)[::-1] - 1
    area = surface_area(mask)
    axes, major = ellipsoid_axes(covariance)
    row = dict(zip(("x_voxel", "y_voxel", "z_voxel"), centre, strict=True))
    place = voxel_to_angstrom(centre, voxel_size, offset)
    row |= dict(zip(("x_angstrom", "y_angstrom", "z_angstrom"), place, strict=True))
    row |= {
        "volume_angstrom3": volume * voxel_size**3,
        "surface_angstrom2": area * voxel_size**2,
        "equivalent_diameter_angstrom": np.cbrt(6 * volume / np.pi) * voxel_size,
        "elongation": axes[0] / axes[1],
        "flatness": axes[1] / axes[2],
        "sphericity": min(1.0, np.cbrt(np.pi) * (6 * volume) ** (2 / 3) / area),
        "touches_border": bool((low == 0).any() or (high == np.array(shape)[::-1] - 1).any()),
    }
    names = ("length_angstrom", "width_angstrom", "thickness_angstrom")
    row |= dict(zip(names, axes * voxel_size, strict=True))
    row |= dict(zip(("major_x", "major_y", "major_z"), major, strict=True))
    for axis, first, last in zip("xyz", low, high, strict=True):
        row |= {f"box_{axis}_min": int(first), f"box_{axis}_max": int(last)}
    return row
