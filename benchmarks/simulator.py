"""Show a real tomogram beside simulated ones: slices and power spectra, in one picture.

python benchmarks/simulator.py TOMOGRAM.tif --voxel-size 40 --output benchmarks/simulator.png
"""

from __future__ import annotations

import argparse

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from tomocensus.io import read_volume
from tomocensus.simulate import simulate_tomogram


def spectrum(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return frequency (cycles per voxel) and mean power of the XY slices, in rings."""
    window = np.hanning(data.shape[1])[:, None] * np.hanning(data.shape[2])
    power = (np.abs(np.fft.fft2((data - data.mean()) * window)) ** 2).mean(axis=0)
    ky, kx = np.meshgrid(*[np.fft.fftfreq(n) for n in data.shape[1:]], indexing="ij")
    ring = (np.hypot(ky, kx) * 80).astype(int)
    rings = np.bincount(ring.ravel(), power.ravel()) / np.maximum(np.bincount(ring.ravel()), 1)
    return (np.arange(2, 40) + 0.5) / 80, rings[2:40] / rings[2:40].sum()


def normalised(data: np.ndarray, polarity: str) -> np.ndarray:
    """Return float32 of deviation 1 with protein dark."""
    data = np.asarray(data, np.float32)
    sign = -1 if polarity == "bright" else 1
    return sign * (data - data.mean()) / data.std()


def main() -> None:
    """Read the options, simulate, draw."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("tomogram")
    options.add_argument("--voxel-size", type=float, default=40.0, help="Å")
    options.add_argument("--polarity", default="bright", choices=("dark", "bright"))
    options.add_argument("--output", default="benchmarks/simulator.png")
    chosen = options.parse_args()
    real = read_volume(chosen.tomogram, chosen.voxel_size)
    particles = {
        kind: 0.0 for kind in ("mitochondrion", "vesicle", "dense_body", "lipid_droplet", "er")
    } | {"microtubule": 0.0, "ribosome": 0.0, "virus_like_particle": 6.0}
    alike = simulate_tomogram(
        1, real.shape, real.voxel_size, snr=0.5, defocus=4.0, abundance=particles, polarity="dark"
    )
    demo = simulate_tomogram(20, preset="demo")
    columns = {
        f"real, {real.voxel_size:g} Å": normalised(real.data, chosen.polarity),
        f"simulated, {real.voxel_size:g} Å, SNR 0.5": normalised(alike.tomogram.data, "dark"),
        "simulated, preset demo, 20 Å, SNR 0.4": normalised(demo.tomogram.data, "dark"),
    }
    figure, axes = plt.subplots(2, 4, figsize=(15, 7), height_ratios=(3, 2))
    for (title, data), (top, bottom) in zip(columns.items(), axes.T[:3], strict=True):
        top.imshow(data[data.shape[0] // 2], cmap="gray", vmin=-3, vmax=3)
        top.set_title(title)
        bottom.imshow(data[:, data.shape[1] // 2], cmap="gray", vmin=-3, vmax=3)
        top.set_axis_off()
        bottom.set_axis_off()
        axes[0, 3].semilogy(*spectrum(data), label=title)
    axes[0, 3].set_title("power of XY slices")
    axes[0, 3].set_xlabel("cycles per voxel")
    axes[0, 3].legend(fontsize=6)
    axes[1, 3].set_axis_off()
    axes[1, 3].text(0, 0.5, "above: XY, below: XZ; protein dark;\ngrey from -3 to 3 deviations")
    figure.tight_layout()
    figure.savefig(chosen.output, dpi=60)


if __name__ == "__main__":
    main()
