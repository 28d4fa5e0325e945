"""List the instances that are most worth naming next, with a small picture of each."""

import json
from pathlib import Path

import _stage
import numpy as np
import pandas as pd
from scipy import ndimage

from tomocensus.atomic import write_json, write_table
from tomocensus.classify import Embeddings, examples_header, rank_for_review, read_examples
from tomocensus.classify.examples import ANGSTROM, in_angstrom, is_written, named_at
from tomocensus.io import read_volume
from tomocensus.report import inner_point, thumbnail
from tomocensus.samples import read_samples
from tomocensus.tables import read_table
from tomocensus.volume import corner_offset


def named_in(examples, folders):
    """Return tomogram and number of the instances that the examples name."""
    if not is_written(examples):
        return set()
    rows, found = read_examples(examples), set()
    for name in sorted(set(rows["tomogram"]) & set(folders)):
        facts = _stage.inspected(folders[name] / "input.json")
        labels = read_volume(folders[name] / "labels.mrc").data
        found |= {(name, number) for number in named_at(rows, name, labels, facts)}
    return found


def described(name, sample, part):
    """Yield place (voxels and Å) and picture of each listed instance of one tomogram."""
    folder = Path("results", name)
    facts = _stage.inspected(folder / "input.json")
    tomogram = _stage.open_tomogram(sample.path, facts)
    labels = np.asarray(read_volume(folder / "labels.mrc").data).astype(np.int32)
    size = facts["voxel_size"]
    offset = corner_offset(tuple(facts["origin"]), tuple(facts["nstart"]), size)
    boxes = ndimage.find_objects(labels)
    for row in part.itertuples():
        box = boxes[row.instance - 1]
        point = inner_point(labels, row.instance, box)
        extent = max(side.stop - side.start for side in box[1:])
        image = thumbnail(tomogram, labels, row.instance, point, extent)
        place = dict(zip("xyz", point, strict=True))
        place |= in_angstrom(np.array([point]), size, offset)[0]
        yield row.Index, place, image


def main(arguments):
    """Rank, look up, draw and write."""
    samples = read_samples(arguments.sheet)
    folders = {name: Path("results", name) for name in sorted(samples)}
    classes = {name: read_table(folder / "classes.csv") for name, folder in folders.items()}
    known = {name: Embeddings.load(folder / "embeddings.npz") for name, folder in folders.items()}
    named = named_in(arguments.examples, folders)
    table = rank_for_review(known, classes, arguments.count, named)
    images, places = {}, {}
    for name, part in table.groupby("tomogram"):
        for index, place, image in described(name, samples[name], part):
            places[index], images[index] = place, image
    found = pd.DataFrame([places[index] for index in table.index], columns=[*"xyz", *ANGSTROM])
    table = pd.concat([table, found], axis=1)
    write_table(arguments.table, table)
    rows = json.loads(table.to_json(orient="records"))
    for index, row in zip(table.index, rows, strict=True):
        row["image"] = images[index]
    columns, separator = examples_header(arguments.examples)
    told = {"examples": arguments.examples, "columns": columns, "separator": separator}
    write_json(arguments.pictures, {**told, "rows": rows})


options = _stage.parser(__doc__)
options.add_argument("--sheet", required=True)
options.add_argument("--examples", required=True, help="may be missing or empty")
options.add_argument("--count", type=int, default=24)
options.add_argument("--table", required=True)
options.add_argument("--pictures", required=True)
_stage.run(options, main)
