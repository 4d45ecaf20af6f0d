"""The KL corridor: single steps by hand, its laws, and that it holds a plant which a fixed beta does not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.train.corridor import CorridorSettings, CorridorState, regulate


def test_steps_by_hand():
    settings = CorridorSettings(proportional=0.1, integral=0.01, derivative=0.2, silent=1)
    first = regulate(CorridorState.start(0.05), 0.30, settings)
    # The first measurement is the mean: error (0.30 - 0.15) / 0.15 = 1; 0.1 * 1 + 0.01 * 1.
    assert first.log_beta == pytest.approx(math.log(0.05) + 0.11) and first.integral == pytest.approx(1)
    second = regulate(first, 0.15, settings)
    # Mean 0.9 * 0.30 + 0.1 * 0.15 = 0.285: error 0.9, sum 1.9, change -0.1.
    assert second.mean_kl == pytest.approx(0.285)
    assert second.log_beta == pytest.approx(first.log_beta + 0.09 + 0.019 - 0.02)
    silent = CorridorSettings(proportional=0.1, integral=0.01, derivative=0.2, silent=100)
    assert regulate(regulate(CorridorState.start(0.05), 0.30, silent), 0.15, silent).log_beta == pytest.approx(second.log_beta + 0.02)


def test_what_is_not_finite_changes_nothing():
    state = regulate(CorridorState.start(), 0.2)
    assert regulate(state, math.nan) == regulate(state, math.inf) == state


def test_the_integral_does_not_wind_up_at_a_bound():
    state = CorridorState.start(0.05)
    for _ in range(2000):
        state = regulate(state, 0.0)  # a policy that does not move
    assert state.beta == pytest.approx(CorridorSettings().least_beta)
    pinned = state.integral
    assert regulate(state, 0.0).integral == pinned
    num_updates = 0
    while state.beta < 0.05:
        state, num_updates = regulate(state, 0.40), num_updates + 1
        assert num_updates < 250  # it comes back, instead of working off two thousand updates first


@given(st.lists(st.floats(0, 5), min_size=1, max_size=60), st.floats(0, 5), st.floats(0, 5))
def test_beta_is_bounded_and_rises_with_kl(history, one, other):
    state = CorridorState.start()
    for kl in history:
        state = regulate(state, kl)
        assert CorridorSettings().least_beta - 1e-12 <= state.beta <= CorridorSettings().most_beta + 1e-9
    low, high = sorted((one, other))
    assert regulate(state, low).log_beta <= regulate(state, high).log_beta + 1e-12


@pytest.mark.parametrize("bad", [{"low": 0.2}, {"high": 0.1}, {"least_beta": 20.0}])
def test_bounds_in_the_wrong_order_are_refused(bad):
    with pytest.raises(ValueError, match="needs 0 <"):
        CorridorSettings(**bad)
