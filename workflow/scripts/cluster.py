"""Group the object voxels of one tomogram into instances, or take over a given labelmap."""

import json
from pathlib import Path

import _stage

_stage.limit_threads(1)

import numpy as np

from tomocensus.atomic import write_table
from tomocensus.cluster import ClusterParameters, cluster, cluster_labels, decode_probability
from tomocensus.io import read_volume, write_labels
from tomocensus.provenance import write_provenance
from tomocensus.volume import Volume


def from_maps(arguments, facts):
    """Cluster the segmenter's maps or another program's."""
    maps = {Path(path).stem: np.asarray(read_volume(path).data) for path in arguments.maps[1:]}
    probability = np.asarray(read_volume(arguments.maps[0]).data)
    scale = facts["probability_scale"] if facts.get("probability") else 100
    mask = np.asarray(read_volume(arguments.mask).data) > 0 if arguments.mask else None
    return cluster(
        decode_probability(probability, scale),
        facts["voxel_size"],
        ClusterParameters(**json.loads(arguments.settings)),
        boundary=maps.get("boundary"),
        membrane=maps.get("membrane"),
        threads=arguments.threads,
        mask=mask,
    )


def main(arguments):
    """Cluster and write labels, table and record."""
    facts = _stage.inspected(arguments.inspected)
    if arguments.given:
        given = np.asarray(read_volume(arguments.given).data)
        found = cluster_labels(given, facts["voxel_size"])
    else:
        found = from_maps(arguments, facts)
    _stage.say(f"{facts['tomogram']}: {len(found.table)} instances")
    place = Volume(
        found.labels, facts["voxel_size"], tuple(facts["origin"]), tuple(facts["nstart"])
    )
    write_labels(arguments.labels, place)
    write_table(arguments.table, found.table)
    write_provenance(
        arguments.record,
        "cluster",
        __file__,
        {Path(path).stem: path for path in [*arguments.maps, arguments.given] if path},
        json.loads(arguments.settings),
        facts=found.facts,
    )


options = _stage.parser(__doc__)
options.add_argument("--maps", nargs="*", default=[], help="probability.mrc and further maps")
_stage.optional(options, "--given", "--mask")
options.add_argument("--inspected", required=True, help="input.json")
options.add_argument("--settings", required=True, help="section 'cluster' as JSON")
options.add_argument("--threads", type=int, default=1)
options.add_argument("--labels", required=True)
options.add_argument("--table", required=True)
options.add_argument("--record", required=True)
_stage.run(options, main)
