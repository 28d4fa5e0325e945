"""Snakemake's graph of many jobs in less memory: the same graph, a third smaller.

Snakemake keeps some 20 kB for each job, and ten thousand tomograms are sixty thousand jobs. Most of
it is small objects with tables of attributes. Some of them are made smaller here, none behaves
otherwise, and only in the version of Snakemake that this was written for and is tested with: any
other is left as it is and merely needs more memory.
"""

import snakemake
from snakemake import io, iocontainers, jobs

VERSION = "9.27.1"
"""The version of Snakemake whose objects are known here."""


def save_memory() -> bool:
    """Make Snakemake's graphs smaller from now on.

    Returns
    -------
    bool
        Whether this is the version for which that is known to be safe.
    """
    if snakemake.__version__ != VERSION:
        return False
    io.AnnotatedString.__new__ = _new_string
    iocontainers.AttributeGuard.__new__ = _shared_guard
    iocontainers.Namedlist._allowed_overrides = property(lambda _: _OVERRIDES, lambda *_: None)
    jobs.Job.__init__ = _new_job
    jobs.Job.output_mintime = property(_output_mintime)
    return True


class SlimString(io.AnnotatedString):
    """A file's name with flags; attributes in slots take 320 bytes less than in a table."""

    __slots__ = ("_flags", "callable")


def _new_string(cls: type, value: object) -> io.AnnotatedString:
    """Make the slim kind where the plain one is asked for; it is one by inheritance."""
    return str.__new__(SlimString if cls is io.AnnotatedString else cls, value)


_guards: dict[str | None, iocontainers.AttributeGuard] = {}
# What every list of files would keep in a list of its own, and never changes.
_OVERRIDES = ("index", "sort")


def _shared_guard(cls: type, name: str | None = None) -> iocontainers.AttributeGuard:
    """Return the one guard of a name: it holds nothing but the name, and every list has two."""
    if name not in _guards:
        _guards[name] = object.__new__(cls)
    return _guards[name]


_init_of_snakemake = jobs.Job.__init__
_output_mintime_of_snakemake = jobs.Job.output_mintime.fget
# Filled while a job is made, then only read.
_FLAGGED = (
    "temp_output", "protected_output", "touch_output", "pipe_or_service_output", "_queue_input"
)  # fmt: skip
_NONE = frozenset()


def _new_job(job: jobs.Job, *arguments, **options) -> None:
    """Make a job; its sets of flagged files are mostly empty, and an empty set takes 216 bytes."""
    _init_of_snakemake(job, *arguments, **options)
    for name in _FLAGGED:
        if not getattr(job, name):
            setattr(job, name, _NONE)


async def _output_mintime(job: jobs.Job) -> float | None:
    """Return the time of a job's oldest output, file by file.

    Snakemake starts a task for each file of all jobs at once and waits for them in the end, which
    takes more memory than any other moment. For local files nothing is won by that.
    """
    files = [*job.output, *([job.benchmark] if job.benchmark else [])]
    if any(file.is_storage for file in files):
        return await _output_mintime_of_snakemake(job)
    times = [(await file.mtime()).local_or_storage() for file in files if await file.exists()]
    return min(times, default=None)
