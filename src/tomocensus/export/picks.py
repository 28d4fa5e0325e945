"""Point picks as newline-delimited JSON, as the CryoET Data Portal keeps them."""

from __future__ import annotations

import json
import os

import pandas as pd

from tomocensus.atomic import write_text


def write_picks(path: str | os.PathLike, table: pd.DataFrame, facts: dict) -> None:
    """Write one JSON object a line: type ``point``, location in voxels, class and instance."""
    lines = []
    for row in table.itertuples():
        location = {axis: round(float(getattr(row, f"{axis}_voxel")), 3) for axis in "xyz"}
        name = str(table.at[row.Index, "class"])
        point = {"type": "point", "location": location, "class": name}
        lines.append(json.dumps({**point, "instance": int(row.instance)}) + "\n")
    write_text(path, "".join(lines))


def read_picks(path: str | os.PathLike) -> pd.DataFrame:
    """Return columns instance, class, x_voxel, y_voxel, z_voxel of such a file."""
    rows = []
    with open(path, encoding="utf-8") as lines:
        for point in map(json.loads, lines):
            place = {f"{axis}_voxel": point["location"][axis] for axis in "xyz"}
            rows.append({"instance": point["instance"], "class": point["class"], **place})
    return pd.DataFrame(rows, columns=["instance", "class", "x_voxel", "y_voxel", "z_voxel"])
