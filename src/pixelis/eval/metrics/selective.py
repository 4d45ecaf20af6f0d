"""What confidence is worth: risk against coverage, the error among what was not abstained from, calibration. Pure.

N items, K bins. Items of equal confidence are never told apart: every number here is the same in any order of the items.
Source: paper §4 (risk-coverage), supplement 9; Geifman and El-Yaniv (2017); Guo et al. (2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pixelis.eval.stats import Rate, share

NUM_BINS = 15


@dataclass(frozen=True)
class CurvePoint:
    """Answering whatever is at least this confident."""

    threshold: float
    coverage: float
    """Share of items answered, in (0, 1]."""
    risk: float
    """Share of errors among them, in [0, 1]: Err@Sel."""
    count: int
    """Items answered."""


@dataclass(frozen=True)
class RiskCoverage:
    """A risk-coverage curve.

    Attributes:
        points: one for each confidence that occurs, the highest first; the last answers everything.
        aurc: area under it: the mean over n = 1 ... N of the error among the n most confident, in [0, 1]; NaN of nothing. Within a group
            of equals the order is taken as random, and the mean over all orders is given.
        excess: `aurc` less that of an order which knows every error (E-AURC), >= 0.
        count, num_unscored: items with and without a known confidence and outcome.
    """

    points: tuple[CurvePoint, ...]
    aurc: float
    excess: float
    count: int
    num_unscored: int

    def at_coverage(self, least: float) -> CurvePoint | None:
        """The most cautious point that answers at least this share; None of an empty curve."""
        return next((point for point in self.points if point.coverage >= least - 1e-12), None)


def risk_coverage(confidence_N: Sequence[float], is_wrong_N: Sequence[float]) -> RiskCoverage:
    """Risk against coverage as the threshold on confidence falls.

    Args:
        confidence_N: anything that grows with confidence (a probability, a vote's margin); NaN where unknown.
        is_wrong_N: 0 or 1; NaN where unknown.
    """
    confidence, wrong, num_unscored = _known_pairs(confidence_N, is_wrong_N)
    if not wrong.size:
        return RiskCoverage((), math.nan, math.nan, 0, num_unscored)
    values, group_N = np.unique(-confidence, return_inverse=True)
    size = np.bincount(group_N)
    taken, errors = np.cumsum(size), np.cumsum(np.bincount(group_N, weights=wrong))
    points = tuple(
        CurvePoint(float(-value), float(n / wrong.size), float(e / n), int(n)) for value, n, e in zip(values, taken, errors, strict=True)
    )
    aurc = _area(errors, taken)
    best = _area(np.array([0.0, wrong.sum()]), np.array([wrong.size - wrong.sum(), wrong.size]))
    return RiskCoverage(points, aurc, max(0.0, aurc - best), wrong.size, num_unscored)


def _area(errors_K: np.ndarray, taken_K: np.ndarray) -> float:
    """Mean over n of the expected error among the first n, where groups end at `taken_K` with `errors_K` errors so far."""
    count = int(taken_K[-1])
    n = np.arange(1, count + 1)
    return float(np.mean(np.interp(n, [0, *taken_K], [0, *errors_K]) / n))


@dataclass(frozen=True)
class Selection:
    """What an abstention rule does.

    Attributes:
        error: Err@Sel: share of errors among answered items, with its Clopper-Pearson interval; NaN where it always abstains.
        coverage: share of items answered.
        full_error: share of errors over all items, as if it never abstained.
    """

    error: Rate
    coverage: Rate
    full_error: Rate


def selective_error(is_wrong_N: Sequence[float], is_abstained_N: Sequence[bool]) -> Selection:
    """Err@Sel and coverage of an abstention rule.

    Args:
        is_wrong_N: 0 or 1, of the answer given or withheld; NaN where unknown, which counts for coverage and not for errors.

    Raises:
        ValueError: the two differ in length, or hold something else.
    """
    wrong, abstained = np.asarray(is_wrong_N, float), np.asarray(is_abstained_N, bool)
    if wrong.shape != abstained.shape:
        raise ValueError(f"one word on abstaining for each item is wanted; got {wrong.shape} and {abstained.shape}")
    return Selection(
        error=_share_of(wrong[~abstained]),
        coverage=share(int((~abstained).sum()), abstained.size),
        full_error=_share_of(wrong),
    )


def _share_of(values_N: np.ndarray) -> Rate:
    known = values_N[~np.isnan(values_N)]
    if not np.isin(known, (0.0, 1.0)).all():
        raise ValueError("outcomes must be 0, 1 or NaN")
    rate = share(int(known.sum()), known.size)
    return Rate(rate.value, rate.low, rate.high, rate.count, rate.method, values_N.size - known.size)


# ---------------------------------------------------------------- calibration


@dataclass(frozen=True)
class Bin:
    """Items of similar confidence; what a reliability diagram draws as one bar."""

    low: float
    high: float
    """Ends of the bin for equal widths; the least and the greatest confidence in it for equal masses."""
    confidence: float
    """Mean; NaN of an empty bin."""
    accuracy: Rate


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram.

    Attributes:
        bins: from low to high confidence; empty ones only with equal widths.
        ece: expected calibration error: the mean over items of |accuracy - confidence| of their bin, in [0, 1]; NaN of nothing.
        worst: the largest such gap (MCE).
        count, num_unscored: items with and without a known confidence and outcome.
    """

    bins: tuple[Bin, ...]
    ece: float
    worst: float
    count: int
    num_unscored: int


def reliability(
    confidence_N: Sequence[float], is_right_N: Sequence[float], *, num_bins: int = NUM_BINS, is_equal_mass: bool = False
) -> Reliability:
    """ECE with its diagram.

    Args:
        confidence_N: in [0, 1]; NaN where unknown.
        is_right_N: 0 or 1; NaN where unknown.
        is_equal_mass: bins of equally many items instead of equal widths (k/K, (k+1)/K]; equals share a bin, so bins may be uneven.

    Raises:
        ValueError: a confidence outside [0, 1], or no bin.
    """
    confidence, right, num_unscored = _known_pairs(confidence_N, is_right_N)
    if num_bins < 1 or (confidence < 0).any() or (confidence > 1).any():
        raise ValueError(f"wanted are 1 or more bins and confidences in [0, 1]; got {num_bins} bins")
    if not right.size:
        return Reliability((), math.nan, math.nan, 0, num_unscored)
    edges = np.arange(num_bins + 1) / num_bins
    if is_equal_mass:
        bin_N = np.minimum(((stats.rankdata(confidence) - 0.5) / right.size * num_bins).astype(int), num_bins - 1)
    else:
        bin_N = np.searchsorted(edges[1:], confidence, side="left")
    bins, gaps = [], []
    for number in range(num_bins):
        here = bin_N == number
        if not here.any() and is_equal_mass:
            continue
        low, high = (confidence[here].min(), confidence[here].max()) if is_equal_mass else edges[number : number + 2]
        mean = float(confidence[here].mean()) if here.any() else math.nan
        bins.append(Bin(float(low), float(high), mean, share(int(right[here].sum()), int(here.sum()))))
        gaps.append((int(here.sum()), abs(bins[-1].accuracy.value - mean) if here.any() else 0.0))
    ece = sum(size * gap for size, gap in gaps) / right.size
    return Reliability(tuple(bins), float(ece), float(max(gap for _, gap in gaps)), right.size, num_unscored)


def _known_pairs(confidence_N: Sequence[float], outcome_N: Sequence[float]) -> tuple[np.ndarray, np.ndarray, int]:
    """Both where both are known, and how many are not.

    Raises:
        ValueError: they differ in length, or an outcome is neither 0 nor 1.
    """
    confidence, outcome = np.asarray(confidence_N, float), np.asarray(outcome_N, float)
    if confidence.shape != outcome.shape or confidence.ndim != 1:
        raise ValueError(f"one outcome for each confidence is wanted; got {confidence.shape} and {outcome.shape}")
    is_known = ~np.isnan(confidence) & ~np.isnan(outcome)
    if not np.isin(outcome[is_known], (0.0, 1.0)).all():
        raise ValueError("outcomes must be 0, 1 or NaN")
    return confidence[is_known], outcome[is_known], int((~is_known).sum())
