"""SLURM jobs that a killed run has left: they go on, and would write beside those of a new run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tomocensus.errors import InputError

# Number and log of each job of this user; the width keeps long paths whole.
_COMMAND = ("squeue", "--me", "--noheader", "--Format=JobID:30,StdOut:4000")


def queued_jobs(folder: str | Path) -> list[str]:
    """Return the numbers of the jobs, waiting or running, that Snakemake submitted for a project.

    They are known by their logs, which lie in the project's ``.snakemake``.

    Parameters
    ----------
    folder : path-like
        The project.

    Raises
    ------
    InputError
        Where SLURM does not answer.
    """
    own = Path(os.path.realpath(folder)) / ".snakemake"
    if not (own / "slurm_logs").is_dir() and not any(own.glob("log/*.slurm.log")):
        return []
    try:
        answer = subprocess.run(_COMMAND, capture_output=True, text=True, timeout=120, check=True)
    except FileNotFoundError:
        return []
    except subprocess.SubprocessError as error:
        raise InputError(
            f"squeue does not answer ({error}): nobody knows whether jobs of an earlier run go on. "
            "Start again when it does."
        ) from error
    jobs = [line.split(maxsplit=1) for line in answer.stdout.splitlines() if line.strip()]
    return [number for number, *log in jobs if log and log[0].startswith(f"{own}/")]


def outage_warning() -> str:
    """Return what to say where an outage of SLURM's controller would make the plugin hang.

    When `scontrol` is silent the plugin asks `sacct` instead; where there is no accounting that
    fails, and the plugin loses its jobs.
    """
    try:
        command = ["sacct", "--noheader", "--name=tomocensus-none"]
        works = subprocess.run(command, capture_output=True, timeout=30, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    if works.returncode == 0:
        return ""
    return (
        "WARNING: this SLURM keeps no accounts (sacct fails). When its controller is silent for a "
        "while, this run may lose its jobs and hang: --profile profiles/slurm/fallback does not."
    )


def check_nothing_is_queued(folder: str | Path) -> None:
    """Raise where jobs of an earlier run still write into a project.

    Raises
    ------
    InputError
        Names the jobs and says how to end them.
    """
    left = queued_jobs(folder)
    if left:
        raise InputError(
            f"{len(left)} jobs of an earlier run still go on in SLURM and write the same files. "
            f"Wait until they end, or end them: scancel {' '.join(left)}"
        )
