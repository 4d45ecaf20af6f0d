"""The append-only buffer: roles, positions, images, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("transformers")

from pixelis.core.errors import ConfigError, DataError
from pixelis.core.trajectory import TokenRun
from pixelis.policy.buffer import ChatFormat, ImageRef, TokenBuffer
from pixelis.testing.tiny_vlm import CHAT_TEMPLATE, make_tokenizer

PAD = 9
WIDE = ImageRef("wide", (1, 4, 6))
"""4 x 6 patches: 2 x 3 visual tokens."""


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(vocab_size=600)


def buffer_with_image() -> TokenBuffer:
    buffer = TokenBuffer(image_id=PAD)
    buffer.append("prompt", [1, 2, *[PAD] * 6, 3], images=[WIDE])
    buffer.append("policy", [4, 5], logp=[-0.25, -1.5])
    return buffer


def test_positions_count_on_behind_an_image_by_its_longer_side():
    # Two text tokens at 0 and 1; the image starts at 2 and spans 2 rows and 3 columns; the text goes on at 2 + 3 = 5.
    assert buffer_with_image().positions().tolist() == [
        [0, 1, 2, 2, 2, 2, 2, 2, 5, 6, 7],
        [0, 1, 2, 2, 2, 3, 3, 3, 5, 6, 7],
        [0, 1, 2, 3, 4, 2, 3, 4, 5, 6, 7],
    ]
    assert buffer_with_image().next_position == 8


def test_positions_of_a_stretch_are_a_part_of_all():
    buffer = buffer_with_image()
    buffer.append("tool", [6, *[PAD] * 6], images=[WIDE])
    whole = buffer.positions()
    for start in range(len(buffer) + 1):
        for end in range(start, len(buffer) + 1):
            assert np.array_equal(buffer.positions(start, end), whole[:, start:end])


def test_mask_says_who_wrote_what():
    buffer = buffer_with_image()
    assert np.flatnonzero(buffer.mask("policy")).tolist() == [9, 10]
    assert buffer.mask("tool").sum() == 0 and buffer.mask("prompt").sum() == 9


@pytest.mark.parametrize(
    ("ids", "images"),
    [
        ([1, *[PAD] * 5, 2], [WIDE]),  # one image token too few
        ([1, *[PAD] * 6, 2], []),  # an image that nobody gave
        ([1, 2], [WIDE]),  # an image that stands nowhere
        ([*[PAD] * 12], [WIDE, WIDE]),  # two images without anything between them
    ],
)
def test_image_tokens_must_match_images_and_nothing_is_added_otherwise(ids, images):
    buffer = buffer_with_image()
    before = (list(buffer.ids), buffer.export(), buffer.next_position)
    with pytest.raises(ValueError, match="image tokens"):
        buffer.append("tool", ids, images=images)
    assert (buffer.ids, buffer.export(), buffer.next_position) == before


def test_every_sampled_id_has_its_log_probability():
    buffer = TokenBuffer(image_id=PAD)
    with pytest.raises(ValueError, match="log-probabilities"):
        buffer.append("policy", [1, 2], logp=[-1.0])
    with pytest.raises(ValueError, match="log-probabilities"):
        buffer.append("tool", [1], logp=[-1.0])


def test_neighbours_of_one_role_become_one_run():
    buffer = buffer_with_image()
    buffer.append("tool", [6])
    buffer.append("tool", [7, *[PAD] * 6], images=[WIDE])
    assert buffer.export()[2] == TokenRun(role="tool", ids=(6, 7, *[PAD] * 6), images=("wide",))


def test_loading_names_what_is_wrong():
    runs = buffer_with_image().export()
    with pytest.raises(DataError, match="image wide of the token sequence is missing"):
        TokenBuffer.load(runs, {}, image_id=PAD)
    with pytest.raises(DataError, match="prompt stretch of the token sequence is broken"):
        TokenBuffer.load(runs, {"wide": (1, 4, 4)}, image_id=PAD)


def test_glue_is_the_templates_own_text(tokenizer):
    chat = ChatFormat(tokenizer, guide="Hi.")
    ids = chat.response("<tool_response>\n{}\n</tool_response>", WIDE)
    assert chat.decode(ids) == (
        "\n<|im_start|>user\n<tool_response>\n{}<|vision_start|>" + "<|image_pad|>" * 6 + "<|vision_end|>\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_template_that_opens_a_thought_does_so_in_every_turn(tokenizer):
    """Thinking checkpoints end the generation prompt with more than a role."""
    template = CHAT_TEMPLATE.strip().replace(
        "'<|im_start|>assistant\\n' -}}{%- endif -%}", "'<|im_start|>assistant\\n<think>\\n' -}}{%- endif -%}"
    )
    chat = ChatFormat(tokenizer, template=template)
    assert chat.decode(chat.response("<tool_response>\n{}\n</tool_response>")).endswith("<|im_end|>\n<|im_start|>assistant\n<think>\n")


def test_templates_that_cannot_work_are_refused(tokenizer):
    with pytest.raises(ConfigError, match="tool's result"):
        ChatFormat(tokenizer, template="{% for m in messages %}{{ m.role }}{% endfor %}")
    with pytest.raises(ConfigError, match="image"):
        ChatFormat(tokenizer, template=CHAT_TEMPLATE.strip().replace("<|image_pad|>", ""))


def test_what_a_policy_may_never_write(tokenizer):
    chat = ChatFormat(tokenizer)
    banned = {tokenizer.convert_ids_to_tokens(i) for i in chat.banned_ids}
    assert banned == {
        "<|endoftext|>",
        "<|im_start|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|vision_pad|>",
        "<|image_pad|>",
        "<|video_pad|>",
        "<tool_response>",
        "</tool_response>",
    }


def test_every_prompt_begins_with_the_system_turn(tokenizer):
    chat = ChatFormat(tokenizer, guide="Look closely.")
    system = chat.system_ids()
    assert chat.decode(system).startswith("<|im_start|>system\nLook closely.<|im_end|>\n<|im_start|>user")
    for parts in (["What?"], [WIDE, "What?"], ["<0.5 seconds>", WIDE, "3 of 7?"]):
        assert chat.prompt(parts)[: len(system)] == system


def test_digits_are_tokens_of_their_own(tokenizer):
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("1000,25")) == ["1", "0", "0", "0", ",", "2", "5"]
