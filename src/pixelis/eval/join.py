"""Parts of one evaluation, made by several processes or machines with --first and --items, as one run folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

from pixelis.core.command import note_command, read_commands
from pixelis.core.errors import DataError
from pixelis.core.store import BLOBS_DIR, Run, RunWriter
from pixelis.eval.pixelworld import MAY_DIFFER, open_evaluation, rescore
from pixelis.eval.report import Report
from pixelis.eval.runs import check_same


def join(parts: Sequence[str | os.PathLike], out_folder: str | os.PathLike) -> Report:
    """Write one run from the records of several, in the order of their items, and score it.

    Args:
        parts: run folders of one evaluation: its policy, tools, limits and set of items. They stay as they are.
        out_folder: new.

    Returns:
        The report over all of them.

    Raises:
        DataError: fewer than two parts, they are of different evaluations or share or lack an item between them, one cannot be read, or the
            folder holds a run.
    """
    if len(parts) < 2:
        raise DataError(f"{len(parts)} run folders: there is nothing to join; name two or more")
    runs = sorted((open_evaluation(part)[0] for part in parts), key=_first)
    for run in runs[1:]:
        check_same(run.folder, run.info, runs[0].info, may_differ=MAY_DIFFER)
    for run in runs:
        done = len({trajectory.task_id for trajectory in run.trajectories() if trajectory.stop != "interrupted"})
        if done != _count(run):
            raise DataError(f"{run.folder} has {done} of its {_count(run)} items: let that evaluation go on, then join")
    for run, following in pairwise(runs):
        if _first(run) + _count(run) != _first(following):
            raise DataError(
                f"{run.folder} has the items {_first(run)} to {_first(run) + _count(run) - 1} and {following.folder} goes on at "
                f"{_first(following)}: together they must be one range"
            )
    about = {**runs[0].info, "items": {**runs[0].info["items"], "count": sum(map(_count, runs))}}
    with ExitStack() as stack:
        writer = stack.enter_context(RunWriter(out_folder, about))
        note_command(out_folder, [command for run in runs for command in read_commands(run.folder)])
        for run in runs:
            timings = run.timings()
            for blob in sorted((Path(run.folder) / BLOBS_DIR).glob("*")):
                writer.put_blob(blob.read_bytes())
            for trajectory in run.trajectories():
                writer.append(trajectory, timing=timings.get(trajectory.id))
    return rescore(out_folder)


def _first(run: Run) -> int:
    return run.info["items"]["first"]


def _count(run: Run) -> int:
    return run.info["items"]["count"]
