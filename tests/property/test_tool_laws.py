"""Laws of the tools, on calls that nobody would think of: a typed result every time, footprints inside, the same call the same result."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pixelis.core.arguments import ARGUMENTS
from pixelis.core.errors import ERROR_KINDS
from pixelis.core.geometry import Box
from pixelis.core.grammar import render_response
from pixelis.core.ops import EVENTS, OPS, PROPERTIES, Call
from pixelis.core.wire import result_to_wire
from pixelis.testing.scenes import background, disc, image_medium, video_medium
from pixelis.tools.execute import Executor
from pixelis.tools.toolbox import build_toolbox

PICTURE = disc(disc(background(0)[:160, :200], Box(20, 30, 60, 70), "red"), Box(110, 60, 170, 120), "blue")

good_box = st.tuples(st.integers(0, 900), st.integers(0, 900), st.integers(20, 400), st.integers(20, 400)).map(
    lambda t: [t[0], t[1], min(1000, t[0] + t[2]), min(1000, t[1] + t[3])]
)
odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.floats(-2000, 2000) | st.integers(-(10**9), 10**9), max_size=5),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
PLAUSIBLE = {
    "bbox_2d": good_box,
    "point": st.lists(st.integers(0, 1000), min_size=2, max_size=2),
    "ref": st.integers(1, 3) | st.sampled_from(["1.1", "2.1"]),
    "other": good_box | st.integers(1, 3),
    "frame": st.floats(0, 0.8),
    "from_s": st.floats(0, 0.4),
    "to_s": st.floats(0.4, 0.8),
    "window": st.just([0.0, 0.7]),
    "event": st.sampled_from(EVENTS) | st.just("a red thing appears"),
    "what": st.sampled_from(PROPERTIES),
    "scale": st.floats(0.1, 3),
    "label": st.text(max_size=5),
    "img_idx": st.just(0),
}


@st.composite
def calls(draw) -> Call:
    op = draw(st.sampled_from(OPS))
    names = draw(st.sets(st.sampled_from(sorted(ARGUMENTS[op])), max_size=4))
    arguments = {name: draw(PLAUSIBLE[name] if draw(st.integers(0, 5)) else odd) for name in sorted(names)}
    if op == "PROP":
        arguments.setdefault("what", draw(PLAUSIBLE["what"]))
    if op == "TEMP":
        arguments.setdefault("event", draw(PLAUSIBLE["event"]))
    return Call(op=op, arguments=arguments)


@pytest.fixture(scope="module")
def scenes():
    frames = [disc(PICTURE, Box(20 + 8 * i, 110, 60 + 8 * i, 150), "green") for i in range(8)]
    executor = Executor(build_toolbox())
    found = []
    for medium in (image_medium(PICTURE, "picture"), video_medium(frames, "clip")):
        history = [
            executor.run(Call(op="SEG", arguments={"bbox_2d": [100, 180, 300, 440]}), medium, ()).result,
            executor.run(Call(op="OCR", arguments={}), medium, ()).result,
            executor.run(Call(op="TRK", arguments={"bbox_2d": [100, 680, 300, 940]}), medium, ()).result,
        ]
        found.append((medium, history))
    return executor, found


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(calls(), st.integers(0, 1))
def test_every_call_gives_a_typed_result(scenes, call, which):
    executor, found = scenes
    medium, history = found[which]
    execution = executor.run(call, medium, history)
    result = execution.result
    assert not execution.traceback, execution.traceback
    assert executor.run(call, medium, history).result == result
    response = render_response(result_to_wire(result, step=4, info=medium.info))
    assert json.loads(response.removeprefix("<tool_response>\n").removesuffix("\n</tool_response>"))["op"] == call.op
    if result.error is not None:
        assert result.error.kind in ERROR_KINDS and result.error.kind not in ("crashed", "deadline")
        return
    footprint = result.output.footprint
    assert all(0 <= frame < medium.num_frames for frame in footprint.frames)
    for _, box in footprint.boxes:
        assert 0 <= box.x0 < box.x1 <= medium.width and 0 <= box.y0 < box.y1 <= medium.height
    if footprint.mask is not None:
        assert (footprint.mask.width, footprint.mask.height) == (medium.width, medium.height)
        assert footprint.mask.box == footprint.boxes[0][1]
    if footprint.span is not None:
        assert 0 <= footprint.span.start_s <= footprint.span.end_s <= medium.duration_s + 0.5
