"""How far two outputs of one op agree, by the tool's own metric: what a verifier asks of an output and the truth, asked of two outputs.

Both must be in pixels of the same frame (`rescaled`). Scores are in [0, 1] and are read at the verifiers' thresholds:
SEG IoU, ZOOM share of the first box that the second shows, TRK HOTA, OCR ANLS, TEMP temporal IoU or offset, PROP match.

The first output stands where the truth stands for a verifier, so this is not symmetric; `ttrl.evidence` has the symmetric measures by which
rollouts are told alike. Source: paper §4.1 (validity), supplement 10.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from rapidfuzz.distance import Levenshtein

from pixelis.core.errors import ToolError
from pixelis.core.geometry import Box, Mask, View
from pixelis.core.ops import OcrOutput, Output, PropOutput, SegOutput, TempOutput, TrkOutput, ZoomOutput
from pixelis.data.world.moment import share_inside
from pixelis.data.world.verify import THRESHOLDS, fold_text, hota
from pixelis.tools.engines.temp_events import parse_event
from pixelis.ttrl.evidence import is_match

MAX_OFF_S = 1.0
"""An offset of so many seconds, or more, scores 0: half of it meets the threshold."""
_JUDGED = {
    "colour": ("colour",),
    "shape": ("shape",),
    "count": ("count",),
    "size": ("width", "height", "area"),
    "position": ("centre_x", "centre_y"),
    "orientation": ("angle",),
    "motion": ("moving", "direction", "speed"),
    "relation": ("horizontal", "vertical", "distance"),
}
"""The attributes of each property that a verifier judges; an engine's other words are its own affair."""


def is_same(recorded: Output, found: Output | None) -> bool:
    """Whether evidence survives: the second output agrees with the first as far as a valid step must agree with the truth."""
    return found is not None and found.op == recorded.op and agreement(recorded, found) >= THRESHOLDS[recorded.op] - 1e-9


def agreement(recorded: Output, found: Output) -> float:
    """In [0, 1]; 0 for outputs of different ops, or of PROP about different properties."""
    match recorded, found:
        case SegOutput(), SegOutput():
            return recorded.mask.iou(found.mask)
        case ZoomOutput(), ZoomOutput():
            return share_inside(recorded.box, found.box) if recorded.frame == found.frame else 0.0
        case TrkOutput(), TrkOutput():
            return hota({p.frame: p.box for p in recorded.points}, {p.frame: p.box for p in found.points})
        case OcrOutput(), OcrOutput():
            return _same_text(recorded, found)
        case TempOutput(), TempOutput():
            return _same_time(recorded, found)
        case PropOutput(), PropOutput():
            return _same_property(recorded, found)
    return 0.0


def _same_text(recorded: OcrOutput, found: OcrOutput) -> float:
    one, two = (fold_text("".join(span.text for span in output.spans)) for output in (recorded, found))
    similarity = Levenshtein.normalized_similarity(one, two)
    return float(similarity) if similarity >= 0.5 else 0.0


def _same_time(recorded: TempOutput, found: TempOutput) -> float:
    """Of the best segments; agreeing that nothing happened is agreeing."""
    if not recorded.segments or not found.segments:
        return float(not recorded.segments and not found.segments)
    one, two = recorded.segments[0].span, found.segments[0].span
    try:
        asks_end = parse_event(recorded.event).kind == "changes"
    except ToolError:
        asks_end = False
    off_s = abs(one.end_s - two.end_s) if asks_end else abs(one.start_s - two.start_s)
    return max(one.tiou(two), 1 - off_s / MAX_OFF_S, 0.0)


def _same_property(recorded: PropOutput, found: PropOutput) -> float:
    """1 where every judged attribute that the first one has matches, within the verifiers' limits; else 0."""
    if recorded.what != found.what:
        return 0.0
    others = {attribute.name: attribute for attribute in found.attributes}
    judged = [a for a in recorded.attributes if a.name in _JUDGED.get(recorded.what, ())]
    if not judged:
        return float(recorded.attributes == found.attributes)
    return float(all(a.name in others and is_match(a, others[a.name]) for a in judged))


# ---------------------------------------------------------------- into the pixels of another frame


def rescaled(output: Output, *, from_size: tuple[int, int], to_size: tuple[int, int]) -> Output:
    """The same output in pixels of a frame of another size, given as (width, height).

    Pixel measures of PROP grow with the mean of both sides' factors; nothing else of it depends on the frame's size.
    """
    if from_size == to_size:
        return output
    x, y = to_size[0] / from_size[0], to_size[1] / from_size[1]

    def box(value: Box) -> Box:
        return Box(value.x0 * x, value.y0 * y, value.x1 * x, value.y1 * y)

    match output:
        case SegOutput():
            ink = cv2.resize(output.mask.to_array().astype(np.uint8), to_size, interpolation=cv2.INTER_NEAREST)
            return replace(output, box=box(output.box), mask=Mask.from_array(ink))
        case ZoomOutput():
            view = output.view
            return replace(output, box=box(output.box), view=View(view.x0 * x, view.y0 * y, view.scale_x / x, view.scale_y / y))
        case TrkOutput():
            points = tuple(replace(point, box=box(point.box) if point.box is not None else None) for point in output.points)
            return replace(output, points=points)
        case OcrOutput():
            return replace(output, box=box(output.box), spans=tuple(replace(span, box=box(span.box)) for span in output.spans))
        case TempOutput():
            return replace(output, box=box(output.box) if output.box is not None else None)
        case PropOutput():
            factor = {"px": (x + y) / 2, "px/s": (x + y) / 2, "px2": x * y}
            scaled = tuple(replace(a, value=a.value * factor[a.unit]) if a.unit in factor else a for a in output.attributes)
            return replace(output, box=box(output.box), attributes=scaled)
    raise AssertionError(output)
