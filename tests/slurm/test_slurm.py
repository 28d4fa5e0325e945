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
FALLBACK = PROFILE / "fallback"
# What the workflow does at its start.
GUARD = """
onstart:
    from tomocensus.queue import check_nothing_is_queued
    check_nothing_is_queued(".")
"""
GPU_RULES = {"segment", "embed"}


def small_project():
    """The module that makes a small project whose stages are fast."""
    path = REPOSITORY / "tests" / "workflow" / "small_project.py"
    spec = importlib.util.spec_from_file_location("small_project", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fast_profile(folder, profile=PROFILE):
    """Copy a profile with what makes a test short: no waiting before the first look at jobs."""
    values = yaml.safe_load((profile / "profile.yaml").read_text())
    values["seconds-between-status-checks"] = 1
    values["latency-wait"] = 5
    if values["executor"] == "slurm":
        values["slurm-init-seconds-before-status-checks"] = 1
    else:
        values["cluster-generic-status-cmd"] = str(profile / "status.sh")
    copy = folder / "profile"
    copy.mkdir(exist_ok=True)
    (copy / "profile.yaml").write_text(yaml.safe_dump(values))
    return copy


def command(project, *arguments, profile=PROFILE):
    return [
        sys.executable, "-m", "snakemake", "--directory", str(project),
        "--profile", str(fast_profile(project, profile)), *map(str, arguments),
    ]  # fmt: skip


def snakemake(cluster, project, *arguments, profile=PROFILE, timeout=500):
    return subprocess.run(
        command(project, *arguments, profile=profile),
        cwd=REPOSITORY,
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
        "--keep-going",
        "--show-failed-logs",
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


def start(cluster, project, options, profile=PROFILE):
    return subprocess.Popen(
        command(project, *options, profile=profile),
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


FATES = """
rule all:
    input: expand("{fate}.txt", fate=["quick", "memory", "time", "node", "cancelled", "broken"])

rule quick:
    output: "quick.txt"
    resources: mem_mb=600
    shell: "echo quick >> tries; touch {output}"

rule memory:
    output: "memory.txt"
    resources: mem_mb=lambda wildcards, attempt: 600 * attempt
    shell:
        "echo memory {resources.mem_mb} >> tries;"
        "python3 -c 'import time; x = bytes([1]) * (700 * 2**20); time.sleep(5)';"
        "touch {output}"

rule time:
    output: "time.txt"
    resources: mem_mb=600, runtime=lambda wildcards, attempt: 1 if attempt == 1 else 9
    shell:
        "echo time {resources.runtime} >> tries; test {resources.runtime} -gt 1 || sleep 300;"
        "touch {output}"

rule node:
    output: "node.txt"
    resources: mem_mb=600, slurm_partition="gpu"
    shell:
        "echo node >> tries; test $(grep -c node tries) -gt 1 || sleep 300;"
        "touch {output}"

rule cancelled:
    output: "cancelled.txt"
    resources: mem_mb=600
    shell:
        "echo cancelled >> tries; test $(grep -c cancelled tries) -gt 1 || sleep 300;"
        "touch {output}"

rule broken:
    output: "broken.txt"
    log: "logs/broken.log"
    resources: mem_mb=600
    shell:
        "echo broken >> tries; test -e mended || echo 'ERROR: the tomogram is broken' > {log};"
        "test -e mended; touch {output}"
"""


def job_of(cluster, rule):
    """Number and node of the running job of a rule."""
    for line in cluster.call("scontrol", "--oneliner", "show", "job", check=False).splitlines():
        if f"Comment=rule_{rule} " in line and "JobState=RUNNING" in line:
            number, node = (re.search(rf"\b{key}=(\S+)", line)[1] for key in ("JobId", "NodeList"))
            return number, node
    return None


def test_each_fate_is_survived_and_nothing_finished_is_done_again(cluster, tmp_path):
    """Out of memory, out of time, a dead node, a cancelled job, a broken tomogram: in one run."""
    options = stand_in(tmp_path, FATES)
    running = start(cluster, tmp_path, options)
    wait_for(lambda: {"node", "cancelled"} <= set(tries(tmp_path)) or running.poll() is not None)
    assert running.poll() is None, (tmp_path / "output").read_text()
    _, node = job_of(cluster, "node")
    cluster.call("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    cluster.call("scancel", job_of(cluster, "cancelled")[0])
    try:
        assert running.wait(300) != 0
    finally:
        # It may have come back by itself.
        cluster.call("scontrol", "update", f"nodename={node}", "state=resume", check=False)
    text = (tmp_path / "output").read_text()
    assert {path.stem for path in tmp_path.glob("*.txt")} == {
        "quick", "memory", "time", "node", "cancelled"
    }, text  # fmt: skip
    lines = sorted((tmp_path / "tries").read_text().splitlines())
    assert lines == [
        "broken", "broken", "cancelled", "cancelled", "memory 1200", "memory 600", "node", "node",
        "quick", "time 1", "time 9",
    ], text  # fmt: skip
    # The main output leads to the log of what failed for good, and shows it.
    assert "logs/broken.log" in text
    assert "the tomogram is broken" in text
    (tmp_path / "mended").touch()
    done = snakemake(cluster, tmp_path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted((tmp_path / "tries").read_text().splitlines()) == sorted([*lines, "broken"])


GROUPED = """
resource_scopes:
    gpu="local",

rule all:
    input: expand("{tomogram}.txt", tomogram=range(4))

rule segment:
    output: "{tomogram}.txt"
    threads: 2
    resources: gpu=1, mem_mb=600, runtime=7
    shell: "echo $CUDA_VISIBLE_DEVICES >> tries; touch {output}"
"""


def test_small_tomograms_share_a_job_and_its_one_gpu(cluster, tmp_path):
    """As docs/cluster.md says: one after the other, with the cores and the memory of one."""
    options = stand_in(tmp_path, GROUPED)
    groups = ["--groups", "segment=gpu", "--group-components", "gpu=2", "--resources", "gpu=1"]
    done = snakemake(cluster, tmp_path, *options, *groups)
    assert done.returncode == 0, done.stdout + done.stderr
    text = cluster.call("scontrol", "--oneliner", "show", "job")
    jobs = [line for line in text.splitlines() if str(tmp_path) in line]
    assert len(jobs) == 2, text
    for job in jobs:
        assert re.search(r"\bNodeList=gpu", job), job
        assert re.search(r"gres[/:]gpu[:=]1\b", job), job
        assert " NumNodes=1 NumCPUs=2 " in job, job
        assert " TRES=cpu=2,mem=600M," in job, job
        assert " TimeLimit=00:14:00 " in job, job
    assert len(tries(tmp_path)) == 4
    assert set(tries(tmp_path)) <= {"0", "1"}


# What the workflow does at its start, too.
ALONE = f"""
import sys
sys.path.append("{REPOSITORY}/workflow")

onstart:
    from slurm_plugin import ask_queue_alone
    assert ask_queue_alone()
"""


@pytest.mark.parametrize("profile", [PROFILE, FALLBACK], ids=["slurm", "fallback"])
def test_a_silent_controller_loses_no_job(cluster, tmp_path, profile):
    """There is no accounting here: what the plugin does by itself hangs."""
    options = stand_in(tmp_path, ALONE + SLOW.replace("sleep 100", "sleep 15"))
    running = start(cluster, tmp_path, options, profile)
    wait_for(lambda: set(tries(tmp_path)) == {"slow", "quick"})
    controller = cluster.pid("slurmctld")
    os.kill(controller, signal.SIGSTOP)
    try:
        time.sleep(20)
    finally:
        os.kill(controller, signal.SIGCONT)
    assert running.wait(200) == 0, (tmp_path / "output").read_text()
    assert sorted(tries(tmp_path)) == ["quick", "slow"]


def test_after_a_killed_run_no_job_is_doubled_and_finished_work_stays(cluster, tmp_path):
    options = stand_in(tmp_path, GUARD + SLOW)
    running = start(cluster, tmp_path, options)
    wait_for_slow_alone(cluster, tmp_path)
    # The main process must have seen that the quick job ended.
    wait_for(lambda: "Finished jobid: 2" in (tmp_path / "output").read_text())
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    (number,) = (line.split()[0] for line in cluster.jobs("R"))
    snakemake(cluster, tmp_path, *options, "--unlock")
    second = snakemake(cluster, tmp_path, *options)
    assert second.returncode != 0
    assert f"scancel {number}" in second.stdout + second.stderr
    cluster.call("scancel", number)
    cluster.wait(lambda: not cluster.jobs())
    done = snakemake(cluster, tmp_path, *options, "--rerun-incomplete")
    assert done.returncode == 0, done.stdout + done.stderr
    assert tries(tmp_path).count("quick") == 1
    assert tries(tmp_path).count("slow") == 2
