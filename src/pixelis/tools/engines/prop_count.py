"""How many similar things a region holds: foreground over a background model, touching ones split, like ones kept."""

from __future__ import annotations

import cv2
import numpy as np

from pixelis.tools.engines.prop_colour import Attribute
from pixelis.tools.engines.prop_region import background_distance, cut_out, whole_box

MAX_SIDE = 480


def count_things(image_HWC: np.ndarray, box: tuple, like: tuple | None = None) -> list[Attribute]:
    """Number of separate things in the box; with `like`, of those that resemble the thing in that box in colour and size."""
    height, width = image_HWC.shape[:2]
    x0, y0, x1, y1 = whole_box(box, height, width)
    scale = min(1.0, MAX_SIDE / max(x1 - x0, y1 - y0))
    patch = image_HWC[y0:y1, x0:x1]
    patch = cv2.resize(patch, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else patch
    if min(patch.shape[:2]) < 6:
        return [Attribute("count", 0, 0.05)]
    hot = _foreground(patch)
    parts = _split(hot)
    marks = [(int(part.sum()), _look(patch, part)) for part in parts]
    if not marks:
        return [Attribute("count", 0, 0.5)]
    if like is not None:
        region = cut_out(image_HWC, None, like)
        look = _look(region.patch_HWC, region.mask_HW)
        area = region.mask_HW.sum() / region.scale**2 * scale**2
        same = [a for a, other in marks if np.linalg.norm(other - look) < 28 and 0.4 < a / area < 2.5]
        sizes = np.array(same, float)
    else:
        sizes = np.array([a for a, _ in marks], float)
        sizes = sizes[sizes >= 0.15 * np.median(sizes)]
    spread = float(np.std(np.log(sizes))) if len(sizes) > 1 else 0.0
    return [Attribute("count", len(sizes), float(np.clip(0.95 - 0.03 * len(sizes) - 0.3 * spread, 0.1, 0.95)))]


def _foreground(patch_HWC: np.ndarray) -> np.ndarray:
    """uint8 mask of what differs from the background, which is what most of the region's pixels agree on."""
    h, w = patch_HWC.shape[:2]
    known = np.ones((h, w), bool)
    for _ in range(3):
        far, noise = background_distance(patch_HWC, known)
        limit = max(3.0 * noise, 7.0)
        known = far <= limit
        if known.sum() < 0.15 * h * w:
            known[:] = True
            break
    scaled = np.clip(far, 0, 255).astype(np.uint8)
    otsu, _ = cv2.threshold(scaled, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    hot = (far > max(limit, min(0.5 * otsu, 4 * noise))).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    hot = cv2.morphologyEx(cv2.morphologyEx(hot, cv2.MORPH_OPEN, kernel), cv2.MORPH_CLOSE, kernel)
    contours, _ = cv2.findContours(hot, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(hot, [c for c in contours if cv2.contourArea(c) < 0.3 * h * w], -1, 1, -1)
    return hot


def _split(hot_HW: np.ndarray) -> list[np.ndarray]:
    """Connected parts, cut where they only touch: one seed per separate plateau of the distance to the outside."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(hot_HW)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if not len(areas):
        return []
    floor = max(12, 0.12 * float(np.median(areas[areas >= 12])) if (areas >= 12).any() else 12)
    out = []
    for i in range(1, count):
        x, y, w, h, area = (int(v) for v in stats[i])
        if area < floor:
            continue
        part = np.pad(labels[y : y + h, x : x + w] == i, 2)
        for piece in _pieces(part):
            whole = np.zeros(hot_HW.shape, bool)
            whole[y : y + h, x : x + w] = piece[2:-2, 2:-2]
            out.append(whole)
    return out


def _pieces(part_HW: np.ndarray) -> list[np.ndarray]:
    solid = part_HW.astype(np.uint8)
    contour = max(cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=cv2.contourArea)
    hull = cv2.contourArea(cv2.convexHull(contour))
    if hull <= 0 or part_HW.sum() / hull > 0.93:
        return [part_HW]
    depth = cv2.GaussianBlur(cv2.distanceTransform(solid, cv2.DIST_L2, 5), (5, 5), 0)
    seeds = _seeds(depth)
    if len(seeds) < 2:
        return [part_HW]
    markers = np.zeros(part_HW.shape, np.int32)
    for row, seed in enumerate(seeds, 1):
        markers[seed] = row
    markers[cv2.dilate(solid, np.ones((3, 3), np.uint8)) == 0] = len(seeds) + 1
    relief = cv2.cvtColor((255 - np.clip(depth / depth.max() * 255, 0, 255)).astype(np.uint8), cv2.COLOR_GRAY2BGR)
    cv2.watershed(relief, markers)
    return [(markers == row) & part_HW for row in range(1, len(seeds) + 1)]


def _seeds(depth_HW: np.ndarray) -> list[np.ndarray]:
    """Peaks of the distance map that stand at least a fifth above the saddle to a higher one."""
    top = float(depth_HW.max())
    found: list[np.ndarray] = []
    for level in np.linspace(0.92, 0.35, 12) * top:
        count, labels = cv2.connectedComponents((depth_HW >= level).astype(np.uint8))
        for i in range(1, count):
            inside = labels == i
            if not any((seed & inside).any() for seed in found) and depth_HW[inside].max() >= 0.45 * top:
                found.append(inside & (depth_HW >= depth_HW[inside].max() * 0.97))
        merged = [s for s in found]
        found = _apart(merged, depth_HW)
    return found


def _apart(seeds: list[np.ndarray], depth_HW: np.ndarray) -> list[np.ndarray]:
    """Drop the lower of two seeds that a high saddle joins."""
    kept: list[np.ndarray] = []
    for seed in sorted(seeds, key=lambda s: -float(depth_HW[s].max())):
        peak = float(depth_HW[seed].max())
        _, labels = cv2.connectedComponents((depth_HW >= 0.85 * peak).astype(np.uint8))
        mine = labels[seed][0]
        if not any((labels[other] == mine).any() for other in kept):
            kept.append(seed)
    return kept


def _look(patch_HWC: np.ndarray, mask_HW: np.ndarray) -> np.ndarray:
    core = cv2.erode(np.pad(mask_HW, 1).astype(np.uint8), np.ones((3, 3), np.uint8))[1:-1, 1:-1] > 0
    pixels = patch_HWC[core if core.any() else mask_HW].reshape(-1, 1, 3)
    return np.median(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float32), axis=0) * [0.6, 1, 1]
