"""What other votes would have decided on the very facts that a run recorded: weights, margins and stressed neighbours side by side.

Decisions are pure functions of recorded facts, so a baseline of the vote needs no run of its own: rollouts and neighbours are the same for
all rows, and what differs is the decision alone. What learning from another vote would have come to is not answered here; that takes
`pixelis study`. Source: paper §4 (Table 4), supplement 9 ("Neighborhood pathologies", risk-coverage curves).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from pixelis.core.errors import DataError
from pixelis.eval.metrics.selective import RiskCoverage, Selection, risk_coverage, selective_error
from pixelis.eval.report import number_text, rate_text, table_text
from pixelis.eval.stats import known
from pixelis.ttrl.decide import DecisionSettings, decide
from pixelis.ttrl.facts import QueryFacts
from pixelis.ttrl.fit import Record, read_records, settings_of
from pixelis.ttrl.stress import Stress, stressed
from pixelis.ttrl.vote import Weighing

HEAD = ("vote", "neighbours", "coverage", "Err@Sel", "error of all", "AURC", "no right or wrong")
HARD: Mapping[str, Any] = {"vote": "majority", "delta": 0.0, "quantile": None}
"""Hard majority: one rollout, one voice, and never a doubt."""
_AWAY = 1e9
"""As a scale of the entropy, or as what is added to VisFid: the factor is the same for all."""
VOTES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("as it was held", {}),
    ("margin alone", {"quantile": None}),
    ("margin 0.05", {"delta": 0.05}),
    ("margin 0.30", {"delta": 0.3}),
    ("confidence squared", {"power": 2.0}),
    ("root of confidence", {"power": 0.5}),
    ("without confidence", {"power": 0.0}),
    ("without entropy", {"scale_nats": _AWAY}),
    ("without VisFid", {"epsilon": _AWAY}),
    ("full Dawid-Skene", {"reliability": "full"}),
    ("confidence alone", {"vote": "confidence"}),
    ("majority", {"vote": "majority"}),
    ("hard majority", HARD),
    ("the first rollout", {"vote": "first", "delta": 0.0, "quantile": None}),
)
"""Each in words, and what it changes in how the run decided. A conformal quantile stays the one that was fitted to the run's own vote."""
STRESSES: tuple[tuple[str, Stress], ...] = (
    ("as found", Stress()),
    ("20 % flipped", Stress(flip=0.2)),
    ("30 % flipped", Stress(flip=0.3)),
    ("50 % flipped", Stress(flip=0.5)),
)
COUNTED: tuple[tuple[str, Mapping[str, Any]], ...] = (("as it was held", {}), ("hard majority", HARD))
"""Votes in which every neighbour has a voice of its own, under each stress."""


@dataclass(frozen=True, kw_only=True)
class Revote:
    """One vote over all queries of a run.

    Attributes:
        neighbours: what was done to them, or "no voice".
        curve: by the margin, over all queries.
        num_unknown: queries whose winner no rollout gave, so that nobody knows whether it is right; they count for coverage only.
    """

    vote: str
    neighbours: str
    selection: Selection
    curve: RiskCoverage
    num_unknown: int


def hold_all(folder: str | os.PathLike, *, seed: int = 0) -> list[Revote]:
    """Hold every vote of `VOTES`, and those of `COUNTED` under every stress, on the facts of a run.

    Args:
        seed: of which neighbours are flipped; the same ones for every vote.

    Raises:
        DataError: no such run, a damaged line, or no audit.
    """
    records, settings = list(read_records(folder)), settings_of(folder)
    if not records or any(record.each is None for record in records):
        raise DataError(f"{folder}: {len(records)} queries, and not all were audited; adapt with --audit, else nobody knows what was right")
    found = [_held(name, "no voice", records, changed(settings, change)) for name, change in VOTES]
    for state, stress in STRESSES:
        facing = [replace(record, facts=_stressed(record.facts, stress, (seed, number))) for number, record in enumerate(records)]
        found += [_held(name, state, facing, changed(settings, {"counts_neighbours": True, **change})) for name, change in COUNTED]
    return found


def changed(settings: DecisionSettings, change: Mapping[str, Any]) -> DecisionSettings:
    """Settings with some values replaced, those of the weighing among them."""
    of_weighing = {field.name for field in fields(Weighing)} & set(change)
    weighing = replace(settings.weighing, **{name: change[name] for name in of_weighing})
    return replace(settings, weighing=weighing, **{name: value for name, value in change.items() if name not in of_weighing})


def _stressed(facts: QueryFacts, stress: Stress, seed: Sequence[int]) -> QueryFacts:
    neighbours = stressed(facts.neighbours, [one.label for one in facts.rollouts], stress, seed, num=len(facts.neighbours))
    return replace(facts, neighbours=neighbours)


def _held(name: str, state: str, records: Sequence[Record], settings: DecisionSettings) -> Revote:
    decisions = [decide(record.facts, settings) for record in records]
    wrong_N = [_wrong(record, decision.label) for record, decision in zip(records, decisions, strict=True)]
    return Revote(
        vote=name,
        neighbours=state,
        selection=selective_error(wrong_N, [one.is_abstaining for one in decisions]),
        curve=risk_coverage([one.ballot.margin for one in decisions], wrong_N),
        num_unknown=sum(math.isnan(wrong) for wrong in wrong_N),
    )


def _wrong(record: Record, label: str | None) -> float:
    """Whether a label is wrong, by the audit of the rollouts that gave it; NaN where none did. No label at all is wrong."""
    if label is None:
        return 1.0
    said = [right for one, right in zip(record.facts.rollouts, record.each or (), strict=True) if one.label == label]
    return float(not any(said)) if said else math.nan


def revote_text(found: Sequence[Revote]) -> str:
    return table_text(HEAD, [_cells(one) for one in found])


def revote_json(found: Sequence[Revote]) -> list[dict[str, Any]]:
    return [
        {
            "vote": one.vote,
            "neighbours": one.neighbours,
            "coverage": one.selection.coverage.to_json(),
            "error_selected": one.selection.error.to_json(),
            "error_all": one.selection.full_error.to_json(),
            "aurc": known(one.curve.aurc),
            "unknown": one.num_unknown,
        }
        for one in found
    ]


def _cells(one: Revote) -> tuple[str, ...]:
    rates = (rate_text(rate) for rate in (one.selection.coverage, one.selection.error, one.selection.full_error))
    return (one.vote, one.neighbours, *rates, number_text(one.curve.aurc, 3), str(one.num_unknown))
