"""Pen fonts: one set of skeletons, many hands. No font file is needed, and each split writes with hands of its own.

A hand sets weight, width, slant, how square the curves are, the contrast of upright and level strokes, serifs and spacing.
Coverage is computed from the distance to the skeleton with additions, products and square roots only, which IEEE 754 rounds
the same everywhere; the few sines are rounded before use.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pixelis.data.world.glyphs import GLYPHS
from pixelis.data.world.raster import ink_of

_STEP_DEG = 15
_SERIF = 0.13


@dataclass(frozen=True)
class Font:
    """A hand. Lengths are shares of the cap height."""

    name: str
    weight: float = 0.14
    width: float = 1.0
    slant: float = 0.0
    """Shear to the right per unit of height."""
    squareness: float = 2.0
    """Exponent of the curves: 2 is round, 4 nearly square."""
    level: float = 1.0
    """Thickness of level strokes over that of upright ones."""
    has_serifs: bool = False
    spacing: float = 0.24


FONTS: dict[str, Font] = {
    font.name: font
    for font in (
        # train
        Font("plain"),
        Font("light", weight=0.10),
        Font("bold", weight=0.19, spacing=0.27),
        Font("lean", slant=0.18),
        Font("narrow", width=0.82, spacing=0.22),
        Font("wide", width=1.22, spacing=0.30),
        Font("serif", weight=0.13, has_serifs=True, spacing=0.34),
        Font("block", squareness=3.4, weight=0.15),
        Font("roman", weight=0.16, level=0.6, has_serifs=True, spacing=0.36),
        Font("boldlean", weight=0.18, slant=0.14, spacing=0.27),
        # dev
        Font("square", squareness=4.0, weight=0.13, width=1.06),
        Font("brush", weight=0.17, level=0.65, slant=0.10, spacing=0.28),
        # dev-cal
        Font("slab", weight=0.15, squareness=2.6, has_serifs=True, width=1.05, spacing=0.36),
        Font("tall", width=0.78, weight=0.12, slant=0.06, spacing=0.23),
        # test
        Font("poster", weight=0.18, squareness=2.8, width=1.10, spacing=0.29),
        Font("italic", weight=0.12, slant=0.22, has_serifs=True, spacing=0.34),
        Font("signal", weight=0.14, squareness=3.0, level=0.8, slant=0.08),
        Font("airy", weight=0.11, width=1.14, level=1.15, spacing=0.34),
    )
}


def text_cover(text: str, font_name: str, cap_px: float) -> np.ndarray:
    """Coverage of one line of text.

    Args:
        text: capitals, digits, `- . :` and blanks.
        font_name: a key of `FONTS`.
        cap_px: height of a capital in pixels.

    Returns:
        uint8 [H, W], 255 where ink covers the whole pixel, cut to the ink with one pixel around it.
    """
    font = FONTS[font_name]
    placed: list[tuple[int, np.ndarray]] = []
    pen = 0.0
    for char in text:
        cover, advance = _glyph(char, font_name, cap_px)
        placed.append((round(pen), cover))
        pen += advance + font.spacing * cap_px
    height = placed[0][1].shape[0]
    width = max(x + cover.shape[1] for x, cover in placed)
    out = np.zeros((height, width), np.uint8)
    for x, cover in placed:
        view = out[:, x : x + cover.shape[1]]
        np.maximum(view, cover, out=view)
    rows, cols = np.flatnonzero(out.any(axis=1)), np.flatnonzero(out.any(axis=0))
    return np.pad(out[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1], 1)


@lru_cache(maxsize=20_000)
def _glyph(char: str, font_name: str, cap_px: float) -> tuple[np.ndarray, float]:
    """Coverage uint8 [H, W] of one letter, and how far the pen moves on, in pixels."""
    font = FONTS[font_name]
    width, strokes = GLYPHS[char]
    half = max(font.weight * cap_px / 2, 0.55)
    pad = math.ceil(half) + 2
    lines = [line for stroke in strokes for line in _lines(stroke, font)]
    if font.has_serifs and char != " ":
        lines += _serifs(strokes)
    extent = (width * font.width + abs(font.slant) + 2 * _SERIF + 0.1) * cap_px
    height_px, width_px = math.ceil(cap_px * 1.12) + 2 * pad, math.ceil(extent) + 2 * pad
    left = pad + _SERIF * cap_px
    points = np.array([[((x * font.width + font.slant * (1 - y)) * cap_px + left, y * cap_px + pad) for x, y in line] for line in lines])
    cover = _stroke_cover(np.round(points * 256) / 256, height_px, width_px, half, max(half * font.level, 0.5))
    cover.setflags(write=False)
    return cover, width * font.width * cap_px + 2 * half * 0.5


def _lines(stroke: tuple, font: Font) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    kind, *n = stroke
    if kind == "P":
        points = list(zip(n[::2], n[1::2], strict=True))
    else:
        cx, cy, rx, ry, first, last = n
        steps = max(1, math.ceil(abs(last - first) / _STEP_DEG))
        angles = [math.radians(first + (last - first) * i / steps) for i in range(steps + 1)]
        points = [(cx + rx * _bend(math.cos(a), font.squareness), cy + ry * _bend(math.sin(a), font.squareness)) for a in angles]
    return list(itertools.pairwise(points))


def _bend(value: float, squareness: float) -> float:
    """A sine on a superellipse; rounded, because the last bit of `cos` and `pow` differs between platforms."""
    value = round(value, 9)
    return round(math.copysign(abs(value) ** (2 / squareness), value), 6) if value else 0.0


def _serifs(strokes: tuple) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """A short level stroke at each free end of an upright line that stands on the baseline or hangs from the cap line."""
    out = []
    for kind, *n in strokes:
        points = list(zip(n[::2], n[1::2], strict=True)) if kind == "P" else []
        for end, inner in ((points[0], points[1]), (points[-1], points[-2])) if len(points) > 1 else ():
            if end[1] in (0, 1) and abs(end[0] - inner[0]) <= 0.6 * abs(end[1] - inner[1]):
                out.append(((end[0] - _SERIF, end[1]), (end[0] + _SERIF, end[1])))
    return out


def _stroke_cover(points_S22: np.ndarray, height: int, width: int, half_x: float, half_y: float) -> np.ndarray:
    """Ink of an elliptic pen along S line pieces; uint8 [H, W]."""
    if not len(points_S22):
        return np.zeros((height, width), np.uint8)
    y, x = np.mgrid[0:height, 0:width] + 0.5
    px, py = x / half_x, y / half_y
    scale = np.array([1 / half_x, 1 / half_y])
    nearest = np.full((height, width), np.inf)
    for (x0, y0), (x1, y1) in points_S22 * scale:
        dx, dy = x1 - x0, y1 - y0
        length2 = dx * dx + dy * dy
        along = np.clip(((px - x0) * dx + (py - y0) * dy) / length2, 0.0, 1.0) if length2 > 0 else 0.0
        ex, ey = px - (x0 + along * dx), py - (y0 + along * dy)
        np.minimum(nearest, ex * ex + ey * ey, out=nearest)
    signed = (1.0 - np.sqrt(nearest)) * (half_x + half_y) / 2
    return ink_of(signed)
