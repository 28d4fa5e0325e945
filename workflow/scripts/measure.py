"""Measure every instance of one tomogram: place, size, shape, neighbours."""

import json

import _stage

_stage.limit_threads(1)

import numpy as np

from tomocensus.atomic import write_table
from tomocensus.io import read_volume
from tomocensus.measure import extent, measure
from tomocensus.padding import looked_at
from tomocensus.provenance import write_provenance
from tomocensus.tables import read_table
from tomocensus.volume import corner_offset


def main(arguments):
    """Measure and write instances.csv."""
    facts = _stage.inspected(arguments.inspected)
    settings = json.loads(arguments.settings)
    labels = np.asarray(read_volume(arguments.labels).data).astype(np.int32)
    tomogram = _stage.open_tomogram(arguments.tomogram, facts).data
    mask = read_volume(arguments.mask, facts["voxel_size"]).data if arguments.mask else None
    voxels, cut = extent(labels, looked_at(tomogram, mask))
    table = measure(
        labels,
        facts["voxel_size"],
        corner_offset(tuple(facts["origin"]), tuple(facts["nstart"]), facts["voxel_size"]),
        read_table(arguments.clusters),
        read_table(arguments.classes),
        tomogram=facts["tomogram"],
        group=arguments.group,
        contact_distance=settings["contact_distance"],
        cut=cut,
    )
    write_table(arguments.instances, table)
    write_provenance(
        arguments.record,
        "measure",
        __file__,
        {
            "labels": arguments.labels,
            "clusters": arguments.clusters,
            "classes": arguments.classes,
            "mask": arguments.mask,
        },
        settings,
        facts={"analysed_voxels": voxels},
    )


options = _stage.parser(__doc__)
options.add_argument("--tomogram", required=True, help="its padding is no analysed volume")
_stage.optional(options, "--mask")
options.add_argument("--labels", required=True)
options.add_argument("--clusters", required=True)
options.add_argument("--classes", required=True)
options.add_argument("--inspected", required=True, help="input.json")
options.add_argument("--settings", required=True, help="section 'measure' as JSON")
# An empty group gives no value.
options.add_argument("--group", nargs="?", default="", const="", help="experimental condition")
options.add_argument("--instances", required=True)
options.add_argument("--record", required=True)
_stage.run(options, main)
