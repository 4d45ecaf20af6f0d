"""The answer's own reward: exact, or by degree for texts (ANLS) and numbers (MRA). Only the last turn's answer counts, and floods earn 0.

Source: paper §3.2.2; Biten et al. (2019) for ANLS, Yang et al. (2024) for MRA.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

MAX_ANSWER_CHARS = 1000
"""A longer answer is a flood that hopes to hold the right word somewhere."""
LEAST_SIMILARITY = 0.5
MRA_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""Unrounded, as VSI-Bench makes them: the ninth lies just below 0.9, so that an error of exactly a tenth meets it."""


def normalised(text: str) -> str:
    """NFKC, lower case, blanks joined, outer punctuation dropped."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).lower()).strip(" .,;:!?\"'")


def exact(answer: str, truths: Sequence[str]) -> float:
    return float(normalised(answer) in {normalised(truth) for truth in truths})


def anls(answer: str, truths: Sequence[str]) -> float:
    """Largest similarity, 1 - edits / length of the longer text, in [0, 1]; below 0.5 it is 0."""
    said = normalised(answer)
    best = max((Levenshtein.normalized_similarity(said, normalised(truth)) for truth in truths), default=0.0)
    return float(best) if best >= LEAST_SIMILARITY else 0.0


def mean_relative_accuracy(said: float | None, truth: float) -> float:
    """MRA of one number: share of thresholds t in 0.50, 0.55, ... 0.95 with |said - truth| / |truth| <= 1 - t, in [0, 1].

    Thresholds and comparison are the official ones of VSI-Bench, in plain floating point: just at a threshold, rounding decides there as
    here (9 of 10 is worth 0.9, and 8 of 10 is worth 0.6). A truth of 0, which the official rule cannot judge, is only met by 0.

    Args:
        said: None or NaN where no number was said: 0.
    """
    if said is None or math.isnan(said):
        return 0.0
    if truth == 0:
        return float(said == 0)
    return float(np.mean(abs(said - truth) / abs(truth) <= 1 - np.array(MRA_THRESHOLDS)))


def relative_accuracy(answer: str, truth: float) -> float:
    """MRA of the first number that an answer says; 0 where it says none."""
    found = re.search(r"-?\d+(?:\.\d+)?", answer.replace(",", ""))
    return mean_relative_accuracy(float(found.group()) if found else None, truth)


def is_flood(final_text: str) -> bool:
    """Whether the last turn hopes to be right by saying everything: too long, or more than one answer in it."""
    return len(final_text) > MAX_ANSWER_CHARS or final_text.count("<answer>") > 1
