"""Auxiliary heads: targets from typed results, and losses worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pixelis.core.geometry import Box, Mask, View
from pixelis.core.media import MediumInfo
from pixelis.core.ops import (
    Attribute,
    Call,
    CallError,
    OcrOutput,
    Output,
    PropOutput,
    Result,
    Segment,
    SegOutput,
    TempOutput,
    TextSpan,
    TrackPoint,
    TrkOutput,
    ZoomOutput,
)
from pixelis.core.trajectory import PolicyInfo, Step, Trajectory
from pixelis.train.auxiliary import CLASSES, LAMBDA_AUX, AuxiliaryHeads, AuxTarget, aux_targets, pool_actions

BOX = Box(20, 10, 120, 60)
"""In a frame of 200 x 100: 0.1, 0.1, 0.6, 0.6."""


def trajectory(*outputs: Output | None, duration_s: float = 8.0) -> Trajectory:
    """One step per output, in a video of 200 x 100 pixels; None is a step that failed."""
    error = CallError(kind="nothing_found", message="nothing")
    results = [
        Result(op=o.op, status="ok", engine="e", version="1", output=o)
        if o
        else Result(op="SEG", status="error", engine="e", version="1", error=error)
        for o in outputs
    ]
    return Trajectory(
        id="t1",
        question="?",
        medium=MediumInfo(kind="video", sha256="m", width=200, height=100, num_frames=80, fps=10.0, duration_s=duration_s, name="a"),
        policy=PolicyInfo(name="teacher", version="1"),
        seed=0,
        steps=tuple(Step(thought="", text="", call=Call(op=r.op, arguments={}), result=r, response="") for r in results),
        stop="answered",
        answer="1",
    )


def seg(box: Box = BOX, score: float = 0.75) -> SegOutput:
    mask = Mask.from_array(np.ones((2, 2), bool))
    return SegOutput(frame=0, box=box, mask=mask, area_share=0.1, score=score)


def ocr(*spans: tuple[Box, float]) -> OcrOutput:
    return OcrOutput(frame=0, box=BOX, spans=tuple(TextSpan(text="a", box=box, confidence=c) for box, c in spans))


def trk(*boxes: Box | None) -> TrkOutput:
    points = tuple(TrackPoint(frame=i, time_s=i / 10, box=box, score=0.5) for i, box in enumerate(boxes))
    return TrkOutput(track_id=1, points=points, score=0.5)


def temp(*segments: tuple[float, float, float]) -> TempOutput:
    found = tuple(Segment(start_s=start, end_s=end, score=score) for start, end, score in segments)
    return TempOutput(event="appears", box=None, first_frame=0, last_frame=79, segments=found)


def prop(what: str, *values: str | float) -> PropOutput:
    attributes = tuple(Attribute(name=what, value=value, confidence=0.25) for value in values)
    return PropOutput(what=what, frame=0, box=BOX, attributes=attributes)


ZOOM = ZoomOutput(frame=0, box=BOX, view=View(x0=0, y0=0, scale_x=1, scale_y=1), width=9, height=9, image="crop")


@pytest.mark.parametrize(
    ("output", "kind", "value", "confidence"),
    [
        (seg(), "box", [0.1, 0.1, 0.6, 0.6], 0.75),
        (ZOOM, "box", [0.1, 0.1, 0.6, 0.6], 1.0),
        (seg(Box(-40, 50, 240, 100)), "box", [0, 0.5, 1, 1], 0.75),  # the part inside the frame
        (seg(score=1.5), "box", [0.1, 0.1, 0.6, 0.6], 1.0),
        # Two texts: the box around both, the mean of their confidences; no text: the region that was read.
        (ocr((Box(20, 10, 40, 20), 0.5), (Box(60, 15, 100, 30), 1.0)), "box", [0.1, 0.1, 0.5, 0.3], 0.75),
        (ocr(), "box", [0.1, 0.1, 0.6, 0.6], 0.0),
        # The object is seen from the second point to the third.
        (trk(None, BOX, Box(100, 50, 200, 100), None), "track", [0.1, 0.1, 0.6, 0.6, 0.5, 0.5, 1, 1], 0.5),
        (trk(BOX), "track", [0.1, 0.1, 0.6, 0.6] * 2, 0.5),
        (temp((2.0, 4.0, 0.5), (5.0, 6.0, 0.25)), "span", [0.25, 0.5], 0.5),
        (temp((7.0, 8.5, 0.5)), "span", [0.875, 1], 0.5),
        (prop("colour", "orange", "blue"), "attribute", [1], 0.25),
        (prop("shape", "ring"), "attribute", [20], 0.25),  # 12 colours, then the last of 9 shapes
        (prop("shape", "ellipse"), "attribute", [21], 0.25),  # another one
        (prop("count", 3), "attribute", [21], 0.25),
    ],
)
def test_targets_by_hand(output, kind, value, confidence):
    (target,) = aux_targets(trajectory(output), [True])
    assert (target.kind, target.confidence, target.value.dtype) == (kind, confidence, np.float32)
    assert target.value.tolist() == pytest.approx(value, abs=1e-6)


def test_steps_without_a_target():
    nothing = [None, seg(), trk(None), temp(), prop("colour"), seg(score=math.nan), seg(Box(0, 0, math.nan, 5))]
    assert aux_targets(trajectory(*nothing), [True, False, True, True, True, True, True]) == [None] * 7
    assert aux_targets(trajectory(temp((1.0, 2.0, 0.5)), duration_s=0.0), [True]) == [None]
    with pytest.raises(ValueError, match="1 flags for the 2 steps"):
        aux_targets(trajectory(seg(), seg()), [True])


def test_classes_may_be_others():
    (target,) = aux_targets(trajectory(prop("count", 3)), [True], classes=["count:2", "count:3", "other"])
    assert target.value.tolist() == [1]
    assert len(CLASSES) == len(set(CLASSES)) == 12 + 9 + 1 and LAMBDA_AUX == 0.2


def test_states_of_a_call_are_averaged():
    hidden_BTD = torch.arange(2 * 4 * 2.0).reshape(2, 4, 2)
    # Row 0, tokens 1 and 2: (2, 3) and (4, 5); row 1, token 3: (14, 15).
    assert pool_actions(hidden_BTD, [(0, 1, 3), (1, 3, 4)]).tolist() == [[3, 4], [14, 15]]
    assert pool_actions(hidden_BTD, []).shape == (0, 2)
    with pytest.raises(ValueError, match="without a call"):
        pool_actions(hidden_BTD, [(0, 2, 2)])


def undecided(hidden: int = 3) -> AuxiliaryHeads:
    """Heads that say nothing: every centre and extent is 1/2, every class as likely as any."""
    heads = AuxiliaryHeads(hidden)
    with torch.no_grad():
        for head in heads.heads.values():
            head[2].weight.zero_()
            head[2].bias.zero_()
    return heads


def target(kind, *value: float) -> AuxTarget:
    return AuxTarget(kind, np.array(value, np.float32), 0.5)


MIDDLE, CORNER = (0.25, 0.25, 0.75, 0.75), (0.0, 0.0, 0.5, 0.5)
BY_HAND = {
    # The middle box against the corner: every side off by 1/4, IoU 1/7, 2/9 of the hull uncovered: 1 + 1 - (1/7 - 2/9).
    target("box", *CORNER): 2 + 5 / 63,
    target("box", *MIDDLE): 0.0,
    # First box at the corner, last one hit.
    target("track", *CORNER, *MIDDLE): (2 + 5 / 63) / 2,
    # 1/4 to 3/4 against 0 to 1/2: both off by 1/4, tIoU 1/3.
    target("span", 0.0, 0.5): 0.5 + 2 / 3,
    target("attribute", 3): math.log(22),
}


@pytest.mark.parametrize(("aim", "loss"), BY_HAND.items())
def test_loss_by_hand(aim, loss):
    mean, counts = undecided()(torch.randn(1, 3), [aim])
    assert mean.item() == pytest.approx(loss, abs=1e-6)
    assert counts == {kind: int(kind == aim.kind) for kind in ("box", "track", "span", "attribute")}


def test_loss_is_the_mean_over_all_targets_in_any_order():
    mean, counts = undecided()(torch.randn(5, 3), list(BY_HAND))
    assert mean.item() == pytest.approx(sum(BY_HAND.values()) / 5, abs=1e-6)
    assert counts == {"box": 2, "track": 1, "span": 1, "attribute": 1}
    torch.manual_seed(0)
    heads, pooled_ND, aims = AuxiliaryHeads(3), torch.randn(5, 3), list(BY_HAND)
    back = heads(pooled_ND.flip(0), aims[::-1])[0]
    assert heads(pooled_ND, aims)[0].item() == pytest.approx(back.item(), abs=1e-6)


def test_without_targets_the_loss_is_zero_and_every_parameter_has_a_gradient_of_zero():
    heads = AuxiliaryHeads(3)
    mean, counts = heads(torch.zeros(0, 3), [])
    mean.backward()
    assert mean.item() == 0.0 and set(counts.values()) == {0}
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in heads.parameters())
    with pytest.raises(ValueError, match="1 pooled states for 0 targets"):
        heads(torch.zeros(1, 3), [])


def test_only_the_head_of_the_kind_learns_and_the_states_do_too():
    torch.manual_seed(0)
    heads, pooled_ND = AuxiliaryHeads(3), torch.randn(1, 3, requires_grad=True)
    heads(pooled_ND, [target("span", 0.0, 0.5)])[0].backward()
    touched = {name.split(".")[1] for name, parameter in heads.named_parameters() if parameter.grad.any()}
    assert touched == {"span"} and pooled_ND.grad.any()


def test_no_predicted_box_is_inverted_and_the_confidence_is_heard():
    torch.manual_seed(0)
    heads, pooled_ND = AuxiliaryHeads(6), 5 * torch.randn(40, 6)
    sure, unsure = torch.ones(40), torch.zeros(40)
    for kind, size in (("box", 4), ("track", 8), ("span", 2), ("attribute", 22)):
        predicted = heads.predict(kind, pooled_ND, sure)
        assert predicted.shape == (40, size) and not torch.equal(predicted, heads.predict(kind, pooled_ND, unsure))
    box = heads.predict("track", pooled_ND, sure).unflatten(-1, (2, 4))
    assert (box[..., 2:] > box[..., :2]).all()
    span = heads.predict("span", pooled_ND, sure)
    assert (span[:, 1] > span[:, 0]).all()


def test_heads_learn_what_the_states_hold():
    """Boxes that can be read off the state are found to within a few hundredths; a shuffled target is not."""
    torch.manual_seed(0)
    where = torch.rand(64, 2) * 0.6 + 0.2
    pooled_ND = torch.cat([where, torch.randn(64, 2) * 0.1], dim=-1)
    aims = [target("box", x - 0.1, y - 0.1, x + 0.1, y + 0.1) for x, y in where.tolist()]

    def train(aims: list[AuxTarget]) -> float:
        heads = AuxiliaryHeads(4)
        optimiser = torch.optim.Adam(heads.parameters(), lr=5e-3)
        for _ in range(300):
            optimiser.zero_grad()
            loss, _ = heads(pooled_ND, aims)
            loss.backward()
            optimiser.step()
        predicted = heads.predict("box", pooled_ND, torch.full((64,), 0.5))
        return (predicted[:, :2] + 0.1 - where).abs().mean().item()

    assert train(aims) < 0.03 < 0.08 < train([aims[(index + 17) % 64] for index in range(64)])


def test_half_precision_states_meet_single_precision_heads():
    mean, _ = undecided()(torch.randn(1, 3, dtype=torch.bfloat16), [target("box", *CORNER)])
    assert mean.dtype == torch.float32 and mean.item() == pytest.approx(2 + 5 / 63, abs=1e-6)
