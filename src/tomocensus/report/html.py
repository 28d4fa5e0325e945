"""Build the report: one HTML file that needs nothing else, not even a network."""

from __future__ import annotations

import base64
import json
import re
from html import escape
from importlib import resources

import numpy as np
import pandas as pd

from tomocensus.report import charts
from tomocensus.report.colours import class_colours, css, recolour_png

_COLUMNS = (
    "tomogram",
    "group",
    "instance",
    "class",
    "confidence",
    "equivalent_diameter_angstrom",
    "volume_angstrom3",
    "sphericity",
    "solidity",
    "mean_probability",
    "touches_border",
    "separation",
    "nearest_distance_angstrom",
    "x_voxel",
    "y_voxel",
    "z_voxel",
    "x_angstrom",
    "y_angstrom",
    "z_angstrom",
)
_TEXT = ("tomogram", "group", "class", "separation")
# Classes with charts of their own, and warnings that are seen without a click.
_CHARTED, _WARNINGS = 12, 10
# Tomograms with scores in a column each.
_SCORED = 6
# Of instances, of counts and of tomograms' records; a browser shows no more in good time.
MOST_ROWS, MOST_COUNTS, MOST_RECORDS = 100_000, 5_000, 500


def build_report(
    pictures: dict[str, dict],
    instances: pd.DataFrame,
    counts: pd.DataFrame,
    evaluation: pd.DataFrame | None = None,
    inputs: dict[str, dict] | None = None,
    provenance: dict | None = None,
    models: dict[str, dict] | None = None,
    review: dict | None = None,
    title: str = "TomoCensus",
) -> str:
    """Put a data set's results into one self-contained HTML page.

    Parameters
    ----------
    pictures : dict
        Per tomogram, what `tomocensus.report.picture` returned; with ``splits``, what
        `tomocensus.report.split_pictures` did.
    instances : pandas.DataFrame
        Instance table of all tomograms; missing columns are left out of the page. Of very many
        (`MOST_ROWS`) the page lists a part, those of tomograms with pictures first.
    counts : pandas.DataFrame
        Counts by tomogram, group and class; see `tomocensus.census.COUNT_COLUMNS`.
    evaluation : pandas.DataFrame, optional
        Columns ``tomogram``, ``metric``, ``value``, ``note``; each metric once a tomogram.
    inputs : dict, optional
        Per tomogram the content of ``input.json``; its ``warnings`` are shown.
    provenance : dict, optional
        ``versions`` and anything else, shown as it is.
    models : dict, optional
        Cards by kind; ``history`` of the segmenter, ``classes`` and ``confusion_matrix`` of the
        classifier are drawn.
    review : dict, optional
        ``rows``: the instances to name next, each ``tomogram``, ``instance``, ``class``,
        ``confidence``, ``x``, ``y``, ``z`` (voxels), ``x_angstrom``, ``y_angstrom``, ``z_angstrom``
        and ``image`` (base64 PNG). ``examples``, ``columns``, ``separator``: the file that names
        are for, and what its rows are.
    title : str

    Returns
    -------
    str
        HTML. Every text from outside is escaped; the page's policy forbids any request.
    """
    instances = _tidy(instances)
    inputs, models = inputs or {}, models or {}
    colours = class_colours([*instances["class"], *_all_classes(pictures)])
    data = {
        "columns": [name for name in _COLUMNS if name in instances],
        "colours": {name: css(rgb) for name, rgb in colours.items()},
        "pictures": {name: _recoloured(one, colours) for name, one in pictures.items()},
    }
    listed = _listed(instances, pictures, MOST_ROWS)
    data["rows"] = _rows(listed, data["columns"])
    parts = {
        "title": escape(title),
        "css": _template("report.css"),
        "js": _template("report.js"),
        "data": _json(data),
        "cards": _cards(instances, pictures, inputs),
        "warnings": _warnings(inputs),
        "charts": _charts(instances, counts, colours),
        "counts": _counts(counts, pictures),
        "listed": _left_out(len(listed), len(instances), "instances", "census.csv"),
        "splits": _splits(pictures),
        "review": _review(review),
        "evaluation": _evaluation(evaluation),
        "models": _models(models),
        "provenance": _provenance(_recorded(provenance or {}, pictures), models),
    }
    # One pass, so that a value that looks like a placeholder stays as it is.
    return re.sub(r"\{\{(\w+)\}\}", lambda m: parts[m[1]], _template("report.html"))


def _template(name: str) -> str:
    return resources.files("tomocensus.report").joinpath(name).read_text(encoding="utf-8")


def _json(data) -> str:
    """Return JSON that cannot end the script element it stands in."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _tidy(instances: pd.DataFrame) -> pd.DataFrame:
    """Return the table with text columns as text and the rest as numbers where they should be."""
    instances = instances.reset_index(drop=True)
    for name in ("tomogram", "class"):
        if name not in instances:
            instances[name] = "unknown" if name == "class" else ""
    for name in _COLUMNS:
        if name not in instances:
            continue
        if name in _TEXT:
            column = instances[name].astype(object)
            instances[name] = column.where(column.notna(), "").astype(str)
        elif name != "touches_border":
            instances[name] = pd.to_numeric(instances[name], errors="coerce")
    instances["class"] = instances["class"].replace("", "unknown")
    return instances


def _listed(table: pd.DataFrame, pictures: dict, most: int) -> pd.DataFrame:
    """Return at most so many rows, those of tomograms with pictures first."""
    if len(table) <= most:
        return table
    pictured = table["tomogram"].isin(list(pictures))
    return pd.concat([table[pictured], table[~pictured]]).head(most)


def _left_out(listed: int, total: int, what: str, file: str) -> str:
    """Say where the rest is, where a table is not of all."""
    if listed == total:
        return ""
    return (
        f'<p class="muted">{listed:,} of {total:,} {what} are listed, those of the tomograms with '
        f"pictures first; all are in results/{file}.</p>"
    )


def _rows(instances: pd.DataFrame, columns: list[str]) -> list[list]:
    """Return the table's rows, numbers at five significant digits, None for missing."""

    def plain(value):
        if isinstance(value, (bool, np.bool_)):
            return bool(value)
        if isinstance(value, str):
            return value
        if value is None or not np.isfinite(value):
            return None
        number = float(value)
        return int(number) if number.is_integer() else float(f"{number:.5g}")

    return [[plain(v) for v in row] for row in zip(*(instances[c] for c in columns), strict=True)]


def _all_classes(pictures: dict) -> list[str]:
    return [name for one in pictures.values() for name in one.get("classes", [])]


def _recoloured(one: dict, colours: dict) -> dict:
    """Return a tomogram's pictures with class overlays in the data set's colours."""
    palette = [(0, 0, 0)]
    for name in one.get("classes", []):
        palette += [colours[name], colours[name]]

    def change(cut):
        png = recolour_png(base64.b64decode(cut["class"]), palette)
        return {**cut, "class": base64.b64encode(png).decode()}

    return {**one, "slices": [change(cut) for cut in one["slices"]], "xz": change(one["xz"])}


def _cards(instances, pictures, inputs) -> str:
    names = set(pictures) | set(inputs) | set(instances["tomogram"])
    faults = sum(len(one.get("warnings") or []) for one in inputs.values())
    values = [
        ("Tomograms", len(names - {""})),
        ("Instances", len(instances)),
        ("Classes", len(set(instances["class"]) - {"unknown"})),
        ("Warnings", faults),
    ]
    if "confidence" in instances and instances["confidence"].notna().any():
        values.insert(3, ("Median confidence", f"{instances['confidence'].median():.2f}"))
    return "".join(
        f'<div class="stat"><b>{value if isinstance(value, str) else f"{value:,}"}</b>'
        f"<span>{name}</span></div>"
        for name, value in values
    )


def _warnings(inputs: dict) -> str:
    items = [
        f"<li><b>{escape(str(name))}</b>: {escape(str(text))}</li>"
        for name, one in inputs.items()
        for text in one.get("warnings") or []
    ]
    if not items:
        return ""
    shown, more = "".join(items[:_WARNINGS]), items[_WARNINGS:]
    rest = (
        f"<details><summary>{len(more):,} more</summary><ul>{''.join(more)}</ul></details>"
        if more
        else ""
    )
    return f'<section class="card warn"><h2>Warnings</h2><ul>{shown}</ul>{rest}</section>'


def _charts(instances: pd.DataFrame, counts: pd.DataFrame, colours: dict) -> str:
    """Return counts by class, sizes by class, confidence, and each class by group.

    Where groups have several tomograms, what is told of a class stands in a row.
    """
    if not len(instances):
        return '<p class="muted">No instances were found.</p>'
    order = instances["class"].value_counts()
    kinds = list(order.index[:_CHARTED])
    bars = [(name, int(n), css(colours[name])) for name, n in order.items()]
    rest = ""
    if len(order) > _CHARTED:
        rest = f"<figcaption>charts below: the {_CHARTED} commonest of them</figcaption>"
    drawn = charts.bars(bars, "counts")
    first = [f"<figure><h3>Instances per class</h3>{drawn}{rest}</figure>"]
    if "confidence" in instances:
        drawn = charts.histogram(
            instances["confidence"], "#0072b2", "Confidence of the class", "confidence", (0, 1)
        )
        first.append(f"<figure>{drawn}</figure>" if drawn else "")
    sizes = {}
    if "equivalent_diameter_angstrom" in instances:
        parts = {name: instances[instances["class"] == name] for name in kinds}
        sizes = {name: _sizes(part, name, css(colours[name])) for name, part in parts.items()}
    groups = _groups(counts)
    if len(groups) < 2:
        return _grid([*first, *sizes.values()])
    if all(part["tomogram"].nunique() == 1 for _, part in groups):
        return _grid([first[0], *_single(groups, kinds), *first[1:], *sizes.values()])
    rows = [
        f"<h3>{escape(name)}</h3>"
        + _grid([*_dots(groups, name, css(colours[name])), sizes.get(name, "")])
        for name in kinds
    ]
    return (
        f"{_grid(first)}<p>By group: a dot is a tomogram, the line the mean of the dots, beside it "
        "mean ± standard deviation of tomograms. Where a tomogram has no such object its density "
        f"is 0; for a size it needs a whole one.</p>{''.join(rows)}"
    )


def _grid(figures: list[str]) -> str:
    """Return figures beside each other."""
    return f'<div class="grid even">{"".join(figures)}</div>'


def _sizes(part: pd.DataFrame, name: str, colour: str) -> str:
    """Return the histogram of the diameters of a class; what is cut has no size."""
    whole = part
    if "touches_border" in part:
        whole = part[~part["touches_border"].eq(True)]
    heading, left = f"Size of {name}", len(part) - len(whole)
    size = whole["equivalent_diameter_angstrom"] / 10
    drawn = charts.histogram(size, colour, heading, "equivalent diameter, nm")
    if not left:
        return f"<figure>{drawn}</figure>" if drawn else ""
    # Of a class that is always cut it is told why there is no chart.
    drawn = drawn or f"<h3>{escape(heading)}</h3>"
    told = (
        f"without {left:,}" if left < len(part) else f"all {left:,}" if left > 1 else "the only one"
    )
    return (
        f"<figure>{drawn}<figcaption>{told} at the border, which may be cut</figcaption></figure>"
    )


# What groups are compared by: column of the counts, factor, heading, unit, axis from 0.
_COMPARED = (
    ("density_per_micrometre3", 1, "Density", "objects per µm³", True),
    ("diameter_mean_angstrom", 0.1, "Size", "mean diameter, nm", False),
)


def _groups(counts: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the groups, each with the counts of its tomograms."""
    if not len(counts):
        return []
    names = counts["group"].astype(object).fillna("").astype(str)
    counts = counts.assign(**{"class": counts["class"].astype(str).replace("", "unknown")})
    return [(name or "no group", part) for name, part in counts.groupby(names)]


def _values(counts: pd.DataFrame, kind: str, column: str, factor: float) -> list[float]:
    """Return a value of a class for each tomogram."""
    values = pd.to_numeric(counts.loc[counts["class"] == kind, column], errors="coerce")
    return (values * factor).tolist()


def _dots(groups: list, kind: str, colour: str) -> list[str]:
    """Return the charts of a class that compare groups of tomograms.

    A dot is a tomogram, also one without such objects: objects of one tomogram are no repeats.
    """
    figures = []
    for column, factor, heading, unit, zero in _COMPARED:
        rows = [(name, _values(part, kind, column, factor)) for name, part in groups]
        drawn = charts.dots(rows, colour, f"{heading} of {kind} by group", unit, zero)
        figures.append(f"<figure><h4>{heading} by group</h4>{drawn}</figure>" if drawn else "")
    return figures


def _single(groups: list, kinds: list[str]) -> list[str]:
    """Return tables that compare groups of one tomogram each."""
    figures, head = [], ["class", *(name for name, _ in groups)]
    for column, factor, heading, unit, _ in _COMPARED:
        rows = [
            [kind, *(_rounded(_values(part, kind, column, factor)) for _, part in groups)]
            for kind in kinds
        ]
        figures.append(
            f"<figure><h3>{heading} by group: {unit}</h3>{charts.table(head, rows)}"
            "<figcaption>One tomogram a group: what differs may be the groups or chance."
            "</figcaption></figure>"
        )
    return figures


def _rounded(values: list[float]) -> float:
    """Return the one value with three digits."""
    return float(f"{values[0]:.3g}") if values else float("nan")


def _counts(counts: pd.DataFrame | None, pictures: dict) -> str:
    """Return the counts' table in nm and µm."""
    if counts is None or not len(counts):
        return ""
    total = len(counts)
    counts = _listed(counts, pictures, MOST_COUNTS)
    scale = {
        "tomogram": ("tomogram", None),
        "group": ("group", None),
        "class": ("class", None),
        "count": ("objects", 1),
        "count_whole": ("whole", 1),
        "volume_micrometre3": ("looked at, µm³", 1),
        "density_per_micrometre3": ("per µm³", 1),
        "diameter_mean_angstrom": ("diameter, nm", 0.1),
        "diameter_sd_angstrom": ("s.d., nm", 0.1),
        "object_volume_mean_angstrom3": ("volume, nm³", 1e-3),
        "confidence_mean": ("confidence", 1),
    }
    used = [name for name in scale if name in counts]
    columns = []
    for name in used:
        factor = scale[name][1]
        if factor is None:
            columns.append(counts[name].astype(object).fillna("").astype(str))
        else:
            columns.append(pd.to_numeric(counts[name], errors="coerce").astype(float) * factor)
    rows = [list(row) for row in zip(*columns, strict=True)]
    drawn = charts.table([scale[name][0] for name in used], rows)
    note = _left_out(len(counts), total, "counts", "counts.csv")
    return (
        f"<details><summary>Counts and sizes as a table</summary>{note}"
        '<p class="muted">Looked at: in the mask, without padding. '
        "Diameter and volume: means of whole objects, which touch no border. S.d.: between objects."
        f"</p>{drawn}</details>"
    )


def _review(review: dict | None) -> str:
    """Return the instances most worth naming, each with its picture and a field for its name."""
    if not review or not review["rows"]:
        return ""
    cards = []
    for one in review["rows"]:
        name, number = escape(str(one["tomogram"])), int(one["instance"])
        # The class is typed; what else a file has for columns stays empty.
        cells = [None if key == "class" else str(_place(one, key)) for key in review["columns"]]
        cards.append(
            f'<li data-tomogram="{name}" data-cells="{escape(json.dumps(cells))}">'
            f'<button type="button" class="look" data-instance="{number}">'
            f'<img alt="{name} {number}" width="128" height="128" '
            f'src="data:image/png;base64,{escape(one["image"])}"></button>'
            f"<span>{name} #{number}</span>"
            f'<span class="muted">{escape(str(one["class"]))}</span>'
            f'<input list="classes" placeholder="name it" aria-label="class of {name} {number}">'
            "</li>"
        )
    columns = escape(", ".join(review["columns"]))
    unit = "Å" if "x_angstrom" in review["columns"] else "voxels from 0"
    separator = review["separator"]
    return (
        '<section class="card" id="review"><h2>Name these next</h2><p class="muted">Uncertain, and '
        "unlike each other and what has a name: a name for one of them teaches most. Type names, "
        f"copy the rows to the end of <code>{escape(review['examples'])}</code>, run "
        "<code>train_classifier</code>, then the workflow again.</p>"
        f'<ol class="review">{"".join(cards)}</ol><datalist id="classes"></datalist>'
        f'<p class="muted">Rows for this file: {columns} ({unit}), separated by '
        f"{'tabs' if separator == chr(9) else 'commas'}. A new file begins with a row of these "
        'names.</p><textarea id="named" rows="4" readonly aria-label="rows for the examples file" '
        f'data-separator="{escape(separator)}" placeholder="{columns}"></textarea>'
        '<button type="button" id="copy">Copy rows</button></section>'
    )


def _place(row: dict, column: str):
    """Return what a row of the examples file has in a column but for the class."""
    known = ("tomogram", *"xyz", "x_angstrom", "y_angstrom", "z_angstrom")
    return row[column] if column in known else ""


def _splits(pictures: dict[str, dict]) -> str:
    """Return the parted components of each tomogram, as one and as parts."""
    cards = []
    for name, one in pictures.items():
        for split in one.get("splits", []):
            images = "".join(
                f'<img alt="{when} parting" width="128" height="128" loading="lazy" '
                f'src="data:image/png;base64,{escape(split[when])}">'
                for when in ("before", "after")
            )
            neck = f"neck {split['neck_ratio']:.2f}" if split["neck_ratio"] else "no neck"
            cards.append(
                f'<li><span class="pair">{images}</span>'
                f"<span>{escape(str(name))} #{int(split['instance'])}</span>"
                f'<span class="muted">{int(split["parts"])} parts, {neck}</span></li>'
            )
    if not cards:
        return ""
    return (
        '<section class="card"><details><summary><h2>Parted components</h2></summary>'
        '<p class="muted">What touched, outlined as one and as parts, the most doubtful first: a '
        "neck close to 1 is hardly narrower than the part beside it. Where too much is cut, lower "
        "<code>cluster.neck</code>.</p>"
        f'<ol class="splits">{"".join(cards)}</ol></details></section>'
    )


def _evaluation(evaluation: pd.DataFrame | None) -> str:
    """Return the scores of each tomogram; of many their means, for the table lists all."""
    if evaluation is None or not len(evaluation):
        return ""
    table = evaluation.assign(value=pd.to_numeric(evaluation["value"], errors="coerce"))
    scores = table.pivot(index="metric", columns="tomogram", values="value")
    scores = scores.reindex(index=table["metric"].unique(), columns=table["tomogram"].unique())
    if scores.shape[1] <= _SCORED:
        notes = table[["tomogram", "note"]].drop_duplicates()
        told = [f"{name}: {note}" for name, note in notes.fillna("").to_numpy() if note]
    else:
        told = ["Of tomograms; those of each are in results/evaluation.csv"]
        kinds = ("count", "mean", "std", "min", "max")
        scores = pd.DataFrame({kind: scores.agg(kind, axis=1) for kind in kinds})
        scores.columns = ["tomograms", "mean", "s.d.", "least", "greatest"]
    rows = [
        [metric, *values]
        for metric, values in zip(scores.index, scores.to_numpy(float), strict=True)
    ]
    drawn = charts.table(["metric", *scores], rows)
    note = f'<p class="muted">{escape(". ".join(told))}.</p>' if told else ""
    return (
        '<section class="card"><h2>Against ground truth</h2>'
        f'<div class="fit">{drawn}</div>{note}</section>'
    )


def _models(models: dict) -> str:
    """Return the segmenter's learning curve and the classifier's confusion matrix."""
    parts = []
    history = (models.get("segmenter") or {}).get("history")
    if isinstance(history, list):
        history = [one for one in history if isinstance(one, dict)]
        steps = [one.get("step", i) for i, one in enumerate(history)]
        curves = {}
        for key in ("loss", "validation"):
            values = [one.get(key) for one in history]
            values = [v if isinstance(v, (int, float)) else float("nan") for v in values]
            curves[key] = (steps, values)
        drawn = charts.lines(curves, ["#0072b2", "#d55e00"], "learning curve", "step")
        parts.append(f"<figure><h3>Segmenter: learning curve</h3>{drawn}</figure>" if drawn else "")
    groups = (models.get("segmenter") or {}).get("groups")
    if isinstance(groups, dict) and groups:
        rows = [
            [name, one["held_out_dice"], one["held_out_voxels"]] for name, one in groups.items()
        ]
        drawn = charts.table(["group", "Dice, held-out annotation", "voxels"], rows)
        parts.append(f"<div><h3>Segmenter: by group, as named at its training</h3>{drawn}</div>")
    card = models.get("classifier") or {}
    if card.get("confusion_matrix") and card.get("classes"):
        drawn = charts.confusion(card["confusion_matrix"], card["classes"])
        drawn += _kinds_behind(card.get("kinds") or {}) + _kinds_beside(card)
        parts.append(f"<figure><h3>Classifier: left-out examples</h3>{drawn}</figure>")
    if not any(parts):
        return ""
    return (
        f'<section class="card"><h2>Models</h2><div class="grid">{"".join(parts)}</div></section>'
    )


def _kinds_behind(kinds: dict[str, str]) -> str:
    """Return which classes have simulated objects among their examples, by what they are called."""
    if not kinds:
        return ""
    named = (f"{name} ({kind})" if name != kind else name for name, kind in kinds.items())
    return (
        '<p class="muted">Called like kinds of the shipped head, whose simulated objects count '
        f"for a few examples: {escape(', '.join(named))}.</p>"
    )


def _kinds_beside(card: dict) -> str:
    """Return which kinds of the shipped head stand beside the classes, and what they cost."""
    kinds = card.get("others") or []
    if not kinds:
        return ""
    told = ""
    if "called_unknown" in card:
        told = f" Of the left-out examples {card['called_unknown']:.0%} would be called unknown."
    return (
        '<p class="muted">Kinds of the shipped head that nobody named: '
        f"{escape(', '.join(kinds))}. What is rather one of these is unknown, or named where "
        f"classify.kinds says so.{told}</p>"
    )


def _recorded(provenance: dict, pictures: dict) -> dict:
    """Return provenance; of very many tomograms the records of those with pictures."""
    records = provenance.get("records") or {}
    if len(records) <= MOST_RECORDS:
        return provenance
    kept = {name: records[name] for name in pictures if name in records}
    others = {"others": "results/TOMOGRAM/STAGE.json"}
    return {**provenance, "records": kept | others}


def _provenance(provenance: dict, models: dict) -> str:
    """Return versions, models and everything else that made the results."""
    versions = provenance.get("versions") or {}
    parts = []
    if versions:
        rows = [[name, str(value)] for name, value in versions.items()]
        parts.append(f"<h3>Versions</h3>{charts.table(['package', 'version'], rows)}")
    shown = {kind: _short(card) for kind, card in models.items()}
    for name, value in {"models": shown, **provenance}.items():
        if name == "versions" or not value:
            continue
        text = escape(json.dumps(value, indent=2, ensure_ascii=False, default=str))
        parts.append(
            f"<details><summary>{escape(str(name).capitalize())}</summary>"
            f"<pre>{text}</pre></details>"
        )
    return "".join(parts) or '<p class="muted">Nothing was recorded.</p>'


def _short(card: dict) -> dict:
    """Return a model's card without the curve that is drawn already."""
    return {name: value for name, value in (card or {}).items() if name != "history"}
