"""Laws of grids and degraded tools: loading undoes saving, what is moved stays in its frame, and no strength means no change."""

from __future__ import annotations

import json
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from pixelis.core.geometry import Box
from pixelis.core.ops import OcrOutput, Segment, TempOutput, TextSpan
from pixelis.data.world.rng import Rng
from pixelis.data.world.shifts import SEVERITIES, SHIFTS
from pixelis.eval.degrade import CONFIDENCE, degraded, moved_inside
from pixelis.eval.robustness import Cell, grid_from_json, grid_json
from pixelis.eval.stats import Rate, rate_from_json

NUMBERS = st.one_of(st.floats(-1, 1), st.just(math.nan))
RATES = st.builds(Rate, NUMBERS, NUMBERS, NUMBERS, st.integers(0, 99), st.sampled_from(("BCa bootstrap", "none")), st.integers(0, 9))
CELLS = st.builds(
    Cell, kind=st.sampled_from(SHIFTS), severity=st.sampled_from(SEVERITIES), accuracy=RATES, rapr=RATES, parses=RATES, valid=RATES,
    difference=RATES, p=NUMBERS, q=NUMBERS, prc=RATES, num_late=st.integers(0, 9),
)  # fmt: skip


@given(RATES)
def test_a_rate_comes_back_from_json(rate):
    text = json.dumps(rate.to_json(), allow_nan=False)
    assert repr(rate_from_json(json.loads(text))) == repr(rate)  # as text: NaN equals nothing


@settings(max_examples=40)
@given(st.lists(CELLS, max_size=4))
def test_a_grid_comes_back_from_json(cells):
    text = json.dumps(grid_json(tuple(cells)), allow_nan=False)
    assert repr(grid_from_json(json.loads(text))) == repr(tuple(cells))


@given(st.floats(0, 190), st.floats(0, 90), st.floats(1, 200), st.floats(1, 100), st.floats(0, 1), st.integers(0, 99))
def test_a_moved_box_stays_in_the_frame_and_keeps_its_size(x, y, width, height, strength, seed):
    box = Box(x, y, x + width, y + height).clip(width=200, height=100)
    moved = moved_inside(box, strength, 200, 100, Rng(seed))
    assert moved.x0 >= 0 and moved.y0 >= 0 and moved.x1 <= 200 + 1e-9 and moved.y1 <= 100 + 1e-9
    assert math.isclose(moved.width, box.width, abs_tol=1e-9) and math.isclose(moved.height, box.height, abs_tol=1e-9)
    assert abs(moved.x0 - box.x0) <= strength * box.width + 1e-9
    assert moved_inside(box, 0.0, 200, 100, Rng(seed)).iou(box) > 1 - 1e-9


@given(st.text(max_size=20), st.floats(0, 9), st.floats(0, 1), st.integers(0, 99))
def test_no_strength_takes_only_the_sureness(text, start_s, strength, seed):
    size = {"width": 200, "height": 100, "duration_s": 10.0}
    output = OcrOutput(frame=0, box=Box(0, 0, 9, 9), spans=(TextSpan(text=text, box=Box(0, 0, 9, 9), confidence=0.8),))
    (same,) = degraded(output, 0.0, Rng(seed), **size).spans
    assert same.text == text and same.confidence == 0.8 * CONFIDENCE
    assert degraded(output, strength, Rng(seed), **size) == degraded(output, strength, Rng(seed), **size)
    found = TempOutput(
        event="cut", box=None, first_frame=0, last_frame=9, segments=(Segment(start_s=start_s, end_s=start_s + 1, score=1.0),)
    )
    (moved,) = degraded(found, strength, Rng(seed), **size).segments
    assert -1e-9 <= moved.start_s <= moved.end_s <= 10.0 + 1e-9 and math.isclose(moved.end_s - moved.start_s, 1.0, abs_tol=1e-9)
