"""What a step showed, and how far two steps agree: the tools' own metrics between two outputs, without any ground truth.

- SEG: IoU of the masks. ZOOM: IoU of the boxes. TRK: mean IoU over all frames that either saw the object on.
- OCR: ANLS of all that was read. TEMP: F1 of the segments, in which a pair counts as much as its tIoU.
- PROP: F1 of the attributes, where both measured the same place. Names match or do not; a count must be equal; other numbers match under
  the limits of `data/world/verify_prop.py`: a quarter of the larger one, 5 % of the frame for a position, 15 degrees for an angle.

What looks at one frame agrees only with what looks at the same moment (within `MAX_APART_S`). Every measure is symmetric, lies in [0, 1],
and is 1 between equal outputs. Source: paper §3.2.3, "Pixel fidelity" and "Behavioral similarity".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from pixelis.core.decisive import MIN_IOU, decisive_steps, fold
from pixelis.core.geometry import Box
from pixelis.core.ops import (
    Attribute,
    OcrOutput,
    Output,
    PropOutput,
    Segment,
    SegOutput,
    TempOutput,
    TrkOutput,
    ZoomOutput,
    record,
)
from pixelis.core.trajectory import Trajectory
from pixelis.rewards.answer import anls

MAX_APART_S = 0.5
"""Two looks within this time of each other are at the same moment: the offset that a TEMP may have and still be valid."""
MAX_NUMBER_GAP = 0.25
MAX_POSITION_GAP = 50
"""In thousandths of the frame."""
MAX_ANGLE_GAP_DEG = 15.0


@record
class Evidence:
    """What one step showed."""

    op: str
    """Empty for a turn that held no well-formed call."""
    output: Output | None
    """None for a call that failed or whose tool is switched off."""
    is_decisive: bool
    time_s: float = 0.0
    """The moment it looked at; 0 for an image, and for what looks at a stretch of time."""
    is_excused: bool = False
    """It failed, and it was no mistake of the policy; see `Result.is_excused`."""

    @property
    def is_ok(self) -> bool:
        return self.output is not None


def evidence_of(trajectory: Trajectory, *, answer: str | None = None) -> tuple[Evidence, ...]:
    """One entry per step.

    Args:
        answer: the answer in words where the trajectory's own is a letter; see `decisive_steps`.
    """
    decisive, fps = decisive_steps(trajectory, answer=answer), trajectory.medium.fps
    out = []
    for step, is_decisive in zip(trajectory.steps, decisive, strict=True):
        frame = getattr(step.result.output, "frame", 0)
        result, time_s = step.result, frame / fps if fps else 0.0
        out.append(Evidence(op=result.op, output=result.output, is_decisive=is_decisive, time_s=time_s, is_excused=result.is_excused))
    return tuple(out)


def is_comparable(a: Evidence, b: Evidence) -> bool:
    """Whether one tool's metric says something about the two: same op, and the same property or event."""
    if a.output is None or type(a.output) is not type(b.output):
        return False
    match a.output:
        case PropOutput():
            return a.output.what == b.output.what
        case TempOutput():
            return fold(a.output.event) == fold(b.output.event)
    return True


def agreement(a: Evidence, b: Evidence) -> float:
    """How far two comparable steps agree by their tool's own metric, in [0, 1].

    Raises:
        ValueError: they are not comparable.
    """
    if not is_comparable(a, b):
        raise ValueError(f"no metric compares {a.op or 'no call'} with {b.op or 'no call'} here")
    if a.output == b.output:
        return 1.0
    match a.output:
        case SegOutput():
            return a.output.mask.iou(b.output.mask) if _is_same_moment(a, b) else 0.0
        case ZoomOutput():
            return a.output.box.iou(b.output.box) if _is_same_moment(a, b) else 0.0
        case TrkOutput():
            return track_iou(a.output, b.output)
        case OcrOutput():
            return anls(_text(a.output), [_text(b.output)])
        case TempOutput():
            return segment_f1(a.output.segments, b.output.segments)
        case PropOutput():
            is_same_place = _is_same_moment(a, b) and a.output.box.iou(b.output.box) >= MIN_IOU
            return attribute_f1(a.output.attributes, b.output.attributes) if is_same_place else 0.0
    raise AssertionError(f"an output of no tool: {a.output!r}")


def likeness(a: Evidence, b: Evidence) -> float:
    """How alike two steps of any kind are in what they touched, in [0, 1]; 1 between a step and itself.

    Comparable steps: their agreement. Others: the best IoU of the boxes they looked at within the same moment; 0 where one has no box.
    Two calls of one op that both showed nothing are alike.
    """
    if a.output is None or b.output is None:
        return float(a.output is None and b.output is None and a.op == b.op)
    if is_comparable(a, b):
        return agreement(a, b)
    places_a, places_b = _places(a), _places(b)
    return max((x.iou(y) for s, x in places_a for t, y in places_b if abs(s - t) <= MAX_APART_S), default=0.0)


def track_iou(a: TrkOutput, b: TrkOutput) -> float:
    """Mean IoU over the frames on which either sees the object; a frame that only one sees it on counts 0. 1 where neither ever does."""
    boxes_a, boxes_b = ({point.frame: point.box.as_tuple() for point in track.points if point.box is not None} for track in (a, b))
    frames, shared = boxes_a.keys() | boxes_b.keys(), list(boxes_a.keys() & boxes_b.keys())
    if not shared:
        return float(not frames)
    iou_N = paired_iou(np.array([boxes_a[f] for f in shared]), np.array([boxes_b[f] for f in shared]))
    return sum(iou_N.tolist()) / len(frames)


def paired_iou(a_N4: np.ndarray, b_N4: np.ndarray) -> np.ndarray:
    """`Box.iou` of N pairs at once, to the last bit: a track has a box on every frame. [N]"""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = np.asarray(a_N4, np.float64).T, np.asarray(b_N4, np.float64).T
    shared_N = np.maximum(0.0, np.minimum(ax1, bx1) - np.maximum(ax0, bx0)) * np.maximum(0.0, np.minimum(ay1, by1) - np.maximum(ay0, by0))
    area_a_N, area_b_N = (np.maximum(0.0, x1 - x0) * np.maximum(0.0, y1 - y0) for x0, y0, x1, y1 in (a_N4.T, b_N4.T))
    union_N = area_a_N + area_b_N - shared_N
    return np.divide(shared_N, union_N, out=np.zeros_like(union_N), where=union_N > 0)


def segment_f1(a: Sequence[Segment], b: Sequence[Segment]) -> float:
    """2 * (largest sum of tIoU over one-to-one pairs) / (number of segments of both); 1 where both found none."""
    if not a or not b:
        return float(not a and not b)
    tiou_AB = np.array([[x.span.tiou(y.span) for y in b] for x in a])
    return 2 * float(tiou_AB[linear_sum_assignment(-tiou_AB)].sum()) / (len(a) + len(b))


def attribute_f1(a: Sequence[Attribute], b: Sequence[Attribute]) -> float:
    """2 * (attributes of one name whose values match) / (number of attributes of both); 1 where both have none."""
    if not a or not b:
        return float(not a and not b)
    named = {attribute.name: attribute for attribute in b}
    return 2 * sum(one.name in named and is_match(one, named[one.name]) for one in a) / (len(a) + len(b))


def is_match(a: Attribute, b: Attribute) -> bool:
    """Whether two values of one attribute are the same to a measurement's accuracy (see the module)."""
    if isinstance(a.value, str) or isinstance(b.value, str):
        return fold(str(a.value)) == fold(str(b.value))
    gap = abs(a.value - b.value)
    match a.name, a.unit:
        case "count", _:
            return gap == 0
        case _, "deg":
            return min(gap % 180, 180 - gap % 180) <= MAX_ANGLE_GAP_DEG
        case _, "/1000":
            return gap <= MAX_POSITION_GAP
    return gap <= MAX_NUMBER_GAP * max(abs(a.value), abs(b.value))


def _is_same_moment(a: Evidence, b: Evidence) -> bool:
    return abs(a.time_s - b.time_s) <= MAX_APART_S


def _text(output: OcrOutput) -> str:
    return " ".join(span.text for span in output.spans)


def _places(evidence: Evidence) -> list[tuple[float, Box]]:
    """Moments and boxes that a step looked at; none for TEMP, which looks at time."""
    match evidence.output:
        case TempOutput() | None:
            return []
        case TrkOutput():
            return [(point.time_s, point.box) for point in evidence.output.visible if point.box is not None]
    return [(evidence.time_s, evidence.output.box)]
