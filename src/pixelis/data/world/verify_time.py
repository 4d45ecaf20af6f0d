"""TEMP against the truth: the stretches in which an event really holds, as TEMP is meant to report them.

A thing is in the region while at least half of what is seen of it lies there (without a region: while it is seen). Then, within the window:

- appears: from the first frame on which a thing is in the region, not having been there on the frame before, to the first frame without
  it or the window's end. So does the text of a sign in the region, from blank to written.
- disappears: the same of not being there.
- changes: from the last frame of the old look to the first frame of the new one: a colour, a text, and also what comes or goes.
- moves: from the last frame before a thing in the region leaves its place to the first frame at which it rests, or the window's end.
- cut: PixelWorld has none: the whole window is one shot.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator

from pixelis.core.errors import ToolError
from pixelis.core.geometry import Box, TimeSpan
from pixelis.core.ops import TempOutput
from pixelis.data.world.item import Item, WorldObject
from pixelis.data.world.moment import THINGS, box_at, colour_at, share_inside, text_at
from pixelis.tools.engines.temp_events import parse_event

MIN_SHARE = 0.5
MAX_REST_S = 0.5
"""Two moves of a thing with a shorter rest between them are one."""


def temp_score(item: Item, output: TempOutput) -> float:
    """How well the best segment meets a true one: max of tIoU and 1 - offset / 1 s, so that an offset of 0.5 s gives 0.5.

    The offset is that of the moment asked for: the start, and for `changes` the end. No segment is right (1) where nothing of the kind
    happens, else 0; so is a segment where nothing happens, and any answer to an event in words that the truth knows no event for.
    """
    try:
        asked = parse_event(output.event)
    except ToolError:
        return 0.0
    kind = asked.kind
    true = true_segments(item, kind, output.box, output.first_frame, output.last_frame, asked.colours)
    if not output.segments or not true:
        return float(not output.segments and not true)
    found = output.segments[0].span

    def closeness(span: TimeSpan) -> float:
        offset_s = abs(found.end_s - span.end_s) if kind == "changes" else abs(found.start_s - span.start_s)
        return max(found.tiou(span), 1 - offset_s, 0.0)

    return max(closeness(span) for span in true)


def true_segments(
    item: Item, kind: str, region: Box | None, first: int, last: int, colours: frozenset[str] = frozenset()
) -> list[TimeSpan]:
    """Every stretch of the window, frames `first` to `last`, in which the event truly holds (see the module).

    Args:
        kind: appears, disappears, changes, moves or cut.
        region: where; None is everywhere.
        colours: only things that bear one of these on some frame of the window; empty for any.
    """
    whole = TimeSpan(first / item.fps, (last + 1) / item.fps)
    if kind == "cut":
        return [whole]
    out: list[TimeSpan] = []
    for thing in item.truth.objects:
        if thing.kind not in (*THINGS, "text", "occluder"):
            continue
        if colours and not any(colour_at(item, thing, frame) in colours for frame in range(first, last + 1)):
            continue
        out += list(_of_thing(item, kind, thing, region, first, last))
    return out


def _of_thing(item: Item, kind: str, thing: WorldObject, region: Box | None, first: int, last: int) -> Iterator[TimeSpan]:
    def is_there(frame: int) -> bool:
        box = box_at(thing, frame)
        return box is not None and (region is None or share_inside(box, region) >= MIN_SHARE)

    def has_text(frame: int) -> bool:
        return is_there(frame) and bool(text_at(item, thing, frame))

    if kind in ("appears", "disappears"):
        is_to_be = kind == "appears"
        yield from _runs(lambda f: is_there(f) == is_to_be, first, last, item.fps)
        if any(has_text(f) for f in range(first, last + 1)) and all(is_there(f) for f in range(first, last + 1)):
            yield from _runs(lambda f: has_text(f) == is_to_be, first, last, item.fps)
    elif kind == "changes":
        looks = [(is_there(f), colour_at(item, thing, f), text_at(item, thing, f)) for f in range(first, last + 1)]
        for frame, (old, new) in enumerate(itertools.pairwise(looks), first + 1):
            if old[0] != new[0] or (new[0] and old != new):
                yield TimeSpan((frame - 1) / item.fps, frame / item.fps)
    elif kind == "moves":
        yield from _moves(item, thing, is_there, first, last)


def _runs(holds: Callable[[int], bool], first: int, last: int, fps: float) -> Iterator[TimeSpan]:
    """Stretches in which something begins to hold, until it ends or the window does."""
    start = None
    for frame in range(first + 1, last + 1):
        if holds(frame) and not holds(frame - 1):
            start = frame
        if start is not None and not holds(frame):
            yield TimeSpan(start / fps, frame / fps)
            start = None
    if start is not None:
        yield TimeSpan(start / fps, (last + 1) / fps)


def _moves(item: Item, thing: WorldObject, is_there: Callable[[int], bool], first: int, last: int) -> Iterator[TimeSpan]:
    moving = [f for f in range(first + 1, last + 1) if (is_there(f) or is_there(f - 1)) and _is_displaced(item, thing, f)]
    start = end = None
    for frame in moving:
        if start is not None and frame - end > MAX_REST_S * item.fps:
            yield TimeSpan(start / item.fps, end / item.fps)
            start = None
        start, end = frame - 1 if start is None else start, frame
    if start is not None:
        # A thing that still moves on the last frame moves until the window's end.
        yield TimeSpan(start / item.fps, (end + (end == last)) / item.fps)


def _is_displaced(item: Item, thing: WorldObject, frame: int) -> bool:
    """Whether a thing's centre moved from the frame before, apart from the camera's own motion."""
    step = _step(thing, frame)
    if step is None:
        return False
    if item.shift is not None and item.shift.kind == "motion":
        steps = [s for s in (_step(other, frame) for other in item.truth.objects) if s is not None]
        step = tuple(step[axis] - statistics.median_low(s[axis] for s in steps) for axis in (0, 1))
    return abs(step[0]) + abs(step[1]) >= 0.5


def _step(thing: WorldObject, frame: int) -> tuple[float, float] | None:
    now, before = box_at(thing, frame), box_at(thing, frame - 1)
    if now is None or before is None:
        return None
    (x, y), (bx, by) = now.centre, before.centre
    return x - bx, y - by
