"""Verifiers: is what a step returned true in the world? Against exact truth, never with the tools' own code.

- SEG: best IoU of its mask with a thing's visible mask (on a frame where that is not known, of the boxes) >= 0.5.
- TRK: HOTA with the best truth track >= 0.15, over the frames that were tracked.
- OCR: ANLS of what was read with what stands in the region >= 0.85 (see `ocr_score`).
- TEMP: temporal IoU with a true stretch >= 0.5, or its moment within 0.5 s (see `verify_time`).
- PROP: the attribute matches (see `verify_prop`).
- ZOOM: what is shown holds >= 0.9 of a thing that the question mentions, or of the evidence; of any thing where there is neither. A view
  of more than half of the frame shows nothing larger and covers nothing.

A failed or disabled step is not valid. Source: paper §4.1 (thresholds).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from pixelis.core.geometry import Box
from pixelis.core.ops import OcrOutput, PropOutput, Result, SegOutput, TempOutput, TrkOutput, ZoomOutput
from pixelis.core.trajectory import Step, Trajectory
from pixelis.data.world import verify_prop
from pixelis.data.world.item import Item, WorldObject
from pixelis.data.world.moment import box_at, mask_at, share_inside, text_at, things
from pixelis.data.world.verify_prop import prop_score
from pixelis.data.world.verify_time import temp_score

THRESHOLDS = {"SEG": 0.5, "ZOOM": 0.9, "TRK": 0.15, "OCR": 0.85, "TEMP": 0.5, "PROP": verify_prop.MIN_SCORE}
"""Least score of a valid step. For TEMP a score of 0.5 is tIoU 0.5 or an offset of 0.5 s."""
MAX_ZOOM_SHARE = 0.5
_ALPHAS = tuple(i / 20 for i in range(1, 20))
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Check:
    """A verifier's word on one step."""

    is_valid: bool
    score: float
    """The verifier's own metric in [0, 1]; 0.0 for a step that failed."""


def verify_trajectory(item: Item, trajectory: Trajectory) -> tuple[Check, ...]:
    """The check of every step."""
    return tuple(verify_step(item, step, trajectory.results[:number]) for number, step in enumerate(trajectory.steps))


def verify_step(item: Item, step: Step, history: Sequence[Result] = ()) -> Check:
    """Check one step.

    Args:
        history: results of the steps before it: PROP's `ref` and `other` are looked up there. A relation to a step that is not there
            cannot be judged and is not valid.
    """
    output = step.result.output
    if not step.result.is_ok or output is None:
        return Check(is_valid=False, score=0.0)
    match output:
        case SegOutput():
            score = seg_score(item, output)
        case ZoomOutput():
            score = zoom_score(item, output)
        case TrkOutput():
            score = trk_score(item, output)
        case OcrOutput():
            score = ocr_score(item, output)
        case TempOutput():
            score = temp_score(item, output)
        case PropOutput():
            score = prop_score(item, step, output, history)
    return Check(is_valid=score >= THRESHOLDS[output.op] - _ROUNDING, score=score)


# ---------------------------------------------------------------- SEG, ZOOM


def seg_score(item: Item, output: SegOutput) -> float:
    """Best IoU with a thing, in [0, 1]."""
    best = 0.0
    for thing in things(item):
        seen = box_at(thing, output.frame)
        if seen is None or seen.intersect(output.box).is_empty:
            continue
        mask = mask_at(thing, output.frame)
        best = max(best, output.mask.iou(mask) if mask is not None else output.box.iou(seen))
    return best


def zoom_score(item: Item, output: ZoomOutput) -> float:
    """Largest share of a target that is shown, in [0, 1]; 0 for a view of more than half of the frame."""
    if output.box.area > MAX_ZOOM_SHARE * item.width * item.height:
        return 0.0
    asked = {number for _, number in item.mentions}
    targets = [box_at(thing, output.frame) for thing in item.truth.objects if thing.number in asked]
    targets += [box for frame, box in item.evidence.boxes if frame == output.frame]
    if not asked and not item.evidence.boxes:
        targets = [box_at(thing, output.frame) for thing in things(item)]
    return max((share_inside(target, output.box) for target in targets if target is not None), default=0.0)


# ---------------------------------------------------------------- TRK


def trk_score(item: Item, output: TrkOutput) -> float:
    """HOTA with the best truth track, in [0, 1]."""
    found = {point.frame: point.box for point in output.points}
    return max((hota({f: box_at(thing, f) for f in found}, found) for thing in things(item)), default=0.0)


def hota(true: dict[int, Box | None], found: dict[int, Box | None]) -> float:
    """HOTA of one track against one true track: the mean over alpha = 0.05, 0.10, ..., 0.95 of TP / (TP + FN + FP).

    With a single pair the association accuracy equals the detection accuracy, and so does their geometric mean.

    Args:
        true, found: box per frame, None where there is none; frames of `found` missing from `true` count as None.
    Source: Luiten et al., HOTA, IJCV 2021.
    """
    frames = true.keys() | found.keys()
    pairs = [(true.get(f), found.get(f)) for f in frames]
    num_boxes = sum((a is not None) + (b is not None) for a, b in pairs)
    ious = [a.iou(b) for a, b in pairs if a is not None and b is not None]
    hits = [sum(iou >= alpha - _ROUNDING for iou in ious) for alpha in _ALPHAS]
    return sum(tp / (num_boxes - tp) for tp in hits) / len(_ALPHAS) if num_boxes else 0.0


# ---------------------------------------------------------------- OCR


def fold_text(text: str) -> str:
    """NFKC, lower case, letters and digits only: a reader may join or split a line, so blanks do not count either."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", text).lower())


def ocr_score(item: Item, output: OcrOutput) -> float:
    """ANLS of what was read with what stands in the region, in [0, 1]: 1 - edits / longer text, summed over places, in any order.

    Texts and spans that lie on each other form a place; within it both are joined in reading order. A text counts as standing in the
    region when at least half of it does; one that is cut at the region's edge counts only where something was read of it. A span on no
    text is all edits. Reading nothing where nothing stands is right: 1. As in ANLS, less than half right is 0.
    """
    texts = [(text, _ink(thing, box)) for thing, box, text in _texts(item, output.frame)]
    texts = [(fold_text(text), box) for text, box in texts if not box.intersect(output.box).is_empty]
    spans = [(fold_text(span.text), span.box) for span in output.spans]
    edits = length = 0
    for read, standing in _places(spans, texts):
        is_cut = all(share_inside(box, output.box) < 0.5 for _, box in standing)
        if standing and is_cut and not read:
            continue
        said, true = _joined(read), _joined(standing)
        edits += Levenshtein.distance(said, true)
        length += max(len(said), len(true))
    score = 1 - edits / length if length else 1.0
    return score if score >= 0.5 else 0.0


def _texts(item: Item, frame: int) -> list[tuple[WorldObject, Box, str]]:
    return [(t, box_at(t, frame), text) for t in item.truth.objects if (text := text_at(item, t, frame))]


def _ink(thing: WorldObject, box: Box) -> Box:
    """Where the letters are: a sign's plate is at least 7 pixels wider than its text on every side."""
    inner = box.grow(-7)
    return inner if thing.kind == "sign" and not inner.is_empty else box


Words = list[tuple[str, Box]]


def _places(spans: Words, texts: Words) -> list[tuple[Words, Words]]:
    """Spans and texts grouped by where they are: a span belongs to every text that it covers by half, or that covers half of it."""
    places: list[tuple[Words, Words]] = [([], [text]) for text in texts]
    for span in spans:
        mine = [p for p in places if any(_is_on(span[1], box) for _, box in p[1])]
        places = [p for p in places if p not in mine]
        places.append(([s for read, _ in mine for s in read] + [span], [t for _, standing in mine for t in standing]))
    return places


def _is_on(a: Box, b: Box) -> bool:
    return a.intersect(b).area >= 0.5 * min(a.area, b.area) > 0


def _joined(words: Words) -> str:
    """Texts in reading order: by lines (centres within half the height of the lowest box), then from the left."""
    if not words:
        return ""
    height = max(min(box.height for _, box in words), 1.0)
    lines: list[list[tuple[str, Box]]] = []
    for word in sorted(words, key=lambda w: w[1].centre[1]):
        if lines and word[1].centre[1] - lines[-1][0][1].centre[1] <= height / 2:
            lines[-1].append(word)
        else:
            lines.append([word])
    return "".join(text for line in lines for text, _ in sorted(line, key=lambda w: w[1].x0))
