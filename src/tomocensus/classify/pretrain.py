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
import itertools
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from tomocensus.atomic import atomic_path
from tomocensus.classify.embeddings import Embeddings
from tomocensus.classify.features import NAMES
from tomocensus.classify.gaussians import Prior, best_temperature, scores_of
from tomocensus.classify.head import apply_head, fit_head
from tomocensus.classify.views import CLOSE, SIDE, View, views
from tomocensus.errors import InputError, without_traceback
from tomocensus.inspect import inspect
from tomocensus.io import read_volume
from tomocensus.models import Model, load_model, save_model
from tomocensus.progress import paced, progress
from tomocensus.samples import read_annotation, read_samples
from tomocensus.simulate.scenes import KINDS
from tomocensus.simulate.training import stored_tomogram
from tomocensus.tables import read_known_classes
from tomocensus.volume import Volume

MOST_OF_A_KIND = 12
SCALE = 16.0
# Of a batch, which turn alike.
GROUPS = 8
# Training with --minutes: tomograms for prior and head, for the check, to wait for, and room for
# crops (27 GB on the GPU).
LATER, CHECKED, ENOUGH, ROOM = 100, 30, 40, 500_000
# A user's tomograms are imaged alike, those of pretraining are not: there probabilities need less
# softening (measured on data sets of one condition each, see benchmarks/classify.py).
ALIKE = 2 / 3
# How common kinds are that few tomograms hold, to the default head; others: 1. To it half of the
# blobs of other simulators were lipid droplets.
RARE = {"autophagosome": 1 / 3, "golgi": 1 / 3, "lipid_droplet": 1 / 3}


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
    for one, other in pairs:
        if rng.random() < part:
            names[names == names[one]] = names[other]
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
    seen = list(views(tomogram, labels, made.polarity, wanted=chosen))
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
        shape, size = tuple(facts["shape"]), facts["voxel_size"]
        labels = read_annotation(sample.ground_truth, shape, "ground truth", size)
        kinds = read_known_classes(sample.ground_truth_classes)
        tomogram = read_volume(sample.path, size)
        some = list(views(tomogram, labels, facts["polarity"], wanted=kinds))
        seen += some
        names += [kinds[view.number] for view in some]
        tomograms += [name] * len(some)
    if not seen:
        raise InputError(
            f"{sheet}: no row has classified objects. Fill the columns 'ground_truth' (a labelmap) "
            "and 'ground_truth_classes' (a table with the columns instance and class)."
        )
    return seen, np.array(names), np.array(tomograms)


class Objects:
    """The views of objects, and augmented batches of them, on the device that learns from them.

    Parameters
    ----------
    kinds : list of str
        All that there may be.
    capacity : int
        Crops that there is room for; what comes when it is full is left out.
    rng : numpy.random.Generator
        Source of all choices.
    device : str
        ``cpu`` or ``cuda``.
    """

    def __init__(self, kinds: list[str], capacity: int, rng: np.random.Generator, device: str):
        import torch

        self.number = {kind: index for index, kind in enumerate(kinds)}
        self.rng, self.device = rng, device
        self.noise = torch.Generator(device).manual_seed(int(rng.integers(2**31)))
        shape = (capacity, 2, SIDE, SIDE, SIDE)
        self.crops = torch.empty(shape, dtype=torch.float16, device=device)
        self.filled = 0
        self.rows: list[np.ndarray] = []
        self.looks: list[np.ndarray] = []
        self.features: list[np.ndarray] = []
        self.target: list[int] = []
        self.chance = np.zeros(0)

    def add(self, seen: list[View], names: list[str] | np.ndarray) -> None:
        """Take more objects; kinds are drawn by the square root of their number."""
        import torch

        for view, name in zip(seen, names, strict=True):
            stop = self.filled + len(view.kinds)
            if stop > len(self.crops):
                break
            self.crops[self.filled : stop] = torch.from_numpy(view.crops)
            self.rows.append(np.arange(self.filled, stop))
            self.looks.append(view.kinds)
            self.features.append(view.features)
            self.target.append(self.number[str(name)])
            self.filled = stop
        chance = 1 / np.sqrt(np.bincount(self.target))[self.target]
        self.chance = np.cumsum(chance / chance.sum())
        self.chance[-1] = 1.0

    def batch(self, size: int):
        """Return crops, kinds, owners, features and classes of some objects, as tensors."""
        import torch

        chosen = np.searchsorted(self.chance, self.rng.random(size))
        kept = [self._fewer(index) for index in chosen]
        counts = [len(keep) for keep in kept]
        rows = np.concatenate([self.rows[i][keep] for i, keep in zip(chosen, kept, strict=True)])
        looks = np.concatenate([self.looks[i][keep] for i, keep in zip(chosen, kept, strict=True)])
        owners = np.repeat(np.arange(size), counts)
        features = np.stack([self.features[index] for index in chosen])
        target = np.array([self.target[index] for index in chosen])
        looks, owners, features, target, rows = (
            torch.from_numpy(array).to(self.device)
            for array in (looks, owners, features, target, rows)
        )
        crops = self._turned(self.crops[rows].float(), np.cumsum([0, *counts]))
        return self._contrast(crops, owners, size), looks, owners, features, target

    def _fewer(self, index: int) -> np.ndarray:
        """Return which crops of an object to show: two close looks, the same where it has one.

        Batches of one shape let a GPU choose its fastest convolutions once.
        """
        looks = self.looks[index]
        close = np.nonzero(looks == CLOSE)[0]
        chosen = self.rng.choice(close, 2, replace=len(close) < 2)
        return np.r_[np.nonzero(looks != CLOSE)[0], chosen]

    def _turned(self, crops, ends: np.ndarray):
        """Return crops turned about Z and mirrored; objects in groups of a few turn alike."""
        import torch

        parts = []
        bounds = ends[np.linspace(0, len(ends) - 1, GROUPS + 1).round().astype(int)]
        for start, stop in itertools.pairwise(bounds):
            part = torch.rot90(crops[start:stop], int(self.rng.integers(4)), (3, 4))
            parts.append(part.flip([axis for axis in (2, 3, 4) if self.rng.random() < 0.5]))
        return torch.cat(parts)

    def _contrast(self, crops, owners, size: int):
        """Return crops with other contrast, brightness and noise, each object its own."""
        import torch

        draws = np.stack(
            [
                np.exp(self.rng.normal(0, 0.25, size)),
                self.rng.normal(0, 0.15, size),
                self.rng.uniform(0, 0.4, size),
            ]
        ).astype(np.float32)
        draws = torch.from_numpy(draws).to(self.device)[:, owners, None, None, None]
        noise = torch.randn(crops[:, 0].shape, generator=self.noise, device=self.device)
        crops[:, 0] = crops[:, 0] * draws[0] + draws[1] + noise * draws[2]
        return crops


def train(
    objects: Objects,
    settings: argparse.Namespace,
    start: Model | None = None,
    more=None,
) -> dict[str, np.ndarray]:
    """Train the encoder; return its weights.

    The loss is the sum of a cosine softmax over the simulated kinds (Wang et al., CVPR 2018,
    without margin), which spreads the kinds, and a supervised contrastive loss (Khosla et al.,
    NeurIPS 2020), which keeps near what is alike.

    Parameters
    ----------
    objects : Objects
        What to learn from.
    settings : argparse.Namespace
        ``steps`` or ``minutes``, ``seed``, ``width``, ``dimensions``, ``batch``, ``rate`` (highest
        learning rate; 2e-3, or a fifth of it with `start`, if None).
    start : Model, optional
        Encoder of that size to start from.
    more : callable, optional
        Called before each step; may add objects.
    """
    import torch

    from tomocensus.classify.encoder import Encoder, build, weights_of

    torch.manual_seed(settings.seed)
    torch.backends.cudnn.benchmark = settings.minutes is not None
    size, device = (settings.width, settings.dimensions), objects.device
    network = (Encoder(*size) if start is None else build(start)).train().to(device)
    highest = settings.rate or (2e-3 if start is None else 4e-4)
    shape = len(objects.number), settings.dimensions
    directions = torch.nn.Parameter(torch.randn(shape, device=device))
    optimiser = torch.optim.AdamW(
        [*network.parameters(), directions], lr=highest, weight_decay=1e-2
    )
    losses = []
    for step, part in paced(settings.steps, settings.minutes):
        if more is not None:
            more()
        for group in optimiser.param_groups:
            group["lr"] = highest * _schedule(part)
        *inputs, wanted = objects.batch(min(settings.batch, len(objects.rows)))
        with torch.autocast(device, dtype=torch.bfloat16):
            vectors = network(*inputs).float()
        cosine = vectors @ torch.nn.functional.normalize(directions, dim=1).T
        loss = torch.nn.functional.cross_entropy(SCALE * cosine, wanted, label_smoothing=0.02)
        loss = loss + 0.5 * contrastive(vectors, wanted)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        losses.append(loss.detach())
        if step % 100 == 0:
            mean = float(torch.stack(losses[-100:]).mean())
            print(f"step {step}: loss {mean:.3f}, {len(objects.rows)} objects", file=sys.stderr)
    return weights_of(network)


def _schedule(part: float, rise: float = 0.15) -> float:
    """Return the share of the highest learning rate: up along a cosine, then down along one."""
    if part < rise:
        return 0.04 + 0.96 * (1 - np.cos(np.pi * part / rise)) / 2
    return (1 + np.cos(np.pi * (part - rise) / (1 - rise))) / 2


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
    from tomocensus.classify.embeddings import vectors_of
    from tomocensus.classify.encoder import build, fold
    from tomocensus.devices import choose_device

    network = fold(build(encoder)).to(choose_device("auto"))
    vectors = []
    for start in range(0, len(seen), 32):
        part = [
            View(view.number, view.crops.astype(np.float32), view.kinds, view.features)
            for view in seen[start : start + 32]
        ]
        vectors.append(vectors_of(network, part, encoder.card.get("turns", 1)))
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


def _real_parts(sheet: str | None, seed: int, share: float):
    """Return what to learn from and what to keep for prior and head (a share) of real objects.

    Real tomograms are numbered from -1 down: simulated ones have their seeds.
    """
    if not sheet:
        return ([], [], []), ([], [], [])
    seen, names, tomograms = real_views(sheet)
    numbers = -1 - np.unique(tomograms, return_inverse=True)[1]
    later = np.random.default_rng(seed).random(len(seen)) < share
    return tuple(
        ([seen[k] for k in rows], names[rows], numbers[rows])
        for rows in (np.nonzero(~later)[0], np.nonzero(later)[0])
    )


class Arriving:
    """Adds objects of simulated tomograms as other processes put their views into a cache."""

    def __init__(self, seeds: range, cache: Path, objects: Objects):
        self.missing, self.cache, self.objects = list(seeds), cache, objects
        self.ready: list[int] = []
        self.count, self.looked = 0, 0.0

    def __call__(self) -> None:
        """Add the objects of one tomogram, where there is one."""
        if time.monotonic() - self.looked > 1:
            self.looked = time.monotonic()
            come = {seed for seed in self.missing if self._is_there(seed)}
            self.ready += sorted(come)
            self.missing = [seed for seed in self.missing if seed not in come]
        if self.ready:
            self.objects.add(*load(views_in(self.cache, self.ready.pop(0))))
            self.count += 1

    def _is_there(self, seed: int) -> bool:
        return (self.cache / f"views-{seed}.npz").is_file()

    def wait(self, others: list[int], enough: int) -> None:
        """Wait for the views of some tomograms, and for enough to train on."""
        enough = min(enough, len(self.missing) + len(self.ready))
        print(f"waiting for {enough + len(others)} tomograms in {self.cache}", file=sys.stderr)
        while self.count < enough or not all(self._is_there(seed) for seed in others):
            self()
            time.sleep(0.05)


def _ranges(arguments: argparse.Namespace) -> list[range]:
    """Return the seeds to train on, those for prior and default head, and those for the check.

    A quarter more for prior and head, an eighth more for the check; without training all for prior
    and head. Training with --minutes does not know how many it will see: there the others come
    first.
    """
    first, count = 10_000 * arguments.seed, arguments.tomograms
    check = max(count // 8, 1)
    sizes = [count, max(count // 4, 1), check] if arguments.steps else [0, count, check]
    order = [0, 1, 2]
    if arguments.minutes:
        sizes[1:], order = [LATER, CHECKED], [1, 2, 0]
    ranges: dict[int, range] = {}
    for part in order:
        ranges[part] = range(first, first + sizes[part])
        first = ranges[part].stop
    return [ranges[part] for part in range(3)]


def _trained(arguments, ranges, learnt, start: Model | None):
    """Train an encoder as the command line says; return card and weights."""
    from tomocensus.devices import choose_device

    if start is not None:
        arguments.width, arguments.dimensions = start.card["width"], start.card["dimensions"]
    cache, device = Path(arguments.cache), choose_device("auto").type
    rng = np.random.default_rng(arguments.seed)
    classes = sorted({*KINDS, *(str(name) for name in learnt[1])})
    if arguments.minutes:
        objects = Objects(classes, ROOM, rng, device)
        more = Arriving(ranges[0], cache, objects)
        more.wait([*ranges[1], *ranges[2]], ENOUGH)
    else:
        seen, names, _ = collect(ranges[0], cache, arguments.variants)
        crops = sum(len(view.kinds) for view in (*seen, *learnt[0]))
        objects, more = Objects(classes, crops, rng, device), None
        objects.add(seen, names)
        del seen
    if learnt[0]:
        objects.add(*learnt[:2])
    weights = train(objects, arguments, start, more)
    if more is not None:
        arguments.tomograms = more.count
    card = {
        "kind": "encoder",
        "architecture": "3D CNN on views at three scales",
        "width": arguments.width,
        "dimensions": arguments.dimensions,
        "turns": arguments.turns,
        "training": {
            "simulated_tomograms": arguments.tomograms,
            "objects": len(objects.target),
            "real_objects": len(learnt[1]),
            "start": None if start is None else start.sha256,
            "device": device,
        },
        "recipe": f"tomocensus.classify.pretrain --tomograms {arguments.tomograms} "
        f"--variants {arguments.variants} "
        + (
            f"--minutes {arguments.minutes:g} "
            if arguments.minutes
            else f"--steps {arguments.steps} "
        )
        + f"--batch {arguments.batch} "
        f"--seed {arguments.seed} --width {arguments.width} --dimensions {arguments.dimensions} "
        f"--turns {arguments.turns}"
        + (f" --start ENCODER --rate {arguments.rate or 4e-4:g}" if start else ""),
        "classes": classes,
    }
    return card, weights


def _kept(arguments, start: Model):
    """Return card and weights of an encoder that gets another prior and head."""
    card = {name: value for name, value in start.card.items() if name != "sha256"}
    card |= {
        "turns": arguments.turns,
        "prior": f"tomocensus.classify.pretrain --start ENCODER --steps 0 --tomograms "
        f"{arguments.tomograms} --seed {arguments.seed} --turns {arguments.turns}",
    }
    return card, {
        name: value for name, value in start.weights.items() if not name.startswith("prior.")
    }


@without_traceback()
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
    options.add_argument(
        "--steps", type=int, default=1500, help="0: only prior and head, of the encoder of --start"
    )
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--width", type=int, default=16)
    options.add_argument("--dimensions", type=int, default=48)
    options.add_argument(
        "--turns", type=int, default=4, choices=(1, 2, 4), help="directions to describe objects in"
    )
    options.add_argument("--annotated", help="sample sheet of real tomograms with known classes")
    options.add_argument("--start", help="encoder to fine-tune (its size counts)")
    options.add_argument("--rate", type=float, help="highest learning rate")
    options.add_argument("--batch", type=int, default=64, help="objects in a step")
    options.add_argument(
        "--minutes", type=float, help="train so long on objects as they come into the cache"
    )
    options.add_argument("--simulate-only", action="store_true")
    options.add_argument("--every", type=int, default=1, help="simulate every n-th seed")
    options.add_argument("--offset", type=int, default=0, help="... starting here")
    arguments = options.parse_args()
    if not arguments.steps and not (arguments.start or arguments.simulate_only):
        options.error("--steps 0 trains nothing: name the encoder with --start.")
    cache = Path(arguments.cache)
    ranges = _ranges(arguments)
    if arguments.simulate_only:
        seeds = range(min(r.start for r in ranges), max(r.stop for r in ranges))
        for seed in progress(seeds[arguments.offset :: arguments.every], "simulating"):
            for variant in range(arguments.variants if seed in ranges[0] else 1):
                views_in(cache, seed, variant)
        return
    start = load_model(arguments.start, "encoder") if arguments.start else None
    learnt, kept = _real_parts(
        arguments.annotated, arguments.seed, 0.25 if arguments.steps else 1.0
    )
    if arguments.steps:
        card, weights = _trained(arguments, ranges, learnt, start)
    else:
        card, weights = _kept(arguments, start)
    plain = Model({**card, "sha256": "plain"}, weights)
    seen, names, seeds = collect(ranges[1], cache)
    seen, names, seeds = seen + kept[0], np.append(names, kept[1]), np.append(seeds, kept[2])
    prior = prior_of(described(seen, plain, seeds), names, arguments.seed)
    save_model(arguments.encoder, card, {**weights, **prior.to_weights()})
    encoder = load_model(arguments.encoder, "encoder")
    known = described(seen, encoder, seeds)
    named = pd.DataFrame({"tomogram": seeds, "instance": np.arange(len(seen)), "class": names})
    head_card, head_weights = fit_head(known, named, encoder, arguments.seed)
    common = [RARE.get(name, 1.0) for name in head_card["classes"]]
    head_weights["common"] = np.array(common, np.float32)
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
