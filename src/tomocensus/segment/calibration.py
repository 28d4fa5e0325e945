"""What a network says of held-out annotation: scores, and maps whose 0.5 means one in two."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import expit

from tomocensus.devices import has_bfloat16
from tomocensus.segment.network import UNet
from tomocensus.segment.targets import IGNORE, TargetSlice

# Annotated slices are fuller than most: of a base's logits they shall not shift more than this.
BASE_OFFSET, FREE_OFFSET = 0.3, 1.5
# Where cross-entropy and calibration alone leave the map below 0.5.
THIN = "membrane"


def logits_held_out(network, targets, device) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and targets ``(voxels, heads)`` of what is held out."""
    return logits_where(network, targets, [t.held_out for t in targets], device)


def logits_where(network, targets, wanted, device) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and targets ``(voxels, heads)`` of the voxels wanted of each slice."""
    logits, truth = [], []
    network.eval()
    for t, here in zip(targets, wanted, strict=True):
        if here.any():
            logits.append(logits_of_slice(network, t.image, device)[:, here].T)
            truth.append(t.target[:, here].T)
    return np.concatenate(logits), np.concatenate(truth)


def dice_annotated(network, targets, device) -> float:
    """Return the Dice of ``probability`` over all that is annotated."""
    wanted = [t.target[0] != IGNORE for t in targets]
    logits, truth = logits_where(network, targets, wanted, device)
    return _dice(logits[:, 0] > 0, truth[:, 0] == 1)


@torch.inference_mode()
def logits_of_slice(network: UNet, image: np.ndarray, device) -> np.ndarray:
    """Return the logits ``(heads, ny, nx)`` of a slab ``(slices, ny, nx)``."""
    step = 2 ** (len(network.down) - 1)
    ny, nx = image.shape[1:]
    pads = [(0, 0), (step, step + -ny % step), (step, step + -nx % step)]
    tensor = torch.from_numpy(np.pad(image, pads, mode="symmetric"))[None].to(device).float()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_bfloat16(device)):
        out = network(tensor.contiguous(memory_format=torch.channels_last))
    return out.float()[0, :, step : step + ny, step : step + nx].cpu().numpy()


def dice_held_out(network, targets, device) -> float:
    """Return the Dice of ``probability`` over what is held out."""
    logits, truth = logits_held_out(network, targets, device)
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
    logits, truth = logits_held_out(network, targets, device)
    more = [logits_held_out(network, [t], device) for t in others if t.held_out.any()]
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


def dice_by_group(network, targets, device) -> dict[str, dict]:
    """Return Dice and number of held-out voxels by imaging condition, where there are several."""
    found = {}
    for group in sorted({t.group for t in targets}):
        mine = [t for t in targets if t.group == group and t.held_out.any()]
        if mine:
            logits, truth = logits_held_out(network, mine, device)
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
