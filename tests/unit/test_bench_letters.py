"""Which option an answer means: every rule against cases decided by hand."""

from __future__ import annotations

import pytest

from pixelis.eval.bench.letters import first_word, inferred_letter, letter_of, mmmu_letter, says_letter
from pixelis.eval.bench.mmmu_open import is_right

COLOURS = ("red", "dark green", "Vitamin C", "blue")


@pytest.mark.parametrize(
    ("answer", "means"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(b)", "B"),
        ("B.", "B"),
        ("**B**", "B"),
        ("(B) dark green", "B"),
        ("b. dark green", "B"),
        ("B dark green", "B"),
        ("(B) something else altogether", "B"),  # the letter counts, not the words
        ("The answer is B", "B"),
        ("The answer is (b).", "B"),
        ("Answer: C", "C"),
        ("It must be option D, I think.", "D"),
        ("Dark Green.", "B"),  # the option's own text, whatever its case
        ("Vitamin C", "C"),  # also where it holds a letter of its own
        ("(D) Vitamin C", "D"),  # marked in front; the C is a part of the text
        ("I am sure that it is B here", "B"),
        ("A or B", None),
        ("A, B", None),
        ("(A) (B)", None),
        ("A. red B. dark green C. Vitamin C D. blue", None),  # all of them
        ("AB", None),
        ("E", None),  # past the options
        ("A man in a hat", None),  # an article
        ("not there", None),
        ("", None),
        (None, None),
    ],
)
def test_letter_of(answer, means):
    assert letter_of(answer, COLOURS) == means


def test_letter_of_with_two_and_five_options():
    two, five = ("left", "right"), ("1", "2", "3", "4", "5")
    assert letter_of("B", two) == "B" and letter_of("C", two) is None and letter_of("right", two) == "B"
    assert letter_of("E", five) == "E" and letter_of("4", five) == "D" and letter_of("F", five) is None
    assert letter_of("same", ("same", "same")) is None  # two options alike: their text says nothing


@pytest.mark.parametrize(
    ("answer", "means"),
    [
        ("B", "B"),
        ("(B) dark green", "B"),
        ("The answer is B", "B"),
        ("b", None),  # capitals only; and no option's text is inside
        ("It is dark green", "B"),
        ("red or blue", None),  # two texts
        ("A or B", None),  # two letters, no text
        ("B is what I would choose here today", None),  # eight words, B the first of them: not among the last four, and no text inside
        ("B it may be", "B"),  # four words: the first is one of the last four
        ("B it may well be", None),  # five
        ("Z", None),
        ("Z or A", "A"),  # their sign counts only where no option's letter stands
        ("The answer is B, since C is blue and A is red", "B"),  # three letters: the declared one
        ("The correct answer is **C** because of its label", "C"),
        ("answer is b", "B"),  # declared in lower case too
        ("The answer is dark green, I would say today", "D"),  # nor need the letter end there: the published rule
        ("The answer is E", None),  # past the options
        ("Answer: B, not C", None),
        ("Cannot determine the answer. B", None),  # a refusal, whatever else is said
        ("I'm sorry, but without the image provided it may be B", None),
        ("Sorry, I can't help with images of people yet. red", None),
        ("I can't process this file.", None),
        ("I cannot determine the answer: B", "B"),  # not in their words
        ("Failed to obtain answer via API. B", None),  # no letter is looked for
        ("Failed to obtain answer via API: blue", "D"),  # though a text is: of 37 characters, 2 * 26 may be had
        ("", None),
        (None, None),
    ],
)
def test_inferred_letter(answer, means):
    assert inferred_letter(answer, COLOURS) == means


@pytest.mark.parametrize(
    ("answer", "is_so"),
    [
        ("B", True),
        ("b.", True),
        ("(B)", True),
        ("(B", True),
        ("B)", True),
        ("(B).", True),
        ("(B) dark green", True),
        ("B because it is dark", True),
        ("(B)dark", True),
        ("  B\nnot A", True),  # only the first line is read
        ("(A)(B)", True),  # and where it holds both, both are right: the published rule
        ("B:", False),
        ("B, surely", False),
        ("**B**", False),
        ("The answer is B", False),
        ("A", False),
        ("Better", False),
        ("dark green", False),
        (".", False),  # right whatever the truth, by the published rule; here no answer
        ("(", False),
        ("", False),
        (None, False),
    ],
)
def test_says_letter(answer, is_so):
    assert says_letter(answer, "B") is is_so


@pytest.mark.parametrize(
    "answer", ["answer" + " " * 100_000 + "x", "9" * 100_000 + "x", "1" + ",000" * 25_000 + "x", "answer is " + "*" * 100_000]
)
def test_a_long_answer_is_scored_in_linear_time(answer):
    # A second at most; with one search for each start and each length of a run it would be hours.
    assert letter_of(answer, COLOURS) is None and inferred_letter(answer, COLOURS) is None and mmmu_letter(answer, COLOURS) is None
    assert not is_right(answer, ["3.14"]) and not says_letter(answer, "B")


def test_inferred_letter_reads_texts_in_short_answers_only():
    # The options' texts have 3 + 4 = 7 characters: an answer of 14 is read, one of 15 is not.
    assert inferred_letter("it is red here", ("red", "blue")) == "A"
    assert inferred_letter("it is red there", ("red", "blue")) is None


@pytest.mark.parametrize(
    ("answer", "means"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("B: it rises", "B"),
        ("First I thought A. Then I saw that B. is right", "B"),  # with a full stop, the last
        ("(A) no, (C)", "C"),
        ("A then D", "D"),
        ("b", None),
        ("the price of it falls in the end", "B"),  # eight words, one option's text inside
        ("the price falls", None),  # too short to be searched
        ("", None),
        (None, None),
    ],
)
def test_mmmu_letter(answer, means):
    choices = ("price rises", "price of it falls", "none", "both")
    assert mmmu_letter(answer, choices) == means


def test_first_word():
    assert [first_word(text) for text in ("B. chair", "B", " 3.5 m", "3.", "", None)] == ["B", "B", "3.5", "3", "", ""]
    assert first_word("The answer is B") == "The"


@pytest.mark.parametrize(
    ("answer", "truths", "is_so"),
    [
        ("The result is 3.14159", ["3.14"], True),  # two decimals
        ("x = 1,200", ["1200"], True),
        ("1.5e3", ["1500"], True),
        ("about 12 or 13", ["13"], True),  # every number of the answer is looked at: the published rule
        ("12.5e3 or -7.25", ["-7.25"], True),
        ("1.5e3x", ["1.5"], False),  # 1500, and 1 and 3 beside it
        ("1.5, 7", ["1.5"], False),  # before a comma only the 1 is found: the published rule
        ("12", ["13"], False),
        ("so it is the mitral valve", ["Mitral Valve"], True),
        ("the aortic valve", ["mitral valve"], False),
        ("ab", ["b"], False),  # a single character needs a blank beside it
        ("a b", ["b"], True),
        ("", ["b"], False),
        (None, ["b"], False),
    ],
)
def test_mmmu_open_answers(answer, truths, is_so):
    assert is_right(answer, truths) is is_so
