"""Boxes of the PixelReasoner SFT format: shares of one picture or another, in pixels of the medium; what a recorded crop really shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pixelis.core.geometry import Box

PADDING, PADDING_PX = 0.1, 600
"""What their executor adds to a box on each side, as a share of the picture; later versions add at most so many pixels."""
SAME_SIZE_PX, SAME_SHAPE = 2.0, 0.1
"""How far a recorded crop may be from a region: in pixels when it was not resized, else in the logarithm of its aspect."""


class NoCounterpartError(Exception):
    """Something that our ops cannot say; the text is the refusal."""


@dataclass(frozen=True)
class Picture:
    """A picture that a call can name: the frame and the region of the medium that it shows."""

    frame: int
    region: Box
    is_whole: bool = False

    def to_original(self, share: Box) -> Box:
        """A box in shares of the picture, in pixels of the original frame."""
        x0, y0, width, height = self.region.x0, self.region.y0, self.region.width, self.region.height
        return Box(x0 + share.x0 * width, y0 + share.y0 * height, x0 + share.x1 * width, y0 + share.y1 * height)


def share_of(values: Any, picture: Picture) -> tuple[Box, bool]:
    """A written box in shares of its picture, clipped to it, and whether it was written in pixels.

    Their executor takes a box for shares when all four are below 1, else for pixels; we take 1 itself for the picture's edge.

    Raises:
        NoCounterpartError: no box, an empty one, one that mixes shares and pixels, or pixels of a crop.
    """
    is_box = isinstance(values, list) and len(values) == 4 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not is_box:
        raise NoCounterpartError(f"bbox_2d {str(values)[:60]} is no box of four numbers")
    box, is_in_pixels = Box(*map(float, values)), max(values) > 1
    if is_in_pixels:
        if any(0 < value < 1 for value in values):
            raise NoCounterpartError(f"bbox_2d {values} mixes shares and pixels")
        if not picture.is_whole:
            raise NoCounterpartError(f"bbox_2d {values} counts in pixels of a crop, whose size then is not recorded")
        width, height = picture.region.width, picture.region.height
        box = Box(box.x0 / width, box.y0 / height, box.x1 / width, box.y1 / height)
    box = box.clip(width=1, height=1)
    if box.is_empty:
        raise NoCounterpartError(f"bbox_2d {values} is empty or inverted, or misses its picture")
    return box, is_in_pixels


def shown_by(size: tuple[int, int], share: Box, picture: Picture) -> tuple[Picture, bool]:
    """What a recorded crop shows: the padded box or the box itself, whichever its size speaks for; the padded one in doubt.

    Args:
        size: width and height of the recorded crop.
        share: the box that was asked for, in shares of `picture`.

    Returns:
        The region, and whether the size fits it; where it fits none, the region is the box that was asked for.
    """
    width, height = picture.region.width, picture.region.height
    pads = [(min(PADDING, PADDING_PX / width), min(PADDING, PADDING_PX / height)), (PADDING, PADDING), (0.0, 0.0)]
    boxes = [Box(share.x0 - x, share.y0 - y, share.x1 + x, share.y1 + y).clip(width=1, height=1) for x, y in pads]

    def distance(box: Box) -> tuple[bool, float]:
        w, h = box.width * width, box.height * height
        is_resized = abs(w - size[0]) > SAME_SIZE_PX or abs(h - size[1]) > SAME_SIZE_PX
        return is_resized, round(abs(math.log(w / h) - math.log(size[0] / size[1])), 2)

    best = min(boxes, key=distance)  # the first of equals
    is_resized, gap = distance(best)
    fits = not is_resized or gap <= SAME_SHAPE
    return Picture(picture.frame, picture.to_original(best if fits else share)), fits
