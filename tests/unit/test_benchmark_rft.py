"""The arithmetic of `benchmarks/rft.py`: what an update's seconds are split into, ratios of pairs, and when the page refuses."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def _facts():
    spec = importlib.util.spec_from_file_location("rft_facts", ROOT / "benchmarks" / "parts" / "rft_facts.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


facts = _facts()


def update(**changes):
    values = {
        "seconds": 10.0,
        "rollout_s": 6.0,
        "idle_s": 1.0,
        "tool_s": 2.5,
        "score_s": 1.5,
        "train_s": 2.0,
        "num_rollouts": 4,
        "num_answered": 3,
        "num_turns": 10,
        "num_calls": 6,
        "sampled_tokens": 300,
        "learnt_tokens": 200,
        "prompts": (1, 2),
        "cpu_s": 8.0,
        "peak_mib": 512.0,
    }
    return facts.Update(**{**values, **changes})


def test_overlapping_seconds_count_once():
    assert facts.covered_s([(5, 6), (0, 2), (1, 3)]) == 4.0  # 0 to 3, and 5 to 6
    assert facts.covered_s([(0, 9), (1, 2), (3, 4)]) == 9.0  # those inside another add nothing
    assert facts.covered_s([]) == 0.0


def test_a_tool_leaves_the_model_idle_only_while_nothing_is_written():
    tools, writing = [(1, 4), (6, 7)], [(0, 2), (3, 5)]
    assert facts.uncovered_s(tools, writing) == 2.0  # 2 to 3, and 6 to 7
    assert facts.uncovered_s(tools, []) == 4.0
    assert facts.uncovered_s([], writing) == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_uncovered_seconds_are_those_of_a_count_second_by_second(seed):
    rng = np.random.default_rng(seed)
    spans, cover = ([(int(a), int(a + n)) for a, n in rng.integers(0, 12, (4, 2))] for _ in range(2))
    seconds, hidden = ({second for start, end in group for second in range(start, end)} for group in (spans, cover))
    assert facts.covered_s(spans) == len(seconds)
    assert facts.uncovered_s(spans, cover) == len(seconds - hidden)


def test_turns_that_did_nothing_are_counted_from_the_end():
    broken, read = '<tool_response>\n{"step": 1, "op": "", "error": "bad_call"}', '<tool_response>\n{"step": 1, "op": "OCR", "text": "a"}'
    assert facts.idle_before("What does the sign say?") == 0
    assert facts.idle_before("?" + read + broken + broken) == 2
    assert facts.idle_before("?" + broken + broken) == 2
    assert facts.idle_before("?" + broken + read) == 0
    quoted = '<tool_response>\n{"step": 1, "op": "OCR", "text": "\\"op\\": \\"\\""}'  # a sign that spells it out
    assert facts.idle_before("?" + broken + quoted) == 0


def test_the_split_adds_up_to_the_update():
    split = update().split()
    assert split == {"generate": 5.0, "tools": 1.0, "score": 1.5, "train": 2.0, "the rest": 0.5}
    assert sum(split.values()) == 10.0


def test_a_ratio_is_the_geometric_mean_of_the_pairs():
    found = facts.ratio_of([4.0, 9.0], [1.0, 1.0])
    assert found.value == pytest.approx(6.0) and found.count == 2  # the root of 36; the plain mean would be 6.5
    back = facts.ratio_of([1.0, 1.0], [4.0, 9.0])
    assert back.value == pytest.approx(1 / 6)  # turning the sides round turns the ratio round
    alone = facts.ratio_of([3.0], [1.5])
    assert alone.value == pytest.approx(2.0) and math.isnan(alone.low) and alone.count == 1
    assert math.isnan(facts.ratio_of([], []).value)


def test_the_page_says_what_was_measured():
    ours, trl = [update()], [update(seconds=30.0, rollout_s=20.0, sampled_tokens=600, cpu_s=40.0)]
    lines = facts.page("python benchmarks/rft.py", "nano.", ours, trl).splitlines()
    assert "| seconds | 10.00 | 30.00 |" in lines
    assert "| - generate | 5.00 (50.0%) | 19.00 (63.3%) |" in lines
    assert "| turns of a rollout | 2.50 | 2.50 |" in lines  # 10 turns of 4 rollouts
    assert "| sampled tokens/s of the update | 30 | 20 |" in lines
    text = "\n".join(lines)
    assert "per update, TRL / ours: 3.00 (no interval), 1 paired update;" in text
    assert "per sampled token, TRL / ours: 1.50 " in text  # 30 / 600 against 10 / 300
    assert "CPU seconds per update, TRL / ours: 5.00 " in text
    assert "idle 10.0% of the time" in text


def test_sides_that_read_other_prompts_are_not_compared():
    with pytest.raises(ValueError, match="same prompts"):
        facts.page("", "", [update()], [update(prompts=(1, 3))])
    with pytest.raises(ValueError, match="same prompts"):
        facts.page("", "", [update(), update()], [update()])
