"""Join the instance tables of all tomograms; count by tomogram, class and group."""

import _stage
import pandas as pd

from tomocensus.atomic import atomic_path, write_table
from tomocensus.census import census
from tomocensus.provenance import read_json
from tomocensus.samples import read_samples


def main(arguments):
    """Join, count and write."""
    samples = read_samples(arguments.sheet)
    names = sorted(samples)
    text = {"tomogram": str, "group": str, "class": str, "contacts": str}
    tables = [
        pd.read_csv(
            f"results/{name}/instances.csv", dtype=text, keep_default_na=False, na_values=[""]
        )
        for name in names
    ]
    # The sheet's group counts: input.json is not written anew where only the group changes.
    facts = [
        {**read_json(f"results/{name}/input.json"), "group": samples[name].group} for name in names
    ]
    instances, counts = census(tables, facts)
    write_table(arguments.csv, instances)
    write_table(arguments.counts, counts)
    with atomic_path(arguments.parquet) as temporary:
        instances.to_parquet(temporary, index=False)


options = _stage.parser(__doc__)
options.add_argument("--sheet", required=True)
options.add_argument("--csv", required=True)
options.add_argument("--parquet", required=True)
options.add_argument("--counts", required=True)
_stage.run(options, main)
