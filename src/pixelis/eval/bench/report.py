"""What a benchmark run holds and says: scores, table and budget, made from the run folder alone.

`items.jsonl` holds the items with their truth, `trajectories.jsonl` what was answered; `scores.jsonl` follows from both.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pixelis.core.errors import ConfigError, DataError
from pixelis.core.ops import record
from pixelis.core.store import RUN_FILE, Run, open_run, write_whole
from pixelis.core.trajectory import Trajectory
from pixelis.eval.bench import BENCHMARKS
from pixelis.eval.bench.base import BenchItem, Benchmark, Table, bench_text, table_json
from pixelis.eval.scores import SCORES_FILE

EVALUATION = "bench"
RULES = 2
"""Version of the rules and prompts; another one is another evaluation."""
SAME_PROMPTS = (1, RULES)
"""Versions that asked in the same words, so that their runs can be scored by these rules."""
ITEMS_FILE = "items.jsonl"


@record
class BenchScore:
    """One answer against its item; a line of `scores.jsonl`."""

    id: str
    task: str
    group: str
    score: float
    """By the benchmark's rule, in [0, 1]; rotations and pairs are put together in the table only."""
    answer: str | None
    """What was scored: None where the policy gave none."""
    stop: str
    steps: int
    tokens: int
    """Tokens that the policy sampled; 0 for a policy without tokens."""
    trajectory: str


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """What a run says."""

    about: dict[str, Any]
    """What was evaluated: benchmark, policy, tools, limits, versions."""
    table: Table
    scores: tuple[BenchScore, ...]
    """Of the items that were asked, in the order of the items."""
    budget: dict[str, float]


_ITEM, _SCORE = TypeAdapter(BenchItem), TypeAdapter(BenchScore)


def item_lines(items: Iterable[BenchItem]) -> bytes:
    """The content of `items.jsonl`."""
    return _lines(_ITEM, items)


def benchmark_of(name: str) -> Benchmark:
    """Raises: ConfigError: there is no benchmark of that name."""
    if name not in BENCHMARKS:
        raise ConfigError(f"there is no benchmark {name!r}: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def score_bench_run(folder: str | os.PathLike) -> BenchReport:
    """Score every trajectory of a run again by today's rules and write `scores.jsonl` anew, from the folder alone.

    Raises:
        DataError: no benchmark run that these rules can score lies there, or a record of it is damaged.
    """
    run = open_run(folder)
    if run.info.get("evaluation") != EVALUATION or run.info.get("rules") not in SAME_PROMPTS:
        raise DataError(f"{folder}: {RUN_FILE} names no benchmark run of rules {RULES}: make one with pixelis eval bench")
    bench = benchmark_of(str(run.info.get("benchmark")))
    items = _stored_items(run)
    scores = _scores(bench, items, run)
    write_file(Path(folder) / SCORES_FILE, _lines(_SCORE, scores))
    timings = run.timings()
    return BenchReport(
        about={**run.info, "rules": RULES},
        table=bench.score(items, {score.id: score.answer for score in scores}),
        scores=tuple(scores),
        budget={
            "items": len(scores),
            "rollouts_per_item": 1,
            "steps": sum(score.steps for score in scores),
            "tokens": sum(score.tokens for score in scores),
            "seconds": round(sum(timings[score.trajectory].total_s for score in scores if score.trajectory in timings), 3),
        },
    )


def final_answer(trajectory: Trajectory) -> str | None:
    """What is scored: the last turn's answer alone; None for none, or for blanks."""
    answer = trajectory.answer
    return None if answer is None or not answer.strip() else answer


def report_json(report: BenchReport) -> dict[str, Any]:
    """Plain JSON values without the single scores."""
    return {**report.about, "budget": report.budget, **table_json(report.table)}


def report_text(report: BenchReport) -> str:
    """The report for people."""
    about, policy = report.about, report.about.get("policy", {})
    off = about.get("tool_settings", {}).get("disabled")
    head = [
        f"{report.table.benchmark}, seed {about.get('seed')}",
        f"policy {policy.get('name')} {policy.get('version')}; tools {'off: ' + ' '.join(off) if off else 'all on'}",
        "versions: " + ", ".join(f"{key} {value}" for key, value in about.get("versions", {}).items()),
    ]
    budget = "budget: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in report.budget.items())
    return "\n".join([*head, "", bench_text(report.table), budget])


def counts(trajectory: Trajectory) -> bool:
    """Whether it says anything of the policy: an interruption was the user's, and the item is asked again."""
    return trajectory.stop != "interrupted"


def _stored_items(run: Run) -> list[BenchItem]:
    path = run.folder / ITEMS_FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; without its items the run cannot be scored: evaluate again into a new folder") from None
    items = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            items.append(_ITEM.validate_json(line))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the line"
            raise DataError(f"{path}:{number}: {where}: {first['msg']}; restore the file from a copy") from None
    if hashlib.sha256(data).hexdigest() != run.info.get("items_sha256"):
        raise DataError(f"{path}: has changed since the run was made; restore the file from a copy, or evaluate again into a new folder")
    return items


def _scores(bench: Benchmark, items: Sequence[BenchItem], run: Run) -> list[BenchScore]:
    """One score for each item that was asked, in the order of the items."""
    known = {item.id: item for item in items}
    found: dict[str, BenchScore] = {}
    for trajectory in run.trajectories():
        item = known.get(trajectory.task_id)
        if item is None or trajectory.question != item.prompt:
            raise DataError(f"trajectory {trajectory.id} is about {trajectory.task_id!r}, which is no item of this run: evaluate it again")
        if counts(trajectory):
            found[item.id] = _score(bench, item, trajectory)
    return [found[item.id] for item in items if item.id in found]


def _score(bench: Benchmark, item: BenchItem, trajectory: Trajectory) -> BenchScore:
    answer = final_answer(trajectory)
    return BenchScore(
        id=item.id,
        task=item.task,
        group=item.group,
        score=round(bench.item_score(item, answer), 6),
        answer=answer,
        stop=trajectory.stop,
        steps=len(trajectory.steps),
        tokens=sum(len(run.ids) for run in trajectory.tokens if run.role == "policy"),
        trajectory=trajectory.id,
    )


def _lines(adapter: TypeAdapter, records: Iterable[Any]) -> bytes:
    return b"".join(adapter.dump_json(entry) + b"\n" for entry in records)


def write_file(path: Path, data: bytes) -> None:
    """A file that is there whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    try:
        write_whole(path, data)
    except OSError as error:
        raise DataError(f"{path}: cannot write ({error.strerror}); what was acknowledged before is safe") from None
