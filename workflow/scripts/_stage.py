"""What every stage script shares: the library's path, a log beside the terminal, clear errors."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from tomocensus.errors import InputError


class Tee:
    """Standard error and a log file at once; a progress bar reaches the log now and then."""

    def __init__(self, terminal, log):
        self.terminal, self.log, self.last = terminal, log, time.monotonic()

    def write(self, text: str) -> int:
        """Write to both."""
        self.terminal.write(text)
        if not text.startswith("\r"):
            self.log.write(text)
        elif time.monotonic() - self.last > 15:
            self.last = time.monotonic()
            self.log.write(text.strip() + "\n")
        return len(text)

    def flush(self) -> None:
        """Flush both."""
        self.terminal.flush()
        self.log.flush()

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
    """Parse the arguments and run a stage; an input error ends it with its text and status 1."""
    arguments = options.parse_args()
    log = None
    if arguments.log:
        Path(arguments.log).parent.mkdir(parents=True, exist_ok=True)
        log = open(arguments.log, "w", encoding="utf-8")  # noqa: SIM115 (lives as long as the run)
        sys.stderr = Tee(sys.__stderr__, log)
    try:
        stage(arguments)
    except InputError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        sys.exit(1)
    except BaseException:
        if log:
            import traceback

            log.write(traceback.format_exc())
        raise
    finally:
        if log:
            sys.stderr = sys.__stderr__
            log.close()


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
