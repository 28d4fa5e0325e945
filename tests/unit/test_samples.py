import textwrap
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tomocensus.errors import InputError
from tomocensus.io import write_mrc
from tomocensus.samples import (
    FILE_COLUMNS,
    Sample,
    check_keys,
    load_config,
    read_annotation,
    read_project,
    read_samples,
)
from tomocensus.volume import Volume

CONFIG = Path(__file__).resolve().parents[2] / "config" / "config.yaml"


# configuration


def test_shipped_configuration_is_valid_and_states_the_defaults():
    shipped = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    defaults = load_config({})
    assert load_config(shipped) == defaults
    for section, values in shipped.items():
        assert values == defaults[section] or set(values) == set(defaults[section])


def test_empty_section_and_no_configuration():
    assert load_config({"segment": None}) == load_config({}) == load_config(None)


def test_given_values_are_kept_and_the_input_is_not_changed():
    given_values = {"cluster": {"solidity": 0.5}}
    found = load_config(given_values)
    assert found["cluster"]["solidity"] == 0.5
    assert found["cluster"]["fill"] is True
    assert given_values == {"cluster": {"solidity": 0.5}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"segmnt": {}}, "c.yaml: unknown key 'segmnt'; did you mean 'segment'"),
        ({"cluster": {"solidty": 1}}, "unknown key 'cluster.solidty'; did you mean 'solidity'"),
        ({"cluster": {"threshold": 2}}, "key 'cluster.threshold' is 2; it must be auto, or"),
        ({"cluster": {"fill": "yes"}}, "'cluster.fill' is 'yes'; it must be true or false"),
        ({"report": {"slices": 0}}, "whole number at least 1"),
        ({"train_segmenter": {"annotation": "x"}}, "one of binary, semantic, instance"),
        ({"cluster": 5}, "key 'cluster' is 5; it must be a section"),
        ([1], "must be a list of"),
    ],
)
def test_config_faults(config, message):
    with pytest.raises(InputError) as error:
        load_config(config, "c.yaml")
    assert message in str(error.value)


def test_a_key_that_stands_twice_is_told_with_both_lines(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("cluster:\n  neck: 0.7\n  fill: true\n  neck: 0.8\nsegment: {}\ncluster: {}\n")
    with pytest.raises(InputError) as error:
        check_keys(path)
    assert "config.yaml: key 'cluster.neck' stands twice, in lines 2 and 4" in str(error.value)
    assert "key 'cluster' stands twice, in lines 1 and 6" in str(error.value)
    (tmp_path / "tomograms.tsv").touch()
    with pytest.raises(InputError, match="stands twice"):
        read_project(tmp_path)
    check_keys(CONFIG)
    # The reader's to tell.
    path.write_text("a: [\n")
    check_keys(path)


def test_all_config_faults_are_told_at_once():
    with pytest.raises(InputError) as error:
        load_config({"a": 1, "b": 2, "cluster": {"neck": -1}})
    assert len(str(error.value).splitlines()) == 3


# sample sheet


@pytest.fixture
def sheet(tmp_path):
    (tmp_path / "a.mrc").write_bytes(b"")

    def write(text):
        path = tmp_path / "tomograms.tsv"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


def fault(path):
    with pytest.raises(InputError) as error:
        read_samples(path, path.parent)
    return str(error.value)


def test_full_row(sheet, tmp_path):
    path = sheet(
        "# comment\n\ntomogram\tpath\tvoxel_size\tpolarity\tgroup\tprobability\tprobability_scale\n"
        "TS_01\ta.mrc\t13.48\tbright\twild type\ta.mrc\t255\n"
        "TS_02\ta.mrc\n"
    )
    file = str(tmp_path / "a.mrc")
    assert read_samples(path, tmp_path) == {
        "TS_01": Sample(
            "TS_01", file, 13.48, "bright", "wild type", probability=file, probability_scale=255
        ),
        "TS_02": Sample("TS_02", file),
    }


def test_paths_are_relative_to_the_working_directory(sheet, tmp_path, monkeypatch):
    sheet("tomogram\tpath\nA\ta.mrc\n")
    monkeypatch.chdir(tmp_path)
    assert read_samples("tomograms.tsv")["A"].path == "a.mrc"


def test_row_survives_json(sheet):
    sample = Sample("A", "a.mrc", 10.0, "dark", mask="m.mrc")
    assert Sample.from_json(sample.to_json()) == sample


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("", ["empty"]),
        ("tomogram\tpath\n", ["no rows"]),
        ("tomogram,path\nA,a.mrc\n", ["separated by commas", "tabs"]),
        ("tomogram  path\nA  a.mrc\n", ["separated by spaces", "tabs"]),
        ("tomogram\tpaht\nA\ta.mrc\n", ["row 1", "unknown column 'paht'", "'path'"]),
        ("tomogram\tpath\tpath\nA\ta.mrc\ta.mrc\n", ["row 1", "'path' stands twice"]),
        ("tomogram\nA\n", ["column 'path' is missing"]),
        ("tomogram\tpath\nA\ta.mrc\t7\n", ["row 2", "3 cells"]),
        ("tomogram\tpath\nA\t\n", ["row 2, column 'path': empty"]),
        ("tomogram\tpath\nA\tb.mrc\n", ["row 2, column 'path'", "no such file 'b.mrc'"]),
        ("tomogram\tpath\nA\ta.mrc\na\ta.mrc\n", ["row 3", "already the name of row 2"]),
        ("tomogram\tpath\tvoxel_size\nA\ta.mrc\t10 A\n", ["'voxel_size': '10 A'", "a number of Å"]),
        ("tomogram\tpath\tvoxel_size\nA\ta.mrc\tnan\n", ["'voxel_size': 'nan'"]),
        ("tomogram\tpath\tvoxel_size\nA\ta.mrc\t-1\n", ["'voxel_size': '-1'"]),
        ("tomogram\tpath\tpolarity\nA\ta.mrc\tblack\n", ["'black'", "dark, bright or auto"]),
        ("tomogram\tpath\tprobability_scale\nA\ta.mrc\t2\n", ["1, 100, 255 or auto"]),
        ("tomogram\tpath\tboundary\nA\ta.mrc\ta.mrc\n", ["'boundary'", "'probability'"]),
        (
            "tomogram\tpath\tground_truth_classes\nA\ta.mrc\ta.mrc\n",
            ["row 2, column 'ground_truth_classes'", "'ground_truth'"],
        ),
        ("tomogram\tpath\nA\ta{v1}.mrc\n", ["row 2, column 'path': 'a{v1}.mrc'", "rename it"]),
    ],
)
def test_sheet_faults(sheet, text, messages):
    found = fault(sheet(text))
    assert "tomograms.tsv" in found
    for message in messages:
        assert message in found


def test_a_sheet_that_cannot_be_read(sheet, monkeypatch):
    path = sheet("tomogram\tpath\nA\ta.mrc\n")

    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_text", refuse)
    assert "tomograms.tsv: cannot be read (Permission denied)" in fault(path)


@pytest.mark.parametrize("column", FILE_COLUMNS)
def test_braces_are_refused_in_every_path(sheet, column):
    cells = {"tomogram": "A", "path": "a.mrc", "probability": "a.mrc", "ground_truth": "a.mrc"}
    cells[column] = "{a}.mrc"
    path = sheet("\n".join("\t".join(line) for line in (cells, cells.values())))
    (path.parent / "{a}.mrc").touch()
    found = fault(path)
    assert f"row 2, column '{column}': '{{a}}.mrc' does not fit" in found
    assert len(found.splitlines()) == 1


def test_all_faults_of_all_rows(sheet):
    found = fault(sheet("tomogram\tpath\n../A\tno.mrc\nB C\ta.mrc\n"))
    assert len(found.splitlines()) == 3
    assert "row 2, column 'tomogram'" in found
    assert "row 3, column 'tomogram'" in found


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "a..b",
        "a/b",
        "a b",
        "-a",
        ".a",
        "a;b",
        "<b>",
        "ä",
        "x" * 101,
        "Particles",
        "census.csv",
        "groups.csv",
    ],
)
def test_unsafe_names(sheet, name):
    assert "column 'tomogram'" in fault(sheet(f"tomogram\tpath\n{name}\ta.mrc\n"))


@given(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_-]|\.(?!\.)){0,99}", fullmatch=True))
def test_safe_names(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("sheet")
    (folder / "a.mrc").write_bytes(b"")
    (folder / "s.tsv").write_text(f"tomogram\tpath\n{name}\ta.mrc\n")
    assert list(read_samples("s.tsv", folder)) == [name]


def test_no_sheet(tmp_path):
    with pytest.raises(InputError, match="no such sample sheet"):
        read_samples("s.tsv", tmp_path)


# annotation


@pytest.mark.parametrize(("dtype", "stored"), [("i1", -1), ("i2", -1), ("f4", -1), ("u2", 65535)])
def test_unlabelled(tmp_path, dtype, stored):
    data = np.array([stored, 0, 1, 7]).astype(dtype).reshape(1, 1, 4)
    write_mrc(tmp_path / "a.mrc", Volume(data, 10.0))
    found = read_annotation(tmp_path / "a.mrc", (1, 1, 4))
    assert found.dtype == np.int8
    assert found.ravel().tolist() == [-1, 0, 1, 7]


@pytest.mark.parametrize(
    ("most", "dtype"), [(127, "i1"), (128, "i2"), (32767, "i2"), (32768, "i4"), (65534, "i4")]
)
def test_annotation_is_as_small_as_its_numbers(tmp_path, most, dtype):
    # The largest number is in the last of several parts that are read, the unlabelled in the first.
    data = np.zeros((130, 2, 2), np.uint16)
    data[0], data[129, 1, 1] = 65535, most
    write_mrc(tmp_path / "a.mrc", Volume(data, 10.0))
    found = read_annotation(tmp_path / "a.mrc", data.shape)
    assert found.dtype == dtype
    assert (found[0] == -1).all()
    assert (found[1:] == data[1:]).all()


def test_unlabelled_uint8_tiff(tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", np.full((2, 9, 9), 255, np.uint8))
    assert (read_annotation(tmp_path / "a.tif", (2, 9, 9)) == -1).all()


def test_annotation_faults(tmp_path):
    path = tmp_path / "a.mrc"
    write_mrc(path, Volume(np.zeros((2, 3, 4), np.int8), 10.0))
    with pytest.raises(InputError, match="another order"):
        read_annotation(path, (4, 3, 2))
    with pytest.raises(InputError, match="own grid"):
        read_annotation(path, (4, 3, 3))
    with pytest.raises(InputError, match="the ground truth has shape"):
        read_annotation(path, (4, 3, 3), "ground truth")
    write_mrc(path, Volume(np.full((2, 3, 4), -2, np.int8), 10.0))
    with pytest.raises(InputError, match="holds -2"):
        read_annotation(path, (2, 3, 4))
    write_mrc(path, Volume(np.full((2, 3, 4), 0.5, np.float32), 10.0))
    with pytest.raises(InputError, match="fractions"):
        read_annotation(path, (2, 3, 4))
    write_mrc(path, Volume(np.full((2, 3, 4), np.inf, np.float32), 10.0))
    with pytest.raises(InputError, match="fractions"):
        read_annotation(path, (2, 3, 4))
    write_mrc(path, Volume(np.full((2, 3, 4), 3e9, np.float32), 10.0))
    with pytest.raises(InputError, match="holds 3000000000"):
        read_annotation(path, (2, 3, 4))


def test_numbers_with_exponents_and_whole_numbers_with_a_point_are_numbers():
    told = yaml.safe_load(
        "cluster: {minimum_volume: 5.2e8, threshold: 4e-1}\nreport: {tomograms: 10.0, title: 1e5}"
    )
    config = load_config(told)
    assert config["cluster"]["minimum_volume"] == 5.2e8
    assert config["cluster"]["threshold"] == 0.4
    assert config["report"] | {"slices": 15} == {"tomograms": 10, "title": "1e5", "slices": 15}
    assert isinstance(config["report"]["tomograms"], int)


@pytest.mark.parametrize("value", [".nan", ".inf", "1e999", "many"])
def test_what_is_no_finite_number_is_refused(value):
    told = yaml.safe_load(f"cluster: {{minimum_volume: {value}}}")
    with pytest.raises(InputError, match="minimum_volume"):
        load_config(told)
