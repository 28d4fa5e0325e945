"""Describe every instance of one tomogram by the encoder's vector and by features of its shape."""

import _stage

from tomocensus.gpu import claim_gpu
from tomocensus.models import load_model
from tomocensus.provenance import write_provenance


def main(arguments):
    """Embed and write embeddings.npz."""
    _stage.limit_threads(arguments.threads)
    claim_gpu()
    import numpy as np

    from tomocensus.classify import embed
    from tomocensus.io import read_volume

    facts = _stage.inspected(arguments.inspected)
    encoder = load_model(arguments.model, "encoder")
    found = embed(
        _stage.open_tomogram(arguments.tomogram, facts),
        np.asarray(read_volume(arguments.labels).data).astype(np.int32),
        encoder,
        facts["polarity"],
        threads=arguments.threads,
    )
    found.save(arguments.embeddings)
    write_provenance(
        arguments.record,
        "embed",
        __file__,
        {"tomogram": arguments.tomogram, "labels": arguments.labels},
        {},
        {"encoder": encoder.sha256},
    )


options = _stage.parser(__doc__)
options.add_argument("--tomogram", required=True)
options.add_argument("--inspected", required=True, help="input.json")
options.add_argument("--labels", required=True)
options.add_argument("--model", required=True, help="folder of the encoder")
options.add_argument("--threads", type=int, default=1)
options.add_argument("--embeddings", required=True)
options.add_argument("--record", required=True)
_stage.run(options, main)
