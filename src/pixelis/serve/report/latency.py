"""Seconds by component, beside the paper's. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

import numpy as np

from pixelis.core.ops import OPS
from pixelis.eval.report import number_text
from pixelis.eval.scores import NO_CALL
from pixelis.serve.report.journals import Journal, seconds_of
from pixelis.serve.report.sources import Evaluation
from pixelis.serve.report.table import Cell, Table, cells

PAPER = "the paper, 8B"
PAPER_TOOL_S = {"SEG/ZOOM": 1.17, "TRK": 1.42, "OCR": 0.39, "TEMP": 1.57, "PROP": 0.16}
"""Tool-side seconds per query. Source: paper §4.4, table of latency by component."""
PAPER_RETRIEVAL_S = 0.34
"""The paper's total of 5.05 s counts this in."""
PAPER_TOTAL_S = {50: 5.8, 90: 8.1, 95: 10.2}
"""Percentiles of end-to-end seconds."""

VOTING = ("observe", "key", "retrieve", "decide")
"""What a query costs that is answered by retrieval and a vote, beside its rollouts."""


def latency_tables(evaluations: Sequence[Evaluation], journals: Sequence[Journal]) -> list[Table]:
    """The table over evaluations and streams; none where nothing could have been timed."""
    streams = [journal for journal in journals if any(seconds_of(journal, ("decide",)))]
    if not evaluations and not streams:
        return []
    names = (*(one.name for one in evaluations), *(one.name for one in streams))
    note = "The paper's are those of its own machine and model (§4.4); whether 0.34 s is a median is not said. "
    note += "Here end to end is wall time while other items ran beside, waiting included; policy leaves out the turn with the answer. "
    note += "Retrieval and voting, of a run that learns while it serves: the facts of a query's rollouts, its key, its neighbours and the "
    note += "vote; end to end is then over all its rollouts and what it waited for updates. An evaluation neither retrieves nor votes."
    return [
        Table(
            key="latency",
            title="Seconds per item by component",
            head=("component", PAPER, *names),
            rows=tuple(_rows(evaluations, streams)),
            note=note,
            source=" and ".join((["timings.jsonl"] if evaluations else []) + (["metrics.jsonl"] if streams else [])),
            of=names,
        )
    ]


def _rows(evaluations: Sequence[Evaluation], streams: Sequence[Journal]) -> list[tuple[Cell, ...]]:
    def row(name: str, paper: float | None, values: Sequence[float] = (), of_streams: Sequence[float] = ()) -> tuple[Cell, ...]:
        of_evaluations = values or [math.nan] * len(evaluations)
        known = chain(of_evaluations, of_streams or [math.nan] * len(streams))
        return cells(name, "-" if paper is None else f"{paper:.2f}", *(number_text(value, 2) for value in known))

    seconds = [one.report.seconds for one in evaluations]
    voting = [list(seconds_of(stream, VOTING)) for stream in streams]
    totals = [list(seconds_of(stream, ("total",))) for stream in streams]
    return [
        *(row(name, paper, [_tool_s(one, name.split("/")) for one in evaluations]) for name, paper in PAPER_TOOL_S.items()),
        row("all tools", sum(PAPER_TOOL_S.values()), [_tool_s(one, (*OPS, NO_CALL)) for one in evaluations]),
        row("policy", None, [s.policy for s in seconds]),
        row("retrieval and voting, p50", PAPER_RETRIEVAL_S, of_streams=[_percentile(values, 50) for values in voting]),
        row("retrieval and voting, p95", None, of_streams=[_percentile(values, 95) for values in voting]),
        row("end to end, mean", None, [s.total for s in seconds], [float(np.mean(values)) if values else math.nan for values in totals]),
        *(
            row(f"end to end, p{k}", paper, [_percentile(s.total_s, k) for s in evaluations], [_percentile(s, k) for s in totals])
            for k, paper in PAPER_TOTAL_S.items()
        ),
        cells("items timed", "-", *(str(s.count) for s in seconds), *(str(len(values)) for values in totals)),
    ]


def _tool_s(evaluation: Evaluation, ops: Sequence[str]) -> float:
    """Mean over the items that were timed; NaN where none was."""
    count = evaluation.report.seconds.count
    return sum(evaluation.tool_s.get(op, 0.0) for op in ops) / count if count else math.nan


def _percentile(values: Sequence[float], k: int) -> float:
    return float(np.percentile(values, k)) if values else math.nan
