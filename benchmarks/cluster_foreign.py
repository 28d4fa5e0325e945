"""Instances from the maps of a plain U-Net: this stage's defaults against others, tuned.

``python benchmarks/cluster_foreign.py --cache FOLDER --output table.md``

A user of another program annotates six slices (three of each of two tomograms) and trains a plain
2D U-Net from scratch for a few minutes; its map of a third tomogram is ragged, with specks and
bridges. Or he takes a general network that comes with the program: with ``--general TRAINING``, a
folder that ``python -m tomocensus.simulate.training`` filled, the same U-Net learns from all of it
for half an hour. Tomograms are those of ``other_simulator.py`` and of the project's own simulator
(conditions as in ``end_to_end.py``, other seeds). Components and watershed take the best of several
settings, found on the very map; this stage takes its defaults, with and without levels, and with
the outlines that the shipped segmenter sees in the tomogram (``cluster.predict_outlines``). Maps
are kept in the cache, so that ways to cluster are compared on the same maps.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import cc3d
import end_to_end
import numpy as np
import other_simulator
import pandas as pd
import torch
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed
from torch import nn
from torch.nn import functional

from tomocensus.atomic import write_text
from tomocensus.cluster import ClusterParameters, cluster
from tomocensus.evaluate import instance_scores, voxel_scores
from tomocensus.models import Model, load_model
from tomocensus.segment import predict
from tomocensus.simulate import simulate_tomogram
from tomocensus.simulate.training import in_cache, stored_tomogram
from tomocensus.volume import Volume

# Steps of training after which maps are made: a hasty one and one of some minutes.
STEPS = (200, 600)
PATCH, BATCH = 128, 2
# Of the network that learns from a folder of tomograms.
GENERAL_STEPS, GENERAL_BATCH = 8000, 4
# Clustered is this part of each slice.
SIDES = slice(40, 200)
# Neighbouring slices that the network sees together.
SLICES = 5
# Looked at while the stage was made, and not before its settings were fixed.
SEEN = ("CTF/1", "coloured noise/1", "CTF, noisy/1", "low-pass/1")
SEEN += tuple(f"own/{700_000 + n}" for n in (1, 2, 4, 5))
FRESH = ("CTF/0", "coloured noise/0", "bright, CTF/0", "own/900001", "own/900002")


@dataclass
class Field:
    """A tomogram, bright objects, and its instances (-1 where not scored)."""

    data: np.ndarray
    labels: np.ndarray
    voxel_size: float


class UNet(nn.Module):
    """A plain 2D U-Net with three levels, from a slice and its neighbours to a logit a pixel."""

    def __init__(self, slices: int, width: int = 16):
        super().__init__()
        sizes = [width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList(
            [self._block(a, b) for a, b in itertools.pairwise([slices, *sizes])]
        )
        self.up = nn.ModuleList([self._block(a + b, a) for a, b in itertools.pairwise(sizes)][::-1])
        self.last = nn.Conv2d(width, 1, 1)

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Sequential:
        layers = []
        for channels in (inputs, outputs):
            layers += [
                nn.Conv2d(channels, outputs, 3, padding=1),
                nn.InstanceNorm2d(outputs, affine=True),
            ]
            layers += [nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits ``(n, 1, y, x)`` of images whose sides are multiples of eight."""
        seen = []
        for block in self.down:
            x = block(functional.max_pool2d(x, 2) if seen else x)
            seen.append(x)
        for block, skip in zip(self.up, seen[-2::-1], strict=True):
            x = block(torch.cat([functional.interpolate(x, scale_factor=2), skip], dim=1))
        return self.last(x)


def _beside(data: np.ndarray, z: int) -> np.ndarray:
    """Return a slice between its neighbours, ``(SLICES, y, x)``."""
    around = np.arange(z - SLICES // 2, z + SLICES // 2 + 1)
    return data[np.clip(around, 0, len(data) - 1)]


def _crops(fields, rng, some: bool = True, count: int = BATCH):
    """Yield batches of images and labels, turned and mirrored, from three slices of each field.

    From all of its slices where not `some`.
    """
    slices = [
        (field, z)
        for field in fields
        for z in (
            np.linspace(0, len(field.labels), 5).astype(int)[1:4]
            if some
            else range(len(field.labels))
        )
    ]
    while True:
        batch = []
        for field, z in (slices[i] for i in rng.integers(len(slices), size=count)):
            y, x = (int(rng.integers(n - PATCH + 1)) for n in field.labels.shape[1:])
            here = (slice(None), slice(y, y + PATCH), slice(x, x + PATCH))
            pair = np.concatenate([_beside(field.data, z)[here], field.labels[z][None][here]])
            pair = np.rot90(pair, rng.integers(4), (1, 2))
            batch.append(pair[:, :, ::-1] if rng.random() < 0.5 else pair)
        both = torch.from_numpy(np.ascontiguousarray(batch).astype(np.float32))
        yield both[:, :-1], both[:, -1:]


def trained(batches, seed: int, steps: tuple[int, ...] = STEPS):
    """Train a network; yield it after each of `steps`."""
    torch.manual_seed(seed)
    network = UNet(SLICES)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=max(steps))
    for step in range(1, max(steps) + 1):
        image, labels = next(batches)
        network.train()
        known = labels >= 0
        loss = functional.binary_cross_entropy_with_logits(
            network(image)[known], (labels[known] > 0).float()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step in steps:
            yield step, network.eval()


def general_network(folder: Path, cache: Path) -> UNet:
    """Return the network that learns from a folder of training tomograms; kept in the cache."""
    kept, network = cache / "general.pt", UNet(SLICES)
    if not kept.exists():
        fields = []
        for seed in sorted(in_cache(folder)):
            made = stored_tomogram(seed, folder)
            fields.append(
                _field(made.tomogram.data, end_to_end.annotated(made), 0.0, made.polarity)
            )
        rng, start = np.random.default_rng(0), time.process_time()
        batches = _crops(fields, rng, some=False, count=GENERAL_BATCH)
        [(_, learnt)] = trained(batches, 0, (GENERAL_STEPS,))
        print(f"{len(fields)} tomograms: {time.process_time() - start:.0f} CPU s", flush=True)
        cache.mkdir(parents=True, exist_ok=True)
        torch.save(learnt.state_dict(), kept)
    network.load_state_dict(torch.load(kept, weights_only=True))
    return network.eval()


@torch.no_grad()
def predicted(network: UNet, data: np.ndarray) -> np.ndarray:
    """Return the map of a volume (float32, 0-1), slice by slice."""
    slices = (torch.from_numpy(_beside(data, z))[None] for z in range(len(data)))
    return torch.cat([torch.sigmoid(network(one))[0] for one in slices]).numpy()


def _field(data, labels, voxel_size, polarity) -> Field:
    data = np.asarray(data, np.float32)
    # By the middle of the volume, for borders of some tomograms are empty.
    data = (data - data.mean()) / data.std() * (-1 if polarity == "dark" else 1)
    sides = tuple(slice(0, n // 8 * 8) for n in data.shape[1:])
    return Field(data[:, *sides], labels[:, *sides], voxel_size)


def own_tomogram(seed: int, other: int = 0):
    """Return a simulated tomogram of the conditions of a seed, or another one of the same."""
    # What `end_to_end.py` does with its first seed and a number.
    end_to_end.FIRST_SEED, number = seed // 100_000 * 100_000, seed % 100_000
    settings = end_to_end.conditions(number)
    return simulate_tomogram(end_to_end.FIRST_SEED + 100 * number + other, **settings)


def made_field(name: str, other: int = 0) -> Field:
    """Return the tomogram of a name (``case/number``), or one of the same conditions."""
    case, number = name.split("/")
    if case == "own":
        made = own_tomogram(int(number), other)
        truth = end_to_end.annotated(made) if other else end_to_end.truth_of(made)[0]
        return _field(made.tomogram.data, truth, made.tomogram.voxel_size, made.polarity)
    volume, labels, *_ = other_simulator.tomogram(case, 3 + other if other else int(number))
    return _field(volume.data, labels, volume.voxel_size, other_simulator.CASES[case].polarity)


def maps_of(name: str, cache: Path) -> tuple[dict[int, np.ndarray], Field]:
    """Return the maps of a tomogram by steps of training, and the tomogram with its truth."""
    kept = cache / f"{name.replace('/', '_').replace(', ', '_').replace(' ', '_')}.npz"
    if not kept.exists():
        field = made_field(name)
        start = time.process_time()
        annotated = [made_field(name, other) for other in (1, 2)]
        found = {
            str(step): predicted(network, field.data).astype(np.float16)
            for step, network in trained(
                _crops(annotated, np.random.default_rng(len(name))), len(name)
            )
        }
        print(f"{name}: {time.process_time() - start:.0f} CPU s", flush=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            kept, **found, labels=field.labels, data=field.data, voxel_size=field.voxel_size
        )
    with np.load(kept) as held:
        field = Field(held["data"], held["labels"], float(held["voxel_size"]))
        maps = {step: held[str(step)].astype(np.float32) for step in STEPS}
    return maps, field


def scored(found: np.ndarray, truth: np.ndarray) -> dict:
    """Return scores at IoU 0.5; what is -1 in the truth counts neither way."""
    return instance_scores(found, np.maximum(truth, 0), ignore=truth < 0)


def f1(found: np.ndarray, truth: np.ndarray) -> float:
    """Return F1 at IoU 0.5."""
    return scored(found, truth)["f1"]


def tuned_components(chance, truth, smallest) -> float:
    """Return the best F1 of cc3d over thresholds and smoothing."""
    best = 0.0
    for sigma, level in itertools.product((0, 1), (0.5, 0.7, 0.8, 0.9)):
        mask = ndimage.gaussian_filter(chance, sigma) >= level
        labels = cc3d.connected_components(cc3d.dust(mask, smallest, connectivity=26))
        best = max(best, f1(labels, truth))
    return best


def tuned_watershed(chance, truth, smallest, voxel_size) -> float:
    """Return the best F1 of distance transform + peak_local_max + watershed."""
    best = 0.0
    for level in (0.5, 0.7, 0.9):
        mask = cc3d.dust(ndimage.gaussian_filter(chance, 1) >= level, smallest)
        depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1.0)
        # Peaks at least 150 Å apart.
        apart = max(2, round(150 / voxel_size))
        places = peak_local_max(depth, min_distance=apart, labels=(mask > 0) * 1)
        seeds = np.zeros(mask.shape, np.int32)
        seeds[tuple(places.T)] = np.arange(1, len(places) + 1)
        labels = watershed(-depth, seeds, mask=mask > 0)
        best = max(best, f1(cc3d.dust(labels, smallest), truth))
    return best


def rows_of(name: str, cache: Path, general: UNet | None, base: Model) -> list[dict]:
    """Return the figures of every map of a tomogram; of a general network's where there is one."""
    if general is None:
        maps, field = maps_of(name, cache)
    else:
        field = made_field(name)
        maps = {"general": predicted(general, field.data)}
    size = field.voxel_size
    outlines = predict(Volume(field.data, size), base, "bright")["boundary"]
    here = (slice(None), SIDES, SIDES) if general is None else ...
    truth, outlines = field.labels[here], outlines[here]
    smallest = ClusterParameters().minimum_volume / size**3
    rows = []
    for step, chance in maps.items():
        chance = chance[here]
        row = {"set": "fresh" if name in FRESH else "seen", "tomogram": name, "steps": step}
        row["Dice"] = voxel_scores(chance, truth)["dice"]
        row["components, tuned"] = tuned_components(chance, truth, smallest)
        row["watershed, tuned"] = tuned_watershed(chance, truth, smallest, size)
        row["one level"] = f1(cluster(chance, size, ClusterParameters(levels=False)).labels, truth)
        start = time.process_time()
        found = cluster(chance, size)
        row["CPU µs a voxel"] = (time.process_time() - start) / chance.size * 1e6
        row["levels"] = found.facts["levels"]
        figures = scored(found.labels, truth)
        row |= {"default": figures["f1"], **{k: figures[k] for k in ("precision", "recall")}}
        row["outlines"] = f1(cluster(chance, size, boundary=outlines).labels, truth)
        rows.append(row)
        print(row, flush=True)
    return rows


def write_tables(tables: list[pd.DataFrame], output: str | None) -> None:
    """Print tables in Markdown, figures with two digits, and write them where that is asked for."""
    text = "\n\n".join(one.round(2).to_markdown(index=False) for one in tables)
    print(text)
    if output:
        write_text(output, text + "\n")


def main() -> None:
    """Make the maps, cluster them and write the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cache", type=Path, required=True)
    options.add_argument("--tomograms", nargs="+", default=[*SEEN, *FRESH])
    options.add_argument("--only-maps", action="store_true")
    options.add_argument("--general", type=Path, help="folder of training tomograms")
    options.add_argument("--output")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    base = load_model("models/base-segmenter", "segmenter")
    general = general_network(chosen.general, chosen.cache) if chosen.general else None
    if chosen.only_maps:
        for name in chosen.tomograms:
            maps, field = maps_of(name, chosen.cache)
            dice = [round(voxel_scores(one, field.labels)["dice"], 2) for one in maps.values()]
            print(name, dice, flush=True)
        return
    table = pd.DataFrame(
        [row for name in chosen.tomograms for row in rows_of(name, chosen.cache, general, base)]
    )
    origin = np.where(table["tomogram"].str.startswith("own"), "own", "other")
    means = (
        table.groupby(["set", origin])
        .mean(numeric_only=True)
        .drop(columns="steps", errors="ignore")
    )
    means = means.rename_axis(["set", "simulator"]).reset_index()
    write_tables([table, means], chosen.output)


if __name__ == "__main__":
    main()
