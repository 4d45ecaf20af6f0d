"""The vote over whole rollouts: what each one weighs, what the answers come to, and how far the best is ahead.

Letters: N rollouts. Source: paper §3.2.3 and supplement 2; Wang et al. (2025) for ranked voting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pixelis.core.errors import ConfigError
from pixelis.core.ops import record

EPSILON = 0.1
"""What a rollout whose evidence nobody confirms keeps: a full VisFid weighs eleven times as much. The paper gives no value."""
_LEAST = 1e-12
_DIGITS = 12
"""Scores equal to so many are equal: rounding may make as much of a difference."""


@record
class Weighing:
    """The exponents of the weights."""

    power: float = 1.0
    """Of the confidence: eta."""
    scale_nats: float = 1.0
    """Of the entropy: T_H."""
    epsilon: float = EPSILON


@dataclass(frozen=True)
class Voter:
    """What is known of one rollout; NaN where something is not."""

    label: str | None
    """Its answer as it is voted on; None for none."""
    confidence: float = math.nan
    """Calibrated, in [0, 1]."""
    entropy_nats: float = math.nan
    """Mean token entropy on decisive steps."""
    fidelity: float = math.nan
    """VisFid in [0, 1]."""
    reliability: float = math.nan
    """Of its worker class, in [0, 1]."""
    ranking: tuple[str, ...] = ()
    """All answers that it considered, best first, for ranked voting; empty stands for its label alone."""
    similarity: float = math.nan
    """Of a neighbour, to the query; NaN for a rollout of the query itself."""


@record
class Ballot:
    """What a vote came to."""

    scores: tuple[tuple[str, float], ...]
    """Answers with their share of the whole weight, best first; together with `silent` they make 1."""
    silent: float
    """Share of the weight that gave no answer."""
    margin: float
    """Best minus second best share, in [0, 1]; 0 where nobody answered."""

    @property
    def winner(self) -> str | None:
        return self.scores[0][0] if self.scores else None


# ---------------------------------------------------------------- weights


def weighted(voters: Sequence[Voter], how: Weighing = Weighing()) -> np.ndarray:
    """w ∝ c^power * exp(-H / scale) * (epsilon + VisFid) * reliability, [N], with sum 1.

    A factor that is not known of a rollout is taken as the mean over those it is known of, and drops out where it is known of none. Unknown
    is not zero: a rollout that needed no tool has no evidence that could be refuted, and should neither lose nor win by it.
    """
    confidence, entropy, fidelity, reliability = (
        _filled([getattr(voter, name) for voter in voters]) for name in ("confidence", "entropy_nats", "fidelity", "reliability")
    )
    with np.errstate(divide="ignore"):
        log_weight = (
            how.power * np.log(np.maximum(confidence, _LEAST))
            - entropy / how.scale_nats
            + np.log(np.maximum(how.epsilon + fidelity, _LEAST))
            + np.log(np.maximum(reliability, _LEAST))
        )
    weight = np.exp(log_weight - log_weight.max())
    return weight / math.fsum(weight)


def equal(voters: Sequence[Voter], how: Weighing = Weighing()) -> np.ndarray:
    """1 / N each: hard majority."""
    return np.full(len(voters), 1 / len(voters))


def by_confidence(voters: Sequence[Voter], how: Weighing = Weighing()) -> np.ndarray:
    """w ∝ c^power, [N], with sum 1: answers only, nothing of how they were found."""
    weight = np.maximum(_filled([voter.confidence for voter in voters]), _LEAST) ** how.power
    return weight / math.fsum(weight)


def first_alone(voters: Sequence[Voter], how: Weighing = Weighing()) -> np.ndarray:
    """All weight to the first that answers, or to the very first where none does: no vote at all, [N]."""
    chosen = next((k for k, voter in enumerate(voters) if voter.label is not None), 0)
    return np.eye(len(voters))[chosen]


def by_similarity(voters: Sequence[Voter], how: Weighing = Weighing()) -> np.ndarray:
    """w ∝ a neighbour's similarity, 0 for rollouts, [N], with sum 1; neighbours whose answer no rollout gave have no say.

    The rollouts only say which answers are possible. Where no neighbour has a say they weigh the same, and decide alone.
    """
    is_rollout_N = np.isnan([voter.similarity for voter in voters])
    possible = {voter.label for voter, is_rollout in zip(voters, is_rollout_N, strict=True) if is_rollout} - {None}
    weight = np.array([max(0.0, voter.similarity) if voter.label in possible else 0.0 for voter in voters])
    weight = np.where(is_rollout_N, 0.0, weight)
    total = math.fsum(weight)
    return weight / total if total > 0 else is_rollout_N / is_rollout_N.sum()


def _filled(values: Sequence[float]) -> np.ndarray:
    """Unknown values replaced by the mean of the known ones; all 1 where none is known, which is the same factor for everyone."""
    values_N = np.array(values, np.float64)
    known = values_N[np.isfinite(values_N)]
    return np.where(np.isfinite(values_N), values_N, math.fsum(known) / len(known) if len(known) else 1.0)


# ---------------------------------------------------------------- counting


def count(labels: Sequence[str | None], weight_N: np.ndarray) -> Ballot:
    """Sum of weights per answer, as shares of all weights, those of rollouts without an answer included.

    So a lone answer among many rollouts that gave none has a small margin. Of equal scores the one whose first supporter comes first leads.

    Args:
        weight_N: >= 0, not all 0.

    Raises:
        ValueError: weights that are negative, not finite or all 0, or that do not fit the labels.
    """
    return _ballot([((label, 1.0),) if label is not None else () for label in labels], weight_N)


def borda(rankings: Sequence[Sequence[str]], weight_N: np.ndarray) -> Ballot:
    """Ranked voting: of M answers in all, a rollout gives M points to its first, M - 1 to its second, none to those it does not rank.

    With rankings of one answer each this is `count`.

    Args:
        rankings: answers per rollout, best first, none twice; empty for a rollout without an answer.
    """
    num_answers = len({label for ranking in rankings for label in ranking})
    return _ballot([tuple((label, float(num_answers - place)) for place, label in enumerate(ranking)) for ranking in rankings], weight_N)


def _ballot(points: Sequence[Sequence[tuple[str, float]]], weight_N: np.ndarray) -> Ballot:
    weights = [float(weight) for weight in weight_N]
    if len(weights) != len(points) or not all(0 <= weight < math.inf for weight in weights) or not math.fsum(weights) > 0:
        raise ValueError(f"{len(points)} rollouts need as many weights, >= 0 and not all 0; got {weights}")
    # A silent rollout speaks for no answer, as loudly as a rollout that ranks one answer would.
    loudness = max((share for row in points for _, share in row), default=1.0)
    gathered: dict[str, list[float]] = {}
    for row, weight in zip(points, weights, strict=True):
        for label, share in row:
            gathered.setdefault(label, []).append(share * weight)
    silent = math.fsum(loudness * weight for row, weight in zip(points, weights, strict=True) if not row)
    sums = {label: math.fsum(parts) for label, parts in gathered.items()}
    whole = math.fsum([*sums.values(), silent])
    order = sorted(sums, key=lambda label: -round(sums[label] / whole, _DIGITS))  # stable: first supporter first
    scores = tuple((label, sums[label] / whole) for label in order)
    first, second = (scores[place][1] if len(scores) > place else 0.0 for place in (0, 1))
    return Ballot(scores=scores, silent=silent / whole, margin=max(0.0, first - second))


# ---------------------------------------------------------------- by name

WEIGHTS: dict[str, Callable[[Sequence[Voter], Weighing], np.ndarray]] = {
    "weighted": weighted,
    "majority": equal,
    "confidence": by_confidence,
    "borda": equal,
    "first": first_alone,
    "similarity": by_similarity,
}
"""What rollouts weigh, and neighbours where they are counted: in the paper's vote, and in the baselines it is compared with."""


def hold_vote(voters: Sequence[Voter], kind: str = "weighted", how: Weighing = Weighing()) -> tuple[np.ndarray, Ballot]:
    """The weights [N] and the ballot of a vote by name.

    Raises:
        ConfigError: no vote has this name.
    """
    if kind not in WEIGHTS:
        raise ConfigError(f"vote {kind!r}: choose one of {', '.join(WEIGHTS)}")
    weight_N = WEIGHTS[kind](voters, how)
    if kind == "borda":
        alone = [() if voter.label is None else (voter.label,) for voter in voters]
        return weight_N, borda([voter.ranking or one for voter, one in zip(voters, alone, strict=True)], weight_N)
    return weight_N, count([voter.label for voter in voters], weight_N)
