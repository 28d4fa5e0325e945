"""Examples are named by position: numbers change when the clustering does, places do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tomocensus.errors import InputError
from tomocensus.volume import angstrom_to_voxel, corner_offset

COLUMNS = ("tomogram", "x", "y", "z", "class")


def read_examples(path: str | Path) -> pd.DataFrame:
    """Read named examples, separated by tabs or commas.

    Parameters
    ----------
    path : path-like
        Columns tomogram, x, y, z (0-based voxels) and class; ``x_angstrom, y_angstrom,
        z_angstrom`` may stand for x, y, z.

    Returns
    -------
    pandas.DataFrame
        Columns tomogram, x, y, z, class, unit (``voxel`` or ``angstrom``) and row.

    Raises
    ------
    InputError
        For missing columns, empty cells and positions that are not numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file. Write one row an example: {', '.join(COLUMNS)}.")
    first = path.read_text(encoding="utf-8-sig").partition("\n")[0]
    table = pd.read_csv(
        path, sep="\t" if "\t" in first else ",", dtype=str, keep_default_na=False, comment="#"
    )
    table.columns = [str(name).strip() for name in table.columns]
    unit = "angstrom" if "x_angstrom" in table.columns else "voxel"
    table = table.rename(columns={f"{axis}_angstrom": axis for axis in "xyz"})
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise InputError(f"{path}: column {', '.join(missing)} missing. Needed: {COLUMNS}.")
    table = table[list(COLUMNS)].copy()
    table["row"] = np.arange(2, len(table) + 2)
    for name in ("tomogram", "class"):
        table[name] = table[name].str.strip()
        if (table[name] == "").any():
            row = table.loc[table[name] == "", "row"].iloc[0]
            raise InputError(f"{path}: row {row}, column {name}: empty. Fill it in.")
    for axis in "xyz":
        values = pd.to_numeric(table[axis], errors="coerce")
        if values.isna().any():
            row = table.loc[values.isna(), "row"].iloc[0]
            raise InputError(f"{path}: row {row}, column {axis}: not a number. Correct it.")
        table[axis] = values
    table["unit"] = unit
    return table


def look_up_examples(
    examples: pd.DataFrame, labels: dict[str, np.ndarray], places: dict[str, dict]
) -> tuple[pd.DataFrame, list[str]]:
    """Find the instance at each named position.

    Parameters
    ----------
    examples : pandas.DataFrame
        As :func:`read_examples` returns it.
    labels : dict of str to numpy.ndarray
        Labelmap ``(nz, ny, nx)`` of each tomogram.
    places : dict of str to dict
        ``input.json`` of each tomogram: voxel size, origin, nstart.

    Returns
    -------
    named : pandas.DataFrame
        Columns tomogram, instance, class; one row an instance.
    problems : list of str
        Rows that cannot be used, and why.
    """
    problems, rows = [], []
    for row in examples.itertuples(index=False):
        name, kind, number = row[0], row[4], row[5]
        where = f"row {number} ({name}, {kind})"
        if name not in labels:
            problems.append(f"{where}: no such tomogram in the sample sheet")
            continue
        point = np.array([row[1], row[2], row[3]])
        if row[6] == "angstrom":
            facts = places[name]
            size = facts["voxel_size"]
            offset = corner_offset(tuple(facts["origin"]), tuple(facts["nstart"]), size)
            point = angstrom_to_voxel(point, size, offset)
        x, y, z = np.rint(point).astype(int)
        array = labels[name]
        if not all(0 <= at < side for at, side in zip((z, y, x), array.shape, strict=True)):
            problems.append(f"{where}: outside the volume")
        elif not array[z, y, x]:
            problems.append(f"{where}: no instance at this place")
        else:
            rows.append((name, int(array[z, y, x]), kind))
    named = pd.DataFrame(rows, columns=["tomogram", "instance", "class"]).drop_duplicates()
    twice = named.duplicated(["tomogram", "instance"], keep=False)
    for row in named[twice].itertuples(index=False):
        problems.append(f"{row[0]}: instance {row[1]} is also named {row[2]}; it is left out")
    return named[~twice].reset_index(drop=True), problems
