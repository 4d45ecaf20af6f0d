"""Votes held again on recorded facts, from three queries written down by hand."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")

from typer.testing import CliRunner

from pixelis.cli_probe import app
from pixelis.core.errors import DataError
from pixelis.eval.metrics.selective_pair import PERCENTILE
from pixelis.eval.revote import HEAD, changed, hold_all, revote_json, revote_text
from pixelis.serve.report.curves import figures
from pixelis.serve.report.sources import read_journal
from pixelis.ttrl.decide import DecisionSettings, decide, dump
from pixelis.ttrl.facts import NeighbourFacts, QueryFacts, RolloutFacts, dump_facts
from pixelis.ttrl.reliability import Cast
from pixelis.ttrl.vote import Weighing

SETTINGS = DecisionSettings(vote="confidence", delta=0.3)
QUERIES = (
    (("A", 0.9), ("B", 0.2), ("B", 0.2)),  # confidence: A by 0.9 to 0.4 of 1.3; majority: B by 1/3
    (("A", 0.5), ("A", 0.5), ("B", 0.9)),  # A by 1.0 to 0.9 of 1.9: 0.053; majority: A by 1/3
    (("B", 0.5), ("B", 0.5), ("B", 0.5)),  # B, alone
)
"""Answers with confidences. A is right."""


def write_run(folder, *, is_audited=True, neighbour=None):
    folder.mkdir(parents=True)
    queries, audits = [], []
    for number, said in enumerate(QUERIES):
        rollouts = tuple(RolloutFacts(id=f"r{k}", answer=label, label=label, confidence=sure) for k, (label, sure) in enumerate(said))
        near = ()
        if neighbour is not None:
            cast = Cast(task="earlier", worker="SEG", label=neighbour)
            near = (NeighbourFacts(id="n", similarity=1.0, medium="other", votes=(cast,), answer=neighbour),)
        facts = QueryFacts(id=f"{number}:q", medium="m", rollouts=rollouts, neighbours=near)
        decision = decide(facts, SETTINGS)
        queries.append(b'{"facts":' + dump_facts(facts) + b',"decision":' + dump(decision) + b"}\n")
        each = [label == "A" for label, _ in said] if is_audited else None
        audits.append({"query": facts.id, "right": decision.label == "A" if is_audited else None, "each": each})
    (folder / "queries.jsonl").write_bytes(b"".join(queries))
    (folder / "audit.jsonl").write_text("".join(json.dumps(line) + "\n" for line in audits))
    settings = {"neighbours": 1, "omega": 0.5, "seed": 0, "decision": json.loads(dump(SETTINGS))}
    (folder / "adapt.json").write_text(json.dumps({"settings": settings}))
    return folder


def rows(folder):
    return {(one.vote, one.neighbours): one for one in hold_all(folder)}


def test_three_queries_by_hand(tmp_path):
    found = rows(write_run(tmp_path / "run"))
    held, hard = found["as it was held", "no voice"], found["hard majority", "no voice"]
    # Margins 0.38, 0.05, 1 against 0.3: the second abstains; of the others one is wrong.
    assert (held.selection.coverage.value, held.selection.error.value) == (pytest.approx(2 / 3), 0.5)
    assert held.selection.full_error.value == pytest.approx(1 / 3)
    # The surest first: wrong; right; right.
    assert held.curve.aurc == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    # Majority says B, A, B and never abstains.
    assert (hard.selection.coverage.value, hard.selection.error.value) == (1.0, pytest.approx(2 / 3))
    wide = found["margin 0.05", "no voice"]
    assert wide.selection.coverage.value == 1.0
    # Confidences to the power 0 are voices: as majority, with its margins of 1/3 above 0.3.
    plain = found["without confidence", "no voice"]
    assert (plain.selection.coverage.value, plain.selection.error.value) == (1.0, pytest.approx(2 / 3))
    # The first rollout is right twice.
    assert found["the first rollout", "no voice"].selection.error.value == pytest.approx(1 / 3)


def test_hard_majority_at_the_same_coverage_by_hand(tmp_path):
    held = rows(write_run(tmp_path / "run"))["as it was held", "no voice"]
    # Hard majority: B by 1, wrong; B, wrong, and A, right, by 1/3 each. The second of two answers is one of these: 1.5 errors of 2.
    assert held.hard_error == pytest.approx(0.75)
    assert (held.hard_point.threshold, held.hard_point.coverage, held.hard_point.risk) == (pytest.approx(1 / 3), 1.0, pytest.approx(2 / 3))
    # AURC 11/18 against (1 + 1.5 / 2 + 2 / 3) / 3.
    assert held.gap.value == pytest.approx(11 / 18 - (1 + 0.75 + 2 / 3) / 3) and held.gap.count == 3
    assert held.gap.low <= held.gap.value <= held.gap.high


def test_each_vote_stands_beside_hard_majority_on_the_same_facts(tmp_path):
    found = rows(write_run(tmp_path / "run", neighbour="A"))
    for (vote, state), one in found.items():
        if vote.startswith("hard majority"):
            assert one.hard_error == one.selection.full_error.value and one.gap.value == 0.0, (vote, state)
    assert found["majority", "no voice"].hard_error == pytest.approx(2 / 3)
    # With a neighbour that says A, as sure as 1: A by 1.9 to 0.4 and by 2 to 0.9; B by 1.5 to 1, 0.2 of 2.5, abstains.
    held = found["as it was held", "as found"]
    assert (held.selection.coverage.value, held.selection.error.value) == (pytest.approx(2 / 3), 0.0)
    # Hard majority: A 3 to 1 and B 3 to 1, by 1/2 each; A 2 to 2.
    assert held.hard_error == pytest.approx(0.5) and held.hard_point.coverage == pytest.approx(2 / 3)


def test_fewer_rollouts_are_the_first_ones(tmp_path):
    found = rows(write_run(tmp_path / "run"))
    one = found["as it was held, 1 of 3", "no voice"]
    # A, A and B, each alone: nobody abstains, and all margins are 1.
    assert (one.selection.coverage.value, one.selection.error.value) == (1.0, pytest.approx(1 / 3))
    assert one.curve.aurc == pytest.approx(1 / 3)
    assert found["hard majority, 1 of 3", "no voice"].selection.error.value == pytest.approx(1 / 3)
    assert not any(" 0 of 3" in vote for vote, _ in found)


def test_a_neighbour_with_a_voice_and_flipped(tmp_path):
    run = write_run(tmp_path / "run", neighbour="A")
    found = rows(run)
    # A's fourth voice: 2 to 2, of which A comes first, since its supporter does; 3 to 1; 1 to 3.
    assert found["hard majority", "as found"].selection.error.value == pytest.approx(1 / 3)
    # Flipped to B it makes the first query 1 to 3, too, and the second 2 to 2, where A still comes first.
    flipped = [{(one.vote, one.neighbours): one for one in hold_all(run, seed=seed)}["hard majority", "50 % flipped"] for seed in range(12)]
    assert all(one.selection.coverage.value == 1.0 for one in flipped)
    assert {round(one.selection.error.value, 3) for one in flipped} == {0.333, 0.667}
    assert hold_all(run, seed=3) == hold_all(run, seed=3)
    # Nothing that needs no neighbours has moved.
    assert found["hard majority", "no voice"] == rows(write_run(tmp_path / "alone"))["hard majority", "no voice"]


def test_a_winner_that_no_rollout_gave_is_neither_right_nor_wrong(tmp_path):
    run = write_run(tmp_path / "run", neighbour="C")
    lines = [json.loads(line) for line in (run / "queries.jsonl").read_text().splitlines()]
    for rollout in lines[2]["facts"]["rollouts"]:
        rollout.update(answer=None, label=None)
    (run / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = rows(run)
    assert found["hard majority", "as found"].num_unknown == 1
    assert found["hard majority", "no voice"].num_unknown == 0  # no answer at all is a wrong one


def test_settings_change_where_they_lie():
    both = changed(DecisionSettings(), {"delta": 0.3, "power": 2.0})
    assert both == DecisionSettings(delta=0.3, weighing=Weighing(power=2.0))


def test_a_run_without_audit(tmp_path):
    with pytest.raises(DataError, match="adapt with --audit"):
        hold_all(write_run(tmp_path / "run", is_audited=False))


def test_the_command(tmp_path):
    run = write_run(tmp_path / "run", neighbour="A")
    shown = CliRunner().invoke(app, ["revote", str(run)])
    assert shown.exit_code == 0 and all(word in shown.output for word in HEAD)
    told = json.loads(CliRunner().invoke(app, ["revote", str(run), "--json"]).output)
    assert told == revote_json(hold_all(run)) and "hard majority" in revote_text(hold_all(run))
    assert told["again"] is None and told["votes"][0]["hard_majority"]["aurc_gap"]["method"] == PERCENTILE


def test_curves_that_the_report_draws(tmp_path):
    run, found = write_run(tmp_path / "run", neighbour="A"), tmp_path / "made" / "curves"
    shown = CliRunner().invoke(app, ["revote", str(run), "--curves", str(found)])
    names = [
        f"run-{name}" for name in ("confidence-20-flipped", "confidence-as-found", "hard-majority-20-flipped", "hard-majority-as-found")
    ]
    assert shown.exit_code == 0 and sorted(path.stem for path in found.iterdir()) == names
    journal = read_journal(found / "run-hard-majority-as-found.jsonl", name="hard", info={})
    # A and B 2 to 2; A 3 to 1; B 3 to 1: by 1/2 one of two is wrong, and A is right by 0.
    assert [(row["query"], row["coverage"], row["risk"], row["margin"]) for row in journal.rows] == [
        (2, pytest.approx(2 / 3), 0.5, pytest.approx(0.5)),
        (3, 1.0, pytest.approx(1 / 3), 0.0),
    ]
    pytest.importorskip("matplotlib")
    assert "What abstaining is worth" in [figure.title for figure in figures(journal)]
