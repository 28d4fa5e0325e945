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
# Separate parts to an object from which a given labelmap is more likely a map of classes.
SCATTERED = 3
CLASSES = (
    "{path}: its {instances} numbers lie in {parts} separate places, and each is taken for one "
    "object. If they are classes, number objects apart, or give a mask of them in the column "
    "'probability': its objects are then told apart."
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


def doubt(arguments, facts, found):
    """Return what speaks against the given map, or None."""
    if arguments.given:
        counts = found.facts
        scattered = counts["parts"] >= SCATTERED * max(counts["instances"], 1)
        # Of a mask `inspect` has told.
        told = list(found.table["component"]) == [1]
        return CLASSES.format(path=arguments.given, **counts) if scattered and not told else None
    return RAGGED if facts.get("probability") and found.facts.get("levels") else None


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
    warning = doubt(arguments, facts, found)
    if warning:
        found.facts["warnings"] = [warning]
        _stage.say(f"{facts['tomogram']}: {warning}")
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
