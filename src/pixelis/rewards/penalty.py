"""What a trajectory costs: calls that failed, and steps beyond what a question needs. Source: paper §6.1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PER_INVALID_CALL = 0.30
PER_EXTRA_STEP = 0.02
FREE_STEPS = 6


def penalty(
    num_invalid: int,
    num_steps: int,
    *,
    per_invalid: float = PER_INVALID_CALL,
    per_extra: float = PER_EXTRA_STEP,
    free_steps: int = FREE_STEPS,
) -> float:
    """per_invalid * invalid calls + per_extra * steps beyond the free ones, >= 0.

    Raises:
        ValueError: counts that cannot be.
    """
    if not 0 <= num_invalid <= num_steps:
        raise ValueError(f"{num_invalid} invalid calls among {num_steps} steps")
    return per_invalid * num_invalid + per_extra * max(0, num_steps - free_steps)


def fines(
    is_invalid_S: Sequence[bool],
    *,
    per_invalid: float = PER_INVALID_CALL,
    per_extra: float = PER_EXTRA_STEP,
    free_steps: int = FREE_STEPS,
) -> np.ndarray:
    """What each step costs, [S]: its own invalid call, and itself beyond the free ones. Their sum is the `penalty`."""
    is_extra_S = np.arange(len(is_invalid_S)) >= free_steps
    return per_invalid * np.asarray(is_invalid_S, np.float64) + per_extra * is_extra_S
