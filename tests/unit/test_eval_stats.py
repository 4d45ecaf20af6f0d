"""Intervals and tests: values worked out by hand, and the laws they keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelis.eval.stats import BCA, CLOPPER_PEARSON, NO_INTERVAL, benjamini_hochberg, mean_rate, paired_p, share


def test_clopper_pearson_by_hand():
    none = share(0, 10)  # P(no hit | p) = (1 - p)^10 = 0.025 at the upper end
    assert (none.value, none.low, none.count, none.method) == (0.0, 0.0, 10, CLOPPER_PEARSON)
    assert none.high == pytest.approx(1 - 0.025**0.1)
    every = share(10, 10)
    assert (every.value, every.high) == (1.0, 1.0) and every.low == pytest.approx(0.025**0.1)
    half = share(5, 10)  # the tabled interval
    assert (half.low, half.high) == (pytest.approx(0.18709, abs=1e-5), pytest.approx(0.81291, abs=1e-5))


@pytest.mark.parametrize("rate", [share(0, 0), mean_rate([])])
def test_nothing_counted_is_unknown_and_not_zero(rate):
    assert math.isnan(rate.value) and math.isnan(rate.low) and math.isnan(rate.high)
    assert (rate.count, rate.method) == (0, NO_INTERVAL)
    assert rate.to_json() == {"value": None, "low": None, "high": None, "count": 0, "method": "none"}


def test_bca_by_hand():
    # Resampled means of (0, 2) are 0, 1, 2 with 1/4, 1/2, 1/4: no bias, no skew, so the ends are the percentiles 2.5 and 97.5.
    rate = mean_rate([0.0, 2.0], is_share=False)
    assert (rate.value, rate.low, rate.high, rate.count, rate.method) == (1.0, 0.0, 2.0, 2, BCA)
    # 200 ones of 400: the normal interval 0.5 +- 1.96 * 0.5 / 20, to the grain of 1/400
    rate = mean_rate([0, 1] * 200)
    assert (rate.low, rate.high) == (pytest.approx(0.451, abs=0.004), pytest.approx(0.549, abs=0.004))
    # a long right tail reaches further to the right: 2.7 times as far, where the plain percentile interval says 1.7
    rate = mean_rate([0.0] * 48 + [4.0, 8.0], is_share=False)
    assert rate.high - rate.value > 2.5 * (rate.value - rate.low)


def test_bca_is_seeded():
    values = np.arange(20.0) ** 2
    assert mean_rate(values, seed=3) == mean_rate(values, seed=3)
    assert mean_rate(values, seed=3) != mean_rate(values, seed=4)


def test_constant_data_say_how_their_interval_was_made():
    assert mean_rate([1] * 10) == share(10, 10)
    assert mean_rate([0.0] * 7) == share(0, 7)
    steps = mean_rate([3] * 10, is_share=False)
    assert (steps.value, steps.count, steps.method) == (3.0, 10, NO_INTERVAL) and math.isnan(steps.low)
    assert mean_rate([0.0, 1e-200]).method == NO_INTERVAL  # equal, as far as rounding can tell
    # one step in every trajectory, or no difference anywhere, is no share: its interval would not end at 1, or begin at 0
    assert mean_rate([1] * 10, is_share=False).method == mean_rate([0.0] * 10, is_share=False).method == NO_INTERVAL


def test_what_cannot_be_counted_raises():
    with pytest.raises(ValueError, match="1 of 2 values"):
        mean_rate([1.0, math.nan])
    with pytest.raises(ValueError, match="3 hits of 2"):
        share(3, 2)
    with pytest.raises(ValueError, match="pairs"):
        paired_p([1.0, 2.0], [1.0])


def test_paired_permutation_by_hand():
    assert paired_p([1] * 5, [0] * 5) == 2 / 32  # only all-plus and all-minus of 2^5 signs are as extreme
    assert paired_p([3, 2, 1], [0, 0, 0]) == 2 / 8
    # signs of differences +1 +1 -1: sums 3, 1, -1, -3 with 1, 3, 3, 1 of 8; as far above as 1 are 4 of 8, doubled 1
    assert paired_p([1, 1, 0], [0, 0, 1]) == 1.0
    assert paired_p([1] * 5 + [1] * 40, [0] * 5 + [1] * 40) == 2 / 32  # equal pairs say nothing
    assert paired_p([1, 1], [1, 1]) == paired_p([1], [0]) == 1.0
    assert math.isnan(paired_p([], []))


def test_paired_permutation_at_random_is_close_to_exact():
    # 16 differences of +1 and 4 of -1: P(at least 16 of 20 heads), doubled, is 2 * 6196 / 2^20
    one, two = [1] * 16 + [0] * 4, [0] * 16 + [1] * 4
    assert paired_p(one, two, num_resamples=10_000) == pytest.approx(2 * 6196 / 2**20, abs=0.004)
    assert paired_p(one, two, seed=1) == paired_p(one, two, seed=1)


def test_benjamini_hochberg_by_hand():
    # in order .005 .01 .03 .04, times 4/1 4/2 4/3 4/4: .02 .02 .04 .04
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    adjusted = benjamini_hochberg([0.01, math.nan, 0.04])
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.04]) and math.isnan(adjusted[1])
    assert benjamini_hochberg([]).size == 0 and np.isnan(benjamini_hochberg([math.nan])).all()


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_a_share_lies_in_its_interval(hits, misses):
    rate, mirrored = share(hits, hits + misses), share(misses, hits + misses)
    if rate.count:
        assert 0 <= rate.low <= rate.value <= rate.high <= 1 and rate.low < rate.high
        assert (rate.low, rate.high) == (pytest.approx(1 - mirrored.high), pytest.approx(1 - mirrored.low))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1, allow_subnormal=False), min_size=2, max_size=30))
def test_a_mean_lies_in_its_interval(values):
    rate = mean_rate(values, num_resamples=500)
    assert rate.count == len(values)
    if rate.method != NO_INTERVAL:
        assert -1e-9 <= rate.low <= rate.high <= 1 + 1e-9
        assert rate.low - 1e-9 <= rate.value <= rate.high + 1e-9


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=9), st.randoms(use_true_random=False))
def test_order_and_sides_do_not_matter(pairs, chance):
    p = paired_p(*zip(*pairs, strict=True))
    assert 0 < p <= 1
    assert paired_p(*reversed(list(zip(*pairs, strict=True)))) == pytest.approx(p)
    chance.shuffle(pairs)
    assert paired_p(*zip(*pairs, strict=True)) == pytest.approx(p)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_adjusted_p_are_never_smaller_and_keep_their_order(p):
    adjusted = benjamini_hochberg(p)
    assert np.all(adjusted >= np.array(p) - 1e-12) and np.all(adjusted <= 1)
    assert np.all(np.diff(adjusted[np.argsort(p, kind="stable")]) >= -1e-12)
