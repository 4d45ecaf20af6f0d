"""What lies behind the objects: muted gradients, textures, and photographs that scikit-image's wheel carries.

Muted, so that named colours stand out: every background stays near its own grey-tinted base, which is either dark or light.
Everything is computed in integers.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pixelis.core.errors import DataError, NotInstalled
from pixelis.data.world.rng import Rng


def draw_background(name: str, rng: Rng, width: int, height: int) -> np.ndarray:
    """The background `name`, uint8 [height, width, 3].

    Raises:
        NotInstalled: a photograph is wanted and scikit-image is missing.
        DataError: the photograph is not the one this version draws with.
    """
    base = _base(rng)
    if name.startswith("photo:"):
        levels = ((np.arange(256)[:, None] - 128) * 9 // 25 + base).clip(0, 255).astype(np.uint8)  # 256 levels x 3 channels
        return cv2.LUT(_photo(name[6:], rng, width, height), levels.reshape(1, 256, 3))
    kind, _, way = name.partition("-")
    swing = {"gradient": _gradient, "stripes": _stripes}[kind](way, rng, width, height) if way else _TEXTURES[name](rng, width, height)
    levels = (np.arange(-128, 128)[:, None] + base).clip(0, 255).astype(np.uint8)
    return cv2.LUT(cv2.merge([(swing + 128).astype(np.uint8)] * 3), levels.reshape(1, 256, 3))


def _base(rng: Rng) -> np.ndarray:
    """A dark or light grey with a little tint, int16 [3]."""
    level = rng.integer(46, 78) if rng.chance(0.45) else rng.integer(176, 208)
    return np.array([level + rng.integer(-9, 9) for _ in range(3)], np.int16)


def _axes(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(width, dtype=np.int32)[None, :], np.arange(height, dtype=np.int32)[:, None]


def _gradient(way: str, rng: Rng, width: int, height: int) -> np.ndarray:
    x, y = _axes(width, height)
    u, v = x * 256 // width + 0 * y, y * 256 // height + 0 * x
    ramp = {
        "down": lambda: v,
        "right": lambda: u,
        "corner": lambda: (u + v) // 2,
        "ridge": lambda: np.abs(u - 128) * 2,
        "centre": lambda: np.minimum((np.abs(u - 128) + np.abs(v - 128)), 256),
    }[way]()
    reach = rng.integer(24, 56) * rng.choice((1, -1))
    return ((ramp - 128) * reach // 256).astype(np.int16)


def _stripes(way: str, rng: Rng, width: int, height: int) -> np.ndarray:
    x, y = _axes(width, height)
    period = rng.integer(14, 60)
    along = {"level": lambda: y + 0 * x, "upright": lambda: x + 0 * y, "slanted": lambda: x + y}[way]()
    return (along // period % 2 * rng.integer(6, 16)).astype(np.int16)


def _plain(rng: Rng, width: int, height: int) -> np.ndarray:
    return np.zeros((height, width), np.int16)


def _grain(rng: Rng, width: int, height: int) -> np.ndarray:
    return (rng.bell((height, width)) // rng.integer(24, 48)).astype(np.int16)


def _checks(rng: Rng, width: int, height: int) -> np.ndarray:
    x, y = _axes(width, height)
    cell = rng.integer(20, 64)
    return ((x // cell + y // cell) % 2 * rng.integer(6, 14)).astype(np.int16)


def _dots(rng: Rng, width: int, height: int) -> np.ndarray:
    x, y = _axes(width, height)
    cell, radius = rng.integer(22, 44), rng.integer(3, 6)
    near = (x % cell - cell // 2) ** 2 + (y % cell - cell // 2) ** 2 <= radius * radius
    return (near * rng.integer(8, 14)).astype(np.int16)


def _grid(rng: Rng, width: int, height: int) -> np.ndarray:
    x, y = _axes(width, height)
    cell = rng.integer(24, 60)
    return (((x % cell < 2) | (y % cell < 2)) * rng.integer(8, 16)).astype(np.int16)


def _bricks(rng: Rng, width: int, height: int) -> np.ndarray:
    x, y = _axes(width, height)
    tall = rng.integer(18, 34)
    row = y // tall
    mortar = (y % tall < 2) | ((x + row % 2 * tall) % (2 * tall) < 2)
    return np.where(mortar, rng.integer(8, 15), 0).astype(np.int16)


def _weave(rng: Rng, width: int, height: int) -> np.ndarray:
    x, y = _axes(width, height)
    cell = rng.integer(10, 22)
    over = (x // cell + y // cell) % 2 == 0
    return (np.where(over, np.abs(x % cell - cell // 2), np.abs(y % cell - cell // 2)) * 14 // cell).astype(np.int16)


def _clouds(rng: Rng, width: int, height: int) -> np.ndarray:
    """Two octaves of random lattices, blended."""
    total = np.zeros((height, width), np.int16)
    for cells, reach in ((4, 40), (11, 18)):
        total += (_resize(rng.bytes_array((cells, cells)), width, height).astype(np.int16) - 128) * reach // 256
    return total


_TEXTURES = {
    "plain": _plain, "grain": _grain, "checks": _checks, "dots": _dots,
    "grid": _grid, "bricks": _bricks, "weave": _weave, "clouds": _clouds,
}  # fmt: skip


def _photo(name: str, rng: Rng, width: int, height: int) -> np.ndarray:
    """A random cut of a photograph at the wanted size, uint8 [height, width, 3]."""
    source = _load(name)
    tall, wide = source.shape[:2]
    share = rng.integer(70, 100)
    cut_w = min(wide, tall * width // height) * share // 100
    cut_h = cut_w * height // width
    x, y = rng.integer(0, wide - cut_w), rng.integer(0, tall - cut_h)
    return _resize(source[y : y + cut_h, x : x + cut_w], width, height)


def _resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear interpolation in OpenCV's fixed point, which gives the same bits on every processor; uint8 in, uint8 out."""
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)


@lru_cache(maxsize=4)
def _load(name: str) -> np.ndarray:
    """A photograph of scikit-image's wheel, three quarters grey, uint8 [H, W, 3]; the package itself is not imported."""
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise NotInstalled("scikit-image (photographs behind PixelWorld's scenes)", "pip install scikit-image")
    path = Path(found.submodule_search_locations[0]) / "data" / f"{name}.png"
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except OSError as error:
        raise DataError(f"{path}: the photograph cannot be read ({error}); PixelWorld needs scikit-image's own data files") from error
    if hashlib.sha256(pixels.tobytes()).hexdigest()[:16] != PHOTO_SHA256[name]:
        raise DataError(f"{path}: not the photograph PixelWorld draws with; install scikit-image 0.20 or newer")
    # An orange suit behind an orange star would hide it.
    grey = (pixels.astype(np.uint16) * np.array([77, 150, 29], np.uint16)).sum(axis=-1, keepdims=True, dtype=np.uint32) >> 8
    return ((pixels + 3 * grey) >> 2).astype(np.uint8)


PHOTO_SHA256: dict[str, str] = {
    "grass": "c7ca5c984d6b5a27",
    "gravel": "e73bd88250cbfd7f",
    "coffee": "0ce2b51640b9c95f",
    "brick": "3501e216fb0968c3",
    "chelsea": "416b729128bfb2c3",
    "moon": "a641c47851a3252e",
    "motorcycle_left": "ca829467c1d4f427",
    "astronaut": "a8c429c18afa7b0f",
    "ihc": "c5b3ef509a92f16d",
}
"""The first 16 hex digits of the SHA-256 of each photograph's RGB pixels: another picture would draw another world."""
