"""Pretrain the base segmenter on simulated tomograms: one command.

``python -m tomocensus.segment.pretrain --output models/base-segmenter --cache CACHE``

Rounds of training, each on tomograms that the one before has not seen, from wide simulation. The
network works on whatever voxel size it is given: the tomograms keep their own (finer ones than 12 Å
are binned), so that fine-tuning may choose the one that suits the data. Tomograms and finished
rounds are kept in the cache, so a run that was stopped goes on where it was; ``python -m
tomocensus.simulate.training`` fills it beforehand. Annotated real tomograms join in with
``--annotated``.

With a GPU, ``--minutes`` trains on tomograms as they come: other processes fill the cache
meanwhile, and so many make up for each being seen a few times only. ``--width`` beyond that of
``--start`` widens its network first.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import edt
import numpy as np
import torch
from scipy import ndimage

from tomocensus.devices import choose_device
from tomocensus.errors import InputError, without_traceback
from tomocensus.models import Model, load_model, save_model
from tomocensus.progress import progress
from tomocensus.segment.annotated import read_annotated
from tomocensus.segment.calibration import THIN, calibrate
from tomocensus.segment.network import build, from_card, widened
from tomocensus.segment.optimisation import DICE_WEIGHT, THIN_DICE_WEIGHT, optimise
from tomocensus.segment.patches import Patches
from tomocensus.segment.settings import AnnotatedVolume, TrainSettings
from tomocensus.segment.targets import TargetSlice, make_targets
from tomocensus.segment.training import FROM_SCRATCH, train
from tomocensus.simulate.training import in_cache, stored_tomogram
from tomocensus.volume import Volume

# The voxel size in the card; where a tomogram's own differs the network is trained at its own.
VOXEL_SIZE = 16.0
# Finer tomograms are binned to this: finer detail costs more time than it tells.
VOXEL_SIZE_RANGE = [12.0, 32.0]
# Every n-th slice is learnt from: neighbours are nearly the same.
STRIDE = 4
# Part kept for validation and calibration: of hundreds of tomograms a little is enough.
HOLD_OUT = 0.02
# Options that say how a model was made.
RECIPE = ("rounds", "tomograms", "steps", "batch", "patch", "slices", "width", "depth")
# What a finished round must have come from to be gone on from.
ASKED = (*RECIPE[1:], "seed", "rate", "kind")
# What crowds the cytosol is no object: it would bridge all that are.
BACKGROUND = ("gold", "particle")
# Of a round's card, in the finished model's.
LEFT_OUT = ("sha256", "history", "asked")
HEADS = ["probability", "boundary", "membrane"]
# Training with --minutes: tomograms kept for calibration, and those to wait for at first.
KEPT, ENOUGH = 16, 60
# Part of the calibration that is made: the fields of training are emptier than crowded cells, whose
# maps would stay below what is true (measured, see the benchmarks' page).
TRUST = 0.5
# Tomograms that join in between two steps at most.
AT_ONCE = 1
# Thin and small objects, and what lies within some voxels of them, count up to so many times as
# much as others: there are many, and all of their voxels are few.
MOST, THICK, AROUND = 3, 16.0, 5
# Of the weights' deviation; see `widened`.
WIDENING_NOISE = 0.05


def simulated_pair(seed: int, cache: Path) -> AnnotatedVolume:
    """Return a simulated tomogram with its whole truth in every fourth slice."""
    made = stored_tomogram(seed, cache)
    labels = np.asarray(made.instances.data)
    sort = np.array([made.classes.get(n, "") for n in range(labels.max() + 1)])
    annotation = np.where(np.isin(sort, BACKGROUND)[labels], 0, labels).astype(np.int16)
    contacts = contacts_in_z(annotation)
    membrane = np.asarray(made.membrane).astype(np.int8)
    start = np.random.default_rng([seed, 2]).integers(STRIDE)
    rest = np.arange(len(labels)) % STRIDE != start
    annotation[rest], membrane[rest] = -1, -1
    return AnnotatedVolume(
        f"simulated-{seed}",
        at_own_scale(made.tomogram),
        annotation,
        made.polarity,
        "instance",
        membrane,
        contacts,
        weight=weight_of_thin(labels),
    )


def weight_of_thin(labels: np.ndarray) -> np.ndarray:
    """Return how much each voxel counts: more in and beside thin objects, whatever they are.

    Parameters
    ----------
    labels : numpy.ndarray
        ``(nz, ny, nx)`` int: also of what is no object to the network, as it looks alike.

    Returns
    -------
    numpy.ndarray
        uint8, 1 to `MOST`: `THICK` over the radius (voxels) of the largest ball inside an object.
    """
    depth = edt.edt(np.ascontiguousarray(labels), black_border=False)
    radius = np.zeros(labels.max() + 1, np.float32)
    np.maximum.at(radius, labels.ravel(), depth.ravel())
    by_object = np.rint(np.clip(THICK / np.maximum(radius, 1.0), 1, MOST)).astype(np.uint8)
    by_object[0] = 1
    return ndimage.maximum_filter(by_object[labels], size=(1, AROUND, AROUND))


def at_own_scale(tomogram: Volume) -> Volume:
    """Return the tomogram with a voxel size that makes training keep its own scale.

    The network learns at one nominal voxel size; what is finer than its range is binned to the
    finest of the range, as in prediction.
    """
    finest = VOXEL_SIZE_RANGE[0]
    binning = min(tomogram.voxel_size / finest, 1.0)
    return replace(tomogram, voxel_size=VOXEL_SIZE * binning)


def contacts_in_z(labels: np.ndarray) -> np.ndarray:
    """Return True in the voxels of an object that have another object above or below."""
    result = np.zeros(labels.shape, bool)
    one, two = labels[:-1], labels[1:]
    touching = (one != two) & (one > 0) & (two > 0)
    result[:-1] |= touching
    result[1:] |= touching
    return result


def slices_of(seed: int, cache: Path, slices: int) -> list[TargetSlice]:
    """Return what is learnt from a simulated tomogram; images as float16, for less traffic."""
    targets = make_targets(simulated_pair(seed, cache), VOXEL_SIZE, slices, HEADS)
    for one in targets:
        one.image = one.image.astype(np.float16)
    return targets


class Arriving:
    """The slices of simulated tomograms, as these come into a cache.

    Parameters
    ----------
    seeds : range
        Those that may come; other processes make them.
    cache : pathlib.Path
        Where they come.
    slices : int
        Context of a slice.
    processes : int
        Readers.
    """

    def __init__(self, seeds: range, cache: Path, slices: int, processes: int):
        self.missing, self.cache, self.slices = list(seeds), cache, slices
        self.pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
        self.reading: list[Future] = []
        self.count, self.looked = 0, 0.0

    def __call__(self) -> list[TargetSlice]:
        """Return the slices of a few tomograms more, or none where none is ready."""
        if time.monotonic() - self.looked > 1:
            self.looked = time.monotonic()
            there = in_cache(self.cache)
            for seed in [seed for seed in self.missing if seed in there]:
                self.missing.remove(seed)
                self.reading.append(self.pool.submit(slices_of, seed, self.cache, self.slices))
        done = [job for job in self.reading if job.done()][:AT_ONCE]
        self.reading = [job for job in self.reading if job not in done]
        self.count += len(done)
        return [one for job in done for one in job.result()]

    def first(self, count: int) -> list[TargetSlice]:
        """Wait for so many tomograms more, where there will be, and return their slices."""
        found = []
        count = min(count, len(self.missing) + len(self.reading))
        print(f"waiting for {count} tomograms in {self.cache}", file=sys.stderr)
        enough = self.count + count
        while self.count < enough:
            found += self()
            time.sleep(0.01)
        return found

    def close(self) -> None:
        """Let the readers go."""
        self.pool.shutdown(cancel_futures=True)


def _begin(arguments, base: Model | None, generator: np.random.Generator):
    """Return architecture and network to train: a new one, or the base's, perhaps widened."""
    if base is None:
        size = {name: getattr(arguments, name) for name in ("slices", "width", "depth")}
        architecture = {"name": "unet-2.5d", **size}
        return architecture, build(architecture, len(HEADS))
    architecture, network = dict(base.card["architecture"]), from_card(base.card, base.weights)
    if arguments.width > architecture["width"]:
        architecture["width"] = arguments.width
        network = widened(network, arguments.width, generator, WIDENING_NOISE)
    return architecture, network


def train_for_minutes(
    arguments: argparse.Namespace, seeds: range, base: Model | None, real: list[AnnotatedVolume]
) -> tuple[dict, dict[str, np.ndarray]]:
    """Train on tomograms as they come, for so long; return card and weights."""
    torch.manual_seed(arguments.seed)
    torch.backends.cudnn.benchmark = True
    generator = np.random.default_rng(arguments.seed)
    device = choose_device("auto")
    architecture, network = _begin(arguments, base, generator)
    network = network.to(device, memory_format=torch.channels_last)
    settings = TrainSettings(
        seed=arguments.seed,
        batch=arguments.batch,
        patch=arguments.patch,
        minutes=arguments.minutes,
    )
    arriving = Arriving(seeds, Path(arguments.cache), architecture["slices"], arguments.readers)
    kept = arriving.first(min(KEPT, len(seeds) // 4 + 1))
    for one in kept:
        one.held_out[:] = True
    patches = Patches(arriving.first(ENOUGH), arguments.patch, generator, device)
    for pair in real:
        patches.add(make_targets(pair, VOXEL_SIZE, architecture["slices"], HEADS))
    weight = torch.full([len(HEADS)], DICE_WEIGHT)
    weight[HEADS.index(THIN)] = THIN_DICE_WEIGHT
    rate = arguments.rate or FROM_SCRATCH
    network, history = optimise(network, patches, settings, rate, weight, device, more=arriving)
    arriving.close()
    metrics, calibration = calibrate(network, kept, HEADS, device, TRUST)
    print(f"{arriving.count} tomograms, {history[-1]}", file=sys.stderr)
    card = {
        "kind": "segmenter",
        "architecture": architecture,
        "voxel_size": VOXEL_SIZE,
        "heads": HEADS,
        "polarity": "dark",
        "trained_on": f"{arriving.count} simulated tomograms",
        "metrics": metrics,
        "calibration": calibration,
        "groups": {},
        "history": history,
    }
    state = network.state_dict()
    return card, {name: value.detach().cpu().numpy().copy() for name, value in state.items()}


def mean_weights(weights: dict, start: str, share: float) -> dict:
    """Return weights moved part of the way back to those that training began with.

    The mean of both is better than either, as in fine-tuning (Wortsman et al., CVPR 2022).
    """
    old = load_model(start, "segmenter").weights
    return {
        name: ((1 - share) * value + share * old[name]).astype(value.dtype)
        for name, value in weights.items()
    }


def train_in_rounds(
    arguments: argparse.Namespace, first: int, base: Model | None, real: list[AnnotatedVolume]
) -> Model:
    """Train round by round, each on other tomograms; return the last round's model."""
    cache = Path(arguments.cache)
    for number in range(arguments.rounds):
        folder = cache / f"round-{number}"
        asked = _asked(arguments, first, base if number == 0 else None, real)
        if (folder / "model.json").is_file():
            if load_model(folder, "segmenter").card.get("asked") != asked:
                raise InputError(
                    f"{folder}: was trained otherwise than what is asked for now. Give another "
                    "--cache, or delete the folders round-* in this one; its tomograms may stay."
                )
        else:
            start = first + number * arguments.tomograms
            seeds = progress(range(start, start + arguments.tomograms), "reading")
            pairs = [simulated_pair(seed, cache) for seed in seeds] + real
            settings = TrainSettings(
                steps=arguments.steps,
                seed=arguments.seed + number,
                voxel_size=VOXEL_SIZE,
                batch=arguments.batch,
                patch=arguments.patch,
                slices=arguments.slices,
                width=arguments.width,
                depth=arguments.depth,
                learning_rate=arguments.rate or (None if arguments.start else 2e-3 / (1 + number)),
                hold_out=HOLD_OUT,
                base_share=0.0,
                threads=arguments.threads,
            )
            card, weights, _ = train(pairs, base, settings)
            card["trained_on"] = f"{(number + 1) * arguments.tomograms} simulated tomograms"
            card = {**_trained_on(card, arguments.start, real), "asked": asked}
            save_model(folder, card, weights)
            print(f"round {number}: {card['metrics']}", file=sys.stderr)
        base = load_model(folder, "segmenter")
    return base


def _asked(arguments, first: int, base: Model | None, real: list[AnnotatedVolume]) -> dict:
    """Return what a round comes from, but for the rounds before."""
    return {
        **{name: getattr(arguments, name) for name in ASKED},
        "first": first,
        "start": None if base is None else base.sha256,
        "annotated": [pair.name for pair in real],
    }


def _trained_on(card: dict, start: str | None, real: list[AnnotatedVolume]) -> dict:
    """Say in the card what came before, and which real tomograms there were."""
    said = card["trained_on"]
    if start:
        said += f", after {load_model(start, 'segmenter').card['trained_on']}"
    if real:
        said += " and " + ", ".join(pair.name for pair in real)
    return {**card, "trained_on": said}


def _recipe(arguments: argparse.Namespace, first: int) -> dict:
    """Return what made the model, and the command that would make one like it."""
    recipe = {name: getattr(arguments, name) for name in RECIPE}
    command = "python -m tomocensus.segment.pretrain " + " ".join(
        f"--{name} {value}" for name, value in recipe.items()
    )
    if arguments.start:
        recipe["first"] = first
        recipe["after"] = load_model(arguments.start, "segmenter").card["recipe"]
        command += f" --first {first} --start BASE"
    if arguments.minutes:
        recipe["minutes"] = arguments.minutes
        recipe["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        command += f" --minutes {arguments.minutes:g}"
    if arguments.rate:
        command += f" --rate {arguments.rate:g}"
    if arguments.start and arguments.share:
        recipe["share"] = arguments.share
        command += f" --share {arguments.share:g}"
    return {**recipe, "seed": arguments.seed, "command": command}


def _options() -> argparse.Namespace:
    """Read the command line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--output", required=True)
    options.add_argument("--cache", required=True, help="folder for tomograms and rounds")
    options.add_argument("--rounds", type=int, default=4)
    options.add_argument("--tomograms", type=int, default=40, help="in each round")
    options.add_argument("--steps", type=int, default=1500, help="in each round")
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--patch", type=int, default=160)
    options.add_argument("--slices", type=int, default=9)
    options.add_argument("--width", type=int, default=24)
    options.add_argument("--depth", type=int, default=5)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--first", type=int, help="first tomogram (default: 10,000 times the seed)"
    )
    options.add_argument("--start", help="base segmenter to go on from, at a lower learning rate")
    options.add_argument("--rate", type=float, help="highest learning rate")
    options.add_argument(
        "--share", type=float, default=0.0, help="of the start's weights in the result"
    )
    options.add_argument(
        "--annotated", help="real ones as well: a sample sheet, a folder or a copick configuration"
    )
    options.add_argument("--kind", default="binary", help="of their annotation")
    options.add_argument("--threads", type=int)
    options.add_argument(
        "--minutes", type=float, help="train so long on tomograms as they come into the cache"
    )
    options.add_argument("--readers", type=int, default=2, help="processes that read them")
    arguments = options.parse_args()
    if arguments.share and arguments.minutes:
        options.error("--share goes with --steps: what --minutes begins with may be wider")
    return arguments


@without_traceback()
def main() -> None:
    """Train and write the model."""
    arguments = _options()
    first = 10_000 * arguments.seed if arguments.first is None else arguments.first
    real = read_annotated(arguments.annotated, arguments.kind) if arguments.annotated else []
    real = [replace(one, tomogram=at_own_scale(one.tomogram)) for one in real]
    base = load_model(arguments.start, "segmenter") if arguments.start else None
    if arguments.minutes:
        seeds = range(first, first + arguments.tomograms)
        card, weights = train_for_minutes(arguments, seeds, base, real)
        base = Model(_trained_on(card, arguments.start, real), weights)
    else:
        base = train_in_rounds(arguments, first, base, real)
    recipe = _recipe(arguments, first)
    card = {name: value for name, value in base.card.items() if name not in LEFT_OUT}
    weights = base.weights
    if arguments.start and arguments.share:
        weights = mean_weights(weights, arguments.start, arguments.share)
        # Those are of the weights as trained.
        card |= {"metrics": {}, "calibration": {}, "groups": {}}
    # What is said of a user's annotation does not apply to simulated fields.
    card["warnings"] = []
    card["voxel_size_range"] = VOXEL_SIZE_RANGE
    card["recipe"] = recipe
    save_model(arguments.output, card, half(weights))


def half(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return weights in half precision: half the size, and maps that differ by 4 % at most."""
    return {
        name: value.astype(np.float16) if value.dtype == np.float32 else value
        for name, value in weights.items()
    }


if __name__ == "__main__":
    main()
