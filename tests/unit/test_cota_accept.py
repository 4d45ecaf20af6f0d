"""Acceptance of traces: z-scores, gates and the facts of one trace, worked out by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelis.core.errors import DataError
from pixelis.core.geometry import Box, TimeSpan
from pixelis.core.media import MediumInfo
from pixelis.core.ops import Call, CallError, OcrOutput, Result, Segment, TempOutput, TextSpan
from pixelis.core.trajectory import PolicyInfo, Step, Trajectory
from pixelis.data.cota.accept import Facts, Verdict, accept, facts_of, observed_share
from pixelis.data.world.item import Evidence, PlannedCall
from pixelis.data.world.items import make_item
from pixelis.data.world.verify import Check

RIGHT, WRONG = Check(is_valid=True, score=1.0), Check(is_valid=False, score=0.0)


def facts(logic=1.0, struct=1.0, vis=1.0, family="count", is_right=True, is_parsed=True) -> Facts:
    return Facts(family=family, is_right=is_right, is_parsed=is_parsed, s_logic=logic, s_struct=struct, s_vis=vis)


# ---------------------------------------------------------------- the score


def test_two_traces_by_hand():
    # Logic 1 and 0: mean 0.5, deviation 0.5, z = +1 and -1. Structure the other way round. Vision alike: z = 0.
    good, bad = accept([facts(logic=1.0, struct=0.4), facts(logic=0.0, struct=0.6)])
    assert good.score == pytest.approx(0.4 - 0.3) and bad.score == pytest.approx(-0.4 + 0.3)
    assert good.is_accepted and bad.is_accepted and good.reason == ""


def test_below_the_threshold_by_hand():
    # Values 1, 1, 1, 0: mean 0.75, deviation sqrt(3) / 4, z of the last -sqrt(3).
    verdicts = accept([facts(), facts(), facts(), facts(struct=0.0)])
    assert verdicts[3].score == pytest.approx(-0.3 * math.sqrt(3))
    assert not verdicts[3].is_accepted and verdicts[3].reason == "score -0.52 is below -0.50"
    assert verdicts[0].score == pytest.approx(0.3 / math.sqrt(3)) and verdicts[0].is_accepted
    assert accept([facts(), facts(), facts(), facts(struct=0.0)], threshold=-0.6)[3].is_accepted


def test_z_is_within_a_family():
    # Each family alone has no spread, however far the two are apart.
    assert [v.score for v in accept([facts(0.2, family="count"), facts(0.9, family="table")])] == [0.0, 0.0]


def test_exactly_at_the_threshold_is_accepted():
    # z = -1 in logic and structure, weights 0.25 and 0.25.
    low = accept([facts(), facts(logic=0.0, struct=0.0)], weights=(0.25, 0.25, 0.5))[1]
    assert low.score == pytest.approx(-0.5) and low.is_accepted


def test_no_decisive_step_counts_as_the_mean():
    scores = [v.score for v in accept([facts(vis=1.0), facts(vis=0.0), facts(vis=None)])]
    assert scores == pytest.approx([0.3, -0.3, 0.0])
    assert [v.score for v in accept([facts(vis=None), facts(vis=None)])] == [0.0, 0.0]


def test_the_gates_are_hard():
    verdicts = accept([facts(is_right=False), facts(is_parsed=False), facts()])
    assert [v.reason for v in verdicts] == ["the answer is wrong", "a call does not parse", ""]
    assert [v.is_accepted for v in verdicts] == [False, False, True]


def test_bad_scores_are_refused():
    with pytest.raises(DataError, match="trace 1 of family count"):
        accept([facts(), facts(struct=math.nan)])
    assert accept([]) == []


unit = st.floats(0, 1)


@settings(deadline=None)
@given(st.lists(st.builds(facts, unit, unit, st.one_of(st.none(), unit), st.sampled_from(("a", "b"))), max_size=12), st.randoms())
def test_laws(many, random):
    verdicts = accept(many)
    order = list(range(len(many)))
    random.shuffle(order)
    shuffled = accept([many[i] for i in order])
    for place, row in enumerate(order):  # order does not matter
        assert shuffled[place].score == pytest.approx(verdicts[row].score, abs=1e-6)
    for family in ("a", "b"):  # z-scores sum to 0
        assert sum(v.score for v, f in zip(verdicts, many, strict=True) if f.family == family) == pytest.approx(0, abs=1e-6)
    assert all(isinstance(v, Verdict) and v.is_accepted == (v.reason == "") for v in verdicts)


# ---------------------------------------------------------------- the facts


SIGN, OTHER = Box(100, 40, 200, 70), Box(300, 40, 400, 70)


@pytest.fixture(scope="module")
def item():
    base = make_item("dev", 0, family="read_sign")
    chain = (PlannedCall(op="OCR", args=base.chain[0].args),)
    return dataclasses.replace(
        base, answer="exit", accept=(), choices=(), answer_kind="text", width=500, height=200, chain=chain,
        evidence=Evidence(boxes=((0, SIGN), (0, OTHER))),
    )  # fmt: skip


def read(text, box, frame=0, **arguments):
    output = OcrOutput(frame=frame, box=box.grow(3), spans=(TextSpan(text=text, box=box, confidence=0.9),))
    result = Result(op="OCR", status="ok", engine="e", version="1", output=output)
    return Step(thought="", text="", call=Call(op="OCR", arguments={"bbox_2d": [int(v) for v in box.as_tuple()], **arguments}),
                result=result, response="")  # fmt: skip


def refused(call=Call(op="OCR", arguments={"ref": 9})):
    result = Result(op="OCR", status="error", engine="e", version="1", error=CallError(kind="bad_ref", message="no step"))
    return Step(thought="", text="", call=call, result=result, response="")


def trace(*steps, answer="exit"):
    medium = MediumInfo(kind="image", sha256="0" * 64, width=500, height=200, num_frames=1, fps=None, duration_s=0.0, name="x.png")
    return Trajectory(
        id="t", question="?", medium=medium, policy=PolicyInfo(name="p", version="1"), seed=0, steps=steps, stop="answered", answer=answer
    )


def test_a_perfect_trace(item):
    found = facts_of(item, trace(read("exit", SIGN), read("exit", OTHER)), [RIGHT, Check(is_valid=True, score=0.9)])
    assert found == Facts(family="read_sign", is_right=True, is_parsed=True, s_logic=1.0, s_struct=1.0, s_vis=pytest.approx(0.95))


def test_half_of_the_evidence_and_a_wrong_answer(item):
    found = facts_of(item, trace(read("exit", SIGN)), [RIGHT])
    assert found.s_logic == pytest.approx((1 + 0.5) / 2)
    wrong = facts_of(item, trace(read("exit", SIGN), answer="gate"), [RIGHT])
    assert not wrong.is_right and wrong.s_logic == pytest.approx(0.25) and wrong.s_vis is None
    unseen = facts_of(item, trace(read("exit", SIGN)), [WRONG])
    assert unseen.s_logic == 0.5 and unseen.s_vis == 0.0  # used, though not true


def test_structure_by_hand(item):
    # Two of three valid, one of three a repetition, three steps are allowed: (2/3 + 2/3 + 1) / 3.
    steps = trace(read("exit", SIGN), read("exit", SIGN), read("no", OTHER))
    assert facts_of(item, steps, [RIGHT, RIGHT, WRONG]).s_struct == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    # Eight different steps where six are allowed.
    long = trace(*(read("exit", SIGN, label=str(i)) for i in range(8)))
    assert facts_of(item, long, [RIGHT] * 8).s_struct == pytest.approx((1 + 1 + 6 / 8) / 3)
    assert facts_of(item, trace(), []).s_struct == 1.0


def test_a_long_chain_may_be_long(item):
    chain = item.chain * 7
    long = trace(*(read("exit", SIGN, label=str(i)) for i in range(9)))
    assert facts_of(dataclasses.replace(item, chain=chain), long, [RIGHT] * 9).s_struct == pytest.approx(1.0)


def test_planned_errors_do_not_lower_the_valid_share(item):
    steps = trace(refused(), read("exit", SIGN))
    assert facts_of(item, steps, [WRONG, RIGHT]).s_struct == pytest.approx((1 / 2 + 1 + 1) / 3)
    planned = facts_of(item, steps, [WRONG, RIGHT], planned_errors=frozenset({0}))
    assert planned.s_struct == 1.0 and planned.is_parsed


def test_planned_repeats_count_as_new_and_a_trace_that_gave_up_misses_nothing(item):
    steps = trace(read("exit", SIGN), read("exit", SIGN), read("exit", SIGN))
    planned = frozenset({0, 1, 2})
    assert facts_of(item, steps, [WRONG] * 3, planned_errors=planned).s_struct == 1.0
    looked = facts_of(item, steps, [WRONG] * 3, planned_errors=planned)
    gave_up = facts_of(item, steps, [WRONG] * 3, planned_errors=planned, has_given_up=True)
    assert looked.s_logic == 0.5 and looked.s_vis == 0.0  # right, with nothing seen; what was read was false
    assert gave_up.s_logic == 1.0 and gave_up.s_vis is None and gave_up.is_right


def test_what_the_grammar_refused_is_not_parsed(item):
    assert not facts_of(item, trace(refused(call=None), read("exit", SIGN)), [WRONG, RIGHT], planned_errors=frozenset({0})).is_parsed


def test_checks_must_fit(item):
    with pytest.raises(DataError, match="1 steps, 0 checks"):
        facts_of(item, trace(read("exit", SIGN)), [])
    with pytest.raises(DataError, match=r"planned errors at \[1\]"):
        facts_of(item, trace(read("exit", SIGN)), [RIGHT], planned_errors=frozenset({1}))


def test_evidence_in_time(item):
    video = dataclasses.replace(
        item, kind="video", fps=5, num_frames=20, evidence=Evidence(boxes=((10, SIGN),), spans=(TimeSpan(1.8, 2.4),))
    )
    for frame, share in ((10, 1.0), (9, 1.0), (11, 1.0), (12, 0.0), (0, 0.0)):
        assert observed_share(video, trace(read("exit", SIGN, frame=frame)), [RIGHT]) == share
    output = TempOutput(event="changes", box=SIGN, first_frame=5, last_frame=19, segments=(Segment(start_s=1.8, end_s=2.0, score=0.9),))
    result = Result(op="TEMP", status="ok", engine="e", version="1", output=output)
    watched = Step(thought="", text="", call=Call(op="TEMP", arguments={"event": "changes"}), result=result, response="")
    assert observed_share(video, trace(watched), [RIGHT]) == 1.0 and observed_share(video, trace(watched), [WRONG]) == 0.0


def test_a_letter_is_an_answer_in_words(item):
    chosen = dataclasses.replace(item, choices=("gate", "exit"), answer="B")
    found = facts_of(chosen, trace(read("exit", SIGN), answer="B"), [RIGHT])
    assert found.is_right and found.s_vis == 1.0  # the step is decisive for "exit"
