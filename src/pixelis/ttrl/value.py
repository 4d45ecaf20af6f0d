"""The value of a query's neighbourhood, how much a query may teach, and the running baseline of returns.

`ValueState` is all that is remembered from query to query; every function gives the next state. Letters: K neighbours.
Source: paper §3.2.3, "Objective"; supplement 6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pixelis.core.ops import record
from pixelis.rewards.running import Running

VALUE_DECAY = 0.5
BASELINE_DECAY = 0.9
SLOPE, LEAST_WEIGHT, MOST_WEIGHT = 0.5, 0.5, 1.5


@record
class ValueState:
    """What is remembered."""

    value: float | None = None
    """Running mean of neighbourhood values; None before the first."""
    values: Running = Running()
    """Statistics of the values given so far."""
    baseline: float | None = None
    """Running mean of returns; None before the first."""


def ema(old: float | None, new: float, decay: float) -> float:
    """decay * old + (1 - decay) * new; new where there is nothing old, old where new is not finite (None stays NaN)."""
    if not math.isfinite(new):
        return math.nan if old is None else old
    return new if old is None else decay * old + (1 - decay) * new


def neighbourhood_value(similarity_K: Sequence[float], intrinsic_K: Sequence[float]) -> float:
    """Mean of the neighbours' curiosity + coherence, weighted by similarity; NaN where nothing is known or alike.

    Args:
        similarity_K: negative counts as 0.
        intrinsic_K: NaN where unknown: the neighbour is left out.
    """
    similarity, intrinsic = np.maximum(np.asarray(similarity_K, np.float64), 0), np.asarray(intrinsic_K, np.float64)
    is_known = np.isfinite(intrinsic) & np.isfinite(similarity)
    total = float(similarity[is_known].sum())
    return float(similarity[is_known] @ intrinsic[is_known]) / total if total > 0 else math.nan


def value_weight(state: ValueState, fresh: float, *, decay: float = VALUE_DECAY) -> tuple[float, float, ValueState]:
    """V(q), the query's weight omega, and the state after it.

    V(q) is the running mean of neighbourhood values with this query's own taken in. omega = clip(1 + 0.5 z(V(q)), 0.5, 1.5), where z is
    by the statistics of earlier queries, so that no query is measured by a scale that it has moved itself.

    Args:
        fresh: this query's `neighbourhood_value`; NaN leaves V as it was.

    Returns:
        V(q) is NaN, and omega 1, before any neighbourhood had a value.
    """
    value = ema(state.value, fresh, decay)
    if math.isnan(value):
        return value, 1.0, state
    weight = min(MOST_WEIGHT, max(LEAST_WEIGHT, 1 + SLOPE * state.values.z(value)))
    return value, weight, replace(state, value=value, values=state.values.add([value]))
