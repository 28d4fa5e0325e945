"""Imaging: tilt series, contrast transfer, noise, reconstruction by weighted back-projection."""

from __future__ import annotations

import numpy as np
from scipy import fft, sparse


def projection_matrix(depth: int, width: int, tilt: float) -> sparse.csr_matrix:
    """Return the projection of an XZ plane along a tilt about Y, by linear interpolation.

    Parameters
    ----------
    depth, width : int
        Voxels in z and x.
    tilt : float
        Degrees.

    Returns
    -------
    scipy.sparse.csr_matrix
        ``(width, depth * width)``; its transpose back-projects.
    """
    z, x = np.mgrid[:depth, :width].astype(np.float64)
    z -= (depth - 1) / 2
    x -= (width - 1) / 2
    angle = np.deg2rad(tilt)
    place = (x * np.cos(angle) + z * np.sin(angle) + (width - 1) / 2).ravel()
    low = np.floor(place).astype(int)
    share = place - low
    column = np.arange(depth * width)
    rows = np.concatenate([low, low + 1])
    columns = np.concatenate([column, column])
    weights = np.concatenate([1 - share, share])
    good = (rows >= 0) & (rows < width)
    return sparse.csr_matrix(
        (weights[good].astype(np.float32), (rows[good], columns[good])),
        shape=(width, depth * width),
    )


def contrast_transfer(shape, voxel_size, defocus, voltage=300.0, cs=2.7, amplitude=0.07):
    """Return the CTF of a weak phase object on the grid of ``rfft2``.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    voxel_size : float
        Å.
    defocus : float
        µm, positive is underfocus.
    voltage, cs, amplitude : float
        kV, mm, and the share of amplitude contrast.
    """
    wavelength = 12.2643 / np.sqrt(voltage * 1e3 + 0.978466 * voltage**2)
    ky = fft.fftfreq(shape[0], voxel_size)[:, None]
    kx = fft.rfftfreq(shape[1], voxel_size)[None]
    k2 = ky**2 + kx**2
    phase = np.pi * wavelength * defocus * 1e4 * k2 - np.pi / 2 * cs * 1e7 * wavelength**3 * k2**2
    return np.sin(phase + np.arcsin(amplitude)).astype(np.float32)


def image_labels(
    density: np.ndarray,
    voxel_size: float,
    rng: np.random.Generator,
    snr: float = 0.3,
    defocus: float = 4.0,
    tilt_range: float = 60.0,
    tilt_step: float = 3.0,
    correct_ctf: bool = True,
    sirt_like: bool = False,
    jitter: float = 0.3,
) -> np.ndarray:
    """Image a density and reconstruct it.

    Parameters
    ----------
    density : numpy.ndarray
        ``(nz, ny, nx)``, positive where matter is.
    voxel_size : float
        Å.
    rng : numpy.random.Generator
        Noise and alignment errors.
    snr : float
        Variance of signal over that of noise in the reconstruction.
    defocus : float
        µm.
    tilt_range, tilt_step : float
        Degrees; tilts from minus to plus the range.
    correct_ctf : bool
        Flip the phases.
    sirt_like : bool
        A softer radial filter, as after a few SIRT iterations.
    jitter : float
        Alignment error, standard deviation in voxels.

    Returns
    -------
    numpy.ndarray
        float32, protein bright.
    """
    depth, height, width = density.shape
    planes = np.ascontiguousarray(density.transpose(0, 2, 1).reshape(depth * width, height))
    tilts = np.arange(-tilt_range, tilt_range + 1e-6, tilt_step)
    ramp = np.abs(fft.rfftfreq(width))
    if sirt_like:
        ramp = ramp * (1 - (1 - np.minimum(0.02 / (ramp + 1e-6), 1)) ** 12)
    ramp = (ramp * np.exp(-((fft.rfftfreq(width) / 0.42) ** 6))).astype(np.float32)
    signal = np.zeros_like(planes)
    noise = np.zeros_like(planes)
    for tilt in tilts:
        matrix = projection_matrix(depth, width, tilt)
        image = (matrix @ planes).T
        blurred = _transfer(image, voxel_size, defocus, rng, correct_ctf, jitter)
        grain = rng.normal(size=image.shape).astype(np.float32) / np.sqrt(np.cos(np.deg2rad(tilt)))
        for target, what in ((signal, blurred), (noise, grain)):
            filtered = fft.irfft(fft.rfft(what, axis=1) * ramp, n=width, axis=1).T
            target += matrix.T @ filtered.astype(np.float32)
    noise *= np.sqrt(signal.var() / snr) / (noise.std() + 1e-12)
    total = (signal + noise).reshape(depth, width, height).transpose(0, 2, 1)
    return np.ascontiguousarray(total / (total.std() + 1e-12), dtype=np.float32)


def _transfer(image, voxel_size, defocus, rng, correct, jitter):
    """Apply CTF, damping and an alignment error to a projection ``(ny, nx)``."""
    transfer = contrast_transfer(image.shape, voxel_size, defocus)
    # Correction flips phases only: amplitudes near the zeros stay lost.
    if correct:
        transfer = np.abs(transfer)
    spectrum = fft.rfft2(image) * transfer
    ky, kx = fft.fftfreq(image.shape[0])[:, None], fft.rfftfreq(image.shape[1])[None]
    dy, dx = rng.normal(scale=jitter, size=2)
    damping = np.exp(-2 * (np.hypot(ky, kx) * 1.2) ** 2)
    spectrum = spectrum * np.exp(-2j * np.pi * (ky * dy + kx * dx)) * damping
    return fft.irfft2(spectrum, s=image.shape).astype(np.float32)
