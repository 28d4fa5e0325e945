"""The one exception that is shown to a user without a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(Exception):
    """Something is wrong with what the user gave; says which file, what is wrong and what to do.

    Scripts catch it, print its text and exit with status 1; a traceback would only hide the text.
    """


@contextmanager
def without_traceback() -> Iterator[None]:
    """End the program with the text of an :class:`InputError`; as ``with`` or as a decorator."""
    try:
        yield
    except InputError as error:
        raise SystemExit(f"ERROR: {error}") from error
