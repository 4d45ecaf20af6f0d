"""Correlations and the logistic view: values worked out by hand, and agreement with scikit-learn where it is installed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pixelis.eval.correlate import Correlation, correlation, point_biserial, spearman, with_q
from pixelis.eval.logistic import auc, average_precision, fit_logistic, foretell
from pixelis.eval.stats import BCA, NO_INTERVAL, bca, known_rate

FEW = {"num_resamples": 500}
NAN = math.nan


def test_known_rate_counts_what_it_leaves_out():
    rate = known_rate([1.0, None, NAN, 0.0])
    assert (rate.value, rate.count, rate.num_unscored) == (0.5, 2, 2)
    assert rate.to_json()["num_unscored"] == 2 and "num_unscored" not in known_rate([1.0]).to_json()
    nothing = known_rate([None])
    assert math.isnan(nothing.value) and (nothing.count, nothing.num_unscored) == (0, 1)


def test_bca_draws_rows_whole():
    # y is 2 x in every row, so in every resample the ratio of sums is 2: nothing varies, and there is no interval
    x = np.arange(1.0, 9.0)
    assert all(math.isnan(end) for end in bca((x, 2 * x), lambda a, b, axis: b.sum(axis) / a.sum(axis), num_resamples=200))


def test_pearson_and_spearman_by_hand():
    # x - mean: -1 0 1; y - mean: -1 1 0: 1 / sqrt(2 * 2)
    assert correlation([1, 2, 3], [1, 3, 2], **FEW).value == pytest.approx(0.5)
    # ranks of 1 10 100 1000 are 1 2 3 4, and of y 1 3 2 4: 1 - 6 * 2 / (4 * 15)
    assert spearman([1, 10, 100, 1000], [5, 7, 6, 9], **FEW).value == pytest.approx(0.8)
    # ties share a rank: 1.5 1.5 3 against 1 2 3: (-.5)(-1) + (-.5)(0) + 1 * 1 = 1.5 over sqrt(1.5 * 2)
    assert spearman([4, 4, 9], [1, 2, 3], **FEW).value == pytest.approx(1.5 / math.sqrt(3))


def test_point_biserial_by_hand():
    # means 3 and 1, both classes half: (3 - 1) / s * sqrt(1/4), s of 0 2 2 4 over N is sqrt(2)
    found = point_biserial([1, 0, 1, 0, NAN], [4, 0, 2, 2, 7], **FEW)
    assert found.value == pytest.approx(2 / math.sqrt(2) / 2) and (found.count, found.num_unscored) == (4, 1)
    with pytest.raises(ValueError, match="0 and 1"):
        point_biserial([1, 2], [0, 0])


def test_partial_correlation_by_hand():
    # Textbook formula from r_xy, r_xz, r_yz. x = 1 2 3 4, y = 2 1 4 3, z = 1 3 2 4: r_xy = .6, r_xz = .8, r_yz = 0 (deviations of y
    # -.5 -1.5 1.5 .5 times those of z -1.5 .5 -.5 1.5: .75 - .75 - .75 + .75). So .6 / sqrt(1 - .64) = 1.
    x, y, z = [1, 2, 3, 4], [2, 1, 4, 3], [1, 3, 2, 4]
    assert correlation(x, y, [z], **FEW).value == pytest.approx(1.0)
    # Five items: x = 1 2 3 4 5, y = 1 3 2 5 4 (r .8), z = 2 1 3 5 4 (r_xz .8, r_yz: deviations -2 0 -1 2 1 times -1 -2 0 2 1: 2 + 4 + 1 = 7
    # of 10): (.8 - .56) / sqrt(.36 * .51)
    x, y, z = [1, 2, 3, 4, 5], [1, 3, 2, 5, 4], [2, 1, 3, 5, 4]
    expected = (0.8 - 0.56) / math.sqrt(0.36 * 0.51)
    assert correlation(x, y, [z], **FEW).value == pytest.approx(expected)
    assert correlation(x, y, [z], is_ranked=True, **FEW).value == pytest.approx(expected)
    # a constant control, or the same one twice, changes nothing
    assert correlation(x, y, [z, [7] * 5], **FEW).value == pytest.approx(expected)
    one, two, three = np.random.default_rng(3).normal(size=(3, 9))
    once, twice = (correlation(one, two, controls, **FEW) for controls in ([three], [three, three]))
    assert once.value == pytest.approx(twice.value) and once.p == pytest.approx(twice.p)


def test_what_only_the_control_explains_is_no_correlation():
    generator = np.random.default_rng(1)
    length = generator.normal(size=300)
    one, two = length + 0.3 * generator.normal(size=300), length + 0.3 * generator.normal(size=300)
    plain, partial = correlation(one, two, **FEW), correlation(one, two, [length], **FEW)
    assert plain.value > 0.8 and plain.low > 0.7 and plain.p < 0.01 and plain.method == BCA
    assert abs(partial.value) < 0.15 and partial.low < 0 < partial.high and partial.p > 0.05
    assert correlation(one, two, [length], seed=2, **FEW).to_json() == correlation(one, two, [length], seed=2, **FEW).to_json()
    # sabotage: reversed, it correlates the other way
    assert correlation(one, -two, **FEW).value == pytest.approx(-plain.value)


def test_permutation_p_by_hand():
    # 4 items in the same order: of 24 orders one is as good, and by symmetry one as bad: 2 / 24
    assert spearman([1, 2, 3, 4], [1, 2, 3, 4], **FEW).p == pytest.approx(2 / 24)


def test_q_by_hand_over_one_table():
    # ascending: 0.005 * 4 / 1, 0.01 * 4 / 2, 0.03 * 4 / 3, 0.04 * 4 / 4; one without a p is no test
    table = [Correlation(0.1, NAN, NAN, p, 9, 0, NO_INTERVAL) for p in (0.01, 0.04, NAN, 0.03, 0.005)]
    found = with_q(table)
    assert [one.q for one in found] == pytest.approx([0.02, 0.04, NAN, 0.04, 0.02], nan_ok=True)
    assert [one.p for one in found] == pytest.approx([one.p for one in table], nan_ok=True)
    assert found[0].to_json()["q"] == pytest.approx(0.02) and found[2].to_json()["q"] is None and table[0].to_json()["q"] is None
    assert with_q([]) == []


def test_no_variation_is_unknown():
    for found in (
        correlation([1, 1, 1], [1, 2, 3], **FEW),
        correlation([1, 2], [1, 2], **FEW),  # two points lie on a line whatever they say
        correlation([1, 2, 3, 4], [2, 4, 6, 8], [[1, 2, 3, 4]], **FEW),  # nothing left beside the control
        correlation([NAN, NAN], [1, 2], **FEW),
    ):
        assert math.isnan(found.value) and math.isnan(found.p) and found.method == NO_INTERVAL
    assert found.num_unscored == 2 and found.to_json()["value"] is None
    with pytest.raises(ValueError, match="one length"):
        correlation([1, 2, 3], [1, 2], **FEW)


# ---------------------------------------------------------------- logistic


def test_auc_by_hand_with_ties():
    # right .9 .5, wrong .5 .1: pairs 1, 1, 1/2, 1
    assert auc([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0]) == pytest.approx(3.5 / 4)
    assert auc([1, 1, 1], [1, 0, 1]) == 0.5 and math.isnan(auc([0.2, 0.3], [1, 1]))
    assert auc([0.1, 0.9], [1, 0]) == 0.0


def test_average_precision_by_hand_with_ties():
    # .9 right: precision 1, recall 1/2; the two at .5 together: 2 of 3 right, recall 1
    assert average_precision([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision([0.5, 0.5, 0.9, 0.1], [0, 1, 1, 0]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision([1, 1, 1, 1], [1, 0, 0, 0]) == 0.25 and math.isnan(average_precision([0.1], [0]))


def test_scores_of_several_resamples_at_once():
    scores, right = [[0.9, 0.5, 0.5, 0.1], [0.1, 0.9, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4]], [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    # the second row: its one right item scores lowest, so all four are taken to reach it
    assert auc(scores, right) == pytest.approx([3.5 / 4, 0, NAN], nan_ok=True)
    assert average_precision(scores, right) == pytest.approx([5 / 6, 1 / 4, NAN], nan_ok=True)


def test_auc_agrees_with_scipys_rank_test():
    generator = np.random.default_rng(7)
    scores, right = generator.integers(0, 6, 60), generator.random(60) < 0.4
    rank_test = stats.mannwhitneyu(scores[right], scores[~right])
    assert auc(scores, right) == pytest.approx(rank_test.statistic / (right.sum() * (~right).sum()))


def test_logistic_without_features_that_vary_is_the_base_rate():
    model = fit_logistic(np.full((4, 1), 3.0), [1, 1, 1, 0])
    assert model.weight_F == pytest.approx([0.0], abs=1e-9) and model.intercept == pytest.approx(math.log(3))
    assert model.probability(np.array([[3.0]])) == pytest.approx([0.75])


def test_logistic_by_its_own_equation():
    # two mirrored points, x standardised to -1, 1: p(1) = s, slope 2 (s - 1) + w = 0, so w = 2 (1 - sigmoid(w)): w = 0.7399...
    model = fit_logistic(np.array([[0.0], [10.0]]), [0, 1])
    (weight,) = model.weight_F
    assert weight == pytest.approx(2 * (1 - 1 / (1 + math.exp(-weight))), abs=1e-8) and model.intercept == pytest.approx(0, abs=1e-8)
    # separable data still have a best weight, and a stronger penalty makes it smaller
    assert 0 < fit_logistic(np.array([[0.0], [10.0]]), [0, 1], strength=5.0).weight_F[0] < weight
    with pytest.raises(ValueError, match="both 0 and 1"):
        fit_logistic(np.zeros((2, 1)), [1, 1])


def test_logistic_auc_and_average_precision_agree_with_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    features = generator.normal(size=(200, 3)) * [1, 5, 0.2] + [0, 10, 3]
    right = (generator.random(200) < 1 / (1 + np.exp(-(features[:, 0] - 0.3 * (features[:, 1] - 10))))).astype(float)
    model = fit_logistic(features, right, strength=2.0)
    scaled = (features - features.mean(0)) / features.std(0)
    theirs = linear_model.LogisticRegression(C=0.5, tol=1e-10, max_iter=1000).fit(scaled, right)
    assert model.weight_F == pytest.approx(theirs.coef_[0], abs=1e-5) and model.intercept == pytest.approx(theirs.intercept_[0], abs=1e-5)
    scores = np.round(model.probability(features), 1)  # rounded: many ties
    assert auc(scores, right) == pytest.approx(sklearn_metrics.roc_auc_score(right, scores))
    assert average_precision(scores, right) == pytest.approx(sklearn_metrics.average_precision_score(right, scores))


def test_foretelling_by_hand():
    # Every right item but one has 1, every wrong item but one has 0; of ten items each. In each fold the weight is above 0, so 1 scores
    # above 0: of 100 pairs 81 are won and 9 + 9 tied. From the top: 9 of 10 right, then all 20: 0.9 * 0.9 + 0.1 * 0.5.
    values = np.array([[1.0]] * 9 + [[0.0]] + [[0.0]] * 9 + [[1.0]])
    right = [1] * 10 + [0] * 10
    model = fit_logistic(values, right)
    assert auc(model.probability(values), right) == pytest.approx(0.9)
    assert average_precision(model.probability(values), right) == pytest.approx(0.86)
    # told the wrong way round, the model turns its weight round and foretells the same
    one, other = foretell(values, right, **FEW), foretell(1 - values, right, **FEW)
    assert one.auc.value == pytest.approx(other.auc.value) and one.auc.value > 0.7
    assert one.model.weight_F[0] == pytest.approx(-other.model.weight_F[0], abs=1e-6)


def test_foretelling_is_judged_on_items_not_seen():
    generator = np.random.default_rng(5)
    right = np.tile([0.0, 1.0], 60)
    telling = foretell((right + 0.5 * generator.normal(size=120))[:, None], right, num_resamples=200)
    assert telling.auc.value > 0.85 and telling.auc.low > 0.75 and telling.auc.method == BCA and telling.base_rate == 0.5
    # forty columns of noise fit what they see, and foretell nothing
    noise = foretell(generator.normal(size=(120, 40)), right, num_resamples=200)
    assert noise.auc.low < 0.5 < noise.auc.high or noise.auc.value < 0.65
    told = telling.to_json(["signal"])
    assert told["weights"]["signal"] > 0 and told["auc"]["count"] == 120 and told["features"] == ["signal"]
    few = foretell(np.array([[1.0], [2.0], [NAN]]), [1, 0, 1])
    assert math.isnan(few.auc.value) and few.model is None and (few.auc.count, few.auc.num_unscored) == (2, 1)
    assert few.to_json(["one"])["weights"] is None and few.to_json(["one"])["auc"]["value"] is None
