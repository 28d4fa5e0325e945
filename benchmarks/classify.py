"""Accuracy of the shipped encoder with a few examples a class, on simulated tomograms.

``python benchmarks/classify.py --tomograms 30 --cache CACHE --output benchmarks/classify.md``

Examples come from one half of the tomograms, the figures from the other half.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score, roc_auc_score

from tomocensus.atomic import write_text
from tomocensus.classify import apply_head, fit_head
from tomocensus.classify.encoder import Encoder
from tomocensus.classify.head import calibration_error
from tomocensus.classify.pretrain import collect, described
from tomocensus.models import Model, load_model

# Pretraining used seeds below 20,000.
FIRST_SEED = 90_000
SEVEN = (
    "mitochondrion",
    "vesicle",
    "er",
    "microtubule",
    "ribosome",
    "dense_body",
    "virus_like_particle",
)


def untrained(encoder: Model) -> Model:
    """Return the same network with random weights, and no prior."""
    torch.manual_seed(0)
    network = Encoder(encoder.card["width"], encoder.card["dimensions"])
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    return Model({**encoder.card, "sha256": "untrained"}, weights)


def describe(count: int, cache: Path, encoders: dict[str, Model]):
    """Simulate tomograms; return embeddings by encoder and tomogram, and a table of the truth.

    Masks have the faults of :func:`tomocensus.classify.pretrain.corrupt`.
    """
    seen, names, seeds = collect(range(FIRST_SEED, FIRST_SEED + count), cache)
    found = {name: described(seen, encoder, seeds) for name, encoder in encoders.items()}
    truth = pd.DataFrame({"tomogram": seeds, "instance": np.arange(len(seen)), "class": names})
    return found, truth


def draw(truth: pd.DataFrame, each: int, rng: np.random.Generator):
    """Return examples from a random half of the tomograms and all objects of the other half."""
    seeds = rng.permutation(truth["tomogram"].unique())
    first = truth[truth["tomogram"].isin(seeds[: len(seeds) // 2])]
    second = truth[~truth["tomogram"].isin(seeds[: len(seeds) // 2])]
    parts = [
        part.sample(min(each, len(part)), random_state=int(rng.integers(2**31)))
        for _, part in first.groupby("class")
    ]
    return pd.concat(parts), second


def head_guesses(known, examples, test, seed, encoder=None) -> pd.DataFrame:
    """Fit a head, apply it to the tomograms of the test; nothing is rejected."""
    card, weights = fit_head(known, examples, encoder, seed)
    head = Model({**card, "sha256": ""}, weights)
    guesses = pd.concat(
        apply_head(head, known[name], 0.0).assign(tomogram=name)
        for name in test["tomogram"].unique()
    )
    chances = guesses[[f"p_{kind}" for kind in card["classes"]]].to_numpy()
    guesses["found"] = np.array(card["classes"])[chances.argmax(axis=1)]
    return test.merge(guesses[["tomogram", "instance", "found", "confidence"]])


def forest_guesses(known, examples, test, seed) -> pd.DataFrame:
    """Name by a random forest on size and shape alone (no density)."""

    def shape(table):
        rows = []
        for item in table.itertuples():
            part = known[item.tomogram]
            rows.append(part.features[np.nonzero(part.instance == item.instance)[0][0], :4])
        return np.stack(rows)

    forest = RandomForestClassifier(300, class_weight="balanced", random_state=seed)
    forest.fit(shape(examples), examples["class"])
    chances = forest.predict_proba(shape(test))
    return test.assign(
        found=forest.classes_[chances.argmax(axis=1)], confidence=chances.max(axis=1)
    )


def figures(guesses: pd.DataFrame) -> dict:
    """Return accuracy, mean recall of the classes, macro-F1 and calibration error."""
    correct = (guesses["found"] == guesses["class"]).to_numpy()
    return {
        "accuracy": correct.mean(),
        "mean recall": pd.Series(correct).groupby(guesses["class"].to_numpy()).mean().mean(),
        "macro-F1": f1_score(guesses["class"], guesses["found"], average="macro", zero_division=0),
        "calibration error": calibration_error(guesses["confidence"].to_numpy(), correct),
    }


def unseen_kind(known, truth, draws: int, encoder) -> dict[str, float]:
    """Leave each class out of the examples; return how well low confidence tells it (AUROC)."""
    result = {}
    for kind in sorted(truth["class"].unique()):
        scores = []
        for seed in range(draws):
            examples, test = draw(truth, 10, np.random.default_rng(seed))
            guesses = head_guesses(known, examples[examples["class"] != kind], test, seed, encoder)
            new = guesses["class"] == kind
            if new.any() and not new.all():
                scores.append(roc_auc_score(new, -guesses["confidence"]))
        if scores:
            result[kind] = float(np.mean(scores))
    return result


def main() -> None:
    """Measure and write the page."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--encoder", default="models/base-encoder")
    options.add_argument("--tomograms", type=int, default=10)
    options.add_argument("--draws", type=int, default=10)
    options.add_argument("--cache", required=True, help="folder for the simulated views")
    options.add_argument("--output", default="benchmarks/classify.md")
    arguments = options.parse_args()
    shipped = load_model(arguments.encoder, "encoder")
    found, truth = describe(
        arguments.tomograms, Path(arguments.cache), {"a": shipped, "b": untrained(shipped)}
    )
    every = truth
    truth = truth[truth["class"].isin(SEVEN)]
    no_embedding = {
        name: replace(part, embedding=part.embedding[:, :0]) for name, part in found["a"].items()
    }
    trained_head = partial(head_guesses, encoder=shipped)
    methods = {
        "encoder and features": (trained_head, found["a"]),
        "the same without the simulated prior": (head_guesses, found["a"]),
        "untrained encoder and features": (head_guesses, found["b"]),
        "features alone": (head_guesses, no_embedding),
        "random forest on size and shape": (forest_guesses, found["a"]),
    }
    rows = []
    for each in (10, 3):
        for method, (guess, known) in methods.items():
            runs = []
            for seed in range(arguments.draws):
                examples, test = draw(truth, each, np.random.default_rng(seed))
                test = test[test["class"].isin(examples["class"])]
                runs.append(figures(guess(known, examples, test, seed)))
            table = pd.DataFrame(runs)
            cells = [f"{table[name].mean():.3f} ± {table[name].std():.3f}" for name in table]
            rows.append(f"| {each} | {method} | " + " | ".join(cells) + " |")
            print(rows[-1], file=sys.stderr, flush=True)
    unseen = unseen_kind(found["a"], every, 3, shipped)
    counts = ", ".join(f"{kind} {n}" for kind, n in truth["class"].value_counts().items())
    write_text(
        arguments.output,
        "\n".join(
            [
                "# Naming objects from a few examples: figures",
                "",
                f"`python benchmarks/classify.py --tomograms {arguments.tomograms} "
                f"--draws {arguments.draws}`, encoder {shipped.sha256[:12]}.",
                "",
                f"{arguments.tomograms} simulated tomograms (seeds from {FIRST_SEED}) that no "
                f"model was trained on, {len(truth)} objects: {counts}. Masks are eroded, grown, "
                "ragged or merged with a neighbour. "
                "Examples come from a random half of the tomograms (fewer where a class has "
                "fewer there), figures from the other half; mean and deviation of "
                f"{arguments.draws} draws.",
                "",
                "| examples a class | method | accuracy | mean recall | macro-F1 "
                "| calibration error |",
                "|---|---|---|---|---|---|",
                *rows,
                "",
                "Kinds without examples, told from the others by low confidence (10 examples a "
                "class, area under the ROC curve, 3 draws):",
                "",
                "| kind left out | AUROC |",
                "|---|---|",
                *[f"| {kind} | {value:.3f} |" for kind, value in unseen.items()],
                "",
            ]
        ),
    )


if __name__ == "__main__":
    main()
