"""Decisive steps: which steps of a trajectory had their output used, by a later call or by the answer.

A step is decisive when it succeeded and one of these holds:

- a later call's `ref` or `other` names it (a ref that resolves, as in `pixelis.core.arguments`);
- a later call's box (`bbox_2d`, or `other` as a box) overlaps its footprint with IoU >= 0.5 at a time both share. A TEMP that found
  something lasts for its window; it is also used by a later call that writes a `frame` and looks at its place (through a `ref`, too), or,
  where it had no box, by one that writes a `frame` inside a segment it found;
- its text or a value stands in the answer: a text it read, a property's value, a segment's start or end, the corner where a track ends.

A later call that only repeats the step word for word is no use of it. Source: paper §3.1 ("changes the intermediate state or final
answer"), made exact.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from pixelis.core.arguments import parse_ref
from pixelis.core.errors import ToolError
from pixelis.core.geometry import Box, box_from_wire
from pixelis.core.media import MediumInfo
from pixelis.core.ops import OcrOutput, Output, PropOutput, Result, TempOutput, TrkOutput
from pixelis.core.trajectory import Step, Trajectory

MIN_IOU = 0.5
TIME_SLACK_S = 0.05
"""Half of the wire's last decimal: a time written from a frame may come back this far off."""

Place = tuple[float, float, Box]
"""First and last frame, and the box throughout."""


def decisive_steps(trajectory: Trajectory, *, answer: str | None = None) -> tuple[bool, ...]:
    """Whether each step is decisive.

    Args:
        answer: the answer in words where `trajectory.answer` is not (the letter of a multiple-choice question); None takes the
            trajectory's own.
    """
    said = trajectory.answer or "" if answer is None else answer
    steps, info = trajectory.steps, trajectory.medium
    return tuple(
        step.result.is_ok
        and step.result.output is not None
        and (_is_used_later(steps, number, info) or is_in_answer(step.result.output, said, info))
        for number, step in enumerate(steps)
    )


def fold(text: str) -> tuple[str, ...]:
    """The words of a text as they are compared: NFKC, lower case, without punctuation (a decimal point inside a number stays)."""
    text = unicodedata.normalize("NFKC", text).lower()
    text = re.sub(r"[^\w.-]|_|(?<!\d)\.|\.(?!\d)|(?<!\s)-|-(?!\d)", " ", " " + text).strip()
    return tuple(text.split())


# ---------------------------------------------------------------- used by a later call


def _is_used_later(steps: Sequence[Step], number: int, info: MediumInfo) -> bool:
    own = steps[number]
    output = own.result.output
    results = [step.result for step in steps]
    for place in range(number + 1, len(steps)):
        later = steps[place]
        if later.call is None or (own.call is not None and later.call == own.call):
            continue
        if number + 1 in _refs(later, results[:place]):
            return True
        if any(_overlap(mine, asked, info) for asked in _places_asked(later, info) for mine in _places_shown(output, info)):
            return True
        if isinstance(output, TempOutput) and _looks_when_found(output, later, info):
            return True
    return False


def _refs(step: Step, history: Sequence[Result]) -> Iterator[int]:
    """Numbers (from 1) of the steps that a call refers to; refs that resolve to nothing are left out."""
    for name in ("ref", "other"):
        value = step.call.arguments.get(name)
        if value is None or isinstance(value, list):
            continue
        try:
            parse_ref(value, history)
        except ToolError:
            continue
        yield int(str(value).split(".")[0])


def _places_asked(step: Step, info: MediumInfo) -> Iterator[Place]:
    """The boxes that a call writes, with the frames it means them on."""
    first, last = _frames_asked(step, info)
    for name in ("bbox_2d", "other"):
        value = step.call.arguments.get(name)
        if isinstance(value, list):
            try:
                yield first, last, box_from_wire(value, width=info.width, height=info.height)
            except ToolError:
                continue


def _frames_asked(step: Step, info: MediumInfo) -> tuple[float, float]:
    """First and last frame that a call looks at: from its output where that says so, else from the times it writes."""
    output = step.result.output
    if isinstance(output, TempOutput):
        return output.first_frame, output.last_frame
    if output is not None and not isinstance(output, TrkOutput):
        return output.frame, output.frame
    for name in ("frame", "from_s"):
        time_s = step.call.arguments.get(name)
        if isinstance(time_s, (int, float)) and info.fps:
            return time_s * info.fps, time_s * info.fps
    return (0, info.num_frames - 1) if step.call.op == "TEMP" else (0, 0)


def _places_shown(output: Output, info: MediumInfo) -> list[Place]:
    """Where the output's evidence lies, and when."""
    if isinstance(output, TempOutput):
        return [(output.first_frame, output.last_frame, output.box)] if output.box and output.segments else []
    return [(frame, frame, box) for frame, box in output.footprint.boxes]


def _overlap(a: Place, b: Place, info: MediumInfo) -> bool:
    slack = TIME_SLACK_S * (info.fps or 0.0) + 1e-6
    return max(a[0], b[0]) <= min(a[1], b[1]) + slack and a[2].iou(b[2]) >= MIN_IOU


def _looks_when_found(output: TempOutput, later: Step, info: MediumInfo) -> bool:
    """Whether a later call writes a `frame` that the segments may have told it."""
    seen = later.result.output
    if "frame" not in later.call.arguments or seen is None or isinstance(seen, (TrkOutput, TempOutput)):
        return False
    asked = (seen.frame, seen.frame, seen.box)
    if output.box is not None:
        return any(_overlap(place, asked, info) for place in _places_shown(output, info))
    fps, slack = info.fps or 0.0, TIME_SLACK_S
    return any(segment.start_s - slack <= seen.frame / fps <= segment.end_s + slack for segment in output.segments if fps)


# ---------------------------------------------------------------- used by the answer


def is_in_answer(output: Output, answer: str, info: MediumInfo) -> bool:
    """Whether a text or value of the output stands in the answer.

    Texts: all words of one, in order, stand in the answer, or the answer stands in the text (a part of what was read was wanted);
    blanks do not count where both are equal without them. Numbers: equal to a number of the answer, floats after rounding to as many
    decimals as the answer writes, times after rounding to the wire's one. A track's value is the corner of the frame where it is last seen.
    """
    words = fold(answer)
    if not words:
        return False
    match output:
        case OcrOutput():
            return any(_is_same_text(text, words) for text in (*(s.text for s in output.spans), " ".join(s.text for s in output.spans)))
        case PropOutput():
            return any(_is_value_in(attribute.value, words) for attribute in output.attributes)
        case TempOutput():
            return any(_is_value_in(round(time_s, 1), words) for s in output.segments for time_s in (s.start_s, s.end_s))
        case TrkOutput():
            return bool(output.visible) and _corner(output.visible[-1].box, info) <= {_SIDES.get(word, word) for word in words}
    return False


_SIDES = {"upper": "top", "lower": "bottom"}


def _corner(box: Box, info: MediumInfo) -> set[str]:
    x, y = box.centre
    return {"left" if x < info.width / 2 else "right", "top" if y < info.height / 2 else "bottom"}


def _is_same_text(text: str, words: tuple[str, ...]) -> bool:
    read = fold(text)
    return bool(read) and (_stands_in(read, words) or _stands_in(words, read) or "".join(read) == "".join(words))


def _stands_in(part: Sequence[str], whole: Sequence[str]) -> bool:
    return any(tuple(whole[i : i + len(part)]) == tuple(part) for i in range(len(whole) - len(part) + 1))


def _is_value_in(value: str | int | float, words: tuple[str, ...]) -> bool:
    if isinstance(value, str):
        read = fold(value)
        return bool(read) and _stands_in(read, words)
    numbers = [re.fullmatch(r"(-?\d+(?:\.\d+)?)s?", word) for word in words]  # "1.2s" too
    return any(_is_number(value, found[1]) for found in numbers if found)


def _is_number(value: int | float, word: str) -> bool:
    decimals = len(word.partition(".")[2])
    return value == float(word) or (decimals > 0 and round(value, decimals) == float(word))
