"""Training on sparse annotation."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from scipy.special import expit
from torch.nn import functional

from tomocensus.devices import choose_device, has_bfloat16, to_device
from tomocensus.errors import InputError
from tomocensus.models import Model
from tomocensus.progress import paced, progress
from tomocensus.segment.contrast import mirrored
from tomocensus.segment.emptiness import empty_slices
from tomocensus.segment.network import (
    UNet,
    build,
    from_card,
    working_voxel_size,
)
from tomocensus.segment.settings import AnnotatedVolume, TrainSettings
from tomocensus.segment.targets import (
    IGNORE,
    TargetSlice,
    check,
    hold_out,
    hold_out_blocks,
    make_targets,
)

# Weight of the old in the running average of the weights; of thousands of steps, the second.
EMA_DECAY, EMA_DECAY_LONG = 0.98, 0.999
PATIENCE = 5
# Dice that going back towards the base may cost: on held-out annotation of several tomograms, of
# one, which says less of others, or, where none is held out, on what was learnt from. How far back
# is tried, as parts of `base_share`.
BLEND_COST, BLEND_COST_ONE, BLEND_COST_LEARNT = 0.02, 0.1, 0.15
BLENDS = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
# Annotated slices are fuller than most: of a base's logits they shall not shift more than this.
BASE_OFFSET, FREE_OFFSET = 0.3, 1.5
# Of the Dice loss. Bilayers are so thin that cross-entropy alone leaves their map below 0.5.
DICE_WEIGHT, THIN_DICE_WEIGHT = 0.5, 2.0
THIN = "membrane"
# Steps between target 0 and 1.
FINE = 250
# Largest change of scale, natural logarithm.
ZOOM = 0.15
FROM_SCRATCH, FROM_BASE = 2e-3, 7e-4


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
    heads, architecture = card["heads"], card["architecture"]
    targets = []
    for pair in pairs:
        targets += make_targets(
            pair, card["voxel_size"], architecture["slices"], heads, inside=base is None
        )
    _require_both(targets, pairs)
    held = hold_out(targets, settings.hold_out, generator)

    device = choose_device(settings.device)
    network = build(architecture, len(heads))
    empty: list[TargetSlice] = []
    if base is None:
        _start_head(network, targets)
    else:
        known = np.isin(heads, base.card["heads"])
        _adopt(network, base, heads)
        _expect(network, targets, known)
        if settings.base_share > 0:
            empty = _empty(network, pairs, targets, card["voxel_size"], known)
            card["recipe"]["empty_slices"] = len(empty)
    card["warnings"] = check(targets + empty)
    if held:
        hold_out_blocks(empty, settings.hold_out, generator)
    begun = copy.deepcopy(network.state_dict())
    network = network.to(device, memory_format=torch.channels_last)
    rate = card["recipe"]["learning_rate"]
    weight = torch.full([len(heads)], DICE_WEIGHT)
    if any(pair.membrane is not None for pair in pairs):
        weight[heads.index(THIN)] = THIN_DICE_WEIGHT
    patches = Patches(targets + empty, settings.patch, generator, device)
    averaged, history = optimise(
        network,
        patches,
        settings,
        rate,
        weight,
        device,
        (lambda one: _dice_held_out(one, targets, device)) if held else None,
        frozen_statistics=base is not None and settings.base_share > 0,
    )
    if base is not None:
        card["recipe"]["base_share"] = settings.base_share
    if base is not None and settings.base_share > 0:
        score, cost = _dice_annotated, BLEND_COST_LEARNT
        if held:
            score = _dice_held_out
            cost = BLEND_COST if len({t.name for t in targets}) > 1 else BLEND_COST_ONE
        card["recipe"]["base_share"] = _blend(
            averaged,
            begun,
            settings.base_share,
            ~known,
            lambda one: score(one, targets, device),
            cost,
        )
    if held:
        card["metrics"], calibration = calibrate(
            averaged,
            targets,
            heads,
            device,
            others=empty,
            limit=FREE_OFFSET if base is None else BASE_OFFSET,
        )
        card["calibration"] = calibration
        card["groups"] = _by_group(averaged, targets, device)
        final = card["metrics"]["held_out_dice"]
        if final < 0.5:
            card["warnings"].append(
                f"Dice on held-out annotation is only {final:.2f}: the annotation may contradict "
                "itself, or be too little"
            )
    else:
        card["warnings"].append(
            "too little annotation to hold some out: the model is not validated nor calibrated"
        )
    card["history"] = history
    card["recipe"]["steps_done"] = history[-1]["step"]
    weights = {
        name: value.detach().cpu().numpy().copy() for name, value in averaged.state_dict().items()
    }
    return card, weights, history


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
            logits = _logits_of_slice(network, t.image, torch.device("cpu"))
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
            pair, mine, voxel_size, lambda image: _logits_of_slice(network, image, cpu)
        )
    for t in found:
        t.expected[~known] = np.nan
    return found


# --- patches -------------------------------------------------------------------------------------


class Patches:
    """Random augmented patches; half are centred on an object, half anywhere annotated.

    Slices lie on the device where patches are used: a GPU draws them as fast as it learns.
    """

    def __init__(
        self,
        targets: list[TargetSlice],
        patch: int,
        generator: np.random.Generator,
        device: torch.device | str = "cpu",
    ):
        self.generator = generator
        self.patch = patch
        self.device = torch.device(device)
        self.noise = torch.Generator(self.device)
        self.noise.manual_seed(int(generator.integers(2**31)))
        # Voxels of objects and voxels that are annotated, as pairs of slice and places.
        self.objects: list[tuple[int, np.ndarray]] = []
        self.known: list[tuple[int, np.ndarray]] = []
        self.images: list[torch.Tensor] = []
        self.targets: list[torch.Tensor] = []
        self.add(targets)

    def add(self, targets: list[TargetSlice]) -> None:
        """Take more slices."""
        half = self.device.type == "cuda"
        for one in targets:
            shifted = self._shifted(one)
            for places, here in ((self.objects, shifted[0] > FINE), (self.known, shifted[0] > 0)):
                found = np.argwhere(here).astype(np.int16)
                if len(found):
                    places.append((len(self.images), found))
            image = to_device(np.ascontiguousarray(one.image), self.device)
            self.images.append(image.half() if half else image)
            self.targets.append(to_device(shifted, self.device))

    @staticmethod
    def _shifted(one: TargetSlice) -> np.ndarray:
        """Return targets and weights ``(heads + 1, ny, nx)``.

        Targets of 0-1 are 1 to 1 + FINE; 0, which sampling puts outside, is unknown.
        """
        target = one.training_target()
        shifted = np.where(target == IGNORE, 0, np.uint8(FINE) * (target == 1) + np.uint8(1))
        if one.expected is not None:
            fill = one.untold() & ~one.held_out & np.isfinite(one.expected)
            shifted[fill] = 1 + np.rint(FINE * one.expected[fill])
        weight = np.ones_like(shifted[0]) if one.weight is None else one.weight
        return np.concatenate([shifted, weight[None]])

    def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return images ``(size, slices, y, x)``, targets ``(size, heads, ...)`` and weights."""
        image, target = self._windows(size)
        grid = self._grids(size)
        image = functional.grid_sample(image.float(), grid, align_corners=False)
        target = functional.grid_sample(target.float(), grid, mode="nearest", align_corners=False)
        flipped = self._each(self.generator.random(size) < 0.5)
        image = torch.where(flipped, image.flip(1), image)
        target, weight = target[:, :-1], target[:, -1:]
        target = torch.where(target > 0, (target - 1) / FINE, torch.full_like(target, IGNORE))
        return self._contrast(image), target, weight

    def _each(self, values: np.ndarray) -> torch.Tensor:
        """Return a value for each patch on the device, ``(size, 1, 1, 1)``."""
        values = values if values.dtype == bool else values.astype(np.float32)
        return to_device(values, self.device)[:, None, None, None]

    def _windows(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images and targets of squares that hold a patch however it is turned.

        Beyond its border a slice is mirrored, and nothing is known. Half are centred on objects.
        """
        chosen, taken, inside = zip(
            *(self._window(number % 2 == 0) for number in range(size)), strict=True
        )
        # One copy for all: each would wait until a GPU has done what it was asked before.
        taken = to_device(np.array(taken), self.device)
        inside = to_device(np.array(inside), self.device)
        image, target = (
            torch.stack(
                [
                    kept[index].index_select(1, y).index_select(2, x)
                    for index, (y, x) in zip(chosen, taken, strict=True)
                ]
            )
            for kept in (self.images, self.targets)
        )
        within = inside[:, 0, :, None] & inside[:, 1, None, :]
        return image, target * within[:, None]

    def _window(self, on_object: bool) -> tuple[int, list[np.ndarray], list[np.ndarray]]:
        """Return a slice, and which of its rows and columns a window takes, and which are there."""
        places = self.objects if on_object else self.known
        index, found = places[self.generator.integers(len(places))]
        centre = found[self.generator.integers(len(found))]
        centre = centre + self.generator.uniform(-0.3, 0.3, 2) * self.patch
        side = self._side()
        start = np.rint(centre - (side - 1) / 2).astype(int)
        taken, inside = [], []
        for first, length in zip(start, self.images[index].shape[1:], strict=True):
            at = np.arange(first, first + side)
            inside.append((at >= 0) & (at < length))
            taken.append(mirrored(at, length))
        return index, taken, inside

    def _side(self) -> int:
        """Return the voxels of a side of the windows."""
        return math.ceil(self.patch * math.exp(ZOOM) * math.sqrt(2)) + 2

    def _grids(self, size: int) -> torch.Tensor:
        """Return sampling places of rotated, mirrored, slightly scaled squares in the windows."""
        draw = self.generator
        angle = draw.uniform(0, 2 * math.pi, size)
        zoom = np.exp(draw.uniform(-ZOOM, ZOOM, size))
        mirror = np.where(draw.random(size) < 0.5, 1, -1)
        turn = np.stack(
            [
                zoom * mirror * np.cos(angle),
                -zoom * np.sin(angle),
                zoom * mirror * np.sin(angle),
                zoom * np.cos(angle),
            ],
            axis=1,
        )
        turn = to_device(turn.astype(np.float32).reshape(size, 2, 2), self.device)
        steps = torch.arange(self.patch, dtype=torch.float32, device=self.device)
        steps = (steps - (self.patch - 1) / 2) * 2 / self._side()
        v, u = torch.meshgrid(steps, steps, indexing="ij")
        return torch.einsum("bij,yxj->byxi", turn, torch.stack([u, v], dim=-1))

    def _contrast(self, image: torch.Tensor) -> torch.Tensor:
        """Change what differs between tomograms: contrast, brightness, noise, sharpness."""
        draw, size = self.generator, len(image)
        blurred = draw.random(size) < 0.2
        if blurred.any():
            image = torch.where(self._each(blurred), _blurred(image), image)
        gamma = self._each(np.exp(draw.uniform(-0.2, 0.2, size)))
        image = image.sign() * image.abs().clamp_min(1e-6) ** gamma
        image = image * self._each(np.exp(draw.uniform(-0.3, 0.3, size)))
        image = image + self._each(draw.uniform(-0.3, 0.3, size))
        amount = np.where(draw.random(size) < 0.5, draw.uniform(0, 0.5, size), 0)
        noise = torch.randn(image.shape, generator=self.noise, device=self.device)
        return image + noise * self._each(amount)


def _blurred(image: torch.Tensor) -> torch.Tensor:
    """Smooth each slice a little: a quarter, a half, a quarter, along both axes."""
    for axis in (2, 3):
        padded = functional.pad(image, (0, 0, 1, 1) if axis == 2 else (1, 1))
        below, above = (padded.narrow(axis, first, image.shape[axis]) for first in (0, 2))
        image = image / 2 + (below + above) / 4
    return image


# --- loss and optimisation -----------------------------------------------------------------------


def masked_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    dice_weight: torch.Tensor | float = DICE_WEIGHT,
    weight: torch.Tensor | float = 1.0,
) -> torch.Tensor:
    """Return cross-entropy plus soft Dice loss over annotated voxels, averaged over heads.

    Parameters
    ----------
    logits : torch.Tensor
        ``(batch, heads, y, x)``.
    target : torch.Tensor
        Same shape: 0 to 1, or 255. Voxels of 255 have no part and no gradient.
    dice_weight : torch.Tensor or float
        ``(heads,)``: of the Dice loss; the cross-entropy has 1.
    weight : torch.Tensor or float
        ``(batch, 1, y, x)``: how much each voxel counts.
    """
    logits = logits.float()
    known = (target != IGNORE).float() * weight
    truth = torch.where(target == IGNORE, torch.zeros_like(target), target).float()
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none") * known
    axes = (0, 2, 3)
    count = known.sum(axes)
    cross = entropy.sum(axes) / count.clamp_min(1)
    probability = torch.sigmoid(logits) * known
    overlap = 2 * (probability * truth).sum(axes) + 1
    dice = 1 - overlap / (probability.sum(axes) + (truth * known).sum(axes) + 1)
    seen = (count > 0).float()
    return ((cross + dice_weight * dice) * seen).sum() / seen.sum().clamp_min(1)


def optimise(
    network,
    patches,
    settings,
    highest,
    dice_weight,
    device,
    validate=None,
    more=None,
    frozen_statistics=False,
):
    """Run the optimiser; return the averaged network of the best validation, and the history.

    Parameters
    ----------
    network : UNet
        Trained in place.
    patches : Patches
        What to learn from.
    settings : TrainSettings
        How long, and how many patches a step.
    highest : float
        Learning rate.
    dice_weight : torch.Tensor
        See :func:`masked_loss`.
    device : torch.device
        Where the network is.
    validate : callable, optional
        Score of a network; the best is kept, and training ends where it no longer rises.
    more : callable, optional
        Returns further slices (or none) each time it is called.
    frozen_statistics : bool
        Normalise by the running statistics that the network has: those of a few patches of a few
        slices say less than those of thousands of tomograms.
    """
    averaged = copy.deepcopy(network).eval()
    best, best_state, stale = -1.0, None, 0
    fused = device.type == "cuda"
    optimiser = torch.optim.AdamW(network.parameters(), highest, weight_decay=1e-3, fused=fused)
    dice_weight = dice_weight.to(device)
    decay = EMA_DECAY if settings.minutes is None else EMA_DECAY_LONG
    half = has_bfloat16(device)
    history, losses, parts = [], [], 12
    steps = paced(settings.steps, settings.minutes)
    if settings.minutes is None:
        steps = progress(steps, "training", settings.steps)
    for step, part in steps:
        for group in optimiser.param_groups:
            group["lr"] = highest * _schedule(step, settings, part)
        if more is not None:
            patches.add(more())
        image, target, counts = patches.batch(settings.batch)
        image = image.to(device).contiguous(memory_format=torch.channels_last)
        network.train()
        if frozen_statistics:
            for module in network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            logits = network(image)
        loss = masked_loss(logits, target, dice_weight, counts)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        _average(averaged, network, min(decay, (1 + step) / (10 + step)))
        losses.append(loss.detach())
        if part < min(1.0, (len(history) + 1) / parts):
            continue
        score = None if validate is None else validate(averaged)
        loss = float(torch.stack(losses).mean())
        history.append({"step": step, "loss": loss, "validation": score})
        losses = []
        if score is None or part < 0.4:
            continue  # so early, the held-out Dice may be high by luck while the loss still falls
        if score > best + 1e-4:
            best, best_state, stale = score, copy.deepcopy(averaged.state_dict()), 0
        else:
            stale += 1
            if stale >= PATIENCE:
                break
    if best_state is not None:
        averaged.load_state_dict(best_state)
    return averaged, history


def _schedule(step: int, settings: TrainSettings, part: float) -> float:
    """Return a linear rise, then half a cosine down to 1 %."""
    warm = min(20, max(1, settings.steps // 10)) if settings.minutes is None else 200
    if step < warm:
        return step / warm
    if settings.minutes is None:
        part = (step - warm) / max(1, settings.steps - warm)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * part))


@torch.no_grad()
def _average(averaged: UNet, network: UNet, decay: float) -> None:
    """Move the running average of weights and of batch statistics towards the network."""
    old, new = list(averaged.state_dict().values()), list(network.state_dict().values())
    floating = [value.dtype.is_floating_point for value in old]
    torch._foreach_lerp_(
        [value for value, yes in zip(old, floating, strict=True) if yes],
        [value for value, yes in zip(new, floating, strict=True) if yes],
        1 - decay,
    )


def _logits_held_out(network, targets, device) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and targets ``(voxels, heads)`` of what is held out."""
    return _logits_where(network, targets, [t.held_out for t in targets], device)


def _logits_where(network, targets, wanted, device) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and targets ``(voxels, heads)`` of the voxels wanted of each slice."""
    logits, truth = [], []
    network.eval()
    for t, here in zip(targets, wanted, strict=True):
        if here.any():
            logits.append(_logits_of_slice(network, t.image, device)[:, here].T)
            truth.append(t.target[:, here].T)
    return np.concatenate(logits), np.concatenate(truth)


def _dice_annotated(network, targets, device) -> float:
    """Return the Dice of ``probability`` over all that is annotated."""
    wanted = [t.target[0] != IGNORE for t in targets]
    logits, truth = _logits_where(network, targets, wanted, device)
    return _dice(logits[:, 0] > 0, truth[:, 0] == 1)


@torch.inference_mode()
def _logits_of_slice(network: UNet, image: np.ndarray, device) -> np.ndarray:
    """Return the logits ``(heads, ny, nx)`` of a slab ``(slices, ny, nx)``."""
    step = 2 ** (len(network.down) - 1)
    ny, nx = image.shape[1:]
    pads = [(0, 0), (step, step + -ny % step), (step, step + -nx % step)]
    tensor = torch.from_numpy(np.pad(image, pads, mode="symmetric"))[None].to(device).float()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_bfloat16(device)):
        out = network(tensor.contiguous(memory_format=torch.channels_last))
    return out.float()[0, :, step : step + ny, step : step + nx].cpu().numpy()


def _dice_held_out(network, targets, device) -> float:
    logits, truth = _logits_held_out(network, targets, device)
    known = truth[:, 0] != IGNORE
    return _dice(logits[known, 0] > 0, truth[known, 0] == 1)


def _dice(one: np.ndarray, two: np.ndarray) -> float:
    return float(2 * (one & two).sum() / max(1, one.sum() + two.sum()))


def calibrate(
    network,
    targets,
    heads,
    device,
    trust: float = 1.0,
    others: list[TargetSlice] = (),
    limit: float = FREE_OFFSET,
) -> tuple[dict, dict]:
    """Fit slope and offset of each head's logit on held-out voxels and fold them into the head.

    Of `others` held-out voxels count for slope and offset, and for no metric. With a `trust` below
    1 only that part of the correction (of logarithm of slope, and of offset) is made: where what is
    held out differs from what will be predicted. `limit`: of the offset of what is not thin.
    Returns the metrics after calibration, and ``{head: [slope, offset]}``.
    """
    logits, truth = _logits_held_out(network, targets, device)
    more = [_logits_held_out(network, [t], device) for t in others if t.held_out.any()]
    metrics, fitted = {}, {}
    for index, head in enumerate(heads):
        known = truth[:, index] != IGNORE
        x, y = logits[known, index], truth[known, index] == 1
        slope, offset = (1.0, 0.0)
        if y.any() and not y.all():
            to_fit = [(x, y)]
            for their_logits, theirs in more:
                told = theirs[:, index] != IGNORE
                to_fit.append((their_logits[told, index], theirs[told, index] == 1))
            pair = tuple(map(np.concatenate, zip(*to_fit, strict=True)))
            slope, offset = (1.0, best_offset(*pair)) if head == THIN else platt(*pair, limit)
        slope, offset = slope**trust, offset * trust
        with torch.no_grad():
            network.head.weight[index] *= slope
            network.head.bias[index] = network.head.bias[index] * slope + offset
        x = x * slope + offset
        fitted[head] = [slope, offset]
        metrics[f"held_out_{head}_dice"] = _dice(x > 0, y)
        metrics[f"held_out_{head}_calibration_error"] = calibration_error(expit(x), y)
        metrics[f"held_out_{head}_voxels"] = int(known.sum())
    metrics["held_out_dice"] = metrics["held_out_probability_dice"]
    return metrics, fitted


def _by_group(network, targets, device) -> dict[str, dict]:
    """Return Dice and number of held-out voxels by imaging condition, where there are several."""
    found = {}
    for group in sorted({t.group for t in targets}):
        mine = [t for t in targets if t.group == group and t.held_out.any()]
        if mine:
            logits, truth = _logits_held_out(network, mine, device)
            known = truth[:, 0] != IGNORE
            found[group or "no group"] = {
                "held_out_dice": _dice(logits[known, 0] > 0, truth[known, 0] == 1),
                "held_out_voxels": int(known.sum()),
            }
    return found if len(found) > 1 else {}


def platt(logits: np.ndarray, truth: np.ndarray, limit: float = FREE_OFFSET) -> tuple[float, float]:
    """Fit ``sigmoid(slope * logit + offset)`` to truth by Newton's method.

    The slope stays within 0.3-2 and the offset within ±`limit`: few held-out voxels shall not bend
    the map much. A weak pull towards (1, 0) keeps separable data finite.
    """
    x, y = logits.astype(np.float64), truth.astype(np.float64)
    theta = np.array([1.0, 0.0])
    design = np.stack([x, np.ones_like(x)], axis=1)
    pull = 1e-3
    for _ in range(25):
        p = 1 / (1 + np.exp(-np.clip(design @ theta, -30, 30)))
        gradient = design.T @ (p - y) / len(x) + pull * (theta - [1.0, 0.0])
        hessian = (design * (p * (1 - p))[:, None]).T @ design / len(x) + pull * np.eye(2)
        change = np.linalg.solve(hessian, gradient)
        theta = theta - np.clip(change, -0.5, 0.5)
        if np.abs(change).max() < 1e-6:
            break
    return float(np.clip(theta[0], 0.3, 2.0)), float(np.clip(theta[1], -limit, limit))


def best_offset(logits: np.ndarray, truth: np.ndarray, limit: float = FREE_OFFSET) -> float:
    """Return what to add to logits so that a threshold of 0.5 gives the best Dice.

    Where few voxels are certain, as of a bilayer two voxels thick, a calibrated map hardly reaches
    0.5 anywhere and would be taken for empty.
    """
    offsets = sorted(np.linspace(-limit, limit, 31), key=abs)
    return float(max(offsets, key=lambda offset: _dice(logits + offset > 0, truth)))


def calibration_error(probability: np.ndarray, truth: np.ndarray, bins: int = 10) -> float:
    """Return the expected calibration error: mean gap of probability and frequency over bins."""
    which = np.minimum((probability * bins).astype(int), bins - 1)
    gap = 0.0
    for number in range(bins):
        here = which == number
        if here.any():
            gap += abs(probability[here].mean() - truth[here].mean()) * here.sum()
    return float(gap / max(1, len(truth)))
