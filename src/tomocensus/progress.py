"""Progress: a bar in a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

Item = TypeVar("Item")


def progress(
    items: Iterable[Item],
    what: str,
    total: int | None = None,
    stream: TextIO | None = None,
    every_seconds: float = 15.0,
) -> Iterator[Item]:
    """Yield `items` and tell how far it is.

    Parameters
    ----------
    items : iterable
        What is worked on.
    what : str
        A few words, for example ``"predicting tiles"``.
    total : int, optional
        Number of items; ``len(items)`` where it has one.
    stream : file-like, optional
        Standard error by default. A terminal gets a bar, anything else a line now and then.
    every_seconds : float
        Time between lines in a log.
    """
    stream = sys.stderr if stream is None else stream
    if total is None:
        total = len(items)  # type: ignore[arg-type]
    terminal = stream.isatty()
    pause = 0.2 if terminal else every_seconds
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= pause or (done == total and (terminal or now - start >= 1)):
            last = now
            stream.write(_line(what, done, total, now - start, terminal))
            stream.flush()
    if terminal and total:
        stream.write("\n")


def paced(steps: int, minutes: float | None = None) -> Iterator[tuple[int, float]]:
    """Yield number and part (0-1) of each step, until all are done or the time is over.

    Parameters
    ----------
    steps : int
        How many, where `minutes` is None.
    minutes : float, optional
        How long to go on instead.
    """
    start, step, part = time.monotonic(), 0, 0.0
    while part < 1:
        step += 1
        gone = time.monotonic() - start
        part = step / steps if minutes is None else min(gone / (60 * minutes), 1.0)
        yield step, part


def _line(what: str, done: int, total: int, seconds: float, terminal: bool) -> str:
    """Format one state of progress."""
    left = seconds / done * max(total - done, 0)
    if terminal:
        width = 30
        full = width * done // max(total, 1)
        bar = "#" * full + "." * (width - full)
        return f"\r{what} [{bar}] {done}/{total}, {left:.0f} s left   "
    return f"{what}: {done}/{total} after {seconds:.0f} s, about {left:.0f} s left\n"
