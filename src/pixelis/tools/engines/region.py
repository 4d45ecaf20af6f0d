"""Which pixels of a box belong to the thing in it, for PROP and for SEG's small things.

A background model from the box's surroundings tells them apart, or the mask that came along. Drawn things from coarse boxes:
`benchmarks/parts/coarse.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pixelis.core.errors import ToolError
from pixelis.tools.engines.ranks import median

MAX_SIDE = 200  # longer boxes are measured on a smaller copy
GROW, MAX_GROWTHS = 0.35, 3  # how far a side that cuts the thing moves out in one go, in the box's side, and how often
SMALL_SIDE, HARDLY_A_DOUBT, LEAST_SPAN, LEAST_INSIDE = 120, 0.5, 0.3, 0.65  # px; `Region.clear`; of the box's sides; of the thing
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

    def mask_in(self, height: int, width: int) -> np.ndarray:
        """The mask in the image, bool [height, width]."""
        rows, columns = (max(1, round(side / self.scale)) for side in self.mask_HW.shape)
        fine = cv2.resize(self.mask_HW.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA) > 0.5
        whole = np.zeros((height, width), bool)
        x, y = round(self.x0), round(self.y0)
        part = whole[y : y + rows, x : x + columns]
        part[:] = fine[: part.shape[0], : part.shape[1]]
        return whole

    @property
    def area(self) -> float:
        """Of the mask, in image pixels."""
        return float(np.count_nonzero(self.mask_HW) / self.scale**2)


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

    A box that cuts its thing on one side or two is widened until the thing lies free; where that never happens, the box counts as it is.

    Args:
        is_fine: separate small things on a copy enlarged to `FINE_SIDE`.
    """
    height, width = image_HWC.shape[:2]
    x0, y0, x1, y1 = whole_box(box, height, width)
    if mask_HW is not None and mask_HW[y0:y1, x0:x1].any():
        scale = min(1.0, MAX_SIDE / max(x1 - x0, y1 - y0))
        patch, mask = resized(image_HWC[y0:y1, x0:x1], scale), resized(mask_HW[y0:y1, x0:x1].astype(np.uint8) * 255, scale) > 127
        return Region(patch, mask if mask.any() else np.ones(mask.shape, bool), x0, y0, scale, 1.0)
    first, free = _looks(image_HWC, (x0, y0, x1, y1), is_fine)
    return free or first


def standing_out(image_HWC: np.ndarray, box: tuple[int, int, int, int]) -> Region | None:
    """The small thing in a box of whole pixels, where there is hardly a doubt: it stands out, and lies free; else None.

    In large boxes, and where it spans little of the box or lies beside it for a good part, what stands out is more often a part of the
    thing that was meant, or another.
    """
    if max(box[2] - box[0], box[3] - box[1]) > SMALL_SIDE:
        return None
    _, free = _looks(image_HWC, box, True)
    if free is None or free.clear < HARDLY_A_DOUBT or _share_inside(free, box) < LEAST_INSIDE:
        return None
    rows, columns = (np.flatnonzero(free.mask_HW.any(axis)) for axis in (1, 0))
    spans = (np.ptp(columns) + 1) / (box[2] - box[0]), (np.ptp(rows) + 1) / (box[3] - box[1])
    return free if min(spans) / free.scale >= LEAST_SPAN else None


def _looks(image_HWC: np.ndarray, asked: tuple[int, int, int, int], is_fine: bool) -> tuple[Region, Region | None]:
    """What the box shows of the thing in it, and all of the thing where a wider box shows it free of all sides."""
    first, cuts = _in_box(image_HWC, asked, asked, is_fine)
    if sum(cuts) > 2:  # a tight box, which cuts nothing
        return first, None
    is_cut = any(cuts)
    # A thing that reaches far beyond one side is a second background there, and only its rim stands out: so a wider look in any case.
    box, sides = asked, cuts if is_cut else (True,) * 4
    for _ in range(MAX_GROWTHS):
        box = _grown(box, sides, image_HWC)
        region, sides = _in_box(image_HWC, box, asked, is_fine)
        if not any(sides):
            if is_cut or (region.area > 1.5 * first.area and _share_inside(region, asked) > 0.5):
                return first, region
            break
    return first, None if is_cut else first


def _grown(box: tuple[int, ...], sides: tuple[bool, ...], image_HWC: np.ndarray) -> tuple[int, int, int, int]:
    """A box in whole pixels with some sides moved out, inside the frame."""
    height, width = image_HWC.shape[:2]
    dx, dy = (max(2, round(GROW * (box[i + 2] - box[i]))) for i in (0, 1))
    x0, y0, x1, y1 = (v + side * step for v, side, step in zip(box, sides, (-dx, -dy, dx, dy), strict=True))
    return max(0, x0), max(0, y0), min(width, x1), min(height, y1)


def _share_inside(region: Region, box: tuple[int, int, int, int]) -> float:
    """Share of a region's pixels in a box of the image."""
    ys, xs = np.nonzero(region.mask_HW)
    xs, ys = region.x0 + (xs + 0.5) / region.scale, region.y0 + (ys + 0.5) / region.scale
    return float(((xs >= box[0]) & (xs <= box[2]) & (ys >= box[1]) & (ys <= box[3])).mean())


def _in_box(
    image_HWC: np.ndarray, box: tuple[int, int, int, int], asked: tuple[int, int, int, int], is_fine: bool
) -> tuple[Region, tuple[bool, ...]]:
    """What of a box of whole pixels belongs to the thing in `asked`, and which sides of the box (left, top, right, bottom) cut it."""
    height, width = image_HWC.shape[:2]
    x0, y0, x1, y1 = box
    side = max(x1 - x0, y1 - y0)
    pad = int(min(max(0.12 * side, 3), 24))
    px0, py0, px1, py1 = max(0, x0 - pad), max(0, y0 - pad), min(width, x1 + pad), min(height, y1 + pad)
    long_side = max(px1 - px0, py1 - py0)
    scale = min(max(1.0, FINE_SIDE / long_side) if is_fine else 1.0, MAX_SIDE / long_side)
    patch = resized(image_HWC[py0:py1, px0:px1], scale)
    inner, core = (tuple(round(v * scale) for v in (a - px0, b - py0, c - px0, d - py0)) for a, b, c, d in ((x0, y0, x1, y1), asked))
    mask, clear = _foreground(patch, inner, core)
    return Region(patch, mask, px0, py0, scale, clear), _cuts(mask, inner, box, (height, width))


def _cuts(mask_HW: np.ndarray, inner: tuple[int, ...], box: tuple[int, ...], frame_hw: tuple[int, int]) -> tuple[bool, ...]:
    """Sides of the inner box that the mask runs against; the frame's own edges cut nothing that could be seen."""
    x0, y0, x1, y1 = inner
    lines = (mask_HW[y0:y1, x0], mask_HW[y0, x0:x1], mask_HW[y0:y1, x1 - 1], mask_HW[y1 - 1, x0:x1])
    is_frame = (box[0] <= 0, box[1] <= 0, box[2] >= frame_hw[1], box[3] >= frame_hw[0])
    return tuple(bool(line.sum() >= 2) and not edge for line, edge in zip(lines, is_frame, strict=True))


def resized(image: np.ndarray, scale: float) -> np.ndarray:
    """An image [H, W, ...] times `scale`; a smaller one by means of whole squares first, and lines between those for the rest.

    A seventh of the time of `INTER_AREA` at a broken scale. Up to `1 / scale - 1` pixels at the right and the bottom do not count.
    """
    if scale >= 1:
        return image if scale == 1 else cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    step = int(1 / scale)
    rows, columns = (max(1, side // step) for side in image.shape[:2])
    squares = image[: rows * step, : columns * step]
    if step in (3, 5) and min(rows, columns) > 0 and min(image.shape[:2]) >= step:  # as below to the bit, in a third of its time
        means = cv2.boxFilter(squares, -1, (step, step), anchor=(0, 0))
        squares = cv2.resize(means, (columns, rows), interpolation=cv2.INTER_NEAREST)
    elif step > 1:
        squares = cv2.resize(squares, (columns, rows), interpolation=cv2.INTER_AREA)
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return cv2.resize(squares, size, interpolation=cv2.INTER_LINEAR)


def _foreground(patch_HWC: np.ndarray, inner: tuple[int, int, int, int], core: tuple[int, int, int, int]) -> tuple[np.ndarray, float]:
    """Mask inside `inner` of the thing in `core`, and its clarity; the whole inner box at clarity 0 where nothing stands out."""
    h, w = patch_HWC.shape[:2]
    x0, y0, x1, y1 = inner
    within = slice(y0, max(y1, y0 + 1)), slice(x0, max(x1, x0 + 1))
    inside = np.zeros((h, w), bool)
    inside[within] = True
    if min(h, w) < 5:
        return inside, 0.0
    around = ~inside
    far, noise = background_distance(lab_of(patch_HWC), around if np.count_nonzero(around) >= 24 else _frame(h, w))
    limit = _split(far[within].ravel(), noise)
    hot = np.zeros((h, w), np.uint8)
    hot[within] = far[within] > limit
    reach = 3 if min(h, w) < 90 else 5
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    hot = cv2.morphologyEx(cv2.morphologyEx(hot, cv2.MORPH_OPEN, kernel), cv2.MORPH_CLOSE, kernel)
    mask = _main_part(hot, core)
    if mask is None:
        return inside, 0.0
    gap = float(median(far[mask]))
    return mask, min(max((gap / max(noise, 1.0) - 2) / 8, 0.05), 1.0)


def _frame(h: int, w: int) -> np.ndarray:
    edge = np.ones((h, w), bool)
    t = max(1, min(h, w) // 12)
    edge[t:-t, t:-t] = False
    return edge


def lab_of(patch_HWC: np.ndarray) -> np.ndarray:
    """A uint8 RGB patch, smoothed, in Lab of 0 to 255, float32 [3, height, width]; light and shade matter less than colour."""
    size = 3 if min(patch_HWC.shape[:2]) < 60 else 5
    planes = cv2.split(cv2.cvtColor(cv2.GaussianBlur(patch_HWC, (size, size), 0), cv2.COLOR_RGB2LAB))
    lab_CHW = np.empty((3, *patch_HWC.shape[:2]), np.float32)
    for channel_HW, plane_HW in zip(lab_CHW, planes, strict=True):
        channel_HW[:] = plane_HW
    lab_CHW[0] *= 0.6
    return lab_CHW


def background_distance(lab_CHW: np.ndarray, known_HW: np.ndarray) -> tuple[np.ndarray, float]:
    """Distance of each pixel of `lab_of` from the background, and the background's own spread.

    The background is a plane per channel (it follows gradients), fitted to the `known_HW` pixels, outliers left out, plus
    the one or two main ways in which known pixels deviate from it (it follows stripes and checks). All pixels are known where none is.
    """
    h, w = lab_CHW.shape[1:]
    known = np.flatnonzero(known_HW)
    if not len(known):
        known = np.arange(h * w)
    known = known[:: max(1, len(known) // 1000)]  # a plane needs no more
    ys, xs = np.divmod(known, w)
    place_3N = np.stack([np.ones(len(known)), xs / w - 0.5, ys / h - 0.5])
    lab_CN = lab_CHW.reshape(3, -1).take(known, axis=1).astype(np.float64)
    keep = np.ones(len(known), bool)
    level = np.diag([0.0, 1e-4, 1e-4])  # a strip along one side says nothing of the slope across it
    for last in (False, False, True):
        kept_3N = place_3N * keep
        fit_3C = np.linalg.solve(kept_3N @ place_3N.T + np.count_nonzero(keep) * level, kept_3N @ lab_CN.T)
        if last:
            break
        rest = _length(lab_CN - fit_3C.T @ place_3N)
        keep = rest <= max(2.0, 2.5 * float(median(rest)))
        if np.count_nonzero(keep) < 12:
            break
    flat_C, across_C, down_C = fit_3C.astype(np.float32)[..., None, None]
    columns, rows = np.arange(w, dtype=np.float32) / w - 0.5, np.arange(h, dtype=np.float32)[:, None] / h - 0.5
    offset_CHW = lab_CHW - (flat_C + across_C * columns)
    offset_CHW -= down_C * rows
    far = _length(offset_CHW)
    ring = far.ravel()[known]
    noise = float(1.2 * median(ring) + 0.5)
    off_CN = offset_CHW.reshape(3, -1).take(known[ring > max(6.0, 3 * noise)], axis=1)
    if off_CN.shape[1] > 0.12 * len(ring):  # a second background colour
        offset_CHW -= np.stack([median(off_N) for off_N in off_CN])[:, None, None]
        far = np.minimum(far, _length(offset_CHW))
        noise = float(1.2 * median(far.ravel()[known]) + 0.5)
    return far, noise


def _length(offset: np.ndarray) -> np.ndarray:
    """Of the vectors [3, ...] of an array, [...]."""
    x, y, z = offset
    return np.sqrt(x * x + y * y + z * z)


def _split(far_N: np.ndarray, noise: float) -> float:
    """Otsu's threshold on the distances, kept above the background's spread and below clear foreground."""
    if not far_N.size:
        return noise
    most = int(0.98 * (far_N.size - 1))
    top = max(8.0, float(np.partition(far_N, most)[most]))
    scaled = np.clip(far_N / top * 255, 0, 255).astype(np.uint8)
    otsu, _ = cv2.threshold(scaled.reshape(-1, 1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return float(max(otsu / 255 * top * 0.9, 2.0 * noise, 3.0))


def _main_part(hot_HW: np.ndarray, core: tuple[int, int, int, int]) -> np.ndarray | None:
    """The connected part with most of its area in the core box, with others at least a third as large there."""
    count, labels = cv2.connectedComponents(hot_HW)
    if count < 2:
        return None
    x0, y0, x1, y1 = (max(0, v) for v in core)
    inside = slice(y0, y1), slice(x0, x1)
    areas = np.bincount(labels[inside][hot_HW[inside] > 0], minlength=count)[1:]
    is_kept = np.concatenate([[False], areas >= max(9, 0.35 * areas.max())])
    num_kept = np.count_nonzero(is_kept)
    if not num_kept:
        return None
    return hot_HW.astype(bool) if num_kept == count - 1 else is_kept.take(labels)
