"""From a written call to typed arguments: what each op accepts, and what `ref`, boxes, points and times on the wire mean.

`ref: k` names what step k produced (`"k.i"` its i-th item, counted from 1); coordinates work everywhere too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pixelis.core.errors import ToolError
from pixelis.core.geometry import Box, Mask, TimeSpan, box_from_wire, point_from_wire
from pixelis.core.media import Medium
from pixelis.core.ops import (
    EVENTS,
    PROPERTIES,
    Args,
    Call,
    OcrArgs,
    OcrOutput,
    Output,
    PropArgs,
    PropOutput,
    Result,
    SegArgs,
    SegOutput,
    TempArgs,
    TempOutput,
    TrackPoint,
    TrkArgs,
    TrkOutput,
    ZoomArgs,
    ZoomOutput,
)

_BOX = {
    "type": "array",
    "items": {"type": "number"},
    "minItems": 4,
    "maxItems": 4,
    "description": "[x1, y1, x2, y2], 0-1000 of the original",
}
_REF = {"type": ["integer", "string"], "description": 'the step whose region, track or segment is meant; "2.3" is the third item of step 2'}
_FRAME = {"type": "number", "description": "which moment of a video, in seconds"}
_FROM = {"type": "number", "description": "start, in seconds"}
_TO = {"type": "number", "description": "end, in seconds"}
_WINDOW = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2, "description": "[from_s, to_s] in one argument"}
_LABEL = {"type": "string", "description": "what is meant, in words"}

ARGUMENTS: dict[str, dict[str, dict]] = {
    "SEG": {
        "bbox_2d": _BOX,
        "point": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2, "description": "[x, y], 0-1000"},
        "ref": _REF,
        "label": _LABEL,
        "frame": _FRAME,
    },
    "ZOOM": {
        "bbox_2d": _BOX,
        "ref": _REF,
        "frame": _FRAME,
        "scale": {"type": "number", "description": "enlargement of the sides; left out, the crop is made large enough to look at"},
        "label": _LABEL,
        "img_idx": {"type": "integer", "description": "0: there is one medium"},
    },
    "TRK": {"bbox_2d": _BOX, "ref": _REF, "from_s": _FROM, "to_s": _TO},
    "OCR": {"bbox_2d": _BOX, "ref": _REF, "frame": _FRAME},
    "TEMP": {
        "event": {"type": "string", "description": f"{', '.join(EVENTS)}, or free text"},
        "bbox_2d": _BOX,
        "ref": _REF,
        "from_s": _FROM,
        "to_s": _TO,
        "window": _WINDOW,
    },
    "PROP": {
        "what": {"type": "string", "enum": list(PROPERTIES)},
        "bbox_2d": _BOX,
        "ref": _REF,
        "frame": _FRAME,
        "other": {"type": ["integer", "string", "array"], "description": "the second region of a relation: a ref or a box"},
    },
}
"""JSON schema of each op's arguments; nothing else is accepted."""

DESCRIPTIONS = {
    "SEG": "Segment the object at a point or in a box; returns its exact box, area share and score.",
    "ZOOM": "Look at a region enlarged; returns the crop as an image.",
    "TRK": "Follow the object in a box through a video; returns its box over time.",
    "OCR": "Read text in a region; returns each text with its box.",
    "TEMP": "Find when something happens in a video; returns time segments.",
    "PROP": f"Measure a property of a region: {', '.join(PROPERTIES)}.",
}


def tool_schemas() -> list[dict]:
    """The six tools as OpenAI function schemas, for a chat template or a native tool-calling server."""
    return [
        {
            "type": "function",
            "function": {
                "name": op,
                "description": DESCRIPTIONS[op],
                "parameters": {"type": "object", "properties": properties, "additionalProperties": False},
            },
        }
        for op, properties in ARGUMENTS.items()
    ]


# ---------------------------------------------------------------- references


@dataclass(frozen=True)
class Target:
    """What a call points at, from its own coordinates or from an earlier step."""

    box: Box | None = None
    frame: int | None = None
    mask: Mask | None = None
    track: tuple[TrackPoint, ...] = ()
    span: TimeSpan | None = None

    def at(self, frame: int) -> Target:
        """The same target on another frame: a track gives its box there; a mask belongs to its own frame only."""
        if self.track:
            near = min((p for p in self.track if p.box is not None), key=lambda p: abs(p.frame - frame), default=None)
            return replace(self, box=near.box if near else None, frame=frame, mask=None)
        return replace(self, frame=frame, mask=self.mask if frame == self.frame else None)


def target_of(output: Output, item: int | None) -> Target:
    """The region, track or segment that a step produced; with `item` (from 1) one span, point, segment of it.

    Raises:
        ToolError: the item does not exist, or the step produced no region.
    """
    match output:
        case SegOutput():
            return Target(box=output.box, frame=output.frame, mask=output.mask)
        case ZoomOutput() | PropOutput():
            return Target(box=output.box, frame=output.frame)
        case TrkOutput():
            seen = output.visible if item is None else (_item(output.points, item, "track point"),)
            if not seen or seen[0].box is None:
                raise ToolError("bad_ref", "that track is not visible there")
            return Target(box=seen[0].box, frame=seen[0].frame, track=output.points)
        case OcrOutput():
            if item is not None:
                return Target(box=_item(output.spans, item, "text").box, frame=output.frame)
            boxes = [s.box for s in output.spans] or [output.box]
            union = Box(min(b.x0 for b in boxes), min(b.y0 for b in boxes), max(b.x1 for b in boxes), max(b.y1 for b in boxes))
            return Target(box=union, frame=output.frame)
        case TempOutput():
            if not output.segments:
                raise ToolError("bad_ref", "that step found no segment")
            return Target(box=output.box, span=_item(output.segments, item or 1, "segment").span)
    raise AssertionError(output)


def _item(items: Sequence, number: int, name: str):
    if not 1 <= number <= len(items):
        raise ToolError("bad_ref", f"there is no {name} {number}: that step has {len(items)}")
    return items[number - 1]


def parse_ref(ref: object, history: Sequence[Result]) -> Target:
    """The target that `ref` names among the results so far (step 1 is `history[0]`).

    Raises:
        ToolError: not a step number, a step that is still to come, or one that failed.
    """
    found = re.fullmatch(r"(\d{1,4})(?:\.(\d{1,4}))?", str(ref)) if isinstance(ref, (int, str)) and not isinstance(ref, bool) else None
    if found is None:
        raise ToolError("bad_ref", f'ref is a step number such as 1, or "1.2" for the second item of step 1; got {str(ref)[:40]!r}')
    step, item = int(found[1]), int(found[2]) if found[2] else None
    if not 1 <= step <= len(history):
        raise ToolError(
            "bad_ref", f"ref {step}: {len(history)} steps have been taken" if history else f"ref {step}: no step has been taken yet"
        )
    result = history[step - 1]
    if result.output is None:
        raise ToolError("bad_ref", f"ref {step}: that step produced nothing")
    return target_of(result.output, item)


# ---------------------------------------------------------------- arguments


def resolve(call: Call, medium: Medium, history: Sequence[Result]) -> Args:
    """Typed arguments in pixels and frames from a written call.

    Raises:
        ToolError: an unknown, missing, mistyped or contradictory argument; coordinates, a time or a ref that name nothing.
    """
    arguments = {name: value for name, value in call.arguments.items() if value is not None}
    known = ARGUMENTS[call.op]
    unknown = sorted(set(arguments) - set(known), key=str)
    if unknown:
        raise ToolError("bad_arguments", f"{call.op} has no argument {str(unknown[0])[:40]!r}: it takes {', '.join(known)}")
    if call.op in ("TRK", "TEMP") and medium.kind != "video":
        raise ToolError("wrong_medium", f"{call.op} needs a video; this medium is an image")
    return _RESOLVERS[call.op](arguments, medium, history)


def _resolve_seg(arguments: dict, medium: Medium, history: Sequence[Result]) -> SegArgs:
    target = _target(arguments, medium, history)
    point = None
    if "point" in arguments:
        point = point_from_wire(arguments["point"], width=medium.width, height=medium.height)
    if target.box is None and point is None:
        raise ToolError("bad_arguments", "SEG needs point, bbox_2d or ref")
    return SegArgs(frame=_frame(arguments, medium, target), box=target.box, point=point, label=_text(arguments, "label"))


def _resolve_zoom(arguments: dict, medium: Medium, history: Sequence[Result]) -> ZoomArgs:
    if arguments.get("img_idx", 0) not in (0, 1):  # the base model counts either way
        raise ToolError("bad_arguments", f"img_idx {str(arguments['img_idx'])[:20]}: there is one medium, 0")
    target = _target(arguments, medium, history)
    scale = _number(arguments, "scale", None)
    if scale is not None and not 0.01 <= scale <= 100:
        raise ToolError("bad_arguments", f"scale {scale:g} is not between 0.01 and 100")
    frame = _frame(arguments, medium, target)
    box = target.box or Box(0, 0, medium.width, medium.height)
    if target.box is None and target.span is None and "frame" not in arguments:
        raise ToolError("bad_arguments", "ZOOM needs bbox_2d or ref")
    return ZoomArgs(frame=frame, box=box, scale=scale, label=_text(arguments, "label"))


def _resolve_trk(arguments: dict, medium: Medium, history: Sequence[Result]) -> TrkArgs:
    target = _target(arguments, medium, history)
    default = target.frame if target.frame is not None else 0
    first = _time(arguments, "from_s", medium, default)
    last = _time(arguments, "to_s", medium, medium.num_frames - 1)
    if first == last:
        raise ToolError("bad_arguments", f"from_s and to_s name the same frame: the video runs from 0 to {medium.duration_s:.1f} s")
    box = target.at(first).box
    if box is None:
        raise ToolError("bad_arguments", "TRK needs bbox_2d or the ref of a step with a region")
    return TrkArgs(box=box, first_frame=first, last_frame=last)


def _resolve_ocr(arguments: dict, medium: Medium, history: Sequence[Result]) -> OcrArgs:
    target = _target(arguments, medium, history)
    return OcrArgs(frame=_frame(arguments, medium, target), box=target.box)


def _resolve_temp(arguments: dict, medium: Medium, history: Sequence[Result]) -> TempArgs:
    event = _text(arguments, "event")
    if not event:
        raise ToolError("bad_arguments", f"TEMP needs event: {', '.join(EVENTS)}, or free text")
    if "window" in arguments:
        window = arguments["window"]
        if not isinstance(window, list) or len(window) != 2 or "from_s" in arguments or "to_s" in arguments:
            raise ToolError("bad_arguments", "write window as [from_s, to_s], or from_s and to_s, not both")
        arguments = {**arguments, "from_s": window[0], "to_s": window[1]}
    target = _target(arguments, medium, history)
    span = target.span
    first = _time(arguments, "from_s", medium, medium.frame_at(span.start_s) if span else 0)
    last = _time(arguments, "to_s", medium, medium.frame_at(min(span.end_s, medium.duration_s)) if span else medium.num_frames - 1)
    if first >= last:
        raise ToolError("bad_arguments", f"the window is empty: from_s must come before to_s, within 0 to {medium.duration_s:.1f} s")
    return TempArgs(event=event, first_frame=first, last_frame=last, box=target.box)


def _resolve_prop(arguments: dict, medium: Medium, history: Sequence[Result]) -> PropArgs:
    what = _text(arguments, "what").lower().replace("color", "colour")
    if what not in PROPERTIES:
        raise ToolError("bad_arguments", f"PROP needs what: one of {', '.join(PROPERTIES)}")
    target = _target(arguments, medium, history)
    frame = _frame(arguments, medium, target)
    target = target.at(frame)
    if target.box is None:
        raise ToolError("bad_arguments", "PROP needs bbox_2d or ref")
    if what == "motion" and not target.track:
        raise ToolError("bad_arguments", "motion is measured on a track: call TRK, then PROP with its ref")
    other = Target()
    if "other" in arguments:
        value = arguments["other"]
        other = (
            Target(box=box_from_wire(value, width=medium.width, height=medium.height))
            if isinstance(value, list)
            else parse_ref(value, history).at(frame)
        )
    if what == "relation" and other.box is None:
        raise ToolError("bad_arguments", "relation needs other: a box or the ref of a step with a region")
    return PropArgs(
        what=what, frame=frame, box=target.box, mask=target.mask, track=target.track, other_box=other.box, other_mask=other.mask
    )


_RESOLVERS = {
    "SEG": _resolve_seg,
    "ZOOM": _resolve_zoom,
    "TRK": _resolve_trk,
    "OCR": _resolve_ocr,
    "TEMP": _resolve_temp,
    "PROP": _resolve_prop,
}


def _target(arguments: dict, medium: Medium, history: Sequence[Result]) -> Target:
    """What the call points at; a box beside a ref overrides the ref's box but keeps its moment."""
    target = parse_ref(arguments["ref"], history) if "ref" in arguments else Target()
    if "bbox_2d" in arguments:
        box = box_from_wire(arguments["bbox_2d"], width=medium.width, height=medium.height)
        target = Target(box=box, frame=target.frame, span=target.span)
    if "frame" in arguments and (target.track or target.box is not None):
        target = target.at(_frame(arguments, medium, target))
        if target.track and target.box is None:
            raise ToolError("bad_ref", "that track is never visible")
    return target


def _frame(arguments: dict, medium: Medium, target: Target) -> int:
    """The frame of a call: as written, else where its target is, else in the middle of its target's time span, else the first."""
    if "frame" in arguments:
        return _time(arguments, "frame", medium, 0)
    if target.frame is not None:
        return target.frame
    if target.span is not None:
        return medium.frame_at(min((target.span.start_s + target.span.end_s) / 2, medium.duration_s))
    return 0


def _time(arguments: dict, name: str, medium: Medium, default: int) -> int:
    seconds = _number(arguments, name, None)
    return default if seconds is None else medium.frame_at(seconds)


def _number(arguments: dict, name: str, default: float | None) -> float | None:
    value = arguments.get(name, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or abs(value) > 1e9:
        raise ToolError("bad_arguments", f"{name} must be a number; got {str(value)[:40]!r}")
    return float(value)


def _text(arguments: dict, name: str) -> str:
    value = arguments.get(name, "")
    if not isinstance(value, str) or len(value) > 200:
        raise ToolError("bad_arguments", f"{name} must be a text of at most 200 characters")
    return value.strip()
