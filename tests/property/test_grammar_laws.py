"""Laws of the grammar: what is rendered parses back, and no text of any kind crashes or hangs the parser."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from pixelis.core import jsontext
from pixelis.core.errors import GrammarError
from pixelis.core.grammar import TAGS, Turn, parse_turn, render_turn
from pixelis.core.ops import OPS, Call

plain = st.text(st.characters(exclude_categories=("Cs",)), max_size=60).map(str.strip).filter(lambda s: not any(t in s for t in TAGS))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
calls = st.builds(
    lambda op, arguments: Call(op=op, arguments=arguments), st.sampled_from(OPS), st.dictionaries(st.text(max_size=10), values, max_size=4)
)
clean_calls = calls.filter(lambda c: json.loads(jsontext.dumps(c.arguments)) == c.arguments)


@given(plain, clean_calls)
def test_a_rendered_call_parses_back(thought, call):
    turn = Turn(thought=thought, call=call)
    assert parse_turn(render_turn(turn)) == turn


@given(plain, plain)
def test_a_rendered_answer_parses_back(thought, answer):
    turn = Turn(thought=thought, answer=answer)
    assert parse_turn(render_turn(turn)) == turn


fragments = st.sampled_from(
    [*TAGS, '{"name": "SEG", "arguments": {}}', '{"name": "', '"}', "[[[[", "{{", "\\", "NaN", "1e999", "\x00", "<|im_end|>", "\ud800"]
)


@settings(max_examples=500)
@given(st.lists(fragments | st.text(max_size=12), max_size=12).map("".join))
def test_any_text_gives_a_turn_or_a_typed_error(text):
    try:
        turn = parse_turn(text)
    except GrammarError:
        return
    if turn.call is not None:  # whatever is executed stood there, once, in whole
        assert text.count("<tool_call>") == text.count("</tool_call>") == 1
        body = text.partition("<tool_call>")[2].partition("</tool_call>")[0]
        assert json.loads(body).get("arguments", {}) == turn.call.arguments
        assert turn.answer is None


@given(values)
def test_json_text_holds_no_angle_bracket_and_decodes_to_the_same(value):
    text = jsontext.dumps(value)
    assert "<" not in text and ">" not in text
