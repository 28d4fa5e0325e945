"""Imaging: tilt series, contrast transfer, damage, noise, weighted back-projection."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import fft, ndimage, sparse

SCHEMES = ("dose-symmetric", "bidirectional", "continuous")
CORRECTIONS = ("none", "flip", "wiener", "ideal")
LOWPASSES = ("exponential", "butterworth")
# Rows that are measured where the signal-to-noise ratio needs a reconstruction of its own.
PROBE = slice(None, None, 8)


@dataclass(frozen=True)
class Imaging:
    """How a specimen is imaged and reconstructed; the defaults are a plain tomogram.

    Attributes
    ----------
    snr : float
        Variance of the signal, gold left out, over that of the noise: in the back-projection with
        its weighting, before low-pass, deconvolution and denoising.
    defocus : float
        µm at the tilt axis, positive is underfocus.
    tilt_range, tilt_shift, tilt_step : float
        Degrees; tilts from ``shift - range`` to ``shift + range``.
    dropped : float
        Share of the tilts that are missing.
    scheme : str
        Order in which the dose is given: one of `SCHEMES`.
    dose : float
        Electrons per Å^2 over all tilts; 0 for no damage.
    thickness : float or None
        Thickness in inelastic mean free paths: noise grows with the way through the ice.
        None for noise of variance 1 / cos(tilt).
    voltage, cs, amplitude : float
        kV, mm, and the share of amplitude contrast.
    defocus_spread, defocus_error : float
        µm, standard deviations from tilt to tilt: of the defocus, and of what is known of it.
    defocus_gradient : bool
        Defocus changes across the tilted image.
    jitter, drift, rotation : float
        Alignment errors, standard deviations: voxels at random, voxels that change slowly over the
        tilts, degrees in the plane of the image.
    noise_fall : float
        Power of the noise at the Nyquist frequency, as a share of that at low frequency.
    outliers : float
        Hot pixels of an image.
    surround : bool
        Matter goes on beyond the field (mirrored), so that tilted views show it.
    missed : float
        Largest share of an image that is lost at one of its borders.
    correction : str
        Of the CTF: one of `CORRECTIONS`; ``ideal`` for images without any.
    sirt_iterations : int
        Weighting as after so many SIRT iterations; 0 for the plain ramp.
    lowpass : str
        One of `LOWPASSES`.
    cutoff, order : float
        Of the low-pass, cycles per voxel and steepness.
    isotropic : bool
        The low-pass is along y too; else across the tilt axis alone.
    sharp : bool
        Undo the blur of the linear interpolation in back-projection: noise is white up to the
        Nyquist frequency, as in a tomogram that was reconstructed finer and binned.
    """

    snr: float = 0.3
    defocus: float = 4.0
    tilt_range: float = 60.0
    tilt_shift: float = 0.0
    tilt_step: float = 3.0
    dropped: float = 0.0
    scheme: str = "dose-symmetric"
    dose: float = 0.0
    thickness: float | None = None
    voltage: float = 300.0
    cs: float = 2.7
    amplitude: float = 0.07
    defocus_spread: float = 0.0
    defocus_error: float = 0.0
    defocus_gradient: bool = False
    jitter: float = 0.3
    drift: float = 0.0
    rotation: float = 0.0
    noise_fall: float = 1.0
    outliers: float = 0.0
    surround: bool = False
    missed: float = 0.0
    correction: str = "flip"
    sirt_iterations: int = 0
    lowpass: str = "exponential"
    cutoff: float = 0.42
    order: float = 6.0
    isotropic: bool = False
    sharp: bool = False

    def __post_init__(self):
        """Refuse what cannot be imaged."""
        known = {"scheme": SCHEMES, "correction": CORRECTIONS, "lowpass": LOWPASSES}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} {getattr(self, name)!r} is none of {', '.join(values)}")
        if not self.snr > 0 or not self.tilt_step > 0:
            raise ValueError("snr and tilt_step must be positive")
        if self.tilt_range + abs(self.tilt_shift) >= 90:
            raise ValueError("no view is possible at 90 degrees")


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


def surrounded_projection(depth: int, width: int, tilt: float) -> sparse.csr_matrix:
    """Return the projection of an XZ plane that goes on, mirrored, beyond its borders in x.

    Each ray is sampled once in every layer of z, so that an even layer has an even image: rays
    that voxels are spread on would show fringes where the two grids beat.

    Parameters
    ----------
    depth, width : int
        Voxels in z and x.
    tilt : float
        Degrees.

    Returns
    -------
    scipy.sparse.csr_matrix
        ``(width, depth * width)``.
    """
    angle = np.deg2rad(tilt)
    ray, z = np.mgrid[:width, :depth]
    place = (ray - (width - 1) / 2 - (z - (depth - 1) / 2) * np.sin(angle)) / np.cos(angle)
    place += (width - 1) / 2
    low = np.floor(place).astype(int)
    share = place - low
    # Mirrored, with a period of twice the width.
    columns = np.stack([low, low + 1]) % (2 * width)
    columns = np.where(columns >= width, 2 * width - 1 - columns, columns) + z * width
    weights = np.stack([1 - share, share]) / np.cos(angle)
    rows = np.broadcast_to(ray, columns.shape)
    return sparse.csr_matrix(
        (weights.ravel().astype(np.float32), (rows.ravel(), columns.ravel())),
        shape=(width, depth * width),
    )


def transfer_of(k2, defocus, voltage=300.0, cs=2.7, amplitude=0.07):
    """Return the CTF of a weak phase object at squared frequencies ``k2`` (1/Å^2)."""
    wavelength = 12.2643 / np.sqrt(voltage * 1e3 + 0.978466 * voltage**2)
    phase = np.pi * wavelength * defocus * 1e4 * k2 - np.pi / 2 * cs * 1e7 * wavelength**3 * k2**2
    return np.sin(phase + np.arcsin(amplitude)).astype(np.float32)


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
    ky = fft.fftfreq(shape[0], voxel_size)[:, None]
    kx = fft.rfftfreq(shape[1], voxel_size)[None]
    return transfer_of(ky**2 + kx**2, defocus, voltage, cs, amplitude)


def tilt_angles(imaging: Imaging, rng: np.random.Generator) -> np.ndarray:
    """Return the tilts in degrees, ascending, without those that are dropped (at least three)."""
    low, high = imaging.tilt_shift - imaging.tilt_range, imaging.tilt_shift + imaging.tilt_range
    tilts = np.arange(low, high + 1e-6, imaging.tilt_step)
    if imaging.dropped:
        kept = rng.random(len(tilts)) >= imaging.dropped
        if kept.sum() >= 3:
            tilts = tilts[kept]
    return tilts


def accumulated_dose(tilts: np.ndarray, scheme: str, dose: float, start: float = 0.0) -> np.ndarray:
    """Return the dose that the specimen had taken when half of each image was taken.

    Parameters
    ----------
    tilts : numpy.ndarray
        Degrees.
    scheme : str
        One of `SCHEMES`: from `start` outwards in turns; from `start` to one end, then to the
        other; or from end to end.
    dose : float
        Electrons per Å^2 over all tilts.
    start : float
        Degrees, where the series begins.

    Returns
    -------
    numpy.ndarray
        Electrons per Å^2, in the order of `tilts`.
    """
    away = tilts - start
    if scheme == "dose-symmetric":
        order = np.argsort(np.abs(away) - 1e-3 * (away > 0), kind="stable")
    elif scheme == "bidirectional":
        order = np.lexsort((np.abs(away), away < 0))
    else:
        order = np.argsort(tilts)
    taken = np.empty(len(tilts))
    taken[order] = (np.arange(len(tilts)) + 0.5) * dose / len(tilts)
    return taken


def damage(k: np.ndarray, dose: float) -> np.ndarray:
    """Return how much of the amplitude is left after a dose (Grant and Grigorieff, eLife 2015).

    Parameters
    ----------
    k : numpy.ndarray
        Frequency, 1/Å.
    dose : float
        Electrons per Å^2, 300 kV.
    """
    critical = 0.24499 * np.maximum(k, 1e-4) ** -1.6649 + 2.8141
    return np.exp(-0.5 * dose / critical).astype(np.float32)


def weighting(width: int, sirt_iterations: int = 0) -> np.ndarray:
    """Return the ramp of weighted back-projection, softened as after some SIRT iterations.

    Parameters
    ----------
    width : int
        Pixels across the tilt axis.
    sirt_iterations : int
        0 for the plain ramp. The form is that of a Landweber iteration, whose response to a
        frequency of weight w after n steps is 1 - (1 - w)^n.
    """
    ramp = np.abs(fft.rfftfreq(width))
    if sirt_iterations:
        ramp = ramp * (1 - (1 - np.minimum(0.02 / (ramp + 1e-6), 1)) ** sirt_iterations)
    return ramp


def low_pass(k: np.ndarray, kind: str, cutoff: float, order: float) -> np.ndarray:
    """Return a low-pass: ``exp(-(k/c)^order)`` or Butterworth (amplitude 0.5 at the cut-off)."""
    if kind == "exponential":
        return np.exp(-((k / cutoff) ** order))
    return 1 / (1 + (k / cutoff) ** (2 * order))


def image_labels(
    density: np.ndarray,
    voxel_size: float,
    rng: np.random.Generator,
    imaging: Imaging | None = None,
    gold: np.ndarray | None = None,
    **changes,
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
    imaging : Imaging, optional
        The conditions.
    gold : numpy.ndarray, optional
        Density of gold beads, which is imaged too but is no part of the signal that `snr` is about.
    **changes
        Conditions that differ from `imaging`.

    Returns
    -------
    numpy.ndarray
        float32, protein bright; mean near 0 and deviation 1 but for the gold.

    Raises
    ------
    ValueError
        A condition is impossible; the density is not 3D.
    """
    if density.ndim != 3:
        raise ValueError(f"the density has {density.ndim} axes, not 3")
    imaging = replace(imaging or Imaging(), **changes)
    depth, height, width = density.shape
    optics = _Optics((height, width), voxel_size, imaging, rng)
    parts = {"all": _planes(density if gold is None else density + gold)}
    if gold is not None:
        parts["plain"] = _planes(density)
    weight = weighting(width, imaging.sirt_iterations).astype(np.float32)
    reference = (weight * low_pass(fft.rfftfreq(width), "exponential", 0.42, 6)).astype(np.float32)
    # Where nothing but the weighting shapes the result, it is itself what the ratio is about.
    direct = gold is None and optics.is_reference
    signal, noise = np.zeros((2, depth * width, height), np.float32)
    probes = np.zeros((2, depth * width, len(range(height)[PROBE])), np.float32)
    for number, tilt in enumerate(optics.tilts):
        back = projection_matrix(depth, width, tilt)
        forward = surrounded_projection(depth, width, tilt) if imaging.surround else back
        seen, plain, grain = optics.images(number, forward, parts, rng)
        back = back.T
        for target, what in ((signal, seen), (noise, grain)):
            target += back @ _filtered(what, optics.kernel(weight, number))
        if not direct:
            for target, what in zip(probes, (plain, grain), strict=True):
                target += back @ _filtered(what[PROBE], reference)
    measured = (signal, noise) if direct else probes
    scale = measured[0].std() / np.sqrt(imaging.snr) / (measured[1].std() + 1e-12)
    total = signal + np.float32(scale) * noise
    # Gold must not squeeze the rest into a narrow range.
    level = total.std() if gold is None else robust_deviation(total)
    return _volume(total / (level + 1e-12), density.shape)


def _planes(density):
    """Return ``(z * x, y)``: one column for each plane across the tilt axis."""
    depth, height, width = density.shape
    return np.ascontiguousarray(density.transpose(0, 2, 1).reshape(depth * width, height))


def _volume(planes, shape):
    """Undo `_planes`."""
    depth, height, width = shape
    volume = planes.reshape(depth, width, height).transpose(0, 2, 1)
    return np.ascontiguousarray(volume, dtype=np.float32)


def robust_deviation(values: np.ndarray) -> float:
    """Return the standard deviation that the middle of the distribution tells."""
    low, high = np.percentile(values.ravel()[::11], [15.87, 84.13])
    return float(high - low) / 2


def _filtered(image, kernel):
    """Return ``(x, y)`` of an image ``(y, x)`` filtered across the tilt axis or in both axes."""
    if kernel.ndim == 1:
        width = image.shape[1]
        return fft.irfft(fft.rfft(image, axis=1) * kernel, n=width, axis=1).T.astype(np.float32)
    return fft.irfft2(fft.rfft2(image) * kernel, s=image.shape).T.astype(np.float32)


class _Optics:
    """What differs from tilt to tilt, and the images that come of it."""

    def __init__(self, shape, voxel_size, imaging, rng):
        self.shape, self.voxel_size, self.imaging = shape, voxel_size, imaging
        self.tilts = tilt_angles(imaging, rng)
        count = len(self.tilts)
        self.defocus = np.full(count, float(imaging.defocus))
        if imaging.defocus_spread:
            self.defocus = self.defocus + rng.normal(scale=imaging.defocus_spread, size=count)
            self.defocus = np.maximum(self.defocus, 0.2)
        self.assumed = self.defocus.copy()
        if imaging.defocus_error:
            self.assumed += rng.normal(scale=imaging.defocus_error, size=count)
        self.drift = _slow(rng, count, imaging.drift) if imaging.drift else np.zeros((count, 2))
        self.turn = np.zeros(count)
        if imaging.rotation:
            self.turn = rng.normal(scale=imaging.rotation, size=count)
        self.dose = accumulated_dose(self.tilts, imaging.scheme, imaging.dose, imaging.tilt_shift)
        self.ky = fft.fftfreq(shape[0])[:, None].astype(np.float32)
        self.kx = fft.rfftfreq(shape[1])[None].astype(np.float32)
        self.k = np.hypot(self.ky, self.kx)
        self.k2 = (self.k / voxel_size) ** 2
        self.mtf = np.exp(-2 * (self.k * 1.2) ** 2)
        along = self.k if imaging.isotropic else self.kx[0]
        self.low = low_pass(along, imaging.lowpass, imaging.cutoff, imaging.order)
        self.low = self.low.astype(np.float32)

    @property
    def is_reference(self):
        """Tell whether the reconstruction's filter is the one that the SNR is defined with."""
        chosen, plain = self.imaging, Imaging()
        names = ("lowpass", "cutoff", "order", "isotropic", "sharp")
        same = all(getattr(chosen, name) == getattr(plain, name) for name in names)
        return same and chosen.correction != "wiener" and not chosen.outliers

    def transfer(self, defocus):
        """Return the CTF on the grid of the images."""
        imaging = self.imaging
        return transfer_of(self.k2, defocus, imaging.voltage, imaging.cs, imaging.amplitude)

    def kernel(self, weight, number):
        """Return weighting, low-pass and Wiener filter of an image, 1D where that is enough."""
        kernel = weight * self.low
        if self.imaging.sharp:
            # Interpolation costs sinc^2 at most and nothing where the grids agree: half of it.
            kernel = kernel / np.sinc(self.kx[0])
        if self.imaging.correction == "wiener":
            # The signal was flipped before; only amplitudes are left to restore.
            transfer = np.abs(self.transfer(self.assumed[number]))
            kernel = kernel * transfer / (transfer**2 + 0.1)
        return kernel

    def images(self, number, forward, parts, rng):
        """Return the signal, the signal without gold, and the noise of an image ``(ny, nx)``."""
        imaging, tilt = self.imaging, np.deg2rad(self.tilts[number])
        shift = rng.normal(scale=imaging.jitter, size=2) + self.drift[number]
        seen = {
            name: self._signal(number, (forward @ planes).T, shift)
            for name, planes in parts.items()
        }
        grain = rng.normal(size=self.shape).astype(np.float32) / np.sqrt(_electrons(imaging, tilt))
        grain = grain.astype(np.float32)
        if imaging.noise_fall != 1:
            fall = np.sqrt(1 - (1 - imaging.noise_fall) * np.minimum(2 * self.k, 1) ** 2)
            grain = fft.irfft2(fft.rfft2(grain) * fall, s=self.shape)
        if imaging.outliers:
            spots = rng.integers(0, grain.size, rng.poisson(imaging.outliers))
            grain.ravel()[spots] += rng.uniform(8, 30, len(spots)) * grain.std()
        seen, grain = self._lose_border(rng, seen, grain)
        return seen["all"], seen.get("plain", seen["all"]), grain

    def _signal(self, number, image, shift):
        """Apply CTF, damage, detector and alignment error to a projection ``(ny, nx)``."""
        if self.turn[number]:
            image = _turned(image, self.turn[number])
        spectrum = fft.rfft2(image)
        dy, dx = shift
        common = np.exp(-2j * np.pi * (self.ky * dy + self.kx * dx)) * self.mtf
        if self.imaging.dose:
            common = common * damage(self.k / self.voxel_size, self.dose[number])
        spectrum = (spectrum * common).astype(np.complex64)
        if not self.imaging.defocus_gradient:
            return self._seen(spectrum, self.defocus[number], self.assumed[number])
        # Between the defocus at both borders the images are blended: the CTF changes little.
        half = self.shape[1] / 2 * self.voxel_size * 1e-4 * np.tan(np.deg2rad(self.tilts[number]))
        share = np.linspace(0, 1, self.shape[1], dtype=np.float32)
        ends = [
            self._seen(spectrum, self.defocus[number] + side, self.assumed[number] + side)
            for side in (-half, half)
        ]
        return ends[0] * (1 - share) + ends[1] * share

    def _seen(self, spectrum, defocus, assumed):
        """Return an image after the CTF and the flip of its phases."""
        if self.imaging.correction == "ideal":
            return fft.irfft2(spectrum, s=self.shape).astype(np.float32)
        transfer = self.transfer(defocus)
        # Correction flips phases only: amplitudes near the zeros stay lost.
        if self.imaging.correction != "none":
            known = transfer if assumed == defocus else self.transfer(assumed)
            transfer = transfer * np.sign(known)
        return fft.irfft2(spectrum * transfer, s=self.shape).astype(np.float32)

    def _lose_border(self, rng, seen, grain):
        """Fill one border of the images with their mean, as where alignment moved them away."""
        if not self.imaging.missed:
            return seen, grain
        axis, side = rng.integers(2, size=2)
        lost = int(rng.uniform(0, self.imaging.missed) * self.shape[axis])
        if not lost:
            return seen, grain
        span = slice(0, lost) if side else slice(self.shape[axis] - lost, None)
        where = (span, slice(None)) if axis == 0 else (slice(None), span)
        for image in (*seen.values(), grain):
            image[where] = image.mean()
        return seen, grain


def _slow(rng, count, deviation):
    """Return errors ``(count, 2)`` that change slowly and are 0 on average."""
    way = ndimage.gaussian_filter1d(rng.normal(size=(count, 2)), max(count / 8, 1), axis=0)
    way -= way.mean(axis=0)
    return way * deviation / (way.std() + 1e-9)


def _turned(image, angle):
    """Return an image turned about its middle, linear interpolation."""
    angle = np.deg2rad(angle)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = (np.array(image.shape) - 1) / 2
    return ndimage.affine_transform(
        image, turn, middle - turn @ middle, order=1, mode="nearest", output=np.float32
    )


def _electrons(imaging, tilt):
    """Return the share of electrons that come through at a tilt (radians), 1 where untilted."""
    if imaging.thickness is None:
        return np.cos(tilt)
    return np.exp(-imaging.thickness * (1 / np.cos(tilt) - 1))
