"""What every public benchmark is made of: items to ask, answers to score, a table to print. Scoring is pure.

A benchmark is a module with `read` and `score` (see `Benchmark`). An item whose answer is None or empty was asked and is wrong; an item
that no answer stands for was not asked, and is counted apart.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from scipy import stats

from pixelis.core.ops import record
from pixelis.eval.report import table_text
from pixelis.eval.stats import BATCH_NUMBERS, CONFIDENCE, NO_INTERVAL, NUM_RESAMPLES, Rate, mean_rate, share

STRATIFIED = "stratified BCa bootstrap"

Answers = Mapping[str, str | None]
"""Item id to the final answer; None where the policy gave none."""


@record
class MediumRef:
    """Where an item's image or video lies; `bench.media` opens it."""

    path: str
    """Relative to the data folder: an image, a video, a folder of frames, or a table that holds the image."""
    key: str | None = None
    """Of a table: which row."""
    start_s: float | None = None
    """Only this stretch of the video is asked about; None for all of it."""
    end_s: float | None = None
    fps: float | None = None
    """Of a folder of frames."""


@record
class BenchItem:
    """One question as it is put to the policy, with what is needed to score the answer."""

    id: str
    task: str
    """The benchmark's own name of the question's kind."""
    group: str
    """Items that are scored together share it: rotations, orders, before and after. A group is asked whole."""
    prompt: str
    medium: MediumRef
    choices: tuple[str, ...] = ()
    """In the order in which they are lettered A, B, ...; empty for an open question."""
    truth: tuple[str, ...] = ()
    """The right answers as they are compared: one letter, or texts or numbers as published."""
    facts: dict[str, str] = field(default_factory=dict)
    """Further columns that the rule or the table needs."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the published files come from."""

    hub: str | None
    """The data set's name on the hub; None where its makers publish it elsewhere."""
    files: str
    """Which files of it, in words."""
    patterns: tuple[str, ...]
    """Which files of it, as glob patterns."""
    count: int
    """Questions in the published set."""
    url: str = ""
    """Of the one file, where it is not on the hub."""
    terms: str = ""
    """What has to be done before the files may be had, or what they lack; a sentence."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table."""

    name: str
    rate: Rate


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a benchmark says about a set of answers."""

    benchmark: str
    rule: str
    """How answers were scored, in one line."""
    headline: Row
    """The number that papers print."""
    rows: tuple[Row, ...]
    num_items: int
    num_asked: int
    num_unanswered: int
    """Of those asked; they count as wrong."""
    notes: tuple[str, ...] = ()


class Benchmark(Protocol):
    """A module of `pixelis.eval.bench`."""

    SOURCE: Source

    def read(self, folder: Path, *, seed: int = 0) -> tuple[BenchItem, ...]:
        """The items in their published order; `seed` is of the option order, where the rule shuffles.

        Raises:
            DataError: files are missing or damaged; says which, and where to get them.
            NotInstalled: a package that reads them is missing.
        """
        ...

    def item_score(self, item: BenchItem, answer: str | None) -> float:
        """What one answer is worth by the benchmark's rule, in [0, 1]; pure."""
        ...

    def score(self, items: Sequence[BenchItem], answers: Answers) -> Table:
        """The table over the items that were asked; pure."""
        ...


def order_of(item_id: str, num_choices: int, *, seed: int) -> tuple[int, ...]:
    """A permutation that depends on the item and the seed alone, not on its neighbours or their order.

    Returns:
        For each place, the number of the published choice that stands there.
    """
    keys = [hashlib.sha256(f"{seed}\x1f{item_id}\x1f{k}".encode()).digest() for k in range(num_choices)]
    return tuple(sorted(range(num_choices), key=keys.__getitem__))


def letter(number: int) -> str:
    return chr(ord("A") + number)


def lettered(choices: Iterable[str], form: str = "{}. {}") -> str:
    """The options, one a line; `form` takes the letter and the text."""
    return "\n".join(form.format(letter(k), choice) for k, choice in enumerate(choices))


def asked(items: Iterable[BenchItem], answers: Answers) -> list[BenchItem]:
    return [item for item in items if item.id in answers]


def by_task(items: Iterable[BenchItem]) -> dict[str, list[BenchItem]]:
    """Items under their tasks, in order of first appearance."""
    found: dict[str, list[BenchItem]] = {}
    for item in items:
        found.setdefault(item.task, []).append(item)
    return found


def groups(items: Iterable[BenchItem]) -> dict[str, list[BenchItem]]:
    found: dict[str, list[BenchItem]] = {}
    for item in items:
        found.setdefault(item.group, []).append(item)
    return found


def rate(values: Sequence[float]) -> Rate:
    """The mean of scores in [0, 1]: Clopper-Pearson where all are 0 or 1, else BCa; NaN without values."""
    if all(value in (0.0, 1.0) for value in values):
        return share(int(sum(values)), len(values))
    return mean_rate(values)


def macro_rate(strata: Sequence[tuple[float, Sequence[float]]], *, seed: int = 0) -> Rate:
    """A weighted mean of the strata's means, with its BCa interval from resampling within every stratum.

    Args:
        strata: (weight, scores in [0, 1]); weights are divided by their sum. Strata without scores are left out, so their weight goes to
            the others: say so in a note.
    Returns:
        Rate with the count of scores; NaN when there is none.
    """
    known = [(weight, np.asarray(values, float)) for weight, values in strata if len(values)]
    if not known:
        return Rate(math.nan, math.nan, math.nan, 0, NO_INTERVAL)
    total = math.fsum(weight for weight, _ in known)
    known = [(weight / total, values_N) for weight, values_N in known]
    mean = math.fsum(weight * float(values_N.mean()) for weight, values_N in known)
    low, high = _stratified_bca(known, seed=seed)
    count = sum(values_N.size for _, values_N in known)
    if math.isnan(low) or math.isnan(high):
        return Rate(mean, math.nan, math.nan, count, NO_INTERVAL)
    return Rate(mean, low, high, count, STRATIFIED)


def _stratified_bca(strata: Sequence[tuple[float, np.ndarray]], *, seed: int) -> tuple[float, float]:
    """Ends of the BCa interval of a weighted mean of means; both NaN where all strata are constant.

    Constant strata do not change under resampling and have no influence on the acceleration, so they enter as the number they are: the
    jackknife of a stratum of one would have no value.

    Args:
        strata: (weight, values [N]); the weights sum to 1.
    """
    varied = [(weight, values_N) for weight, values_N in strata if values_N.min() < values_N.max()]
    fixed = math.fsum(weight * float(values_N[0]) for weight, values_N in strata if values_N.min() == values_N.max())
    if not varied:
        return math.nan, math.nan

    def mean_of(*columns: np.ndarray, axis: int) -> np.ndarray:
        return fixed + sum(weight * column.mean(axis=axis) for (weight, _), column in zip(varied, columns, strict=True))

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            [values_N for _, values_N in varied],
            mean_of,
            n_resamples=NUM_RESAMPLES,
            confidence_level=CONFIDENCE,
            method="BCa",
            vectorized=True,
            batch=max(1, BATCH_NUMBERS // sum(values_N.size for _, values_N in varied)),
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return float(found.low), float(found.high)


def make_table(
    benchmark: str,
    rule: str,
    items: Sequence[BenchItem],
    answers: Answers,
    *,
    headline: Row,
    rows: Sequence[Row],
    notes: Sequence[str] = (),
) -> Table:
    """A table with its counts; adds a note where only a part was asked."""
    there = asked(items, answers)
    whole = len(groups(items))
    part = len({item.group for item in there})
    missing = (f"{part} of {whole} questions were asked: not comparable with published numbers",) if part < whole else ()
    return Table(
        benchmark=benchmark,
        rule=rule,
        headline=headline,
        rows=tuple(rows),
        num_items=len(items),
        num_asked=len(there),
        num_unanswered=sum(not (answers[item.id] or "").strip() for item in there),
        notes=(*missing, *notes),
    )


def count_note(items: Sequence[BenchItem], source: Source) -> tuple[str, ...]:
    """A note where the files hold another number of questions than the published set."""
    found = len(groups(items))
    what = ": they are not complete, download them again" if found < source.count else ""
    return (f"the files hold {found} questions; the published set has {source.count}{what}",) if found != source.count else ()


# ---------------------------------------------------------------- JSON and text


def table_json(table: Table) -> dict[str, Any]:
    """Plain JSON values; what is unknown is None."""

    def row(entry: Row) -> dict[str, Any]:
        return {"name": entry.name, **entry.rate.to_json()}

    return {
        "benchmark": table.benchmark,
        "rule": table.rule,
        "headline": row(table.headline),
        "rows": [row(entry) for entry in table.rows],
        "items": table.num_items,
        "asked": table.num_asked,
        "unanswered": table.num_unanswered,
        "notes": list(table.notes),
    }


def bench_text(table: Table) -> str:
    """The table for people, in percent as papers print it."""
    head = ["", "%", "95 % interval", "count", ""]
    lines = [[row.name, _percent(row.rate.value), _interval(row.rate), str(row.rate.count), row.rate.method] for row in _all_rows(table)]
    counts = f"{table.num_asked} of {table.num_items} items asked, {table.num_unanswered} without an answer (they count as wrong)"
    return "\n".join([table_text(head, lines), "", f"rule: {table.rule}", counts, *(f"note: {note}" for note in table.notes)])


def _all_rows(table: Table) -> tuple[Row, ...]:
    return (table.headline, *table.rows)


def _percent(value: float) -> str:
    return f"{100 * value:.2f}" if math.isfinite(value) else "-"


def _interval(found: Rate) -> str:
    return f"[{_percent(found.low)}, {_percent(found.high)}]" if math.isfinite(found.low) else "-"
