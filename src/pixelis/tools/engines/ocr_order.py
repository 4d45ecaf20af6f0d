"""Reading order of boxes: rows from top to bottom, inside a row from left to right, also on a tilted page."""

from __future__ import annotations

import math

import numpy as np

from pixelis.tools.engines.ocr_detect import Line


def reading_order(lines: list[Line]) -> list[int]:
    """Indices of the lines in reading order.

    The page's tilt is the median direction of its long lines. After turning it away, a line belongs to a row when its
    centre lies within half a line height of the centre of the row's nearest member.
    """
    if not lines:
        return []
    tilt = _tilt(lines)
    turn = np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])
    centres = np.array([turn @ line.quad.mean(axis=0) for line in lines])
    heights = np.array([min(line.height_px, line.length_px) for line in lines])
    rows: list[list[int]] = []
    for k in sorted(range(len(lines)), key=lambda k: (centres[k, 1], centres[k, 0])):
        row = next((row for row in reversed(rows[-4:]) if _belongs(k, row, centres, heights)), None)
        if row is None:
            rows.append([k])
        else:
            row.append(k)
    rows.sort(key=lambda row: float(np.mean(centres[row, 1])))
    return [k for row in rows for k in sorted(row, key=lambda k: (centres[k, 0], centres[k, 1]))]


def _tilt(lines: list[Line]) -> float:
    angles, lengths = [], []
    for line in lines:
        dx, dy = line.quad[1] - line.quad[0]
        if line.length_px > 2 * line.height_px and abs(dy) < abs(dx):  # upright lines say nothing about the page
            angles.append(math.atan2(dy, dx))
            lengths.append(line.length_px)
    if not angles:
        return 0.0
    order = np.argsort(angles, kind="stable")
    reach = np.cumsum(np.array(lengths)[order])
    return float(np.array(angles)[order][np.searchsorted(reach, reach[-1] / 2)])


def _belongs(k: int, row: list[int], centres: np.ndarray, heights: np.ndarray) -> bool:
    nearest = min(row, key=lambda other: abs(centres[other, 0] - centres[k, 0]))
    return abs(centres[nearest, 1] - centres[k, 1]) < 0.5 * min(heights[nearest], heights[k])
