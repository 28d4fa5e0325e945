"""The real workflow, run by Snakemake: what it says of bad input, and what Snakemake says of it."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def snakemake(folder, *arguments):
    command = [sys.executable, "-m", "snakemake", "--directory", str(folder)]
    command += ["--configfile", str(folder / "config" / "config.yaml"), "--cores", "2", *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ}, check=False
    )


def test_bad_sample_sheet_is_told_with_row_and_column(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("tomograms: config/tomograms.tsv\n")
    (tmp_path / "config" / "tomograms.tsv").write_text("tomogram\tpath\na b\tnothing.mrc\n")
    done = snakemake(tmp_path, "-n")
    assert done.returncode != 0
    assert "tomograms.tsv" in done.stdout + done.stderr
    assert "column" in done.stdout + done.stderr


def test_braces_in_a_path_are_told_and_not_taken_for_a_wildcard(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("tomograms: config/tomograms.tsv\n")
    (tmp_path / "config" / "tomograms.tsv").write_text("tomogram\tpath\na\ta{v1}.mrc\n")
    (tmp_path / "a{v1}.mrc").touch()
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "report.html").touch()
    done = snakemake(tmp_path, "-n")
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "tomograms.tsv, row 2, column 'path': 'a{v1}.mrc'" in said
    assert "rename it" in said


def test_snakemake_finds_nothing_to_improve(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("tomograms: config/tomograms.tsv\n")
    (tmp_path / "config" / "tomograms.tsv").write_text("tomogram\tpath\na\ta.mrc\n")
    (tmp_path / "a.mrc").touch()
    done = snakemake(tmp_path, "--lint")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "good condition" in done.stdout + done.stderr
