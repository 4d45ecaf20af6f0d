"""When not to learn from a vote: the margin is thin, or the split-conformal set is not the winner alone.

Source: paper §3.2.3 and supplement 2; Angelopoulos and Bates (2021) for split-conformal sets. Letters: N calibration queries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from pixelis.core.ops import record
from pixelis.ttrl.vote import Ballot

DELTA = 0.15
ALPHA = 0.1
_ROUNDING = 1e-9

Reason = Literal["no_answer", "margin", "conformal"]


@record
class Abstention:
    """Why nothing is learnt from a query; no reason means that it is."""

    reasons: tuple[Reason, ...]
    conformal: tuple[str, ...] | None
    """The conformal set, best first; None where none was asked for."""
    is_open: bool
    """Whether the set also holds every answer that nobody gave."""

    @property
    def is_abstaining(self) -> bool:
        return bool(self.reasons)


def nonconformity(ballot: Ballot, truth: str) -> float:
    """1 - the share of the true answer, in [0, 1]; 1 where nobody gave it."""
    return 1.0 - dict(ballot.scores).get(truth, 0.0)


def conformal_quantile(nonconformity_N: Sequence[float] | np.ndarray, alpha: float = ALPHA) -> float:
    """The ceil((N + 1)(1 - alpha))-th smallest score: a new true answer lies at or below it with probability >= 1 - alpha.

    Args:
        nonconformity_N: of true answers on the calibration split, exchangeable with the queries to come.
        alpha: in (0, 1).

    Returns:
        inf where N is too small to promise anything.

    Raises:
        ValueError: alpha outside (0, 1), or a score that is not finite.
    """
    scores = np.sort(np.asarray(nonconformity_N, np.float64))
    if not 0 < alpha < 1 or not np.isfinite(scores).all():
        raise ValueError(f"alpha {alpha} must lie in (0, 1), and all {len(scores)} scores must be finite")
    rank = math.ceil((len(scores) + 1) * (1 - alpha) - _ROUNDING)
    return float(scores[rank - 1]) if rank <= len(scores) else math.inf


def conformal_set(ballot: Ballot, quantile: float) -> tuple[str, ...]:
    """The given answers whose nonconformity is at most the quantile, best first."""
    return tuple(label for label, score in ballot.scores if 1.0 - score <= quantile + _ROUNDING)


def abstain(ballot: Ballot, *, delta: float = DELTA, quantile: float | None = None) -> Abstention:
    """Whether to abstain: margin < delta, or the conformal set is not exactly the winner.

    From a quantile of 1 on the set holds every conceivable answer, also those that nobody gave: it is never the winner alone.

    Args:
        delta: least margin, in [0, 1]; 0 never abstains for it.
        quantile: of `conformal_quantile`, inf included; None goes by the margin alone.
    """
    if ballot.winner is None:
        return Abstention(reasons=("no_answer",), conformal=None if quantile is None else (), is_open=False)
    reasons: list[Reason] = []
    if ballot.margin < delta - _ROUNDING:
        reasons.append("margin")
    if quantile is None:
        return Abstention(reasons=tuple(reasons), conformal=None, is_open=False)
    found, is_open = conformal_set(ballot, quantile), quantile + _ROUNDING >= 1
    if found != (ballot.winner,) or is_open:
        reasons.append("conformal")
    return Abstention(reasons=tuple(reasons), conformal=found, is_open=is_open)
