"""Join the instance tables of a dataset and count."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd

from tomocensus.atomic import atomic_path, write_table

_TEXTS = ("tomogram", "group", "class", "separation", "contact_instances")
COUNT_COLUMNS = {
    "tomogram": "name of the tomogram",
    "group": "its experimental condition",
    "class": "class of the objects",
    "count": "number of objects",
    "volume_micrometre3": "volume of the whole tomogram, µm³",
    "density_per_micrometre3": "count over that volume",
    "diameter_mean_angstrom": "mean equivalent diameter, Å",
    "diameter_sd_angstrom": "its standard deviation, Å; empty below two objects",
    "object_volume_mean_angstrom3": "mean volume of an object, Å³",
    "object_volume_sd_angstrom3": "its standard deviation, Å³",
    "confidence_mean": "mean confidence of the class",
}


def census(tables: list[pd.DataFrame], inputs: list[dict]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Join instance tables and count objects by tomogram, group and class.

    Parameters
    ----------
    tables : list of pandas.DataFrame
        Instance tables; see `tomocensus.measure.COLUMNS`.
    inputs : list of dict
        Per tomogram ``tomogram``, ``group``, ``shape`` (z, y, x; voxels), ``voxel_size`` (Å).

    Returns
    -------
    instances : pandas.DataFrame
        All rows.
    counts : pandas.DataFrame
        Columns of `COUNT_COLUMNS`. A class found anywhere has a row for every tomogram, 0 where
        it is absent, so that means over tomograms are right.
    """
    filled = [table for table in tables if len(table)]
    if not filled:
        empty = tables[0] if tables else pd.DataFrame()
        return empty, pd.DataFrame(columns=list(COUNT_COLUMNS))
    instances = pd.concat(filled, ignore_index=True)
    names = sorted(instances["class"].unique())
    parts = dict(tuple(instances.groupby(["tomogram", "class"])))
    rows = []
    for facts in inputs:
        volume = float(np.prod(facts["shape"])) * facts["voxel_size"] ** 3 * 1e-12
        for name in names:
            part = parts.get((facts["tomogram"], name), instances[:0])
            rows.append(_count(part, facts, name, volume))
    return instances, pd.DataFrame(rows, columns=list(COUNT_COLUMNS))


def _count(part: pd.DataFrame, facts: dict, name: str, volume: float) -> dict:
    """Return one row of the counts; `volume` in µm³."""
    diameter, size = part["equivalent_diameter_angstrom"], part["volume_angstrom3"]
    return {
        "tomogram": facts["tomogram"],
        "group": facts.get("group") or "",
        "class": name,
        "count": len(part),
        "volume_micrometre3": volume,
        "density_per_micrometre3": len(part) / volume,
        "diameter_mean_angstrom": diameter.mean(),
        "diameter_sd_angstrom": diameter.std(),
        "object_volume_mean_angstrom3": size.mean(),
        "object_volume_sd_angstrom3": size.std(),
        "confidence_mean": pd.to_numeric(part["confidence"]).mean(),
    }


def write_census(
    instances: pd.DataFrame, csv: str | os.PathLike, parquet: str | os.PathLike
) -> None:
    """Write the joined table as CSV and as Parquet, each whole or not at all.

    The types in Parquet depend on the columns alone, so that tables of several projects go
    together.
    """
    write_table(csv, instances)
    typed = instances.astype({name: _type(name) for name in instances.columns})
    with atomic_path(parquet) as temporary:
        typed.to_parquet(temporary, index=False)


def _type(column: str) -> str:
    """Return the type of a column of the instance table: most are measures."""
    if column in _TEXTS:
        return "string"
    if column == "touches_border":
        return "bool"
    if column == "nearest_instance":
        return "Int64"  # an object alone has none
    whole = column in ("instance", "contacts") or column.startswith("box_")
    return "int64" if whole else "float64"
