import pathlib

import numpy as np
import pandas as pd
import pytest

from tomocensus.atomic import write_table
from tomocensus.census import (
    COUNT_COLUMNS,
    GROUP_COLUMNS,
    census,
    compare_groups,
    write_census,
)
from tomocensus.errors import InputError
from tomocensus.measure import COLUMNS, measure
from tomocensus.tables import read_known_classes, read_table


def table(name, classes):
    count = len(classes)
    return pd.DataFrame(
        {
            "tomogram": name,
            "group": "g",
            "class": classes,
            "equivalent_diameter_angstrom": [100.0 * (k + 1) for k in range(count)],
            "volume_angstrom3": [1000.0] * count,
            "confidence": [0.5] * count,
            "touches_border": [False] * count,
        }
    )


def test_counts_and_densities(tmp_path):
    facts = [
        {"tomogram": n, "group": "g", "analysed_voxels": 1e8, "voxel_size": 10.0} for n in "ab"
    ]
    instances, counts = census([table("a", ["v", "v", "m"]), table("b", ["v"])], facts)
    assert len(instances) == 4
    row = counts.set_index(["tomogram", "class"])
    assert row.loc[("a", "v"), "density_per_micrometre3"] == pytest.approx(20)
    assert row.loc[("a", "v"), "diameter_mean_angstrom"] == pytest.approx(150)
    assert row.loc[("b", "m"), "count"] == 0
    assert row.loc[("a", "v"), "volume_micrometre3"] == pytest.approx(0.1)
    assert row.loc[("a", "v"), "diameter_sd_angstrom"] == pytest.approx(100 / np.sqrt(2))
    assert set(counts["group"]) == {"g"}
    write_census(instances, tmp_path / "c.csv", tmp_path / "c.parquet")
    assert len(pd.read_parquet(tmp_path / "c.parquet")) == len(pd.read_csv(tmp_path / "c.csv"))


def test_densities_are_of_what_was_looked_at_and_sizes_of_whole_objects():
    found = table("a", ["v", "v", "v"])
    found["touches_border"] = [False, False, True]
    facts = [{"tomogram": "a", "group": "g", "analysed_voxels": 5e7, "voxel_size": 10.0}]
    (row,) = census([found], facts)[1].to_dict("records")
    assert (row["count"], row["count_whole"]) == (3, 2)
    assert row["density_per_micrometre3"] == pytest.approx(60)
    assert row["diameter_mean_angstrom"] == pytest.approx(150)


def test_groups_are_described_by_their_tomograms():
    sizes = {"a": 9, "b": 1, "c": 0, "d": 4}
    facts = [
        {"tomogram": n, "group": "g" if n < "d" else "", "analysed_voxels": 1e8, "voxel_size": 10.0}
        for n in sizes
    ]
    counts = census([table(n, ["v"] * k + ["w"] * (n == "d")) for n, k in sizes.items()], facts)[1]
    groups = compare_groups(counts)
    assert list(groups) == list(GROUP_COLUMNS)
    row = groups.set_index(["class", "group"]).loc[("v", "g")]
    assert (row["tomograms"], row["tomograms_with"], row["count"]) == (3, 2, 10)
    assert row["count_mean"] == pytest.approx(10 / 3)
    assert row["density_sd_per_micrometre3"] == pytest.approx(np.std([90, 10, 0], ddof=1))
    # Of tomograms with 500 and 100 Å, not of ten objects.
    assert row["tomograms_sized"] == 2
    assert row["diameter_mean_angstrom"] == pytest.approx(300)
    assert groups.set_index(["class", "group"]).loc[("w", "g"), "count_mean"] == 0
    assert len(compare_groups(census([], [])[1])) == 0


@pytest.mark.parametrize(
    ("heading", "columns"), [("Counts", COUNT_COLUMNS), ("Groups", GROUP_COLUMNS)]
)
def test_document_lists_every_column(heading, columns):
    text = (pathlib.Path(__file__).parents[2] / "docs" / "instance-table.md").read_text()
    lines = text.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
    assert [line for line in lines if line.startswith("| `")] == [
        f"| `{name}` | {text} |" for name, text in columns.items()
    ]


def test_a_data_set_without_objects_has_tables_with_columns():
    facts = [{"tomogram": "a", "group": "", "analysed_voxels": 729, "voxel_size": 10.0}]
    instances, counts = census([measure(np.zeros((9, 9, 9), int), 10.0, (0, 0, 0))], facts)
    assert (len(instances), list(instances.columns)) == (0, list(COLUMNS))
    assert (len(counts), list(counts.columns)) == (0, list(COUNT_COLUMNS))


def test_a_table_read_again_has_names_as_text_and_numbers_as_numbers(tmp_path):
    table = pd.DataFrame(
        {
            "tomogram": ["007", "NA"],
            "group": ["1", ""],
            "class": ["True", "nan"],
            "instance": [1, 2],
            "confidence": [0.5, np.nan],
            "contact_instances": ["3", ""],
        }
    )
    write_table(tmp_path / "t.csv", table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv"), table, check_dtype=False)


def test_known_classes_are_read_by_instance(tmp_path):
    (tmp_path / "c.csv").write_text("class,instance,note\n01,3,\n01,3.0,again\nb,12,\n")
    assert read_known_classes(tmp_path / "c.csv") == {3: "01", 12: "b"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("instance;class\n1;a\n", "column instance, class missing"),
        ("instance,class\n1,a\nx,b\n", "row 3: a whole number"),
        ("instance,class\n1.5,a\n", "row 2: a whole number"),
        ("instance,class\n1,\n", "row 2: .* a class"),
        ("instance,class\n1,a\n1,b\n", "row 3: instance 1 is of two classes"),
        ("instance,class\n1,a\n2,b,c,d\n", "no table"),
        ("", "no table"),
    ],
)
def test_a_table_of_classes_that_is_none_is_told(tmp_path, text, reason):
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(InputError, match=rf"c\.csv: .*{reason}"):
        read_known_classes(tmp_path / "c.csv")


def test_a_table_of_classes_that_is_no_text_is_told(tmp_path):
    (tmp_path / "c.csv").write_bytes(b"instance,class\n1,v\xe9sicule\n")
    with pytest.raises(InputError, match="UTF-8"):
        read_known_classes(tmp_path / "c.csv")


def test_types_in_parquet_do_not_depend_on_what_was_found(tmp_path):
    def types(instances):
        write_census(instances, tmp_path / "c.csv", tmp_path / "c.parquet")
        return pd.read_parquet(tmp_path / "c.parquet").dtypes

    labels = np.zeros((12, 40, 40), np.int32)
    labels[2:6, 5:9, 5:9], labels[2:6, 20:30, 20:24] = 1, 2
    clusters = pd.DataFrame({"instance": [1, 2], "solidity": [1, 1], "origin": "whole"})
    write_table(tmp_path / "i.csv", measure(labels, 10.0, (0, 0, 0), clusters, tomogram="a"))
    read = read_table(tmp_path / "i.csv")
    wanted = types(read)
    assert wanted["solidity"] == wanted["volume_angstrom3"] == "float64"
    assert wanted["nearest_instance"] == "Int64"
    assert wanted["instance"] == wanted["contacts"] == "int64"
    assert wanted["touches_border"] == "bool"
    one, none = (measure(some, 10.0, (0, 0, 0)) for some in (labels * (labels == 1), labels * 0))
    for other in (read[:0], one, none):
        pd.testing.assert_series_equal(types(other), wanted)
