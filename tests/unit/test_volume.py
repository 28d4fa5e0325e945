from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomocensus.volume import (
    Volume,
    angstrom_to_voxel,
    certain_value,
    corner_offset,
    looked_in,
    release_pages,
    releasing,
    voxel_to_angstrom,
)

numbers = st.floats(-1e5, 1e5)
points = st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=5)


def test_masks_of_255_in_signed_bytes_are_masks():
    full = np.array([0, 1, 255], np.uint8)
    for mask in (full, full.view(np.int8), full > 0, np.array([-0.01, 0.5, 1], np.float32)):
        assert looked_in(mask).tolist() == [False, True, True]


def test_origin_counts_before_nstart():
    assert corner_offset((1.0, 0.0, 0.0), (5, 5, 5), 10.0) == (1.0, 0.0, 0.0)


def test_nstart_counts_where_origin_is_zero():
    assert corner_offset((0.0, 0.0, 0.0), (1, -2, 3), 10.0) == (10.0, -20.0, 30.0)


def test_offset_of_volume():
    volume = Volume(np.zeros((2, 3, 4)), 7.0, nstart=(1, 0, 0))
    assert volume.offset == (7.0, 0.0, 0.0)
    assert volume.shape == (2, 3, 4)


def test_voxel_to_angstrom_by_hand():
    found = voxel_to_angstrom(np.array([[1, 2, 3]]), 10.0, (5.0, 0.0, -1.0))
    np.testing.assert_allclose(found, [[15.0, 20.0, 29.0]])


@given(points, st.floats(0.5, 100), st.tuples(numbers, numbers, numbers))
def test_coordinates_round_trip(places, voxel_size, offset):
    there = voxel_to_angstrom(np.array(places), voxel_size, offset)
    back = angstrom_to_voxel(there, voxel_size, offset)
    np.testing.assert_allclose(back, places, atol=1e-6)


def test_with_data_keeps_place_and_refuses_other_shape():
    volume = Volume(np.zeros((2, 3, 4)), 7.0, (1.0, 2.0, 3.0), (4, 5, 6))
    other = volume.with_data(np.ones((2, 3, 4)))
    assert other.origin == volume.origin
    assert other.nstart == volume.nstart
    assert other.data.all()
    with pytest.raises(ValueError, match="shape"):
        volume.with_data(np.ones((4, 3, 2)))


def mapped_kilobytes():
    """Return how much of the files it maps this process holds in memory."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in status if row.startswith("RssFile"))


def test_pages_of_a_map_are_released_and_what_was_written_stays(tmp_path):
    data = np.memmap(tmp_path / "map", np.int8, "w+", shape=(64, 1024, 1024))
    data[:] = 7
    before = mapped_kilobytes()
    release_pages(data[::2].T)  # a view reaches its map
    assert before - mapped_kilobytes() > 60_000
    assert (data == 7).all()
    assert (np.fromfile(tmp_path / "map", np.int8) == 7).all()


def test_pages_go_while_slices_are_looked_at(tmp_path):
    data = np.memmap(tmp_path / "map", np.int8, "w+", shape=(32, 1024, 1024))
    before, seen, most = mapped_kilobytes(), [], 0
    for z in releasing(range(32), None, data, every=4):
        data[z] = 1
        seen.append(z)
        most = max(most, mapped_kilobytes() - before)
    assert seen == list(range(32))
    assert 3_000 < most < 8_000


@pytest.mark.parametrize(
    ("largest", "certain"),
    [(0.2, 1), (1.0005, 1), (1.1, 100), (100.05, 100), (101, 255), (255.1, 255), (256, None)],
)
def test_certain_is_the_next_of_1_100_and_255(largest, certain):
    assert certain_value(largest) == certain


def test_private_changes_and_plain_arrays_are_left_alone(tmp_path):
    np.zeros(100, np.int8).tofile(tmp_path / "map")
    private = np.memmap(tmp_path / "map", np.int8, "c")
    private[:] = 3
    release_pages(private)
    assert (private == 3).all()
    plain = np.ones(5)
    release_pages(plain)
    release_pages(None)
    assert plain.sum() == 5
