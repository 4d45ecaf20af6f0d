"""The trajectory: what an agent did, as facts. Everything else (footprints, validity, rewards) is derived from it.

Facts: exact texts, token ids and sampler log-probabilities, media hashes, engine versions, seed. Times that differ from
run to run are kept apart (`Timing`), so that the same seed writes the same bytes. Source: paper §3; supplement 10.
"""

from __future__ import annotations

import hashlib
from dataclasses import field
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from pixelis.core.errors import DataError
from pixelis.core.media import MediumInfo
from pixelis.core.ops import Call, Result, record

SCHEMA = 1

StopReason = Literal[
    "answered",  # the policy wrote an answer
    "step_limit",
    "token_limit",
    "time_limit",
    "no_action",  # turns with neither a call nor an answer, too often in a row
    "loop",  # one call with one result, too often
    "policy_error",  # the policy failed (a server that stalls, a model that raises)
    "interrupted",  # the user stopped the run
]


@record
class Step:
    """One thought, one call, one result."""

    thought: str
    text: str
    """The policy's exact text of this turn."""
    call: Call | None
    """None when the text held no executable call; `result` then says why."""
    result: Result
    response: str
    """The exact text of the result as the policy read it."""


@record
class TokenRun:
    """A stretch of the token sequence from one source, in order."""

    role: Literal["prompt", "policy", "tool"]
    ids: tuple[int, ...]
    logp: tuple[float, ...] = ()
    """The sampler's log-probability of each id, in nats, for `policy`; empty otherwise."""
    images: tuple[str, ...] = ()
    """Name of each image whose features stand in this stretch: SHA-256 of a crop among the blobs, or of the medium (`:frame` of a video);
    `@stops` behind it where it was shown brighter or darker than it is."""


@record
class PolicyInfo:
    name: str
    version: str
    sampling: dict[str, Any] = field(default_factory=dict)
    """Temperature, top-p and the like, as used."""


@record
class Trajectory:
    id: str
    question: str
    medium: MediumInfo
    policy: PolicyInfo
    seed: int
    steps: tuple[Step, ...]
    stop: StopReason
    answer: str | None
    """The text of the last turn's answer; None when there is none."""
    final_text: str = ""
    """The exact text of the last turn, the one with the answer."""
    stop_detail: str = ""
    """What went wrong, when something did."""
    engines: dict[str, str] = field(default_factory=dict)
    """Op to the engine and version that served it."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Tool settings that change results, as `pixelis.tools` needs them to replay."""
    tokens: tuple[TokenRun, ...] = ()
    task_id: str = ""
    schema_version: int = SCHEMA

    @property
    def results(self) -> tuple[Result, ...]:
        return tuple(step.result for step in self.steps)


@record
class StepTiming:
    policy_s: float
    tool_s: float
    is_cached: bool


@record
class Timing:
    """Wall-clock facts of one trajectory; beside it, never inside."""

    id: str
    steps: tuple[StepTiming, ...]
    total_s: float


_TRAJECTORY = TypeAdapter(Trajectory)
_TIMING = TypeAdapter(Timing)
RESULT = TypeAdapter(Result)


def trajectory_id(*, question: str, medium: str, policy: PolicyInfo, seed: int, task_id: str = "") -> str:
    """A name that the same question, medium, policy and seed always give."""
    text = "\x1f".join([question, medium, policy.name, policy.version, str(seed), task_id])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def dump_trajectory(trajectory: Trajectory) -> bytes:
    """One line of JSON without its newline."""
    return _TRAJECTORY.dump_json(trajectory, exclude_defaults=False)


def load_trajectory(data: bytes, *, where: str) -> Trajectory:
    """The trajectory in a line of JSON.

    Args:
        where: file and line, for the error.

    Raises:
        DataError: not JSON, another schema version, or a missing, unknown or mistyped field.
    """
    try:
        trajectory = _TRAJECTORY.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise DataError(
            f"{where}: {field}: {first['msg']} ({error.error_count()} problems in all); it is no trajectory of schema {SCHEMA}"
        ) from None
    if trajectory.schema_version != SCHEMA:
        raise DataError(f"{where}: schema {trajectory.schema_version}; this version of Pixelis reads schema {SCHEMA}")
    return trajectory


def dump_timing(timing: Timing) -> bytes:
    return _TIMING.dump_json(timing)


def load_timing(data: bytes, *, where: str) -> Timing:
    """Raises: DataError: the line is no timing."""
    try:
        return _TIMING.validate_json(data)
    except ValidationError:
        raise DataError(f"{where}: this line is no timing; timings are no evidence: remove the line") from None
