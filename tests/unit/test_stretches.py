"""A stream's stretches told apart, from five queries written down by hand."""

from __future__ import annotations

import json
import math

import pytest

pytest.importorskip("torch")

from typer.testing import CliRunner

from pixelis.cli_probe import app
from pixelis.core.errors import DataError
from pixelis.eval.selective_run import read_selective
from pixelis.eval.stretches import stretches_json, stretches_text
from pixelis.ttrl.decide import DecisionSettings, decide, dump
from pixelis.ttrl.facts import QueryFacts, RolloutFacts, dump_facts

QUERIES = (("AAAA", True, None), ("AABB", False, None), ("AAAB", True, 0.0), ("AAAA", True, 0.4), ("AAAB", False, None))
"""What the rollouts answer, whether the winner A is right, and the lift behind the query."""


def write_run(folder, segments=("2 clean", "2 lighting:3", "3 clean")):
    folder.mkdir(parents=True)
    queries, audits, rows = [], [], []
    for number, (labels, right, lift) in enumerate(QUERIES):
        rollouts = tuple(RolloutFacts(id=f"r{k}", answer=label, label=label) for k, label in enumerate(labels))
        facts = QueryFacts(id=f"{number}:q", medium="m", rollouts=rollouts)
        decision = decide(facts, DecisionSettings(vote="majority"))
        queries.append(b'{"facts":' + dump_facts(facts) + b',"decision":' + dump(decision) + b"}\n")
        audits.append({"query": facts.id, "right": right, "each": [(label == "A") == right for label in labels]})
        rows.append({"query": number, "kl": None, "accepted": number, "num_rolled_back": 0, "lift": lift})
    (folder / "queries.jsonl").write_bytes(b"".join(queries))
    for name, lines in (("audit.jsonl", audits), ("metrics.jsonl", rows)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "adapt.json").write_text(json.dumps({"stream": {"segments": list(segments)}}))
    (folder / "policy").mkdir()
    return folder


def test_each_stretch_by_hand(tmp_path):
    first, dark, last = read_selective(write_run(tmp_path / "run")).stretches
    assert [one.name for one in (first, dark, last)] == ["2 clean", "2 lighting:3", "3 clean"]
    assert (first.right.value, dark.right.value, last.right.value) == (0.5, 1.0, 0.0)
    # Right rollouts: all of four and half of four; three quarters and all; of the last the one that did not say A.
    assert (first.rollout.value, dark.rollout.value, last.rollout.value) == (0.75, 0.875, 0.25)
    # Margins 1 and 0, then 1/2 and 1, then 1/2: only the tie abstains.
    assert (first.selection.coverage.value, dark.selection.coverage.value) == (0.5, 1.0)
    assert (first.selection.error.value, last.selection.error.value) == (0.0, 1.0)
    # Nothing was tried in the light; what was learnt in the dark still stands behind it.
    assert math.isnan(first.lift) and (dark.lift, last.lift) == (0.4, 0.4)


def test_a_run_that_has_not_come_so_far_shows_what_it_served(tmp_path):
    assert [one.name for one in read_selective(write_run(tmp_path / "run", ("5 clean", "9 noise:2"))).stretches] == ["5 clean"]


def test_text_only_where_there_is_something_to_tell_apart(tmp_path):
    one, three = (read_selective(write_run(tmp_path / n, *s)).stretches for n, s in (("one", [("5 clean",)]), ("three", [])))
    assert stretches_text([("one", one)]) == ""
    text = stretches_text([("one", one), ("three", three)])
    assert "2 lighting:3" in text and "5 clean" not in text
    assert stretches_json(three)[0]["lift"] is None


@pytest.mark.parametrize("text", ["{", "[]", '{"stream": {}}'])
def test_a_damaged_run_is_named(tmp_path, text):
    folder = write_run(tmp_path / "run")
    (folder / "adapt.json").write_text(text)
    with pytest.raises(DataError, match=r"adapt\.json: is damaged"):
        read_selective(folder)


def test_a_run_that_does_not_say_what_it_served_has_none(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "adapt.json").unlink()
    assert read_selective(folder).stretches == ()


def test_the_command_prints_them(tmp_path):
    done = CliRunner().invoke(app, ["selective", str(write_run(tmp_path / "run"))], catch_exceptions=False)
    assert done.exit_code == 0 and "2 lighting:3" in done.output and "curves: pixelis report" in done.output
