from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.core.errors import ToolError
from pixelis.core.geometry import (
    Box,
    Mask,
    TimeSpan,
    View,
    box_from_wire,
    box_to_wire,
    point_from_wire,
    point_to_wire,
)

sizes = st.integers(1, 5000)


def test_iou_by_hand():
    # 10x10 and 10x10 shifted by 5 in x: shared 50, union 150
    assert Box(0, 0, 10, 10).iou(Box(5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert Box(0, 0, 10, 10).iou(Box(10, 0, 20, 10)) == 0.0
    assert Box(3, 3, 3, 9).iou(Box(3, 3, 3, 9)) == 0.0


def test_wire_by_hand():
    # 640x480: x 64 is 100, y 48 is 100
    assert box_to_wire(Box(64, 48, 320, 240), width=640, height=480) == [100, 100, 500, 500]
    assert box_from_wire([100, 100, 500, 500], width=640, height=480) == Box(64, 48, 320, 240)
    assert point_to_wire(320, 120, width=640, height=480) == [500, 250]
    assert point_from_wire([500, 250], width=640, height=480) == (320, 120)


@given(sizes, sizes, st.tuples(*[st.integers(0, 1000)] * 4))
def test_wire_to_pixels_and_back_is_the_same_box(width, height, values):
    x0, y0, x1, y1 = values
    if x0 == x1 or y0 == y1:
        return
    box = [min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]
    assert box_to_wire(box_from_wire(box, width=width, height=height), width=width, height=height) == box


@given(sizes, sizes, st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 1), st.floats(0.001, 1))
def test_a_written_box_is_never_empty_and_always_inside(width, height, x, y, w, h):
    box = Box(x * width, y * height, min(width, (x + w) * width), min(height, (y + h) * height))
    if box.is_empty:
        return
    x0, y0, x1, y1 = box_to_wire(box, width=width, height=height)
    assert 0 <= x0 < x1 <= 1000 and 0 <= y0 < y1 <= 1000


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([500, 0, 100, 100], "bad_arguments"),
        ([100, 100, 100, 200], "bad_arguments"),
        ([1000, 0, 1200, 10], "out_of_frame"),
        ([-50, 0, 0, 10], "out_of_frame"),
        ([0, 0, float("nan"), 10], "bad_arguments"),
        ([0, 0, 10**400, 10], "bad_arguments"),
        ([0, 0, True, 10], "bad_arguments"),
        (["0", 0, 1, 1], "bad_arguments"),
        ([0, 0, 1], "bad_arguments"),
        ({"x": 1}, "bad_arguments"),
        (None, "bad_arguments"),
        ("[0,0,1,1]" * 1000, "bad_arguments"),
    ],
)
def test_boxes_that_are_none(values, kind):
    with pytest.raises(ToolError) as raised:
        box_from_wire(values, width=640, height=480)
    assert raised.value.kind == kind
    assert len(raised.value.message) < 250


def test_a_point_at_the_far_corner_lies_inside_the_frame():
    assert point_from_wire([1000, 1000], width=640, height=480) == (639.5, 479.5)
    with pytest.raises(ToolError):
        point_from_wire([1001, 5], width=640, height=480)


def test_pixels_touch_what_the_box_touches():
    assert Box(1.2, 2.0, 3.1, 4.0).pixels(width=10, height=10) == (1, 2, 4, 4)
    assert Box(1.9999999999, 0, 3.0000000001, 2).pixels(width=10, height=10) == (2, 0, 3, 2)
    assert Box(20, 20, 30, 30).pixels(width=10, height=10) == (0, 0, 0, 0)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_mask_round_trip(height, width, seed):
    array = np.random.Generator(np.random.PCG64(seed)).random((height, width)) > 0.5
    mask = Mask.from_array(array)
    assert (mask.to_array() == array).all()
    assert mask.area_px == array.sum()
    assert mask.iou(mask) == (1.0 if array.any() else 0.0)


def test_mask_box_is_tight():
    array = np.zeros((20, 30), bool)
    array[4:9, 7:15] = True
    assert Mask.from_array(array).box == Box(7, 4, 15, 9)


def test_tiou_by_hand():
    assert TimeSpan(0, 4).tiou(TimeSpan(2, 6)) == pytest.approx(2 / 6)
    assert TimeSpan(1, 1).tiou(TimeSpan(1, 1)) == 1.0
    assert TimeSpan(1, 1).tiou(TimeSpan(2, 2)) == 0.0


@given(st.floats(0, 500), st.floats(0, 500), st.floats(0.1, 10), st.floats(0.1, 10))
def test_view_round_trip(x, y, sx, sy):
    view, box = View(x, y, sx, sy), Box(x + 1, y + 2, x + 30, y + 40)
    back = view.to_original(view.to_crop(box))
    assert back.as_tuple() == pytest.approx(box.as_tuple(), abs=1e-6)
