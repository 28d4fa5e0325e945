"""What every stage script shares: the library's path, a log beside the terminal, clear errors."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from tomocensus.errors import InputError


REMEDIES = {
    errno.ENOSPC: "Free some space (see `df`), then start again: what is finished is kept.",
    errno.EDQUOT: "Your quota is used up. Free some space, then start again.",
    errno.EROFS: "Results cannot be written here. Use another folder (--directory), or ask why.",
    errno.EACCES: "You may not write here. Use another folder (--directory), or change its mode.",
}
"""What to do where the file system does not let a stage write."""


class Tee:
    """Standard error and a log file at once; a progress bar reaches the log now and then.

    A log that cannot be written (full disk) must not hide what is said to the terminal.
    """

    def __init__(self, terminal, path: str | None):
        self.terminal, self.log, self.last = terminal, None, time.monotonic()
        if path:
            with contextlib.suppress(OSError):
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                self.log = open(path, "w", encoding="utf-8", buffering=1)  # noqa: SIM115

    def write(self, text: str) -> int:
        """Write to both."""
        self.terminal.write(text)
        if not text.startswith("\r"):
            self.note(text)
        elif time.monotonic() - self.last > 15:
            self.last = time.monotonic()
            self.note(text.strip() + "\n")
        return len(text)

    def note(self, text: str) -> None:
        """Write to the log alone."""
        with contextlib.suppress(OSError):
            if self.log:
                self.log.write(text)

    def flush(self) -> None:
        """Flush the terminal; the log is flushed with each line."""
        self.terminal.flush()

    def close(self) -> None:
        """Close the log."""
        with contextlib.suppress(OSError):
            if self.log:
                self.log.close()

    def isatty(self) -> bool:
        """Whether the terminal is one."""
        return self.terminal.isatty()


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all stages have."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--log", help="file that gets a copy of what is said")
    return options


def optional(options: argparse.ArgumentParser, *names: str) -> None:
    """Add options that name one file or none (an empty Snakemake input gives no value)."""
    for name in names:
        options.add_argument(name, nargs="?", default=None)


def run(options: argparse.ArgumentParser, stage: Callable[[argparse.Namespace], None]) -> None:
    """Parse the arguments and run a stage; what a user can mend ends it with text and status 1."""
    arguments = options.parse_args()
    sys.stderr = tee = Tee(sys.__stderr__, arguments.log)
    try:
        stage(arguments)
    except BaseException as error:
        text = explained(error)
        if text is None:
            tee.note(traceback.format_exc())
            raise
        say(f"ERROR: {text}")
        sys.exit(1)
    finally:
        sys.stderr = sys.__stderr__
        tee.close()


def explained(error: BaseException) -> str | None:
    """Return what is wrong and what to do about it; None where that is not known."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.errno in REMEDIES:
        return f"{error.filename or Path.cwd()}: {error.strerror}. {REMEDIES[error.errno]}"
    return None


def say(text: str) -> None:
    """Tell the user and the log one line."""
    print(text, file=sys.stderr, flush=True)


def inspected(path: str) -> dict:
    """Read input.json."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def open_tomogram(path: str, facts: dict):
    """Open a tomogram with the voxel size that `inspect` settled on."""
    from tomocensus.io import read_volume

    return read_volume(path, voxel_size=facts["voxel_size"])


def limit_threads(threads: int) -> None:
    """Keep numerical libraries to the threads that the scheduler gave; call before importing them.

    Parameters
    ----------
    threads : int
        Number of threads.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    # Threads of OpenMP wait for each other by spinning. Where another program shares the cores,
    # training took five times longer so, and two times with a short wait; alone it costs 3 %.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
