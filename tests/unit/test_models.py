import json

import numpy as np
import pytest

from tomocensus.errors import InputError
from tomocensus.models import CARD, WEIGHTS, file_sha256, load_model, read_card, save_model


@pytest.fixture
def folder(tmp_path):
    weights = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b": np.ones(1, np.float16)}
    save_model(tmp_path / "model", {"kind": "segmenter", "heads": ["probability"]}, weights)
    return tmp_path / "model"


def test_round_trip(folder):
    model = load_model(folder, "segmenter")
    np.testing.assert_array_equal(model.weights["a"], np.arange(6).reshape(2, 3).T)
    assert model.weights["b"].dtype == np.float16
    assert model.card["heads"] == ["probability"]
    assert model.sha256 == file_sha256(folder / WEIGHTS)
    assert model.path == folder


def test_same_weights_same_bytes(folder, tmp_path):
    model = load_model(folder)
    save_model(tmp_path / "again", model.card, model.weights)
    for name in (CARD, WEIGHTS):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_changed_weights_are_refused(folder):
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        load_model(folder)


def test_wrong_kind(folder):
    with pytest.raises(InputError, match="'encoder' is needed"):
        load_model(folder, "encoder")


def test_missing_parts(folder, tmp_path):
    with pytest.raises(InputError, match="no model there"):
        load_model(tmp_path / "nothing")
    (folder / WEIGHTS).unlink()
    with pytest.raises(InputError, match="missing"):
        load_model(folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_broken_card(folder, text):
    (folder / CARD).write_text(text)
    # Training alone has nothing to do while both files are there.
    with pytest.raises(InputError, match=r"not a model card.*remove its folder and train again"):
        read_card(folder)


def test_not_safetensors_although_hash_agrees(folder):
    (folder / WEIGHTS).write_bytes(b"no tensors")
    card = json.loads((folder / CARD).read_text())
    card["sha256"] = file_sha256(folder / WEIGHTS)
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(InputError, match="not a safetensors file"):
        load_model(folder)


def test_card_needs_kind(tmp_path):
    with pytest.raises(ValueError, match="kind"):
        save_model(tmp_path / "m", {}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_card_that_cannot_be_read(folder, monkeypatch):
    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(folder), "read_text", refuse)
    with pytest.raises(InputError, match="cannot be read \\(Permission denied"):
        read_card(folder)
