"""Fit the classifier's head to the named examples of all tomograms."""

import json

import _stage

_stage.limit_threads(1)

from tomocensus.classify import Embeddings, fit_head, look_up_examples, read_examples
from tomocensus.classify.examples import is_written
from tomocensus.errors import InputError
from tomocensus.io import read_volume
from tomocensus.models import load_model, save_model
from tomocensus.samples import read_samples


def main(arguments):
    """Look up the examples, fit and write the head."""
    if not is_written(arguments.examples):
        raise InputError(
            f"{arguments.examples}: missing or empty. Write one row an example: tomogram, x, y, z, "
            "class."
        )
    examples = read_examples(arguments.examples)
    known = sorted(set(examples["tomogram"]) & set(read_samples(arguments.sheet)))
    labels = {name: read_volume(f"results/{name}/labels.mrc").data for name in known}
    places = {name: _stage.inspected(f"results/{name}/input.json") for name in known}
    named, problems = look_up_examples(examples, labels, places)
    for problem in problems:
        _stage.say(f"WARNING: {arguments.examples}: {problem}")
    embeddings = {name: Embeddings.load(f"results/{name}/embeddings.npz") for name in known}
    encoder = load_model(arguments.encoder, "encoder")
    seed = json.loads(arguments.settings)["seed"]
    base = None if arguments.base is None else load_model(arguments.base, "classifier")
    card, weights = fit_head(embeddings, named, encoder, seed, base)
    for warning in card["warnings"]:
        _stage.say(f"WARNING: {warning}")
    save_model(arguments.output, {**card, "problems": problems}, weights)
    _stage.say(f"wrote {arguments.output}: {', '.join(card['classes'])}")


options = _stage.parser(__doc__)
options.add_argument("--sheet", required=True)
options.add_argument("--examples", required=True)
options.add_argument("--encoder", required=True, help="folder of the encoder")
_stage.optional(options, "--base")
options.add_argument("--settings", required=True, help="section 'train_classifier' as JSON")
options.add_argument("--output", required=True)
_stage.run(options, main)
