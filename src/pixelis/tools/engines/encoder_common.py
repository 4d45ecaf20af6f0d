"""What the frozen image encoders share: how a crop becomes a square, and unit-length rows.

Encoders judge (footprint similarity, retrieval keys, de-duplication); none of them is ever a tool.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

FITS = ("stretch", "pad")


def to_square(image_HWC: np.ndarray, side: int, *, fit: str, fill: tuple[float, float, float]) -> np.ndarray:
    """An image of any shape as float32 [side, side, 3] in 0-255.

    Args:
        image_HWC: uint8 RGB [height, width, 3].
        fit: "stretch" fills the square and loses the aspect ratio; "pad" keeps it between two bars of `fill`.
    """
    if image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or image_HWC.dtype != np.uint8 or image_HWC.size == 0:
        raise ValueError(f"expected non-empty uint8 RGB [height, width, 3], got {image_HWC.dtype} {image_HWC.shape}")
    if fit not in FITS:
        raise ValueError(f"fit must be one of {', '.join(FITS)}; got {fit!r}")
    height, width = image_HWC.shape[:2]
    if fit == "stretch":
        return resize(image_HWC, width=side, height=side)
    scale = side / max(height, width)
    inner_h, inner_w = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (side - inner_h) // 2, (side - inner_w) // 2
    square = np.empty((side, side, 3), np.float32)
    square[:] = fill
    square[top : top + inner_h, left : left + inner_w] = resize(image_HWC, width=inner_w, height=inner_h)
    return square


def resize(image_HWC: np.ndarray, *, width: int, height: int) -> np.ndarray:
    """Float32 copy at another size: averaged along an axis that shrinks, cubic along one that grows."""
    image = image_HWC.astype(np.float32)
    # One axis at a time: a crop may shrink along one and grow along the other, and one OpenCV mode suits only one of them.
    for size in ((width, image.shape[0]), (width, height)):
        if size != (image.shape[1], image.shape[0]):
            shrinks = size[0] < image.shape[1] or size[1] < image.shape[0]
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return image.clip(0, 255)


def embed_each(images: Sequence[np.ndarray], dim: int, embed_one: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Unit rows float32 [N, dim], each computed by itself: a row must not depend on the batch it came in."""
    rows_ND = np.zeros((len(images), dim), np.float32)
    for n, image_HWC in enumerate(images):
        row_D = np.asarray(embed_one(image_HWC), np.float64)
        length = float(np.linalg.norm(row_D))
        if not np.isfinite(length) or length == 0.0:
            raise ArithmeticError(f"image {n} {image_HWC.shape} has an embedding of length {length}: no direction to compare")
        rows_ND[n] = row_D / length
    return rows_ND


def short_digest(path: Path) -> str:
    """First 8 hex digits of a file's SHA-256."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:8]
