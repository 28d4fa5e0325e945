"""From a seed to a tomogram with its truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tomocensus.simulate.microscope import image_labels
from tomocensus.simulate.scenes import draw_scene
from tomocensus.volume import Volume

PRESETS = {
    "random": {},
    "demo": {
        "voxel_size": 20.0,
        "shape": (64, 192, 192),
        "snr": 0.4,
        "defocus": 4.0,
        "tilt_range": 60.0,
        "polarity": "dark",
        "sirt_like": True,
    },
}
DEMO_ABUNDANCE = {
    "mitochondrion": 2.5,
    "vesicle": 4.0,
    "virus_like_particle": 7.0,
    "dense_body": 4.0,
    "lipid_droplet": 0.0,
    "er": 2.0,
    "microtubule": 2.0,
    "ribosome": 1.5,
}


@dataclass
class SimulatedTomogram:
    """A tomogram and what is in it; all volumes have the same shape and scale."""

    tomogram: Volume
    instances: Volume
    classes: dict[int, str]
    membrane: np.ndarray
    density: np.ndarray
    parameters: dict
    polarity: str


def simulate_tomogram(
    seed: int, shape=None, voxel_size=None, preset: str = "random", **overrides
) -> SimulatedTomogram:
    """Simulate a tomogram; the same arguments give the same voxels.

    Parameters
    ----------
    seed : int
        Seed of all choices.
    shape : tuple of int, optional
        ``(nz, ny, nx)``, (64, 256, 256) by default.
    voxel_size : float, optional
        Å, else 5-25.
    preset : str
        ``random`` or ``demo``.
    **overrides
        snr, defocus (µm), tilt_range and tilt_step (degrees), polarity, sirt_like, correct_ctf,
        abundance.
    """
    rng = np.random.default_rng(seed)
    chosen = {
        "shape": (64, 256, 256),
        "voxel_size": float(rng.uniform(5, 25)),
        "snr": float(np.exp(rng.uniform(np.log(0.03), 0))),
        "defocus": float(rng.uniform(1, 8)),
        "tilt_range": float(rng.uniform(45, 65)),
        "tilt_step": float(rng.choice([1.5, 2, 3])),
        "sirt_like": bool(rng.random() < 0.5),
        "correct_ctf": bool(rng.random() < 0.7),
        "polarity": str(rng.choice(["dark", "bright"])),
        "abundance": None,
    }
    chosen.update(PRESETS[preset])
    if preset == "demo":
        chosen["abundance"] = DEMO_ABUNDANCE
    chosen.update({k: v for k, v in {"shape": shape, "voxel_size": voxel_size}.items() if v})
    chosen.update(overrides)
    scene = draw_scene(rng, chosen["shape"], chosen["voxel_size"], chosen["abundance"])
    names = ("snr", "defocus", "tilt_range", "tilt_step", "sirt_like", "correct_ctf")
    image = image_labels(
        scene.density, chosen["voxel_size"], rng, **{name: chosen[name] for name in names}
    )
    if chosen["polarity"] == "dark":
        image = -image
    labels, classes = _renumber(scene.labels, scene.classes)
    size = chosen["voxel_size"]
    return SimulatedTomogram(
        Volume(image, size),
        Volume(labels, size),
        classes,
        scene.membrane,
        scene.density,
        {"seed": seed, **chosen},
        chosen["polarity"],
    )


def _renumber(labels, classes):
    """Number the instances that are in view 1..N."""
    present = [int(number) for number in np.unique(labels) if number]
    table = np.zeros(max(classes, default=0) + 1, np.int32)
    table[present] = np.arange(1, len(present) + 1)
    return table[labels], {new: classes[old] for new, old in enumerate(present, start=1)}
