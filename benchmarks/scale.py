"""Time and memory of a dry run with many tomograms, and the scheduler's cost for each job.

    python benchmarks/scale.py --tomograms 10000
    python benchmarks/scale.py --jobs 2000
    python benchmarks/scale.py --tables 2000
    python benchmarks/scale.py --megavoxels 38

The first makes a project of empty volumes (1 KiB each) and a stand-in segmenter and asks the real
workflow for a dry run. The second runs stand-in stages (`shell: touch`) under the same profile; a
job's own process (about 20 ms of CPU) is part of the figure. The third joins and counts tables of
1,000 instances each and makes the report's page of them. The fourth scores a labelmap against the
truth.
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
import pandas as pd

from tomocensus.census import census
from tomocensus.evaluate import evaluate_tomogram
from tomocensus.io import write_mrc
from tomocensus.models import save_model
from tomocensus.report import build_report
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


def tables(number, each=1000):
    """Join instance tables, count, and make a page."""
    rng = np.random.default_rng(0)
    kinds = ["ribosome", "vesicle", "er", "unknown"]
    columns = ("confidence", "equivalent_diameter_angstrom", "volume_angstrom3")
    parts = [
        pd.DataFrame(
            {
                "tomogram": f"t{index}",
                "group": "a",
                "instance": np.arange(1, each + 1),
                "class": rng.choice(kinds, each),
                **{name: rng.random(each) for name in columns},
            }
        )
        for index in range(number)
    ]
    inputs = [
        {"tomogram": f"t{index}", "group": "a", "shape": [300, 928, 960], "voxel_size": 10.0}
        for index in range(number)
    ]
    used = time.process_time()
    instances, counts = census(parts, inputs)
    joined = time.process_time()
    page = build_report({}, instances, counts)
    print(
        f"{number} tables of {each} instances: {joined - used:.1f} s of CPU, "
        f"page {time.process_time() - joined:.1f} s, {len(page) / 1e6:.1f} MB",
        flush=True,
    )


def scores(megavoxels):
    """Score a labelmap of 400 boxes."""
    side = int((megavoxels * 1e6) ** (1 / 3))
    rng = np.random.default_rng(0)
    truth = np.zeros((side,) * 3, np.int16)
    for number in range(1, 401):
        z, y, x = rng.integers(0, side - 28, 3)
        truth[z : z + 28, y : y + 28, x : x + 28] = number
    labels = np.roll(truth, 3, axis=2)
    used, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    evaluate_tomogram("t", labels, truth, (labels > 0).astype(np.int8) * 90)
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(
        f"{truth.size / 1e6:.0f} million voxels: {time.process_time() - used:.1f} s of CPU, "
        f"{more / truth.size:.1f} bytes a voxel beside the volumes",
        flush=True,
    )


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tomograms", type=int, default=0)
    options.add_argument("--batches", type=int, default=0, help="only the first of so many batches")
    options.add_argument("--jobs", type=int, default=0)
    options.add_argument("--tables", type=int, default=0)
    options.add_argument("--megavoxels", type=float, default=0)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if chosen.tomograms:
            batch = ["--batch", f"census=1/{chosen.batches}", "--", "results/census.csv"]
            dry_run(Path(temporary), chosen.tomograms, batch if chosen.batches else [])
    with tempfile.TemporaryDirectory() as temporary:
        if chosen.jobs:
            jobs(Path(temporary), chosen.jobs)
    if chosen.tables:
        tables(chosen.tables)
    if chosen.megavoxels:
        scores(chosen.megavoxels)
