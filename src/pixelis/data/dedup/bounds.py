"""What mean colours and tile contrasts alone rule out, for very many pairs of frames at once.

Shapes: N frames, G tiles, each of 64; P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pixelis.data.dedup.overlap import C2, COLOUR_MAX, REACH_PX, WINDOW_STARTS, Sketch, moving_variance

_CHUNK = 4096


@dataclass(frozen=True)
class SketchTable:
    """Tile contrasts of many frames, float32 [N, G]; low and high are over all places within reach."""

    colour_N3: np.ndarray
    std_NG: np.ndarray
    std_low_NG: np.ndarray
    std_high_NG: np.ndarray


def table_of(sketches: Sequence[Sketch]) -> SketchTable:
    """The table of some frames, about 1 ms each."""
    kernel, at = np.ones((2 * REACH_PX + 1,) * 2, np.uint8), np.ix_(WINDOW_STARTS, WINDOW_STARTS)
    colours, spreads = [], []
    for sketch in sketches:
        std_HW = np.sqrt(moving_variance(sketch.planes_HW3()))
        colours.append(sketch.colour)
        spreads.append([values_HW[at].ravel() for values_HW in (std_HW, cv2.erode(std_HW, kernel), cv2.dilate(std_HW, kernel))])
    std_3NG = np.swapaxes(np.array(spreads, np.float32), 0, 1)
    return SketchTable(np.array(colours, np.float32), *std_3NG)


def worst_at_most(table: SketchTable, first_P: np.ndarray, second_P: np.ndarray) -> np.ndarray:
    """Upper bound of `local_overlap(...).worst` of pairs, [P]: a covariance is at most the product of the standard deviations."""
    bound_P = np.zeros(len(first_P))
    for start in range(0, len(first_P), _CHUNK):
        i, j = first_P[start : start + _CHUNK], second_P[start : start + _CHUNK]
        is_near = np.abs(table.colour_N3[i] - table.colour_N3[j]).max(1) <= COLOUR_MAX
        bound_P[start : start + _CHUNK] = np.where(is_near, np.maximum(_one_way(table, i, j), _one_way(table, j, i)), 0.0)
    return bound_P


def _one_way(table: SketchTable, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    here, low = table.std_NG[i], table.std_low_NG[j]
    there = np.clip(here, low, table.std_high_NG[j])
    best = (2 * here * there + C2) / (here**2 + there**2 + C2)
    return np.where(np.maximum(here, low) ** 2 > C2 / 2, best, 1.0).min(1)
