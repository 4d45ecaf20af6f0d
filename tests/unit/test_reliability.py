"""Dawid-Skene EM against values worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pixelis.core.errors import ConfigError
from pixelis.ttrl.reliability import Cast, Smoothing, full, one_coin, reliabilities, signature

NONE = Smoothing(right=0.0, wrong=0.0)


def casts(rows):
    return [Cast(task=task, worker=worker, label=label) for task, worker, label in rows]


def test_signature():
    assert signature(["ZOOM", "ZOOM", "OCR", "ZOOM"]) == "ZOOM>OCR>ZOOM"
    assert signature([]) == "" and signature(["", "SEG"]) == "?>SEG"


def test_one_step_of_one_coin_by_hand():
    # One task, answers A (workers x, y) and B (worker z). Vote shares 2/3, 1/3. With 2 right and 1 wrong beforehand the first skills are
    # x, y: (2/3 + 2) / 4 = 2/3; z: (1/3 + 2) / 4 = 7/12. Then A: 2/3 * 2/3 * 5/12 = 20/108, B: 1/3 * 1/3 * 7/12 = 7/108, so A is true
    # with 20/27. Skills: x, y: (20/27 + 2) / 4 = 37/54; z: (7/27 + 2) / 4 = 61/108.
    found = one_coin(casts([("t", "x", "A"), ("t", "y", "A"), ("t", "z", "B")]), max_iterations=1)
    assert found.posterior["t"] == pytest.approx({"A": 20 / 27, "B": 7 / 27})
    assert found.of_worker == pytest.approx({"x": 37 / 54, "y": 37 / 54, "z": 61 / 108})


def test_errors_spread_over_the_tasks_own_answers():
    # Three answers, one vote each, one worker: skill (3 * 1/3 + 2) / 6 = 1/2, and all answers stay equally likely: an error has two places.
    found = one_coin(casts([("t", "w", label) for label in "ABC"]))
    assert found.posterior["t"] == pytest.approx({"A": 1 / 3, "B": 1 / 3, "C": 1 / 3})
    assert found.of_worker["w"] == pytest.approx(0.5)


def test_a_unanimous_task_leaves_room_for_error():
    # A alone, two votes of one worker: first skill (2 + 2) / 5 = 4/5; A: 16/25 to 1/25 for "something else"; skill (2 * 16/17 + 2) / 5.
    found = one_coin(casts([("t", "w", "A"), ("t", "w", "A")]), max_iterations=1)
    assert found.posterior["t"] == pytest.approx({"A": 16 / 17})
    assert found.of_worker["w"] == pytest.approx((2 * 16 / 17 + 2) / 5)


def test_one_step_of_the_full_model_by_hand():
    # Two tasks; x says A then B, y says A then A. Shares: t A 1; u A 1/2, B 1/2. No smoothing. Confusions [true][said]:
    # x: true A: said A 1, said B 1/2; true B: said B 1/2. y: true A: said A 1 + 1/2; true B: said A 1/2. Prior: A 3/4, B 1/4.
    # t: A: 3/4 * 2/3 * 1; B: 1/4 * 0 * 1. u: A: 3/4 * 1/3 * 1 = 1/4; B: 1/4 * 1 * 1 = 1/4.
    votes = casts([("t", "x", "A"), ("t", "y", "A"), ("u", "x", "B"), ("u", "y", "A")])
    found = full(votes, smoothing=NONE, max_iterations=1)
    assert found.posterior["t"] == pytest.approx({"A": 1, "B": 0}, abs=1e-8)
    assert found.posterior["u"] == pytest.approx({"A": 0.5, "B": 0.5}, abs=1e-8)
    # Prior again 3/4, 1/4; x right: 3/4 * 2/3 + 1/4 * 1 = 3/4; y right: 3/4 * 1 + 1/4 * 0.
    assert found.of_worker == pytest.approx({"x": 0.75, "y": 0.75}, abs=1e-8)


def test_those_who_agree_are_trusted_and_the_odd_one_is_not():
    rng = np.random.default_rng(0)
    rows = []
    for task in range(90):
        for worker, skill in (("good", 0.9), ("better", 0.95), ("fair", 0.8), ("poor", 0.3)):
            said = task if rng.random() < skill else task + rng.integers(1, 3)
            rows.append((str(task), worker, "ABC"[said % 3]))
    hits = {
        name: np.mean([label == "ABC"[int(task) % 3] for task, w, label in rows if w == name])
        for name in ("good", "better", "fair", "poor")
    }
    for model in (one_coin, full):
        assert model(casts(rows)).of_worker == pytest.approx(hits, abs=0.08)
    assert one_coin(casts(rows), smoothing=NONE, shares_labels=True).of_worker == pytest.approx(hits, abs=0.04)


def test_pooling_makes_one_query_identifiable():
    # On the query alone A and B have a vote each: nothing tells them apart. Neighbours show that x agrees with others, and y does not.
    query = [("q", "x", "A"), ("q", "y", "B")]
    alone = one_coin(casts(query)).posterior["q"]
    assert alone["A"] == pytest.approx(alone["B"])
    neighbours = [(f"n{k}", worker, "no" if worker == "y" else "yes") for k in range(5) for worker in ("x", "u", "v", "y")]
    pooled = one_coin(casts(query + neighbours)).posterior["q"]
    assert pooled["A"] > 0.85


def test_it_stops_by_gain_and_by_number():
    rng = np.random.default_rng(1)
    rows = [(str(t), w, str(rng.integers(3))) for t in range(20) for w in "abcd"]
    assert len(one_coin(casts(rows), max_iterations=7, least_gain=-1.0).objective) == 7
    settled = one_coin(casts(rows)).objective
    assert len(settled) <= 50 and settled[-1] - settled[-2] <= 1e-4 * abs(settled[-2])
    assert all(later - earlier > 1e-4 * abs(earlier) for earlier, later in itertools.pairwise(settled[:-1]))


def test_by_name():
    votes = casts([("t", "x", "A"), ("t", "y", "A")])
    assert reliabilities(votes) == one_coin(votes).of_worker
    assert reliabilities(votes, "full") == full(votes).of_worker
    assert reliabilities([]) == {}
    with pytest.raises(ConfigError, match="choose one of one_coin, full"):
        reliabilities(votes, "glad")
