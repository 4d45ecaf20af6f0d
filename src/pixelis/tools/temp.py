"""TEMP: find when something happens in a video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Protocol

import numpy as np

from pixelis.core.media import Medium
from pixelis.core.ops import Segment, TempArgs, TempOutput
from pixelis.tools.ahead import read_ahead
from pixelis.tools.base import Context, clip_to_frame

MAX_FRAMES = 600


class EngineSegment(Protocol):
    start_s: float
    end_s: float
    score: float


class TempEngine(Protocol):
    name: str

    @property
    def version(self) -> str: ...

    def locate(
        self,
        frames: Iterable[np.ndarray],
        times_s: Sequence[float],
        event: str,
        *,
        box: tuple[float, float, float, float] | None = None,
        should_stop: Callable[[], None] | None = None,
    ) -> Sequence[EngineSegment]:
        """Time segments, best first."""
        ...


class TempTool:
    """Locate an event in time, in a region when one is given. No segment is a result, not an error.

    Windows of more than `MAX_FRAMES` frames are looked at with every second, third, ... frame.
    """

    op = "TEMP"

    def __init__(self, engine: TempEngine) -> None:
        self._engine = engine
        self.engine = engine.name

    @property
    def version(self) -> str:
        return f"temp 1; {self._engine.version}"

    def __call__(self, medium: Medium, args: TempArgs, context: Context) -> TempOutput:
        """Raises: ToolError: the box misses the frame, or the event is one the engine does not know."""
        box = clip_to_frame(args.box, medium, "TEMP") if args.box else None
        num_frames = args.last_frame - args.first_frame + 1
        step = -(-num_frames // MAX_FRAMES)
        times_s = [float(t) for t in medium.times_s[args.first_frame : args.last_frame + 1 : step]]
        with closing(read_ahead(medium.frames(args.first_frame, args.last_frame + 1, step))) as frames:
            found = self._engine.locate(frames, times_s, args.event, box=box.as_tuple() if box else None, should_stop=context.check)
        segments = tuple(
            Segment(start_s=round(float(s.start_s), 3), end_s=round(float(s.end_s), 3), score=round(float(s.score), 4)) for s in found
        )
        return TempOutput(event=args.event, box=box, first_frame=args.first_frame, last_frame=args.last_frame, segments=segments)
