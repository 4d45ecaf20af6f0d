"""How a policy stands shifts: the same items clean and under each kind of shift at each severity, compared pair by pair. Pure.

Source: paper §4.3 (lighting and motion shifts, noise and occlusion), supplement 9.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from pixelis.core.errors import DataError
from pixelis.data.world.shifts import SEVERITIES, SHIFTS, Shift
from pixelis.eval.compare import OVERALL, paired, paired_row
from pixelis.eval.report import make_group, number_text, rate_text, table_text
from pixelis.eval.scores import ItemScore
from pixelis.eval.stats import Rate, benjamini_hochberg, from_known, known, known_rate, rate_from_json
from pixelis.eval.sweep import num_late

CLEAN = "clean"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One kind of shift at one severity, or the clean items."""

    kind: str
    """`CLEAN` or one of `SHIFTS`."""
    severity: int
    """0 for the clean items."""
    accuracy: Rate
    rapr: Rate
    """RaPR, a trajectory without steps counting as 0."""
    parses: Rate
    """Share of steps whose text is one well-formed call."""
    valid: Rate
    """Share of steps whose call succeeded and passes its verifier."""
    difference: Rate
    """Accuracy minus that of the same items clean; its count is the number of pairs. Nothing for the clean items."""
    p: float
    """Two-sided, of the paired permutation test."""
    q: float
    """p after Benjamini-Hochberg over all cells of the grid."""
    prc: Rate
    """Share of the clean items' plans whose evidence and answer survive on the shifted medium; nothing for the clean items."""
    num_late: int
    """Trajectories that failed for the machine's sake."""

    @property
    def name(self) -> str:
        return self.kind if self.kind == CLEAN else f"{self.kind}:{self.severity}"


Grid = tuple[Cell, ...]
"""The clean items first, then kind by kind, from the mildest severity."""


def grid_shifts(kinds: Sequence[str] = SHIFTS, severities: Sequence[int] = SEVERITIES) -> tuple[Shift, ...]:
    """Every kind at every severity, in the order of `SHIFTS`, each once.

    Raises:
        DataError: no kind, no severity, or an unknown one.
    """
    if not kinds or not severities:
        raise DataError(f"no shift is asked for: kinds are {', '.join(SHIFTS)}, severities 1 to 5")
    wanted = {Shift(kind, severity) for kind in kinds for severity in severities}
    return tuple(sorted(wanted, key=lambda shift: (SHIFTS.index(shift.kind), shift.severity)))


def make_grid(scores: Mapping[str, Sequence[ItemScore]], plans: Mapping[str, Sequence[bool | None]] = {}, *, seed: int = 0) -> Grid:
    """Every number of the grid.

    Args:
        scores: of the clean items under `CLEAN`, of each shift under its text, `noise:3`.
        plans: by shift, whether each clean plan survives there; None for one that rests on nothing or could not be made again.
        seed: of bootstrap and permutations.

    Raises:
        DataError: the clean items are missing, or a shift was run on none of them.
    """
    if CLEAN not in scores:
        raise DataError("a grid needs the clean items beside the shifted ones: they are what it is compared with")
    shifts = sorted((name for name in scores if name != CLEAN), key=_place)
    cells = [_cell(name, scores, plans, seed) for name in (CLEAN, *shifts)]
    adjusted = benjamini_hochberg([cell.p for cell in cells])
    return tuple(replace(cell, q=float(q)) for cell, q in zip(cells, adjusted, strict=True))


def _place(name: str) -> tuple[int, int]:
    kind, _, severity = name.partition(":")
    return SHIFTS.index(kind), int(severity)


def _cell(name: str, scores: Mapping[str, Sequence[ItemScore]], plans: Mapping[str, Sequence[bool | None]], seed: int) -> Cell:
    group = make_group(name, sorted(scores[name], key=lambda score: score.index), seed=seed)
    kind, _, severity = name.partition(":")
    pairs = paired(scores[name], scores[CLEAN]) if name != CLEAN else []
    row = paired_row(name, OVERALL["accuracy"], pairs, seed=seed)
    return Cell(
        kind=kind,
        severity=int(severity or 0),
        accuracy=group.accuracy,
        rapr=group.rapr,
        parses=group.parses,
        valid=group.valid,
        difference=row.difference,
        p=row.p,
        q=math.nan,
        prc=known_rate(plans.get(name, ()), seed=seed),
        num_late=num_late(scores[name]),
    )


# ---------------------------------------------------------------- JSON and text


def grid_json(grid: Grid) -> list[dict[str, Any]]:
    """Plain JSON values, a row a cell; what is unknown is None."""

    def plain(value: Any) -> Any:
        return value.to_json() if isinstance(value, Rate) else known(value) if isinstance(value, float) else value

    return [{field.name: plain(getattr(cell, field.name)) for field in fields(Cell)} for cell in grid]


def grid_from_json(rows: Sequence[Mapping[str, Any]]) -> Grid:
    """The inverse of `grid_json`.

    Raises:
        KeyError, TypeError, ValueError: a row is none.
    """
    rates = {field.name for field in fields(Cell) if field.type == "Rate"}
    return tuple(
        Cell(
            **{name: rate_from_json(row[name]) for name in rates},
            **{name: from_known(row[name]) for name in ("p", "q")},
            **{name: row[name] for name in ("kind", "severity", "num_late")},
        )
        for row in rows
    )


def grid_text(grid: Grid) -> str:
    """The grid for people: accuracies at a glance, then every cell with its intervals."""
    severities = sorted({cell.severity for cell in grid if cell.severity})
    by_place = {(cell.kind, cell.severity): cell for cell in grid}
    clean = by_place[CLEAN, 0]
    glance = [
        [kind, number_text(clean.accuracy.value, 3), *(_value(by_place.get((kind, severity))) for severity in severities)]
        for kind in SHIFTS
        if any(cell.kind == kind for cell in grid)
    ]
    head = ["cell", "items", "accuracy", "difference to clean", "p", "q (BH)", "calls parse", "calls valid", "RaPR", "PRC", "plans"]
    late = sum(cell.num_late for cell in grid)
    parts = [
        table_text(["accuracy", CLEAN, *map(str, severities)], glance),
        table_text(head, [_cell_texts(cell) for cell in grid]),
        "difference: paired, BCa bootstrap; p: two-sided paired permutation test, Benjamini-Hochberg over the grid. PRC: the clean items' "
        "plans, made again on the shifted media; a plan that rests on no evidence, or a video whose camera moves, is not counted.",
        f"note: {late} trajectories failed for the machine's sake" if late else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _value(cell: Cell | None) -> str:
    return "-" if cell is None else number_text(cell.accuracy.value, 3)


def _cell_texts(cell: Cell) -> list[str]:
    return [
        cell.name,
        str(cell.accuracy.count),
        rate_text(cell.accuracy),
        rate_text(cell.difference),
        number_text(cell.p, 4),
        number_text(cell.q, 4),
        number_text(cell.parses.value, 3),
        number_text(cell.valid.value, 3),
        rate_text(cell.rapr),
        rate_text(cell.prc),
        str(cell.prc.count),
    ]
