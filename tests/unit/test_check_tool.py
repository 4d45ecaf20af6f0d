"""`check_tool` passes every engine that is here, and stops each tool that only looks as if it measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixelis.core.geometry import Box, Mask
from pixelis.core.media import Medium, png_bytes
from pixelis.core.ops import OPS, Attribute, OcrArgs, OcrOutput, PropOutput, Segment, SegOutput, TextSpan, TrackPoint, TrkOutput
from pixelis.core.store import sha256
from pixelis.testing import ContractBroken, check_tool
from pixelis.testing.cases import CASES
from pixelis.tools.base import Context, Tool
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import ENGINES, choose

TOOLS = {op: choose(op, ToolSettings(seg="classical")).build(ToolSettings()) for op in ("SEG", "ZOOM", "TEMP", "PROP")}


class Double:
    """A tool whose output, or the whole of it, somebody else makes up."""

    engine, version = "double", "1"

    def __init__(self, op: str, answer: Callable[[Medium, Any, Context], Any]) -> None:
        self.op, self._answer = op, answer

    def __call__(self, medium: Medium, args: Any, context: Context) -> Any:
        return self._answer(medium, args, context)


def spoilt(op: str, change: Callable[[Any, Any, Context], Any]) -> Double:
    """The true tool, its output changed by a function of output, arguments and context."""
    return Double(op, lambda medium, args, context: change(TOOLS[op](medium, args, context), args, context))


def breaks(tool: Tool, clause: str) -> None:
    with pytest.raises(ContractBroken, match=clause):
        check_tool(tool)


@pytest.mark.parametrize(("op", "name"), [(op, choice.name) for op, choices in ENGINES.items() for choice in choices])
def test_every_engine_that_is_here_keeps_the_contract(op, name):
    settings = ToolSettings()
    choice = next(choice for choice in ENGINES[op] if choice.name == name)
    if name == "botsort":  # `auto` never takes it, but it brings no weights
        pytest.importorskip("trackers")
    elif not choice.is_ready(settings):
        pytest.skip(f"{name}: {choice.how_to_get}")
    assert len(check_tool(choice.build(settings))) == len(CASES[op]()) + 1


def test_every_op_has_scenes_and_its_default_engine_is_among_those_checked():
    assert set(CASES) == set(OPS)
    assert all(choose(op, ToolSettings()).is_ready(ToolSettings()) for op in OPS)


# ---------------------------------------------------------------- SEG


def test_a_mask_whose_box_or_area_is_another():
    breaks(spoilt("SEG", lambda out, args, context: replace(out, box=out.box.grow(-2))), "is not the mask's")
    breaks(spoilt("SEG", lambda out, args, context: replace(out, area_share=2 * out.area_share)), "area_share is")


def test_a_segmenter_that_knows_no_points():
    def answer(medium: Medium, args: Any, context: Context) -> SegOutput:
        if args.point is not None:
            raise RuntimeError("no points")
        return TOOLS["SEG"](medium, args, context)

    breaks(Double("SEG", answer), "by a point: RuntimeError, which is no ToolError: no points")


def test_an_ellipse_drawn_into_the_box():
    def answer(medium: Medium, args: Any, context: Context) -> SegOutput:
        picture = Image.new("1", (medium.width, medium.height))
        box = args.box.clip(width=medium.width, height=medium.height)
        ImageDraw.Draw(picture).ellipse((box.x0, box.y0, box.x1 - 1, box.y1 - 1), fill=1)
        mask = Mask.from_array(np.asarray(picture))
        return SegOutput(frame=0, box=mask.box, mask=mask, area_share=mask.area_px / (medium.width * medium.height), score=0.9)

    breaks(Double("SEG", answer), "green corner by its box: quality")


# ---------------------------------------------------------------- ZOOM


def test_a_picture_that_is_always_black():
    def black(out, args, context: Context):
        data = png_bytes(np.zeros((out.height, out.width, 3), np.uint8))
        context.blobs.clear()
        context.blobs[sha256(data)] = data
        return replace(out, image=sha256(data))

    breaks(spoilt("ZOOM", black), "is not the region's: .* grey levels off")


def test_a_picture_that_is_not_there():
    breaks(spoilt("ZOOM", lambda out, args, context: replace(out, image="0" * 64)), "picture 000000000000 is not among the blobs")
    breaks(spoilt("ZOOM", lambda out, args, context: context.blobs.clear() or out), "is not among the blobs")


# ---------------------------------------------------------------- PROP


def test_a_constant_for_seven_of_eight_properties():
    def answer(medium: Medium, args: Any, context: Context) -> PropOutput:
        out = TOOLS["PROP"](medium, args, context)
        return out if args.what == "colour" else replace(out, attributes=(Attribute(name=args.what, value="circle", confidence=0.9),))

    breaks(Double("PROP", answer), "shape is triangle: quality 0")


@pytest.mark.parametrize("confidence", [1.01, -0.1, float("nan"), float("inf")])
def test_a_confidence_beyond_what_there_is(confidence):
    def sure(out, args, context):
        return replace(out, attributes=tuple(replace(attribute, confidence=confidence) for attribute in out.attributes))

    breaks(spoilt("PROP", sure), r"the confidence of colour is .*, not in \[0, 1\]")


# ---------------------------------------------------------------- TEMP


def test_nothing_for_every_event_but_one():
    def only_appears(out, args, context):
        return out if args.event == "appears" else replace(out, segments=())

    breaks(spoilt("TEMP", only_appears), "a disc disappears at 0.9 s: quality 0.000")


def test_a_segment_that_is_not_in_the_video():
    def longer(score: float):
        return lambda out, args, context: replace(out, segments=(*out.segments, Segment(start_s=-5.0, end_s=1e9, score=score)))

    breaks(spoilt("TEMP", longer(0.0)), r"the segment from -5.0 to 1000000000.0 s is no stretch of the medium")
    breaks(spoilt("TEMP", longer(7.0)), r"the score of segment \d is 7.0, not in \[0, 1\]")


# ---------------------------------------------------------------- TRK, OCR


def track(change: Callable[[TrackPoint], TrackPoint], score: float = 0.5) -> Double:
    """A track that stays where it began, its points changed by a function."""

    def answer(medium: Medium, args: Any, context: Context) -> TrkOutput:
        frames = range(args.first_frame, args.last_frame + 1)
        points = (TrackPoint(frame=f, time_s=float(medium.times_s[f]), box=args.box, score=0.5) for f in frames)
        return TrkOutput(track_id=1, points=tuple(change(point) for point in points), score=score)

    return Double("TRK", answer)


def test_points_of_other_frames_times_and_scores():
    breaks(track(lambda point: replace(point, frame=0, time_s=0.0)), "frames are not 0 to 11")
    breaks(track(lambda point: replace(point, time_s=0.0)), "frame 1 is at 0.100 s, not at 0.0")
    breaks(track(lambda point: replace(point, score=9.0)), r"the score on frame 0 is 9.0, not in \[0, 1\]")
    breaks(track(lambda point: point, score=9.0), r"the track's score is 9.0, not in \[0, 1\]")
    breaks(track(lambda point: point), r"follow a disc by \(8, 3\): quality")


def reader(box: Callable[[Box], Box], confidence: float = 0.9) -> Double:
    """Every text as it stands there, in a box that is a function of the region."""

    def answer(medium: Medium, args: OcrArgs, context: Context) -> OcrOutput:
        span = TextSpan(text=medium.info.name, box=box(args.box), confidence=confidence)
        return OcrOutput(frame=0, box=args.box, spans=(span,))

    return Double("OCR", answer)


def test_words_that_stand_elsewhere():
    breaks(reader(lambda region: Box(region.x0, region.y0, region.x1, region.y1)), "read 'MARKET 27': quality 0")
    breaks(reader(lambda region: Box(0, 0, 200, 60)), "leaves the region")
    breaks(reader(lambda region: region, confidence=1.5), "the confidence of 'MARKET 27' is 1.5")
