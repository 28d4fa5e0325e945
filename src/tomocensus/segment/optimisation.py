"""Loss over what is annotated, and the optimiser."""

from __future__ import annotations

import copy
import math

import torch
from torch.nn import functional

from tomocensus.devices import has_bfloat16
from tomocensus.progress import paced, progress
from tomocensus.segment.network import UNet
from tomocensus.segment.settings import TrainSettings
from tomocensus.segment.targets import IGNORE

# Weight of the old in the running average of the weights; of thousands of steps, the second.
EMA_DECAY, EMA_DECAY_LONG = 0.98, 0.999
PATIENCE = 5
# Of the Dice loss. Bilayers are so thin that cross-entropy alone leaves their map below 0.5.
DICE_WEIGHT, THIN_DICE_WEIGHT = 0.5, 2.0


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
