"""MMMU's rule for open answers, as Video-MMMU uses it: does the answer hold the truth, as a text or as a number? Pure.

Source: Yue et al. (2023), MMMU; the published evaluation of both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SIGNS = (
    "could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ", "are ", "in total ", "total ", "identify ",
    "recognize ", "calculated as ", "counted as ", "measured as ", "observed as ", "concluded as ", "found to be ", "equals ",
    "determined to be ", "number of ", "value is ", "adds up to ", "have ", "has ",
)  # fmt: skip
"""What comes before an answer inside a sentence; the shortest rest behind one of them is taken."""
_EMPTY = (":", ",", ".", "!", "?", ";", "'", "")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?(?<!\d)\d++(?:\.\d++)?[eE][+-]?\d++"),
    re.compile(r"-?(?:(?<!\d)\d++\.\d++|\.\d++|(?<!\d)\d++\b)(?![eE][+-]?\d)(?![,\d])"),
)
"""With thousands, with an exponent, plain. They find what MMMU's find, but a run of digits is read once: an answer of any length is scored
in linear time."""


def is_right(answer: str | None, truths: Sequence[str]) -> bool:
    """Whether a text of the answer holds a truth, or a number of it equals one to two decimals; False for no answer."""
    if not (answer or "").strip():
        return False
    wanted = {value for truth in truths for value in _values(truth)}
    said = [value for text in _with_numbers(_key_parts(answer or "")) for value in _values(text)]
    held = [value for value in said if isinstance(value, str)]
    return any(value in wanted for value in said if isinstance(value, float)) or any(
        truth in text for truth in wanted if isinstance(truth, str) for text in held
    )


def _key_parts(answer: str) -> list[str]:
    """For every line the shortest rest behind a sign of an answer; the whole answer when no line has one."""
    text = answer.strip().strip(".").lower()
    lines = text.split("\n")
    parts = []
    for number, line in enumerate(lines):
        signs = (*_SIGNS, "=") if number == len(lines) - 1 else _SIGNS  # the last line may be an equation
        shortest = ""
        for sign in signs:
            rest = line.split(sign)[-1].strip()
            if sign in line and (not shortest or len(rest) < len(shortest)):
                shortest = rest
        if shortest not in _EMPTY:
            parts.append(shortest)
    return parts or [text]


def _with_numbers(parts: Sequence[str]) -> list[str]:
    return [*parts, *(found for part in parts for pattern in _NUMBERS for found in pattern.findall(part))]


def _values(text: str) -> list[str | float]:
    """A text as it is compared: a number to two decimals, or lower case; a single character only beside a blank."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        lower = text.lower()
        return [f" {lower}", f"{lower} "] if len(lower) == 1 else [lower]
