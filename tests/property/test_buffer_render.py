"""The buffer's ids are those of a full render of the same conversation, whatever is said in it."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import string
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")

from pixelis.core.arguments import tool_schemas
from pixelis.core.grammar import render_response
from pixelis.core.trajectory import TokenRun
from pixelis.policy.buffer import ChatFormat, ImageRef, TokenBuffer
from pixelis.testing.tiny_vlm import SPECIALS, TAGS, make_tokenizer

CHAT = ChatFormat(make_tokenizer(vocab_size=700), guide="Be brief.", schemas=tool_schemas()[:2])

TEXT = st.one_of(
    st.text(max_size=40),
    st.text(alphabet=string.printable, max_size=40),
    st.lists(st.sampled_from([*SPECIALS, *TAGS, "\n", " ", "é", "e\u0301", "图", "<", "|", "}", "7", "a"]), max_size=8).map("".join),
)
VALUE = st.one_of(st.integers(0, 1000), st.booleans(), TEXT)
IMAGE = st.builds(
    lambda name, h, w: ImageRef(f"{name:064x}", (1, 2 * h, 2 * w)), st.integers(0, 2**64), st.integers(1, 4), st.integers(1, 4)
)
RESULT = st.tuples(st.dictionaries(st.sampled_from(["step", "op", "text", "图"]), VALUE, max_size=3), st.none() | IMAGE)
CONVERSATION = st.tuples(
    st.lists(st.one_of(TEXT, IMAGE), min_size=1, max_size=4), st.lists(st.tuples(TEXT, RESULT), min_size=1, max_size=3), TEXT
)


def survives_beside(text: str) -> bool:
    """A policy samples ids, so where its text would be split differently behind the template's newline the two may differ."""
    lead = text[: len(text) - len(text.lstrip())]
    return not set(lead) & {"\n", "\r"}


def build(parts, turns, last, *, ended_itself: bool, chat: ChatFormat = CHAT):
    """The conversation as the buffer's ids, and as the messages of the template."""
    buffer = TokenBuffer(image_id=chat.image_id)
    images = [p for p in parts if isinstance(p, ImageRef)]
    buffer.append("prompt", chat.prompt(parts), images=images)
    content = [{"type": "image"} if isinstance(p, ImageRef) else {"type": "text", "text": chat.plain(p)} for p in parts]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]

    def say(text):
        ids = chat.encode(text, [])
        if ended_itself:
            buffer.append("policy", [*ids, chat.end_id], logp=[-0.5] * (len(ids) + 1))
        else:
            buffer.append("policy", ids, logp=[-0.5] * len(ids))
            buffer.append("tool", [chat.end_id])
        messages.append({"role": "assistant", "content": text})

    for text, (payload, image) in turns:
        say(text)
        response = render_response(payload)
        buffer.append("tool", chat.response(response, image), images=[image] if image else [])
        messages.append(chat.tool_message(response, has_image=image is not None))
        images += [image] if image else []
    say(last)
    return buffer, messages, images


def published_template() -> str | None:
    """Qwen3-VL's own template, where a package that ships it is installed."""
    package = importlib.util.find_spec("trl")
    path = Path(package.origin).parent / "chat_templates" / "qwen3_vl.jinja" if package else None
    return path.read_text(encoding="utf-8") if path and path.exists() else None


@settings(max_examples=150, deadline=None)
@given(CONVERSATION, st.booleans())
def test_ids_equal_a_full_render(conversation, ended_itself):
    check_ids(CHAT, conversation, ended_itself)


@pytest.mark.skipif(published_template() is None, reason="no installed package ships Qwen3-VL's chat template")
@settings(max_examples=100, deadline=None)
@given(CONVERSATION, st.booleans())
def test_ids_equal_a_full_render_of_the_published_template(conversation, ended_itself):
    check_ids(published(), conversation, ended_itself)


@functools.cache
def published() -> ChatFormat:
    return ChatFormat(CHAT.tokenizer, template=published_template(), guide="Be brief.", schemas=tool_schemas()[:2])


def check_ids(chat, conversation, ended_itself):
    parts, turns, last = conversation
    turns = [(CHAT.plain(text), result) for text, result in turns]
    last = CHAT.plain(last)
    assume(all(survives_beside(text) for text in (last, *(text for text, _ in turns))))
    buffer, messages, images = build(parts, turns, last, ended_itself=ended_itself, chat=chat)
    rendered = chat.encode(chat.render(messages, to_continue=False), images)
    assert buffer.ids + CHAT.encode("\n", []) == rendered  # the template writes a newline behind the last turn
    assert [p.image for p in buffer.images] == images
    assert sum(id_ == CHAT.image_id for id_ in buffer.ids) == sum(CHAT.num_tokens(image.grid) for image in images)


@settings(max_examples=100, deadline=None)
@given(CONVERSATION, st.booleans())
def test_text_equals_a_full_render_whatever_the_policy_writes(conversation, ended_itself):
    parts, turns, last = conversation
    assume(not any("<|image_pad|>" in text for text in (last, *(text for text, _ in turns))))  # never sampled: it is banned
    buffer, messages, images = build(parts, turns, last, ended_itself=ended_itself)
    rendered = CHAT.encode(CHAT.render(messages, to_continue=False), images)
    assert CHAT.decode(buffer.ids) + "\n" == CHAT.decode(rendered)


@settings(max_examples=100, deadline=None)
@given(CONVERSATION, st.booleans())
def test_load_after_export_gives_the_same_buffer(conversation, ended_itself):
    parts, turns, last = conversation
    buffer, _, images = build(parts, [(CHAT.plain(t), r) for t, r in turns], CHAT.plain(last), ended_itself=ended_itself)
    grids = {image.sha256: image.grid for image in images}
    assume(len(grids) == len({(i.sha256, i.grid) for i in images}))
    runs = buffer.export()
    again = TokenBuffer.load(runs, grids, image_id=CHAT.image_id)
    assert again.ids == buffer.ids and again.images == buffer.images and again.export() == runs
    assert (again.positions() == buffer.positions()).all() and again.next_position == buffer.next_position
    assert all(isinstance(run, TokenRun) for run in runs)
    assert [a.role != b.role for a, b in itertools.pairwise(runs)] == [True] * (len(runs) - 1)


@settings(max_examples=100, deadline=None)
@given(TEXT, RESULT)
def test_no_text_can_open_a_turn_or_claim_an_image(question, result):
    payload, image = result
    reserved = {CHAT.tokenizer.convert_tokens_to_ids(t) for t in (*SPECIALS, *TAGS)}
    empty = CHAT.prompt([""])
    assert [i for i in CHAT.prompt([question]) if i in reserved] == [i for i in empty if i in reserved]
    bare = CHAT.response(render_response({}), image)
    assert [i for i in CHAT.response(render_response(payload), image) if i in reserved] == [i for i in bare if i in reserved]
