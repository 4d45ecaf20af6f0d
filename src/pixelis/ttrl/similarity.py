"""Behavioural similarity of two trajectories: do they call the same tools in the same order, and do they touch the same things?

`Sim = 1/2 (1 - edit(ops) / longer) + 1/2 footprints`. Footprints are aligned softly (soft-DTW over costs 1 - likeness) and their likeness
is averaged under the expected alignment. A soft alignment of a trajectory with itself spends some weight beside the diagonal, so this mean
alone would give Sim(a, a) < 1; we divide by the larger of the two self-alignments' means, and cut at 1. Then Sim(a, a) = 1, Sim is
symmetric, lies in [0, 1], and is 0 between trajectories that share nothing. The paper leaves the normalisation open.
Letters: A steps of one trajectory, B steps of the other, P pairs of trajectories.
Source: paper §3.2.3, Eq. 4; Cuturi and Blondel (2017) for soft-DTW.
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
    return similarities([a], b, temperature=temperature)[0]


def similarities(chains: Sequence[Sequence[Evidence]], b: Sequence[Evidence], *, temperature: float = TEMPERATURE) -> list[float]:
    """Sim of each of several trajectories to one, which is aligned with itself once for all of them."""
    footprints = footprint_similarities(chains, b, temperature=temperature)
    return [0.5 * op_similarity(a, b) + 0.5 * footprint for a, footprint in zip(chains, footprints, strict=True)]


def trajectory_similarity(a: Trajectory, b: Trajectory) -> float:
    """Sim of two stored trajectories."""
    return similarity(evidence_of(a), evidence_of(b))


def op_similarity(a: Sequence[Evidence], b: Sequence[Evidence]) -> float:
    """1 - edit distance of the op sequences / the longer one's length, in [0, 1]; 1 where both are empty."""
    longer = max(len(a), len(b))
    return 1.0 - Levenshtein.distance([step.op for step in a], [step.op for step in b]) / longer if longer else 1.0


def footprint_similarities(chains: Sequence[Sequence[Evidence]], b: Sequence[Evidence], *, temperature: float = TEMPERATURE) -> list[float]:
    """Softly aligned mean likeness to one trajectory, relative to the self-alignments, in [0, 1]; both empty 1, one empty 0."""
    if not b:
        return [float(not a) for a in chains]
    some = [a for a in chains if a]
    pairs = [(b, b), *((a, b) for a in some), *((a, a) for a in some)]
    own, *means = aligned_means([_likenesses(x, y) for x, y in pairs], temperature)
    found = iter([min(1.0, between / max(self_a, own)) for between, self_a in zip(means[: len(some)], means[len(some) :], strict=True)])
    return [next(found) if a else 0.0 for a in chains]


def aligned_mean(likeness_AB: np.ndarray, temperature: float) -> float:
    """Mean likeness under the expected alignment of soft-DTW with costs 1 - likeness, in [0, 1].

    Args:
        likeness_AB: in [0, 1]; at least one row and one column.
    """
    return aligned_means([likeness_AB], temperature)[0]


def aligned_means(likenesses: Sequence[np.ndarray], temperature: float) -> list[float]:
    """`aligned_mean` of several pairs at once."""
    likenesses = [np.asarray(likeness_AB, np.float64) for likeness_AB in likenesses]
    _, alignments = soft_dtws([1 - likeness_AB for likeness_AB in likenesses], temperature)
    return [float((p_AB * likeness_AB).sum() / p_AB.sum()) for p_AB, likeness_AB in zip(alignments, likenesses, strict=True)]


def soft_dtw(cost_AB: np.ndarray, temperature: float) -> tuple[float, np.ndarray]:
    """Soft-DTW: the soft minimum of the costs of all monotone alignments, and the expected alignment.

    Args:
        cost_AB: finite, at least one row and one column.
        temperature: > 0, in units of the cost.

    Returns:
        -temperature * log(sum over paths of exp(-cost / temperature)), and per cell the probability [A, B] that a path drawn with these
        weights passes through it; the gradient of the first by the costs.
    """
    values, alignments = soft_dtws([cost_AB], temperature)
    return values[0], alignments[0]


def soft_dtws(costs: Sequence[np.ndarray], temperature: float) -> tuple[list[float], list[np.ndarray]]:
    """`soft_dtw` of P pairs, one cell of all of them at a time: numpy is as quick with many small numbers as with one.

    Shorter pairs are padded behind, where no path to their own last cell passes.
    """
    costs = [np.asarray(cost_AB, np.float64) for cost_AB in costs]
    sizes = [cost_AB.shape for cost_AB in costs]
    num_a, num_b = (max(size) for size in zip(*sizes, strict=True))
    cost_ABP = np.zeros((num_a, num_b, len(costs)))
    for p, ((a, b), cost_AB) in enumerate(zip(sizes, costs, strict=True)):
        cost_ABP[:a, :b, p] = cost_AB
    total_ABP = _soft_totals(cost_ABP, temperature)
    passes_ABP = _passes(cost_ABP, total_ABP, sizes, temperature)
    values = [float(total_ABP[a, b, p]) for p, (a, b) in enumerate(sizes)]
    return values, [passes_ABP[1 : a + 1, 1 : b + 1, p] for p, (a, b) in enumerate(sizes)]


def _soft_totals(cost_ABP: np.ndarray, temperature: float) -> np.ndarray:
    """Soft minimum of the costs of all paths to each cell; counted from 1, with a border of inf."""
    num_a, num_b, num_p = cost_ABP.shape
    total_ABP = np.full((num_a + 2, num_b + 2, num_p), np.inf)
    total_ABP[0, 0] = 0.0
    before_3P = np.empty((3, num_p))
    for i in range(1, num_a + 1):
        for j in range(1, num_b + 1):
            before_3P[:] = total_ABP[i - 1, j - 1], total_ABP[i - 1, j], total_ABP[i, j - 1]
            least_P = before_3P.min(0)
            share_3P = np.exp((least_P - before_3P) / temperature)
            total_ABP[i, j] = cost_ABP[i - 1, j - 1] + least_P - temperature * np.log(share_3P[0] + share_3P[1] + share_3P[2])
    return total_ABP


def _passes(cost_ABP: np.ndarray, total_ABP: np.ndarray, sizes: Sequence[tuple[int, int]], temperature: float) -> np.ndarray:
    """Probability that a path to a pair's last cell passes through each cell; 0 behind that cell and on the border."""
    num_a, num_b, _ = cost_ABP.shape
    passes_ABP = np.zeros_like(total_ABP)
    for p, (a, b) in enumerate(sizes):
        passes_ABP[a, b, p] = 1.0
    for i in range(num_a, 0, -1):
        for j in range(num_b, 0, -1):
            for k, m in ((i + 1, j + 1), (i + 1, j), (i, j + 1)):
                if k <= num_a and m <= num_b:
                    log_step_P = (total_ABP[k, m] - cost_ABP[k - 1, m - 1] - total_ABP[i, j]) / temperature
                    passes_ABP[i, j] += passes_ABP[k, m] * np.exp(log_step_P)
    return passes_ABP


def _likenesses(a: Sequence[Evidence], b: Sequence[Evidence]) -> np.ndarray:
    return np.array([[likeness(x, y) for y in b] for x in a])
