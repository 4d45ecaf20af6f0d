"""Process metrics of two stored evaluations on the same items: what differs, paired by item. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pixelis.core.errors import DataError
from pixelis.eval.compare import ROW_HEAD, Row, row_cells, row_json, values_row
from pixelis.eval.process_run import ProcessReport, ProcessRow
from pixelis.eval.report import table_text
from pixelis.eval.stats import benjamini_hochberg

COMPARED: dict[str, Callable[[ProcessRow], float]] = {
    "accuracy": lambda row: row.right,
    "steps": lambda row: row.steps,
    "calls that are not valid": lambda row: row.invalid,
    "RaPR": lambda row: row.rapr,
    "RaCPR": lambda row: row.racpr,
    "VisFid": lambda row: row.fidelity,
    "AE": lambda row: row.entropy,
}
"""Each a number per trajectory; items on which one side has none are left out of that row, and its count says so."""


def compare_processes(one: ProcessReport, two: ProcessReport, *, seed: int = 0) -> tuple[Row, ...]:
    """Paired permutation tests of one against two; q is over the rows.

    Raises:
        DataError: they share no item, or were measured on different scales.
    """
    if one.about["dev"] != two.about["dev"] or one.about["encoder"] != two.about["encoder"]:
        raise DataError(f"RaCPR was scaled by {one.about['dev']} and by {two.about['dev']}: measure both runs with one --dev")
    ones, twos = ({row.item: row for row in side.rows} for side in (one, two))
    shared = sorted(ones.keys() & twos.keys())
    if not shared:
        raise DataError(f"nothing to compare: of {len(ones)} and {len(twos)} items none is the same")
    rows = []
    for name, value in COMPARED.items():
        pairs = [(value(ones[item]), value(twos[item])) for item in shared]
        known = [pair for pair in pairs if not (math.isnan(pair[0]) or math.isnan(pair[1]))]
        rows.append(values_row(name, [a for a, _ in known], [b for _, b in known], seed=seed))
    adjusted = benjamini_hochberg([row.p for row in rows])
    return tuple(replace(row, q=float(q)) for row, q in zip(rows, adjusted, strict=True))


def processes_text(rows: tuple[Row, ...]) -> str:
    """The comparison for people."""
    return table_text(("a trajectory", *ROW_HEAD), [row_cells(row) for row in rows])


def processes_json(rows: tuple[Row, ...]) -> list[dict[str, Any]]:
    """Plain JSON values; what is unknown is None."""
    return [row_json(row) for row in rows]
