"""A trajectory as the page's data: what the policy read in its own words, and its evidence in pixels for drawing.

Everything is plain JSON; NaN and infinities become null, since JSON has neither.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from pixelis.core.errors import AgentError
from pixelis.core.geometry import Box, Mask, box_from_wire, point_from_wire
from pixelis.core.media import MediumInfo
from pixelis.core.ops import (
    Call,
    OcrOutput,
    Output,
    PropOutput,
    SegOutput,
    TempOutput,
    TrkOutput,
    ZoomOutput,
)
from pixelis.core.trajectory import Step, Timing, Trajectory

Clock = Callable[[int], float]
"""A frame's time in seconds."""


def entry(trajectory: Trajectory) -> dict:
    """What the list shows of a trajectory and searches in."""
    ops = [{"op": _op(step), "is_ok": step.result.is_ok} for step in trajectory.steps]
    words = [trajectory.question, trajectory.answer or "", trajectory.stop.replace("_", " "), trajectory.id, trajectory.medium.name]
    return {
        "question": trajectory.question,
        "answer": trajectory.answer,
        "stop": trajectory.stop,
        "ops": ops,
        "search": " ".join([*words, *(o["op"] for o in ops)]).lower(),
    }


def whole(trajectory: Trajectory, *, timing: Timing | None, validity: list[bool | None] | None, clock: Clock) -> dict:
    """Everything the page shows of one trajectory.

    Args:
        validity: of each step; None when the trajectory has not been scored.
        clock: a frame's time.
    """
    counts: dict[str, int] = {}
    for run in trajectory.tokens:
        counts[run.role] = counts.get(run.role, 0) + len(run.ids)
    return {
        "id": trajectory.id,
        "question": trajectory.question,
        "answer": trajectory.answer,
        "stop": trajectory.stop,
        "stop_detail": trajectory.stop_detail,
        "final_text": trajectory.final_text,
        "policy": {"name": trajectory.policy.name, "version": trajectory.policy.version},
        "sampling": one_line(trajectory.policy.sampling),
        "seed": str(trajectory.seed),
        "engines": sorted(trajectory.engines.items()),
        "settings": one_line(trajectory.settings),
        "task_id": trajectory.task_id,
        "tokens": ", ".join(f"{count} {role}" for role, count in counts.items()),
        "info": dataclasses.asdict(trajectory.medium),
        "total_s": timing.total_s if timing else None,
        "steps": [
            {**_step(step, trajectory.medium, clock), "timing": _took(timing, i), **_verdict(validity, i)}
            for i, step in enumerate(trajectory.steps)
        ],
    }


def _step(step: Step, info: MediumInfo, clock: Clock) -> dict:
    result = step.result
    return {
        "op": _op(step),
        "thought": step.thought,
        "text": step.text,
        "response": step.response,
        "arguments": None if step.call is None else pretty(step.call.arguments),
        "asked": None if step.call is None else asked(step.call, info),
        "status": result.status,
        "engine": result.engine,
        "version": result.version,
        "error": dataclasses.asdict(result.error) if result.error else None,
        "found": None if result.output is None else found(result.output, clock),
    }


def _took(timing: Timing | None, index: int) -> dict | None:
    return dataclasses.asdict(timing.steps[index]) if timing and index < len(timing.steps) else None


def _verdict(validity: list[bool | None] | None, index: int) -> dict:
    """Nothing for a trajectory that has not been scored: the page then shows no badge."""
    if validity is None:
        return {}
    return {"is_valid": validity[index] if index < len(validity) else None}


def _op(step: Step) -> str:
    return step.call.op if step.call else step.result.op


# ---------------------------------------------------------------- evidence


def asked(call: Call, info: MediumInfo) -> dict:
    """The regions that a call names in coordinates, in pixels; None for what it does not name or names wrongly."""

    def pixels(convert: Callable, name: str) -> list[float] | None:
        try:
            value = convert(call.arguments.get(name), width=info.width, height=info.height)
        except AgentError:
            return None
        return list(value.as_tuple() if isinstance(value, Box) else value)

    return {
        "box": pixels(box_from_wire, "bbox_2d"),
        "point": pixels(point_from_wire, "point"),
        "other": pixels(box_from_wire, "other"),
        "frame": _frame_asked(call.arguments.get("frame"), info),
    }


def _frame_asked(time_s: object, info: MediumInfo) -> int | None:
    if info.kind != "video" or not info.fps or isinstance(time_s, bool) or not isinstance(time_s, (int, float)):
        return None
    return min(round(time_s * info.fps), info.num_frames - 1) if 0 <= time_s <= info.duration_s else None


def found(output: Output, clock: Clock) -> dict:
    """A step's evidence for drawing: boxes `[x0, y0, x1, y1]` and masks in pixels of the original frame."""
    fields = _plain(output)
    match output:
        case SegOutput() | ZoomOutput() | OcrOutput() | PropOutput():
            return {**fields, "time_s": clock(output.frame)}
        case TrkOutput() | TempOutput():
            return fields
    raise AssertionError(output)


def frames_of(output: Output) -> set[int]:
    """The frames that must be on the page for a step's evidence to be seen where it is."""
    match output:
        case TrkOutput():
            seen = output.visible or output.points
            return {seen[0].frame, seen[len(seen) // 2].frame, seen[-1].frame} if seen else set()
        case TempOutput():
            return {output.first_frame, output.last_frame}
        case _:
            return {output.frame}


def _plain(value: Any) -> Any:
    if isinstance(value, Box):
        return [round(v, 2) for v in value.as_tuple()]
    if isinstance(value, Mask):
        return value.as_coco()
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


# ---------------------------------------------------------------- text


def pretty(arguments: Mapping[str, Any]) -> str:
    """Arguments as JSON, one a line, each value kept on its line."""
    if not arguments:
        return "{}"
    lines = [f"  {_json(str(name))}: {_json(value)}" for name, value in arguments.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def one_line(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_json(value)}" for name, value in values.items())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def embeddable(value: Any) -> str:
    """JSON that is safe inside a script element: ASCII, and no `<`, `>` or `&` that could end it."""
    text = json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
