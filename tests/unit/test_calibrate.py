"""Calibration against values worked out by hand and logits made with a known temperature."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy.special import log_softmax

from pixelis.core.errors import ConfigError, DataError
from pixelis.ttrl.calibrate import (
    CALIBRATORS,
    Calibrator,
    Isotonic,
    Matrix,
    Platt,
    Temperature,
    Vector,
    calibrated,
    confidence_logits,
    expected_calibration_error,
    fit_calibrator,
    log_odds,
    report,
)


def made_with(temperature: float, *, num: int = 4000, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose labels are drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (num, classes))
    prob = np.exp(log_softmax(logits / temperature, axis=-1))
    label = (rng.random((num, 1)) > prob.cumsum(-1)).sum(-1)
    return logits, np.minimum(label, classes - 1)


# ---------------------------------------------------------------- the maps, by hand


def test_maps_by_hand():
    # Logits (0, log 9) say 0.9. At T = 2: (0, log 3), 0.75.
    logits = confidence_logits([0.9])
    assert np.allclose(logits, [[0, math.log(9)]])
    assert calibrated(Temperature(temperature=2.0), [0.9, 0.5]) == pytest.approx([0.75, 0.5])
    # Scaling class 1 by 1/2 and offset log 2: (0, log 3 + log 2): 6/7.
    assert calibrated(Vector(scale=(1.0, 0.5), offset=(0.0, math.log(2))), [0.9]) == pytest.approx([6 / 7])
    # The matrix that exchanges the classes turns 0.9 into 0.1.
    assert calibrated(Matrix(weight=((0.0, 1.0), (1.0, 0.0)), offset=(0.0, 0.0)), [0.9]) == pytest.approx([0.1])
    # Log-odds of the two classes are -log 9 and log 9; sigmoid(log 9 / 2) = 3/4 and sigmoid(-log 9 / 2) = 1/4.
    assert log_odds(logits) == pytest.approx(np.array([[-math.log(9), math.log(9)]]))
    assert calibrated(Platt(slope=(0.5, 0.5), offset=(0.0, 0.0)), [0.9]) == pytest.approx([0.75])
    # A line from (0.5, 0.4) to (0.9, 0.8): 0.7 becomes 0.6; level beyond. The other class mirrors it: shares 0.6 / (0.6 + 0.4).
    line = Isotonic(knots=((0.1, 0.5), (0.5, 0.9)), values=((0.2, 0.6), (0.4, 0.8)))
    assert calibrated(line, [0.7, 0.95, 0.3]) == pytest.approx([0.6, 0.8, 0.4 / 1.0])
    assert Isotonic(knots=((0.5,), (0.5,)), values=((0.0,), (0.0,))).probabilities(logits) == pytest.approx(np.array([[0.5, 0.5]]))


def test_log_odds_of_three_classes():
    # Probabilities 1/2, 1/4, 1/4: odds 1, 1/3, 1/3.
    found = log_odds(np.log([[2.0, 1.0, 1.0]]))
    assert found == pytest.approx(np.array([[0, -math.log(3), -math.log(3)]]))


def test_ece_by_hand():
    # Two bins: (0, 0.5] holds 0.2 (wrong) and 0.4 (right), gap |0.3 - 0.5|; (0.5, 1] holds 0.9 and 0.7 (one right), gap |0.8 - 0.5|.
    value = expected_calibration_error(np.array([0.2, 0.4, 0.9, 0.7]), np.array([0, 1, 1, 0]), num_bins=2)
    assert value == pytest.approx(0.5 * 0.2 + 0.5 * 0.3)
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([0, 1])) == 0.0
    # 0.5 belongs to the lower of two bins, with 0.1: |(0.5 - 1) + (0.1 - 0)| / 2.
    assert expected_calibration_error(np.array([0.5, 0.1]), np.array([1, 0]), num_bins=2) == pytest.approx(0.2)
    assert math.isnan(expected_calibration_error(np.zeros(0), np.zeros(0)))


# ---------------------------------------------------------------- the fits


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_is_found_again(temperature):
    logits, label = made_with(temperature)
    assert fit_calibrator("temperature", logits, label).temperature == pytest.approx(temperature, rel=0.06)


def test_a_known_optimum():
    # Always sure by log 9 (p = 0.9), right three times of four: NLL is least where p = 3/4, at T = 2.
    logits, label = confidence_logits([0.9] * 4), np.array([1, 1, 1, 0])
    assert fit_calibrator("temperature", logits, label).temperature == pytest.approx(2.0, abs=1e-5)
    # Platt's targets: (3 + 1) / (3 + 2) = 4/5 three times and 1 / (1 + 2) once: their mean is 41/60.
    # The class "wrong" has targets 2/3 once and 1/5 three times: mean 19/60. Together they make 1.
    assert calibrated(fit_calibrator("platt", logits, label), [0.9]) == pytest.approx([41 / 60], abs=1e-4)
    assert calibrated(fit_calibrator("isotonic", logits, label), [0.9]) == pytest.approx([0.75])
    assert calibrated(fit_calibrator("vector", logits, label), [0.9]) == pytest.approx([0.75], abs=0.01)
    assert calibrated(fit_calibrator("matrix", logits, label), [0.9]) == pytest.approx([0.75], abs=0.01)


def test_isotonic_pools_what_falls():
    # Right at 0.3, wrong at 0.6, right at 0.9: the first two pool to 1/2.
    found = fit_calibrator("isotonic", confidence_logits([0.3, 0.6, 0.9]), np.array([1, 0, 1]))
    assert found.values[1] == pytest.approx((0.5, 0.5, 1.0))
    assert calibrated(found, [0.1, 0.45, 0.75, 0.99]) == pytest.approx([0.5, 0.5, 0.75, 1.0])


@pytest.mark.parametrize("name", list(CALIBRATORS))
def test_every_fit_helps_an_overconfident_policy(name):
    logits, label = made_with(3.0, num=2000)
    held_out = made_with(3.0, num=2000, seed=1)
    found = report(fit_calibrator(name, logits, label), *held_out)
    assert found.count == 2000
    assert found.nll_after < found.nll_before - 0.3 and found.ece_after < 0.06 < 0.2 < found.ece_before


@pytest.mark.parametrize("name", list(CALIBRATORS))
def test_probabilities_sum_to_one_and_a_calibrator_survives_json(name):
    logits, label = made_with(2.0, num=200, classes=3)
    found = fit_calibrator(name, logits, label)
    prob = found.probabilities(logits)
    assert prob.sum(-1) == pytest.approx(1) and (prob >= 0).all()
    adapter = TypeAdapter(Calibrator)
    assert adapter.validate_json(adapter.dump_json(found)) == found


@pytest.mark.parametrize("name", list(CALIBRATORS))
def test_perfect_separation_still_gives_numbers(name):
    found = fit_calibrator(name, confidence_logits([0.9, 0.8, 0.2, 0.1]), np.array([1, 1, 0, 0]))
    after = calibrated(found, [0.95, 0.05])
    assert np.isfinite(after).all() and after[0] > 0.5 > after[1]


def test_bad_input_is_a_message():
    with pytest.raises(ConfigError, match="choose one of temperature, platt"):
        fit_calibrator("beta", np.zeros((2, 2)), [0, 1])
    with pytest.raises(DataError, match=r"got \(0, 2\)"):
        fit_calibrator("temperature", np.zeros((0, 2)), [])
    with pytest.raises(DataError, match="1 of 2 examples"):
        fit_calibrator("platt", np.array([[0, np.nan], [0, 1]]), [0, 1])
    with pytest.raises(DataError, match="from 0 to 2"):
        fit_calibrator("vector", np.zeros((2, 2)), [0, 2])
