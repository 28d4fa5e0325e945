"""After a fault of any kind the next run ends right, with the bytes of an undisturbed one."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from small_project import REPOSITORY, output, results, run, start, write_project

pytestmark = pytest.mark.slow

STAGES = (
    "inspect_input", "segment", "cluster", "embed", "classify", "measure", "picture", "census",
    "evaluate", "review", "report",
)  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A project that ran through, and another like it that has not begun."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_project(folder / "project")
    shutil.copytree(folder / "project", folder / "new")
    status, text = run(folder / "project")
    assert status == 0, text
    return folder


@pytest.fixture
def project(undisturbed, tmp_path):
    """A project that has not begun."""
    return shutil.copytree(undisturbed / "new", tmp_path / "project")


def as_undisturbed(project, undisturbed):
    """Whether a project holds the results of the undisturbed run, byte by byte, and no more."""
    found, expected = results(project), results(undisturbed / "project")
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    return True


# Python reads this at its start: each stage that MOMENTS names is killed once, the first time it
# renames an output into place, just before or just after; `all` also kills Snakemake.
KILLER = """
import json, os, pathlib, signal, sys

script = pathlib.Path((sys.orig_argv + ["", ""])[1])
moment = json.loads(os.environ.get("MOMENTS", "{}")).get(script.stem)
mark = pathlib.Path(__file__).with_name(script.stem)
if script.parent.name == "scripts" and moment and not mark.exists():
    rename = os.replace

    def replace(*names, **options):
        if moment != "before":
            rename(*names, **options)
        mark.touch()
        if moment == "all":
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace
"""


def killing(folder, moments):
    """The environment in which stages are killed at given moments."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(KILLER)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "MOMENTS": json.dumps(moments)}


def killed(folder):
    return {path.name for path in folder.iterdir() if not path.suffix and path.is_file()}


@pytest.mark.parametrize("first", ["before", "after"])
def test_every_stage_is_killed_once_while_it_writes(project, undisturbed, tmp_path, first):
    other = {"before": "after", "after": "before"}[first]
    moments = {stage: (first, other)[number % 2] for number, stage in enumerate(STAGES)}
    environment = killing(tmp_path / "killer", moments)
    # A killed job is a failed job: one run with a second attempt for each says what two runs do.
    status = start(project, "--retries", "1", env=environment).wait(300)
    assert status == 0, output(project)
    assert killed(tmp_path / "killer") == set(STAGES)
    assert as_undisturbed(project, undisturbed)


def test_the_machine_stops_while_stages_write(project, undisturbed, tmp_path):
    """Snakemake and its jobs are killed together: nobody is left to tidy up."""
    stages = ("segment", "cluster", "measure", "census")
    environment = killing(tmp_path / "killer", dict.fromkeys(stages, "all"))
    for stage in stages:
        main = start(project, env=environment, start_new_session=True)
        assert main.wait(300) == -signal.SIGKILL
        assert stage in killed(tmp_path / "killer")
        assert run(project, "--unlock")[0] == 0
    status, text = run(project)
    assert status == 0, text
    assert as_undisturbed(project, undisturbed)


def test_two_runs_at_once(project, undisturbed):
    """The second says that the first is there, and does it no harm."""
    first = start(project)
    while not any(project.glob(".snakemake/locks/*")):
        assert first.poll() is None, output(project)
        time.sleep(0.05)
    second = subprocess.run(
        first.args, cwd=REPOSITORY, capture_output=True, text=True, timeout=100, check=False
    )
    assert second.returncode != 0
    assert "cannot be locked" in second.stdout + second.stderr
    assert first.wait(300) == 0, output(project)
    assert as_undisturbed(project, undisturbed)


@contextlib.contextmanager
def mounted(folder, *options):
    """Mount something at a folder; skip where that is not allowed."""
    done = subprocess.run(["mount", *options, folder], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no right to mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def test_a_full_disk(project, undisturbed):
    """The results of `one` take 0.4 MB; the stages fail one after the other as space is given."""
    (project / "results").mkdir()
    with mounted(project / "results", "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
        for size in ("64k", "200k"):
            remount(project / "results", f"size={size}")
            status, text = run(project)
            assert status != 0
            assert "No space left on device. Free some space" in text, text
        remount(project / "results", "size=10m")
        status, text = run(project)
        assert status == 0, text
        assert as_undisturbed(project, undisturbed)


def test_results_that_may_not_be_written(project, undisturbed):
    (project / "results").mkdir()
    with mounted(project / "results", "-t", "tmpfs", "tmpfs"):
        remount(project / "results", "ro")
        status, text = run(project)
        assert status != 0
        assert "cannot be written" in text, text
        assert run(project, "-n")[0] == 0
        remount(project / "results", "rw")
        status, text = run(project)
        assert status == 0, text
        assert as_undisturbed(project, undisturbed)


def test_a_project_that_may_not_be_written(tmp_path):
    """One line in place of Snakemake's traceback; nothing can be kept, not even its own notes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with mounted(folder, "-t", "tmpfs", "tmpfs"):
        project = folder / "project"
        write_project(project)
        remount(folder, "ro")
        command = [sys.executable, "-m", "snakemake", "--directory", str(project), "--cores", "1"]
        command += ["--configfile", str(project / "config.yaml")]
        done = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, timeout=100, check=False
        )
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert ".snakemake cannot be written" in text, text
    assert "Traceback" not in text, text
