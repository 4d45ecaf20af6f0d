"""Clutter: backgrounds full of coloured things that are none of PixelWorld's, for sight alone.

No split draws its items on clutter. What has learnt to see on muted textures takes every coloured blot of an unknown photograph for a
thing; on clutter it learns what does not matter. Photographs are those that the train split may use, in colours that they never had.
"""

from __future__ import annotations

import cv2
import numpy as np

from pixelis.data.world.backgrounds import draw_background
from pixelis.data.world.rng import Rng
from pixelis.data.world.words import BACKGROUNDS

PHOTO_SHARE = 0.35
MOST_BLOTS = 160
PHOTOS = tuple(name for name in BACKGROUNDS["train"] if name.startswith("photo:"))


def draw_clutter(rng: Rng, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3]: noise, blots and lines of any colour, blurred; or a photograph recoloured.

    Unlike the world's own drawing it computes in floating point: other machines may differ in single values.
    """
    chance = np.random.default_rng(rng.integer(0, 2**60))
    if rng.chance(PHOTO_SHARE):
        return _recoloured(chance, draw_background(rng.choice(PHOTOS), rng, width, height))
    base_C = np.clip(chance.integers(30, 226) + chance.normal(0, 35, 3), 0, 255)
    canvas_HWC = np.broadcast_to(base_C, (height, width, 3)).astype(np.float32)
    for _ in range(int(chance.integers(1, 4))):
        canvas_HWC = canvas_HWC + _noise(chance, width, height)
    canvas_HWC = np.ascontiguousarray(np.clip(canvas_HWC, 0, 255))
    side = chance.uniform(4, 60)
    for _ in range(int(chance.integers(0, MOST_BLOTS))):
        _blot(chance, canvas_HWC, base_C, side)
    canvas_HWC = cv2.GaussianBlur(canvas_HWC, (0, 0), float(chance.uniform(1.2, 6)))
    canvas_HWC += chance.normal(0, chance.uniform(0, 9), canvas_HWC.shape)
    return np.clip(canvas_HWC, 0, 255).astype(np.uint8)


def _recoloured(chance: np.random.Generator, photo_HWC: np.ndarray) -> np.ndarray:
    """Other channels, mixed a little, with more or less contrast around another colour."""
    mix = np.eye(3)[chance.permutation(3)] + chance.normal(0, 0.22, (3, 3))
    around = photo_HWC.mean((0, 1))
    moved = (photo_HWC - around) @ mix.T * chance.uniform(0.6, 2.4) + around + chance.normal(0, 25, 3)
    return np.clip(moved, 0, 255).astype(np.uint8)


def _noise(chance: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Smooth noise of one scale, grey or coloured, float32 [height, width, 1 or 3]."""
    cell, channels = int(2 ** chance.uniform(1, 6)), 3 if chance.random() < 0.6 else 1
    coarse = chance.normal(0, 1, (max(2, height // cell), max(2, width // cell), channels)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels) * chance.uniform(3, 35)


def _blot(chance: np.random.Generator, canvas_HWC: np.ndarray, base_C: np.ndarray, side: float) -> None:
    """One ellipse, line or polygon, mostly in a colour near the ground's."""
    height, width, _ = canvas_HWC.shape
    loud = chance.random() < 0.12
    colour = chance.integers(0, 256, 3) if loud else np.clip(base_C + chance.normal(0, 40) + chance.normal(0, 22, 3), 0, 255)
    ink = tuple(float(value) for value in colour)
    x, y = int(chance.integers(0, width)), int(chance.integers(0, height))
    reach, form = max(1, int(chance.exponential(side))), chance.random()
    if form < 0.5:
        axes = (reach, max(1, int(reach * chance.uniform(0.2, 1))))
        cv2.ellipse(canvas_HWC, (x, y), axes, float(chance.uniform(0, 180)), 0, 360, ink, -1, cv2.LINE_AA)
    elif form < 0.8:
        end = (int(chance.integers(0, width)), int(chance.integers(0, height)))
        cv2.line(canvas_HWC, (x, y), end, ink, int(chance.integers(1, 8)), cv2.LINE_AA)
    else:
        corners = np.array([x, y]) + chance.normal(0, reach, (int(chance.integers(3, 7)), 2))
        cv2.fillPoly(canvas_HWC, [corners.astype(np.int32)], ink, cv2.LINE_AA)
