"""SLURM jobs that a killed run has left: they go on, and would write beside those of a new run."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tomocensus.errors import InputError

# Number and log of each job of this user; the width keeps long paths whole.
_COMMAND = ("squeue", "--me", "--noheader", "--Format=JobID:30,StdOut:4000")
# The plugin asks for its jobs at growing intervals, of up to 180 s.
_LEAST_AGE = 300


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


def accounts_work() -> bool:
    """Tell whether `sacct` answers; also true where there is no such program to be asked."""
    try:
        command = ["sacct", "--noheader", "--name=tomocensus-none"]
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except FileNotFoundError:
        return True
    except subprocess.TimeoutExpired:
        return False


OUTAGE = (
    "WARNING: this SLURM keeps no accounts (sacct fails). When its controller is silent for a "
    "while, this run may lose its jobs and hang: --profile profiles/slurm/fallback does not."
)
"""What to say where the plugin is not of the version that can be kept from that."""


def forgetting_warning() -> str:
    """Return what to say where SLURM forgets ended jobs before the plugin may ask for them."""
    if accounts_work():
        return ""
    age = _seconds_until_forgotten()
    if age is None or age >= _LEAST_AGE:
        return ""
    return (
        f"WARNING: this SLURM keeps no accounts and forgets ended jobs after {age} s (MinJobAge), "
        "before this run may have asked for them: it may hang. Use --profile "
        f"profiles/slurm/fallback, or have it set to {_LEAST_AGE} s."
    )


def _seconds_until_forgotten() -> int | None:
    """Return for how long SLURM knows a job that ended; None where it does not say."""
    command = ["scontrol", "show", "config"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (FileNotFoundError, subprocess.SubprocessError):
        return None
    found = re.search(r"^MinJobAge\s*=\s*(\d+)", answer.stdout, re.MULTILINE)
    return int(found[1]) if found else None


def check_no_arrays(wanted: str | None) -> None:
    """Raise where jobs would be sent as arrays: the plugin then mixes their outputs, or waits.

    Parameters
    ----------
    wanted : str, optional
        Value of ``--slurm-array-jobs``.

    Raises
    ------
    InputError
        Where it is set.
    """
    if wanted:
        raise InputError(
            f"slurm-array-jobs is set ({wanted}): this version of the SLURM plugin mixes the "
            "outputs of such jobs, or waits for ever. Leave it out; small tomograms can share a "
            "job with --groups segment=gpu --group-components gpu=10 --resources gpu=1."
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
