"""Text <-> turn: what the policy wrote, as a thought with one call or one answer, or as a typed error.

A turn is `thought <tool_call>{"name": OP, "arguments": {...}}</tool_call>` or `thought <answer>...</answer>` (Hermes tool
calls as Qwen3-VL writes them). Nothing else in the text is ever executed. Source: paper §3.2; Qwen3-VL's chat template.
"""

from __future__ import annotations

from dataclasses import dataclass

from pixelis.core import jsontext
from pixelis.core.errors import GrammarError
from pixelis.core.ops import ALIASES, OPS, Call

CALL_OPEN, CALL_CLOSE = "<tool_call>", "</tool_call>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
RESPONSE_OPEN, RESPONSE_CLOSE = "<tool_response>", "</tool_response>"
TAGS = (CALL_OPEN, CALL_CLOSE, ANSWER_OPEN, ANSWER_CLOSE, RESPONSE_OPEN, RESPONSE_CLOSE)

MAX_TURN_CHARS = 100_000
MAX_CALL_CHARS = 8_000


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn of the policy. At most one of `call` and `answer` is set; neither when it wrote only a thought."""

    thought: str
    call: Call | None = None
    answer: str | None = None


def parse_turn(text: str) -> Turn:
    """What the policy wrote in one turn.

    Raises:
        GrammarError: two calls, a call and an answer, unclosed or stray tags, a body that is not one call. The error's
            message tells the policy what to write instead; nothing of such a turn is executed.
    """
    if len(text) > MAX_TURN_CHARS:
        raise GrammarError(
            "bad_call", f"the turn has {len(text)} characters, at most {MAX_TURN_CHARS}: write one short thought and one call"
        )
    counts = {tag: text.count(tag) for tag in TAGS}
    if counts[RESPONSE_OPEN] or counts[RESPONSE_CLOSE]:
        raise GrammarError("bad_call", "tool responses are written by the tools, not by you: write a call and wait")
    if counts[CALL_OPEN] > 1 or counts[CALL_CLOSE] > 1:
        raise GrammarError(
            "bad_call", f"{max(counts[CALL_OPEN], counts[CALL_CLOSE])} calls in one turn: write exactly one and wait for its result"
        )
    if counts[CALL_OPEN] != counts[CALL_CLOSE]:
        raise GrammarError("bad_call", f"a call opens with {CALL_OPEN} and closes with {CALL_CLOSE}: one of them is missing")
    if counts[CALL_OPEN] and (counts[ANSWER_OPEN] or counts[ANSWER_CLOSE]):
        raise GrammarError("bad_call", "a call and an answer in one turn: write the call, wait for its result, then answer")
    if counts[CALL_OPEN]:
        before, _, rest = text.partition(CALL_OPEN)
        body, closed, _ = rest.partition(CALL_CLOSE)
        if not closed:
            raise GrammarError("bad_call", f"{CALL_CLOSE} stands before {CALL_OPEN}")
        return Turn(thought=before.strip(), call=parse_call(body))
    return _parse_answer(text, counts)


def _parse_answer(text: str, counts: dict[str, int]) -> Turn:
    if not counts[ANSWER_OPEN] and not counts[ANSWER_CLOSE]:
        return Turn(thought=text.strip())
    # Several answers in one turn: the last one counts, so writing all options earns nothing.
    before, opened, rest = text.rpartition(ANSWER_OPEN)
    body, closed, _ = rest.partition(ANSWER_CLOSE)
    if not opened or not closed:
        raise GrammarError("bad_call", f"an answer opens with {ANSWER_OPEN} and closes with {ANSWER_CLOSE}: one of them is missing")
    return Turn(thought=before.strip(), answer=body.strip())


def parse_call(body: str) -> Call:
    """The JSON between the tags: an object with `name` and `arguments`, nothing else.

    Raises:
        GrammarError: with kind `bad_call`, `unknown_op` or `bad_arguments`.
    """
    if len(body) > MAX_CALL_CHARS:
        raise GrammarError("bad_call", f"the call has {len(body)} characters, at most {MAX_CALL_CHARS}")
    try:
        value = jsontext.loads(body)
    except (ValueError, RecursionError) as error:
        raise GrammarError(
            "bad_call", f'the call is not JSON ({str(error)[:80]}): write {{"name": "ZOOM", "arguments": {{...}}}}'
        ) from None
    if not isinstance(value, dict) or not {"name"} <= set(value) <= {"name", "arguments"}:
        raise GrammarError("bad_call", 'a call is one object with "name" and "arguments" and nothing else')
    return make_call(value["name"], value.get("arguments", {}))


def make_call(name: object, arguments: object) -> Call:
    """A call from a name and its arguments, as native tool calls deliver them.

    Raises:
        GrammarError: unknown op, or arguments that are no object.
    """
    op = canonical_op(name)
    if not isinstance(arguments, dict):
        raise GrammarError("bad_arguments", f'"arguments" of {op} must be an object')
    return Call(op=op, arguments=arguments)


def canonical_op(name: object) -> str:
    """The op that a written name means: any case, aliases such as READ and image_zoom_in_tool included."""
    upper = name.upper() if isinstance(name, str) else ""
    op = ALIASES.get(upper, upper)
    if op not in OPS:
        raise GrammarError("unknown_op", f"there is no tool {str(name)[:40]!r}: the tools are {', '.join(OPS)}")
    return op


def render_call(call: Call) -> str:
    return f"{CALL_OPEN}\n{jsontext.dumps({'name': call.op, 'arguments': call.arguments})}\n{CALL_CLOSE}"


def render_turn(turn: Turn) -> str:
    """The text of a turn; `parse_turn` gives the same turn back.

    Raises:
        ValueError: the thought or the answer holds one of the grammar's own tags.
    """
    for part in (turn.thought, turn.answer or ""):
        if any(tag in part for tag in TAGS):
            raise ValueError(f"a thought or answer may not hold any of {', '.join(TAGS)}")
    if turn.call is not None and turn.answer is not None:
        raise ValueError("a turn holds a call or an answer, not both")
    lead = f"{turn.thought}\n" if turn.thought else ""
    if turn.call is not None:
        return lead + render_call(turn.call)
    if turn.answer is not None:
        return f"{lead}{ANSWER_OPEN}{turn.answer}{ANSWER_CLOSE}"
    return turn.thought


def render_response(payload: dict) -> str:
    """A tool's result as the policy reads it."""
    return f"{RESPONSE_OPEN}\n{jsontext.dumps(payload)}\n{RESPONSE_CLOSE}"
