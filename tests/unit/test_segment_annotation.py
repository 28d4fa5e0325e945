"""Whether an annotation's numbers look like what they are said to mean."""

import numpy as np
import pytest

from tomocensus.segment import AnnotatedVolume
from tomocensus.segment.targets import check_kind
from tomocensus.volume import Volume

SHAPE = (20, 60, 60)


def pair(numbers, kind):
    """Return sixteen squares in two slices; `numbers` tells that of each from its place."""
    labels = np.full(SHAPE, -1, np.int32)
    labels[[4, 15]] = 0
    for k in range(16):
        y, x = 3 + 15 * (k // 4), 3 + 15 * (k % 4)
        labels[[4, 15], y : y + 8, x : x + 8] = numbers(k)
    return AnnotatedVolume("cell", Volume(np.zeros(SHAPE, np.float32), 10.0), labels, kind=kind)


@pytest.mark.parametrize(
    ("numbers", "kind", "told"),
    [
        (lambda k: 1, "binary", None),
        (lambda k: 7, "binary", None),
        (lambda k: 1 + k, "binary", "16 numbers, and 'binary'"),
        (lambda k: 1 + k % 2, "binary", "2 numbers, and 'binary'"),
        (lambda k: 1 + k, "instance", None),
        (lambda k: 900_000 + k, "instance", None),
        (lambda k: 1 + k % 3, "instance", "'instance' takes each for one object"),
        (lambda k: 5, "instance", "'instance' takes each for one object"),
        # Nets and folded cisternae lie in many places of a slice, beside other objects.
        (lambda k: max(k - 10, 1), "instance", None),
        (lambda k: 1 + k % 2, "semantic", None),
        (lambda k: 0, "instance", None),
    ],
)
def test_numbers_that_mean_something_else_are_told(numbers, kind, told):
    texts = check_kind(pair(numbers, kind))
    assert len(texts) == (told is not None)
    assert all(told in text and "cell" in text for text in texts)


def test_crumbs_do_not_make_an_object_a_class():
    one = pair(lambda k: 1 + k, "instance")
    section = one.annotation[4]
    for k in range(16):
        y, x = 3 + 15 * (k // 4), 3 + 15 * (k % 4)
        section[y + 10, x : x + 9 : 2] = 1 + k
    assert check_kind(one) == []
    # An object that hangs together by its corners lies in one place.
    section[:] = np.eye(15).repeat(4, 0).repeat(4, 1)
    assert check_kind(one) == []


def test_annotation_without_background_is_looked_at():
    labels = np.full(SHAPE, -1, np.int32)
    labels[3] = 4
    labels[3, :, 30:] = 9
    volume = Volume(np.zeros(SHAPE, np.float32), 10.0)
    assert check_kind(AnnotatedVolume("cell", volume, labels, kind="instance")) == []
    (text,) = check_kind(AnnotatedVolume("cell", volume, labels))
    assert "2 numbers" in text
