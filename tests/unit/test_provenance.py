import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import zarr

from tomocensus import provenance
from tomocensus.fingerprints import Fingerprints
from tomocensus.provenance import (
    code_files,
    code_hash,
    fingerprint,
    read_json,
    write_provenance,
)

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = REPOSITORY / "workflow" / "scripts"


@pytest.fixture
def project(tmp_path):
    package = tmp_path / "src" / "tomocensus"
    (package / "stage").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("def help():\n    return 1\n")
    (package / "other.py").write_text("x = 1\n")
    (package / "stage" / "__init__.py").write_text("from tomocensus.helper import help\n")
    script = tmp_path / "scripts" / "run.py"
    script.parent.mkdir()
    (script.parent / "_stage.py").write_text("threads = 1\n")
    script.write_text(
        "from _stage import threads\n\ndef main():\n    from tomocensus import stage\n"
    )
    return tmp_path


def hash_of(project):
    code_hash.cache_clear()
    provenance._read_code.cache_clear()
    return code_hash(project / "scripts" / "run.py", project / "src")


def test_code_files_follow_imports_inside_functions_and_helpers(project):
    names = {path.name for path in code_files(project / "scripts" / "run.py", project / "src")}
    assert names == {"run.py", "_stage.py", "__init__.py", "helper.py"}


@pytest.mark.parametrize(
    "file", ["scripts/run.py", "scripts/_stage.py", "src/tomocensus/helper.py"]
)
def test_code_hash_changes_with_an_edit_but_not_with_a_comment(project, file):
    before = hash_of(project)
    path = project / file
    path.write_text('"""A docstring."""\n# a comment\n\n' + path.read_text())
    assert hash_of(project) == before
    path.write_text(path.read_text() + "\nextra = 2\n")
    assert hash_of(project) != before


def test_code_hash_ignores_modules_that_are_not_imported(project):
    before = hash_of(project)
    (project / "src" / "tomocensus" / "other.py").write_text("x = 2\n")
    assert hash_of(project) == before


def test_code_hash_does_not_depend_on_the_clone(project, tmp_path):
    before = hash_of(project)
    copy = tmp_path / "another clone"
    shutil.copytree(project / "src", copy / "src")
    shutil.copytree(project / "scripts", copy / "scripts")
    assert hash_of(copy) == before


def test_segment_script_depends_on_its_engine_and_not_on_others():
    names = {str(path) for path in code_files(SCRIPTS / "segment.py")}
    assert any("/segment/" in name for name in names)
    assert any("/io/mrc" in name for name in names)
    assert not any("/cluster/" in name or "/classify/" in name for name in names)


def test_fingerprint_ignores_time_and_name_but_not_content(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"x" * 100)
    second.write_bytes(b"x" * 100)
    os.utime(first, (1, 1))
    assert fingerprint(first) == fingerprint(second)
    second.write_bytes(b"x" * 99 + b"y")
    assert fingerprint(first) != fingerprint(second)


def test_fingerprint_of_large_files_sees_length_ends_and_most_of_a_replacement(tmp_path):
    path = tmp_path / "large"
    size = 6 * 2**20
    path.write_bytes(bytes(size))
    before = fingerprint(path)
    path.write_bytes(bytes(size - 1) + b"\1")
    assert fingerprint(path) != before
    path.write_bytes(bytes(size + 1))
    assert fingerprint(path) != before


def test_fingerprint_of_folders_and_missing_files(tmp_path):
    folder = tmp_path / "x.zarr"
    folder.mkdir()
    (folder / "0").write_bytes(b"1")
    before = fingerprint(folder)
    (folder / "0").write_bytes(b"2")
    assert fingerprint(folder) != before
    assert fingerprint(tmp_path / "nothing") == "missing"


def test_provenance_has_no_time_and_is_reproducible(tmp_path):
    given = tmp_path / "input"
    given.write_text("1")
    for name in ("a.json", "b.json"):
        write_provenance(
            tmp_path / name,
            "stage",
            SCRIPTS / "measure.py",
            {"input": given, "none": None},
            {"p": 1},
            {"model": "abc"},
        )
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    record = read_json(tmp_path / "a.json")
    assert record["inputs"]["input"]["fingerprint"] == fingerprint(given)
    assert set(record["inputs"]) == {"input"}


def test_remembered_fingerprints_notice_every_change_and_no_touch(tmp_path):
    path, store = tmp_path / "data.mrc", tmp_path / "store.json"
    path.write_bytes(bytes(5 * 2**20))

    def of(sampled):
        memory = Fingerprints(store)
        memory.look_at([(path, sampled)])
        return memory.of(path, sampled)

    whole, sampled = of(False), of(True)
    assert json.loads(store.read_text())
    assert (of(False), of(True)) == (whole, sampled)
    path.touch()
    assert of(False) == whole
    # One byte between the blocks, under an older time stamp.
    content = bytearray(5 * 2**20)
    content[65536 + 100] = 1
    path.write_bytes(content)
    os.utime(path, (10**9, 10**9))
    assert of(False) != whole
    assert of(True) != sampled
    store.write_text("broken")
    assert of(False) != whole


@pytest.mark.parametrize("sampled", [True, False])
def test_other_voxels_in_chunks_of_a_folder_are_noticed(tmp_path, sampled):
    shape = (32, 40, 40)  # in one chunk, too large to be read whole for a fingerprint
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=shape, chunks=shape, dtype="i2", compressors=None
    )
    array[:] = 1
    known = Fingerprints(tmp_path / "store.json")
    before = known.of(tmp_path / "a.zarr", sampled)
    assert known.of(tmp_path / "a.zarr", sampled) == before
    array[16, :20] = 2
    assert known.of(tmp_path / "a.zarr", sampled) != before


def test_hashes_are_remembered_from_machine_to_machine(tmp_path, monkeypatch):
    path, store = tmp_path / "data.mrc", tmp_path / "store.json"
    path.write_bytes(bytes(100))
    Fingerprints(store).look_at([(path, True)])
    stat = os.stat

    def on_another_machine(*given, **options):
        found = stat(*given, **options)
        names = ("st_mode", "st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")
        values = {name: getattr(found, name) for name in names}
        return SimpleNamespace(**values, st_dev=found.st_dev + 1)

    monkeypatch.setattr("tomocensus.fingerprints.os.stat", on_another_machine)
    monkeypatch.setattr(Fingerprints, "_hash", lambda *_: pytest.fail("read again"))
    assert Fingerprints(store).of(path, True) == fingerprint(path)


@pytest.mark.parametrize("sampled", [True, False])
def test_what_cannot_be_read_is_no_error_and_not_remembered(tmp_path, monkeypatch, sampled):
    path, folder = tmp_path / "data.mrc", tmp_path / "a.zarr"
    path.write_bytes(bytes(5 * 2**20))
    folder.mkdir()
    (folder / "0").write_bytes(b"1")
    known = Fingerprints(tmp_path / "store.json")
    with monkeypatch.context() as without:

        def refuse(name, *_, **__):
            raise PermissionError(13, "Permission denied", str(name))

        without.setattr("builtins.open", refuse)
        without.setattr(Path, "read_bytes", refuse)
        known.look_at([(path, sampled)])
        assert known.of(path, sampled) == known.of(folder, sampled) == "unreadable"
    assert known.of(path, sampled) != "unreadable"
    assert known.of(folder, sampled) != "unreadable"


def test_no_stage_depends_on_what_the_workflow_alone_needs():
    for script in SCRIPTS.glob("*.py"):
        assert "fingerprints.py" not in {path.name for path in code_files(script)}
