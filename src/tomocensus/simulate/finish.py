"""What is done to a reconstruction before a user gets it: deconvolution, denoising, grey values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from tomocensus.simulate.microscope import robust_deviation, transfer_of

DENOISERS = ("none", "gaussian", "shrinkage", "diffusion")
ENCODINGS = ("float32", "int16", "uint8")


@dataclass(frozen=True)
class Finish:
    """What is done to a reconstruction; the defaults do nothing.

    Attributes
    ----------
    deconvolution : float
        Strength of the Wiener filter in three dimensions; 0 for none.
    denoiser, denoising : str, float
        One of `DENOISERS`, and its strength.
    filled : float
        0-1, share of the result that comes from a filled wedge.
    background, gain : float
        Deviations of a slowly changing background and of the logarithm of the contrast.
    encoding : str
        One of `ENCODINGS`.
    clip, scale, offset : float
        As in `encode`.
    """

    deconvolution: float = 0.0
    denoiser: str = "none"
    denoising: float = 1.0
    filled: float = 0.0
    background: float = 0.0
    gain: float = 0.0
    encoding: str = "float32"
    clip: float = 0.0
    scale: float = 1.0
    offset: float = 0.0


def finished(
    image: np.ndarray,
    density: np.ndarray,
    voxel_size: float,
    defocus: float,
    voltage: float,
    finish: Finish,
    polarity: str,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return a reconstruction as a user gets it.

    Parameters
    ----------
    image, density : numpy.ndarray
        The reconstruction, protein bright, and what was imaged.
    voxel_size, defocus, voltage : float
        Å, µm and kV.
    finish : Finish
        What is done.
    polarity : str
        ``dark`` turns the sign.
    rng : numpy.random.Generator
        For the shading.
    """
    if finish.deconvolution:
        image = deconvolve(image, voxel_size, defocus, finish.deconvolution, voltage=voltage)
    image = denoise(image, finish.denoiser, finish.denoising)
    if finish.deconvolution or finish.denoiser != "none":
        # Both change the spread of the values by far.
        image = (image - image.mean()) / (robust_deviation(image) + 1e-12)
    if finish.filled:
        image = fill_wedge(image, density, finish.filled)
    image = shade(image, rng, finish.background, finish.gain)
    if polarity == "dark":
        image = -image
    return encode(image, finish.encoding, finish.clip, finish.scale, finish.offset)


def deconvolve(
    data: np.ndarray,
    voxel_size: float,
    defocus: float,
    strength: float = 1.0,
    fall: float = 1.0,
    voltage: float = 300.0,
) -> np.ndarray:
    """Undo the CTF in three dimensions with a Wiener filter of assumed signal-to-noise ratio.

    The ratio falls off exponentially with the frequency and is cut at low ones, as in the filter
    of Tegunov and Cramer (Warp, Nature Methods 2019).

    Parameters
    ----------
    data : numpy.ndarray
        ``(nz, ny, nx)``, not corrected for the CTF.
    voxel_size : float
        Å.
    defocus : float
        µm.
    strength, fall : float
        Ratio at low frequency, ``10^(3 strength)``, and how fast it falls.
    voltage : float
        kV.

    Returns
    -------
    numpy.ndarray
        float32.
    """
    kz, ky = (fft.fftfreq(size) for size in data.shape[:2])
    kx = fft.rfftfreq(data.shape[2])
    radius = np.sqrt(kz[:, None, None] ** 2 + ky[:, None] ** 2 + kx**2, dtype=np.float32)
    # The filter is a function of the radius: a table is faster than as many exponentials.
    table = np.linspace(0, 0.9, 2000)
    rise = np.minimum(1, table / 0.02)
    ratio = np.exp(-table * 2 * fall * 100 / voxel_size) * 10 ** (3 * strength)
    ratio = ratio * (0.5 - 0.5 * np.cos(np.pi * rise)) + 1e-6
    transfer = transfer_of((table / voxel_size) ** 2, defocus, voltage)
    wiener = (transfer / (transfer**2 + 1 / ratio)).astype(np.float32)
    kernel = wiener[np.minimum((radius * (1999 / 0.9)).astype(np.int32), 1999)]
    return fft.irfftn(fft.rfftn(data) * kernel, s=data.shape).astype(np.float32)


def denoise(data: np.ndarray, method: str, strength: float = 1.0) -> np.ndarray:
    """Denoise: cheap stand-ins for what users run before they segment.

    Parameters
    ----------
    data : numpy.ndarray
        ``(nz, ny, nx)``.
    method : str
        One of `DENOISERS`. ``shrinkage`` (à-trous wavelets, soft thresholds) looks like the output
        of a trained denoiser, ``diffusion`` like nonlinear anisotropic diffusion.
    strength : float
        About 0.5-2.

    Raises
    ------
    ValueError
        The method is unknown.
    """
    if method not in DENOISERS:
        raise ValueError(f"denoiser {method!r} is none of {', '.join(DENOISERS)}")
    if method == "gaussian":
        return ndimage.gaussian_filter(data, 0.9 * strength, truncate=3)
    if method == "shrinkage":
        return _shrink(data, strength)
    if method == "diffusion":
        return _diffuse(data, strength)
    return data


def _shrink(data, strength):
    """Shrink the details at three scales (Starck and Murtagh's à-trous scheme)."""
    rest, kept = data, np.zeros_like(data)
    for width, factor in ((0.8, 2.5), (1.4, 1.6), (2.5, 0.7)):
        smooth = ndimage.gaussian_filter(rest, width, truncate=2.5)
        detail = rest - smooth
        limit = factor * strength * np.median(np.abs(detail[::2, ::3, ::3])) / 0.6745
        kept += np.sign(detail) * np.maximum(np.abs(detail) - limit, 0)
        rest = smooth
    return kept + rest


def _diffuse(data, strength, steps=5):
    """Diffuse along edges but not across them (Perona and Malik 1990) after a little smoothing."""
    data = ndimage.gaussian_filter(data, 0.6 + 0.3 * strength, truncate=2.5)
    edge = 1.5 * strength * np.median(np.abs(np.diff(data[::2], axis=2)))
    for _ in range(steps):
        for axis in range(3):
            slope = np.diff(data, axis=axis)
            flow = 0.2 * slope / (1 + (slope / (edge + 1e-12)) ** 2)
            low = [slice(None)] * 3
            high = [slice(None)] * 3
            low[axis], high[axis] = slice(None, -1), slice(1, None)
            data[tuple(low)] += flow
            data[tuple(high)] -= flow
    return data


def fill_wedge(data: np.ndarray, density: np.ndarray, share: float) -> np.ndarray:
    """Mix in what a network that fills the missing wedge would make of the specimen.

    Parameters
    ----------
    data : numpy.ndarray
        The reconstruction, deviation about 1.
    density : numpy.ndarray
        What was imaged, without gold.
    share : float
        0-1, part of the result that is the blurred density.
    """
    guess = ndimage.gaussian_filter(density, (1.6, 1.1, 1.1), truncate=2.5)
    guess -= ndimage.gaussian_filter(guess, 12, truncate=2)
    return (1 - share) * data + share * guess / (guess.std() + 1e-9)


def shade(data: np.ndarray, rng: np.random.Generator, background: float, gain: float) -> np.ndarray:
    """Add a background and change the contrast slowly over the field.

    Parameters
    ----------
    data : numpy.ndarray
        Deviation about 1.
    rng : numpy.random.Generator
        Course of the changes.
    background : float
        Standard deviation of what is added.
    gain : float
        Standard deviation of the contrast's logarithm.
    """
    z, y, x = (np.linspace(-1, 1, size, dtype=np.float32) for size in data.shape)
    z = z[:, None, None]

    def field():
        a, b, c, d, e = rng.normal(size=5).astype(np.float32)
        plane = a * x + b * y[:, None] + 0.7 * c * (x * x + y[:, None] ** 2) + d * x * y[:, None]
        made = plane + 0.5 * e * z
        return (made - made.mean()) / (made.std() + 1e-6)

    if gain:
        data = data * np.exp(np.float32(gain) * field())
    if background:
        data = data + np.float32(background) * field()
    return data


def encode(data: np.ndarray, encoding: str, clip: float, scale: float, offset: float) -> np.ndarray:
    """Return grey values as a file would hold them.

    Parameters
    ----------
    data : numpy.ndarray
        Mean near 0, deviation about 1.
    encoding : str
        One of `ENCODINGS`; integers are rounded to that many steps, but returned as float32.
    clip : float
        Deviations beyond which values are cut off; 0 for none (float32 alone).
    scale, offset : float
        Of the float32 values; the integers fill their range.

    Raises
    ------
    ValueError
        The encoding is unknown, or integers are asked for without a limit.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding {encoding!r} is none of {', '.join(ENCODINGS)}")
    if clip:
        data = np.clip(data, -clip, clip)
    if encoding == "float32" and scale == 1 and offset == 0:
        return data
    if encoding == "float32":
        return (data * scale + offset).astype(np.float32)
    if not clip:
        raise ValueError(f"{encoding} needs a clip")
    # int16 at a tenth of its range: the cache of training keeps values as float16.
    half, middle = (127.0, 128.0) if encoding == "uint8" else (3000.0, 0.0)
    return (np.rint(data * (half / clip)) + middle).astype(np.float32)
