"""How answers were obtained: what `pixelis eval process` left in a run, as tables. Read as far as it is known, for it grows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pixelis.eval.process_run import PROCESS_FILE
from pixelis.eval.report import number_text, rate_text
from pixelis.eval.stats import Rate
from pixelis.serve.report.sources import Evaluation
from pixelis.serve.report.table import Cell, Table, cells, marked, stars

NAMES = {
    "rapr": "RaPR",
    "racpr": "RaCPR",
    "fidelity": "VisFid",
    "entropy": "AE",
    "prc": "PRC",
    "chain_z": "z of a composite chain",
    "chain_length": "steps of a composite chain",
    "steps": "length",
}
"""Of keys, for people."""
UNSAID = ("rate", "value", "per_trajectory")
"""Keys of which the one before says enough."""
APART = ("correlations", "foretellings")
"""Keys that have tables of their own."""


def process_tables(evaluations: Sequence[Evaluation]) -> list[Table]:
    """Metrics, correlations and foretellings of the evaluations that were asked; no table that would be empty."""
    asked = [one for one in evaluations if one.process is not None]
    made = [_metrics(asked), _correlations(asked), _foretellings(asked)] if asked else []
    return [table for table in made if table.rows]


def _metrics(asked: Sequence[Evaluation]) -> Table:
    """A row a metric, a column a run."""
    found = [dict(_rates({k: v for k, v in (one.process or {}).items() if k not in APART})) for one in asked]
    keys = dict.fromkeys(key for rates in found for key in rates)
    rows = [cells(_name(key), *(_rate_text(rates.get(key)) for rates in found)) for key in sorted(keys, key=_order)]
    return Table(
        key="process",
        title="How answers were obtained",
        head=("metric", *(one.name for one in asked)),
        rows=tuple(rows),
        note="Means over trajectories, with how many. VisFid: of those whose evidence the truth can judge. AE: entropy of ops in nats. "
        "PRC: share of plans whose evidence and answer are found again on changed media, in all and by change.",
        source=PROCESS_FILE,
        of=tuple(one.name for one in asked),
    )


def _order(key: str) -> tuple[int, str]:
    """The paper's metrics first, in their order."""
    first = key.partition(".")[0]
    return (list(NAMES).index(first) if first in NAMES else len(NAMES)), _name(key)


def _rates(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every rate below a table by its dotted key, and the plain numbers of the metrics."""
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping) and "value" in value:
            yield name, value
        elif isinstance(value, Mapping):
            yield from _rates(value, f"{name}.")
        elif before and name.partition(".")[0] in NAMES and isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, {"value": value}


def _name(key: str) -> str:
    first, *rest = key.split(".")
    return ", ".join([NAMES.get(first, first.replace("_", " ")), *(word.replace("_", " ") for word in rest if word not in UNSAID)])


def _rate_text(rate: Mapping[str, Any] | None) -> str:
    if rate is None:
        return "-"
    count = f" ({rate['count']})" if "count" in rate else ""
    return rate_text(_rate(rate)) + count


def _rate(rate: object) -> Rate:
    """Of plain values; what is not there is unknown."""
    known = rate if isinstance(rate, Mapping) else {}
    value, low, high = (_number(known.get(key)) for key in ("value", "low", "high"))
    count = known.get("count")
    return Rate(value, low, high, count if isinstance(count, int) else 0, str(known.get("method", "")))


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def _correlations(asked: Sequence[Evaluation]) -> Table:
    """A row a metric and a kind of correlation, for each run."""
    rows = []
    for one in asked:
        table = (one.process or {}).get("correlations")
        for metric, kinds in sorted((table if isinstance(table, Mapping) else {}).items(), key=lambda pair: _order(pair[0])):
            for how, found in (kinds if isinstance(kinds, Mapping) else {}).items():
                rows.append(_correlation_row(one.name, NAMES.get(metric, metric), how, found if isinstance(found, Mapping) else {}))
    return Table(
        key="correlations",
        title="How the process goes with being right",
        head=("run", "metric", "correlation with being right", "value", "p", "q", "items", "unscored"),
        rows=tuple(rows),
        note="Partial: with what stands in brackets held fixed. q: Benjamini-Hochberg over the rows of a run; * q < 0.05, ** q < 0.01.",
        source=PROCESS_FILE,
        of=tuple(one.name for one in asked),
    )


def _correlation_row(name: str, metric: str, how: str, found: Mapping[str, Any]) -> tuple[Cell, ...]:
    p, q = _number(found.get("p")), _number(found.get("q"))
    counts = (str(found.get(key, "-")) for key in ("count", "num_unscored"))
    return cells(name, metric, how, marked(rate_text(_rate(found)), stars(q)), number_text(p, 4), number_text(q, 4), *counts)


def _foretellings(asked: Sequence[Evaluation]) -> Table:
    """A row a set of numbers that foretell being right, for each run."""
    rows = []
    for one in asked:
        table = (one.process or {}).get("foretellings")
        for found in (entry for entry in (table if isinstance(table, list) else ()) if isinstance(entry, Mapping)):
            features, auc = found.get("features"), _rate(found.get("auc"))
            names = ", ".join(NAMES.get(str(name), str(name)) for name in (features if isinstance(features, list) else ()))
            base = number_text(_number(found.get("base_rate")), 3)
            rows.append(cells(one.name, names, rate_text(auc), rate_text(_rate(found.get("average_precision"))), base, str(auc.count)))
    return Table(
        key="foretellings",
        title="Being right foretold",
        head=("run", "by", "AUC", "AP", "AP of guessing", "items"),
        rows=tuple(rows),
        note="A regularised logistic model, judged on items that it was not fitted on. AUC of guessing: 0.5.",
        source=PROCESS_FILE,
        of=tuple(one.name for one in asked),
    )
