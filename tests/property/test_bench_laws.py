"""Laws of the benchmark rules: bounds, independence of order, and what no answer may earn."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from pixelis.eval.bench import infographicvqa, mmbench, mvbench, vsibench
from pixelis.eval.bench.base import BenchItem, MediumRef, letter, macro_rate, order_of
from pixelis.eval.bench.letters import first_word, inferred_letter, letter_of, mmmu_letter
from pixelis.eval.bench.mmmu_open import is_right

NO_DEADLINE = settings(deadline=None)  # on a busy machine a law takes as long as it takes
texts = st.text(max_size=40)
choices = st.lists(st.text("abcdefgh ", min_size=1, max_size=12), min_size=2, max_size=6)
scores = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=6)


def an_item(task: str, truth: tuple[str, ...]) -> BenchItem:
    return BenchItem(id="i", task=task, group="i", prompt="?", medium=MediumRef(path="x"), truth=truth)


def anls(answer: str, truths: list[str]) -> float:
    return infographicvqa.item_score(an_item("t", tuple(truths)), answer)


@NO_DEADLINE
@given(texts, choices)
def test_a_rule_gives_a_letter_of_the_options_or_none(answer, options):
    letters = {letter(k) for k in range(len(options))} | {None}
    assert {letter_of(answer, options), inferred_letter(answer, options), mmmu_letter(answer, options)} <= letters
    assert " " not in first_word(answer)


@NO_DEADLINE
@given(choices, st.integers(0, 5), st.sampled_from(["{}", "({})", "{}.", "The answer is {}", "{}) it is so"]))
def test_a_letter_alone_is_that_letter(options, number, form):
    number %= len(options)
    assert letter_of(form.format(letter(number)), options) == letter(number)


@NO_DEADLINE
@given(choices, st.integers(0, 5), st.integers(0, 5))
def test_two_letters_are_none(options, one, two):
    one, two = one % len(options), two % len(options)
    said = letter_of(f"({letter(one)}) or ({letter(two)})", options)
    assert said == (letter(one) if one == two else None)


@NO_DEADLINE
@given(st.text(min_size=1, max_size=20), st.integers(1, 8), st.integers(0, 1000))
def test_an_order_is_a_permutation(name, count, seed):
    assert sorted(order_of(name, count, seed=seed)) == list(range(count))
    assert order_of(name, count, seed=seed) == order_of(name, count, seed=seed)


@NO_DEADLINE
@given(texts, st.lists(texts, min_size=1, max_size=3))
def test_anls_is_bounded_and_has_a_gap(answer, truths):
    found = anls(answer, truths)
    assert found == 0.0 or 0.5 <= found <= 1.0
    assert anls(" ".join(truths[0].split()), [" ".join(truths[0].split())]) == 1.0 and found == anls(answer, truths[::-1])


@NO_DEADLINE
@given(st.floats(0.01, 1000), st.floats(0, 2))
def test_mra_falls_with_the_error_and_has_ten_steps(truth, off):
    item = an_item("object_counting", (repr(truth),))
    near, far = (vsibench.item_score(item, repr(truth * (1 + error))) for error in (off / 2, off))
    assert 0 <= far <= near <= 1 and abs(10 * far - round(10 * far)) < 1e-9


@settings(NO_DEADLINE, max_examples=25)
@given(st.lists(scores, min_size=1, max_size=4))
def test_macro_lies_between_the_strata(strata):
    found = macro_rate([(1, values) for values in strata])
    means = [sum(values) / len(values) for values in strata]
    assert min(means) - 1e-9 <= found.value <= max(means) + 1e-9 and found.count == sum(map(len, strata))
    assert math.isnan(found.low) or -1e-9 <= found.low <= found.high <= 1 + 1e-9


def group(name: str, count: int) -> list[BenchItem]:
    options = tuple(f"option {k}" for k in range(count))
    return [
        BenchItem(
            id=f"{name}/{turn}", task="t", group=name, prompt="?", medium=MediumRef(path="x"), choices=options, truth=(letter(turn),),
            facts={"l2": "l"},
        )
        for turn in range(count)
    ]  # fmt: skip


@settings(NO_DEADLINE, max_examples=20)
@given(st.lists(st.tuples(st.integers(2, 5), st.integers(0, 5)), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_circular_does_not_mind_the_order_and_is_never_above_vanilla(sizes, random):
    items = [item for number, (count, _) in enumerate(sizes) for item in group(str(number), count)]
    wrong = {f"{number}/{turn}" for number, (count, turn) in enumerate(sizes) if turn < count}
    answers = {item.id: "Z" if item.id in wrong else item.truth[0] for item in items}
    circular = mmbench.score(items, answers).headline.rate.value
    assert circular == (len(sizes) - len(wrong)) / len(sizes)
    assert circular <= mmbench.score(items, answers).rows[0].rate.value
    shuffled = items[:]
    random.shuffle(shuffled)
    assert mmbench.score(shuffled, answers).headline.rate.value == circular
    assert mvbench.score(shuffled, answers).headline.rate.value == mvbench.score(items, answers).headline.rate.value


@NO_DEADLINE
@given(texts)
def test_no_answer_earns_nothing(truth):
    assert not is_right("", [truth]) and not is_right(None, [truth])
    # The official rule counts the edits of cleaned texts over the length of the uncleaned one, so a truth of many blanks would forgive.
    assert anls("", [" ".join(f"x{truth}".split())]) == 0.0
