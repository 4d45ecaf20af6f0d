"""The same items under several conditions, each a PixelWorld run in a folder of its own below one parent.

What is finished is not run again: a killed sweep goes on with the item it was at, and a sweep may be asked for more conditions later.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pixelis.core.command import note_command
from pixelis.core.errors import DataError
from pixelis.core.store import RUN_FILE, write_whole
from pixelis.data.world.shifts import Shift
from pixelis.eval.pixelworld import MAY_DIFFER, ItemSet, Progress, describe, evaluate
from pixelis.eval.report import MACHINE_ERRORS, Report
from pixelis.eval.runs import check_same
from pixelis.eval.scores import SCORES_FILE, ItemScore, read_scores
from pixelis.policy.base import Policy
from pixelis.rollout.run import Limits
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What is different this time."""

    name: str
    """Of its folder."""
    executor: Executor
    settings: ToolSettings
    shift: Shift | None = None
    policy: Policy | None = None
    """Another than the sweep's."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What stays the same under all conditions.

    Attributes:
        kind: of evaluation, as run.json of the parent names it.
        items: without a shift.
        first, num_items: the range of items.
        folder: the parent.
        settings: of the tools where nothing was done to them.
        options: what only this kind knows of itself; part of its identity.
    """

    kind: str
    policy: Policy
    items: ItemSet
    first: int
    num_items: int
    folder: Path
    settings: ToolSettings
    limits: Limits = Limits()
    num_parallel: int = 8
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def wanted(self) -> range:
        return range(self.first, self.first + self.num_items)

    def about(self, names: Sequence[str]) -> dict[str, Any]:
        """Facts of the whole sweep, as plain JSON values."""
        facts = describe(self.policy, self.settings, self.items, limits=self.limits, first=self.first, count=self.num_items)
        return {**facts, "evaluation": self.kind, "options": json.loads(json.dumps(dict(self.options))), "conditions": list(names)}


def run_sweep(sweep: Sweep, conditions: Sequence[Condition], *, progress: Progress | None = None) -> dict[str, tuple[ItemScore, ...]]:
    """Run what is missing, condition by condition.

    Args:
        progress: called with (items done, items wanted), over all conditions.

    Returns:
        By condition, the scores of the wanted items in their order.

    Raises:
        DataError: the folder holds another sweep, or nothing is wanted.
    """
    if sweep.num_items < 1 or sweep.first < 0:
        raise DataError(f"nothing to evaluate: {sweep.num_items} items from number {sweep.first}; wanted are 1 or more, from 0 or later")
    begin(sweep, [condition.name for condition in conditions])
    total = len(conditions) * sweep.num_items
    found = {}
    for number, condition in enumerate(conditions):
        done = number * sweep.num_items
        step = (lambda k, _, done=done: progress(done + k, total)) if progress else None
        found[condition.name] = _stored(sweep, condition) or run_condition(sweep, condition, step).scores
        if progress:
            progress(done + sweep.num_items, total)
    return found


def begin(sweep: Sweep, names: Sequence[str]) -> None:
    """Begin the parent folder, or go on in it with more conditions.

    Raises:
        DataError: it holds another sweep, or cannot be written.
    """
    about, path = sweep.about(names), sweep.folder / RUN_FILE
    if path.exists():
        there = read_facts(sweep.folder)
        check_same(sweep.folder, there, about, may_differ=(*MAY_DIFFER, "conditions"))
        about["conditions"] = list(dict.fromkeys([*there.get("conditions", ()), *names]))
    try:
        sweep.folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(about, indent=1, sort_keys=True) + "\n").encode())
    except OSError as error:
        raise DataError(f"{path}: cannot write ({error.strerror}): choose another folder") from None
    note_command(sweep.folder)


def read_facts(folder: str | os.PathLike) -> dict[str, Any]:
    """A folder's run.json.

    Raises:
        DataError: there is none, or it holds no facts.
    """
    path = Path(folder) / RUN_FILE
    try:
        facts = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    if not isinstance(facts, dict):
        raise DataError(f"{path} holds {type(facts).__name__}, not the facts of a run")
    return facts


def _stored(sweep: Sweep, condition: Condition) -> tuple[ItemScore, ...]:
    """The scores of a condition that is finished; nothing when a wanted one is missing.

    They are read and not made again: making the items of a grid takes longer than all the rest of a report. The run must be this sweep's,
    as it would have to be to go on in its folder.
    """
    folder = sweep.folder / condition.name
    if not (folder / SCORES_FILE).is_file() or not (folder / RUN_FILE).is_file():
        return ()
    about = describe(sweep.policy, condition.settings, replace(sweep.items, shift=condition.shift), limits=sweep.limits, first=0, count=0)
    check_same(folder, read_facts(folder), about, may_differ=MAY_DIFFER)
    by_index = {score.index: score for score in read_scores(folder)}
    return tuple(by_index[index] for index in sweep.wanted) if by_index.keys() >= set(sweep.wanted) else ()


def run_condition(sweep: Sweep, condition: Condition, progress: Progress | None) -> Report:
    """Run what is missing of one condition."""
    return evaluate(
        condition.policy or sweep.policy,
        condition.executor,
        condition.settings,
        split=sweep.items.split,
        seed=sweep.items.seed,
        first=sweep.first,
        num_items=sweep.num_items,
        shift=condition.shift,
        families=sweep.items.families,
        num_parallel=sweep.num_parallel,
        limits=sweep.limits,
        out_folder=sweep.folder / condition.name,
        keep_media=False,
        progress=progress,
    )


def write_result(folder: Path, name: str, values: dict[str, Any]) -> Path:
    """Write a result beside its runs, whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    try:
        write_whole(folder / name, (json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise DataError(
            f"{folder / name}: cannot write ({error.strerror}); the runs are safe: make room, then run the command again"
        ) from None
    return folder / name


def read_result(folder: Path, name: str, kind: str, make: Callable[[dict[str, Any]], R]) -> R:
    """What `write_result` left beside its runs.

    Args:
        kind: of evaluation, by which the command is named that makes it.
        make: from the stored values.

    Raises:
        DataError: nothing is there yet, or the file is damaged.
    """
    path, command = folder / name, f"pixelis eval {kind} --out {folder}"
    try:
        return make(json.loads(path.read_bytes()))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; it is not finished: run {command} again") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}); make it again: {command}") from None


def num_late(scores: Sequence[ItemScore]) -> int:
    """Trajectories in which a call or the whole failed for the machine's sake: a busy machine looks like a weak policy."""
    return sum(score.stop == "time_limit" or any(error in MACHINE_ERRORS for error in score.errors) for score in scores)
