"""A stream of several stretches, told apart: how a run of `pixelis adapt` did under each shift, and where its lift stood behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelis.eval.metrics.selective import Selection, selective_error
from pixelis.eval.report import number_text, rate_text, table_text
from pixelis.eval.stats import Rate, known, known_rate

HEAD = ("run", "stretch", "queries", "right", "a rollout right", "coverage", "Err@Sel", "lift behind it")


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Some queries in a row under one shift.

    Attributes:
        name: as the recipe has it, such as `80 lighting:3`.
        right: of the answers that the vote gave.
        rollout: of the single rollouts, their mean over a query.
        lift: after its last query; NaN where none is learnt.
    """

    name: str
    right: Rate
    rollout: Rate
    selection: Selection
    lift: float


def stretches_of(segments: Sequence[str], records: Sequence[Any], lifts: Sequence[float | None]) -> tuple[Stretch, ...]:
    """The stretches that were served so far, in order.

    Args:
        segments: as the recipe has them, such as `["60 clean", "80 lighting:3"]`.
        records: what `pixelis.ttrl.fit.read_records` gives of the run.
        lifts: behind each query, from the journal; None where none was learnt, and the one before stands.
    """
    from pixelis.ttrl.stream import parse_segments

    found, start = [], 0
    for text, segment in zip(segments, parse_segments(segments), strict=True):
        stop = min(start + segment.count, len(records))
        if start < stop:
            found.append(_stretch(text, records[start:stop], lifts[:stop]))
        start = stop
    return tuple(found)


def _stretch(name: str, records: Sequence[Any], lifts: Sequence[float | None]) -> Stretch:
    """Of its records, and the lifts from the stream's first query to its last."""
    wrong_N = [math.nan if record.right is None else float(not record.right) for record in records]
    learnt = [lift for lift in lifts if lift is not None]
    return Stretch(
        name=name,
        right=known_rate([1 - wrong for wrong in wrong_N]),
        rollout=known_rate([None if record.each is None else float(np.mean(record.each)) for record in records]),
        selection=selective_error(wrong_N, [record.decision.is_abstaining for record in records]),
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
