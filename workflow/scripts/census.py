"""Join the instance tables of all tomograms; count by tomogram, class and group."""

import _stage

from tomocensus.atomic import write_table
from tomocensus.census import census, compare_groups, write_census
from tomocensus.provenance import read_json
from tomocensus.samples import read_samples
from tomocensus.tables import read_table


def main(arguments):
    """Join, count and write."""
    samples = read_samples(arguments.sheet)
    names = sorted(samples)
    tables = [read_table(f"results/{name}/instances.csv") for name in names]
    # The sheet's group counts: input.json is not written anew where only the group changes.
    facts = [
        {
            **read_json(f"results/{name}/input.json"),
            **read_json(f"results/{name}/measure.json")["facts"],
            "group": samples[name].group,
        }
        for name in names
    ]
    instances, counts = census(tables, facts)
    write_census(instances, arguments.csv, arguments.parquet)
    write_table(arguments.counts, counts)
    write_table(arguments.groups, compare_groups(counts))


options = _stage.parser(__doc__)
options.add_argument("--sheet", required=True)
options.add_argument("--csv", required=True)
options.add_argument("--parquet", required=True)
options.add_argument("--counts", required=True)
options.add_argument("--groups", required=True)
_stage.run(options, main)
