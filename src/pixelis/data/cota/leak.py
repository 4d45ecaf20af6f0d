"""Does a question give its own answer away?

A question is its stem and, where it has one, its option block: two or more lines `A. ...`, `B. ...` in the order of the alphabet.
Naming the right option among the others in the block is no leak. A leak is one of:

1. A statement: an answer tag anywhere; the right answer or its letter behind `answer is`, `answer:`, `correct option =`, `\\boxed{` and
   the like, unless alternatives follow (`Answer: yes or no`); a mark such as `(correct)` in the block.
2. A gift: the right answer stands in the stem as whole words, and nothing there is an alternative to it. An alternative is another
   option of the block; another word of a kind that the answer has (a colour, a shape, a place, a number); or an `or` or `if` in the
   answer's own sentence (`the red star or the blue circle`, `write never if it stays`).

Yes, no and single letters are never gifts: they stand in sentences for other reasons; "one" in a stem is read as a pronoun, not as 1.
Texts are compared folded as answers are (case, punctuation and articles do not count). The rule would rather miss a leak than blame an
innocent question: `or` anywhere in the sentence excuses it.
"""

from __future__ import annotations

import re

from pixelis.core.grammar import ANSWER_CLOSE, ANSWER_OPEN
from pixelis.data.world.colours import COLOURS
from pixelis.data.world.raster import SHAPES
from pixelis.data.world.score import fold

_OPTION = re.compile(r"^\s*\(?([A-Z])[.):]\s*(\S.*?)\s*$")
_STATEMENT = re.compile(
    r"(?:\b(?:answer|solution|ground truth|correct (?:answer|option|choice|letter))\s*(?:is|was|will be|should be|must be|[:=]|-+>|→)+"
    r"|\\boxed\s*\{)\s*([^\n]{1,200})",
    re.IGNORECASE,
)
_MARK = re.compile(r"[✓✔]|\((?:the )?(?:correct|right answer|correct answer|answer|true)\)", re.IGNORECASE)
_ALTERNATIVE = re.compile(r"\b(?:or|if|otherwise|versus|vs)\b|/", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.?!;])\s+|\n+")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_KINDS = (
    frozenset(COLOURS),
    frozenset(SHAPES),
    frozenset(["left", "right", "up", "down", "top", "bottom", "above", "below", "middle", "centre", "center", "upper", "lower"]),
)
_NEVER_GIFTS = frozenset({"yes", "no", "true", "false"})


def find_leak(question: str, answer: str) -> str | None:
    """What in the question gives the right answer away, in words; None when nothing does.

    Args:
        question: as it is put to the policy, options included.
        answer: the right answer in words, also where a letter is asked for.
    """
    for tag in (ANSWER_OPEN, ANSWER_CLOSE):
        if tag in question:
            return f"the question holds {tag}"
    stem, options = split_options(question)
    right = fold(answer)
    letter = next((key for key, text in options.items() if fold(_MARK.sub("", text)) == right), "")
    for key, text in options.items():
        if _MARK.search(text):
            return f"option {key} carries a mark: {text!r}"
    return _statement(stem, right, letter) or _gift(stem, right, [text for key, text in options.items() if key != letter])


def split_options(question: str) -> tuple[str, dict[str, str]]:
    """The stem, and the options by letter; a block that skips a letter or has one line only is no block, and stays in the stem."""
    lines = question.split("\n")
    found = [_OPTION.match(line) for line in lines]
    for start, match in enumerate(found):
        if match is None or match.group(1) != "A":
            continue
        stop = start
        while stop < len(found) and found[stop] and found[stop].group(1) == chr(ord("A") + stop - start):
            stop += 1
        goes_on = stop < len(found) and found[stop] is not None
        if stop - start >= 2 and not goes_on:
            options = {m.group(1): m.group(2) for m in found[start:stop]}
            return "\n".join(lines[:start] + lines[stop:]), options
    return question, {}


def _statement(stem: str, right: str, letter: str) -> str | None:
    for match in _STATEMENT.finditer(stem):
        said = _SENTENCE.split(match.group(1))[0]
        if _ALTERNATIVE.search(said):
            continue
        names_letter = bool(letter) and re.match(rf"\W*{letter}\W*$", said)
        if names_letter or (right and f"{fold(said)} ".startswith(f"{right} ")):
            return f"the question states the answer: {match.group(0).strip()[:60]!r}"
    return None


def _gift(stem: str, right: str, other_options: list[str]) -> str | None:
    if (len(right) < 2 and not right.isdigit()) or right in _NEVER_GIFTS:
        return None
    stem = re.sub(r"\bones?\b", " ", stem, flags=re.IGNORECASE)
    sentences = [sentence for sentence in _SENTENCE.split(stem) if _stands_in(right, fold(sentence))]
    if not sentences or any(_ALTERNATIVE.search(sentence) for sentence in sentences):
        return None
    folded = fold(stem)
    if any(_stands_in(fold(option), folded) for option in other_options) or _has_same_kind(right, folded):
        return None
    return f"the right answer stands in the question and no alternative does: {sentences[0].strip()[:60]!r}"


def _stands_in(words: str, text: str) -> bool:
    return bool(words) and f" {words} " in f" {text} "


def _has_same_kind(right: str, folded: str) -> bool:
    """Whether a word of the answer's kind, other than the answer's own, stands in the text."""
    if _NUMBER.fullmatch(right):
        return any(number != right for number in _NUMBER.findall(folded))
    own, others = set(right.split()), set(folded.split()) - set(right.split())
    return any(own & kind and others & kind for kind in _KINDS)
