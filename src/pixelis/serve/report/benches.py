"""Runs of public benchmarks: scored again from what lies in their folders, and what they say as a table. Nothing is written to them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pixelis.core.command import Command
from pixelis.core.errors import DataError
from pixelis.core.store import RUN_FILE, TRAJECTORIES_FILE, open_run, sha256
from pixelis.eval.bench.base import BenchItem
from pixelis.eval.bench.base import Table as Scores
from pixelis.eval.bench.report import ITEMS_FILE, RULES, SAME_PROMPTS, benchmark_of, counts, final_answer
from pixelis.serve.report.table import Cell, Table, cells

_ITEM = TypeAdapter(BenchItem)


@dataclass(frozen=True, kw_only=True)
class BenchRun:
    """A stored benchmark run with what follows from it."""

    name: str
    about: Mapping[str, Any]
    scores: Scores
    digest: str
    """SHA-256 of its trajectories."""
    path: str
    """Of its folder, as a command may name it."""
    commands: tuple[Command, ...] = ()
    """Command lines that worked on it."""


def read_bench(folder: Path, *, name: str, path: str, commands: tuple[Command, ...] = ()) -> BenchRun:
    """Score a benchmark run again.

    Raises:
        DataError: today's rules cannot score it, its items are missing or other ones, or a record is damaged.
        ConfigError: there is no such benchmark.
    """
    run = open_run(folder)
    if run.info.get("rules") not in SAME_PROMPTS:
        raise DataError(f"{folder}: {RUN_FILE} names no benchmark run of rules {RULES}: make one with pixelis eval bench")
    bench, items = benchmark_of(str(run.info.get("benchmark"))), _items(folder, run.info.get("items_sha256"))
    answers = {trajectory.task_id: final_answer(trajectory) for trajectory in run.trajectories() if counts(trajectory)}
    strangers = sorted(answers.keys() - {item.id for item in items})
    if strangers:
        raise DataError(f"{folder}: a trajectory is about {strangers[0]!r}, which is no item of {ITEMS_FILE}: evaluate it again")
    return BenchRun(
        name=name,
        about=run.info,
        scores=bench.score(items, answers),
        digest=sha256((folder / TRAJECTORIES_FILE).read_bytes()),
        path=path,
        commands=commands,
    )


def _items(folder: Path, digest: object) -> list[BenchItem]:
    path = folder / ITEMS_FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; without its items the run cannot be scored: evaluate again into a new folder") from None
    if sha256(data) != digest:
        raise DataError(f"{path}: has changed since the run was made; restore the file from a copy, or evaluate again into a new folder")
    try:
        return [_ITEM.validate_json(line) for line in data.splitlines()]
    except ValidationError as error:
        raise DataError(f"{path}: is damaged ({error.errors(include_url=False)[0]['msg']}); restore the file from a copy") from None


def bench_tables(benches: Sequence[BenchRun]) -> list[Table]:
    """One table over all benchmark runs; none without."""
    if not benches:
        return []
    notes = [f"{one.scores.benchmark}: {one.scores.rule}" for one in benches]
    notes += [f"{one.name}: {note}" for one in benches for note in one.scores.notes]
    said = [text.rstrip(".") for text in dict.fromkeys(notes)]
    return [
        Table(
            key="benches",
            title="Public benchmarks",
            head=("run", "benchmark", "score", "%", "items", "asked", "unanswered"),
            rows=tuple(row for one in benches for row in _rows(one)),
            note=f"The score that is printed comes first; 95 % intervals; what is not answered counts as wrong. {'. '.join(said)}.",
            source=TRAJECTORIES_FILE,
            of=tuple(one.name for one in benches),
        )
    ]


def _rows(one: BenchRun) -> Iterator[tuple[Cell, ...]]:
    """The score that papers print first, with the counts of the run."""
    scores = one.scores
    for number, row in enumerate((scores.headline, *scores.rows)):
        low, high = 100 * row.rate.low, 100 * row.rate.high
        between = f" [{low:.2f}, {high:.2f}]" if math.isfinite(low) else ""
        value = f"{100 * row.rate.value:.2f}{between}" if math.isfinite(row.rate.value) else "-"
        asked = (f"{scores.num_asked} of {scores.num_items}", str(scores.num_unanswered)) if number == 0 else ("", "")
        yield cells(one.name, scores.benchmark, row.name, value, str(row.rate.count), *asked)
