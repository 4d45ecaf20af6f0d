"""The planner's own eyes: coarse. Patches of one colour that stand out, with a guess at their shape.

Where to point a tool comes from here; what a thing is, how large and where exactly comes from the tools.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from pixelis.core.geometry import Box
from pixelis.tools.engines.prop_colour import COLOUR_NAMES, name_pixels
from pixelis.tools.engines.prop_shape import shape_of
from pixelis.tools.engines.region import Region

MAX_SIDE_PX = 1280
MIN_AREA_PX = 40
MAX_AREA_SHARE = 0.5
MIN_CONTRAST, KEEN_CONTRAST = 14.0, 7.0  # CIELAB
MAX_ROUGHNESS = 16.0
MIN_RATIO, KEEN_RATIO = 2.2, 1.3  # contrast to roughness
MAX_BLOBS = 40


@dataclass(frozen=True)
class Blob:
    """A patch that stands out: its box in pixels of the frame, colour name, shape guess, area in pixels and contrast."""

    box: Box
    colour: str
    shape: str
    shape_confidence: float
    area_px: float
    contrast: float
    fill: float
    """Share of the box that the patch covers, its holes filled."""

    @property
    def is_panel(self) -> bool:
        """A filled upright rectangle, as signs and cards are."""
        return (self.fill > 0.86 and self.box.width > 1.25 * self.box.height) or (self.fill > 0.9 and self.area_px > 5000)


def look(image_HWC: np.ndarray, *, is_keen: bool = False) -> list[Blob]:
    """Patches of one colour that stand out from what surrounds them, largest first; keen eyes also take faint ones."""
    height, width = image_HWC.shape[:2]
    scale = min(1.0, MAX_SIDE_PX / max(height, width))
    small = cv2.resize(image_HWC, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image_HWC
    calm = cv2.medianBlur(np.ascontiguousarray(small), 3)
    names_HW = name_pixels(calm)
    lab_HWC = cv2.cvtColor(calm.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    apart_HW = _apart(lab_HWC, KEEN_CONTRAST if is_keen else MIN_CONTRAST)
    blobs: list[Blob] = []
    for index, colour in enumerate(COLOUR_NAMES):
        named_HW = names_HW == index
        # A thing that shares its colour's name with the ground grows together with it; apart from the ground it stands alone.
        for mask_HW in (named_HW, named_HW & apart_HW):
            count, labels_HW, stats, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8), connectivity=4)
            order = sorted(range(1, count), key=lambda i: -stats[i, cv2.CC_STAT_AREA])[:MAX_BLOBS]
            for label in order:
                blob = _blob(calm, lab_HWC, labels_HW, label, stats[label], colour, scale, is_keen)
                if blob is not None:
                    blobs.append(blob)
    return _without_parts(sorted(blobs, key=lambda b: (-b.area_px, b.box.as_tuple())))


def _apart(lab_HWC: np.ndarray, least: float) -> np.ndarray:
    """Where a picture differs from its own ground: the median of a wide neighbourhood, taken on a small copy."""
    height, width = lab_HWC.shape[:2]
    small = cv2.resize(lab_HWC, (max(1, width // 8), max(1, height // 8)), interpolation=cv2.INTER_AREA)
    reach = min(255, max(3, int(0.45 * min(small.shape[:2])) | 1))
    coded = np.clip(small + np.array([0, 128, 128], np.float32), 0, 255).astype(np.uint8)
    ground = cv2.medianBlur(coded, reach).astype(np.float32) - np.array([0, 128, 128], np.float32)
    wide = cv2.resize(ground, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.linalg.norm(lab_HWC - wide, axis=2) > least


def _blob(image_HWC, lab_HWC, labels_HW, label: int, stat: np.ndarray, colour: str, scale: float, is_keen: bool) -> Blob | None:
    x, y, w, h, area = (int(v) for v in stat)
    height, width = labels_HW.shape
    if area < MIN_AREA_PX * scale * scale or area > MAX_AREA_SHARE * height * width or min(w, h) < 5:
        return None
    pad = 4
    x0, y0, x1, y1 = max(0, x - pad), max(0, y - pad), min(width, x + w + pad), min(height, y + h + pad)
    part_HW = (labels_HW[y0:y1, x0:x1] == label).astype(np.uint8)
    filled_HW = _filled(part_HW)
    fill = float(filled_HW.sum()) / (w * h)
    if fill < 0.28:
        return None
    ring_HW = (cv2.dilate(filled_HW, np.ones((7, 7), np.uint8)) > 0) & (cv2.dilate(filled_HW, np.ones((3, 3), np.uint8)) == 0)
    core_HW = cv2.erode(part_HW, np.ones((3, 3), np.uint8)) > 0
    if not ring_HW.any() or core_HW.sum() < 12:
        return None
    lab = lab_HWC[y0:y1, x0:x1]
    inside = lab[core_HW]
    middle = np.median(inside, axis=0)
    roughness = float(np.mean(np.linalg.norm(inside - middle, axis=1)))
    gap_N = np.linalg.norm(lab[ring_HW] - middle, axis=1)
    contrast = float(np.quantile(gap_N, 0.15))
    least, ratio = (KEEN_CONTRAST, KEEN_RATIO) if is_keen else (MIN_CONTRAST, MIN_RATIO)
    if contrast < least or roughness > MAX_ROUGHNESS or contrast < ratio * roughness:
        return None
    region = Region(image_HWC[y0:y1, x0:x1], part_HW > 0, x0, y0, 1.0, 1.0)
    guess = shape_of(region)[0]
    box = Box(x / scale, y / scale, (x + w) / scale, (y + h) / scale)
    return Blob(box, colour, str(guess.value), guess.confidence, area / scale**2, contrast, fill)


def patch_of(image_HWC: np.ndarray, colour: str) -> Box | None:
    """The largest patch of a colour, however it stands out; None where there is less of it than a hundredth of the picture."""
    scale = min(1.0, 320 / max(image_HWC.shape[:2]))
    small = cv2.resize(image_HWC, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image_HWC
    mask_HW = (name_pixels(np.ascontiguousarray(small)) == COLOUR_NAMES.index(colour)).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(cv2.morphologyEx(mask_HW, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)))
    best = max(range(1, count), key=lambda i: int(stats[i, cv2.CC_STAT_AREA]), default=0)
    if not best or stats[best, cv2.CC_STAT_AREA] < 0.01 * mask_HW.size:
        return None
    x, y, w, h = (float(v) / scale for v in stats[best, :4])
    return Box(x, y, x + w, y + h)


def _filled(mask_HW: np.ndarray) -> np.ndarray:
    contours, _ = cv2.findContours(mask_HW, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    out = np.zeros_like(mask_HW)
    cv2.drawContours(out, contours, -1, 1, -1)
    return out


def _without_parts(blobs: list[Blob]) -> list[Blob]:
    """Drop a rim: a patch whose box nearly equals a larger one's. What lies inside another (a spot, a letter) stays."""
    kept: list[Blob] = []
    for blob in blobs:
        if all(blob.box.iou(other.box) < 0.6 for other in kept):
            kept.append(blob)
    return kept[: 3 * MAX_BLOBS]


def colour_around(image_HWC: np.ndarray, box: Box) -> str:
    """The commonest colour name of a strip around a box: of the sign on which a text stands."""
    height, width = image_HWC.shape[:2]
    outer = box.grow(max(2.0, 0.25 * box.height)).pixels(width=width, height=height)
    x0, y0, x1, y1 = outer
    if x1 <= x0 or y1 <= y0:
        return ""
    names_HW = name_pixels(cv2.medianBlur(np.ascontiguousarray(image_HWC[y0:y1, x0:x1]), 3))
    keep_HW = np.ones(names_HW.shape, bool)
    ix0, iy0, ix1, iy1 = box.pixels(width=width, height=height)
    keep_HW[iy0 - y0 : iy1 - y0, ix0 - x0 : ix1 - x0] = False
    counts = np.bincount(names_HW[keep_HW] if keep_HW.any() else names_HW.ravel(), minlength=len(COLOUR_NAMES))
    return COLOUR_NAMES[int(counts.argmax())]


@dataclass(frozen=True)
class Mover:
    """Something that moves: its box on the first frame on which it was seen to move."""

    frame: int
    box: Box
    colour: str
    travel_px: float


def first_mover(frames: Iterable[tuple[int, np.ndarray]]) -> Mover | None:
    """The moving patch that is seen first among the clear ones, from (index, frame) pairs; where it is on the earlier frame."""
    before: tuple[int, np.ndarray] | None = None
    seen: list[Mover] = []
    for index, frame in frames:
        if before is not None:
            found = _changed(before[0], before[1], frame)
            if found is not None:
                seen.append(found)
        before = (index, frame)
    best = max((m.travel_px for m in seen), default=0.0)
    return next((m for m in seen if m.travel_px > 0.6 * best), None)


def _changed(index: int, one_HWC: np.ndarray, two_HWC: np.ndarray) -> Mover | None:
    """The place of the first frame whose content has left: it differs from the second frame and stands out from its own ring."""
    one, two = (cv2.GaussianBlur(f, (5, 5), 0).astype(np.int16) for f in (one_HWC, two_HWC))
    gap_HW = np.abs(one - two).max(axis=2)
    noise = float(np.median(gap_HW))
    hot_HW = (gap_HW > max(18.0, 6 * noise)).astype(np.uint8)
    if hot_HW.mean() > 0.4:  # a cut or a moving camera tells nothing about a mover
        return None
    hot_HW = cv2.morphologyEx(hot_HW, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(hot_HW)
    found: list[tuple[float, Box]] = []
    for label in range(1, count):
        x, y, w, h, area = (int(v) for v in stats[label])
        if area >= 60 and min(w, h) >= 6:
            found.append((float(area), Box(x, y, x + w, y + h)))
    if not found:
        return None
    area, box = max(found, key=lambda f: (f[0], f[1].as_tuple()))
    x0, y0, x1, y1 = box.pixels(width=one.shape[1], height=one.shape[0])
    names = name_pixels(np.ascontiguousarray(one_HWC[y0:y1, x0:x1]))
    return Mover(index, box, COLOUR_NAMES[int(np.bincount(names.ravel(), minlength=12).argmax())], area)
