"""What every TRK engine returns, and the little geometry they share."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

BoxTuple = tuple[float, float, float, float]


@dataclass(frozen=True)
class TrackedBox:
    """The object in one frame."""

    box: BoxTuple | None
    """Pixels of that frame, `x1` and `y1` exclusive, inside the frame; None while the object is hidden or lost."""
    score: float
    """How sure the engine is that the box (or the absence of one) is right to follow, in [0, 1]; low while hidden."""


def as_rgb(frame: np.ndarray) -> np.ndarray:
    """A frame as contiguous RGB uint8 [height, width, 3]; grey and RGBA ones are converted."""
    if frame.ndim == 2:
        frame = frame[..., None]
    if frame.shape[2] == 1:
        frame = np.repeat(frame, 3, axis=2)
    return np.ascontiguousarray(frame[..., :3], dtype=np.uint8)


def clip_box(box: BoxTuple, width: int, height: int) -> BoxTuple | None:
    """The part of a box inside the frame; None when less than half a pixel of it remains."""
    x0, y0 = min(max(box[0], 0.0), float(width)), min(max(box[1], 0.0), float(height))
    x1, y1 = min(max(box[2], 0.0), float(width)), min(max(box[3], 0.0), float(height))
    if x1 - x0 < 0.5 or y1 - y0 < 0.5:
        return None
    return float(x0), float(y0), float(x1), float(y1)


def box_iou(a: BoxTuple, b: BoxTuple) -> float:
    """Intersection over union in [0, 1]."""
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else 0.0


class SteadySize:
    """Brings every frame to the first one's size, and boxes back: a stream may change its size midway."""

    def __init__(self) -> None:
        self.size: tuple[int, int] | None = None

    def enter(self, frame: np.ndarray) -> np.ndarray:
        size = (frame.shape[1], frame.shape[0])
        self.size = self.size or size
        return frame if size == self.size else cv2.resize(frame, self.size, interpolation=cv2.INTER_AREA)

    def leave(self, box: BoxTuple | None, frame: np.ndarray) -> BoxTuple | None:
        """A box of the steady frame, in pixels of `frame` and clipped to it."""
        if box is None:
            return None
        sx, sy = frame.shape[1] / self.size[0], frame.shape[0] / self.size[1]
        return clip_box((box[0] * sx, box[1] * sy, box[2] * sx, box[3] * sy), frame.shape[1], frame.shape[0])
