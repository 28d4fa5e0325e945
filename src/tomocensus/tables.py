"""The tables of the stages, as they are read again."""

from __future__ import annotations

import os

import pandas as pd

# Names are text, though they may look like numbers: tomogram 007, class 1, contacts 3;5.
_TEXT = ("tomogram", "group", "class", "origin", "separation", "fill", "contact_instances")


def read_table(path: str | os.PathLike) -> pd.DataFrame:
    """Read a table that a stage wrote, as :func:`tomocensus.atomic.write_table` does.

    Parameters
    ----------
    path : path-like
        CSV.

    Returns
    -------
    pandas.DataFrame
        Names are text, empty where nothing stands; other cells are missing then.
    """
    text = dict.fromkeys(_TEXT, str)
    table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
    names = [name for name in _TEXT if name in table]
    return table.fillna(dict.fromkeys(names, ""))
