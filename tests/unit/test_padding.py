import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tomocensus.padding import padding_value, sampled, shown_range, without_data

SHAPE = (13, 16)
corners = st.tuples(*(st.integers(0, size - 1) for size in (*SHAPE, *SHAPE)))


def padded_by_hand(same):
    """Return the union of full 5 x 5 windows that is connected to a side; beyond it goes on."""
    beyond = np.pad(same, 2, mode="edge")
    area = np.zeros(SHAPE, bool)
    for y, x in np.ndindex(SHAPE):
        if beyond[y : y + 5, x : x + 5].all():
            area[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = True
    found = np.zeros(SHAPE, bool)
    waiting = [
        (y, x) for y, x in np.ndindex(SHAPE) if y in (0, SHAPE[0] - 1) or x in (0, SHAPE[1] - 1)
    ]
    while waiting:
        y, x = waiting.pop()
        if 0 <= y < SHAPE[0] and 0 <= x < SHAPE[1] and area[y, x] and not found[y, x]:
            found[y, x] = True
            waiting += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
    return found


@settings(max_examples=60)
@given(st.lists(corners, max_size=4), st.sampled_from([7.0, np.nan, np.inf]))
def test_padding_is_what_full_windows_cover_that_reach_a_side(boxes, value):
    same = np.zeros(SHAPE, bool)
    for y, x, other_y, other_x in boxes:
        low, high = sorted((y, other_y)), sorted((x, other_x))
        same[low[0] : low[1] + 1, high[0] : high[1] + 1] = True
    section = np.arange(same.size, dtype=np.float32).reshape(SHAPE) + 100
    section[same] = value
    found = without_data(section, 7.0)
    wanted = padded_by_hand(same)
    assert (found is None) == (not wanted.any())
    assert found is None or np.array_equal(found, wanted)


def test_about_as_many_voxels_as_asked_for_are_looked_at_and_some_of_thin_volumes():
    volume = np.arange(40.0**3).reshape(40, 40, 40)
    assert len(sampled(volume, 1000)) == 1000
    assert len(sampled(volume, 40**3)) == 40**3
    volume[:, 3] = np.nan
    assert len(sampled(volume, 40**3)) == 40**3 - 40**2
    assert 1 <= len(sampled(volume[:1], 3)) <= 30


def test_whole_numbers_are_padding_at_an_end_of_the_range_or_far_above_their_neighbours(rng):
    data = rng.normal(0, 4, (9, 40, 40)).round().astype(np.int16)
    for value, share, found in ((0, 4, None), (0, 20, 0), (-90, 4, -90), (90, 4, 90)):
        padded = data.copy()
        padded[:, :, :share] = value
        assert padding_value(padded, sampled(padded, 10**6)) == found


def test_a_value_that_lies_anywhere_is_no_padding_though_it_fills_a_corner(rng):
    data = rng.normal(size=(9, 40, 40)).astype(np.float32)
    data[:, :3, :3] = 0
    assert padding_value(data, sampled(data, 10**6)) is None  # less than 1 %
    data[:, :6, :6] = 0
    assert padding_value(data, sampled(data, 10**6)) == 0
    data[rng.random(data.shape) < 0.2] = 0
    assert padding_value(data, sampled(data, 10**6)) is None


def test_black_and_white_are_those_of_what_is_no_padding(rng):
    data = rng.uniform(0, 1, (4, 60, 60)).astype(np.float32)
    data[:, :20] = -50
    data[:, 20:24] = np.nan
    assert np.allclose(shown_range(data, [0, 2]), (0.01, 0.99), atol=0.01)
    assert shown_range(np.full((2, 8, 8), 3.0), [0]) == (3, 4)
    assert shown_range(np.full((2, 8, 8), np.nan), [1]) == (0, 1)
