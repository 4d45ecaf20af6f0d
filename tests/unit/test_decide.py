"""Exemplar, value, returns, and whole decisions, against values worked out by hand; facts go to JSON and back."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pixelis.core.errors import ConfigError, DataError
from pixelis.core.geometry import Box, View
from pixelis.core.media import MediumInfo
from pixelis.core.ops import Call, OcrOutput, Result, TextSpan, ZoomOutput
from pixelis.core.trajectory import PolicyInfo, Step, Trajectory
from pixelis.rewards.running import Running
from pixelis.ttrl.calibrate import Temperature
from pixelis.ttrl.decide import Credit, Decision, DecisionSettings, credit, decide, dump, load
from pixelis.ttrl.evidence import Evidence
from pixelis.ttrl.exemplar import choose_exemplar, exemplar_scores
from pixelis.ttrl.facts import NeighbourFacts, QueryFacts, RolloutFacts, dump_facts, in_words, label_of, load_facts, rollout_facts
from pixelis.ttrl.reliability import Cast
from pixelis.ttrl.returns import advantages, is_repeat, kept, returns
from pixelis.ttrl.value import ValueState, ema, neighbourhood_value, value_weight

BOX, HALF, AWAY = Box(0, 0, 10, 10), Box(0, 0, 10, 5), Box(50, 50, 60, 60)


def zoom(box=BOX, is_decisive=True):
    output = ZoomOutput(frame=0, box=box, view=View(box.x0, box.y0, 1, 1), width=10, height=10, image="0" * 64)
    return Evidence(op="ZOOM", output=output, is_decisive=is_decisive)


FAILED = Evidence(op="OCR", output=None, is_decisive=False)


def rollout(name, answer, *evidence, **more):
    return RolloutFacts(id=name, answer=answer, label=answer, evidence=tuple(evidence), **more)


QUERY = QueryFacts(
    id="q",
    medium="m",
    rollouts=(
        rollout("a", "3", zoom(), confidence=0.8, entropy_nats=0.5, curiosity=0.2, coherence=0.1),
        rollout("b", "3", zoom(HALF), confidence=0.6, entropy_nats=0.5, curiosity=0.5, coherence=0.4),
        rollout("c", "4", zoom(AWAY), FAILED, confidence=0.9, entropy_nats=1.5),
        rollout("d", None),
    ),
    neighbours=(
        NeighbourFacts(id="n1", similarity=0.9, medium="m", votes=(Cast(task="n1", worker="ZOOM", label="7"),),
                       evidence=(zoom(HALF),), intrinsic=0.4),
        NeighbourFacts(id="n2", similarity=0.3, medium="other", evidence=(zoom(AWAY),), intrinsic=0.8),
    ),
)  # fmt: skip


# ---------------------------------------------------------------- exemplar


def test_exemplar_by_hand():
    # z of 0, 2 is -1, 1: -3/6 - 0.5 + 0.5 and -6/6 + 0.5 + 0.9.
    assert exemplar_scores([3, 6], [0.0, 2.0], [0.5, 0.9]) == pytest.approx([-0.5, 0.4])
    assert choose_exemplar([3, 6], [0.0, 2.0], [0.5, 0.9]) == 1
    assert choose_exemplar([3, 6], [0.0, 0.0], [0.5, 0.9]) == 0  # length decides then: 0.0 to -0.1


def test_exemplar_with_unknowns_and_ties():
    # VisFid unknown counts as the mean of the known, 0.6; curiosity unknown as z = 0.
    assert exemplar_scores([0, 0, 0], [math.nan] * 3, [0.5, math.nan, 0.7]) == pytest.approx([0.5, 0.6, 0.7])
    assert exemplar_scores([1, 2], [1.0, math.nan], [math.nan] * 2) == pytest.approx([-1 / 6, -2 / 6])
    assert choose_exemplar([4, 4], [1.0, 1.0], [0.5, 0.5]) == 0
    assert choose_exemplar([6, 3], [0.0, 0.0], [1.0, 0.5]) == 1  # both 0.0: the shorter
    with pytest.raises(ValueError, match="no exemplar"):
        choose_exemplar([], [], [])


# ---------------------------------------------------------------- value


def test_value_by_hand():
    # (0.9 * 0.4 + 0.3 * 0.8) / 1.2 = 0.5; the opposite one and the unknown one have no say.
    assert neighbourhood_value([0.9, 0.3, -0.5, 0.9], [0.4, 0.8, 9.0, math.nan]) == pytest.approx(0.5)
    assert math.isnan(neighbourhood_value([], [])) and math.isnan(neighbourhood_value([0.0], [1.0]))
    assert (
        ema(2.0, 4.0, 0.75) == 2.5
        and ema(None, 4.0, 0.75) == 4.0
        and ema(2.0, math.nan, 0.5) == 2.0
        and math.isnan(ema(None, math.nan, 0.5))
    )


def test_weight_of_a_query():
    # Seen 1 and 3: mean 2, deviation 1. Old value 3, fresh 2: V = 2.5, z = 0.5, omega 1.25.
    state = ValueState(value=3.0, values=Running().add([1.0, 3.0]), baseline=0.2)
    value, weight, after = value_weight(state, 2.0)
    assert (value, weight) == (2.5, 1.25)
    assert after.value == 2.5 and after.values.count == 3 and after.values.mean == pytest.approx(6.5 / 3) and after.baseline == 0.2
    assert value_weight(state, 100.0)[1] == 1.5 and value_weight(state, -100.0)[1] == 0.5


def test_before_anything_is_known_every_query_weighs_one():
    value, weight, after = value_weight(ValueState(), math.nan)
    assert math.isnan(value) and weight == 1.0 and after == ValueState()
    value, weight, after = value_weight(ValueState(), 0.7)
    assert (value, weight, after.value) == (0.7, 1.0, 0.7)


# ---------------------------------------------------------------- returns


def test_returns_by_hand():
    found = returns([True, True, False], [1.0, 0.6, 0.9], [0.0, 0.3, 0.02])
    assert found == pytest.approx([1.0, 0.3, -0.02])
    assert advantages(found, 0.5, 1.2) == pytest.approx([0.6, -0.24, -0.624])
    assert advantages(found, 0.5, 1.2, negative=0.5) == pytest.approx([0.6, -0.12, -0.312])
    assert advantages(found, 0.5, 1.2, negative=0.0) == pytest.approx([0.6, 0.0, 0.0])  # what disagrees is not unlearnt
    assert advantages(found, None, 1.0).sum() == pytest.approx(0)  # the first query is measured by its own mean


def test_repeats():
    near = Box(0, 0, 10, 9.5)  # IoU 0.95
    assert is_repeat([zoom()], [zoom(near)]) and not is_repeat([zoom()], [zoom(HALF)])
    assert is_repeat([zoom(), zoom()], [zoom(), zoom(Box(0, 0, 10, 8))])  # (1 + 0.8) / 2: just enough
    assert not is_repeat([zoom()], [zoom(), zoom()]) and not is_repeat([], [])
    rollouts = [[zoom()], [zoom(near)], [zoom(AWAY)], [zoom()], []]
    assert kept(rollouts, ["3"] * 5).tolist() == [True, False, True, False, True]
    assert kept(rollouts, ["3"] * 5, first=3).tolist() == [False, False, True, True, True]  # the exemplar stays
    assert kept(rollouts, ["3", "4", "3", "3", None]).tolist() == [True, True, True, False, True]  # another answer is another chain


# ---------------------------------------------------------------- labels and facts


def test_labels():
    assert label_of("Three.") == label_of("3") == "3" and label_of("the gray one") == label_of("Grey 1")
    assert label_of(None) is None and label_of("  ") is None and label_of("...") is None
    assert label_of("A") == "a"  # an article, were it not the whole answer
    options = ("red", "blue", "a green one")
    for said in ("B", "b", "(B)", "B.", "B. blue", "Blue"):
        assert label_of(said, options) == "B"
    assert label_of("A", options) == "A" and label_of("green one", options) == "C"
    assert label_of("D", options) == "d" and label_of("purple", options) == "purple"


def test_answers_in_words():
    options = ("red", "blue")
    for said in ("B", "(b)", "B. blue", "Blue"):
        assert in_words(said, options) == "blue"
    assert in_words("D", options) == "D" and in_words("B") == "B" and in_words(None, options) is None and in_words(" ", options) == " "


def test_facts_of_a_trajectory():
    info = MediumInfo(kind="image", sha256="0" * 64, width=100, height=100, num_frames=1, fps=None, duration_s=0.0, name="i")
    read = OcrOutput(frame=0, box=BOX, spans=(TextSpan(text="blue", box=BOX, confidence=0.9),))
    step = Step(thought="", text="", call=Call(op="OCR", arguments={}),
                result=Result(op="OCR", status="ok", engine="e", version="1", output=read), response="")  # fmt: skip
    trajectory = Trajectory(id="t", question="?", medium=info, policy=PolicyInfo(name="p", version="1"), seed=0, steps=(step,),
                            stop="answered", answer="B", final_text="<answer>B</answer>")  # fmt: skip
    facts = rollout_facts(trajectory, choices=("red", "blue"), confidence=0.5)
    # The letter alone names nothing that was read; the option's word does.
    assert facts.label == "B" and facts.evidence[0].is_decisive and facts.worker == "OCR"
    assert not rollout_facts(trajectory).evidence[0].is_decisive
    flood = rollout_facts(replace(trajectory, final_text="<answer>A</answer><answer>B</answer>"), choices=("red", "blue"))
    assert flood.answer is None and flood.label is None and not flood.evidence[0].is_decisive


def test_facts_go_to_json_and_back():
    awkward = replace(QUERY, rollouts=(*QUERY.rollouts, rollout("e", "0.1\n\u2028ü", confidence=0.1 + 0.2, entropy_nats=1e-300)))
    for facts in (QUERY, awkward):
        assert load_facts(dump_facts(facts), where="facts.jsonl:1") == facts


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b'"confidence":0.8', b'"confidence":1.8', "confidence of 1.8"),
        (b'"entropy_nats":1.5', b'"entropy_nats":-1', "entropy of -1"),
        (b'"id":"b"', b'"id":"a"', "two of its 4 rollouts have one id"),
        (b'"medium":"m","rollouts"', b'"media":"m","rollouts"', "2 problems"),
        (b'"rollouts"', b"rollouts", "Invalid JSON"),
    ],
)
def test_damaged_facts_are_a_message(old, new, says):
    data = dump_facts(QUERY)
    assert old in data
    with pytest.raises(DataError, match=rf"facts\.jsonl:7: .*{says}"):
        load_facts(data.replace(old, new), where="facts.jsonl:7")


def test_facts_that_cannot_be():
    with pytest.raises(ValueError, match="no rollouts"):
        QueryFacts(id="q", medium="m", rollouts=())
    with pytest.raises(ValueError, match="ranks '4' first"):
        rollout("a", "3", ranking=("4", "3"))


# ---------------------------------------------------------------- decisions


def test_decision_by_hand():
    found = decide(QUERY)
    assert [one.id for one in found.rollouts] == list("abcd")
    # VisFid: majority "3" is a and b; n1 shows HALF, n2 is another medium. a: best of b's and n1's HALF: 1/2. b: n1's HALF: 1.
    # c: AWAY touches neither: 0. d has no step.
    assert [one.fidelity for one in found.rollouts] == [0.5, 1.0, 0.0, None]
    assert [(one.num_scored, one.num_unscored) for one in found.rollouts] == [(1, 0), (1, 0), (1, 0), (0, 0)]
    assert [one.worker for one in found.rollouts] == ["ZOOM", "ZOOM", "ZOOM>OCR", ""]
    zoomer, other = found.rollouts[0].reliability, found.rollouts[2].reliability
    assert zoomer > other and found.rollouts[3].reliability is None  # the silent class never voted
    # d is the mean in everything: confidence 2.3/3, entropy 2.5/3, VisFid 1/2, and the rollouts' reliabilities.
    raw = [0.8 * math.exp(-0.5) * 0.6 * zoomer, 0.6 * math.exp(-0.5) * 1.1 * zoomer, 0.9 * math.exp(-1.5) * 0.1 * other,
           2.3 / 3 * math.exp(-2.5 / 3) * 0.6 * (2 * zoomer + other) / 3]  # fmt: skip
    shares = np.array(raw) / sum(raw)
    assert [one.weight for one in found.rollouts] == pytest.approx(shares)
    assert dict(found.ballot.scores) == pytest.approx({"3": shares[0] + shares[1], "4": shares[2]})
    assert found.ballot.margin == pytest.approx(shares[0] + shares[1] - shares[2]) and not found.is_abstaining
    # Exemplar: a scores -1/6 - 1/2 + 1/2, b -1/6 + 1/2 + 1.
    assert found.exemplar == "b" and found.answer == "3" and found.label == "3"
    # a has b's op and half of its place; d has nothing.
    assert [one.similarity for one in found.rollouts] == pytest.approx([0.75, 1.0, 0.25, 0.0])


def test_credit_by_hand():
    decision = decide(QUERY)
    found, after = credit(QUERY, decision, ValueState(baseline=0.5))
    # c failed once: -0.3. V = 0.5, the first of its kind: omega 1.
    assert found.returns == pytest.approx((0.75, 1.0, -0.3, 0.0))
    assert found.advantages == pytest.approx((0.25, 0.5, -0.8, -0.5))
    assert found.value == pytest.approx(0.5) and found.weight == 1.0 and found.is_kept == (True,) * 4 and not found.is_masked
    assert after.value == pytest.approx(0.5) and after.baseline == pytest.approx(0.9 * 0.5 + 0.1 * 1.45 / 4)


def test_returns_against_the_mean_of_their_own_query():
    """Returns 0.75, 1, -0.3 and 0 have the mean 1.45 / 4; what earlier queries came to plays no part, and is still kept."""
    decision, how = decide(QUERY), DecisionSettings(baseline="query")
    found, after = credit(QUERY, decision, ValueState(baseline=9.0), how)
    assert found.advantages == pytest.approx([each - 1.45 / 4 for each in (0.75, 1.0, -0.3, 0.0)])
    assert after.baseline == pytest.approx(0.9 * 9.0 + 0.1 * 1.45 / 4)
    doubled = replace(QUERY, rollouts=(*QUERY.rollouts, replace(QUERY.rollouts[1], id="b2")))
    again, _ = credit(doubled, decide(doubled, how), ValueState(), how)
    assert sum(again.advantages) == pytest.approx(0) and not all(again.is_kept)  # a repeat has no part in the mean


def test_a_repeat_counts_in_the_vote_but_teaches_nothing():
    doubled = replace(QUERY, rollouts=(*QUERY.rollouts, replace(QUERY.rollouts[1], id="b2")))
    found, _ = credit(doubled, decide(doubled), ValueState())
    assert dict(decide(doubled).ballot.scores)["3"] > dict(decide(QUERY).ballot.scores)["3"]
    place = [one.id for one in decide(doubled).rollouts].index("b2")
    assert not found.is_kept[place] and found.advantages[place] == 0.0 and sum(found.is_kept) == 4


def test_abstaining_masks_the_update_and_still_answers():
    decision = decide(QUERY, DecisionSettings(delta=0.99))
    assert decision.abstention.reasons == ("margin",) and decision.answer == "3"
    found, after = credit(QUERY, decision, ValueState(baseline=0.5))
    assert found.is_masked and set(found.advantages) == {0.0} and after.baseline == 0.5 and after.value == pytest.approx(0.5)


def test_nobody_answers():
    facts = replace(QUERY, rollouts=(rollout("a", None, zoom()), rollout("b", None)))
    decision = decide(facts)
    assert (decision.exemplar, decision.answer, decision.label) == (None, None, None)
    assert decision.abstention.reasons == ("no_answer",) and decision.rollouts[0].similarity is None
    found, _ = credit(facts, decision, ValueState())
    assert found.is_masked and set(found.advantages) == {0.0}


def test_an_answer_that_only_rankings_elect_has_no_exemplar():
    facts = QueryFacts(id="q", medium="m", rollouts=(rollout("a", "A", ranking=("A", "B")), rollout("b", "C", ranking=("C", "B"))))
    decision = decide(facts, DecisionSettings(vote="borda"))
    assert decision.answer == "B" and decision.exemplar is None and credit(facts, decision, ValueState())[0].is_masked


def test_settings_act():
    assert decide(QUERY, DecisionSettings(calibrator=Temperature(temperature=2.0))).rollouts[2].confidence == pytest.approx(0.75)  # of 0.9
    assert dict(decide(QUERY, DecisionSettings(vote="majority")).ballot.scores) == {"3": 0.5, "4": 0.25}
    assert decide(QUERY, DecisionSettings(quantile=math.inf)).abstention.reasons == ("conformal",)
    assert decide(QUERY, DecisionSettings(quantile=0.9)).is_abstaining is False
    for wrong in (DecisionSettings(vote="loudest"), DecisionSettings(reliability="glad")):
        with pytest.raises(ConfigError, match="choose one of"):
            decide(QUERY, wrong)


def test_every_decision_can_be_made_again_from_the_disk():
    rich = DecisionSettings(calibrator=Temperature(temperature=1.3), quantile=math.inf, reliability="full")
    for settings in (DecisionSettings(), rich):
        facts = load_facts(dump_facts(QUERY), where="facts.jsonl:1")
        again = load(DecisionSettings, dump(settings), where="run.json")
        decision = decide(QUERY, settings)
        assert again == settings and decide(facts, again) == decision
        assert load(Decision, dump(decision), where="decisions.jsonl:1") == decision
        earned, after = credit(QUERY, decision, ValueState(value=0.1, values=Running(2, 0.3, 0.1)))
        assert load(Credit, dump(earned), where="x") == earned and load(ValueState, dump(after), where="x") == after
    with pytest.raises(DataError, match=r"decisions\.jsonl:2: the line"):
        load(Decision, b"{", where="decisions.jsonl:2")
