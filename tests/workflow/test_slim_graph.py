"""Snakemake's graph in less memory is the graph that it makes by itself."""

import re
import shutil
import subprocess
import sys

import pytest
from small_project import REPOSITORY, write_project, write_sheet

pytestmark = pytest.mark.slow

PARTS = ("Snakefile", "workflow", "src", "profiles", "envs", "config", "models")


@pytest.fixture(scope="module")
def clones(tmp_path_factory):
    """This repository, and one in which Snakemake is of another version than the known one."""
    folder = tmp_path_factory.mktemp("clones")
    for part in PARTS:
        source = REPOSITORY / part
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / part)
    module = folder / "workflow" / "slim_graph.py"
    module.write_text(re.sub(r'(?m)^VERSION = ".*"$', 'VERSION = "none"', module.read_text()))
    return REPOSITORY, folder


def snakemake(clone, project, *arguments):
    command = [sys.executable, "-m", "snakemake", "--directory", str(project), "--cores", "2"]
    command += ["--configfile", str(project / "config.yaml"), *arguments]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def graph(clone, project):
    """Every job that a dry run prints, with inputs, outputs, resources and reason; the counts."""
    text = snakemake(clone, project, "-n")
    text = re.sub(r"^\[.*\]$", "", text, flags=re.MULTILINE)
    # Numbers of jobs follow the hashes of strings, which differ from run to run.
    jobs = re.findall(r"^(?:local)?rule \w+:\n(?:    .*\n)+", text, flags=re.MULTILINE)
    assert jobs
    jobs = [re.sub(r"jobid: \d+", "", job) for job in jobs]
    return sorted([sort_lists(line) for line in job.splitlines()] for job in jobs), counts(text)


def sort_lists(line):
    """Snakemake prints the files of a reason in the order of a set."""
    return ", ".join(sorted(re.split(r"[,;:] ", line)))


def counts(text):
    return re.search(r"^job +count\n(.*?)^total.*?$", text, re.MULTILINE | re.DOTALL)[0]


def test_the_graph_is_the_same_with_and_without(tmp_path, clones):
    project = tmp_path / "project"
    write_project(project, ("one", "two"))
    slim, plain = (graph(clone, project) for clone in clones)
    assert slim == plain
    assert len(slim[0]) > 10
    # What is done and what a change makes stale is judged alike, too.
    snakemake(clones[0], project, "--until", "inspect")
    write_sheet(project, ("one", "two"), polarity={"one": "bright", "two": "dark"})
    slim, plain = (graph(clone, project) for clone in clones)
    assert slim == plain
    assert "Params have changed" in str(slim)


CHECK = """
import sys
import snakemake
from snakemake import io, iocontainers, jobs

snakemake.__version__ = sys.argv[2] or snakemake.__version__
classes = (io.AnnotatedString, iocontainers.AttributeGuard, iocontainers.Namedlist, jobs.Job)
before = [dict(vars(one)) for one in classes]
sys.path.insert(0, sys.argv[1])
from slim_graph import save_memory

done = save_memory()
print(done, before != [dict(vars(one)) for one in classes])
"""


@pytest.mark.parametrize(("version", "expected"), [("", "True True"), ("9.28.0", "False False")])
def test_only_the_known_version_is_patched(version, expected):
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(REPOSITORY / "workflow"), version],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == expected.split()
