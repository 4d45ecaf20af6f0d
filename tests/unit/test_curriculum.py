"""The curriculum: who is seen how often, when it moves on, and how batches are cut."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelis.core.errors import ConfigError, DataError
from pixelis.train.curriculum import LAST_PHASE, WARM_UP, advance, batches, order, smoothed, tertiles

HARDNESS_N = np.array([5.0, 1.0, 9.0, 3.0, 7.0, 2.0, 8.0, 4.0, 6.0])
"""Easy: 1, 5, 3; medium: 7, 0, 8; hard: 4, 6, 2."""


def test_tertiles_by_hand():
    assert [part.tolist() for part in tertiles(HARDNESS_N)] == [[1, 5, 3], [7, 0, 8], [4, 6, 2]]
    assert [part.tolist() for part in tertiles(np.array([2.0, 2.0, 2.0, 2.0]))] == [[0], [1], [2, 3]]
    with pytest.raises(DataError, match="2 of 3 examples is no finite number, first of example 1"):
        tertiles(np.array([1.0, np.nan, np.inf]))


def test_warm_up_holds_everything_once_whatever_its_hardness():
    seen = order(0, WARM_UP, np.full(50, np.nan), seed=3)
    assert sorted(seen.tolist()) == list(range(50)) and seen.tolist() != list(range(50))


def test_two_medium_examples_to_one_hard_one():
    # 9 examples: 6 medium draws of 3 medium examples, 3 hard draws of 3 hard ones; then the other way round.
    assert Counter(order(1, 1, HARDNESS_N, seed=0).tolist()) == {7: 2, 0: 2, 8: 2, 4: 1, 6: 1, 2: 1}
    assert Counter(order(1, 2, HARDNESS_N, seed=0).tolist()) == {7: 1, 0: 1, 8: 1, 4: 2, 6: 2, 2: 2}


def test_order_follows_from_seed_and_epoch_alone():
    hardness_N = np.random.default_rng(0).random(100)
    for phase in range(LAST_PHASE + 1):
        again = [order(epoch, phase, hardness_N, seed).tolist() for epoch, seed in ((2, 7), (2, 7), (3, 7), (2, 8))]
        assert again[0] == again[1] and again[0] not in again[2:]


def test_what_has_no_order_is_refused():
    with pytest.raises(DataError, match="no examples"):
        order(0, WARM_UP, np.array([]), seed=0)
    with pytest.raises(ConfigError, match="phase 3"):
        order(0, 3, HARDNESS_N, seed=0)
    with pytest.raises(DataError, match="no finite number"):
        order(1, 1, np.array([1.0, np.nan, 2.0]), seed=0)


@given(st.integers(1, 40), st.sampled_from([1, 2]), st.integers(0, 5))
def test_an_epoch_is_as_long_as_the_data_and_never_easy(num, phase, seed):
    hardness_N = np.random.default_rng(seed).random(num)
    seen, (easy, medium, hard) = order(1, phase, hardness_N, seed), tertiles(hardness_N)
    assert len(seen) == num and not set(seen.tolist()) & set(easy.tolist())
    for third in (medium, hard):
        counts = [int((seen == index).sum()) for index in third]
        assert not counts or max(counts) - min(counts) <= 1


def test_smoothing_by_hand():
    assert smoothed([4.0, 2.0, 0.0], 0.5).tolist() == [4.0, 3.0, 1.5]
    assert smoothed([], 0.5).tolist() == []


def test_advance_when_the_smoothed_loss_stands_still():
    # Smoothed by one half: 4, 3, 1.5: half of it gained in one evaluation, 62.5 % in two.
    assert not advance([4.0, 2.0, 0.0], decay=0.5, window=1)
    assert advance([4.0, 2.0, 0.0], decay=0.5, window=1, min_gain=0.51)
    assert not advance([4.0, 2.0, 0.0], decay=0.5, window=2, min_gain=0.62)
    assert advance([4.0, 2.0, 0.0], decay=0.5, window=2, min_gain=0.63)
    # Unsmoothed: 0.9 % is less than 1 %, 1.1 % is not; a loss that rises has not improved.
    assert advance([1.0, 0.991], decay=0.0, window=1)
    assert not advance([1.0, 0.989], decay=0.0, window=1)
    assert advance([1.0, 1.2], decay=0.0, window=1)


def test_advance_waits_for_its_window_and_for_finite_losses():
    assert not advance([], decay=0.5, window=1)
    assert not advance([1.0, 1.0], decay=0.5, window=2)
    assert advance([1.0, 1.0, 1.0], decay=0.5, window=2)
    assert not advance([1.0, 1.0, float("nan")], decay=0.5, window=2)
    assert not advance([1.0, 1.0, float("inf")], decay=0.5, window=2)
    with pytest.raises(ConfigError, match=r"got 0 and 0\.5"):
        advance([1.0], decay=0.5, window=0)
    with pytest.raises(ConfigError, match=r"got 1 and 1\.0"):
        advance([1.0], decay=1.0, window=1)


def test_batches_by_hand():
    # From the longest down in a budget of 12: 10; 6 and 5 (2 x 6); 4, 3 and 1 (3 x 4).
    lengths_N = np.array([1, 10, 5, 3, 6, 4])
    cut = batches(lengths_N, np.arange(6), max_tokens_per_batch=12, seed=0)
    assert sorted(sorted(lengths_N[batch].tolist()) for batch in cut) == [[1, 3, 4], [5, 6], [10]]
    assert batches(lengths_N, np.array([], int), max_tokens_per_batch=12, seed=0) == []


def test_an_example_that_fits_no_batch_is_named():
    with pytest.raises(DataError, match="example 1 has 10 tokens, more than a batch of 9"):
        batches(np.array([1, 10, 5]), np.array([0, 1, 2]), max_tokens_per_batch=9, seed=0)
    assert len(batches(np.array([1, 10, 5]), np.array([0, 2]), max_tokens_per_batch=9, seed=0)) == 2


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(50, 300), st.integers(0, 5), st.data())
def test_batches_hold_every_index_once_within_the_budget(lengths, budget, seed, data):
    indices = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=60)), int)
    cut = batches(np.array(lengths), indices, max_tokens_per_batch=budget, seed=seed)
    assert Counter(i for batch in cut for i in batch.tolist()) == Counter(indices.tolist())
    assert all(len(batch) * max(lengths[i] for i in batch) <= budget for batch in cut)
    again = batches(np.array(lengths), indices, max_tokens_per_batch=budget, seed=seed)
    assert [batch.tolist() for batch in cut] == [batch.tolist() for batch in again]


def test_batches_come_in_random_order_and_waste_little():
    lengths_N = np.random.default_rng(0).integers(100, 2000, 5000)
    cut = batches(lengths_N, order(0, WARM_UP, lengths_N, seed=1), max_tokens_per_batch=8192, seed=1)
    longest = np.array([lengths_N[batch].max() for batch in cut])
    padded = sum(len(batch) * top for batch, top in zip(cut, longest, strict=True))
    assert lengths_N.sum() / padded > 0.97
    assert abs(np.corrcoef(longest[:-1], longest[1:])[0, 1]) < 0.1  # neighbours in time know nothing of each other's length
    other = batches(lengths_N, order(0, WARM_UP, lengths_N, seed=1), max_tokens_per_batch=8192, seed=2)
    assert [batch.tolist() for batch in cut] != [batch.tolist() for batch in other]
