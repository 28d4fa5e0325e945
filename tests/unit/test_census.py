import numpy as np
import pandas as pd
import pytest

from tomocensus.atomic import write_table
from tomocensus.census import census, write_census
from tomocensus.tables import read_table


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
        }
    )


def test_counts_and_densities(tmp_path):
    facts = [
        {"tomogram": n, "group": "g", "shape": [100, 1000, 1000], "voxel_size": 10.0} for n in "ab"
    ]
    instances, counts = census([table("a", ["v", "v", "m"]), table("b", ["v"])], facts)
    assert len(instances) == 4
    row = counts.set_index(["tomogram", "class"])
    assert row.loc[("a", "v"), "density_per_micrometre3"] == pytest.approx(20)
    assert row.loc[("a", "v"), "diameter_mean_angstrom"] == pytest.approx(150)
    assert row.loc[("b", "m"), "count"] == 0
    write_census(instances, tmp_path / "c.csv", tmp_path / "c.parquet")
    assert len(pd.read_parquet(tmp_path / "c.parquet")) == len(pd.read_csv(tmp_path / "c.csv"))


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
