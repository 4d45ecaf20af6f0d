"""ZOOM: show a region larger."""

from __future__ import annotations

import math

import cv2
import numpy as np

from pixelis.core.errors import ToolError
from pixelis.core.geometry import Box, View
from pixelis.core.media import Medium, png_bytes
from pixelis.core.ops import ZoomArgs, ZoomOutput
from pixelis.core.store import sha256
from pixelis.tools.base import Context, clip_to_frame

MIN_SIDE_PX = 32
"""No side of a crop is shorter, whatever scale is asked for, but where the frame itself is too thin."""


class ZoomTool:
    """Cut a region out of a frame and resize it so that it is worth looking at; the footprint is what was shown.

    A sliver, of which the longer side would leave the shorter one under `MIN_SIDE_PX`, is shown with some of what lies beside it.

    Args:
        min_pixels: area up to which a crop is enlarged when no scale is asked for; 512 * 512 px are 256 visual tokens of
            a Qwen3-VL (32 px a token).
        max_side_px: no side of a crop is longer.
    """

    op = "ZOOM"
    engine = "opencv"

    def __init__(self, *, min_pixels: int = 512 * 512, max_side_px: int = 2048) -> None:
        self._min_pixels = min_pixels
        self._max_side_px = max_side_px

    @property
    def version(self) -> str:
        return f"opencv {cv2.__version__}; zoom 2; min_pixels {self._min_pixels}; max_side_px {self._max_side_px}"

    def __call__(self, medium: Medium, args: ZoomArgs, context: Context) -> ZoomOutput:
        """Raises: ToolError: the box misses the frame, or the view would exceed `max_side_px`."""
        shown = clip_to_frame(args.box, medium, "ZOOM")
        x0, y0, x1, y1 = shown.pixels(width=medium.width, height=medium.height)
        least = math.ceil(max(x1 - x0, y1 - y0) * MIN_SIDE_PX / self._max_side_px)
        (x0, x1), (y0, y1) = _at_least(x0, x1, least, medium.width), _at_least(y0, y1, least, medium.height)
        source = medium.frame(args.frame)[y0:y1, x0:x1]
        width, height = self._size(x1 - x0, y1 - y0, args.scale)
        crop = np.ascontiguousarray(source)
        if (width, height) != (x1 - x0, y1 - y0):
            is_larger = width * height > (x1 - x0) * (y1 - y0)
            crop = cv2.resize(crop, (width, height), interpolation=cv2.INTER_CUBIC if is_larger else cv2.INTER_AREA)
        data = png_bytes(crop)
        name = sha256(data)
        context.blobs[name] = data
        view = View(float(x0), float(y0), width / (x1 - x0), height / (y1 - y0))
        box = Box(float(x0), float(y0), float(x1), float(y1))
        return ZoomOutput(frame=args.frame, box=box, view=view, width=width, height=height, image=name)

    def _size(self, width: int, height: int, scale: float | None) -> tuple[int, int]:
        if scale is None:
            scale = max(1.0, math.sqrt(self._min_pixels / (width * height)), MIN_SIDE_PX / min(width, height))
            scale = min(scale, self._max_side_px / max(width, height))
        elif max(width, height) * scale > self._max_side_px:
            raise ToolError(
                "bad_arguments",
                f"ZOOM by {scale:g} makes {width * scale:.0f}x{height * scale:.0f} px, at most {self._max_side_px} a side: "
                f"write scale {self._max_side_px / max(width, height):.2f} or less, or leave it out",
            )
        scale = max(scale, min(MIN_SIDE_PX / min(width, height), self._max_side_px / max(width, height)))
        return max(1, round(width * scale)), max(1, round(height * scale))


def _at_least(start: int, stop: int, length: int, end: int) -> tuple[int, int]:
    """A stretch that is `length` long or longer, about the same middle, inside [0, end) as far as that has room."""
    if stop - start >= length:
        return start, stop
    start = min(max(0, (start + stop - length) // 2), max(0, end - length))
    return start, min(end, start + length)
