"""Right or wrong: one pure rule per kind of answer.

- Multiple choice: the letter, written as `B`, `(b)`, `B.`, `B. red`, or the option's own words.
- word: equal after folding (below), or one of the item's other right answers.
- text (read off a sign): equal after folding; blanks inside are ignored too, since a reader may join or split a line.
- number: equal as numbers; "three" is 3, "1,200" is 1200.
- time: the first number, in seconds, within 0.3 s of the truth.
- none (false premise): any denial: "there is no ...", "no ...", "none", "never", "nothing", "... does not ...", "... is not there".

Folding: NFKC, lower case, "gray" to "grey", punctuation to blanks (a decimal point inside a number stays), articles dropped,
number words to digits, blanks joined.
"""

from __future__ import annotations

import re
import unicodedata

from pixelis.data.world.item import LETTERS, Item

TIME_TOLERANCE_S = 0.3
_NUMBERS = {
    word: str(i)
    for i, word in enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"))
}
_DENIAL = re.compile(
    r"^(no|none|never|nothing|nowhere|neither)\b"
    r"|\b(there (is|are|was|were) (no|not|none)|there (isn|wasn|aren) t|(does|do|did) not|(doesn|don|didn) t"
    r"|not (there|present|visible|exist)|never|no such|absent)\b"
)
_LETTER = re.compile(r"^\(?([a-h])\)?(?:[.:)]|$|\s)", re.IGNORECASE)


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
    return float(bool(answer.strip()) and (_right_letter(item, answer.strip()) if item.choices else _right(item, answer)))


def _right_letter(item: Item, answer: str) -> bool:
    for letter, choice in zip(LETTERS, item.choices, strict=False):
        if fold(answer) == fold(choice) and not _is_letter(answer):
            return letter == item.answer
    found = _LETTER.match(re.sub(r"^(the )?(answer|option|choice)( is)?:?\s+", "", answer, flags=re.IGNORECASE))
    if not found or found.group(1).upper() != item.answer:
        return False
    rest = fold(answer[found.end() :])
    return not rest or rest == fold(item.plain_answer) or found.start() > 0 or not _is_option(item, rest)


def _is_letter(answer: str) -> bool:
    return len(answer.strip("().: ")) == 1 and answer.strip("().: ").isalpha()


def _is_option(item: Item, folded: str) -> bool:
    return any(folded == fold(choice) for choice in item.choices)


def _right(item: Item, answer: str) -> bool:
    said = fold(answer)
    if item.answer_kind == "time":
        number = re.search(r"-?\d+(\.\d+)?", said)
        return number is not None and abs(float(number.group()) - float(item.answer)) <= TIME_TOLERANCE_S + 1e-9
    if item.answer_kind == "number":
        return re.fullmatch(r"-?\d+(\.\d+)?", said) is not None and float(said) == float(item.answer)
    if item.answer_kind == "none":
        return _DENIAL.search(said) is not None
    right = {fold(text) for text in (item.answer, *item.accept)}
    if item.answer_kind == "text":
        return said.replace(" ", "") in {text.replace(" ", "") for text in right}
    return said in right
