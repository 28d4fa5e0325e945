"""Write instances in the formats of other programs."""

from tomocensus.export.copick import (
    copick_objects,
    remove_other_runs,
    write_copick_config,
    write_copick_run,
)
from tomocensus.export.imod import (
    read_imod_points,
    write_imod_points,
    write_imod_points_of_classes,
)
from tomocensus.export.picks import read_picks, write_picks
from tomocensus.export.star import (
    euler_from_major_axis,
    read_star,
    write_star,
    write_stars_of_classes,
)

__all__ = [
    "copick_objects",
    "euler_from_major_axis",
    "read_imod_points",
    "read_picks",
    "read_star",
    "remove_other_runs",
    "write_copick_config",
    "write_copick_run",
    "write_imod_points",
    "write_imod_points_of_classes",
    "write_picks",
    "write_star",
    "write_stars_of_classes",
]
