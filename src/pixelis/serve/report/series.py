"""Numbers of a journal as series, and how they are smoothed. Pure.

R rows of the journal, W rows of a window.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = Mapping[str, Any]
WINDOW_SHARE = 1 / 20
"""Of all points, how many a smoothed value is the mean of."""
MAX_COLUMNS = 40
"""Of a family picture: more points than this are taken together."""


def numbers(row: Row) -> dict[str, float]:
    """Every number of a row by its dotted key; of a list of numbers the mean, of true and false 1 and 0. What is not finite is NaN."""
    return dict(_numbers(row, ""))


def _numbers(row: Row, before: str) -> Iterator[tuple[str, float]]:
    for key, value in row.items():
        if isinstance(value, Mapping) and not before:
            yield from _numbers(value, f"{key}.")
        elif isinstance(value, (bool, int, float)):
            yield f"{before}{key}", _finite(value)
        elif isinstance(value, list) and all(isinstance(v, (int, float)) for v in value):
            yield f"{before}{key}", mean([_finite(v) for v in value])


def _finite(value: float) -> float:
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan


def mean(values: Iterable[float]) -> float:
    """Mean of those that are known; NaN when none is."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


@dataclass(frozen=True)
class Series:
    """One key over the rows that have it.

    Attributes:
        x_R: what the counter says there, rising.
        y_R: NaN where the value is unknown.
    """

    x_R: np.ndarray
    y_R: np.ndarray


def all_series(rows: Sequence[Row], counter: str) -> dict[str, Series]:
    """Every key of a journal with at least one known value, in the order in which they first appear.

    Derived besides: `spent` (rollouts up to and with the row), `flat_share` (of groups), `accepted_share` (of the queries so far, of which
    the row's `accepted` counts those that were learnt from), and `op_share.` of each op, NaN in a row without calls.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    spent = 0.0
    for row in rows:
        found = numbers(row)
        x = found.pop(counter, math.nan)
        spent += 0.0 if math.isnan(found.get("rollouts", math.nan)) else found["rollouts"]
        for key, value in {**found, **_derived(found, spent, x)}.items():
            points.setdefault(key, []).append((x, value))
    series = {}
    for key, pairs in points.items():
        x_R, y_R = np.array([p for p in sorted(pairs, key=lambda p: p[0]) if not math.isnan(p[0])]).reshape(-1, 2).T
        if np.isfinite(y_R).any():
            series[key] = Series(x_R, y_R)
    return series


def _derived(found: Mapping[str, float], spent: float, x: float) -> dict[str, float]:
    derived = {"spent": spent} if "rollouts" in found else {}
    if "accepted" in found and x >= 0:
        derived["accepted_share"] = found["accepted"] / (x + 1)
    if "flat_groups" in found and "groups" in found:
        derived["flat_share"] = found["flat_groups"] / found["groups"] if found["groups"] else math.nan
    calls = {key: value for key, value in found.items() if key.startswith("ops.")}
    total = sum(calls.values())
    return derived | {f"op_share.{key[4:]}": value / total if total else math.nan for key, value in calls.items()}


def window(num_rows: int) -> int:
    """How many points a smoothed value is the mean of: about a twentieth of them, odd, at least 1."""
    return 2 * int(num_rows * WINDOW_SHARE / 2) + 1


def smooth(y_R: np.ndarray, num: int) -> np.ndarray:
    """Centred running mean over `num` rows, fewer at the ends.

    Args:
        y_R: NaN where unknown; such a value counts for nothing.
        num: odd.

    Returns:
        [R]; NaN where the window holds no known value.
    """
    is_known_R = np.isfinite(y_R)
    sums, counts = (np.concatenate([[0.0], np.cumsum(v)]) for v in (np.where(is_known_R, y_R, 0.0), is_known_R))
    low = np.maximum(np.arange(len(y_R)) - num // 2, 0)
    high = np.minimum(np.arange(len(y_R)) + num // 2 + 1, len(y_R))
    num_known = counts[high] - counts[low]
    return np.where(num_known > 0, (sums[high] - sums[low]) / np.maximum(num_known, 1), np.nan)


def columns(series: Mapping[str, Series]) -> tuple[list[float], np.ndarray, int]:
    """Series over a common x as a picture, points taken together until there are at most `MAX_COLUMNS`.

    Returns:
        x at which each column begins; means [series, columns], NaN where nothing is known; how many points make a column.
    """
    xs = sorted({float(x) for one in series.values() for x in one.x_R})
    each = max(1, -(-len(xs) // MAX_COLUMNS))
    starts = xs[::each]
    picture = np.full((len(series), len(starts)), np.nan)
    for number, one in enumerate(series.values()):
        place_R = np.searchsorted(starts, one.x_R, side="right") - 1
        for column in np.unique(place_R):
            picture[number, column] = mean(one.y_R[place_R == column].tolist())
    return starts, picture, each
