"""Rewards of phase 2 against values worked out by hand, their laws, and what must not earn anything."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.rewards.answer import anls, exact, is_flood, relative_accuracy
from pixelis.rewards.coherence import adjacent_cosines, coherence
from pixelis.rewards.curiosity import curiosity, gate, mean_curiosity, surprise
from pixelis.rewards.groups import (
    EPSILON,
    RewardWeights,
    advantages,
    call_advantages,
    pixel_reasoner_bonus,
    standardised,
    total_reward,
    turn_advantages,
)
from pixelis.rewards.penalty import fines, penalty
from pixelis.rewards.priors import argument_l2, argument_tv, next_step_infonce
from pixelis.rewards.running import FamilyStatistics, Running

finite = st.floats(-50, 50)


# ---------------------------------------------------------------- running statistics


def test_running_by_hand():
    # 1, 2, 3, 6: mean 3, squared deviations 4 + 1 + 0 + 9 = 14, variance 3.5.
    running = Running().add([1, 2]).add([3, math.nan]).add([6])
    assert (running.count, running.mean, running.squares) == (4, pytest.approx(3), pytest.approx(14))
    assert running.z(6) == pytest.approx(3 / math.sqrt(3.5))
    assert Running().z(5) == Running().add([2]).z(5) == Running().add([2, 2, 2]).z(5) == 0.0


@given(st.lists(finite, min_size=2, max_size=30), st.integers(0, 30))
def test_running_does_not_mind_how_values_arrive(values, cut):
    whole, parts = Running().add(values), Running().add(values[:cut]).merge(Running().add(values[cut:]))
    assert parts.count == whole.count and parts.mean == pytest.approx(whole.mean, abs=1e-9)
    assert parts.squares == pytest.approx(whole.squares, abs=1e-6)
    assert whole.std == pytest.approx(float(np.std(values)), abs=1e-6)


def test_families_apart_and_a_new_one_judged_by_all():
    found = FamilyStatistics().add("count", [0, 2]).add("size", [10, 14])
    assert found.of("count").mean == 1 and found.of("size").mean == 12
    assert found.of("unseen").mean == pytest.approx(6.5) and found.of("unseen").count == 4
    assert FamilyStatistics.from_json(found.to_json()) == found


def test_a_family_of_a_few_values_that_happen_to_be_alike_is_judged_by_all():
    found = FamilyStatistics().add("table", [0.9, 0.90001]).add("count", [0.8, 1.0] * 16)
    assert found.of("table").z(0.8) == pytest.approx(-20_001, rel=1e-3)
    assert found.of("table", least=3).z(0.8) == pytest.approx(-1.0, abs=0.05)
    assert found.of("count", least=32) == found.of("count")


# ---------------------------------------------------------------- curiosity


def test_curiosity_by_hand():
    # Opposite: 2; at right angles: 1; alike: 0. Uncertainty twice the usual: exp(-2).
    seen = surprise(np.array([[1, 0], [1, 0], [3, 0]]), np.array([[-2, 0], [0, 5], [1, 0]]))
    assert seen.tolist() == [2, 1, 0]
    open_S = gate(np.array([0.0, 0.1, 0.2]), 0.1)
    assert np.allclose(open_S, [1, math.exp(-1), math.exp(-2)])
    reward = curiosity(seen, np.array([0.9, 0.4, 0.9]), open_S)
    # The second is thought to fail: 0.5 * 0.4 * exp(-1).
    assert np.allclose(reward, [1.8, 0.2 * math.exp(-1), 0])
    assert curiosity(seen, np.array([0.9, 0.4, 0.9]), open_S, cap=1.0)[0] == 1.0
    assert curiosity(seen, np.ones(3), open_S, earns_S=np.array([False, True, True]))[0] == 0.0
    assert mean_curiosity(np.array([1.0, math.nan, 0.5])) == 0.75 and mean_curiosity(np.zeros(0)) == 0.0


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 1), st.floats(0, 5)), min_size=1, max_size=8), st.floats(0.01, 2))
def test_curiosity_is_bounded_and_falls_with_uncertainty(rows, cap):
    seen, p_valid, variance = (np.array(column) for column in zip(*rows, strict=True))
    reward = curiosity(seen, p_valid, gate(variance, 1.0), cap=cap)
    assert (reward >= 0).all() and (reward <= cap).all()
    assert (curiosity(seen, p_valid, gate(variance + 1, 1.0), cap=cap) <= reward + 1e-12).all()


def test_no_direction_is_unknown():
    assert math.isnan(surprise(np.zeros((1, 3)), np.ones((1, 3)))[0])


# ---------------------------------------------------------------- coherence and priors


def test_coherence_by_hand():
    steps = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 2.0]])
    assert np.allclose(adjacent_cosines(steps), [0.6, 0.8])
    usual = Running().add([0.5, 0.7])  # mean 0.6, deviation 0.1
    assert coherence(steps, usual) == pytest.approx((0 + 2) / 2)
    assert coherence(steps[:1], usual) == coherence(steps[:0], usual) == 0.0


def test_priors_by_hand():
    arguments = np.array([[0.0, 0.0], [0.3, 0.4], [0.3, 0.0]])
    assert argument_l2(arguments) == pytest.approx(-(0.25 + 0.16) / 2)
    assert argument_tv(arguments) == pytest.approx(-(0.7 + 0.4) / 2)
    assert argument_l2(arguments[:1]) == argument_tv(arguments[:1]) == next_step_infonce(np.ones((2, 3))) == 0.0
    # Three steps at right angles: each of the two others is as likely.
    assert next_step_infonce(np.eye(3)) == pytest.approx(math.log(0.5))
    # The successor is like the step, the other one is opposite: 1 / (1 + exp(-2)) at temperature 1, for both.
    line = np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    first, second = -math.log(1 + math.exp(-2)), -2 - math.log(1 + math.exp(-2))
    assert next_step_infonce(line, temperature=1.0) == pytest.approx((first + second) / 2)


# ---------------------------------------------------------------- penalty, total, advantages


def test_penalty_by_hand():
    assert penalty(0, 6) == 0 and penalty(2, 9) == pytest.approx(0.66) and penalty(1, 1) == pytest.approx(0.30)
    with pytest.raises(ValueError, match="3 invalid calls among 2"):
        penalty(3, 2)


def test_total_by_hand():
    # Curiosity 0, 2 standardises to -1, 1; coherence does not vary.
    reward = total_reward(np.array([1, 0]), np.array([0.0, 2.0]), np.array([0.3, 0.3]), np.array([0.0, 0.3]))
    assert np.allclose(reward, [0.9, -0.2])
    heavy = total_reward(np.array([1, 0]), np.array([0.0, 2.0]), np.array([0.0, 1.0]), np.zeros(2), RewardWeights(0.5, 0.25))
    assert np.allclose(heavy, [1 - 0.75, 0.75])
    assert np.allclose(standardised(np.array([1.0, math.nan, 3.0])), [-1, 0, 1])


def test_pixel_reasoners_rule_by_hand():
    # One of four looks: 0.5 * (0.3 - 0.25) for it; three operations are two too many: -0.1.
    bonus = pixel_reasoner_bonus(np.array([True, False, False, False]), np.array([3, 0, 1, 0]))
    assert np.allclose(bonus, [0.025 - 0.1, 0, 0, 0])
    assert np.allclose(pixel_reasoner_bonus(np.ones(2, bool), np.ones(2)), 0)  # enough look already


def test_advantages_by_hand():
    # 1, 0, 0, 1: mean 0.5, deviation 0.5.
    found = advantages(np.array([1.0, 0.0, 0.0, 1.0]))
    assert np.allclose(found.advantage_G, np.array([1, -1, -1, 1]) * 0.5 / 0.5001) and found.is_used_G.all()
    cut = advantages(np.array([1.0, 0.0, 0.0, 1.0]), np.array([True, True, False, False]))
    assert cut.is_used_G.tolist() == [True, False, True, True] and cut.advantage_G[1] == 0  # the good one that was cut keeps its own
    top = advantages(np.array([4.0, 1.0, 2.0, 1.0]), top=1)
    assert top.is_used_G.tolist() == [True, False, False, False]
    scaled = advantages(np.array([1.0, 0.9]), scale=0.5)  # of its own std, 0.05, it would be 1 and -1
    assert np.allclose(scaled.advantage_G, np.array([0.05, -0.05]) / 0.5001)
    half = advantages(np.array([1.0, 0.0]), negative=0.5)
    assert half.advantage_G[1] == -half.advantage_G[0] / 2 and half.is_used_G.all()
    better = advantages(np.array([1.0, 0.0]), negative=0.0)
    assert better.is_used_G.tolist() == [True, False] and better.advantage_G[1] == 0
    flat = advantages(np.array([0.7, 0.7]))
    assert flat.is_flat and not flat.is_used_G.any()
    for bad in (np.array([1.0]), np.array([1.0, math.nan])):
        with pytest.raises(ValueError):
            advantages(bad)


@given(st.lists(finite, min_size=2, max_size=12), st.randoms())
def test_advantages_sum_to_nothing_and_do_not_mind_the_order(rewards, random):
    found = advantages(np.array(rewards))
    assert abs(found.advantage_G.sum()) < 1e-6
    order = list(range(len(rewards)))
    random.shuffle(order)
    assert np.allclose(advantages(np.array(rewards)[order]).advantage_G, found.advantage_G[order])


# ---------------------------------------------------------------- answers


def test_answers_by_hand():
    assert exact(" Red. ", ["blue", "red"]) == 1.0 and exact("reds", ["red"]) == 0.0
    assert anls("hallo", ["hello"]) == pytest.approx(0.8) and anls("help", ["hello"]) == pytest.approx(0.6)
    assert anls("xyz", ["hello"]) == 0.0 and anls("x", []) == 0.0
    # Off by a tenth: within 1 - t for t = 0.50 to 0.85, and for the ninth, which lies just below 0.90.
    assert relative_accuracy("about 90", 100) == pytest.approx(0.9)
    assert relative_accuracy("1,000", 1000) == 1.0 and relative_accuracy("none", 5) == 0.0
    assert relative_accuracy("0", 0) == 1.0 and relative_accuracy("1", 0) == 0.0


def test_floods_are_told():
    assert is_flood("<answer>a</answer><answer>b</answer>") and is_flood("x" * 1001)
    assert not is_flood("It is red.\n<answer>red</answer>")


def test_turns_are_charged_with_what_they_lead_to():
    """One rollout is right after an invalid first step, the other wrong after a valid one: rewards 1 and 0, fines 0.3 and 0.

    Ahead of the first turns lie 0.3 and 0, mean 0.15; ahead of the answers nothing. First turns: 0.5 - 0.15 and its opposite; answers: 0.5.
    """
    one, two = turn_advantages(np.array([1.0, 0.0]), [np.array([0.3]), np.array([0.0])], scale=1 - EPSILON)
    assert np.allclose(one, [0.35, 0.5]) and np.allclose(two, [-0.35, -0.5])
    assert np.allclose(one[0], advantages(np.array([0.7, 0.0]), scale=1 - EPSILON).advantage_G[0])
    one, two = turn_advantages(np.array([1.0, 1.0]), [np.array([0.0, 0.3]), np.zeros(0)], scale=1 - EPSILON)
    assert np.allclose(one, [-0.15, -0.15, 0]) and np.allclose(two, [0.15])  # with the fine behind it, the answer is as good
    one, _ = turn_advantages(np.array([1.0, 1.0]), [np.array([0.0, 0.3]), np.zeros(0)], scale=1 - EPSILON, negative=0.5)
    assert np.allclose(one, [-0.075, -0.075, 0])
    assert np.allclose(turn_advantages(np.array([1.0, 0.0]), [np.zeros(1), np.zeros(1)])[0], 1, atol=1e-3)  # over the group's own deviation
    with pytest.raises(ValueError, match="two finite"):
        turn_advantages(np.array([1.0]), [np.zeros(1)])


def test_calls_are_compared_with_those_at_the_same_step():
    """First steps: 2 of 3 are true. Second steps: 1 of 2. A rollout without steps takes no part."""
    found = call_advantages([[True, False], [False, True], [True], []], worth=0.6, scale=1 - EPSILON)
    assert [list(each) for each in found] == [pytest.approx([0.2, -0.3]), pytest.approx([-0.4, 0.3]), pytest.approx([0.2]), []]
    assert [len(each) for each in call_advantages([[], []], worth=1.0)] == [0, 0]


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 8))
def test_fines_sum_to_the_penalty(is_invalid, free):
    assert fines(is_invalid, free_steps=free).sum() == pytest.approx(penalty(sum(is_invalid), len(is_invalid), free_steps=free))
