"""Time and memory of a dry run with many tomograms, and the scheduler's cost for each job.

    python benchmarks/scale.py --tomograms 10000
    python benchmarks/scale.py --jobs 2000

The first makes a project of empty volumes (1 KiB each) and a stand-in segmenter and asks the real
workflow for a dry run. The second runs stand-in stages (`shell: touch`) under the same profile; a
job's own process (about 20 ms of CPU) is part of the figure.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tomocensus.io import write_mrc
from tomocensus.models import save_model
from tomocensus.volume import Volume

REPOSITORY = Path(__file__).resolve().parents[1]

STAND_IN = """
rule all:
    input: expand("c/{{name}}", name=range({number}))

rule a:
    output: "a/{{name}}"
    shell: "touch {{output}}"

rule b:
    input: "a/{{name}}"
    output: "b/{{name}}"
    shell: "touch {{output}}"

rule c:
    input: "b/{{name}}"
    output: "c/{{name}}"
    shell: "touch {{output}}"
"""


def snakemake(*arguments):
    """Run; return seconds, CPU seconds and the largest memory in MB."""
    command = [sys.executable, "-m", "snakemake", *map(str, arguments)]
    before, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout[-3000:] + done.stderr[-3000:])
    seconds, now = time.monotonic() - before, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return seconds, cpu, now.ru_maxrss / 1024


def dry_run(folder, number, more):
    """Make a project and measure two dry runs: the first hashes the inputs, the second does not."""
    (folder / "data").mkdir()
    write_mrc(folder / "data" / "0.mrc", Volume(np.zeros((4, 8, 8), np.float32), 10.0))
    content = (folder / "data" / "0.mrc").read_bytes()
    rows = []
    for index in range(number):
        (folder / "data" / f"{index}.mrc").write_bytes(content)
        rows.append(f"t{index}\tdata/{index}.mrc\n")
    (folder / "tomograms.tsv").write_text("tomogram\tpath\n" + "".join(rows))
    (folder / "config.yaml").write_text("tomograms: tomograms.tsv\n")
    card = {"kind": "segmenter", "heads": ["probability"]}
    save_model(folder / "models" / "segmenter", card, {"x": np.zeros(1, np.float32)})
    for which in ("first", "second"):
        seconds, cpu, memory = snakemake(
            "--directory", folder, "--configfile", folder / "config.yaml", "--cores", 2,
            "-n", "--quiet", *more,
        )  # fmt: skip
        print(
            f"{number} tomograms, {which} dry run: {seconds:.1f} s ({cpu:.1f} s of CPU), "
            f"{memory:.0f} MB",
            flush=True,
        )


def jobs(folder, number):
    """Run stand-in stages."""
    (folder / "Snakefile").write_text(STAND_IN.format(number=-(-number // 3)))
    cores = os.cpu_count()
    seconds, cpu, memory = snakemake(
        "--directory", folder, "--snakefile", folder / "Snakefile", "--cores", cores,
        "--workflow-profile", REPOSITORY / "profiles" / "default",
        "--scheduler-subsample", 50, "--quiet", "all",
    )  # fmt: skip
    print(
        f"{number} jobs: {1000 * seconds / number:.1f} ms a job "
        f"({1000 * cpu / number:.1f} ms of CPU), {memory:.0f} MB",
        flush=True,
    )


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tomograms", type=int, default=0)
    options.add_argument("--batches", type=int, default=0, help="only the first of so many batches")
    options.add_argument("--jobs", type=int, default=0)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if chosen.tomograms:
            batch = ["--batch", f"census=1/{chosen.batches}", "--", "results/census.csv"]
            dry_run(Path(temporary), chosen.tomograms, batch if chosen.batches else [])
    with tempfile.TemporaryDirectory() as temporary:
        if chosen.jobs:
            jobs(Path(temporary), chosen.jobs)
