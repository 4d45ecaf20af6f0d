"""Coverage-guided fuzzing of the grammar: no crash, no hang, no call executed that was not written.

pip install atheris
python fuzz/fuzz_grammar.py -runs=100000 -max_len=4096
"""

from __future__ import annotations

import json
import sys

import atheris

with atheris.instrument_imports():
    from pixelis.core import grammar, jsontext
    from pixelis.core.errors import GrammarError, ToolError
    from pixelis.core.geometry import box_from_wire, point_from_wire

PIECES = [
    *grammar.TAGS,
    '{"name": "SEG", "arguments": {',
    '"bbox_2d": [',
    '"ref": ',
    "}}",
    "NaN",
    "1e999",
    "\\u003c",
    "\x00",
    "<|im_end|>",
    "[" * 40,
]


def make_text(data: atheris.FuzzedDataProvider) -> str:
    """Fuzzed text with the grammar's own pieces strewn in, so that the parser's inside is reached."""
    parts = []
    for _ in range(data.ConsumeIntInRange(1, 8)):
        if data.ConsumeBool():
            parts.append(PIECES[data.ConsumeIntInRange(0, len(PIECES) - 1)])
        parts.append(data.ConsumeUnicode(data.ConsumeIntInRange(0, 200)))
    return "".join(parts)


def check(raw: bytes) -> None:
    data = atheris.FuzzedDataProvider(raw)
    text = make_text(data)
    try:
        turn = grammar.parse_turn(text)
    except GrammarError:
        return
    if turn.call is None:
        return
    assert text.count(grammar.CALL_OPEN) == text.count(grammar.CALL_CLOSE) == 1, "a call out of a text without exactly one"
    body = text.partition(grammar.CALL_OPEN)[2].partition(grammar.CALL_CLOSE)[0]
    assert json.loads(body).get("arguments", {}) == turn.call.arguments, "arguments that were not written"
    rendered = grammar.render_response({"echo": turn.call.arguments})
    assert rendered.count("<") == rendered.count(">") == 2, "a tool's text forms a tag"
    assert jsontext.loads(rendered[len(grammar.RESPONSE_OPEN) : -len(grammar.RESPONSE_CLOSE)]) is not None
    for value in turn.call.arguments.values():
        for convert in (box_from_wire, point_from_wire):
            try:
                convert(value, width=640, height=480)
            except ToolError:
                continue


if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
