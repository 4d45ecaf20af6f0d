from __future__ import annotations

import time

import numpy as np
import pytest

from pixelis.core.errors import NotInstalled, ToolError
from pixelis.core.geometry import Box
from pixelis.core.ops import Call
from pixelis.testing import WrappedTool, check_tool
from pixelis.testing.check import ContractBroken
from pixelis.testing.scenes import background, disc, image_medium
from pixelis.tools.cache import ResultCache
from pixelis.tools.execute import MAX_ABANDONED, Executor
from pixelis.tools.zoom import ZoomTool

ZOOM = Call(op="ZOOM", arguments={"bbox_2d": [100, 100, 300, 300]})


@pytest.fixture(scope="module")
def medium():
    return image_medium(disc(background(0), Box(100, 120, 160, 180), "red"), "scene")


def run(tool, medium, call=ZOOM, history=(), **options):
    return Executor({tool.op: tool}, **options).run(call, medium, history)


def test_zoom_keeps_its_contract():
    assert len(check_tool(ZoomTool())) == 3


def test_a_constant_tool_breaks_the_contract(medium):
    constant = WrappedTool(ZoomTool(), output=run(ZoomTool(), medium).result.output)
    with pytest.raises(ContractBroken):
        check_tool(constant)


def test_zoom_by_hand(medium):
    execution = run(ZoomTool(), medium)
    output = execution.result.output
    # 640x480: [100..300] is x 64..192, y 48..144: 128x96 px, enlarged to an area of 512*512
    assert output.box == Box(64, 48, 192, 144)
    assert abs(output.width * output.height - 512 * 512) < 1500
    assert output.width / output.height == pytest.approx(128 / 96, rel=0.01)
    assert set(execution.blobs) == {output.image}


def test_zoom_scale_past_the_limit_says_what_to_write(medium):
    call = Call(op="ZOOM", arguments={"bbox_2d": [0, 0, 1000, 1000], "scale": 50})
    error = run(ZoomTool(), medium, call).result.error
    assert error.kind == "bad_arguments" and "write scale 3.20 or less" in error.message


@pytest.mark.parametrize(
    ("arguments", "box", "size"),
    [
        ({"bbox_2d": [0, 0, 1, 1]}, Box(0, 0, 1, 1), (512, 512)),
        # 640 x 1 px, with 640 * 32 / 2048 = 10 rows about it; at the edges inside the frame.
        ({"bbox_2d": [0, 500, 1000, 501]}, Box(0, 235, 640, 245), (2048, 32)),
        ({"bbox_2d": [0, 999, 1000, 1000]}, Box(0, 470, 640, 480), (2048, 32)),
        ({"bbox_2d": [0, 0, 1, 1000]}, Box(0, 0, 8, 480), (34, 2048)),
        # However small it is asked for, a side has 32 px.
        ({"bbox_2d": [0, 0, 250, 250], "scale": 0.01}, Box(0, 0, 160, 120), (43, 32)),
    ],
)
def test_zoom_of_one_pixel_and_of_slivers(medium, arguments, box, size):
    output = run(ZoomTool(), medium, Call(op="ZOOM", arguments=arguments)).result.output
    assert (output.box, (output.width, output.height)) == (box, size)


def test_a_frame_that_is_a_sliver_itself_is_shown_as_it_is():
    output = run(
        ZoomTool(), image_medium(background(0)[:3], "thin"), Call(op="ZOOM", arguments={"bbox_2d": [0, 0, 1000, 1000]})
    ).result.output
    assert output.box == Box(0, 0, 640, 3) and (output.width, output.height) == (2048, 10)


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({}, "bad_arguments"),
        ({"bbox_2d": [300, 300, 100, 100]}, "bad_arguments"),
        ({"bbox_2d": [2000, 0, 3000, 10]}, "out_of_frame"),
        ({"bbox_2d": [0, 0, 10, 10], "wisdom": 3}, "bad_arguments"),
        ({"bbox_2d": [0, 0, 10, 10], "scale": float("nan")}, "bad_arguments"),
        ({"bbox_2d": [0, 0, 10, 10], "scale": "big"}, "bad_arguments"),
        ({"bbox_2d": [0, 0, 10, 10], "scale": -1}, "bad_arguments"),
        ({"bbox_2d": [0, 0, 10, 10], "frame": 7.0}, "out_of_time"),
        ({"bbox_2d": [0, 0, 10, 10], "label": "x" * 300}, "bad_arguments"),
        ({"ref": 1}, "bad_ref"),
        ({"ref": 0}, "bad_ref"),
        ({"ref": -1}, "bad_ref"),
        ({"ref": "1; drop"}, "bad_ref"),
        ({"ref": 10**30}, "bad_ref"),
        ({"ref": True}, "bad_ref"),
        ({"ref": [1]}, "bad_ref"),
        ({"bbox_2d": [0, 0, 10, 10], "img_idx": 5}, "bad_arguments"),
    ],
)
def test_bad_arguments_are_typed_errors(medium, arguments, kind):
    error = run(ZoomTool(), medium, Call(op="ZOOM", arguments=arguments)).result.error
    assert error is not None and error.kind == kind
    assert 10 < len(error.message) < 250


def test_video_tools_refuse_an_image(medium):
    tool = WrappedTool(ZoomTool())
    tool.op = "TRK"
    error = run(tool, medium, Call(op="TRK", arguments={"bbox_2d": [0, 0, 10, 10]})).result.error
    assert error.kind == "wrong_medium" and tool.num_calls == 0


def test_ref_names_an_earlier_region(medium):
    first = run(ZoomTool(), medium).result
    second = run(ZoomTool(), medium, Call(op="ZOOM", arguments={"ref": 1}), [first]).result
    assert second.output == first.output
    failed = run(ZoomTool(), medium, Call(op="ZOOM", arguments={})).result
    error = run(ZoomTool(), medium, Call(op="ZOOM", arguments={"ref": 2}), [first, failed]).result.error
    assert error.kind == "bad_ref" and "produced nothing" in error.message


def test_an_engine_that_hangs_costs_its_deadline(medium):
    tool = WrappedTool(ZoomTool(), sleep_s=1.5)
    start = time.monotonic()
    result = run(tool, medium, deadline_s=0.1).result
    assert time.monotonic() - start < 1.0
    assert result.error.kind == "deadline"


def test_many_hanging_calls_are_refused_instead_of_piling_up(medium):
    tool = WrappedTool(ZoomTool(), sleep_s=1.5)
    executor = Executor({"ZOOM": tool}, deadline_s=0.02)
    kinds = [executor.run(ZOOM, medium, ()).result.error.kind for _ in range(MAX_ABANDONED + 2)]
    assert kinds == ["deadline"] * MAX_ABANDONED + ["unavailable"] * 2
    time.sleep(1.7)
    assert executor.run(ZOOM, medium, ()).result.error.kind == "deadline"


def test_every_kind_of_failure_is_a_typed_result(medium):
    for error, kind in [
        (ToolError("nothing_found", "m"), "nothing_found"),
        (NotInstalled("SAM", "pip install sam"), "unavailable"),
        (ZeroDivisionError("x"), "crashed"),
        (MemoryError(), "crashed"),
    ]:
        execution = run(WrappedTool(ZoomTool(), error=error), medium)
        assert execution.result.status == "error" and execution.result.error.kind == kind
        assert ("Traceback" in execution.traceback) == (kind == "crashed")


def test_a_disabled_tool_answers_empty(medium):
    tool = WrappedTool(ZoomTool())
    result = run(tool, medium, disabled=("ZOOM",)).result
    assert (result.status, result.output, result.error) == ("disabled", None, None)
    assert tool.num_calls == 0


def test_results_are_cached_by_content(medium):
    tool = WrappedTool(ZoomTool())
    executor = Executor({"ZOOM": tool}, cache=ResultCache())
    first, second = executor.run(ZOOM, medium, ()), executor.run(ZOOM, medium, ())
    assert (first.result, first.blobs) == (second.result, second.blobs)
    assert (first.is_cached, second.is_cached, tool.num_calls) == (False, True, 1)
    other = image_medium(background(9), "other")
    executor.run(ZOOM, other, ())
    executor.run(Call(op="ZOOM", arguments={"bbox_2d": [100, 100, 300, 301]}), medium, ())
    assert tool.num_calls == 3


def test_failures_of_the_machine_are_not_cached(medium):
    tool = WrappedTool(ZoomTool(), error=ZeroDivisionError())
    executor = Executor({"ZOOM": tool}, cache=ResultCache())
    executor.run(ZOOM, medium, ())
    executor.run(ZOOM, medium, ())
    assert tool.num_calls == 2


def test_the_memory_cache_is_bounded(medium):
    cache = ResultCache(max_bytes=1 << 20)
    executor = Executor({"ZOOM": ZoomTool()}, cache=cache)
    for i in range(30):
        executor.run(Call(op="ZOOM", arguments={"bbox_2d": [i, 0, i + 300, 300]}), medium, ())
    assert cache._num_bytes <= 1 << 20
    assert 0 < len(cache._entries) < 30


def test_another_version_is_another_result(medium):
    cache = ResultCache()
    one, two = WrappedTool(ZoomTool()), WrappedTool(ZoomTool(), version="2")
    Executor({"ZOOM": one}, cache=cache).run(ZOOM, medium, ())
    assert not Executor({"ZOOM": two}, cache=cache).run(ZOOM, medium, ()).is_cached


def test_crops_show_the_pixels_of_the_box(medium):
    from pixelis.core.media import decode_png

    execution = run(ZoomTool(), medium, Call(op="ZOOM", arguments={"bbox_2d": [100, 100, 300, 300], "scale": 1}))
    crop = decode_png(execution.blobs[execution.result.output.image])
    assert np.array_equal(crop, medium.frame(0)[48:144, 64:192])
