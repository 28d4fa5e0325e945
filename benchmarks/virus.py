"""Real virus-like particles against debris, named from the demo's nine examples.

``python workflow/scripts/prepare_demo.py --output FOLDER``
``python benchmarks/virus.py --project FOLDER --output benchmarks/virus.md``
``    --picture benchmarks/virus.png``

The demo's real tomogram (EMPIAR-10164). Objects are kept down to a mean probability of 0.5, so that
there is debris to tell from. Particles are those with published lattice points and, by eye, the
whole ones without (:data:`BY_EYE`); what else is cut by a side of the tomogram, where particles are
that nobody annotated, or unsure (:data:`UNSURE`) is left out, all else is debris.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from tomocensus.atomic import write_text
from tomocensus.classify import apply_head, embed, fit_head, look_up_examples, read_examples
from tomocensus.cluster import ClusterParameters, cluster
from tomocensus.io import read_volume
from tomocensus.models import Model, load_model
from tomocensus.segment import AnnotatedVolume, TrainSettings, predict, train

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# Middles (z, y, x) in voxels.
BY_EYE = ((50, 28, 84), (68, 92, 31))
UNSURE = ((47, 42, 5), (65, 94, 4), (69, 43, 131), (41, 19, 28))
PARTICLE = "virus_like_particle"
ALONE = "Named by the examples alone"
WITH_KINDS = "With the shipped head's kinds behind and beside the classes, as by default"


def instances(folder: Path, threads: int):
    """Fine-tune on the demo's annotation; return tomogram and clustering."""
    tomogram = read_volume(folder / "hiv.mrc")
    annotation = np.asarray(read_volume(folder / "hiv_annotation.mrc").data).astype(int)
    pair = AnnotatedVolume("hiv", tomogram, annotation, "bright", "instance")
    base = load_model("models/base-segmenter", "segmenter")
    settings = TrainSettings(steps=300, voxel_size=20, threads=threads)
    card, weights, _ = train([pair], base, settings)
    maps = predict(tomogram, Model({**card, "sha256": "tuned"}, weights), "bright", threads=threads)
    parameters = ClusterParameters(minimum_volume=400_000, minimum_probability=0.5)
    found = cluster(maps["probability"], tomogram.voxel_size, parameters, maps["boundary"])
    return tomogram, found.labels


def kinds(labels: np.ndarray, truth: np.ndarray) -> pd.Series:
    """Return what each instance is, by number; unsure ones are missing."""
    unsure = {int(labels[place]) for place in UNSURE}
    for axis in range(3):
        unsure |= set(np.unique(np.take(labels, (0, -1), axis)).tolist())
    result = {}
    for number in range(1, labels.max() + 1):
        mask = labels == number
        hit = np.bincount(np.maximum(truth[mask], 0), minlength=2)[1:].max() > 0.5 * mask.sum()
        seen = any(labels[place] == number for place in BY_EYE)
        if hit or seen or number not in unsure:
            result[number] = PARTICLE if hit or seen else "debris"
    return pd.Series(result)


def draw(tomogram, labels, table: pd.DataFrame, path: str) -> None:
    """Draw all particles and the debris most like them, with the chance to be a particle."""
    order = table.sort_values(["class", "chance"], ascending=[False, False]).head(30)
    figure, axes = plt.subplots(3, 10, figsize=(15, 5.4))
    for axis, row in zip(axes.ravel(), order.itertuples(), strict=False):
        z, y, x = (int(n) for n in np.argwhere(labels == row.instance).mean(axis=0))
        box = tuple(slice(max(0, n - 18), n + 18) for n in (y, x))
        axis.imshow(-tomogram.data[z][box], cmap="gray")
        axis.contour(labels[z][box] == row.instance, [0.5], colors="gold", linewidths=1)
        name = "particle" if row[table.columns.get_loc("class") + 1] == PARTICLE else "debris"
        axis.set_title(f"{name}, {row.chance:.2f}", fontsize=9)
    for axis in axes.ravel():
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=70)


def figures(title: str, table: pd.DataFrame) -> str:
    """Return a paragraph of what the objects are called."""
    counts = pd.crosstab(table["class"], table["found"])
    score = roc_auc_score(table["class"] == PARTICLE, table["chance"])
    lines = ["| truth | " + " | ".join(counts.columns) + " |", "|---" * (counts.shape[1] + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(map(str, row)) + " |" for name, row in counts.iterrows()]
    return f"""
{title} (rows: truth):

{chr(10).join(lines)}

Area under the ROC curve of the chance to be a particle: {score:.3f}.
"""


def main() -> None:
    """Name the objects and write figures and picture."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--project", required=True, help="the demo's, prepared")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--output")
    options.add_argument("--picture")
    chosen = options.parse_args()
    folder = Path(chosen.project)
    tomogram, labels = instances(folder / "data", chosen.threads)
    truth = np.rint(read_volume(folder / "data" / "hiv_truth.mrc").data).astype(int)
    encoder = load_model("models/base-encoder", "encoder")
    known = {"hiv": embed(tomogram, labels, encoder, "bright", threads=chosen.threads)}
    rows = read_examples(folder / "config" / "examples.tsv")
    rows = rows[rows["tomogram"] == "hiv"]
    examples, problems = look_up_examples(rows, {"hiv": labels}, {"hiv": {}})
    print(*problems, sep="\n")
    table = kinds(labels, truth).rename_axis("instance").rename("class").reset_index()
    taken = set(examples["instance"].dropna().astype(int))
    table = table[~table["instance"].isin(taken)]
    used = examples["class"].value_counts().to_dict()
    text = f"""# Real virus-like particles against debris: figures

`python benchmarks/virus.py --project FOLDER`, encoder {encoder.sha256[:12]}. Examples: {used}; they
are left out of the figures, and so is what a side of the tomogram cuts: particles that nobody
annotated are among it.
"""
    shipped = load_model("models/base-classifier", "classifier")
    for title, base in ((ALONE, None), (WITH_KINDS, shipped)):
        card, weights = fit_head(known, examples, encoder, 0, base)
        named = apply_head(Model({**card, "sha256": "virus"}, weights), known["hiv"])
        named = named.rename(columns={"class": "found", f"p_{PARTICLE}": "chance"})
        told = table.merge(named[["instance", "found", "chance"]], on="instance")
        text += figures(title, told)
    text += (
        "\n![particles first, then the debris most like them, each with that chance](virus.png)\n"
    )
    if chosen.picture:
        draw(tomogram, labels, told, chosen.picture)
    if chosen.output:
        write_text(chosen.output, text)
    print(text)


if __name__ == "__main__":
    main()
