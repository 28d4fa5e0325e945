"""Simulate tomograms into a project folder: ``python -m tomocensus.simulate --output FOLDER``.

The folder holds, for every tomogram, the volume, its true instances, their classes and membranes,
and a sample sheet and a configuration, so that the workflow runs in it at once:
``snakemake --directory FOLDER``. What a tomogram is like that no option says is drawn from its
seed. Several calls with other seeds fill one folder together, and so does the workflow's rule
``simulate``; the sample sheet lists all that there are (``--tomograms 0``: nothing but the sheet).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from tomocensus.atomic import write_text
from tomocensus.io import write_labels
from tomocensus.progress import progress
from tomocensus.simulate.tomogram import PRESETS, simulate_tomogram, write_simulated

COLUMNS = (
    "tomogram",
    "path",
    "polarity",
    "group",
    "annotation",
    "ground_truth",
    "ground_truth_classes",
)
# A sheet of its own: the folder may be the project of real tomograms.
SHEET = "config/simulated.tsv"
CONFIG = f"""# Simulated tomograms; only what differs from the defaults stands here.
tomograms: {SHEET}

train_segmenter:
  annotation: instance
"""


def main(arguments: list[str] | None = None) -> None:
    """Simulate, write, list."""
    options = _options().parse_args(arguments)
    folder = Path(options.output)
    settings = {
        name: getattr(options, name)
        for name in ("shape", "voxel_size", "snr", "defocus", "tilt_range", "tilt_step", "polarity")
        if getattr(options, name) is not None
    }
    if "shape" in settings:
        settings["shape"] = tuple(settings["shape"])
    settings.update(options.set or {})
    seeds = range(options.seed, options.seed + options.tomograms)
    for seed in progress(seeds, "simulating"):
        try:
            made = simulate_tomogram(seed, preset=options.preset, **settings)
        except (TypeError, ValueError) as error:
            sys.exit(f"ERROR: {error}")
        target = folder / "simulated" / f"{options.preset}-{seed}"
        write_simulated(target, made)
        if seed < options.seed + options.annotated:
            annotate(target, made, options.slices)
    write_text(folder / SHEET, sheet(folder))
    if (folder / "config" / "config.yaml").is_file():
        print(f"To use these tomograms, set 'tomograms: {SHEET}' in {folder}/config/config.yaml")
    else:
        write_text(folder / "config" / "config.yaml", CONFIG)


def _options() -> argparse.ArgumentParser:
    """Return the parser."""
    options = argparse.ArgumentParser(prog="python -m tomocensus.simulate", description=__doc__)
    options.add_argument("--output", required=True, help="the project folder")
    options.add_argument("--tomograms", type=_count, default=1, help="how many")
    options.add_argument("--seed", type=_count, default=1, help="of the first; the others follow")
    options.add_argument("--preset", default="cell", choices=tuple(PRESETS))
    options.add_argument("--shape", type=int, nargs=3, metavar=("NZ", "NY", "NX"))
    options.add_argument("--voxel-size", type=float, help="Å")
    options.add_argument("--snr", type=float)
    options.add_argument("--defocus", type=float, help="µm")
    options.add_argument("--tilt-range", type=float, help="degrees to either side")
    options.add_argument("--tilt-step", type=float, help="degrees")
    options.add_argument("--polarity", choices=("dark", "bright"))
    options.add_argument("--set", type=_conditions, help='other conditions as JSON: {"dose": 0}')
    options.add_argument(
        "--annotated", type=_count, default=0, help="tomograms with annotated slices"
    )
    options.add_argument("--slices", type=_count, default=3, help="annotated slices in each")
    return options


def _count(text: str) -> int:
    """Return a whole number of 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of 0 or more")
    return int(text)


def _conditions(text: str) -> dict:
    """Return conditions by name."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(
            f"""'{text}' is no JSON of conditions, as '{{"dose": 0}}'"""
        )
    return found


def annotate(folder: Path, made, slices: int) -> None:
    """Write the truth of a few slices as an annotation; the rest is unlabelled (-1)."""
    truth = np.asarray(made.instances.data)
    annotation = np.full(truth.shape, -1, np.int16)
    for part in (np.arange(slices) + 1) / (slices + 1):
        z = int(part * truth.shape[0])
        annotation[z] = truth[z]
    write_labels(folder / "annotation.mrc", made.tomogram.with_data(annotation))


def sheet(folder: Path) -> str:
    """Return the sample sheet of all simulated tomograms in a folder."""
    rows = ["\t".join(COLUMNS)]
    for path in sorted((folder / "simulated").glob("*/parameters.json")):
        chosen = json.loads(path.read_text(encoding="utf-8"))
        name = path.parent.name
        files = [f"simulated/{name}/{file}" for file in ("instances.mrc", "classes.csv")]
        annotation = f"simulated/{name}/annotation.mrc"
        if not (folder / annotation).is_file():
            annotation = ""
        group = f"SNR {chosen['snr']:.2g}"
        row = [
            name,
            f"simulated/{name}/tomogram.mrc",
            chosen["polarity"],
            group,
            annotation,
            *files,
        ]
        rows.append("\t".join(row))
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
