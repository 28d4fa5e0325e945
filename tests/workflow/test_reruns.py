"""What a change makes stale, and only that, runs again: the real workflow, jobs counted by rule."""

import json
import os
import re
import shutil
import subprocess
import sys
from html import unescape

import numpy as np
import pytest
import yaml
from small_project import (
    NAMES,
    REPOSITORY,
    VOXEL_SIZE,
    results,
    write_segmenter,
    write_sheet,
    write_tomogram,
)

from tomocensus.io import read_volume, write_labels, write_mrc
from tomocensus.models import load_model, save_model
from tomocensus.tables import read_table
from tomocensus.volume import Volume

pytestmark = pytest.mark.slow

JOINED = {"census": 1, "evaluate": 1, "review": 1, "report": 1}
# What follows for one tomogram from a stage.
AFTER_CLASSIFY = {"measure": 1, "picture": 1}
AFTER_CLUSTER = {"embed": 1, "classify": 1, **AFTER_CLASSIFY}
AFTER_SEGMENT = {"cluster": 1, **AFTER_CLUSTER}


def times(number, counts):
    return {rule: number * count for rule, count in counts.items()}


def snakemake(project, *arguments, clone=REPOSITORY):
    """Run the workflow of a clone in a project."""
    command = [sys.executable, "-m", "snakemake", "--directory", str(project)]
    command += ["--configfile", str(project / "config.yaml"), "--cores", "2", *arguments]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def stale(project, *arguments, clone=REPOSITORY):
    """Count the jobs that a run would execute, by rule."""
    text = snakemake(project, "-n", *arguments, clone=clone)
    table = re.search(r"^job +count\n-+ +-+\n(.*?)^total", text, re.MULTILINE | re.DOTALL)
    if table is None:
        assert "Nothing to be done" in text
        return {}
    counts = dict(line.split() for line in table[1].splitlines() if line.strip())
    return {rule: int(count) for rule, count in counts.items() if rule not in ("all", "everything")}


def with_truth(project, names=NAMES, **columns):
    """Write the sheet that the finished project has."""
    truth = {"one": "data/truth.mrc"}
    annotation = {"one": "data/annotation.mrc"}
    polarity = dict.fromkeys(names, "bright")
    defaults = {"polarity": polarity, "ground_truth": truth, "annotation": annotation}
    write_sheet(project, names, **{**defaults, **columns})


def change_config(project, section, **values):
    path = project / "config.yaml"
    config = yaml.safe_load(path.read_text())
    if section is None:
        config.update(values)
    else:
        config.setdefault(section, {}).update(values)
    path.write_text(yaml.safe_dump(config))


def shift_weights(source, target):
    """Write a model like `source` with slightly other weights."""
    model = load_model(source)
    weights = {
        name: value + value.dtype.type(0.001) if value.dtype.kind == "f" else value
        for name, value in model.weights.items()
    }
    save_model(target, model.card, weights)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project that has run, from a clone with the models beside it."""
    project = tmp_path_factory.mktemp("finished")
    (project / "data").mkdir()
    truth = write_tomogram(project / "data" / "one.mrc", 1)
    write_tomogram(project / "data" / "two.mrc", 2)
    write_labels(project / "data" / "truth.mrc", Volume(truth, VOXEL_SIZE))
    annotation = np.full(truth.shape, -1, np.int16)
    annotation[8] = truth[8] > 0
    write_mrc(project / "data" / "annotation.mrc", Volume(annotation, VOXEL_SIZE))
    write_segmenter(project / "models" / "segmenter")
    with_truth(project)
    (project / "examples.tsv").write_text(
        "tomogram\tx\ty\tz\tclass\none\t12\t12\t8\ta\none\t36\t12\t8\tb\ntwo\t12\t36\t8\ta\n"
        "two\t36\t36\t8\tb\n"
    )
    (project / "config.yaml").write_text(
        yaml.safe_dump(
            {
                "tomograms": "tomograms.tsv",
                "examples": "examples.tsv",
                "cluster": {"minimum_volume": 1e6},
                "report": {"slices": 3},
            }
        )
    )
    snakemake(project)
    table = (project / "results" / "census.csv").read_text()
    assert len(table.splitlines()) == 1 + 2 * 4, table
    return project


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the finished project, times of change kept."""
    copy = tmp_path / "project"
    shutil.copytree(finished, copy)
    return copy


@pytest.fixture
def clone(tmp_path):
    """A copy of the repository, to edit."""
    copy = tmp_path / "clone"
    for part in ("Snakefile", "workflow", "src", "profiles", "envs", "config", "models"):
        source = REPOSITORY / part
        ignored = shutil.ignore_patterns("__pycache__", ".snakemake")
        if source.is_dir():
            shutil.copytree(source, copy / part, ignore=ignored)
        else:
            copy.mkdir(exist_ok=True)
            shutil.copy(source, copy / part)
    return copy


def test_nothing_changed_runs_nothing(project):
    assert stale(project) == {}


def test_a_touched_model_tomogram_or_sheet_runs_nothing(project):
    for path in [*project.glob("models/*/*"), *project.glob("data/*"), *project.glob("*.*")]:
        path.touch()
    assert stale(project) == {}


def test_another_clone_of_the_same_commit_runs_nothing(project, clone):
    assert stale(project, clone=clone) == {}


@pytest.mark.parametrize("name", ["slurm", "slurm-cpu", "slurm/fallback"])
def test_another_profile_runs_nothing(project, name):
    assert stale(project, "--profile", str(REPOSITORY / "profiles" / name)) == {}


def test_reordered_configuration_runs_nothing(project):
    path = project / "config.yaml"
    config = yaml.safe_load(path.read_text())
    text = "".join(yaml.safe_dump({key: config[key]}) for key in sorted(config, reverse=True))
    path.write_text("# a comment\n" + text)
    assert stale(project) == {}


def test_reordered_sample_sheet_runs_nothing_but_what_joins(project):
    with_truth(project, NAMES[::-1])
    assert set(stale(project)) <= set(JOINED)


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("segment", {"test_time_augmentation": True}, times(2, {"segment": 1, **AFTER_SEGMENT})),
        ("segment", {"uncertainty": True}, times(2, {"segment": 1, **AFTER_SEGMENT})),
        ("cluster", {"solidity": 0.9}, times(2, AFTER_SEGMENT)),
        (
            "classify",
            {"minimum_confidence": 0.1},
            times(2, {"classify": 1, **AFTER_CLASSIFY}),
        ),
        ("classify", {"kinds": ["golgi"]}, times(2, {"classify": 1, **AFTER_CLASSIFY})),
        ("measure", {"contact_distance": 50}, times(2, AFTER_CLASSIFY)),
    ],
)
def test_a_parameter_runs_its_stage_and_what_follows(project, section, values, expected):
    change_config(project, section, **values)
    joined = dict(JOINED)
    if section == "measure":
        # These read labels and classes.
        del joined["evaluate"], joined["review"]
    assert stale(project) == {**expected, **joined}


def test_a_parameter_of_the_report_runs_pictures_and_report_only(project):
    change_config(project, "report", slices=2)
    assert stale(project) == {"picture": 2, "report": 1}
    change_config(project, "report", slices=3, title="Another")
    assert stale(project) == {"report": 1}


def test_a_parameter_of_training_runs_no_stage(project):
    change_config(project, "train_segmenter", steps=5)
    change_config(project, "train_classifier", seed=5)
    # The report shows all parameters.
    assert stale(project) == {"report": 1}


def test_the_scale_of_given_maps_runs_nothing_where_none_is_given(project):
    change_config(project, None, probability_scale=100)
    # The report shows all parameters.
    assert stale(project) == {"report": 1}


def swap(project, kind):
    """Replace a model by another with an older time stamp."""
    old = project / "models" / kind
    source = old if old.is_dir() else REPOSITORY / "models" / f"base-{kind}"
    shift_weights(source, old)
    for path in old.iterdir():
        os.utime(path, (10**9, 10**9))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("segmenter", {"segment": 1, **AFTER_SEGMENT}),
        ("encoder", AFTER_CLUSTER),
        ("classifier", {"classify": 1, **AFTER_CLASSIFY}),
    ],
)
def test_an_older_model_with_other_weights_runs_what_uses_it(project, kind, expected):
    if kind == "encoder":
        # No such model is trained in a project; the configuration names it.
        shift_weights(REPOSITORY / "models" / "base-encoder", project / "models" / "encoder")
    else:
        swap(project, kind)
    assert stale(project) == {**times(2, expected), **JOINED}


def test_the_same_weights_at_another_place_run_nothing(project):
    shutil.copytree(project / "models" / "segmenter", project / "elsewhere")
    change_config(project, "segment", model="elsewhere")
    # The report shows the configuration.
    assert stale(project) == {"report": 1}


def test_an_added_tomogram_runs_alone(project):
    write_tomogram(project / "data" / "three.mrc", 3)
    with_truth(project, (*NAMES, "three"))
    expected = {"inspect": 1, "segment": 1, **AFTER_SEGMENT, "census": 1, "review": 1, "report": 1}
    assert stale(project) == expected
    snakemake(project)
    assert stale(project) == {}


def test_a_removed_tomogram_runs_what_joins(project):
    with_truth(project, ("one",))
    assert stale(project) == {"census": 1, "review": 1, "report": 1}


def test_a_replaced_tomogram_runs_alone_though_its_file_is_older(project):
    path = project / "data" / "two.mrc"
    write_tomogram(path, 22)
    os.utime(path, (10**9, 10**9))
    expected = {"inspect": 1, "segment": 1, **AFTER_SEGMENT, "census": 1, "review": 1, "report": 1}
    assert stale(project) == expected


def test_a_run_after_changes_does_what_was_foretold_and_ends_as_a_new_project(project, tmp_path):
    path = project / "data" / "two.mrc"
    write_tomogram(path, 22)
    os.utime(path, (10**9, 10**9))
    change_config(project, "classify", minimum_confidence=0.1)
    foretold = stale(project)
    again = {"inspect": 1, "segment": 1, **AFTER_SEGMENT}
    for rule in ("classify", *AFTER_CLASSIFY):
        again[rule] += 1
    assert foretold == {**again, **JOINED}
    started = re.findall(r"^(?:local)?rule (\w+):", snakemake(project), re.MULTILINE)
    executed = {rule: started.count(rule) for rule in started}
    assert {rule: executed[rule] for rule in executed if rule != "everything"} == foretold
    assert stale(project) == {}
    new = tmp_path / "new" / "project"
    shutil.copytree(project, new, ignore=shutil.ignore_patterns("results", "logs", ".snakemake"))
    snakemake(new)
    found, expected = results(project), results(new)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


def test_other_columns_of_the_sheet(project):
    with_truth(project, group={"one": "mutant"})
    assert stale(project) == {"measure": 1, "picture": 1, "census": 1, "report": 1}
    with_truth(project, ground_truth={})
    assert stale(project) == {"evaluate": 1, "report": 1}
    with_truth(project, annotation={})
    assert set(stale(project)) <= {"evaluate", "report"}
    with_truth(project, voxel_size={"two": "22"})
    expected = {"inspect": 1, "segment": 1, **AFTER_SEGMENT, "census": 1, "review": 1, "report": 1}
    assert stale(project) == expected


def test_a_given_probability_map_replaces_segmentation(project):
    shutil.copy(project / "results" / "two" / "probability.mrc", project / "data" / "given.mrc")
    with_truth(project, probability={"two": "data/given.mrc"})
    expected = {"inspect": 1, **AFTER_SEGMENT, "census": 1, "review": 1, "report": 1}
    assert stale(project) == expected
    snakemake(project)
    page = (project / "results" / "report.html").read_text()
    told = json.loads(unescape(re.search(r"Records</summary><pre>(.*?)</pre>", page, re.S)[1]))
    # What the segmenter said before is no part of it.
    assert {name: "segment" in told[name] for name in NAMES} == {"one": True, "two": False}


def test_an_edited_annotation_or_truth_runs_evaluation_only(project):
    path = project / "data" / "annotation.mrc"
    labels = np.array(read_volume(path).data)
    labels[9] = 0
    write_mrc(path, Volume(labels, VOXEL_SIZE))
    assert stale(project) == {"evaluate": 1, "report": 1}
    assert stale(project, "train_segmenter")["train_segmenter"] == 1
    shutil.copy(project / "results" / "one" / "labels.mrc", project / "data" / "truth.mrc")
    assert stale(project) == {"evaluate": 1, "report": 1}


def test_edited_examples_run_evaluation_review_and_the_next_training(project):
    snakemake(project, "train_classifier")
    after_training = stale(project)
    assert after_training == {**times(2, {"classify": 1, **AFTER_CLASSIFY}), **JOINED}
    assert stale(project, "train_classifier") == {}
    snakemake(project)
    assert stale(project) == {}
    # All that has no name yet: in one tomogram the lower half has, in the other the upper.
    listed = read_table(project / "results" / "review.csv")
    assert len(listed) == 4
    halves = zip(listed["tomogram"], listed["y"] > 24, strict=True)
    assert set(halves) == {("one", True), ("two", False)}
    path = project / "examples.tsv"
    path.write_text(path.read_text().replace("two\t36\t36\t8\tb\n", "two\t36\t12\t8\tb\n"))
    assert stale(project) == {"evaluate": 1, "review": 1, "report": 1}
    assert stale(project, "train_classifier") == {"train_classifier": 1}
    path.write_text("")
    snakemake(project)


def append(path, text):
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def test_edited_code_runs_what_uses_it(project, clone):
    append(clone / "workflow" / "scripts" / "measure.py", "\nEDITED = 1\n")
    expected = {**times(2, AFTER_CLASSIFY), "census": 1, "report": 1}
    assert stale(project, clone=clone) == expected


def test_an_edited_helper_of_a_helper_runs_what_uses_it(project, clone):
    append(clone / "src" / "tomocensus" / "cluster" / "solidity.py", "\nEDITED = 1\n")
    assert stale(project, clone=clone) == {**times(2, AFTER_SEGMENT), **JOINED}
    append(clone / "src" / "tomocensus" / "segment" / "contrast.py", "\nEDITED = 1\n")
    assert stale(project, clone=clone) == {
        **times(2, {"segment": 1, **AFTER_SEGMENT}),
        **JOINED,
    }


@pytest.mark.parametrize("kind", ["html", "css", "js"])
def test_an_edited_template_runs_the_report(project, clone, kind):
    append(clone / "src" / "tomocensus" / "report" / f"report.{kind}", "\n")
    assert stale(project, clone=clone) == {"report": 1}


def test_a_comment_anywhere_runs_nothing(project, clone):
    for path in [*clone.rglob("scripts/*.py"), *clone.rglob("tomocensus/**/*.py")]:
        append(path, "\n\n# A comment.\n")
    for path in clone.rglob("*.smk"):
        append(path, "\n# A comment.\n")
    assert stale(project, clone=clone) == {}


def test_an_interrupted_run_goes_on_where_it_was(project):
    # Large enough to change the tables: tables with the same bytes would make nothing stale.
    change_config(project, "measure", contact_distance=500)
    snakemake(project, "--until", "measure")
    assert stale(project) == {"picture": 2, "census": 1, "report": 1}


def test_records_tell_the_model_that_was_used(project):
    record = json.loads((project / "results" / "one" / "segment.json").read_text())
    card = json.loads((project / "models" / "segmenter" / "model.json").read_text())
    assert record["models"]["segmenter"] == card["sha256"]
