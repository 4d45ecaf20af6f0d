"""The one place where a written call becomes a recorded result: the boundary at which every error turns into data."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pixelis.core.arguments import resolve
from pixelis.core.errors import MACHINE_ERRORS, AgentError, DataError, NotInstalled, ToolError
from pixelis.core.media import Medium
from pixelis.core.ops import Args, Call, CallError, Output, Result
from pixelis.tools.base import Context, Tool, Toolbox
from pixelis.tools.cache import ResultCache, cache_key

DEADLINE_S = {"SEG": 20.0, "ZOOM": 5.0, "TRK": 60.0, "OCR": 30.0, "TEMP": 60.0, "PROP": 10.0}
"""Seconds a call may take; generous, since the first call of an engine also loads its weights."""

MAX_ABANDONED = 4
"""Calls past their deadline that may still be running inside an engine; past that, new calls are refused."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """A result with what only this run knows of it."""

    result: Result
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    seconds: float = 0.0
    is_cached: bool = False
    traceback: str = ""
    """Where an engine crashed, for the developer; the policy reads one sentence."""


class Executor:
    """Runs calls against a toolbox.

    Args:
        tools: op to tool.
        deadline_s: seconds per op, or one number for all.
        disabled: ops that answer with a typed empty result (paper, supplement 5).
        cache: where results are kept; None computes every time.
    """

    def __init__(
        self,
        tools: Toolbox,
        *,
        deadline_s: Mapping[str, float] | float = DEADLINE_S,
        disabled: Sequence[str] = (),
        cache: ResultCache | None = None,
    ) -> None:
        self.tools = tools
        self.disabled = frozenset(disabled)
        self._deadline_s = deadline_s
        self._cache = cache
        self._abandoned: list[threading.Thread] = []

    def deadline_s(self, op: str) -> float:
        return self._deadline_s.get(op, 30.0) if isinstance(self._deadline_s, Mapping) else self._deadline_s

    def run(self, call: Call, medium: Medium, history: Sequence[Result]) -> Execution:
        """Execute one call. Never raises for what the agent, the medium or an engine did wrong: that is in the result."""
        start = time.perf_counter()
        tool = self.tools.get(call.op)
        if tool is None or call.op in self.disabled:
            return Execution(result=Result(op=call.op, status="disabled", engine="none", version=""))
        try:
            args = resolve(call, medium, history)
        except ToolError as error:
            return Execution(result=_failed(call.op, tool, error), seconds=time.perf_counter() - start)
        execution = self._run_resolved(tool, args, medium)
        return Execution(
            result=execution.result,
            blobs=execution.blobs,
            seconds=time.perf_counter() - start,
            is_cached=execution.is_cached,
            traceback=execution.traceback,
        )

    def _run_resolved(self, tool: Tool, args: Args, medium: Medium) -> Execution:
        key = cache_key(medium=medium.sha256, op=tool.op, engine=tool.engine, version=_version(tool), args=args)
        found = self._cache.get(key) if self._cache else None
        if found is not None:
            return Execution(result=found[0], blobs=found[1], is_cached=True)
        execution = self._compute(tool, args, medium)
        error = execution.result.error
        if self._cache and (error is None or error.kind not in MACHINE_ERRORS):
            self._cache.put(key, (execution.result, dict(execution.blobs)))
        return execution

    def _compute(self, tool: Tool, args: Args, medium: Medium) -> Execution:
        """One uncached execution within its deadline; every error becomes a typed result here and nowhere else."""
        try:
            output, blobs = self._within_deadline(tool, args, medium)
        except AgentError as error:
            return Execution(result=_failed(tool.op, tool, error))
        except NotInstalled as error:
            return Execution(result=_failed(tool.op, tool, ToolError("unavailable", str(error))))
        except DataError as error:
            return Execution(result=_failed(tool.op, tool, ToolError("crashed", f"the medium cannot be read there: {error}")))
        except Exception as error:  # noqa: BLE001 - the boundary: an engine's bug costs one call, not the run
            import traceback

            text = "".join(traceback.format_exception(error))
            return Execution(
                result=_failed(tool.op, tool, ToolError("crashed", f"{tool.op} failed inside: {type(error).__name__}")), traceback=text
            )
        return Execution(
            result=Result(op=tool.op, status="ok", engine=tool.engine, version=tool.version, output=output),
            blobs=blobs,
        )

    def _within_deadline(self, tool: Tool, args: Args, medium: Medium) -> tuple[Output, dict[str, bytes]]:
        """Run in a thread of its own, so that an engine stuck in native code costs its deadline and no more."""
        self._abandoned = [t for t in self._abandoned if t.is_alive()]
        if len(self._abandoned) >= MAX_ABANDONED:
            raise ToolError("unavailable", f"{len(self._abandoned)} earlier calls are still running past their deadlines: try later")
        limit_s = self.deadline_s(tool.op)
        end = time.monotonic() + limit_s
        late = ToolError("deadline", f"{tool.op} did not finish within {limit_s:g} s: ask for a smaller region or a shorter time")

        def check() -> None:
            if time.monotonic() > end:
                raise late

        context = Context(check=check)
        box: dict[str, object] = {}
        thread = threading.Thread(target=_into, args=(box, lambda: tool(medium, args, context)), daemon=True, name=f"pixelis-{tool.op}")
        thread.start()
        thread.join(limit_s)
        if thread.is_alive():
            self._abandoned.append(thread)
            raise late
        if "error" in box:
            raise box["error"]  # type: ignore[misc]
        return box["output"], context.blobs  # type: ignore[return-value]


def _into(box: dict[str, object], work: Callable[[], object]) -> None:
    try:
        box["output"] = work()
    except BaseException as error:  # noqa: BLE001 - carried to the calling thread, which raises it
        box["error"] = error


def _version(tool: Tool) -> str:
    """The tool's version; an engine that is not there has none, and says so when it is called."""
    try:
        return tool.version
    except NotInstalled:
        return "not installed"


def _failed(op: str, tool: Tool, error: AgentError) -> Result:
    return Result(
        op=op, status="error", engine=tool.engine, version=_version(tool), error=CallError(kind=error.kind, message=error.message)
    )
