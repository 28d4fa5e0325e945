import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tomocensus.classify import look_up_examples, read_examples
from tomocensus.errors import InputError
from tomocensus.io import write_labels, write_mrc
from tomocensus.io.zarr import write_ome_zarr
from tomocensus.viewer import Review, add_layers, main
from tomocensus.volume import Volume


@pytest.fixture
def project(tmp_path):
    labels = np.zeros((8, 20, 30), np.int32)
    labels[2:5, 5:10, 5:10] = 1
    labels[4:7, 12:18, 20:28] = 2
    data = np.random.default_rng(0).normal(size=labels.shape).astype(np.float32)
    write_mrc(tmp_path / "a.mrc", Volume(data, 10.0))
    folder = tmp_path / "results" / "a"
    folder.mkdir(parents=True)
    write_labels(folder / "labels.mrc", Volume(labels, 10.0))
    write_mrc(folder / "probability.mrc", Volume((labels > 0).astype(np.int8) * 100, 10.0))
    table = {"instance": [1, 2], "class": ["vesicle", "unknown"], "confidence": [0.9, 0.3]}
    pd.DataFrame(table).to_csv(folder / "instances.csv", index=False)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("tomograms: config/tomograms.tsv\n")
    (tmp_path / "config" / "tomograms.tsv").write_text("tomogram\tpath\na\ta.mrc\n")
    return tmp_path


def test_a_named_click_becomes_an_example_of_that_instance(project):
    review = Review(project, "a")
    assert "type a class" in review.name_at((5.2, 14, 22))
    assert not review.examples.exists()
    review.name = "ribosome"
    assert "instance 2 named ribosome" in review.name_at((5.2, 14, 22))
    assert review.name_at((0, 0, 0)) == "no instance here"
    assert review.name_at((99, 0, 0)) == "no instance here"
    places = {"a": {"voxel_size": 10.0, "origin": [0, 0, 0], "nstart": [0, 0, 0]}}
    named, problems = look_up_examples(read_examples(review.examples), {"a": review.labels}, places)
    assert named.to_numpy().tolist() == [["a", 2, "ribosome"]]
    assert problems == []


def test_examples_in_angstrom_get_angstrom_by_the_voxel_size_of_the_sheet(project):
    sheet = "tomogram\tpath\tvoxel_size\na\ta.mrc\t20\n"
    (project / "config" / "tomograms.tsv").write_text(sheet)
    review = Review(project, "a")
    review.examples.write_text("tomogram,x_angstrom,y_angstrom,z_angstrom,class\n")
    review.name = "ribosome"
    review.name_at((5.2, 14, 22))
    assert review.examples.read_text().splitlines()[1] == "a,440.0,280.0,100.0,ribosome"
    places = {"a": {"voxel_size": 20.0, "origin": [0, 0, 0], "nstart": [0, 0, 0]}}
    named, _ = look_up_examples(read_examples(review.examples), {"a": review.labels}, places)
    assert named["instance"].tolist() == [2]


def test_no_map_is_shown_where_labels_were_given(project):
    sheet = "tomogram\tpath\tlabels\na\ta.mrc\tresults/a/labels.mrc\n"
    (project / "config" / "tomograms.tsv").write_text(sheet)
    assert Review(project, "a").probability is None


def test_a_given_map_is_what_is_shown(project):
    given = np.full((8, 20, 30), 200, np.uint8)
    write_mrc(project / "given.mrc", Volume(given, 10.0))
    sheet = "tomogram\tpath\tprobability\na\ta.mrc\tgiven.mrc\n"
    (project / "config" / "tomograms.tsv").write_text(sheet)
    (project / "results" / "a" / "input.json").write_text('{"probability_scale": 255}')
    review = Review(project, "a")
    assert (review.probability == 200).all()
    assert review.certain == 255


def test_a_given_ome_zarr_map_is_shown(project):
    given = np.zeros((8, 20, 30), np.uint8)
    given[3, 6, 7] = 1
    write_ome_zarr(project / "given.zarr", given, 10.0, np.array([0, 100], np.uint8))
    sheet = "tomogram\tpath\tprobability\na\ta.mrc\tgiven.zarr\n"
    (project / "config" / "tomograms.tsv").write_text(sheet)
    (project / "results" / "a" / "input.json").write_text('{"probability_scale": 100}')
    review = Review(project, "a")
    np.testing.assert_array_equal(np.asarray(review.probability), given * 100)
    components = pytest.importorskip("napari.components", reason="napari is not installed")
    viewer = components.ViewerModel()
    add_layers(viewer, review)
    assert viewer.layers["probability"].data[3, 6, 7] == 100


def test_what_to_install_is_told_where_napari_has_no_qt(project, monkeypatch):
    def no_window(**options):
        raise ImportError("No Qt bindings could be found")

    widgets = dict.fromkeys(["ComboBox", "Container", "LineEdit"])
    monkeypatch.setitem(sys.modules, "napari", SimpleNamespace(Viewer=no_window))
    monkeypatch.setitem(sys.modules, "magicgui.widgets", SimpleNamespace(**widgets))
    monkeypatch.setattr(sys, "argv", ["viewer", str(project), "a"])
    with pytest.raises(SystemExit, match="pip install"):
        main()


def test_a_project_may_be_named_by_a_relative_path(project, monkeypatch):
    monkeypatch.chdir(project.parent)
    assert Review(project.name, "a").density.shape == (8, 20, 30)


@pytest.mark.parametrize(
    ("name", "spoil", "reason"),
    [("b", None, "not in the sample sheet"), ("a", "instances.csv", "Run the workflow")],
)
def test_what_cannot_be_opened_is_told(project, name, spoil, reason):
    if spoil:
        (project / "results" / "a" / spoil).unlink()
    with pytest.raises(InputError, match=reason):
        Review(project, name)


def test_layers_and_double_click_off_screen(project):
    components = pytest.importorskip("napari.components", reason="napari is not installed")
    viewer, review = components.ViewerModel(), Review(project, "a")
    add_layers(viewer, review)
    assert [layer.name for layer in viewer.layers] == ["a", "probability", "instances"]
    layer = viewer.layers["instances"]
    colours = [layer.get_color(number) for number in (1, 2)]
    assert not np.allclose(colours[0], colours[1])
    review.name = "vesicle"
    (click,) = layer.mouse_double_click_callbacks
    click(layer, SimpleNamespace(position=(3, 7, 7)))
    assert "instance 1 named vesicle" in viewer.status
    assert review.examples.read_text().splitlines()[1] == "a\t7\t7\t3\tvesicle"
    assert review.describe((3, 7, 7)) == "#1 vesicle (0.90)"
