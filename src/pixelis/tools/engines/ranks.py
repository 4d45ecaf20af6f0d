"""Medians and quantiles to the bit of NumPy's, in a fraction of its time: values of one row, without NaN, and bytes by their counts."""

from __future__ import annotations

import numpy as np


def median(values_N: np.ndarray) -> np.floating:
    """Of floats, at least one and none of them NaN; of the floats' own type."""
    half = values_N.size // 2
    ranked = np.partition(values_N, half)
    return ranked[half] if values_N.size % 2 else (ranked[:half].max() + ranked[half]) / 2


def counts_of(bytes_N: np.ndarray) -> np.ndarray:
    """How often each of 256 values stands among uint8 values of any shape; [256]."""
    return np.bincount(bytes_N.ravel(), minlength=256)


def middle_two(counts_256: np.ndarray) -> tuple[int, int]:
    """The two values whose mean is the median; the same one twice where their number is odd."""
    total = np.cumsum(counts_256)
    low, high = np.searchsorted(total, [(int(total[-1]) - 1) // 2, int(total[-1]) // 2], side="right")
    return int(low), int(high)


def quantile(counts_256: np.ndarray, share: float) -> float:
    """Of what was counted, between neighbouring values along a line."""
    total = np.cumsum(counts_256)
    place = (int(total[-1]) - 1) * share
    rank = int(place)
    low, high = (int(v) for v in np.searchsorted(total, [rank, min(rank + 1, int(total[-1]) - 1)], side="right"))
    rest = place - rank
    return low + (high - low) * rest if rest < 0.5 else high - (high - low) * (1 - rest)
