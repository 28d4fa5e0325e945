"""Look at one tomogram and what its sample row names; stop with a clear error on bad input."""

import json

import _stage

from tomocensus.atomic import write_json
from tomocensus.inspect import inspect
from tomocensus.samples import Sample


def main(arguments):
    """Inspect and write input.json."""
    sample = Sample(**json.loads(arguments.row))
    facts = inspect(sample)
    for warning in facts["warnings"]:
        _stage.say(f"WARNING: {sample.tomogram}: {warning}")
    write_json(arguments.output, facts)


options = _stage.parser(__doc__)
options.add_argument("--row", required=True, help="sample row as JSON")
options.add_argument("--output", required=True)
_stage.run(options, main)
