"""Predict the maps of one tomogram with a trained segmenter."""

import json
from pathlib import Path

import _stage

from tomocensus.gpu import claim_gpu
from tomocensus.models import load_model
from tomocensus.provenance import write_provenance


def main(arguments):
    """Predict and write the maps."""
    _stage.limit_threads(arguments.threads)
    claim_gpu()
    from tomocensus.io import read_volume
    from tomocensus.segment import predict_to_files

    facts = _stage.inspected(arguments.inspected)
    model = load_model(arguments.model, "segmenter")
    settings = json.loads(arguments.settings)
    mask = read_volume(arguments.mask, facts["voxel_size"]).data if arguments.mask else None
    maps = {Path(path).stem: path for path in arguments.maps}
    # No declared output: Snakemake would not do a finished job again for one more file.
    uncertainty = Path(arguments.record).parent / "uncertainty.mrc"
    uncertainty.unlink(missing_ok=True)
    told = predict_to_files(
        _stage.open_tomogram(arguments.tomogram, facts),
        model,
        maps,
        polarity=facts["polarity"],
        threads=arguments.threads,
        tta=settings["test_time_augmentation"],
        mask=mask,
        uncertainty=uncertainty if settings["uncertainty"] else None,
        engine=settings["engine"],
    )
    write_provenance(
        arguments.record,
        "segment",
        __file__,
        {"tomogram": arguments.tomogram, "mask": arguments.mask},
        settings,
        {"segmenter": model.sha256},
        told,
    )


options = _stage.parser(__doc__)
options.add_argument("--tomogram", required=True)
options.add_argument("--inspected", required=True, help="input.json")
_stage.optional(options, "--mask")
options.add_argument("--model", required=True, help="folder of the segmenter")
options.add_argument("--settings", required=True, help="section 'segment' as JSON")
options.add_argument("--threads", type=int, default=1)
options.add_argument("--maps", nargs="+", required=True, help="HEAD.mrc for each head")
options.add_argument("--record", required=True)
_stage.run(options, main)
