"""Replay: execute every call of a stored trajectory again and compare each result with what was recorded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pixelis.core.errors import ConfigError, DataError, ReplayMismatch
from pixelis.core.grammar import render_response
from pixelis.core.media import Medium, open_medium
from pixelis.core.ops import Result, ZoomOutput
from pixelis.core.store import Run
from pixelis.core.trajectory import RESULT, Step, Trajectory
from pixelis.core.wire import result_to_wire
from pixelis.tools.execute import DEADLINE_S, Executor
from pixelis.tools.settings import OF_THE_MACHINE, ToolSettings, settings_with
from pixelis.tools.toolbox import MOBILE_SAM_VARIABLE, MissingTool, build_what_can_be

PATIENCE = 5
"""A replay waits so many times as long as the run did: it is to say what differs, not how busy this machine is."""


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
class NotExecuted:
    """One step that this machine could not execute: neither equal nor different."""

    trajectory_id: str
    step: int
    """From 1."""
    why: str

    def __str__(self) -> str:
        return f"{self.trajectory_id} step {self.step}: could not be executed\n  {self.why}"


@dataclass(frozen=True, kw_only=True)
class ReplayReport:
    num_trajectories: int
    num_steps: int
    num_not_replayed: int
    """Steps whose stored error depends on the machine's state (a deadline, a missing engine)."""
    differences: tuple[Difference, ...]
    not_executed: tuple[NotExecuted, ...] = ()

    @property
    def is_equal(self) -> bool:
        """Whether there was something to compare and all of it was found equal."""
        return self.was_compared and not self.differences and not self.not_executed

    @property
    def was_compared(self) -> bool:
        """False without a trajectory, and where all steps there are failed for reasons of the machine."""
        return self.num_trajectories > 0 and (self.num_steps == 0 or self.num_not_replayed < self.num_steps)

    @property
    def verdict(self) -> str:
        """In words: equal, nothing was compared, or how many differences and steps not executed."""
        if not self.was_compared and not self.differences:
            return "nothing was compared"
        found = [f"{len(self.differences)} differences"] if self.differences else []
        found += [f"{len(self.not_executed)} steps could not be executed"] if self.not_executed else []
        return ", ".join(found) or "equal"

    def raise_if_different(self) -> None:
        """Raises: ReplayMismatch: with both sides of every difference, and every step that could not be executed."""
        if not self.is_equal:
            raise ReplayMismatch("\n".join(map(str, [*self.differences, *self.not_executed])) or self.verdict)


def replay_run(run: Run, *, media: dict[str, Path] | None = None, changes: Sequence[str] = ()) -> ReplayReport:
    """Replay every trajectory of a run.

    Args:
        media: where media are that the run does not hold itself, by SHA-256.
        changes: texts KEY=VALUE, of OF_THE_MACHINE, in place of what is recorded. Versions tell other weights all the same.

    Raises:
        DataError: the run cannot be read.
        ConfigError: a change of what a replay may not change.
    """
    num_trajectories = num_steps = num_skipped = 0
    found: list[Difference | NotExecuted] = []
    executors: dict[str, Executor] = {}
    _check_changes(changes)
    for trajectory in run.trajectories():
        num_trajectories += 1
        num_steps += len(trajectory.steps)
        num_skipped += sum(step.result.is_machine_failure for step in trajectory.steps)
        found += replay_trajectory(trajectory, run, executors=executors, media=media or {}, changes=changes)
    return ReplayReport(
        num_trajectories=num_trajectories,
        num_steps=num_steps,
        num_not_replayed=num_skipped,
        differences=tuple(one for one in found if isinstance(one, Difference)),
        not_executed=tuple(one for one in found if isinstance(one, NotExecuted)),
    )


def replay_trajectory(
    trajectory: Trajectory,
    run: Run,
    *,
    executors: dict[str, Executor] | None = None,
    media: dict[str, Path] | None = None,
    changes: Sequence[str] = (),
) -> list[Difference | NotExecuted]:
    """What is not equal in one trajectory; nothing when it replays equal."""
    try:
        medium = _medium_of(trajectory, run, media or {})
    except DataError as error:
        found = [_difference(trajectory, 0, "medium", f"SHA-256 {trajectory.medium.sha256}", str(error))]
        for number, step in enumerate(trajectory.steps, 1):
            found += _check_evidence(trajectory, number, step, run)
        return found
    executor = _executor_for(trajectory, {} if executors is None else executors, changes)
    with medium:
        return list(_compare_steps(trajectory, run, medium, executor))


def _compare_steps(trajectory: Trajectory, run: Run, medium: Medium, executor: Executor) -> Iterator[Difference | NotExecuted]:
    stored = trajectory.results
    for number, step in enumerate(trajectory.steps, 1):
        if step.call is not None and not step.result.is_machine_failure:
            # Against the STORED earlier results: one difference does not hide or cause the next.
            replayed = executor.run(step.call, medium, stored[: number - 1]).result
            if why := _why_not_executed(replayed, executor):
                yield NotExecuted(trajectory_id=trajectory.id, step=number, why=why)
            elif replayed != step.result:
                yield _explain(trajectory, number, step.result, replayed)
        yield from _check_evidence(trajectory, number, step, run)


def _why_not_executed(replayed: Result, executor: Executor) -> str:
    """What kept this machine from executing a call; empty when it did."""
    tool = executor.tools.get(replayed.op)
    if isinstance(tool, MissingTool) and replayed.status != "disabled":
        return tool.why  # also where the arguments were refused before the tool was reached: its version is not known
    return replayed.error.message if replayed.is_machine_failure else ""


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


def _check_changes(changes: Sequence[str]) -> None:
    for change in changes:
        if change.partition("=")[0] not in OF_THE_MACHINE:
            raise ConfigError(f"a replay takes the tools as they are recorded, but for {', '.join(OF_THE_MACHINE)}; got {change!r}")


def _executor_for(trajectory: Trajectory, executors: dict[str, Executor], changes: Sequence[str]) -> Executor:
    """An executor with the recorded settings; one for all trajectories that share them."""
    key = json.dumps(trajectory.settings, sort_keys=True)
    if key not in executors:
        settings = settings_with(_recorded(trajectory), changes)
        patient_s = {op: PATIENCE * limit_s for op, limit_s in DEADLINE_S.items()}
        executors[key] = Executor(build_what_can_be(settings), deadline_s=patient_s, disabled=settings.disabled)
    return executors[key]


def _recorded(trajectory: Trajectory) -> ToolSettings:
    """The recorded settings, with the folder that the environment names: a recorded one may be another machine's."""
    try:
        settings = ToolSettings.model_validate({"device": "cpu", **trajectory.settings})  # recorded only where it is another
    except ValidationError as error:
        raise DataError(
            f"trajectory {trajectory.id}: its tool settings are not known to this version: {error.errors()[0]['msg']}"
        ) from None
    folder = os.environ.get(MOBILE_SAM_VARIABLE)
    return settings.model_copy(update={"mobile_sam_folder": folder}) if folder else settings


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
