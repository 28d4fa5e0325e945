"""How far a project is, on one screen and from files alone: ``python -m tomocensus.status DIR``.

Starts nothing, asks no cluster and waits for nobody, so it may be called beside a run.
"""

from __future__ import annotations

import argparse
import base64
import sys
from dataclasses import dataclass
from pathlib import Path

from tomocensus.errors import InputError
from tomocensus.samples import find_config, read_project, read_samples

STAGES = {
    "inspect": "input.json",
    "segment": "segment.json",
    "cluster": "cluster.json",
    "embed": "embed.json",
    "classify": "classify.json",
    "measure": "measure.json",
    "picture": "pictures.json",
}
"""File in ``results/TOMOGRAM/`` whose presence says that a stage is done."""

JOINED = {
    "census": "census.csv",
    "review": "review.csv",
    "evaluate": "evaluation.csv",
    "report": "report.html",
}
STATES = ("done", "running", "failed", "left")
MOST_FAILURES = 10
# Bytes at the end of a log that are looked at: a traceback of PyTorch has some thousand.
END_OF_LOG = 2**18


@dataclass(frozen=True)
class Job:
    """One stage of one tomogram.

    Parameters
    ----------
    stage : str
        Name of the rule.
    tomogram : str
        Empty for what joins all tomograms.
    state : str
        ``done``, ``running``, ``failed`` or ``left``.
    why : str
        Last line of the log of a failed job.
    log : str
        Its log.
    """

    stage: str
    tomogram: str
    state: str
    why: str = ""
    log: str = ""


def project_status(folder: str | Path, sheet: str | None = None) -> list[Job]:
    """Tell the state of every stage of every tomogram of a project.

    A job runs where Snakemake has marked an output as incomplete and a run holds the project's
    lock. It failed where its log ends in an error and its output is missing. Whether something
    done has become stale is Snakemake's to say (``snakemake -n``).

    Parameters
    ----------
    folder : path-like
        The project (`snakemake --directory`).
    sheet : str, optional
        The sample sheet, relative to it; by default the one that its configuration names.

    Raises
    ------
    InputError
        Where there is no such project or its sheet is faulty.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Name the project that Snakemake runs in.")
    if sheet is None and find_config(folder) is not None:
        samples = read_project(folder)[1]
    else:
        samples = read_samples(sheet or "config/tomograms.tsv", folder)
    incomplete = incomplete_files(folder) if is_locked(folder) else set()
    jobs = []
    for stage, file in STAGES.items():
        for name, sample in samples.items():
            job = _job(folder, stage, name, f"results/{name}/{file}", incomplete)
            # The report has pictures of some tomograms only, and given maps and labels seldom need
            # the segmenter: those that were begun are told.
            given = stage == "segment" and (sample.probability or sample.labels)
            if job.state != "left" or not (given or stage == "picture"):
                jobs.append(job)
    jobs += [
        _job(folder, stage, "", f"results/{file}", incomplete) for stage, file in JOINED.items()
    ]
    return jobs


def is_locked(folder: Path) -> bool:
    """Tell whether a run holds the project (or one was killed and left its lock)."""
    locks = folder / ".snakemake" / "locks"
    return locks.is_dir() and any(locks.iterdir())


def incomplete_files(folder: Path) -> set[str]:
    """Return the outputs that Snakemake has marked as being written."""
    marks = folder / ".snakemake" / "incomplete"
    if not marks.is_dir():
        return set()
    found = set()
    for path in marks.rglob("*"):
        if path.is_file():
            # Long names are cut into folders that begin with @.
            encoded = "".join(part.removeprefix("@") for part in path.relative_to(marks).parts)
            try:
                found.add(base64.b64decode(encoded, altchars=b"-_").decode("utf-8"))
            except ValueError:
                continue
    return found


def _job(folder: Path, stage: str, tomogram: str, output: str, incomplete: set[str]) -> Job:
    """Tell the state of one job."""
    log = f"logs/{stage}/{tomogram}.log" if tomogram else f"logs/{stage}.log"
    if output in incomplete:
        return Job(stage, tomogram, "running", log=log)
    if (folder / output).is_file():
        return Job(stage, tomogram, "done", log=log)
    why = last_line(folder / log)
    if why:
        return Job(stage, tomogram, "failed", why, log)
    return Job(stage, tomogram, "left", log=log)


def last_line(log: Path) -> str:
    """Return the last line of a log that ends in an error; nothing where it does not."""
    try:
        with open(log, "rb") as stream:
            stream.seek(max(0, log.stat().st_size - END_OF_LOG))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return ""
    failed = any(line.startswith(("ERROR:", "Traceback ")) for line in lines)
    return lines[-1] if failed else ""


def screen(jobs: list[Job], locked: bool, width: int = 100) -> str:
    """Return a table of stages and the failed jobs as text, lines cut to `width`."""
    lines = ["a run holds the project" if locked else "no run holds the project", ""]
    lines.append(f"{'stage':<12}" + "".join(f"{state:>9}" for state in STATES))
    for stage in [*STAGES, *JOINED]:
        own = [job.state for job in jobs if job.stage == stage]
        if own:
            lines.append(f"{stage:<12}" + "".join(f"{own.count(state):>9}" for state in STATES))
    states = [job.state for job in jobs]
    lines.append(f"{'all':<12}" + "".join(f"{states.count(state):>9}" for state in STATES))
    failed = [job for job in jobs if job.state == "failed"]
    if failed:
        lines += ["", "failed:"]
    for job in failed[:MOST_FAILURES]:
        lines += [f"  {job.stage} {job.tomogram}: {job.why}"[:width], f"    {job.log}"]
    if len(failed) > MOST_FAILURES:
        lines.append(f"  and {len(failed) - MOST_FAILURES} more")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the status of a project; return 1 where something failed, 2 for a wrong folder."""
    options = argparse.ArgumentParser(prog="python -m tomocensus.status", description=__doc__)
    options.add_argument("project", nargs="?", default=".", help="the project's folder")
    options.add_argument(
        "--sheet", help="the sample sheet in it (default: the one its configuration names)"
    )
    chosen = options.parse_args(arguments)
    try:
        jobs = project_status(chosen.project, chosen.sheet)
    except InputError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2
    print(screen(jobs, is_locked(Path(chosen.project))))
    return int(any(job.state == "failed" for job in jobs))


if __name__ == "__main__":
    sys.exit(main())
