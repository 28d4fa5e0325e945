"""Every environment file through a real solver, and every stage in its environment, activated.

The packages are stubs in a channel of their own: that the true channel has these versions, and that
the stages run with its builds of them, is not shown here.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from small_project import REPOSITORY, output, start, write_project

pytestmark = pytest.mark.slow
pytest.importorskip("rattler")

ENVIRONMENTS = sorted((REPOSITORY / "envs").glob("*.yaml"))
# A Python that says where it is and then is the true one.
PYTHON = '#!/bin/sh\necho "$CONDA_PREFIX $1" >> "$STAGES"\nexec {python} "$@"\n'
ACTIVATE = 'export CONDA_PREFIX="$1"\nexport PATH="$1/bin:$PATH"\n'


def pins(file):
    lines = yaml.safe_load(file.read_text())["dependencies"]
    return dict(line.split("=") for line in lines)


def write_package(folder, name, version):
    """Write a package that holds one file; return its line of the channel's index."""
    index = {
        "name": name, "version": version, "build": "0", "build_number": 0, "depends": [],
        "subdir": "noarch", "noarch": "generic", "arch": None, "platform": None,
    }  # fmt: skip
    file = "bin/python" if name == "python" else f"share/{name}"
    text = PYTHON.format(python=sys.executable) if name == "python" else version
    parts = {file: text, "info/index.json": json.dumps(index), "info/files": f"{file}\n"}
    path = folder / f"{name}-{version}-0.tar.bz2"
    with tarfile.open(path, "w:bz2") as archive:
        for member, content in parts.items():
            entry = tarfile.TarInfo(member)
            entry.size, entry.mode = len(content.encode()), 0o755
            archive.addfile(entry, io.BytesIO(content.encode()))
    content = path.read_bytes()
    sums = {kind: hashlib.new(kind, content).hexdigest() for kind in ("md5", "sha256")}
    return path.name, {**index, **sums, "size": len(content)}


@pytest.fixture(scope="module")
def conda(tmp_path_factory):
    """Variables of a shell that has a conda, whose channel has all pins and newer versions."""
    folder = tmp_path_factory.mktemp("conda")
    known = {pin for file in ENVIRONMENTS for pin in pins(file).items()}
    known |= {(name, "9999.0") for name, _ in known}
    for part in ("noarch", "linux-64", "bin"):
        (folder / part).mkdir()
    packages = dict(write_package(folder / "noarch", *pin) for pin in sorted(known))
    for part, held in (("noarch", packages), ("linux-64", {})):
        index = {"info": {"subdir": part}, "packages": held, "packages.conda": {}}
        (folder / part / "repodata.json").write_text(json.dumps(index))
    front_end = Path(__file__).with_name("conda_front_end.py")
    (folder / "bin" / "conda").write_text(f'#!/bin/sh\nexec {sys.executable} {front_end} "$@"\n')
    (folder / "bin" / "conda").chmod(0o755)
    (folder / "bin" / "activate").write_text(ACTIVATE)
    return {
        **os.environ,
        "PATH": f"{folder}/bin{os.pathsep}{os.environ['PATH']}",
        "CHANNEL": str(folder),
        "CONDA_EXE": f"{folder}/bin/conda",
        "STAGES": f"{folder}/stages",
    }


def test_every_stage_runs_in_its_own_environment(conda, tmp_path):
    project = tmp_path / "project"
    write_project(project)
    options = ["--software-deployment-method", "conda", "--conda-prefix", tmp_path / "envs"]
    assert start(project, *options, env=conda).wait(300) == 0, output(project)
    used = {}
    for line in Path(conda["STAGES"]).read_text().splitlines():
        prefix, script = map(Path, line.split())
        copy = prefix.with_name(f"{prefix.name}.yaml").read_text()
        (file,) = (file for file in ENVIRONMENTS if file.read_text() == copy)
        installed = [json.loads(one.read_text()) for one in (prefix / "conda-meta").glob("*.json")]
        assert {one["name"]: one["version"] for one in installed} == pins(file)
        used.setdefault(file.stem, set()).add(script.stem)
    assert used == {
        "inspect": {"inspect_input"},
        "segment": {"segment"},
        "cluster": {"cluster"},
        "embed": {"embed"},
        "classify": {"classify", "review"},
        "measure": {"measure"},
        "census": {"census"},
        "evaluate": {"evaluate"},
        "report": {"picture", "report"},
    }


def test_a_version_that_no_channel_has_is_an_error(conda, tmp_path):
    file = tmp_path / "environment.yaml"
    file.write_text("channels: [conda-forge]\ndependencies: [numpy=2.0.987]\n")
    words = ["env", "create", "--file", str(file), "--prefix", str(tmp_path / "made")]
    done = subprocess.run(["conda", *words], env=conda, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "numpy" in done.stderr
