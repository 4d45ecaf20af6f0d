"""The report: numbers worked out by hand, the same bytes twice, nothing from a run that could act, and messages for what cannot be read."""

from __future__ import annotations

import html
import html.parser
import json
import math
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.test_hacks import answer, item_of, near, right

from pixelis.core.errors import DataError
from pixelis.eval.pixelworld import evaluate
from pixelis.serve.markup import by_hash
from pixelis.serve.report import write_report
from pixelis.serve.report.commands import eval_command
from pixelis.serve.report.curves import MAX_OTHERS, figures, num_left_out
from pixelis.serve.report.latency import latency_tables
from pixelis.serve.report.provenance import provenance
from pixelis.serve.report.series import all_series, columns, numbers, smooth, window
from pixelis.serve.report.sources import Evaluation, display_names, read_journal, read_sources
from pixelis.serve.report.table import in_markdown, level
from pixelis.serve.report.tables import tables
from pixelis.testing import ScriptedPolicy
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.zoom import ZoomTool

NUM = 8
HOSTILE_NAME = "<img src=x onerror=alert(1)> `|$x_1$"
HOSTILE_ANSWER = "<script>alert(2)</script> [a](http://x.example) | \u202e"


def half(task) -> str:
    return right(task) if item_of(task).index % 2 == 0 else answer("nothing of the kind")


POLICIES = {"right": right, HOSTILE_NAME: lambda task: answer(HOSTILE_ANSWER), "half": half}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Three evaluations on the same eight signs: all right, all wrong, every second one right. Each looks once, at the right place."""
    parent, made = tmp_path_factory.mktemp("runs"), {}
    for name, last in POLICIES.items():
        made[name] = parent / name
        policy = ScriptedPolicy(lambda task, last=last: [near(task), last(task)])
        executor = Executor({"ZOOM": ZoomTool()})
        options = {"num_items": NUM, "families": ("read_sign",), "out_folder": made[name], "keep_media": False}
        evaluate(policy, executor, ToolSettings(), **options)
    return made


def rft_row(update: int, **changes) -> dict:
    """A row as phase 2 writes it, with round numbers."""
    row = {
        "update": update, "answer": 0.5, "curiosity": 0.0, "structure": 0.0, "penalty": 0.1, "reward": 0.4,
        "by_family": {"count": 1.0} if update % 2 else {"turn": 0.0}, "prompts": {f"count-{update}": {"steps": 3.0}},
        "valid_share": 0.6, "chain_length": 3.0, "invalid": 0.05,
        "answered": 1.0, "ops": {"SEG": 1, "ZOOM": 0, "TRK": 0, "OCR": 3, "TEMP": 0, "PROP": 0}, "op_entropy": 0.56, "tool_rate": 1.0,
        "alarm": "", "groups": 4, "flat_groups": 1, "used": 6, "rollouts": 8, "tokens": 900, "loss": [0.1, 0.3], "grad_norm": [0.5],
        "clipped": [], "skipped": [], "mean_kl": 0.1, "kl": 0.12, "beta": 0.3, "mismatch": 1e-5, "is_held": False, "sight": None,
        "dynamics_loss": 1.0, "num_lost": 0, "seconds": {"media": 1.0, "train": 2.0},
    }  # fmt: skip
    return row | changes


def write_rows(path: Path, rows: list[dict], end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows) + end, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def journal(tmp_path_factory) -> Path:
    rows = [rft_row(k, **{"strange_<b>$": k, "alarm": "tool rate <low>" if k == 2 else ""}) for k in range(4)]
    return write_rows(tmp_path_factory.mktemp("train") / "rft" / "metrics.jsonl", rows).parent


@pytest.fixture(scope="module")
def written(runs, journal, tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("out")
    paths = [*runs.values(), journal]
    return write_report(paths, folder / "page.html", markdown=folder / "page.md"), folder / "page.md"


class Reader(html.parser.HTMLParser):
    """Elements with their attributes, and the text of the style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.style = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "style":
            self.style += data if not self.style else ""

    def values(self, name: str) -> list[str]:
        return [attrs[name] for _, attrs in self.tags if name in attrs]


@pytest.fixture(scope="module")
def read(written) -> Reader:
    return Reader(written[0].read_text("ascii"))


@pytest.fixture(scope="module")
def found(runs) -> list[Evaluation]:
    return list(read_sources(list(runs.values()), examples=6).evaluations)


# ---------------------------------------------------------------- the numbers


def texts(*evaluations: Evaluation) -> dict[str, list[list[str]]]:
    made = [*tables(evaluations), *latency_tables(evaluations, ())]
    return {table.key: [[cell.text for cell in row] for row in table.rows] for table in made}


def test_marks_are_adjusted_over_the_rows(found):
    """Eight differing pairs give p = 2 / 2^8 = 0.0078, four give 2 / 2^4 = 0.125. Alone the first is below 0.01; of two tests its q is
    0.0156."""
    one, wrong, half = found
    alone = texts(one, wrong)["main"]
    assert alone[0][2].startswith("1.000 [") and alone[0][-1] == "-"
    assert alone[1][2].startswith("0.000** [") and alone[1][-1] == "8"
    both = texts(one, wrong, half)["main"]
    assert [row[2].partition(" ")[0] for row in both] == ["1.000", "0.000*", "0.500"]
    assert all("*" not in cell for row in both for cell in row[3:])  # they look and step alike: p = 1
    assert [row[3] for row in both] == [both[0][3]] * 3


def test_runs_without_a_common_item_are_not_compared(found, tmp_path):
    options = {"num_items": 1, "seed": 5, "families": ("read_sign",), "out_folder": tmp_path / "other", "keep_media": False}
    evaluate(ScriptedPolicy(lambda task: [answer("x")]), Executor({"ZOOM": ZoomTool()}), ToolSettings(), **options)
    row = texts(found[0], *read_sources([tmp_path / "other"], examples=0).evaluations)["main"][1]
    assert row[-1] == "-" and "*" not in "".join(row)


def test_tables_count_what_is_behind_a_rate(found):
    made = texts(*found)
    assert made["families"] == [["all", "1.00 (8)", "0.00* (8)", "0.50 (8)"], ["read_sign", "1.00 (8)", "0.00** (8)", "0.50 (8)"]]
    assert [row[:4] for row in made["tools"]] == [[name, "ZOOM", "8", "1.00"] for name in POLICIES]
    repeated = next(row for row in made["hacks"] if row[0] == "repeated call")
    assert repeated[3].endswith("of 8 passes")
    latency = {row[0]: row[1:] for row in made["latency"]}
    assert latency["all tools"][0] == "4.71" and latency["retrieval and voting, p50"] == ["0.34", "-", "-", "-"]
    assert latency["items timed"] == ["-", "8", "8", "8"]


def test_time_that_was_not_taken_is_unknown(runs, tmp_path):
    for file in ("run.json", "trajectories.jsonl"):
        (tmp_path / file).write_bytes((runs["half"] / file).read_bytes())
    latency = {row[0]: row[1:] for row in texts(*read_sources([tmp_path], examples=0).evaluations)["latency"]}
    assert latency["policy"] == ["-", "-"] and latency["end to end, p50"] == ["5.80", "-"] and latency["items timed"] == ["-", "0"]


def test_levels_of_colour():
    assert [level(share) for share in (0.0, 0.04, 0.06, 0.5, 1.0)] == [0, 0, 1, 5, 10]


# ---------------------------------------------------------------- series


def test_numbers_of_a_row():
    row = {"a": 1, "b": [1.0, 3.0], "c": [], "d": {"x": True, "y": {"z": 1}}, "e": "text", "f": None, "g": math.inf, "h": 10**400}
    found = numbers(row)
    assert {key: found[key] for key in ("a", "b", "d.x")} == {"a": 1.0, "b": 2.0, "d.x": 1.0}
    assert found.keys() == {"a", "b", "c", "d.x", "g", "h"} and all(math.isnan(found[key]) for key in "cgh")


def test_what_follows_from_rows():
    series = all_series([rft_row(0), rft_row(1, ops={"SEG": 0, "OCR": 0}, groups=0, flat_groups=0), rft_row(2)], "update")
    assert series["spent"].y_R.tolist() == [8, 16, 24]
    np.testing.assert_equal(series["op_share.OCR"].y_R, [0.75, np.nan, 0.75])  # without calls there is no share
    np.testing.assert_equal(series["flat_share"].y_R, [0.25, np.nan, 0.25])
    assert series["loss"].y_R.tolist() == [0.2] * 3 and "clipped" not in series and "sight" not in series
    assert series["by_family.count"].x_R.tolist() == [1]


def test_smoothing_by_hand():
    assert [window(n) for n in (0, 10, 39, 40, 200, 1942)] == [1, 1, 1, 3, 11, 97]
    # Means of (1, 2), (1, 2, 3), (2, 3), (3, 5), (5): the unknown value counts for nothing.
    np.testing.assert_allclose(smooth(np.array([1, 2, 3, np.nan, 5]), 3), [1.5, 2, 2.5, 4, 5])
    np.testing.assert_equal(smooth(np.array([np.nan, np.nan]), 1), [np.nan, np.nan])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=40), st.integers(0, 10))
def test_smoothing_stays_between_and_keeps_what_is_constant(values, half_window):
    smoothed = smooth(np.array(values), 2 * half_window + 1)
    assert smoothed.min() >= min(values) - 1e-9 and smoothed.max() <= max(values) + 1e-9
    np.testing.assert_allclose(smooth(np.full(len(values), values[0]), 2 * half_window + 1), values[0], atol=1e-9)


def test_columns_take_neighbours_together():
    series = all_series([{"step": k, "dev": {"even": k} if k % 2 == 0 else {"late": 1.0}} for k in range(80)], "step")
    starts, picture, each = columns(series)
    # 80 points in at most 40 columns: two each, so that a column holds one even and one odd step.
    assert each == 2 and starts[:3] == [0, 2, 4] and picture[0, :3].tolist() == [0, 2, 4] and picture[1, 0] == 1


# ---------------------------------------------------------------- figures


def test_every_number_is_on_a_figure(journal, written):
    found = read_journal(journal / "metrics.jsonl", name="rft", info={})
    pattern = r'<figure>\n<h3>(.*?)</h3>\n<img src="[^"]*" width="\d+" height="\d+" alt="(.*?)">'
    drawn = {title: html.unescape(words) for title, words in re.findall(pattern, written[0].read_text("ascii"))}
    assert drawn["Other"].startswith("groups: groups; used: used; rollouts: rollouts; tokens: tokens")
    assert "strange_<b>$" in drawn["Other"] and "Parts of the loss" not in "".join(drawn.values())
    assert drawn["KL corridor"] == "KL to the anchor: kl, mean_kl; Beta of the corridor: beta; Gates: mismatch"
    words = " ".join(drawn.values())
    series = all_series(found.rows, "update")
    told = {key.rpartition(".")[2] for key in series if not key.startswith("ops.")} - {"spent", "flat_groups"}
    assert all(key in words for key in told)
    assert num_left_out(found) == 0


def test_too_many_numbers_are_counted(tmp_path):
    rows = [{"step": 1, **{f"k{k}": 1 for k in range(MAX_OTHERS + 7)}}]
    assert num_left_out(read_journal(write_rows(tmp_path / "x.jsonl", rows), name="x", info={})) == 7


def test_unknown_values_leave_gaps(tmp_path):
    rows = [{"step": k, "loss": math.nan if k == 1 else 1.0, "dev": {"all": 0.0}} for k in range(3)]
    found = read_journal(write_rows(tmp_path / "metrics.jsonl", rows), name="x", info={})
    (figure,) = figures(found)
    assert figure.title == "Losses" and "nan" not in figure.svg.lower()


# ---------------------------------------------------------------- the page


def test_the_same_runs_give_the_same_bytes(runs, journal, written, tmp_path):
    before = {path: path.read_bytes() for folder in runs.values() for path in folder.rglob("*") if path.is_file()}
    again = write_report([*runs.values(), journal], tmp_path / "page.html", markdown=tmp_path / "page.md", curves=tmp_path / "curves")
    drawn = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "curves").iterdir()}
    assert {"rft-reward.svg", "rft-kl-corridor.svg", "rft-what-the-policy-does.svg"} <= drawn.keys()
    assert all(text.startswith("<svg xmlns") and text.rstrip().endswith("</svg>") for text in drawn.values())
    assert again.read_bytes() == written[0].read_bytes() and (tmp_path / "page.md").read_bytes() == written[1].read_bytes()
    assert before == {path: path.read_bytes() for folder in runs.values() for path in folder.rglob("*") if path.is_file()}  # read only


def test_nothing_from_a_run_can_act(read, written):
    assert not {tag for tag, _ in read.tags} & {"script", "iframe", "object", "link", "base", "form", "svg"}
    assert not [name for _, attrs in read.tags for name in attrs if name.startswith("on") or name == "style"]
    policy = next(attrs["content"] for _, attrs in read.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and by_hash(read.style) in policy and "unsafe" not in policy
    text = written[0].read_text("ascii")
    assert "&lt;script&gt;alert(2)" in text and "&lt;img src=x onerror" in text and "&#8238;" not in text  # U+202E would reorder the line


def test_the_page_loads_nothing(read, written):
    assert all(url.startswith("#") for url in read.values("href"))
    pictures = read.values("src")
    assert all(url.startswith(("data:image/svg+xml,", "data:image/jpeg;base64,")) for url in pictures) and pictures
    for svg in (unquote(url) for url in pictures if "svg" in url[:20]):
        assert not re.search(r'(?:href|src)="(?!#|data:)', svg) and not re.search(r"url\((?!#)", svg) and "<script" not in svg
    assert {attrs["href"][1:] for tag, attrs in read.tags if tag == "a"} <= set(read.values("id"))


def test_every_table_and_figure_says_where_it_is_from(written):
    text = written[0].read_text("ascii")
    command = "Made by <code>pixelis report PATH/right "
    parts = re.findall(r"<figure>.*?</figure>|<table>.*?</section>|<details.*?</details>", text, re.DOTALL)
    assert len(parts) == 6 + text.count("<figure>") + 3 and text.count("<figure>") > 6
    assert all(part.count(command) == 1 and 'class="provenance"' in part for part in parts)
    noted = "The run: pixelis train rft RECIPE --out PATH/rft  # not recorded: the command as given, RECIPE (its recipe)."
    assert text.count(noted) == text.count("<figure>")


def test_examples_are_the_first_right_and_the_first_wrong(found, written):
    assert [[(example.score.index, example.score.right) for example in one.examples] for one in found] == [
        [(0, 1)],
        [(0, 0)],
        [(0, 1), (1, 0)],
    ]
    text = written[0].read_text("ascii")
    assert text.count("<article") == 1 + 1 + 2 and text.count('<img src="data:image/jpeg') == 4
    assert "answer: <b>&lt;script&gt;alert(2)" in text


def test_pictures_keep_to_their_budget(runs, tmp_path):
    text = write_report([runs["half"]], tmp_path / "page.html", picture_bytes=0).read_text("ascii")
    assert "2 pictures are left out" in text and "data:image/jpeg" not in text


def test_alarms_are_told(written):
    assert "1 alarms, the first at update 2: tool rate &lt;low&gt;." in written[0].read_text("ascii")


def test_markdown_tables_have_their_columns(written):
    text = written[1].read_text("utf-8")
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    assert len(blocks) == 6
    for lines in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert blocks[0][0] == "| run | items | accuracy | RaPR | calls parse | calls valid | calls | steps per item | minimal chain | pairs |"
    assert "<img" not in text and "&lt;img src=x" in text
    assert in_markdown("a|b <c> `d`\n**") == r"a\|b &lt;c&gt; \`d\` \*\*"


# ---------------------------------------------------------------- provenance


def test_commands_are_derived_from_what_a_run_recorded():
    info = {
        "items": {"split": "test", "seed": 3, "count": 400, "first": 0, "shift": "noise:3", "families": ["count"]},
        "policy": {"name": "planner", "version": "1", "sampling": {}},
        "tool_settings": {"disabled": ["SEG", "ZOOM", "TRK", "OCR", "TEMP", "PROP"]},
        "limits": {"max_steps": 16, "max_seconds": 120.0},
    }
    command = "pixelis eval pixelworld --policy planner --split test --items 400 --seed 3 --shift noise:3 --family count"
    left_out = "  # not recorded: the command as given"
    assert eval_command(info, "a run") == f"{command} --no-tools --run 'a run'{left_out}"
    some = info | {"tool_settings": {"disabled": ["OCR"]}, "limits": {"max_steps": 4, "max_seconds": 120.0}}
    words = "RECIPE (its recipe, which says tools.disabled = ['OCR'], limits.max_steps = 4)"
    assert eval_command(some, "run") == f"{command} --run run --recipe RECIPE{left_out}, {words}"
    assert eval_command(info | {"policy": {"name": "scripted"}}, "run").startswith("pixelis.eval.pixelworld.evaluate in Python")


@pytest.mark.parametrize(
    ("name", "sampling", "words"),
    [
        ("vlm:my model", {"temperature": 0.7}, "--policy vlm --model CHECKPOINT "),  # a folder's last part leads nowhere
        ("vlm:Qwen/Qwen3-VL-8B", {"temperature": 0.7}, "--policy vlm --model Qwen/Qwen3-VL-8B "),
        ("vlm:nano-rft", {"temperature": 0.0, "max_new_tokens": 512}, "--policy nano-rft "),
        ("vlm:nano-rft", {"temperature": 0.0, "prompting": {"lift": 0.75}}, "--policy nano-ttrl "),
        ("vlm:nano-rft", {"temperature": 0.0, "prompting": {"lift": 0.5}}, "--policy vlm --model CHECKPOINT "),
    ],
)
def test_a_policy_is_named_as_a_command_can(name, sampling, words):
    info = {"items": {"split": "test", "seed": 0, "count": 1}, "policy": {"name": name, "version": "1", "sampling": sampling}}
    assert eval_command(info, "run").startswith(f"pixelis eval pixelworld {words}")
    assert ("CHECKPOINT (where its checkpoint lies)" in eval_command(info, "run")) is ("CHECKPOINT" in words)


def test_a_run_that_learnt_while_it_served_says_where_it_started(tmp_path):
    pytest.importorskip("torch")
    from pixelis.ttrl.state import ABOUT_FILE

    (tmp_path / "metrics.jsonl").write_text('{"query": 0, "kl": 0.1}\n')
    (tmp_path / ABOUT_FILE).write_text(json.dumps({"pixelis": "9.9", "settings": {"seed": 77}, "start": "abc123, torch 2"}))
    table = provenance(read_sources([tmp_path], examples=0))
    (row,) = [[cell.text for cell in row] for row in table.rows]
    assert "77" in row and "abc123, torch 2" in row and "pixelis 9.9" in row


def test_names_are_as_short_as_they_can_be(tmp_path):
    paths = [tmp_path / "one" / "run", tmp_path / "two" / "run", tmp_path / "two" / "x"]
    assert display_names(paths) == ["one/run", "two/run", "two/x"]
    assert display_names(paths[:1]) == ["run"]
    with pytest.raises(DataError, match="named twice"):
        display_names([paths[0], paths[0]])


# ---------------------------------------------------------------- what cannot be read


@pytest.mark.parametrize("line", ["{", "[1]", '{"loss": 1}', '{"step": "2"}', '{"step": NaN}', "[" * 5000])
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "loss": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: no row of a journal.*'step'"):
        read_journal(path, name="x", info={})


def test_a_row_that_is_being_written_is_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1}\n{"step": 2, "lo')
    cut = read_journal(path, name="x", info={})
    assert len(cut.rows) == 1 and cut.num_cut_bytes == 15
    path.write_text('{"step": 1, "loss": 1}\n{"step": 2}')  # whole, but for its newline
    assert len(read_journal(path, name="x", info={}).rows) == 2


def test_an_empty_journal_is_a_page_without_figures(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    text = write_report([tmp_path / "metrics.jsonl"], tmp_path / "page.html").read_text("ascii")
    assert "0 rows of metrics.jsonl. It holds no number to draw." in text and "<figure>" not in text


def test_what_holds_nothing_is_named(journal, tmp_path):
    with pytest.raises(DataError, match="there is no such folder"):
        write_report([tmp_path / "no"], tmp_path / "page.html")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="neither an evaluation"):
        write_report([tmp_path / "empty"], tmp_path / "page.html")
    (tmp_path / "empty" / "run.json").write_text('{"evaluation": "vstar"}')
    with pytest.raises(DataError, match="an evaluation on 'vstar'"):
        write_report([tmp_path / "empty"], tmp_path / "page.html")
    with pytest.raises(DataError, match="name at least one"):
        write_report([], tmp_path / "page.html")
    with pytest.raises(DataError, match="cannot be written"):
        write_report([write_rows(tmp_path / "x.jsonl", [])], tmp_path / "no" / "page.html")
    assert not (tmp_path / "page.html").exists()
