"""Pictures of any mode as RGB, piece by piece: a large one takes little more memory than itself and its result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

TILE_PIXELS = 1 << 18
"""How many pixels are converted at once."""


def to_rgb(picture: Picture) -> np.ndarray:
    """Any mode as RGB uint8 [height, width, 3]; deep greys are scaled to 8 bits, not cut."""
    rgb_HWC = np.empty((picture.height, picture.width, 3), np.uint8)
    converted = _converter(picture)
    for (left, top), tile in _tiles(picture):
        rgb_HWC[top : top + tile.height, left : left + tile.width] = converted(tile)
    return rgb_HWC


def _tiles(picture: Picture) -> Iterator[tuple[tuple[int, int], Picture]]:
    """The picture in pieces of at most TILE_PIXELS, each behind its left upper corner: whole rows, unless one is longer than that."""
    width, height = picture.size
    if width * height <= TILE_PIXELS:
        yield (0, 0), picture
        return
    rows = max(1, TILE_PIXELS // width)
    for top in range(0, height, rows):
        for left in range(0, width, TILE_PIXELS):
            yield (left, top), picture.crop((left, top, min(left + TILE_PIXELS, width), min(top + rows, height)))


def _converter(picture: Picture) -> Callable[[Picture], np.ndarray]:
    """How any part of this picture becomes uint8 [height, width, 3 or 1]."""
    if picture.mode.startswith("I;16"):
        return lambda tile: _grey((np.asarray(tile).astype(np.uint32) * 255 + 32767) // 65535)
    if picture.mode == "I":
        low, high = _range(picture)
        return lambda tile: _grey(_integers_to_8_bits(np.asarray(tile).astype(np.float64), low, high))
    if picture.mode == "F":
        low, high = _range(picture)
        return lambda tile: _grey(_floats_to_8_bits(np.asarray(tile).astype(np.float64), low, high))
    if picture.has_transparency_data:
        return lambda tile: over_white(np.asarray(tile.convert("RGBA")))
    return lambda tile: np.asarray(tile.convert("RGB"))


def over_white(rgba_HWC: np.ndarray) -> np.ndarray:
    """RGBA uint8 laid over white, rounded to the nearest; RGB uint8."""
    height, width = rgba_HWC.shape[:2]
    rgb_HWC = np.empty((height, width, 3), np.uint8)
    rows = max(1, TILE_PIXELS // width)
    for top in range(0, height, rows):
        part = rgba_HWC[top : top + rows].astype(np.uint16)  # which holds 255 * 255 + 127
        alpha = part[..., 3:]
        rgb_HWC[top : top + rows] = (part[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return rgb_HWC


def _range(picture: Picture) -> tuple[float, float]:
    """The least and the greatest finite value of a grey picture; infinity and minus infinity when there is none."""
    low, high = np.inf, -np.inf
    for _, tile in _tiles(picture):
        values = np.asarray(tile)
        values = values[np.isfinite(values)]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    return low, high


def _integers_to_8_bits(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """32-bit greys: 8- and 16-bit ranges are taken for what they are, anything else is stretched from minimum to maximum."""
    if low >= 0 and high <= 65535:
        return values if high <= 255 else np.rint(values / 257)
    return _stretched(values, low, high)


def _floats_to_8_bits(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Float greys: [0, 1] is black to white, anything else is stretched from minimum to maximum; what is not finite is black."""
    is_finite = np.isfinite(values)
    values = np.where(is_finite, values, 0.0)
    if low > high:
        return values
    stretched = np.rint(values * 255) if low >= 0 and high <= 1 else _stretched(values, low, high)
    return np.where(is_finite, stretched, 0.0)


def _stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint((values.clip(low, high) / 2 - low / 2) / max(high / 2 - low / 2, 1e-300) * 255)  # halves: high - low may overflow


def _grey(values: Any) -> np.ndarray:
    return np.asarray(values).astype(np.uint8)[..., None]
