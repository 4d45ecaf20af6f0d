"""The pages of `benchmarks/tools.py`: a rerun replaces what was printed and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from benchmarks import tools

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = tools.MARKS


def test_a_new_page_is_what_was_printed_between_marks(tmp_path):
    page = tmp_path / "results" / "new.md"
    tools.put(page, "# One\n")
    assert page.read_text() == f"{BEGIN}\n# One\n{END}\n"


def test_a_rerun_keeps_what_is_written_by_hand(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# By hand\n\n{BEGIN}\nold\ntable\n{END}\n\nWhat it means.\n")
    tools.put(page, "new")
    assert page.read_text() == f"# By hand\n\n{BEGIN}\nnew\n{END}\n\nWhat it means.\n"
    tools.put(page, "new")
    assert page.read_text().count("new") == 1


@pytest.mark.parametrize("text", ["By hand.\n", f"By hand.\n\n{BEGIN}\ncut off", f"{END}\nBy hand.\n"])
def test_a_page_without_both_marks_loses_nothing(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    tools.put(page, "printed")
    assert page.read_text() == text.rstrip("\n") + f"\n\n{BEGIN}\nprinted\n{END}\n"


def test_the_default_run_writes_the_page_of_every_part_and_no_other(tmp_path, monkeypatch):
    summary = tmp_path / "docs" / "results" / "tools.md"
    summary.parent.mkdir(parents=True)
    summary.write_text("By hand.\n")
    (summary.parent / "seg.md").write_text(f"{BEGIN}\nof before\n{END}\n\nBy hand, too.\n")
    monkeypatch.setattr(tools, "ROOT", tmp_path)
    monkeypatch.setattr(tools, "media_folder", lambda: tmp_path)
    monkeypatch.setattr(tools, "part_rows", lambda part, media, engines, every: [{"engine": engines[0], "n": 3}])
    monkeypatch.setattr(tools, "latency_rows", lambda media, settings: [{"call": "ZOOM", "p50_ms": 2.0}])
    monkeypatch.setattr(sys, "argv", ["benchmarks/tools.py"])
    tools.main()
    assert summary.read_text() == "By hand.\n"
    assert {path.stem for path in summary.parent.iterdir()} == {"tools", *tools.PARTS, "latency"}
    seg = (summary.parent / "seg.md").read_text()
    assert "| u2netp-fusion | 3 |" in seg and seg.endswith(f"{END}\n\nBy hand, too.\n") and "of before" not in seg
    assert "`python benchmarks/tools.py --part trk --out docs/results/trk.md`" in (summary.parent / "trk.md").read_text()


def test_the_pages_of_the_house_bear_the_marks():
    for name in (*tools.PARTS, "latency", "seg_mobile_sam"):
        text = (ROOT / "docs" / "results" / f"{name}.md").read_text()
        assert text.count(BEGIN) == text.count(END) == 1
    assert BEGIN not in (ROOT / "docs" / "results" / "tools.md").read_text()
