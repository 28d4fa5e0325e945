"""Accuracy of the shipped encoder with a few examples a class, on simulated data sets.

``python benchmarks/classify.py --cache CACHE --output benchmarks/classify.md``

The tomograms of a data set share their imaging; examples come from one half of them, the figures
from the other half.
"""

from __future__ import annotations

import argparse
import itertools
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
from tomocensus.classify.encoder import Encoder, weights_of
from tomocensus.classify.features import SHAPE as FORM
from tomocensus.classify.head import calibration_error
from tomocensus.classify.pretrain import MOST_OF_A_KIND, corrupt, described, load, store
from tomocensus.classify.views import views
from tomocensus.cluster import ClusterParameters
from tomocensus.models import Model, load_model
from tomocensus.simulate import simulate_tomogram
from tomocensus.simulate.conditions import CONDITIONS
from tomocensus.simulate.scenes import FIELD, KINDS
from tomocensus.simulate.tomogram import choose
from tomocensus.simulate.training import WANTED

# Pretraining used seeds below 20,000.
FIRST_SEED = 90_000
SHAPE = (56, 208, 208)
SNRS = (0.1, 0.2, 0.4, 0.8)
# Rare kinds too shall have examples.
MORE = 2
# With ``--even``: larger fields, and so many times as many of a kind that five of them hold ten and
# more of each, where there is room; less of those that take much of it.
EVEN_SHAPE = (88, 320, 320)
EVEN = {
    "mitochondrion": 8,
    "dense_body": 12,
    "er": 5,
    "virus_like_particle": 4,
    "nuclear_envelope": 1,
    "golgi": 1,
    "autophagosome": 1,
    "lipid_droplet": 1,
}
# Å³: what is smaller does not become an instance.
SMALLEST = ClusterParameters().minimum_volume
SHIPPED = "encoder and features"
OTHERWISE = "the same, classes called like no kind"
ALONE = "the same, without the shipped head's kinds"
# Before names of classes that are called like no kind.
MY = "my "
# Kinds that nobody named: the shipped head knows them, or it does not either.
KNOWN, UNKNOWN_TO_BASE = "AUROC", "AUROC, unknown to the shipped head too"
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
    return Model({**encoder.card, "sha256": "untrained"}, weights_of(network))


def data_set(number: int, count: int, even: bool = False):
    """Yield the tomograms of one data set: all imaged alike, as those of one user are."""
    shape, more = (EVEN_SHAPE, EVEN) if even else (SHAPE, {})
    rng = np.random.default_rng([FIRST_SEED, number])
    voxel_size = float(np.exp(rng.uniform(np.log(8), np.log(20))))
    shared = {"snr": SNRS[number % len(SNRS)]}
    volume = float(np.prod(shape)) * voxel_size**3 / FIELD
    shared["abundance"] = {
        kind: more.get(kind, MORE) * wanted / KINDS[kind][1] / volume
        for kind, wanted in WANTED.items()
    }
    first = FIRST_SEED + 100 * number
    chosen, _, _ = choose(first, shape, voxel_size, "cell", shared)
    shared |= {name: chosen[name] for name in (*CONDITIONS, "polarity") if name in chosen}
    for seed in range(first, first + count):
        yield simulate_tomogram(seed, shape, voxel_size, "cell", **shared)


def views_of(made, rng):
    """Return views of some objects of each kind, and their kinds; masks have faults."""
    labels = corrupt(np.asarray(made.instances.data), rng, merged=0.0)
    size = np.bincount(labels.ravel())
    numbers = rng.permutation(np.nonzero(size * made.tomogram.voxel_size**3 >= SMALLEST)[0])
    table = pd.Series({n: made.classes[int(n)] for n in numbers if n}, dtype=object)
    chosen = table.groupby(table).head(MOST_OF_A_KIND).index
    kept = np.where(np.isin(labels, chosen), labels, 0)
    seen = list(views(made.tomogram, kept, made.polarity))
    return seen, [made.classes[view.number] for view in seen]


def describe(number: int, count: int, cache: Path, encoders: dict[str, Model], even: bool = False):
    """Make a data set; return embeddings by encoder and tomogram, and a table of the truth."""
    stem = f"{'even' if even else 'set'}-{number}"
    if not (cache / f"{stem}-{count - 1}.npz").is_file():
        for place, made in enumerate(data_set(number, count, even)):
            rng = np.random.default_rng([FIRST_SEED, number, place])
            store(cache / f"{stem}-{place}.npz", *views_of(made, rng))
    seen, names, places = [], [], []
    for place in range(count):
        some, kinds = load(cache / f"{stem}-{place}.npz")
        seen, names, places = seen + some, names + kinds, places + [place] * len(some)
    found = {name: described(seen, encoder, np.array(places)) for name, encoder in encoders.items()}
    truth = pd.DataFrame({"tomogram": places, "instance": np.arange(len(seen)), "class": names})
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


def applied(known, examples, test, seed, encoder, base) -> pd.DataFrame:
    """Fit a head; return what it says of all objects in the tomograms of the test."""
    head = Model(*fit_head(known, examples, encoder, seed, base))
    return pd.concat(
        (apply_head(head, known[name]).assign(tomogram=name) for name in test["tomogram"].unique()),
        ignore_index=True,
    )


def head_guesses(known, examples, test, seed, encoder=None, base=None) -> pd.DataFrame:
    """Fit a head, apply it to the tomograms of the test; nothing is rejected."""
    guesses = applied(known, examples, test, seed, encoder, base)
    chances = guesses.filter(regex="^p_").drop(columns="p_unknown")
    guesses["found"] = chances.idxmax(axis=1).str.removeprefix("p_")
    return test.merge(guesses[["tomogram", "instance", "found", "confidence", "p_unknown"]])


def guesses_called_otherwise(known, examples, test, seed, encoder, base) -> pd.DataFrame:
    """Do the same with classes that are called like no kind."""
    examples, test = (table.assign(**{"class": MY + table["class"]}) for table in (examples, test))
    return head_guesses(known, examples, test, seed, encoder, base)


def without(base: Model, kind: str) -> Model:
    """Return a head that does not know a kind."""
    classes = base.card["classes"]
    number = classes.index(kind)
    weights = {}
    for name, array in base.weights.items():
        start, _, last = name.rpartition(".")
        of_kind = base.weights[f"{start}{'.' * bool(start)}example_class"]
        if last in ("means", "counts", "common"):
            array = np.delete(array, number, axis=0)
        elif last in ("examples", "example_weight", "example_class"):
            array = array[of_kind != number]
        if last == "example_class":
            array = array - (array > number)
        weights[name] = array
    left = [name for name in classes if name != kind]
    return Model({**base.card, "classes": left}, weights, base.path)


def partly_named(known, every, each: int, count: int, draws: int, encoder, base) -> pd.DataFrame:
    """Name examples of some of the kinds; return figures over the objects of all kinds.

    Right is a class that was named, and `unknown` for all else.
    """
    rows = []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        examples, test = draw(every, each, rng)
        among = sorted(set(examples["class"]) & set(SEVEN) & set(test["class"]))
        mine = examples[examples["class"].isin(rng.permutation(among)[:count])]
        for method, start, kinds in ((SHIPPED, "", base), (OTHERWISE, MY, base), (ALONE, "", None)):
            if mine["class"].nunique() < 2 and kinds is None:
                continue
            named = mine.assign(**{"class": start + mine["class"]})
            found = applied(known, named, test, seed, encoder, kinds)
            found = test.merge(found, on=["tomogram", "instance"], suffixes=("", " found"))
            about = {"examples a class": each, "classes named": count, "method": method}
            rows.append(about | partly_right(found, start, mine["class"].unique()))
    return pd.DataFrame(rows)


def partly_right(found: pd.DataFrame, start: str, mine) -> dict:
    """Return figures of objects where only some kinds, `mine`, are named."""
    known = found["class"].isin(mine)
    truth = (start + found["class"]).where(known, "unknown")
    called = found["class found"]
    unknown = (called == "unknown")[~known].groupby(found["class"][~known]).mean().mean()
    chances = found.filter(regex="^p_")
    likeliest = chances.idxmax(axis=1).str.removeprefix("p_")
    return {
        "accuracy": (called == truth).mean(),
        "macro-F1 of the classes": f1_score(
            truth, called, labels=[start + kind for kind in mine], average="macro"
        ),
        "recall of the classes": (called == truth)[known].groupby(truth[known]).mean().mean(),
        "others called unknown": unknown,
        "AUROC of `p_unknown`": roc_auc_score(~known, found["p_unknown"]),
        "calibration error": calibration_error(
            chances.max(axis=1).to_numpy(), (likeliest == truth).to_numpy()
        ),
    }


def forest_guesses(known, examples, test, seed) -> pd.DataFrame:
    """Name by a random forest on size and shape alone (no density)."""

    def shape(table):
        rows = []
        for item in table.itertuples():
            part = known[item.tomogram]
            rows.append(
                part.features[np.nonzero(part.instance == item.instance)[0][0], : len(FORM)]
            )
        return np.stack(rows)

    forest = RandomForestClassifier(300, class_weight="balanced", random_state=seed)
    forest.fit(shape(examples), examples["class"])
    chances = forest.predict_proba(shape(test))
    return test.assign(
        found=forest.classes_[chances.argmax(axis=1)], confidence=chances.max(axis=1)
    )


def figures(guesses: pd.DataFrame) -> dict:
    """Return accuracy, mean recall of the classes and macro-F1."""
    correct = guesses["found"] == guesses["class"]
    recall = correct.groupby(guesses["class"]).mean()
    return {
        "accuracy": correct.mean(),
        "mean recall": recall.mean(),
        "macro-F1": f1_score(
            guesses["class"], guesses["found"], labels=list(recall.index), average="macro"
        ),
    }


def summary(guesses: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return means over data sets and draws, and what only many objects together can tell.

    A data set has one or two objects of some kinds, and no calibration to speak of.
    """
    rows = []
    for (each, name), part in guesses.groupby(["examples a class", by], sort=False):
        single = pd.DataFrame([figures(one) for _, one in part.groupby(["set", "draw"])]).mean()
        correct = (part["found"] == part["class"]).to_numpy()
        rows.append(
            {
                "examples a class": each,
                by: name,
                **single,
                "macro-F1, sets together": figures(part)["macro-F1"],
                "calibration error, sets together": calibration_error(
                    part["confidence"].to_numpy(), correct
                ),
            }
        )
    return pd.DataFrame(rows)


def unseen_kind(known, truth, draws: int, encoder, base, known_to_base=True) -> dict[str, float]:
    """Leave each class out of the examples; return how well `p_unknown` tells it (AUROC)."""
    result = {}
    for kind in sorted(truth["class"].unique()):
        scores = []
        for seed in range(draws):
            examples, test = draw(truth, 10, np.random.default_rng(seed))
            others = examples[examples["class"] != kind]
            # What else has no example is rightly unknown as well.
            test = test[test["class"].isin([*others["class"], kind])]
            head = base if known_to_base else without(base, kind)
            guesses = head_guesses(known, others, test, seed, encoder, head)
            new = guesses["class"] == kind
            if new.any() and not new.all():
                scores.append(roc_auc_score(new, guesses["p_unknown"]))
        if scores:
            result[kind] = float(np.mean(scores))
    return result


def measure(found, truth, encoder, base, draws: int) -> pd.DataFrame:
    """Return what all methods name the objects of one data set, by examples a class and draw."""
    no_embedding = {
        name: replace(part, embedding=part.embedding[:, :0]) for name, part in found["a"].items()
    }
    methods = {
        SHIPPED: (partial(head_guesses, encoder=encoder, base=base), found["a"]),
        OTHERWISE: (partial(guesses_called_otherwise, encoder=encoder, base=base), found["a"]),
        ALONE: (partial(head_guesses, encoder=encoder), found["a"]),
        "and without the simulated prior": (head_guesses, found["a"]),
        "untrained encoder and features": (head_guesses, found["b"]),
        "features alone": (head_guesses, no_embedding),
        "random forest on size and shape": (forest_guesses, found["a"]),
    }
    rows = []
    for each, (method, (guess, known)) in itertools.product((10, 3), methods.items()):
        for seed in range(draws):
            examples, test = draw(truth, each, np.random.default_rng(seed))
            test = test[test["class"].isin(examples["class"])]
            named = guess(known, examples, test, seed)
            about = {"examples a class": each, "method": method, "draw": seed}
            rows.append(named[["class", "found", "confidence"]].assign(**about))
    return pd.concat(rows)


def as_lines(table: pd.DataFrame) -> list[str]:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    for row in table.itertuples(index=False):
        cells = [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Measure and write the page."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--encoder", default="models/base-encoder")
    options.add_argument("--head", default="models/base-classifier", help="the shipped head")
    options.add_argument("--sets", type=int, default=8, help="data sets")
    options.add_argument("--tomograms", type=int, default=5, help="in each")
    options.add_argument("--draws", type=int, default=5)
    options.add_argument("--even", action="store_true", help="about as many of each kind")
    options.add_argument("--cache", required=True, help="folder for the simulated views")
    options.add_argument("--output", help="benchmarks/classify.md, with --even classify_even.md")
    arguments = options.parse_args()
    even, cache = arguments.even, Path(arguments.cache)
    shipped = load_model(arguments.encoder, "encoder")
    base = load_model(arguments.head, "classifier")
    tables, unseen, partly, counts = [], [], [], pd.Series(dtype=float)
    for number in range(arguments.sets):
        encoders = {"a": shipped, "b": untrained(shipped)}
        found, every = describe(number, arguments.tomograms, cache, encoders, even)
        truth = every[every["class"].isin(SEVEN)]
        counts = counts.add(truth["class"].value_counts(), fill_value=0)
        table = measure(found, truth, shipped, base, arguments.draws)
        tables.append(table.assign(set=number, snr=SNRS[number % len(SNRS)]))
        unseen.append(
            {
                title: unseen_kind(found["a"], every, 2, shipped, base, title == KNOWN)
                for title in (KNOWN, UNKNOWN_TO_BASE)
            }
        )
        partly += [
            partly_named(found["a"], every, each, count, arguments.draws, shipped, base)
            for each, count in itertools.product((10, 3), (1, 3, 7))
        ]
        print(summary(tables[-1], "method").round(3).to_string(), flush=True)
    table = pd.concat(tables)
    by_snr = summary(table[table["method"] == SHIPPED].sort_values("snr"), "snr")
    kinds = ", ".join(f"{kind} {n:.0f}" for kind, n in counts.sort_values().items())
    left_out = pd.DataFrame(
        {title: pd.DataFrame([one[title] for one in unseen]).mean() for title in unseen[0]}
    ).rename_axis("kind left out")
    by_count = ["examples a class", "classes named", "method"]
    partly = pd.concat(partly).groupby(by_count, sort=False).mean().reset_index()
    lines = [
        f"# Naming objects from a few examples{', about as many of each kind' * even}: figures",
        "",
        f"`python benchmarks/classify.py --sets {arguments.sets} --tomograms "
        f"{arguments.tomograms} --draws {arguments.draws}{' --even' * even}`, encoder "
        f"{shipped.sha256[:12]}.",
        "",
        f"{arguments.sets} simulated data sets that no model was trained on, each of "
        f"{arguments.tomograms} tomograms {EVEN_SHAPE if even else SHAPE} of one "
        "imaging condition (8-20 Å, all else "
        f"drawn as for training); {int(counts.sum())} objects: {kinds}. Masks are eroded, grown or "
        "ragged, objects at the border are cut. Examples come from a random half of the "
        "tomograms (fewer where a class has fewer there), figures from the other half; means of "
        f"{arguments.draws} draws.",
        "",
        *as_lines(summary(table, "method")),
        "",
        f"By SNR, {SHIPPED}:",
        "",
        *as_lines(by_snr),
        "",
        "Examples of some kinds alone, and figures over the objects of all 15: right is the "
        "class where it was named, and `unknown` elsewhere (and below a confidence of 0.5).",
        "",
        *as_lines(partly),
        "",
        "Kinds without examples, told from the others by `p_unknown` (10 examples of each other "
        "kind, area under the ROC curve; in the mean "
        f"{' and '.join(f'{mean:.3f}' for mean in left_out.mean())}):",
        "",
        *as_lines(left_out.reset_index()),
        "",
    ]
    page = f"benchmarks/classify{'_even' * even}.md"
    write_text(arguments.output or page, "\n".join(lines))


if __name__ == "__main__":
    main()
