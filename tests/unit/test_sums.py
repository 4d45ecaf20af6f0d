"""Sums and comparisons thought aloud: every small step is true, and the last one is the answer."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from pixelis.rollout.teacher.sums import add_aloud, best_aloud, choose_aloud, compare_aloud, subtract_aloud


def test_by_hand():
    assert add_aloud(187, 346) == "187+346: 7+6=13, 8+4+1=13, 1+3+1=5: 533."
    assert add_aloud(49, 904) == "49+904: 9+4=13, 4+0+1=5, 0+9=9: 953."
    assert subtract_aloud(187, 346) == "346-187: 16-7=9, 13-8=5, 2-1=1: 159."
    assert subtract_aloud(300, 1) == "300-1: 10-1=9, 9-0=9, 2-0=2: 299."


def test_a_borrow_that_runs_through_a_nought():
    # 200 - 15: the units borrow, so the tens are 10 - 1 - 1 = 8 and lend themselves; the hundreds lent one.
    assert subtract_aloud(15, 200) == "200-15: 10-5=5, 9-1=8, 1-0=1: 185."


@given(st.integers(0, 99_999), st.integers(0, 99_999))
def test_every_step_is_true(a: int, b: int):
    for text, truth in ((add_aloud(a, b), a + b), (subtract_aloud(a, b), abs(a - b))):
        steps = re.findall(r"([\d+-]+)=(\d+)", text)
        for sum_, result in steps:
            parts = [int(n) for n in re.findall(r"\d+", sum_)]
            assert int(result) == (parts[0] - parts[1] if "-" in sum_ else sum(parts))
        digits = "".join(result[-1] for _, result in reversed(steps))
        carried = steps[-1][1][:-1] if "+" in text.split(":")[0] else ""
        assert int(carried + digits) == truth
        assert text.endswith(f": {truth}.")


def test_comparisons_by_hand():
    assert compare_aloud("0.00119", "0.00157") == "1:1=, 1:5<"
    assert compare_aloud("304.7", "81.0") == "3:0>"  # a place that is missing is 0
    assert compare_aloud("0.0009", "0.00136") == "0:1<"
    assert compare_aloud("12", "12") == "1:1=, 2:2=" and compare_aloud("0", "0.0") == "0:0="
    red, blue, pink = ("0.3", "red ring"), ("0.12", "blue star"), ("0.35", "pink dot")
    first = "red ring 0.3, blue star 0.12: 3:1>: more red ring, less blue star."
    assert choose_aloud([red, blue], wants_large=True) == (f"More wins. {first} More: red ring", "red ring")
    assert choose_aloud([red, blue], wants_large=False) == (f"Less wins. {first} Less: blue star", "blue star")
    assert choose_aloud([red, blue, pink], wants_large=True) == (
        f"More wins. {first} More: red ring. red ring 0.3, pink dot 0.35: 3:3=, 0:5<: less red ring, more pink dot. More: pink dot",
        "pink dot",
    )
    assert choose_aloud([red, ("0.30", "twin")], wants_large=False)[1] == "red ring"  # equal: the first


def test_the_most_and_least_of_several_by_hand():
    said = "177 173 191. {} wins. 177, 173: 1:1=, 7:7=, 7:3>: more 177, less 173."
    assert best_aloud([177, 173, 191], "most") == said.format("More") + " 177, 191: 1:1=, 7:9<: less 177, more 191. The most: 191"
    assert best_aloud([177, 173, 191], "least") == said.format("Less") + " 173, 191: 1:1=, 7:9<: less 173, more 191. The least: 173"
    assert best_aloud([83, 181], "least") == "83 181. Less wins. 83, 181: 0:1<: less 83, more 181. The least: 83"
    assert best_aloud([7, 7], "most") == "7 7. More wins. 7, 7: 7:7=: more 7, same 7. The most: 7"
    assert best_aloud([40], "most") == "40. More wins. The most: 40"


@given(st.lists(st.integers(0, 999), min_size=1, max_size=7), st.sampled_from(["most", "least"]))
def test_every_number_is_held_against_the_best_before_it(numbers: list[int], word: str):
    best = max if word == "most" else min
    said = best_aloud(numbers, word)
    pairs = [(int(a), int(b)) for a, b in re.findall(r"(\d+), (\d+):", said)]
    assert pairs == [(best(numbers[:k]), numbers[k]) for k in range(1, len(numbers))]
    for a, b, sign in re.findall(r"(\d):(\d)([<>=])", said):
        assert sign == ("<" if a < b else ">" if a > b else "=")
    assert said.endswith(f"The {word}: {best(numbers)}")


NUMBERS = st.one_of(st.integers(0, 9_999).map(str), st.decimals(0, 400, places=1).map(str), st.decimals(0, 1, places=5).map(str))


@given(st.lists(NUMBERS, min_size=2, max_size=4), st.booleans())
def test_the_chosen_one_is_the_largest_or_smallest(numbers: list[str], wants_large: bool):
    said, name = choose_aloud([(number, f"n{k}") for k, number in enumerate(numbers)], wants_large=wants_large)
    best = (max if wants_large else min)(float(number) for number in numbers)
    assert float(numbers[int(name[1:])]) == best and said.endswith(f"{'More' if wants_large else 'Less'}: {name}")
    for one, sign, two in re.findall(r"(\d)([<=>])(\d)", said):
        assert {"<": one < two, "=": one == two, ">": one > two}[sign]
