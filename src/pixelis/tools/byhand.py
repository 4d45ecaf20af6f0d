"""Tools by hand: what `pixelis tool` does, as functions that return JSON-able facts."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pixelis.core import jsontext
from pixelis.core.arguments import ARGUMENTS
from pixelis.core.errors import AgentError, ConfigError, NotInstalled, PixelisError, ToolError
from pixelis.core.geometry import WIRE_MAX
from pixelis.core.grammar import canonical_op, make_call
from pixelis.core.media import Medium, open_medium
from pixelis.core.ops import Call, CallError, Result, SegOutput
from pixelis.core.trajectory import RESULT
from pixelis.core.wire import output_to_wire
from pixelis.tools.cache import ResultCache, cache_for
from pixelis.tools.execute import Execution, Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import build_toolbox, choose, with_engine

MAX_OPEN_MEDIA = 8
MAX_SECONDS = 1e9
"""Past it a number is no time on the wire."""
LINE_KEYS = ("op", "name", "media", "arguments", "engine", "px")
EXAMPLE = '{"op": "OCR", "media": "page.png", "arguments": {}}'


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


# ---------------------------------------------------------------- what a hand wrote


def check_call(call: Call, medium: Medium, *, is_px: bool) -> None:
    """Refuse, in the units in which it was written, what the tools would refuse in theirs or take without a word.

    Raises:
        ToolError: pixels that miss the medium, a time that is out of all proportion, a point outside the box beside it.
    """
    arguments = {name: value for name, value in call.arguments.items() if name in ARGUMENTS[call.op]}
    for name in ("frame", "from_s", "to_s"):
        value = arguments.get(name)
        if isinstance(value, (int, float)) and abs(value) > MAX_SECONDS:
            medium.frame_at(value)  # says how long the medium is
    for name, count in (("bbox_2d", 4), ("other", 4), ("point", 2)):
        if is_px and isinstance(arguments.get(name), list):
            _check_px(name, arguments[name], count, medium)
    point, box = arguments.get("point"), arguments.get("bbox_2d")
    is_both = _are_numbers(point, 2) and _are_numbers(box, 4) and box[0] < box[2] and box[1] < box[3]
    if is_both and not (box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]):
        raise ToolError(
            "bad_arguments", f"point {_shown(point)} lies outside bbox_2d {_shown(box)}: write one inside it, or only one of the two"
        )


def _check_px(name: str, values: list, count: int, medium: Medium) -> None:
    """The rules of `core.geometry` for boxes and points, in pixels."""
    size = (medium.width, medium.height) * 2
    form = "[x0, y0, x1, y1]" if count == 4 else "[x, y]"
    if not _are_numbers(values, count) or not all(abs(v) <= WIRE_MAX * s for v, s in zip(values, size, strict=False)):
        raise ToolError("bad_arguments", f"{name} must be {form} in pixels of a {size[0]}x{size[1]} medium; got {str(values)[:60]}")
    if count == 4 and (values[2] <= values[0] or values[3] <= values[1]):
        raise ToolError("bad_arguments", f"{name} {_shown(values)} is empty or inverted: write {form} with x0 < x1 and y0 < y1")
    if count == 2:
        is_inside = 0 <= values[0] <= size[0] and 0 <= values[1] <= size[1]
    else:
        is_inside = values[0] < size[0] and values[1] < size[1] and values[2] > 0 and values[3] > 0
    if not is_inside:
        raise ToolError("out_of_frame", f"{name} {_shown(values)} misses the medium: x runs from 0 to {size[0]} pixels, y to {size[1]}")


def _are_numbers(values: object, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in values)
    )


def _shown(values: list) -> str:
    return f"[{', '.join(f'{v:.10g}' for v in values)}]"


def to_wire_units(arguments: dict[str, Any], medium: Medium) -> dict[str, Any]:
    """Arguments with pixel coordinates as arguments on the 0-1000 wire (not rounded: a hand's pixels are meant exactly)."""

    def scaled(values: Any) -> Any:
        if not isinstance(values, list) or not all(isinstance(v, (int, float)) for v in values):
            return values
        return [v / (medium.width, medium.height)[i % 2] * WIRE_MAX for i, v in enumerate(values)]

    return {name: scaled(value) if name in ("bbox_2d", "point", "other") else value for name, value in arguments.items()}


# ---------------------------------------------------------------- one call


def execute(
    executor: Executor, medium: Medium, op: object, arguments: object, *, is_px: bool, history: list[Result]
) -> tuple[dict, Execution]:
    """Run one call and describe it: the JSON of `pixelis tool --json`, and the execution itself."""
    try:
        call = make_call(op, arguments)
        check_call(call, medium, is_px=is_px)
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


def executor_of(op: str, settings: ToolSettings, cache: ResultCache) -> Executor:
    """An executor of one op; the engines of the others are not looked at.

    Raises:
        ConfigError: no engine of a name asked for.
        NotInstalled: the engine is missing.
    """
    return Executor(build_toolbox(settings, ops=(op,)), disabled=settings.disabled, cache=cache)


# ---------------------------------------------------------------- many calls


@dataclass(frozen=True)
class _Line:
    op: object
    media: str
    arguments: object
    engine: str | None
    is_px: bool


class _Refused(Exception):
    """A line that is no call: what is wrong with it, and what to write instead."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


def execute_lines(
    lines: Iterable[str | bytes], *, settings: ToolSettings = ToolSettings(), default_media: str | None = None, is_px: bool = False
) -> Iterator[dict[str, Any]]:
    """Run calls from JSON lines `{"op": ..., "media": ..., "arguments": {...}}`, each with an `engine` and `px` of its own if it likes.

    `ref` counts the earlier calls on the same medium, failed ones too. A line that is no call, or whose medium or engine cannot be
    had, is no step: it gives `{"line": ..., "status": "error", "error": {"kind": "bad_line", "message": ..., "hint": ...}}`, and
    the next line is read.

    Raises:
        ConfigError: the settings' cache folder cannot be used.
    """
    bench = _Bench(settings)
    try:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                facts = bench.run(_read_line(line, default_media, is_px))
            except _Refused as error:
                facts = _bad_line(number, str(error), error.hint)
            except NotInstalled as error:
                facts = _bad_line(number, f"{error.what} is not installed", error.command)
            except ConfigError as error:
                facts = _bad_line(number, str(error), "pixelis doctor names the engines")
            except PixelisError as error:
                facts = _bad_line(number, str(error), '"media" is the path of an image or a video')
            yield facts
    finally:
        bench.close()


def _bad_line(number: int, what: str, hint: str) -> dict[str, Any]:
    return {"line": number, "status": "error", "error": {"kind": "bad_line", "message": what, "hint": hint}}


def _read_line(line: str | bytes, default_media: str | None, is_px: bool) -> _Line:
    try:
        value = jsontext.loads(line.decode("utf-8") if isinstance(line, bytes) else line)
    except (ValueError, RecursionError) as error:
        raise _Refused(f"it is no JSON ({error})", f"write {EXAMPLE}") from None
    if not isinstance(value, dict):
        raise _Refused(f"it is a JSON {type(value).__name__}, not an object", f"write {EXAMPLE}")
    if unknown := [key for key in value if key not in LINE_KEYS]:
        raise _Refused(
            f"there is no key {unknown[0][:40]!r}", f"the keys are {', '.join(LINE_KEYS)}; what the tool takes stands in arguments"
        )
    if ("op" in value) == ("name" in value):
        raise _Refused("it names no tool" if "op" not in value else "it has both op and name", f"write {EXAMPLE}")
    media, engine, px = value.get("media", default_media), value.get("engine"), value.get("px", is_px)
    if not isinstance(media, str):
        raise _Refused("it names no medium", 'add "media": "FILE", or give MEDIA on the command line')
    if engine is not None and not isinstance(engine, str):
        raise _Refused(f"engine must be a name, got {engine!r:.40}", "pixelis doctor names the engines")
    if not isinstance(px, bool):
        raise _Refused(f"px must be true or false, got {px!r:.40}", "true: coordinates are pixels; false: 0-1000")
    return _Line(value.get("op", value.get("name")), media, value.get("arguments", {}), engine, px)


class _Bench:
    """What stays from line to line: engines, media, and every medium's results."""

    def __init__(self, settings: ToolSettings) -> None:
        self._settings, self._cache = settings, cache_for(settings)
        self._executors: dict[tuple[str, str], Executor] = {}
        self._media: OrderedDict[str, Medium] = OrderedDict()
        self._histories: dict[tuple[str, str], list[Result]] = {}

    def run(self, line: _Line) -> dict[str, Any]:
        medium, executor = self._open(line.media), self._executor(line)
        history = self._histories.setdefault((line.media, medium.sha256), [])  # a file may change between two openings
        facts, execution = execute(executor, medium, line.op, line.arguments, is_px=line.is_px, history=history)
        history.append(execution.result)
        return facts

    def close(self) -> None:
        for medium in self._media.values():
            medium.close()

    def _open(self, path: str) -> Medium:
        if path not in self._media:
            medium = open_medium(path)
            if len(self._media) >= MAX_OPEN_MEDIA:
                self._media.popitem(last=False)[1].close()
            self._media[path] = medium
        self._media.move_to_end(path)
        return self._media[path]

    def _executor(self, line: _Line) -> Executor:
        try:
            op = canonical_op(line.op)
        except AgentError:
            return Executor({})  # `execute` says what is wrong
        settings = self._settings if line.engine is None else with_engine(self._settings, op, line.engine)
        key = op, choose(op, settings).name
        if key not in self._executors:
            self._executors[key] = executor_of(op, settings, self._cache)
        return self._executors[key]
