"""Put pictures, tables, scores, warnings and provenance of a data set into one HTML file."""

import json
from pathlib import Path

import _stage

from tomocensus.atomic import write_text
from tomocensus.inspect import current_warnings
from tomocensus.models import read_card
from tomocensus.provenance import read_json, versions
from tomocensus.report import build_report
from tomocensus.samples import read_samples
from tomocensus.tables import read_table

STAGES = ("segment", "cluster", "embed", "classify", "measure")
PACKAGES = ("tomocensus", "snakemake", "torch", "numpy", "scipy", "scikit-image", "mrcfile")


def records(samples, outlines):
    """Read the stages' records of every tomogram; `outlines`: the segmenter's part given maps."""
    found = {}
    for name, sample in sorted(samples.items()):
        # What the segmenter said before a map or labels were given is no part of this.
        given = sample.labels or (sample.probability and (sample.boundary or not outlines))
        stages = [stage for stage in STAGES if stage != "segment" or not given]
        paths = {stage: Path("results", name, f"{stage}.json") for stage in stages}
        found[name] = {stage: read_json(path) for stage, path in paths.items() if path.is_file()}
    return found


def inputs_of(samples, told):
    """Read what was found of every tomogram; with the warnings of clustering."""
    found = {name: read_json(f"results/{name}/input.json") for name in sorted(samples)}
    for name, facts in found.items():
        later = told[name].get("cluster", {}).get("facts", {}).get("warnings", [])
        facts["warnings"] = [*current_warnings(facts, samples[name]), *later]
    return found


def main(arguments):
    """Build and write the report."""
    samples, settings = read_samples(arguments.sheet), json.loads(arguments.settings)
    pictured = sorted(list(samples)[: settings["report"]["tomograms"]])
    instances = read_table("results/census.csv")
    told = records(samples, settings["cluster"]["predict_outlines"])
    evaluation = read_table("results/evaluation.csv")
    html = build_report(
        pictures={name: read_json(f"results/{name}/pictures.json") for name in pictured},
        instances=instances,
        counts=read_table("results/counts.csv"),
        evaluation=evaluation if len(evaluation) else None,
        inputs=inputs_of(samples, told),
        provenance={
            "versions": versions(PACKAGES),
            "parameters": settings,
            "records": told,
        },
        models={kind: read_card(path) for kind, path in json.loads(arguments.models).items()},
        review=read_json("results/review.json"),
        title=arguments.title,
    )
    write_text(arguments.output, html)


options = _stage.parser(__doc__)
options.add_argument("--sheet", required=True)
options.add_argument("--models", required=True, help="folder of each model as JSON")
options.add_argument("--title", default="TomoCensus")
options.add_argument("--settings", required=True, help="the configuration as JSON")
options.add_argument("--output", required=True)
_stage.run(options, main)
