"""Two policies, or one policy twice, on the same items: paired tests of what differs. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelis.core.errors import DataError
from pixelis.eval.report import number_text, rate_text, table_text
from pixelis.eval.scores import ItemScore
from pixelis.eval.stats import Rate, benjamini_hochberg, known, mean_rate, paired_p

Pair = tuple[ItemScore, ItemScore]
OVERALL: dict[str, Callable[[ItemScore], float]] = {
    "accuracy": lambda score: score.right,
    "RaPR": lambda score: score.valid_share,
    "steps": lambda score: score.steps,
}
"""What is compared over all items; per family it is the accuracy."""
ROW_HEAD = ("pairs", "this", "other", "difference", "p", "q (BH)")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One paired comparison."""

    name: str
    one: float
    two: float
    difference: Rate
    """Mean of one minus two; its count is the number of pairs."""
    p: float
    """Two-sided, of the paired permutation test."""
    q: float
    """p after Benjamini-Hochberg over the families; NaN for what is compared over all items."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    overall: tuple[Row, ...]
    families: tuple[Row, ...]
    num_unpaired: int
    """Items that stand on one side only."""


def compare(one: Iterable[ItemScore], two: Iterable[ItemScore], *, seed: int = 0) -> Comparison:
    """Test one against two on the items they share; a shifted item is the pair of the same item without its shift.

    Raises:
        DataError: they share no item.
    """
    ones, twos = list(one), list(two)
    pairs = paired(ones, twos)
    names = sorted({a.family for a, _ in pairs})
    rows = [paired_row(name, OVERALL["accuracy"], [pair for pair in pairs if pair[0].family == name], seed=seed) for name in names]
    adjusted = benjamini_hochberg([row.p for row in rows])
    return Comparison(
        overall=tuple(paired_row(name, value, pairs, seed=seed) for name, value in OVERALL.items()),
        families=tuple(Row(**{**row.__dict__, "q": float(q)}) for row, q in zip(rows, adjusted, strict=True)),
        num_unpaired=len(set(map(plain_id, ones)) ^ set(map(plain_id, twos))),
    )


def paired(one: Iterable[ItemScore], two: Iterable[ItemScore]) -> list[Pair]:
    """The items that both sides have, in the order of their names.

    Raises:
        DataError: they share no item.
    """
    ones, twos = ({plain_id(score): score for score in side} for side in (one, two))
    shared = sorted(ones.keys() & twos.keys())
    if not shared:
        raise DataError(
            f"nothing to compare: of {len(ones)} and {len(twos)} items none is the same; use the same split, seed, families and range"
        )
    return [(ones[key], twos[key]) for key in shared]


def plain_id(score: ItemScore) -> str:
    """Of the item without its shift."""
    return score.id.partition("@")[0]


def paired_row(name: str, value: Callable[[ItemScore], float], pairs: Sequence[Pair], *, seed: int) -> Row:
    """One comparison; its q is left NaN. All is NaN without pairs."""
    return values_row(name, *([value(pair[side]) for pair in pairs] for side in (0, 1)), seed=seed)


def values_row(name: str, one_N: Sequence[float], two_N: Sequence[float], *, seed: int) -> Row:
    """One comparison of two values an item; its q is left NaN. All is NaN without items."""
    if not len(one_N):
        return Row(name=name, one=math.nan, two=math.nan, difference=mean_rate([]), p=math.nan, q=math.nan)
    one_N, two_N = np.array(one_N, float), np.array(two_N, float)
    return Row(
        name=name,
        one=float(one_N.mean()),
        two=float(two_N.mean()),
        difference=mean_rate(one_N - two_N, is_share=False, seed=seed),
        p=paired_p(one_N, two_N, seed=seed),
        q=float("nan"),
    )


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Plain JSON values; what is unknown is None."""
    return {
        "overall": [row_json(row) for row in comparison.overall],
        "families": [row_json(row) for row in comparison.families],
        "unpaired": comparison.num_unpaired,
    }


def row_json(row: Row) -> dict[str, Any]:
    """Plain JSON values; what is unknown is None."""
    numbers = {key: known(getattr(row, key)) for key in ("one", "two", "p", "q")}
    return {"name": row.name, **numbers, "difference": row.difference.to_json()}


def comparison_text(comparison: Comparison) -> str:
    """The comparison for people."""
    rows = [row_cells(row) for row in (*comparison.overall, *comparison.families)]
    left = f"\n{comparison.num_unpaired} items stand on one side only and were left out" if comparison.num_unpaired else ""
    return table_text(("", *ROW_HEAD), rows) + left


def row_cells(row: Row) -> tuple[str, ...]:
    """Its name, then what `ROW_HEAD` names."""
    means = number_text(row.one, 3), number_text(row.two, 3), rate_text(row.difference)
    return (row.name, str(row.difference.count), *means, number_text(row.p, 4), number_text(row.q, 4))
