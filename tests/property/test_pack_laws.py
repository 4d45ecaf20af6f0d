"""Laws of packing: nothing the policy wrote is lost, nothing else is learnt, and a sampler's tokens pack as its texts do."""

from __future__ import annotations

import string
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

from pixelis.core.arguments import tool_schemas
from pixelis.core.geometry import Box, View
from pixelis.core.grammar import Turn, render_response, render_turn
from pixelis.core.media import MediumInfo
from pixelis.core.ops import Attribute, Call, PropOutput, Result, ZoomOutput
from pixelis.core.trajectory import PolicyInfo, Step, TokenRun, Trajectory
from pixelis.policy.buffer import ChatFormat, ImageRef
from pixelis.rollout.pack import ACT, ANSWER, PROMPT, TEXT, TOOL, Example, early_action_dropout, feedback_dropout, pack_trajectory, weights
from pixelis.testing.tiny_vlm import SPECIALS, TAGS, make_tokenizer
from pixelis.train.losses import select, token_loss

CHAT = ChatFormat(make_tokenizer(vocab_size=700), guide="Be brief.", schemas=tool_schemas()[:2])
MEDIUM = ImageRef("medium", (1, 4, 6))
GRIDS = {f"crop{index}": (1, 2 * (index % 3 + 1), 4) for index in range(6)}

WORDS = st.one_of(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30),
    st.text(alphabet=string.printable, max_size=30),
    st.lists(st.sampled_from(["\n", " ", "é", "图", "🙂", "<", "tool_call>", "}", "7", "a"]), max_size=6).map("".join),
)
"""Without the tags of the grammar and of the template, in the normal form that the tokenizer writes."""


def tidy(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    return text if not any(tag in text for tag in (*SPECIALS, *TAGS, "<answer>", "</answer>")) else "x"


THOUGHT = WORDS.map(tidy)
ARGUMENTS = st.dictionaries(st.sampled_from(["bbox_2d", "label", "ref"]), st.one_of(st.integers(0, 1000), THOUGHT), max_size=2)


@st.composite
def trajectories(draw) -> Trajectory:
    steps = []
    for index in range(draw(st.integers(0, 3))):
        box, what = Box(0, 0, 1, 1), draw(THOUGHT)
        if draw(st.booleans()):
            view = View(x0=0, y0=0, scale_x=1, scale_y=1)
            output = ZoomOutput(frame=0, box=box, view=view, width=1, height=1, image=f"crop{draw(st.integers(0, 5))}")
        else:
            output = PropOutput(what="colour", frame=0, box=box, attributes=(Attribute(name="colour", value=what, confidence=0.5),))
        call = Call(op=output.op, arguments=draw(ARGUMENTS))
        text = draw(THOUGHT) + render_turn(Turn(thought="", call=call)) + draw(st.sampled_from(["", "\n", " and"]))
        result = Result(op=output.op, status="ok", engine="e", version="1", output=output)
        response = render_response({"step": index + 1, "text": what})
        steps.append(Step(thought="", text=text, call=call, result=result, response=response))
    answer = draw(THOUGHT)
    return Trajectory(
        id="t",
        question="?",
        medium=MediumInfo(kind="image", sha256="medium", width=1, height=1, num_frames=1, fps=None, duration_s=0.0, name="a"),
        policy=PolicyInfo(name="p", version="1"),
        seed=0,
        steps=tuple(steps),
        stop="answered",
        answer=answer,
        final_text=draw(THOUGHT) + f"<answer>{answer}</answer>",
    )


def pack(trajectory: Trajectory, **settings) -> Example:
    return pack_trajectory(trajectory, CHAT, [MEDIUM, "What?"], crop_grid=GRIDS.__getitem__, **settings)


def texts_of(trajectory: Trajectory) -> list[str]:
    return [*(step.text for step in trajectory.steps), trajectory.final_text]


def as_sampled(trajectory: Trajectory, example: Example) -> Trajectory:
    """The same trajectory with the runs that a sampler would have left."""
    runs, at = [], 0
    for turn in example.turns:
        for role, start, end in (("tool" if runs else "prompt", at, turn.start), ("policy", turn.start, turn.end)):
            images = tuple(placed.image.sha256 for placed in example.images if start <= placed.start < end)
            logp = (-1.0,) * (end - start) if role == "policy" else ()
            runs.append(TokenRun(role=role, ids=tuple(example.ids_T[start:end].tolist()), logp=logp, images=images))
        at = turn.end
    return replace(trajectory, tokens=tuple(runs))


@settings(max_examples=100, deadline=None)
@given(trajectories())
def test_policy_tokens_decode_to_the_exact_texts(trajectory):
    example = pack(trajectory)
    assert [turn.step for turn in example.turns] == [*range(len(trajectory.steps)), ANSWER]
    for turn, text in zip(example.turns, texts_of(trajectory), strict=True):
        assert CHAT.decode(example.ids_T[turn.start : turn.end]) == text + "<|im_end|>"
        call = CHAT.decode(example.ids_T[turn.act_start : turn.act_end])
        if turn.step == ANSWER:
            assert call == ""
        else:
            assert call == "<tool_call>" + text.partition("<tool_call>")[2].partition("</tool_call>")[0] + "</tool_call>"


@settings(max_examples=100, deadline=None)
@given(trajectories(), st.sampled_from([1.0, 2.0, 3.5]))
def test_what_is_learnt_is_what_the_policy_wrote(trajectory, w_act):
    example = pack(trajectory)
    inside_T = np.zeros(len(example), bool)
    for turn in example.turns:
        inside_T[turn.start : turn.end] = True
    weight_T = weights(example, w_act=w_act)
    assert ((weight_T > 0) == inside_T).all() and (np.isin(example.role_T, (TEXT, ACT)) == inside_T).all()
    assert set(weight_T[example.role_T == ACT].tolist()) <= {w_act} and set(weight_T[example.role_T == TEXT].tolist()) == {1.0}
    assert (example.role_T == PROMPT).sum() == example.turns[0].start
    assert (np.diff((example.role_T == PROMPT).astype(int)) <= 0).all()  # the prompt comes first, and once
    # Images are never the policy's.
    assert all(example.role_T[placed.start] in (PROMPT, TOOL) for placed in example.images)
    assert (example.ids_T == CHAT.image_id).sum() == sum(placed.end - placed.start for placed in example.images)


@settings(max_examples=100, deadline=None)
@given(trajectories())
def test_a_samplers_tokens_pack_as_its_texts_do(trajectory):
    one = pack(trajectory)
    other = pack(as_sampled(trajectory, one))
    assert one.ids_T.tolist() == other.ids_T.tolist() and one.role_T.tolist() == other.role_T.tolist()
    assert one.turns == other.turns and one.images == other.images and (one.positions_3T == other.positions_3T).all()


@settings(max_examples=100, deadline=None)
@given(trajectories(), st.integers(0, 9), st.booleans())
def test_hiding_results_changes_nothing_that_is_learnt(trajectory, seed, is_sampled):
    whole = pack(trajectory)
    source = as_sampled(trajectory, whole) if is_sampled else trajectory
    responses = feedback_dropout(source, np.random.default_rng(seed), p=0.5)
    hidden = pack(source, responses=responses)
    assert responses == feedback_dropout(source, np.random.default_rng(seed), p=0.5)
    assert responses[-1:] == [step.response for step in trajectory.steps[-1:]]
    is_learnt = [np.isin(example.role_T, (TEXT, ACT)) for example in (whole, hidden)]
    assert whole.ids_T[is_learnt[0]].tolist() == hidden.ids_T[is_learnt[1]].tolist()
    text = CHAT.decode(hidden.ids_T)
    for step, response in zip(trajectory.steps, responses, strict=True):
        assert response == step.response or CHAT.plain(response.split("\n")[1]) in text
    kept = [s.result.output.image for s, r in zip(trajectory.steps, responses, strict=True) if s.result.op == "ZOOM" and r == s.response]
    assert [placed.image.sha256 for placed in hidden.images] == ["medium", *kept]


@settings(max_examples=50, deadline=None)
@given(trajectories(), st.integers(0, 9))
def test_early_action_dropout_only_ever_takes_calls_away(trajectory, seed):
    example = pack(trajectory)
    before = weights(example)
    after = early_action_dropout(example, before, np.random.default_rng(seed), p=0.5)
    changed_T = before != after
    assert (after[changed_T] == 0).all() and (example.role_T[changed_T] == ACT).all()
    assert not any(changed_T[turn.start : turn.end].any() for turn in example.turns if turn.step not in (0, 1))


@settings(max_examples=30, deadline=None)
@given(trajectories(), trajectories(), st.integers(0, 9))
def test_the_loss_of_a_batch_is_blind_to_its_padding_and_to_the_order_of_its_rows(one, other, seed):
    examples = [pack(one), pack(other)]
    table_VV = torch.randn(len(CHAT.tokenizer), 40, generator=torch.Generator().manual_seed(seed)) @ torch.randn(
        40, len(CHAT.tokenizer), generator=torch.Generator().manual_seed(seed + 1)
    )

    def loss(rows: list[Example], length: int, garbage: int) -> float:
        ids_BT, weight_BT = torch.full((len(rows), length), garbage), torch.zeros(len(rows), length)
        for row, example in enumerate(rows):
            ids_BT[row, : len(example)] = torch.from_numpy(example.ids_T).long()
            weight_BT[row, : len(example)] = torch.from_numpy(weights(example))
        row_N, at_N = select(weight_BT)
        return token_loss(table_VV[ids_BT[row_N, at_N - 1]], ids_BT[row_N, at_N], weight_BT[row_N, at_N]).item()

    longest = max(map(len, examples))
    assert loss(examples, longest, 0) == loss(examples, longest + 9, 3)
    assert loss(examples, longest, 0) == pytest.approx(loss(examples[::-1], longest, 0), rel=1e-5)
    # A batch of both weighs every token alike, whichever example it stands in.
    total = [weights(example).sum() for example in examples]
    parts = [loss([example], len(example), 0) for example in examples]
    assert loss(examples, longest, 0) == pytest.approx(np.average(parts, weights=total), rel=1e-5)
