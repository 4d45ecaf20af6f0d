"""What other votes would have decided on the very facts that a run recorded: weights, margins, fewer rollouts and stressed neighbours side
by side, and each beside hard majority on the same rollouts and neighbours.

Decisions are pure functions of recorded facts, so a baseline of the vote needs no run of its own: what differs is the decision alone. What
learning from another vote would have come to is not answered here; that takes `pixelis study`. Neighbours other than the recorded ones are
asked of the run's memory again. N queries. Source: paper §4 (Table 4), supplement 9 ("Neighborhood pathologies", risk-coverage curves).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from pixelis.core.errors import DataError
from pixelis.core.store import write_whole
from pixelis.eval.metrics.selective import CurvePoint, RiskCoverage, Selection, risk_coverage, selective_error
from pixelis.eval.metrics.selective_pair import area_gap, error_at
from pixelis.eval.reask import Agreement, Asking, PastMemory, Progress, asking_of
from pixelis.eval.report import number_text, rate_text, table_text
from pixelis.eval.selective_run import curve_rows
from pixelis.eval.stats import Rate, known
from pixelis.ttrl.decide import DecisionSettings, decide
from pixelis.ttrl.facts import QueryFacts
from pixelis.ttrl.fit import Record, read_records, settings_of
from pixelis.ttrl.stress import Stress, stressed
from pixelis.ttrl.vote import Weighing

HEAD = (
    "vote",
    "neighbours",
    "coverage",
    "Err@Sel",
    "hard majority there",
    "error of all",
    "AURC",
    "AURC less hard majority's",
    "no right or wrong",
)
Votes = Sequence[tuple[str, Mapping[str, Any]]]
"""Each in words, and what it changes in how the run decided."""
HARD: Mapping[str, Any] = {"vote": "majority", "delta": 0.0, "quantile": None}
"""Hard majority: one rollout, one voice, and never a doubt."""
_AWAY = 1e9
"""As a scale of the entropy, or as what is added to VisFid: the factor is the same for all."""
VOTES: Votes = (
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
"""A conformal quantile stays the one that was fitted to the run's own vote."""
STRESSES: tuple[tuple[str, Stress], ...] = (
    ("as found", Stress()),
    ("20 % flipped", Stress(flip=0.2)),
    ("30 % flipped", Stress(flip=0.3)),
    ("50 % flipped", Stress(flip=0.5)),
)
BOTH: Votes = (("as it was held", {}), ("hard majority", HARD))
"""Votes over fewer rollouts, and those in which every neighbour has a voice of its own, under each stress."""
NO_VOICE, VOICE = "no voice", {"counts_neighbours": True}
NUMS, OMEGAS = (4, 8, 16), (0.0, 0.25, 0.5, 0.75, 1.0)
"""Neighbours, and weights of the pixel cosine, for which a memory is asked again; the other one is then the run's own."""
STRESSES_AGAIN: tuple[tuple[str, Stress], ...] = (
    ("30 % near misses", Stress(near_miss=0.3)),
    ("jpeg 20, half size", Stress(jpeg=20, rescale=0.5)),
)
"""For which a memory must be asked again."""
DRAWN = ("as found", "20 % flipped", "jpeg 20, half size")
"""Neighbours under which `write_curves` leaves the curves of `BOTH`."""


@dataclass(frozen=True, kw_only=True)
class Revote:
    """One vote over all queries of a run, beside hard majority on the same rollouts and neighbours.

    Attributes:
        neighbours: what was done to them, or "no voice".
        curve: by the margin, over all queries.
        hard_error: what hard majority errs in where it answers the same share of queries, its widest margins first; of equal margins any
            may be among them. NaN where none is answered.
        hard_point: hard majority's most cautious threshold that answers at least as many.
        gap: AURC less hard majority's; see `area_gap`.
        num_unknown: queries whose winner no rollout gave, so that nobody knows whether it is right; they count for coverage only.
    """

    vote: str
    neighbours: str
    selection: Selection
    curve: RiskCoverage
    hard_error: float
    hard_point: CurvePoint | None
    gap: Rate
    num_unknown: int


def hold_all(folder: str | os.PathLike, *, seed: int | None = None) -> list[Revote]:
    """Hold every vote of `VOTES` on the facts of a run, those of `BOTH` over the first half and quarter of its rollouts, and with voices of
    neighbours under every stress.

    Args:
        seed: of which neighbours are flipped, the same ones for every vote, and of the bootstrap; the run's own when None.

    Raises:
        DataError: no such run, a damaged line, or no audit.
    """
    records, settings = _audited(folder), settings_of(folder)
    seed = asking_of(folder).seed if seed is None else seed
    found = _held_all(NO_VOICE, records, settings, VOTES, seed)
    most = max(len(record.facts.rollouts) for record in records)
    for num in filter(None, (most // 2, most // 4)):
        few = [_with_first(record, num) for record in records]
        found += _held_all(NO_VOICE, few, settings, [(f"{name}, {num} of {most}", change) for name, change in BOTH], seed)
    for state, stress in STRESSES:
        facing = [replace(record, facts=_stressed(record.facts, stress, (seed, number))) for number, record in enumerate(records)]
        found += _held_all(state, facing, changed(settings, VOICE), BOTH, seed)
    return found


def hold_again(
    folder: str | os.PathLike, *, seed: int | None = None, progress: Progress = lambda done, of: None
) -> tuple[Agreement, list[Revote]]:
    """Hold the votes of `BOTH`, with neighbours' voices, on what the run's memory finds when it is asked again.

    Args:
        seed: of near misses and of the bootstrap; the run's own when None.
        progress: called with (queries, of how many) while pictures are pressed and encoded.

    Returns:
        How far asking as the run did finds what it recorded, and the votes.

    Raises:
        DataError: as `hold_all` and `PastMemory`.
        NotInstalled: the encoder of the pixel keys is missing.
    """
    records, settings = _audited(folder), changed(settings_of(folder), VOICE)
    past = PastMemory(folder, records, progress=progress)
    own = replace(past.own, stress=Stress(), seed=past.own.seed if seed is None else seed)
    found = [_held_all(state, past.facing(how), settings, BOTH, own.seed) for state, how in _askings(own)]
    return past.agreement(), [one for rows in found for one in rows]


def _askings(own: Asking) -> Iterator[tuple[str, Asking]]:
    pairs = [*((num, own.omega) for num in sorted({*NUMS, own.num})), *((own.num, omega) for omega in OMEGAS)]
    for num, omega in dict.fromkeys(pairs):
        yield f"K = {num}, omega = {omega:g}", replace(own, num=num, omega=omega)
    for state, stress in STRESSES_AGAIN:
        yield state, replace(own, stress=stress)


def _audited(folder: str | os.PathLike) -> list[Record]:
    records = list(read_records(folder))
    if not records or any(record.each is None for record in records):
        raise DataError(f"{folder}: {len(records)} queries, and not all were audited; adapt with --audit, else nobody knows what was right")
    return records


def changed(settings: DecisionSettings, change: Mapping[str, Any]) -> DecisionSettings:
    """Settings with some values replaced, those of the weighing among them."""
    of_weighing = {field.name for field in fields(Weighing)} & set(change)
    weighing = replace(settings.weighing, **{name: change[name] for name in of_weighing})
    return replace(settings, weighing=weighing, **{name: value for name, value in change.items() if name not in of_weighing})


def _stressed(facts: QueryFacts, stress: Stress, seed: Sequence[int]) -> QueryFacts:
    neighbours = stressed(facts.neighbours, [one.label for one in facts.rollouts], stress, seed, num=len(facts.neighbours))
    return replace(facts, neighbours=neighbours)


def _with_first(record: Record, num: int) -> Record:
    """As if the query had had no more rollouts; their order tells nothing of them."""
    return replace(record, facts=replace(record.facts, rollouts=record.facts.rollouts[:num]), each=(record.each or ())[:num])


@dataclass(frozen=True)
class _Held:
    """A vote, query by query."""

    margin_N: list[float]
    wrong_N: list[float]
    is_abstaining_N: list[bool]


def _held_all(state: str, records: Sequence[Record], settings: DecisionSettings, votes: Votes, seed: int) -> list[Revote]:
    hard = _held(records, changed(settings, HARD))
    held = [(name, hard if change == HARD else _held(records, changed(settings, change))) for name, change in votes]
    return [_beside(hard, name, state, one, seed) for name, one in held]


def _held(records: Sequence[Record], settings: DecisionSettings) -> _Held:
    decisions = [decide(record.facts, settings) for record in records]
    return _Held(
        [one.ballot.margin for one in decisions],
        [_wrong(record, one.label) for record, one in zip(records, decisions, strict=True)],
        [one.is_abstaining for one in decisions],
    )


def _beside(hard: _Held, name: str, state: str, one: _Held, seed: int) -> Revote:
    selection, of_hard = selective_error(one.wrong_N, one.is_abstaining_N), risk_coverage(hard.margin_N, hard.wrong_N)
    coverage = selection.coverage.value
    return Revote(
        vote=name,
        neighbours=state,
        selection=selection,
        curve=risk_coverage(one.margin_N, one.wrong_N),
        hard_error=error_at(of_hard, coverage),
        hard_point=of_hard.at_coverage(coverage) if coverage else None,
        gap=area_gap(one.margin_N, one.wrong_N, hard.margin_N, hard.wrong_N, seed=seed),
        num_unknown=sum(math.isnan(wrong) for wrong in one.wrong_N),
    )


def _wrong(record: Record, label: str | None) -> float:
    """Whether a label is wrong, by the audit of the rollouts that gave it; NaN where none did. No label at all is wrong."""
    if label is None:
        return 1.0
    said = [right for one, right in zip(record.facts.rollouts, record.each or (), strict=True) if one.label == label]
    return float(not any(said)) if said else math.nan


def write_curves(run: str | os.PathLike, found: Sequence[Revote], folder: str | os.PathLike) -> list[Path]:
    """Risk against coverage of `BOTH` under each of `DRAWN`, as journals that `pixelis report` draws, see `selective_run.write_curves`.

    Each is named after run, vote and neighbours, as `ttrl-weighted-20-flipped.jsonl`.

    Raises:
        DataError: one cannot be written.
    """
    folder, names = Path(folder), {"as it was held": settings_of(run).vote}
    wanted = [(vote, state) for state in DRAWN for vote, _ in BOTH]
    written = []
    for one in (one for one in found if (one.vote, one.neighbours) in wanted):
        words = f"{Path(run).resolve().name} {names.get(one.vote, one.vote)} {one.neighbours}".lower()
        path = folder / f"{re.sub('[^a-z0-9]+', '-', words)}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, b"".join(json.dumps(row).encode() + b"\n" for row in curve_rows(one.curve)))
        except OSError as error:
            raise DataError(f"{path}: cannot write ({error.strerror}): choose another folder, or make room") from None
        written.append(path)
    return written


# ---------------------------------------------------------------- JSON and text


def revote_text(found: Sequence[Revote], again: Agreement | None = None) -> str:
    """A row a vote; and, where a memory was asked again, whether it finds what the run found."""
    return "\n\n".join([table_text(HEAD, [_cells(one) for one in found]), *([] if again is None else [_agreement_text(again)])])


def _agreement_text(again: Agreement) -> str:
    left_out = f"; {again.left_out} more are not in its memory and did not ask" if again.left_out else ""
    return (
        f"asked again as the run did, {again.same} of {again.count} queries find the neighbours that it recorded, "
        f"similarities within {again.gap:.1e}{left_out}"
    )


def revote_json(found: Sequence[Revote], again: Agreement | None = None) -> dict[str, Any]:
    """Plain JSON values; what is unknown is None."""
    return {"votes": [_row(one) for one in found], "again": None if again is None else asdict(again)}


def _row(one: Revote) -> dict[str, Any]:
    point = one.hard_point
    return {
        "vote": one.vote,
        "neighbours": one.neighbours,
        "coverage": one.selection.coverage.to_json(),
        "error_selected": one.selection.error.to_json(),
        "error_all": one.selection.full_error.to_json(),
        "aurc": known(one.curve.aurc),
        "hard_majority": {
            "error_there": known(one.hard_error),
            "threshold_there": None if point is None else {"margin": point.threshold, "coverage": point.coverage, "error": point.risk},
            "aurc_gap": one.gap.to_json(),
        },
        "unknown": one.num_unknown,
    }


def _cells(one: Revote) -> tuple[str, ...]:
    coverage, error, error_all = (rate_text(rate) for rate in (one.selection.coverage, one.selection.error, one.selection.full_error))
    areas = number_text(one.curve.aurc, 3), rate_text(one.gap)
    return (one.vote, one.neighbours, coverage, error, number_text(one.hard_error, 3), error_all, *areas, str(one.num_unknown))
