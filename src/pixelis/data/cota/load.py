"""Traces in our own format: a run folder with `scores.jsonl` beside `trajectories.jsonl`, line by line in the same order.

A line of scores: `{"id": trajectory id, "family", "split", "answer": the right answer in words, "accepted", "score", "planned_errors":
[steps from 0], "hardness", "item": {"split", "index", "seed", "family", "variant"} or null}`. Further keys are the scorer's own. A medium
is a blob of the run, or is made again from the item by the caller. A trace set is a folder with such run folders as `shards/0000` and on.

`read_traces` stops at the first fault with its file and line; `check_traces` goes through everything and lists them all.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pixelis.core import store
from pixelis.core.errors import DataError
from pixelis.core.ops import OPS, ZoomOutput
from pixelis.core.store import Run, open_run
from pixelis.core.trajectory import SCHEMA, Trajectory
from pixelis.data.cota.leak import find_leak

SCORES_FILE = "scores.jsonl"
_ITEM_KEYS = {"split": str, "index": int, "seed": int, "family": str, "variant": object}


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One trajectory with what its maker knows about it."""

    trajectory: Trajectory
    accepted: bool
    family: str
    split: str
    answer: str
    """The right answer in words, also where the question asks for a letter."""
    planned_errors: tuple[int, ...]
    """Steps, from 0, at which the teacher went wrong on purpose."""
    score: float
    hardness: float
    item: dict[str, Any] | None
    """What names the PixelWorld item: split, index, seed, family, variant; None for a question from elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One fault and where it is."""

    path: Path
    line: int | None
    """From 1; None when the file as a whole is meant."""
    kind: str
    """record, schema, scores, op, blob, leak, unanswered or empty."""
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}" if self.line else f"{self.path}: {self.message}"


@dataclass(frozen=True, kw_only=True)
class TraceReport:
    """What lies in a folder of traces. Counts are of the traces that could be read."""

    folder: Path
    num_traces: int
    num_accepted: int
    num_steps: int
    num_by_split: dict[str, int]
    num_by_family: dict[str, int]
    problems: tuple[Problem, ...]

    @property
    def is_ok(self) -> bool:
        return not self.problems


@dataclass(frozen=True, kw_only=True)
class _ScoreLine:
    __pydantic_config__ = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    id: str
    family: str
    split: str
    answer: str
    accepted: bool
    score: float
    planned_errors: tuple[int, ...]
    hardness: float
    item: dict[str, Any] | None = None


_SCORE_LINE = TypeAdapter(_ScoreLine)


def read_traces(
    folder: str | os.PathLike, *, only_accepted: bool = True, split: str | None = None, need_crops: bool = True
) -> Iterator[Trace]:
    """The traces of a run folder, or of a trace set's shards, in order.

    Args:
        only_accepted: leave out those that were not accepted; what is left out is not judged, but must be readable.
        split: only this split; None gives all.
        need_crops: the crops that the policy saw must lie among the blobs; False when the caller makes them again.

    Raises:
        DataError: at once when the folder is no run with scores; while reading at the first fault, with file and line; at the end
            when no trace is left.
    """
    runs = _open(folder)
    return _wanted(Path(folder), runs, only_accepted=only_accepted, split=split, need_crops=need_crops)


def check_traces(folder: str | os.PathLike, *, need_crops: bool = True) -> TraceReport:
    """Read everything, blobs included, and list every fault.

    Raises:
        DataError: the folder is no run with scores.
    """
    runs = _open(folder)
    problems: list[Problem] = []
    splits: Counter[str] = Counter()
    families: Counter[str] = Counter()
    num_accepted = num_steps = 0
    for run, line, trace, faults in _examine(runs):
        problems += faults
        if trace is None:
            continue
        problems += _judge(trace, run, line, need_crops=need_crops, read_blobs=True)
        splits[trace.split] += 1
        families[trace.family] += 1
        num_accepted += trace.accepted
        num_steps += len(trace.trajectory.steps)
    if not splits and not problems:
        problems.append(_empty(Path(folder), "there is no trace in it: make some, or name another folder"))
    elif splits and not num_accepted:
        problems.append(_empty(Path(folder), f"none of its {splits.total()} traces was accepted"))
    return TraceReport(
        folder=Path(folder),
        num_traces=splits.total(),
        num_accepted=num_accepted,
        num_steps=num_steps,
        num_by_split=dict(sorted(splits.items())),
        num_by_family=dict(sorted(families.items())),
        problems=tuple(problems),
    )


def _open(folder: str | os.PathLike) -> list[Run]:
    """The run of a run folder, or the runs of a trace set."""
    shards = sorted(path for path in (Path(folder) / "shards").glob("[0-9]*") if path.is_dir() and not path.suffix)
    runs = [open_run(path) for path in shards or [folder]]
    for run in runs:
        if not (run.folder / SCORES_FILE).is_file():
            raise DataError(f"{run.folder} holds trajectories without {SCORES_FILE}: score the run first")
    return runs


def _wanted(folder: Path, runs: list[Run], *, only_accepted: bool, split: str | None, need_crops: bool) -> Iterator[Trace]:
    seen: Counter[str] = Counter()
    num_given = num_accepted = 0
    for run, line, trace, faults in _examine(runs):
        is_wanted = trace is not None and (trace.accepted or not only_accepted) and split in (None, trace.split)
        if trace is not None and is_wanted:
            faults = faults + _judge(trace, run, line, need_crops=need_crops, read_blobs=False)
        if faults:
            raise DataError(str(faults[0]))
        if trace is not None:
            seen[trace.split] += 1
            num_accepted += trace.accepted
            if is_wanted:
                num_given += 1
                yield trace
    if not num_given:
        what = f"no{' accepted' * only_accepted} trace{f' of split {split!r}' if split is not None else ''} in it"
        have = ", ".join(f"{name} {count}" for name, count in sorted(seen.items())) or "none at all"
        raise DataError(str(_empty(folder, f"{what} (traces by split: {have}; {num_accepted} accepted in all)")))


def _empty(folder: Path, message: str) -> Problem:
    return Problem(path=folder, line=None, kind="empty", message=message)


# ---------------------------------------------------------------- line by line


def _examine(runs: list[Run]) -> Iterator[tuple[Run, int, Trace | None, list[Problem]]]:
    """Every pair of lines: its run and number, its trace when both can be read, and what is wrong with its form."""
    places: dict[str, str] = {}
    for run in runs:
        records_path, scores_path = run.folder / store.TRAJECTORIES_FILE, run.folder / SCORES_FILE
        with open(records_path, "rb") as records, open(scores_path, "rb") as scores:
            for line, (record, score) in enumerate(zip_longest(records, scores), 1):
                if record is None or score is None:
                    yield run, line, None, [_one_is_shorter(records_path, scores_path, line, record is None)]
                    break
                problems: list[Problem] = []
                trajectory = _read_record(records_path, line, record, problems)
                scored = _read_score(scores_path, line, score, problems)
                if trajectory is not None and scored is not None:
                    problems += _mismatches(scores_path, line, trajectory, scored)
                if trajectory is not None:
                    here = f"{records_path}:{line}"
                    if (first := places.setdefault(trajectory.id, here)) != here:
                        text = f"trajectory {trajectory.id} stands already in {first}: remove one of them"
                        problems.append(Problem(path=records_path, line=line, kind="record", message=text))
                trace = None if problems or trajectory is None or scored is None else _join(trajectory, scored)
                yield run, line, trace, problems


def _one_is_shorter(records: Path, scores: Path, line: int, is_record: bool) -> Problem:
    """One file ends before the other: after that no line can be trusted to belong to its neighbour."""
    short, long = (records, scores) if is_record else (scores, records)
    text = f"the file ends before this line, but {long.name} goes on: one was cut, or they are of two runs; make or score the run again"
    return Problem(path=short, line=line, kind="record" if is_record else "scores", message=text)


def _read_record(path: Path, line: int, data: bytes, problems: list[Problem]) -> Trajectory | None:
    where = f"{path}:{line}"
    if not data.endswith(b"\n"):
        text = f"the record is unfinished ({len(data)} bytes of it are there): its writer was killed; resume it, or cut these bytes off"
        problems.append(Problem(path=path, line=line, kind="record", message=text))
        return None
    try:
        return store._parse_line(data, where=where)
    except DataError as error:
        version = _schema_version(data)
        if version in (None, SCHEMA):
            problems.append(Problem(path=path, line=line, kind="record", message=str(error).removeprefix(f"{where}: ")))
        else:
            text = f"schema {version!r}, but this version of Pixelis reads schema {SCHEMA}: a run has one schema; make this trace again"
            problems.append(Problem(path=path, line=line, kind="schema", message=text))
        return None


def _schema_version(data: bytes) -> Any:
    """The schema version that a record claims; None when it claims none."""
    try:
        return json.loads(data)["trajectory"]["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _read_score(path: Path, line: int, data: bytes, problems: list[Problem]) -> _ScoreLine | None:
    try:
        scored = _SCORE_LINE.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "the line"
        text = f"{name}: {first['msg']} ({error.error_count()} problems in all); score the run again"
        problems.append(Problem(path=path, line=line, kind="scores", message=text))
        return None
    for key, kind in _ITEM_KEYS.items() if scored.item is not None else ():
        if key not in scored.item or not isinstance(scored.item[key], kind):
            text = f"item.{key} is {'of the wrong type' if key in scored.item else 'missing'}: an item has {', '.join(_ITEM_KEYS)}"
            problems.append(Problem(path=path, line=line, kind="scores", message=text))
            return None
    return scored


def _mismatches(path: Path, line: int, trajectory: Trajectory, scored: _ScoreLine) -> list[Problem]:
    """Where a line of scores does not belong to the trajectory of the same line, or contradicts itself."""
    texts = []
    if scored.id != trajectory.id:
        texts.append(f"scores of {scored.id}, but line {line} of {store.TRAJECTORIES_FILE} is {trajectory.id}: score the run again")
    beyond = [step for step in scored.planned_errors if not 0 <= step < len(trajectory.steps)]
    if beyond:
        texts.append(f"planned_errors names step {beyond[0]}, counted from 0, but the trajectory has {len(trajectory.steps)} steps")
    if scored.item is not None:
        for key in ("split", "family"):
            if scored.item[key] != getattr(scored, key):
                texts.append(f"{key} is {getattr(scored, key)!r}, but the item's is {scored.item[key]!r}")
    return [Problem(path=path, line=line, kind="scores", message=text) for text in texts]


def _join(trajectory: Trajectory, scored: _ScoreLine) -> Trace:
    facts = {name: value for name, value in vars(scored).items() if name != "id"}
    return Trace(trajectory=trajectory, **facts)


# ---------------------------------------------------------------- what a trace says


def _judge(trace: Trace, run: Run, line: int, *, need_crops: bool, read_blobs: bool) -> list[Problem]:
    """What is wrong with the content of a well-formed trace.

    Args:
        read_blobs: compare each blob's content with its name, which costs reading every byte; else it must only be there.
    """
    trajectory, path = trace.trajectory, run.folder / store.TRAJECTORIES_FILE
    found: list[tuple[str, str]] = []
    for number, step in enumerate(trajectory.steps, 1):
        names = {step.call.op if step.call else "", step.result.op} - {*OPS, ""}
        found += [("op", f"step {number} calls the unknown op {name!r}: the ops are {', '.join(OPS)}") for name in sorted(names)]
    blobs = _crops_of(trajectory) if need_crops else []
    blobs += [("the medium, which no item names,", trajectory.medium.sha256)] if trace.item is None else []
    for what, name in blobs:
        fault = _blob_fault(run, name, read=read_blobs)
        found += [("blob", f"{what}: {fault}; restore it from a copy, or make this trace again")] if fault else []
    leak = find_leak(trajectory.question, trace.answer)
    if leak:
        found.append(("leak", f"{leak}: a policy trained on it learns to copy; take the trace out"))
    if trace.accepted and (trajectory.stop != "answered" or trajectory.answer is None):
        found.append(("unanswered", f"accepted, but it stopped with {trajectory.stop!r} and has no answer"))
    return [Problem(path=path, line=line, kind=kind, message=message) for kind, message in found]


def _crops_of(trajectory: Trajectory) -> list[tuple[str, str]]:
    """Pictures that the policy was shown besides the medium itself: where, and SHA-256."""
    outputs = [(number, step.result.output) for number, step in enumerate(trajectory.steps, 1)]
    crops = {output.image: f"step {number}" for number, output in outputs if isinstance(output, ZoomOutput)}
    for tokens in trajectory.tokens:
        for image in tokens.images:
            if not image.startswith(trajectory.medium.sha256):  # the medium, or one of its frames as <hash>:<frame>
                crops.setdefault(image, "the tokens")
    return [(where, image) for image, where in crops.items()]


def _blob_fault(run: Run, name: str, *, read: bool) -> str:
    """What is wrong with a blob; empty when nothing is."""
    if not read and run.blob_path(name).is_file():
        return ""
    try:
        run.blob(name)
    except DataError as error:
        return str(error)
    return ""
