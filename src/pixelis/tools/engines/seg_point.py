"""From a point to candidate objects: regions of one colour around it, at several scales, and how stable each is.

A region is stable when the colour tolerance that grew it can be widened a lot without the region changing: an object with a
crisp outline is, a patch of a gradient is not. Source: Matas et al., maximally stable extremal regions, here on the distance to
the point's colour instead of brightness.
Shapes: H, W image; h, w working grid; T tolerances.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pixelis.tools.engines.channels import added
from pixelis.tools.engines.seg_features import GRID_PX, IntBox

HALF_SIDES_PX = (20, 50, 80, 200, 500, 1250, 3000)  # of the windows around the point
TOLERANCES = np.geomspace(3.0, 80.0, 20)  # Lab units
MIN_REGION_CELLS = 12
SAME_AREA = 1.12  # two regions whose areas differ by less are the same region
COARSER_MUST_BE = 1.15  # a coarser window wins only when its region is this much more stable


@dataclass(frozen=True)
class Region:
    window: IntBox
    mask_hw: np.ndarray
    """bool, at the window's own resolution."""
    stability: float
    """Widest over narrowest colour tolerance that grows this same region; 1 or more."""

    @property
    def box(self) -> IntBox:
        rows, columns = np.flatnonzero(self.mask_hw.any(1)), np.flatnonzero(self.mask_hw.any(0))
        x0, y0 = self.window[:2]
        return x0 + int(columns[0]), y0 + int(rows[0]), x0 + int(columns[-1]) + 1, y0 + int(rows[-1]) + 1


def most_stable_region(image_HWC: np.ndarray, x: int, y: int) -> Region | None:
    """The most stable region around the pixel over all scales, or None when every one runs out of its window."""
    best = None
    height, width = image_HWC.shape[:2]
    for half in HALF_SIDES_PX:
        window = (max(0, x - half), max(0, y - half), min(width, x + half + 1), min(height, y + half + 1))
        region = _in_window(image_HWC, window, x, y)
        if region is not None and (best is None or region.stability > COARSER_MUST_BE * best.stability):
            best = region
        if window == (0, 0, width, height):
            break
    return best


def _in_window(image_HWC: np.ndarray, window: IntBox, x: int, y: int) -> Region | None:
    x0, y0, x1, y1 = window
    crop = image_HWC[y0:y1, x0:x1]
    scale = min(1.0, GRID_PX / max(crop.shape[:2]))
    width, height = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    column, row = min(int((x - x0 + 0.5) * scale), width - 1), min(int((y - y0 + 0.5) * scale), height - 1)
    small = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)
    distance_hw = _colour_distance(small, row, column)
    # A region may end at the image's own border, not at the window's.
    open_sides = (y0 > 0, y1 < image_HWC.shape[0], x0 > 0, x1 < image_HWC.shape[1])
    grown = [_grow(distance_hw, row, column, tolerance) for tolerance in TOLERANCES]
    best, stability = None, 0.0
    for i, mask_hw in enumerate(grown):
        area = int(mask_hw.sum())
        if area < MIN_REGION_CELLS or area > 0.9 * mask_hw.size or _leaves(mask_hw, open_sides):
            continue
        last = i
        while last + 1 < len(grown) and grown[last + 1].sum() <= SAME_AREA * area:
            last += 1
        ratio = float(TOLERANCES[last] / TOLERANCES[i])
        if ratio > stability:
            best, stability = (i + last) // 2, ratio
    if best is None:
        return None
    mask_hw = _without_holes(grown[best])
    if scale < 1:
        mask_hw = cv2.resize(mask_hw.astype(np.float32), (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR) > 0.5
    return Region(window, mask_hw, stability) if mask_hw.any() else None


def _colour_distance(small: np.ndarray, row: int, column: int) -> np.ndarray:
    """Lab distance of every cell to the colour around the point: the median of the 5 x 5 cells there, so that noise matters little."""
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    near = lab[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3].reshape(-1, 3)
    distance_hw = np.sqrt(added((lab - np.median(near, axis=0)) ** 2))
    if min(small.shape[:2]) > 3:
        distance_hw = cv2.medianBlur(distance_hw.astype(np.float32), 3)  # takes single noisy cells out and leaves edges where they are
    return distance_hw


def _grow(distance_hw: np.ndarray, row: int, column: int, tolerance: float) -> np.ndarray:
    labels = cv2.connectedComponents((distance_hw <= tolerance).astype(np.uint8), connectivity=4)[1]
    return labels == labels[row, column] if labels[row, column] else np.zeros(labels.shape, bool)


def _leaves(mask_hw: np.ndarray, open_sides: tuple[bool, bool, bool, bool]) -> bool:
    edges = (mask_hw[0], mask_hw[-1], mask_hw[:, 0], mask_hw[:, -1])
    return any(is_open and edge.any() for is_open, edge in zip(open_sides, edges, strict=True))


def _without_holes(mask_hw: np.ndarray) -> np.ndarray:
    """The mask with holes below a tenth of its area filled: print on a shape belongs to it, the middle of a ring does not."""
    num, labels, stats, _ = cv2.connectedComponentsWithStats((~mask_hw).astype(np.uint8), connectivity=4)
    limit = 0.1 * mask_hw.sum()
    filled = mask_hw.copy()
    height, width = mask_hw.shape
    for i in range(1, num):
        x, y, w, h, area = stats[i]
        if area <= limit and x > 0 and y > 0 and x + w < width and y + h < height:
            filled |= labels == i
    return filled
