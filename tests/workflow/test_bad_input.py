"""The real workflow, run by Snakemake: what it says of bad input, and what Snakemake says of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.fixture
def project(tmp_path):
    """A project of one tomogram, of which nothing is read in a dry run."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("tomograms: config/tomograms.tsv\n")
    (tmp_path / "config" / "tomograms.tsv").write_text("tomogram\tpath\na\ta.mrc\n")
    (tmp_path / "a.mrc").touch()
    return tmp_path


def refused(project, *arguments):
    """What a run says that must not go on."""
    done = snakemake(project, *arguments)
    assert done.returncode != 0
    return done.stdout + done.stderr


def test_a_second_section_of_the_same_name_is_told_and_not_taken_for_the_first(project):
    path = project / "config" / "config.yaml"
    path.write_text("cluster:\n  neck: 0.7\ncluster:\n  predict_outlines: true\n")
    assert "key 'cluster' stands twice, in lines 1 and 3" in refused(project, "-n")


def test_a_model_that_was_copied_in_part_is_no_reason_to_use_another(project):
    folder = project / "models" / "segmenter"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    assert "models/segmenter/model.json: no such file" in refused(project, "-n")


@pytest.mark.parametrize(
    ("base", "told"), [("nowhere", "no model there"), ("models/base-encoder", "kind 'encoder'")]
)
@pytest.mark.parametrize("kind", ["segmenter", "classifier"])
def test_a_base_of_another_kind_is_told_before_training(project, kind, base, told):
    base = REPOSITORY / base if base.startswith("models") else base
    path = project / "config" / "config.yaml"
    path.write_text(path.read_text() + f"train_{kind}: {{base: {base}}}\n")
    assert f"train_{kind}.base: {base}" in (said := refused(project, "-n", f"train_{kind}"))
    assert told in said
    assert snakemake(project, "-n").returncode == 0


def test_kinds_that_there_are_not_are_told_before_anything_runs(project):
    path = project / "config" / "config.yaml"
    before = path.read_text()
    path.write_text(before + "classify: {kinds: [golgi, Mitochondria]}\n")
    said = refused(project, "-n")
    assert "classify.kinds: no kind is called Mitochondria. There are actin, " in said
    path.write_text(before + "classify: {kinds: some}\n")
    said = refused(project, "-n")
    assert "key 'classify.kinds' is 'some'; it must be a list of kinds, or all." in said
    for kinds in ("[golgi, mitochondrion]", "all"):
        path.write_text(before + f"classify: {{kinds: {kinds}}}\n")
        assert snakemake(project, "-n").returncode == 0


def test_an_empty_file_of_examples_is_as_none(project):
    (project / "config" / "examples.tsv").touch()
    done = snakemake(project, "-n")
    assert done.returncode == 0, done.stdout + done.stderr
    said = refused(project, "train_classifier")
    assert "examples.tsv: missing or empty. Write one row an example" in said


def test_snakemake_finds_nothing_to_improve(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("tomograms: config/tomograms.tsv\n")
    (tmp_path / "config" / "tomograms.tsv").write_text("tomogram\tpath\na\ta.mrc\n")
    (tmp_path / "a.mrc").touch()
    done = snakemake(tmp_path, "--lint")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "good condition" in done.stdout + done.stderr
