"""The tables of the stages, as they are read again."""

from __future__ import annotations

import os

import pandas as pd

from tomocensus.errors import InputError

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


def read_known_classes(path: str | os.PathLike) -> dict[int, str]:
    """Read which class each instance of a ground truth is of.

    Parameters
    ----------
    path : path-like
        CSV with the columns instance and class.

    Raises
    ------
    InputError
        Where it is no such table, or an instance stands in two classes.
    """
    try:
        table = read_table(path)
    except (ValueError, OSError) as error:  # also pandas' and of letters that are not UTF-8
        raise InputError(f"{path}: no table ({error}). Save it as CSV in UTF-8.") from error
    missing = [name for name in ("instance", "class") if name not in table]
    if missing:
        raise InputError(
            f"{path}: column {', '.join(missing)} missing. Needed are instance and class, parted "
            "by commas."
        )
    numbers = pd.to_numeric(table["instance"], errors="coerce")
    known: dict[int, str] = {}
    for row, (number, name) in enumerate(zip(numbers, table["class"], strict=True), start=2):
        if not float(number).is_integer() or not name:
            raise InputError(f"{path}: row {row}: a whole number and a class are needed.")
        if known.setdefault(int(number), name) != name:
            raise InputError(f"{path}: row {row}: instance {int(number)} is of two classes.")
    return known
