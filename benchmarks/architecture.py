"""Compare networks for the base segmenter: 2D, 2.5D and 3D U-Nets on the same tomograms.

``python benchmarks/architecture.py --cache CACHE --train 60 --test 10 --steps 1500``

Each sees the same simulated tomograms for the same number of steps of about as many voxels; the
figures are Dice at 0.5 on tomograms that none was trained on, and seconds on this machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

from tomocensus.models import Model
from tomocensus.segment import TrainSettings, predict, train
from tomocensus.segment.optimisation import masked_loss
from tomocensus.segment.pretrain import BACKGROUND, contacts_in_z, simulated_pair
from tomocensus.segment.targets import outline
from tomocensus.simulate.training import stored_tomogram
from tomocensus.volume import Volume

SLICES = {
    "2D": dict(slices=1, width=24, depth=4),
    "2.5D, 5 slices": dict(slices=5, width=24, depth=4),
    "2.5D, 9 slices": dict(slices=9, width=24, depth=4),
    "2.5D, 9 slices, 5 levels": dict(slices=9, width=24, depth=5),
}
HEADS = ("probability", "boundary", "membrane")
SIDE = (32, 96, 96)


def truth_of(seed: int, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the density (protein dark, normalised) and truth ``(heads, nz, ny, nx)``."""
    made = stored_tomogram(seed, cache)
    labels = np.asarray(made.instances.data)
    sort = np.array([made.classes.get(n, "") for n in range(labels.max() + 1)])
    labels = np.where(np.isin(sort, BACKGROUND)[labels], 0, labels)
    edge = np.stack([outline(plane) for plane in labels]) | contacts_in_z(labels)
    data = np.asarray(made.tomogram.data, np.float32)
    data = (data - np.median(data)) / data.std() * (1 if made.polarity == "dark" else -1)
    return np.clip(data, -6, 6), np.stack([labels > 0, edge, made.membrane]).astype(np.float32)


class Block3D(torch.nn.Sequential):
    """Two 3x3x3 convolutions with batch normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int):
        layers: list[torch.nn.Module] = []
        for before in (inputs, outputs):
            layers += [
                torch.nn.Conv3d(before, outputs, 3, padding=1, bias=False),
                torch.nn.BatchNorm3d(outputs),
                torch.nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class UNet3D(torch.nn.Module):
    """The same U-Net in 3D."""

    def __init__(self, width: int = 12, depth: int = 4):
        super().__init__()
        sizes = [width * 2**level for level in range(depth)]
        self.down = torch.nn.ModuleList(
            Block3D(a, b) for a, b in zip([1, *sizes[:-1]], sizes, strict=True)
        )
        self.up = torch.nn.ModuleList(
            torch.nn.ConvTranspose3d(sizes[k + 1], sizes[k], 2, stride=2) for k in range(depth - 1)
        )
        self.join = torch.nn.ModuleList(Block3D(2 * sizes[k], sizes[k]) for k in range(depth - 1))
        self.head = torch.nn.Conv3d(width, len(HEADS), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, 1, z, y, x)`` to logits ``(batch, heads, z, y, x)``."""
        passed = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else torch.nn.functional.max_pool3d(x, 2))
            passed.append(x)
        for level in reversed(range(len(self.up))):
            x = self.join[level](torch.cat([passed[level], self.up[level](x)], dim=1))
        return self.head(x)


def train_3d(seeds: range, cache: Path, steps: int) -> UNet3D:
    """Train the 3D network on random boxes, turned and mirrored."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    known = [truth_of(seed, cache) for seed in seeds]
    network = UNet3D()
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, steps)
    for _ in range(steps):
        data, truth = known[rng.integers(len(known))]
        start = [rng.integers(0, n - m + 1) for n, m in zip(data.shape, SIDE, strict=True)]
        box = tuple(slice(s, s + m) for s, m in zip(start, SIDE, strict=True))
        turn, flips = int(rng.integers(4)), [a for a in (-3, -2, -1) if rng.random() < 0.5]
        image, target = (
            np.flip(np.rot90(part, turn, (-2, -1)), flips).copy()
            for part in (data[box], truth[(slice(None), *box)])
        )
        image = image * np.exp(rng.uniform(-0.3, 0.3)) + rng.uniform(-0.3, 0.3)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(torch.from_numpy(image.astype(np.float32))[None, None])
        loss = masked_loss(logits.flatten(2, 3), torch.from_numpy(target)[None].flatten(2, 3))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
    return network.eval()


def dice(maps: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the Dice of each head at 0.5."""
    found, wanted = maps > 0.5, truth > 0.5
    axes = (1, 2, 3)
    return 2 * (found & wanted).sum(axes) / np.maximum(found.sum(axes) + wanted.sum(axes), 1)


def main() -> None:
    """Train each, print a row each."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cache", type=Path, required=True)
    options.add_argument("--train", type=int, default=60)
    options.add_argument("--test", type=int, default=10)
    options.add_argument("--steps", type=int, default=1500)
    options.add_argument("--only", default="")
    chosen = options.parse_args()
    seeds = range(chosen.train)
    tests = range(chosen.train, chosen.train + chosen.test)
    print("| network | object | boundary | membrane | training s | prediction s a tomogram |")
    print("|---|---|---|---|---|---|")
    for name, shape in {**SLICES, "3D": None}.items():
        if chosen.only and chosen.only != name:
            continue
        start = time.monotonic()
        if shape is None:
            network = train_3d(seeds, chosen.cache, chosen.steps)
        else:
            pairs = [simulated_pair(seed, chosen.cache) for seed in seeds]
            settings = TrainSettings(
                steps=chosen.steps, voxel_size=16.0, batch=8, hold_out=0, **shape
            )
            card, weights, _ = train(pairs, None, settings)
            model = Model({**card, "sha256": ""}, weights)
        trained, scores = time.monotonic() - start, []
        start = time.monotonic()
        for seed in tests:
            data, truth = truth_of(seed, chosen.cache)
            if shape is None:
                with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
                    maps = network(torch.from_numpy(data)[None, None]).float().sigmoid()[0].numpy()
            else:
                found = predict(Volume(data, 16.0), model, "dark")
                maps = np.stack([found[head] for head in HEADS]) / 100
            scores.append(dice(maps, truth))
        each = (time.monotonic() - start) / len(tests)
        cells = " | ".join(f"{value:.3f}" for value in np.mean(scores, axis=0))
        print(f"| {name} | {cells} | {trained:.0f} | {each:.1f} |", flush=True)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
