"""A throw-away SLURM on one machine: a CPU node and two GPU nodes with two pretended GPUs each."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

NODES = ("cpu1", "gpu1", "gpu2")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun")
SEARCH = os.environ["PATH"] + os.pathsep + "/usr/sbin:/sbin"

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.sock
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=bf_interval=1,sched_min_interval=0,batch_sched_delay=0
DefMemPerCPU=100
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=300
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=2
InactiveLimit=0
NodeName=cpu1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8 RealMemory=32000
NodeName=gpu1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} \\
  CPUs=8 RealMemory=32000 Gres=gpu:2
NodeName=gpu2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[3]} \\
  CPUs=8 RealMemory=32000 Gres=gpu:2
PartitionName=cpu Nodes=cpu1 Default=YES MaxTime=60 State=UP
PartitionName=gpu Nodes=gpu1,gpu2 MaxTime=60 State=UP
"""


def free_ports(number):
    sockets = [socket.socket() for _ in range(number)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


class Cluster:
    """The daemons, their state in one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = {
            **os.environ,
            "SLURM_CONF": f"{folder}/slurm.conf",
            "PATH": f"{folder}/bin{os.pathsep}{SEARCH}",
        }

    def call(self, *command, check=True):
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, check=check
        ).stdout

    def start(self):
        for part in ("log", "run", "state", "dev", "bin", "munge", *(f"spool/{n}" for n in NODES)):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        (self.folder / "munge").chmod(0o711)
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o600)
        for number in range(2):
            # slurmd wants a character device; a link to one needs no privilege.
            (self.folder / "dev" / f"gpu{number}").symlink_to("/dev/null")
        text = CONFIGURATION.format(
            folder=self.folder, host=socket.gethostname().partition(".")[0], ports=free_ports(4)
        )
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text(
            f"AutoDetect=off\nNodeName=gpu1,gpu2 Name=gpu File={self.folder}/dev/gpu[0-1]\n"
        )
        # The jobstep plugin strips SLURM_CONF from the environment of its srun.
        wrapper = self.folder / "bin" / "srun"
        srun = shutil.which("srun", path=SEARCH)
        wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {srun} "$@"\n')
        wrapper.chmod(0o755)
        self.call(
            "munged", "--force", f"--key-file={self.folder}/munge.key",
            f"--socket={self.folder}/munge/munge.sock", f"--pid-file={self.folder}/run/munged.pid",
            f"--log-file={self.folder}/log/munged.log", f"--seed-file={self.folder}/munge.seed",
        )  # fmt: skip
        self.start_controller()
        for node in NODES:
            self.call("slurmd", "-N", node)
        self.wait(
            lambda: self.call("sinfo", "-h", "-N", "-o", "%t").split().count("idle") == len(NODES)
        )

    def start_controller(self):
        self.call("slurmctld")
        self.wait(lambda: "is UP" in self.call("scontrol", "ping", check=False))

    def wait(self, condition, seconds=30):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                logs = [path.read_text()[-1500:] for path in self.folder.glob("log/*.log")]
                raise TimeoutError("SLURM did not get ready\n" + "\n".join(logs))
            time.sleep(0.2)

    def pid(self, name):
        return int((self.folder / "run" / f"{name}.pid").read_text())

    def stop_daemon(self, name):
        """End one of our daemons by its process id and wait for it."""
        try:
            pid = self.pid(name)
            os.kill(pid, signal.SIGTERM)
        except (OSError, ValueError):
            return
        end = time.monotonic() + 10
        while time.monotonic() < end and _lives(pid):
            time.sleep(0.1)
        if _lives(pid):
            os.kill(pid, signal.SIGKILL)

    def jobs(self, states="PD,R,CG"):
        return self.call("squeue", "-h", "-t", states, "-o", "%i %j %T", check=False).splitlines()

    def cancel_all(self):
        for line in self.jobs("PD,R"):
            self.call("scancel", line.split()[0], check=False)
        self.wait(lambda: not self.jobs())

    def stop(self):
        with contextlib.suppress(subprocess.SubprocessError, TimeoutError):
            self.cancel_all()
        for name in (*(f"slurmd.{node}" for node in NODES), "slurmctld", "munged"):
            self.stop_daemon(name)
        self.kill_left()

    def kill_left(self):
        """End what outlives its daemon by design (jobs of a node that was down): by our folder."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                ours = os.fsencode(f"{self.folder}/") in (process / "environ").read_bytes()
                if ours and int(process.name) != os.getpid():
                    os.kill(int(process.name), signal.SIGKILL)


def _lives(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.fixture(scope="session")
def slurm():
    """Start the cluster; skip with the reason where it cannot be."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=SEARCH) is None]
    if missing:
        pytest.skip(f"SLURM is not installed: {', '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("starting SLURM's daemons takes root")
    pytest.importorskip("snakemake_executor_plugin_slurm")
    # A short path: sockets' names may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        cluster = Cluster(Path(folder))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture
def cluster(slurm):
    """The cluster without jobs of an earlier test."""
    yield slurm
    slurm.cancel_all()
