"""Which pixels of a box belong to the thing in it: a background model from the box's surroundings, or the mask that came along."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pixelis.core.errors import ToolError

MAX_SIDE = 200  # longer boxes are measured on a smaller copy
FINE_SIDE = 96  # for outlines, shorter boxes are separated on a larger copy: smoothing by whole pixels would eat arms and corners


@dataclass(frozen=True)
class Region:
    """A thing cut out: `patch_HWC` RGB uint8 around it, `mask_HW` bool, where the patch lies, and how clearly it stands out."""

    patch_HWC: np.ndarray
    mask_HW: np.ndarray
    x0: float
    y0: float
    scale: float
    """Patch pixels per image pixel."""
    clear: float
    """In [0, 1]: how far the foreground lies from the background model; 1 for a given mask."""


def whole_box(box: tuple, height: int, width: int) -> tuple[int, int, int, int]:
    """The clipped box in whole pixels.

    Raises:
        ToolError: not four finite numbers, empty, or outside the image.
    """
    x0, y0, x1, y1 = (float(v) for v in box)
    if not np.isfinite([x0, y0, x1, y1]).all():
        raise ToolError("bad_arguments", "a PROP box needs four finite numbers")
    x0, x1, y0, y1 = max(x0, 0.0), min(x1, width), max(y0, 0.0), min(y1, height)
    if not (x1 > x0 and y1 > y0):
        raise ToolError("out_of_frame", f"the PROP box misses the {width}x{height} image or is empty")
    return int(np.floor(x0)), int(np.floor(y0)), int(np.ceil(x1)), int(np.ceil(y1))


def cut_out(image_HWC: np.ndarray, mask_HW: np.ndarray | None, box: tuple, *, is_fine: bool = False) -> Region:
    """The thing in the box: the mask's part of it, else what differs from the box's border.

    Args:
        is_fine: separate small things on a copy enlarged to `FINE_SIDE`.
    """
    height, width = image_HWC.shape[:2]
    x0, y0, x1, y1 = whole_box(box, height, width)
    if mask_HW is not None and mask_HW[y0:y1, x0:x1].any():
        scale = min(1.0, MAX_SIDE / max(x1 - x0, y1 - y0))
        patch, mask = _resize(image_HWC[y0:y1, x0:x1], scale), _resize(mask_HW[y0:y1, x0:x1].astype(np.uint8) * 255, scale) > 127
        return Region(patch, mask if mask.any() else np.ones(mask.shape, bool), x0, y0, scale, 1.0)
    side = max(x1 - x0, y1 - y0)
    pad = int(np.clip(0.12 * side, 3, 24))
    px0, py0, px1, py1 = max(0, x0 - pad), max(0, y0 - pad), min(width, x1 + pad), min(height, y1 + pad)
    long_side = max(px1 - px0, py1 - py0)
    scale = min(max(1.0, FINE_SIDE / long_side) if is_fine else 1.0, MAX_SIDE / long_side)
    patch = _resize(image_HWC[py0:py1, px0:px1], scale)
    inner = [round(v * scale) for v in (x0 - px0, y0 - py0, x1 - px0, y1 - py0)]
    mask, clear = _foreground(patch, tuple(inner))
    return Region(patch, mask, px0, py0, scale, clear)


def _resize(image: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _foreground(patch_HWC: np.ndarray, inner: tuple[int, int, int, int]) -> tuple[np.ndarray, float]:
    """Mask of the thing inside `inner`, and its clarity; the whole inner box at clarity 0 where nothing stands out."""
    h, w = patch_HWC.shape[:2]
    x0, y0, x1, y1 = inner
    inside = np.zeros((h, w), bool)
    inside[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = True
    if min(h, w) < 5:
        return inside, 0.0
    far, noise = background_distance(patch_HWC, ~inside if (~inside).sum() >= 24 else _frame(h, w))
    limit = _split(far[inside], noise)
    hot = ((far > limit) & inside).astype(np.uint8)
    reach = 3 if min(h, w) < 90 else 5
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    hot = cv2.morphologyEx(cv2.morphologyEx(hot, cv2.MORPH_OPEN, kernel), cv2.MORPH_CLOSE, kernel)
    mask = _main_part(hot)
    if mask is None:
        return inside, 0.0
    gap = float(np.median(far[mask]))
    return mask, float(np.clip((gap / max(noise, 1.0) - 2) / 8, 0.05, 1))


def _frame(h: int, w: int) -> np.ndarray:
    edge = np.ones((h, w), bool)
    t = max(1, min(h, w) // 12)
    edge[t:-t, t:-t] = False
    return edge


def background_distance(patch_HWC: np.ndarray, known_HW: np.ndarray) -> tuple[np.ndarray, float]:
    """Lab distance of each pixel from the background, and the background's own spread.

    The background is a plane per channel (it follows gradients), fitted to the `known_HW` pixels, outliers left out, plus
    the one or two main ways in which known pixels deviate from it (it follows stripes and checks).
    """
    size = 3 if min(patch_HWC.shape[:2]) < 60 else 5
    lab = cv2.cvtColor(cv2.GaussianBlur(patch_HWC, (size, size), 0), cv2.COLOR_RGB2LAB).astype(np.float32)
    lab[..., 0] *= 0.6  # light and shade matter less than colour
    h, w = lab.shape[:2]
    ys, xs = np.mgrid[0:h, 0:w].astype(np.float32)
    design = np.stack([np.ones((h, w), np.float32), xs / w - 0.5, ys / h - 0.5], axis=-1)
    rows = np.flatnonzero(known_HW)
    rows = rows[:: max(1, len(rows) // 2500)]  # a plane needs no more
    a, b = design.reshape(-1, 3)[rows], lab.reshape(-1, 3)[rows]
    keep = np.ones(len(b), bool)
    for _ in range(3):
        fit, *_ = np.linalg.lstsq(a[keep], b[keep], rcond=None)
        rest = np.linalg.norm(b - a @ fit, axis=1)
        keep = rest <= max(2.0, 2.5 * float(np.median(rest)))
        if keep.sum() < 12:
            keep[:] = True
            break
    offset = lab - design @ fit
    far = _length(offset)
    ring = far.ravel()[rows]
    noise = float(1.2 * np.median(ring) + 0.5)
    off = offset.reshape(-1, 3)[rows][ring > max(6.0, 3 * noise)]
    if len(off) > 0.12 * len(ring):  # a second background colour
        other = np.median(off, axis=0)
        far = np.minimum(far, _length(offset - other))
        noise = float(1.2 * np.median(far.ravel()[rows]) + 0.5)
    return far, noise


def _length(offset_HWC: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("hwc,hwc->hw", offset_HWC, offset_HWC))


def _split(far_N: np.ndarray, noise: float) -> float:
    """Otsu's threshold on the distances, kept above the background's spread and below clear foreground."""
    if not far_N.size:
        return noise
    top = max(8.0, float(np.quantile(far_N, 0.98)))
    scaled = np.clip(far_N / top * 255, 0, 255).astype(np.uint8)
    otsu, _ = cv2.threshold(scaled.reshape(-1, 1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return float(max(otsu / 255 * top * 0.9, 2.0 * noise, 3.0))


def _main_part(hot_HW: np.ndarray) -> np.ndarray | None:
    """The largest connected part, with others at least a quarter as large."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(hot_HW)
    if count < 2:
        return None
    areas = stats[1:, cv2.CC_STAT_AREA]
    keep = np.nonzero(areas >= max(9, 0.35 * areas.max()))[0] + 1
    if not len(keep):
        return None
    return np.isin(labels, keep)
