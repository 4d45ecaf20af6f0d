"""Rolls out the same items several times, and compares what baselines at inference time make of the stored rollouts.

The folder holds a run per rollout (`on-00`, `on-01`, ... with the tools, `off-00`, ... with all of them off, `greedy`), and
`consistency.json` with every number. What is finished is not run again; more rollouts may be asked for later.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pixelis.core.errors import ConfigError, DataError
from pixelis.core.ops import OPS
from pixelis.core.store import open_run
from pixelis.core.trajectory import PolicyInfo
from pixelis.data.world.item import Item
from pixelis.data.world.score import score_answer
from pixelis.eval.consistency import Draw, Pool, draw_of, fit
from pixelis.eval.consistency_table import Consistency, consistency_from_json, consistency_json, make_consistency
from pixelis.eval.pixelworld import ItemSet, Progress, open_evaluation
from pixelis.eval.sweep import Condition, Sweep, begin, num_late, read_facts, read_result, run_condition, write_result
from pixelis.policy.base import Policy, Session, Task
from pixelis.tools.base import Toolbox
from pixelis.tools.cache import cache_for
from pixelis.tools.execute import Executor

CONSISTENCY = "consistency"
"""The kind of evaluation, as run.json names it."""
CONSISTENCY_FILE = "consistency.json"
GREEDY, ON, OFF = "greedy", "on", "off"
SAME = ("policy", "tool_settings", "limits", "world")
"""What a calibration folder must have in common with the run that it calibrates."""


@dataclass(frozen=True, kw_only=True)
class Consistencies:
    about: dict[str, Any]
    """Facts of the whole."""
    found: Consistency


class Reseeded:
    """A policy whose sessions all have one seed of their own: another rollout of the very same items.

    Closing it closes nothing: whoever made the policy closes it.
    """

    def __init__(self, policy: Policy, seed: int) -> None:
        self.info: PolicyInfo = replace(policy.info, sampling={**policy.info.sampling, "seed": seed})
        self._policy, self._seed = policy, seed

    def open(self, task: Task, *, seed: int) -> Session:
        return self._policy.open(task, seed=self._seed)

    def close(self) -> None:
        return None


def run_consistency(
    sweep: Sweep,
    tools: Toolbox,
    *,
    num_rollouts: int,
    greedy: Callable[[], Policy] | None = None,
    is_fused: bool = False,
    calibration: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> Consistencies:
    """Roll out what is missing, then compare.

    Args:
        sweep: of kind `CONSISTENCY`; its policy samples, at a temperature above 0. Rollout k has the seed of the items plus k.
        tools: made from the sweep's settings, in which no op is off.
        num_rollouts: of every item: K.
        greedy: makes the same policy at temperature 0; asked for last, and closed. None leaves that rollout out.
        is_fused: also roll out K // 2 times with all tools off, for late fusion.
        calibration: a folder that this function left, of the same policy on another split with as many rollouts.
        progress: called with (items done, items wanted), over all rollouts.

    Raises:
        ConfigError: fewer than two rollouts, or an op is off.
        DataError: the folder holds another run; or the calibration folder is about the split under test, about another policy, or is not
            finished.
    """
    if num_rollouts < 2:
        raise ConfigError(f"{num_rollouts} rollouts of an item have nothing to vote on: take 2 or more")
    if sweep.settings.disabled:
        raise ConfigError(f"tools.disabled is {list(sweep.settings.disabled)}; the rollouts are made with all tools on: leave it out")
    names = part_names(num_rollouts, is_fused=is_fused, is_greedy=greedy is not None)
    about = sweep.about(names)
    if calibration is not None:  # before the work: a wrong folder costs no hour
        check_calibration(calibration, about)
    begin(sweep, names)
    late = _run_parts(sweep, tools, names, greedy, progress)
    fitted = None
    if calibration is not None:
        items = _items(*open_items(calibration))
        fitted = fit(read_pools(calibration, items, names), _judge(items))
    items = _items(sweep.items, sweep.wanted)
    made = make_consistency(read_pools(sweep.folder, items, names), _judge(items), fitted=fitted, seed=sweep.items.seed, num_late=late)
    about = {**read_facts(sweep.folder), "conditions": names, "calibration": _calibration_facts(calibration)}
    found = Consistencies(about=about, found=made)
    write_result(sweep.folder, CONSISTENCY_FILE, consistencies_json(found))
    return found


def part_names(num_rollouts: int, *, is_fused: bool, is_greedy: bool) -> list[str]:
    """The run folders of K rollouts."""
    names = [f"{ON}-{k:02d}" for k in range(num_rollouts)]
    names += [f"{OFF}-{k:02d}" for k in range(num_rollouts // 2)] if is_fused else []
    return [*names, *([GREEDY] if is_greedy else [])]


def _run_parts(sweep: Sweep, tools: Toolbox, names: Sequence[str], greedy: Callable[[], Policy] | None, progress: Progress | None) -> int:
    """Run every part that is not finished; how many trajectories failed for the machine's sake."""
    cache = cache_for(sweep.settings)  # one for all: the same call on the same medium computes the same
    without = sweep.settings.model_copy(update={"disabled": OPS})
    on, off = Executor(tools, cache=cache), Executor(tools, disabled=OPS, cache=cache)
    late = 0
    for number, name in enumerate(names):
        step = _counted(progress, number * sweep.num_items, len(names) * sweep.num_items)
        kind, _, k = name.partition("-")
        is_greedy = name == GREEDY and greedy is not None
        policy = greedy() if is_greedy else Reseeded(sweep.policy, sweep.items.seed + int(k))
        executor, settings = (off, without) if kind == OFF else (on, sweep.settings)
        try:
            report = run_condition(sweep, Condition(name=name, executor=executor, settings=settings, policy=policy), step)
        finally:
            policy.close()
        late += num_late(report.scores)
    return late


def _counted(progress: Progress | None, before: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(before + done, total)


# ---------------------------------------------------------------- stored rollouts


def open_items(folder: str | os.PathLike) -> tuple[ItemSet, range]:
    """Which items a folder's rollouts are of.

    Raises:
        DataError: no finished rollouts of this version of PixelWorld lie there.
    """
    known = read_facts(folder).get("items") or {}
    _, items = open_evaluation(Path(folder) / f"{ON}-00")
    return items, range(known["first"], known["first"] + known["count"])


def read_pools(folder: str | os.PathLike, items: Mapping[str, Item], names: Sequence[str]) -> list[Pool]:
    """The stored rollouts of some items, without their truth.

    Args:
        names: of the runs to read, as `part_names` gives them.

    Raises:
        DataError: a rollout of an item is missing, or a record is damaged.
    """
    draws: dict[str, dict[str, Draw]] = {name: _draws(Path(folder) / name, items) for name in names}

    def those(kind: str, item: str) -> tuple[Draw, ...]:
        return tuple(draws[name][item] for name in names if name.startswith(f"{kind}-"))

    return [Pool(item, those(ON, item), those(OFF, item), draws[GREEDY][item] if GREEDY in draws else None) for item in items]


def _draws(folder: Path, items: Mapping[str, Item]) -> dict[str, Draw]:
    found = {}
    for trajectory in open_run(folder).trajectories():
        if trajectory.task_id in items and trajectory.stop != "interrupted":  # of an item that was run again the last record counts
            found[trajectory.task_id] = draw_of(trajectory, folder.name, choices=items[trajectory.task_id].choices)
    if len(found) < len(items):
        raise DataError(
            f"{folder} holds {len(found)} of {len(items)} items: run pixelis eval consistency --out {folder.parent} again, which goes on"
        )
    return found


def _items(items: ItemSet, wanted: range) -> dict[str, Item]:
    return {item.id: item for item in map(items.item, wanted)}


def _judge(items: Mapping[str, Item]) -> Callable[[str, str | None], int]:
    return lambda name, answer: int(score_answer(items[name], answer or ""))


# ---------------------------------------------------------------- calibration


def check_calibration(folder: str | os.PathLike, about: Mapping[str, Any]) -> None:
    """Whether what is fitted on a folder may be used on another run.

    Args:
        about: facts of the run under test.

    Raises:
        DataError: it holds no rollouts, the split under test, another policy, or fewer rollouts.
    """
    there = read_facts(folder)
    if there.get("evaluation") != CONSISTENCY:
        raise DataError(
            f"{folder} holds no rollouts to calibrate on: make them with pixelis eval consistency --split dev-cal --out {folder}"
        )
    split = (there.get("items") or {}).get("split")
    if split == about["items"]["split"]:
        raise DataError(
            f"{folder} is about the split {split!r}, which is the one under test: what is fitted there has seen the answers; "
            "calibrate on another split, such as dev-cal"
        )
    other = [key for key in SAME if there.get(key) != about.get(key)]
    if other:
        raise DataError(f"{folder} differs in {', '.join(other)} from the run under test: calibrate with the same policy, tools and limits")
    missing = [name for name in about["conditions"] if name not in there.get("conditions", ())]
    if missing:
        raise DataError(f"{folder} lacks the rollouts {', '.join(missing)}: make as many there as here, with the same options")


def _calibration_facts(folder: str | os.PathLike | None) -> dict[str, Any] | None:
    """Which items it was; the folder's name alone, for a result travels."""
    return None if folder is None else {"run": Path(folder).resolve().name, "items": read_facts(folder)["items"]}


# ---------------------------------------------------------------- JSON


def consistencies_json(found: Consistencies) -> dict[str, Any]:
    """Plain JSON values."""
    return {**found.about, **consistency_json(found.found)}


def read_consistency(folder: Path) -> Consistencies:
    """What `run_consistency` left in a folder.

    Raises:
        DataError: it left nothing there yet, or the file is damaged.
    """

    def make(values: dict[str, Any]) -> Consistencies:
        made = consistency_from_json(values)
        return Consistencies(about={k: v for k, v in values.items() if k not in consistency_json(made)}, found=made)

    return read_result(folder, CONSISTENCY_FILE, CONSISTENCY, make)
