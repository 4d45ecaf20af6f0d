"""Laws of the metrics: order, padding, bounds, duplicates."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelis.core.geometry import Mask
from pixelis.eval.correlate import _coefficient
from pixelis.eval.logistic import auc, average_precision
from pixelis.eval.metrics.answers import mean_relative_accuracy, official_anls
from pixelis.eval.metrics.boxes import boundary_f1, character_errors
from pixelis.eval.metrics.perturb import jittered_order
from pixelis.eval.metrics.process import (
    run_to_run_similarity,
)
from pixelis.eval.metrics.selective import reliability, risk_coverage, selective_error
from pixelis.rewards.chains import composite_chains, composite_share, entropy_nats, valid_share

law = settings(max_examples=40, deadline=None)
outcomes = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5001, 0.9, 1.0]), st.integers(0, 1)), min_size=1, max_size=25)
chains = st.lists(st.tuples(st.booleans(), st.one_of(st.floats(-3, 3), st.just(math.nan))), max_size=14)
masks = st.lists(st.booleans(), min_size=64, max_size=64).map(lambda bits: Mask.from_array(np.array(bits).reshape(8, 8)))


@law
@given(outcomes, st.randoms())
def test_selective_metrics_do_not_mind_the_order(items, random):
    shuffled = list(items)
    random.shuffle(shuffled)
    (confidence, wrong), (confidence2, wrong2) = (zip(*rows, strict=True) for rows in (items, shuffled))
    one, two = risk_coverage(confidence, wrong), risk_coverage(confidence2, wrong2)
    assert one.points == two.points and one.aurc == pytest.approx(two.aurc)
    for is_equal_mass in (False, True):
        a, b = (reliability(c, w, num_bins=4, is_equal_mass=is_equal_mass) for c, w in ((confidence, wrong), (confidence2, wrong2)))
        assert a.ece == pytest.approx(b.ece) and [x.accuracy for x in a.bins] == [x.accuracy for x in b.bins]


@law
@given(outcomes)
def test_selective_metrics_are_bounded_and_end_at_the_plain_error(items):
    confidence, wrong = zip(*items, strict=True)
    curve, diagram = risk_coverage(confidence, wrong), reliability(confidence, wrong, num_bins=7)
    assert curve.points[-1].risk == pytest.approx(np.mean(wrong)) and curve.points[-1].coverage == 1.0
    assert 0 <= curve.aurc <= 1 and 0 <= curve.excess <= curve.aurc + 1e-12
    assert 0 <= diagram.ece <= diagram.worst + 1e-12 <= 1 + 2e-12 and sum(b.accuracy.count for b in diagram.bins) == len(items)
    perfect, worst = (risk_coverage([sign * w for w in wrong], wrong) for sign in (-1, 1))
    assert perfect.excess == pytest.approx(0, abs=1e-12) and perfect.aurc <= curve.aurc + 1e-12 <= worst.aurc + 2e-12


@law
@given(outcomes)
def test_duplicated_items_change_no_share(items):
    confidence, wrong = zip(*items, strict=True)
    one, two = risk_coverage(confidence, wrong), risk_coverage(confidence * 2, wrong * 2)
    points = (np.array([(p.threshold, p.coverage, p.risk) for p in curve.points]) for curve in (one, two))
    assert np.allclose(*points)
    assert reliability(confidence, wrong).ece == pytest.approx(reliability(confidence * 2, wrong * 2).ece)
    assert auc(confidence, wrong) == pytest.approx(auc(confidence * 2, wrong * 2), nan_ok=True)
    assert average_precision(confidence, wrong) == pytest.approx(average_precision(confidence * 2, wrong * 2), nan_ok=True)
    assert auc(confidence, wrong) == pytest.approx(1 - auc([-c for c in confidence], wrong), nan_ok=True)


@law
@given(outcomes, st.integers(0, 24))
def test_abstaining_from_an_error_never_raises_the_error(items, place):
    wrong = [w for _, w in items]
    keep = [False] * len(wrong)
    place %= len(wrong)
    found = selective_error(wrong, [k == place for k in range(len(wrong))])
    whole = selective_error(wrong, keep)
    assert whole.error == whole.full_error and whole.coverage.value == 1
    if wrong[place] and len(wrong) > 1:
        assert found.error.value <= whole.error.value + 1e-12


@law
@given(chains)
def test_composite_chains_keep_their_laws(steps):
    valid = [v for v, _ in steps]
    z = [value for _, value in steps[1:]]
    found = composite_chains(valid, z)
    share = composite_share(len(steps), found)
    assert 0 <= share <= 1 and share <= valid_share(valid)  # never above RaPR
    for chain in found:
        assert chain.length >= 3 and all(valid[chain.first : chain.last + 1]) and chain.mean_z >= 0.30 - 1e-12
        # maximal: neither neighbour could be added
        assert chain.first == 0 or not (valid[chain.first - 1] and z[chain.first - 1] >= 0.30)
        assert chain.last == len(steps) - 1 or not (valid[chain.last + 1] and z[chain.last] >= 0.30)
    assert all(one.last < two.first for one, two in itertools.pairwise(found))
    # read backwards, the same steps are in chains
    assert composite_share(len(steps), composite_chains(valid[::-1], z[::-1])) == pytest.approx(share)
    # a lower gate or a shorter least chain only adds
    assert composite_share(len(steps), composite_chains(valid, z, least_z=-1.0)) >= share
    assert composite_share(len(steps), composite_chains(valid, z, least_length=2)) >= share
    # padding with invalid steps adds no chain
    padded = composite_chains([*valid, False, False], [*z, *[math.nan] * (2 if steps else 1)])
    assert [(c.first, c.last) for c in padded] == [(c.first, c.last) for c in found]


@law
@given(st.lists(st.sampled_from(["SEG", "ZOOM", "OCR", None]), min_size=1), st.randoms())
def test_entropy_keeps_its_laws(ops, random):
    found = entropy_nats(ops)
    shuffled = list(ops)
    random.shuffle(shuffled)
    if all(op is None for op in ops):
        assert math.isnan(found)
    else:
        assert 0 <= found <= math.log(3) + 1e-12
        assert entropy_nats(shuffled) == found == pytest.approx(entropy_nats(ops * 3)) and entropy_nats([*ops, None]) == found


@law
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.randoms())
def test_run_to_run_similarity_does_not_mind_the_order(values, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    one, two = (run_to_run_similarity(rows, lambda a, b: max(0.0, 1 - abs(a - 0.5 * b))) for rows in (values, shuffled))
    assert one == pytest.approx(two) and 0 <= one <= 1


@law
@given(masks, masks)
def test_boundary_f1_is_symmetric_and_bounded(one, two):
    score = boundary_f1(one, two)
    assert 0 <= score <= 1 and score == pytest.approx(boundary_f1(two, one)) and boundary_f1(one, one) == 1.0
    assert boundary_f1(one, two, tolerance=0.3) >= score - 1e-12


@law
@given(st.text(max_size=12), st.text(max_size=12))
def test_texts_keep_their_laws(one, two):
    assert 0 <= official_anls(one, [two]) <= 1 and official_anls(one, [one]) >= 0.5
    assert official_anls(one, [two, one]) >= official_anls(one, [two])
    found = character_errors([one, one], [two, two])
    assert found.count == 2 and (math.isnan(found.rate) or found.rate >= 0)
    assert found.rate == pytest.approx(character_errors([one], [two]).rate, nan_ok=True)


@law
@given(st.floats(-1e6, 1e6), st.floats(0.01, 1e6))
def test_relative_accuracy_falls_with_the_error(said, truth):
    score = mean_relative_accuracy(said, truth)
    assert 0 <= score <= 1 and mean_relative_accuracy(truth + 2 * (said - truth), truth) <= score
    assert mean_relative_accuracy(-said, -truth) == score


@law
@given(st.integers(1, 60), st.integers(1, 5), st.text(max_size=5))
def test_jitter_stays_within_reach_and_never_goes_back(count, reach, key):
    order = jittered_order(count, reach, key)
    assert len(order) == count and all(abs(shown - k) <= reach and 0 <= shown < count for k, shown in enumerate(order))
    assert order == sorted(order) == jittered_order(count, reach, key)


@law
@given(st.lists(st.tuples(*[st.floats(-5, 5)] * 3), min_size=4, max_size=20), st.randoms())
def test_correlations_are_bounded_symmetric_and_blind_to_order_and_scale(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    x, y, z = (np.round(np.array(column), 2) for column in zip(*rows, strict=True))
    x2, y2, z2 = (np.round(np.array(column), 2) for column in zip(*shuffled, strict=True))
    for is_ranked in (False, True):
        found = float(_coefficient(x, y, z, is_ranked=is_ranked))
        same = pytest.approx(found, abs=1e-6, nan_ok=True)
        assert math.isnan(found) or -1 <= found <= 1
        assert float(_coefficient(y, x, z, is_ranked=is_ranked)) == same
        assert float(_coefficient(x2, y2, z2, is_ranked=is_ranked)) == same
        assert float(_coefficient(3 * x + 1, y, z, is_ranked=is_ranked)) == same
        assert float(_coefficient(-x, y, z, is_ranked=is_ranked)) == pytest.approx(-found, abs=1e-6, nan_ok=True)
