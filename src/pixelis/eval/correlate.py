"""Do process metrics go with being right? Pearson, point-biserial, Spearman and partial correlations, with intervals and tests. Pure.

N items, B resamples, C controls (chain length, surprisal). Source: paper §4 ("Process metrics vs. correctness"), supplement 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from pixelis.eval.stats import BATCH_NUMBERS, BCA, NO_INTERVAL, NUM_RESAMPLES, bca, benjamini_hochberg, known

_TINY = 1e-12
"""Of a column's own sum of squares: what is left below this share is rounding, not variation."""


@dataclass(frozen=True)
class Correlation:
    """A coefficient in [-1, 1] with its 95 % interval and the p-value of no correlation.

    Attributes:
        value: NaN where one side does not vary (or not beyond what the controls say), or where items are too few.
        low, high: NaN where BCa is undefined, for instance because some resample does not vary.
        p: two-sided, by permutation; exact where all N! orders are at most the number of resamples.
        count: items behind it.
        num_unscored: items of which a value or a control is unknown.
        method: of the interval: `BCA` or `NO_INTERVAL`.
        q: p after Benjamini-Hochberg over the correlations of one table, see `with_q`; NaN outside of one.
    """

    value: float
    low: float
    high: float
    p: float
    count: int
    num_unscored: int
    method: str
    q: float = math.nan

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what is unknown is None."""
        numbers = {name: known(getattr(self, name)) for name in ("value", "low", "high", "p", "q")}
        return {**numbers, "count": self.count, "num_unscored": self.num_unscored, "method": self.method}


def with_q(table: Sequence[Correlation]) -> list[Correlation]:
    """The correlations of one table with their q; one without a p counts for no test, and its q is NaN."""
    q = benjamini_hochberg([one.p for one in table])
    return [replace(one, q=float(value)) for one, value in zip(table, q, strict=True)]


def spearman(one_N: Sequence[float], two_N: Sequence[float], *, seed: int = 0, num_resamples: int = NUM_RESAMPLES) -> Correlation:
    """Correlation of the ranks; ties share their mean rank."""
    return correlation(one_N, two_N, is_ranked=True, seed=seed, num_resamples=num_resamples)


def point_biserial(
    is_right_N: Sequence[float], values_N: Sequence[float], *, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> Correlation:
    """Pearson's coefficient of a 0/1 variable with a number.

    Raises:
        ValueError: a known value of the first is neither 0 nor 1.
    """
    binary_N = np.asarray(is_right_N, float)
    if not np.isin(binary_N[~np.isnan(binary_N)], (0.0, 1.0)).all():
        raise ValueError("point-biserial wants 0 and 1 (NaN where unknown) as its first variable")
    return correlation(binary_N, values_N, seed=seed, num_resamples=num_resamples)


def correlation(
    one_N: Sequence[float],
    two_N: Sequence[float],
    controls: Sequence[Sequence[float]] = (),
    *,
    is_ranked: bool = False,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> Correlation:
    """Pearson's coefficient; with controls the partial one: of what a linear fit on the controls leaves of both.

    The p-value permutes what the controls leave of the second variable and fits the controls again (Freedman and Lane, 1983).

    Args:
        one_N, two_N: values of the same items in the same order; NaN where unknown.
        controls: [C] columns of the same items; constant ones and repeated ones change nothing.
        is_ranked: replace every column by its ranks first (Spearman's, and the partial rank correlation).

    Raises:
        ValueError: columns of different lengths, or an infinite value.
    """
    columns = [np.asarray(column, float) for column in (one_N, two_N, *controls)]
    if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1 or any(np.isinf(column).any() for column in columns):
        raise ValueError(f"columns of one length and without infinite values are wanted; got shapes {[c.shape for c in columns]}")
    is_known_N = ~np.isnan(np.stack(columns)).any(axis=0)
    columns = [column[is_known_N] for column in columns]
    count, num_unscored = int(is_known_N.sum()), int((~is_known_N).sum())

    def statistic(*columns_BN: np.ndarray, axis: int = -1) -> np.ndarray:
        return _coefficient(*columns_BN, is_ranked=is_ranked)

    value = float(statistic(*columns)) if count >= 3 + len(controls) else math.nan
    if math.isnan(value):
        return Correlation(math.nan, math.nan, math.nan, math.nan, count, num_unscored, NO_INTERVAL)
    low, high = bca(columns, statistic, seed=seed, num_resamples=num_resamples)
    p = _permutation_p([stats.rankdata(c) for c in columns] if is_ranked else columns, seed=seed, num_resamples=num_resamples)
    return Correlation(value, low, high, p, count, num_unscored, NO_INTERVAL if math.isnan(low) else BCA)


def _coefficient(*columns_BN: np.ndarray, is_ranked: bool) -> np.ndarray:
    """Coefficient [B] (or one) of the first two columns given the others; NaN where either has nothing left that varies."""
    columns = [stats.rankdata(column, axis=-1) if is_ranked else column for column in columns_BN]
    one, two = _without(columns[:2], columns[2:])
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (one * two).sum(-1) / np.sqrt((one * one).sum(-1) * (two * two).sum(-1))
    return np.clip(found, -1.0, 1.0)


def _without(targets: Sequence[np.ndarray], controls: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What a linear fit (with intercept) on the controls leaves of each target; NaN where that is nothing.

    Each control is first freed of those before it (modified Gram-Schmidt), so that one which says nothing new drops out.
    """
    columns = [_centred(column) for column in (*controls, *targets)]
    sizes = [(column * column).sum(-1, keepdims=True) for column in columns]
    for place, size in enumerate(sizes[: len(controls)]):
        control = columns[place]
        left = (control * control).sum(-1, keepdims=True)
        scale = np.where(left > _TINY * size, left, np.inf)  # nothing left: no direction to take out
        for later in range(place + 1, len(columns)):
            columns[later] = columns[later] - control * ((columns[later] * control).sum(-1, keepdims=True) / scale)
    rests = zip(columns[len(controls) :], sizes[len(controls) :], strict=True)
    return [np.where((rest * rest).sum(-1, keepdims=True) > _TINY * size, rest, np.nan) for rest, size in rests]


def _centred(column: np.ndarray) -> np.ndarray:
    """Deviations from the mean; exactly 0 for a column that does not vary, where rounding would leave noise."""
    flat = (column == column[..., :1]).all(-1, keepdims=True)
    return np.where(flat, 0.0, column - column.mean(-1, keepdims=True))


def _permutation_p(columns: Sequence[np.ndarray], *, seed: int, num_resamples: int) -> float:
    """Two-sided p in (0, 1] of no correlation between the first two columns given the others."""
    one, two = _without(columns[:2], columns[2:])
    controls = [np.broadcast_to(control, two.shape) for control in columns[2:]]

    def statistic(shuffled_BN: np.ndarray, axis: int = -1) -> np.ndarray:
        (rest,) = _without([shuffled_BN], [np.broadcast_to(control, shuffled_BN.shape) for control in controls])
        return np.nan_to_num((one * rest).sum(-1) / np.sqrt((one * one).sum(-1) * (rest * rest).sum(-1)))

    found = stats.permutation_test(
        (two,),
        statistic,
        permutation_type="pairings",
        alternative="two-sided",
        vectorized=True,
        n_resamples=num_resamples,
        batch=max(1, BATCH_NUMBERS // two.size),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)
