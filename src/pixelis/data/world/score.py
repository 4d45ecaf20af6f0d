"""Right or wrong: one pure rule per kind of answer.

- Multiple choice: the letter, written as `B`, `(b)`, `B.`, `B. red`, `B red`, or the option's own words; see `chosen_letter`.
- word: equal after folding (below), or one of the item's other right answers.
- text (read off a sign): equal after folding; blanks inside are ignored too, since a reader may join or split a line.
- number: equal as numbers; "three" is 3, "1,200" is 1200.
- time: the first number, in seconds, within 0.3 s of the truth.
- none (false premise): any denial: "there is no ...", "no ...", "none", "never", "nothing", "... does not ...", "... is not there".
  Not knowing is none, and after a "but" only "there is no ..." and "no such ..." are.

Folding: NFKC, lower case, "gray" to "grey", punctuation to blanks (a decimal point inside a number stays), articles dropped,
number words to digits, blanks joined.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from pixelis.data.world.item import LETTERS, Item

TIME_TOLERANCE_S = 0.3
_NUMBERS = {
    word: str(i)
    for i, word in enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"))
}
_DENIAL = re.compile(
    r"^(no|none|never|nothing|nowhere|neither)\b"
    r"|\b(there (is|are|was|were) (no|not|none)|there (isn|wasn|aren) t|((does|do|did) not|(doesn|don|didn) t)(?! (matter|mind|know|tell))"
    r"|not (there|present|visible|exist)|never|no such|absent)\b"
)
_NO_SUCH = re.compile(r"\bthere (is|are|was|were) (no|none)\b|\bno such\b")
_BUT = re.compile(r"\bbut\b.*", re.IGNORECASE | re.DOTALL)
_LEAD = re.compile(r"^(the )?(answer|option|choice)( is)?:?\s+", re.IGNORECASE)
_LETTER = re.compile(r"\(?([a-h])(?:(?P<mark>\)?[.:]|\))|(?=\s|$))", re.IGNORECASE)
_OTHER_LETTER = re.compile(r"(?:^|\s)\(?([a-h])(?:\)|[.:])(?=\s|$)|\b(?:or|and)\s+\(?([a-h])\b", re.IGNORECASE)


def fold(text: str) -> str:
    """A text as it is compared: see the module."""
    text = unicodedata.normalize("NFKC", text).lower().replace("gray", "grey")
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"(?<!\d)\.|\.(?!\d)", " ", text)
    text = re.sub(r"[^\w.\s-]|_", " ", text)
    text = re.sub(r"(?<!\S)-(?!\d)|(?<=\w)-", " ", text)
    words = [_NUMBERS.get(word, word) for word in text.split() if word not in ("a", "an", "the")]
    return " ".join(words)


def score_answer(item: Item, answer: str) -> float:
    """1.0 for a right answer, 0.0 for a wrong or empty one."""
    if item.choices:
        return float(chosen_letter(answer, item.choices) == item.answer)
    return float(bool(answer.strip()) and _right(item, answer))


def chosen_letter(answer: str, choices: Sequence[str]) -> str | None:
    """The letter of the option that an answer names; None where it names none, or more than one.

    An option's own words ("a triangle" is one, and no letter A), with or without its letter ("B red"); else a letter ("B", "(b)", "B. red",
    "the answer is B", "B because it is red") whose further words are not another option's. A bare "a" before other words is an article.
    """
    lead = _LEAD.match(answer.strip())
    text = answer.strip()[lead.end() :] if lead else answer.strip()
    words = {letter: fold(choice) for letter, choice in zip(LETTERS, choices, strict=False)}
    found = _LETTER.match(text)
    letter = found.group(1).upper() if found else ""
    rest = text[found.end() :] if found else ""
    if not (found and (found.group("mark") or not rest.strip())):
        same = [letter for letter, choice in words.items() if choice and fold(text) == choice]
        if same:
            return same[0] if len(same) == 1 else None
    is_article = bool(found) and letter == "A" and not found.group("mark") and bool(rest.strip()) and not (lead and found.group(1) == "A")
    if letter not in words or (is_article and fold(rest) != words[letter]):
        return None
    others = {other.upper() for pair in _OTHER_LETTER.findall(rest) for other in pair if other} & set(words) - {letter}
    is_other = fold(rest) != words[letter] and fold(rest) in words.values()
    return None if others or is_other else letter


def _right(item: Item, answer: str) -> bool:
    said = fold(answer)
    if item.answer_kind == "time":
        number = re.search(r"-?\d+(\.\d+)?", said)
        return number is not None and abs(float(number.group()) - float(item.answer)) <= TIME_TOLERANCE_S + 1e-9
    if item.answer_kind == "number":
        return re.fullmatch(r"-?\d+(\.\d+)?", said) is not None and float(said) == float(item.answer)
    if item.answer_kind == "none":
        return (_DENIAL.search(fold(_BUT.sub("", answer))) or _NO_SUCH.search(said)) is not None
    right = {fold(text) for text in (item.answer, *item.accept)}
    if item.answer_kind == "text":
        return said.replace(" ", "") in {text.replace(" ", "") for text in right}
    return said in right
