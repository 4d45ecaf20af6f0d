"""Laws of stressed neighbourhoods, of votes that neighbours join, and of entropies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelis.ttrl.decide import DecisionSettings, decide
from pixelis.ttrl.facts import NeighbourFacts, QueryFacts, RolloutFacts, dump_facts, load_facts
from pixelis.ttrl.reliability import Cast
from pixelis.ttrl.stress import Stress, flipped, stressed
from pixelis.ttrl.vote import WEIGHTS

LABELS = ("3", "4", "red")
UNIT = st.floats(0, 1)
few = settings(max_examples=40, deadline=None)
said = st.lists(st.none() | st.sampled_from(LABELS), min_size=1, max_size=5)


@st.composite
def neighbourhoods(draw, most=8):
    return tuple(
        NeighbourFacts(
            id=f"n{k}",
            similarity=draw(st.floats(-1, 1)),
            medium="m",
            answer=draw(st.none() | st.sampled_from(LABELS)),
            votes=tuple(Cast(task="", worker="", label=label) for label in draw(st.lists(st.sampled_from(LABELS), max_size=3))),
        )
        for k in range(draw(st.integers(0, most)))
    )


def facts_of(labels, near):
    rollouts = tuple(RolloutFacts(id=f"r{k}", answer=label, label=label) for k, label in enumerate(labels))
    return QueryFacts(id="q", medium="m", rollouts=rollouts, neighbours=near)


hows = st.builds(
    lambda vote, counts: DecisionSettings(vote=vote, counts_neighbours=counts, delta=0.0), st.sampled_from(sorted(WEIGHTS)), st.booleans()
)


@few
@given(neighbourhoods(), said, UNIT, st.integers(0, 99))
def test_the_share_is_kept_and_a_flip_is_another_answer(near, labels, share, seed):
    found = flipped(near, labels, share, np.random.default_rng(seed))
    able = sum(one.stress == "flip" for one in flipped(near, labels, 1.0, np.random.default_rng(seed)))
    num = sum(one.stress == "flip" for one in found)
    assert math.floor(share * able) <= num <= math.floor(share * able) + 1 and num <= able
    for before, after in zip(near, found, strict=True):
        assert (after == before) != (after.stress == "flip")
        assert after.stress == "" or (after.answer != before.answer and after.answer in {*labels, *(one.answer for one in near)} - {None})
        assert len(after.votes) == len(before.votes)


@few
@given(neighbourhoods(12), said, UNIT, UNIT, hows, st.integers(0, 9), st.randoms(use_true_random=False))
def test_stressed_decisions_come_out_again_in_any_order(found, labels, flip, near_miss, how, number, random):
    near = stressed(found, labels, Stress(flip=flip, near_miss=near_miss), (0, number), num=6)
    assert len(near) == min(6, len(found)) and len({one.id for one in near}) == len(near)
    facts = facts_of(labels, near)
    decision = decide(facts, how)
    assert decide(load_facts(dump_facts(facts), where="x"), how) == decision
    assert decide(facts_of(labels, tuple(random.sample(near, len(near)))), how) == decision


@few
@given(neighbourhoods(), said, hows)
def test_a_vote_that_neighbours_join_stays_in_its_range(near, labels, how):
    found = decide(facts_of(labels, near), how)
    assert sum(score for _, score in found.ballot.scores) + found.ballot.silent == pytest.approx(1)
    assert -1e-12 <= sum(one.weight for one in found.rollouts) <= 1 + 1e-9 and 0 <= found.ballot.margin <= 1 + 1e-12


@few
@given(neighbourhoods(), said, st.sampled_from(sorted(WEIGHTS)), st.integers(0, 9))
def test_neighbours_without_a_voice_cannot_move_votes_that_do_not_ask_them(near, labels, vote, seed):
    """Hard majority, confidence and borda of the rollouts alone: flips change nothing."""
    how = DecisionSettings(vote=vote, delta=0.0)
    hit = flipped(near, labels, 1.0, np.random.default_rng(seed))
    if vote != "weighted":
        assert decide(facts_of(labels, hit), how).ballot == decide(facts_of(labels, near), how).ballot


@few
@given(st.lists(st.lists(st.floats(-8, 8), min_size=3, max_size=3), min_size=1, max_size=4))
def test_entropies_lie_between_none_and_that_of_a_fair_draw(rows):
    torch = pytest.importorskip("torch")
    from pixelis.train.losses import token_entropies

    logits = torch.tensor(rows, dtype=torch.float64)
    entropy_N = token_entropies(logits.log_softmax(-1))
    assert (entropy_N >= -1e-12).all() and (entropy_N <= math.log(3) + 1e-12).all()
    shifted = token_entropies((logits + 5).log_softmax(-1))
    assert torch.allclose(shifted, entropy_N)
