"""Calibration that is measured on the other half of the queries, from records written down by hand."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")

from pixelis.core.errors import ConfigError
from pixelis.ttrl.calibrate import CALIBRATORS, MOST_TEMPERATURE
from pixelis.ttrl.decide import DecisionSettings, decide
from pixelis.ttrl.facts import QueryFacts, RolloutFacts
from pixelis.ttrl.fit import HeldOut, Record, _fitted, held_out, held_out_text


def record(number, confidence, is_right):
    """One query, whose only rollout answers A, and is right or not."""
    facts = QueryFacts(id=f"{number}:q", medium="m", rollouts=(RolloutFacts(id="r0", answer="A", label="A", confidence=confidence),))
    return Record(facts, decide(facts), is_right, (is_right,))


def test_a_calibrator_is_measured_on_what_it_has_not_seen():
    # Sure by 0.9, right in half of the cases: two right, two wrong, and so on, so that both halves are alike.
    records = [record(k, 0.9, k % 4 < 2) for k in range(40)]
    found = held_out(records, DecisionSettings(), "temperature", alpha=0.6)
    assert (found.confidences, found.queries) == (40, 40)
    assert found.nll_before == pytest.approx(-(math.log(0.9) + math.log(0.1)) / 2) and found.ece_before == pytest.approx(0.4)
    after = 9 ** (1 / MOST_TEMPERATURE) / (1 + 9 ** (1 / MOST_TEMPERATURE))  # as flat as the temperature may go
    assert found.nll_after == pytest.approx(-(math.log(after) + math.log(1 - after)) / 2, abs=1e-6)
    assert found.ece_after == pytest.approx(after - 0.5, abs=1e-6)
    # Of 20 scores, 0 where right and 1 where not, the ceil(21 * 0.4) = 9th is 0: the sets hold the 20 right answers, and no unknown one.
    assert found.covered == 20
    assert held_out(records, DecisionSettings(), "temperature", alpha=0.01).covered is None  # 20 are too few for that


def test_a_query_is_scored_by_a_calibrator_that_has_not_seen_it(monkeypatch):
    """Sure by 0.9; even queries are always right, odd ones in half of the cases."""
    used = []

    def score(record, settings):
        used.append((record.facts.id, settings.calibrator))
        return 0.0

    monkeypatch.setattr("pixelis.ttrl.fit._nonconformity", score)
    records = [record(k, 0.9, k % 2 == 0 or k % 4 == 1) for k in range(40)]
    fitted = _fitted(records, DecisionSettings(), "temperature", 0.1).calibrator.temperature
    even, odd = ({c.temperature for name, c in used if int(name.split(":")[0]) % 2 == part} for part in (0, 1))
    assert len(used) == 40 and len(even) == len(odd) == 1
    # Even ones by what was fitted on odd ones, of which half are wrong: as flat as it may be. Odd ones by the sharpest there is.
    assert even.pop() == pytest.approx(MOST_TEMPERATURE) and odd.pop() < fitted < MOST_TEMPERATURE


def test_what_differs_between_the_halves_shows():
    # The even half is always right, the odd one never: what is fitted on one is wrong on the other.
    records = [record(k, 0.7, k % 2 == 0) for k in range(60)]
    for name in CALIBRATORS:
        found = held_out(records, DecisionSettings(), name)
        assert found.ece_after > found.ece_before, name
    with pytest.raises(ConfigError, match="oracle"):
        held_out(records, DecisionSettings(), "oracle")


def test_a_row_a_calibrator():
    one = HeldOut("platt", 1.2, 0.5, 0.4, 0.03, 900, 109, 120)
    lines = held_out_text({"held_out": [vars(one), vars(HeldOut("vector", 1, 1, 0, 0, 9, None, 9))]}).splitlines()
    assert lines[1].split() == ["platt", "1.200", "0.500", "0.400", "0.030", "900", "109", "of", "120", "(0.908)"]
    assert lines[2].split()[-1] == "-"
