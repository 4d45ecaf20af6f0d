"""The tables of a report, as data, and as HTML and GitHub Markdown from the same data. Pure."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pixelis.core.errors import DataError
from pixelis.core.ops import OPS
from pixelis.eval.compare import OVERALL, Comparison, compare
from pixelis.eval.report import number_text, rate_text
from pixelis.eval.scores import NO_CALL
from pixelis.eval.stats import benjamini_hochberg
from pixelis.serve.report.sources import Evaluation

NUM_LEVELS = 11
"""Colours of a share from 0 to 1; `style.css` has one for each."""
MARKS = ((0.01, "**"), (0.05, "*"))
PAPER = "the paper, 8B"
PAPER_TOOL_S = {"SEG/ZOOM": 1.17, "TRK": 1.42, "OCR": 0.39, "TEMP": 1.57, "PROP": 0.16}
"""Tool-side seconds per query. Source: paper §4.4, table of latency by component."""
PAPER_RETRIEVAL_S, PAPER_TOOLS_S = 0.34, 5.05
PAPER_TOTAL_S = {50: 5.8, 90: 8.1, 95: 10.2}
"""Percentiles of end-to-end seconds."""


@dataclass(frozen=True)
class Cell:
    text: str
    level: int | None = None
    """Its colour, from 0 to `NUM_LEVELS` - 1; None for none."""


@dataclass(frozen=True, kw_only=True)
class Table:
    key: str
    """Its place on the page."""
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    source: str
    """What it was made from."""
    of: tuple[str, ...] = ()
    """Names of the runs it is about; empty for all evaluations."""
    is_heat: bool = False
    """Its cells are coloured like a map."""


def cells(*texts: str) -> tuple[Cell, ...]:
    return tuple(map(Cell, texts))


# ---------------------------------------------------------------- the tables


@dataclass(frozen=True)
class Compared:
    """Every evaluation against the first.

    Attributes:
        comparisons: one for each evaluation after the first; None where the two share no item.
        q: by measure, p of each after Benjamini-Hochberg over the rows; NaN where there is none.
    """

    comparisons: tuple[Comparison | None, ...]
    q: dict[str, np.ndarray] = field(default_factory=dict)

    def mark(self, number: int, measure: str) -> str:
        """Of the evaluation with that number, from 0."""
        return stars(self.q[measure][number - 1]) if number else ""

    def family_mark(self, number: int, family: str) -> str:
        found = self.comparisons[number - 1] if number else None
        return next((stars(row.q) for row in found.families if row.name == family), "") if found else ""

    def pairs(self, number: int) -> str:
        found = self.comparisons[number - 1] if number else None
        return str(found.overall[0].difference.count) if found else "-"


def compare_all(evaluations: Sequence[Evaluation]) -> Compared:
    """Paired permutation tests of every evaluation against the first, on the items they share."""
    found = tuple(_compare(evaluation, evaluations[0]) for evaluation in evaluations[1:])
    p = {name: [one.overall[k].p if one else math.nan for one in found] for k, name in enumerate(OVERALL)}
    return Compared(found, {name: benjamini_hochberg(values) for name, values in p.items()})


def _compare(one: Evaluation, first: Evaluation) -> Comparison | None:
    try:
        return compare(one.report.scores, first.report.scores)
    except DataError:  # no item in common
        return None


def stars(q: float) -> str:
    return next((mark for limit, mark in MARKS if q < limit), "")


def marked(rate: str, mark: str) -> str:
    """A rate's text with its mark behind the value, before the interval."""
    value, blank, between = rate.partition(" ")
    return f"{value}{mark}{blank}{between}"


def tables(evaluations: Sequence[Evaluation]) -> list[Table]:
    """Every table over the evaluations, in the order of the page; none without evaluations."""
    if not evaluations:
        return []
    compared = compare_all(evaluations)
    return [
        _main(evaluations, compared),
        _families(evaluations, compared),
        _tools(evaluations),
        _hacks(evaluations),
        _latency(evaluations),
    ]


def _main(evaluations: Sequence[Evaluation], compared: Compared) -> Table:
    rows = []
    for number, evaluation in enumerate(evaluations):
        group = evaluation.report.overall
        accuracy, rapr, steps = (compared.mark(number, name) for name in ("accuracy", "RaPR", "steps"))
        num_steps = str(group.parses.count)
        rows.append(
            cells(
                evaluation.name,
                str(group.accuracy.count),
                marked(rate_text(group.accuracy), accuracy),
                marked(rate_text(group.rapr), rapr),
                rate_text(group.parses),
                rate_text(group.valid),
                num_steps,
                marked(rate_text(group.steps, 2), steps),
                number_text(group.chain, 2),
                compared.pairs(number),
            )
        )
    note = "95 % intervals: BCa bootstrap (10,000 resamples) of means over items, Clopper-Pearson of shares of calls. "
    if len(evaluations) > 1:
        note += (
            f"Against {evaluations[0].name}, on shared items (pairs): two-sided paired permutation test, Benjamini-Hochberg over "
            "the rows, for accuracy, RaPR and steps each; * q < 0.05, ** q < 0.01."
        )
    return Table(
        key="main",
        title="Evaluations",
        head=("run", "items", "accuracy", "RaPR", "calls parse", "calls valid", "calls", "steps per item", "minimal chain", "pairs"),
        rows=tuple(rows),
        note=note,
        source="trajectories.jsonl",
    )


def _families(evaluations: Sequence[Evaluation], compared: Compared) -> Table:
    groups = [{group.name: group for group in (e.report.overall, *e.report.families)} for e in evaluations]
    names = ["all", *sorted({name for group in groups for name in group} - {"all"})]
    rows = []
    for name in names:
        row = [Cell(name)]
        for number, group in enumerate(groups):
            rate = group[name].accuracy if name in group else None
            if rate is None or math.isnan(rate.value):
                row.append(Cell("-"))
                continue
            mark = compared.mark(number, "accuracy") if name == "all" else compared.family_mark(number, name)
            row.append(Cell(f"{rate.value:.2f}{mark} ({rate.count})", level(rate.value)))
        rows.append(tuple(row))
    note = "Share of right answers, and of how many items."
    if len(evaluations) > 1:
        note += f" Marks as above, against {evaluations[0].name}; Benjamini-Hochberg over the families of a run."
    head = ("family", *(e.name for e in evaluations))
    return Table(key="families", title="Accuracy by family", head=head, rows=tuple(rows), note=note, source="trajectories.jsonl")


def level(share: float) -> int:
    return max(0, min(NUM_LEVELS - 1, round(share * (NUM_LEVELS - 1))))


def _tools(evaluations: Sequence[Evaluation]) -> Table:
    rows = []
    for evaluation in evaluations:
        num_items = len(evaluation.report.scores)
        for row in evaluation.report.tools:
            name = "no call" if row.op == NO_CALL else row.op
            per_item = number_text(row.failed.count / num_items, 2)
            rates = rate_text(row.failed), rate_text(row.valid)
            errors = ", ".join(f"{kind} {count}" for kind, count in row.errors.items())
            rows.append(cells(evaluation.name, name, str(row.failed.count), per_item, *rates, str(row.num_disabled), errors))
    return Table(
        key="tools",
        title="Tools",
        head=("run", "tool", "calls", "per item", "failed", "valid", "off", "errors"),
        rows=tuple(rows),
        note="Off: calls that found the tool switched off. No call: steps without a well-formed call.",
        source="trajectories.jsonl",
    )


def _hacks(evaluations: Sequence[Evaluation]) -> Table:
    rows = []
    for number, hack in enumerate(evaluations[0].hacks):
        found = [evaluation.hacks[number] for evaluation in evaluations]
        rates = [f"{rate_text(h.rate)} of {h.rate.count} {'passes' if h.passes else 'FAILS'}" for h in found]
        rows.append(cells(hack.name, hack.meaning, number_text(hack.limit, 2), *rates))
    return Table(
        key="hacks",
        title="Ways to cheat",
        head=("hack", "counted", "limit", *(e.name for e in evaluations)),
        rows=tuple(rows),
        note="A run passes where the share is within the limit; what could not be counted does not pass.",
        source="trajectories.jsonl",
    )


def _latency(evaluations: Sequence[Evaluation]) -> Table:
    """Seconds per item by component, beside the paper's."""

    def row(name: str, paper: float | None, values: Sequence[float]) -> tuple[Cell, ...]:
        return cells(name, "-" if paper is None else f"{paper:.2f}", *(number_text(value, 2) for value in values))

    def tool_s(evaluation: Evaluation, ops: Sequence[str]) -> float:
        count = evaluation.report.seconds.count
        return sum(evaluation.tool_s.get(op, 0.0) for op in ops) / count if count else math.nan

    seconds = [e.report.seconds for e in evaluations]
    rows = [row(name, paper, [tool_s(e, name.split("/")) for e in evaluations]) for name, paper in PAPER_TOOL_S.items()]
    rows += [
        row("retrieval and voting", PAPER_RETRIEVAL_S, [math.nan] * len(evaluations)),
        row("tool side, all", PAPER_TOOLS_S, [tool_s(e, (*OPS, NO_CALL)) for e in evaluations]),
        row("policy", None, [s.policy for s in seconds]),
        row("end to end, mean", None, [s.total for s in seconds]),
        *(row(f"end to end, p{k}", paper, [_percentile(e.total_s, k) for e in evaluations]) for k, paper in PAPER_TOTAL_S.items()),
        cells("items timed", "-", *(str(s.count) for s in seconds)),
    ]
    return Table(
        key="latency",
        title="Seconds per item by component",
        head=("component", PAPER, *(e.name for e in evaluations)),
        rows=tuple(rows),
        note="The paper's are those of its own machine and model (§4.4). Here end to end is wall time while other items ran beside, "
        "waiting included; policy leaves out the turn with the answer; an evaluation neither retrieves nor votes.",
        source="timings.jsonl",
    )


def _percentile(values: Sequence[float], k: int) -> float:
    return float(np.percentile(values, k)) if values else math.nan


# ---------------------------------------------------------------- HTML and Markdown


def visible(text: str) -> str:
    """A text as it may be shown: what hides or reorders its neighbours, and what is no character, becomes a mark."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def in_html(text: str) -> str:
    return html.escape(visible(text))


def table_html(table: Table) -> str:
    """The table without its frame."""
    head = "".join(f'<th scope="col">{in_html(name)}</th>' for name in table.head)
    body = "\n".join(f"<tr>{''.join(_cell_html(cell, is_first=k == 0) for k, cell in enumerate(row))}</tr>" for row in table.rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _cell_html(cell: Cell, *, is_first: bool) -> str:
    text = re.sub(r"(\[[-\d., ]+\])", r'<span class="between">\1</span>', in_html(cell.text))
    if is_first:
        return f'<th scope="row">{text}</th>'
    colour = "" if cell.level is None else f' class="v{cell.level}"'
    return f"<td{colour}>{text}</td>"


def table_markdown(table: Table) -> str:
    """The table with title and note, for GitHub."""
    lines = ["| " + " | ".join(map(in_markdown, table.head)) + " |", "|" + "---|" * len(table.head)]
    lines += ["| " + " | ".join(in_markdown(cell.text) for cell in row) + " |" for row in table.rows]
    return f"## {table.title}\n\n" + "\n".join(lines) + (f"\n\n{in_markdown(table.note)}" if table.note else "") + "\n"


def in_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    flat = " ".join(visible(text).split())
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", flat).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
