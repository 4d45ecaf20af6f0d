"""Boxes, points, masks, time spans, and the one converter between the wire and the inside.

On the wire: integers 0-1000 relative to the ORIGINAL medium, times in seconds with one decimal. Inside: float pixels of
the original frame with `x1, y1` (the right and lower edges) exclusive, and frame indices.
Source: Qwen3-VL's coordinate convention; COCO's run-length encoding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco

from pixelis.core.errors import ToolError

WIRE_MAX = 1000


@dataclass(frozen=True)
class Box:
    """An axis-aligned box in pixels of the original frame; `x1` and `y1` are exclusive."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        return max(0.0, self.x1 - self.x0)

    @property
    def height(self) -> float:
        return max(0.0, self.y1 - self.y0)

    @property
    def area(self) -> float:
        return self.width * self.height

    @property
    def is_empty(self) -> bool:
        return not self.area > 0.0

    @property
    def centre(self) -> tuple[float, float]:
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def as_tuple(self) -> tuple[float, float, float, float]:
        return self.x0, self.y0, self.x1, self.y1

    def clip(self, *, width: int, height: int) -> Box:
        """The part inside a `width` x `height` frame; empty (never inverted) when there is none."""
        x0, x1 = (min(max(v, 0.0), float(width)) for v in (self.x0, self.x1))
        y0, y1 = (min(max(v, 0.0), float(height)) for v in (self.y0, self.y1))
        return Box(x0, y0, max(x0, x1), max(y0, y1))

    def intersect(self, other: Box) -> Box:
        x0, y0 = max(self.x0, other.x0), max(self.y0, other.y0)
        return Box(x0, y0, max(x0, min(self.x1, other.x1)), max(y0, min(self.y1, other.y1)))

    def iou(self, other: Box) -> float:
        """Intersection over union in [0, 1]; 0 when both are empty."""
        shared = self.intersect(other).area
        union = self.area + other.area - shared
        return shared / union if union > 0 else 0.0

    def grow(self, px: float) -> Box:
        return Box(self.x0 - px, self.y0 - px, self.x1 + px, self.y1 + px)

    def pixels(self, *, width: int, height: int) -> tuple[int, int, int, int]:
        """Whole pixels that the clipped box touches, as `(x0, y0, x1, y1)` for slicing; at least one pixel unless empty."""
        box = self.clip(width=width, height=height)
        if box.is_empty:
            return 0, 0, 0, 0
        # A millionth of a pixel is rounding, not a pixel touched.
        x0, y0 = math.floor(box.x0 + 1e-6), math.floor(box.y0 + 1e-6)
        return x0, y0, max(math.ceil(box.x1 - 1e-6), x0 + 1), max(math.ceil(box.y1 - 1e-6), y0 + 1)

    def __str__(self) -> str:
        return f"[{self.x0:g}, {self.y0:g}, {self.x1:g}, {self.y1:g}] px"


@dataclass(frozen=True)
class Mask:
    """A binary mask of the whole original frame as COCO's compressed run-length encoding."""

    height: int
    width: int
    counts: str
    """COCO compressed RLE string, column-major, as pycocotools writes it."""

    @classmethod
    def from_array(cls, mask_HW: np.ndarray) -> Mask:
        height, width = mask_HW.shape
        rle = coco.encode(np.asfortranarray(mask_HW.astype(np.uint8)))
        return cls(height, width, rle["counts"].decode("ascii"))

    def as_coco(self) -> dict:
        return {"size": [self.height, self.width], "counts": self.counts}

    def to_array(self) -> np.ndarray:
        """Boolean array [height, width]."""
        return coco.decode(self.as_coco()).astype(bool)

    @property
    def area_px(self) -> int:
        return int(coco.area(self.as_coco()))

    @property
    def box(self) -> Box:
        """The tight box; empty when the mask is."""
        x, y, w, h = (float(v) for v in coco.toBbox(self.as_coco()))
        return Box(x, y, x + w, y + h)

    def iou(self, other: Mask) -> float:
        """Intersection over union in [0, 1]; 0 when both are empty or the frames differ in size."""
        if (self.height, self.width) != (other.height, other.width) or not (self.area_px or other.area_px):
            return 0.0
        return float(coco.iou([self.as_coco()], [other.as_coco()], [0])[0, 0])


@dataclass(frozen=True)
class TimeSpan:
    """A stretch of a video in seconds, `end_s` exclusive."""

    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        return max(0.0, self.end_s - self.start_s)

    def tiou(self, other: TimeSpan) -> float:
        """Temporal intersection over union in [0, 1]; two equal instants count as 1."""
        shared = max(0.0, min(self.end_s, other.end_s) - max(self.start_s, other.start_s))
        union = self.length_s + other.length_s - shared
        if union <= 0:
            return 1.0 if self.start_s == other.start_s else 0.0
        return shared / union


@dataclass(frozen=True)
class View:
    """The affine map of a crop back to its original frame: `original = crop / scale + offset`."""

    x0: float
    y0: float
    scale_x: float
    scale_y: float

    def to_original(self, box: Box) -> Box:
        return Box(
            box.x0 / self.scale_x + self.x0,
            box.y0 / self.scale_y + self.y0,
            box.x1 / self.scale_x + self.x0,
            box.y1 / self.scale_y + self.y0,
        )

    def to_crop(self, box: Box) -> Box:
        return Box(
            (box.x0 - self.x0) * self.scale_x,
            (box.y0 - self.y0) * self.scale_y,
            (box.x1 - self.x0) * self.scale_x,
            (box.y1 - self.y0) * self.scale_y,
        )


def box_to_wire(box: Box, *, width: int, height: int) -> list[int]:
    """Pixels to 0-1000, outward where rounding would empty the box; every value stays in [0, 1000]."""
    values = []
    for low, high, size in ((box.x0, box.x1, width), (box.y0, box.y1, height)):
        a = min(max(round(low / size * WIRE_MAX), 0), WIRE_MAX)
        b = min(max(round(high / size * WIRE_MAX), 0), WIRE_MAX)
        if a == b and high > low:
            a, b = (a - 1, b) if a == WIRE_MAX else (a, b + 1)
        values.append((a, b))
    (x0, x1), (y0, y1) = values
    return [x0, y0, x1, y1]


def box_from_wire(values: object, *, width: int, height: int) -> Box:
    """0-1000 to pixels of a `width` x `height` frame.

    Values somewhat outside [0, 1000] are legal and clipped later by the tool; a box that lies wholly outside, is
    inverted or empty is not.

    Raises:
        ToolError: not four finite numbers, inverted, empty, or wholly outside the frame.
    """
    numbers = _numbers(values, 4, "bbox_2d", "[x1, y1, x2, y2]")
    x0, y0, x1, y1 = numbers
    if x1 <= x0 or y1 <= y0:
        raise ToolError("bad_arguments", f"bbox_2d {_short(numbers)} is empty or inverted: write [x1, y1, x2, y2] with x1 < x2 and y1 < y2")
    if x0 >= WIRE_MAX or y0 >= WIRE_MAX or x1 <= 0 or y1 <= 0:
        raise ToolError("out_of_frame", f"bbox_2d {_short(numbers)} misses the frame: coordinates run from 0 to {WIRE_MAX}")
    return Box(x0 / WIRE_MAX * width, y0 / WIRE_MAX * height, x1 / WIRE_MAX * width, y1 / WIRE_MAX * height)


def point_to_wire(x_px: float, y_px: float, *, width: int, height: int) -> list[int]:
    """Pixels to 0-1000, clipped to the frame."""
    return [min(max(round(v / size * WIRE_MAX), 0), WIRE_MAX) for v, size in ((x_px, width), (y_px, height))]


def point_from_wire(values: object, *, width: int, height: int) -> tuple[float, float]:
    """0-1000 to a pixel position strictly inside the frame (1000 maps to the last pixel).

    Raises:
        ToolError: not two finite numbers, or outside [0, 1000].
    """
    numbers = _numbers(values, 2, "point", "[x, y]")
    if not all(0 <= v <= WIRE_MAX for v in numbers):
        raise ToolError("out_of_frame", f"point {_short(numbers)} misses the frame: coordinates run from 0 to {WIRE_MAX}")
    x, y = numbers
    return min(x / WIRE_MAX * width, width - 0.5), min(y / WIRE_MAX * height, height - 0.5)


def seconds_to_wire(time_s: float) -> float:
    return round(time_s, 1)


def _numbers(values: object, count: int, name: str, form: str) -> list[float]:
    if not isinstance(values, (list, tuple)) or len(values) != count:
        raise ToolError("bad_arguments", f"{name} must be {form}, integers from 0 to {WIRE_MAX}; got {_short(values)}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 1e6:
            raise ToolError("bad_arguments", f"{name} must be {form}, integers from 0 to {WIRE_MAX}; got {_short(values)}")
    return [float(value) for value in values]


def _short(value: object) -> str:
    """A value for an error text, cut: it may come from a hostile model."""
    if isinstance(value, list) and all(isinstance(v, float) and v.is_integer() for v in value):
        value = [int(v) for v in value]
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer past the digit limit, a list inside itself
        return f"<{type(value).__name__}>"
    return text if len(text) <= 60 else text[:57] + "..."
