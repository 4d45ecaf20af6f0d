"""What a trajectory costs: calls that failed, and steps beyond what a question needs. Source: paper §6.1."""

from __future__ import annotations

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
