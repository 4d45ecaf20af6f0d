"""What the report knows of runs beside their trajectories: commands, facts at a journal's head, processes, benchmarks, grids, streams."""

from __future__ import annotations

import json
import math

import pytest
from tests.unit.test_bench_run import run as run_bench
from tests.unit.test_bench_run import saying, vstar_folder
from tests.unit.test_report import write_rows
from tests.unit.test_robustness import rights

from pixelis.core.command import Command, note_command, under_way
from pixelis.core.errors import DataError
from pixelis.core.store import TRAJECTORIES_FILE, sha256
from pixelis.eval.pixelworld import evaluate
from pixelis.eval.robustness import CLEAN, make_grid
from pixelis.eval.robustness_run import GRID_FILE, Robustness
from pixelis.serve.report import write_report
from pixelis.serve.report.benches import bench_tables
from pixelis.serve.report.commands import journal_command, made_by
from pixelis.serve.report.curves import figures
from pixelis.serve.report.latency import latency_tables
from pixelis.serve.report.leakage import leakage_tables
from pixelis.serve.report.probes import side_by_side
from pixelis.serve.report.processes import process_tables
from pixelis.serve.report.provenance import provenance
from pixelis.serve.report.sources import Probe, read_journal, read_sources
from pixelis.testing import ScriptedPolicy
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings

COMMAND = Command(words=("pixelis", "adapt", "recipes/a b.toml"), recipes={"recipes/a b.toml": "f" * 64}, checkpoint="runs/rft")


def texts(table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def run_of(folder):
    options = {"families": ("read_sign",), "num_items": 1, "out_folder": folder, "keep_media": False}
    evaluate(ScriptedPolicy(["<answer>x</answer>"]), Executor({}), ToolSettings(), **options)
    return folder


def stream_row(query: int, *seconds: float, **changes) -> dict:
    """As `pixelis adapt` writes it: the parts of a vote, and 10 s in all."""
    parts = dict(zip(("observe", "key", "retrieve", "decide"), seconds, strict=True))
    return {"query": query, "accepted": query // 2, "coverage": 0.5, "seconds": {"sample": 8.0, **parts, "total": 10.0}, **changes}


# ---------------------------------------------------------------- commands


def test_a_noted_command_stands_as_it_was_given(tmp_path):
    with under_way(COMMAND):
        run_of(tmp_path / "run")
    with under_way(Command(words=("pixelis", "again"), versions={})):
        run_of(tmp_path / "run")
    found = read_sources([tmp_path / "run"], examples=0)
    assert made_by(found.evaluations[0]) == "pixelis adapt 'recipes/a b.toml' && pixelis again"
    ((_, command, recipe, seed, policy, *_),) = texts(provenance(found))
    assert command == made_by(found.evaluations[0]) and recipe == f"recipes/a b.toml, SHA-256 {'f' * 12}" and seed == "0"
    assert policy == "runs/rft: scripted 1"


def test_the_page_names_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        write_rows(tmp_path / "runs" / name / "clean" / "metrics.jsonl", [{"step": 1, "loss": 1.0}])
    paths = [tmp_path / "runs" / "one" / "clean", tmp_path / "runs" / "two" / "clean"]
    assert read_sources(paths, examples=6).command == "pixelis report runs/one/clean runs/two/clean"
    assert read_sources(paths[:1], examples=2).command == "pixelis report runs/one/clean --examples 2"
    monkeypatch.chdir("/")
    monkeypatch.chdir("/usr")
    assert read_sources(paths, examples=6).command == "pixelis report PATH/one/clean PATH/two/clean"


@pytest.mark.parametrize(
    ("file", "row", "command"),
    [
        ("metrics.jsonl", {"query": 0, "accepted": 1}, "pixelis adapt RECIPE --out runs/x"),
        ("metrics.jsonl", {"update": 0}, "pixelis train rft RECIPE --out runs/x"),
        ("primer.jsonl", {"step": 0}, "pixelis train primer RECIPE --out runs/x"),
        ("risk_coverage.jsonl", {"query": 9, "coverage": 0.1, "risk": 0.0}, "pixelis eval selective runs/x"),
        ("reliability.jsonl", {"bin": 9, "confidence": 0.1}, "pixelis eval selective runs/x"),
        ("hard-20-flipped.jsonl", {"query": 9, "coverage": 0.1, "risk": 0.0}, "pixelis eval revote runs/x --curves FOLDER"),
    ],
)
def test_what_nobody_noted_is_derived_and_said(tmp_path, file, row, command):
    journal = read_journal(write_rows(tmp_path / file, [row]), name="x", info={}, folder="runs/x")
    derived, _, left_out = journal_command(journal).partition("  # not recorded: ")
    assert derived == command and left_out.startswith("the command as given")
    assert ("RECIPE (its recipe)" in left_out) is ("RECIPE" in command)


def test_curves_are_not_made_by_the_command_of_their_run(tmp_path):
    path = write_rows(tmp_path / "risk_coverage.jsonl", [{"query": 9, "coverage": 0.1, "risk": 0.0}])
    journal = read_journal(path, name="x", info={}, folder="runs/x", commands=(COMMAND,))
    assert made_by(journal).startswith("pixelis eval selective runs/x")


# ---------------------------------------------------------------- facts at the head of a journal


def test_a_journal_may_say_where_it_is_from(tmp_path):
    about = {"settings": {"seed": 5}, "start": "abc", "versions": {"pixelis": "9", "commit": "123"}}
    commands = [{"words": list(COMMAND.words), "recipes": dict(COMMAND.recipes), "checkpoint": "runs/rft"}]
    rows = [{"about": {**about, "commands": commands}}, {"update": 0, "loss": 1.0}, {"update": 1, "loss": 2.0}]
    path = write_rows(tmp_path / "kept.jsonl", rows)
    journal = read_journal(path, name="kept", info={})
    assert journal.counter == "update" and [row["loss"] for row in journal.rows] == [1.0, 2.0] and journal.commands == (COMMAND,)
    assert [figure.title for figure in figures(journal)] == ["Losses"]
    (row,) = texts(provenance(read_sources([path], examples=0)))
    assert row[1:7] == [made_by(journal), f"recipes/a b.toml, SHA-256 {'f' * 12}", "5", "runs/rft: abc", "pixelis 9", "123"]
    assert row[7].startswith("2 rows")


def test_only_a_first_line_holds_facts(tmp_path):
    path = write_rows(tmp_path / "kept.jsonl", [{"update": 0}, {"about": {"seed": 1}}])
    with pytest.raises(DataError, match=r"kept\.jsonl:2: no row"):
        read_journal(path, name="x", info={})
    path = write_rows(tmp_path / "kept.jsonl", [{"about": 7}, {"update": 0}])
    with pytest.raises(DataError, match=r"kept\.jsonl:1: no row"):
        read_journal(path, name="x", info={})
    path = write_rows(tmp_path / "kept.jsonl", [{"about": {"seed": 1}}, {"loss": 0}])
    with pytest.raises(DataError, match=r"kept\.jsonl:2: no row"):
        read_journal(path, name="x", info={})
    path = write_rows(tmp_path / "kept.jsonl", [{"about": {"commands": [{}]}}])
    with pytest.raises(DataError, match=r"kept\.jsonl:1: no command line"):
        read_journal(path, name="x", info={})
    only = read_journal(write_rows(tmp_path / "kept.jsonl", [{"about": {"seed": 1}}]), name="x", info={"seed": 0, "start": "a"})
    assert only.rows == () and only.info == {"seed": 1, "start": "a"}


# ---------------------------------------------------------------- streams


def test_retrieval_and_voting_by_hand(tmp_path):
    """Sums 1, 2 and 3 s: their median is 2, and their 95th percentile 2 + 0.9 * (3 - 2)."""
    rows = [stream_row(0, 0.1, 0.2, 0.3, 0.4), stream_row(1, 0.5, 0.5, 0.5, 0.5), stream_row(2, 0.0, 1.0, 1.0, 1.0)]
    rows.append({"query": 3, "accepted": 1})  # of a release that took no time
    stream = read_journal(write_rows(tmp_path / "metrics.jsonl", rows), name="s", info={})
    (table,) = latency_tables((), (stream,))
    found = {row[0]: row[1:] for row in texts(table)}
    assert table.head == ("component", "the paper, 8B", "s") and table.source == "metrics.jsonl"
    assert found["retrieval and voting, p50"] == ["0.34", "2.00"] and found["retrieval and voting, p95"] == ["-", "2.90"]
    assert found["end to end, p50"] == ["5.80", "10.00"] and found["items timed"] == ["-", "3"] and found["TRK"] == ["1.42", "-"]
    assert latency_tables((), (read_journal(write_rows(tmp_path / "x.jsonl", [{"update": 0}]), name="x", info={}),)) == []


AUDIT = {"num_items": 3, "num_blocked": 40, "num_suspects": 2, "hits": [], "rate": 0.0, "high": 0.0881}


def test_what_the_memory_held_of_the_exam(tmp_path):
    audited = write_rows(tmp_path / "audited" / "metrics.jsonl", [stream_row(0, 0.1, 0.2, 0.3, 0.4)])
    (tmp_path / "audited" / "memory_audit.json").write_text(json.dumps(AUDIT))
    plain = write_rows(tmp_path / "plain" / "metrics.jsonl", [stream_row(0, 0.1, 0.2, 0.3, 0.4)])
    (table,) = leakage_tables(read_sources([audited.parent, plain.parent], examples=0).journals)
    assert texts(table) == [["audited", "3", "40", "2", "0", "0.0000 (at most 0.0881)"], ["plain", "not audited", "-", "-", "-", "-"]]
    assert leakage_tables([read_journal(write_rows(tmp_path / "x.jsonl", [{"update": 0}]), name="x", info={}, audit=AUDIT)]) == []
    (tmp_path / "audited" / "memory_audit.json").write_text("{half")
    with pytest.raises(DataError, match=r"memory_audit\.json is not JSON"):
        read_sources([audited.parent], examples=0)


def test_a_journal_kept_by_itself_says_where_it_is_from(tmp_path):
    folder = tmp_path / "stream"
    write_rows(folder / "metrics.jsonl", [stream_row(0, 0.1, 0.2, 0.3, 0.4), stream_row(1, 0.1, 0.2, 0.3, 0.4)])
    (folder / "adapt.json").write_text(json.dumps({"settings": {"seed": 3}}))
    (folder / "memory_audit.json").write_text(json.dumps(AUDIT))
    with under_way(COMMAND):
        note_command(folder)
    (before,) = read_sources([folder], examples=0).journals
    write_report([folder], tmp_path / "page.html", journals=tmp_path / "kept", examples=0)
    (after,) = read_sources([tmp_path / "kept" / "stream.jsonl"], examples=0).journals
    assert (after.rows, after.commands, after.audit, after.info["settings"]) == (before.rows, before.commands, AUDIT, {"seed": 3})
    assert before.commands[0].words == COMMAND.words


def test_a_stream_is_drawn_with_its_shares(tmp_path):
    """Of three queries none, none and one were learnt from: shares 0, 0 and 1/3; the same numbers twice are one line."""
    rows = [stream_row(k, 0.1, 0.1, 0.1, 0.1, abstained=False, masked=False, weight=1.0) for k in range(3)]
    journal = read_journal(write_rows(tmp_path / "metrics.jsonl", rows), name="s", info={})
    drawn = {figure.title: figure for figure in figures(journal)}
    serving = drawn["Learning while serving"]
    assert serving.words.startswith("Coverage and acceptance: coverage, accepted_share, abstained, masked; Updates so far: accepted;")
    assert "<!-- abstained, masked -->" in serving.svg and "Other" not in drawn
    from pixelis.serve.report.series import all_series

    assert all_series(rows, "query")["accepted_share"].y_R.tolist() == pytest.approx([0, 0, 1 / 3])


def test_journals_of_one_run_are_told_apart(tmp_path):
    write_rows(tmp_path / "run" / "metrics.jsonl", [{"step": 1, "loss": 1.0}])
    write_rows(tmp_path / "run" / "reliability.jsonl", [{"bin": 1, "confidence": 0.5, "right": 0.5}])
    text = write_report([tmp_path / "run"], tmp_path / "page.html").read_text("ascii")
    assert "<h2>Curves: run (metrics.jsonl)</h2>" in text and "<h2>Curves: run (reliability.jsonl)</h2>" in text


# ---------------------------------------------------------------- processes


def rate(value: float | None, **more) -> dict:
    return {"value": value, "low": None if value is None else 0.25, "high": 0.75, "count": 4, "method": "BCa", **more}


def test_process_metrics_are_shown_as_far_as_they_are_known(tmp_path):
    run_of(tmp_path / "run")
    digest = sha256((tmp_path / "run" / TRAJECTORIES_FILE).read_bytes())
    weak = rate(0.5, p=0.02, q=0.04, num_unscored=1)
    process = {
        "trajectories": digest, "plans": 3, "seed": 0, "fidelity": rate(None, num_unscored=4), "rapr": rate(0.5),
        "entropy": {"per_trajectory": rate(0.5), "pooled": 1.25}, "prc": {"rate": rate(0.5), "crop": rate(0.25)}, "later": {"x": rate(0.5)},
        "correlations": {"rapr": {"Spearman": weak, "partial (length)": rate(0.5, p=0.5, q=0.5)}},
        "foretellings": [{"features": ["rapr", "steps"], "auc": rate(0.5), "average_precision": rate(0.5), "base_rate": 0.125}],
    }  # fmt: skip
    (tmp_path / "run" / "process.json").write_text(json.dumps(process))
    evaluations = read_sources([tmp_path / "run"], examples=0).evaluations
    metrics, correlations, foretellings = process_tables(evaluations)
    half = "0.500 [0.250, 0.750] (4)"
    assert texts(metrics) == [
        ["RaPR", half], ["VisFid", "- (4)"], ["AE", half], ["AE, pooled", "1.250"], ["PRC", half],
        ["PRC, crop", "0.250 [0.250, 0.750] (4)"], ["later, x", half],
    ]  # fmt: skip
    assert texts(correlations)[0] == ["run", "RaPR", "Spearman", "0.500* [0.250, 0.750]", "0.0200", "0.0400", "4", "1"]
    assert texts(correlations)[1][-1] == "-" and "*" not in texts(correlations)[1][3]
    assert texts(foretellings) == [["run", "RaPR, length", "0.500 [0.250, 0.750]", "0.500 [0.250, 0.750]", "0.125", "4"]]
    (tmp_path / "run" / "process.json").write_text(json.dumps({**process, "trajectories": "of another run"}))
    assert process_tables(read_sources([tmp_path / "run"], examples=0).evaluations) == []
    (tmp_path / "run" / "process.json").write_text("[]")
    with pytest.raises(DataError, match=r"process\.json holds list"):
        read_sources([tmp_path / "run"], examples=0)


# ---------------------------------------------------------------- benchmarks


def test_a_benchmark_run_has_its_scores(tmp_path):
    """V* in two orders: who always says A is right in every published one, so in half of the eight questions at least."""
    made = run_bench("vstar", vstar_folder(tmp_path), saying("A"), tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    (table,) = bench_tables(read_sources([tmp_path / "run"], examples=0).benches)
    rows = texts(table)
    assert len(rows) == 1 + len(made.table.rows) and rows[0][:3] == ["run", "V* Bench", made.table.headline.name]
    assert rows[0][3].startswith(f"{100 * made.table.headline.rate.value:.2f}") and rows[0][5:] == ["8 of 8", "0"]
    published = next(row for row in rows if row[2] == "published option order")
    assert published[3].startswith("100.00 [") and published[4] == "4"
    text = write_report([tmp_path / "run"], tmp_path / "page.html", markdown=tmp_path / "page.md").read_text("ascii")
    assert '<section id="benches">' in text and "pixelis.eval.bench.run in Python" in text  # no command names a scripted policy
    assert "## Public benchmarks" in (tmp_path / "page.md").read_text("utf-8")
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_a_benchmark_run_without_what_it_needs_is_a_message(tmp_path):
    run_bench("vstar", vstar_folder(tmp_path), saying("A"), tmp_path / "run")
    items = (tmp_path / "run" / "items.jsonl").read_bytes()
    (tmp_path / "run" / "items.jsonl").write_bytes(items.replace(b"red", b"RED"))
    with pytest.raises(DataError, match="has changed since the run was made"):
        read_sources([tmp_path / "run"], examples=0)
    (tmp_path / "run" / "items.jsonl").unlink()
    with pytest.raises(DataError, match="without its items the run cannot be scored"):
        read_sources([tmp_path / "run"], examples=0)
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**info, "rules": -1}))
    with pytest.raises(DataError, match="names no benchmark run of rules"):
        read_sources([tmp_path / "run"], examples=0)


# ---------------------------------------------------------------- grids


def grid_of(name: str, noisy: str, *, keeps: bool = True) -> Probe:
    scores = {CLEAN: rights("1" * 8), "noise:3": rights(noisy, "noise:3")}
    found = Robustness(about={}, grid=make_grid(scores))
    cells = {key.replace(":", "-"): some for key, some in scores.items()} if keeps else {}
    return Probe(name=name, file=GRID_FILE, found=found, digest="", path=name, cells=cells)


def test_grids_stand_side_by_side():
    """Eight pairs that all differ give p = 2 / 2^8 = 0.0078; of two cells its q is 0.0156, and over all cells, of one run, 0.0078."""
    one, two = grid_of("one", "0" * 8), grid_of("two", "1" * 8)
    (table,) = side_by_side([one, two])
    assert table.head == ("run", "clean", "noise:3", "mean of cells", "difference to one")
    first, second = texts(table)
    assert [text.partition(" ")[0] for text in first] == ["one", "1.000", "0.000", "0.500", "-"]
    assert [text.partition(" ")[0] for text in second] == ["two", "1.000", "1.000*", "1.000", "0.500**"]
    assert side_by_side([one]) == []
    (table,) = side_by_side([one, grid_of("two", "1" * 8, keeps=False)])  # a grid that travelled without its runs
    assert texts(table)[1][2].startswith("1.000 [") and texts(table)[1][4] == "-"
    assert not math.isnan(float(texts(table)[1][3]))
