"""Examples are named by position: numbers change when the clustering does, places do not."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd

from tomocensus.classify.head import UNKNOWN
from tomocensus.errors import InputError
from tomocensus.volume import angstrom_to_voxel, corner_offset, voxel_to_angstrom

COLUMNS = ("tomogram", "x", "y", "z", "class")
ANGSTROM = ("x_angstrom", "y_angstrom", "z_angstrom")

_NAMES = {"\t": "tabs", ",": "commas"}
_OTHER = {"\t": ",", ",": "\t"}


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
        Columns tomogram, x, y, z, class, unit (``voxel`` or ``angstrom``) and row (line of the
        file). Lines that begin with ``#`` are comments, as is what follows one that is not quoted.

    Raises
    ------
    InputError
        For a file that is no table, missing columns, empty cells and positions that are not
        numbers; with the line of the file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file. Write one row an example: {', '.join(COLUMNS)}.")
    table, numbers = _read_table(path)
    told = [name for name in ANGSTROM if name in table.columns]
    unit = "angstrom" if told else "voxel"
    table = table.rename(columns={f"{axis}_angstrom": axis for axis in "xyz"})
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise InputError(f"{path}: column {', '.join(missing)} missing. Needed: {COLUMNS}.")
    table = table[list(COLUMNS)].copy()
    if len(table.columns) > len(COLUMNS):
        raise InputError(f"{path}: a column stands twice. Remove one.")
    if told and len(told) < len(ANGSTROM):
        raise InputError(f"{path}: {', '.join(told)} in Å, the other axes in voxels. Use one unit.")
    table["row"] = numbers
    for name in ("tomogram", "class"):
        if (table[name] == "").any():
            row = table.loc[table[name] == "", "row"].iloc[0]
            raise InputError(f"{path}: row {row}, column {name}: empty. Fill it in.")
    for axis in "xyz":
        values = pd.to_numeric(table[axis], errors="coerce").astype(float)
        if not np.isfinite(values).all():
            row = table.loc[~np.isfinite(values), "row"].iloc[0]
            raise InputError(f"{path}: row {row}, column {axis}: not a number. Correct it.")
        table[axis] = values
    table["unit"] = unit
    return table


def in_angstrom(points: np.ndarray, voxel_size: float, offset) -> list[dict[str, float]]:
    """Return places in Å as an examples file has them: a dict of :data:`ANGSTROM` for each.

    Parameters
    ----------
    points : numpy.ndarray
        Voxels ``(n, 3)``, x, y, z.
    voxel_size, offset
        See :func:`tomocensus.volume.voxel_to_angstrom`.
    """
    places = np.round(voxel_to_angstrom(points, voxel_size, offset), 1).tolist()
    return [dict(zip(ANGSTROM, place, strict=True)) for place in places]


def in_voxels(points: np.ndarray, unit: str, facts: dict) -> np.ndarray:
    """Return the voxels at named places.

    Parameters
    ----------
    points : numpy.ndarray
        ``(3,)`` or ``(n, 3)``, x, y, z.
    unit : str
        As of :func:`read_examples`.
    facts : dict
        The tomogram's ``input.json``: voxel size, origin, nstart.
    """
    if unit == "angstrom":
        size = facts["voxel_size"]
        offset = corner_offset(tuple(facts["origin"]), tuple(facts["nstart"]), size)
        points = angstrom_to_voxel(points, size, offset)
    # What lies far outside is no integer.
    return np.rint(np.clip(points, -1, 2**31)).astype(int)


def append_examples(path: str | Path, rows: list[dict]) -> None:
    """Append named positions to an examples file; made with its header where missing.

    Parameters
    ----------
    path : path-like
        Tab- or comma-separated, as its header is.
    rows : list of dict
        tomogram, x, y, z (voxels) and class; x_angstrom, y_angstrom, z_angstrom for a file that has
        these instead.

    Raises
    ------
    InputError
        Where the file is no table, or lacks one of the columns.
    """
    if not rows:
        return
    path = Path(path)
    text = path.read_bytes() if path.is_file() else b""
    if not text.strip():
        path.parent.mkdir(parents=True, exist_ok=True)
        text = ("\t".join(COLUMNS) + "\n").encode()
        path.write_bytes(text)
    separator, _, cells = _split(path)
    missing = [name for name in COLUMNS if name not in cells[0]]
    if all("x_angstrom" in row for row in rows):
        missing = [name for name in missing if f"{name}_angstrom" not in cells[0]]
    if missing:
        raise InputError(f"{path}: column {missing[0]} is missing; rows cannot be added to it.")
    lines = [
        separator.join(_quoted(str(row.get(name, "")), separator) for name in cells[0]) + "\n"
        for row in rows
    ]
    with open(path, "ab") as stream:
        stream.write((b"" if text.endswith(b"\n") else b"\n") + "".join(lines).encode())


def is_written(path: str | Path) -> bool:
    """Tell whether an examples file is there and not empty: a new project has none."""
    path = Path(path)
    return path.is_file() and bool(path.read_bytes().strip())


def examples_header(path: str | Path) -> tuple[list[str], str]:
    """Return what a row that is added to an examples file has to be.

    Parameters
    ----------
    path : path-like
        The file; it may be missing or empty.

    Returns
    -------
    columns : list of str
        Names of the columns, in the file's order.
    separator : str
        Between the cells.

    Raises
    ------
    InputError
        Where the file cannot be read.
    """
    if not is_written(path):
        return list(COLUMNS), "\t"
    separator, _, cells = _split(Path(path))
    return cells[0], separator


def _quoted(cell: str, separator: str) -> str:
    """Return a cell as :func:`_split` reads it, of one line."""
    cell = " ".join(cell.split())
    if not any(special in cell for special in ('"', "#", separator)):
        return cell
    return '"' + cell.replace('"', '""') + '"'


def _read_table(path: Path) -> tuple[pd.DataFrame, list[int]]:
    """Return a table of texts and the line of the file that each row stands in."""
    separator, lines, cells = _split(path)
    header = cells[0]
    for line, row in zip(lines, cells, strict=True):
        if len(row) == 1 < len(header) and _OTHER[separator] in row[0]:
            raise InputError(
                f"{path}: row {line}: separated by {_NAMES[_OTHER[separator]]}, the header by "
                f"{_NAMES[separator]}. Use the same in all rows."
            )
        if any(row[len(header) :]):
            raise InputError(
                f"{path}: row {line}: {len(row)} cells, the header names {len(header)} columns. "
                "Remove what is too much."
            )
    rows = [(row + [""] * len(header))[: len(header)] for row in cells[1:]]
    return pd.DataFrame(rows, columns=header, dtype=str), lines[1:]


def _split(path: Path) -> tuple[str, list[int], list[list[str]]]:
    """Return the separator, the lines of the file that hold something, and their cells."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}). Save it as text in UTF-8.") from error
    told = [(number, _without_comment(line)) for number, line in enumerate(lines, 1)]
    told = [(number, line) for number, line in told if line.strip()]
    if not told:
        raise InputError(f"{path}: empty. Its first row names the columns: {', '.join(COLUMNS)}.")
    separator = "\t" if "\t" in told[0][1] else ","
    rows = [next(csv.reader([line], delimiter=separator)) for _, line in told]
    cells = [[cell.strip() for cell in row] for row in rows]
    return separator, [number for number, _ in told], cells


def _without_comment(line: str) -> str:
    """Return a line up to the first ``#`` that is not quoted."""
    return re.match(r'(?:"(?:[^"]|"")*"|[^#])*', line)[0]


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
        if kind == UNKNOWN:
            problems.append(
                f"{where}: '{UNKNOWN}' is no class, it stands for what resembles none. Name what "
                "the object is, or call it debris"
            )
            continue
        if name not in labels:
            problems.append(f"{where}: no such tomogram in the sample sheet")
            continue
        x, y, z = in_voxels(np.array([row[1], row[2], row[3]]), row[6], places[name])
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


def named_at(examples: pd.DataFrame, name: str, labels: np.ndarray, facts: dict) -> set[int]:
    """Return the labels at the places named in one tomogram.

    Parameters
    ----------
    examples : pandas.DataFrame
        As :func:`read_examples` returns it.
    name : str
        The tomogram.
    labels : numpy.ndarray
        ``(nz, ny, nx)`` integers: its instances, or true ones.
    facts : dict
        Its ``input.json``.
    """
    unit = examples["unit"].iloc[0] if len(examples) else "voxel"
    places = examples.loc[examples["tomogram"] == name, ["x", "y", "z"]].to_numpy(dtype=float)
    points = in_voxels(places, unit, facts)[:, ::-1]
    inside = ((points >= 0) & (points < labels.shape)).all(axis=1)
    return {int(labels[tuple(point)]) for point in points[inside]}
