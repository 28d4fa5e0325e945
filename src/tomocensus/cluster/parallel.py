"""Work on parts of a volume by several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor


def spans(count: int, size: int) -> list[slice]:
    """Return slices of `size` that make up ``range(count)``, the last one shorter."""
    return [slice(low, min(low + size, count)) for low in range(0, count, size)]


def each(work: Callable, items: Iterable, threads: int = 1) -> list:
    """Return ``work(item)`` of every item, in their order.

    Parameters
    ----------
    work : callable
        Called with one item. Lets go of the interpreter's lock for most of its time, and writes
        nowhere that another call reads or writes.
    items : iterable
        What is worked on.
    threads : int
        Calls at a time, so what a call needs is in memory that many times; the result does not
        depend on it.
    """
    if threads < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))
