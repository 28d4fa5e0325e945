"""Pretrain the encoder and fit the default head on simulated objects: one command.

``python -m tomocensus.classify.pretrain --encoder models/base-encoder --head
models/base-classifier --cache CACHE``

The views of each simulated tomogram are kept in the cache, so a run that was stopped goes on where
it was; several runs with ``--simulate-only`` may fill one cache together. Real objects whose
classes are known join in with ``--annotated``; ``--start`` fine-tunes an encoder instead of making
one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from tomocensus.atomic import atomic_path
from tomocensus.classify.embeddings import Embeddings
from tomocensus.classify.features import NAMES
from tomocensus.classify.head import Prior, apply_head, best_temperature, fit_head, scores_of
from tomocensus.classify.views import CLOSE, View, views
from tomocensus.errors import InputError
from tomocensus.inspect import inspect
from tomocensus.io import read_volume
from tomocensus.models import Model, load_model, save_model
from tomocensus.progress import progress
from tomocensus.samples import read_annotation, read_samples
from tomocensus.simulate.training import stored_tomogram
from tomocensus.volume import Volume

MOST_OF_A_KIND = 12
SCALE = 16.0
# A user's tomograms are imaged alike, those of pretraining are not: there probabilities need less
# softening (measured on data sets of one condition each, see benchmarks/classify.py).
ALIKE = 2 / 3


def corrupt(labels: np.ndarray, rng: np.random.Generator, merged: float = 0.03) -> np.ndarray:
    """Return a labelmap with the faults that segmentation and clustering make.

    Objects are as they are, shrunk or grown by a voxel, or ragged; a share of `merged` is one with
    a neighbour.
    """
    choice = rng.integers(4)
    if choice == 1:
        labels = np.where(labels > 0, labels, ndimage.maximum_filter(labels, size=3))
    elif choice == 2:
        same = ndimage.minimum_filter(labels, size=3) == ndimage.maximum_filter(labels, size=3)
        # Thin objects would be lost.
        kept = np.bincount(labels[same], minlength=labels.max() + 1)
        whole = np.bincount(labels.ravel(), minlength=labels.max() + 1)
        labels = np.where(same | (kept < 0.3 * whole)[labels], labels, 0)
    elif choice == 3:
        noise = ndimage.gaussian_filter(rng.normal(size=labels.shape).astype(np.float32), 1.2)
        grown = np.where(labels > 0, labels, ndimage.maximum_filter(labels, size=3))
        labels = np.where(noise > 0, grown, labels)
        edge = ndimage.minimum_filter(labels, size=3) != labels
        labels = np.where(edge & (noise < -0.12), 0, labels)
    return _merge_some(labels, rng, merged)


def _merge_some(labels: np.ndarray, rng: np.random.Generator, part: float) -> np.ndarray:
    """Give a few objects the number of one that they touch."""
    beside = [(labels[:-1], labels[1:]), (labels[:, :-1], labels[:, 1:])]
    pairs = {
        (int(a), int(b))
        for one, two in beside
        for a, b in np.unique(
            np.stack([one, two], -1)[(one != two) & (one > 0) & (two > 0)], axis=0
        )
    }
    names = np.arange(labels.max() + 1)
    for small, large in pairs:
        if rng.random() < part:
            names[small] = large
    return names[labels].astype(labels.dtype)


def simulated_views(seed: int, cache: Path, variant: int = 0) -> tuple[list[View], list[str]]:
    """Return views of some objects of each kind in a simulated tomogram, and their kinds.

    Each `variant` has other objects, and other faults in their outlines.
    """
    rng = np.random.default_rng([seed, 1, variant] if variant else [seed, 1])
    made = stored_tomogram(seed, cache)
    labels, tomogram = corrupt(np.asarray(made.instances.data), rng), made.tomogram
    if rng.random() < 0.3:
        # Objects cut by the border of the volume.
        cut = tuple(slice(int(rng.integers(0, n // 5)), None) for n in labels.shape)
        labels = np.ascontiguousarray(labels[cut])
        tomogram = Volume(np.ascontiguousarray(tomogram.data[cut]), tomogram.voxel_size)
    numbers = np.unique(labels)
    numbers = rng.permutation(numbers[numbers > 0])
    table = pd.Series({n: made.classes[int(n)] for n in numbers}, dtype=object)
    chosen = set(table.groupby(table).head(MOST_OF_A_KIND).index)
    kept = np.where(np.isin(labels, list(chosen)), labels, 0)
    seen = list(views(tomogram, kept, made.polarity))
    return seen, [made.classes[view.number] for view in seen]


def store(path: Path, seen: list[View], names: list[str]) -> None:
    """Write views and kinds of one tomogram, whole or not at all."""
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez(
            stream,
            crops=np.concatenate([view.crops for view in seen]).astype(np.float16),
            kinds=np.concatenate([view.kinds for view in seen]),
            counts=np.array([len(view.kinds) for view in seen]),
            features=np.stack([view.features for view in seen]),
            names=np.array(names),
        )


def load(path: Path) -> tuple[list[View], list[str]]:
    """Read what :func:`store` wrote; the crops stay float16."""
    with np.load(path) as stored:
        parts = {name: stored[name] for name in stored.files}
    ends = np.cumsum(parts["counts"])[:-1]
    crops, kinds = np.split(parts["crops"], ends), np.split(parts["kinds"], ends)
    seen = [
        View(number, *view)
        for number, view in enumerate(zip(crops, kinds, parts["features"], strict=True), 1)
    ]
    return seen, [str(name) for name in parts["names"]]


def views_in(cache: Path, seed: int, variant: int = 0) -> Path:
    """Return the file of views of a simulated tomogram; made where it is not in the cache."""
    path = cache / (f"views-{seed}-{variant}.npz" if variant else f"views-{seed}.npz")
    if not path.is_file():
        store(path, *simulated_views(seed, cache, variant))
    return path


def collect(
    seeds: range, cache: Path, variants: int = 1
) -> tuple[list[View], np.ndarray, np.ndarray]:
    """Return views, kinds and seeds of simulated objects; simulated where not in the cache."""
    seen, names, seed_of = [], [], []
    for seed in progress(seeds, "simulating"):
        for variant in range(variants):
            some, kinds = load(views_in(cache, seed, variant))
            seen, names, seed_of = seen + some, names + kinds, seed_of + [seed] * len(some)
    return seen, np.array(names), np.array(seed_of)


def real_views(sheet: str | Path) -> tuple[list[View], np.ndarray, np.ndarray]:
    """Return views, classes and tomograms of real objects whose classes are known.

    Parameters
    ----------
    sheet : path-like
        Sample sheet; counts rows with both ``ground_truth`` (a labelmap) and
        ``ground_truth_classes`` (columns instance, class). Relative paths are relative to the
        working directory.

    Raises
    ------
    InputError
        Where no row has both.
    """
    seen, names, tomograms = [], [], []
    for name, sample in sorted(read_samples(sheet).items()):
        if not (sample.ground_truth and sample.ground_truth_classes):
            continue
        facts = inspect(sample)
        labels = read_annotation(sample.ground_truth, tuple(facts["shape"]))
        table = pd.read_csv(sample.ground_truth_classes)
        kinds = dict(zip(table["instance"], table["class"].astype(str), strict=True))
        known = np.where(np.isin(labels, list(kinds)), labels, 0)
        some = list(views(read_volume(sample.path, facts["voxel_size"]), known, facts["polarity"]))
        seen += some
        names += [kinds[view.number] for view in some]
        tomograms += [name] * len(some)
    if not seen:
        raise InputError(
            f"{sheet}: no row has classified objects. Fill the columns 'ground_truth' (a labelmap) "
            "and 'ground_truth_classes' (a table with the columns instance and class)."
        )
    return seen, np.array(names), np.array(tomograms)


def augment(view: View, rng: np.random.Generator) -> View:
    """Return a view mirrored, turned about Z, with other contrast and noise; one close look less.

    All crops of an object turn alike.
    """
    keep = np.ones(len(view.kinds), bool)
    close = np.nonzero(view.kinds == CLOSE)[0]
    if len(close) > 2:
        keep[rng.choice(close, len(close) - 2, replace=False)] = False
    crops = np.rot90(view.crops[keep].astype(np.float32), rng.integers(4), axes=(3, 4))
    flips = [axis for axis in (2, 3, 4) if rng.random() < 0.5]
    crops = np.flip(crops, flips).copy()
    crops[:, 0] *= np.exp(rng.normal(0, 0.25))
    crops[:, 0] += rng.normal(0, 0.15)
    noise = rng.standard_normal(crops[:, 0].shape, dtype=np.float32)
    crops[:, 0] += noise * np.float32(rng.uniform(0, 0.4))
    return View(view.number, crops, view.kinds[keep], view.features)


def train(
    seen: list[View],
    names: np.ndarray,
    steps: int,
    seed: int,
    width: int,
    dimensions: int,
    start: Model | None = None,
    rate: float | None = None,
) -> dict[str, np.ndarray]:
    """Train the encoder; return its weights.

    The loss is the sum of a cosine softmax over the simulated kinds (Wang et al., CVPR 2018,
    without margin), which spreads the kinds, and a supervised contrastive loss (Khosla et al.,
    NeurIPS 2020), which keeps near what is alike. Kinds are drawn by the square root of their
    number.

    Parameters
    ----------
    seen : list of View
        Objects.
    names : numpy.ndarray
        Kind of each.
    steps, seed, width, dimensions : int
        Optimiser's steps, seed, and size of the network.
    start : Model, optional
        Encoder of that size to start from.
    rate : float, optional
        Highest learning rate; by default 2e-3, and a fifth of it with `start`.
    """
    import torch

    from tomocensus.classify.embeddings import batch
    from tomocensus.classify.encoder import Encoder, build, weights_of

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = (Encoder(width, dimensions) if start is None else build(start)).train().to(device)
    highest = rate or (2e-3 if start is None else 4e-4)
    kinds, target = np.unique(names, return_inverse=True)
    directions = torch.nn.Parameter(torch.randn(len(kinds), dimensions, device=device))
    optimiser = torch.optim.AdamW(
        [*network.parameters(), directions], lr=highest, weight_decay=1e-2
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, highest, steps)
    chance = 1 / np.sqrt(np.bincount(target))[target]
    chance /= chance.sum()
    losses = []
    for step in progress(range(steps), "training"):
        chosen = rng.choice(len(seen), 64, p=chance, replace=False)
        inputs = batch([augment(seen[index], rng) for index in chosen], device)
        wanted = torch.from_numpy(target[chosen]).to(device)
        with torch.autocast(device, dtype=torch.bfloat16):
            vectors = network(*inputs).float()
        cosine = vectors @ torch.nn.functional.normalize(directions, dim=1).T
        loss = torch.nn.functional.cross_entropy(SCALE * cosine, wanted, label_smoothing=0.02)
        loss = loss + 0.5 * contrastive(vectors, wanted)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % 100 == 99:
            print(f"step {step + 1}: loss {np.mean(losses[-100:]):.3f}", file=sys.stderr)
    return weights_of(network)


def contrastive(vectors, target, temperature: float = 0.1):
    """Return the supervised contrastive loss of unit vectors ``(n, d)``."""
    import torch

    likeness = vectors @ vectors.T / temperature
    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    likeness = likeness.masked_fill(itself, -1e9)
    chances = likeness - likeness.logsumexp(dim=1, keepdim=True)
    same = (target[:, None] == target[None]) & ~itself
    paired = same.any(dim=1)
    return -((chances * same).sum(dim=1)[paired] / same.sum(dim=1)[paired]).mean()


def described(seen: list[View], encoder: Model, tomograms: np.ndarray) -> dict[int, Embeddings]:
    """Embed views, by tomogram; instances are numbered by their place in the list."""
    import torch

    from tomocensus.classify.embeddings import batch
    from tomocensus.classify.encoder import build

    network = build(encoder)
    vectors = []
    with torch.inference_mode():
        for start in range(0, len(seen), 32):
            part = [
                View(view.number, view.crops.astype(np.float32), view.kinds, view.features)
                for view in seen[start : start + 32]
            ]
            vectors.append(network(*batch(part)).numpy())
    vectors, features = np.concatenate(vectors), np.stack([view.features for view in seen])
    found = {}
    for tomogram in np.unique(tomograms):
        rows = np.nonzero(tomograms == tomogram)[0]
        found[int(tomogram)] = Embeddings(
            rows, vectors[rows], features[rows], NAMES, encoder.sha256
        )
    return found


def prior_of(known: dict[int, Embeddings], names: np.ndarray, seed: int) -> Prior:
    """Measure the prior, and the temperature that suits heads fitted to a few examples.

    The temperature is that of objects in other tomograms than the examples': what lies in one
    tomogram is more alike.
    """
    rows = np.concatenate([part.instance for part in known.values()])
    vectors = np.concatenate([part.table() for part in known.values()]).astype(float)
    target = names[rows]
    plain = Prior.measure(vectors, target)
    tomogram = np.concatenate([[name] * len(part.instance) for name, part in known.items()])
    table = pd.DataFrame({"tomogram": tomogram, "instance": rows, "class": target})
    brings = Model({"kind": "encoder"}, plain.to_weights())
    rng = np.random.default_rng(seed)
    found = [
        _temperature_elsewhere(known, vectors, table, each, brings, rng)
        for each in (3, 5, 10, 20)
        for _ in range(3)
    ]
    temperature = ALIKE * float(np.exp(np.mean(np.log(found))))
    return Prior(plain.mean, plain.within, plain.between, temperature)


def _temperature_elsewhere(known, vectors, table, each, encoder, rng) -> float:
    """Return the best temperature of a head with `each` examples a class, in other tomograms."""
    mine = table["tomogram"].isin(rng.permutation(table["tomogram"].unique())[::2])
    chosen = table[mine].groupby("class").sample(each, replace=True, random_state=rng)
    card, weights = fit_head(known, chosen.drop_duplicates(), encoder)
    test = (~mine & table["class"].isin(card["classes"])).to_numpy()
    right = np.searchsorted(card["classes"], table["class"][test].to_numpy().astype(str))
    arrays = {name: value.astype(float) for name, value in weights.items()}
    return best_temperature(scores_of(vectors[test], arrays), right, weight=1.0)


def _real_parts(sheet: str | None, seed: int):
    """Return what to learn from and what to keep for prior and head (a quarter) of real objects.

    Real tomograms are numbered from -1 down: simulated ones have their seeds.
    """
    if not sheet:
        return ([], [], []), ([], [], [])
    seen, names, tomograms = real_views(sheet)
    numbers = -1 - np.unique(tomograms, return_inverse=True)[1]
    later = np.random.default_rng(seed).random(len(seen)) < 0.25
    return tuple(
        ([seen[k] for k in rows], names[rows], numbers[rows])
        for rows in (np.nonzero(~later)[0], np.nonzero(later)[0])
    )


def main() -> None:
    """Train, fit, measure on tomograms that neither has seen, and write both models."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--encoder", required=True)
    options.add_argument("--head", required=True)
    options.add_argument("--cache", required=True, help="folder for tomograms and views")
    options.add_argument("--tomograms", type=int, default=160)
    options.add_argument(
        "--variants", type=int, default=1, help="times that each tomogram is looked at to train"
    )
    options.add_argument("--steps", type=int, default=1500)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--width", type=int, default=16)
    options.add_argument("--dimensions", type=int, default=48)
    options.add_argument("--annotated", help="sample sheet of real tomograms with known classes")
    options.add_argument("--start", help="encoder to fine-tune (its size counts)")
    options.add_argument("--rate", type=float, help="highest learning rate")
    options.add_argument("--simulate-only", action="store_true")
    options.add_argument("--every", type=int, default=1, help="simulate every n-th seed")
    options.add_argument("--offset", type=int, default=0, help="... starting here")
    arguments = options.parse_args()
    cache = Path(arguments.cache)
    first = 10_000 * arguments.seed
    count = arguments.tomograms
    # A quarter more for prior and default head, an eighth more for the check.
    ranges = [range(first, first + count)]
    ranges.append(range(ranges[0].stop, ranges[0].stop + count // 4))
    ranges.append(range(ranges[1].stop, ranges[1].stop + count // 8))
    if arguments.simulate_only:
        seeds = range(first + arguments.offset, ranges[2].stop, arguments.every)
        for seed in progress(seeds, "simulating"):
            for variant in range(arguments.variants if seed in ranges[0] else 1):
                views_in(cache, seed, variant)
        return
    start = load_model(arguments.start, "encoder") if arguments.start else None
    if start is not None:
        arguments.width, arguments.dimensions = start.card["width"], start.card["dimensions"]
    seen, names, _ = collect(ranges[0], cache, arguments.variants)
    learnt, kept = _real_parts(arguments.annotated, arguments.seed)
    seen, names = seen + learnt[0], np.append(names, learnt[1])
    print(f"{len(seen)} objects: {pd.Series(names).value_counts().to_dict()}", file=sys.stderr)
    size = arguments.width, arguments.dimensions
    weights = train(seen, names, arguments.steps, arguments.seed, *size, start, arguments.rate)
    card = {
        "kind": "encoder",
        "architecture": "3D CNN on views at three scales",
        "width": arguments.width,
        "dimensions": arguments.dimensions,
        "training": {
            "simulated_tomograms": count,
            "objects": len(names),
            "real_objects": len(learnt[1]),
            "start": None if start is None else start.sha256,
        },
        "recipe": f"tomocensus.classify.pretrain --tomograms {count} "
        f"--variants {arguments.variants} --steps {arguments.steps} "
        f"--seed {arguments.seed} --width {arguments.width} --dimensions {arguments.dimensions}"
        + (f" --start ENCODER --rate {arguments.rate or 4e-4:g}" if start else ""),
        "classes": sorted({str(name) for name in names}),
    }
    del seen
    plain = Model({**card, "sha256": "plain"}, weights)
    seen, names, seeds = collect(ranges[1], cache)
    seen, names, seeds = seen + kept[0], np.append(names, kept[1]), np.append(seeds, kept[2])
    prior = prior_of(described(seen, plain, seeds), names, arguments.seed)
    save_model(arguments.encoder, card, {**weights, **prior.to_weights()})
    encoder = load_model(arguments.encoder, "encoder")
    known = described(seen, encoder, seeds)
    named = pd.DataFrame({"tomogram": seeds, "instance": np.arange(len(seen)), "class": names})
    head_card, head_weights = fit_head(known, named, encoder, arguments.seed)
    seen, names, seeds = collect(ranges[2], cache)
    head = Model({**head_card, "sha256": ""}, head_weights)
    parts = described(seen, encoder, seeds).values()
    guesses = pd.concat([apply_head(head, part, 0) for part in parts]).sort_values("instance")
    likeliest = guesses[[f"p_{name}" for name in head_card["classes"]]].to_numpy().argmax(axis=1)
    right = np.array(head_card["classes"])[likeliest] == names
    head_card["validation"] = {"accuracy": float(right.mean()), "objects": len(right)}
    save_model(arguments.head, head_card, head_weights)
    by_kind = pd.Series(right).groupby(names).agg(["mean", "count"]).round(3)
    print(f"accuracy on {len(right)} unseen objects: {right.mean():.3f}\n{by_kind}")


if __name__ == "__main__":
    main()
