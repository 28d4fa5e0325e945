"""Write a copick project: its configuration, or the instances of one tomogram as a run."""

from pathlib import Path

import _stage

_stage.limit_threads(1)

from tomocensus.export import (
    copick_objects,
    remove_other_runs,
    write_copick_config,
    write_copick_run,
)
from tomocensus.io import read_volume
from tomocensus.provenance import read_json
from tomocensus.report.colours import class_colours
from tomocensus.samples import read_samples
from tomocensus.tables import read_table


def main(arguments):
    """Write what is asked for."""
    if arguments.run:
        facts = _stage.inspected(arguments.inspected)
        labels = read_volume(arguments.labels, facts["voxel_size"]).data
        objects = read_json(arguments.config)["pickable_objects"]
        table = read_table(arguments.instances)
        write_copick_run(arguments.run, table, facts, labels, objects)
    else:
        names = sorted(read_samples(arguments.sheet))
        tables = [read_table(f"results/{name}/instances.csv") for name in names]
        colours = class_colours(kind for table in tables for kind in table["class"].unique())
        objects = copick_objects(tables, colours)
        write_copick_config(arguments.config, objects, arguments.overlay)
        remove_other_runs(Path(arguments.config).parent / "ExperimentRuns", names)


options = _stage.parser(__doc__)
options.add_argument("--config", required=True, help="copick.json, made where no run is asked for")
_stage.optional(options, "--sheet", "--overlay", "--labels", "--instances", "--inspected", "--run")
_stage.run(options, main)
