"""Twelve colour names for pixels, and the named colours of a region.

Hue is told in HSV (it splits blue, purple and pink better than the Lab hue does), lightness and greyness in CIELAB.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

COLOUR_NAMES = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown", "black", "grey", "white")
COLOUR_WORDS = {name: name for name in COLOUR_NAMES} | {
    "gray": "grey",
    "violet": "purple",
    "magenta": "pink",
    "turquoise": "cyan",
    "teal": "cyan",
    "silver": "grey",
    "crimson": "red",
    "navy": "blue",
}
_BITS = 5  # the name table has 32 steps a channel


@dataclass(frozen=True)
class Attribute:
    """One measured property and how sure it is, in [0, 1]."""

    name: str
    value: str | float | int
    confidence: float
    unit: str = ""


def name_pixels(image_HWC: np.ndarray) -> np.ndarray:
    """Index into `COLOUR_NAMES` of each pixel of an RGB uint8 image [..., 3]; uint8 [...]."""
    q = image_HWC >> (8 - _BITS)
    return _table()[q[..., 0], q[..., 1], q[..., 2]]


def names_lit(channels_3N: np.ndarray, lit_256: np.ndarray) -> np.ndarray:
    """As `name_pixels`, of pixels channel by channel, uint8 [3, pixels], each value v taken for `lit_256[v]`; [pixels]."""
    step = (lit_256 >> (8 - _BITS)).astype(np.uint16)
    place = sum(cv2.LUT(channel, step << shift).ravel() for channel, shift in zip(channels_3N, (2 * _BITS, _BITS, 0), strict=True))
    return _table().ravel().take(place)


@cache
def _table() -> np.ndarray:
    steps = (np.arange(1 << _BITS) * 255 // ((1 << _BITS) - 1)).astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1)
    return name_exact(cube.reshape(-1, 1, 3)).reshape(cube.shape[:3])


def name_exact(image_HWC: np.ndarray) -> np.ndarray:
    """As `name_pixels`, without the table's quantisation."""
    rgb = image_HWC.astype(np.float32) / 255
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)
    hue = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[..., 0]
    light, chroma = lab[..., 0], np.hypot(lab[..., 1], lab[..., 2])
    value = rgb.max(axis=-1)
    saturation = np.where(value > 0, (value - rgb.min(axis=-1)) / np.maximum(value, 1e-6), 0)
    out = np.full(hue.shape, _id("red"), np.uint8)
    for upto, name in _HUES:
        out[hue >= upto] = _id(name)
    warm = (hue < 48) | (hue >= 345)
    # Dark orange is brown; a dark red is brown only where it is not saturated.
    brown = warm & (hue >= 10) & (hue < 48) & (light < 54) & (value < 0.77)
    brown |= (hue >= 20) & (hue < 48) & (value < 0.85) & (saturation < 0.62) & (light < 66)
    brown |= warm & ((hue < 10) | (hue >= 345)) & (saturation < 0.62) & (value < 0.62) & (light < 45)
    out[brown] = _id("brown")
    # Pale or rosy reds are pink.
    rosy = ((hue >= 318) | (hue < 20)) & (light > 58) & (saturation < 0.62) & ~brown
    out[rosy] = _id("pink")
    out[(hue >= 290) & (hue < 318) & (light > 66)] = _id("pink")  # a light magenta
    out[(hue >= 336) & (hue < 345) & (saturation > 0.68)] = _id("red")  # crimson
    plain = (chroma < 11) | ((saturation < 0.13) & (chroma < 16)) | (light < 12) & (chroma < 22)
    out[plain & (light < 24)] = _id("black")
    out[plain & (light >= 24)] = _id("grey")
    out[plain & (light > 83)] = _id("white")
    out[value < 0.12] = _id("black")
    return out


def _id(name: str) -> int:
    return COLOUR_NAMES.index(name)


# From this HSV hue on (degrees), until the next row.
_HUES = (
    (0.0, "red"),
    (15.0, "orange"),
    (46.0, "yellow"),
    (70.0, "green"),
    (164.0, "cyan"),
    (201.0, "blue"),
    (256.0, "purple"),
    (306.0, "pink"),
    (345.0, "red"),
)
