import pytest

from tomocensus.parallel import ahead


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_what_is_made_ahead_comes_in_order_and_not_too_early(count, threads):
    begun = []

    def square(number):
        begun.append(number)
        return number**2

    found = ahead(square, iter(range(12)), count, threads)
    assert next(found) == 0
    assert len(begun) <= count + 1
    assert list(found) == [number**2 for number in range(1, 12)]


def test_a_fault_ahead_is_told_where_it_is_reached():
    found = ahead(lambda number: 1 // (2 - number), range(4), 2)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)
