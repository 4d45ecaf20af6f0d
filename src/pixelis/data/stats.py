"""Statistics of a set of traces, as a table beside the paper's figures.

Every rate comes with the count it is a share of; a rate of nothing is NaN. Failure rates carry exact (Clopper-Pearson) 95 % intervals.
Source: paper §3.1 (core statistics, error analysis).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from pixelis.core.errors import DataError
from pixelis.core.ops import OPS

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PAPER_STEPS = 5.8
PAPER_DECISIVE = {"train": 0.86, "dev": 0.87, "test": 0.86}
PAPER_USAGE = {
    "train": {"SEG": 0.241, "ZOOM": 0.171, "TRK": 0.229, "OCR": 0.202, "TEMP": 0.100, "PROP": 0.059},
    "dev": {"SEG": 0.238, "ZOOM": 0.178, "TRK": 0.223, "OCR": 0.200, "TEMP": 0.097, "PROP": 0.062},
    "test": {"SEG": 0.243, "ZOOM": 0.180, "TRK": 0.221, "OCR": 0.199, "TEMP": 0.099, "PROP": 0.058},
}
PAPER_FAILURES = {"SEG": 0.114, "TRK": 0.169, "OCR": 0.075, "TEMP": 0.173, "PROP": 0.097}
"""Share of calls that miss the verifier's threshold, on an audit of 1,500 samples; none is given for ZOOM."""


@dataclass(frozen=True)
class TraceFacts:
    """What the statistics need of one trace: per step the op, whether the call succeeded, and whether it was decisive."""

    split: str
    family: str
    ops: tuple[str, ...]
    ok: tuple[bool, ...]
    is_decisive: tuple[bool, ...]
    is_accepted: bool
    is_valid: tuple[bool, ...] | None = None
    """Whether each step passed its verifier; None where there is no truth: failures are then calls that did not succeed."""

    def __post_init__(self) -> None:
        lengths = {len(self.ops), len(self.ok), len(self.is_decisive), len(self.is_valid if self.is_valid is not None else self.ops)}
        if len(lengths) > 1:
            raise DataError(
                f"a trace of {self.split}/{self.family} has {len(self.ops)} ops, {len(self.ok)} outcomes, {len(self.is_decisive)} decisive "
                "marks: give one of each per step"
            )


@dataclass(frozen=True)
class Rate:
    """A share of `count`; NaN when the count is 0. `low` and `high` bound it at 95 % (Clopper-Pearson)."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Stats:
    """Steps, decisive rate, usage and failures are those of accepted traces where only accepted ones are counted (`trace_stats`)."""

    num_traces: dict[str, dict[str, int]]
    """Traces that count, per split and family."""
    steps_mean: dict[str, float]
    """Per split; NaN for none."""
    steps_quantiles: dict[str, tuple[float, ...]]
    """Per split, at `QUANTILES`."""
    decisive: dict[str, Rate]
    """Per split: decisive steps among those that succeeded."""
    usage: dict[str, dict[str, float]]
    """Per split and op: share of calls."""
    failures: dict[str, Rate]
    """Per op, over all splits."""
    acceptance: dict[str, Rate]
    """Per family, over all splits; of all traces."""


def rate(hits: int, count: int) -> Rate:
    """A share with its exact 95 % interval; NaN when there is nothing to count."""
    if count == 0:
        return Rate(math.nan, math.nan, math.nan, 0)
    interval = binomtest(hits, count).proportion_ci(0.95, method="exact")
    return Rate(hits / count, float(interval.low), float(interval.high), count)


def trace_stats(traces: Iterable[TraceFacts], *, only_accepted: bool = False) -> Stats:
    """Count a set of traces, read once.

    Args:
        only_accepted: leave refused traces out of everything but the acceptance rates: what a data set holds, not what was tried.
    """
    num_traces: dict[str, Counter] = defaultdict(Counter)
    lengths: dict[str, list[int]] = defaultdict(list)
    num_ok, num_decisive, tried, accepted = Counter(), Counter(), Counter(), Counter()
    calls: dict[str, Counter] = defaultdict(Counter)
    failed: Counter = Counter()
    for trace in traces:
        tried[trace.family] += 1
        accepted[trace.family] += trace.is_accepted
        if only_accepted and not trace.is_accepted:
            continue
        num_traces[trace.split][trace.family] += 1
        lengths[trace.split].append(len(trace.ops))
        num_ok[trace.split] += sum(trace.ok)
        num_decisive[trace.split] += sum(a and b for a, b in zip(trace.ok, trace.is_decisive, strict=True))
        for op, is_right in zip(trace.ops, trace.ok if trace.is_valid is None else trace.is_valid, strict=True):
            calls[trace.split][op] += 1
            failed[op] += not is_right
    per_op = sum(calls.values(), Counter())
    return Stats(
        num_traces={split: dict(sorted(families.items())) for split, families in num_traces.items()},
        steps_mean={split: float(np.mean(v)) for split, v in lengths.items()},
        steps_quantiles={split: tuple(float(q) for q in np.quantile(v, QUANTILES)) for split, v in lengths.items()},
        decisive={split: rate(num_decisive[split], num_ok[split]) for split in num_traces},
        usage={split: _shares(calls[split]) for split in num_traces},
        failures={op: rate(failed[op], per_op[op]) for op in (*OPS, *sorted(set(per_op) - set(OPS)))},
        acceptance={family: rate(accepted[family], tried[family]) for family in sorted(tried)},
    )


def _shares(calls: Counter) -> dict[str, float]:
    total = sum(calls.values())
    return {op: calls[op] / total if total else math.nan for op in (*OPS, *sorted(set(calls) - set(OPS)))}


# ---------------------------------------------------------------- in print


def table(stats: Stats) -> str:
    """The statistics as Markdown tables, the paper's figures beside ours."""
    splits = list(stats.num_traces)
    parts = [
        _grid(["traces", *splits, "all"], _family_rows(stats, splits)),
        _grid(["", *(f"{split} (paper)" for split in splits)], _step_rows(stats, splits)),
        _grid(["share of calls", *(f"{split} (paper)" for split in splits)], _usage_rows(stats, splits)),
        _grid(["failures", "rate", "95 % CI", "calls", "paper"], _failure_rows(stats)),
        _grid(["accepted", "rate", "95 % CI", "traces"], [[family, *_rate_cells(r)] for family, r in stats.acceptance.items()]),
    ]
    return "\n\n".join(parts) + "\n"


def _family_rows(stats: Stats, splits: list[str]) -> list[list[str]]:
    families = sorted({family for counts in stats.num_traces.values() for family in counts})
    rows = []
    for family in families:
        counts = [stats.num_traces[split].get(family, 0) for split in splits]
        rows.append([family, *(f"{n:,}" for n in counts), f"{sum(counts):,}"])
    totals = [sum(stats.num_traces[split].values()) for split in splits]
    return [*rows, ["all", *(f"{n:,}" for n in totals), f"{sum(totals):,}"]]


def _step_rows(stats: Stats, splits: list[str]) -> list[list[str]]:
    rows = [["steps, mean", *(f"{_number(stats.steps_mean[s], 2)} ({PAPER_STEPS})" for s in splits)]]
    for place, quantile in enumerate(QUANTILES):
        rows.append([f"steps, {quantile:.0%}", *(_number(stats.steps_quantiles[s][place], 1) for s in splits)])
    decisive = [f"{_number(stats.decisive[s].value, 2)} of {stats.decisive[s].count:,}{_paper(PAPER_DECISIVE.get(s), 2)}" for s in splits]
    return [*rows, ["decisive, of calls that succeeded", *decisive]]


def _usage_rows(stats: Stats, splits: list[str]) -> list[list[str]]:
    ops = list(dict.fromkeys(op for split in splits for op in stats.usage[split]))
    rows = []
    for op in ops:
        cells = [f"{_percent(stats.usage[s].get(op, 0.0))}{_paper(PAPER_USAGE.get(s, {}).get(op), 1, 100)}" for s in splits]
        rows.append([op, *cells])
    return rows


def _failure_rows(stats: Stats) -> list[list[str]]:
    return [
        [op, *_rate_cells(failure), f"{PAPER_FAILURES[op] * 100:.1f} %" if op in PAPER_FAILURES else "-"]
        for op, failure in stats.failures.items()
    ]


def _rate_cells(of: Rate) -> list[str]:
    interval = "-" if math.isnan(of.value) else f"{of.low * 100:.1f}-{of.high * 100:.1f} %"
    return [_percent(of.value), interval, f"{of.count:,}"]


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value * 100:.1f} %"


def _number(value: float, decimals: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{decimals}f}"


def _paper(value: float | None, decimals: int, scale: int = 1) -> str:
    return "" if value is None else f" ({value * scale:.{decimals}f})"


def _grid(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table whose columns line up in plain text, too."""
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]

    def line(cells: list[str]) -> str:
        shown = [cells[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))]
        return f"| {' | '.join(shown)} |"

    rule = f"|{'-' * (widths[0] + 2)}|{'|'.join('-' * (width + 1) + ':' for width in widths[1:])}|"
    return "\n".join([line(head), rule, *map(line, rows)])
