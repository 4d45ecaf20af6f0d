"""How well process metrics foretell a right answer: a regularised logistic model, the area under its ROC curve, average precision. Pure.

B resamples, N items, F features. scipy finds the model's weights and the ranks behind the area; it has no average precision.
Source: paper, supplement 5 ("Logistic view").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats
from scipy.special import expit

from pixelis.eval.stats import BCA, NO_INTERVAL, NUM_RESAMPLES, Rate, bca, known

STRENGTH = 1.0
"""Of the L2 penalty on weights per standard deviation."""
LEAST_SLOPE = 1e-8
"""Of the loss per item, where the fit ends."""
FOLDS = 5


@dataclass(frozen=True)
class Logistic:
    """p(right) = 1 / (1 + exp(-(intercept + weights . (features - mean) / std))); a feature that does not vary has weight 0."""

    intercept: float
    weight_F: np.ndarray
    mean_F: np.ndarray
    std_F: np.ndarray

    def probability(self, features_NF: np.ndarray) -> np.ndarray:
        """[N], in [0, 1]."""
        return expit(self.intercept + (np.asarray(features_NF, float) - self.mean_F) / self.std_F @ self.weight_F)


def fit_logistic(features_NF: np.ndarray, is_right_N: Sequence[float], *, strength: float = STRENGTH) -> Logistic:
    """Minimise log loss + strength / 2 * |weights|^2 over standardised features; the intercept is free.

    Args:
        features_NF: finite.
        is_right_N: 0 or 1, both present: without both the intercept has no finite best value.
        strength: above 0, so that features that separate the two perfectly still have a best weight.

    Raises:
        ValueError: any of this does not hold.
        ArithmeticError: no best weights were found.
    """
    features, right = np.asarray(features_NF, float), np.asarray(is_right_N, float)
    if features.ndim != 2 or right.shape != (len(features),) or not np.isfinite(features).all() or not strength > 0:
        raise ValueError(f"wanted are finite [N, F] features, [N] labels and a strength above 0; got {features.shape}, {right.shape}")
    if set(right.tolist()) != {0.0, 1.0}:
        raise ValueError(f"a logistic model needs both 0 and 1; got {sorted(set(right.tolist()))}")
    mean_F, std_F = features.mean(0), features.std(0)
    std_F = np.where(std_F > 1e-12 * np.maximum(1.0, np.abs(mean_F)), std_F, np.inf)
    design = np.column_stack([np.ones(len(features)), (features - mean_F) / std_F])
    penalty = np.array([0.0] + [strength] * features.shape[1])

    def loss(weights: np.ndarray) -> float:
        score = design @ weights
        return float(np.sum(np.logaddexp(0, score) - right * score) + 0.5 * np.sum(penalty * weights**2))

    def slope(weights: np.ndarray) -> np.ndarray:
        return design.T @ (expit(design @ weights) - right) + penalty * weights

    def curvature(weights: np.ndarray) -> np.ndarray:
        chance = expit(design @ weights)
        return (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(penalty)

    start, options = np.zeros(design.shape[1]), {"gtol": LEAST_SLOPE * len(right)}
    found = optimize.minimize(loss, start, method="trust-exact", jac=slope, hess=curvature, options=options)
    if not found.success:
        raise ArithmeticError(f"the logistic model of {features.shape} features found no best weights: {found.message}")
    return Logistic(float(found.x[0]), found.x[1:], mean_F, std_F)


def auc(scores_BN: Sequence[float] | np.ndarray, is_right_BN: Sequence[float] | np.ndarray, axis: int = -1) -> np.ndarray:
    """Chance that a right item scores above a wrong one, a tie counting half.

    Args:
        scores_BN, is_right_BN: [B, N], or [N] for one.
        axis: as scipy's bootstrap names it; the last.

    Returns:
        [B], or one, in [0, 1]; NaN unless both kinds are there.
    """
    right_BN = np.asarray(is_right_BN, bool)
    num_right_B = right_BN.sum(-1)
    above_B = (stats.rankdata(scores_BN, axis=-1) * right_BN).sum(-1) - num_right_B * (num_right_B + 1) / 2
    with np.errstate(invalid="ignore"):
        return above_B / (num_right_B * (right_BN.shape[-1] - num_right_B))


def average_precision(scores_BN: Sequence[float] | np.ndarray, is_right_BN: Sequence[float] | np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean over the right items of the share of right ones among all that score as high, which is the gain in recall times the precision.

    Items of one score are taken together, so that their order does not matter.

    Args:
        scores_BN, is_right_BN, axis: as of `auc`.

    Returns:
        [B], or one, in (0, 1]; NaN where nothing is right.
    """
    lows_BN, right_BN = -np.asarray(scores_BN, float), np.asarray(is_right_BN, bool)
    taken_BN = stats.rankdata(lows_BN, method="max", axis=-1).astype(int)
    hits_BN = np.take_along_axis(right_BN, np.argsort(lows_BN, axis=-1), -1).cumsum(-1)
    hits_BN = np.take_along_axis(hits_BN, taken_BN - 1, -1)
    with np.errstate(invalid="ignore"):
        return (right_BN * hits_BN / taken_BN).sum(-1) / right_BN.sum(-1)


@dataclass(frozen=True)
class Foretelling:
    """How well a model that has not seen an item tells whether it is answered rightly.

    Attributes:
        auc, average_precision: with BCa intervals over items; NaN where there are fewer right or wrong items than folds.
        base_rate: share of right items: the average precision of guessing.
        model: fitted to all items, for its weights; None where it could not be.
    """

    auc: Rate
    average_precision: Rate
    base_rate: float
    model: Logistic | None

    def to_json(self, features: Sequence[str]) -> dict[str, Any]:
        """Plain JSON values; what is unknown is None.

        Args:
            features: [F] names, in order.
        """
        weights = None if self.model is None else dict(zip(features, self.model.weight_F.tolist(), strict=True))
        return {
            "features": list(features),
            "auc": self.auc.to_json(),
            "average_precision": self.average_precision.to_json(),
            "base_rate": known(self.base_rate),
            "intercept": None if self.model is None else self.model.intercept,
            "weights": weights,
        }


def foretell(
    features_NF: np.ndarray,
    is_right_N: Sequence[float],
    *,
    strength: float = STRENGTH,
    folds: int = FOLDS,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> Foretelling:
    """Fit on all folds but one, foretell that one, and judge all that was foretold.

    Args:
        features_NF: NaN where unknown; such items are counted as unscored.
        is_right_N: 0 or 1; NaN where unknown.
        seed: of the folds and of the resampling.
    """
    features, right = np.asarray(features_NF, float), np.asarray(is_right_N, float)
    is_known_N = np.isfinite(features).all(1) & np.isfinite(right)
    features, right = features[is_known_N], right[is_known_N]
    num_unscored = int((~is_known_N).sum())
    base_rate = float(right.mean()) if right.size else math.nan
    if min(right.sum(), (1 - right).sum()) < folds:
        nothing = Rate(math.nan, math.nan, math.nan, right.size, NO_INTERVAL, num_unscored)
        return Foretelling(nothing, nothing, base_rate, None)
    foretold = np.zeros(right.size)
    fold_N = _folds(right, folds, seed)
    for fold in range(folds):
        here = fold_N == fold
        foretold[here] = fit_logistic(features[~here], right[~here], strength=strength).probability(features[here])
    rates = []
    for statistic in (auc, average_precision):
        low, high = bca((foretold, right), statistic, seed=seed, num_resamples=num_resamples)
        method = NO_INTERVAL if math.isnan(low) else BCA
        rates.append(Rate(float(statistic(foretold, right)), low, high, right.size, method, num_unscored))
    return Foretelling(rates[0], rates[1], base_rate, fit_logistic(features, right, strength=strength))


def _folds(right_N: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """A fold for each item, the right and the wrong ones spread evenly."""
    generator = np.random.default_rng(seed)
    fold_N = np.zeros(right_N.size, int)
    for kind in (0.0, 1.0):
        members = generator.permutation(np.flatnonzero(right_N == kind))
        fold_N[members] = np.arange(members.size) % folds
    return fold_N
