"""The tables over the evaluations of a report. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pixelis.core.errors import DataError
from pixelis.eval.compare import OVERALL, Comparison, compare
from pixelis.eval.report import number_text, rate_text
from pixelis.eval.scores import NO_CALL
from pixelis.eval.stats import benjamini_hochberg
from pixelis.serve.report.sources import Evaluation
from pixelis.serve.report.table import Cell, Table, cells, level, marked, stars


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
