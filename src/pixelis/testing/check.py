"""`check_tool`: the contract that any tool must pass, on scenes whose truth is exact. A tool that returns a constant fails it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from PIL import Image

from pixelis.core.errors import AgentError
from pixelis.core.geometry import Box
from pixelis.core.media import Medium
from pixelis.core.ops import OcrOutput, Output, PropOutput, SegOutput, TempOutput, TrkOutput, ZoomOutput
from pixelis.core.store import sha256
from pixelis.testing.cases import CASES, Case
from pixelis.tools.base import Context, Tool

MOST_OFF = 3.0
"""Grey levels, on average, between what ZOOM shows and the region resized: ways to resize differ by about one."""


class ContractBroken(AssertionError):
    """A tool does not keep the contract; the text says which clause, on which scene."""


def check_tool(tool: Tool) -> list[str]:
    """Check a tool against the contract and return one line per scene passed, and one for the box beside the frame.

    The clauses: it answers with its op's own output type; its outputs are right on scenes with exact truth, and differ where the truth
    does; the same call gives the same output; footprints, boxes, frames and times lie inside the medium; scores are in [0, 1]; what an
    output says twice agrees (a mask and its box, a point and its frame's time, a region and the picture of it); blobs are there and named
    by their content; what misses the frame is a typed error; name and version are texts.

    Raises:
        ContractBroken: the first clause that fails.
    """
    passed = []
    for name in ("op", "engine", "version"):
        _require(isinstance(getattr(tool, name), str) and getattr(tool, name), f"{name} must be a text that is not empty")
    cases = CASES[tool.op]()
    outputs = []
    for case in cases:
        output, blobs = _call(tool, case)
        _require(output.op == tool.op, f"{case.name}: {tool.op} returned an output of {output.op}")
        _check_footprint(output, case)
        for what, score in _scores(output):
            _require(math.isfinite(score) and 0 <= score <= 1, f"{case.name}: {what} is {score}, not in [0, 1]")
        _require(all(sha256(data) == key for key, data in blobs.items()), f"{case.name}: a blob is not named by its SHA-256")
        for clause in CLAUSES[tool.op](output, case, blobs):
            raise ContractBroken(f"{case.name}: {clause}")
        quality = case.quality(output)
        _require(quality >= case.at_least, f"{case.name}: quality {quality:.3f}, at least {case.at_least} is required")
        _require(_call(tool, case) == (output, blobs), f"{case.name}: two equal calls gave two outputs")
        outputs.append(output)
        passed.append(f"{case.name}: quality {quality:.3f} (at least {case.at_least}), deterministic, footprint inside")
    _require(any(o != outputs[0] for o in outputs[1:]), "all scenes gave the same output: a constant is no measurement")
    passed.append(_check_miss(tool, cases[0]))
    return passed


def _call(tool: Tool, case: Case) -> tuple[Output, dict[str, bytes]]:
    context = Context()
    try:
        return tool(case.medium, case.args, context), context.blobs
    except AgentError as error:
        raise ContractBroken(f"{case.name}: {error.kind}: {error.message}") from error
    except Exception as error:
        raise ContractBroken(f"{case.name}: {type(error).__name__}, which is no ToolError: {error}") from error


def _check_miss(tool: Tool, case: Case) -> str:
    """A box beside the frame is the agent's mistake and must come back as one."""
    fields = {name: getattr(case.args, name) for name in case.args.__dataclass_fields__}
    aside = type(case.args)(**{**fields, "box": Box(5000, 5000, 5050, 5050), **({"point": None} if "point" in fields else {})})
    try:
        tool(case.medium, aside, Context())
    except AgentError as error:
        _require(error.kind == "out_of_frame", f"a box beside the frame gave the error {error.kind!r}, not 'out_of_frame'")
        return "a box beside the frame is a typed error"
    except Exception as error:
        raise ContractBroken(f"a box beside the frame gave {type(error).__name__}, which is no ToolError: {error}") from error
    raise ContractBroken("a box beside the frame was accepted")


def _require(holds: object, text: str) -> None:
    if not holds:
        raise ContractBroken(text)


# ---------------------------------------------------------------- what holds for every output


def _check_footprint(output: Output, case: Case) -> None:
    footprint, medium = output.footprint, case.medium
    _require(all(0 <= f < medium.num_frames for f in footprint.frames), f"{case.name}: a footprint frame is outside the medium")
    for frame, box in footprint.boxes:
        _require(0 <= frame < medium.num_frames, f"{case.name}: a footprint box is on frame {frame}, outside the medium")
        _require(_is_inside(box, medium), f"{case.name}: footprint box {box} leaves the frame")
    if (span := footprint.span) is not None:
        _require(_is_stretch(span.start_s, span.end_s, medium), f"{case.name}: footprint span {span} is no stretch of the medium")


def _is_inside(box: Box, medium: Medium) -> bool:
    return 0 <= box.x0 < box.x1 <= medium.width and 0 <= box.y0 < box.y1 <= medium.height


def _is_stretch(start_s: float, end_s: float, medium: Medium) -> bool:
    return 0 <= start_s <= end_s <= medium.info.duration_s + 1e-3


def _scores(output: Output) -> Iterator[tuple[str, float]]:
    """Every score and confidence in an output, with its name."""
    match output:
        case SegOutput():
            yield "the score", output.score
        case TrkOutput():
            yield "the track's score", output.score
            yield from ((f"the score on frame {point.frame}", point.score) for point in output.points)
        case OcrOutput():
            yield from ((f"the confidence of {span.text!r}", span.confidence) for span in output.spans)
        case TempOutput():
            yield from ((f"the score of segment {k}", segment.score) for k, segment in enumerate(output.segments, 1))
        case PropOutput():
            yield from ((f"the confidence of {attribute.name}", attribute.confidence) for attribute in output.attributes)


# ---------------------------------------------------------------- what holds for one op; each yields what does not


def _seg(output: SegOutput, case: Case, blobs: dict[str, bytes]) -> Iterator[str]:
    height, width = output.mask.height, output.mask.width
    if output.frame != case.args.frame:
        yield f"the mask is of frame {output.frame}, not of {case.args.frame}"
    if (width, height) != (case.medium.width, case.medium.height):
        yield f"the mask is of {width}x{height} px, the frame of {case.medium.width}x{case.medium.height}"
    if output.box != output.mask.box:
        yield f"the box {output.box} is not the mask's, {output.mask.box}"
    share = output.mask.area_px / (width * height)
    if not abs(output.area_share - share) <= 1e-4 * share:
        yield f"area_share is {output.area_share}, the mask's {share:.6f}"


def _zoom(output: ZoomOutput, case: Case, blobs: dict[str, bytes]) -> Iterator[str]:
    if output.frame != case.args.frame:
        yield f"the view is of frame {output.frame}, not of {case.args.frame}"
    if output.image not in blobs:
        yield f"the picture {output.image[:12]} is not among the blobs"
    try:
        shown = np.asarray(Image.open(io.BytesIO(blobs[output.image])).convert("RGB"))
    except OSError:
        yield "the blob is no picture"
    if shown.shape[:2] != (output.height, output.width):
        yield f"the picture is of {shown.shape[1]}x{shown.shape[0]} px, not of {output.width}x{output.height}"
    x0, y0, x1, y1 = output.box.pixels(width=case.medium.width, height=case.medium.height)
    region = np.ascontiguousarray(case.medium.frame(output.frame)[y0:y1, x0:x1])
    is_larger = output.width * output.height > (x1 - x0) * (y1 - y0)
    wanted = cv2.resize(region, (output.width, output.height), interpolation=cv2.INTER_CUBIC if is_larger else cv2.INTER_AREA)
    off = float(np.abs(shown.astype(np.float32) - wanted).mean())
    if off > MOST_OFF:
        yield f"the picture is not the region's: {off:.1f} grey levels off"


def _trk(output: TrkOutput, case: Case, blobs: dict[str, bytes]) -> Iterator[str]:
    asked = list(range(case.args.first_frame, case.args.last_frame + 1))
    if [point.frame for point in output.points] != asked:
        yield f"the points' frames are not {asked[0]} to {asked[-1]}, each once and in order"
    for point in output.points:
        if not abs(point.time_s - float(case.medium.times_s[point.frame])) <= 1e-3:
            yield f"frame {point.frame} is at {case.medium.times_s[point.frame]:.3f} s, not at {point.time_s}"


def _ocr(output: OcrOutput, case: Case, blobs: dict[str, bytes]) -> Iterator[str]:
    if output.frame != case.args.frame:
        yield f"the text is of frame {output.frame}, not of {case.args.frame}"
    if output.box.iou(case.args.box) < 0.95:
        yield f"the region {output.box} is not the one asked for, {case.args.box}"
    for span in output.spans:
        if span.box.intersect(output.box).area < 0.99 * span.box.area:
            yield f"the box {span.box} of {span.text!r} leaves the region {output.box}"


def _temp(output: TempOutput, case: Case, blobs: dict[str, bytes]) -> Iterator[str]:
    if (output.event, output.first_frame, output.last_frame) != (case.args.event, case.args.first_frame, case.args.last_frame):
        yield f"it tells of {output.event!r} on frames {output.first_frame} to {output.last_frame}, which was not asked"
    for segment in output.segments:
        if not _is_stretch(segment.start_s, segment.end_s, case.medium):
            yield f"the segment from {segment.start_s} to {segment.end_s} s is no stretch of the medium"
    scores = [segment.score for segment in output.segments]
    if scores != sorted(scores, reverse=True):
        yield "the segments are not in the order of their scores, best first"


def _prop(output: PropOutput, case: Case, blobs: dict[str, bytes]) -> Iterator[str]:
    if (output.what, output.frame) != (case.args.what, case.args.frame):
        yield f"it tells of {output.what!r} on frame {output.frame}, which was not asked"
    if output.box.iou(case.args.box) < 0.95:
        yield f"the region {output.box} is not the one asked for, {case.args.box}"


CLAUSES: dict[str, Callable[..., Iterator[str]]] = {"SEG": _seg, "ZOOM": _zoom, "TRK": _trk, "OCR": _ocr, "TEMP": _temp, "PROP": _prop}
"""What an op's output must keep besides; the first broken clause is raised."""
