import numpy as np
import pytest

from tomocensus.errors import InputError
from tomocensus.imod import read_model

FLIPPED, ORIGIN_KNOWN = 1 << 16, 1 << 14


def read(path, content):
    path.write_bytes(content)
    return read_model(path)


def test_points_of_all_contours_with_the_objects_names(tmp_path, imod_model):
    first, second = [(1.5, 2.5, 3), (4, 5, 6)], [(7, 8, 9)]
    found = read(tmp_path / "a.mod", imod_model(("ribosome", first, second), ("", [(0.5, 0.5, 0)])))
    assert [name for name, _ in found] == ["ribosome", ""]
    assert found[0][1].tolist() == [list(point) for point in [*first, *second]]
    assert found[1][1].tolist() == [[0.5, 0.5, 0]]
    assert [len(points) for _, points in read(tmp_path / "b.mod", imod_model(("a",)))] == [0]


def test_y_and_z_that_were_exchanged_are_put_back(tmp_path, imod_model):
    found = read(tmp_path / "a.mod", imod_model(("a", [(1, 2, 3)]), flags=FLIPPED))
    assert found[0][1].tolist() == [[1, 3, 2]]


def test_points_in_a_part_of_the_image_count_from_its_beginning(tmp_path, imod_model):
    # Scale, origin and turn of then and now: the part begins 30, 10 and 4 pixels of 8 Å in.
    whole = np.array([100.0, 0.0, -50.0])
    reference = [[1] * 3, whole, [0] * 3, [8.0] * 3, whole - [240, 80, 32], [0] * 3]
    for flags, shift in ((ORIGIN_KNOWN, [30, 10, 4]), (0, [0, 0, 0])):
        content = imod_model(("a", [(1, 2, 3)]), flags=flags, reference=reference)
        found = read(tmp_path / "a.mod", content)
        np.testing.assert_allclose(found[0][1], [np.add([1, 2, 3], shift)])


def test_what_is_no_whole_model_is_told(tmp_path, imod_model):
    with pytest.raises(InputError, match="no binary model"):
        read(tmp_path / "a.mod", b"imod 1\nobject 0 1 0\n")
    whole = imod_model(("a", [(1, 2, 3)]))
    for end in range(8, len(whole) - 4, 7):
        with pytest.raises(InputError, match=r"a\.mod: ends early"):
            read(tmp_path / "a.mod", whole[:end])
