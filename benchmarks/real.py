"""Real microtubules, and real organelles' shapes through the imaging model.

``python benchmarks/real.py --data DATA --output benchmarks/real.md --picture benchmarks/real.png``

Microtubules: two annotated patches of real tomograms (TARDIS, MIT licence), 96 voxels wide, about
25 Å. The base segmenter as it is; fine-tuned on three slices, or on all, of one patch and applied
to the other; and a network of the same size from scratch on all slices.

Organelles: label volumes of a real autophagosome and a real phagophore (Bieber et al., MIT
licence) through the project's imaging model. Fine-tuned on three slices of the phagophore, figures
from the autophagosome, in each the part with the most membrane. Its two membranes are one object;
what lies between them is not annotated as one.

Filaments: two crops of real tomograms with a microtubule each (cylindra, BSD-3), 10.5 Å, without
annotation: the shipped models as they are, and how wide the microtubule is in the middle slice.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import tifffile
from cluster_pictures import COLOURS
from PIL import Image
from scipy import ndimage

from tomocensus.atomic import write_text
from tomocensus.classify import apply_head
from tomocensus.classify.pretrain import described
from tomocensus.classify.views import views
from tomocensus.cluster import cluster
from tomocensus.evaluate import instance_scores, voxel_scores
from tomocensus.inspect import detect_polarity
from tomocensus.models import Model, load_model
from tomocensus.segment import AnnotatedVolume, TrainSettings, predict, train
from tomocensus.simulate.labels import simulate_from_labels
from tomocensus.volume import Volume

matplotlib.use("Agg")
from matplotlib import pyplot as plt

PATCHES = ("0_0_30_47_25", "3_0_25_54_25")
PATCH_VOXEL = 25.0
ORGANELLES = {"autophagosome": "bieber_AP", "phagophore": "bieber_Phagophore"}
ORGANELLE_VOXEL = 14.08
CROP = (64, 288, 288)
FILAMENTS, FILAMENT_VOXEL = ("13pf", "14pf"), 10.52
SNRS = (0.1, 0.2, 0.4)
SEED = 950_000


def sparse(annotation: np.ndarray, parts=(0.25, 0.5, 0.75)) -> np.ndarray:
    """Return the annotation with three slices left."""
    kept = np.full(annotation.shape, -1, np.int32)
    for part in parts:
        kept[int(part * len(kept))] = annotation[int(part * len(kept))]
    return kept


def tuned(pair: AnnotatedVolume, base: Model | None, steps: int) -> Model:
    """Return a model trained on one annotated volume."""
    # From scratch: the architecture of the base.
    settings = TrainSettings(steps=steps, slices=9, width=32, depth=5, patch=96)
    card, weights, _ = train([pair], base, settings)
    return Model({**card, "sha256": ""}, weights)


def patches(folder: Path) -> list[AnnotatedVolume]:
    """Read the microtubules."""
    found = []
    for name in PATCHES:
        image = tifffile.imread(folder / "microtubules" / f"tardis_train_{name}_img.tif")
        mask = tifffile.imread(folder / "microtubules" / f"tardis_train_{name}_mask.tif")
        volume = Volume(image.astype(np.float32), PATCH_VOXEL)
        # The first ends in empty slices.
        polarity, _ = detect_polarity(volume.data, PATCH_VOXEL)
        found.append(AnnotatedVolume(name, volume, (mask > 0).astype(np.int32), polarity))
    return found


def contrast(pair: AnnotatedVolume) -> float:
    """Return how far the annotated places lie from the rest, in standard deviations.

    After smoothing by 1.5 voxels: microtubules are ten voxels wide. Empty slices do not count.
    """
    data = np.asarray(pair.tomogram.data)
    filled = np.ptp(data, axis=(1, 2)) > 0
    seen, inside = ndimage.gaussian_filter(data[filled], 1.5), pair.annotation[filled] > 0
    return float((seen[inside].mean() - seen[~inside].mean()) / seen.std())


def microtubules(base: Model, pairs: list[AnnotatedVolume], steps: int, axes) -> list[dict]:
    """Train on one patch, predict the other, both ways; draw the middle of each."""
    rows = []
    for number, test in enumerate(pairs):
        other = pairs[1 - number]
        few = replace(other, annotation=sparse(other.annotation))
        ways = {
            "base, as it is": base,
            "fine-tuned on 3 slices of the other": tuned(few, base, steps),
            "fine-tuned on all slices of the other": tuned(other, base, steps),
            "from scratch on all slices of the other": tuned(other, None, steps),
        }
        middle = len(test.annotation) // 2
        axes[number, 0].imshow(test.tomogram.data[middle], cmap="gray")
        axes[number, 1].imshow(test.annotation[middle], cmap="gray")
        axes[number, 0].set_title(f"patch {test.name}")
        axes[number, 1].set_title("annotated")
        for way, (name, model) in enumerate(ways.items()):
            found = predict(test.tomogram, model, test.polarity)["probability"]
            axes[number, way + 2].imshow(found[middle], cmap="magma", vmin=0, vmax=100)
            axes[number, way + 2].set_title(name.removesuffix(" of the other"))
            rows.append(row(f"microtubules {test.name}", name, found, test.annotation))
    return rows


def row(what: str, model: str, found: np.ndarray, truth: np.ndarray) -> dict:
    """Return the figures of one map."""
    scores = voxel_scores(found, truth)
    shown = {"what": what, "model": model, "Dice": scores["dice"]}
    shown |= {"membrane Dice": np.nan, "F1": np.nan, "largest piece": np.nan}
    print(shown, file=sys.stderr, flush=True)
    return shown


def organelle(folder: Path, kind: str, snr: float) -> tuple:
    """Return the simulated tomogram of a real shape, what is true in it and its membrane."""
    labels = tifffile.imread(folder / "membranes" / f"{ORGANELLES[kind]}_middle_labels.tif")
    # The part with the most membrane.
    coarse = (labels[::8, ::8, ::8] > 0).astype(np.float32)
    share = ndimage.uniform_filter(coarse, [n // 8 for n in CROP], mode="constant")
    centre = [8 * int(n) for n in np.unravel_index(share.argmax(), share.shape)]
    box = []
    for at, size, length in zip(centre, CROP, labels.shape, strict=True):
        start = min(max(0, at - size // 2), length - size)
        box.append(slice(start, start + size))
    labels = np.ascontiguousarray(labels[tuple(box)])
    given = {int(n): 1 for n in np.unique(labels) if n}
    made = simulate_from_labels(
        Volume(labels, ORGANELLE_VOXEL),
        SEED + list(ORGANELLES).index(kind),
        instances=given,
        snr=snr,
        polarity="dark",
        defocus=4.0,
        tilt_range=60.0,
    )
    truth = np.asarray(made.instances.data).astype(np.int32)
    sort = np.array([made.classes.get(n, "") for n in range(truth.max() + 1)])
    truth[np.isin(sort, ("particle", "gold"))[truth]] = 0
    truth[(sort == "actin")[np.maximum(truth, 0)] & (truth > 0)] = -1
    return made, truth


def organelles(base: Model, folder: Path, steps: int, axes) -> list[dict]:
    """Fine-tune on one shape, predict the other, at several levels of noise."""
    rows = []
    for number, snr in enumerate(SNRS):
        made, truth = organelle(folder, "autophagosome", snr)
        other, known = organelle(folder, "phagophore", snr)
        pair = AnnotatedVolume("phagophore", other.tomogram, sparse(known), "dark", "instance")
        ways = {"base, as it is": base, "fine-tuned on 3 slices": tuned(pair, base, steps)}
        middle = CROP[0] // 2
        shown = [np.asarray(made.tomogram.data[middle]), truth[middle] > 0]
        for name, model in ways.items():
            maps = predict(made.tomogram, model, made.polarity)
            rows.append(row(f"autophagosome, SNR {snr}", name, maps["probability"], truth))
            score = voxel_scores(maps["membrane"], made.membrane.astype(int))
            rows[-1]["membrane Dice"] = score["dice"]
            found = cluster(maps["probability"], ORGANELLE_VOXEL, boundary=maps["boundary"]).labels
            rows[-1] |= of_instances(found, truth)
            shown += [maps["probability"][middle], maps["membrane"][middle], found[middle]]
        titles = [f"autophagosome, SNR {snr}", "true"]
        heads = ("probability", "membrane", "instances")
        titles += [f"{name}: {head}" for name in ways for head in heads]
        for axis, image, title in zip(axes[number], shown, titles, strict=True):
            if title.endswith("instances"):
                axis.imshow(image, COLOURS, vmin=0, vmax=255, interpolation="nearest")
            else:
                axis.imshow(image, cmap="gray" if axis in axes[number][:2] else "magma")
            axis.set_title(title)
    return rows


def of_instances(found: np.ndarray, truth: np.ndarray) -> dict:
    """Return F1 at IoU 0.5, and how much of what is found of the autophagosome is one instance."""
    largest = np.bincount(truth[truth > 0]).argmax()
    pieces = np.bincount(found[truth == largest], minlength=2)[1:]
    scores = instance_scores(found, np.maximum(truth, 0), ignore=truth < 0)
    return {"F1": scores["f1"], "largest piece": pieces.max() / max(1, pieces.sum())}


def named(volume: Volume, mask: np.ndarray, polarity: str) -> tuple[str, float]:
    """Name one object with the shipped encoder and head."""
    encoder = load_model("models/base-encoder", "encoder")
    head = load_model("models/base-classifier", "classifier")
    seen = list(views(volume, mask.astype(np.int32), polarity))
    known = described(seen, encoder, np.zeros(len(seen), int))[0]
    found = apply_head(head, known, 0.0).iloc[0]
    return found["class"], float(found["confidence"])


def filaments(base: Model, folder: Path, axes) -> list[dict]:
    """Find real microtubules with the base alone; return what is found, and how wide it is."""
    rows = []
    for number, name in enumerate(FILAMENTS):
        image = tifffile.imread(folder / "microtubules" / f"cylindra_{name}_MT.tif")
        volume = Volume(image.astype(np.float32), FILAMENT_VOXEL)
        polarity, _ = detect_polarity(volume.data, FILAMENT_VOXEL)
        maps = predict(volume, base, polarity)
        found = cluster(maps["probability"], FILAMENT_VOXEL, boundary=maps["boundary"])
        largest = int(found.table.loc[found.table["voxels"].idxmax(), "instance"])
        middle = len(image) // 2
        name_found, sure = named(volume, found.labels == largest, polarity)
        places = np.argwhere(found.labels[middle] == largest) * FILAMENT_VOXEL
        # A strip of uniform width: of its variance across, twelve times that is the square.
        across = np.sqrt(12 * np.linalg.eigvalsh(np.cov(places.T))[0])
        rows.append(
            {
                "microtubule": name,
                "polarity found": polarity,
                "instances": len(found.table),
                "largest, of all voxels": found.table["voxels"].max() / found.table["voxels"].sum(),
                "its width, nm": across / 10,
                "its name": name_found,
                "confidence": sure,
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
        images = (image, maps["probability"], maps["boundary"], found.labels)
        titles = (f"microtubule {name}", "base: probability", "base: boundary", "instances")
        colour_maps = ("gray", "magma", "magma", COLOURS)
        row_axes = axes[4 * number : 4 * number + 4]
        for axis, shown, title, colours in zip(row_axes, images, titles, colour_maps, strict=True):
            axis.imshow(shown[middle].T, colours, interpolation="nearest")
            axis.set_title(title)
    return rows


def table(rows: list[dict]) -> list[str]:
    """Return the lines of a table."""
    frame = pd.DataFrame(rows).round(2)
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + "---|" * len(frame.columns)]
    for line in frame.astype(object).where(frame.notna(), "").to_numpy().tolist():
        lines.append("| " + " | ".join(map(str, line)) + " |")
    return lines


def main() -> None:
    """Measure, draw and write the page."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", required=True, help="folder with microtubules/ and membranes/")
    options.add_argument("--base", default="models/base-segmenter")
    options.add_argument("--steps", type=int, default=300)
    options.add_argument("--output", default="benchmarks/real.md")
    options.add_argument("--picture", default="benchmarks/real.png")
    arguments = options.parse_args()
    base = load_model(arguments.base, "segmenter")
    folder = Path(arguments.data)
    figure, axes = plt.subplots(6, 8, figsize=(22, 17.5), layout="constrained")
    pairs = patches(folder)
    rows = microtubules(base, pairs, arguments.steps, axes[:2])
    rows += organelles(base, folder, arguments.steps, axes[2:5])
    seen = filaments(base, folder, axes[5])
    for axis in axes.flat:
        axis.set_axis_off()
        axis.title.set_fontsize(8)
    figure.savefig(arguments.picture, dpi=70)
    Image.open(arguments.picture).convert("RGB").quantize(96).save(arguments.picture)
    write_text(
        arguments.output,
        "\n".join(
            [
                "# Real microtubules, and shapes of real organelles",
                "",
                f"`python benchmarks/real.py --data DATA --steps {arguments.steps}`, base "
                f"segmenter {base.sha256[:12]}. Dice at a threshold of 0.5. The annotated "
                "microtubules differ from the rest of their patches by "
                f"{' and '.join(f'{contrast(pair):.2f}' for pair in pairs)} standard deviations "
                "after smoothing by 1.5 voxels; their polarity is detected. Largest piece: part of "
                "the autophagosome's voxels in instances that lies in one of them.",
                "",
                *table(rows),
                "",
                "Real microtubules without annotation, the shipped models as they are (25 nm wide, "
                "with 14 protofilaments 27 nm):",
                "",
                *table(seen),
                "",
                "![Slices and maps](real.png)",
                "",
            ]
        ),
    )


if __name__ == "__main__":
    main()
