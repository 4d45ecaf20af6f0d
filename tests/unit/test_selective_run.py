"""What a run of test-time learning selected, from four queries written down by hand."""

from __future__ import annotations

import json
import math

import pytest

pytest.importorskip("torch")

from typer.testing import CliRunner

from pixelis.cli_probe import app
from pixelis.core.errors import DataError
from pixelis.eval.selective_run import BINS_FILE, CURVE_FILE, HEAD, least_accepted, read_selective, selective_json, selective_text
from pixelis.serve.report.curves import figures
from pixelis.serve.report.sources import read_journal
from pixelis.ttrl.decide import DecisionSettings, decide, dump
from pixelis.ttrl.facts import QueryFacts, RolloutFacts, dump_facts

QUERIES = (("AAAA", True), ("AAAB", True), ("ABAB", False), ("AABA", False))
"""What the rollouts answer, and whether the winner A is right. Margins 1, 1/2, 0, 1/2: the third abstains."""


def write_run(folder, *, accepted=(1, 2, 2, 3), is_audited=True, is_finished=True, confidence=None):
    folder.mkdir(parents=True)
    queries, audits, rows = [], [], []
    for number, (labels, right) in enumerate(QUERIES):
        rollouts = tuple(RolloutFacts(id=f"r{k}", answer=label, label=label, confidence=confidence) for k, label in enumerate(labels))
        facts = QueryFacts(id=f"{number}:q", medium="m", rollouts=rollouts)
        decision = decide(facts, DecisionSettings(vote="majority"))
        queries.append(b'{"facts":' + dump_facts(facts) + b',"decision":' + dump(decision) + b"}\n")
        each = [(label == "A") == right for label in labels]
        audits.append({"query": facts.id, "right": right if is_audited else None, "each": each if is_audited else None})
        rows.append({"query": number, "kl": (0.1, 0.2, None, 0.3)[number], "accepted": accepted[number], "num_rolled_back": number // 3})
    (folder / "queries.jsonl").write_bytes(b"".join(queries))
    for name, lines in (("audit.jsonl", audits), ("metrics.jsonl", rows)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    if is_finished:
        (folder / "policy").mkdir()
    return folder


def test_a_run_by_hand(tmp_path):
    found = read_selective(write_run(tmp_path / "run"))
    assert (found.selection.coverage.value, found.selection.coverage.count) == (0.75, 4)
    assert (found.selection.error.value, found.selection.error.count) == (pytest.approx(1 / 3), 3)
    assert found.selection.full_error.value == 0.5
    # Errors among the 1, 2, 3, 4 surest: 0; 1/2 of a half; 1/3; 1/2.
    assert found.curve.aurc == pytest.approx((0 + 1 / 4 + 1 / 3 + 1 / 2) / 4)
    assert [(one.count, one.risk, one.threshold) for one in found.curve.points] == [
        (1, 0.0, 1.0), (3, pytest.approx(1 / 3), pytest.approx(0.5)), (4, 0.5, 0.0),
    ]  # fmt: skip
    # Shares of the winner 1, 3/4, 1/2, 3/4: gaps 0 of one, 1/4 of two, 1/2 of one.
    assert found.answers.ece == pytest.approx((0 + 2 * 0.25 + 0.5) / 4)
    assert (found.num_accepted, found.accepted.value, found.num_rolled_back) == (3, 0.75, 1)
    assert (found.kl_median, found.kl_p95, found.num_updates) == (pytest.approx(0.2), pytest.approx(0.29), 3)
    assert math.isnan(found.rollouts.ece) and found.rollouts.count == 0


def test_confidences_of_rollouts(tmp_path):
    # Right are 4, 3, 2 and 1 of four (A is right twice, and wrong twice): 10 of 16; said is 0.9.
    found = read_selective(write_run(tmp_path / "run", confidence=0.9))
    assert found.rollouts.count == 16 and found.rollouts.ece == pytest.approx(0.9 - 10 / 16)


def test_the_budget_that_all_can_be_held_to(tmp_path):
    runs = [
        read_selective(write_run(tmp_path / str(k), accepted=some)) for k, some in enumerate([(1, 2, 3, 4), (0, 1, 1, 2), (0, 0, 0, 0)])
    ]
    assert least_accepted(runs) == 2  # the one that learns nothing has no budget
    with pytest.raises(DataError, match="no budget"):
        least_accepted(runs[2:])
    with pytest.raises(DataError, match="half: not finished"):
        least_accepted([*runs, read_selective(write_run(tmp_path / "half", is_finished=False))])


def test_without_an_audit_nobody_knows(tmp_path):
    with pytest.raises(DataError, match="adapt with --audit"):
        read_selective(write_run(tmp_path / "run", is_audited=False))
    with pytest.raises(DataError, match="no run of pixelis adapt"):
        read_selective(tmp_path / "nothing")
    (tmp_path / "run" / "audit.jsonl").unlink()
    damaged = write_run(tmp_path / "damaged")
    (damaged / "metrics.jsonl").write_text('{"kl": 0.1}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:1: is damaged"):
        read_selective(damaged)


def test_the_command(tmp_path):
    one, two = write_run(tmp_path / "full"), write_run(tmp_path / "hard", accepted=(1, 2, 3, 4))
    told = CliRunner().invoke(app, ["selective", str(one), str(two), "--json"])
    values = json.loads(told.stdout)
    assert told.exit_code == 0 and values["max_accepted"] == 3 and [run["run"] for run in values["runs"]] == ["full", "hard"]
    assert values["runs"][0]["ece_rollouts"] == {"value": None, "count": 0}
    curve = [json.loads(line) for line in (one / CURVE_FILE).read_text().splitlines()]
    assert curve == values["runs"][0]["curve"] and [row["query"] for row in curve] == [1, 3, 4]
    bins = [json.loads(line) for line in (one / BINS_FILE).read_text().splitlines()]
    assert sum(row["answers"] for row in bins) == 4 and all(0 <= row["confidence"] <= 1 and 0 <= row["right"] <= 1 for row in bins)
    drawn = {
        figure.title: figure.words for name in (CURVE_FILE, BINS_FILE) for figure in figures(read_journal(one / name, name="r", info={}))
    }
    assert drawn == {
        "What abstaining is worth": "Risk by coverage: risk; Margin by coverage: margin",
        "Reliability": "Right by confidence: right; Answers by confidence: answers",
    }
    assert json.loads(json.dumps(selective_json([read_selective(one)]), allow_nan=False))[0]["accepted"]["updates"] == 3
    text = selective_text([read_selective(one)]).splitlines()
    assert text[0].split()[0] == HEAD[0] and "3 (0.750)" in text[1] and "0.200 / 0.290" in text[1]
    assert "max_accepted = 3" in CliRunner().invoke(app, ["selective", str(one), str(two)]).stdout
