import subprocess
import sys

import pytest

from tomocensus.gpu import claim_gpu, visible_gpus

CLAIM = """
import os, sys
from tomocensus.gpu import claim_gpu
claim_gpu(sys.argv[1], sys.argv[2])
print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with two GPUs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    return tmp_path


def job(machine):
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM, machine / "dev", machine / "locks"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_each_job_takes_its_own_and_the_third_waits(machine):
    first, second = job(machine), job(machine)
    taken = [one.stdout.readline().strip() for one in (first, second)]
    assert sorted(taken) == ["0", "1"]
    third = job(machine)
    # However it ends: a killed job gives its GPU back.
    second.kill()
    assert third.stdout.readline().strip() == taken[1]
    for one in (first, second, third):
        one.kill()
        one.communicate()


@pytest.mark.parametrize("given", ["", "3", "GPU-8f1c"])
def test_what_was_given_is_used(machine, monkeypatch, given):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert claim_gpu(machine / "dev", machine / "locks") is None
    assert visible_gpus(machine / "dev") == [name for name in [given] if name]


def test_one_gpu_or_none_needs_no_choice(machine):
    (machine / "dev" / "nvidia1").unlink()
    assert claim_gpu(machine / "dev", machine / "locks") is None
    assert claim_gpu(machine, machine / "locks") is None
