"""Slow changes of brightness across slices, which are taken away, and objects, which are not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomocensus.segment.contrast import Slices, robust_contrast
from tomocensus.shading import shading
from tomocensus.volume import Volume

SHAPE = (12, 96, 120)
Y, X = np.meshgrid(np.linspace(-1, 1, SHAPE[1]), np.linspace(-1, 1, SHAPE[2]), indexing="ij")
SHADES = {
    "ramp": 1.5 * X - 0.5 * Y,
    "vignette": 1.5 * (X**2 + Y**2),
    "saddle": 1.2 * X * Y + 0.8 * Y,
}


@pytest.fixture
def noise(rng):
    """Return a tomogram of noise with some dark objects."""
    data = rng.normal(size=SHAPE).astype(np.float32)
    for y, x in rng.integers(10, 80, (8, 2)):
        data[3:9, y : y + 10, x : x + 10] -= 2
    return data


def shade_of(data):
    return shading(data, *robust_contrast(data)[1:])


@pytest.mark.parametrize("kind", SHADES)
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e5])
def test_shading_is_found_and_taken_away(noise, kind, scale):
    shade = SHADES[kind] - SHADES[kind].mean()
    shaded = ((noise + shade + 7) * scale).astype(np.float32)
    assert shade_of(noise) is None
    found = shade_of(shaded)
    assert np.abs(found / scale - shade).max() < 0.3
    assert np.abs(found / scale - shade).mean() < 0.1
    one, two = (Slices(Volume(data, 10.0), 10.0, "dark") for data in (noise, shaded))
    for z in (0, 5, 11):
        assert np.abs(one[z] - two[z]).mean() < 0.1
    # With the shading in it, noise seemed wider.
    assert robust_contrast(shaded)[1] > 1.1 * scale
    assert two.scale == pytest.approx(one.scale * scale, rel=0.05)


def test_shading_is_found_on_any_grid_and_scale_of_the_model(noise):
    shaded = Volume(noise + SHADES["ramp"].astype(np.float32), 5.0)
    one = Slices(Volume(noise, 5.0), 14.0, "bright")
    two = Slices(shaded, 14.0, "bright")
    assert one.shape == two.shape == (4, 34, 43)
    assert np.abs(one[2] - two[2]).mean() < 0.1


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_padding_and_what_is_no_number_tell_nothing_of_shading(noise, dtype):
    shaded = noise + SHADES["ramp"] * 2
    whole = np.clip(shaded * 20 + 128, 1, 255).astype(dtype)
    padded = whole.copy()
    padded[:, :, :30] = 0
    padded[:, :12] = 0
    if dtype == "float32":
        padded[4, 50:60, 50:60] = np.nan
    found, wanted = shade_of(padded), shade_of(whole)
    inner = np.s_[12:, 30:]
    assert np.abs((found - wanted - (found - wanted)[inner].mean())[inner]).max() < 6
    source = Slices(Volume(padded, 10.0), 10.0, "dark")
    assert (source[2][:, :28] == 0).all()
    assert (source[2][:10] == 0).all()
    assert np.isfinite(source[4]).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.5, 2.0]))
def test_large_objects_with_sharp_edges_are_no_shading(seed, contrast):
    rng = np.random.default_rng(seed)
    cy, cx = rng.uniform(-1.5, 1.5, 2)
    angle, place = rng.uniform(0, 2 * np.pi), rng.uniform(-0.8, 0.8)
    shapes = [
        (Y - cy) ** 2 + (X - cx) ** 2 < rng.uniform(0.3, 1.8) ** 2,
        X * np.cos(angle) + Y * np.sin(angle) > place,
    ]
    data = contrast * rng.normal(size=SHAPE)
    data += shapes[rng.integers(2)]
    assert shade_of(data.astype(np.float32)) is None


def test_small_and_constant_volumes_have_no_shading():
    for data in (np.zeros((3, 8, 8)), np.zeros((3, 40, 40)), np.arange(27.0).reshape(3, 3, 3)):
        assert shade_of(data.astype(np.float32)) is None
