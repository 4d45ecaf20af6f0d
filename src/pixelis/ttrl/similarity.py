"""Behavioural similarity of two trajectories: do they call the same tools in the same order, and do they touch the same things?

`Sim = 1/2 (1 - edit(ops) / longer) + 1/2 footprints`. Footprints are aligned softly (soft-DTW over costs 1 - likeness) and their likeness
is averaged under the expected alignment. A soft alignment of a trajectory with itself spends some weight beside the diagonal, so this mean
alone would give Sim(a, a) < 1; we divide by the larger of the two self-alignments' means, and cut at 1. Then Sim(a, a) = 1, Sim is
symmetric, lies in [0, 1], and is 0 between trajectories that share nothing. The paper leaves the normalisation open.
Letters: A steps of one trajectory, B steps of the other. Source: paper §3.2.3, Eq. 4; Cuturi and Blondel (2017) for soft-DTW.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

from pixelis.core.trajectory import Trajectory
from pixelis.ttrl.evidence import Evidence, evidence_of, likeness

TEMPERATURE = 0.20


def similarity(a: Sequence[Evidence], b: Sequence[Evidence], *, temperature: float = TEMPERATURE) -> float:
    """Sim in [0, 1]; 1 between two trajectories without steps, 0 between one without and one with."""
    return 0.5 * op_similarity(a, b) + 0.5 * footprint_similarity(a, b, temperature=temperature)


def trajectory_similarity(a: Trajectory, b: Trajectory) -> float:
    """Sim of two stored trajectories."""
    return similarity(evidence_of(a), evidence_of(b))


def op_similarity(a: Sequence[Evidence], b: Sequence[Evidence]) -> float:
    """1 - edit distance of the op sequences / the longer one's length, in [0, 1]; 1 where both are empty."""
    longer = max(len(a), len(b))
    return 1.0 - Levenshtein.distance([step.op for step in a], [step.op for step in b]) / longer if longer else 1.0


def footprint_similarity(a: Sequence[Evidence], b: Sequence[Evidence], *, temperature: float = TEMPERATURE) -> float:
    """Softly aligned mean likeness, relative to the self-alignments, in [0, 1]; 1 where both are empty, 0 where one is."""
    if not a or not b:
        return float(not a and not b)
    between = aligned_mean(_likenesses(a, b), temperature)
    selves = max(aligned_mean(_likenesses(a, a), temperature), aligned_mean(_likenesses(b, b), temperature))
    return min(1.0, between / selves)


def aligned_mean(likeness_AB: np.ndarray, temperature: float) -> float:
    """Mean likeness under the expected alignment of soft-DTW with costs 1 - likeness, in [0, 1].

    Args:
        likeness_AB: in [0, 1]; at least one row and one column.
    """
    likeness_AB = np.asarray(likeness_AB, np.float64)
    _, alignment_AB = soft_dtw(1 - likeness_AB, temperature)
    return float((alignment_AB * likeness_AB).sum() / alignment_AB.sum())


def soft_dtw(cost_AB: np.ndarray, temperature: float) -> tuple[float, np.ndarray]:
    """Soft-DTW: the soft minimum of the costs of all monotone alignments, and the expected alignment.

    Args:
        cost_AB: finite, at least one row and one column.
        temperature: > 0, in units of the cost.

    Returns:
        -temperature * log(sum over paths of exp(-cost / temperature)), and per cell the probability [A, B] that a path drawn with these
        weights passes through it; the gradient of the first by the costs.
    """
    cost = np.asarray(cost_AB, np.float64)
    num_a, num_b = cost.shape
    total = np.full((num_a + 2, num_b + 2), np.inf)
    total[0, 0] = 0.0
    for i in range(1, num_a + 1):
        for j in range(1, num_b + 1):
            before = np.array([total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]])
            least = before.min()
            total[i, j] = cost[i - 1, j - 1] + least - temperature * np.log(np.exp((least - before) / temperature).sum())
    passes = np.zeros((num_a + 2, num_b + 2))
    passes[num_a, num_b] = 1.0
    for i in range(num_a, 0, -1):
        for j in range(num_b, 0, -1):
            for k, m in ((i + 1, j + 1), (i + 1, j), (i, j + 1)):
                if k <= num_a and m <= num_b:
                    passes[i, j] += passes[k, m] * np.exp((total[k, m] - cost[k - 1, m - 1] - total[i, j]) / temperature)
    return float(total[num_a, num_b]), passes[1:-1, 1:-1]


def _likenesses(a: Sequence[Evidence], b: Sequence[Evidence]) -> np.ndarray:
    return np.array([[likeness(x, y) for y in b] for x in a])
