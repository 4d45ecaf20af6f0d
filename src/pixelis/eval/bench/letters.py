"""Which option an answer means. The only home of letter parsing for public benchmarks; every rule is pure and never guesses.

Benchmarks differ in what they accept, so there are five rules:
- `letter_of`: a letter however it is written, or an option's own text; two different letters are no answer (V* Bench).
- `says_letter`: the first word of the first line, compared loosely (MVBench).
- `inferred_letter`: the rule of VLMEvalKit without a judge model (MMBench).
- `mmmu_letter`: the multiple-choice rule of MMMU as Video-MMMU uses it.
- `first_word`: the first word, its full stops dropped (VSI-Bench).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pixelis.eval.bench.base import letter
from pixelis.rewards.answer import normalised

_BARE = re.compile(r"[(\[]?([A-Za-z])[)\].:,]*")
_LEAD = re.compile(r"[(\[]?([A-Za-z])[)\].:](?=\s|$)")
_NAMED = re.compile(r"\b(?:[Aa]nswer|[Oo]ption|[Cc]hoice)(?:\s++is)?\s*+:?\s*+[(\[]?(?:([A-Z])\b|([a-z])[)\].]*\s*$)")
_MARKED = re.compile(r"[(\[]([A-Za-z])[)\]]|(?:^|(?<=\s))([A-Z])[.):](?=\s|$)")
_ALONE = re.compile(r"\b[A-Z]\b")
_ARTICLE = re.compile(r"^A\s+(?!or\b|and\b)[a-z]")
_SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_LAST_WORDS = 5
"""VLMEvalKit takes a letter only from fewer last words than this."""
_FAILURE = "Failed to obtain answer via API"
"""VLMEvalKit looks for no letter in an answer that holds this."""
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
"""To VLMEvalKit, an answer that holds one of these chooses nothing, whatever else it says."""
_DECLARED = re.compile(r"answer\s+is\s+\**([A-D])", re.IGNORECASE)
"""VLMEvalKit looks for no more behind the letter: "the answer is dark" declares D."""
_MMMU_MARKS = ",.!?;:'"
_MMMU_WORDS = 5
"""MMMU looks for an option's text only in answers of more words than this."""


def _letters(choices: Sequence[str]) -> list[str]:
    return [letter(number) for number in range(len(choices))]


def letter_of(answer: str | None, choices: Sequence[str]) -> str | None:
    """The letter that an answer means, in any of the usual ways of writing it.

    In this order, the first that finds anything decides: the letter alone ("b", "(B)", "B."); an option's own text, with or without its
    letter; a letter in front ("B. red"); a letter that is named ("the answer is B"); one in brackets or with a mark; a capital alone.

    Returns:
        A letter of the options; None for no answer, a letter past them, or two different letters.
    """
    text = (answer or "").strip().strip("*`\"'").strip()
    letters = _letters(choices)
    bare = _BARE.fullmatch(text)
    if bare:
        return _only({bare.group(1).upper()}, letters)
    same = {x for x, choice in zip(letters, choices, strict=True) if normalised(text) in (normalised(choice), normalised(f"{x} {choice}"))}
    if text and len(same) == 1:
        return same.pop()
    marked = _found(_MARKED, text)
    lead = _LEAD.match(text)
    if lead:
        return _only({lead.group(1).upper()} | {x for x in marked if x in letters}, letters)
    for said in (_found(_NAMED, text), marked):
        if said:
            return _only(said, letters)
    return _only(set(_ALONE.findall(text[1:] if _ARTICLE.match(text) else text)) & set(letters), letters)


def _found(pattern: re.Pattern, text: str) -> set[str]:
    return {part.upper() for groups in pattern.findall(text) for part in groups if part}


def _only(said: set[str], letters: Sequence[str]) -> str | None:
    return next(iter(said)) if len(said) == 1 and said <= set(letters) else None


def says_letter(answer: str | None, wanted: str) -> bool:
    """MVBench's rule: whether the first word of the first line is a part of "(b)" once its full stops are dropped, or holds "(b)".

    So "B", "b.", "(B" and "(B)because" say B; "B:" and "The answer is B" do not. A first word without a letter or a digit ("", ".", "("),
    which that rule calls right whatever the truth, says nothing.

    Args:
        wanted: the letter of the truth.
    Source: Ask-Anything, `check_ans` in video_chat2/mvbench.ipynb.
    """
    word = (answer or "").strip().split("\n")[0].split(" ")[0].lower()
    option = f"({wanted.lower()})"
    return any(map(str.isalnum, word)) and (word.replace(".", "") in option or option in word)


def inferred_letter(answer: str | None, choices: Sequence[str]) -> str | None:
    """VLMEvalKit's rule without a judge: one option's capital among the last words; else "answer is B"; else one option's text.

    A text counts only in an answer at most twice as long as all options together.

    Returns:
        None where that rule would ask a judge model, or finds that nothing was chosen (a refusal, or its sign Z for none of these). Such
        an answer is wrong.
    Source: VLMEvalKit, `can_infer` under the policy "exact_matching".
    """
    text, letters = answer or "", _letters(choices)
    if _FAILURE not in text:
        if any(phrase in text for phrase in _REFUSALS):
            return None
        words = text.translate(_SEPARATORS).split()
        said = [x for x in letters if x in words]
        if len(said) == 1 and words.index(said[0]) > len(words) - _LAST_WORDS:
            return said[0]
        if not said and "Z" in words:
            return None
        declared = _DECLARED.search(text)
        if declared and declared.group(1).upper() in letters:
            return declared.group(1).upper()
    if not text.strip() or len(text) > 2 * sum(len(choice) for choice in choices):
        return None
    held = [x for x, choice in zip(letters, choices, strict=True) if choice.lower() in text.lower()]
    return held[0] if len(held) == 1 else None


def mmmu_letter(answer: str | None, choices: Sequence[str]) -> str | None:
    """MMMU's rule as Video-MMMU uses it: a letter with a full stop or colon, else in brackets, else before a blank, else an option's text.

    Of several the one that stands last counts. Where MMMU itself would draw an option at random, Video-MMMU finds no answer, and so
    does this.

    Source: Hu et al. (2025), Video-MMMU; its task in lmms-eval.
    """
    text = answer or ""
    for mark in _MMMU_MARKS:
        text = text.strip(mark)
    text = f" {text} "
    letters = _letters(choices)
    stopped, with_colon = [x for x in letters if f"{x}." in text], [x for x in letters if f"{x}:" in text]
    if stopped or with_colon:
        return _last(stopped + with_colon, {x: text.rfind(f"{x}." if stopped else f"{x}:") for x in letters})
    for inside, form in (("({})", "({})"), ("{} ", " {} ")):
        said = [x for x in letters if inside.format(x) in text]
        if said:
            return _last(said, {x: text.rfind(form.format(x)) for x in letters})
    if len(text.split()) <= _MMMU_WORDS:
        return None
    places = {x: text.lower().rfind(choice.lower()) for x, choice in zip(letters, choices, strict=True)}
    return _last([x for x in letters if places[x] >= 0], places)


def _last(said: Sequence[str], places: dict[str, int]) -> str | None:
    return max(said, key=places.__getitem__, default=None)


def first_word(answer: str | None) -> str:
    """The first word without full stops at its end; empty for no answer. Source: VSI-Bench's own scoring."""
    return (answer or "").strip().split(" ")[0].rstrip(".").strip()
