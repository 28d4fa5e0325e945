import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomocensus.volume import Volume, angstrom_to_voxel, corner_offset, voxel_to_angstrom

numbers = st.floats(-1e5, 1e5)
points = st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=5)


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
