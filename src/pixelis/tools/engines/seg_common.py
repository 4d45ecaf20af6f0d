"""What the segmentation engines share: prompts in pixels, a bounded cache, pasting a coarse mask back, version text.

Shapes: H, W image height and width; C colour channels; h, w a coarse grid.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

FloatBox = tuple[float, float, float, float]
FloatPoint = tuple[float, float]
Value = TypeVar("Value")


class EncodingCache(Generic[Value]):
    """The last few images' encodings, by content hash; safe to share between threads.

    Two threads that ask for the same new image may both compute it: that wastes time once and never blocks the others.

    Args:
        size: how many images to keep.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._values: OrderedDict[str, Value] = OrderedDict()

    def get(self, key: str | None, make: Callable[[], Value]) -> Value:
        """The stored value of `key`, or `make()`, which is stored unless `key` is None."""
        if key is None:
            return make()
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._size:
                self._values.popitem(last=False)
        return value

    def __len__(self) -> int:
        return len(self._values)


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Any 8-bit image as contiguous RGB.

    Args:
        image: uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]; alpha is dropped.
    Returns:
        uint8 [H, W, 3].
    Raises:
        ValueError: another shape or type, or no pixel.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(f"an image must be uint8 [H, W] or [H, W, C] with at least one pixel; got {image.dtype} {image.shape}")
    if image.ndim == 2:
        image = image[:, :, None]
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    if image.shape[2] not in (3, 4):
        raise ValueError(f"an image has 1, 3 or 4 channels; got {image.shape[2]}")
    return np.ascontiguousarray(image[:, :, :3])


def check_prompt(shape: tuple[int, ...], box: FloatBox | None, point: FloatPoint | None) -> None:
    """Reject a call without a prompt, and prompts that miss the image.

    Raises:
        ValueError: neither box nor point, an empty box, or a prompt outside the image.
    """
    height, width = shape[:2]
    if box is None and point is None:
        raise ValueError("segment() needs a box, a point, or both")
    if box is not None and not (0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height):
        raise ValueError(f"box {box} must be non-empty and inside the {width}x{height} image")
    if point is not None and not (0 <= point[0] <= width and 0 <= point[1] <= height):
        raise ValueError(f"point {point} must be inside the {width}x{height} image")


def whole_pixels(box: FloatBox, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Whole pixels that the box touches, inside an image of this shape: `(x0, y0, x1, y1)` for slicing, never empty."""
    height, width = shape[:2]
    x0, y0 = min(max(math.floor(box[0]), 0), width - 1), min(max(math.floor(box[1]), 0), height - 1)
    return x0, y0, max(x0 + 1, min(math.ceil(box[2]), width)), max(y0 + 1, min(math.ceil(box[3]), height))


def cut_to_box(mask_HW: np.ndarray, box: FloatBox) -> np.ndarray:
    """The mask with everything removed that lies more than 2 % of the box's side (at least 1 px) outside the box."""
    slack_x, slack_y = max(1.0, 0.02 * (box[2] - box[0])), max(1.0, 0.02 * (box[3] - box[1]))
    x0, y0, x1, y1 = whole_pixels((box[0] - slack_x, box[1] - slack_y, box[2] + slack_x, box[3] + slack_y), mask_HW.shape)
    cut_HW = np.zeros_like(mask_HW)
    cut_HW[y0:y1, x0:x1] = mask_HW[y0:y1, x0:x1]
    return cut_HW


def paste_logits(logit_hw: np.ndarray, scale_x: float, scale_y: float, shape: tuple[int, ...]) -> np.ndarray:
    """Where a coarse logit map is positive, drawn at the original's size by bilinear interpolation.

    Only the part around positive cells is enlarged, so a small mask in a huge image stays cheap.

    Args:
        logit_hw: float [h, w]; its origin is the image's origin; cells past the image are padding and never read.
        scale_x: coarse cells per original pixel; `scale_y` likewise.
        shape: of the original image, height and width first.
    Returns:
        bool [H, W].
    """
    import cv2

    height, width = shape[:2]
    mask_HW = np.zeros((height, width), bool)
    # Replicate the last column and row that belong to the image: beyond them the network saw padding.
    logit_hw = logit_hw[: max(1, math.ceil(height * scale_y)), : max(1, math.ceil(width * scale_x))].astype(np.float32)
    rows, columns = np.flatnonzero((logit_hw > 0).any(1)), np.flatnonzero((logit_hw > 0).any(0))
    if not rows.size:
        return mask_HW
    x0, y0, x1, y1 = whole_pixels(
        ((columns[0] - 1) / scale_x, (rows[0] - 1) / scale_y, (columns[-1] + 2) / scale_x, (rows[-1] + 2) / scale_y), shape
    )
    # Pixel centres: cell + 0.5 = (pixel + 0.5) * scale.
    to_cell = np.array(
        [[scale_x, 0, (x0 + 0.5) * scale_x - 0.5], [0, scale_y, (y0 + 0.5) * scale_y - 0.5]],
        np.float64,
    )
    fine = cv2.warpAffine(
        logit_hw, to_cell, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    mask_HW[y0:y1, x0:x1] = fine > 0
    return mask_HW


def file_tag(path: Path) -> str:
    """First 12 hex digits of a file's SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:12]
