"""The audit of failures of a stored evaluation, left beside its trajectories as `failures.json`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pixelis.core.store import TRAJECTORIES_FILE, Run, sha256
from pixelis.eval.failures import Mode, audit, audit_json
from pixelis.eval.pixelworld import open_evaluation
from pixelis.eval.scores import score_trajectory
from pixelis.eval.sweep import write_result

FAILURES_FILE = "failures.json"


def audit_run(folder: str | os.PathLike, *, num_worst: int = 6) -> tuple[Mode, ...]:
    """Sort the failures of a run, and write `failures.json`: the modes, and where the medium of each of the worst lies.

    Args:
        num_worst: failures named of each mode.

    Raises:
        DataError: no PixelWorld evaluation lies there, a record is damaged, or the file cannot be written.
    """
    run, items = open_evaluation(folder)
    # What the user interrupted says nothing of the policy. Of an item that was run again the last record counts.
    of_item = {t.task_id: t for t in run.trajectories() if t.stop != "interrupted"}
    made = [(items.item_of(trajectory), trajectory) for trajectory in of_item.values()]
    pairs = [(item, score_trajectory(item, trajectory)) for item, trajectory in made]
    modes = audit(pairs, num_worst=num_worst, seed=items.seed)
    media = {t.id: _medium(run, t.medium.sha256) for t in of_item.values()}
    rows = [{**row, "worst": [{**one, "medium": media[one["trajectory"]]} for one in row["worst"]]} for row in audit_json(modes)]
    values: dict[str, Any] = {
        "trajectories": sha256((Path(folder) / TRAJECTORIES_FILE).read_bytes()),
        "items": len(pairs),
        "failures": sum(not score.right for _, score in pairs),
        "modes": rows,
    }
    write_result(Path(folder), FAILURES_FILE, values)
    return modes


def _medium(run: Run, name: str) -> str | None:
    """Where a medium lies, relative to the run's folder; None where the run kept none and it is made again from the item."""
    path = run.blob_path(name)
    return str(path.relative_to(run.folder)) if path.is_file() else None
