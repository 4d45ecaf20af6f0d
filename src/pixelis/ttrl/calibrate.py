"""Calibration of confidences: five maps from logits to probabilities, fitted on a dev split by negative log-likelihood (NLL).

A confidence p that an answer is right is a problem of two classes with the logits (0, log p/(1 - p)), and calibrates like any other: see
`confidence_logits`. Letters: N examples, K classes. Source: supplement 2; Guo et al. (2017) for temperature, vector and matrix scaling,
Platt (1999) for the logistic fit and its smoothed targets, Zadrozny and Elkan (2002) for isotonic regression one class against the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Discriminator
from scipy.optimize import isotonic_regression, minimize, minimize_scalar
from scipy.special import expit, log_softmax, logsumexp, softmax

from pixelis.core.errors import ConfigError, DataError
from pixelis.core.ops import record

LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.05, 20.0
RIDGE = 1e-3
"""Pull of vector and matrix scaling towards the identity: without it, classes that can be told apart perfectly have no best fit."""
NUM_BINS = 15
LEAST_PROBABILITY = 1e-6
"""Confidences are kept this far from 0 and 1."""


# ---------------------------------------------------------------- the maps


@record
class Temperature:
    """softmax(z / T)."""

    name: Literal["temperature"] = "temperature"
    temperature: float

    def probabilities(self, logits_NK: np.ndarray) -> np.ndarray:
        return softmax(np.asarray(logits_NK, np.float64) / self.temperature, axis=-1)


@record
class Platt:
    """sigmoid(a_k s_k + b_k) of the log-odds s_k of each class against the rest, over their sum."""

    name: Literal["platt"] = "platt"
    slope: tuple[float, ...]
    offset: tuple[float, ...]

    def probabilities(self, logits_NK: np.ndarray) -> np.ndarray:
        return _shares(expit(np.array(self.slope) * log_odds(logits_NK) + np.array(self.offset)))


@record
class Vector:
    """softmax(w * z + b), one scale and one offset per class."""

    name: Literal["vector"] = "vector"
    scale: tuple[float, ...]
    offset: tuple[float, ...]

    def probabilities(self, logits_NK: np.ndarray) -> np.ndarray:
        return softmax(np.array(self.scale) * np.asarray(logits_NK, np.float64) + np.array(self.offset), axis=-1)


@record
class Matrix:
    """softmax(W z + b)."""

    name: Literal["matrix"] = "matrix"
    weight: tuple[tuple[float, ...], ...]
    offset: tuple[float, ...]

    def probabilities(self, logits_NK: np.ndarray) -> np.ndarray:
        return softmax(np.asarray(logits_NK, np.float64) @ np.array(self.weight).T + np.array(self.offset), axis=-1)


@record
class Isotonic:
    """A rising broken line through (knot, value) of each class's probability against the rest, over their sum; level beyond its ends."""

    name: Literal["isotonic"] = "isotonic"
    knots: tuple[tuple[float, ...], ...]
    values: tuple[tuple[float, ...], ...]

    def probabilities(self, logits_NK: np.ndarray) -> np.ndarray:
        prob_NK = softmax(np.asarray(logits_NK, np.float64), axis=-1)
        pairs = zip(prob_NK.T, self.knots, self.values, strict=True)
        return _shares(np.stack([np.interp(column, knots, values) for column, knots, values in pairs], axis=-1))


Calibrator = Annotated[Temperature | Platt | Vector | Matrix | Isotonic, Discriminator("name")]


def _shares(score_NK: np.ndarray) -> np.ndarray:
    total = score_NK.sum(-1, keepdims=True)
    return np.where(total > 0, score_NK / np.where(total > 0, total, 1.0), 1 / score_NK.shape[-1])


def log_odds(logits_NK: np.ndarray) -> np.ndarray:
    """log p_k / (1 - p_k) of the softmax, [N, K]."""
    logits = np.asarray(logits_NK, np.float64)
    rest = [logsumexp(np.delete(logits, k, axis=-1), axis=-1) for k in range(logits.shape[-1])]
    return logits - np.stack(rest, axis=-1)


# ---------------------------------------------------------------- confidences


def confidence_logits(confidence_N: Sequence[float] | np.ndarray) -> np.ndarray:
    """(0, log p / (1 - p)) per confidence, [N, 2]: class 1 is "right"."""
    p = np.clip(np.asarray(confidence_N, np.float64), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return np.stack([np.zeros_like(p), np.log(p) - np.log1p(-p)], axis=-1)


def calibrated(calibrator: Calibrator, confidence_N: Sequence[float] | np.ndarray) -> np.ndarray:
    """Calibrated confidences, in [0, 1] [N]."""
    return calibrator.probabilities(confidence_logits(confidence_N))[:, 1]


# ---------------------------------------------------------------- the fits


def fit_temperature(logits_NK: np.ndarray, label_N: np.ndarray) -> Temperature:
    """T in [0.05, 20]; NLL has one minimum in it."""

    def loss(log_t: float) -> float:
        return _nll(log_softmax(logits_NK / np.exp(log_t), axis=-1), label_N)

    low, high = np.log(LEAST_TEMPERATURE), np.log(MOST_TEMPERATURE)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-9})
    return Temperature(temperature=float(np.exp(found.x)))


def fit_platt(logits_NK: np.ndarray, label_N: np.ndarray) -> Platt:
    """Logistic fit per class, with Platt's targets: (n+ + 1) / (n+ + 2) instead of 1, and 1 / (n- + 2) instead of 0."""
    odds_NK = log_odds(logits_NK)
    fits = [_logistic(odds_NK[:, k], label_N == k) for k in range(odds_NK.shape[1])]
    return Platt(slope=tuple(a for a, _ in fits), offset=tuple(b for _, b in fits))


def fit_vector(logits_NK: np.ndarray, label_N: np.ndarray) -> Vector:
    num_k = logits_NK.shape[1]
    target_NK = np.eye(num_k)[label_N]

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        logp_NK = log_softmax(x[:num_k] * logits_NK + x[num_k:], axis=-1)
        error_NK = (np.exp(logp_NK) - target_NK) / len(label_N)
        off = np.concatenate([x[:num_k] - 1, x[num_k:]])
        return _nll(logp_NK, label_N) + RIDGE * float(off @ off), np.concatenate(
            [(error_NK * logits_NK).sum(0), error_NK.sum(0)]
        ) + 2 * RIDGE * off

    x = _minimised(loss, np.concatenate([np.ones(num_k), np.zeros(num_k)]))
    return Vector(scale=_floats(x[:num_k]), offset=_floats(x[num_k:]))


def fit_matrix(logits_NK: np.ndarray, label_N: np.ndarray) -> Matrix:
    num_k = logits_NK.shape[1]
    target_NK, start = np.eye(num_k)[label_N], np.concatenate([np.eye(num_k).ravel(), np.zeros(num_k)])

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        logp_NK = log_softmax(logits_NK @ x[:-num_k].reshape(num_k, num_k).T + x[-num_k:], axis=-1)
        error_NK = (np.exp(logp_NK) - target_NK) / len(label_N)
        off = x - start
        return _nll(logp_NK, label_N) + RIDGE * float(off @ off), np.concatenate(
            [(error_NK.T @ logits_NK).ravel(), error_NK.sum(0)]
        ) + 2 * RIDGE * off

    x = _minimised(loss, start)
    return Matrix(weight=tuple(_floats(row) for row in x[:-num_k].reshape(num_k, num_k)), offset=_floats(x[-num_k:]))


def fit_isotonic(logits_NK: np.ndarray, label_N: np.ndarray) -> Isotonic:
    prob_NK = softmax(logits_NK, axis=-1)
    knots, values = [], []
    for k in range(prob_NK.shape[1]):
        place, where, count = np.unique(prob_NK[:, k], return_inverse=True, return_counts=True)
        share = np.bincount(where, label_N == k) / count  # examples of one probability are one point
        knots.append(_floats(place))
        values.append(_floats(np.clip(isotonic_regression(share, weights=count).x, 0, 1)))
    return Isotonic(knots=tuple(knots), values=tuple(values))


CALIBRATORS: dict[str, Callable[[np.ndarray, np.ndarray], Calibrator]] = {
    "temperature": fit_temperature,
    "platt": fit_platt,
    "vector": fit_vector,
    "matrix": fit_matrix,
    "isotonic": fit_isotonic,
}


def fit_calibrator(name: str, logits_NK: np.ndarray, label_N: Sequence[int] | np.ndarray) -> Calibrator:
    """The calibrator of this name, fitted.

    Args:
        logits_NK: of the dev split; of confidences by `confidence_logits`.
        label_N: the true class of each; for confidences 1 where the answer was right, else 0.

    Raises:
        ConfigError: no calibrator has this name.
        DataError: nothing to fit on, logits that are not finite, or labels that are no classes.
    """
    if name not in CALIBRATORS:
        raise ConfigError(f"calibrator {name!r}: choose one of {', '.join(CALIBRATORS)}")
    logits, label = _checked(logits_NK, label_N)
    return CALIBRATORS[name](logits, label)


def _checked(logits_NK: np.ndarray, label_N: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    logits, label = np.asarray(logits_NK, np.float64), np.asarray(label_N).astype(int)
    if logits.ndim != 2 or not len(logits) or logits.shape[1] < 2 or label.shape != (len(logits),):
        raise DataError(
            f"calibration needs logits [N, K >= 2] and N labels; got {logits.shape} and {label.shape}: score the dev split first"
        )
    if not np.isfinite(logits).all():
        num_bad = int((~np.isfinite(logits)).any(-1).sum())
        raise DataError(f"{num_bad} of {len(logits)} examples have logits that are not finite; leave them out, and count them")
    if not ((label >= 0) & (label < logits.shape[1])).all():
        raise DataError(f"labels run from {label.min()} to {label.max()}; the logits have classes 0 to {logits.shape[1] - 1}")
    return logits, label


def _logistic(odds_N: np.ndarray, is_class_N: np.ndarray) -> tuple[float, float]:
    num_in, num_out = int(is_class_N.sum()), int((~is_class_N).sum())
    target_N = np.where(is_class_N, (num_in + 1) / (num_in + 2), 1 / (num_out + 2))

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        z = x[0] * odds_N + x[1]
        error = (expit(z) - target_N) / len(odds_N)
        return float((np.logaddexp(0, z) - target_N * z).mean()), np.array([error @ odds_N, error.sum()])

    slope, offset = _minimised(loss, np.array([1.0, 0.0]))
    return float(slope), float(offset)


def _minimised(loss: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray) -> np.ndarray:
    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000, "ftol": 1e-13, "gtol": 1e-8}).x


def _nll(logp_NK: np.ndarray, label_N: np.ndarray) -> float:
    return -float(logp_NK[np.arange(len(label_N)), label_N].mean())


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


# ---------------------------------------------------------------- how well


@dataclass(frozen=True)
class CalibrationReport:
    """A calibrator on one split. Of two classes the confidence is that of class 1 ("right"); of more, the highest."""

    count: int
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float


def report(calibrator: Calibrator, logits_NK: np.ndarray, label_N: Sequence[int] | np.ndarray) -> CalibrationReport:
    """NLL in nats and expected calibration error, before and after.

    Raises:
        DataError: as `fit_calibrator`.
    """
    logits, label = _checked(logits_NK, label_N)
    before_NK, after_NK = softmax(logits, axis=-1), calibrator.probabilities(logits)
    nll = [_nll(np.log(np.maximum(prob_NK, LEAST_PROBABILITY)), label) for prob_NK in (before_NK, after_NK)]
    ece = [expected_calibration_error(*_confidences(prob_NK, label)) for prob_NK in (before_NK, after_NK)]
    return CalibrationReport(len(label), nll[0], nll[1], ece[0], ece[1])


def _confidences(prob_NK: np.ndarray, label_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if prob_NK.shape[1] == 2:
        return prob_NK[:, 1], label_N == 1
    return prob_NK.max(-1), prob_NK.argmax(-1) == label_N


def expected_calibration_error(confidence_N: np.ndarray, is_right_N: np.ndarray, *, num_bins: int = NUM_BINS) -> float:
    """Sum over equally wide bins of (share of examples) * |mean confidence - share right|, in [0, 1]; NaN without examples.

    Bins are closed above; the first holds 0, too.
    """
    confidence, is_right = np.asarray(confidence_N, np.float64), np.asarray(is_right_N, np.float64)
    if not len(confidence):
        return float("nan")
    place_N = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    gap = np.bincount(place_N, confidence - is_right, num_bins)
    return float(np.abs(gap).sum() / len(confidence))
