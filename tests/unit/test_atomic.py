import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tomocensus.atomic import atomic_path, scratch_folder, write_json, write_table, write_text


def fail_after(target, make):
    with atomic_path(target) as temporary:
        make(temporary)
        raise RuntimeError


def test_file_appears_only_at_the_end(tmp_path):
    target = tmp_path / "new" / "a.mrc"
    with atomic_path(target) as temporary:
        temporary.write_text("x")
        assert temporary.suffix == ".mrc"
        assert not target.exists()
    assert target.read_text() == "x"
    assert list(target.parent.iterdir()) == [target]


def test_error_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError):
        fail_after(target, lambda temporary: temporary.write_text("half"))
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_folder_replaces_folder(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "stale").write_text("1")
    with atomic_path(target) as temporary:
        temporary.mkdir()
        (temporary / "fresh").write_text("2")
    assert [path.name for path in target.iterdir()] == ["fresh"]
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("library", [SimpleNamespace(), SimpleNamespace(renameat2=lambda *_: -1)])
def test_folder_replaces_folder_where_names_cannot_be_exchanged(tmp_path, monkeypatch, library):
    monkeypatch.setattr("tomocensus.atomic.ctypes.CDLL", lambda *_, **__: library)
    with atomic_path(tmp_path / "new") as temporary:
        temporary.mkdir()
    (tmp_path / "new").rmdir()
    test_folder_replaces_folder(tmp_path)


def test_what_others_still_write_is_left_alone_and_what_they_left_goes(tmp_path):
    host = socket.gethostname().replace(".", "-")
    killed = subprocess.Popen([sys.executable, "-c", "pass"])
    killed.wait()
    owners = {
        "other": f"other-{host}.{killed.pid}",
        "old": f"other-{host}.1",
        "alive": f"{host}.{os.getppid()}",
        "dead": f"{host}.{killed.pid}",
    }
    left = {name: tmp_path / f".{owner}.partial.a.mrc" for name, owner in owners.items()}
    for path in left.values():
        path.write_text("half")
    os.utime(left["old"], (time.time() - 90_000,) * 2)
    os.utime(left["other"], (time.time() - 80_000,) * 2)
    beside = left["dead"].with_name(left["dead"].name.replace("a.mrc", "b.mrc"))
    beside.write_text("of another output")
    write_text(tmp_path / "a.mrc", "whole")
    assert set(tmp_path.iterdir()) == {tmp_path / "a.mrc", left["other"], left["alive"], beside}


def test_error_in_folder_keeps_the_old_one(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").write_text("1")
    with pytest.raises(RuntimeError):
        fail_after(target, lambda temporary: temporary.mkdir())
    assert [path.name for path in target.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [target]


def test_json_is_sorted_and_knows_numpy_and_paths(tmp_path):
    path = tmp_path / "a.json"
    value = {"b": np.float32(1.5), "a": np.arange(3), "c": Path("x/y")}
    write_json(path, value)
    assert json.loads(path.read_text()) == {"a": [0, 1, 2], "b": 1.5, "c": "x/y"}
    assert path.read_text().index('"a"') < path.read_text().index('"b"')
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text())["b"] == 1.5


def test_text_and_table(tmp_path):
    write_text(tmp_path / "a.txt", "Å")
    assert (tmp_path / "a.txt").read_bytes() == "Å".encode()
    write_table(tmp_path / "a.csv", pd.DataFrame({"instance": [1], "x": [1 / 3]}))
    assert (tmp_path / "a.csv").read_bytes() == b"instance,x\n1,0.333333\n"


def test_a_scratch_folder_goes_with_its_job_and_with_the_next_after_a_kill(tmp_path):
    output = tmp_path / "results" / "labels.mrc"
    with scratch_folder(output) as folder:
        (folder / "array.raw").write_bytes(b"1")
        assert folder.parent == output.parent
    assert list(output.parent.iterdir()) == []
    killed = subprocess.Popen([sys.executable, "-c", "pass"])
    killed.wait()
    left = output.with_name(folder.name.replace(f".{os.getpid()}.", f".{killed.pid}."))
    left.mkdir()
    (left / "array.raw").write_bytes(b"1")
    with scratch_folder(output):
        assert not left.exists()
    assert list(output.parent.iterdir()) == []
