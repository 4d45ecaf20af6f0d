"""Scores of single items: what a trajectory is worth against its item's truth. Derived, never stored inside the trajectory.

`scores.jsonl` in a run folder holds one line per item, in the order of the items; it can be made again from the trajectories.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pixelis.core.errors import DataError
from pixelis.core.ops import record
from pixelis.core.trajectory import Trajectory
from pixelis.data.world.item import Item
from pixelis.data.world.score import score_answer
from pixelis.data.world.verify import verify_trajectory
from pixelis.rewards.chains import valid_share

SCORES_FILE = "scores.jsonl"
NO_CALL = "none"
"""Stands for the op of a step whose text held no well-formed call."""
DISABLED = "disabled"
"""Stands for the error of a call to a tool that is switched off."""


@record
class ItemScore:
    """One trajectory against its item. The tuples have one entry per step."""

    id: str
    """Of the item."""
    index: int
    family: str
    right: int
    """1 or 0."""
    answer: str | None
    stop: str
    steps: int
    chain: int
    """Length of the item's minimal chain."""
    ops: tuple[str, ...]
    errors: tuple[str, ...]
    """Empty text for a call that succeeded, else the kind of its error, or `DISABLED`."""
    valid: tuple[bool, ...]
    """Whether the call succeeded and its verifier passes (paper §4.1)."""
    fit: tuple[float | None, ...]
    """The verifier's own metric; None where it has none."""
    tokens: int
    """Tokens that the policy sampled; 0 for a policy without tokens."""
    trajectory: str
    """The trajectory's id, by which its timing is found."""

    @property
    def valid_share(self) -> float:
        """Valid visual steps over steps; 0 for a trajectory without steps, which has not looked at all. Source: paper §4.1, RaPR."""
        return valid_share(self.valid)


_SCORE = TypeAdapter(ItemScore)


def score_trajectory(item: Item, trajectory: Trajectory) -> ItemScore:
    """What a trajectory is worth; pure.

    Raises:
        DataError: the trajectory is about another item or another question.
    """
    if (trajectory.task_id, trajectory.question) != (item.id, item.prompt):
        raise DataError(
            f"trajectory {trajectory.id} is about {trajectory.task_id!r}, not {item.id!r}, or that item asks something else by now: "
            "it comes from another version of PixelWorld; evaluate again into a new folder"
        )
    checks = verify_trajectory(item, trajectory)
    steps = trajectory.steps
    return ItemScore(
        id=item.id,
        index=item.index,
        family=item.family,
        right=int(score_answer(item, trajectory.answer or "")),
        answer=trajectory.answer,
        stop=trajectory.stop,
        steps=len(steps),
        chain=len(item.chain),
        ops=tuple(step.call.op if step.call else NO_CALL for step in steps),
        errors=tuple(step.result.error.kind if step.result.error else "" if step.result.is_ok else DISABLED for step in steps),
        valid=tuple(bool(check.is_valid and step.result.is_ok) for check, step in zip(checks, steps, strict=True)),
        fit=tuple(_known(check.score) for check in checks),
        tokens=sum(len(run.ids) for run in trajectory.tokens if run.role == "policy"),
        trajectory=trajectory.id,
    )


def _known(score: float | None) -> float | None:
    return None if score is None or score != score else round(float(score), 6)


def write_scores(folder: str | os.PathLike, scores: Iterable[ItemScore]) -> Path:
    """Write `scores.jsonl`, whole or not at all."""
    path = Path(folder) / SCORES_FILE
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(b"".join(_SCORE.dump_json(score) + b"\n" for score in scores))
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(f"{path}: cannot write ({error.strerror}); the trajectories are safe: make room, then score {folder}") from None
    return path


def read_scores(folder: str | os.PathLike) -> Iterator[ItemScore]:
    """The lines of `scores.jsonl`.

    Raises:
        DataError: there is none, or a line is damaged; names file and line.
    """
    path = Path(folder) / SCORES_FILE
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; make it from the run's trajectories: pixelis score {folder}") from None
    for number, line in enumerate(lines, 1):
        try:
            yield _SCORE.validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the line"
            raise DataError(f"{path}:{number}: {where}: {first['msg']}; make the file again: pixelis score {folder}") from None
