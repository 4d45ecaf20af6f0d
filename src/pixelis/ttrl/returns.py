"""What each rollout is paid: agreement with the winner times likeness to the exemplar, minus its cost; and which ones only repeat another.

Letters: N rollouts. Source: paper §3.2.3, Eq. 5-7; supplement 6 (returns, practical notes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pixelis.ttrl.evidence import Evidence, likeness

DUPLICATE = 0.9
"""Mean IoU of footprints from which a rollout repeats another."""


def returns(agrees_N: Sequence[bool], similarity_N: Sequence[float], penalty_N: Sequence[float]) -> np.ndarray:
    """R = 1[y = winner] * Sim(rollout, exemplar) - penalty, [N]."""
    return np.where(np.asarray(agrees_N, bool), np.asarray(similarity_N, np.float64), 0.0) - np.asarray(penalty_N, np.float64)


def advantages(return_N: np.ndarray, baseline: float | None, weight: float, *, negative: float = 1.0) -> np.ndarray:
    """A = omega * (R - b), [N].

    Args:
        baseline: running mean of earlier returns; None before the first query, which is measured by its own mean.
        weight: omega of the query.
        negative: what negative advantages are multiplied by: the paper's 1 unlearns what disagrees, 0 only imitates.
    """
    values = np.asarray(return_N, np.float64)
    gain = weight * (values - (math.fsum(values) / len(values) if baseline is None else baseline))
    return np.where(gain < 0, negative * gain, gain)


def is_repeat(a: Sequence[Evidence], b: Sequence[Evidence], *, threshold: float = DUPLICATE) -> bool:
    """Whether two rollouts made the same ops in the same order and touched the same: mean likeness of the steps >= threshold.

    Rollouts without steps touch nothing, so nothing is known of their being alike, and they are no repeats.
    """
    if not a or [step.op for step in a] != [step.op for step in b]:
        return False
    return math.fsum(likeness(x, y) for x, y in zip(a, b, strict=True)) / len(a) >= threshold - 1e-9


def kept(
    rollouts: Sequence[Sequence[Evidence]], labels: Sequence[str | None], *, first: int | None = None, threshold: float = DUPLICATE
) -> np.ndarray:
    """bool [N]: False for a rollout that repeats a kept one with the same answer. The first of a kind is kept.

    Repeats count in the vote, where they are agreement; in the update they would only teach the same chain several times over.

    Args:
        first: place of the rollout that is looked at before all others: the exemplar.
    """
    chosen: list[int] = []
    for k in sorted(range(len(rollouts)), key=lambda k: (k != first, k)):
        if not any(labels[k] == labels[m] and is_repeat(rollouts[k], rollouts[m], threshold=threshold) for m in chosen):
            chosen.append(k)
    return np.isin(np.arange(len(rollouts)), chosen)
