"""Step embedding and dynamics: what is pooled, by hand; unit length, no gradient into the model, and that foresight can be learnt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pixelis.core.geometry import Box
from pixelis.core.media import MediumInfo
from pixelis.core.ops import OPS, Call, OcrOutput, Result, Segment, TempOutput, ZoomOutput
from pixelis.core.trajectory import PolicyInfo, Step, Trajectory
from pixelis.policy.buffer import ImageRef, PlacedImage
from pixelis.policy.exposure import at_exposure
from pixelis.rewards.earning import earning_steps
from pixelis.rollout.pack import ACT, PROMPT, TEXT, TOOL, Example, TurnSpan
from pixelis.train.step_heads import NO_OP, NUM_ARGUMENTS, StepHeads, StepInputs, arguments_of, step_inputs, tokens_under

IMAGE = MediumInfo(kind="image", sha256="a" * 64, width=200, height=100, num_frames=1, fps=None, duration_s=0.0, name="a.png")
VIDEO = MediumInfo(kind="video", sha256="b" * 64, width=200, height=100, num_frames=40, fps=4.0, duration_s=10.0, name="b.mp4")


def test_tokens_by_hand():
    # 4 x 2 cells of 50 x 50 pixels. A box over the right half touches four of them.
    assert tokens_under(Box(101, 0, 199, 100), IMAGE, (2, 4)).tolist() == [[False, False, True, True]] * 2
    # One cell is fewer than four: dilated by one, cut at the frame.
    assert tokens_under(Box(10, 10, 20, 20), IMAGE, (2, 4)).tolist() == [[True, True, False, False]] * 2
    assert tokens_under(None, IMAGE, (2, 4)).all()
    assert tokens_under(Box(190, 90, 200, 100), IMAGE, (2, 4)).any()


def test_arguments_by_hand():
    assert arguments_of(Call(op="SEG", arguments={"bbox_2d": [100, 200, 300, 400]}), IMAGE)[:6] == [0.1, 0.2, 0.3, 0.4, 1.0, 0.0]
    assert arguments_of(Call(op="SEG", arguments={"point": [500, 250]}), IMAGE)[:5] == [0.5, 0.25, 0.5, 0.25, 1.0]
    assert arguments_of(Call(op="TRK", arguments={"ref": 1, "from_s": 2.5, "to_s": 5.0}), VIDEO) == [0, 0, 0, 0, 0, 1, 0.25, 0.5]
    odd = (
        {"bbox_2d": ["x", 1, 2, 3]},
        {"bbox_2d": [1, 2]},
        {"bbox_2d": 5},
        {"point": 3},
        {"window": 5},
        {"bbox_2d": True},
        {"point": "ab"},
        {"from_s": [1]},
    )
    for one in (None, *(Call(op="SEG", arguments=arguments) for arguments in odd)):
        assert arguments_of(one, IMAGE) == [0.0] * NUM_ARGUMENTS


def step_of(call, output) -> Step:
    result = Result(op=call.op if call else "", status="ok" if output else "error", engine="e", version="1", output=output)
    return Step(thought="look", text="look", call=call, result=result, response="found")


def zoomed() -> tuple[Trajectory, Example]:
    """A zoom whose crop has one visual token, then a call without a result."""
    crop = ZoomOutput(frame=0, box=Box(0, 0, 50, 50), view=None, width=32, height=32, image="c" * 64)
    steps = (
        step_of(Call(op="ZOOM", arguments={"bbox_2d": [0, 0, 250, 500]}), crop),
        step_of(None, None),
    )
    policy = PolicyInfo(name="p", version="")
    facts = {"question": "q", "medium": IMAGE, "policy": policy, "seed": 0, "stop": "answered", "answer": "x", "final_text": "x"}
    trajectory = Trajectory(id="t", steps=steps, **facts)
    # The prompt: eight visual tokens. Turn 1: two of thought, two of a call; a word and the crop. Turn 2: one token; a word. The end.
    roles = [PROMPT] * 8 + [TEXT, TEXT, ACT, ACT] + [TOOL, TOOL] + [TEXT] + [TOOL] + [TEXT]
    images = (PlacedImage(ImageRef(IMAGE.sha256, (1, 4, 8)), 0, 8), PlacedImage(ImageRef("c" * 64, (1, 2, 2)), 13, 14))
    turns = (TurnSpan(8, 12, 0, 10, 12), TurnSpan(14, 15, 1, 15, 15), TurnSpan(16, 17, -1, 17, 17))
    count = len(roles)
    example = Example(np.arange(count, dtype=np.int32), np.array(roles, np.int8), np.zeros((3, count), np.int32), images, turns, "t")
    return trajectory, example


def test_pooling_by_hand():
    trajectory, example = zoomed()
    states = torch.arange(17.0)[:, None].repeat(1, 2)
    inputs = step_inputs(trajectory, example, states, states + 100)
    assert inputs.visual_SD[:, 0].tolist() == [13, 0] and inputs.is_visual_S.tolist() == [True, False]  # the crop itself; nothing
    assert inputs.thought_SD[:, 0].tolist() == [108.5, 114]
    assert inputs.result_SD[:, 0].tolist() == [112, 115]  # the crop's token is no word
    assert inputs.op_S.tolist() == [OPS.index("ZOOM"), NO_OP] and inputs.is_valid_S.tolist() == [1, 0]
    assert inputs.confidence_S.tolist() == [1, 0]


def test_what_earns_no_curiosity():
    trajectory, _ = zoomed()
    whole = ZoomOutput(frame=0, box=Box(0, 0, 200, 99), view=None, width=32, height=32, image="d" * 64)
    first, none = trajectory.steps
    steps = (first, first, step_of(Call(op="ZOOM", arguments={"bbox_2d": [0, 0, 1000, 990]}), whole), none)
    # A first look; the same call again; a zoom into the whole picture; no call at all.
    assert earning_steps(replace(trajectory, steps=steps)).tolist() == [True, False, False, False]


def test_a_time_alone_means_whole_frames():
    trajectory, example = zoomed()
    shown = tuple(PlacedImage(ImageRef(f"{'b' * 64}:{frame}", (1, 4, 4)), 4 * k, 4 * k + 4) for k, frame in enumerate((0, 39)))
    found = TempOutput(event="appears", box=None, first_frame=0, last_frame=39, segments=())
    step = step_of(Call(op="TEMP", arguments={"event": "appears"}), found)
    example = Example(example.ids_T, example.role_T, example.positions_3T, shown, example.turns[:1], "t")
    states = torch.arange(17.0)[:, None]
    one = replace(trajectory, medium=VIDEO, steps=(step,))
    assert not step_inputs(one, example, states, states).is_visual_S[0]  # found nowhere: nothing was touched
    boxed = TempOutput(event="appears", box=Box(0, 0, 200, 100), first_frame=30, last_frame=39, segments=())
    step = step_of(step.call, boxed)
    one = replace(one, steps=(step,))
    assert float(step_inputs(one, example, states, states).visual_SD[0, 0]) == np.mean([4, 5, 6, 7])  # the frame nearest to 30 is the last


@pytest.mark.parametrize(
    ("box", "start_s", "end_s", "tokens"),
    [
        (None, 0.0, 10.0, range(8)),  # both shown frames lie inside
        (None, 8.0, 9.8, range(4, 8)),  # the last one, frame 39 at 9.75 s
        (None, 1.0, 3.0, range(4)),  # none inside: the one nearest to the middle
        (Box(0, 0, 99, 100), 6.0, 8.0, range(4, 8)),  # where it was found, and not at the first frame of the window that was searched
    ],
)
def test_a_stretch_of_time_is_seen_where_it_is(box, start_s, end_s, tokens):
    trajectory, example = zoomed()
    shown = tuple(PlacedImage(ImageRef(f"{'b' * 64}:{frame}", (1, 4, 4)), 4 * k, 4 * k + 4) for k, frame in enumerate((0, 39)))
    found = TempOutput(event="appears", box=box, first_frame=0, last_frame=39, segments=(Segment(start_s=start_s, end_s=end_s, score=1.0),))
    step = step_of(Call(op="TEMP", arguments={"event": "appears"}), found)
    example = Example(example.ids_T, example.role_T, example.positions_3T, shown, example.turns[:1], "t")
    states = torch.arange(17.0)[:, None]
    visual = step_inputs(replace(trajectory, medium=VIDEO, steps=(step,)), example, states, states).visual_SD
    assert float(visual[0, 0]) == np.mean(tokens)


@pytest.mark.parametrize("stops", [0.0, 0.517, -0.25])
def test_what_was_seen_brighter_or_darker_was_seen(stops):
    trajectory, example = zoomed()
    states = torch.arange(17.0)[:, None]
    read = step_of(Call(op="OCR", arguments={}), OcrOutput(frame=0, box=Box(0, 0, 200, 100), spans=()))
    picture = PlacedImage(ImageRef(at_exposure(IMAGE.sha256, stops), (1, 4, 8)), 0, 8)
    first, last = (PlacedImage(ImageRef(at_exposure(f"{VIDEO.sha256}:{n}", stops), (1, 4, 4)), 0, 4) for n in (0, 39))
    for medium, images in ((IMAGE, (picture,)), (VIDEO, (first, replace(last, start=4, end=8)))):
        seen = Example(example.ids_T, example.role_T, example.positions_3T, images, example.turns[:1], "t")
        inputs = step_inputs(replace(trajectory, medium=medium, steps=(read,)), seen, states, states)
        assert inputs.is_visual_S[0] and float(inputs.visual_SD[0, 0]) == np.mean(range(images[0].start, images[0].end))


def random_inputs(seed: int, num_steps: int = 5, width: int = 8) -> StepInputs:
    """Steps whose next sight follows from the call: its direction is the op's own."""
    generator = torch.Generator().manual_seed(seed)
    op = torch.randint(0, len(OPS), (num_steps,), generator=generator)
    directions = torch.eye(width)[:, : len(OPS)].T
    return StepInputs(
        visual_SD=directions[op],
        is_visual_S=torch.ones(num_steps, dtype=torch.bool),
        thought_SD=torch.randn(num_steps, width, generator=generator),
        result_SD=torch.randn(num_steps, width, generator=generator),
        confidence_S=torch.rand(num_steps, generator=generator),
        op_S=op,
        arguments_SA=torch.rand(num_steps, NUM_ARGUMENTS, generator=generator),
        is_valid_S=(op != 0).float(),
    )


def test_foresight_is_learnt():
    heads = StepHeads(8, size=16)
    optimizer = torch.optim.Adam(heads.parameters(), 6e-3)
    before = heads.foresee(random_inputs(10_000, 60))
    heads.train()
    for step in range(200):
        loss = heads.loss(random_inputs(step, 12))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unseen = random_inputs(10_000, 60)
    after, seen, valid = heads.foresee(unseen), heads.seen(unseen), unseen.is_valid_S[1:].numpy()
    cosine = [float((f.predicted_SD * seen).sum(-1).mean()) for f in (before, after)]
    assert cosine[0] < 0.3 and cosine[1] > 0.8
    assert after.p_valid_S[valid == 1].mean() > 0.9 > 0.3 > after.p_valid_S[valid == 0].mean()
    assert (after.variance_S >= 0).all() and np.array_equal(heads.foresee(unseen).variance_S, after.variance_S)
    lengths = np.linalg.norm(heads.embed(unseen), axis=-1)
    assert np.allclose(lengths, 1, atol=1e-5)


def test_what_touched_no_pixels_teaches_no_sight():
    """The error is a mean over all steps but the first; a step that saw nothing adds nothing to it, and its validity counts as ever."""
    heads = StepHeads(8, size=16).eval()
    inputs = random_inputs(3, 3)
    blank = replace(inputs, is_visual_S=torch.tensor([True, True, False]), visual_SD=inputs.visual_SD * torch.tensor([[1.0], [1.0], [0.0]]))
    with torch.no_grad():
        predicted, logit = heads._next(blank)
        target = torch.nn.functional.normalize(heads.embedding.visual(blank)[1:], dim=-1)
        each = ((torch.nn.functional.normalize(predicted, dim=-1) - target) ** 2).sum(-1)
        validity = torch.nn.functional.binary_cross_entropy_with_logits(logit, blank.is_valid_S[1:])
        assert float(heads.loss(blank)) == pytest.approx(float(each[0] / 2 + 0.5 * validity))


def test_uncertainty_is_of_as_many_passes_as_are_asked_for():
    heads, inputs = StepHeads(8, size=16), random_inputs(1, 6)
    two, many = (heads.foresee(inputs, num_passes=num, seed=5) for num in (2, 64))
    assert two.variance_S.shape == many.variance_S.shape == (5,) and not np.allclose(two.predicted_SD, many.predicted_SD)


def test_no_steps_and_one_step():
    heads, one, none = StepHeads(8), random_inputs(0, 1), random_inputs(0, 0)
    for inputs in (one, none):
        loss = heads.loss(inputs)
        loss.backward()
        assert float(loss.detach()) == 0 and len(heads.foresee(inputs).p_valid_S) == 0
    assert heads.embed(none).shape == (0, 64) and heads.embed(one).shape == (1, 64)
