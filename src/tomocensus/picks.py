"""Positions that another program picked, as named examples.

``python -m tomocensus.picks MYPROJECT picks.star --class ribosome``

adds rows to the examples file that the project's configuration names, until it has 20 of each
class, from all tomograms in turn; ``--compare`` says instead which objects of a finished project
the picks lie in. Reads STAR (RELION 3 to 5, Warp and M, STOPGAP), copick JSON, ndjson of the CryoET
Data Portal, models of IMOD and text that its ``model2point`` writes, and Dynamo's tables.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import starfile
from scipy.spatial.transform import Rotation

from tomocensus.classify.examples import (
    ANGSTROM,
    append_examples,
    in_angstrom,
    is_written,
    read_examples,
)
from tomocensus.errors import InputError, without_traceback
from tomocensus.imod import read_model
from tomocensus.io import read_header, read_volume
from tomocensus.samples import Sample, read_project
from tomocensus.tables import read_table
from tomocensus.volume import corner_offset

COLUMNS = ("tomogram", "class", "x", "y", "z", "unit", "voxel_size")
"""unit: voxel, angstrom (both from the first voxel), centred (Å from the volume's centre), or
fraction (0 at the first voxel, 1 at the last)."""

# Columns of positions in STAR files (for `X` and `x`) and their unit; the first found are read.
_POSITIONS = {
    "rlnCenteredCoordinate{0}Angst": "centred",
    "rlnCoordinate{0}": "voxel",
    "wrpCoordinate{0}1": "angstrom",
    "orig_{1}": "voxel",
}
_NAMES = ("rlnTomoName", "rlnMicrographName", "wrpSourceName", "tomo_num")
_CLASSES = ("tomocensusClass", "rlnParticleName")
_SIZES = ("rlnTomoTiltSeriesPixelSize", "rlnImagePixelSize", "rlnPixelSize", "rlnDetectorPixelSize")
_TURNS = [f"rlnTomoSubtomogram{angle}" for angle in ("Rot", "Tilt", "Psi")]
# Names of tomograms end with these, and with the voxel size (`_10.00Apx`).
_ENDINGS = re.compile(
    r"(_[0-9.]+apx|\.(mrc|rec|map|st|mdoc|tif|tiff|tomostar|zarr|ome|gz|bz2))+$", re.IGNORECASE
)
MOST = 20


def read(path: str | Path) -> pd.DataFrame:
    """Read picks.

    Parameters
    ----------
    path : path-like
        ``.star``, ``.json`` (copick), ``.ndjson``, ``.mod`` or ``.txt`` (IMOD), ``.tbl`` (Dynamo).

    Returns
    -------
    pandas.DataFrame
        :data:`COLUMNS`; tomogram and class are empty and voxel_size (Å) is NaN where the file does
        not tell.

    Raises
    ------
    InputError
        Where the file holds no positions, or is of another format.
    """
    path = Path(path)
    readers = {
        ".star": _star,
        ".json": _copick,
        ".ndjson": _ndjson,
        ".txt": _imod,
        ".mod": _model,
        ".tbl": _dynamo,
    }
    if path.suffix.lower() not in readers:
        raise InputError(
            f"{path}: not one of {', '.join(readers)}. Export the picks as one of them."
        )
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    try:
        found = readers[path.suffix.lower()](path)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OSError) as error:
        raise InputError(
            f"{path}: cannot be read as {path.suffix} with picks ({type(error).__name__}: {error})."
        ) from error
    defaults = {"tomogram": "", "class": "", "voxel_size": np.nan}
    for name, value in defaults.items():
        if name not in found:
            found[name] = value
    for axis in "xyz":
        found[axis] = pd.to_numeric(found[axis], errors="coerce").astype(float)
    wrong = ~np.isfinite(found[list("xyz")]).all(axis=1)
    if wrong.any():
        raise InputError(
            f"{path}: position {1 + int(wrong.argmax())} is no three numbers. Correct it."
        )
    if found.empty:
        raise InputError(f"{path}: holds no positions.")
    return found[list(COLUMNS)].reset_index(drop=True)


def _star(path: Path) -> pd.DataFrame:
    blocks = starfile.read(path, always_dict=True, parse_as_string=[*_NAMES, *_CLASSES])
    blocks = [b if isinstance(b, pd.DataFrame) else pd.DataFrame([b]) for b in blocks.values()]
    for template, kind in _POSITIONS.items():
        columns = [template.format(axis, axis.lower()) for axis in "XYZ"]
        table = next((b for b in blocks if set(columns) <= set(b.columns)), None)
        if table is not None:
            unit = kind
            break
    else:
        known = ", ".join(template.format("X", "x") for template in _POSITIONS)
        raise InputError(f"{path}: no column {known}: no picks of a tomogram.")
    optics = next((b for b in blocks if "rlnOpticsGroup" in b and b is not table), None)
    if optics is not None and "rlnOpticsGroup" in table:
        more = ["rlnOpticsGroup", *optics.columns.difference(table.columns)]
        table = table.merge(optics[more], on="rlnOpticsGroup", how="left")
    found = table[columns].set_axis(list("xyz"), axis=1).apply(pd.to_numeric, errors="coerce")
    if columns[0] == "orig_x":
        found = found + table[["x_shift", "y_shift", "z_shift"]].to_numpy(float)
        found -= 1  # STOPGAP counts from 1
    elif unit == "voxel" and _are_fractions(found):
        unit = "fraction"
    found["unit"] = unit
    found["voxel_size"] = _pixel_size(table)
    if unit != "fraction":
        found[list("xyz")] -= _moved(table, found, unit)
    for name, choices in (("tomogram", _NAMES), ("class", _CLASSES)):
        column = next((one for one in choices if one in table), None)
        if column:
            found[name] = table[column].astype(str)
    return found


def _moved(table: pd.DataFrame, found: pd.DataFrame, unit: str) -> np.ndarray:
    """Return what refinement moved the particles by, ``(n, 3)`` in the unit of their positions."""
    pixels = [f"rlnOrigin{axis}" for axis in "XYZ"]
    angstrom = [f"{name}Angst" for name in pixels]
    inside = table.columns.intersection(angstrom).size > 0
    moved = table.reindex(columns=angstrom if inside else pixels).astype(float).fillna(0).to_numpy()
    if set(_TURNS) <= set(table.columns):
        # The shift is one of the subtomogram as it was cut out.
        turns = Rotation.from_euler("ZYZ", table[_TURNS].astype(float).to_numpy(), degrees=True)
        moved = turns.inv().apply(moved)
    if inside and unit == "voxel":
        # Some Å are not worth asking for the size of a pixel.
        return np.nan_to_num(moved / found[["voxel_size"]].to_numpy(float))
    return moved if inside or unit == "voxel" else np.zeros_like(moved)


def _are_fractions(positions: pd.DataFrame) -> bool:
    """Tell whether positions are parts of the volume: Warp's template matching writes such."""
    values = positions.to_numpy(float)
    return bool(((values >= 0) & (values <= 1)).all() and (values % 1).any())


def _pixel_size(table: pd.DataFrame) -> pd.Series | float:
    """Return the Å of a pixel of the coordinates, NaN where no column tells."""
    name = next((one for one in _SIZES if one in table), None)
    if name is None:
        return np.nan
    size = table[name].astype(float)
    if name == "rlnDetectorPixelSize" and "rlnMagnification" in table:
        size = size * 1e4 / table["rlnMagnification"].astype(float)
    return size


def _copick(path: Path) -> pd.DataFrame:
    told = json.loads(path.read_text(encoding="utf-8"))
    if told.get("unit", "angstrom") != "angstrom":
        raise InputError(f"{path}: positions in {told['unit']}; copick keeps them in angstrom.")
    found = pd.DataFrame([[point["location"][axis] for axis in "xyz"] for point in told["points"]])
    found = found.set_axis(list("xyz"), axis=1) if len(found) else pd.DataFrame(columns=list("xyz"))
    names = {"tomogram": told.get("run_name"), "class": told.get("pickable_object_name")}
    return found.assign(unit="angstrom", **{name: value or "" for name, value in names.items()})


def _ndjson(path: Path) -> pd.DataFrame:
    lines = [
        json.loads(one) for one in path.read_text(encoding="utf-8").splitlines() if one.strip()
    ]
    rows = [[*(one["location"][axis] for axis in "xyz"), one.get("class", "")] for one in lines]
    return pd.DataFrame(rows, columns=["x", "y", "z", "class"]).assign(unit="voxel")


def _imod(path: Path) -> pd.DataFrame:
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if any(len(row) not in (3, 4, 5) for row in rows):
        raise ValueError(
            "needs x, y, z in each line, after the object's and contour's number if any"
        )
    found = pd.DataFrame([row[-3:] for row in rows], columns=list("xyz")).astype(float)
    # IMOD counts x and y from the corner of the first pixel.
    found[["x", "y"]] -= 0.5
    return found.assign(unit="voxel")


def _model(path: Path) -> pd.DataFrame:
    objects = read_model(path)
    points = np.concatenate([np.zeros((0, 3)), *(points for _, points in objects)])
    names = [name for name, points in objects for _ in points]
    found = pd.DataFrame(points - (0.5, 0.5, 0), columns=list("xyz"))
    return found.assign(unit="voxel", **{"class": names})


def _dynamo(path: Path) -> pd.DataFrame:
    # Columns 4 to 6: shift; 20: number of the tomogram; 24 to 26: x, y, z, which count from 1.
    table = np.loadtxt(path, comments=("#", "%"), ndmin=2)
    found = pd.DataFrame(table[:, 23:26] + table[:, 3:6] - 1, columns=list("xyz"))
    return found.assign(unit="voxel", tomogram=[f"{number:g}" for number in table[:, 19]])


def in_voxels(picks: pd.DataFrame, shape: tuple[int, int, int], voxel_size: float) -> np.ndarray:
    """Return the voxels that picks of one tomogram lie in.

    Parameters
    ----------
    picks : pandas.DataFrame
        As :func:`read` returns it.
    shape : tuple of int
        ``(nz, ny, nx)`` of the tomogram.
    voxel_size : float
        Its voxel size, Å.

    Returns
    -------
    numpy.ndarray
        int64 ``(n, 3)``, x, y, z from 0; not all need lie in the volume.
    """
    points = picks[list("xyz")].to_numpy(float)
    unit = picks["unit"].to_numpy()[:, None]
    # Voxels of another size, where it is known: of unbinned tilt series, for one.
    size = picks["voxel_size"].fillna(voxel_size).to_numpy(float)[:, None]
    last = (np.array(shape[::-1], float) - 1) * voxel_size
    angstrom = points * np.where(unit == "voxel", size, np.where(unit == "fraction", last, 1.0))
    middle = np.array(shape[::-1], float) / 2 * (unit == "centred")
    # What lies far outside is no integer.
    return np.rint(np.clip(angstrom / voxel_size + middle, -(2**31), 2**31)).astype(np.int64)


def matched(names, samples: dict[str, Sample]) -> dict[str, str]:
    """Find the tomograms of the sample sheet that names in picks mean.

    A name is the sheet's own, or is it without folder, ending and voxel size; or it is that of the
    tomogram's file.

    Parameters
    ----------
    names : iterable of str
        As the picks have them.
    samples : dict of str to Sample
        The sheet.

    Returns
    -------
    dict of str to str
        Names of the sheet; those that mean none, or more than one, are left out.
    """
    known: dict[str, set[str]] = {}
    for name, sample in samples.items():
        for one in (name, sample.path):
            known.setdefault(_plain(one), set()).add(name)
    found = {}
    for name in set(names):
        mine = {name} if name in samples else known.get(_plain(name), set())
        if len(mine) == 1:
            found[name] = next(iter(mine))
    return found


def _plain(name: str) -> str:
    """Return a name without folder, endings and voxel size."""
    return _ENDINGS.sub("", name.replace("\\", "/").rsplit("/", 1)[-1])


def spread(
    rows: pd.DataFrame, count: int, there: pd.Series | None = None, seed: int = 0
) -> pd.DataFrame:
    """Draw rows of each class, from all tomograms in turn.

    Parameters
    ----------
    rows : pandas.DataFrame
        Columns tomogram and class.
    count : int
        Of each class at most; 0: all.
    there : pandas.Series, optional
        Classes of the examples that there are; they count as well.
    seed : int
        Of the draw.
    """
    if not count:
        return rows
    shuffled = rows.sample(frac=1, random_state=seed)
    turn = shuffled.groupby(["class", "tomogram"]).cumcount()
    shuffled = shuffled.iloc[np.argsort(turn.to_numpy(), kind="stable")]
    named = {} if there is None else there.value_counts().to_dict()
    left = np.array([count - named.get(kind, 0) for kind in shuffled["class"]])
    return shuffled[shuffled.groupby("class").cumcount() < left].sort_index()


def to_examples(
    picks: pd.DataFrame, samples: dict[str, Sample], where: str
) -> tuple[pd.DataFrame, list[str]]:
    """Turn picks into rows of an examples file.

    Parameters
    ----------
    picks : pandas.DataFrame
        As :func:`read` returns it, with a tomogram and a class in each row.
    samples : dict of str to Sample
        The sheet.
    where : str
        Name of the file, for messages.

    Returns
    -------
    rows : pandas.DataFrame
        Columns tomogram, x, y, z (voxels from 0), class and the place in Å.
    told : list of str
        What was left out or taken for granted.

    Raises
    ------
    InputError
        Where no tomogram is in the sheet, or most positions lie outside of one.
    """
    told, found = [], []
    known = matched(picks["tomogram"], samples)
    strange = sorted(set(picks["tomogram"]) - set(known))
    if not known:
        raise InputError(
            f"{where}: picks of {', '.join(strange[:5])}; the sample sheet knows "
            f"{', '.join(list(samples)[:5])}. Name the tomogram: --tomogram NAME."
        )
    if strange:
        told.append(f"{where}: not in the sample sheet, left out: {', '.join(strange)}")
    for name, mine in picks.groupby("tomogram"):
        if name not in known:
            continue
        sample = samples[known[name]]
        header = read_header(sample.path, sample.voxel_size)
        if header.voxel_size is None:
            raise InputError(f"{sample.path}: states no voxel size. Fill in the sheet's column.")
        points = in_voxels(mine, header.shape, header.voxel_size)
        inside = ((points >= 0) & (points < header.shape[::-1])).all(axis=1)
        unsized = (mine["unit"] == "voxel") & mine["voxel_size"].isna()
        if inside.mean() < 0.5:
            raise InputError(
                f"{where}: {(~inside).sum()} of {len(inside)} positions lie outside of "
                f"{sample.tomogram} ({' x '.join(map(str, header.shape[::-1]))} voxels of "
                f"{header.voxel_size:g} Å): up to {points.max(axis=0)}. Say of what voxel size the "
                "picked volume was: --voxel-size Å."
            )
        if unsized.any():
            told.append(
                f"{where}: states no voxel size; taken as voxels of {sample.tomogram} "
                f"({header.voxel_size:g} Å). If they were picked at another one: --voxel-size Å"
            )
        if (mine["unit"] == "fraction").any():
            told.append(
                f"{where}: positions from 0 to 1 are taken for parts of the size of "
                f"{sample.tomogram}, as Warp's template matching writes them"
            )
        if not inside.all():
            told.append(
                f"{where}: {(~inside).sum()} positions outside of {sample.tomogram}, left out"
            )
        rows = pd.DataFrame(points[inside], columns=list("xyz"))
        rows.insert(0, "tomogram", sample.tomogram)
        rows["class"] = mine["class"].to_numpy()[inside]
        offset = corner_offset(header.origin, header.nstart, header.voxel_size)
        places = in_angstrom(points[inside], header.voxel_size, offset)
        found.append(rows.join(pd.DataFrame(places, columns=ANGSTROM, index=rows.index)))
    return pd.concat(found, ignore_index=True), told


def respelled(kinds: pd.Series, known: pd.Series) -> pd.Series:
    """Spell classes as they are known: copick's ``dense-body`` is ``dense_body``.

    Parameters
    ----------
    kinds, known : pandas.Series
        Names of classes. What is known counts but for case, spaces, ``-`` and ``_``.
    """

    def plain(kind: str) -> str:
        return re.sub(r"[-_\s]+", "-", kind.lower())

    names = known.unique().tolist()
    spelling = {plain(kind): kind for kind in names} | {kind: kind for kind in names}
    return kinds.map(lambda kind: spelling.get(kind, spelling.get(plain(kind), kind)))


def fresh(rows: pd.DataFrame, there: pd.DataFrame) -> pd.DataFrame:
    """Return the rows without those that are among the examples already.

    Parameters
    ----------
    rows : pandas.DataFrame
        As of :func:`to_examples`.
    there : pandas.DataFrame
        As of :func:`tomocensus.classify.examples.read_examples`.
    """
    in_angstrom = bool((there["unit"] == "angstrom").any())
    place = list(ANGSTROM if in_angstrom else "xyz")
    mine = pd.MultiIndex.from_frame(rows[["tomogram", *place, "class"]])
    there = there[["tomogram", *"xyz", "class"]].round(int(in_angstrom))
    return rows[~mine.isin(pd.MultiIndex.from_frame(there))]


def compare(rows: pd.DataFrame, project: str | Path) -> list[str]:
    """Say which objects of a finished project picks lie in.

    Parameters
    ----------
    rows : pandas.DataFrame
        As of :func:`to_examples`.
    project : path-like
        Its folder, with ``results``.

    Returns
    -------
    list of str
        A sentence for each class of picks, and one for each class of objects that has none.

    Raises
    ------
    InputError
        Where a tomogram has no results yet.
    """
    found, objects = [], []
    for name, mine in rows.groupby("tomogram"):
        folder = Path(project) / "results" / str(name)
        if not (folder / "instances.csv").is_file():
            raise InputError(f"{folder}: instances.csv is missing. Run the workflow first.")
        labels = read_volume(folder / "labels.mrc").data
        table = read_table(folder / "instances.csv").set_index("instance")
        number = np.asarray(labels[tuple(mine[axis].to_numpy() for axis in "zyx")]).astype(int)
        named = table["class"].reindex(number).fillna("none").to_numpy()
        found.append(pd.DataFrame({"picked": mine["class"].to_numpy(), "class": named}))
        objects.append(pd.DataFrame({"class": table["class"], "hit": table.index.isin(number)}))
    hits, objects = pd.concat(found), pd.concat(objects)
    told = []
    for kind, mine in hits.groupby("picked"):
        counts = ", ".join(f"{n} in {name}" for name, n in mine["class"].value_counts().items())
        told.append(f"{len(mine)} picks of {kind}: {counts}")
    for kind, mine in objects.groupby("class"):
        told.append(f"{len(mine)} objects named {kind}: {int((~mine['hit']).sum())} without a pick")
    return told


@without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Add picks to a project's examples, or compare them with what was found."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    options.add_argument("project", help="its folder")
    options.add_argument(
        "files", nargs="+", metavar="file", help=".star, .json, .ndjson, .mod, .txt or .tbl"
    )
    options.add_argument(
        "--class", dest="kind", help="what they are, where the file tells no class, or only one"
    )
    options.add_argument("--tomogram", help="where they are, where the file does not tell")
    options.add_argument("--voxel-size", type=float, help="Å, of the volume that was picked on")
    options.add_argument(
        "--count", type=int, default=MOST, help="of each class at most, with those named; 0: all"
    )
    options.add_argument("--seed", type=int, default=0, help="of the draw")
    options.add_argument(
        "--compare", action="store_true", help="add nothing: say which objects the picks lie in"
    )
    given = options.parse_args(arguments)
    settings, samples = read_project(given.project)
    rows, told = _rows(given, samples)
    if given.compare:
        told += compare(rows, given.project)
    else:
        told += _add(rows, Path(given.project) / settings["examples"], given.count, given.seed)
    print("\n".join(told))


def _rows(given: argparse.Namespace, samples: dict[str, Sample]) -> tuple[pd.DataFrame, list[str]]:
    """Return the picks of all files as of :func:`to_examples`, each place once."""
    if given.tomogram and given.tomogram not in samples:
        raise InputError(f"{given.tomogram}: not in the sample sheet.")
    told, rows = [], []
    for path in given.files:
        picks = read(path)
        if given.kind:
            told += _named(picks, given.kind, path)
        if given.tomogram or len(samples) == 1:
            picks.loc[picks["tomogram"] == "", "tomogram"] = given.tomogram or next(iter(samples))
        if given.tomogram and not matched(picks["tomogram"], samples):
            names = sorted({_plain(name) for name in picks["tomogram"]})
            if len(names) > 1:
                raise InputError(
                    f"{path}: holds picks of several tomograms ({', '.join(names[:5])}), and "
                    "--tomogram names one. Make a file of each, or call them so in the sheet."
                )
            picks["tomogram"] = given.tomogram
        if not given.tomogram:
            told += _numbered(picks, samples, path)
        for name, option in (("class", "--class"), ("tomogram", "--tomogram")):
            if (picks[name] == "").any():
                raise InputError(f"{path}: does not tell the {name}. Say it: {option} NAME.")
        if given.voxel_size:
            picks["voxel_size"] = given.voxel_size
        some, words = to_examples(picks, samples, str(path))
        rows.append(some)
        told += words
    return pd.concat(rows, ignore_index=True).drop_duplicates(ignore_index=True), told


def _named(picks: pd.DataFrame, kind: str, path: str) -> list[str]:
    """Give the class to picks that have none, or to all of the only class there is (in place)."""
    there = sorted(set(picks["class"]) - {""})
    if there and len(set(picks["class"])) > 1:
        picks.loc[picks["class"] == "", "class"] = kind
        return [f"{path}: tells the class {', '.join(there)}; only the others are called {kind}"]
    picks["class"] = kind
    return []


def _numbered(picks: pd.DataFrame, samples: dict[str, Sample], path: str) -> list[str]:
    """Name tomograms that have a number (Dynamo, STOPGAP) after those whose name holds it.

    In place. No number may be in the names of two tomograms or be the sheet's own, nor two in the
    name of one: then nothing is taken for granted.
    """
    numbers = sorted(set(picks["tomogram"]))
    if not all(re.fullmatch("[0-9]+", one) for one in numbers) or matched(numbers, samples):
        return []
    held = {name: {int(one) for one in re.findall("[0-9]+", name)} for name in samples}
    meant = [[name for name in samples if int(one) in held[name]] for one in numbers]
    names = {one: name for one, found in zip(numbers, meant, strict=True) for name in found}
    if not 0 < len(set(names.values())) == sum(map(len, meant)):
        return []
    picks["tomogram"] = picks["tomogram"].replace(names)
    told = ", ".join(f"{number} for {name}" for number, name in names.items())
    return [f"{path}: tomograms have numbers; taken is {told}"]


def _add(rows: pd.DataFrame, examples: Path, count: int, seed: int) -> list[str]:
    """Append rows to the examples; return what was done, in words."""
    there = None
    if is_written(examples):
        there = read_examples(examples)
        rows = fresh(rows.assign(**{"class": respelled(rows["class"], there["class"])}), there)
    rows = spread(rows, count, None if there is None else there["class"], seed)
    append_examples(examples, rows.to_dict("records"))
    groups = rows.groupby(["class", "tomogram"])
    told = [f"{len(mine)} {kind} in {name}" for (kind, name), mine in groups]
    return [*told, f"{len(rows)} rows added to {examples}"]


if __name__ == "__main__":
    main()
