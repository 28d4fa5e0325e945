import os

import pytest

from tomocensus.errors import InputError
from tomocensus.queue import (
    accounts_work,
    check_no_arrays,
    check_nothing_is_queued,
    forgetting_warning,
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project that ran on SLURM; `squeue` prints the file `answer`."""
    (tmp_path / "a project" / ".snakemake" / "slurm_logs").mkdir(parents=True)
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text(f"#!/bin/sh\nexec /bin/cat {tmp_path}/answer\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(squeue.parent))
    return tmp_path / "a project"


def answer(project, logs):
    lines = [f"{number:<30}{log!s:<400}\n" for number, log in logs.items()]
    (project.parent / "answer").write_text("".join(lines))


def test_a_job_that_goes_on_stops_the_new_run(project):
    log = project / ".snakemake" / "slurm_logs" / "rule_segment" / "one" / "%j.log"
    answer(project, {"7": "/dev/null", "8_1": log, "9": project / "main.log"})
    with pytest.raises(InputError, match=r"1 jobs .* scancel 8_1$"):
        check_nothing_is_queued(project)
    with pytest.raises(InputError, match=r"scancel 8_1$"):
        check_nothing_is_queued(os.path.relpath(project))


def test_other_jobs_do_not_stop_it(project):
    other = project.parent / "other" / ".snakemake" / "slurm_logs" / "%j.log"
    answer(project, {"7": other, "9": project / "main.log", "10": ""})
    check_nothing_is_queued(project)


def test_a_silent_controller_stops_the_new_run(project):
    with pytest.raises(InputError, match="squeue does not answer"):
        check_nothing_is_queued(project)


def test_where_slurm_was_never_used_or_is_not_there_nothing_is_asked(project, monkeypatch):
    (project.parent / "new").mkdir()
    check_nothing_is_queued(project.parent / "new")
    monkeypatch.setenv("PATH", "/nowhere")
    check_nothing_is_queued(project)


def program(project, name, text):
    file = project.parent / "bin" / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize(("status", "works"), [(0, True), (1, False)])
def test_a_slurm_without_accounts_is_known(project, status, works):
    sacct = program(project, "sacct", f"exit {status}")
    assert accounts_work() == works
    sacct.unlink()
    assert accounts_work()


@pytest.mark.parametrize(("age", "told"), [(300, False), (60, True)])
def test_a_slurm_that_forgets_early_is_told(project, age, told):
    program(project, "sacct", "exit 1")
    program(project, "scontrol", f"echo 'JobId = 1'; echo 'MinJobAge               = {age} sec'")
    assert (f"after {age} s (MinJobAge)" in forgetting_warning()) == told
    program(project, "scontrol", "exit 1")
    assert forgetting_warning() == ""
    # With accounts the plugin asks these.
    program(project, "sacct", "exit 0")
    assert forgetting_warning() == ""


def test_arrays_are_refused():
    check_no_arrays(None)
    check_no_arrays("")
    with pytest.raises(InputError, match="slurm-array-jobs is set"):
        check_no_arrays("all")
