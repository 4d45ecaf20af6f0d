"""From a typed result to the short structured text that the policy reads: integers 0-1000 of the original, seconds with one decimal."""

from __future__ import annotations

from collections.abc import Sequence

from pixelis.core.geometry import Box, box_to_wire, seconds_to_wire
from pixelis.core.media import MediumInfo
from pixelis.core.ops import OcrOutput, Output, PropOutput, Result, SegOutput, TempOutput, TrackPoint, TrkOutput, ZoomOutput

MAX_TRACK_POINTS = 6
MAX_SPANS = 40
MAX_TEXT_CHARS = 2_000


def result_to_wire(result: Result, *, step: int, info: MediumInfo) -> dict:
    """What the policy reads of a result: short, structured, 0-1000. `step` counts from 1, as `ref` does."""
    head = {"step": step, "op": result.op}
    if result.error is not None:
        return {**head, "error": result.error.kind, "message": result.error.message}
    if result.output is None:
        return {**head, "disabled": True}
    return {**head, **output_to_wire(result.output, info)}


def output_to_wire(output: Output, info: MediumInfo) -> dict:
    """The fields of one output in wire units."""

    def wire(box: Box | None) -> list[int] | None:
        return None if box is None else box_to_wire(box, width=info.width, height=info.height)

    match output:
        case SegOutput():
            return {"bbox_2d": wire(output.box), "area": round(output.area_share, 5), "score": _score(output.score)}
        case ZoomOutput():
            return {"bbox_2d": wire(output.box), "size": [output.width, output.height]}
        case TrkOutput():
            points = [{"t": seconds_to_wire(p.time_s), "bbox_2d": wire(p.box)} for p in _spread(output.points, MAX_TRACK_POINTS)]
            return {"id": output.track_id, "track": points, "score": _score(output.score)}
        case OcrOutput():
            return _spans_to_wire(output, wire)
        case TempOutput():
            return {
                "event": output.event,
                "segments": [
                    {"from_s": seconds_to_wire(s.start_s), "to_s": seconds_to_wire(s.end_s), "score": _score(s.score)}
                    for s in output.segments
                ],
            }
        case PropOutput():
            return {
                "what": output.what,
                "attributes": [
                    {"name": a.name, "value": a.value, **({"unit": a.unit} if a.unit else {}), "score": _score(a.confidence)}
                    for a in output.attributes
                ],
            }
    raise AssertionError(output)


def _spans_to_wire(output: OcrOutput, wire) -> dict:
    """Spans up to `MAX_SPANS` and `MAX_TEXT_CHARS`; how many were left out is said, never hidden."""
    shown, num_chars = [], 0
    for span in output.spans[:MAX_SPANS]:
        num_chars += len(span.text)
        if num_chars > MAX_TEXT_CHARS:
            break
        shown.append({"text": span.text, "bbox_2d": wire(span.box), "score": _score(span.confidence)})
    more = len(output.spans) - len(shown)
    return {"spans": shown, **({"more": more} if more else {})}


def _spread(points: Sequence[TrackPoint], count: int) -> list[TrackPoint]:
    """First, last and evenly spread points between."""
    if len(points) <= count:
        return list(points)
    return [points[round(i * (len(points) - 1) / (count - 1))] for i in range(count)]


def _score(value: float) -> float:
    return round(value, 2)
