"""One tool by hand: what `pixelis tool` does, as functions that return JSON-able facts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from pixelis.core import jsontext
from pixelis.core.errors import AgentError, ConfigError, DataError
from pixelis.core.geometry import WIRE_MAX
from pixelis.core.grammar import make_call
from pixelis.core.media import Medium, open_medium
from pixelis.core.ops import Call, CallError, Result, SegOutput
from pixelis.core.trajectory import RESULT
from pixelis.core.wire import output_to_wire
from pixelis.tools.execute import Execution, Executor

MAX_OPEN_MEDIA = 8


def parse_numbers(text: str, count: int, option: str) -> list[float]:
    """Comma-separated numbers of an option.

    Raises:
        ConfigError: not that many numbers.
    """
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        raise ConfigError(f"{option} takes {count} numbers separated by commas, without spaces; got {text!r}")
    return values


def to_wire_units(arguments: dict[str, Any], medium: Medium) -> dict[str, Any]:
    """Arguments with pixel coordinates as arguments on the 0-1000 wire (not rounded: a hand's pixels are meant exactly)."""

    def scaled(values: Any) -> Any:
        if not isinstance(values, list) or not all(isinstance(v, (int, float)) for v in values):
            return values
        return [v / (medium.width, medium.height)[i % 2] * WIRE_MAX for i, v in enumerate(values)]

    return {name: scaled(value) if name in ("bbox_2d", "point", "other") else value for name, value in arguments.items()}


def execute(
    executor: Executor, medium: Medium, op: object, arguments: object, *, is_px: bool, history: list[Result]
) -> tuple[dict, Execution]:
    """Run one call and describe it: the JSON of `pixelis tool --json`, and the execution itself."""
    try:
        call = make_call(op, arguments)
        call = Call(op=call.op, arguments=to_wire_units(call.arguments, medium)) if is_px else call
    except AgentError as error:
        failed = Result(op=str(op)[:40], status="error", engine="none", version="", error=CallError(kind=error.kind, message=error.message))
        return describe(medium, arguments, Execution(result=failed)), Execution(result=failed)
    execution = executor.run(call, medium, history)
    return describe(medium, call.arguments, execution), execution


def describe(medium: Medium, arguments: object, execution: Execution) -> dict[str, Any]:
    """Everything known of one call: wire result, pixel result, mask as COCO RLE, engine, version, seconds."""
    result = execution.result
    facts: dict[str, Any] = {
        "op": result.op,
        "status": result.status,
        "medium": {"name": medium.info.name, "sha256": medium.sha256, "kind": medium.kind, "width": medium.width, "height": medium.height},
        "arguments": arguments,
        "engine": result.engine,
        "version": result.version,
        "seconds": round(execution.seconds, 4),
        "is_cached": execution.is_cached,
    }
    if result.error is not None:
        facts["error"] = {"kind": result.error.kind, "message": result.error.message}
    if result.output is not None:
        facts["result"] = output_to_wire(result.output, medium.info)
        pixels = json.loads(RESULT.dump_json(result))["output"]
        pixels.pop("op")
        facts["pixels"] = {name: value for name, value in pixels.items() if name != "mask"}
        if isinstance(result.output, SegOutput):
            facts["mask"] = result.output.mask.as_coco()
    return facts


def execute_lines(executor: Executor, lines: Iterable[str], *, default_media: str | None, is_px: bool) -> Iterator[dict[str, Any]]:
    """Run calls from JSON lines `{"op": ..., "media": ..., "arguments": {...}}`; `ref` counts the earlier calls on the same medium.

    Raises:
        DataError: a line is no such object, or its medium cannot be opened; names the line. What came before has been yielded.
    """
    media: dict[str, tuple[Medium, list[Result]]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = jsontext.loads(line)
            path = value.get("media", default_media)
            op = value.get("op", value.get("name"))
            arguments = value.get("arguments", {})
        except (ValueError, AttributeError) as error:
            raise DataError(f'line {number} is no call ({error}): write {{"op": "OCR", "media": "page.png", "arguments": {{}}}}') from None
        if not isinstance(path, str):
            raise DataError(f'line {number} names no medium: add "media": "FILE", or give MEDIA on the command line')
        if path not in media:
            if len(media) >= MAX_OPEN_MEDIA:
                media.pop(next(iter(media)))[0].close()
            media[path] = (open_medium(path), [])
        medium, history = media[path]
        facts, execution = execute(executor, medium, op, arguments, is_px=is_px or bool(value.get("px")), history=history)
        history.append(execution.result)
        yield facts
