"""TRK: follow one object through a video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Protocol

import numpy as np

from pixelis.core.errors import ToolError
from pixelis.core.geometry import Box
from pixelis.core.media import Medium
from pixelis.core.ops import TrackPoint, TrkArgs, TrkOutput
from pixelis.tools.ahead import read_ahead
from pixelis.tools.base import Context, clip_to_frame

MAX_FRAMES = 3_000


class Tracked(Protocol):
    """One frame of an engine's track."""

    box: tuple[float, float, float, float] | None
    score: float


class TrkEngine(Protocol):
    name: str

    @property
    def version(self) -> str: ...

    def track(
        self, frames: Iterable[np.ndarray], box: tuple[float, float, float, float], *, should_stop: Callable[[], None] | None = None
    ) -> list[Tracked]:
        """One entry per frame, the first for the given box; a box of None where the object is not visible."""
        ...


class TrkTool:
    """Track the object in a box from one frame to another, forwards or backwards in time."""

    op = "TRK"

    def __init__(self, engine: TrkEngine) -> None:
        self._engine = engine
        self.engine = engine.name

    @property
    def version(self) -> str:
        return f"trk 1; {self._engine.version}"

    def __call__(self, medium: Medium, args: TrkArgs, context: Context) -> TrkOutput:
        """Raises: ToolError: the box misses the frame, or the span is longer than `MAX_FRAMES`."""
        box = clip_to_frame(args.box, medium, "TRK")
        num_frames = abs(args.last_frame - args.first_frame) + 1
        if num_frames > MAX_FRAMES:
            raise ToolError("bad_arguments", f"TRK over {num_frames} frames, at most {MAX_FRAMES}: give from_s and to_s closer together")
        with closing(read_ahead(frames_between(medium, args.first_frame, args.last_frame))) as frames:
            tracked = self._engine.track(frames, box.as_tuple(), should_stop=context.check)
        step = 1 if args.last_frame >= args.first_frame else -1
        points = [_point(medium, args.first_frame + step * i, found) for i, found in enumerate(tracked[:num_frames])]
        points.sort(key=lambda p: p.frame)
        seen = [p.score for p in points if p.box is not None]
        return TrkOutput(track_id=1, points=tuple(points), score=round(float(np.mean(seen)), 4) if seen else 0.0)


def _point(medium: Medium, frame: int, found: Tracked) -> TrackPoint:
    box = None
    if found.box is not None:
        box = Box(*(round(float(v), 2) for v in found.box)).clip(width=medium.width, height=medium.height)
        box = None if box.is_empty else box
    return TrackPoint(frame=frame, time_s=float(medium.times_s[frame]), box=box, score=round(float(found.score), 4))


def frames_between(medium: Medium, first: int, last: int) -> Iterator[np.ndarray]:
    """Frames from `first` to `last`, both included, in that order; backwards in chunks, so that memory stays bounded."""
    if first <= last:
        yield from medium.frames(first, last + 1)
        return
    chunk = 32
    for stop in range(first + 1, last, -chunk):
        start = max(last, stop - chunk)
        yield from reversed(list(medium.frames(start, stop)))
