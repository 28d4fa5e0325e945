"""Charts of the report as inline SVG, and tables as HTML. All text is escaped here."""

from __future__ import annotations

from html import escape

import numpy as np

_WIDTH = 520
# Of a histogram: room for counts of millions.
_LEFT = 70
# Letters of a bar's name that there is room for.
_LETTERS = 22
# Dots in a row of a chart, spread over the values; more only cover each other.
_DOTS = 150


def _number(value: float, span: float | None = None) -> str:
    """Return a short number; a dash for none.

    With `span`, what the numbers beside it range over: with digits enough to tell them apart.
    """
    if value is None or not np.isfinite(value):
        return "–"
    if span:
        digits = max(0, 2 - int(np.floor(np.log10(span))))
        # No minus before a zero.
        text = f"{round(value, digits) + 0.0:,.{digits}f}"
        return text.rstrip("0").rstrip(".") if digits else text
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _mean(values: np.ndarray) -> str:
    """Return the mean and, of several, ± their standard deviation to two digits; whole at least."""
    if len(values) < 2:
        return _number(values[0]) if len(values) else "–"
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    if spread <= 1e-9 * abs(mean):
        return f"{_number(mean)} ± 0"
    digits = max(0, 1 - int(np.floor(np.log10(spread))))
    return f"{mean:,.{digits}f} ± {spread:,.{digits}f}"


def svg(body: str, height: int, label: str) -> str:
    """Wrap drawing commands; the chart scales with the page."""
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">{body}</svg>'
    )


def bars(rows: list[tuple], label: str) -> str:
    """Draw horizontal bars.

    Parameters
    ----------
    rows : list of tuple
        Name, value and colour (CSS).
    label : str
        What the chart shows, for screen readers.
    """
    top = max((row[1] for row in rows), default=0) or 1
    parts = []
    for i, (name, value, colour) in enumerate(rows):
        y = i * 26
        short = _short(name)
        length = 250 * value / top
        text = _number(value)
        whole = f"<title>{escape(name)}: {text}</title>"
        parts.append(
            f'<text x="180" y="{y + 17}" text-anchor="end">{whole}{escape(short)}</text>'
            f'<rect x="190" y="{y + 4}" width="{length:.1f}" height="18" rx="3" fill="{colour}">'
            f"{whole}</rect>"
            f'<text x="{196 + length:.1f}" y="{y + 17}">{text}</text>'
        )
    return svg("".join(parts), max(26 * len(rows), 10), label)


def _short(name: str) -> str:
    """Return a name that fits beside a chart."""
    # Names differ at their ends as often as at their beginnings.
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 10]}…{name[-9:]}"


def dots(rows: list[tuple], colour: str, label: str, unit: str, zero: bool = True) -> str:
    """Draw a row of dots for each group, with its mean; values that are no numbers are left out.

    Parameters
    ----------
    rows : list of tuple
        Name and values.
    colour : str
        CSS.
    label : str
        What the chart shows, for screen readers.
    unit : str
        Below the axis.
    zero : bool
        Whether the axis begins at 0.
    """
    clean = [(name, np.sort([v for v in values if np.isfinite(v)])) for name, values in rows]
    every = np.concatenate([values for _, values in clean]) if clean else np.zeros(0)
    if not every.size:
        return ""
    low, high = float(every.min()), float(every.max())
    low, high = (0.0, high or 1.0) if zero else _range(low, high)

    def place(value):
        return 195 + 180 * (value - low) / (high - low)

    parts = [
        _row_of_dots(name, values, colour, 38 * i + 19, place)
        for i, (name, values) in enumerate(clean)
    ]
    bottom = 38 * len(clean) + 4
    parts.append(f'<line x1="190" x2="380" y1="{bottom}" y2="{bottom}"/>')
    for value in (low, high):
        parts.append(
            f'<text x="{place(value):.0f}" y="{bottom + 16}" text-anchor="middle">'
            f"{_number(value, high - low)}</text>"
        )
    parts.append(f'<text x="285" y="{bottom + 32}" text-anchor="middle">{escape(unit)}</text>')
    return svg("".join(parts), bottom + 38, label)


def _row_of_dots(name: str, values: np.ndarray, colour: str, y: int, place) -> str:
    """Draw name, number, dots and mean of sorted values; `place` tells where one lies along x."""
    n, text = f"n = {values.size:,}", _mean(values)
    parts = [
        f'<text x="180" y="{y - 1}" text-anchor="end">'
        f"<title>{escape(name)}: {text} ({n})</title>{escape(_short(name))}</text>"
        f'<text class="small" x="180" y="{y + 14}" text-anchor="end">{n}</text>'
        f'<text x="385" y="{y + 5}">{text}</text>'
    ]
    if not values.size:
        return parts[0]
    shown = np.unique(np.linspace(0, values.size - 1, min(values.size, _DOTS)).astype(int))
    for k, value in enumerate(values[shown]):
        # Up and down in turn, by the golden section, so that equal ones are seen.
        at = y + 16 * ((k * 0.618034 + 0.5) % 1 - 0.5)
        parts.append(
            f'<circle cx="{place(value):.1f}" cy="{at:.1f}" r="4" fill="{colour}" '
            'fill-opacity="0.75"/>'
        )
    if values.size > 1:
        x = place(values.mean())
        parts.append(f'<line class="mean" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 13}" y2="{y + 13}"/>')
    return "".join(parts)


def _range(low: float, high: float) -> tuple[float, float]:
    """Return the ends of an axis; rounding is no range."""
    same = high - low <= 1e-6 * max(abs(low), abs(high))
    return (low - 0.5, high + 0.5) if same else (low, high)


def histogram(values, colour: str, title: str, unit: str, limits=None) -> str:
    """Draw a histogram; values that are no numbers are left out.

    Of few values the bars are wide (Rice's rule), so that they show a shape.

    Parameters
    ----------
    values : array-like of float
    colour : str
        CSS.
    title, unit : str
        Above the chart, and below its axis.
    limits : tuple of float, optional
        Ends of the axis, in 20 bars; the values' range without.
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if not values.size:
        return ""
    low, high = _range(*(limits or (float(values.min()), float(values.max()))))
    bins = 20 if limits else int(np.clip(np.ceil(2 * np.cbrt(values.size)), 5, 20))
    counts, edges = np.histogram(values, bins=bins, range=(low, high))
    ends = [_number(edge, (high - low) / bins) for edge in edges]
    step = (_WIDTH - _LEFT - 40) / bins
    parts = [f'<text class="title" x="{_LEFT}" y="16">{escape(title)} (n = {values.size:,})</text>']
    for i, count in enumerate(counts):
        height = 110 * count / max(counts.max(), 1)
        parts.append(
            f'<rect x="{_LEFT + i * step:.1f}" y="{140 - height:.1f}" width="{step - 2:.1f}" '
            f'height="{height:.1f}" fill="{colour}">'
            f"<title>{ends[i]} to {ends[i + 1]}: {count}</title></rect>"
        )
    parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - 40}" y1="140" y2="140"/>')
    for place in (0.0, 0.5, 1.0):
        x = _LEFT + place * (_WIDTH - _LEFT - 40)
        text = _number(low + place * (high - low), high - low)
        parts.append(f'<text x="{x:.0f}" y="157" text-anchor="middle">{text}</text>')
    parts.append(f'<text x="{_LEFT - 6}" y="40" text-anchor="end">{counts.max():,}</text>')
    parts.append(f'<text x="{_WIDTH / 2}" y="175" text-anchor="middle">{escape(unit)}</text>')
    return svg("".join(parts), 182, title)


def lines(series: dict[str, tuple[list, list]], colours: list[str], label: str, unit: str) -> str:
    """Draw curves of (x, y) over a common axis; points that are no numbers are left out."""
    clean = {}
    for name, (x, y) in series.items():
        points = np.array([x, y], dtype=float)
        points = points[:, np.isfinite(points).all(axis=0)]
        if points.shape[1]:
            clean[name] = points
    if not clean:
        return ""
    every = np.concatenate(list(clean.values()), axis=1)
    (left, low), (right, high) = every.min(axis=1), every.max(axis=1)
    low = min(low, 0.0)
    width, rise = max(right - left, 1e-9), max(high - low, 1e-9)
    parts = [
        '<line x1="60" x2="500" y1="180" y2="180"/><line x1="60" x2="60" y1="30" y2="180"/>',
        f'<text x="54" y="38" text-anchor="end">{_number(high)}</text>',
        f'<text x="54" y="184" text-anchor="end">{_number(low)}</text>',
        f'<text x="60" y="198">{_number(left)}</text>',
        f'<text x="500" y="198" text-anchor="end">{_number(right)}</text>',
        f'<text x="280" y="198" text-anchor="middle">{escape(unit)}</text>',
    ]
    for i, (name, points) in enumerate(clean.items()):
        x = 60 + 440 * (points[0] - left) / width
        y = 180 - 150 * (points[1] - low) / rise
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        dash = ' stroke-dasharray="6 4"' if i % 2 else ""
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colours[i % len(colours)]}" '
            f'stroke-width="2.5"{dash}/><text x="{70 + i * 130}" y="16" '
            f'fill="{colours[i % len(colours)]}" class="key">{"╌╌" if i % 2 else "━"} '
            f"{escape(name)}</text>"
        )
    return svg("".join(parts), 206, label)


def table(header: list[str], rows: list[list]) -> str:
    """Return a plain HTML table; numbers are shortened and set to the right."""
    numbers = [[_is_number(value) for value in row] for row in rows]
    right = [all(column) for column in zip(*numbers, strict=True)] or [False] * len(header)
    head = "".join(
        f'<th scope="col" class="{"n" if numeric else ""}">{escape(str(name))}</th>'
        for name, numeric in zip(header, right, strict=True)
    )
    body = []
    for row, kinds in zip(rows, numbers, strict=True):
        cells = [
            f'<td class="n">{_number(float(value))}</td>'
            if numeric
            else f"<td>{escape(str(value))}</td>"
            for value, numeric in zip(row, kinds, strict=True)
        ]
        body.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _is_number(value) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def confusion(matrix: list[list[float]], names: list[str]) -> str:
    """Return a confusion matrix (rows: truth, columns: called), shaded by the row's share."""
    head = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in names)
    rows = []
    for name, row in zip(names, matrix, strict=False):
        whole = sum(row) or 1
        cells = "".join(
            f'<td class="n" style="background:rgba(0,114,178,{0.55 * value / whole:.2f})">'
            f"{_number(value)}</td>"
            for value in row
        )
        rows.append(f'<tr><th scope="row">{escape(str(name))}</th>{cells}</tr>')
    return (
        '<div class="scroll"><table class="matrix"><thead>'
        f"<tr><th>truth / called</th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
