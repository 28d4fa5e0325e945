"""The shipped models on a third simulator: lamellae, imaged as tilt series and back-projected.

``python benchmarks/tilt_series.py --output benchmarks/tilt_series.md``

The shapes are those of ``other_simulator.py``, in a slab of cytosol with vacuum above and below,
with two leaflets in their membranes, filled lumens, membrane proteins, actin and small particles.
They are projected at every tilt, get a CTF, the damage of the dose, shifts and noise, and are
reconstructed by weighted back-projection. Nothing here uses ``tomocensus.simulate``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from other_simulator import ABUNDANCE, find_room, grid_of, line_distance, make_object, measure
from scipy import ndimage

from tomocensus.volume import Volume

SHAPE = (72, 256, 256)
MORE = {"vesicle": 3500, "ribosome": 14_000, "er": 1500, "actin": 3000}
# Voxels that are mirrored beside the field: tilted projections look past its border.
PAD = 48
WAVELENGTH, ABERRATION, AMPLITUDE = 0.0197, 2.7e7, 0.07


@dataclass(frozen=True)
class Imaging:
    """How one data set is imaged.

    Parameters
    ----------
    voxel_size : float
        Å.
    snr : float
        About that of the volume, variance to variance.
    defocus : tuple of float
        µm, lowest and highest.
    tilt, step : float
        Highest tilt and tilt step in degrees.
    thickness : float
        Part of the volume's height that the lamella fills.
    smooth : float
        Voxels, of a Gaussian filter after reconstruction.
    polarity : str
        ``dark`` or ``bright``.
    """

    voxel_size: float
    snr: float
    defocus: tuple[float, float]
    tilt: float = 60.0
    step: float = 3.0
    thickness: float = 1.0
    smooth: float = 0.0
    polarity: str = "dark"


CASES = {
    "usual": Imaging(10.7, 0.3, (3, 5)),
    "noisy, thin": Imaging(10.7, 0.1, (3, 5), thickness=0.75),
    "52 degrees, smoothed": Imaging(13.5, 0.2, (1.5, 3), 52.0, 2.0, 0.8, 0.8),
    "bright, fine, smoothed": Imaging(8.0, 0.2, (4, 6), smooth=1.0, polarity="bright"),
}


def coloured(kind, rng, inside, density, bilayer, unit) -> np.ndarray:
    """Return densities with two leaflets, filled lumens and proteins; `unit` is voxels in 1 Å."""
    if kind == "ribosome":
        return np.where(inside, 1.15, 0).astype(np.float32)
    if kind == "dense_body":
        return np.where(inside, rng.uniform(0.6, 1.0), 0).astype(np.float32)
    if not bilayer.any():
        return density
    depth = ndimage.distance_transform_edt(np.pad(bilayer, 1))[1:-1, 1:-1, 1:-1] / unit
    leaflet = 0.55 + 0.45 * np.cos(np.pi * np.clip(depth - 8, 0, 20) / 10) ** 2
    lumen = rng.uniform(
        *{
            "vesicle": (0.0, 0.7),
            "er": (0.1, 0.4),
            "mitochondrion": (0.35, 0.6),
            "virus_like_particle": (0.2, 0.4),
        }[kind]
    )
    filled = np.where(density > 1.1, 1.0, lumen)
    density = np.where(bilayer, rng.uniform(0.8, 1.15) * leaflet, filled)
    bumps = ndimage.gaussian_filter(rng.normal(size=density.shape), 30 * unit)
    density += np.where(inside & ~bilayer, 0.08 * bumps / (bumps.std() + 1e-6), 0)
    if kind != "er" and rng.random() < 0.5:
        proteins = (rng.random(density.shape) < 0.004).astype(np.float32)
        proteins = ndimage.gaussian_filter(proteins, 25 * unit)
        density += 0.3 * bilayer * proteins / (proteins.max() + 1e-9)
    return density.astype(np.float32)


def actin(rng: np.random.Generator, unit: float):
    """Return mask, density and membrane (none) of a straight filament."""
    length = rng.uniform(800, 3000) * unit
    azimuth, rise = rng.uniform(0, 2 * np.pi), rng.uniform(-0.2, 0.2)
    along = np.array([rise, np.sin(azimuth), np.cos(azimuth)])
    points = np.linspace(-length / 2, length / 2, int(2 * length))[:, None] * along
    inside = line_distance(points, grid_of(np.abs(points).max(axis=0) + 40 * unit)) <= 35 * unit
    return inside, np.where(inside, 0.9, 0).astype(np.float32), np.zeros_like(inside)


def scene(rng: np.random.Generator, imaging: Imaging):
    """Fill a lamella; return density, labels, kinds and membrane."""
    unit = 1 / imaging.voxel_size
    height = np.abs(np.arange(SHAPE[0]) - (SHAPE[0] - 1) / 2)
    lamella = np.broadcast_to((height < imaging.thickness * SHAPE[0] / 2)[:, None, None], SHAPE)
    waves = ndimage.gaussian_filter(rng.normal(size=SHAPE), 20 * unit)
    density = (rng.uniform(0.25, 0.4) + 0.06 * waves / waves.std()) * lamella
    density = density.astype(np.float32)
    labels, membrane = np.zeros(SHAPE, np.int32), np.zeros(SHAPE, bool)
    kinds: dict[int, str] = {}
    volume = lamella.sum() * imaging.voxel_size**3 / 1e12
    for kind, number in (ABUNDANCE | MORE).items():
        for _ in range(rng.poisson(number * volume)):
            if kind == "actin":
                inside, values, bilayer = actin(rng, unit)
            else:
                inside, values, bilayer = make_object(kind, rng, imaging.voxel_size)
                values = coloured(kind, rng, inside, values, bilayer, unit)
            window = find_room(inside, labels, rng)
            if window is None:
                continue
            here, part = window
            chosen = inside[part] & lamella[here]
            if chosen.sum() < 0.3 * inside.sum():
                continue
            kinds[len(kinds) + 1] = kind
            labels[here][chosen] = len(kinds)
            density[here][chosen] = values[part][chosen]
            membrane[here][chosen] = bilayer[part][chosen]
    free = (labels == 0) & lamella
    particles = (rng.random(SHAPE) < 1.2e-3 * (imaging.voxel_size / 10.7) ** 3) & free
    particles = ndimage.gaussian_filter(particles.astype(np.float32), 25 * unit)
    density += np.where(free, 0.7 * particles / (particles.max() + 1e-9), 0)
    return density, labels, kinds, membrane


def project(density: np.ndarray, tilt: float) -> np.ndarray:
    """Return the projection ``(ny, nx)`` at a tilt (radians) about the Y axis."""
    (nz, ny, nx), cosine, sine = density.shape, np.cos(tilt), np.sin(tilt)
    reach = int(np.ceil(nz / 2 / max(cosine, 0.3))) + 2
    along = np.arange(-reach, reach + 1)[:, None]
    across = np.arange(nx)[None] - (nx - 1) / 2
    z = across * sine + along * cosine + (nz - 1) / 2
    x = across * cosine - along * sine + (nx - 1) / 2
    total = np.zeros((nx, ny), np.float32)
    z0, x0 = np.floor(z).astype(int), np.floor(x).astype(int)
    columns = np.moveaxis(density, 1, 2)
    for dz in (0, 1):
        for dx in (0, 1):
            there = (z0 + dz >= 0) & (z0 + dz < nz)
            weight = np.abs(1 - dz - (z - z0)) * np.abs(1 - dx - (x - x0)) * there
            values = columns[np.clip(z0 + dz, 0, nz - 1), np.clip(x0 + dx, 0, nx - 1)]
            total += (values * weight[..., None]).sum(axis=0, dtype=np.float32)
    return total.T


def back_project(series, tilts, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the weighted back-projection of images at tilts (radians) about the Y axis."""
    nz, ny, nx = shape
    z, x = np.meshgrid(np.arange(nz) - (nz - 1) / 2, np.arange(nx) - (nx - 1) / 2, indexing="ij")
    ky, kx = np.fft.fftfreq(ny)[:, None], np.fft.rfftfreq(nx)[None]
    ramp = np.minimum(kx, 0.35) * np.exp(-(kx**2) - ky**2)
    volume = np.zeros((nz, nx, ny), np.float32)
    for picture, tilt in zip(series, tilts, strict=True):
        weighted = np.fft.irfft2(np.fft.rfft2(picture) * ramp, s=picture.shape)
        rows = weighted.T.astype(np.float32)
        place = x * np.cos(tilt) + z * np.sin(tilt) + (nx - 1) / 2
        left = np.clip(np.floor(place).astype(int), 0, nx - 2)
        part = (place - left)[..., None].astype(np.float32)
        volume += rows[left] * (1 - part) + rows[left + 1] * part
    return np.moveaxis(volume, 1, 2)


def image(rng: np.random.Generator, density: np.ndarray, imaging: Imaging) -> np.ndarray:
    """Return the tomogram of a density."""
    density = np.pad(density, [(0, 0), (0, 0), (PAD, PAD)], mode="reflect")
    _, ny, nx = density.shape
    ky, kx = np.fft.fftfreq(ny)[:, None], np.fft.rfftfreq(nx)[None]
    k = np.hypot(ky, kx) / imaging.voxel_size
    phase = np.pi * WAVELENGTH * rng.uniform(*imaging.defocus) * 1e4 * k**2
    phase -= np.pi / 2 * ABERRATION * WAVELENGTH**3 * k**4
    degrees = np.arange(-imaging.tilt, imaging.tilt + 0.1, imaging.step)
    tilts, series = np.deg2rad(degrees), []
    for degree, tilt in zip(degrees, tilts, strict=True):
        # Dose-symmetric: what is tilted further was imaged later.
        damage = np.exp(-(40 + 6 * abs(degree) / imaging.step) / 4 * k**2)
        shift = np.exp(-2j * np.pi * (ky * rng.normal(0, 0.4) + kx * rng.normal(0, 0.4)))
        spectrum = np.fft.rfft2(project(density, tilt))
        spectrum = spectrum * np.sin(phase + AMPLITUDE) * damage * shift
        series.append(np.fft.irfft2(spectrum, s=(ny, nx)))
    signal = np.std([s for s, degree in zip(series, degrees, strict=True) if abs(degree) < 10])
    # A voxel's SNR is less than a projection's: 0.18 was measured.
    noise = 0.18 * signal * np.sqrt(len(tilts) / imaging.snr)
    series = [
        picture + rng.normal(0, noise / np.sqrt(np.cos(tilt)), picture.shape)
        for picture, tilt in zip(series, tilts, strict=True)
    ]
    volume = back_project(series, tilts, density.shape)[:, :, PAD:-PAD]
    if imaging.smooth:
        volume = ndimage.gaussian_filter(volume, imaging.smooth)
    sign = 1 if imaging.polarity == "bright" else -1
    return np.ascontiguousarray(sign * volume, dtype=np.float32)


def tomogram(case: str, number: int):
    """Return tomogram (Volume), labels, kinds and membrane of one field of a data set."""
    imaging = CASES[case]
    rng = np.random.default_rng([77, list(CASES).index(case), number])
    density, *truth = scene(rng, imaging)
    return Volume(image(rng, density, imaging), imaging.voxel_size), *truth


if __name__ == "__main__":
    measure(
        CASES,
        tomogram,
        "Tilt series of lamellae: figures",
        "tilt_series.py",
        f"Two crowded tomograms {SHAPE} of each case: lamellae with filled lumens, two leaflets,\n"
        "actin and small particles, projected, with CTF, dose and shifts, and back-projected;\n"
        "without the project's simulator.",
    )
