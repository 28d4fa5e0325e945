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
    "count_whole": "those of them that touch no border; the sizes below are theirs",
    "volume_micrometre3": "volume where objects are looked for: in the mask, without padding, µm³",
    "density_per_micrometre3": "count over that volume",
    "diameter_mean_angstrom": "mean equivalent diameter of whole objects, Å",
    "diameter_sd_angstrom": "its standard deviation, Å; empty below two objects",
    "object_volume_mean_angstrom3": "mean volume of a whole object, Å³",
    "object_volume_sd_angstrom3": "its standard deviation, Å³",
    "confidence_mean": "mean confidence of all of them",
}
GROUP_COLUMNS = {
    "group": "experimental condition",
    "class": "class of the objects",
    "tomograms": "tomograms of the group",
    "tomograms_with": "those of them with such an object",
    "count": "number of objects in all of them",
    "count_whole": "those of them that touch no border",
    "volume_micrometre3": "volume where objects are looked for, of all tomograms, µm³",
    "count_mean": "mean count of a tomogram",
    "count_sd": "its standard deviation between tomograms; empty below two",
    "density_mean_per_micrometre3": "mean over tomograms of the density",
    "density_sd_per_micrometre3": "its standard deviation between tomograms; empty below two",
    "tomograms_sized": "tomograms with a whole object: the n of the diameters",
    "diameter_mean_angstrom": "mean over these of a tomogram's mean diameter, Å",
    "diameter_sd_angstrom": "its standard deviation between tomograms, Å; empty below two",
}


def census(tables: list[pd.DataFrame], inputs: list[dict]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Join instance tables and count objects by tomogram, group and class.

    Parameters
    ----------
    tables : list of pandas.DataFrame
        Instance tables; see `tomocensus.measure.COLUMNS`.
    inputs : list of dict
        Per tomogram ``tomogram``, ``group``, ``voxel_size`` (Å) and ``analysed_voxels``
        (:func:`tomocensus.measure.extent`).

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
        volume = facts["analysed_voxels"] * facts["voxel_size"] ** 3 * 1e-12
        for name in names:
            part = parts.get((facts["tomogram"], name), instances[:0])
            rows.append(_count(part, facts, name, volume))
    return instances, pd.DataFrame(rows, columns=list(COUNT_COLUMNS))


def _count(part: pd.DataFrame, facts: dict, name: str, volume: float) -> dict:
    """Return one row of the counts; `volume` in µm³."""
    whole = part[~part["touches_border"].astype(bool)]
    diameter, size = whole["equivalent_diameter_angstrom"], whole["volume_angstrom3"]
    return {
        "tomogram": facts["tomogram"],
        "group": facts.get("group") or "",
        "class": name,
        "count": len(part),
        "count_whole": len(whole),
        "volume_micrometre3": volume,
        "density_per_micrometre3": len(part) / volume if volume else np.nan,
        "diameter_mean_angstrom": diameter.mean(),
        "diameter_sd_angstrom": diameter.std(),
        "object_volume_mean_angstrom3": size.mean(),
        "object_volume_sd_angstrom3": size.std(),
        "confidence_mean": pd.to_numeric(part["confidence"]).mean(),
    }


def compare_groups(counts: pd.DataFrame) -> pd.DataFrame:
    """Describe each class in each group by its tomograms.

    Objects of one tomogram share specimen, ice and threshold: what repeats is the tomogram, so
    means and standard deviations are of tomograms, and those without an object count as 0.

    Parameters
    ----------
    counts : pandas.DataFrame
        Columns of `COUNT_COLUMNS`, as :func:`census` returns them.

    Returns
    -------
    pandas.DataFrame
        Columns of `GROUP_COLUMNS`.
    """
    parts = counts.assign(
        present=counts["count"] > 0, sized=counts["diameter_mean_angstrom"].notna()
    ).groupby(["class", "group"], as_index=False)
    table = parts.agg(
        tomograms=("tomogram", "size"),
        tomograms_with=("present", "sum"),
        count=("count", "sum"),
        count_whole=("count_whole", "sum"),
        volume_micrometre3=("volume_micrometre3", "sum"),
        count_mean=("count", "mean"),
        count_sd=("count", "std"),
        density_mean_per_micrometre3=("density_per_micrometre3", "mean"),
        density_sd_per_micrometre3=("density_per_micrometre3", "std"),
        tomograms_sized=("sized", "sum"),
        diameter_mean_angstrom=("diameter_mean_angstrom", "mean"),
        diameter_sd_angstrom=("diameter_mean_angstrom", "std"),
    )
    return table[list(GROUP_COLUMNS)]


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
    if column in ("nearest_instance", "inside_instance"):
        return "Int64"  # not all have one
    whole = column in ("instance", "contacts") or column.startswith("box_")
    return "int64" if whole else "float64"
