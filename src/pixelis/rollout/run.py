"""The runner: tasks in, trajectories out. Many at once, each going on as soon as its own tool returns.

One turn is: the policy acts, the grammar reads the text, the tool runs in a thread, the policy observes. This is the one
boundary where a policy's failure becomes data: it costs its own trajectory, never the run.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pixelis.core.errors import GrammarError
from pixelis.core.grammar import Turn, parse_turn, render_response
from pixelis.core.ops import OPS, CallError, Result, ZoomOutput
from pixelis.core.store import RunWriter
from pixelis.core.trajectory import Step, StepTiming, StopReason, Timing, Trajectory, trajectory_id
from pixelis.core.wire import result_to_wire
from pixelis.policy.base import Observation, Policy, PolicyError, Session, Task, TokenLimit
from pixelis.tools.execute import Execution, Executor
from pixelis.tools.settings import ToolSettings

MAX_IDLE_TURNS = 3
"""Turns in a row without an executable call or an answer, after which the trajectory stops."""
MAX_SAME_CALLS = 3
"""Times that one call may have one result, after which the trajectory stops: a further one would tell nothing. What failed for the
machine's sake is not counted."""


UNHURRIED_S = 3600.0
"""Of a trajectory that is learnt from: so long that a busy or halted machine changes none."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a trajectory is stopped; `max_same_calls` None lets one go round in circles."""

    max_steps: int = 16
    max_seconds: float = 120.0
    max_same_calls: int | None = MAX_SAME_CALLS


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A trajectory with what belongs beside it."""

    trajectory: Trajectory
    blobs: Mapping[str, bytes]
    timing: Timing


OnStep = Callable[[Task, int, Step], None]


@dataclass
class _Progress:
    """What one trajectory has gathered so far."""

    steps: list[Step] = field(default_factory=list)
    timings: list[StepTiming] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    answer: str | None = None
    final_text: str = ""
    num_idle: int = 0


class Runner:
    """Runs tasks with one policy and one set of tools.

    Args:
        settings: the tools' settings, recorded with every trajectory so that it can be replayed.
        num_parallel: trajectories under way at once.
        num_parallel_calls: how many calls of each op run at once; engines share the machine's cores.
        on_step: called after every step, from the event loop's thread.
    """

    def __init__(
        self,
        policy: Policy,
        executor: Executor,
        *,
        settings: ToolSettings,
        limits: Limits = Limits(),
        num_parallel: int = 8,
        num_parallel_calls: Mapping[str, int] | int = 2,
        on_step: OnStep | None = None,
    ) -> None:
        self.policy = policy
        self.executor = executor
        self.limits = limits
        self._settings = settings
        self._num_parallel = num_parallel
        self._on_step = on_step
        per_op = num_parallel_calls if isinstance(num_parallel_calls, Mapping) else dict.fromkeys(OPS, num_parallel_calls)
        self._per_op = {op: per_op.get(op, 1) for op in OPS}

    def run(self, jobs: Iterable[tuple[Task, int]], writer: RunWriter | None = None) -> list[Rollout]:
        """Run every (task, seed) and return the rollouts in the order of the jobs.

        With a writer, each is on the disk as soon as it and all before it are done: the file's order, and so its bytes, do not
        depend on which finished first. Ctrl-C writes what there is, with `interrupted` as the reason, and raises KeyboardInterrupt.
        """
        return asyncio.run(self.run_async(list(jobs), writer))

    async def run_async(self, jobs: list[tuple[Task, int]], writer: RunWriter | None = None) -> list[Rollout]:
        """`run`, inside an event loop that is already there."""
        gate = asyncio.Semaphore(self._num_parallel)
        with ThreadPoolExecutor(max_workers=sum(self._per_op.values()), thread_name_prefix="pixelis-call") as pool:
            lanes = {op: asyncio.Semaphore(n) for op, n in self._per_op.items()}
            running = [asyncio.create_task(self._guarded(gate, task, seed, pool, lanes)) for task, seed in jobs]
            rollouts: list[Rollout] = []
            try:
                for job in running:
                    # wait() and not `await job`: a cancellation would go to the job, which turns it into a record, and stop there
                    await asyncio.wait([job])
                    rollouts.append(job.result())
                    _write(writer, rollouts[-1])
            except asyncio.CancelledError:
                for job in running:
                    job.cancel()
                for late in await asyncio.gather(*running[len(rollouts) :], return_exceptions=True):
                    if isinstance(late, Rollout):
                        _write(writer, late)
                raise
            return rollouts

    async def _guarded(self, gate: asyncio.Semaphore, task: Task, seed: int, pool: ThreadPoolExecutor, lanes: dict) -> Rollout:
        async with gate:
            return await self._run_one(task, seed, pool, lanes)

    async def _run_one(self, task: Task, seed: int, pool: ThreadPoolExecutor, lanes: dict[str, asyncio.Semaphore]) -> Rollout:
        start = time.perf_counter()
        progress, session, detail = _Progress(), None, ""
        try:
            session = self.policy.open(task, seed=seed)
            stop = await asyncio.wait_for(self._turns(session, task, progress, pool, lanes), self.limits.max_seconds)
        except TimeoutError:
            stop, detail = "time_limit", f"not done within {self.limits.max_seconds:g} s"
        except TokenLimit as error:
            stop, detail = "token_limit", str(error)
        except PolicyError as error:
            stop, detail = "policy_error", str(error)
        except Exception as error:  # noqa: BLE001 - the boundary: a policy's bug costs one trajectory, and says where it was
            stop, detail = "policy_error", _where(error)
        except asyncio.CancelledError:  # the record of an interrupted trajectory is kept: `run_async` raises for all of them
            stop = "interrupted"
        tokens = session.tokens() if session is not None else ()
        if session is not None:
            session.close()
        trajectory = self._record(task, seed, progress, stop, detail, tokens)
        timing = Timing(id=trajectory.id, steps=tuple(progress.timings), total_s=round(time.perf_counter() - start, 4))
        return Rollout(trajectory=trajectory, blobs=progress.blobs, timing=timing)

    def _record(self, task: Task, seed: int, progress: _Progress, stop: StopReason, detail: str, tokens: tuple) -> Trajectory:
        medium, policy = task.medium, self.policy.info
        return Trajectory(
            id=trajectory_id(question=task.question, medium=medium.sha256, policy=policy, seed=seed, task_id=task.id),
            question=task.question,
            medium=medium.info,
            policy=policy,
            seed=seed,
            steps=tuple(progress.steps),
            stop=stop,
            stop_detail=detail[:500],
            answer=progress.answer,
            final_text=progress.final_text,
            engines={op: tool.engine for op, tool in self.executor.tools.items()},
            settings=self._settings.model_dump(mode="json"),
            tokens=tokens,
            task_id=task.id,
        )

    async def _turns(self, session: Session, task: Task, progress: _Progress, pool: ThreadPoolExecutor, lanes: dict) -> StopReason:
        while True:
            start = time.perf_counter()
            text = await session.act()
            policy_s = time.perf_counter() - start
            turn, error = _read(text)
            if turn.answer is not None:
                progress.answer, progress.final_text = turn.answer, text
                return "answered"
            if len(progress.steps) >= self.limits.max_steps:
                progress.final_text = text
                return "step_limit"
            execution = await self._execute(turn, error, task, progress, pool, lanes)
            observation = self._take_in(text, turn, execution, progress, task)
            progress.timings.append(
                StepTiming(policy_s=round(policy_s, 4), tool_s=round(execution.seconds, 4), is_cached=execution.is_cached)
            )
            if self._on_step:
                self._on_step(task, len(progress.steps), progress.steps[-1])
            if progress.num_idle >= MAX_IDLE_TURNS:
                return "no_action"
            if self.limits.max_same_calls is not None and _num_like_last(progress.steps) >= self.limits.max_same_calls:
                return "loop"
            session.observe(observation)

    async def _execute(
        self, turn: Turn, error: CallError | None, task: Task, progress: _Progress, pool: ThreadPoolExecutor, lanes: dict
    ) -> Execution:
        call = turn.call
        if call is None:
            error = error or CallError(kind="bad_call", message="no call and no answer: write one <tool_call> or an <answer>")
            return Execution(result=Result(op="", status="error", engine="none", version="", error=error))
        history = [step.result for step in progress.steps]
        async with lanes[call.op]:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(pool, self.executor.run, call, task.medium, history)

    def _take_in(self, text: str, turn: Turn, execution: Execution, progress: _Progress, task: Task) -> Observation:
        """Record the step and make what the policy will read of it."""
        result = execution.result
        response = render_response(result_to_wire(result, step=len(progress.steps) + 1, info=task.medium.info))
        progress.steps.append(Step(thought=turn.thought, text=text, call=turn.call, result=result, response=response))
        progress.num_idle = progress.num_idle + 1 if turn.call is None else 0
        progress.blobs.update(execution.blobs)
        if isinstance(result.output, ZoomOutput):
            name = result.output.image
            return Observation(response=response, image_png=execution.blobs[name], image_sha256=name)
        return Observation(response=response)


def _read(text: str) -> tuple[Turn, CallError | None]:
    try:
        return parse_turn(text), None
    except GrammarError as error:
        return Turn(thought=text), CallError(kind=error.kind, message=error.message)


def _num_like_last(steps: list[Step]) -> int:
    """How many steps made the last one's call and got its result, itself included; 0 where none was made or the machine failed it."""
    call, result = steps[-1].call, steps[-1].result
    return 0 if call is None or result.is_machine_failure else sum(step.call == call and step.result == result for step in steps)


def _where(error: Exception) -> str:
    """The error and its innermost line, for the developer who has to find it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _write(writer: RunWriter | None, rollout: Rollout) -> None:
    if writer is not None:
        writer.append(rollout.trajectory, blobs=rollout.blobs, timing=rollout.timing)
