import json

import numpy as np
import pytest
from scipy import fft, ndimage

from tomocensus.io import read_volume
from tomocensus.simulate import KINDS, image_labels, simulate_tomogram, write_dataset
from tomocensus.simulate.microscope import contrast_transfer, projection_matrix

SMALL = {"shape": (24, 64, 64), "voxel_size": 20.0}


def ball(shape, radius):
    grid = np.indices(shape) - (np.array(shape).reshape(-1, 1, 1, 1) - 1) / 2
    return (np.sqrt((grid**2).sum(axis=0)) <= radius).astype(np.float32)


@pytest.fixture(scope="module")
def made():
    return simulate_tomogram(3, **SMALL)


@pytest.mark.parametrize("tilt", [-60, -20, 0, 35, 60])
def test_projection_of_a_disc_is_its_chord(tilt):
    width, radius = 81, 25.0
    z, x = np.indices((width, width)) - (width - 1) / 2
    disc = np.clip(radius + 0.5 - np.hypot(z, x), 0, 1).astype(np.float32)
    line = projection_matrix(width, width, tilt) @ disc.ravel()
    place = np.arange(width) - (width - 1) / 2
    chord = 2 * np.sqrt(np.maximum(radius**2 - place**2, 0))
    inside = np.abs(place) < radius - 3
    assert np.abs(line - chord)[inside].max() < 2.0
    assert np.isclose(line.sum(), disc.sum(), rtol=1e-4)


def test_projection_turns_with_the_tilt():
    plane = np.zeros((41, 61), np.float32)
    plane[30, 35] = 1  # z = +10, x = +5 from the centre
    for tilt in (-40, 0, 40):
        angle = np.deg2rad(tilt)
        line = projection_matrix(41, 61, tilt) @ plane.ravel()
        expected = 5 * np.cos(angle) + 10 * np.sin(angle) + 30
        assert np.isclose((line * np.arange(61)).sum(), expected, atol=1e-4)


def test_ctf_zeros_lie_where_theory_puts_them():
    # At 300 kV and without Cs and amplitude contrast, zeros are at k^2 = n / (wavelength defocus).
    defocus, wavelength = 3.0, 0.019687
    transfer = contrast_transfer((2, 4096), 4.0, defocus, cs=0.0, amplitude=0.0)[0]
    k = fft.rfftfreq(4096, 4.0)
    crossings = k[1:-1][np.sign(transfer[1:-1]) != np.sign(transfer[2:])]
    expected = np.sqrt(np.arange(1, 5) / (wavelength * defocus * 1e4))
    assert np.allclose(crossings[:4], expected, atol=2 * (k[1] - k[0]))


def test_underfocus_shows_protein_with_one_sign_before_the_first_zero():
    transfer = contrast_transfer((2, 512), 20.0, 2.0)[0]
    first_zero = np.sqrt(1 / (0.019687 * 2e4))
    k = fft.rfftfreq(512, 20.0)
    assert (transfer[k < 0.9 * first_zero] > 0).all()


def test_the_missing_wedge_is_empty(rng):
    density = ball((48, 48, 48), 8) + 0.0
    image = image_labels(density, 20.0, rng, snr=1e6, defocus=0.5, tilt_range=50, tilt_step=2)
    window = np.hanning(48)
    image = image * window[:, None, None] * window[:, None] * window
    power = np.abs(np.fft.fftn(image)) ** 2
    kz, _, kx = np.meshgrid(*[np.fft.fftfreq(48)] * 3, indexing="ij")
    radius = np.hypot(kz, kx)
    shell = (radius > 0.1) & (radius < 0.3)
    # A view tilted by t fills the line at t from the kx axis.
    angle = np.rad2deg(np.arctan2(np.abs(kz), np.abs(kx)))
    assert power[shell & (angle > 65)].mean() < 0.02 * power[shell & (angle < 40)].mean()


@pytest.mark.parametrize("snr", [0.05, 0.5])
def test_the_asked_snr_is_reached(snr):
    density = ball((24, 64, 64), 9)
    settings = {"jitter": 0.0, "defocus": 2.0}
    clean = image_labels(density, 20.0, np.random.default_rng(1), snr=1e9, **settings)
    noisy = image_labels(density, 20.0, np.random.default_rng(1), snr=snr, **settings)
    # The correlation of signal + noise with signal alone tells their variances.
    share = np.corrcoef(clean.ravel(), noisy.ravel())[0, 1] ** 2
    assert np.isclose(share / (1 - share), snr, rtol=0.15)


def test_matter_is_bright_before_polarity_is_applied(rng):
    density = ball((32, 64, 64), 8)
    image = image_labels(density, 20.0, rng, snr=10, defocus=4.0)
    assert image[density > 0].mean() > image[density == 0].mean() + 0.5


def test_the_same_seed_gives_the_same_voxels(made):
    again = simulate_tomogram(3, **SMALL)
    assert np.array_equal(made.tomogram.data, again.tomogram.data)
    assert np.array_equal(made.instances.data, again.instances.data)
    assert made.classes == again.classes
    other = simulate_tomogram(4, **SMALL)
    assert not np.array_equal(made.tomogram.data, other.tomogram.data)


def test_polarity_only_turns_the_sign():
    settings = {"encoding": "float32", "scale": 3.0, "offset": 0.0, **SMALL}
    bright = simulate_tomogram(5, polarity="bright", **settings)
    dark = simulate_tomogram(5, polarity="dark", **settings)
    assert np.array_equal(bright.tomogram.data, -dark.tomogram.data)
    assert dark.polarity == dark.parameters["polarity"] == "dark"


@pytest.mark.parametrize("seed", [3, 11])
@pytest.mark.parametrize("voxel_size", [8.0, 16.0, 25.0])
def test_truth_is_complete(seed, voxel_size):
    made = simulate_tomogram(seed, shape=(32, 96, 96), voxel_size=voxel_size, tilt_step=10)
    labels = made.instances.data
    numbers = np.unique(labels[labels > 0])
    assert len(numbers) > 0
    assert np.array_equal(numbers, np.arange(1, len(numbers) + 1))
    assert set(made.classes) == set(numbers.tolist())
    assert set(made.classes.values()) <= set(KINDS)
    assert made.tomogram.data.dtype == np.float32
    assert labels.dtype == np.int32
    assert np.isfinite(made.tomogram.data).all()
    assert (labels[made.membrane] > 0).all()
    assert made.tomogram.voxel_size == made.instances.voxel_size == voxel_size
    bilayered = [n for n, kind in made.classes.items() if kind in ("vesicle", "mitochondrion")]
    assert all(made.membrane[labels == number].any() for number in bilayered)


def test_objects_are_solid_and_denser_than_their_surroundings():
    made = simulate_tomogram(20, preset="demo", shape=(40, 128, 128), tilt_step=10)
    labels = made.instances.data
    for number, kind in made.classes.items():
        if kind not in ("vesicle", "virus_like_particle", "dense_body", "ribosome"):
            continue
        mask = labels == number
        assert np.array_equal(ndimage.binary_fill_holes(mask) & (labels == 0), np.zeros_like(mask))
        assert made.density[mask].mean() > made.density[labels == 0].mean()


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="preset 'moon'"):
        simulate_tomogram(1, preset="moon")
    with pytest.raises(ValueError, match="'defocuss'"):
        simulate_tomogram(1, defocuss=3)


def test_a_written_data_set_is_the_simulated_one(tmp_path):
    made = write_dataset(tmp_path / "a", 7, **SMALL)
    tomogram = read_volume(tmp_path / "a" / "tomogram.mrc")
    assert np.array_equal(tomogram.data, made.tomogram.data)
    assert tomogram.voxel_size == pytest.approx(20.0)
    instances = read_volume(tmp_path / "a" / "instances.mrc")
    assert np.array_equal(instances.data, made.instances.data)
    membrane = read_volume(tmp_path / "a" / "membrane.mrc")
    assert np.array_equal(membrane.data > 0, made.membrane)
    rows = (tmp_path / "a" / "classes.csv").read_text().splitlines()
    assert rows[0] == "instance,class"
    assert dict(row.split(",") for row in rows[1:]) == {
        str(number): kind for number, kind in made.classes.items()
    }
    assert json.loads((tmp_path / "a" / "parameters.json").read_text())["seed"] == 7
