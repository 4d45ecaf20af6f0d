"""Find lines of text: PP-OCR's probability map, at a resolution that suits the image, turned into rotated rectangles.

Small images are enlarged, so that tiny text has enough pixels; large ones are looked at twice: shrunk, for large text, and
in tiles whose maps are stitched into one before any box is made, so that no line is cut at a tile's edge.
Source: Liao et al., Real-time Scene Text Detection with Differentiable Binarization, 2020 (map, threshold, unclip).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import cv2
import numpy as np

from pixelis.tools.engines.ocr_models import DETECTOR, open_session

STRIDE_PX = 32
"""The network's input sides are multiples of this."""
SMALL_AREA_PX = 600_000
"""Images below this area are enlarged towards it, at most by MAX_ENLARGE."""
MAX_ENLARGE = 2.0
SECOND_ENLARGE = 3.0
"""For a small image in which the first look found nothing."""
ONE_PASS_AREA_PX = 1_100_000
"""Above this area an image is shrunk to it for the first look, then tiled."""
TILED_AREA_PX = 12_000_000
"""The tiled look covers at most this area; a larger image is shrunk to it (bounds time and memory)."""
TILE_PX = 960
TILE_MARGIN_PX = 96
"""Neighbouring tiles share this much on each side; the map near a tile's edge is poor and is not used."""
LARGE_TEXT_PX = 13.0
"""A line at least this tall in the shrunk look is well resolved there and is taken from there."""
MAP_THRESHOLD = 0.3
BOX_THRESHOLD = 0.5
UNCLIP_RATIO = 1.4
MIN_SIDE_PX = 3.0
MAX_LINES = 1500
BLIND_SCALE = 0.5
"""Shrunk below this, small text leaves no trace in the map. (At 0.75 text of 6 px still does.)"""
TRACE = 0.15
EDGE_LEVELS = 20
CELL_PX = 16
BUSY_SHARE = 0.15
"""Fine text fills a cell with at least this share of edges of at least EDGE_LEVELS; a tile without such a cell is skipped."""


@dataclass(frozen=True)
class Line:
    """A line of text before it is read."""

    quad: np.ndarray
    """float [4 corners, 2] in pixels of the image: start-top, end-top, end-bottom, start-bottom along the reading direction."""
    score: float
    """Mean of the probability map inside, in [0, 1]."""

    @property
    def length_px(self) -> float:
        return float(np.linalg.norm(self.quad[1] - self.quad[0]))

    @property
    def height_px(self) -> float:
        return float(np.linalg.norm(self.quad[3] - self.quad[0]))


def find_lines(image_HWC: np.ndarray) -> list[Line]:
    """Lines of text in an image of any size, in no particular order.

    Args:
        image_HWC: uint8 RGB [height, width, 3].
    """
    height, width = image_HWC.shape[:2]
    area = height * width
    if area <= ONE_PASS_AREA_PX:
        room = max(1.0, math.sqrt(SMALL_AREA_PX / area))
        lines, _ = _one_look(image_HWC, min(MAX_ENLARGE, room))
        # Another size shows what one size misses (a logo, slanted letters); an empty answer is worth a second, cheap look.
        return lines if lines or room < SECOND_ENLARGE else _one_look(image_HWC, SECOND_ENLARGE)[0]
    coarse_scale = math.sqrt(ONE_PASS_AREA_PX / area)
    coarse, map_HW = _one_look(image_HWC, coarse_scale)
    large = [line for line in coarse if line.height_px * coarse_scale >= LARGE_TEXT_PX]
    fine = _tiled_look(image_HWC, min(1.0, math.sqrt(TILED_AREA_PX / area)), large, None if coarse_scale < BLIND_SCALE else map_HW)
    return large + _not_covered(fine, large, (height, width))


def text_map(image_HWC: np.ndarray) -> np.ndarray:
    """Probability of text at each pixel, float32 [height, width]; the sides must be multiples of STRIDE_PX."""
    # The detector was trained on BGR images, scaled to [-1, 1].
    x_CHW = image_HWC[:, :, ::-1].transpose(2, 0, 1).astype(np.float32) / np.float32(127.5) - np.float32(1)
    return open_session(DETECTOR).run(None, {"x": x_CHW[None]})[0][0, 0]


def _one_look(image_HWC: np.ndarray, scale: float) -> tuple[list[Line], np.ndarray]:
    """The lines at one resolution, and the map that shows them."""
    height, width = image_HWC.shape[:2]
    size = _resized_px(width * scale), _resized_px(height * scale)
    map_HW = text_map(_resize(image_HWC, size)) if max(size) <= 3 * TILE_PX else _stitched_map(_resize(image_HWC, size))
    return _lines_of_map(map_HW, scale_x=size[0] / width, scale_y=size[1] / height, frame=(height, width)), map_HW


def _tiled_look(image_HWC: np.ndarray, scale: float, found: list[Line], coarse_map_HW: np.ndarray | None) -> list[Line]:
    """Lines outside those that were found already.

    Args:
        coarse_map_HW: the map of the first look: tiles where it shows nothing are skipped. None where the first look was too
            coarse to show small text at all; then tiles without fine detail are skipped.
    """
    height, width = image_HWC.shape[:2]
    size = _resized_px(width * scale), _resized_px(height * scale)
    scales = size[0] / width, size[1] / height
    resized = _resize(image_HWC, size)
    busy = _busy_cells(resized) if coarse_map_HW is None else _shown_cells(coarse_map_HW, resized.shape)
    for line in found:
        cv2.fillPoly(busy, [np.round(line.quad * scales / CELL_PX - 0.5).astype(np.int32)], 0)
    return _lines_of_map(_stitched_map(resized, busy), scale_x=scales[0], scale_y=scales[1], frame=(height, width))


def _stitched_map(image_HWC: np.ndarray, busy: np.ndarray | None = None) -> np.ndarray:
    """One map made of overlapping tiles; each tile gives only the part that is far from its inner edges.

    Args:
        busy: uint8 [height / CELL_PX, width / CELL_PX], non-zero where to look; None looks everywhere.
    """
    height, width = image_HWC.shape[:2]
    map_HW = np.zeros((height, width), np.float32)
    for y0, y1 in _cuts(height):
        for x0, x1 in _cuts(width):
            top, left = max(0, y0 - TILE_MARGIN_PX), max(0, x0 - TILE_MARGIN_PX)
            tile = image_HWC[top : y1 + TILE_MARGIN_PX, left : x1 + TILE_MARGIN_PX]
            if busy is None or busy[y0 // CELL_PX : y1 // CELL_PX, x0 // CELL_PX : x1 // CELL_PX].any():
                map_HW[y0:y1, x0:x1] = text_map(tile)[y0 - top : y1 - top, x0 - left : x1 - left]
    return map_HW


def _shown_cells(map_HW: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 [height / CELL_PX, width / CELL_PX] of an image of `shape`: 1 where a map of the same view shows a trace of text."""
    shown = (map_HW > TRACE).astype(np.float32)
    cells = cv2.resize(shown, (shape[1] // CELL_PX, shape[0] // CELL_PX), interpolation=cv2.INTER_AREA)
    return (cells > 0).astype(np.uint8)


def _busy_cells(image_HWC: np.ndarray) -> np.ndarray:
    """uint8 [height / CELL_PX, width / CELL_PX]: 1 where many pixels differ strongly from their right or lower neighbour."""
    grey = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY)
    edges = np.zeros(grey.shape, np.float32)
    edges[:, :-1] = cv2.absdiff(grey[:, 1:], grey[:, :-1]) >= EDGE_LEVELS
    edges[:-1] = np.maximum(edges[:-1], cv2.absdiff(grey[1:], grey[:-1]) >= EDGE_LEVELS)
    cells = cv2.resize(edges, (grey.shape[1] // CELL_PX, grey.shape[0] // CELL_PX), interpolation=cv2.INTER_AREA)
    return (cells >= BUSY_SHARE).astype(np.uint8)


def _cuts(length: int) -> list[tuple[int, int]]:
    """Equal pieces of at most TILE_PX, cut at multiples of the stride (`length` is one)."""
    count = math.ceil(length / TILE_PX)
    edges = [round(length * k / count / STRIDE_PX) * STRIDE_PX for k in range(count + 1)]
    return list(itertools.pairwise(edges))


def _resized_px(side: float) -> int:
    return max(STRIDE_PX, round(side / STRIDE_PX) * STRIDE_PX)


def _resize(image_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrinks = size[0] < image_HWC.shape[1]
    return cv2.resize(image_HWC, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _lines_of_map(map_HW: np.ndarray, *, scale_x: float, scale_y: float, frame: tuple[int, int]) -> list[Line]:
    is_text = cv2.dilate((map_HW > MAP_THRESHOLD).astype(np.uint8), np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(is_text, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    lines = []
    for contour in contours[:MAX_LINES]:
        centre, size, angle = cv2.minAreaRect(contour)
        if min(size) < MIN_SIDE_PX:
            continue
        score = _mean_inside(map_HW, cv2.boxPoints((centre, size, angle)))
        if score < BOX_THRESHOLD:
            continue
        # The map shows a shrunken core of each line. For a rectangle, growing it back by area / perimeter is a plain margin.
        grow = size[0] * size[1] * UNCLIP_RATIO / (2 * (size[0] + size[1]))
        corners = cv2.boxPoints((centre, (size[0] + 2 * grow, size[1] + 2 * grow), angle)) / (scale_x, scale_y)
        lines.append(Line(_in_reading_direction(corners, frame), score))
    return lines


def _mean_inside(map_HW: np.ndarray, corners: np.ndarray) -> float:
    x0, y0 = np.floor(corners.min(axis=0)).astype(int).clip(0)
    x1, y1 = np.ceil(corners.max(axis=0)).astype(int) + 1
    part = map_HW[y0:y1, x0:x1]
    inside = np.zeros(part.shape, np.uint8)
    cv2.fillPoly(inside, [np.round(corners - (x0, y0)).astype(np.int32)], 1)
    return float(cv2.mean(part, inside)[0])


def _in_reading_direction(corners: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
    """Corners from the line's start: left to right, or bottom to top for a line taller than wide by half."""
    corners = corners[np.argsort(np.arctan2(*(corners - corners.mean(axis=0)).T[::-1]), kind="stable")]  # clockwise on screen
    start = int(np.argmin(corners.sum(axis=1)))
    corners = np.roll(corners, -start, axis=0)
    if np.linalg.norm(corners[3] - corners[0]) >= 1.5 * np.linalg.norm(corners[1] - corners[0]):
        corners = np.roll(corners, 1, axis=0)  # as after a quarter turn clockwise of the page
    return corners.clip(0, (frame[1], frame[0])).astype(np.float64)


def _not_covered(lines: list[Line], by: list[Line], frame: tuple[int, int]) -> list[Line]:
    """The lines that lie mostly outside those of `by`."""
    shrink = max(1.0, max(frame) / 4000)
    mask = np.zeros((math.ceil(frame[0] / shrink), math.ceil(frame[1] / shrink)), np.uint8)
    for line in by:
        cv2.fillPoly(mask, [np.round(line.quad / shrink).astype(np.int32)], 1)
    return [line for line in lines if _mean_inside(mask, line.quad / shrink) < 0.4]
