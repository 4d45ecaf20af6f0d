"""Statistics of traces, counted by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelis.core.errors import DataError
from pixelis.core.ops import OPS
from pixelis.data.stats import TraceFacts, rate, table, trace_stats

TRACES = (
    TraceFacts("train", "count", ("SEG", "SEG", "PROP"), (True, True, False), (True, False, False), True),
    TraceFacts("train", "count", ("SEG",), (True,), (True,), False),
    TraceFacts("train", "read_sign", ("ZOOM", "OCR"), (True, True), (True, True), True, is_valid=(True, False)),
    TraceFacts("dev", "read_sign", (), (), (), True),
)


def test_by_hand():
    stats = trace_stats(TRACES)
    assert stats.num_traces == {"train": {"count": 2, "read_sign": 1}, "dev": {"read_sign": 1}}
    assert stats.steps_mean == {"train": 2.0, "dev": 0.0}  # 3, 1, 2
    assert stats.steps_quantiles["train"] == pytest.approx((1.1, 1.5, 2.0, 2.5, 2.9))
    assert (stats.decisive["train"].value, stats.decisive["train"].count) == (4 / 5, 5)  # PROP did not succeed
    assert math.isnan(stats.decisive["dev"].value) and stats.decisive["dev"].count == 0
    assert stats.usage["train"] == {"SEG": 3 / 6, "ZOOM": 1 / 6, "TRK": 0.0, "OCR": 1 / 6, "TEMP": 0.0, "PROP": 1 / 6}
    assert {op: (r.value, r.count) for op, r in stats.failures.items() if r.count} == {
        "SEG": (0.0, 3), "ZOOM": (0.0, 1), "OCR": (1.0, 1), "PROP": (1.0, 1),
    }  # fmt: skip
    assert (stats.acceptance["count"].value, stats.acceptance["read_sign"].value) == (0.5, 1.0)


def test_only_accepted_still_rates_all():
    stats = trace_stats(TRACES, only_accepted=True)
    assert stats.num_traces["train"] == {"count": 1, "read_sign": 1}
    assert stats.steps_mean["train"] == 2.5 and stats.failures["SEG"].count == 2
    assert stats.acceptance["count"].value == 0.5


def test_clopper_pearson_by_hand():
    # No failure in n: the upper bound is 1 - 0.025 ** (1 / n).
    none = rate(0, 10)
    assert (none.value, none.low, none.high) == (0.0, 0.0, pytest.approx(1 - 0.025**0.1))
    every = rate(10, 10)
    assert (every.low, every.high) == (pytest.approx(0.025**0.1), 1.0)
    assert math.isnan(rate(0, 0).value)


def test_a_trace_that_does_not_add_up_is_refused():
    with pytest.raises(DataError, match="2 ops, 1 outcomes"):
        TraceFacts("train", "count", ("SEG", "OCR"), (True,), (True, True), True)
    with pytest.raises(DataError):
        TraceFacts("train", "count", ("SEG",), (True,), (True,), True, is_valid=())


def test_the_table_shows_the_paper_beside():
    text = table(trace_stats(TRACES))
    lines = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in text.splitlines() if line}
    assert lines["steps, mean"] == ["2.00 (5.8)", "0.00 (5.8)"]
    assert lines["decisive, of calls that succeeded"] == ["0.80 of 5 (0.86)", "- of 0 (0.87)"]
    assert "| SEG            | 50.0 % (24.1) |    - (23.8) |" in text
    assert lines["TRK"] == ["-", "-", "0", "16.9 %"]
    assert lines["count"][0] == "50.0 %"
    assert "nan" not in text


def test_no_traces_at_all():
    stats = trace_stats(())
    assert stats.num_traces == {} and stats.acceptance == {}
    assert "| all" in table(stats)


STEPS = st.lists(st.tuples(st.sampled_from(OPS), st.booleans(), st.booleans()), max_size=6)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.sampled_from(("train", "dev")), STEPS, st.booleans()), max_size=12))
def test_laws(rows):
    traces = []
    for split, steps, is_accepted in rows:
        ops, ok, is_decisive = (tuple(step[i] for step in steps) for i in range(3))
        traces.append(TraceFacts(split, "f", ops, ok, is_decisive, is_accepted))
    stats, back = trace_stats(traces), trace_stats(traces[::-1])
    assert stats.failures.keys() == set(OPS) and sum(r.count for r in stats.failures.values()) == sum(len(t.ops) for t in traces)
    for op in OPS:
        forth, other = stats.failures[op], back.failures[op]
        assert forth == other or math.isnan(forth.value)
        assert forth.count == 0 or forth.low <= forth.value <= forth.high
    for shares in stats.usage.values():
        assert sum(shares.values()) == pytest.approx(1) or all(math.isnan(v) for v in shares.values())
