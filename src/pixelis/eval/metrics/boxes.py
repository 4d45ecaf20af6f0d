"""What tools returned against the truth: boxes, masks and their outlines, stretches of time, texts.

A truth that is not known (None) leaves an item unscored; a true thing that was not found (None) counts 0.
Letters: HW a mask's height and width, N items. Source: paper §4.1 ("Task and tool metrics").
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from rapidfuzz.distance import Levenshtein
from scipy.ndimage import distance_transform_edt

from pixelis.core.geometry import Box, Mask, TimeSpan
from pixelis.eval.stats import Rate, known_rate

BOUNDARY_TOLERANCE = 0.008
"""Of the frame's diagonal, as DAVIS has it."""
RECALL_THRESHOLDS = (0.3, 0.5, 0.7)
"""Temporal overlaps at which recall is usually told."""

T = TypeVar("T")


def mean_fit(found_N: Sequence[T | None], true_N: Sequence[T | None], fit: Callable[[T, T], float], *, seed: int = 0) -> Rate:
    """Mean over items of how well what was found fits the truth.

    Args:
        fit: in [0, 1], such as `Box.iou`, `Mask.iou`, `TimeSpan.tiou` or `boundary_f1`.

    Raises:
        ValueError: not one truth for each thing found.
    """
    return known_rate(fits(found_N, true_N, fit), seed=seed)


def fits(found_N: Sequence[T | None], true_N: Sequence[T | None], fit: Callable[[T, T], float]) -> list[float | None]:
    """The fit of each item, [N]; None where the truth is not known."""
    pairs = zip(found_N, true_N, strict=True)
    return [None if true is None else 0.0 if found is None else fit(found, true) for found, true in pairs]


def box_iou(found_N: Sequence[Box | None], true_N: Sequence[Box | None], *, seed: int = 0) -> Rate:
    """Mean IoU of boxes."""
    return mean_fit(found_N, true_N, Box.iou, seed=seed)


def mask_iou(found_N: Sequence[Mask | None], true_N: Sequence[Mask | None], *, seed: int = 0) -> Rate:
    """Mean IoU of masks."""
    return mean_fit(found_N, true_N, Mask.iou, seed=seed)


def temporal_iou(found_N: Sequence[TimeSpan | None], true_N: Sequence[TimeSpan | None], *, seed: int = 0) -> Rate:
    """Mean temporal IoU of stretches of time."""
    return mean_fit(found_N, true_N, TimeSpan.tiou, seed=seed)


def recall_at(fits_N: Iterable[float | None], thresholds: Sequence[float] = RECALL_THRESHOLDS, *, seed: int = 0) -> dict[float, Rate]:
    """Share of items whose fit reaches each threshold (R1@0.3, R1@0.5, ... of temporal grounding)."""
    values = list(fits_N)
    return {
        least: known_rate([None if v is None or math.isnan(v) else float(v >= least) for v in values], seed=seed) for least in thresholds
    }


# ---------------------------------------------------------------- outlines


def boundary_f1(found: Mask, true: Mask, *, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    """Boundary-F1: harmonic mean of the shares of each outline that lie near the other one, in [0, 1].

    Near: at most ceil(tolerance * diagonal) pixels away. Where neither mask has an outline they agree: 1; where one has none: 0.

    Raises:
        ValueError: masks of frames of different sizes.
    Source: paper §4.1; Perazzi et al., DAVIS (2016), the F measure.
    """
    if (found.height, found.width) != (true.height, true.width):
        raise ValueError(f"masks of {found.width}x{found.height} and {true.width}x{true.height} frames cannot be compared")
    one_HW, two_HW = outline(found.to_array()), outline(true.to_array())
    if not one_HW.any() or not two_HW.any():
        return float(not one_HW.any() and not two_HW.any())
    reach_px = math.ceil(tolerance * math.hypot(found.height, found.width))
    precision, recall = _near(one_HW, two_HW, reach_px), _near(two_HW, one_HW, reach_px)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def outline(mask_HW: np.ndarray) -> np.ndarray:
    """bool [H, W]: pixels that differ from the one to the right, below, or both; the frame's own edge is no outline."""
    mask_HW = np.asarray(mask_HW, bool)
    beyond = np.pad(mask_HW, ((0, 1), (0, 1)), mode="edge")
    return (mask_HW != beyond[:-1, 1:]) | (mask_HW != beyond[1:, :-1]) | (mask_HW != beyond[1:, 1:])


def _near(one_HW: np.ndarray, two_HW: np.ndarray, reach_px: int) -> float:
    """Share of the first outline's pixels within reach of the second's."""
    return float((distance_transform_edt(~two_HW)[one_HW] <= reach_px).mean())


# ---------------------------------------------------------------- texts


@dataclass(frozen=True)
class CharacterErrors:
    """CER of many texts together.

    Attributes:
        rate: edits over true characters; above 1 where more was made up than stands there, NaN where no character stands there.
        num_edits, num_characters: of which it is made.
        count: texts behind it.
        num_unscored: texts whose truth is not known.
    """

    rate: float
    num_edits: int
    num_characters: int
    count: int
    num_unscored: int


def character_errors(read_N: Sequence[str | None], true_N: Sequence[str | None]) -> CharacterErrors:
    """CER: insertions, deletions and replacements over the number of true characters, after NFKC and joining of blanks.

    Edits and characters are summed before they are divided, so that a short text does not count like a long one.

    Args:
        read_N: None where nothing was read, which leaves every character out.
        true_N: None where the truth is not known; "" where nothing stands, so that all that was read is edits.
    """
    pairs = [(_plain(read or ""), _plain(true)) for read, true in zip(read_N, true_N, strict=True) if true is not None]
    edits = sum(Levenshtein.distance(read, true) for read, true in pairs)
    length = sum(len(true) for _, true in pairs)
    return CharacterErrors(edits / length if length else math.nan, edits, length, len(pairs), len(read_N) - len(pairs))


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())
