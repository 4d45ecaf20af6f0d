"""What a footprint looks like: the pixels that a step touched, as crops of its medium. Shape: HWC image."""

from __future__ import annotations

import numpy as np

from pixelis.core.geometry import Box
from pixelis.core.media import Medium
from pixelis.core.ops import Footprint

MAX_CROPS = 4
"""Of one step: a long track is seen on so many of its frames, evenly spread."""


def crop_places(footprint: Footprint, medium: Medium) -> tuple[tuple[int, Box], ...]:
    """Where to look for what a step touched: (frame, box) pairs, none where it touched no pixels.

    - On known frames: the box around all of that frame's boxes, on at most `MAX_CROPS` frames.
    - A stretch of time (TEMP found something): its middle, in its region, or the whole frame where it had none.
    - A region alone (TEMP found nothing there): that region.
    """
    whole = Box(0.0, 0.0, float(medium.width), float(medium.height))
    by_frame: dict[int, Box] = {}
    for frame, box in footprint.boxes:
        by_frame[frame] = _around(by_frame[frame], box) if frame in by_frame else box
    if footprint.frames:
        frames = [frame for frame in footprint.frames if frame in by_frame] or list(footprint.frames)
        last = len(frames) - 1
        kept = frames if last < MAX_CROPS else [frames[round(k * last / (MAX_CROPS - 1))] for k in range(MAX_CROPS)]
        return tuple((frame, by_frame.get(frame, whole)) for frame in kept)
    if footprint.span is not None:
        middle_s = min(max((footprint.span.start_s + footprint.span.end_s) / 2, 0.0), medium.duration_s)
        return ((medium.frame_at(middle_s), next(iter(by_frame.values()), whole)),)
    return tuple(by_frame.items())


def _around(one: Box, two: Box) -> Box:
    return Box(min(one.x0, two.x0), min(one.y0, two.y0), max(one.x1, two.x1), max(one.y1, two.y1))


def crops(footprint: Footprint, medium: Medium) -> list[np.ndarray]:
    """The pixels of a footprint, uint8 [height, width, 3] each; none of a box outside the frame.

    Raises:
        DataError: damage took a frame.
    """
    found = []
    for frame, box in crop_places(footprint, medium):
        x0, y0, x1, y1 = box.pixels(width=medium.width, height=medium.height)
        if x1 > x0 and y1 > y0:
            found.append(np.ascontiguousarray(medium.frame(frame)[y0:y1, x0:x1]))
    return found
