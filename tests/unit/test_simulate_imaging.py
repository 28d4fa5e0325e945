"""The microscope and what comes after it, on densities whose image is known."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from tomocensus.simulate import Imaging, image_labels
from tomocensus.simulate.finish import deconvolve, denoise, encode, fill_wedge, shade
from tomocensus.simulate.microscope import (
    CORRECTIONS,
    _electrons,
    _Optics,
    _slow,
    _turned,
    accumulated_dose,
    contrast_transfer,
    damage,
    low_pass,
    projection_matrix,
    surrounded_projection,
    tilt_angles,
    transfer_of,
    weighting,
)

PLAIN = {"jitter": 0.0, "tilt_step": 4.0}
STILL = {"jitter": 0.0, "correction": "none"}


def spots(shape=(24, 64, 64), count=40, seed=0):
    rng = np.random.default_rng(seed)
    field = np.zeros(shape, np.float32)
    field[tuple(rng.integers(4, np.array(shape)[:, None] - 4, (3, count)))] = 1
    return ndimage.gaussian_filter(field, 1.5) * 20


def image(density, seed=1, **settings):
    return image_labels(density, 15.0, np.random.default_rng(seed), **settings)


def snr_of(noisy, clean):
    share = np.corrcoef(clean.ravel(), noisy.ravel())[0, 1] ** 2
    return share / (1 - share)


def rings(data):
    """Power of the XY slices by ring, 1/64 cycles a voxel wide."""
    power = (np.abs(np.fft.fft2(data - data.mean())) ** 2).mean(axis=0)
    ky, kx = np.meshgrid(*[np.fft.fftfreq(n) for n in data.shape[1:]], indexing="ij")
    ring = np.rint(np.hypot(ky, kx) * 64).astype(int)
    return np.bincount(ring.ravel(), power.ravel())[:32] / np.bincount(ring.ravel())[:32]


def gap_in_xz(data, low, high):
    """Power at the directions low..high (degrees from kx, signed) beside that around 0."""
    window = np.hanning(data.shape[0])[:, None, None] * np.hanning(data.shape[2])
    power = (np.abs(np.fft.fftn(data * window, axes=(0, 2))) ** 2).mean(axis=1)
    kz, kx = np.meshgrid(
        np.fft.fftfreq(data.shape[0]), np.fft.fftfreq(data.shape[2]), indexing="ij"
    )
    radius, angle = np.hypot(kz, kx), np.rad2deg(np.arctan2(kz, kx))
    angle = (angle + 90) % 180 - 90
    shell = (radius > 0.1) & (radius < 0.3)
    inside = shell & (angle > low) & (angle < high)
    return power[inside].mean() / power[shell & (np.abs(angle) < 25)].mean()


@pytest.fixture(scope="module")
def white():
    return np.random.default_rng(5).normal(size=(24, 64, 64)).astype(np.float32)


def test_an_asymmetric_tilt_range_leaves_an_asymmetric_wedge(rng):
    noise = rng.normal(size=(64, 8, 64)).astype(np.float32)
    made = image(noise, snr=1e6, defocus=0.3, tilt_range=50, tilt_shift=15, tilt_step=2)
    # Views from -35 to +65 degrees.
    sides = gap_in_xz(made, 45, 58), gap_in_xz(made, -58, -45)
    assert max(sides) > 10 * min(sides)
    assert gap_in_xz(made, 75, 88) < 0.05


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("sirt", [0, 12])
def test_the_asked_snr_is_reached_under_every_correction(correction, sirt):
    density = spots()
    settings = {**PLAIN, "correction": correction, "sirt_iterations": sirt, "defocus": 1.0}
    clean, noisy = (image(density, snr=snr, **settings) for snr in (1e9, 0.3))
    # The Wiener filter changes signal and noise after the ratio is set.
    assert np.isclose(snr_of(noisy, clean), 0.3, rtol=0.5 if correction == "wiener" else 0.15)


def test_gold_does_not_dominate_the_ratio():
    density, gold = spots(), np.zeros((24, 64, 64), np.float32)
    gold[10:14, 30:34, 30:34] = 40
    without = image(density, snr=0.3, **PLAIN)
    with_gold = image(density, snr=0.3, gold=gold, **PLAIN)
    clean = image(density, snr=1e9, **PLAIN)
    away = np.ones(gold.shape, bool)
    away[:, 20:44] = False  # streaks run along x and z
    assert with_gold.max() > 5 * without.max()
    assert np.isclose(snr_of(with_gold[away], clean[away]), snr_of(without[away], clean[away]), 0.2)
    # What is away from the bead is not squeezed into a narrow range.
    assert with_gold[away].std() > 0.7 * without[away].std()


def test_dose_takes_fine_detail_first(white):
    k = np.array([0.01, 0.05, 0.1])
    left = damage(k, 60.0)
    assert (np.diff(left) < 0).all()
    # Critical dose at 0.1/Å is 0.24499 * 0.1**-1.6649 + 2.8141 electrons per square Å.
    assert np.isclose(left[2], np.exp(-30 / (0.24499 * 0.1**-1.6649 + 2.8141)))
    fine = []
    for scheme in ("dose-symmetric", "continuous"):
        kept = seen_power(white, dose=400.0, scheme=scheme) / seen_power(white)
        fine.append(kept[20:28].mean() / kept[2:5].mean())
    # Untilted views hold most of the detail: it lives where they are taken first.
    assert fine[1] < 0.8 * fine[0] < 0.5


def test_the_scheme_says_which_tilts_come_late():
    tilts = np.arange(-60, 61, 3.0)
    symmetric = accumulated_dose(tilts, "dose-symmetric", 120.0)
    assert symmetric[20] == symmetric.min()
    assert set(np.argsort(symmetric)[-2:]) == {0, 40}
    both = accumulated_dose(tilts, "bidirectional", 120.0)
    assert both[20] == both.min()
    assert both[0] == both.max()
    assert (both[:20] > both[20:].max()).all()
    assert (np.diff(accumulated_dose(tilts, "continuous", 120.0)) > 0).all()
    for taken in (symmetric, both):
        assert np.allclose(np.sort(taken), (np.arange(41) + 0.5) * 120 / 41)


def test_tilts_are_shifted_stepped_and_dropped(rng):
    tilts = tilt_angles(Imaging(tilt_range=50, tilt_shift=10, tilt_step=2), rng)
    assert (tilts[0], tilts[-1], len(tilts)) == (-40, 60, 51)
    fewer = tilt_angles(Imaging(tilt_range=50, tilt_step=2, dropped=0.3), rng)
    assert 20 < len(fewer) < 48
    assert set(fewer) <= set(np.arange(-50, 51, 2.0))


def seen_power(density, **settings):
    """What the microscope lets through, ring by ring."""
    return rings(image(density, snr=1e6, **{**PLAIN, **settings})) / rings(density)


def test_defocus_moves_the_zeros_of_the_spectrum(white):
    damping = np.exp(-4 * (np.arange(32) / 64 * 1.2) ** 2)
    expected = {
        defocus: damping * contrast_transfer((64, 64), 15.0, defocus)[0, :32] ** 2
        for defocus in (6.0, 12.0)
    }
    for defocus, other in ((6.0, 12.0), (12.0, 6.0)):
        power = seen_power(white, defocus=defocus, correction="none")[4:26]
        assert np.corrcoef(power, expected[defocus][4:26])[0, 1] > 0.7
        assert np.corrcoef(power, expected[other][4:26])[0, 1] < 0.5


@pytest.mark.parametrize("error", [{"jitter": 1.5}, {"drift": 2.0}, {"rotation": 3.0}])
def test_alignment_errors_blur(white, error):
    sharp, blurred = seen_power(white), seen_power(white, **error)
    kept = blurred / sharp
    assert kept[20:28].mean() < 0.8 * kept[2:5].mean()


def test_thick_ice_makes_high_tilts_noisy():
    shape = (48, 32, 48)
    density = spots(shape)
    thin, thick = (
        image(density, snr=1e-6, thickness=value, tilt_step=3, jitter=0.0) for value in (0.05, 2.5)
    )
    assert gap_in_xz(thick, 48, 58) > 3 * gap_in_xz(thin, 48, 58)


def test_the_detectors_noise_falls_off_as_asked():
    density = spots()
    white, falling = (
        rings(image(density, snr=1e-6, noise_fall=fall, isotropic=False, **PLAIN))
        for fall in (1.0, 0.3)
    )
    ratio = falling / white
    ratio /= ratio[1:5].mean()
    assert np.isclose(ratio[28:32].mean(), 1 - 0.7 * (30 / 32) ** 2, atol=0.12)


@pytest.mark.parametrize("tilt", [-65, -20, 0, 41, 60])
def test_an_even_layer_that_goes_on_has_an_even_image(tilt):
    line = surrounded_projection(24, 64, tilt) @ np.ones(24 * 64, np.float32)
    assert np.allclose(line, 24 / np.cos(np.deg2rad(tilt)), rtol=1e-4)


def test_a_surrounded_view_shows_the_field_where_both_see_it():
    plane = spots((25, 16, 65), 200)[:, 8].ravel()
    for tilt in (-30, 0, 30):
        alone, beyond = (
            project(25, 65, tilt) @ plane for project in (projection_matrix, surrounded_projection)
        )
        assert np.corrcoef(alone[20:45], beyond[20:45])[0, 1] > 0.98
        assert np.isclose(alone[20:45].sum(), beyond[20:45].sum(), rtol=0.05)


def test_lost_borders_are_flat_and_hot_pixels_leave_streaks():
    density = spots()
    whole = image(density, snr=0.5, **PLAIN)
    assert np.abs(image(density, snr=0.5, missed=0.3, **PLAIN) - whole).max() > 0.5
    clean, hot = (image(density, snr=1e-4, outliers=count, **PLAIN) for count in (0, 3))
    assert np.abs(hot).max() > 1.5 * np.abs(clean).max()


def test_the_same_generator_gives_the_same_image():
    settings = {
        "dose": 100.0,
        "defocus_spread": 0.2,
        "defocus_error": 0.1,
        "defocus_gradient": True,
        "rotation": 0.3,
        "drift": 0.5,
        "dropped": 0.1,
        "outliers": 1.0,
        "missed": 0.1,
        "surround": True,
        "noise_fall": 0.5,
    }
    density = spots((24, 61, 63))
    first, second = (image(density, seed=4, **settings) for _ in range(2))
    assert first.shape == density.shape
    assert np.array_equal(first, second)
    assert not np.array_equal(first, image(density, seed=5, **settings))


@pytest.mark.parametrize(
    "wrong",
    [
        {"scheme": "spiral"},
        {"correction": "magic"},
        {"lowpass": "brick"},
        {"snr": 0.0},
        {"tilt_step": 0.0},
        {"tilt_range": 80.0, "tilt_shift": 12.0},
    ],
)
def test_impossible_imaging_is_refused(wrong):
    with pytest.raises(ValueError):
        Imaging(**wrong)
    with pytest.raises(ValueError, match="2 axes"):
        image_labels(np.zeros((3, 3)), 10.0, np.random.default_rng(0))


@pytest.mark.parametrize("voltage", [300.0, 200.0])
def test_deconvolution_restores_what_the_ctf_hid(voltage):
    density = spots((24, 96, 96), 60)
    raw = image(density, snr=50, defocus=5.0, correction="none", voltage=voltage, **PLAIN)
    restored = deconvolve(raw, 15.0, 5.0, voltage=voltage)
    truth = density - ndimage.gaussian_filter(density, 8)
    before, after = (np.corrcoef(truth.ravel(), x.ravel())[0, 1] for x in (raw, restored))
    assert after > before + 0.05


@pytest.mark.parametrize("method", ["gaussian", "shrinkage", "diffusion"])
def test_denoising_brings_a_noisy_volume_closer_to_the_truth(method, rng):
    truth = ndimage.gaussian_filter(spots(), 1)
    truth /= truth.std()
    noisy = (truth + rng.normal(size=truth.shape)).astype(np.float32)
    before = noisy.copy()
    done = denoise(noisy, method)
    assert np.corrcoef(done.ravel(), truth.ravel())[0, 1] > 0.8
    assert np.corrcoef(noisy.ravel(), truth.ravel())[0, 1] < 0.75
    assert np.array_equal(noisy, before)
    with pytest.raises(ValueError, match="'magic'"):
        denoise(noisy, "magic")


def test_encoding_clips_and_rounds(rng):
    data = rng.normal(size=(8, 16, 16)).astype(np.float32) * 2
    bytes_ = encode(data, "uint8", 3.0, 1.0, 0.0)
    assert bytes_.dtype == np.float32
    assert set(np.unique(bytes_)) <= set(range(256))
    assert (bytes_.min(), bytes_.max()) == (1, 255)
    words = encode(data, "int16", 3.0, 1.0, 0.0)
    assert np.array_equal(words, np.rint(words))
    assert np.allclose(words / 1000, np.clip(data, -3, 3), atol=1e-3)
    floats = encode(data, "float32", 0.0, 2.0, 5.0)
    assert np.allclose(floats, 2 * data + 5)
    with pytest.raises(ValueError, match="needs a clip"):
        encode(data, "uint8", 0.0, 1.0, 0.0)
    with pytest.raises(ValueError, match="'bmp'"):
        encode(data, "bmp", 3.0, 1.0, 0.0)


def test_shading_is_smooth_and_of_the_asked_strength(rng):
    flat = np.zeros((16, 64, 64), np.float32)
    shaded = shade(flat, rng, background=0.5, gain=0.0)
    assert np.isclose(shaded.std(), 0.5, rtol=0.02)
    assert max(np.abs(np.diff(shaded, axis=axis)).max() for axis in range(3)) < 0.2


@pytest.mark.parametrize("voltage", [120.0, 200.0, 300.0])
def test_the_ctf_is_that_of_the_textbook(voltage):
    planck, mass, charge, light = 6.62607015e-34, 9.1093837e-31, 1.602176634e-19, 299792458.0
    energy = charge * voltage * 1e3
    momentum = np.sqrt(2 * mass * energy * (1 + energy / (2 * mass * light**2)))
    wavelength = planck / momentum * 1e10
    k = np.linspace(0, 0.2, 200)
    phase = np.pi * wavelength * 3e4 * k**2 - np.pi / 2 * 2.7e7 * wavelength**3 * k**4
    expected = np.sqrt(1 - 0.1**2) * np.sin(phase) + 0.1 * np.cos(phase)
    assert np.allclose(transfer_of(k**2, 3.0, voltage, 2.7, 0.1), expected, atol=2e-3)


def test_the_weighting_rises_from_sirts_to_the_ramp():
    ramp = weighting(64)
    assert np.array_equal(ramp, np.arange(33) / 64)
    steps = [weighting(64, count) for count in (1, 5, 40, 3000)]
    assert np.allclose(steps[0], np.minimum(ramp, 0.02), rtol=1e-3)
    # Each step adds what is left of the ramp times the frequency's weight.
    assert np.allclose(steps[1][1:], ramp[1:] * (1 - (1 - steps[0] / ramp.clip(1e-9))[1:] ** 5))
    assert all((one <= two + 1e-9).all() for one, two in itertools.pairwise([*steps, ramp]))
    assert np.allclose(steps[-1], ramp, rtol=1e-3)


def test_low_passes_fall_at_their_cutoff():
    k = np.array([0.0, 0.1, 0.2, 0.4])
    assert np.allclose(low_pass(k, "butterworth", 0.2, 4), [1, 256 / 257, 0.5, 1 / 257])
    assert np.allclose(low_pass(k, "exponential", 0.2, 2), np.exp([0, -0.25, -1, -4]))


@pytest.mark.parametrize("side", [8, 9])
def test_an_image_turns_about_its_middle(rng, side):
    plane = rng.normal(size=(side, side)).astype(np.float32)
    assert np.allclose(_turned(plane, 90), np.rot90(plane, -1), atol=1e-4)
    assert np.allclose(_turned(plane, 180), plane[::-1, ::-1], atol=1e-4)


def test_defocus_changes_across_a_tilted_image_as_its_height_does(rng):
    plain, sloped = (
        _Optics((32, 64), 15.0, Imaging(tilt_step=30, defocus_gradient=on, **STILL), rng)
        for on in (False, True)
    )
    picture = ndimage.gaussian_filter(rng.normal(size=(32, 64)), 2).astype(np.float32)
    untilted = plain.tilts.tolist().index(0)
    one, two = (optics._signal(untilted, picture, (0, 0)) for optics in (plain, sloped))
    assert np.allclose(one, two, atol=1e-5)
    found = sloped._signal(untilted + 1, picture, (0, 0))
    height = 32 * 15e-4 * np.tan(np.deg2rad(30))
    for column, defocus in ((0, 4 - height), (63, 4 + height)):
        local = _Optics((32, 64), 15.0, Imaging(tilt_step=30, defocus=defocus, **STILL), rng)
        assert np.allclose(
            local._signal(0, picture, (0, 0))[:, column], found[:, column], atol=1e-5
        )


def test_errors_of_alignment_move_the_image_by_as_much(rng):
    optics = _Optics((32, 64), 15.0, Imaging(tilt_step=30, dose=90.0, **STILL), rng)
    picture = rng.normal(size=(32, 64)).astype(np.float32)
    moved = optics._signal(2, picture, (3, -5))
    still = optics._signal(2, picture, (0, 0))
    k = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.rfftfreq(64))
    # The third of five tilts is the first to be taken.
    factor = contrast_transfer((32, 64), 15.0, 4.0) * damage(k / 15, 9.0) * np.exp(-2.88 * k**2)
    expected = np.fft.irfft2(np.fft.rfft2(picture) * factor, s=(32, 64))
    assert np.allclose(still, expected, atol=1e-4)
    assert np.allclose(moved, np.roll(still, (3, -5), axis=(0, 1)), atol=1e-4)
    drift = _slow(rng, 41, 2.0)
    assert np.allclose(drift.mean(axis=0), 0, atol=1e-9)
    assert np.isclose(drift.std(), 2)
    assert np.abs(np.diff(drift, axis=0)).max() < 2


def test_phases_are_flipped_where_the_assumed_defocus_says(rng):
    spectrum = np.fft.rfft2(rng.normal(size=(32, 48)))
    true, assumed = (contrast_transfer((32, 48), 15.0, value) for value in (4.0, 3.0))
    for correction, factor in (("none", true), ("flip", true * np.sign(assumed)), ("ideal", 1)):
        optics = _Optics((32, 48), 15.0, Imaging(correction=correction), rng)
        seen = optics._seen(spectrum, 4.0, 3.0)
        assert np.allclose(seen, np.fft.irfft2(spectrum * factor, s=(32, 48)), atol=1e-4)


def test_one_border_is_lost_and_nothing_else(rng):
    optics = _Optics((20, 30), 15.0, Imaging(missed=0.4), rng)
    sides = set()
    for _ in range(60):
        before, grain = rng.normal(size=(2, 20, 30))
        seen, other = optics._lose_border(rng, {"all": before.copy()}, grain.copy())
        lost = seen["all"] != before
        assert np.array_equal(lost, other != grain)
        rows, columns = np.nonzero(lost.any(axis=1))[0], np.nonzero(lost.any(axis=0))[0]
        if not len(rows):
            continue
        assert lost[np.ix_(rows, columns)].all()
        assert np.allclose(seen["all"][lost], before.mean())
        axis = 0 if len(columns) == 30 else 1
        assert (len(rows), len(columns))[1 - axis] == (20, 30)[1 - axis]
        assert (len(rows) / 20, len(columns) / 30)[axis] <= 0.4
        sides.add((axis, (rows, columns)[axis][0] == 0))
    assert len(sides) == 4


def test_electrons_that_come_through_are_fewer_at_high_tilt():
    tilt = np.deg2rad(60)
    assert np.isclose(_electrons(Imaging(), tilt), 0.5)
    assert np.isclose(_electrons(Imaging(thickness=0.7), tilt), np.exp(-0.7))
    assert _electrons(Imaging(thickness=0.7), 0.0) == 1


def test_deconvolution_is_a_wiener_filter_of_a_falling_ratio():
    point = np.zeros((24, 40, 32), np.float32)
    point[0, 0, 0] = 1
    found = np.fft.rfftn(deconvolve(point, 15.0, 4.0, strength=0.8, fall=0.7))
    assert np.abs(found.imag).max() < 1e-4
    kz, ky, kx = np.meshgrid(
        np.fft.fftfreq(24), np.fft.fftfreq(40), np.fft.rfftfreq(32), indexing="ij"
    )
    k = np.sqrt(kz**2 + ky**2 + kx**2)
    transfer = transfer_of((k / 15.0) ** 2, 4.0)
    ratio = 10**2.4 * np.exp(-200 * 0.7 * k / 15.0)
    ratio *= np.sin(np.pi / 2 * np.minimum(1, k / 0.02)) ** 2
    expected = transfer * ratio / (transfer**2 * ratio + 1)
    assert np.corrcoef(found.real.ravel(), expected.ravel())[0, 1] > 0.999
    assert np.abs(found.real - expected).mean() < 0.02 * np.abs(expected).mean()


@pytest.mark.parametrize("method", ["gaussian", "shrinkage", "diffusion"])
def test_denoising_knows_no_unit_and_no_direction(method, rng):
    data = rng.normal(size=(13, 13, 13)).astype(np.float32)
    done = denoise(data, method, 0.7)
    assert np.allclose(denoise(data * 8 + 3, method, 0.7), done * 8 + 3, atol=1e-4)
    for axis in range(3):
        assert np.allclose(
            denoise(np.flip(data, axis), method, 0.7), np.flip(done, axis), atol=1e-4
        )
    if method != "shrinkage":
        assert np.isclose(done.sum(), data.sum(), atol=0.05)


def test_a_filled_wedge_brings_its_share_of_the_specimen(rng):
    density, data = spots(), rng.normal(size=(24, 64, 64)).astype(np.float32)
    assert np.array_equal(fill_wedge(data, density, 0.0), data)
    whole = fill_wedge(data, density, 1.0)
    assert np.isclose(whole.std(), 1, atol=1e-3)
    assert np.corrcoef(whole.ravel(), density.ravel())[0, 1] > 0.9
    assert np.allclose(fill_wedge(data, density, 0.3), 0.7 * data + 0.3 * whole, atol=1e-5)


def test_contrast_changes_by_a_factor_of_the_asked_spread(rng):
    shaded = shade(np.full((16, 64, 64), -2.0, np.float32), rng, background=0.0, gain=0.3)
    factor = np.log(shaded / -2)
    assert np.isclose(factor.mean(), 0, atol=1e-3)
    assert np.isclose(factor.std(), 0.3, rtol=0.01)
