"""Frames made ahead: the same ones in the same order, errors in their place, and a reader that stops when it is left."""

from __future__ import annotations

import gc
import threading
import time

import cv2
import numpy as np
import pytest

from pixelis.core.ops import Call
from pixelis.testing.scenes import video_medium
from pixelis.tools.ahead import DEPTH, read_ahead
from pixelis.tools.execute import Executor
from pixelis.tools.temp import TempTool
from pixelis.tools.trk import TrkTool


@pytest.fixture(autouse=True)
def two_threads():
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    yield
    cv2.setNumThreads(before)


def _readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pixelis-read-ahead"]


def _until(is_so) -> bool:
    end = time.monotonic() + 20
    while not is_so() and time.monotonic() < end:
        time.sleep(0.01)
    return is_so()


def test_gives_the_same_items_in_the_same_order() -> None:
    assert list(read_ahead(iter(range(50)))) == list(range(50))
    assert list(read_ahead(iter(()))) == []


def test_makes_a_few_items_before_they_are_asked_for_and_no_more() -> None:
    made = []

    def items():
        for k in range(50):
            made.append(k)
            yield k

    ahead = read_ahead(items())
    assert next(ahead) == 0
    assert _until(lambda: len(made) == DEPTH + 2)  # one taken, DEPTH waiting, one that finds no room
    time.sleep(0.2)
    assert len(made) == DEPTH + 2
    ahead.close()


def test_an_error_comes_where_its_item_would() -> None:
    def items():
        yield 1
        yield 2
        raise ValueError("the third is lost")

    got, ahead = [], read_ahead(items())
    with pytest.raises(ValueError, match="the third is lost"):
        for item in ahead:
            got.append(item)
    assert got == [1, 2]


def test_left_early_it_stops_and_closes_its_source() -> None:
    closed, before = threading.Event(), set(_readers())

    def items():
        try:
            yield from range(1_000_000)
        finally:
            closed.set()

    ahead = read_ahead(items())
    next(ahead)
    ahead.close()
    assert closed.wait(20)
    assert _until(lambda: not set(_readers()) - before)


def test_a_process_of_one_thread_makes_nothing_ahead() -> None:
    cv2.setNumThreads(1)
    made, before = [], set(_readers())
    ahead = read_ahead(made.append(k) or k for k in range(5))
    assert next(ahead) == 0
    assert set(_readers()) <= before
    assert made == [0]


class _Stuck:
    """An engine that looks at one frame and then waits until its time is up, or fails."""

    name, version = "stuck", "1"

    def __init__(self, fails: bool) -> None:
        self._fails = fails

    def _work(self, frames, should_stop):
        next(iter(frames))
        while not self._fails:
            should_stop()
            time.sleep(0.01)
        raise RuntimeError("broken")

    def track(self, frames, box, *, should_stop=None):
        return self._work(frames, should_stop)

    def locate(self, frames, times_s, event, *, box=None, should_stop=None):
        return self._work(frames, should_stop)


@pytest.mark.parametrize("fails", [False, True], ids=["deadline", "crash"])
@pytest.mark.parametrize(("tool", "arguments"), [(TrkTool, {"bbox_2d": [100, 100, 500, 500]}), (TempTool, {"event": "moves"})])
def test_no_reader_stays_behind_a_call_that_ended_early(tool, arguments, fails) -> None:
    frames = [np.full((64, 64, 3), k, np.uint8) for k in range(40)]
    before = set(_readers())
    gc.collect()
    gc.disable()  # what is only collected some time is not closed
    try:
        with video_medium(frames, "grey") as medium:
            executor = Executor({tool.op: tool(_Stuck(fails))}, deadline_s=0.3)
            result = executor.run(Call(op=tool.op, arguments=arguments), medium, []).result
            assert result.error.kind == ("crashed" if fails else "deadline")
            assert _until(lambda: not set(_readers()) - before)
    finally:
        gc.enable()
