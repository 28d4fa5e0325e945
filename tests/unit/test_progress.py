import io

import pytest

from tomocensus.progress import paced, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_items_pass_through(stream):
    assert list(progress([3, 1, 2], "work", stream=stream)) == [3, 1, 2]


def test_terminal_gets_a_full_bar_at_the_end():
    stream = Terminal()
    list(progress(range(4), "tiles", stream=stream))
    assert "tiles [" + "#" * 30 + "] 4/4" in stream.getvalue()
    assert stream.getvalue().endswith("\n")


def test_log_gets_plain_lines():
    stream = io.StringIO()
    list(progress(iter("abc"), "tiles", total=3, stream=stream, every_seconds=0))
    lines = stream.getvalue().splitlines()
    assert [line.split(" after")[0] for line in lines] == ["tiles: 1/3", "tiles: 2/3", "tiles: 3/3"]
    assert "\r" not in stream.getvalue()


def test_short_work_leaves_a_log_empty():
    stream = io.StringIO()
    list(progress(range(3), "tiles", stream=stream))
    assert stream.getvalue() == ""


def test_nothing_to_do():
    assert list(progress([], "tiles", stream=Terminal())) == []


def test_steps_are_paced_by_number_or_by_time(monkeypatch):
    assert list(paced(4)) == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)]
    clock = iter([100.0, 100.0, 115.0, 130.0, 170.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    assert list(paced(1, minutes=1.0)) == [(1, 0.0), (2, 0.25), (3, 0.5), (4, 1.0)]
