"""Score every tomogram that has a ground truth."""

from pathlib import Path

import _stage
import numpy as np
import pandas as pd

from tomocensus.atomic import write_table
from tomocensus.evaluate import COLUMNS, evaluate_tomogram
from tomocensus.io import read_volume
from tomocensus.samples import read_annotation, read_samples
from tomocensus.tables import read_known_classes, read_table
from tomocensus.volume import looked_in


def named_truth(examples, name, truth, facts):
    """Return the true instances that hold a named example: they taught the classifier."""
    from tomocensus.classify.examples import is_written, named_at, read_examples

    if not is_written(examples):
        return set()
    return named_at(read_examples(examples), name, truth, facts)


def score(name, sample, examples):
    """Score one tomogram."""
    folder = Path("results", name)
    facts = _stage.inspected(folder / "input.json")
    shape, size = tuple(facts["shape"]), facts["voxel_size"]
    truth = read_annotation(sample.ground_truth, shape, "ground truth", size)
    if sample.mask:
        # Nothing is looked for elsewhere, and what is cut is cut on both sides.
        mask = read_volume(sample.mask, voxel_size=size).data
        for z, section in enumerate(truth):
            section[~looked_in(mask[z])] = 0
    excluded = []
    if sample.annotation:
        annotation = read_annotation(sample.annotation, shape, voxel_size=size)
        excluded = np.nonzero((annotation >= 0).any(axis=(1, 2)))[0].tolist()
    classes = read_table(folder / "classes.csv")
    given = sample.probability or sample.labels
    stated = sample.ground_truth_classes
    truth_classes = read_known_classes(stated) if stated else None
    return evaluate_tomogram(
        name,
        read_volume(folder / "labels.mrc").data,
        # Where some voxels are unknown the truth lacks objects: what else was found may be right,
        # and only recall is scored, against whole objects.
        np.maximum(truth, 0),
        probability=None if given else read_volume(folder / "probability.mrc").data,
        classes=dict(zip(classes["instance"], classes["class"], strict=True)),
        truth_classes=truth_classes,
        excluded_slices=excluded,
        complete=not (truth < 0).any(),
        excluded_truth=named_truth(examples, name, truth, facts),
        names={column.removeprefix("p_") for column in classes if column.startswith("p_")},
    )


def main(arguments):
    """Score, print and write."""
    rows = [
        score(name, sample, arguments.examples)
        for name, sample in sorted(read_samples(arguments.sheet).items())
        if sample.ground_truth
    ]
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=COLUMNS)
    for row in table.itertuples():
        _stage.say(f"{row.tomogram:20} {row.metric:32} {row.value:8.3f}  {row.note}")
    write_table(arguments.output, table)


options = _stage.parser(__doc__)
options.add_argument("--sheet", required=True)
options.add_argument("--examples", required=True)
options.add_argument("--output", required=True)
_stage.run(options, main)
