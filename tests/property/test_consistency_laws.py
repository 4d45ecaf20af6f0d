"""Laws of answering from several rollouts: order and copies change nothing, names of answers mean nothing, and no vote beats the oracle."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelis.core.geometry import Box
from pixelis.core.ops import OcrOutput, TextSpan
from pixelis.eval.consistency import METHODS, Draw, Fitted, Pool, fit, process_reward, support
from pixelis.eval.consistency_table import ORACLE, SINGLE, consistency_from_json, consistency_json, make_consistency
from pixelis.ttrl.calibrate import Temperature
from pixelis.ttrl.evidence import Evidence
from pixelis.ttrl.facts import RolloutFacts

BOX = Box(0, 0, 10, 10)
SEEN = [
    Evidence(op="OCR", output=OcrOutput(frame=0, box=BOX, spans=(TextSpan(text=text, box=BOX, confidence=1.0),)), is_decisive=True)
    for text in ("EXIT", "EXIST", "RAIN")
] + [Evidence(op="OCR", output=None, is_decisive=False)]
LABELS = "abc"
CHAINS = st.lists(st.sampled_from(SEEN), max_size=3).map(tuple)
CONFIDENCES = st.one_of(st.none(), st.floats(0.01, 0.99))
FITTED = Fitted(rollout=Temperature(temperature=2.0), vote=Temperature(temperature=0.5), weight=0.7)
FEW = settings(max_examples=60, deadline=None)


@st.composite
def draws(draw, num: int, kind: str) -> tuple[Draw, ...]:
    made = []
    for number in range(num):
        ranking = tuple(draw(st.lists(st.sampled_from(LABELS), unique=True, max_size=3)))
        label = ranking[0] if ranking else None
        said = {"answer": label, "label": label, "ranking": ranking}
        facts = RolloutFacts(id=f"{kind}-{number:02d}", **said, confidence=draw(CONFIDENCES), evidence=draw(CHAINS))
        made.append(Draw(facts, tokens=draw(st.integers(1, 9)), calls=len(facts.evidence)))
    return tuple(made)


@st.composite
def pools(draw, name: str = "item") -> Pool:
    half = draw(st.integers(1, 3))
    (greedy,) = draw(draws(1, "greedy"))
    return Pool(name, draw(draws(2 * half, "on")), draw(draws(half, "off")), greedy)


def choices(pool: Pool) -> dict[str, tuple]:
    found = {name: method.choose(pool, FITTED) for name, method in METHODS.items()}
    return {
        name: (one.answer, pytest.approx(one.confidence, abs=1e-9, nan_ok=True), one.is_abstaining)
        for name, one in found.items()
    }  # fmt: skip


def judge(name: str, said: str | None) -> int:
    return int(said == "a")


@FEW
@given(pools(), st.randoms(use_true_random=False))
def test_the_order_in_which_rollouts_come_changes_nothing(pool, random):
    on, off = list(pool.on), list(pool.off)
    random.shuffle(on)
    random.shuffle(off)
    assert choices(Pool(pool.id, tuple(on), tuple(off), pool.greedy)) == choices(pool)


@FEW
@given(pools())
def test_a_pool_written_twice_chooses_the_same(pool):
    def twice(some):
        return (*some, *(replace(one, facts=replace(one.facts, id=f"{one.facts.id} again")) for one in some))

    assert choices(Pool(pool.id, twice(pool.on), twice(pool.off), pool.greedy)) == choices(pool)


@FEW
@given(pools(), st.permutations("xyz"))
def test_renamed_answers_are_chosen_under_their_new_names(pool, names):
    new = dict(zip(LABELS, names, strict=True))

    def renamed(one: Draw) -> Draw:
        label = new.get(one.facts.label or "")
        return replace(one, facts=replace(one.facts, answer=label, label=label, ranking=tuple(new[old] for old in one.facts.ranking)))

    other = Pool(pool.id, tuple(map(renamed, pool.on)), tuple(map(renamed, pool.off)), renamed(pool.greedy))
    expected = {name: (new.get(said or ""), *rest) for name, (said, *rest) in choices(pool).items()}
    assert choices(other) == expected


@FEW
@given(st.lists(CHAINS, min_size=1, max_size=5))
def test_support_and_reward_stay_in_their_ranges(chains):
    for value in support(chains):
        assert value != value or 1 / len(chains) - 1e-9 <= value <= 1 + 1e-9
    assert all(-1 <= process_reward(chain) <= 1.5 for chain in chains)


@settings(max_examples=15, deadline=None)
@given(st.lists(pools(), min_size=2, max_size=3))
def test_the_oracle_is_a_ceiling_and_json_keeps_everything(some):
    items = [replace(pool, id=str(number)) for number, pool in enumerate(some)]
    found = make_consistency(items, judge, fitted=fit(items, judge))
    best = found.find(ORACLE).accuracy.value
    alone = {"majority", "calibrated", "steps", "process", SINGLE}  # not by rankings, nor from rollouts that the oracle has not seen
    assert all(row.accuracy.value <= best + 1e-9 for row in found.rows if row.name in alone)
    values = json.loads(json.dumps(consistency_json(found), allow_nan=False))
    assert consistency_json(consistency_from_json(values)) == consistency_json(found)
    assert repr(make_consistency(items[::-1], judge, fitted=fit(items[::-1], judge))) == repr(found)
