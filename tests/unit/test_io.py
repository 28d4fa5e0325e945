import bz2
import gzip
import os

import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tomocensus.errors import InputError
from tomocensus.io import (
    open_array,
    open_mrc_writer,
    read_header,
    read_volume,
    write_labels,
    write_mrc,
)
from tomocensus.volume import Volume

SHAPE = (3, 4, 5)


def ramp(dtype):
    return np.arange(60).reshape(SHAPE).astype(dtype)


def write_reference(path, data, voxel_size=10.52, **fields):
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(data)
        file.set_volume()
        file.voxel_size = voxel_size
        for name, value in fields.items():
            file.header[name] = value
    return path


# MRC: reading what mrcfile, the reference implementation, writes


@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "f4", "f2"])
def test_modes(tmp_path, dtype):
    path = write_reference(tmp_path / "a.mrc", ramp(dtype))
    volume = read_volume(path)
    assert volume.data.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(volume.data, ramp(dtype))
    assert volume.voxel_size == 10.52
    assert isinstance(volume.data, np.memmap)
    assert read_header(path).warnings == []


def test_mode_101_packs_two_voxels_a_byte(tmp_path):
    data = (ramp("u1") % 16).astype(np.uint8)
    path = write_reference(tmp_path / "a.mrc", np.zeros(SHAPE, np.int8), mode=101)
    padded = np.concatenate([data, np.zeros((3, 4, 1), np.uint8)], axis=2)
    packed = padded[..., ::2] | padded[..., 1::2] << 4
    path.write_bytes(path.read_bytes()[:1024] + packed.tobytes())
    np.testing.assert_array_equal(read_volume(path).data, data)


def test_unsigned_bytes_of_imod(tmp_path):
    path = write_reference(tmp_path / "a.mrc", ramp("i1"))
    content = bytearray(path.read_bytes())
    content[152:160] = (1146047817).to_bytes(4, "little") + bytes(4)
    content[1024] = 200
    path.write_bytes(content)
    assert read_volume(path).data[0, 0, 0] == 200


@pytest.mark.parametrize(
    ("low", "high", "unsigned"),
    [(0, 255, True), (-0.5, 200, True), (-128, 127, False), (-120, 140, False), (0, 0, False)],
)
def test_bytes_without_stamp_are_what_the_range_in_the_header_says(tmp_path, low, high, unsigned):
    path = write_reference(tmp_path / "a.mrc", ramp("i1"), dmin=low, dmax=high)
    content = bytearray(path.read_bytes())
    content[1024] = 200
    path.write_bytes(content)
    assert read_volume(path).data[0, 0, 0] == (200 if unsigned else 200 - 256)
    told = [f"bytes are read as unsigned, for the header states values up to {high}"]
    assert read_header(path).warnings == told * unsigned


@pytest.mark.parametrize("ispg", [1, 401])
def test_a_stack_of_volumes_is_refused(tmp_path, ispg):
    path = write_reference(tmp_path / "a.mrc", np.tile(ramp("f4"), (4, 1, 1)), ispg=ispg)
    assert read_volume(path).shape == (12, 4, 5)
    with mrcfile.open(path, "r+", permissive=True) as file:
        file.header.mz = 3
    if ispg == 1:
        assert read_volume(path).shape == (12, 4, 5)
        return
    for read in (read_header, open_array):
        with pytest.raises(InputError, match="holds 4 volumes of 3 sections"):
            read(path)


@pytest.mark.parametrize("dtype", [">i2", ">f4", ">f2", ">u2"])
def test_big_endian(tmp_path, dtype):
    path = tmp_path / "a.rec"
    write_reference(tmp_path / "a.mrc", ramp(dtype)).rename(path)
    volume = read_volume(path)
    assert volume.data.dtype.isnative
    np.testing.assert_array_equal(volume.data, ramp(dtype))
    assert volume.voxel_size == 10.52


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_packed(tmp_path, suffix, pack):
    plain = write_reference(tmp_path / "a.map", ramp("f4"))
    path = tmp_path / f"a.map{suffix}"
    path.write_bytes(pack(plain.read_bytes()))
    np.testing.assert_array_equal(read_volume(path).data, ramp("f4"))
    path.write_bytes(pack(plain.read_bytes()[:-4]))
    with pytest.raises(InputError, match="truncated"):
        read_volume(path)
    path.write_bytes(pack(os.urandom(5000))[:1500])
    with pytest.raises(InputError):
        read_volume(path)


def test_broken_stamps_are_warned(tmp_path):
    path = write_reference(tmp_path / "a.mrc", ramp("f4"))
    content = bytearray(path.read_bytes())
    content[208:216] = bytes(8)
    path.write_bytes(content)
    assert any("machine stamp" in text for text in read_header(path).warnings)
    assert any("map stamp" in text for text in read_header(path).warnings)
    np.testing.assert_array_equal(read_volume(path).data, ramp("f4"))


def test_extended_header_and_extra_bytes(tmp_path):
    path = write_reference(tmp_path / "a.mrc", ramp("f4"))
    with mrcfile.open(path, "r+") as file:
        file.set_extended_header(np.zeros(64, "V1"))
    with open(path, "ab") as stream:
        stream.write(b"1234")
    np.testing.assert_array_equal(read_volume(path).data, ramp("f4"))
    assert any("4 bytes longer" in text for text in read_header(path).warnings)


def test_truncated(tmp_path):
    path = write_reference(tmp_path / "a.mrc", ramp("f4"))
    path.write_bytes(path.read_bytes()[:-1])
    for read in (read_header, read_volume, open_array):
        with pytest.raises(InputError, match=r"a\.mrc: truncated"):
            read(path)


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"x" * 5000, bytes(5000)])
def test_not_mrc(tmp_path, content):
    path = tmp_path / "a.mrc"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not an MRC file"):
        read_header(path)


def test_fourier_transform_is_refused(tmp_path):
    path = write_reference(tmp_path / "a.mrc", ramp("c8"))
    with pytest.raises(InputError, match="Fourier"):
        read_header(path)


def test_voxel_size_faults(tmp_path):
    path = tmp_path / "a.mrc"
    write_reference(path, ramp("f4"), 0)
    assert read_header(path).voxel_size is None
    assert any("no usable voxel size" in text for text in read_header(path).warnings)
    with pytest.warns(UserWarning, match="no voxel size"):
        assert read_volume(path).voxel_size == 1
    write_reference(path, ramp("f4"), 1)
    assert any("1 Å" in text for text in read_header(path).warnings)
    assert read_header(path, 8.0).warnings == []
    write_reference(path, ramp("f4"), (10, 10, 12))
    assert read_header(path).voxel_size == 10
    assert any("differs between the axes" in text for text in read_header(path).warnings)
    assert read_header(path, 7.5).voxel_size == 7.5
    assert any("not the header's 10 Å" in text for text in read_header(path, 7.5).warnings)
    assert read_header(path, 9.5).warnings == read_header(path, 10.5).warnings == []
    assert read_volume(path, 7.5).voxel_size == 7.5


def test_axes_are_turned(tmp_path):
    # columns are z, rows x, sections y
    path = write_reference(
        tmp_path / "a.mrc", ramp("f4"), mapc=3, mapr=1, maps=2, nxstart=30, nystart=10, nzstart=20
    )
    volume = read_volume(path)
    assert volume.shape == read_header(path).shape == (5, 3, 4)
    np.testing.assert_array_equal(volume.data, ramp("f4").transpose(2, 0, 1))
    assert volume.nstart == (10, 20, 30)


def test_an_order_of_axes_that_makes_no_sense_is_told_unless_it_is_left_out(tmp_path):
    for axes, told in (((1, 1, 2), True), ((0, 0, 0), False), ((1, 2, 3), False)):
        order = dict(zip(("mapc", "mapr", "maps"), axes, strict=True))
        path = write_reference(tmp_path / "a.mrc", ramp("f4"), **order)
        assert any("order of axes" in text for text in read_header(path).warnings) == told
        np.testing.assert_array_equal(read_volume(path).data, ramp("f4"))


def test_missing_and_unknown(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_header(tmp_path / "a.mrc")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match="unknown kind"):
        read_header(tmp_path / "a.png")


# MRC: writing


@settings(max_examples=40)
@given(
    data=st.sampled_from(["i1", "i2", "u2", "f2", "f4"]).flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            hnp.array_shapes(min_dims=3, max_dims=3, max_side=5),
            elements={"allow_nan": False, "allow_infinity": False} if dtype[0] == "f" else None,
        )
    ),
    voxel_size=st.floats(0.1, 999).map(lambda value: float(f"{value:.4g}")),
    origin=st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 3),
    nstart=st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 3),
)
def test_round_trip(tmp_path_factory, data, voxel_size, origin, nstart):
    path = tmp_path_factory.mktemp("mrc") / "a.mrc"
    write_mrc(path, Volume(data, voxel_size, origin, nstart))
    found = read_volume(path)
    assert found.data.dtype == data.dtype
    np.testing.assert_array_equal(found.data, data)
    assert found.voxel_size == voxel_size
    np.testing.assert_array_equal(np.float32(found.origin), np.float32(origin))
    assert found.nstart == nstart


def test_valid_for_mrcfile_and_reproducible(tmp_path, capsys):
    volume = Volume(ramp("f4"), 13.48, (1.0, 2.0, 3.0), (4, 5, 6))
    write_mrc(tmp_path / "a.mrc", volume)
    write_mrc(tmp_path / "b.mrc", volume)
    assert mrcfile.validate(tmp_path / "a.mrc")
    assert (tmp_path / "a.mrc").read_bytes() == (tmp_path / "b.mrc").read_bytes()
    with mrcfile.open(tmp_path / "a.mrc") as file:
        assert (file.header.dmin, file.header.dmax) == (0, 59)
        assert file.header.dmean == pytest.approx(29.5)
        assert file.header.rms == pytest.approx(ramp("f4").std())


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (np.array([0, 1], bool), "i1"),
        (np.array([0, 127], "i8"), "i1"),
        (np.array([0, 255], "u1"), "i2"),
        (np.array([0, 40000], "i4"), "u2"),
        (np.array([0, 70000], "u4"), "f4"),
        (np.array([0, 0.5], "f8"), "f4"),
    ],
)
def test_smallest_type(tmp_path, data, dtype):
    write_mrc(tmp_path / "a.mrc", Volume(data.reshape(1, 1, 2), 10.0))
    found = read_volume(tmp_path / "a.mrc").data
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found.ravel(), data)


@pytest.mark.parametrize(
    ("high", "low", "dtype"),
    [
        (0, 0, "u2"),
        (65535, 0, "u2"),
        (65536, 0, "f4"),
        (2**24, 0, "f4"),
        (5, -1, "i2"),
        (2**15 - 1, -(2**15), "i2"),
        (2**15, -1, "f4"),
        (5, -(2**24), "f4"),
    ],
)
def test_labels(tmp_path, high, low, dtype):
    data = np.array([low, 1, high]).reshape(1, 1, 3)
    write_labels(tmp_path / "a.mrc", Volume(data, 10.0))
    found = read_volume(tmp_path / "a.mrc").data
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, data)


@pytest.mark.parametrize("data", [np.array([2**24 + 1]), np.array([-(2**24) - 1]), np.array([0.5])])
def test_labels_that_do_not_fit(tmp_path, data):
    with pytest.raises(ValueError, match="integers"):
        write_labels(tmp_path / "a.mrc", Volume(data.reshape(1, 1, -1), 10.0))
    assert list(tmp_path.iterdir()) == []


def test_writer_gives_what_write_gives(tmp_path):
    write_mrc(tmp_path / "a.mrc", Volume(ramp("i1"), 10.0, (1.0, 2.0, 3.0), (1, 2, 3)))
    place = (10.0, (1.0, 2.0, 3.0), (1, 2, 3))
    with open_mrc_writer(tmp_path / "b.mrc", SHAPE, "i1", *place) as out:
        assert not (tmp_path / "b.mrc").exists()
        out[:] = ramp("i1")
    assert (tmp_path / "a.mrc").read_bytes() == (tmp_path / "b.mrc").read_bytes()


def test_signed_bytes_are_marked_for_imod_and_nothing_else_is(tmp_path):
    for dtype, marked in (("i1", 1), ("i2", 0), ("f4", 0)):
        write_mrc(tmp_path / "a.mrc", Volume(ramp(dtype), 10.0))
        stamp, flags = np.frombuffer((tmp_path / "a.mrc").read_bytes()[152:160], "<i4")
        assert (stamp, flags) == (1146047817 * marked, marked)


def fail_inside(path):
    with open_mrc_writer(path, SHAPE, "f4", 10.0) as out:
        out[0] = 1
        raise RuntimeError


def test_writer_leaves_nothing_after_an_error(tmp_path):
    with pytest.raises(RuntimeError):
        fail_inside(tmp_path / "a.mrc")
    with (
        pytest.raises(ValueError, match="no mode for int32"),
        open_mrc_writer(tmp_path / "a.mrc", SHAPE, np.int32, 10.0),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


# TIFF


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff(tmp_path, byteorder, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, ramp("f4"), byteorder=byteorder, compression=compression, photometric="minisblack"
    )
    volume = read_volume(path, 40.0)
    np.testing.assert_array_equal(volume.data, ramp("f4"))
    assert volume.data.dtype.isnative
    assert volume.data.dtype == read_header(path).dtype == np.float32
    assert isinstance(volume.data, np.memmap) == (byteorder == "<" and compression is None)
    assert read_header(path).voxel_size is None
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError):
        read_volume(path)


def test_damaged_tiff_gives_an_input_error_or_a_volume(tmp_path, rng):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp("f4"), compression="zlib", photometric="minisblack")
    content, refused = path.read_bytes(), 0
    for _ in range(60):
        path.write_bytes(content[: rng.integers(len(content))])
        try:
            assert read_volume(path, 10.0).data.ndim == 3
        except InputError:
            refused += 1
    assert refused > 20


def test_imagej_voxel_size(tmp_path):
    path = tmp_path / "a.tif"
    metadata = {"axes": "ZYX", "spacing": 1.052, "unit": "nm"}
    scale = (1 / 1.052, 1 / 1.052)
    tifffile.imwrite(path, ramp("f4"), imagej=True, resolution=scale, metadata=metadata)
    assert read_header(path).voxel_size == pytest.approx(10.52, rel=1e-5)
    np.testing.assert_array_equal(read_volume(path).data, ramp("f4"))


def test_tiff_that_states_only_some_sizes_or_an_unknown_unit(tmp_path):
    path = tmp_path / "a.tif"
    for metadata, scale, size in (
        ({"unit": "nm"}, (0.5, 0.5), 20),
        ({"unit": "pixel", "spacing": 3}, (0.5, 0.5), None),
    ):
        metadata["axes"] = "ZYX"
        tifffile.imwrite(path, ramp("f4"), imagej=True, resolution=scale, metadata=metadata)
        assert read_header(path).voxel_size == size
    path = tmp_path / "a.ome.tif"
    for metadata, size in (
        ({"PhysicalSizeX": 2, "PhysicalSizeXUnit": "nm"}, 20),
        ({"PhysicalSizeX": 0.002}, 20),
        ({"PhysicalSizeX": 2, "PhysicalSizeXUnit": "pixel"}, None),
        ({}, None),
    ):
        tifffile.imwrite(path, ramp("f4"), metadata={"axes": "ZYX", **metadata})
        assert read_header(path).voxel_size == size


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_signed_numbers_of_imagej(tmp_path, byteorder):
    # ImageJ's own metadata of what it opened as 16 bits with sign.
    told = "ImageJ=1.54f\nimages=3\nslices=3\nunit=nm\ncf=0\nc0=-32768.0\nc1=1.0\nspacing=0.8\n"
    data = ramp("i2") - 7
    raw = (data.astype(np.int32) + 2**15).astype(np.uint16)
    for name, text in (("a.tif", told), ("b.tif", told.replace("c1=1", "c1=2"))):
        with tifffile.TiffWriter(tmp_path / name, byteorder=byteorder) as file:
            file.write(raw, photometric="minisblack", description=text, metadata=None)
    volume = read_volume(tmp_path / "a.tif", 8.0)
    assert volume.data.dtype == read_header(tmp_path / "a.tif").dtype == np.int16
    np.testing.assert_array_equal(volume.data, data)
    np.testing.assert_array_equal(read_volume(tmp_path / "b.tif", 8.0).data, raw)


def test_ome_voxel_size(tmp_path):
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "ZYX"}
    for axis in "XYZ":
        metadata |= {f"PhysicalSize{axis}": 1.5, f"PhysicalSize{axis}Unit": "nm"}
    tifffile.imwrite(path, ramp("u1"), ome=True, metadata=metadata)
    assert read_header(path).voxel_size == 15.0


def test_colour_tiff_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="colours"):
        read_header(tmp_path / "a.tif")


def test_real_tiff_stacks(shared_data):
    header = read_header(shared_data / "microtubules" / "cylindra_13pf_MT.tif")
    assert header.shape == (36, 206, 94)
    assert header.voxel_size == pytest.approx(10.52, rel=1e-3)


# OME-Zarr


def write_zarr(path, version, unit="nanometer", lead=0):
    group = zarr.open_group(path, mode="w", zarr_format=version)
    names = [*["t", "c"][:lead], "z", "y", "x"]
    datasets = []
    for level in range(3):
        shape = (1,) * lead + tuple(8 // 2**level for _ in "zyx")
        array = group.create_array(str(level), shape=shape, dtype="f4")
        array[...] = level
        scale = [1.0] * lead + [2.0**level] * 3
        shift = [0.0] * lead + [3.0, 2.0, 1.0]
        steps = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    axes = [{"name": name, **({"unit": unit} if unit else {})} for name in names]
    content = [{"axes": axes, "datasets": datasets}]
    if version == 2:
        group.attrs["multiscales"] = content
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": content}
    return path


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("lead", [0, 2])
def test_zarr_levels(tmp_path, version, lead):
    path = write_zarr(tmp_path / "a.zarr", version, lead=lead)
    finest = read_volume(path)
    assert (finest.shape, finest.voxel_size) == ((8, 8, 8), 10.0)
    assert finest.origin == (10.0, 20.0, 30.0)
    assert read_header(path).shape == open_array(path).shape == (8, 8, 8)
    middle = read_volume(path, 20.0)
    assert (middle.shape, middle.voxel_size) == ((4, 4, 4), 20.0)
    assert (middle.data == 1).all()
    header = read_header(path, 33.0)
    assert header.voxel_size == 40.0
    assert any("nearest" in text for text in header.warnings)
    assert open_array(path)[2:4].shape == (2, 8, 8)


def test_of_unlike_sides_of_a_zarr_voxel_that_of_x_counts(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("0", shape=SHAPE, dtype="u1")
    level = {
        "path": "0",
        "coordinateTransformations": [
            {"type": "translation", "translation": [1, 2, 3]},
            {"type": "scale", "scale": [3, 2, 1]},
        ],
    }
    whole = [{"type": "scale", "scale": [2, 2, 2]}]
    axes = [{"name": n, "unit": u} for n, u in zip("zyx", ("nm", "Angstrom", "nm"), strict=True)]
    group.attrs["multiscales"] = [
        {"axes": axes, "datasets": [level], "coordinateTransformations": whole}
    ]
    header = read_header(tmp_path / "a.zarr")
    assert (header.voxel_size, header.dtype) == (20.0, np.uint8)
    assert header.origin == (60.0, 8.0, 60.0)
    assert any("20 x 4 x 60 Å" in text for text in header.warnings)


def test_zarr_without_unit_is_angstrom(tmp_path):
    header = read_header(write_zarr(tmp_path / "a.zarr", 3, unit=None))
    assert header.voxel_size == 1.0
    assert any("no unit" in text for text in header.warnings)


def test_plain_zarr_array(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=SHAPE, dtype="i2")
    array[...] = ramp("i2")
    volume = read_volume(tmp_path / "a.zarr", 5.0)
    np.testing.assert_array_equal(volume.data, ramp("i2"))
    assert (volume.voxel_size, volume.origin) == (5.0, (0.0, 0.0, 0.0))


def test_zarr_faults(tmp_path):
    with pytest.raises(InputError, match="not a readable OME-Zarr"):
        read_header(tmp_path)
    zarr.open_group(tmp_path / "a.zarr", mode="w")
    with pytest.raises(InputError, match="multiscales"):
        read_header(tmp_path / "a.zarr")
    zarr.create_array(tmp_path / "b.zarr", shape=(2, 3, 4, 5), dtype="f4")
    with pytest.raises(InputError, match="one volume"):
        read_header(tmp_path / "b.zarr")
    zarr.create_array(tmp_path / "c.zarr", shape=(3, 4, 5), dtype="c8")
    for read in (read_header, open_array):
        with pytest.raises(InputError, match="holds complex64, not grey values"):
            read(tmp_path / "c.zarr", 10.0)


def test_zarr_with_axes_in_another_order_is_refused(tmp_path):
    path = write_zarr(tmp_path / "a.zarr", 2)
    group = zarr.open_group(path, mode="a")
    content = group.attrs["multiscales"]
    content[0]["axes"] = content[0]["axes"][::-1]
    group.attrs["multiscales"] = content
    with pytest.raises(InputError, match="in the order x, y, z"):
        read_header(path)
    content[0]["axes"] = ["z", "y", "x"]  # of OME-Zarr 0.3
    group.attrs["multiscales"] = content
    assert read_header(path).shape == (8, 8, 8)


@pytest.mark.parametrize("version", [2, 3])
def test_a_damaged_chunk_is_told_with_the_image_s_path(tmp_path, version):
    path = write_zarr(tmp_path / "a.zarr", version)
    for chunk in (path / "1").rglob("*"):
        if chunk.is_file() and not chunk.name.startswith((".", "zarr")):
            chunk.write_bytes(chunk.read_bytes()[:9] + b"broken")
    with pytest.raises(InputError, match=r"a\.zarr: a chunk cannot be read .* again"):
        np.asarray(open_array(path, 20.0)[1:3])
    assert np.asarray(open_array(path)).shape == (8, 8, 8)
    with pytest.raises(IndexError):
        open_array(path)[9]


def test_a_volume_without_voxels_is_told(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(0, 4, 4), dtype="f4")
    with pytest.raises(InputError, match="holds no voxels"):
        read_header(tmp_path / "a.zarr", 10.0)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("factor", [1e-9, np.nan])
def test_of_zarr_levels_of_no_usable_size_the_first_is_taken(tmp_path, version, factor):
    path = write_zarr(tmp_path / "a.zarr", version)
    group = zarr.open_group(path, mode="a")
    content = group.attrs["multiscales"] if version == 2 else group.attrs["ome"]["multiscales"]
    for dataset in content[0]["datasets"]:
        scale = dataset["coordinateTransformations"][0]
        scale["scale"] = [factor * value for value in scale["scale"]]
    group.attrs.update({"multiscales": content, "ome": {"version": "0.5", "multiscales": content}})
    assert read_header(path).voxel_size is None
    header = read_header(path, 20.0)
    assert (header.shape, header.voxel_size, header.warnings) == ((8, 8, 8), 20.0, [])
    assert (read_volume(path, 20.0).data == 0).all()


def test_slices_written_one_by_one_are_one_stack(tmp_path):
    data = ramp("f4")
    for name, how in (("plain.tif", {}), ("packed.tif", {"compression": "zlib"})):
        with tifffile.TiffWriter(tmp_path / name) as file:
            for plane in data:
                file.write(plane, **how)
        volume = read_volume(tmp_path / name, 5.0)
        assert np.array_equal(volume.data, data)
        assert volume.shape == read_header(tmp_path / name, 5.0).shape == SHAPE


def test_of_several_images_the_first_is_read_and_that_is_told(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(ramp("f4"), photometric="minisblack")
        file.write(np.zeros((3, 4), np.uint8), photometric="minisblack")
    header = read_header(tmp_path / "a.tif", 5.0)
    assert header.shape == SHAPE
    assert any("holds 2 images" in text for text in header.warnings)


@pytest.mark.parametrize("version", [2, 3])
def test_a_stated_voxel_size_counts_where_zarr_levels_count_voxels(tmp_path, version):
    path = write_zarr(tmp_path / "a.zarr", version, unit=None)
    header = read_header(path, 13.0)
    assert (header.shape, header.voxel_size) == ((8, 8, 8), 13.0)
    assert (read_volume(path, 13.0).data == 0).all()
    # Where they state sizes, one nearby is meant, and a little off.
    sized = write_zarr(tmp_path / "b.zarr", version)
    near = read_volume(sized, 20.5)
    assert (near.shape, near.voxel_size) == ((4, 4, 4), 20.5)
