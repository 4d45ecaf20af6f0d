"""The vote and abstention against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pixelis.core.errors import ConfigError
from pixelis.ttrl.abstain import abstain, conformal_quantile, conformal_set, nonconformity
from pixelis.ttrl.vote import Ballot, Voter, Weighing, borda, by_confidence, count, equal, hold_vote, weighted


def ballot(*scores: float, silent: float = 0.0) -> Ballot:
    named = tuple(zip("ABCDEFGH", scores, strict=False))
    return Ballot(scores=named, silent=silent, margin=scores[0] - (scores[1] if len(scores) > 1 else 0.0))


# ---------------------------------------------------------------- weights


def test_weights_by_hand():
    # 0.8 * exp(-1) * (0.1 + 0.4) * 0.5 = 0.2 exp(-1); 0.4 * exp(-2) * (0.1 + 0.9) * 0.5 = 0.2 exp(-2). Shares 1 / (1 + 1/e) and the rest.
    voters = [Voter("A", 0.8, 1.0, 0.4, 0.5), Voter("B", 0.4, 2.0, 0.9, 0.5)]
    first = 1 / (1 + math.exp(-1))
    assert weighted(voters) == pytest.approx([first, 1 - first])
    # Squared confidence doubles the first's lead; half the temperature gives exp(-2) and exp(-4).
    sharper = weighted(voters, Weighing(power=2.0, scale_nats=0.5))
    assert sharper[0] / sharper[1] == pytest.approx(2 * math.exp(2))
    # Without epsilon: 0.8 * 0.4 to 0.4 * 0.9 * exp(-1).
    bare = weighted(voters, Weighing(epsilon=0.0))
    assert bare[0] / bare[1] == pytest.approx(0.32 / (0.36 * math.exp(-1)))


def test_unknown_is_the_mean_of_the_known_and_not_zero():
    voters = [Voter("A", 0.9, 0.0, 1.0, 0.5), Voter("B", 0.9, 0.0, 0.5, 0.5), Voter("C", 0.9, 0.0, math.nan, 0.5)]
    # 1.1, 0.6 and 0.1 + 0.75 = 0.85, of 2.55.
    assert weighted(voters) == pytest.approx([1.1 / 2.55, 0.6 / 2.55, 0.85 / 2.55])
    assert weighted([Voter("A"), Voter("B")]) == pytest.approx([0.5, 0.5])
    assert weighted([Voter("A", entropy_nats=2.0), Voter("B")]) == pytest.approx([0.5, 0.5])


def test_refuted_evidence_and_sure_nonsense_still_give_finite_weights():
    for voters in ([Voter("A", 0.0), Voter("B", 1.0)], [Voter("A", 0.0), Voter("B", 0.0)], [Voter("A", 0.5, 5000.0), Voter("B", 0.5, 0.0)]):
        weight = weighted(voters, Weighing(epsilon=0.0))
        assert np.isfinite(weight).all() and weight.sum() == pytest.approx(1)


def test_baseline_weights():
    voters = [Voter("A", 0.9, 9.0, 0.0, 0.1), Voter("B", 0.3)]
    assert equal(voters) == pytest.approx([0.5, 0.5])
    assert by_confidence(voters) == pytest.approx([0.75, 0.25])  # nothing but confidence counts
    assert by_confidence(voters, Weighing(power=2.0)) == pytest.approx([0.9, 0.1])


# ---------------------------------------------------------------- counting


def test_count_by_hand():
    found = count(["A", "B", "A", None, "C"], np.array([1, 3, 1, 2, 1]))
    assert found.scores == (("B", 3 / 8), ("A", 2 / 8), ("C", 1 / 8))
    assert (found.winner, found.silent, found.margin) == ("B", 0.25, 0.125)


def test_one_answer_among_silent_rollouts_has_a_small_margin():
    found = count(["A", *[None] * 7], np.ones(8))
    assert found.margin == 1 / 8 and abstain(found).reasons == ("margin",)
    assert count(["A", "A"], np.ones(2)).margin == 1.0


def test_nobody_answered():
    found = count([None, None], np.ones(2))
    assert found == Ballot(scores=(), silent=1.0, margin=0.0) and found.winner is None
    assert abstain(found, delta=0.0).reasons == ("no_answer",)


def test_of_equal_answers_the_first_supported_leads():
    assert count(["B", "A", "A", "B"], np.ones(4)).winner == "B"
    # 0.1 + 0.2 is not 0.3 in floats; it is here.
    assert count(["A", "B", "B"], np.array([0.3, 0.1, 0.2])).winner == "A"
    assert count(["B", "B", "A"], np.array([0.1, 0.2, 0.3])).winner == "B"


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, math.nan], [1.0, math.inf]])
def test_weights_that_cannot_be(weights):
    with pytest.raises(ValueError, match="2 rollouts need as many weights"):
        count(["A", "B"], np.array(weights))


def test_borda_by_hand():
    # Three answers. A B C: 3 2 1; B C A: 3 2 1; C: 3. A 3 + 1 = 4, B 2 + 3 = 5, C 1 + 2 + 3 = 6 of 15.
    found = borda([("A", "B", "C"), ("B", "C", "A"), ("C",)], np.ones(3))
    assert dict(found.scores) == pytest.approx({"A": 4 / 15, "B": 5 / 15, "C": 6 / 15}) and found.winner == "C"
    # The second choice of all can win: B is second everywhere. A 3, C 3, B 2 + 2 of M = 3.
    assert borda([("A", "B"), ("C", "B")], np.ones(2)).winner == "B"
    assert borda([("A",), ("B",), ("A",)], np.ones(3)) == count(["A", "B", "A"], np.ones(3))
    assert borda([("A",), ()], np.ones(2)) == count(["A", None], np.ones(2))


def test_votes_by_name():
    voters = [
        Voter("A", 0.9, 0.1, 1.0, 0.9),
        Voter("B", 0.5, 3.0, 0.0, 0.5, ranking=("B", "C")),
        Voter("B", 0.2, 3.0, 0.0, 0.5, ranking=("B", "C")),
        Voter("C", 0.1, 3.0, 0.0, 0.5, ranking=("C", "B")),
    ]
    assert hold_vote(voters)[1].winner == "A"  # surest, and the only one whose evidence stands
    assert hold_vote(voters, "majority")[1].margin == pytest.approx(0.25)
    assert hold_vote(voters, "confidence")[1].scores[0] == ("A", pytest.approx(0.9 / 1.7))
    # Borda: A 3; B 3 + 3 + 2; C 2 + 2 + 3.
    assert dict(hold_vote(voters, "borda")[1].scores) == pytest.approx({"A": 3 / 18, "B": 8 / 18, "C": 7 / 18})
    with pytest.raises(ConfigError, match="weighted, majority, confidence, borda"):
        hold_vote(voters, "dictator")


# ---------------------------------------------------------------- abstention


def test_margin_rule():
    assert abstain(ballot(0.58, 0.42), delta=0.15).reasons == () and abstain(ballot(0.57, 0.43), delta=0.15).reasons == ("margin",)
    # Exactly delta is enough, although 0.575 - 0.425 is a little less than 0.15 in floats.
    assert 0.575 - 0.425 < 0.15 and not abstain(ballot(0.575, 0.425), delta=0.15).is_abstaining
    assert not abstain(ballot(0.5, 0.5), delta=0.0).is_abstaining


def test_quantile_by_hand():
    # ceil(10 * 0.9) = 9th of nine; ceil(20 * 0.9) = 18th of nineteen; ceil(11 * 0.9) = 10th of ten.
    assert conformal_quantile(np.arange(1, 10) / 10) == 0.9
    assert conformal_quantile(np.arange(1, 20) / 20) == 0.9
    assert conformal_quantile(np.arange(10) / 10) == 0.9
    assert conformal_quantile([0.4, 0.2, 0.3, 0.1], alpha=0.4) == pytest.approx(0.3)  # ceil(5 * 0.6) = 3rd
    assert conformal_quantile(np.zeros(8)) == math.inf  # ceil(9 * 0.9) = 9 of eight
    assert conformal_quantile([]) == math.inf
    with pytest.raises(ValueError, match=r"alpha 1\.5"):
        conformal_quantile([0.1], alpha=1.5)
    with pytest.raises(ValueError, match="finite"):
        conformal_quantile([math.nan])


def test_conformal_rule():
    votes = ballot(0.6, 0.3, 0.1)
    assert [nonconformity(votes, label) for label in "ABZ"] == pytest.approx([0.4, 0.7, 1.0])
    assert conformal_set(votes, 0.4) == ("A",) and conformal_set(votes, 0.7) == ("A", "B") and conformal_set(votes, 0.39) == ()
    sure, two, empty = (abstain(votes, quantile=q) for q in (0.5, 0.7, 0.3))
    assert not sure.is_abstaining and sure.conformal == ("A",)
    assert two.reasons == ("conformal",) and two.conformal == ("A", "B")
    assert empty.reasons == ("conformal",) and empty.conformal == ()
    assert abstain(ballot(0.5, 0.45), quantile=0.1).reasons == ("margin", "conformal")


def test_a_quantile_of_one_promises_nothing_even_of_a_unanimous_vote():
    unanimous = ballot(1.0)
    assert not abstain(unanimous, quantile=0.99).is_abstaining
    for quantile in (1.0, math.inf):
        found = abstain(unanimous, quantile=quantile)
        assert found.reasons == ("conformal",) and found.is_open and found.conformal == ("A",)
