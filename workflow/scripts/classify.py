"""Name every instance of one tomogram with a fitted head."""

import json

import _stage

from tomocensus.atomic import write_table
from tomocensus.classify import Embeddings, apply_head, named_kinds
from tomocensus.models import load_model
from tomocensus.provenance import write_provenance


def main(arguments):
    """Classify and write classes.csv."""
    head = load_model(arguments.model, "classifier")
    settings = json.loads(arguments.settings)
    asked = [] if settings["kinds"] == "all" else settings["kinds"]
    known = [*named_kinds(head.card, asked), *head.card["classes"]]
    if missing := [kind for kind in asked if kind not in known]:
        _stage.say(
            f"WARNING: classify.kinds: {arguments.model} has no {', '.join(missing)} beside its "
            "classes: one of these is called so or looks so, or it was trained without such kinds."
        )
    classes = apply_head(
        head,
        Embeddings.load(arguments.embeddings),
        minimum_confidence=settings["minimum_confidence"],
        kinds=settings["kinds"],
    )
    write_table(arguments.classes, classes)
    write_provenance(
        arguments.record,
        "classify",
        __file__,
        {"embeddings": arguments.embeddings},
        settings,
        {"classifier": head.sha256},
    )


options = _stage.parser(__doc__)
options.add_argument("--embeddings", required=True)
options.add_argument("--model", required=True, help="folder of the head")
options.add_argument("--settings", required=True, help="section 'classify' as JSON")
options.add_argument("--classes", required=True)
options.add_argument("--record", required=True)
_stage.run(options, main)
