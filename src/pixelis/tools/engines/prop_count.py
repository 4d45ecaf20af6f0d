"""How many similar things a region holds: foreground over a background model, touching ones split, like ones kept."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pixelis.tools.engines.prop_colour import Attribute
from pixelis.tools.engines.region import background_distance, cut_out, lab_of, resized, whole_box

MAX_SIDE = 360
RIM = 0.03
"""Of a surface's shorter side: what is left out along its edge, where its outline may run beside it."""


def count_things(image_HWC: np.ndarray, box: tuple, like: tuple | None = None, mask_HW: np.ndarray | None = None) -> list[Attribute]:
    """Number of separate things in the box; with `like`, of those that resemble the thing in that box in colour and size.

    Args:
        mask_HW: bool [height, width]; where it is one solid surface, what lies on it is counted, and nothing beside it.
    """
    height, width = image_HWC.shape[:2]
    x0, y0, x1, y1 = whole_box(box, height, width)
    scale = min(1.0, MAX_SIDE / max(x1 - x0, y1 - y0))
    patch = resized(image_HWC[y0:y1, x0:x1], scale)
    if min(patch.shape[:2]) < 6:
        return [Attribute("count", 0, 0.05)]
    example = None
    if like is not None:
        lx0, ly0, lx1, ly1 = whole_box(like, height, width)
        example = tuple(round((v - o) * scale) for v, o in ((lx0, x0), (ly0, y0), (lx1, x0), (ly1, y0)))
    parts, doubt = _parts(patch, example, None if mask_HW is None else _surface(mask_HW[y0:y1, x0:x1], patch.shape[:2]))
    if like is not None:
        region = cut_out(image_HWC, None, like)
        look = _look(region.patch_HWC, region.mask_HW)
        area = region.mask_HW.sum() / region.scale**2 * scale**2
        parts = [p for p in parts if np.linalg.norm(_look(patch[p.window], p.mask_HW) - look) < 28 and 0.4 < p.area / area < 2.5]
    sizes = np.array([p.area for p in parts], float)
    if like is None and len(sizes):
        sizes = sizes[sizes >= 0.15 * np.median(sizes)]
    if not len(sizes):
        return [Attribute("count", 0, 0.6 * (1 - doubt))]
    spread = float(np.std(np.log(sizes)))
    sure = float(np.clip(0.98 - 0.015 * len(sizes) - 0.3 * spread, 0.1, 0.97)) * (1 - 0.7 * doubt)
    return [Attribute("count", len(sizes), sure)]


@dataclass(frozen=True)
class _Part:
    """One thing: where it lies in the patch, and its mask there."""

    x0: int
    y0: int
    mask_HW: np.ndarray

    @property
    def window(self) -> tuple[slice, slice]:
        h, w = self.mask_HW.shape
        return slice(self.y0, self.y0 + h), slice(self.x0, self.x0 + w)

    @property
    def area(self) -> int:
        return int(self.mask_HW.sum())


def _surface(mask_HW: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    """The inside of a mask that is one surface, bool of that size; None where it is not solid, or only a part of the box."""
    height, width = size
    mask = cv2.resize(
        mask_HW.astype(np.uint8), (width, height), interpolation=cv2.INTER_AREA if mask_HW.shape[0] > height else cv2.INTER_NEAREST
    )
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return None
    outline = max(contours, key=cv2.contourArea)
    hull = cv2.convexHull(outline)
    if cv2.contourArea(outline) < 0.85 * cv2.contourArea(hull) or cv2.contourArea(hull) < 0.5 * height * width:
        return None
    inside = cv2.fillConvexPoly(np.zeros(size, np.uint8), hull, 1)
    rim = max(2, round(RIM * min(size)))
    return cv2.erode(np.pad(inside, rim), np.ones((2 * rim + 1, 2 * rim + 1), np.uint8))[rim:-rim, rim:-rim] > 0


def _parts(patch_HWC: np.ndarray, example: tuple[int, int, int, int] | None, inside_HW: np.ndarray | None) -> tuple[list[_Part], float]:
    """Things in the patch, and in [0, 1] how near the background's own texture comes to looking like things."""
    inside = np.ones(patch_HWC.shape[:2], bool) if inside_HW is None else inside_HW
    known = inside.copy()
    lab_CHW = lab_of(patch_HWC)
    for _ in range(2):
        far, noise = background_distance(lab_CHW, known)
        known = inside & (far <= max(3.0 * noise, 7.0))
        if np.count_nonzero(known) < 0.15 * np.count_nonzero(inside):
            known = inside.copy()
            break
    limit = max(3.0 * noise, 7.0)
    far[~inside] = 0.0
    hot = _clean(far > limit)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(hot)
    if count < 2:
        return [], 0.0
    areas = stats[1:, cv2.CC_STAT_AREA].astype(float)
    means = np.bincount(labels.ravel(), weights=far.ravel(), minlength=count)[1:] / areas
    # What most of the strong foreground measures, or the example: texture that crossed the limit stays well below it.
    usual = _weighted_median(means, areas * means**2)
    if example is not None:
        near = far[max(0, example[1]) : max(0, example[3]), max(0, example[0]) : max(0, example[2])]
        near = near[near > limit]
        usual = float(np.median(near)) if near.size >= 12 else limit
    if 0.4 * usual > limit:
        limit = 0.4 * usual
        hot = _clean(far > limit)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(hot)
        areas = stats[1:, cv2.CC_STAT_AREA].astype(float)
        means = np.bincount(labels.ravel(), weights=far.ravel(), minlength=count)[1:] / np.maximum(areas, 1)
    floor = max(12.0, 0.12 * _weighted_median(areas, areas)) if len(areas) else 12.0
    out: list[_Part] = []
    for i in range(1, count):
        if areas[i - 1] < floor or (means[i - 1] < 0.6 * usual and means[i - 1] < 8 * noise):
            continue
        x, y, bw, bh = (int(v) for v in stats[i, :4])
        part = np.pad(labels[y : y + bh, x : x + bw] == i, 2)
        out += [_Part(x, y, piece[2:-2, 2:-2]) for piece in _pieces(part) if piece[2:-2, 2:-2].sum() >= floor]
    return out, float(np.clip(noise * 3 / max(usual, 1.0) - 0.3, 0, 1))


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][min(len(values) - 1, int(np.searchsorted(total, total[-1] / 2)))])


def _clean(hot_HW: np.ndarray) -> np.ndarray:
    """Specks removed, small holes filled; uint8."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    hot = cv2.morphologyEx(cv2.morphologyEx(hot_HW.astype(np.uint8), cv2.MORPH_OPEN, kernel), cv2.MORPH_CLOSE, kernel)
    contours, _ = cv2.findContours(hot, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(hot, [c for c in contours if cv2.contourArea(c) < 0.3 * hot.size], -1, 1, -1)
    return hot


def _pieces(part_HW: np.ndarray) -> list[np.ndarray]:
    solid = part_HW.astype(np.uint8)
    contour = max(cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=cv2.contourArea)
    hull = cv2.contourArea(cv2.convexHull(contour))
    if hull <= 0 or part_HW.sum() / hull > 0.955:
        return [part_HW]
    depth = cv2.GaussianBlur(cv2.distanceTransform(solid, cv2.DIST_L2, 5), (5, 5), 0)
    seeds = _seeds(depth)
    if len(seeds) < 2:
        return [part_HW]
    # Each pixel goes to the seed whose largest inner circle it is nearest to.
    ys, xs = np.nonzero(part_HW)
    reach = []
    for seed in seeds:
        sy, sx = (v.mean() for v in np.nonzero(seed))
        reach.append(np.hypot(ys - sy, xs - sx) - float(depth[seed].max()))
    owner = np.argmin(reach, axis=0)
    out = []
    for row in range(len(seeds)):
        piece = np.zeros(part_HW.shape, bool)
        piece[ys[owner == row], xs[owner == row]] = True
        out.append(piece)
    return out


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
        found = _apart(found, depth_HW)
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
