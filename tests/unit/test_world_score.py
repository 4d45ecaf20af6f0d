"""PixelWorld's scoring by hand-written answers."""

from __future__ import annotations

import pytest

from pixelis.data.world.item import Evidence, Item, Truth
from pixelis.data.world.score import chosen_letter, fold, score_answer
from pixelis.data.world.words import Style


def item(answer: str, kind: str, *, accept: tuple[str, ...] = (), choices: tuple[str, ...] = ()) -> Item:
    return Item(
        id="x",
        split="dev",
        index=0,
        seed=0,
        family="x",
        question="?",
        answer=answer,
        answer_kind=kind,
        accept=accept,
        choices=choices,
        medium_name="x.png",
        kind="image",
        width=640,
        height=480,
        num_frames=1,
        fps=0,
        difficulty=0.5,
        needs=frozenset(),
        chain=(),
        evidence=Evidence(),
        mentions=(),
        style=Style("", "", "", "", "", ()),
        truth=Truth(objects=()),
    )


@pytest.mark.parametrize(
    ("answer", "kind", "said", "right"),
    [
        ("red", "word", "Red", 1),
        ("red", "word", "red.", 1),
        ("red", "word", "the red", 1),
        ("red", "word", "dark red", 0),
        ("red", "word", "", 0),
        ("red", "word", " . ", 0),
        ("grey", "word", "gray", 1),
        ("top left", "word", "Top-left", 1),
        ("top left", "word", "top right", 0),
        ("yes", "word", "Yes!", 1),
        ("yes", "word", "no", 0),
        ("golden acorn", "text", "GOLDEN ACORN", 1),
        ("golden acorn", "text", "goldenacorn", 1),
        ("acorn", "text", "\u201cAcorn\u201d", 1),
        ("acorn", "text", "acorns", 0),
        ("fire 42", "text", "\uff26\uff29\uff32\uff25 42", 1),
        ("bagel", "text", "bage1", 0),
        ("3", "number", "three", 1),
        ("3", "number", "3.0", 1),
        ("1200", "number", "1,200", 1),
        ("3", "number", "3 or 4", 0),
        ("3", "number", "13", 0),
        ("12", "number", "Twelve.", 1),
        ("2.4", "time", "2.4", 1),
        ("2.4", "time", "at 2.7 seconds", 1),
        ("2.4", "time", "2.71", 0),
        ("2.4", "time", "2.1 s", 1),
        ("2.4", "time", "soon", 0),
        ("2.4", "time", "-2.4", 0),
        ("there is no red star", "none", "There is no red star.", 1),
        ("there is no red star", "none", "none", 1),
        ("there is no red star", "none", "No such star", 1),
        ("there is no red star", "none", "left", 0),
        ("there is no red star", "none", "noble red", 0),
        ("never", "none", "it does not disappear", 1),
        ("never", "none", "it doesn't", 1),
        ("never", "none", "it does not matter: 3", 0),
        ("never", "none", "I do not know", 0),
        ("there is no red star", "none", "red, but I have never seen it so bright", 0),
        ("there is no red star", "none", "there is no star, but a circle", 1),
        ("there is no red star", "none", "I looked everywhere, but there is no red star.", 1),
        ("there is no red star", "none", "But there is no red star.", 1),
        ("there is no red star", "none", "a blue one, but no such star", 1),
        ("never", "none", "2.4", 0),
        ("there is no red star", "none", "There isn't a red star", 1),
        ("there is no red star", "none", "a star is there", 0),
    ],
)
def test_open_answers(answer, kind, said, right):
    assert score_answer(item(answer, kind), said) == right


def test_other_right_answers_count():
    one = item("red star", "word", accept=("red",))
    assert [score_answer(one, said) for said in ("red", "the red star", "star", "blue star")] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("B", 1),
        ("b", 1),
        ("(B)", 1),
        ("B.", 1),
        ("B) red", 1),
        ("B)red", 1),
        ("B. red", 1),
        ("red", 1),
        ("Answer: B", 1),
        ("The answer is B", 1),
        ("option b", 1),
        ("A", 0),
        ("blue", 0),
        ("B. blue", 0),
        ("", 0),
        ("bed", 0),
        ("C", 0),
        ("E", 0),
        ("a red one", 0),
        ("B red", 1),
        ("B because it is red", 1),
        ("The answer is B because it is red", 1),
        ("b is right", 1),
        ("B or A, I think", 0),
        ("A because it is blue", 0),
        ("B blue", 0),
        ("b) red, as the sign says", 1),
        ("B or A", 0),
        ("B. or A.", 0),
        ("b and a", 0),
        ("A. Or rather B.", 0),
        ("A red", 1),  # an article before an option's own words
        ("the red", 1),
    ],
)
def test_letters(said, right):
    assert score_answer(item("B", "word", choices=("blue", "red", "green")), said) == right


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("a triangle", None),
        ("A", "A"),
        ("a", "A"),
        ("a square", "A"),
        ("A square", "A"),
        ("a circle", "B"),
        ("a big circle", None),
        ("a ring, not a square", None),
        ("A or B", None),
        ("A. or B", None),
        ("a because it has corners", None),
        ("the answer is A because it has corners", "A"),
        ("the answer is a circle", "B"),
        ("the answer is a big one", None),
        ("a. square", "A"),
        ("a. circle", None),
        ("(A) it has four corners", "A"),
        ("D", None),
        ("", None),
    ],
)
def test_an_article_is_no_letter(said, letter):
    assert chosen_letter(said, ("square", "circle", "ring")) == letter
    assert score_answer(item("A", "word", choices=("square", "circle", "ring")), said) == float(letter == "A")


def test_options_that_read_alike_are_told_by_their_letters_alone():
    assert [chosen_letter(said, ("red", "a red", "blue")) for said in ("red", "A", "b", "b. red")] == [None, "A", "B", "B"]


def test_times_as_options():
    one = item("C", "time", choices=("1.2", "3.6", "2.4"))
    assert [score_answer(one, said) for said in ("C", "2.4", "1.2", "c. 2.4")] == [1, 1, 0, 1]


def test_folding():
    assert fold("  The  QUICK, brown\u2014fox_7! ") == "quick brown fox 7"
    assert fold("3.5 s.") == "3.5 s"
    assert fold("-4") == "-4"
