"""Simulate one tomogram with its truth, from a preset and a seed."""

import _stage

from tomocensus.simulate import write_dataset


def main(arguments):
    """Write the folder of the tomogram."""
    made = write_dataset(arguments.output, arguments.seed, preset=arguments.preset)
    chosen = made.parameters
    _stage.say(
        f"{arguments.preset}-{arguments.seed}: {len(made.classes)} objects at "
        f"{chosen['voxel_size']:.1f} Å, SNR {chosen['snr']:.2f}"
    )


options = _stage.parser(__doc__)
options.add_argument("--preset", required=True)
options.add_argument("--seed", type=int, required=True)
options.add_argument("--output", required=True, help="folder; replaced as a whole")
_stage.run(options, main)
