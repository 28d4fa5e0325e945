"""Train the segmenter on the annotated slices of all tomograms that have some."""

import json

import _stage

from tomocensus.gpu import claim_gpu
from tomocensus.models import load_model, save_model
from tomocensus.samples import read_annotation, read_samples


def annotated(sheet, kind):
    """Load every annotated tomogram."""
    from tomocensus.segment import AnnotatedVolume

    pairs = []
    for name, sample in sorted(read_samples(sheet).items()):
        if not sample.annotation:
            continue
        facts = _stage.inspected(f"results/{name}/input.json")
        pairs.append(
            AnnotatedVolume(
                name=name,
                tomogram=_stage.open_tomogram(sample.path, facts),
                annotation=read_annotation(
                    sample.annotation, tuple(facts["shape"]), voxel_size=facts["voxel_size"]
                ),
                polarity=facts["polarity"],
                kind=kind,
                group=sample.group,
            )
        )
    return pairs


def main(arguments):
    """Train and write the model."""
    _stage.limit_threads(arguments.threads)
    claim_gpu()
    from tomocensus.errors import InputError
    from tomocensus.segment import TrainSettings, train

    settings = json.loads(arguments.settings)
    pairs = annotated(arguments.sheet, settings["annotation"])
    if not pairs:
        raise InputError(
            f"{arguments.sheet}: no row names an annotation, so there is nothing to train from. "
            "Annotate a few slices and name the volume in the column 'annotation'."
        )
    base = None if arguments.base is None else load_model(arguments.base, "segmenter")
    card, weights, _ = train(
        pairs,
        base,
        TrainSettings(
            voxel_size=settings["voxel_size"], steps=settings["steps"], seed=settings["seed"]
        ),
    )
    there, learnt = (card["recipe"][name] for name in ("annotated_slices", "learnt_slices"))
    if learnt < there:
        _stage.say(f"of {there} annotated slices {learnt} are learnt from, evenly spread")
    for warning in card.get("warnings", []):
        _stage.say(f"WARNING: {warning}")
    save_model(arguments.output, card, weights)
    _stage.say(f"wrote {arguments.output}")


options = _stage.parser(__doc__)
options.add_argument("--sheet", required=True)
options.add_argument("--settings", required=True, help="section 'train_segmenter' as JSON")
options.add_argument("--threads", type=int, default=1)
_stage.optional(options, "--base")
options.add_argument("--output", required=True)
_stage.run(options, main)
