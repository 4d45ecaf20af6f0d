"""Replay: execute every call of a stored trajectory again and compare each result with what was recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pixelis.core.errors import DataError, ReplayMismatch
from pixelis.core.grammar import render_response
from pixelis.core.media import Medium, open_medium
from pixelis.core.ops import Result, ZoomOutput
from pixelis.core.store import Run
from pixelis.core.trajectory import RESULT, Step, Trajectory
from pixelis.core.wire import result_to_wire
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import build_toolbox

_NOT_REPLAYED = ("deadline", "unavailable", "crashed")
"""Errors that depend on the machine's state, not on the call."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One step whose re-execution differs."""

    trajectory_id: str
    step: int
    """From 1."""
    what: str
    """medium, tool version, blob, result or response."""
    stored: str
    replayed: str

    def __str__(self) -> str:
        return f"{self.trajectory_id} step {self.step}: {self.what} differs\n  stored:   {self.stored}\n  replayed: {self.replayed}"


@dataclass(frozen=True, kw_only=True)
class ReplayReport:
    num_trajectories: int
    num_steps: int
    num_not_replayed: int
    """Steps whose stored error depends on the machine's state (a deadline, a missing engine)."""
    differences: tuple[Difference, ...]

    @property
    def is_equal(self) -> bool:
        return not self.differences

    def raise_if_different(self) -> None:
        """Raises: ReplayMismatch: with both sides of every difference."""
        if self.differences:
            raise ReplayMismatch("\n".join(str(d) for d in self.differences))


def replay_run(run: Run, *, media: dict[str, Path] | None = None) -> ReplayReport:
    """Replay every trajectory of a run.

    Args:
        media: where media are that the run does not hold itself, by SHA-256.

    Raises:
        DataError: the run cannot be read.
    """
    num_trajectories = num_steps = num_skipped = 0
    differences: list[Difference] = []
    executors: dict[str, Executor] = {}
    for trajectory in run.trajectories():
        num_trajectories += 1
        num_steps += len(trajectory.steps)
        num_skipped += sum(_depends_on_machine(step.result) for step in trajectory.steps)
        differences += replay_trajectory(trajectory, run, executors=executors, media=media or {})
    return ReplayReport(
        num_trajectories=num_trajectories, num_steps=num_steps, num_not_replayed=num_skipped, differences=tuple(differences)
    )


def replay_trajectory(
    trajectory: Trajectory, run: Run, *, executors: dict[str, Executor] | None = None, media: dict[str, Path] | None = None
) -> list[Difference]:
    """The differences of one trajectory; none when it replays equal."""
    try:
        medium = _medium_of(trajectory, run, media or {})
    except DataError as error:
        return [_difference(trajectory, 0, "medium", f"SHA-256 {trajectory.medium.sha256}", str(error))]
    executor = _executor_for(trajectory, {} if executors is None else executors)
    with medium:
        return list(_compare_steps(trajectory, run, medium, executor))


def _compare_steps(trajectory: Trajectory, run: Run, medium: Medium, executor: Executor) -> Iterator[Difference]:
    stored = trajectory.results
    for number, step in enumerate(trajectory.steps, 1):
        if step.call is not None and not _depends_on_machine(step.result):
            # Against the STORED earlier results: one difference does not hide or cause the next.
            replayed = executor.run(step.call, medium, stored[: number - 1]).result
            if replayed != step.result:
                yield _explain(trajectory, number, step.result, replayed)
        yield from _check_evidence(trajectory, number, step, run)


def _check_evidence(trajectory: Trajectory, number: int, step: Step, run: Run) -> Iterator[Difference]:
    """What needs no re-execution: the blobs that the step names, and the text that the policy read."""
    output = step.result.output
    if isinstance(output, ZoomOutput):
        try:
            run.blob(output.image)
        except DataError as error:
            yield _difference(trajectory, number, "blob", f"SHA-256 {output.image}", str(error))
    response = render_response(result_to_wire(step.result, step=number, info=trajectory.medium))
    if response != step.response:
        yield _difference(trajectory, number, "response", step.response, response)


def _explain(trajectory: Trajectory, number: int, stored: Result, replayed: Result) -> Difference:
    if (stored.engine, stored.version) != (replayed.engine, replayed.version):
        return _difference(
            trajectory, number, "tool version", f"{stored.engine}: {stored.version}", f"{replayed.engine}: {replayed.version}"
        )
    one, two = (_flat(json.loads(RESULT.dump_json(r))) for r in (stored, replayed))
    fields = [key for key in {**one, **two} if one.get(key) != two.get(key)]
    shown = fields[:4]
    more = f" (and {len(fields) - len(shown)} more fields)" if len(fields) > len(shown) else ""
    return _difference(
        trajectory,
        number,
        "result",
        ", ".join(f"{k} = {_cut(one.get(k))}" for k in shown) + more,
        ", ".join(f"{k} = {_cut(two.get(k))}" for k in shown) + more,
    )


def _flat(value: object, path: str = "") -> dict[str, object]:
    """Leaves of a JSON value by dotted path."""
    if isinstance(value, dict) and value:
        return {k: v for key, part in value.items() for k, v in _flat(part, f"{path}.{key}" if path else str(key)).items()}
    if isinstance(value, list) and value:
        return {k: v for i, part in enumerate(value) for k, v in _flat(part, f"{path}[{i}]").items()}
    return {path: value}


def _cut(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _difference(trajectory: Trajectory, step: int, what: str, stored: str, replayed: str) -> Difference:
    return Difference(trajectory_id=trajectory.id, step=step, what=what, stored=stored, replayed=replayed)


def _depends_on_machine(result: Result) -> bool:
    return result.error is not None and result.error.kind in _NOT_REPLAYED


def _executor_for(trajectory: Trajectory, executors: dict[str, Executor]) -> Executor:
    """An executor with the recorded settings; one for all trajectories that share them."""
    key = json.dumps(trajectory.settings, sort_keys=True)
    if key not in executors:
        try:
            settings = ToolSettings.model_validate(trajectory.settings)
        except ValidationError as error:
            raise DataError(
                f"trajectory {trajectory.id}: its tool settings are not known to this version: {error.errors()[0]['msg']}"
            ) from None
        executors[key] = Executor(build_toolbox(settings), disabled=settings.disabled)
    return executors[key]


def _medium_of(trajectory: Trajectory, run: Run, media: dict[str, Path]) -> Medium:
    """The medium, its content checked against the recorded hash."""
    name = trajectory.medium.sha256
    path = media.get(name) or run.blob_path(name)
    if not path.exists():
        raise DataError(f"the run holds no medium {name}: give the file that was asked about")
    medium = open_medium(path, name=trajectory.medium.name)
    if medium.sha256 != name:
        found = medium.sha256
        medium.close()
        raise DataError(f"{path} has SHA-256 {found}: it is not the medium that was asked about")
    return medium
