"""Straight motion blur: whether a picture has it around a place, and how it looked before.

A camera that moves evenly in one direction while it exposes averages the picture along a line. That takes whole frequencies away, in
stripes whose spacing tells the line's length and direction: the cepstrum has a dip where the line ends (`docs/results/motion_blur.md`).
The strokes of sharp letters leave such stripes too. So what the line says the place looked like is blurred again: only where that gives
the picture there is a blur. Blur of any other form is left as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache

import cv2
import numpy as np
import scipy.fft

from pixelis.core.geometry import Box
from pixelis.tools.engines.ranks import median

TILE_PX = 192
"""Side of the square in which blur is looked for; a larger one holds more that was never blurred visibly, such as an even ground."""
LEAST_TILE_PX = 48
"""Fewer pixels tell no direction."""
LEAST_PX = 3
MOST_PX = 24
"""Of the blur, along its longer side."""
LEAST_DEPTH = 12.0
"""Of the dip below the median of its neighbourhood, in median absolute deviations."""
MOST_RIVAL = 0.6
"""Depth of the deepest dip in any other direction, over that of the deepest: blocks of a JPEG have one each way."""
MOST_LEFT = 0.4
"""Of the fine parts of the picture, by root mean square: what the sharp picture, blurred again, does not give back."""
NOISE = 1e-3
"""Power of what is not picture over that of the picture."""
MARGIN_PX = 3 * MOST_PX
"""Of the picture around what is restored, which its edges need."""


@dataclass(frozen=True)
class MotionBlur:
    """The line over which every pixel was averaged, in pixels; its direction is known but for its sign."""

    dx: int
    dy: int

    @property
    def taps(self) -> int:
        return max(abs(self.dx), abs(self.dy))

    def kernel(self) -> np.ndarray:
        """Weights [side, side], side odd, sum 1."""
        half = self.taps // 2 + 1
        weights = np.zeros((2 * half + 1, 2 * half + 1))
        for k in range(self.taps):
            along = (k - (self.taps - 1) / 2) / self.taps
            x, y = half + along * self.dx, half + along * self.dy
            left, top = math.floor(x), math.floor(y)
            for row, share_y in ((top, 1 - (y - top)), (top + 1, y - top)):
                for column, share_x in ((left, 1 - (x - left)), (left + 1, x - left)):
                    if share_x * share_y > 0:
                        weights[row, column] += share_x * share_y
        return weights / weights.sum()


def steadied(image_HWC: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray | None:
    """The picture with the straight blur in and around a box undone; None where none shows.

    One place in thirty of a picture that was never blurred can look as if it were, so what is measured in a steadied picture should count
    only where it is surer than what is measured in the picture itself.

    Args:
        image_HWC: uint8 RGB [height, width, 3].
        box: x0, y0, x1, y1 in pixels, x1 and y1 exclusive; inside the picture and not empty.
    """
    blur = find_motion_blur(image_HWC, box)
    if blur is None:
        return None
    height, width = image_HWC.shape[:2]
    x0, y0, x1, y1 = box
    room = max(x1 - x0, y1 - y0) // 2 + MOST_PX
    whole = max(0, x0 - room), max(0, y0 - room), min(width, x1 + room), min(height, y1 + room)
    image = image_HWC.copy()
    image[whole[1] : whole[3], whole[0] : whole[2]] = undone(image_HWC, whole, blur)
    return image


def find_motion_blur(image_HWC: np.ndarray, box: tuple[int, int, int, int]) -> MotionBlur | None:
    """The straight blur in and around a box, None where none shows. In a box larger than a tile its busiest tile is looked at.

    Args:
        image_HWC: uint8 RGB [height, width, 3].
        box: x0, y0, x1, y1 in pixels, x1 and y1 exclusive; inside the picture and not empty.
    """
    height, width = image_HWC.shape[:2]
    tile_h, tile_w = min(TILE_PX, height), min(TILE_PX, width)
    if min(tile_h, tile_w) < LEAST_TILE_PX:
        return None
    x, y = _busiest(image_HWC, box)
    x0, y0 = (min(max(at - side // 2, 0), whole - side) for at, side, whole in ((x, tile_w, width), (y, tile_h, height)))
    grey = _grey(image_HWC[y0 : y0 + tile_h, x0 : x0 + tile_w])
    spectrum = np.abs(scipy.fft.rfft2((grey - grey.mean()) * _window(tile_h, tile_w)))
    cepstrum = scipy.fft.irfft2(np.log(spectrum + 1.0), s=(tile_h, tile_w))
    dx, dy = _ways()
    depth = -cepstrum[dy % tile_h, dx % tile_w]
    depth -= median(depth)
    depth /= median(np.abs(depth)) + 1e-12
    best = int(np.argmax(depth))
    if depth[best] < LEAST_DEPTH:
        return None
    across = np.abs(dx * dy[best] - dy * dx[best]) / math.hypot(dx[best], dy[best])
    if depth[across > 2].max() > MOST_RIVAL * depth[best]:
        return None
    blur = MotionBlur(int(dx[best]), int(dy[best]))
    room = Box(*box).grow(MOST_PX).intersect(Box(x0, y0, x0 + tile_w, y0 + tile_h))
    return blur if _left_over(image_HWC, room.pixels(width=width, height=height), blur) <= MOST_LEFT else None


def _left_over(image_HWC: np.ndarray, box: tuple[int, int, int, int], blur: MotionBlur) -> float:
    """Share of the fine parts of a box, by root mean square, that the picture before a blur, blurred again, does not give back.

    Of a picture that never had the blur, what it would have looked like before has ripples darker than black and lighter than white.
    """
    height, width = image_HWC.shape[:2]
    x0, y0, x1, y1 = box
    seen = image_HWC[y0:y1, x0:x1].astype(np.float32)
    again = cv2.filter2D(undone(image_HWC, box, blur).astype(np.float32), -1, blur.kernel(), borderType=cv2.BORDER_REFLECT)
    fine = seen - cv2.blur(seen, (2 * blur.taps + 1, 2 * blur.taps + 1))
    # Left out: where the kernel reaches beyond the box, and two lengths from where the picture ends, as far as ripples go from there.
    reach, far_x, far_y = blur.taps // 2 + 1, 2 * abs(blur.dx), 2 * abs(blur.dy)
    left, top = max(reach, far_x - x0), max(reach, far_y - y0)
    right, bottom = min(x1 - reach, width - far_x) - x0, min(y1 - reach, height - far_y) - y0
    if min(right - left, bottom - top) > reach:
        again, seen, fine = (part[top:bottom, left:right] for part in (again, seen, fine))
    return float(np.sqrt(np.mean((again - seen) ** 2) / (np.mean(fine**2) + 1e-9)))


@lru_cache(maxsize=8)
def _window(height: int, width: int) -> np.ndarray:
    """1 in the middle of a tile and 0 along its edges."""
    return np.hanning(height).astype(np.float32)[:, None] * np.hanning(width).astype(np.float32)


@cache
def _ways() -> tuple[np.ndarray, np.ndarray]:
    """Every displacement that a blur may have, of each line one direction."""
    dx, dy = np.meshgrid(np.arange(-MOST_PX, MOST_PX + 1), np.arange(-MOST_PX, MOST_PX + 1))
    is_far = (np.maximum(abs(dx), abs(dy)) >= LEAST_PX) & ((dx > 0) | ((dx == 0) & (dy > 0)))
    return dx[is_far], dy[is_far]


def _busiest(image_HWC: np.ndarray, box: tuple[int, int, int, int]) -> tuple[int, int]:
    """The middle of the tile of a box with the most contrast; the box's own where it is no larger than a tile."""
    x0, y0, x1, y1 = box
    if x1 - x0 <= TILE_PX and y1 - y0 <= TILE_PX:
        return (x0 + x1) // 2, (y0 + y1) // 2
    contrast = cv2.Laplacian(_grey(image_HWC[y0:y1, x0:x1]), cv2.CV_32F) ** 2
    top, left = np.unravel_index(int(np.argmax(cv2.boxFilter(contrast, -1, (TILE_PX, TILE_PX)))), contrast.shape)
    return x0 + int(left), y0 + int(top)


def _grey(image_HWC: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY).astype(np.float32)


def undone(image_HWC: np.ndarray, box: tuple[int, int, int, int], blur: MotionBlur) -> np.ndarray:
    """What stands in a box, as it was before the blur, as far as that can be told (Wiener's filter).

    Args:
        image_HWC: the whole picture, uint8 RGB [height, width, 3]; what is around the box helps at its edges.
        box: x0, y0, x1, y1 in pixels, x1 and y1 exclusive.

    Returns:
        uint8 RGB [y1 - y0, x1 - x0, 3].
    """
    height, width = image_HWC.shape[:2]
    x0, y0, x1, y1 = box
    left, top, right, bottom = max(0, x0 - MARGIN_PX), max(0, y0 - MARGIN_PX), min(width, x1 + MARGIN_PX), min(height, y1 + MARGIN_PX)
    around = image_HWC[top:bottom, left:right].astype(np.float32)
    side = len(kernel := blur.kernel())
    padded = np.pad(around, ((side, side), (side, side), (0, 0)), mode="symmetric")
    shape = tuple(scipy.fft.next_fast_len(length, real=True) for length in padded.shape[:2])
    padded = np.pad(padded, ((0, shape[0] - padded.shape[0]), (0, shape[1] - padded.shape[1]), (0, 0)), mode="edge")
    whole = np.zeros(shape, np.float32)
    whole[:side, :side] = kernel
    answer = scipy.fft.rfft2(np.roll(whole, (-(side // 2), -(side // 2)), axis=(0, 1)))
    inverse = np.conj(answer) / (np.abs(answer) ** 2 + NOISE)
    channels = [scipy.fft.irfft2(scipy.fft.rfft2(padded[..., c]) * inverse, s=shape) for c in range(3)]  # one by one: a page is large
    sharp = np.stack(channels, axis=-1)
    x, y = side + x0 - left, side + y0 - top
    return np.clip(np.rint(sharp[y : y + y1 - y0, x : x + x1 - x0]), 0, 255).astype(np.uint8)
