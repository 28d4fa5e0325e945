"""Group the object voxels of one tomogram into instances, or take over a given labelmap."""

import json
from pathlib import Path

import _stage

_stage.limit_threads(1)

import numpy as np

from tomocensus.atomic import scratch_folder, write_table
from tomocensus.cluster import ClusterParameters, cluster, cluster_labels, decode_probability
from tomocensus.io import read_volume, write_labels
from tomocensus.provenance import write_provenance
from tomocensus.volume import Volume


# Voxels from which arrays of the volume's size lie in files; the rule's memory counts on it.
LARGE = 500_000_000
RAGGED = (
    "most objects of the given map hang together, and a part of them is lost. Set "
    "cluster.predict_outlines to true: the segmenter then looks at the tomogram, and the outlines "
    "it sees part them."
)


def from_maps(arguments, facts, scratch, mask):
    """Cluster the segmenter's maps or another program's."""
    maps = {Path(path).stem: read_volume(path).data for path in arguments.maps[1:]}
    probability = read_volume(arguments.maps[0], facts["voxel_size"]).data
    if facts.get("probability"):
        probability = decode_probability(probability, facts["probability_scale"], scratch)
    outlines = maps.get("boundary")
    if arguments.boundary:
        given = read_volume(arguments.boundary, facts["voxel_size"]).data
        outlines = decode_probability(given, facts["boundary_scale"], scratch)
    return cluster(
        probability,
        facts["voxel_size"],
        ClusterParameters(**json.loads(arguments.settings)),
        boundary=outlines,
        threads=arguments.threads,
        mask=mask,
        scratch=scratch,
    )


def main(arguments):
    """Cluster and write, with files for what does not fit in memory."""
    facts = _stage.inspected(arguments.inspected)
    if np.prod(facts["shape"]) < arguments.large:
        run(arguments, facts)
    else:
        with scratch_folder(arguments.labels) as scratch:
            run(arguments, facts, scratch)


def run(arguments, facts, scratch=None):
    """Cluster and write labels, table and record."""
    size = facts["voxel_size"]
    mask = read_volume(arguments.mask, size).data if arguments.mask else None
    if arguments.given:
        given = read_volume(arguments.given, size).data
        found = cluster_labels(given, size, arguments.threads, scratch, mask)
    else:
        found = from_maps(arguments, facts, scratch, mask)
    _stage.say(f"{facts['tomogram']}: {len(found.table)} instances")
    if facts.get("probability") and found.facts.get("levels"):
        found.facts["warnings"] = [RAGGED]
        _stage.say(f"{facts['tomogram']}: {RAGGED}")
    place = Volume(
        found.labels, facts["voxel_size"], tuple(facts["origin"]), tuple(facts["nstart"])
    )
    write_labels(arguments.labels, place)
    write_table(arguments.table, found.table)
    files = {Path(path).stem: path for path in [*arguments.maps, arguments.given] if path}
    write_provenance(
        arguments.record,
        "cluster",
        __file__,
        files | ({"boundary": arguments.boundary} if arguments.boundary else {}),
        json.loads(arguments.settings),
        facts=found.facts,
    )


options = _stage.parser(__doc__)
options.add_argument("--maps", nargs="*", default=[], help="probability.mrc and further maps")
_stage.optional(options, "--boundary", "--given", "--mask")
options.add_argument("--inspected", required=True, help="input.json")
options.add_argument("--settings", required=True, help="section 'cluster' as JSON")
options.add_argument("--threads", type=int, default=1)
options.add_argument(
    "--large",
    type=int,
    default=LARGE,
    help="voxels from which arrays lie in files beside the labels, not in memory",
)
options.add_argument("--labels", required=True)
options.add_argument("--table", required=True)
options.add_argument("--record", required=True)
_stage.run(options, main)
