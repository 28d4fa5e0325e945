"""SLURM jobs that a killed run has left: they go on, and would write beside those of a new run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tomocensus.errors import InputError


def submitted_jobs(folder: str | Path) -> set[str]:
    """Return the numbers of the cluster jobs whose outputs Snakemake has marked as being written.

    Parameters
    ----------
    folder : path-like
        The project.
    """
    found = set()
    for mark in (Path(folder) / ".snakemake" / "incomplete").rglob("*"):
        try:
            number = json.loads(mark.read_text(encoding="utf-8"))["external_jobid"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if number:
            found.add(str(number))
    return found


def queued_jobs(numbers: set[str]) -> set[str]:
    """Return those of the given jobs that SLURM still has in its queue or running.

    Raises
    ------
    InputError
        Where SLURM does not answer.
    """
    if not numbers:
        return set()
    try:
        # One that was forgotten would be an error by its number: ask for all of this user.
        command = ["squeue", "--me", "--noheader", "--format=%i"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    except FileNotFoundError:
        return set()
    except subprocess.SubprocessError as error:
        raise InputError(
            f"squeue does not answer ({error}): nobody knows whether jobs of an earlier run go on. "
            "Start again when it does."
        ) from error
    return numbers & set(answer.stdout.split())


def check_nothing_is_queued(folder: str | Path) -> None:
    """Raise where jobs of an earlier run still write into a project.

    Raises
    ------
    InputError
        Names the jobs and says how to end them.
    """
    left = sorted(queued_jobs(submitted_jobs(folder)))
    if left:
        raise InputError(
            f"{len(left)} jobs of an earlier run still go on in SLURM and write the same files. "
            f"Wait until they end, or end them: scancel {' '.join(left)}"
        )
