"""Answers against the truth, over many items: accuracy, ANLS, mean relative accuracy. The rule for one answer is that of the reward.

An item without an answer is wrong; an item without a truth is unscored. Source: paper §4.1; Biten et al. (2019); Yang et al. (2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rapidfuzz.distance import Levenshtein

from pixelis.eval.stats import Rate, known_rate
from pixelis.rewards.answer import LEAST_SIMILARITY, anls, exact, mean_relative_accuracy

Rule = Callable[[str, Sequence[str]], float]


def mean_score(answers_N: Sequence[str | None], truths_N: Sequence[Sequence[str]], rule: Rule, *, seed: int = 0) -> Rate:
    """Mean over items of a rule for one answer.

    Args:
        answers_N: None where there is none, which counts 0.
        truths_N: all right answers of each item; empty where the truth is not known, which leaves the item unscored.
        rule: `exact`, `anls` or `official_anls`.

    Raises:
        ValueError: not one list of truths for each answer.
    """
    pairs = zip(answers_N, truths_N, strict=True)
    return known_rate([None if not truths else 0.0 if said is None else rule(said, truths) for said, truths in pairs], seed=seed)


def accuracy(answers_N: Sequence[str | None], truths_N: Sequence[Sequence[str]], *, seed: int = 0) -> Rate:
    """Share of answers equal to a truth after normalisation (see `rewards.answer`)."""
    return mean_score(answers_N, truths_N, exact, seed=seed)


def mean_anls(answers_N: Sequence[str | None], truths_N: Sequence[Sequence[str]], *, seed: int = 0) -> Rate:
    """ANLS: the largest similarity over truths, 0 below 0.5, averaged over items."""
    return mean_score(answers_N, truths_N, anls, seed=seed)


def official_anls(answer: str, truths: Sequence[str]) -> float:
    """ANLS of one answer as the DocVQA and InfographicVQA servers reckon it, in [0, 1].

    It differs from `anls` in what it forgives: only case and blanks, no punctuation and no Unicode forms; and the edits of the cleaned
    texts are divided by the length of the longer text as it came, blanks included.
    """
    said = " ".join(answer.lower().split())
    best = 0.0
    for truth in truths:
        length = max(len(answer.upper()), len(truth.upper()))
        edits = Levenshtein.distance(said, " ".join(truth.lower().split()))
        best = max(best, 1 - edits / length if length else 1.0)
    return best if best >= LEAST_SIMILARITY else 0.0


def mean_of_relative_accuracy(said_N: Sequence[float | None], truth_N: Sequence[float | None], *, seed: int = 0) -> Rate:
    """MRA averaged over items; an item without a known truth is unscored."""
    pairs = zip(said_N, truth_N, strict=True)
    scores = [None if true is None or math.isnan(true) else mean_relative_accuracy(said, true) for said, true in pairs]
    return known_rate(scores, seed=seed)
