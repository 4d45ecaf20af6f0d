"""Two orders of the same items at equal coverage and by area, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pixelis.eval.metrics.selective import risk_coverage
from pixelis.eval.metrics.selective_pair import area_gap, areas, error_at


def test_errors_at_a_coverage_by_hand():
    curve = risk_coverage([0.9, 0.5, 0.5, 0.1], [0, 1, 0, 1])  # 0 of 1, 1 of 3, 2 of 4
    assert error_at(curve, 0.25) == 0.0
    # The second answer is one of two equals, of which one is wrong; half an error of two.
    assert error_at(curve, 0.5) == pytest.approx(0.25)
    assert error_at(curve, 0.75) == pytest.approx(1 / 3)
    assert error_at(curve, 1.0) == pytest.approx(0.5)
    assert math.isnan(error_at(curve, 0.0)) and math.isnan(error_at(risk_coverage([], []), 1.0))


def test_a_gap_by_hand():
    # One order has the right item first, AURC (0 + 1/2) / 2; the other the wrong one, (1 + 1/2) / 2.
    gap = area_gap([2.0, 1.0], [0, 1], [1.0, 2.0], [0, 1])
    # Of four equally likely draws two hold both items, gap -1/2; one the right item twice, one the wrong one, gap 0.
    assert (gap.value, gap.low, gap.high, gap.count) == (-0.5, -0.5, 0.0, 2)
    # Three items, the wrong one last or first: (1/3) / 3 against (1 + 1/2 + 1/3) / 3. Two thirds of the draws hold it once or twice beside
    # others, gap -1/2; the rest never or thrice, gap 0: within 95 %, though not among the middle ones.
    three = area_gap([3.0, 2.0, 1.0], [0, 0, 1], [1.0, 2.0, 3.0], [0, 0, 1])
    assert (three.value, three.low, three.high) == (pytest.approx(-0.5), pytest.approx(-0.5), 0.0)
    back = area_gap([1.0, 2.0, 3.0], [0, 0, 1], [3.0, 2.0, 1.0], [0, 0, 1])
    assert (back.value, back.low, back.high) == (pytest.approx(0.5), 0.0, pytest.approx(0.5))


def test_items_that_one_of_the_two_knows_nothing_of_are_left_out():
    for here, there in ((math.nan, 1), (1, math.nan)):
        gap = area_gap([2.0, 1.0, 9.0], [0, 1, here], [1.0, 2.0, 0.0], [0, 1, there])
        assert (gap.value, gap.count, gap.num_unscored) == (-0.5, 2, 1)
    nothing = area_gap([1.0], [math.nan], [1.0], [0])
    assert math.isnan(nothing.value) and nothing.count == 0


def test_the_area_of_a_draw_is_that_of_the_drawn_items():
    generator = np.random.default_rng(5)
    confidence, wrong = generator.integers(0, 6, 30) / 5, generator.integers(0, 2, 30).astype(float)
    times = generator.multinomial(30, np.full(30, 1 / 30), size=20)
    one_by_one = [risk_coverage(np.repeat(confidence, some), np.repeat(wrong, some)).aurc for some in times]
    assert areas(confidence, wrong, times) == pytest.approx(one_by_one)


def test_the_same_seed_gives_the_same_interval_and_pairs_are_drawn_together():
    generator = np.random.default_rng(6)
    one, two, wrong = generator.random(60), generator.random(60), generator.integers(0, 2, 60).astype(float)
    gap = area_gap(one, wrong, two, wrong, seed=1)
    assert gap == area_gap(one, wrong, two, wrong, seed=1)
    other = area_gap(one, wrong, two, wrong, seed=2)
    assert other.value == gap.value and (other.low, other.high) != (gap.low, gap.high)
    assert gap.low < gap.value < gap.high
    same = area_gap(one, wrong, 3 * one, wrong)  # the same order: no draw tells them apart
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
