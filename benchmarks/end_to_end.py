"""From simulated tomograms to instances: map, clustering and their figures, never trained on.

``python benchmarks/end_to_end.py --tomograms 6 --output benchmarks/end_to_end.md``

For each tomogram: the shipped base segmenter as it is, and after fine-tuning on six annotated
slices of two other tomograms of the same conditions, both without and with test-time augmentation.
Then the project's clustering, with the boundary map and with the probability map alone, and
scikit-image's watershed of the same map.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from tomocensus.atomic import write_text
from tomocensus.cluster import ClusterParameters, cluster
from tomocensus.evaluate import instance_scores, voxel_scores
from tomocensus.models import Model, load_model
from tomocensus.segment import AnnotatedVolume, TrainSettings, predict, train
from tomocensus.simulate import simulate_tomogram
from tomocensus.simulate.conditions import CONDITIONS
from tomocensus.simulate.tomogram import choose

# Training used seeds below 200,000.
FIRST_SEED = 900_000
SHAPE = (56, 224, 224)
# Not objects that a map of compartments and particles is asked for.
NOT_SCORED = ("particle", "gold", "actin")
SLICES = (0.25, 0.5, 0.75)


def conditions(number: int) -> dict:
    """Return the imaging conditions of one set: drawn apart from those of training."""
    rng = np.random.default_rng([FIRST_SEED, number])
    settings = {
        "preset": "cell",
        "shape": SHAPE,
        "voxel_size": float(rng.uniform(12, 22)),
        "snr": [0.1, 0.2, 0.4][number % 3],
        "defocus": float(rng.uniform(2, 6)),
        "tilt_range": float(rng.uniform(50, 60)),
        "polarity": "dark",
    }
    # All else that belongs to imaging is as in the tomogram that is predicted.
    given = {name: settings[name] for name in settings if name not in ("preset", "shape")}
    chosen, _, _ = choose(FIRST_SEED + 100 * number, SHAPE, None, "cell", given)
    return {**{name: chosen[name] for name in CONDITIONS if name in chosen}, **settings}


def truth_of(made) -> tuple[np.ndarray, np.ndarray]:
    """Return instances to score (-1 where not scored) and their kinds by number."""
    labels = np.asarray(made.instances.data).astype(np.int32)
    sort = np.array([made.classes.get(n, "") for n in range(labels.max() + 1)])
    return np.where(np.isin(sort, NOT_SCORED)[labels], -1, labels), sort


def annotated(made) -> np.ndarray:
    """Return instances as annotated: crowders, gold are background, threads of actin are open."""
    truth, sort = truth_of(made)
    truth[np.isin(sort, ("particle", "gold"))[np.asarray(made.instances.data)]] = 0
    return truth


def fine_tuned(base: Model, number: int, settings: dict, steps: int) -> tuple[Model, float]:
    """Return the base fine-tuned on three slices of each of two tomograms, and the seconds."""
    pairs = []
    for other in (1, 2):
        made = simulate_tomogram(FIRST_SEED + 100 * number + other, **settings)
        truth = annotated(made)
        annotation = np.full(truth.shape, -1, np.int32)
        for part in SLICES:
            annotation[int(part * SHAPE[0])] = truth[int(part * SHAPE[0])]
        pairs.append(
            AnnotatedVolume(str(other), made.tomogram, annotation, made.polarity, "instance")
        )
    start = time.monotonic()
    card, weights, _ = train(pairs, base, TrainSettings(steps=steps))
    return Model({**card, "sha256": ""}, weights), time.monotonic() - start


def by_watershed(mask: np.ndarray, voxel_size: float) -> np.ndarray:
    """Label with distance transform, maxima 150 Å apart and watershed (scikit-image)."""
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask).astype(np.float32), 1)
    places = peak_local_max(depth, min_distance=max(2, round(150 / voxel_size)), labels=mask * 1)
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(places.T)] = np.arange(1, len(places) + 1)
    return watershed(-depth, seeds, mask=mask)


def of_the_map(probability: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Return the threshold of the best Dice, and the expected calibration error, both 0-1.

    A map can be used in every tomogram if the first is near 0.5 and the second near 0.
    """
    known = truth >= 0
    sure = np.bincount(probability[known & (truth > 0)], minlength=101)
    every = np.bincount(probability[known], minlength=101)
    above, found = sure[::-1].cumsum()[::-1], every[::-1].cumsum()[::-1]
    dice = 2 * above / (found + sure.sum())
    gaps = np.abs(sure - every * np.arange(101) / 100)
    return float(dice.argmax() / 100), float(gaps.sum() / every.sum())


def scores(name: str, made, maps: dict[str, np.ndarray]) -> list[dict]:
    """Return a row of figures for each way of making instances from the maps."""
    truth, sort = truth_of(made)
    size = made.tomogram.voxel_size
    probability = maps["probability"]
    voxels = voxel_scores(probability, truth)
    best, off = of_the_map(probability, truth)
    membrane = (
        voxel_scores(maps["membrane"], made.membrane.astype(int)) if "membrane" in maps else {}
    )
    # What a segmenter cannot see at all (a few voxels at the rim of the field) is not asked for.
    ways = {
        "with boundary map": cluster(
            probability, size, ClusterParameters(), maps["boundary"]
        ).labels,
        "probability alone": cluster(probability, size, ClusterParameters()).labels,
        "watershed": by_watershed(probability > 50, size),
        "components": ndimage.label(probability > 50)[0],
    }
    rows = []
    for way, labels in ways.items():
        found = instance_scores(labels, np.maximum(truth, 0), ignore=truth < 0)
        matched = pd.Series([sort[t] for _, t in found["pairs"]]).value_counts()
        all_kinds = pd.Series(sort[np.unique(truth[truth > 0])]).value_counts()
        recall = (matched / all_kinds).fillna(0)
        rows.append(
            {
                "model": name,
                "instances by": way,
                "dice": voxels["dice"],
                "best threshold": best,
                "calibration error": off,
                "membrane dice": membrane.get("dice", np.nan),
                "F1": found["f1"],
                "precision": found["precision"],
                "recall": found["recall"],
                "ribosome recall": recall.get("ribosome", np.nan),
                "microtubule recall": recall.get("microtubule", np.nan),
            }
        )
    return rows


def main() -> None:
    """Measure and write the page."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--base", default="models/base-segmenter")
    options.add_argument("--tomograms", type=int, default=6)
    options.add_argument("--steps", type=int, default=1000, help="of fine-tuning; 0: none")
    options.add_argument("--output", default="benchmarks/end_to_end.md")
    arguments = options.parse_args()
    base = load_model(arguments.base, "segmenter")
    rows, seconds = [], []
    for number in range(arguments.tomograms):
        settings = conditions(number)
        made = simulate_tomogram(FIRST_SEED + 100 * number, **settings)
        ways = [("base", base, False), ("base, flips", base, True)]
        if arguments.steps:
            tuned, took = fine_tuned(base, number, settings, arguments.steps)
            ways += [("fine-tuned", tuned, False), ("fine-tuned, flips", tuned, True)]
            seconds.append(took)
        for name, model, tta in ways:
            start = time.monotonic()
            maps = predict(made.tomogram, model, made.polarity, tta=tta)
            taken = time.monotonic() - start
            for row in scores(name, made, maps):
                rows.append({"snr": settings["snr"], **row})
                print(
                    {k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()},
                    f"{taken:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
    table = pd.DataFrame(rows)
    shown = (
        table.groupby(["snr", "model", "instances by"], sort=False).mean().round(2).reset_index()
    )
    lines = ["| " + " | ".join(shown.columns) + " |", "|" + "---|" * len(shown.columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in shown.to_numpy().tolist()]
    write_text(
        arguments.output,
        "\n".join(
            [
                "# From tomogram to instances: figures",
                "",
                f"`python benchmarks/end_to_end.py --tomograms {arguments.tomograms} --steps "
                f"{arguments.steps}`, base segmenter {base.sha256[:12]}.",
                "",
                f"{arguments.tomograms} simulated crowded tomograms of {SHAPE} voxels that no "
                "model was trained on, each with voxel size, defocus and tilt range of its own. "
                f"{', '.join(NOT_SCORED)} are not scored. Dice at a threshold of 0.5, and the "
                "threshold that would be best; F1 at IoU 0.5; flips: with test-time augmentation."
                + (
                    " Fine-tuning: six slices of two other tomograms of the same conditions, "
                    f"{arguments.steps} steps, {np.mean(seconds):.0f} s."
                    if seconds
                    else ""
                ),
                "",
                *lines,
                "",
            ]
        ),
    )


if __name__ == "__main__":
    main()
