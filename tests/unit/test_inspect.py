import json
from dataclasses import replace

import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from scipy import ndimage

from tomocensus.atomic import write_json
from tomocensus.errors import InputError
from tomocensus.inspect import current_warnings, detect_polarity, inspect
from tomocensus.io import open_array, write_labels, write_mrc
from tomocensus.samples import Sample
from tomocensus.volume import Volume

SHAPE = (32, 48, 48)


@pytest.fixture
def sample(tomogram):
    return Sample("A", str(tomogram))


@pytest.fixture
def companion(tmp_path):
    def write(data, voxel_size=20.0):
        path = tmp_path / "companion.mrc"
        write_mrc(path, Volume(np.asarray(data), voxel_size))
        return str(path)

    return write


def test_good_input(sample, blobs, tmp_path):
    facts = inspect(sample)
    assert facts["shape"] == list(SHAPE)
    assert facts["voxel_size"] == 20.0
    assert facts["origin"] == [100.0, -50.5, 7.0]
    assert facts["nstart"] == [1, 2, -3]
    assert facts["dtype"] == "float32"
    assert (facts["polarity"], facts["polarity_source"]) == ("dark", "detected")
    assert facts["warnings"] == []
    assert facts["statistics"]["mean"] == pytest.approx(-blobs.mean(), rel=1e-4)
    assert facts["statistics"]["percentiles"]["50"] == pytest.approx(-np.median(blobs), rel=1e-4)
    write_json(tmp_path / "input.json", facts)
    assert json.loads((tmp_path / "input.json").read_text()) == facts


@pytest.mark.parametrize("stated", [1.37e-9, 2e30])
def test_a_voxel_size_that_no_volume_has_is_told_and_can_be_given(tomogram, stated):
    with mrcfile.open(tomogram, "r+") as file:
        file.voxel_size = stated
    told = rf"no usable voxel size \({stated:.3g} Å is stated\)\. Give it in Å"
    with pytest.raises(InputError, match=told.replace("+", r"\+")):
        inspect(Sample("A", str(tomogram)))
    assert inspect(Sample("A", str(tomogram), voxel_size=20.0))["voxel_size"] == 20.0


@pytest.mark.parametrize(("sign", "polarity"), [(1, "bright"), (-1, "dark")])
@pytest.mark.parametrize("ramp", [0.0, 20.0])
def test_polarity_of_blobs(blobs, sign, polarity, ramp):
    background = np.linspace(0, ramp, blobs.shape[2], dtype=np.float32)
    found, confidence = detect_polarity(sign * blobs * 3 + background, 20.0)
    assert found == polarity
    assert confidence > 0.5


def test_single_voxels_that_are_no_numbers_do_not_count_for_polarity(blobs):
    data = blobs.astype(np.float32)
    wanted = detect_polarity(data, 20.0)
    data[3, 4, 5], data[6, 7, 8] = np.inf, np.nan
    found = detect_polarity(data, 20.0)
    assert found[0] == wanted[0]
    assert found[1] == pytest.approx(wanted[1], abs=0.05)


def test_polarity_of_noise_is_unsure(rng, tmp_path):
    data = rng.normal(size=(32, 96, 96)).astype(np.float32)
    assert detect_polarity(data, 20.0)[1] < 0.5
    write_mrc(tmp_path / "a.mrc", Volume(data, 20.0))
    facts = inspect(Sample("A", str(tmp_path / "a.mrc")))
    assert "little confidence" in facts["warnings"][0]
    # What is stated is not doubted on such grounds.
    for stated in ("dark", "bright"):
        assert inspect(Sample("A", str(tmp_path / "a.mrc"), polarity=stated))["warnings"] == []


@pytest.mark.parametrize(
    ("shape", "looked_in"),
    [
        ((200, 600, 521), ((36, 164), (44, 556), (4, 516))),
        ((10, 513, 512), ((0, 10), (0, 512), (0, 512))),
    ],
)
def test_polarity_is_that_of_the_middle(rng, shape, looked_in):
    class Opened:
        def __init__(self):
            self.shape, self.read = shape, []

        def __getitem__(self, box):
            self.read.append(tuple(span.indices(n)[:2] for span, n in zip(box, shape, strict=True)))
            return rng.normal(size=(8, 8, 8))

    data = Opened()
    detect_polarity(data, 20.0)
    assert data.read == [looked_in]


def test_statistics_are_those_of_32_sections_at_most(rng, tmp_path):
    for depth, looked_at in ((9, 9), (32, 32), (70, 32)):
        data = np.broadcast_to(np.arange(float(depth))[:, None, None], (depth, 16, 16))
        write_mrc(tmp_path / "a.mrc", Volume(data.astype(np.float32), 20.0))
        facts = inspect(Sample("A", str(tmp_path / "a.mrc"), polarity="dark"))["statistics"]
        assert facts["sections"] == looked_at
        assert facts["mean"] == pytest.approx((depth - 1) / 2, abs=0.5)
        assert facts["percentiles"]["25"] == pytest.approx((depth - 1) / 4, abs=1)


def test_polarity_of_real_patches(shared_data):
    # the masks tell it: microtubules are darker than the rest; the first patch ends in empty slices
    folder = shared_data / "microtubules"
    for name in ("tardis_train_0_0_30_47_25", "tardis_train_3_0_25_54_25"):
        image = np.asarray(open_array(folder / f"{name}_img.tif"))
        mask = np.asarray(open_array(folder / f"{name}_mask.tif")) > 0
        rest = ~mask & (image.max(axis=(1, 2), keepdims=True) > 0)
        assert image[mask].mean() < image[rest].mean()
        assert detect_polarity(image, 25.0)[0] == "dark"


def test_stated_polarity_counts_and_is_doubted(sample):
    facts = inspect(replace(sample, polarity="bright"))
    assert (facts["polarity"], facts["polarity_source"]) == ("bright", "sample sheet")
    assert "look dark" in facts["warnings"][0]


def test_missing_voxel_size_is_an_error_unless_stated(tmp_path, blobs):
    write_mrc(tmp_path / "a.mrc", Volume(blobs, 0.0))
    sample = Sample("A", str(tmp_path / "a.mrc"))
    with pytest.raises(InputError, match="voxel_size"):
        inspect(sample)
    facts = inspect(replace(sample, voxel_size=12.0))
    assert facts["voxel_size"] == 12.0
    assert facts["warnings"] == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(tmp_path, blobs, value):
    blobs[17, 3, 4] = value
    write_mrc(tmp_path / "a.mrc", Volume(blobs, 20.0))
    with pytest.raises(InputError, match="z = 17"):
        inspect(Sample("A", str(tmp_path / "a.mrc")))


def test_constant(tmp_path):
    write_mrc(tmp_path / "a.mrc", Volume(np.full(SHAPE, 3, np.int16), 20.0))
    with pytest.raises(InputError, match="constant"):
        inspect(Sample("A", str(tmp_path / "a.mrc")))


def test_truncated(sample, tomogram):
    tomogram.write_bytes(tomogram.read_bytes()[:-10])
    with pytest.raises(InputError, match="truncated"):
        inspect(sample)


@pytest.mark.parametrize(
    "what", ["mask", "annotation", "probability", "boundary", "labels", "ground_truth"]
)
def test_wrong_shape(sample, companion, what):
    path = companion(np.ones((31, 48, 48), np.int8))
    with pytest.raises(InputError, match="has shape"):
        inspect(replace(sample, **{what: path}))


def test_other_voxel_size_of_companion_is_warned(sample, companion):
    facts = inspect(replace(sample, mask=companion(np.ones(SHAPE, np.int8), 10.0)))
    assert "mask's header states 10 Å" in facts["warnings"][0]


@pytest.mark.parametrize("what", ["annotation", "ground_truth"])
def test_warnings_of_a_file_that_was_mended_or_replaced_are_dropped(sample, companion, what):
    labels = np.zeros(SHAPE, np.int16)
    labels[10] = 1
    path = companion(labels, voxel_size=30.0)
    sample = replace(sample, **{what: path}, polarity="bright")
    facts = inspect(sample)
    other = [note for note in facts["warnings"] if not note.startswith(path)]
    assert len(other) < len(facts["warnings"])
    assert other
    assert current_warnings(facts, sample) == facts["warnings"]
    assert current_warnings(facts, replace(sample, **{what: "another.mrc"})) == other
    companion(labels, voxel_size=20.0)
    assert current_warnings(facts, sample) == other


@pytest.mark.parametrize(("shape", "told"), [((48, 20, 48), True), ((20, 48, 48), False)])
def test_a_volume_whose_beam_runs_along_y_is_told(tmp_path, rng, shape, told):
    write_mrc(tmp_path / "a.mrc", Volume(rng.normal(size=shape).astype("f4"), 20.0))
    facts = inspect(Sample("A", str(tmp_path / "a.mrc"), polarity="dark"))
    assert any("Is z the beam?" in text for text in facts["warnings"]) == told


def test_annotation_content(sample, companion):
    data = np.full(SHAPE, -1, np.int8)
    with pytest.raises(InputError, match="no voxel is labelled"):
        inspect(replace(sample, annotation=companion(data)))
    data[3] = 1
    facts = inspect(replace(sample, annotation=companion(data)))
    assert "labelled as background" in facts["warnings"][0]


def test_empty_mask_and_labels(sample, companion):
    path = companion(np.zeros(SHAPE, np.int8))
    with pytest.raises(InputError, match="mask is empty"):
        inspect(replace(sample, mask=path))
    assert "holds no object" in inspect(replace(sample, labels=path))["warnings"][0]


def test_a_mask_in_the_place_of_labels_is_told(sample, companion):
    labels = np.zeros(SHAPE, np.int8)
    labels[3:9, 4:9, 4:9] = labels[20:25, 30:36, 30:36] = 1
    told = inspect(replace(sample, labels=companion(labels)))["warnings"]
    assert any("belongs in the column 'probability'" in text for text in told)
    labels[20:25] *= 2
    told = inspect(replace(sample, labels=companion(labels)))["warnings"]
    assert not any("column 'probability'" in text for text in told)


def test_labels_beyond_any_number_are_refused(sample, tmp_path):
    labels = np.zeros(SHAPE, np.uint64)
    labels[5] = 2**63 - 1
    path = tmp_path / "labels.tif"
    tifffile.imwrite(path, labels)
    assert inspect(replace(sample, labels=str(path)))["shape"] == list(SHAPE)
    labels[5] += 1
    tifffile.imwrite(path, labels)
    with pytest.raises(InputError, match="no labels"):
        inspect(replace(sample, labels=str(path)))


@pytest.mark.parametrize("value", [-1.0, 0.5])
def test_values_that_are_no_labels(sample, companion, value):
    with pytest.raises(InputError, match="no labels"):
        inspect(replace(sample, labels=companion(np.full(SHAPE, value, np.float32))))


@pytest.mark.parametrize(
    ("highest", "stated", "default", "scale"),
    [
        (1, None, None, 1),
        (0.5, None, None, 1),
        (1.0000002, None, None, 1),
        (1.0000002, 1, None, 1),
        (100.01, None, None, 100),
        (97, None, "auto", 100),
        (255, None, None, 255),
        (90, 255, 100, 255),
        (90, None, 255, 255),
    ],
)
@pytest.mark.parametrize("what", ["probability", "boundary"])
def test_scale_of_given_maps(sample, companion, what, highest, stated, default, scale):
    path = companion(np.linspace(0, highest, 32 * 48 * 48, dtype=np.float32).reshape(SHAPE))
    row = replace(sample, **{what: path}, probability_scale=stated)
    assert inspect(row, default)[f"{what}_scale"] == scale


def test_a_map_that_is_hardly_per_cent_is_told(sample, companion):
    path = companion(np.linspace(0, 1.5, 32 * 48 * 48, dtype=np.float32).reshape(SHAPE))
    row = replace(sample, probability=path)
    assert any("largest value is 1.5" in text for text in inspect(row)["warnings"])
    stated = inspect(replace(row, probability_scale=100))
    assert not any("largest value" in text for text in stated["warnings"])


@pytest.mark.parametrize("what", ["probability", "boundary"])
@pytest.mark.parametrize(("low", "high", "stated"), [(-1, 1, None), (0, 300, None), (0, 90, 1)])
def test_given_map_out_of_range(sample, companion, what, low, high, stated):
    path = companion(np.linspace(low, high, 32 * 48 * 48, dtype=np.float32).reshape(SHAPE))
    with pytest.raises(InputError, match="must lie within"):
        inspect(replace(sample, **{what: path}, probability_scale=stated))


def test_label_volume_written_by_this_program_is_taken(sample, tmp_path):
    labels = np.zeros(SHAPE, np.int32)
    labels[4:8, 4:8, 4:8] = 70000
    write_labels(tmp_path / "labels.mrc", Volume(labels, 20.0))
    facts = inspect(replace(sample, labels=str(tmp_path / "labels.mrc")))
    assert facts["warnings"] == []


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("value", [-5.0, 5.0, 0.0])
def test_padding_does_not_decide_the_polarity(blobs, sign, value):
    data = sign * (blobs - blobs.mean()) / blobs.std()
    wanted, sure = detect_polarity(data, 20.0)
    turned = ndimage.rotate(data, 20, axes=(1, 2), order=1, cval=value).astype(np.float32)
    found, confidence = detect_polarity(turned, 20.0)
    assert found == wanted
    assert confidence > 0.5 * sure


def test_of_zarr_companions_the_level_of_the_tomogram_is_looked_at(tmp_path, blobs):
    for name, data in (("a", blobs), ("mask", blobs > 0)):
        group = zarr.open_group(tmp_path / f"{name}.zarr", mode="w", zarr_format=2)
        datasets = []
        for step in (1, 2):
            level = np.asarray(data[::step, ::step, ::step]).astype(np.float32)
            group.create_array(str(step), data=level)
            scale = [{"type": "scale", "scale": [10.0 * step] * 3}]
            datasets.append({"path": str(step), "coordinateTransformations": scale})
        group.attrs["multiscales"] = [{"axes": ["z", "y", "x"], "datasets": datasets}]
    row = Sample("A", str(tmp_path / "a.zarr"), voxel_size=20.0, polarity="bright")
    columns = ("mask", "annotation", "probability", "boundary", "labels", "ground_truth")
    facts = inspect(replace(row, **dict.fromkeys(columns, str(tmp_path / "mask.zarr"))))
    assert facts["shape"] == [side // 2 for side in SHAPE]
    assert not any("header states" in text for text in facts["warnings"])
