"""What is written in several places agrees: versions, keys, and the documents' code runs."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml

from tomocensus.io import read_volume, write_mrc
from tomocensus.provenance import code_files
from tomocensus.samples import read_annotation
from tomocensus.volume import Volume

ROOT = Path(__file__).resolve().parents[2]
CONDA_NAMES = {"pytorch": "torch"}
MODULES = {
    "cc3d": "connected-components-3d",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
STAGES = {
    "inspect": ["inspect_input"],
    "segment": ["segment", "train_segmenter"],
    "cluster": ["cluster"],
    "embed": ["embed"],
    "classify": ["classify", "train_classifier", "review"],
    "measure": ["measure", "export", "simulate"],
    "census": ["census", "export_classes"],
    "evaluate": ["evaluate"],
    "report": ["picture", "report", "export_copick"],
}
NEED_TORCH = {"segment", "embed"}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines, separator):
    found = {}
    for line in lines:
        name, equals, version = line.partition(separator)
        assert equals, f"no exact version: {line}"
        assert re.fullmatch(r"[0-9][0-9A-Za-z.]*", version), f"no plain version: {line}"
        assert normal(name) not in found, f"stands twice: {line}"
        found[normal(name)] = version
    return found


def project():
    with open(ROOT / "pyproject.toml", "rb") as stream:
        table = tomllib.load(stream)["project"]
    # The viewer is for workstations with a screen, OpenVINO an engine that one may choose.
    optional = table["optional-dependencies"].items()
    extras = [line for k, lines in optional if k not in ("viewer", "openvino") for line in lines]
    return pins([*table["dependencies"], *extras], "==")


def lock():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return pins([line for line in lines if line and not line.startswith("#")], "==")


def conda(stage):
    table = yaml.safe_load((ROOT / "envs" / f"{stage}.yaml").read_text(encoding="utf-8"))
    found = pins(table["dependencies"], "=")
    return {CONDA_NAMES.get(name, name): version for name, version in found.items()}


def third_party(script):
    found = set()
    for path in code_files(ROOT / "workflow" / "scripts" / f"{script}.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.partition(".")[0])
    # Used where it is there; pip's extra of the same name brings it.
    found -= set(sys.stdlib_module_names) | {"tomocensus", "_stage", "openvino"}
    return {normal(MODULES.get(name, name)) for name in found}


def test_lock_holds_what_pyproject_pins():
    locked = lock()
    assert {name: locked.get(name) for name in project()} == project()


def test_lock_holds_all_that_its_packages_need():
    locked = lock()
    marker = pytest.importorskip("packaging.markers").default_environment()
    missing = []
    for name in locked:
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for need in map(importlib.import_module("packaging.requirements").Requirement, needs):
            wanted = need.marker is None or need.marker.evaluate({**marker, "extra": ""})
            if not wanted:
                continue
            # A GPU build of PyTorch brings the CUDA packages along that fit it.
            if normal(need.name) not in locked and not (
                name == "torch" and normal(need.name).startswith(("nvidia-", "cuda-", "triton"))
            ):
                missing.append(f"{name} needs {need}")
            elif normal(need.name) in locked and not need.specifier.contains(
                locked[normal(need.name)], prereleases=True
            ):
                missing.append(f"{name} needs {need}, locked is {locked[normal(need.name)]}")
    # setuptools is part of every environment that pip builds in.
    assert [line for line in missing if "needs setuptools" not in line] == []


def test_lock_names_no_place_to_install_from():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert "--" not in text
    assert "+cpu" not in text


@pytest.mark.parametrize("stage", STAGES)
def test_conda_versions_are_those_of_pyproject(stage):
    found = conda(stage)
    assert found.pop("python") == "3.11"
    assert found == {name: project().get(name) for name in found}


@pytest.mark.parametrize("stage", STAGES)
def test_conda_environment_holds_what_its_scripts_import(stage):
    needed = set().union(*map(third_party, STAGES[stage]))
    if stage not in NEED_TORCH:
        # Imported inside functions that only the stages with a network call.
        needed.discard("torch")
    assert needed <= set(conda(stage))
    assert ("torch" in conda(stage)) == (stage in NEED_TORCH)


def test_every_environment_is_used_and_every_used_one_exists():
    rules = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    used = set(re.findall(r"envs/(\w+)\.yaml", rules))
    assert used == set(STAGES) == {path.stem for path in (ROOT / "envs").glob("*.yaml")}


def keys(table, prefix=""):
    for key, value in table.items():
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def schema_keys(schema, prefix=""):
    for key, part in schema["properties"].items():
        if part.get("type") == "object":
            yield from schema_keys(part, f"{prefix}{key}.")
        else:
            yield prefix + key


def schema(name):
    path = ROOT / "src" / "tomocensus" / "schemas" / f"{name}.schema.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def documented():
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `([a-z_.]+)` \|", text, flags=re.MULTILINE))


def test_every_key_and_column_is_documented_and_no_other():
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    known = set(schema_keys(schema("config")))
    assert set(keys(config)) <= known
    assert documented() == known | set(schema("samples")["properties"])


def test_documented_defaults_are_the_schemas():
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| `([^`]*)` \|", text, flags=re.MULTILINE))

    def defaults(part, prefix=""):
        for key, below in part["properties"].items():
            if below.get("type") == "object":
                yield from defaults(below, f"{prefix}{key}.")
            else:
                yield prefix + key, below["default"]

    expected = dict(defaults(schema("config")))
    assert {key: yaml.safe_load(rows[key]) for key in expected} == expected


def test_links_between_documents_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "config" / "README.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), (page.name, target)


def test_version_is_the_same_everywhere():
    with open(ROOT / "pyproject.toml", "rb") as stream:
        version = tomllib.load(stream)["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def tutorial_code(containing):
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^( *)```python\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)
    (found,) = [textwrap.dedent(block) for _, block in blocks if containing in block]
    return found


def test_the_tutorials_annotation_is_read_back(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.chdir(tmp_path)
    shape = (120, 9, 10)
    tomogram = Volume(rng.normal(size=shape).astype(np.float32), 10.0, (5.0, 0.0, -20.0))
    write_mrc("tomogram.mrc", tomogram)
    painted = rng.integers(0, 4, shape).astype(np.uint8)
    tifffile.imwrite("painted.tif", painted, photometric="minisblack")
    code = tutorial_code("SLICES").replace("/data/tomograms/cell_01.rec", "tomogram.mrc")
    exec(code, {})
    annotation = read_annotation("cell_01_annotation.mrc", shape)
    np.testing.assert_array_equal(annotation[[40, 75, 110]], painted[[40, 75, 110]])
    assert (np.delete(annotation, [40, 75, 110], axis=0) == -1).all()
    assert read_volume("cell_01_annotation.mrc").origin == tomogram.origin


def test_the_tutorials_table_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "census.csv").write_text(
        "tomogram,group,class,touches_border,sphericity\n"
        "a,,vesicle,False,0.5\na,,vesicle,False,0.7\nb,,vesicle,False,0.8\nb,,vesicle,True,0.1\n"
    )
    exec(tutorial_code("census.csv"), {})
    assert "0.7  0.141421      2" in capsys.readouterr().out
    (tmp_path / "results" / "counts.csv").write_text(
        "group,class,density_per_micrometre3\n"
        + "".join(f"{group},vesicle,{n}\n" for n in range(3) for group in ("control", "treated"))
    )
    exec(tutorial_code("counts.csv"), {})
    assert "pvalue=1.0" in capsys.readouterr().out.replace("np.float64(1.0)", "1.0")


def test_the_slurm_profile_names_rules_and_leaves_the_default_profile_its_keys():
    profiles = {
        name: yaml.safe_load((ROOT / "profiles" / name / file).read_text("utf-8"))
        for name, file in (
            ("default", "config.yaml"),
            ("slurm", "profile.yaml"),
            ("slurm/fallback", "profile.yaml"),
            ("slurm-cpu", "profile.yaml"),
        )
    }
    for name in set(profiles) - {"default"}:
        assert set(profiles["default"]) & set(profiles[name]) == set(), name
    rules = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    asking = {
        name
        for name, body in re.findall(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", rules, re.M | re.S)
        if re.search(r"^\s+gpu=", body, re.M)
    }
    assert asking == set(profiles["slurm"]["set-resources"])
    assert asking == set(profiles["slurm/fallback"]["set-resources"])
    without = profiles["slurm-cpu"]["set-resources"]
    assert {name: values["gpu"] for name, values in without.items()} == dict.fromkeys(asking, 0)


def test_partitions_are_read_and_only_one_of_them_has_gpus():
    partitions = pytest.importorskip("snakemake_executor_plugin_slurm.partitions")
    found = partitions.read_partition_file(ROOT / "profiles" / "slurm" / "partitions.yaml")
    assert {one.name: one.limits.max_gpu for one in found} == {"cpu": 0, "gpu": 4}
    assert {one.limits.max_runtime for one in found} == {24 * 60}


def test_every_line_of_the_profiles_has_its_reason():
    for path in ROOT.glob("profiles/**/*.yaml"):
        above = ""
        for line in path.read_text("utf-8").splitlines():
            setting = re.match(r"[a-z-]+:", line)
            assert not setting or above.startswith("#") or "#" in line, (path, line)
            # A block of one reason may hold several lines, an empty one ends it.
            above = line if line.startswith("#") or not line else above


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("JobId=7 JobState=RUNNING Reason=None", "running"),
        ("JobId=7 JobState=COMPLETED Reason=None", "success"),
        ("JobId=7 JobState=OUT_OF_MEMORY Reason=OutOfMemory", "failed"),
        ("JobId=7 JobState=TIMEOUT Reason=TimeLimit", "failed"),
        ("slurm_load_jobs error: Invalid job id specified", "failed"),
        ("slurm_load_jobs error: Unable to contact slurm controller", "running"),
        ("", "running"),
    ],
)
def test_a_silent_controller_loses_no_job(tmp_path, answer, status):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho '{answer}'\n")
    scontrol.chmod(0o755)
    script = ROOT / "profiles" / "slurm" / "fallback" / "status.sh"
    done = subprocess.run(
        [script, "7"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == status
