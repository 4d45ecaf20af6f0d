"""A stream of several stretches, told apart: how a run of `pixelis adapt` did under each shift, and where its lift stood behind it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelis.core.errors import DataError
from pixelis.eval.metrics.selective import Selection, selective_error
from pixelis.eval.report import number_text, rate_text, table_text
from pixelis.eval.stats import Rate, known, mean_rate

HEAD = ("run", "stretch", "queries", "right", "a rollout right", "coverage", "Err@Sel", "lift behind it")


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Some queries in a row under one shift.

    Attributes:
        name: as the recipe has it, such as `80 lighting:3`.
        right: of the answers that the vote gave.
        rollout: of the single rollouts, their mean a query.
        lift: after its last query; NaN where none is learnt.
    """

    name: str
    right: Rate
    rollout: Rate
    selection: Selection
    lift: float


def read_stretches(folder: str | os.PathLike) -> list[Stretch]:
    """The stretches of a run's stream that were served, in order; none where the run does not say what it served.

    Raises:
        DataError: no such run, or a damaged line.
    """
    from pixelis.ttrl.fit import read_records
    from pixelis.ttrl.state import ABOUT_FILE, METRICS_FILE
    from pixelis.ttrl.stream import parse_segments

    records = list(read_records(folder))
    try:
        texts = json.loads((Path(folder) / ABOUT_FILE).read_text())["stream"]["segments"]
        lifts = [json.loads(line).get("lift") for line in (Path(folder) / METRICS_FILE).read_text().splitlines()]
    except (OSError, KeyError, TypeError):
        return []
    except ValueError as error:
        raise DataError(f"{folder}: {ABOUT_FILE} or {METRICS_FILE} is damaged ({error})") from None
    found, start = [], 0
    for text, segment in zip(texts, parse_segments(texts), strict=True):
        stop = min(start + segment.count, len(records))
        if start < stop:
            found.append(_stretch(text, records[start:stop], lifts[:stop]))
        start = stop
    return found


def _stretch(name: str, records: Sequence[Any], lifts: Sequence[float | None]) -> Stretch:
    """Of its records, and the lifts from the stream's first query to its last: where none was learnt for a while, the one before stands."""
    right_N = [math.nan if record.right is None else float(record.right) for record in records]
    rollout_N = [math.nan if record.each is None else float(np.mean(record.each)) for record in records]
    learnt = [lift for lift in lifts if lift is not None]
    return Stretch(
        name=name,
        right=mean_rate([one for one in right_N if not math.isnan(one)]),
        rollout=mean_rate([one for one in rollout_N if not math.isnan(one)]),
        selection=selective_error([1 - right for right in right_N], [record.decision.is_abstaining for record in records]),
        lift=learnt[-1] if learnt else math.nan,
    )


def stretches_text(runs: Sequence[tuple[str, Sequence[Stretch]]]) -> str:
    """A table of the runs, by name, that have more than one stretch; empty where none has."""
    rows = [(name, *_cells(one)) for name, stretches in runs if len(stretches) > 1 for one in stretches]
    return table_text(HEAD, rows) if rows else ""


def stretches_json(stretches: Sequence[Stretch]) -> list[dict[str, Any]]:
    return [
        {
            "stretch": one.name,
            "right": one.right.to_json(),
            "rollout_right": one.rollout.to_json(),
            "coverage": one.selection.coverage.to_json(),
            "error_selected": one.selection.error.to_json(),
            "lift": known(one.lift),
        }
        for one in stretches
    ]


def _cells(one: Stretch) -> tuple[str, ...]:
    return (
        one.name,
        str(one.selection.coverage.count),
        rate_text(one.right),
        rate_text(one.rollout),
        rate_text(one.selection.coverage),
        rate_text(one.selection.error),
        number_text(one.lift, 2),
    )
