"""Write the instances of all tomograms, a STAR file for each class."""

import _stage

from tomocensus.export import write_stars_of_classes
from tomocensus.samples import read_samples
from tomocensus.tables import read_table


def main(arguments):
    """Read every instance table and write the files."""
    names = sorted(read_samples(arguments.sheet))
    tomograms = (
        (
            read_table(f"results/{name}/instances.csv"),
            _stage.inspected(f"results/{name}/input.json"),
        )
        for name in names
    )
    files = write_stars_of_classes(arguments.folder, tomograms)
    _stage.say(f"{arguments.folder}: {', '.join(files) or 'no instances'}")


options = _stage.parser(__doc__)
options.add_argument("--sheet", required=True)
options.add_argument("--folder", required=True)
_stage.run(options, main)
