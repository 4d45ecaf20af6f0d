"""Intervals and tests: BCa bootstrap, Clopper-Pearson, paired permutation, Benjamini-Hochberg. Pure; the mathematics is scipy's.

N items, F families (or whatever the tests of one table are about). Source: paper §4, "Statistics".
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
NUM_RESAMPLES = 10_000
BATCH_NUMBERS = 4_000_000
"""Resampled numbers in memory at once."""

BCA, CLOPPER_PEARSON, NO_INTERVAL = "BCa bootstrap", "Clopper-Pearson", "none"


@dataclass(frozen=True)
class Rate:
    """A mean or a share with its 95 % interval.

    Attributes:
        value: NaN when `count` is 0, never 0.
        low, high: NaN where there is no interval.
        count: how many observations stand behind it.
        method: how the interval was made: one of `BCA`, `CLOPPER_PEARSON`, `NO_INTERVAL`.
        num_unscored: observations that could not be scored; they are in none of the other numbers.
    """

    value: float
    low: float
    high: float
    count: int
    method: str
    num_unscored: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what is unknown is None. `num_unscored` is left out where everything was scored."""
        return {
            "value": known(self.value),
            "low": known(self.low),
            "high": known(self.high),
            "count": self.count,
            "method": self.method,
            **({"num_unscored": self.num_unscored} if self.num_unscored else {}),
        }


def known(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return float(value) if math.isfinite(value) else None


def from_known(value: float | None) -> float:
    """The inverse of `known`: None is NaN."""
    return math.nan if value is None else float(value)


def rate_from_json(values: Mapping[str, Any]) -> Rate:
    """The inverse of `Rate.to_json`.

    Raises:
        KeyError, TypeError, ValueError: a key is missing, or its value is of the wrong type.
    """
    ends = (from_known(values[name]) for name in ("value", "low", "high"))
    return Rate(*ends, int(values["count"]), str(values["method"]), int(values.get("num_unscored", 0)))


def mean_rate(values_N: Sequence[float] | np.ndarray, *, is_share: bool = True, seed: int = 0, num_resamples: int = NUM_RESAMPLES) -> Rate:
    """The mean with its BCa bootstrap interval.

    BCa is undefined on data that are all equal. Where these are all 0 or all 1 the interval is Clopper-Pearson's, which then holds for
    any values that must lie in [0, 1]: the chance that one of them is above 0 is at least their mean. Other equal data get no interval.

    Args:
        values_N: finite.
        is_share: the values are 0, 1 or shares; False for what may also lie elsewhere (numbers of steps, differences).
        seed: of the resampling; the same seed gives the same interval.

    Returns:
        Rate with the count N; NaN throughout when N is 0.

    Raises:
        ValueError: a value is not finite: leave out what could not be scored, and count it.
    """
    values_N = np.asarray(values_N, dtype=float)
    if not np.isfinite(values_N).all():
        raise ValueError(f"{np.sum(~np.isfinite(values_N))} of {values_N.size} values are not finite")
    if values_N.size == 0:
        return Rate(math.nan, math.nan, math.nan, 0, NO_INTERVAL)
    value = float(values_N.mean())
    if np.all(values_N == values_N[0]):
        if is_share and values_N[0] in (0.0, 1.0):
            return share(int(values_N.sum()), values_N.size)
        return Rate(float(values_N[0]), math.nan, math.nan, values_N.size, NO_INTERVAL)
    low, high = bca((values_N,), np.mean, seed=seed, num_resamples=num_resamples)
    if math.isnan(low):
        return Rate(value, math.nan, math.nan, values_N.size, NO_INTERVAL)
    return Rate(value, low, high, values_N.size, BCA)


def known_rate(values: Iterable[float | None], *, is_share: bool = True, seed: int = 0, num_resamples: int = NUM_RESAMPLES) -> Rate:
    """`mean_rate` of the values that are known; None and NaN are counted in `num_unscored`, and are never 0."""
    values = list(values)
    scored = [float(value) for value in values if value is not None and not math.isnan(value)]
    return replace(mean_rate(scored, is_share=is_share, seed=seed, num_resamples=num_resamples), num_unscored=len(values) - len(scored))


def bca(
    columns: Sequence[np.ndarray],
    statistic: Callable[..., Any],
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> tuple[float, float]:
    """Ends of a statistic's BCa interval; rows are drawn whole, so that what belongs to one item stays together.

    Args:
        columns: each [N], one row an item.
        statistic: of the columns, of many resamples at once; takes `axis`.

    Returns:
        Low and high; both NaN where BCa is undefined: a resample has no value, or all have the same.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            tuple(columns),
            statistic,
            n_resamples=num_resamples,
            confidence_level=CONFIDENCE,
            method="BCa",
            paired=len(columns) > 1,
            vectorized=True,
            batch=max(1, BATCH_NUMBERS // len(columns[0])),
            rng=np.random.default_rng(seed),
        ).confidence_interval
    low, high = float(found.low), float(found.high)
    return (math.nan, math.nan) if math.isnan(low) or math.isnan(high) else (low, high)


def share(num_hits: int, count: int) -> Rate:
    """`num_hits / count` with its Clopper-Pearson interval; NaN throughout when `count` is 0.

    Raises:
        ValueError: fewer than 0 hits, or more than `count`.
    """
    if not 0 <= num_hits <= count:
        raise ValueError(f"{num_hits} hits of {count}")
    if count == 0:
        return Rate(math.nan, math.nan, math.nan, 0, NO_INTERVAL)
    found = stats.binomtest(num_hits, count).proportion_ci(confidence_level=CONFIDENCE, method="exact")
    return Rate(num_hits / count, float(found.low), float(found.high), count, CLOPPER_PEARSON)


def paired_p(
    one_N: Sequence[float] | np.ndarray, two_N: Sequence[float] | np.ndarray, *, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> float:
    """Two-sided p of the paired permutation test on the mean difference; exact where all 2^N exchanges are at most `num_resamples`.

    Args:
        one_N, two_N: values of the same items in the same order.

    Returns:
        p in (0, 1]; NaN when N is 0. Pairs that are all equal give 1.

    Raises:
        ValueError: the two differ in length, or hold what is not finite.
    """
    one_N, two_N = np.asarray(one_N, dtype=float), np.asarray(two_N, dtype=float)
    if one_N.shape != two_N.shape or not np.isfinite(one_N - two_N).all():
        raise ValueError(f"pairs of finite values are wanted; got {one_N.shape} and {two_N.shape}")
    differs_N = one_N != two_N  # an exchange of equal values changes nothing: without them the test is the same, and sooner exact
    if one_N.size == 0 or not differs_N.any():
        return math.nan if one_N.size == 0 else 1.0
    if differs_N.sum() == 1:  # scipy wants two pairs; of the two exchanges of one pair, both are as extreme as what was seen
        return 1.0
    found = stats.permutation_test(
        (one_N[differs_N], two_N[differs_N]),
        lambda one, two, axis: np.sum(one - two, axis=axis),
        permutation_type="samples",
        alternative="two-sided",
        vectorized=True,
        n_resamples=num_resamples,
        batch=max(1, BATCH_NUMBERS // int(differs_N.sum())),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def benjamini_hochberg(p_F: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values adjusted so that rejecting those up to q keeps the expected share of false discoveries at q.

    Args:
        p_F: in [0, 1]; NaN for a test that could not be made.

    Returns:
        [F], in [0, 1]; NaN where the input is NaN, which counts for no test.
    """
    adjusted_F = np.array(p_F, dtype=float)
    is_made_F = ~np.isnan(adjusted_F)
    if is_made_F.any():
        adjusted_F[is_made_F] = stats.false_discovery_control(adjusted_F[is_made_F], method="bh")
    return adjusted_F
