"""Runs through the SLURM executor and our profile on a real SLURM."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[2]
PROFILE = REPOSITORY / "profiles" / "slurm"
GPU_RULES = {"segment", "embed"}


def small_project():
    """The module that makes a small project whose stages are fast."""
    path = REPOSITORY / "tests" / "workflow" / "small_project.py"
    spec = importlib.util.spec_from_file_location("small_project", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fast_profile(folder, profile=PROFILE):
    """Copy the profile with what makes a test short: no waiting before the first look at jobs."""
    values = yaml.safe_load((profile / "profile.yaml").read_text())
    values["slurm-init-seconds-before-status-checks"] = 1
    values["seconds-between-status-checks"] = 1
    values["latency-wait"] = 5
    (folder / "profile").mkdir(exist_ok=True)
    (folder / "profile" / "profile.yaml").write_text(yaml.safe_dump(values))
    return folder / "profile"


def command(project, *arguments):
    return [
        sys.executable, "-m", "snakemake", "--directory", str(project),
        "--profile", str(fast_profile(project)), *map(str, arguments),
    ]  # fmt: skip


def snakemake(cluster, project, *arguments, cwd=REPOSITORY, timeout=500):
    return subprocess.run(
        command(project, *arguments),
        cwd=cwd,
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def stand_in(folder, text):
    """Write a workflow with stand-in stages and return the options that run it."""
    (folder / "Snakefile").write_text(text)
    return [
        "--snakefile",
        folder / "Snakefile",
        "--workflow-profile",
        "none",
        "--scheduler",
        "greedy",
    ]


def test_gpu_stages_run_on_gpu_nodes_and_the_others_do_not(cluster, tmp_path):
    small_project().write_project(tmp_path / "project")
    project = tmp_path / "project"
    # Four stages, each of which costs the start of two Snakemakes; the others are CPU stages, too.
    target = "results/one/embeddings.npz"
    done = snakemake(cluster, project, "--configfile", project / "config.yaml", "--", target)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project / target).is_file()
    text = cluster.call("scontrol", "--oneliner", "show", "job")
    placed = {}
    for line in text.splitlines():
        rule = re.search(r"Comment=(?:rule_)?(\w+?)(?:_wildcards_\S*)?\s", line)
        node = re.search(r"\bNodeList=(\S+)", line)
        if rule and str(project) in line:
            placed[rule[1]] = (node[1], "gres/gpu" in line or "gres:gpu" in line)
    assert set(placed) >= GPU_RULES | {"inspect", "cluster"}, text
    for rule, (node, gpu) in placed.items():
        assert node.startswith("gpu") == (rule in GPU_RULES), (rule, node)
        assert gpu == (rule in GPU_RULES), (rule, node)


def test_a_failed_job_is_retried_with_more_and_its_log_is_shown(cluster, tmp_path):
    options = stand_in(
        tmp_path,
        """
rule all:
    input: "retried.txt", "hopeless.txt"

rule retried:
    output: "retried.txt"
    resources: mem_mb=lambda wildcards, attempt: 600 * attempt
    shell: "echo {resources.mem_mb} >> tries; test {resources.mem_mb} -gt 600; touch {output}"

rule hopeless:
    output: "hopeless.txt"
    log: "logs/hopeless.log"
    resources: mem_mb=600
    shell: "echo 'ERROR: the tomogram is broken' > {log}; exit 1"
""",
    )
    done = snakemake(cluster, tmp_path, *options, "--keep-going", "--show-failed-logs")
    assert done.returncode != 0
    assert (tmp_path / "tries").read_text().split() == ["600", "1200"]
    assert (tmp_path / "retried.txt").is_file()
    text = done.stdout + done.stderr
    assert "logs/hopeless.log" in text
    assert "the tomogram is broken" in text


def start(cluster, project, options):
    return subprocess.Popen(
        command(project, *options),
        cwd=REPOSITORY,
        env=cluster.environment,
        stdout=open(project / "output", "w"),
        stderr=subprocess.STDOUT,
    )


SLOW = """
rule all:
    input: "slow.txt", "quick.txt"

rule quick:
    output: "quick.txt"
    resources: mem_mb=600
    shell: "echo quick >> tries; touch {output}"

rule slow:
    output: "slow.txt"
    resources: mem_mb=600
    shell: "echo slow >> tries; test $(grep -c slow tries) -gt 1 || sleep 100; touch {output}"
"""


def wait_for(condition, seconds=200):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def tries(project):
    path = project / "tries"
    return path.read_text().split() if path.is_file() else []


def wait_for_slow_alone(cluster, project):
    wait_for(lambda: set(tries(project)) == {"slow", "quick"} and len(cluster.jobs()) == 1)


def test_a_cancelled_job_is_submitted_again(cluster, tmp_path):
    running = start(cluster, tmp_path, stand_in(tmp_path, SLOW))
    wait_for_slow_alone(cluster, tmp_path)
    cluster.call("scancel", cluster.jobs("R")[0].split()[0])
    assert running.wait(300) == 0, (tmp_path / "output").read_text()
    assert sorted(tries(tmp_path)) == ["quick", "slow", "slow"]


def test_after_a_killed_run_its_jobs_are_ended_and_finished_work_stays(cluster, tmp_path):
    options = stand_in(tmp_path, SLOW)
    running = start(cluster, tmp_path, options)
    wait_for_slow_alone(cluster, tmp_path)
    # The main process must have seen that the quick job ended.
    wait_for(lambda: "Finished jobid: 2" in (tmp_path / "output").read_text())
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    # What docs/cluster.md says: end the jobs of the killed run by its name, unlock, start again.
    names = {line.split()[1] for line in cluster.jobs("R")}
    assert len(names) == 1
    cluster.call("scancel", f"--name={names.pop()}")
    cluster.wait(lambda: not cluster.jobs())
    snakemake(cluster, tmp_path, *options, "--unlock")
    done = snakemake(cluster, tmp_path, *options, "--rerun-incomplete")
    assert done.returncode == 0, done.stdout + done.stderr
    assert tries(tmp_path).count("quick") == 1
    assert tries(tmp_path).count("slow") == 2
