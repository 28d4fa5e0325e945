import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import fft, ndimage

from tomocensus.io import read_volume
from tomocensus.samples import load_config, read_samples
from tomocensus.simulate import (
    KINDS,
    Imaging,
    image_labels,
    plain,
    simulate_from_labels,
    simulate_tomogram,
    write_dataset,
)
from tomocensus.simulate.__main__ import main as simulate_command
from tomocensus.simulate.conditions import CONDITIONS, draw_conditions
from tomocensus.simulate.finish import DENOISERS, ENCODINGS
from tomocensus.simulate.microscope import (
    CORRECTIONS,
    SCHEMES,
    contrast_transfer,
    projection_matrix,
)
from tomocensus.simulate.scenes import FIELD
from tomocensus.volume import Volume

SMALL = {"shape": (20, 48, 48), "voxel_size": 20.0}


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
    made = simulate_tomogram(seed, shape=(24, 64, 64), voxel_size=voxel_size, tilt_step=10)
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


@pytest.fixture(scope="module")
def crowd():
    """Fields that together hold every kind; small, coarse, quick."""
    volume = 32 * 112 * 112 * 20.0**3 / FIELD
    abundance = {kind: 3 / count / volume for kind, (_, count) in KINDS.items()}
    abundance["ribosome"] *= 20
    abundance["particle"] *= 20
    abundance["autophagosome"] *= 2
    settings = {
        "shape": (32, 112, 112),
        "voxel_size": 20.0,
        "tilt_step": 20,
        "lamella": 1.0,
        "occupied": 0.9,
    }
    return [simulate_tomogram(seed, abundance=abundance, **settings) for seed in range(6)]


def test_every_kind_appears(crowd):
    assert {kind for made in crowd for kind in made.classes.values()} == set(KINDS)


def test_every_membrane_lies_on_an_object_that_has_one(crowd):
    bare = {"lipid_droplet", "dense_body", "microtubule", "actin", "ribosome", "particle", "gold"}
    for made in crowd:
        kinds = np.array(["", *made.classes.values()])
        assert not set(kinds[made.instances.data[made.membrane]]) & {"", *bare}


def test_nested_objects_lie_inside_their_hosts(crowd):
    nested = 0
    for made in crowd:
        labels = made.instances.data
        boxes = ndimage.find_objects(labels)
        for number in made.classes:
            mask = np.pad(labels[boxes[number - 1]] == number, 1)
            room = ndimage.binary_fill_holes(mask) & ~mask
            guests = np.pad(labels[boxes[number - 1]], 1)[room]
            for guest in np.unique(guests[guests > 0]):
                nested += 1
                # All of the guest, and its membrane is not the host's.
                assert (guests == guest).sum() == (labels == guest).sum()
                assert not made.membrane[ndimage.binary_dilation(labels == guest)][
                    labels[ndimage.binary_dilation(labels == guest)] == number
                ].any()
    assert nested > 2


def test_a_lamella_is_empty_above_and_below_and_its_truth_too():
    settings = {"shape": (40, 64, 64), "voxel_size": 20.0, "tilt_step": 20, "ice": 0}
    made = simulate_tomogram(2, lamella=0.6, rise=0.05, curtains=0.1, carbon=False, **settings)
    whole = simulate_tomogram(2, lamella=1.0, carbon=False, **settings)
    assert (made.density[[0, -1]] == 0).mean() > 0.9
    assert not made.instances.data[[0, -1]].any()
    assert not made.membrane[[0, -1]].any()
    assert made.density[20].mean() > 0.2
    cut = (made.instances.data > 0).sum() / (whole.instances.data > 0).sum()
    assert 0.4 < cut < 0.95


def test_conditions_change_the_image_but_not_the_truth():
    one = simulate_tomogram(6, lamella=1.0, **SMALL)
    other = simulate_tomogram(6, lamella=1.0, cytosol=0.5, snr=0.05, dose=0.0, ice=3, **SMALL)
    assert np.array_equal(one.instances.data, other.instances.data)
    assert np.array_equal(one.membrane, other.membrane)
    assert not np.array_equal(one.tomogram.data, other.tomogram.data)
    json.dumps(one.parameters)


def test_wide_conditions_are_drawn():
    drawn = [
        draw_conditions(np.random.default_rng(seed), 1000.0, {"voxel_size": 12.0, "tilt_range": 60})
        for seed in range(200)
    ]
    assert {made["correction"] for made in drawn} == set(CORRECTIONS)
    assert {made["denoiser"] for made in drawn} == set(DENOISERS)
    assert {made["encoding"] for made in drawn} == set(ENCODINGS)
    assert {made["scheme"] for made in drawn} == set(SCHEMES)
    assert min(made["tilt_step"] for made in drawn) == 1
    assert max(made["tilt_step"] for made in drawn) == 5
    assert 0.2 < np.mean([made["lamella"] < 1 for made in drawn]) < 0.6
    plain = [made for made in drawn if made["correction"] == "ideal"]
    assert 0.05 < len(plain) / 200 < 0.25
    assert not any(made["proteins"] or made["ice"] or made["gain"] for made in plain)
    # Deconvolution in three dimensions is for what was not corrected before.
    assert all(made["correction"] == "none" for made in drawn if made["deconvolution"])
    assert all(made["clip"] for made in drawn if made["encoding"] != "float32")


def test_the_demo_is_plain():
    made = simulate_tomogram(20, preset="demo", shape=(16, 48, 48), tilt_step=10)
    assert not set(made.parameters) & (set(CONDITIONS) - set(Imaging.__dataclass_fields__))
    assert made.parameters.get("dose", 0.0) == 0.0


def test_labels_of_real_membranes_are_imaged():
    _, y, x = np.indices((24, 64, 64))
    away = np.hypot(y - 32, x - 32)
    labels = np.where(np.abs(away - 20) < 0.7, 2, np.where(np.abs(away - 14) < 0.7, 1, 0))
    labels[:4] = 0
    settings = {"snr": 5.0, "polarity": "bright", "lamella": 1.0, "gaps": 0.0, "ice": 0}
    settings |= {"carbon": False, "background": 0.0, "deconvolution": 0.0, "around": {"actin": 0}}
    settings |= {"instances": {1: 1, 2: 1}, "classes": {1: "autophagosome"}, "tilt_step": 4}
    made = simulate_from_labels(Volume(labels, 14.0), 3, **settings)
    assert made.classes[1] == "autophagosome"
    truth = made.instances.data == 1
    assert truth[labels > 0].mean() > 0.98
    assert np.array_equal(truth & made.membrane, truth)
    # 45 Å and a voxel, not much more.
    thickness = truth[12].sum() / (2 * np.pi * (20 + 14))
    assert 2.5 < thickness < 5.5
    free = (made.instances.data == 0)[6:]
    assert made.tomogram.data[6:][truth[6:]].mean() > made.tomogram.data[6:][free].mean()
    again = simulate_from_labels(Volume(labels, 14.0), 3, **settings)
    assert np.array_equal(made.tomogram.data, again.tomogram.data)


@pytest.mark.parametrize("thickness", [1, 2, 3, 4, 5])
def test_bilayers_along_labels_of_any_thickness_are_as_thick_as_others(thickness):
    labels = np.zeros((24, 48, 48), np.uint8)
    labels[:, :, 20 : 20 + thickness] = 1
    settings = {"lamella": 1.0, "around": {"actin": 0}, "tilt_step": 6}
    made = simulate_from_labels(Volume(labels, 14.0), 1, **settings)
    x = np.flatnonzero(made.membrane[12, 24])
    # 45 Å and a voxel are 4.2 voxels: those whose centres lie within 2.1 of the middle.
    middle = 20 + (thickness - 1) / 2
    assert np.array_equal(x, [n for n in range(48) if abs(n - middle) <= 2.1])


def test_solid_labels_are_filled():
    labels = np.zeros((24, 48, 48), np.uint8)
    labels[6:18, 10:30, 10:30] = 4
    made = simulate_from_labels(Volume(labels, 15.0), 1, solid=(4,), lamella=1.0)
    truth = made.instances.data == 1
    assert np.array_equal(truth, labels > 0)
    assert not made.membrane[truth].any()
    assert made.density[truth].mean() > 0.2


def test_labels_that_make_no_scene_are_refused():
    with pytest.raises(ValueError, match="3D volume"):
        simulate_from_labels(Volume(np.zeros((8, 8, 8), np.uint8), 10.0), 1)
    with pytest.raises(ValueError, match="without gaps"):
        simulate_from_labels(Volume(np.ones((8, 8, 8), np.uint8), 10.0), 1, instances={1: 3})
    with pytest.raises(ValueError, match="occupied is not for labels"):
        simulate_from_labels(Volume(np.ones((8, 8, 8), np.uint8), 10.0), 1, occupied=0.1)


def test_the_command_writes_a_project_that_reads_well(tmp_path, monkeypatch, capsys):
    common = ["--output", str(tmp_path), "--shape", "16", "48", "48", "--voxel-size", "20"]
    common += ["--set", '{"tilt_step": 10}']
    simulate_command([*common, "--tomograms", "2", "--seed", "3", "--annotated", "1"])
    simulate_command([*common, "--tomograms", "1", "--seed", "9", "--snr", "0.7"])
    monkeypatch.chdir(tmp_path)
    config = load_config(yaml.safe_load((tmp_path / "config" / "config.yaml").read_text()))
    samples = read_samples(config["tomograms"])
    assert set(samples) == {"cell-3", "cell-4", "cell-9"}
    assert samples["cell-9"].group == "SNR 0.7"
    for sample in samples.values():
        truth = read_volume(sample.ground_truth).data
        rows = Path(sample.ground_truth_classes).read_text().splitlines()[1:]
        assert {int(row.split(",")[0]) for row in rows} == set(np.unique(truth[truth > 0]))
        assert read_volume(sample.path).voxel_size == pytest.approx(20.0)
    assert samples["cell-4"].annotation is None
    annotation = read_volume(samples["cell-3"].annotation).data
    truth = read_volume(samples["cell-3"].ground_truth).data
    marked = np.flatnonzero((annotation >= 0).any(axis=(1, 2)))
    assert marked.tolist() == [4, 8, 12]
    assert np.array_equal(annotation[marked], truth[marked])
    assert not list(tmp_path.rglob("*partial*"))


def test_the_command_tells_what_is_wrong(tmp_path):
    with pytest.raises(SystemExit, match="snr and tilt_step must be positive"):
        simulate_command(["--output", str(tmp_path), "--snr", "0", "--shape", "8", "16", "16"])


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="preset 'moon'"):
        simulate_tomogram(1, preset="moon")
    with pytest.raises(ValueError, match="'grey'"):
        simulate_tomogram(1, polarity="grey")
    with pytest.raises(ValueError, match="'defocuss'"):
        simulate_tomogram(1, defocuss=3)


@pytest.mark.parametrize(
    "given",
    [
        {"shape": (0, 10, 10)},
        {"shape": (8, 8)},
        {"shape": (8, 8.5, 8)},
        {"voxel_size": 0.0},
        {"voxel_size": -3},
        {"voxel_size": "fine"},
        {"snr": None},
        {"snr": float("nan")},
        {"dose": "much"},
        {"carbon": 2},
        {"scheme": 1},
        {"tilt_step": True},
        {"abundance": {"vesicle": -1}},
        {"abundance": {"dragon": 1}},
        {"abundance": 3},
        {"occupied": "half"},
    ],
)
def test_impossible_values_are_told_by_name(given):
    with pytest.raises(ValueError, match=f"{next(iter(given))} .* is impossible: it must be"):
        simulate_tomogram(1, **given)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_conditions_without_an_image_are_told():
    with pytest.raises(ValueError, match="give no image"):
        simulate_tomogram(1, **{**SMALL, "voltage": 0.0})


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


def test_plain_matter_is_even_and_its_membranes_are_walls():
    settings = {"shape": (32, 96, 96), "voxel_size": 12.0}
    made = [simulate_tomogram(seed, matter="plain", **settings) for seed in range(3)]
    again = simulate_tomogram(0, matter="plain", **settings)
    assert np.array_equal(made[0].tomogram.data, again.tomogram.data)
    for one in made:
        labels = np.asarray(one.instances.data)
        assert (labels[one.membrane] > 0).all()
    cell = simulate_tomogram(0, **settings)
    assert not np.array_equal(cell.tomogram.data, again.tomogram.data)
    with pytest.raises(ValueError, match="matter 'dark'"):
        simulate_tomogram(1, matter="dark")


@pytest.mark.parametrize("kind", sorted(plain.WALLED))
def test_a_plain_wall_is_as_thick_as_drawn(kind):
    depth = np.linspace(40, -600, 6401)
    points = np.zeros((3, len(depth)))
    fill = plain._walled(50.0, 1.0, 0.2, None, None)
    density, membrane = fill(np.random.default_rng(0), depth, 0 * depth, points, 10.0)
    assert np.array_equal(membrane, (depth <= 0) & (depth > -50))
    assert (density[membrane] == 1).all()
    assert (density[depth > 0] == 0).all()
    assert 0.1 <= density[depth < -60].max() <= 0.3
    for seed in range(20):
        style = plain.plain_style(np.random.default_rng(seed))
        density, membrane = style.fills[kind](
            np.random.default_rng(seed), depth, 0 * depth, points, 10.0
        )
        assert (density[depth > 0] == 0).all()
        assert membrane is None or not membrane[depth > 0].any()
