"""Two confidences over the same items: what one errs in where it answers as many as the other, and by how much their areas differ. Pure.

N items, D draws, G confidences that occur. Items of equal confidence are never told apart, as in `selective`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pixelis.eval.metrics.selective import RiskCoverage, risk_coverage
from pixelis.eval.stats import CONFIDENCE, NO_INTERVAL, Rate

NUM_DRAWS = 2_000
PERCENTILE = "paired percentile bootstrap"


def error_at(curve: RiskCoverage, coverage: float) -> float:
    """Expected share of errors among the most confident items that make up this coverage; of equals any may be among them.

    Args:
        coverage: share of the curve's items, in [0, 1]; need be none of its points.

    Returns:
        In [0, 1]; NaN where nothing is answered.
    """
    count = coverage * curve.count
    if not count:
        return math.nan
    taken, errors = zip((0, 0.0), *((point.count, point.risk * point.count) for point in curve.points), strict=True)
    return float(np.interp(count, taken, errors)) / count


def area_gap(
    one_N: Sequence[float],
    is_wrong_N: Sequence[float],
    two_N: Sequence[float],
    is_wrong_two_N: Sequence[float],
    *,
    seed: int = 0,
    num_draws: int = NUM_DRAWS,
) -> Rate:
    """AURC of the first less AURC of the second, over the items of which both know the outcome.

    The interval is that of a bootstrap over items: in each draw both order the same items, and its ends are percentiles of the differences.

    Args:
        one_N, two_N: confidences, finite.
        is_wrong_N, is_wrong_two_N: 0 or 1; NaN where unknown.

    Returns:
        In [-1, 1], below 0 where the first is better; its count is of items, NaN when there is none.
    """
    one, wrong, two, wrong_two = (np.asarray(values, float) for values in (one_N, is_wrong_N, two_N, is_wrong_two_N))
    is_known = ~np.isnan(wrong) & ~np.isnan(wrong_two)
    one, wrong, two, wrong_two = (values[is_known] for values in (one, wrong, two, wrong_two))
    if not wrong.size:
        return Rate(math.nan, math.nan, math.nan, 0, NO_INTERVAL, is_known.size)
    value = risk_coverage(one, wrong).aurc - risk_coverage(two, wrong_two).aurc
    times_DN = np.random.default_rng(seed).multinomial(wrong.size, np.full(wrong.size, 1 / wrong.size), size=num_draws)
    gap_D = areas(one, wrong, times_DN) - areas(two, wrong_two, times_DN)
    low, high = np.quantile(gap_D, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Rate(value, float(low), float(high), wrong.size, PERCENTILE, int((~is_known).sum()))


def areas(confidence_N: np.ndarray, is_wrong_N: np.ndarray, times_DN: np.ndarray) -> np.ndarray:
    """AURC of every draw, [D]; `risk_coverage` of the drawn items gives the same one by one.

    Args:
        is_wrong_N: 0 or 1.
        times_DN: how often each item was drawn; each draw has as many items.
    """
    order = np.argsort(-confidence_N, kind="stable")
    starts = np.flatnonzero(np.diff(-confidence_N[order], prepend=-np.inf))
    size_DG = np.add.reduceat(times_DN[:, order], starts, axis=1)
    errors_DG = np.add.reduceat(times_DN[:, order] * is_wrong_N[order], starts, axis=1)
    taken_DG, sofar_DG = size_DG.cumsum(1), errors_DG.cumsum(1) - errors_DG
    before_DG, slope_DG = taken_DG - size_DG, errors_DG / np.maximum(size_DG, 1)
    count = int(taken_DG[0, -1])
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, count + 1))])
    # In a group the n-th answer brings the errors to sofar + slope * (n - before): over n, and summed, that is this.
    sum_DG = errors_DG + (sofar_DG - slope_DG * before_DG) * (harmonic[taken_DG] - harmonic[before_DG])
    return sum_DG.sum(1) / count
