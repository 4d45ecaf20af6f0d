"""JSON that is safe inside a conversation: strict to read, impossible to break out of when written."""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 16
MAX_DIGITS = 30


def dumps(value: Any) -> str:
    r"""One line of JSON in which `<` and `>` are written as `\u003c` and `\u003e`.

    So no text that a tool read off an image, however hostile, can form a tag or a special token: it decodes to the same
    string and ends no turn.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    # A lone surrogate is legal in a Python string and in JSON, but not in UTF-8.
    text = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace") if _has_surrogate(text) else text
    return text.replace("<", "\\u003c").replace(">", "\\u003e")


def loads(text: str) -> Any:
    """Parse JSON strictly.

    Raises:
        ValueError: not JSON, NaN or Infinity, a duplicate key, deeper than `MAX_DEPTH`, or a number past `MAX_DIGITS` digits.
    """
    depth = longest = 0
    in_string = escaped = False
    for char in text:  # before the parser, which recurses
        if in_string:
            in_string = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            longest = max(longest, depth)
        elif char in "]}":
            depth -= 1
    if longest > MAX_DEPTH:
        raise ValueError(f"nested {longest} deep, at most {MAX_DEPTH}")
    return json.loads(text, parse_constant=_refuse_constant, parse_int=_int, parse_float=_float, object_pairs_hook=_unique)


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number in JSON")


def _int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number too large")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)[:40]!r} stands twice")
    return dict(pairs)
