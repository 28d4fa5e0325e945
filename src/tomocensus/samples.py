"""Sample sheet and configuration: read, checked, faults told with their place and remedy."""

from __future__ import annotations

import csv
import difflib
import json
import math
import os
import re
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import jsonschema
import numpy as np
import yaml

from tomocensus.errors import InputError
from tomocensus.io import open_array, read_header, sections

FILE_COLUMNS = (
    "path",
    "mask",
    "annotation",
    "probability",
    "boundary",
    "labels",
    "ground_truth",
    "ground_truth_classes",
)
"""Columns of the sample sheet that name a file."""
# A number that YAML 1.1 takes for text.
_POWER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")


@dataclass(frozen=True)
class Sample:
    """One row of the sample sheet. Relative paths are relative to the working directory.

    Parameters
    ----------
    tomogram : str
        Name, safe in paths, shells and HTML.
    path : str
        The tomogram's file.
    voxel_size : float or None
        Å; counts instead of the header's.
    polarity : str
        ``dark``, ``bright`` (which the protein is) or ``auto``.
    group : str
        Experimental condition.
    mask : str or None
        Volume, not 0 where objects are looked for.
    annotation : str or None
        Labelled volume for training; see `read_annotation`.
    probability : str or None
        Another program's probability map or binary mask.
    boundary : str or None
        Another program's map of the objects' outlines, beside its probability map.
    probability_scale : int or None
        What certain means in both: 1, 100 or 255; None: told from each map's values.
    labels : str or None
        Another program's labelmap.
    ground_truth, ground_truth_classes : str or None
        Labelmap of the truth and the table of its classes, for `evaluate` only.
    """

    tomogram: str
    path: str
    voxel_size: float | None = None
    polarity: str = "auto"
    group: str = ""
    mask: str | None = None
    annotation: str | None = None
    probability: str | None = None
    boundary: str | None = None
    probability_scale: int | None = None
    labels: str | None = None
    ground_truth: str | None = None
    ground_truth_classes: str | None = None

    def to_json(self) -> str:
        """Return the row as one line of JSON, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Sample:
        """Build the row from what `to_json` returned."""
        return cls(**json.loads(text))


def load_config(config: dict, where: str = "configuration") -> dict:
    """Check a configuration and fill in defaults.

    Parameters
    ----------
    config : dict
        As read from YAML; not changed.
    where : str
        Name of the file, for messages.

    Returns
    -------
    dict
        Every key of the schema is present.

    Raises
    ------
    InputError
        For an unknown key or a value that does not fit; all faults in one message.
    """
    schema = _schema("config")
    if config is not None and not isinstance(config, dict):
        raise InputError(f"{where}: must be a list of 'key: value'. See config/config.yaml.")
    # An empty section (`segment:` and only comments below) is None in YAML.
    config = {
        key: {}
        if value is None and schema["properties"].get(key, {}).get("type") == "object"
        else value
        for key, value in (config or {}).items()
    }
    config = _with_numbers(config, schema)
    faults = [
        text
        for error in _validator("config").iter_errors(config)
        for text in _config_faults(error, schema)
    ]
    if faults:
        raise InputError("\n".join(f"{where}: {text}" for text in faults))
    return _with_defaults(config, schema)


def _with_numbers(value, schema: dict):
    """Return a part of a configuration with its numbers as numbers.

    ``5.2e8`` and ``3e5`` are texts in YAML 1.1, and 10.0 is no whole number. What is not finite is
    left as text, which the schema refuses.
    """
    if isinstance(value, dict):
        known = schema.get("properties", {})
        return {key: _with_numbers(part, known.get(key, {})) for key, part in value.items()}
    kinds = {one.get("type") for one in (schema, *schema.get("anyOf", []))}
    if isinstance(value, str) and kinds & {"number", "integer"} and _POWER.fullmatch(value):
        value = float(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        if "integer" in kinds and value.is_integer():
            return int(value)
    return value


def check_keys(path: str | os.PathLike) -> None:
    """Refuse a configuration in which a key stands twice: YAML forgets all but the last one.

    Parameters
    ----------
    path : path-like
        YAML; what cannot be read as such is for its reader to tell.

    Raises
    ------
    InputError
        Tells the lines of both.
    """
    try:
        root = yaml.compose(Path(path).read_text(encoding="utf-8"), yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, OSError):
        return
    faults = [f"{path}: {text}" for text in _doubled_keys(root, "")]
    if faults:
        raise InputError("\n".join(faults))


def _doubled_keys(node: yaml.Node | None, place: str) -> list[str]:
    """Return a sentence for each key that stands twice in a section or in those within it."""
    if not isinstance(node, yaml.MappingNode):
        return []
    faults, lines = [], {}
    for key, value in node.value:
        name, line = f"{place}{key.value}", key.start_mark.line + 1
        if name in lines:
            faults.append(
                f"key '{name}' stands twice, in lines {lines[name]} and {line}, and only the last "
                "one would count. Put them together."
            )
        lines[name] = line
        faults += _doubled_keys(value, f"{name}.")
    return faults


def find_config(folder: str | os.PathLike) -> Path | None:
    """Return the configuration of a project, None where it has none."""
    places = [Path(folder) / "config" / "config.yaml", Path(folder) / "config.yaml"]
    return next((path for path in places if path.is_file()), None)


def read_project(folder: str | os.PathLike) -> tuple[dict, dict[str, Sample]]:
    """Read the configuration and the sample sheet of a project.

    Parameters
    ----------
    folder : path-like
        With ``config/config.yaml`` or ``config.yaml``.

    Returns
    -------
    settings : dict
        As of :func:`load_config`.
    samples : dict of str to Sample
        As of :func:`read_samples`.

    Raises
    ------
    InputError
        Where there is no configuration, or a fault in either.
    """
    config = find_config(folder)
    if config is None:
        raise InputError(f"{folder}: has no config/config.yaml. Name the project's folder.")
    try:
        told = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{config}: is no YAML ({error}). Correct it.") from error
    check_keys(config)
    settings = load_config(told, str(config))
    return settings, read_samples(settings["tomograms"], folder)


def read_samples(path: str | os.PathLike, base: str | os.PathLike = ".") -> dict[str, Sample]:
    """Read and check the sample sheet.

    Parameters
    ----------
    path : path-like
        Tab-separated text with a header row; lines that begin with ``#`` are comments.
    base : path-like
        What relative paths (also `path`) are relative to.

    Returns
    -------
    dict of str to Sample
        By name, in the sheet's order.

    Raises
    ------
    InputError
        Tells file, row (line of the file, the header is row 1), column and remedy of every fault.
    """
    sheet = Path(base) / path
    header, rows = _read_sheet(sheet)
    _check_columns(sheet, header)
    samples: dict[str, Sample] = {}
    first_rows: dict[str, int] = {}
    faults: list[str] = []
    for number, cells in rows:
        row = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
        found = _row_faults(row, Path(base))
        name = row.get("tomogram")
        # File systems that ignore case would mix up the results of 'A' and 'a'.
        if name and name.lower() in first_rows:
            found.append(
                f"column 'tomogram': '{name}' is already the name of row "
                f"{first_rows[name.lower()]}; give each tomogram its own name"
            )
        elif name:
            first_rows[name.lower()] = number
        faults += [f"{sheet}, row {number}, {text}." for text in found]
        if not found:
            values = _typed(row)
            for column in FILE_COLUMNS:
                if column in values:
                    values[column] = str(Path(base) / values[column])
            samples[name] = Sample(**values)
    if faults:
        raise InputError("\n".join(faults))
    if not samples:
        raise InputError(f"{sheet}: no rows. Add one for each tomogram below the header.")
    return samples


def read_annotation(
    path: str | os.PathLike,
    shape: tuple[int, int, int],
    what: str = "annotation",
    voxel_size: float | None = None,
) -> np.ndarray:
    """Read an annotation or a truth; unlabelled voxels become -1.

    Unlabelled are -1 in signed and floating types, 255 in uint8 and 65535 in uint16. Floating
    types must hold whole numbers.

    Parameters
    ----------
    path : path-like
        A volume of the tomogram's shape.
    shape : tuple of int
        ``(nz, ny, nx)`` of the tomogram.
    what : str
        What it is, for messages.
    voxel_size : float, optional
        Å, of the tomogram; chooses among the levels of an OME-Zarr.

    Returns
    -------
    numpy.ndarray
        Of the smallest signed integers that hold them, shape ``(nz, ny, nx)``: -1 unlabelled, 0
        background, else object.

    Raises
    ------
    InputError
        Where the shape differs or the values make no labels.
    """
    header = read_header(path, voxel_size)
    if header.shape != tuple(shape):
        raise InputError(shape_fault(path, what, header.shape, shape))
    data = open_array(path, voxel_size)
    most = max(_largest_label(path, section) for _, section in sections(data))
    labels = np.empty(shape, np.min_scalar_type(-most - 1))
    for z, section in sections(data):
        labels[z] = section
        labels[z][_unlabelled(section)] = -1
    return labels


def _unlabelled(values: np.ndarray) -> np.ndarray:
    """Return where an annotation says nothing; see `read_annotation`."""
    if values.dtype.kind == "u":
        return values == np.iinfo(values.dtype).max
    return values == -1


def _largest_label(path: object, values: np.ndarray) -> int:
    """Return the largest number of a part of an annotation, once it was checked."""
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.rint(values))).all():
        raise InputError(f"{path}: holds fractions, not labels. Save whole numbers.")
    told = values[~_unlabelled(values)]
    least, most = (int(told.min()), int(told.max())) if told.size else (0, 0)
    if least < 0 or most > np.iinfo(np.int32).max:
        raise InputError(
            f"{path}: holds {least if least < 0 else most}. Use -1 for unlabelled, 0 for "
            "background and numbers above 0 for objects."
        )
    return most


def shape_fault(path: object, what: str, found: tuple, wanted: tuple) -> str:
    """Return the sentence for a volume that does not fit its tomogram."""
    text = f"{path}: the {what} has shape z, y, x = {tuple(found)}, the tomogram {tuple(wanted)}. "
    if sorted(found) == sorted(wanted):
        return text + "The axes seem to be in another order; save it as z, y, x."
    return text + "Give one on the tomogram's own grid (same binning, not cropped)."


@cache
def _schema(name: str) -> dict:
    """Return a schema shipped with the package."""
    text = resources.files("tomocensus").joinpath("schemas", f"{name}.schema.yaml")
    return yaml.safe_load(text.read_text(encoding="utf-8"))


@cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    """Return the validator of a schema."""
    return jsonschema.Draft202012Validator(_schema(name))


def _suggestion(word: str, known) -> str:
    """Return ``; did you mean ...`` or the list of what is known."""
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}"


def _config_faults(error: jsonschema.ValidationError, schema: dict) -> list[str]:
    """Turn a validation error of the configuration into sentences."""
    place = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        prefix = place + "." if place else ""
        unknown = [key for key in error.instance if key not in known]
        return [f"unknown key '{prefix}{key}'; {_suggestion(key, known)}" for key in unknown]
    return [f"key '{place}' is {error.instance!r}; it must be {_wanted(error)}."]


def _wanted(error: jsonschema.ValidationError) -> str:
    """Say what a value should have been."""
    part = error.schema
    if "description" in part:
        return part["description"]
    if "enum" in part:
        return "one of " + ", ".join(str(value) for value in part["enum"])
    kinds = {
        "object": "a section with keys",
        "boolean": "true or false",
        "integer": "a whole number",
        "number": "a number",
        "string": "a text",
    }
    text = kinds[part["type"]]
    bounds = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    limits = [f"{words} {part[key]}" for key, words in bounds.items() if key in part]
    return " ".join([text, *[" and ".join(limits)]]).strip()


def _with_defaults(values: dict, schema: dict) -> dict:
    """Return `values` with the schema's defaults where keys are missing."""
    filled = {}
    for key, part in schema["properties"].items():
        value = values.get(key, part.get("default"))
        filled[key] = _with_defaults(value, part) if part.get("type") == "object" else value
    return filled


def _read_sheet(sheet: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header and the rows with their line numbers; comments and empty lines dropped."""
    if not sheet.is_file():
        raise InputError(
            f"{sheet}: no such sample sheet. Create it (columns tomogram and path, separated by "
            "tabs) or name another with 'tomograms:' in the configuration."
        )
    try:
        text = sheet.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{sheet}: not UTF-8 text ({error}). Save it as UTF-8.") from error
    except OSError as error:
        raise InputError(f"{sheet}: cannot be read ({error.strerror}). Change its mode.") from error
    lines = [
        (number, [cell.strip() for cell in cells])
        for number, cells in enumerate(csv.reader(text.splitlines(), delimiter="\t"), start=1)
        if any(cell.strip() for cell in cells) and not cells[0].lstrip().startswith("#")
    ]
    if not lines:
        raise InputError(f"{sheet}: empty. Its first row names the columns: tomogram, path, ...")
    header = lines[0][1]
    for separator, name in ((",", "commas"), (";", "semicolons"), (" ", "spaces")):
        if len(header) == 1 and separator in header[0]:
            raise InputError(f"{sheet}: columns are separated by {name}. Separate them by tabs.")
    rows = []
    for number, cells in lines[1:]:
        if len(cells) > len(header) and not any(cells[len(header) :]):
            cells = cells[: len(header)]
        if len(cells) > len(header):
            raise InputError(
                f"{sheet}, row {number}: {len(cells)} cells, the header names {len(header)} "
                "columns. Remove what is too much."
            )
        rows.append((number, cells + [""] * (len(header) - len(cells))))
    return header, rows


def _check_columns(sheet: Path, header: list[str]) -> None:
    """Raise for unknown, doubled and missing columns."""
    known = _schema("samples")["properties"]
    faults = [
        f"{sheet}, row 1: unknown column '{name}'; {_suggestion(name, known)}"
        for name in header
        if name not in known
    ]
    doubled = sorted({name for name in header if header.count(name) > 1})
    faults += [f"{sheet}, row 1: column '{name}' stands twice; remove one." for name in doubled]
    if not faults:
        faults = [
            f"{sheet}, row 1: column '{name}' is missing; add it."
            for name in ("tomogram", "path")
            if name not in header
        ]
    if faults:
        raise InputError("\n".join(faults))


def _typed(row: dict[str, str]) -> dict:
    """Turn the cells that hold numbers into numbers where they can be."""
    values: dict = dict(row)
    if "voxel_size" in row:
        try:
            number = float(row["voxel_size"])
            values["voxel_size"] = number if math.isfinite(number) else row["voxel_size"]
        except ValueError:
            pass
    if row.get("probability_scale") in ("1", "100", "255"):
        values["probability_scale"] = int(row["probability_scale"])
    elif row.get("probability_scale") == "auto":
        values["probability_scale"] = None
    return values


def _row_faults(row: dict[str, str], base: Path) -> list[str]:
    """Return the faults of one row, each with its column and remedy."""
    values = {key: value for key, value in _typed(row).items() if value is not None}
    faults = [
        f"column '{column}': empty; fill it in"
        for column in ("tomogram", "path")
        if column not in values
    ]
    faults += [
        f"column '{error.absolute_path[-1]}': '{row[error.absolute_path[-1]]}' does not fit; it "
        f"must be {error.schema['description']}"
        for error in _validator("samples").iter_errors(values)
        if error.validator != "required"
    ]
    faults += [
        f"column '{column}': no such file '{row[column]}'; correct the path (relative paths are "
        f"relative to the working directory, {base.resolve()})"
        for column in FILE_COLUMNS
        if column in row and not os.path.exists(base / row[column])
    ]
    if "boundary" in row and "probability" not in row:
        faults.append(
            "column 'boundary': outlines alone do not say what is object; name the map of the "
            "objects in the column 'probability'"
        )
    if "ground_truth_classes" in row and "ground_truth" not in row:
        faults.append(
            "column 'ground_truth_classes': classes alone score nothing; name the labelmap of the "
            "truth in the column 'ground_truth'"
        )
    return faults
