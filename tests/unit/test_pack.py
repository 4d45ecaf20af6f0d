"""Packing, token by token: ids, roles and weights of a conversation written out by hand."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("transformers")

from pixelis.core.errors import DataError
from pixelis.core.geometry import Box, View
from pixelis.core.grammar import parse_turn
from pixelis.core.media import MediumInfo
from pixelis.core.ops import CallError, OcrOutput, Result, TextSpan, ZoomOutput
from pixelis.core.trajectory import PolicyInfo, Step, TokenRun, Trajectory
from pixelis.policy.buffer import ChatFormat, ImageRef
from pixelis.rollout.pack import (
    ACT,
    ANSWER,
    PROMPT,
    TEXT,
    TOOL,
    Example,
    TurnSpan,
    early_action_dropout,
    feedback_dropout,
    pack_trajectory,
    weights,
)
from pixelis.testing.tiny_vlm import make_tokenizer

CHAT = ChatFormat(make_tokenizer(["x"], vocab_size=270))
"""No merges: every character is a token of its own, and so is every tag."""

MEDIUM, CROP = ImageRef("medium", (1, 2, 4)), ImageRef("crop", (1, 4, 2))
"""Two visual tokens each: side by side, and one above the other."""

PARTS = [MEDIUM, "Sign?"]
ZOOM = 'Far.\n<tool_call>\n{"name": "ZOOM"}\n</tool_call>'
OCR = '<tool_call>\n{"name": "OCR"}\n</tool_call>'
FINAL = "It says é.\n<answer>é</answer>"
SEEN, READ = "<tool_response>\n{1}\n</tool_response>", "<tool_response>\n{2}\n</tool_response>"


def zoom_result() -> Result:
    view = View(x0=0, y0=0, scale_x=1, scale_y=1)
    output = ZoomOutput(frame=0, box=Box(0, 0, 10, 10), view=view, width=10, height=10, image="crop")
    return Result(op="ZOOM", status="ok", engine="pillow", version="1", output=output)


def ocr_result() -> Result:
    box = Box(0, 0, 10, 10)
    output = OcrOutput(frame=0, box=box, spans=(TextSpan(text="é", box=box, confidence=0.9),))
    return Result(op="OCR", status="ok", engine="rapid", version="1", output=output)


def make_step(text: str, result: Result, response: str) -> Step:
    turn = parse_turn(text)
    return Step(thought=turn.thought, text=text, call=turn.call, result=result, response=response)


def make_trajectory(steps: tuple[Step, ...], final_text: str, tokens: tuple[TokenRun, ...] = ()) -> Trajectory:
    return Trajectory(
        id="t1",
        question="Sign?",
        medium=MediumInfo(kind="image", sha256="medium", width=100, height=50, num_frames=1, fps=None, duration_s=0.0, name="a.png"),
        policy=PolicyInfo(name="teacher", version="1"),
        seed=0,
        steps=steps,
        stop="answered",
        answer=parse_turn(final_text).answer if final_text else None,
        final_text=final_text,
        tokens=tokens,
    )


TRAJECTORY = make_trajectory((make_step(ZOOM, zoom_result(), SEEN), make_step(OCR, ocr_result(), READ)), FINAL)


def pack(trajectory: Trajectory = TRAJECTORY, **settings) -> Example:
    return pack_trajectory(trajectory, CHAT, PARTS, crop_grid={"crop": CROP.grid}.__getitem__, **settings)


def spell(text: str) -> list[int]:
    """Ids of a text, one for each tag and each byte, without the tokenizer's own splitting."""
    pieces = re.findall(r"<\|\w+\|>|</?tool_\w+>|[^é]|é", text, re.DOTALL)
    letters = {" ": ["Ġ"], "\n": ["Ċ"], "é": ["Ã", "©"]}
    return [CHAT.tokenizer.convert_tokens_to_ids(token) for piece in pieces for token in letters.get(piece, [piece])]


def by_hand(*stretches: tuple[int, str]) -> tuple[list[int], list[int]]:
    """Ids and roles of stretches of text."""
    ids = [spell(text) for _, text in stretches]
    return [id_ for part in ids for id_ in part], [role for (role, _), part in zip(stretches, ids, strict=True) for _ in part]


EYE = "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>"
CONVERSATION = (
    (PROMPT, f"<|im_start|>user\n{EYE}Sign?<|im_end|>\n<|im_start|>assistant\n"),
    (TEXT, "Far.\n"),
    (ACT, '<tool_call>\n{"name": "ZOOM"}\n</tool_call>'),
    (TEXT, "<|im_end|>"),
    (TOOL, f"\n<|im_start|>user\n<tool_response>\n{{1}}{EYE}\n</tool_response><|im_end|>\n<|im_start|>assistant\n"),
    (ACT, '<tool_call>\n{"name": "OCR"}\n</tool_call>'),
    (TEXT, "<|im_end|>"),
    (TOOL, "\n<|im_start|>user\n<tool_response>\n{2}\n</tool_response><|im_end|>\n<|im_start|>assistant\n"),
    (TEXT, "It says é.\n<answer>é</answer><|im_end|>"),
)


# ---------------------------------------------------------------- token by token


def test_every_token_has_the_id_and_the_role_that_are_written_here():
    ids, roles = by_hand(*CONVERSATION)
    example = pack()
    assert example.ids_T.tolist() == ids
    assert example.role_T.tolist() == roles
    assert (example.ids_T.dtype, example.role_T.dtype, example.positions_3T.dtype) == (np.int32, np.int8, np.int32)
    # By hand: 1 + 5 + 4 + 5 + 1 + 1 + 1 + 10 prompt tokens, the two words "user\n" and "assistant\n" spelt out.
    assert roles.count(PROMPT) == 28 and example.trajectory_id == "t1"


def test_turns_are_where_the_policy_wrote():
    # Prompt [0, 28). "Far.\n" is 5 tokens; the call is tag, newline, 16 characters, newline, tag = 20; then the end token: 26.
    # The result: newline, start, "user\n", tag, newline, "{1}", eye of 4, newline, tag, end, newline, start, "assistant\n": 30.
    # The second call is one letter shorter: 19, and its end token; its result has no eye: 26; the answer: 11 + 1 + 19 + 1 = 32.
    assert len('{"name": "ZOOM"}') == 16
    assert pack().turns == (
        TurnSpan(start=28, end=54, step=0, act_start=33, act_end=53),
        TurnSpan(start=85, end=105, step=1, act_start=85, act_end=104),
        TurnSpan(start=132, end=164, step=ANSWER, act_start=164, act_end=164),
    )
    assert len(pack()) == 164


def test_images_stand_at_their_places_and_positions_lag_behind_them():
    example = pack()
    # "<|im_start|>user\n" and "<|vision_start|>" are 7 tokens; in the result it is 28 + 26 + 1 + 1 + 5 + 1 + 1 + 3 + 1 = 67.
    assert [(p.image, p.start, p.end) for p in example.images] == [(MEDIUM, 7, 9), (CROP, 67, 69)]
    assert example.positions_3T[:, 6:10].tolist() == [[6, 7, 7, 9], [6, 7, 7, 9], [6, 7, 8, 9]]
    assert example.positions_3T[:, 66:70].tolist() == [[66, 67, 67, 69], [66, 67, 68, 69], [66, 67, 67, 69]]


def test_weights_by_role_and_none_on_a_step_that_is_not_taught():
    example = pack()
    expected = np.array([{PROMPT: 0, TOOL: 0, TEXT: 1, ACT: 2}[role] for role in by_hand(*CONVERSATION)[1]], np.float32)
    assert weights(example).tolist() == expected.tolist() and weights(example).dtype == np.float32
    assert weights(example).sum() == (5 + 2 * 20 + 1) + (2 * 19 + 1) + 32
    assert weights(example, w_act=3.5).sum() == (5 + 3.5 * 20 + 1) + (3.5 * 19 + 1) + 32
    expected[28:54] = 0  # the whole turn, thought and end token too
    assert weights(example, untaught=frozenset({0})).tolist() == expected.tolist()
    assert weights(example, untaught=frozenset({0, ANSWER})).sum() == 2 * 19 + 1


def test_a_trajectory_without_an_answer_ends_behind_its_last_result():
    example = pack(replace(TRAJECTORY, final_text="", answer=None))
    assert example.ids_T.tolist() == by_hand(*CONVERSATION[:-1])[0]
    assert [turn.step for turn in example.turns] == [0, 1]


def test_an_answer_without_any_call():
    example = pack(make_trajectory((), "<answer>4</answer>"))
    ids, roles = by_hand(CONVERSATION[0], (TEXT, "<answer>4</answer><|im_end|>"))
    assert (example.ids_T.tolist(), example.role_T.tolist()) == (ids, roles)


def test_a_broken_call_is_read_as_text_unless_both_tags_stand():
    error = Result(op="", status="error", engine="none", version="", error=CallError(kind="bad_call", message="not JSON"))
    for text, is_act in (("<tool_call>\n{", False), ("</tool_call> <tool_call>", False), ("a<tool_call>{</tool_call>b", True)):
        step = Step(thought=text, text=text, call=None, result=error, response=READ)
        turn = pack(make_trajectory((step,), FINAL)).turns[0]
        assert (turn.act_start, turn.act_end) == ((turn.start + 1, turn.end - 2) if is_act else (turn.end, turn.end))


# ---------------------------------------------------------------- the sampler's own tokens


def sampled(*, ended_itself: bool) -> tuple[TokenRun, ...]:
    """The runs of the same conversation as the sampler leaves them: it stops behind a call, or writes the end token itself."""
    end, runs = (spell("<|im_end|>")[0],), []
    for role, text in zip(("prompt", "policy", "tool", "policy", "tool", "policy"), _texts(), strict=True):
        ids = tuple(spell(text))
        if role == "policy":
            ids = (*ids, *end) if ended_itself else ids
            runs.append(TokenRun(role="policy", ids=ids, logp=(-0.5,) * len(ids)))
        elif role == "tool":
            images = ("crop",) if "vision" in text else ()
            runs.append(TokenRun(role="tool", ids=ids if ended_itself else (*end, *ids), images=images))
        else:
            runs.append(TokenRun(role="prompt", ids=ids, images=("medium",)))
    return tuple(runs if ended_itself else [*runs, TokenRun(role="tool", ids=end)])


def _texts() -> list[str]:
    return [CONVERSATION[0][1], ZOOM, CONVERSATION[4][1], OCR, CONVERSATION[7][1], FINAL]


def test_sampled_tokens_are_used_as_they_are():
    example = pack(replace(TRAJECTORY, tokens=sampled(ended_itself=True)))
    ids, roles = by_hand(*CONVERSATION)
    assert (example.ids_T.tolist(), example.role_T.tolist(), example.turns) == (ids, roles, pack().turns)
    assert (example.positions_3T == pack().positions_3T).all() and example.images == pack().images


def test_an_end_token_that_the_policy_did_not_write_is_not_learnt():
    example = pack(replace(TRAJECTORY, tokens=sampled(ended_itself=False)))
    stretches = [(TOOL if text == "<|im_end|>" else role, text) for role, text in CONVERSATION[:-1]]
    ids, roles = by_hand(*stretches, (TEXT, FINAL), (TOOL, "<|im_end|>"))
    assert (example.ids_T.tolist(), example.role_T.tolist()) == (ids, roles)
    assert weights(example).sum() == weights(pack()).sum() - 3


def test_a_tag_may_be_sampled_letter_by_letter():
    tokens = list(sampled(ended_itself=True))
    letters = [CHAT.tokenizer.convert_tokens_to_ids(letter) for letter in "<tool_call>"]
    ids = (*letters, *tokens[3].ids[1:])
    tokens[3] = TokenRun(role="policy", ids=ids, logp=(-1.0,) * len(ids))
    turn = pack(replace(TRAJECTORY, tokens=tuple(tokens))).turns[1]
    assert (turn.act_start - turn.start, turn.end - turn.act_end, turn.act_end - turn.act_start) == (0, 1, 18 + 11)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda runs: runs[:3], "1 turns for 2 steps"),
        (lambda runs: runs[:5], "2 turns for 2 steps"),  # the answer is recorded, but not its tokens
        (lambda runs: runs[1:], "run 1 of the token sequence is of role policy, not prompt"),
        (lambda runs: (runs[0], *runs[2:]), "run 2 of the token sequence is of role tool, not policy"),
        (lambda runs: (*runs[:3], runs[1], *runs[4:]), "turn 2 spell 'Far"),
        (lambda runs: (replace(runs[0], images=("other",)), *runs[1:]), "image other of the token sequence is missing"),
    ],
)
def test_sampled_tokens_that_do_not_fit_are_refused(change, message):
    with pytest.raises(DataError, match=f"trajectory t1.*{message}"):
        pack(replace(TRAJECTORY, tokens=change(sampled(ended_itself=True))))


# ---------------------------------------------------------------- what is shown instead


HIDDEN = '<tool_response>\n{"step": 1, "op": "ZOOM", "hidden": true}\n</tool_response>'


@pytest.mark.parametrize("tokens", [(), sampled(ended_itself=True)])
def test_a_replaced_result_takes_its_crop_with_it(tokens):
    example = pack(replace(TRAJECTORY, tokens=tokens), responses=[HIDDEN, READ])
    instead = f"\n<|im_start|>user\n{HIDDEN}<|im_end|>\n<|im_start|>assistant\n"
    ids, roles = by_hand(*CONVERSATION[:4], (TOOL, instead), *CONVERSATION[5:])
    assert (example.ids_T.tolist(), example.role_T.tolist()) == (ids, roles)
    assert [placed.image for placed in example.images] == [MEDIUM]


def test_a_replaced_result_keeps_the_templates_end_of_the_turn():
    example = pack(replace(TRAJECTORY, tokens=sampled(ended_itself=False)), responses=[HIDDEN, READ])
    assert CHAT.decode(example.ids_T[:80]).count("</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n") == 1


def test_recorded_responses_change_nothing():
    tokens = sampled(ended_itself=False)
    one, other = pack(replace(TRAJECTORY, tokens=tokens)), pack(replace(TRAJECTORY, tokens=tokens), responses=[SEEN, READ])
    assert one.ids_T.tolist() == other.ids_T.tolist()
    with pytest.raises(ValueError, match="1 responses for the 2 steps"):
        pack(responses=[SEEN])


def test_feedback_dropout_hides_all_but_the_last_result_and_errors():
    error = Result(op="SEG", status="error", engine="a", version="1", error=CallError(kind="nothing_found", message="nothing"))
    failed = replace(TRAJECTORY.steps[1], result=error)
    three = make_trajectory((TRAJECTORY.steps[0], failed, TRAJECTORY.steps[1]), FINAL)
    assert feedback_dropout(three, np.random.default_rng(0), p=1.0) == [HIDDEN, READ, READ]
    assert feedback_dropout(three, np.random.default_rng(0), p=1.0, keep=frozenset({0})) == [SEEN, READ, READ]
    assert feedback_dropout(three, np.random.default_rng(0), p=0.0) == [SEEN, READ, READ]


def test_feedback_dropout_hides_its_share():
    rng = np.random.default_rng(7)
    num_hidden = sum(feedback_dropout(TRAJECTORY, rng)[0] == HIDDEN for _ in range(2000))
    assert abs(num_hidden - 200) < 5 * (2000 * 0.1 * 0.9) ** 0.5  # 200 expected; 5 standard deviations


def test_early_action_dropout_takes_calls_of_the_first_two_steps_only():
    third = make_trajectory((*TRAJECTORY.steps, TRAJECTORY.steps[1]), FINAL)
    example = pack(third)
    before = weights(example)
    after = early_action_dropout(example, before, np.random.default_rng(0), p=1.0)
    assert np.flatnonzero(before != after).tolist() == [*range(33, 53), *range(85, 104)]
    assert after[33:53].sum() == 0 and before.sum() - after.sum() == 2 * 39
    assert (early_action_dropout(example, before, np.random.default_rng(0), p=0.0) == before).all()
    rng = np.random.default_rng(3)
    num_dropped = sum(early_action_dropout(example, before, rng)[40] == 0 for _ in range(2000))
    assert abs(num_dropped - 40) < 5 * (2000 * 0.02 * 0.98) ** 0.5


# ---------------------------------------------------------------- what is refused


def test_too_long_an_example_is_named_with_its_length():
    assert len(pack(max_tokens=164)) == 164
    with pytest.raises(DataError, match="trajectory t1 has 164 tokens, at most 163 fit"):
        pack(max_tokens=163)


def test_a_missing_crop_is_named():
    with pytest.raises(DataError, match="trajectory t1: the crop crop of step 1 is missing"):
        pack_trajectory(TRAJECTORY, CHAT, PARTS, crop_grid={}.__getitem__)


@pytest.mark.parametrize("token", ["<|im_end|>", "<|image_pad|>", "<|im_start|>"])
def test_a_text_that_spells_a_token_of_the_template_is_refused(token):
    step = replace(TRAJECTORY.steps[0], text=f"a{token}b")
    with pytest.raises(DataError, match=re.escape(f"trajectory t1: step 1 spells {token}")):
        pack(make_trajectory((step,), FINAL))
    with pytest.raises(DataError, match=re.escape(f"the last turn spells {token}")):
        pack(make_trajectory((), f"{token}<answer>1</answer>"))
