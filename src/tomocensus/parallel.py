"""Work on parts of a volume by several threads, at once or ahead of what is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


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


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], count: int, threads: int = 1
) -> Iterator[Result]:
    """Yield ``work(item)`` of every item, in their order.

    Parameters
    ----------
    work : callable
        Called with one item.
    items : iterable
        What is worked on.
    count : int
        So many results are made before they are asked for; 0: each when it is asked for.
    threads : int
        Threads that make them.
    """
    if not count:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
