"""Our side of `benchmarks/rft.py`: `run_rft` itself, with policy and tools watched from outside."""

from __future__ import annotations

import json
import tempfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.parts.rft_facts import Gate, Interval, Options, Update, covered_s, uncovered_s

from pixelis.agent import make_executor
from pixelis.core.media import Medium
from pixelis.core.ops import Call, Result
from pixelis.policy.base import Task
from pixelis.tools.execute import Execution
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import resolved


@dataclass
class Notes:
    """What was seen during one update."""

    writing: list[Interval] = field(default_factory=list)
    tools: list[Interval] = field(default_factory=list)
    prompts: dict[str, int] = field(default_factory=dict)
    num_turns: int = 0
    num_sampled: int = 0
    num_answered: int = 0


class WatchedSession:
    """A session that notes when its turns were written."""

    def __init__(self, session: Any, notes: Notes, task: Task) -> None:
        self._session, self._notes, self._task, self._last = session, notes, task, ""

    async def act(self) -> str:
        start = time.perf_counter()
        try:
            self._last = await self._session.act()
        finally:
            self._notes.writing.append((start, time.perf_counter()))
        return self._last

    def close(self) -> None:
        runs = self._session.tokens()
        written = [run for run in runs if run.role == "policy"]
        self._notes.prompts[self._task.id] = zlib.crc32(str(list(runs[0].ids)).encode())
        self._notes.num_turns += len(written)
        self._notes.num_sampled += sum(len(run.ids) for run in written)
        self._notes.num_answered += "</answer>" in self._last
        self._session.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


class WatchedPolicy:
    """The policy, whose sessions are watched; everything else is its own."""

    def __init__(self, policy: Any) -> None:
        self._policy, self.notes = policy, Notes()

    def open(self, task: Task, *, seed: int) -> WatchedSession:
        return WatchedSession(self._policy.open(task, seed=seed), self.notes, task)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)


class WatchedTools:
    """The executor, whose calls are noted."""

    def __init__(self, executor: Any, policy: WatchedPolicy) -> None:
        self._executor, self._watched = executor, policy

    def run(self, call: Call, medium: Medium, history: Sequence[Result]) -> Execution:
        start = time.perf_counter()
        try:
            return self._executor.run(call, medium, history)
        finally:
            self._watched.notes.tools.append((start, time.perf_counter()))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)


def ours(options: Options, gate: Gate) -> None:
    """All updates of our side; what is built before the first of them is counted to it, which is why that one is a warm-up."""
    import torch

    from pixelis.policy.vlm import VlmPolicy
    from pixelis.train.rft import run_rft
    from pixelis.train.rft_state import RftSettings
    from pixelis.train.start import load_learner

    torch.set_num_threads(options.threads)
    settings = RftSettings(
        updates=options.updates,
        prompts=options.groups,
        group=options.size,
        families=options.families,
        max_steps=options.max_steps,
        rate=options.rate,
        beta=options.beta,
        world_seed=options.world_seed,
        seed=options.seed,
        save_every_s=float("inf"),
    )
    started = load_learner(options.checkpoint, dtype="float32")
    policy = WatchedPolicy(VlmPolicy(started, max_new_tokens=options.max_new_tokens, num_slots=settings.num_parallel))
    tools = resolved(ToolSettings())
    begun = 0.0

    with tempfile.TemporaryDirectory() as folder:

        def after_update(_: dict) -> None:
            nonlocal begun
            row = json.loads((Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
            gate.done(_update(row, policy.notes, time.perf_counter() - begun))
            if row["update"] + 1 < options.updates:
                policy.notes = Notes()
                gate.wait()
                begun = time.perf_counter()

        gate.wait()
        begun = time.perf_counter()
        run_rft(policy, WatchedTools(make_executor(tools), policy), tools, folder, settings, log=after_update)
    policy.close()


def _update(row: dict[str, Any], notes: Notes, seconds: float) -> Update:
    """From the row of the journal and what was noted beside it."""
    laps = row["seconds"]
    return Update(
        seconds=seconds,
        rollout_s=laps["rollouts"],
        idle_s=uncovered_s(notes.tools, notes.writing),
        tool_s=covered_s(notes.tools),
        score_s=laps["score"],
        train_s=laps["train"],
        num_rollouts=row["rollouts"] + row["num_lost"],
        num_answered=notes.num_answered,
        num_turns=notes.num_turns,
        num_calls=len(notes.tools),
        sampled_tokens=notes.num_sampled,
        learnt_tokens=row["tokens"],
        prompts=tuple(sorted(notes.prompts.values())),
    )
