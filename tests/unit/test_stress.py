"""Neighbourhoods changed on purpose, and votes in which neighbours have a voice, against values worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pixelis.core.errors import ConfigError
from pixelis.ttrl.decide import DecisionSettings, decide, neighbour_voter
from pixelis.ttrl.facts import NeighbourFacts, QueryFacts, RolloutFacts, dump_facts, load_facts
from pixelis.ttrl.reliability import Cast
from pixelis.ttrl.stress import Stress, flipped, near_missed, stressed, through_journey
from pixelis.ttrl.vote import Voter, Weighing, hold_vote

BOLD = DecisionSettings(vote="majority", delta=0.0, counts_neighbours=True)


def neighbour(name, answer, similarity=0.9, votes=None):
    labels = votes if votes is not None else [] if answer is None else [answer]
    cast = tuple(Cast(task="", worker="", label=label) for label in labels)
    return NeighbourFacts(id=name, similarity=similarity, medium="m", votes=cast, answer=answer)


def query(labels, neighbours=()):
    rollouts = tuple(RolloutFacts(id=f"r{k}", answer=label, label=label, confidence=0.9) for k, label in enumerate(labels))
    return QueryFacts(id="q", medium="m", rollouts=rollouts, neighbours=tuple(neighbours))


def generator():
    return np.random.default_rng(0)


# ---------------------------------------------------------------- votes


def test_neighbours_vote_by_similarity_over_the_answers_of_the_rollouts():
    voters = [Voter("A"), Voter("B"), Voter("B"), *(Voter(label, similarity=s) for label, s in (("A", 0.9), ("B", 0.3), ("C", 0.99)))]
    weight_N, ballot = hold_vote(voters, "similarity")
    assert weight_N.tolist() == pytest.approx([0, 0, 0, 0.75, 0.25, 0])  # nobody here answered C
    assert ballot.winner == "A" and ballot.margin == pytest.approx(0.5)
    for alone in (voters[:3], [*voters[:3], Voter("C", similarity=0.9), Voter("A", similarity=-0.2)]):
        weight_N, ballot = hold_vote(alone, "similarity")
        assert weight_N[:3].tolist() == pytest.approx([1 / 3] * 3) and ballot.winner == "B"  # then the rollouts decide alone


def test_the_first_that_answers_needs_no_vote():
    weight_N, ballot = hold_vote([Voter(None), Voter("B"), Voter("A"), Voter("A")], "first")
    assert weight_N.tolist() == [0, 1, 0, 0] and (ballot.winner, ballot.margin) == ("B", 1.0)
    _, ballot = hold_vote([Voter(None), Voter(None)], "first", Weighing())
    assert ballot.winner is None and ballot.silent == 1.0


def test_what_a_neighbour_s_voice_weighs():
    # Alike by 0.8, and two of its four rollouts gave its answer: 0.4. Those two are of classes of reliability 0.9 and 0.5.
    votes = tuple(Cast(task="", worker=worker, label=label) for worker, label in (("x", "A"), ("y", "A"), ("x", "B"), ("x", "C")))
    one = NeighbourFacts(id="n", similarity=0.8, medium="m", votes=votes, answer="A")
    voter = neighbour_voter(one, {"x": 0.9, "y": 0.5})
    assert (voter.label, voter.confidence, voter.reliability, voter.similarity) == ("A", pytest.approx(0.4), pytest.approx(0.7), 0.8)
    silent = neighbour_voter(replace(one, votes=()), {})
    assert math.isnan(silent.confidence) and math.isnan(silent.reliability)


def test_flipped_neighbours_steer_hard_majority_and_not_the_weighted_vote():
    labels, near = ["A", "A", "B"], [neighbour("n0", "A", 0.2), neighbour("n1", "A", 0.2)]
    clean, hit = (query(labels, some) for some in (near, flipped(near, labels, 1.0, generator())))
    assert decide(clean, BOLD).ballot.scores == (("A", pytest.approx(4 / 5)), ("B", pytest.approx(1 / 5)))
    steered = decide(hit, BOLD)
    assert steered.ballot.scores == (("B", pytest.approx(3 / 5)), ("A", pytest.approx(2 / 5)))
    assert [one.weight for one in steered.rollouts] == pytest.approx([0.2] * 3)  # the rest is the neighbours'
    # Weighted: 0.9 for a rollout, 0.2 for a neighbour; one worker class, so reliability is the same. A 1.8, B 0.9 + 0.4, of 3.1.
    held = decide(hit, replace(BOLD, vote="weighted"))
    assert held.label == "A" and held.ballot.margin == pytest.approx(0.5 / 3.1)
    assert decide(hit, replace(BOLD, vote="weighted", delta=0.2)).is_abstaining
    assert decide(hit, replace(BOLD, counts_neighbours=False)).label == "A"  # without a voice they cannot steer


def test_an_answer_that_only_neighbours_give_may_win_and_teaches_nothing():
    found = decide(query(["A"], [neighbour("n0", "7"), neighbour("n1", "7")]), BOLD)
    assert (found.label, found.answer, found.exemplar) == ("7", "7", None)


# ---------------------------------------------------------------- stress


def test_a_flip_by_hand():
    one = neighbour("n0", "A", votes=["A", "A", "B"])
    (hit,) = flipped([one], ["A", None, "B"], 1.0, generator())
    assert (hit.answer, [vote.label for vote in hit.votes], hit.stress) == ("B", ["B", "B", "B"], "flip")
    assert (hit.id, hit.similarity, hit.medium) == (one.id, one.similarity, one.medium)
    # The query's rollouts agree with it: then another neighbour's answer. Who has none to take, or none at all, stays.
    pair = [neighbour("n0", "A"), neighbour("n1", "C"), neighbour("n2", None)]
    assert [one.answer for one in flipped(pair, ["A"], 1.0, generator())] == ["C", "A", None]
    alone = (neighbour("n0", "A"), neighbour("n1", "A"))
    assert flipped(alone, ["A", "A"], 1.0, generator()) == alone
    assert flipped(pair, ["A", "B"], 0.0, generator()) == tuple(pair)


def test_near_misses_by_hand():
    near = [neighbour("n0", "A"), neighbour("n1", "A")]
    pool = [neighbour("p0", "A", 0.8), neighbour("p1", None, 0.7), neighbour("p2", "B", 0.6), neighbour("p3", "C", 0.5)]
    found = near_missed(near, pool, ["A", "B", "A"], 1.0, generator())
    assert [(one.id, one.stress) for one in found] == [("p2", "near_miss"), ("p3", "near_miss")]
    short = near_missed(near, pool[:3], ["A"], 1.0, generator())
    assert [one.id for one in short] == ["p2", "n1"]  # the pool ends
    assert [one.id for one in near_missed(near, pool, [None], 1.0, generator())] == ["p0", "p2"]  # no answer of its own to miss


def test_a_stressed_query_is_decided_again_from_its_stored_facts():
    found = [neighbour(f"n{k}", "AB"[k % 2], 0.9 - k / 20) for k in range(12)]
    labels, both = ["A", "A", "B"], Stress(flip=0.5, near_miss=0.5)
    near = stressed(found, labels, both, (3, 7), num=4)
    assert len(near) == 4 and {one.stress for one in near} >= {"flip", "near_miss"}
    assert near == stressed(found, labels, both, (3, 7), num=4)
    assert len({stressed(found, labels, both, (3, number), num=4) for number in range(20)}) > 1  # another query, another draw
    facts = query(labels, near)
    again = load_facts(dump_facts(facts), where="here")
    assert again == facts and decide(again, BOLD) == decide(facts, BOLD)
    plain = load_facts(dump_facts(facts).replace(b',"stress":"flip"', b"").replace(b',"stress":"near_miss"', b""), where="here")
    assert {one.stress for one in plain.neighbours} == {""}  # lines of earlier releases load


def test_a_picture_s_journey():
    noise = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    assert through_journey(noise, Stress()) is noise
    assert through_journey(noise, Stress(rescale=0.5)).shape == (6, 10, 3)
    assert through_journey(noise, Stress(rescale=0.01)).shape == (1, 1, 3)
    crushed = through_journey(noise, Stress(jpeg=20))
    assert crushed.shape == noise.shape and np.abs(crushed.astype(int) - noise).mean() > 5
    red = np.zeros((16, 16, 3), np.uint8) + np.array([200, 20, 20], np.uint8)
    assert np.abs(through_journey(red, Stress(jpeg=90)).astype(int) - red).max() < 6  # red stays red: the channels keep their order


@pytest.mark.parametrize("values", [{"flip": 1.5}, {"near_miss": -0.1}, {"jpeg": 0}, {"jpeg": 101}, {"rescale": 0.0}, {"rescale": 2.0}])
def test_stress_out_of_range(values):
    with pytest.raises(ConfigError, match="give"):
        Stress(**values)
