"""Simulated tomograms to pretrain models on: wide conditions, each made once and kept.

``python -m tomocensus.simulate.training --cache CACHE --count 300``

Several runs with ``--every`` and ``--offset`` may fill one cache together. The same tomograms serve
the segmenter and the encoder.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from tomocensus.atomic import atomic_path
from tomocensus.progress import progress
from tomocensus.simulate.scenes import FIELD, KINDS
from tomocensus.simulate.tomogram import SimulatedTomogram, simulate_tomogram
from tomocensus.volume import Volume

SHAPE = (48, 176, 176)
VOXEL_SIZES = (7.0, 32.0)
SNRS = (0.04, 1.5)
# Share of fields whose objects are even, with sharp edges, as plain simulators draw them.
PLAIN_MATTER = 0.3
# How many of each kind half of the fields hold on average, where there is room: rare kinds as well.
WANTED = {
    "nuclear_envelope": 0.6,
    "plasma_membrane": 0.6,
    "golgi": 0.8,
    "autophagosome": 0.8,
    "mitochondrion": 3,
    "vesicle": 10,
    "virus_like_particle": 5,
    "dense_body": 5,
    "lipid_droplet": 4,
    "er": 3,
    "microtubule": 2,
    "actin": 3,
    "ribosome": 14,
    "particle": 12,
    "gold": 2,
}


def training_tomogram(seed: int) -> SimulatedTomogram:
    """Simulate a small tomogram under conditions drawn widely.

    Voxel size (7-32 Å) and SNR (0.04-1.5) are uniform in their logarithm. Half of the fields are as
    crowded as the presets make them; the other half hold some objects of every kind.

    Parameters
    ----------
    seed : int
        The same seed gives the same tomogram.
    """
    rng = np.random.default_rng([seed, 3])
    voxel_size = _log_uniform(rng, *VOXEL_SIZES)
    settings: dict = {"preset": "cell" if rng.random() < 0.6 else "random"}
    if rng.random() < 0.5:
        volume = float(np.prod(SHAPE)) * voxel_size**3 / FIELD
        settings["abundance"] = {
            kind: number * float(np.exp(rng.normal(0, 0.7))) / KINDS[kind][1] / volume
            for kind, number in WANTED.items()
        }
    aside = np.random.default_rng([seed, 5])
    if aside.random() < PLAIN_MATTER:
        settings |= {"matter": "plain", "tilt_range": float(aside.uniform(35, 70))}
    return simulate_tomogram(
        seed, shape=SHAPE, voxel_size=voxel_size, snr=_log_uniform(rng, *SNRS), **settings
    )


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def stored_tomogram(seed: int, cache: str | Path) -> SimulatedTomogram:
    """Return a training tomogram from a folder; made and kept where it is not there.

    Parameters
    ----------
    seed : int
        As in :func:`training_tomogram`.
    cache : path-like
        Folder. What is kept there has no ``density``, and the tomogram as float16.
    """
    path = Path(cache) / f"tomogram-{seed}.npz"
    if not path.is_file():
        _store(training_tomogram(seed), path)
    with np.load(path) as stored:
        facts = json.loads(str(stored["facts"]))
        size = facts["voxel_size"]
        return SimulatedTomogram(
            Volume(stored["data"].astype(np.float32), size),
            Volume(stored["instances"].astype(np.int32), size),
            {int(number): name for number, name in facts["classes"].items()},
            stored["membrane"].astype(bool),
            np.zeros((0, 0, 0), np.float32),
            facts["parameters"],
            facts["polarity"],
        )


def in_cache(cache: str | Path) -> set[int]:
    """Return the seeds of the tomograms that a folder holds."""
    return {int(path.stem.split("-")[1]) for path in Path(cache).glob("tomogram-*.npz")}


def _store(made: SimulatedTomogram, path: Path) -> None:
    """Write a tomogram and its truth, whole or not at all."""
    data = np.asarray(made.tomogram.data, np.float32)
    # Any scale of intensity fits float16 so; models do not look at the scale.
    data = (data - np.median(data)) / max(float(data.std()), 1e-9)
    facts = {
        "voxel_size": made.tomogram.voxel_size,
        "classes": made.classes,
        "polarity": made.polarity,
        "parameters": made.parameters,
    }
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(
            stream,
            data=np.clip(data, -1000, 1000).astype(np.float16),
            instances=np.asarray(made.instances.data).astype(np.int16),
            membrane=np.asarray(made.membrane).astype(np.int8),
            facts=np.array(json.dumps(facts, default=float)),
        )


def main() -> None:
    """Fill a cache."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cache", required=True, help="folder for the tomograms")
    options.add_argument("--first", type=int, default=0, help="first seed")
    options.add_argument("--count", type=int, default=300)
    options.add_argument("--every", type=int, default=1, help="make every n-th")
    options.add_argument("--offset", type=int, default=0, help="... starting here")
    chosen = options.parse_args()
    seeds = range(chosen.first + chosen.offset, chosen.first + chosen.count, chosen.every)
    for seed in progress(seeds, "simulating"):
        stored_tomogram(seed, chosen.cache)


if __name__ == "__main__":
    main()
