"""PixelWorld as an examination: a policy answers items with the real tools, and each trajectory is scored against the exact truth.

A run folder holds the trajectories, `scores.jsonl` beside them and, in `run.json`, all that is needed to make the items again: so a
killed evaluation goes on where it stopped, and `rescore` needs neither policy nor tools.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelis.core.errors import ConfigError, DataError
from pixelis.core.media import open_medium
from pixelis.core.store import RUN_FILE, Run, RunWriter, open_run
from pixelis.core.trajectory import Timing, Trajectory
from pixelis.data.world.item import Item
from pixelis.data.world.items import FAMILIES, make_item, render
from pixelis.data.world.shifts import Shift, parse_shift
from pixelis.data.world.splits import VERSION
from pixelis.data.world.words import check_split
from pixelis.eval.report import Report, make_report
from pixelis.eval.runs import open_writer, run_facts
from pixelis.eval.scores import ItemScore, score_trajectory, write_scores
from pixelis.policy.base import Policy, Task
from pixelis.rollout.run import Limits, Runner
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings

EVALUATION = "pixelworld"
CHUNK = 32
"""Items whose media are open at once."""
MAY_DIFFER = ("items.first", "items.count")
"""A run may go on with another range of the same items."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class ItemSet:
    """Which items: their place in the set decides the family, as in `splits.make_split`.

    Raises:
        DataError: no such split or family.
    """

    split: str = "test"
    seed: int = 0
    shift: Shift | None = None
    families: tuple[str, ...] = ()
    """Only these, in turn; all when empty."""

    def __post_init__(self) -> None:
        check_split(self.split)
        unknown = [name for name in self.families if name not in FAMILIES]
        if unknown:
            raise DataError(f"no PixelWorld family {', '.join(map(repr, unknown))}: they are {', '.join(FAMILIES)}")

    def item(self, index: int) -> Item:
        names = self.families or tuple(FAMILIES)
        return make_item(self.split, index, seed=self.seed, family=names[index % len(names)], shift=self.shift)

    def item_of(self, trajectory: Trajectory) -> Item:
        """The item that a trajectory is about, made again.

        Raises:
            DataError: it is not of this set.
        """
        number = trajectory.task_id.removeprefix(f"{self.split}-{self.seed}-").partition("-")[0]
        item = self.item(int(number)) if number.isdecimal() else None
        if item is None or item.id != trajectory.task_id:
            raise DataError(f"trajectory {trajectory.id} is about {trajectory.task_id!r}, which is no item of {self.to_json()}")
        return item

    def to_json(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "seed": self.seed,
            "shift": str(self.shift) if self.shift else None,
            "families": list(self.families),
        }


def evaluate(
    policy: Policy,
    executor: Executor,
    settings: ToolSettings,
    *,
    split: str = "test",
    seed: int = 0,
    first: int = 0,
    num_items: int,
    shift: Shift | None = None,
    families: Sequence[str] = (),
    num_parallel: int = 8,
    num_parallel_calls: Mapping[str, int] | int = 2,
    limits: Limits = Limits(),
    out_folder: str | os.PathLike | None = None,
    keep_media: bool = True,
    progress: Progress | None = None,
) -> Report:
    """Let a policy answer items of PixelWorld, and score what it did.

    Args:
        policy: under test; it sees questions and media, never the truth.
        executor: the tools, made from `settings`.
        settings: recorded with every trajectory; `toolbox.resolved` first, so that names and not `auto` are recorded.
        seed: of the items and of the policy's sampling.
        first, num_items: the range of items.
        num_parallel, num_parallel_calls: see `Runner`.
        out_folder: where to leave trajectories and scores. What stands there of this very evaluation is not run again; a larger
            range extends it. None keeps the scores only.
        keep_media: copy the media into the folder, about 0.25 MB an item, so that the run can be viewed and replayed.
        progress: called with (items done, items wanted), in the order of the items.

    Returns:
        The report over the range.

    Raises:
        DataError: no such items, or the folder holds something else.
        ConfigError: executor and settings disagree on which tools are off.
    """
    items = ItemSet(split=split, seed=seed, shift=shift, families=tuple(families))
    if num_items < 1 or first < 0:
        raise DataError(f"nothing to evaluate: {num_items} items from number {first}; wanted are 1 or more, from 0 or later")
    if executor.disabled != set(settings.disabled):
        raise ConfigError(f"the executor has {sorted(executor.disabled)} switched off, the settings {sorted(settings.disabled)}")
    about = describe(policy, settings, items, limits=limits, first=first, count=num_items)
    runner = Runner(policy, executor, settings=settings, limits=limits, num_parallel=num_parallel, num_parallel_calls=num_parallel_calls)
    wanted = range(first, first + num_items)
    with ExitStack() as stack:
        desk = _Desk(items=items, wanted=wanted, progress=progress)
        if out_folder is not None:
            desk.writer = stack.enter_context(open_writer(Path(out_folder), about, may_differ=MAY_DIFFER))
            desk.take_stored(open_run(out_folder))
        _run_missing(runner, desk, seed=seed, keep_media=keep_media)
    return make_report(about, [desk.scores[index] for index in wanted], desk.timings, seed=seed)


def rescore(folder: str | os.PathLike) -> Report:
    """Score every trajectory of a run again and write `scores.jsonl` anew; neither policy, tools nor media are needed.

    Raises:
        DataError: no evaluation of this version of PixelWorld lies there, or a record of it is damaged.
    """
    run, items = open_evaluation(folder)
    desk = _Desk(items=items)
    desk.take_stored(run)
    write_scores(folder, desk.in_order())
    return make_report(run.info, desk.in_order(), desk.timings, seed=items.seed)


def open_evaluation(folder: str | os.PathLike) -> tuple[Run, ItemSet]:
    """A stored evaluation and the items it is about.

    Raises:
        DataError: no evaluation of this version of PixelWorld lies there.
    """
    run = open_run(folder)
    if run.info.get("evaluation") != EVALUATION or run.info.get("world") != VERSION:
        raise DataError(
            f"{folder}: {RUN_FILE} names no PixelWorld evaluation of version {VERSION}: make one with pixelis eval pixelworld --run FOLDER"
        )
    try:
        known = run.info["items"]
        shift = parse_shift(known["shift"]) if known["shift"] else None
        return run, ItemSet(split=known["split"], seed=known["seed"], shift=shift, families=tuple(known["families"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{Path(folder) / RUN_FILE}: items: a key is missing or of the wrong type ({error})") from None


def describe(policy: Policy, settings: ToolSettings, items: ItemSet, *, limits: Limits, first: int, count: int) -> dict[str, Any]:
    """Facts of a whole evaluation, as plain JSON values: its run.json, and the head of its report."""
    own = {"evaluation": EVALUATION, "world": VERSION, "items": {**items.to_json(), "first": first, "count": count}}
    return run_facts(policy, settings, limits=limits, **own)


@dataclass(kw_only=True)
class _Desk:
    """Where trajectories arrive: first on the disk, then scored. The runner writes to it as to a `RunWriter`."""

    items: ItemSet
    wanted: range = range(0)
    progress: Progress | None = None
    writer: RunWriter | None = None
    scores: dict[int, ItemScore] = field(default_factory=dict)
    timings: dict[str, Timing] = field(default_factory=dict)
    open_items: dict[str, Item] = field(default_factory=dict)
    num_done: int = 0
    """Of the wanted."""

    def append(self, trajectory: Trajectory, *, blobs: Mapping[str, bytes] = {}, timing: Timing | None = None) -> None:
        if self.writer is not None:
            self.writer.append(trajectory, blobs=blobs, timing=timing)
        self._take(self.open_items[trajectory.task_id], trajectory, timing)

    def take_stored(self, run: Run) -> None:
        """Score what a run holds."""
        timings = run.timings()
        for trajectory in run.trajectories():
            self._take(self.items.item_of(trajectory), trajectory, timings.get(trajectory.id))

    def _take(self, item: Item, trajectory: Trajectory, timing: Timing | None) -> None:
        if trajectory.stop == "interrupted":  # by the user: says nothing of the policy, and is run again
            return
        self.num_done += item.index in self.wanted and item.index not in self.scores
        self.scores[item.index] = score_trajectory(item, trajectory)
        if timing is not None:
            self.timings[trajectory.id] = timing
        if self.progress is not None:
            self.progress(self.num_done, len(self.wanted))

    def missing(self) -> list[int]:
        return [index for index in self.wanted if index not in self.scores]

    def save(self) -> None:
        """Write the scores beside the trajectories."""
        if self.writer is not None:
            write_scores(self.writer.folder, self.in_order())

    def in_order(self) -> list[ItemScore]:
        return [self.scores[index] for index in sorted(self.scores)]


def _run_missing(runner: Runner, desk: _Desk, *, seed: int, keep_media: bool) -> None:
    """Run what has no score yet, a chunk at a time, so that memory does not grow with the number of items."""
    missing = desk.missing()
    try:
        for start in range(0, len(missing), CHUNK):
            _run_chunk(runner, desk, missing[start : start + CHUNK], seed=seed, keep_media=keep_media)
            desk.save()  # a kill leaves scores that are one chunk old
    finally:
        desk.save()


def _run_chunk(runner: Runner, desk: _Desk, indices: Iterable[int], *, seed: int, keep_media: bool) -> None:
    jobs: list[tuple[Task, int]] = []
    desk.open_items.clear()
    with ExitStack() as media:
        for index in indices:
            item = desk.items.item(index)
            data = render(item)
            if desk.writer is not None and keep_media:
                desk.writer.put_blob(data)
            medium = media.enter_context(open_medium(data, name=item.medium_name))
            desk.open_items[item.id] = item
            jobs.append((Task(question=item.prompt, medium=medium, id=item.id), seed))
        runner.run(jobs, desk)  # type: ignore[arg-type]
