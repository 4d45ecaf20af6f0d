"""Runs the grid of shifts, cell by cell, and makes the clean items' plans again on the shifted media.

The folder holds a run per cell, `plans.jsonl` in each shifted one, and `robustness.json` with every number once all is done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pixelis.core.errors import DataError
from pixelis.core.media import open_medium
from pixelis.core.store import open_run, write_whole
from pixelis.core.trajectory import Trajectory
from pixelis.data.world.items import render
from pixelis.data.world.shifts import Shift
from pixelis.eval.metrics.plan import check_plan_on
from pixelis.eval.pixelworld import ItemSet, Progress
from pixelis.eval.robustness import CLEAN, Grid, grid_from_json, grid_json, make_grid
from pixelis.eval.scores import ItemScore
from pixelis.eval.sweep import Condition, Sweep, read_facts, read_result, run_sweep, write_result
from pixelis.tools.execute import Executor
from pixelis.ttrl.facts import in_words

ROBUSTNESS = "robustness"
"""The kind of evaluation, as run.json names it."""
GRID_FILE = "robustness.json"
PLANS_FILE = "plans.jsonl"


@dataclass(frozen=True, kw_only=True)
class Robustness:
    about: dict[str, Any]
    """Facts of the sweep."""
    grid: Grid


def run_robustness(
    sweep: Sweep, executor: Executor, shifts: Sequence[Shift], *, num_plans: int = 0, progress: Progress | None = None
) -> Robustness:
    """The clean items and each shift of them; what the folder holds already is not run again.

    Args:
        sweep: of kind `ROBUSTNESS`.
        executor: the tools, made from the sweep's settings.
        num_plans: how many of the clean items' plans are made again under each shift, from the first.
        progress: called with (items done, items wanted) over all cells, and again from 0 for the plans.

    Raises:
        DataError: the folder holds another sweep, or no item is wanted.
    """
    conditions = [Condition(name=cell_folder(shift), executor=executor, settings=sweep.settings, shift=shift) for shift in (None, *shifts)]
    by_folder = run_sweep(sweep, conditions, progress=progress)
    scores = {_name(shift): by_folder[cell_folder(shift)] for shift in (None, *shifts)}
    plans = _all_plans(sweep, executor, shifts, scores[CLEAN][:num_plans], progress) if num_plans else {}
    found = Robustness(about=read_facts(sweep.folder), grid=make_grid(scores, plans, seed=sweep.items.seed))
    write_result(sweep.folder, GRID_FILE, robustness_json(found))
    return found


def robustness_json(found: Robustness) -> dict[str, Any]:
    """Plain JSON values."""
    return {**found.about, "cells": grid_json(found.grid)}


def read_robustness(folder: Path) -> Robustness:
    """What `run_robustness` left in a folder.

    Raises:
        DataError: it left nothing there yet, or the file is damaged.
    """

    def make(values: dict[str, Any]) -> Robustness:
        return Robustness(about={k: v for k, v in values.items() if k != "cells"}, grid=grid_from_json(values["cells"]))

    return read_result(folder, GRID_FILE, ROBUSTNESS, make)


def cell_folder(shift: Shift | None) -> str:
    """Where in a grid's folder the run of a cell lies; None is the clean one."""
    return CLEAN if shift is None else f"{shift.kind}-{shift.severity}"


def _name(shift: Shift | None) -> str:
    return CLEAN if shift is None else str(shift)


# ---------------------------------------------------------------- plans


def _all_plans(
    sweep: Sweep, executor: Executor, shifts: Sequence[Shift], clean: Sequence[ItemScore], progress: Progress | None
) -> dict[str, list[bool | None]]:
    """By shift, the word on each clean plan."""
    wanted = {score.trajectory for score in clean}
    by_id = {t.id: t for t in open_run(sweep.folder / CLEAN).trajectories() if t.id in wanted}
    found, total = {}, len(shifts) * len(clean)
    for number, shift in enumerate(shifts):
        step = (lambda k, done=number * len(clean): progress(done + k, total)) if progress else (lambda k: None)
        path = sweep.folder / cell_folder(shift) / PLANS_FILE
        found[str(shift)] = _plans(path, clean, by_id, replace(sweep.items, shift=shift), executor, step)
    return found


def _plans(
    path: Path,
    clean: Sequence[ItemScore],
    by_id: Mapping[str, Trajectory],
    shifted: ItemSet,
    executor: Executor,
    step: Callable[[int], None],
) -> list[bool | None]:
    """Read where they lie, as far as they are of these trajectories; the rest is made, and all is kept."""
    known = _read_plans(path)
    found: dict[str, bool | None] = {}
    for number, score in enumerate(clean, 1):
        there = score.trajectory in known
        found[score.trajectory] = (
            known[score.trajectory] if there else plan_survives(by_id[score.trajectory], shifted, score.index, executor)
        )
        step(number)
    lines = [{"trajectory": name, "survives": word} for name, word in {**known, **found}.items()]
    write_whole(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
    return [found[score.trajectory] for score in clean]


def _read_plans(path: Path) -> dict[str, bool | None]:
    if not path.is_file():
        return {}
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {line["trajectory"]: line["survives"] for line in lines}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); delete it: plans are made again from the clean trajectories") from None


def plan_survives(trajectory: Trajectory, shifted: ItemSet, index: int, executor: Executor) -> bool | None:
    """Whether evidence and answer of a clean item's plan are found again on the item's shifted medium.

    Args:
        trajectory: about the clean item.
        shifted: the set that the shifted item is of.
        index: of the item.

    Returns:
        None where that is not defined: the plan rests on nothing, the machine failed, or the camera of a video moves, so that the same
        things are no longer in the same places.
    """
    item = shifted.item(index)
    if not trajectory.steps or (item.kind == "video" and shifted.shift is not None and shifted.shift.kind == "motion"):
        return None
    with open_medium(render(item), name=item.medium_name) as medium:
        answer = in_words(trajectory.answer, item.choices)
        return check_plan_on(trajectory, medium, executor, name=str(shifted.shift), answer=answer).survives
