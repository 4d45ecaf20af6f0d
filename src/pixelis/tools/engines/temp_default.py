"""TEMP's offline engine: proposals from frame differences, scored by how far they stand out, suppressed by temporal IoU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import cv2
import numpy as np

from pixelis.tools.engines.temp_changes import (
    Change,
    agree,
    colour_share,
    crosses_border,
    find_changes,
    find_cuts,
    merge,
    overlap,
    presence,
    whole_changes,
)
from pixelis.tools.engines.temp_events import MAX_SHOTS, Request, Segment, parse_event, suppress
from pixelis.tools.engines.temp_flow import Leftover
from pixelis.tools.engines.temp_motion import find_motion
from pixelis.tools.engines.temp_signal import Clip, Evidence, find_evidence, read_clip

LONGEST_FADE_S = 1.5  # what takes longer is drift
FADES_S = (0.4, 0.8)
MAX_CHANGES = 10  # the clearest ones are paired with each other
UNDONE = 0.6  # from here on a look counts as gone again
PASSING = 0.2  # of a change's score is left where the camera may have carried it over the picture's border


class DefaultTemp:
    """Where in a clip something appears, disappears, changes or moves, or where the shots are.

    What a segment means (frames are shown from their own time to the next frame's; the window ends one median frame
    step after the last frame):

    - "appears": from the first frame that shows a thing that was not there just before, to the first frame without it,
      or the window's end. A fade-in begins half-way.
    - "disappears": from the first frame without a thing that was there just before, to the first frame that has it
      back, or the window's end. A fade-out begins half-way.
    - "changes": from the last frame of the old look to the first frame of the new one; a gradual change runs from its last
      old to its first stable frame. A thing that comes or goes changes the look of its place, too.
    - "moves": from the last frame before a thing moves against the scene (the camera's own motion does not count) to the first
      frame at which it rests again, or the window's end.
    - "cut" ("scene", "shot"): the shots: from a shot's first frame to the next shot's first frame, or the window's end. The
      whole window where there is no cut.

    A sentence ("a red square appears") is read for one such verb and for colour words, which the thing must bear.
    """

    name = "frame-difference"
    version = f"5; opencv {cv2.__version__}"  # results move with OpenCV

    def locate(
        self,
        frames: Iterable[np.ndarray],
        times_s: Sequence[float],
        event: str,
        *,
        box: tuple | None = None,
        should_stop: Callable[[], object] | None = None,
    ) -> list[Segment]:
        """Segments of the clip in which the event holds, best first.

        Args:
            frames: RGB uint8 [height, width, 3] each, all of one size; read once, in order, and not kept.
            times_s: presentation time of each frame in seconds, never running backwards; steps may vary.
            event: an event word, or a sentence with one, and colour words (see the class).
            box: x0, y0, x1, y1 in pixels of the first frame: look only there; clipped to the frame. It goes along with a camera that
                shakes, and stays where it is under one that travels, or where movement is looked for.
            should_stop: called once per frame read and often during the analysis; what it raises passes through.

        Returns:
            At most 8 segments (16 shots) by falling score; the score in [0, 1] says how far the evidence stands out from
            the clip's noise and motion. Empty when nothing of the kind was seen.

        Raises:
            ToolError: unknown event, unusable frames or times, or a box outside the frame.
        """
        request = parse_event(event)
        clip = read_clip(frames, times_s, box, should_stop, follows=request.kind != "moves")
        if clip.count == 1 and request.kind != "cut":
            return []
        if request.kind == "moves":
            return suppress(find_motion(clip, request.colours, should_stop))
        evidence = find_evidence(clip, fine=request.kind != "cut", should_stop=should_stop)
        cuts = find_cuts(evidence)
        if request.kind == "cut":
            return suppress(_shots(clip, cuts), keep=MAX_SHOTS)
        if request.kind == "changes":
            return suppress(
                _narrow(clip, _all_changes(clip, evidence, None, cuts, box is not None, should_stop), cuts, request, box is not None)
            )
        leftover = Leftover(clip, should_stop) if box is not None else None
        changes = _weighed(leftover, _all_changes(clip, evidence, leftover, cuts, box is not None, should_stop), clip.count)
        if leftover is not None:
            changes = _clearest(changes, [c for lapse_s in FADES_S for c in leftover.fades(clip.region, lapse_s)])
        return suppress(_spans(clip, leftover, changes, request))


def _shots(clip: Clip, cuts: list[tuple[int, float]]) -> list[Segment]:
    starts = [0, *(t for t, _ in cuts), clip.count]
    clear = [1.0, *(score for _, score in cuts), 1.0]
    return [
        Segment(clip.time_after(a), clip.time_after(b), min(ca, cb))
        for a, b, ca, cb in zip(starts, starts[1:], clear, clear[1:], strict=False)
    ]


def _all_changes(
    clip: Clip, evidence: Evidence, leftover: Leftover | None, cuts: list[tuple[int, float]], boxed: bool, should_stop
) -> list[Change]:
    """Changes inside the region: sudden ones, then gradual ones at two slower paces that no sudden one explains."""
    at = [t for t, _ in cuts]
    found = [c for c in merge(find_changes(clip, evidence, at, should_stop)) if _inside(c, clip.region)]
    if leftover is not None:
        _join(found, [c for c in leftover.changes(evidence.noise, at) if _inside(c, clip.region)])
    for whole in whole_changes(clip, at) if boxed else ():
        same = [row for row, other in enumerate(found) if other.first == whole.first]
        if same:  # the region as a whole bears out what a part of it shows
            best = max(same, key=lambda row: found[row].score)
            found[best] = replace(found[best], score=1 - (1 - found[best].score) * (1 - whole.score))
        else:
            found.append(whole)
    fps = (clip.count - 1) / max(1e-6, clip.times_s[-1] - clip.times_s[0])
    for pace_s in (0.4, 0.8):
        step = round(pace_s * fps)
        if step < 2 or clip.count < 3 * step:
            continue
        slow = clip.every(step)
        rare = find_evidence(slow, should_stop=should_stop)
        for change in merge(find_changes(slow, rare, [(t + step - 1) // step for t in at], should_stop)):
            gradual = _gradual(clip, change, step)
            if gradual is not None and _inside(gradual, clip.region) and not any(_same(gradual, other) for other in found):
                found.append(gradual)
    if not boxed:  # what the camera brings over the picture's border was there before
        found = [replace(c, score=PASSING * c.score) if crosses_border(clip, c) else c for c in found]
    return sorted(found, key=lambda c: (c.first, -c.score))


def _join(found: list[Change], more: list[Change]) -> None:
    """Add changes seen another way: at the same moment and place they bear each other out, and the larger tells the shape."""
    for change in more:
        same = [row for row, other in enumerate(found) if other.first == change.first and overlap(other, change) > 0.3]
        if not same:
            found.append(change)
            continue
        best = max(same, key=lambda row: found[row].score)
        other = found[best]
        shape = max(other, change, key=lambda c: int(c.mask_HW.sum()))
        found[best] = replace(shape, score=1 - (1 - other.score) * (1 - change.score))


def _clearest(changes: list[Change], fades: list[Change]) -> list[Change]:
    """Changes and the fades that none of them explains, those that stand out most, in order of time."""
    out = list(changes)
    for fade in fades:
        if not any(o.last <= fade.first and fade.last <= o.first and o.score > 0.5 * fade.score for o in out):
            out.append(fade)
    return sorted(sorted(out, key=lambda c: -c.score)[:MAX_CHANGES], key=lambda c: (c.first, -c.score))


def _weighed(leftover: Leftover | None, changes: list[Change], count: int) -> list[Change]:
    """Scores with what motion explains taken off, where that is known."""
    out = []
    for change in changes:
        # Part unexplained is as good as all: where the flow finds something alike, it bends it into place.
        score = change.score * (0.2 + 0.8 * min(1.0, leftover.share(change) / 0.4)) if leftover is not None else change.score
        # One frame on a side does not show that a look lasts, nor what is usual there.
        out.append(replace(change, score=score * (0.4 if change.last == 0 or change.first == count - 1 else 1.0)))
    return out


def _inside(change: Change, region: tuple[int, int, int, int]) -> bool:
    """Whether most of the change lies in the region asked for."""
    x0, y0 = change.box[:2]
    rx0, ry0, rx1, ry1 = region
    inner = change.mask_HW[max(0, ry0 - y0) : max(0, ry1 - y0), max(0, rx0 - x0) : max(0, rx1 - x0)].sum()
    return inner >= 0.5 * change.mask_HW.sum()


def _same(a: Change, b: Change) -> bool:
    return a.last <= b.first and b.last <= a.first and overlap(a, b) > 0.3


def _gradual(clip: Clip, change: Change, step: int) -> Change | None:
    """A slow change with its true first and last frame; None when its pixels did not change together (then a mover passed)."""
    a, b = max(0, change.last * step - step), min(clip.count - 1, change.first * step + step)
    x0, y0, x1, y1 = change.box
    looks = clip.lab_THWC[a : b + 1, y0:y1, x0:x1][:, change.mask_HW].astype(np.float32)
    axis = looks[-1] - looks[0]
    weight = (axis**2).sum(axis=-1)
    size = float(weight.sum())
    if size <= 0:
        return None
    share_TP = ((looks - looks[0]) * axis).sum(axis=-1) / np.maximum(weight, 1)
    share_T = (share_TP * weight).sum(axis=1) / size
    middle = np.argmin(np.abs(share_T - 0.5))
    spread = float(np.sqrt((weight * (share_TP[middle] - share_T[middle]) ** 2).sum() / size))
    if abs(share_T[middle] - 0.5) > 0.4 or spread > 0.28:
        return None
    last = int(np.nonzero(share_T <= 0.06)[0].max(initial=0))
    first = int(np.nonzero(share_T < 0.94)[0].max(initial=0)) + 1
    last, first = a + last, min(b, a + first)
    if first <= last or clip.time_after(first) - clip.time_after(last) > LONGEST_FADE_S:
        return None
    return Change(last, first, change.box, change.mask_HW, 0.7 * change.score * (1 - spread), change.came, change.mass)


def _narrow(clip: Clip, changes: list[Change], cuts: list[tuple[int, float]], request: Request, boxed: bool) -> list[Segment]:
    out = [Segment(clip.time_after(t - 1), clip.time_after(t), score) for t, score in cuts if not request.colours]
    for change in changes:
        score = change.score
        if request.colours:
            share = max(colour_share(clip, change, request.colours, after=after) for after in (False, True))
            score *= _passes(share)
        # A changed thing stands out before and after; a thing that came or went is the weaker reading of "changes".
        score *= 1.0 if boxed else 1.0 - 0.3 * abs(change.came)
        if score >= 0.05:
            out.append(Segment(clip.time_after(change.last), clip.time_after(change.first), float(score)))
    return out


def _passes(share: float) -> float:
    """1 when at least half of the region bears the colour, 0 under a fifth."""
    return float(np.clip((share - 0.2) / 0.3, 0, 1))


def _spans(clip: Clip, leftover: Leftover | None, changes: list[Change], request: Request) -> list[Segment]:
    """Appearances (or disappearances) and what ends each."""
    sign = 1.0 if request.kind == "appears" else -1.0
    out = []
    for change in changes:
        partner = _partner(clip, leftover, change, changes, sign)
        came = change.came if partner is None else 0.6 * change.came - 0.4 * partner.came
        evidence = change.score
        if partner is not None:  # two events at one place bear each other out
            evidence = 1 - (1 - evidence) * (1 - partner.score * agree(change, partner) ** 2)
        score = evidence * float(np.clip(0.5 + 1.5 * sign * came, 0, 1))
        if request.colours:
            score *= _passes(colour_share(clip, change, request.colours, after=sign > 0))
        if score < 0.05:
            continue
        end = clip.end_s if partner is None else _moment(clip, partner)
        out.append(Segment(_moment(clip, change), end, float(score)))
    return out


def _moment(clip: Clip, change: Change) -> float:
    """When the change happened: the first frame of the new look, or half-way through a gradual change."""
    if change.first == change.last + 1:
        return clip.time_after(change.first)
    return (clip.time_after(change.last) + clip.time_after(change.first)) / 2


def _partner(clip: Clip, leftover: Leftover | None, change: Change, changes: list[Change], sign: float) -> Change | None:
    """The change that undoes this one: later, at the same place, of the other sign."""
    there = presence(clip, change)
    lapse = change.first - change.last
    # The length of a gradual change is not well known: what follows within as long again may be its own tail.
    soonest = change.first + (lapse if leftover is not None and lapse > 1 else 0)
    best, best_worth = None, 0.0
    for other in changes:
        if other.last < soonest or not (overlap(change, other) >= 0.3 or leftover is not None):
            continue
        after = there[other.first : other.first + 3]
        undone = float(np.clip(1.2 - np.abs(after.mean()), 0, 1)) if len(after) else 0.0
        opposite = float(np.clip(0.5 - sign * other.came, 0, 1))
        alike = agree(change, other)
        told = undone > UNDONE and -sign * other.came > 0.15
        if leftover is not None:  # the place is given: what is as clear as the first change concerns the same thing
            undone = max(undone, min(1.0, 2 * leftover.bracket(change, other)))
            if undone < UNDONE:  # in a region in which much moves something always follows
                continue
            told = other.score >= 0.4 * change.score
            lapse_s = clip.time_after(other.first) - clip.time_after(change.first)
            worth = other.score * (0.3 + max(alike, 0.5)) * (0.5 * opposite + 1.5 * undone) / (1 + 0.1 * lapse_s)
        else:
            worth = other.score * (0.3 + alike) * (opposite + undone) / (1 + 0.05 * (other.first - change.first))
        # A part of the place counts only where it tells the same story: the look is back, and what stood out is gone.
        if (alike >= 0.3 or told) and worth > best_worth:
            best, best_worth = other, worth
    return best if best_worth > 0.2 else None
