"""Read one line of text: straighten it, run PP-OCR's recogniser, decode, and put back the spaces that it swallowed.

Each line is read by itself, at its own width: what a line says must not depend on its neighbours, and one thread gains
nothing from batches.
Source: Graves et al., Connectionist Temporal Classification, 2006 (greedy decoding).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import cv2
import numpy as np

from pixelis.tools.engines.ocr_models import RECOGNISER, open_session

HEIGHT_PX = 48
STEP_PX = 8
"""Input pixels for one output step."""
MIN_WIDTH_PX = 96
"""Shorter lines are padded to this."""
MAX_WIDTH_PX = 1600
"""Longer lines are read in pieces, cut where there is no ink."""
SPACE_CHANCE = 0.3
"""A space that reaches this between two characters stands, though blank won. Measured: no gap inside 1,588 rendered ones
reaches it, and most narrow word gaps (0.15 em) that greedy decoding loses do."""
MAX_TRIM = 0.35
MIN_SEPARATION = 0.6
"""Share of the strip's variance that two grey levels must explain before its ink is told from its ground."""
FLIP_BELOW = 0.85
"""A line read with less confidence is tried upside down too."""
FLIP_GAIN = 0.1


@dataclass(frozen=True)
class Reading:
    """What one line says."""

    text: str
    confidence: float
    """Mean probability of its characters, in [0, 1]; 0 when there is none."""


def read_line(image_HWC: np.ndarray, quad: np.ndarray) -> Reading:
    """The text inside a quadrilateral; tried upside down when it reads badly.

    Args:
        image_HWC: uint8 RGB.
        quad: float [4, 2] in pixels, from the line's start clockwise.
    """
    strip = straighten(image_HWC, quad)
    reading = read_strip(strip)
    if reading.confidence < FLIP_BELOW:
        flipped = read_strip(strip[::-1, ::-1])
        if flipped.confidence > reading.confidence + FLIP_GAIN:
            return flipped
    return reading


def ink_box(image_HWC: np.ndarray, quad: np.ndarray) -> tuple[float, float, float, float]:
    """Axis-aligned box of the ink inside a line's quadrilateral, in pixels of the image.

    The quadrilateral has a margin, good for reading and loose as evidence. Where ink and ground separate clearly the margin
    is taken off, up to MAX_TRIM of the line's height on each side.
    """
    strip = straighten(image_HWC, quad)
    width = strip.shape[1]
    grey = cv2.cvtColor(strip, cv2.COLOR_RGB2GRAY)
    _, is_bright = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    share = float(is_bright.mean())
    x0, x1, y0, y1 = 0, width, 0, HEIGHT_PX
    if 0 < share < 1:
        gap = float(grey[is_bright == 1].mean()) - float(grey[is_bright == 0].mean())
        explained = share * (1 - share) * gap**2 / max(float(grey.var()), 1e-9)
        if explained >= MIN_SEPARATION:
            is_ink = is_bright if share < 0.5 else 1 - is_bright
            y0, y1 = _extent(is_ink.sum(axis=1) >= max(1, 0.01 * width), round(MAX_TRIM * HEIGHT_PX))
            x0, x1 = _extent(is_ink[y0:y1].any(axis=0), round(MAX_TRIM * HEIGHT_PX))
    across = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) / (width, HEIGHT_PX)
    to_quad = cv2.getPerspectiveTransform(np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32), quad.astype(np.float32))
    corners = cv2.perspectiveTransform(across[None], to_quad)[0]
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def _extent(is_ink: np.ndarray, most: int) -> tuple[int, int]:
    """First and one past the last True, at most `most` from either end."""
    places = np.flatnonzero(is_ink)
    if not len(places):
        return 0, len(is_ink)
    most = min(most, (len(is_ink) - 1) // 2)
    return min(int(places[0]), most), max(int(places[-1]) + 1, len(is_ink) - most)


def straighten(image_HWC: np.ndarray, quad: np.ndarray) -> np.ndarray:
    """The quadrilateral as an upright strip of HEIGHT_PX rows."""
    length = max(np.linalg.norm(quad[1] - quad[0]), np.linalg.norm(quad[2] - quad[3]), 1.0)
    height = max(np.linalg.norm(quad[3] - quad[0]), np.linalg.norm(quad[2] - quad[1]), 1.0)
    width = max(1, round(HEIGHT_PX * length / height))
    # Shrinking inside the warp would drop pixels between samples: warp at the line's own size, then average.
    shrink = max(1.0, height / HEIGHT_PX)
    size = max(1, round(width * shrink)), round(HEIGHT_PX * shrink)
    goal = np.array([[0, 0], [size[0], 0], [size[0], size[1]], [0, size[1]]], np.float32)
    # Pixel centres lie at half integers; the warp counts them from zero.
    matrix = cv2.getPerspectiveTransform((quad - 0.5).astype(np.float32), goal - np.float32(0.5))
    strip = cv2.warpPerspective(image_HWC, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return strip if shrink == 1.0 else cv2.resize(strip, (width, HEIGHT_PX), interpolation=cv2.INTER_AREA)


def read_strip(strip_HWC: np.ndarray) -> Reading:
    """The text of an upright strip, uint8 RGB [HEIGHT_PX, width, 3]."""
    characters, probabilities = [], []
    for x0, x1 in _pieces(strip_HWC):
        piece = strip_HWC[:, x0:x1]
        text, chances = _decode(_probabilities(piece))
        if characters and text:
            characters.append(" ")  # pieces end where there is no ink
        characters += text
        probabilities += chances
    text = " ".join("".join(characters).split())
    return Reading(text, float(np.clip(np.mean(probabilities), 0, 1)) if text else 0.0)


def _probabilities(piece_HWC: np.ndarray) -> np.ndarray:
    """float32 [steps, classes] of one piece, without the steps that lie in the padding."""
    width = piece_HWC.shape[1]
    padded = max(MIN_WIDTH_PX, math.ceil(width / STEP_PX) * STEP_PX)
    x_CHW = np.zeros((3, HEIGHT_PX, padded), np.float32)
    x_CHW[:, :, :width] = piece_HWC[:, :, ::-1].transpose(2, 0, 1).astype(np.float32) / np.float32(127.5) - np.float32(1)
    return open_session(RECOGNISER).run(None, {"x": x_CHW[None]})[0][0]


@functools.cache
def _alphabet() -> tuple[str, ...]:
    names = open_session(RECOGNISER).get_modelmeta().custom_metadata_map["character"].splitlines()
    return ("", *names, " ")  # class 0 is CTC's blank, the last one the space


def _decode(chance_TC: np.ndarray) -> tuple[list[str], list[float]]:
    """Characters and the probability of each: the best class of each step, repeats merged, and swallowed spaces put back."""
    best_T = chance_TC.argmax(axis=1)
    is_new_T = (best_T != 0) & (best_T != np.concatenate([[0], best_T[:-1]]))
    alphabet = _alphabet()
    steps = np.flatnonzero(is_new_T)
    characters = [alphabet[best_T[t]] for t in steps]
    chances = [float(chance_TC[t, best_T[t]]) for t in steps]
    for k in range(len(steps) - 1, 0, -1):  # from the end, so that insertions do not move what is still to be looked at
        space = float(chance_TC[steps[k - 1] : steps[k] + 1, -1].max())
        if space >= SPACE_CHANCE and " " not in (characters[k - 1], characters[k]):
            characters.insert(k, " ")
            chances.insert(k, space)
    return characters, chances


def _pieces(strip_HWC: np.ndarray) -> list[tuple[int, int]]:
    """Column ranges of at most MAX_WIDTH_PX, cut where the columns vary least."""
    width = strip_HWC.shape[1]
    if width <= MAX_WIDTH_PX:
        return [(0, width)]
    ink_W = strip_HWC.astype(np.float32).std(axis=(0, 2))
    calm_W = cv2.blur(ink_W[None], (HEIGHT_PX // 3, 1))[0]
    cuts = [0]
    while width - cuts[-1] > MAX_WIDTH_PX:
        first = cuts[-1] + MAX_WIDTH_PX * 2 // 3
        cuts.append(first + int(calm_W[first : cuts[-1] + MAX_WIDTH_PX].argmin()))
    return list(zip(cuts, [*cuts[1:], width], strict=True))
