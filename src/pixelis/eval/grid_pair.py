"""Two grids of `pixelis eval robustness` side by side: one policy against another in every cell that both have, and over all of them.

The cells of a grid hold the same items, so what stands over all cells has the item for its unit, not the item in a cell: its value is the
mean over the cells. Twelve hundred answers to two hundred items are two hundred pairs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pixelis.core.errors import DataError
from pixelis.eval.compare import OVERALL, ROW_HEAD, Row, paired, paired_row, plain_id, row_cells, row_json, values_row
from pixelis.eval.report import table_text
from pixelis.eval.robustness import grid_shifts
from pixelis.eval.robustness_run import cell_folder
from pixelis.eval.scores import SCORES_FILE, ItemScore, read_scores
from pixelis.eval.stats import benjamini_hochberg


@dataclass(frozen=True, kw_only=True)
class GridPair:
    """Accuracy in every shared cell, q over the cells; and accuracy, RaPR and steps over all of them, item by item."""

    cells: tuple[Row, ...]
    overall: tuple[Row, ...]
    num_items: int
    """Different items in the shared cells; `overall` has those that are in all of them."""
    left_out: tuple[str, ...]
    """Cells that one grid alone has."""


def read_cells(folder: str | os.PathLike) -> dict[str, list[ItemScore]]:
    """The scored cells of a grid by name, `clean` first, then shift by shift.

    Raises:
        DataError: it holds none, or a damaged line.
    """
    names = [cell_folder(shift) for shift in (None, *grid_shifts())]
    found = {name: list(read_scores(Path(folder) / name)) for name in names if (Path(folder) / name / SCORES_FILE).is_file()}
    if not found:
        raise DataError(f"{folder}: no scored cell lies there; make some with pixelis eval robustness --out {folder}")
    return found


def pair_grids(one: Mapping[str, Sequence[ItemScore]], two: Mapping[str, Sequence[ItemScore]], *, seed: int = 0) -> GridPair:
    """One against two, in the cells and on the items that both have.

    Raises:
        DataError: they share no cell, a shared cell shares no item, or no item is in all shared cells.
    """
    names = [name for name in one if name in two]
    if not names:
        raise DataError(f"nothing to compare: one grid has {', '.join(one)}, the other {', '.join(two)}")
    pairs = {name: paired(one[name], two[name]) for name in names}
    rows = [paired_row(name, OVERALL["accuracy"], pairs[name], seed=seed) for name in names]
    adjusted = benjamini_hochberg([row.p for row in rows])
    cells = tuple(replace(row, q=float(q)) for row, q in zip(rows, adjusted, strict=True))
    return GridPair(
        cells=cells,
        overall=_overall(list(pairs.values()), seed),
        num_items=len({plain_id(score) for name in names for score in (*one[name], *two[name])}),
        left_out=tuple(sorted(set(one) ^ set(two))),
    )


def _overall(pairs: Sequence[Sequence[tuple[ItemScore, ItemScore]]], seed: int) -> tuple[Row, ...]:
    by_item = [{plain_id(a): (a, b) for a, b in cell} for cell in pairs]
    items = sorted(set.intersection(*(set(cell) for cell in by_item)))
    if not items:
        raise DataError(f"no item is in all of the {len(pairs)} cells that both grids have: finish both first")
    means = {
        name: [[float(np.mean([value(cell[item][side]) for cell in by_item])) for item in items] for side in (0, 1)]
        for name, value in OVERALL.items()
    }
    return tuple(values_row(name, one_N, two_N, seed=seed) for name, (one_N, two_N) in means.items())


def grid_pair_json(pair: GridPair) -> dict[str, Any]:
    """Plain JSON values; what is unknown is None."""
    return {
        "cells": [row_json(row) for row in pair.cells],
        "overall": [row_json(row) for row in pair.overall],
        "items": pair.num_items,
        "left_out": list(pair.left_out),
    }


def grid_pair_text(pair: GridPair) -> str:
    """Two tables for people: the cells, and all cells item by item."""
    over = f"over {len(pair.cells)} cells"
    overall = table_text((over, *ROW_HEAD[:-1]), [row_cells(row)[:-1] for row in pair.overall])
    text = f"{table_text(('accuracy', *ROW_HEAD), [row_cells(row) for row in pair.cells])}\n\n{overall}"
    if pair.left_out:
        text += f"\nonly one of them has {', '.join(pair.left_out)}"
    if pair.num_items > (num_in_all := pair.overall[0].difference.count):
        text += f"\n{pair.num_items - num_in_all} of {pair.num_items} items are not in all of these cells on both sides"
    return text
