"""What tile contrasts and means alone rule out, for very many pairs of frames at once.

Shapes: N frames, G tiles, each of 64; P pairs; A, B rows of two tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np

from pixelis.data.dedup.overlap import C2, COLOUR_MAX, REACH_PX, TILE_PX, WINDOW_STARTS, Sketch, moving_variance

GAP_MAX = 1.5
"""Largest difference of a tile's mean from its counterpart's, in levels, but for one brightness for the frame; 3 % crops reach 0.7."""
_CHUNK = 4096


@dataclass(frozen=True)
class SketchTable:
    """Tile statistics of many frames, float32 [N, G]; low and high are over all places within reach."""

    colour_N3: np.ndarray
    std_NG: np.ndarray
    std_low_NG: np.ndarray
    std_high_NG: np.ndarray
    mean_NG: np.ndarray
    """Of brightness."""
    mean_low_NG: np.ndarray
    mean_high_NG: np.ndarray

    @property
    def num_structured_N(self) -> np.ndarray:
        """Tiles that are not plain."""
        return (self.std_NG**2 > C2 / 2).sum(1)

    def rows(self, start: int, stop: int | None) -> SketchTable:
        return SketchTable(*(getattr(self, field.name)[start:stop] for field in fields(self)))


def table_of(sketches: Sequence[Sketch]) -> SketchTable:
    """The table of some frames, about 1 ms each."""
    kernel, at = np.ones((2 * REACH_PX + 1,) * 2, np.uint8), np.ix_(WINDOW_STARTS, WINDOW_STARTS)
    rows = []
    for sketch in sketches:
        planes_HW3 = sketch.planes_HW3()
        columns = [sketch.colour]
        for values_HW in (np.sqrt(moving_variance(planes_HW3)), cv2.boxFilter(planes_HW3[..., 0], -1, (TILE_PX, TILE_PX))):
            columns += [values_HW[at].ravel(), cv2.erode(values_HW, kernel)[at].ravel(), cv2.dilate(values_HW, kernel)[at].ravel()]
        rows.append(columns)
    return SketchTable(*(np.stack(column) for column in zip(*rows, strict=True)))


def worst_at_most(a: SketchTable, b: SketchTable, row_a_P: np.ndarray, row_b_P: np.ndarray) -> np.ndarray:
    """Upper bound of `local_overlap(...).worst` of pairs, [P]: a covariance is at most the product of the standard deviations."""
    bound_P = np.zeros(len(row_a_P))
    for start in range(0, len(row_a_P), _CHUNK):
        i, j = row_a_P[start : start + _CHUNK], row_b_P[start : start + _CHUNK]
        is_near = np.abs(a.colour_N3[i] - b.colour_N3[j]).max(1) <= COLOUR_MAX
        bound_P[start : start + _CHUNK] = np.where(is_near, np.maximum(_one_way(a, b, i, j), _one_way(b, a, j, i)), 0.0)
    return bound_P


def looks_alike(a: SketchTable, b: SketchTable, *, tiles_max: int, worst_min: float) -> np.ndarray:
    """Bool [A, B]: frames with little structure whose colour, tile contrasts and tile means leave it open that they are one picture.

    Args:
        tiles_max: frames with more structured tiles are not compared.
    """
    is_alike_AB = (a.num_structured_N <= tiles_max)[:, None] & (b.num_structured_N <= tiles_max)[None, :]
    for channel in range(3):
        is_alike_AB &= np.abs(a.colour_N3[:, None, channel] - b.colour_N3[None, :, channel]) <= COLOUR_MAX
    i, j = np.nonzero(is_alike_AB)
    is_open = worst_at_most(a, b, i, j) >= worst_min - 1e-3
    is_alike_AB[i[~is_open], j[~is_open]] = False
    i, j = i[is_open], j[is_open]
    is_alike_AB[i, j] = np.minimum(_gap(a, b, i, j), _gap(b, a, j, i)) <= GAP_MAX
    return is_alike_AB


def _one_way(a: SketchTable, b: SketchTable, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    here = a.std_NG[i]
    there = np.clip(here, b.std_low_NG[j], b.std_high_NG[j])
    best = (2 * here * there + C2) / (here**2 + there**2 + C2)
    return np.where(np.maximum(here, b.std_low_NG[j]) ** 2 > C2 / 2, best, 1.0).min(1)


def _gap(a: SketchTable, b: SketchTable, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Of a's tiles, the largest distance of the mean, frame brightness aside, from all means within reach in b."""
    brightness = b.mean_NG[j].mean(1, keepdims=True) - a.mean_NG[i].mean(1, keepdims=True)
    wanted = a.mean_NG[i] + brightness
    return np.abs(np.clip(wanted, b.mean_low_NG[j], b.mean_high_NG[j]) - wanted).max(1, initial=0.0)
