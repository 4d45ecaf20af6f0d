"""Doubles that say so: a policy that reads its turns from a list, and tools that misbehave on purpose."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from pixelis.core.media import Medium
from pixelis.core.ops import Output
from pixelis.core.trajectory import PolicyInfo, TokenRun
from pixelis.policy.base import Observation, Task
from pixelis.tools.base import Context


class ScriptedPolicy:
    """Writes the given turns one after another, whatever it observes.

    Args:
        turns: the texts, or a function from a task to them; after the last, the last again.
    """

    def __init__(self, turns: Sequence[str] | Callable[[Task], Sequence[str]]) -> None:
        self.info = PolicyInfo(name="scripted", version="1")
        self._turns = turns
        self.observed: list[Observation] = []
        """Every observation of every session, in order."""

    def open(self, task: Task, *, seed: int) -> ScriptedSession:
        turns = self._turns(task) if callable(self._turns) else self._turns
        return ScriptedSession(list(turns), self.observed)

    def close(self) -> None:
        return None


class ScriptedSession:
    def __init__(self, turns: list[str], observed: list[Observation]) -> None:
        self._turns = turns
        self._observed = observed
        self._next = 0

    async def act(self) -> str:
        text = self._turns[min(self._next, len(self._turns) - 1)]
        self._next += 1
        return text

    def observe(self, observation: Observation) -> None:
        self._observed.append(observation)

    def tokens(self) -> tuple[TokenRun, ...]:
        return ()

    def close(self) -> None:
        return None


class WrappedTool:
    """A tool that does something else first, or instead.

    Args:
        tool: the tool it stands for.
        output: returned for every call, instead of the tool's own.
        error: raised for every call.
        sleep_s: slept before every call, without looking at the deadline.
        version: reported instead of the tool's own.
    """

    def __init__(
        self, tool: Any, *, output: Output | None = None, error: Exception | None = None, sleep_s: float = 0.0, version: str | None = None
    ) -> None:
        self.op, self.engine, self.version = tool.op, tool.engine, version or tool.version
        self._tool, self._output, self._error, self._sleep_s = tool, output, error, sleep_s
        self.num_calls = 0

    def __call__(self, medium: Medium, args: Any, context: Context) -> Output:
        self.num_calls += 1
        time.sleep(self._sleep_s)
        if self._error is not None:
            raise self._error
        return self._output or self._tool(medium, args, context)
