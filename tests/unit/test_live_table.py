"""The table of `pixelis adapt` on a run that was cut short and goes on."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")

from pixelis.cli_adapt import LiveTable
from pixelis.ttrl.state import AUDIT_FILE, METRICS_FILE

ROW = {
    "query": 2,
    "of": 3,
    "right": True,
    "abstained": False,
    "coverage": 2 / 3,
    "kl": None,
    "beta": 0.3,
    "lift": None,
    "lift_evidence": None,
    "accepted": 2,
    "num_rolled_back": 0,
    "seconds": {"total": 1.0},
}


def test_what_was_answered_before_the_cut_counts(tmp_path, capsys):
    audits = [{"right": True}, {"right": False}, {"right": False}]  # the third was written, and is answered again
    rows = [{"query": 0, "abstained": False}, {"query": 1, "abstained": True}]
    for name, lines in ((AUDIT_FILE, audits), (METRICS_FILE, rows)):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"torn')
    LiveTable(tmp_path)(ROW)
    assert capsys.readouterr().out.splitlines()[1].split() == ["3/3", "0.667", "0.667", "1.000", "-", "0.300", "-", "-", "2", "0", "1.0"]


def test_a_new_run_begins_at_nothing(tmp_path, capsys):
    LiveTable(tmp_path / "new")(ROW)
    assert capsys.readouterr().out.splitlines()[1].split()[1] == "1.000"


def test_the_evidence_grows_before_the_lift_moves(tmp_path, capsys):
    LiveTable(tmp_path)(ROW | {"lift": 0.0, "lift_evidence": 1.34})
    assert capsys.readouterr().out.splitlines()[1].split()[6:8] == ["+0.00", "+1.3"]
