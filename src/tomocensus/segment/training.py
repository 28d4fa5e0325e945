"""Training on sparse annotation."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from scipy.special import expit

from tomocensus.devices import choose_device
from tomocensus.errors import InputError
from tomocensus.models import Model
from tomocensus.segment.calibration import (
    BASE_OFFSET,
    FREE_OFFSET,
    THIN,
    calibrate,
    dice_annotated,
    dice_by_group,
    dice_held_out,
    logits_of_slice,
)
from tomocensus.segment.emptiness import empty_slices
from tomocensus.segment.network import UNet, build, from_card, working_voxel_size
from tomocensus.segment.optimisation import DICE_WEIGHT, THIN_DICE_WEIGHT, optimise
from tomocensus.segment.patches import Patches
from tomocensus.segment.settings import AnnotatedVolume, TrainSettings
from tomocensus.segment.targets import (
    TargetSlice,
    annotated_slices,
    check,
    check_kind,
    hold_out,
    hold_out_blocks,
    make_targets,
    shares,
)

# Dice that going back towards the base may cost: on held-out annotation of several tomograms, of
# one, which says less of others, or, where none is held out, on what was learnt from. How far back
# is tried, as parts of `base_share`.
BLEND_COST, BLEND_COST_ONE, BLEND_COST_LEARNT = 0.02, 0.1, 0.15
BLENDS = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
FROM_SCRATCH, FROM_BASE = 2e-3, 7e-4
# Part of the patches that get much more noise: other tomograms may be noisier than those annotated.
NOISIER = 0.5
# Of annotated voxels no more are learnt from than these, or than are seen so often at random.
ENOUGH, LOOKS = 4_000_000, 4


def train(
    pairs: list[AnnotatedVolume], base: Model | None, settings: TrainSettings
) -> tuple[dict, dict[str, np.ndarray], list[dict]]:
    """Train a segmenter on sparsely annotated tomograms.

    Only annotated voxels count in the loss (cross-entropy + Dice); their unannotated surroundings
    serve as context. Part of the annotation is held out where there is enough: it picks the best
    weights, stops early and calibrates the maps (Platt 1999), so that 0.5 means one in two.

    Parameters
    ----------
    pairs : list of AnnotatedVolume
        Tomograms and annotation.
    base : Model or None
        Start from its weights; from scratch where None.
    settings : TrainSettings
        How.

    Returns
    -------
    card : dict
        For :func:`tomocensus.models.save_model`; ``warnings`` is a list of sentences.
    weights : dict of str to numpy.ndarray
        float32.
    history : list of dict
        ``step``, ``loss`` and ``validation`` (Dice of ``probability`` on what is held out, or
        None).

    Raises
    ------
    InputError
        Where nothing is annotated, or only one of object and background.
    """
    torch.manual_seed(settings.seed)
    if settings.threads:
        torch.set_num_threads(int(settings.threads))
    generator = np.random.default_rng(settings.seed)
    card = _start_card(pairs, base, settings)
    heads, recipe = card["heads"], card["recipe"]
    targets = _targets(pairs, card, settings, inside=base is None)
    held = hold_out(targets, settings.hold_out, generator)
    keeps_base = base is not None and settings.base_share > 0

    device = choose_device(settings.device)
    network = build(card["architecture"], len(heads))
    known = np.isin(heads, [] if base is None else base.card["heads"])
    empty: list[TargetSlice] = []
    if base is None:
        _start_head(network, targets)
    else:
        _adopt(network, base, heads)
        _expect(network, targets, known)
    if keeps_base:
        empty = _empty(network, pairs, targets, card["voxel_size"], known)
        recipe["empty_slices"] = len(empty)
    card["warnings"] = check(targets + empty)
    card["warnings"] += [text for pair in pairs for text in check_kind(pair)]
    if held:
        hold_out_blocks(empty, settings.hold_out, generator)
    begun = copy.deepcopy(network.state_dict())
    averaged, history = optimise(
        network.to(device, memory_format=torch.channels_last),
        Patches(targets + empty, settings.patch, generator, device, NOISIER),
        settings,
        recipe["learning_rate"],
        _dice_weight(pairs, heads),
        device,
        (lambda one: dice_held_out(one, targets, device)) if held else None,
        frozen_statistics=keeps_base,
    )
    if base is not None:
        recipe["base_share"] = settings.base_share
    if keeps_base:
        recipe["base_share"] = _back_to_base(
            averaged, begun, settings.base_share, ~known, targets, held, device
        )
    limit = FREE_OFFSET if base is None else BASE_OFFSET
    _validate(card, averaged, targets, empty, held, device, limit)
    card["history"] = history
    recipe["steps_done"] = history[-1]["step"]
    weights = {
        name: value.detach().cpu().numpy().copy() for name, value in averaged.state_dict().items()
    }
    return card, weights, history


def _targets(pairs, card, settings, inside: bool) -> list[TargetSlice]:
    """Return what is learnt from, of all tomograms; the card tells of how many slices."""
    slices, heads, voxel_size = card["architecture"]["slices"], card["heads"], card["voxel_size"]
    told = [annotated_slices(pair, voxel_size) for pair in pairs]
    seen = settings.steps * settings.batch * settings.patch**2
    room = shares([len(there) * voxels for there, voxels in told], max(ENOUGH, seen // LOOKS))
    targets = []
    for pair, (there, voxels), share in zip(pairs, told, room, strict=True):
        # Neighbouring slices say nearly the same; all of them would take hours and gigabytes.
        most = max(1, round(share / voxels)) if len(there) else None
        targets += make_targets(pair, voxel_size, slices, heads, inside=inside, most=most)
    card["recipe"]["annotated_slices"] = sum(len(there) for there, _ in told)
    card["recipe"]["learnt_slices"] = len(targets)
    _require_both(targets, pairs)
    return targets


def _dice_weight(pairs, heads) -> torch.Tensor:
    """Return the weight of each head's Dice loss."""
    weight = torch.full([len(heads)], DICE_WEIGHT)
    if any(pair.membrane is not None for pair in pairs):
        weight[heads.index(THIN)] = THIN_DICE_WEIGHT
    return weight


def _validate(card, network, targets, empty, held, device, limit) -> None:
    """Calibrate on what is held out, if any is, and say in the card how well that is found."""
    if not held:
        card["warnings"].append(
            "too little annotation to hold some out: the model is not validated nor calibrated"
        )
        return
    card["metrics"], card["calibration"] = calibrate(
        network, targets, card["heads"], device, others=empty, limit=limit
    )
    card["groups"] = dice_by_group(network, targets, device)
    final = card["metrics"]["held_out_dice"]
    if final < 0.5:
        card["warnings"].append(
            f"Dice on held-out annotation is only {final:.2f}: the annotation may contradict "
            "itself, or be too little"
        )


def _start_card(pairs, base, settings) -> dict:
    """Say what will be trained: heads, architecture, voxel size, recipe."""
    if not pairs:
        raise InputError("no annotated tomogram: name an annotation in the sample sheet.")
    heads = ["probability", "boundary"]
    if any(pair.membrane is not None for pair in pairs) or (
        base is not None and "membrane" in base.card["heads"]
    ):
        heads.append("membrane")
    voxel_size = None if settings.voxel_size == "auto" else settings.voxel_size
    if base is not None:
        architecture = dict(base.card["architecture"])
        voxel_size = voxel_size or working_voxel_size(
            base.card, [pair.tomogram.voxel_size for pair in pairs]
        )
    else:
        architecture = {
            "name": "unet-2.5d",
            "slices": settings.slices,
            "width": settings.width,
            "depth": settings.depth,
        }
    voxel_size = voxel_size or float(np.median([pair.tomogram.voxel_size for pair in pairs]))
    recipe = {
        "steps": settings.steps,
        "seed": settings.seed,
        "patch": settings.patch,
        "batch": settings.batch,
        "learning_rate": settings.learning_rate or (FROM_SCRATCH if base is None else FROM_BASE),
        "hold_out": settings.hold_out,
        "base": None if base is None else base.card.get("sha256"),
    }
    return {
        "kind": "segmenter",
        "architecture": architecture,
        "voxel_size": float(voxel_size),
        "heads": heads,
        "polarity": "dark",
        "recipe": recipe,
        "trained_on": [{"tomogram": pair.name, "annotation": pair.kind} for pair in pairs],
        "metrics": {},
    }


def _require_both(targets: list[TargetSlice], pairs: list[AnnotatedVolume]) -> None:
    names = ", ".join(pair.name for pair in pairs)
    for value, what, remedy in (
        (1, "object", "mark some objects (1 or more)"),
        (0, "background", "mark some background (0); -1 means not annotated"),
    ):
        if not any((t.target[0] == value).any() for t in targets):
            raise InputError(f"annotation of {names}: no {what} is annotated; {remedy}.")


def _start_head(network: UNet, targets: list[TargetSlice]) -> None:
    """Start each head's bias at the logarithm of its odds in the annotation."""
    with torch.no_grad():
        for head in range(network.head.out_channels):
            ones = sum(int((t.target[head] == 1).sum()) for t in targets) + 1
            zeros = sum(int((t.target[head] == 0).sum()) for t in targets) + 1
            network.head.bias[head] = math.log(ones / zeros)


def _adopt(network: UNet, base: Model, heads: list[str]) -> None:
    """Take over the weights of a base model; heads that it lacks start untrained."""
    old = from_card(base.card, base.weights, str(base.path or "base model"))
    state = old.state_dict()
    for name in ("head.weight", "head.bias"):
        fresh = network.state_dict()[name].clone()
        for index, head in enumerate(heads):
            if head in base.card["heads"]:
                fresh[index] = state[name][base.card["heads"].index(head)]
        state[name] = fresh
    network.load_state_dict(state)


def _back_to_base(network, base, share, new, targets, held, device) -> float:
    """Move weights back towards the base's as far as the annotation allows; return its share."""
    score, cost = dice_annotated, BLEND_COST_LEARNT
    if held:
        one = len({target.name for target in targets}) == 1
        score, cost = dice_held_out, BLEND_COST_ONE if one else BLEND_COST
    return _blend(network, base, share, new, lambda one: score(one, targets, device), cost)


@torch.no_grad()
def _blend(tuned: UNet, base: dict, share: float, new: np.ndarray, score, cost: float) -> float:
    """Move weights back towards the base's, as far as that does not cost much (in place).

    The mean of both is better at what the annotated slices do not show, as other tomograms differ
    from them (Wortsman et al., CVPR 2022). Annotation that contradicts the base, as of one kind of
    object alone, needs more of what was learnt, and so do tomograms unlike those that the base has
    seen. `new` tells which heads the base lacks; of a network's `score` the mean may have `cost`
    less than the best one. Returns the share of the base's weights.
    """
    learnt = copy.deepcopy(tuned.state_dict())

    def mix(part: float) -> None:
        tuned.load_state_dict(learnt)
        for name, value in tuned.state_dict().items():
            if value.dtype.is_floating_point:
                value.lerp_(base[name].to(value), part * share)
        tuned.head.weight[new] = learnt["head.weight"][new]
        tuned.head.bias[new] = learnt["head.bias"][new]

    found = {}
    for part in BLENDS:
        mix(part)
        found[part] = score(tuned)
    part = max(part for part in BLENDS if found[part] >= max(found.values()) - cost)
    mix(part)
    return part * share


def _expect(network: UNet, targets: list[TargetSlice], known: np.ndarray) -> None:
    """Keep what the base says of the heads it knows, where the annotation does not (in place).

    Bilayers are rarely annotated, and binary annotation does not tell whether touching objects are
    one. What such heads read changes as the others learn: without a target they would only get
    worse (learning without forgetting, Li and Hoiem, TPAMI 2018).
    """
    network.eval()
    for t in targets:
        if t.untold().any():
            logits = logits_of_slice(network, t.image, torch.device("cpu"))
            t.expected = expit(logits)
            t.expected[~known] = np.nan


def _empty(network: UNet, pairs, targets, voxel_size: float, known: np.ndarray):
    """Return slices of the tomograms in which the base, as the network is, sees little."""
    cpu = torch.device("cpu")
    network.eval()
    found = []
    for pair in pairs:
        mine = [t for t in targets if t.name == pair.name]
        found += empty_slices(
            pair, mine, voxel_size, lambda image: logits_of_slice(network, image, cpu)
        )
    for t in found:
        t.expected[~known] = np.nan
    return found
