"""Write the instances of one tomogram in the formats of other programs."""

import _stage

from tomocensus.export import (
    write_imod_points,
    write_imod_points_of_classes,
    write_picks,
    write_star,
)
from tomocensus.tables import read_table


def main(arguments):
    """Read the instance table and write each format."""
    facts = _stage.inspected(arguments.inspected)
    table = read_table(arguments.instances)
    write_star(arguments.star, table, facts)
    write_imod_points(arguments.points, table)
    write_imod_points_of_classes(arguments.classes, table)
    write_picks(arguments.picks, table, facts)


options = _stage.parser(__doc__)
options.add_argument("--instances", required=True)
options.add_argument("--inspected", required=True, help="input.json")
options.add_argument("--star", required=True)
options.add_argument("--points", required=True)
options.add_argument("--classes", required=True, help="folder of the points of each class")
options.add_argument("--picks", required=True)
_stage.run(options, main)
