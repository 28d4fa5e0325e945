"""Pretrain the encoder and fit the default head on simulated objects: one command.

``python -m tomocensus.classify.pretrain --encoder models/base-encoder --head
models/base-classifier``
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import pandas as pd
from scipy import ndimage

from tomocensus.classify.embeddings import Embeddings, embed, views
from tomocensus.models import Model, load_model, save_model
from tomocensus.simulate import simulate_tomogram


def corrupt(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Erode or dilate a labelmap by a voxel, as imperfect segmentation does."""
    choice = rng.integers(3)
    if choice == 0:
        return labels
    if choice == 1:
        grown = ndimage.maximum_filter(labels, size=3)
        return np.where(labels > 0, labels, grown)
    inner = ndimage.minimum_filter(labels, size=3) == ndimage.maximum_filter(labels, size=3)
    return np.where(inner, labels, 0)


def collect(seeds: range, shape=(56, 160, 160)):
    """Simulate tomograms; return views ``(n, 2, s, s, s)`` and class names."""
    crops, names = [], []
    for seed in seeds:
        rng = np.random.default_rng(seed + 10_000)
        made = simulate_tomogram(
            seed,
            shape=shape,
            voxel_size=float(rng.uniform(12, 28)),
            snr=float(np.exp(rng.uniform(np.log(0.1), 0.3))),
        )
        labels = corrupt(np.asarray(made.instances.data), rng)
        for number, crop, _ in views(made.tomogram, labels, made.polarity):
            crops.append(crop)
            names.append(made.classes[number])
        print(f"simulated {seed}: {len(names)} objects", file=sys.stderr, flush=True)
    return np.stack(crops), np.array(names)


def train(crops, names, steps: int, seed: int, width: int = 16, dimensions: int = 32):
    """Train with a supervised contrastive loss (Khosla et al. 2020); return the weights.

    Parameters
    ----------
    crops : numpy.ndarray
        ``(n, 2, s, s, s)``.
    names : numpy.ndarray
        Class of each.
    steps, seed, width, dimensions : int
        Optimiser's steps, seed, and size of the network.
    """
    import torch

    from tomocensus.classify.encoder import Encoder

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = Encoder(width, dimensions)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    kinds = sorted(set(names))
    members = [np.nonzero(names == kind)[0] for kind in kinds]
    members = [member for member in members if len(member) > 1]
    for step in range(steps):
        chosen = np.concatenate([rng.choice(member, 8) for member in members])
        target = torch.from_numpy(np.repeat(np.arange(len(members)), 8))
        vectors = network(torch.from_numpy(augment(crops[chosen], rng)))
        loss = contrastive(vectors, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.3f}", file=sys.stderr, flush=True)
    return {name: value.numpy() for name, value in network.state_dict().items()}


def augment(crops: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Flip, turn about Z, scale contrast and add noise, each view on its own."""
    out = np.empty_like(crops)
    for index, crop in enumerate(crops):
        crop = np.rot90(crop, rng.integers(4), axes=(2, 3))
        for axis in (1, 2, 3):
            if rng.random() < 0.5:
                crop = np.flip(crop, axis)
        out[index] = crop
        out[index, 0] *= rng.uniform(0.7, 1.4)
        out[index, 0] += rng.normal(scale=rng.uniform(0, 0.5), size=crop.shape[1:])
    return out


def contrastive(vectors, target, temperature: float = 0.1):
    """Return the supervised contrastive loss of unit vectors ``(n, d)``."""
    import torch

    likeness = vectors @ vectors.T / temperature
    itself = torch.eye(len(vectors), dtype=torch.bool)
    likeness = likeness.masked_fill(itself, -1e9)
    chances = likeness - likeness.logsumexp(dim=1, keepdim=True)
    same = (target[:, None] == target[None]) & ~itself
    return -(chances * same).sum(dim=1).div(same.sum(dim=1)).mean()


def embed_simulated(seeds: range, encoder: Model) -> tuple[dict[str, Embeddings], pd.DataFrame]:
    """Embed the true instances of simulated tomograms and name them."""
    found, rows = {}, []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        made = simulate_tomogram(
            seed,
            shape=(56, 160, 160),
            voxel_size=float(rng.uniform(14, 26)),
            snr=float(rng.uniform(0.15, 1)),
        )
        name = f"simulated-{seed}"
        found[name] = embed(
            made.tomogram, np.asarray(made.instances.data), encoder, made.polarity, device="cpu"
        )
        rows += [(name, number, kind) for number, kind in made.classes.items()]
    return found, pd.DataFrame(rows, columns=["tomogram", "instance", "class"])


def main() -> None:
    """Train, fit, measure on tomograms that neither has seen, and write both models."""
    from tomocensus.classify.head import apply_head, fit_head

    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--encoder", required=True)
    options.add_argument("--head", required=True)
    options.add_argument("--tomograms", type=int, default=24)
    options.add_argument("--steps", type=int, default=400)
    options.add_argument("--seed", type=int, default=0)
    arguments = options.parse_args()
    first = 1000 * arguments.seed
    crops, names = collect(range(first, first + arguments.tomograms))
    weights = train(crops, names, arguments.steps, arguments.seed)
    card = {
        "kind": "encoder",
        "architecture": "3D CNN, 4 convolutions",
        "width": 16,
        "dimensions": 32,
        "training": {"simulated_tomograms": arguments.tomograms, "objects": len(names)},
        "recipe": f"tomocensus.classify.pretrain --tomograms {arguments.tomograms} --steps "
        f"{arguments.steps} --seed {arguments.seed} (CPU)",
        "classes": sorted({str(name) for name in names}),
    }
    save_model(arguments.encoder, card, weights)
    encoder = load_model(arguments.encoder, "encoder")
    known, named = embed_simulated(range(first + 500, first + 506), encoder)
    head_card, head_weights = fit_head(known, named, arguments.seed)
    unseen, truth = embed_simulated(range(first + 800, first + 804), encoder)
    head = Model({**head_card, "sha256": ""}, head_weights)
    guesses = pd.concat(
        [apply_head(head, part, 0).assign(tomogram=name) for name, part in unseen.items()]
    )
    joined = truth.merge(guesses, on=["tomogram", "instance"], suffixes=("_true", ""))
    accuracy = float((joined["class_true"] == joined["class"]).mean())
    head_card["validation"] = {"accuracy": accuracy, "objects": len(joined)}
    save_model(arguments.head, head_card, head_weights)
    print(f"accuracy on {len(joined)} unseen simulated objects: {accuracy:.3f}")


if __name__ == "__main__":
    main()
