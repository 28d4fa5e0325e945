"""Draw slices of one tomogram with map, instances and classes for the report."""

import json

import _stage
import numpy as np

from tomocensus.atomic import write_text
from tomocensus.io import read_volume
from tomocensus.report import picture, split_pictures
from tomocensus.tables import read_table


def main(arguments):
    """Draw and write pictures.json."""
    facts = _stage.inspected(arguments.inspected)
    tomogram = _stage.open_tomogram(arguments.tomogram, facts)
    given = arguments.probability
    probability = read_volume(given, tomogram.voxel_size).data if given else None
    labels = np.asarray(read_volume(arguments.labels).data).astype(np.int32)
    drawn = picture(
        tomogram,
        probability,
        labels,
        read_table(arguments.instances),
        slices=arguments.slices,
        # Of another program's map; the segmenter's own is in per cent.
        certain=facts["probability_scale"] or 100,
    )
    drawn["splits"] = split_pictures(tomogram, labels, read_table(arguments.clusters))
    write_text(arguments.output, json.dumps(drawn, sort_keys=True))


options = _stage.parser(__doc__)
options.add_argument("--tomogram", required=True)
options.add_argument("--inspected", required=True, help="input.json")
_stage.optional(options, "--probability")
options.add_argument("--labels", required=True)
options.add_argument("--clusters", required=True, help="clusters.csv")
options.add_argument("--instances", required=True)
options.add_argument("--slices", type=int, default=15)
options.add_argument("--output", required=True)
_stage.run(options, main)
