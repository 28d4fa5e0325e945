"""A folder with a file for each class."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable

from tomocensus.atomic import atomic_path


def write_files_of_classes(
    folder: str | os.PathLike, classes: Iterable[str], ending: str, text_of: Callable[[str], str]
) -> list[str]:
    """Write a file for each class; all of them or none.

    Parameters
    ----------
    folder : path-like
        Takes the files; what was there before goes.
    classes : iterable of str
        Files are named after them; letters that do not suit a file's name become ``_``.
    ending : str
        Of the files' names, with its dot.
    text_of : callable
        Returns the text of a class.

    Returns
    -------
    list of str
        Names of the files, in the order of the classes' names.
    """
    files: list[str] = []
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for name in sorted(set(classes)):
            files.append(unused(re.sub(r"[^A-Za-z0-9.-]+", "_", name), files, ending))
            (temporary / files[-1]).write_text(text_of(name), encoding="utf-8")
    return files


def unused(stem: str, taken: Iterable[str], ending: str = "") -> str:
    """Return a name, numbered where it is taken, whatever the case of letters."""
    taken = {other.lower() for other in taken}
    number, found = 1, stem + ending
    while found.lower() in taken:
        number, found = number + 1, f"{stem}-{number + 1}{ending}"
    return found
