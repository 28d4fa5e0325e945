import json

import pytest

from tomocensus.errors import InputError
from tomocensus.queue import check_nothing_is_queued, submitted_jobs


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with marks of jobs 7 and 8 and of a local one; `squeue` prints a file."""
    marks = tmp_path / ".snakemake" / "incomplete" / "@long"
    marks.mkdir(parents=True)
    for name, number in {"a": "7", "b": "7", "c": "8", "d": None}.items():
        (marks / name).write_text(json.dumps({"external_jobid": number}))
    (marks / "broken").write_text("")
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text(f"#!/bin/sh\nexec /bin/cat {tmp_path}/answer\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(squeue.parent))
    return tmp_path


def test_jobs_are_read_from_the_marks(project):
    assert submitted_jobs(project) == {"7", "8"}
    assert submitted_jobs(project / "nothing") == set()


def test_a_job_that_goes_on_stops_the_new_run(project):
    (project / "answer").write_text("5\n8\n")
    with pytest.raises(InputError, match=r"1 jobs .* scancel 8$"):
        check_nothing_is_queued(project)
    (project / "answer").write_text("5\n")
    check_nothing_is_queued(project)


def test_a_silent_controller_stops_the_new_run(project):
    with pytest.raises(InputError, match="squeue does not answer"):
        check_nothing_is_queued(project)


def test_without_slurm_nothing_is_asked(project, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    check_nothing_is_queued(project)
