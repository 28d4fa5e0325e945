"""Colours of the report, the same in pictures and charts, told apart by colour-blind readers."""

from __future__ import annotations

import colorsys
import struct
import zlib

UNKNOWN = (150, 150, 150)
# Okabe and Ito (2008) without black, then from Tol's "muted" scheme.
_LIST = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (136, 34, 85),
    (51, 34, 136),
    (153, 153, 51),
    (68, 170, 153),
    (17, 119, 51),
)
# Dark purple to pale yellow, lightness rising throughout.
_HEAT = ((60, 15, 110), (187, 55, 84), (249, 142, 9), (252, 255, 164))


def colour(index: int) -> tuple[int, int, int]:
    """Return the colour (red, green, blue; 0-255) of a 0-based index, without end."""
    if index < len(_LIST):
        return _LIST[index]
    hue = (index * 0.618034) % 1.0
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.6, 0.85))


def class_colours(names) -> dict[str, tuple[int, int, int]]:
    """Return a colour for each class name: by sorted order, ``unknown`` grey."""
    known = sorted({str(name) for name in names} - {"unknown"})
    return {name: colour(i) for i, name in enumerate(known)} | {"unknown": UNKNOWN}


def heat(fraction: float) -> tuple[int, int, int]:
    """Return the colour of a probability between 0 and 1."""
    place = min(max(fraction, 0.0), 1.0) * (len(_HEAT) - 1)
    low = min(int(place), len(_HEAT) - 2)
    rest = place - low
    return tuple(round(a + (b - a) * rest) for a, b in zip(_HEAT[low], _HEAT[low + 1], strict=True))


def css(rgb: tuple[int, int, int]) -> str:
    """Return a colour as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def recolour_png(png: bytes, colours: list[tuple[int, int, int]]) -> bytes:
    """Return a palette PNG with the first colours of its palette replaced.

    A picture is drawn before the classes of the other tomograms are known; this gives a class
    the same colour everywhere without decoding the picture.
    """
    position = 8
    while position < len(png):
        length = struct.unpack(">I", png[position : position + 4])[0]
        kind = png[position + 4 : position + 8]
        start = position + 8
        if kind == b"PLTE":
            new = bytes(part for rgb in colours for part in rgb)[:length]
            chunk = kind + new + png[start + len(new) : start + length]
            crc = struct.pack(">I", zlib.crc32(chunk))
            return png[: position + 4] + chunk + crc + png[start + length + 4 :]
        position = start + length + 4
    raise ValueError("the PNG has no palette")
