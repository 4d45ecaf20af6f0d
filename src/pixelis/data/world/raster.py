"""Shapes as coverage, and putting coverage on a canvas: integer arithmetic, the same pixels everywhere.

Shape letters: H height, W width, C channels (RGB).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "pentagon", "hexagon", "cross", "diamond", "ring")
INK = 128  # a pixel belongs to a mask where coverage is at least this


@lru_cache(maxsize=4_096)
def shape_cover(shape: str, size_px: int, angle_deg: int = 0) -> np.ndarray:
    """Coverage uint8 [H, W] of a shape about `size_px` across, cut to what it covers.

    The coverage is the signed distance to the outline, one pixel wide, so `coverage >= INK` is exactly "the pixel's centre lies inside".
    """
    radius = size_px / 2
    centre = math.ceil(radius) + 2.0
    side = int(2 * centre)
    y, x = np.mgrid[0:side, 0:side] + (0.5 - centre)
    if shape in ("circle", "ring"):
        outside = np.sqrt(x * x + y * y)
        outside = outside - radius if shape == "circle" else np.abs(outside - radius * 0.78) - radius * 0.22
    else:
        outside = _polygon_distance(_corners(shape, radius, angle_deg), x, y)
    return _cut(ink_of(-outside))


def ink_of(inside: np.ndarray) -> np.ndarray:
    """Coverage uint8 of a signed distance in pixels, positive inside.

    To a 1024th of a pixel: where an edge runs through pixel centres, the last bit of a sum must not decide.
    """
    return np.floor(np.clip(0.5 + np.round(inside * 1024) / 1024, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)


def _corners(shape: str, radius: float, angle_deg: int) -> list[tuple[float, float]]:
    """Corners around the origin; rounded, because the last bit of a sine differs between platforms."""
    if shape == "cross":
        a, b = 0.95, 0.32
        unit = [(-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b), (b, a), (-b, a), (-b, b), (-a, b), (-a, -b), (-b, -b)]
    elif shape == "diamond":
        unit = [(0, -1), (0.72, 0), (0, 1), (-0.72, 0)]
    elif shape == "square":
        unit = [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]
    else:
        count, inner = {"triangle": (3, 0.0), "star": (5, 0.42), "pentagon": (5, 0.0), "hexagon": (6, 0.0)}[shape]
        unit = []
        for i in range(count):
            angle = 2 * math.pi * i / count
            unit.append((math.sin(angle), -math.cos(angle)))
            if inner:
                angle += math.pi / count
                unit.append((inner * math.sin(angle), -inner * math.cos(angle)))
    turn = math.radians(angle_deg)
    cos, sin = math.cos(turn), math.sin(turn)
    return [(round(radius * (x * cos - y * sin), 6), round(radius * (x * sin + y * cos), 6)) for x, y in unit]


def _polygon_distance(corners: list[tuple[float, float]], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance to a polygon's outline, negative inside (even-odd rule)."""
    nearest = np.full(x.shape, np.inf)
    is_inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
        ex, ey = x - (x0 + along * dx), y - (y0 + along * dy)
        np.minimum(nearest, ex * ex + ey * ey, out=nearest)
        if y0 != y1:
            crosses = (y0 > y) != (y1 > y)
            is_inside ^= crosses & (x < dx * (y - y0) / dy + x0)
    distance = np.sqrt(nearest)
    return np.where(is_inside, -distance, distance)


@lru_cache(maxsize=2_048)
def plate_cover(width: int, height: int, corner_px: int = 0, border_px: int = 0) -> np.ndarray:
    """Coverage uint8 [H, W] of a plate with rounded corners; only its border where `border_px` is set."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    qx = np.abs(x - width / 2) - (width / 2 - corner_px)
    qy = np.abs(y - height / 2) - (height / 2 - corner_px)
    far_x, far_y = np.maximum(qx, 0), np.maximum(qy, 0)
    outside = np.sqrt(far_x * far_x + far_y * far_y) + np.minimum(np.maximum(qx, qy), 0.0) - corner_px
    if border_px:
        outside = np.maximum(outside, -border_px - outside)
    cover = ink_of(-outside)
    cover.setflags(write=False)
    return cover


def _cut(cover: np.ndarray) -> np.ndarray:
    rows, cols = np.flatnonzero(cover.any(axis=1)), np.flatnonzero(cover.any(axis=0))
    out = np.ascontiguousarray(cover[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1])
    out.setflags(write=False)
    return out


def paste(canvas_HWC: np.ndarray, cover: np.ndarray, rgb: tuple[int, int, int], x: int, y: int) -> None:
    """Put `rgb` on the canvas through a coverage whose upper left pixel is at x, y; what falls outside is dropped."""
    height, width = canvas_HWC.shape[:2]
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + cover.shape[1], width), min(y + cover.shape[0], height)
    if x0 >= x1 or y0 >= y1:
        return
    share = cover[y0 - y : y1 - y, x0 - x : x1 - x, None].astype(np.int32)
    below = canvas_HWC[y0:y1, x0:x1]
    below[...] = (below * (255 - share) + np.array(rgb, np.int32) * share + 127) // 255
