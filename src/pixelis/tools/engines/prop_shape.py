"""Size, shape, position and orientation of a region, from its mask and contour."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from pixelis.core.geometry import WIRE_MAX
from pixelis.tools.engines.prop_colour import Attribute
from pixelis.tools.engines.region import Region

ANGLES = 72
_HARMONICS = 13


def size_of(region: Region, frame_hw: tuple[int, int]) -> list[Attribute]:
    """Width, height and area in pixels of the image, and the area's share of the frame."""
    left, top, right, bottom = _extent(region.mask_HW)
    width, height = (right - left) / region.scale, (bottom - top) / region.scale
    area = float(np.count_nonzero(region.mask_HW)) / region.scale**2
    sure = 0.5 + 0.5 * region.clear
    return [
        Attribute("width", round(width, 1), sure, "px"),
        Attribute("height", round(height, 1), sure, "px"),
        Attribute("area", round(area, 1), sure, "px2"),
        Attribute("share", round(area / (frame_hw[0] * frame_hw[1]), 5), sure, "of frame"),
    ]


def position_of(region: Region, frame_hw: tuple[int, int]) -> list[Attribute]:
    """One of nine cells in words, and the centre of the region's box in 0-1000."""
    left, top, right, bottom = _extent(region.mask_HW)
    x = (region.x0 + (left + right) / 2 / region.scale) / frame_hw[1]
    y = (region.y0 + (top + bottom) / 2 / region.scale) / frame_hw[0]
    column, row = (("left", "centre", "right")[min(2, int(x * 3))], ("top", "middle", "bottom")[min(2, int(y * 3))])
    word = {"middle-centre": "centre", "middle-left": "left", "middle-right": "right", "top-centre": "top", "bottom-centre": "bottom"}.get(
        f"{row}-{column}", f"{row}-{column}"
    )
    edge = min(abs(x - 1 / 3), abs(x - 2 / 3), abs(y - 1 / 3), abs(y - 2 / 3))
    sure = float(np.clip(0.6 + edge * 20, 0.6, 0.98)) * (0.7 + 0.3 * region.clear)
    return [
        Attribute("position", word, sure),
        Attribute("centre_x", round(min(max(x, 0), 1) * WIRE_MAX), 0.7 + 0.3 * region.clear, "/1000"),
        Attribute("centre_y", round(min(max(y, 0), 1) * WIRE_MAX), 0.7 + 0.3 * region.clear, "/1000"),
    ]


def _extent(mask_HW: np.ndarray) -> tuple[int, int, int, int]:
    """The box around a mask, x1 and y1 exclusive."""
    columns, rows = np.flatnonzero(mask_HW.any(axis=0)), np.flatnonzero(mask_HW.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def orientation_of(region: Region) -> list[Attribute]:
    """Angle of the long axis in [0, 180) degrees, counter-clockwise from the right as seen on screen, and a word for it."""
    moments = cv2.moments(region.mask_HW.astype(np.uint8), binaryImage=True)
    if moments["m00"] <= 0:
        return [Attribute("orientation", "unclear", 0.0)]
    mu20, mu02, mu11 = (moments[k] / moments["m00"] for k in ("mu20", "mu02", "mu11"))
    angle = float(np.degrees(-0.5 * np.arctan2(2 * mu11, mu20 - mu02))) % 180.0
    spread = np.hypot(2 * mu11, mu20 - mu02)
    long2, short2 = (mu20 + mu02 + spread) / 2, max((mu20 + mu02 - spread) / 2, 1 / 12)
    elongation = float(np.sqrt(long2 / short2))
    sure = float(np.clip((elongation - 1) / 0.5, 0.02, 1)) * (0.4 + 0.6 * region.clear)
    off = min(abs(angle - v) for v in (0, 180))
    word = "horizontal" if off <= 20 else "vertical" if abs(angle - 90) <= 20 else "diagonal"
    if elongation < 1.08:
        word = "no clear axis"
    angle = round(angle, 1) % 180.0
    return [
        Attribute("orientation", word, sure),
        Attribute("angle", angle, sure, "deg"),
        Attribute("elongation", round(elongation, 2), 0.4 + 0.6 * region.clear),
    ]


def shape_of(region: Region) -> list[Attribute]:
    """The name of the nearest of the known outlines, and how far the second nearest is."""
    mask = region.mask_HW
    if np.count_nonzero(mask) < 20:
        return [Attribute("shape", "irregular", 0.05)]
    big = _smooth(mask)
    mark = describe(big.astype(np.uint8))
    if mark is None:
        return [Attribute("shape", "irregular", 0.05)]
    names, table = _known()
    gaps = np.abs(table - mark).sum(axis=1)
    best: dict[str, float] = {}
    for name, gap in zip(names, gaps.tolist(), strict=True):
        best[name] = min(gap, best.get(name, np.inf))
    order = sorted(best, key=lambda n: (best[n], n))
    first, second = best[order[0]], best[order[1]]
    name = order[0] if first < 0.75 else "irregular"
    name = _by_pose(name, big)
    sure = float(np.clip((second - first) / (0.25 * (second + first) + 0.02), 0.1, 1) * np.exp(-first)) * (0.3 + 0.7 * region.clear)
    return [Attribute("shape", name, sure)]


def _smooth(mask_HW: np.ndarray) -> np.ndarray:
    """A larger mask without the corners that whole pixels give a coarse outline."""
    scale = max(1.0, 120 / max(mask_HW.shape))
    big = mask_HW.astype(np.float32)
    if scale > 1:
        big = cv2.resize(big, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return cv2.GaussianBlur(np.pad(big, 4), (5, 5), 0) > 0.5


def _by_pose(name: str, mask_HW: np.ndarray) -> str:
    """A square that stands on its corner is called a diamond; so is a rhombus in any pose."""
    if name != "square":
        return name
    contour = max(cv2.findContours(mask_HW.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=cv2.contourArea)
    angle = cv2.minAreaRect(contour)[2] % 90
    return "diamond" if abs(angle - 45) < 14 else name


def describe(mask_HW: np.ndarray) -> np.ndarray | None:
    """Rotation- and scale-free numbers of the largest outline: radial harmonics, fill of hull and box, elongation, hole."""
    contours, _ = cv2.findContours(mask_HW, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return None
    contour = max(contours, key=cv2.contourArea)
    area = cv2.contourArea(contour)
    if area < 12 or len(contour) < 8:
        return None
    moments = cv2.moments(contour)
    centre = np.array([moments["m10"], moments["m01"]]) / moments["m00"]
    (_, _), (w, h), _ = cv2.minAreaRect(contour)
    hull = cv2.contourArea(cv2.convexHull(contour))
    filled = np.zeros_like(mask_HW)
    cv2.drawContours(filled, [contour], -1, 1, -1)
    hole = 1 - float((mask_HW & filled).sum()) / max(1, filled.sum())
    radial = _radial(contour[:, 0].astype(np.float64) - centre)
    spectrum = np.abs(np.fft.rfft(radial / radial.mean() - 1))[1:_HARMONICS] / len(radial)
    aspect = min(w, h) / max(w, h, 1e-6)
    return np.concatenate([spectrum * 4, [1.5 * area / max(hull, 1), 2.0 * area / max(w * h, 1), aspect, 2.0 * min(hole, 0.3) / 0.3]])


def _radial(points_P2: np.ndarray) -> np.ndarray:
    """Outer radius of the outline in `ANGLES` directions."""
    angle = np.arctan2(points_P2[:, 1], points_P2[:, 0])
    radius = np.hypot(points_P2[:, 0], points_P2[:, 1])
    order = np.argsort(angle, kind="stable")
    grid = np.linspace(-np.pi, np.pi, ANGLES, endpoint=False)
    return np.maximum(np.interp(grid, angle[order], radius[order], period=2 * np.pi), 1e-6)


@cache
def _known() -> tuple[tuple[str, ...], np.ndarray]:
    """Descriptors of drawn outlines: each name in several proportions and poses."""
    names, rows = [], []
    for name, points, hole in _outlines():
        for turn in (0.1, 0.75):
            canvas = np.zeros((200, 200), np.uint8)
            rot = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            xy = points @ rot.T
            xy = (100 + xy / np.abs(xy).max() * 60) * 16
            cv2.fillPoly(canvas, [xy.round().astype(np.int32)], 1, cv2.LINE_8, 4)
            if hole:
                inner = 1600 + (xy - 1600) * hole
                cv2.fillPoly(canvas, [inner.round().astype(np.int32)], 0, cv2.LINE_8, 4)
            names.append(name)
            rows.append(describe(canvas))
            for side in SMALL_SIDES if name not in ROUND_WHEN_SMALL else ():
                mark = describe(_smooth(_as_seen_small(canvas, side)).astype(np.uint8))
                if mark is not None:
                    names.append(name)
                    rows.append(mark)
    return tuple(names), np.stack(rows)


SMALL_SIDES = (13, 17)
"""Lengths in pixels at which outlines are known as blurred ones, too."""
ROUND_WHEN_SMALL = ("hexagon",)
"""At such lengths a blurred circle."""


def _as_seen_small(canvas_HW: np.ndarray, side: int) -> np.ndarray:
    """A drawn outline of 120 px as it is cut out of a video where it measures `side` pixels: blurred, on an enlarged copy."""
    small = cv2.resize(canvas_HW.astype(np.float32), None, fx=side / 120, fy=side / 120, interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(small, (0, 0), 0.9)
    return cv2.resize(blurred, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC) > 0.45


def _outlines():
    def regular(n: int, inner: float = 1.0) -> np.ndarray:
        count = n if inner == 1.0 else 2 * n
        angle = np.arange(count) * 2 * np.pi / count - np.pi / 2
        radius = np.where(np.arange(count) % 2, inner, 1.0)
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)

    def box(aspect: float) -> np.ndarray:
        return np.array([[-1, -aspect], [1, -aspect], [1, aspect], [-1, aspect]], float)

    disc = regular(90)
    yield "circle", disc, 0.0
    for aspect in (0.85, 0.7, 0.55, 0.4):
        yield "ellipse", disc * [1, aspect], 0.0
    for aspect in (1.0, 0.94):
        yield "square", box(aspect), 0.0
    for aspect in (0.8, 0.65, 0.5, 0.35, 0.25):
        yield "rectangle", box(aspect), 0.0
    for aspect in (0.13, 0.07):
        yield "line", box(aspect), 0.0
    for stretch in (1.0, 1.2, 1.5, 0.75, 0.6):
        yield "triangle", regular(3) * [1, stretch], 0.0
    yield "triangle", np.array([[0, 0], [1, 0], [0, 1]]) - 1 / 3, 0.0
    for stretch in (1.0, 0.9, 1.1):
        yield "pentagon", regular(5) * [1, stretch], 0.0
        yield "hexagon", regular(6) * [1, stretch], 0.0
    for inner in (0.36, 0.42, 0.5, 0.58):
        yield "star", regular(5, inner), 0.0
    for inner in (0.45, 0.58):
        yield "star", regular(6, inner), 0.0
    for aspect in (0.75, 0.65, 0.55, 0.45):
        yield "diamond", regular(4) * [aspect, 1], 0.0
    for arm in (0.2, 0.28, 0.36, 0.44):
        a = arm
        yield (
            "cross",
            np.array([[-a, -1], [a, -1], [a, -a], [1, -a], [1, a], [a, a], [a, 1], [-a, 1], [-a, a], [-1, a], [-1, -a], [-a, -a]], float),
            0.0,
        )
    for hole in (0.4, 0.55, 0.7, 0.8):
        yield "ring", disc, hole
