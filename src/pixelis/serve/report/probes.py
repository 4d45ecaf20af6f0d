"""Tables of what was done to a policy on purpose: the grid of shifts, tools taken away, votes over rollouts, failures by mode. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pixelis.core.errors import DataError
from pixelis.data.world.shifts import SHIFTS
from pixelis.eval.consistency_run import Consistencies
from pixelis.eval.consistency_table import HEAD, remarks, row_texts
from pixelis.eval.failures import AUDIT_HEAD, audit_texts
from pixelis.eval.grid_pair import GridPair, pair_grids
from pixelis.eval.necessity import ALL, CHOSEN, NEEDED, WAYS, Effect, Necessity
from pixelis.eval.necessity_run import Necessities
from pixelis.eval.report import number_text, rate_text
from pixelis.eval.robustness import CLEAN, Cell, Grid
from pixelis.eval.robustness_run import Robustness
from pixelis.eval.stats import benjamini_hochberg
from pixelis.serve.report.sources import Evaluation, Probe
from pixelis.serve.report.table import Cell as TableCell
from pixelis.serve.report.table import Table, cells, level, marked, stars


def probe_tables(probes: Sequence[Probe]) -> list[Table]:
    """The tables of every grid, matrix and vote, in the order of the probes."""
    draw = {Robustness: _grid_tables, Necessities: _necessity_tables, Consistencies: _consistency_tables}
    return [table for number, probe in enumerate(probes) for table in draw[type(probe.found)](probe, number)]


# ---------------------------------------------------------------- shifts


def side_by_side(probes: Sequence[Probe]) -> list[Table]:
    """Accuracy of several policies in every cell of their grids; none of fewer than two grids."""
    probes = [probe for probe in probes if isinstance(probe.found, Robustness)]
    if len(probes) < 2:
        return []
    grids = [{cell.name: cell for cell in probe.found.grid} for probe in probes if isinstance(probe.found, Robustness)]
    names = list(dict.fromkeys(name for grid in grids for name in grid))
    shared = [name for name in names if all(name in grid for grid in grids)]
    pairs = [None, *(_pair(probe, probes[0]) for probe in probes[1:])]
    q = benjamini_hochberg([pair.overall[0].p if pair else math.nan for pair in pairs])
    rows = []
    for number, (probe, grid, pair) in enumerate(zip(probes, grids, pairs, strict=True)):
        marks = {row.name.replace("-", ":"): stars(row.q) for row in pair.cells} if pair else {}
        each = (marked(rate_text(grid[name].accuracy), marks.get(name, "")) if name in grid else "-" for name in names)
        mean = number_text(float(np.mean([grid[name].accuracy.value for name in shared])) if shared else math.nan, 3)
        difference = marked(rate_text(pair.overall[0].difference), stars(q[number])) if pair else "-"
        rows.append(cells(probe.name, *each, mean, difference))
    first = probes[0].name
    return [
        Table(
            key="grids",
            title="Clean and shifted, side by side",
            head=("run", *names, "mean of cells", f"difference to {first}"),
            rows=tuple(rows),
            note=f"Accuracy. Against {first}, on shared items: two-sided paired permutation test, Benjamini-Hochberg over a run's cells. "
            "The difference is over all shared cells, item by item, Benjamini-Hochberg over the runs; * q < 0.05, ** q < 0.01.",
            source=probes[0].file,
            of=tuple(probe.name for probe in probes),
        )
    ]


def _pair(one: Probe, two: Probe) -> GridPair | None:
    try:
        return pair_grids(one.cells, two.cells)
    except DataError:  # no cell or no item in common
        return None


def _grid_tables(probe: Probe, number: int) -> list[Table]:
    assert isinstance(probe.found, Robustness)
    grid = probe.found.grid
    of = {"source": probe.file, "of": (probe.name,)}
    severities = sorted({cell.severity for cell in grid if cell.severity})
    heat = Table(
        key=f"heat-{number}",
        title=f"Accuracy under shifts: {probe.name}",
        head=("shift", CLEAN, *(f"severity {severity}" for severity in severities)),
        rows=tuple(_heat_row(kind, severities, grid) for kind in SHIFTS if any(cell.kind == kind for cell in grid)),
        note="Share of right answers, and of how many items; the same items in every cell. Against the clean items: two-sided paired "
        "permutation test, Benjamini-Hochberg over the grid; * q < 0.05, ** q < 0.01.",
        is_heat=True,
        **of,
    )
    head = ("cell", "items", "accuracy", "difference to clean", "p", "q", "calls parse", "calls valid", "RaPR", "PRC", "plans", "late")
    every = Table(
        key=f"grid-{number}",
        title=f"Every shift: {probe.name}",
        head=head,
        rows=tuple(_grid_row(cell) for cell in grid),
        note="Difference: paired, BCa bootstrap. PRC: share of the clean items' plans whose evidence and answer are found again on the "
        "shifted media; a plan that rests on no evidence, or a video whose camera moves, is not counted. Late: trajectories that failed "
        "for the machine's sake.",
        **of,
    )
    return [heat, every]


def _heat_row(kind: str, severities: Sequence[int], grid: Grid) -> tuple[TableCell, ...]:
    by_place = {(cell.kind, cell.severity): cell for cell in grid}
    shown = [by_place.get((CLEAN, 0)), *(by_place.get((kind, severity)) for severity in severities)]
    return (TableCell(kind), *map(_heat_cell, shown))


def _heat_cell(cell: Cell | None) -> TableCell:
    if cell is None or not cell.accuracy.count:
        return TableCell("-")
    value = cell.accuracy.value
    return TableCell(f"{value:.2f}{stars(cell.q)} ({cell.accuracy.count})", level(value))


def _grid_row(cell: Cell) -> tuple[TableCell, ...]:
    return cells(
        cell.name,
        str(cell.accuracy.count),
        rate_text(cell.accuracy),
        marked(rate_text(cell.difference), stars(cell.q)),
        number_text(cell.p, 4),
        number_text(cell.q, 4),
        rate_text(cell.parses),
        rate_text(cell.valid),
        rate_text(cell.rapr),
        rate_text(cell.prc),
        str(cell.prc.count),
        str(cell.num_late),
    )


# ---------------------------------------------------------------- tools taken away


def _necessity_tables(probe: Probe, number: int) -> list[Table]:
    assert isinstance(probe.found, Necessities)
    found = probe.found.found
    of = {"source": probe.file, "of": (probe.name,)}
    ways = [way for way in WAYS if any(effect.way == way for effect in found.effects)]
    matrices = [
        Table(
            key=f"matrix-{way}-{number}",
            title=f"What each tool is worth, {way}: {probe.name}",
            head=("family", *_ops(found, way)),
            rows=tuple(_matrix_row(found, way, group) for group in (ALL, *found.families)),
            note=f"Accuracy with all tools minus with this one {way}, on the same items, and how many; darker is needed more. Two-sided "
            "paired permutation test, Benjamini-Hochberg over tools and families (over the tools for all items); * q < 0.05, ** q < 0.01.",
            is_heat=True,
            **of,
        )
        for way in ways
    ]
    head = ("tool", "items", "accuracy with all", "accuracy without", "drop", "p", "q", "drop of RaPR")
    rows = [effect for effect in found.effects if effect.group in (ALL, NEEDED, CHOSEN) and effect.drop.count]
    effects = Table(
        key=f"effects-{number}",
        title=f"Tools off and degraded: {probe.name}",
        head=head,
        rows=tuple(map(_effect_row, rows)),
        note="Needed: items whose truth needs the tool, which no policy chose. Counterfactual: the frozen subset of an earlier run. "
        f"{found.num_late} trajectories failed for the machine's sake.",
        **of,
    )
    return [*matrices, effects]


def _ops(found: Necessity, way: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(effect.op for effect in found.effects if effect.way == way))


def _matrix_row(found: Necessity, way: str, group: str) -> tuple[TableCell, ...]:
    return (TableCell(group), *(_matrix_cell(found.find(way, op, group)) for op in _ops(found, way)))


def _matrix_cell(effect: Effect | None) -> TableCell:
    """Colours begin at a drop of 0: a tool without which more is right is not needed, and stands there with its sign."""
    if effect is None or not effect.drop.count:
        return TableCell("-")
    value = effect.drop.value
    return TableCell(f"{value:.2f}{stars(effect.q)} ({effect.drop.count})", level(value) if value > 0 else None)


def _effect_row(effect: Effect) -> tuple[TableCell, ...]:
    which = "" if effect.group == ALL else f", {effect.group}"
    return cells(
        f"{effect.op} {effect.way}{which}",
        str(effect.drop.count),
        rate_text(effect.accuracy),
        rate_text(effect.without),
        marked(rate_text(effect.drop), stars(effect.q)),
        number_text(effect.p, 4),
        number_text(effect.q, 4),
        rate_text(effect.rapr_drop),
    )


# ---------------------------------------------------------------- votes over rollouts


def _consistency_tables(probe: Probe, number: int) -> list[Table]:
    assert isinstance(probe.found, Consistencies)
    found = probe.found.found
    columns = list(HEAD)
    difference = columns.index("difference to single")
    rows = []
    for row in found.rows:
        texts = row_texts(row)
        texts[difference] = marked(texts[difference], stars(row.q))
        rows.append(cells(*texts))
    table = Table(
        key=f"consistency-{number}",
        title=f"Votes over rollouts: {probe.name}",
        head=HEAD,
        rows=tuple(rows),
        note="Single: the mean of one rollout. All from the same stored rollouts; rollouts, sampled tokens and tool calls are per item. "
        "Difference: paired, BCa bootstrap; two-sided paired permutation test, Benjamini-Hochberg over the methods; * q < 0.05, "
        "** q < 0.01. Abstaining counts for coverage and Err@Sel alone. "
        f"{'; '.join(remarks(found))}.",
        source=probe.file,
        of=(probe.name,),
    )
    return [table]


# ---------------------------------------------------------------- failures


def audit_tables(evaluations: Sequence[Evaluation]) -> list[Table]:
    """A table for each evaluation whose failures were audited."""
    return [
        Table(
            key=f"failures-{number}",
            title=f"Failures by mode: {evaluation.name}",
            head=AUDIT_HEAD,
            rows=tuple(cells(*line) for line in audit_texts(evaluation.modes)),
            note="; ".join(f"{mode.name}: {mode.meaning}" for mode in evaluation.modes)
            + ". Same families: the rate of items without the trait, weighted as the mode's items are spread over families (of how many). "
            "p: Fisher's exact test against all items without the trait; q: Benjamini-Hochberg over the modes.",
            source="trajectories.jsonl",
            of=(evaluation.name,),
        )
        for number, evaluation in enumerate(evaluations)
        if evaluation.modes
    ]
