"""How far steps agree, VisFid against pseudo-references, and Sim, on hand-made evidence."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pixelis.core.geometry import Box, Mask, View
from pixelis.core.media import MediumInfo
from pixelis.core.ops import (
    Attribute,
    Call,
    CallError,
    OcrOutput,
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
from pixelis.ttrl.evidence import Evidence, agreement, evidence_of, is_comparable, is_match, likeness
from pixelis.ttrl.fidelity import fidelities, majority, visual_fidelity
from pixelis.ttrl.similarity import aligned_mean, footprint_similarities, op_similarity, similarity, soft_dtw, trajectory_similarity

BOX = Box(0, 0, 10, 10)
HALF = Box(0, 0, 10, 5)
"""IoU 1/2 with BOX."""
THIRD = Box(5, 0, 15, 10)
"""IoU 1/3 with BOX."""
AWAY = Box(50, 50, 60, 60)


def shown(output, *, time_s=0.0, is_decisive=True):
    return Evidence(op=output.op, output=output, is_decisive=is_decisive, time_s=time_s)


def failed(op="SEG"):
    return Evidence(op=op, output=None, is_decisive=False)


def zoom(box=BOX, **more):
    return shown(ZoomOutput(frame=0, box=box, view=View(box.x0, box.y0, 1, 1), width=10, height=10, image="0" * 64), **more)


def seg(rows=slice(0, 4), **more):
    """A mask of whole rows, 4 wide, in a frame of 8 x 4."""
    mask_HW = np.zeros((8, 4), bool)
    mask_HW[rows] = True
    mask = Mask.from_array(mask_HW)
    return shown(SegOutput(frame=0, box=mask.box, mask=mask, area_share=0.5, score=0.9), **more)


def ocr(*texts, box=BOX, **more):
    spans = tuple(TextSpan(text=text, box=box, confidence=0.9) for text in texts)
    return shown(OcrOutput(frame=0, box=box, spans=spans), **more)


def trk(boxes, first=0):
    points = tuple(TrackPoint(frame=first + k, time_s=(first + k) / 10, box=box, score=0.9) for k, box in enumerate(boxes))
    return shown(TrkOutput(track_id=1, points=points, score=0.9))


def temp(*segments, event="appears"):
    found = tuple(Segment(start_s=a, end_s=b, score=0.9) for a, b in segments)
    return shown(TempOutput(event=event, box=None, first_frame=0, last_frame=50, segments=found))


def prop(*attributes, what="colour", box=BOX, **more):
    made = tuple(Attribute(name=name, value=value, confidence=0.5, unit=unit) for name, value, unit in attributes)
    return shown(PropOutput(what=what, frame=0, box=box, attributes=made), **more)


RED, BLUE = prop(("colour", "red", "")), prop(("colour", "blue", ""))


# ---------------------------------------------------------------- agreement, tool by tool


def test_masks_and_boxes():
    assert agreement(seg(slice(0, 4)), seg(slice(2, 6))) == pytest.approx(1 / 3)  # two rows of six
    assert agreement(zoom(BOX), zoom(HALF)) == 0.5 and agreement(zoom(BOX), zoom(AWAY)) == 0.0


def test_another_moment_is_another_thing():
    for make in (seg, zoom, lambda **more: prop(("colour", "red", ""), **more)):
        assert agreement(make(time_s=1.0), make(time_s=1.0)) == 1.0
    assert agreement(zoom(BOX, time_s=1.0), zoom(HALF, time_s=1.5)) == 0.5
    assert agreement(zoom(BOX, time_s=1.0), zoom(HALF, time_s=1.6)) == 0.0
    assert agreement(ocr("EXIT", time_s=1.0), ocr("EXITS", time_s=9.0)) == pytest.approx(0.8)  # a text is itself wherever it stands


def test_tracks():
    # Frames 0 and 1 of one, 1 and 2 of the other: IoU 1/2 on the frame that both saw it on, of three.
    assert agreement(trk([BOX, BOX]), trk([HALF, HALF], first=1)) == pytest.approx(0.5 / 3)
    assert agreement(trk([BOX, None, BOX]), trk([BOX, None, HALF])) == pytest.approx(0.75)
    assert agreement(trk([None, None]), trk([None])) == 1.0 and agreement(trk([BOX]), trk([None])) == 0.0


def test_texts():
    assert agreement(ocr("PLATFORM", "9"), ocr("Platform 9")) == 1.0
    assert agreement(ocr("abcd"), ocr("abxy")) == 0.5 and agreement(ocr("abcd"), ocr("axyz")) == 0.0  # ANLS: under one half is nothing
    assert agreement(ocr(), ocr(box=HALF)) == 1.0 and agreement(ocr(), ocr("9")) == 0.0


def test_times():
    assert agreement(temp((0, 2)), temp((1, 3))) == pytest.approx(1 / 3)  # F1 of one pair is its tIoU
    # Pairs (0, 2)-(0, 2) and (4, 6)-(5, 7): 2 (1 + 1/3) / (2 + 3).
    assert agreement(temp((0, 2), (4, 6)), temp((5, 7), (8, 9), (0, 2))) == pytest.approx(2 * (4 / 3) / 5)
    assert agreement(temp(), temp(event="Appears ")) == 1.0 and agreement(temp(), temp((0, 1))) == 0.0


def test_properties():
    assert agreement(RED, RED) == 1.0 and agreement(RED, BLUE) == 0.0
    # One of two and one of three attributes match: 2 * 1 / 5.
    three = prop(("colour", "Red", ""), ("share", 0.2, ""), ("second_colour", "blue", ""))
    assert agreement(prop(("colour", "red", ""), ("share", 0.9, "")), three) == pytest.approx(2 / 5)
    assert agreement(RED, prop(("colour", "red", ""), box=HALF)) == 1.0  # IoU 1/2 is the same place
    assert agreement(RED, prop(("colour", "red", ""), box=THIRD)) == 0.0


@pytest.mark.parametrize(
    ("name", "unit", "a", "b", "same"),
    [
        ("width", "px", 75, 100, True), ("width", "px", 74, 100, False), ("count", "", 9, 10, False), ("count", "", 3, 3, True),
        ("angle", "deg", 5, 170, True), ("angle", "deg", 5, 169, False), ("centre_x", "/1000", 10, 60, True),
        ("centre_x", "/1000", 10, 61, False), ("speed", "px/s", 0, 0, True),
        ("shape", "", "Square", "square", True), ("shape", "", "a", 1, False),
    ],
)  # fmt: skip
def test_values_match_to_a_measurements_accuracy(name, unit, a, b, same):
    one, two = (Attribute(name=name, value=value, confidence=1.0, unit=unit) for value in (a, b))
    assert is_match(one, two) is same and is_match(two, one) is same


def test_only_steps_of_one_kind_are_compared():
    assert not is_comparable(RED, prop(("width", 3, "px"), what="size"))
    assert not is_comparable(temp((0, 1)), temp((0, 1), event="disappears"))
    assert not is_comparable(zoom(), seg()) and not is_comparable(failed(), failed()) and not is_comparable(zoom(), failed("ZOOM"))
    with pytest.raises(ValueError, match="no metric compares ZOOM with SEG"):
        agreement(zoom(), seg())


# ---------------------------------------------------------------- VisFid


def test_fidelity_by_hand():
    # ZOOM: best of 1/2 and 0. RED: only 0. TEMP has no reference. The last step is not decisive.
    own = [zoom(), RED, temp((0, 1)), zoom(AWAY, is_decisive=False), failed()]
    found = visual_fidelity(own, [zoom(AWAY), zoom(HALF), BLUE, seg(), failed()])
    assert (found.value, found.num_scored, found.num_unscored) == (pytest.approx((0.5 + 0.0) / 2), 2, 1)


def test_no_reference_is_unknown_and_not_zero():
    for own, references in (([zoom()], []), ([zoom()], [RED]), ([], [zoom()]), ([zoom(is_decisive=False)], [zoom()])):
        assert math.isnan(visual_fidelity(own, references).value)


def test_references_come_from_others_with_the_majority_answer():
    most = Box(0, 0, 10, 9)  # IoU 0.9 with BOX, 5/9 with HALF
    rollouts = [[zoom(BOX)], [zoom(HALF)], [zoom(most)], [zoom(HALF)]]
    values = [one.value for one in fidelities(rollouts, ["3", "3", "4", None])]
    # The first against the second alone: the outvoted third, closer to it, is no reference, nor is the silent fourth. Likewise the
    # second. The third against the best of both, BOX. The fourth is measured, too: the second is its twin.
    assert values == pytest.approx([0.5, 0.5, 0.9, 1.0])


def test_a_rollout_is_never_its_own_reference():
    assert math.isnan(fidelities([[zoom()], [RED]], ["3", "3"])[0].value)


def test_neighbours_are_references_for_everyone():
    found = fidelities([[zoom()], [zoom(AWAY)]], ["3", "4"], neighbours=[[zoom(HALF)], [RED]])
    assert [one.value for one in found] == pytest.approx([0.5, 0.0])


def test_majority():
    assert majority(["a", "b", "a", None, None, None]) == {"a"}
    assert majority(["a", "b"]) == {"a", "b"} and majority([None]) == frozenset()


# ---------------------------------------------------------------- likeness and Sim


def test_likeness():
    assert likeness(zoom(), seg()) == BOX.iou(Box(0, 0, 4, 4))  # other tools, by the boxes they looked at
    assert likeness(zoom(time_s=0.0), seg(time_s=2.0)) == 0.0
    assert likeness(trk([AWAY, BOX, HALF]), zoom()) == 1.0 and likeness(trk([BOX]), zoom(time_s=3.0)) == 0.0
    assert likeness(temp((0, 1)), zoom()) == 0.0
    assert likeness(failed(), failed()) == 1.0 and likeness(failed("SEG"), failed("OCR")) == 0.0 and likeness(zoom(), failed("ZOOM")) == 0.0
    for one in (zoom(), seg(), ocr("a"), ocr(), trk([BOX]), trk([None]), temp(), temp((0, 1)), RED, failed()):
        assert likeness(one, one) == 1.0


def test_op_similarity_by_hand():
    assert op_similarity([zoom(), ocr("a"), RED], [zoom(), RED]) == pytest.approx(1 - 1 / 3)  # one deletion of three
    assert op_similarity([zoom(), seg()], [seg(), zoom()]) == 0.0
    assert op_similarity([], []) == 1.0 and op_similarity([], [zoom()]) == 0.0


def paths(rows, cols):
    """Every monotone alignment as a list of cells."""
    if (rows, cols) == (1, 1):
        return [[(0, 0)]]
    before = [(r, c) for r, c in ((rows - 1, cols - 1), (rows - 1, cols), (rows, cols - 1)) if r and c]
    return [[*path, (rows - 1, cols - 1)] for r, c in before for path in paths(r, c)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 2), (3, 2), (4, 4)])
def test_soft_dtw_against_all_paths(shape):
    cost = np.random.default_rng(sum(shape)).random(shape)
    every = paths(*shape)
    weights = np.array([math.exp(-sum(cost[cell] for cell in path) / 0.2) for path in every])
    expected = np.zeros(shape)
    for path, weight in zip(every, weights / weights.sum(), strict=True):
        for cell in path:
            expected[cell] += weight
    value, alignment = soft_dtw(cost, 0.2)
    assert value == pytest.approx(-0.2 * math.log(weights.sum())) and alignment == pytest.approx(expected)


def test_soft_dtw_by_hand():
    # Costs 0 on the diagonal, 1 beside it: the diagonal costs 0, the two others 1 each. At temperature 1 / log 2 a cost of 1 halves.
    value, alignment = soft_dtw(np.array([[0.0, 1.0], [1.0, 0.0]]), 1 / math.log(2))
    assert value == pytest.approx(-1.0)  # log2 of 1 + 1/2 + 1/2
    assert alignment == pytest.approx(np.array([[1, 0.25], [0.25, 1]]))
    # Likeness 1 on the diagonal, 0 beside it: 2 of 2.5.
    assert aligned_mean(np.eye(2), 1 / math.log(2)) == pytest.approx(0.8)


def test_soft_dtw_does_not_overflow():
    value, alignment = soft_dtw(np.array([[0.0, 900.0], [900.0, 0.0]]), 1e-3)
    assert value == 0.0 and np.array_equal(alignment, np.eye(2))


def test_sim_by_hand():
    # Ops alike. Footprints [[1/2, 0], [0, 1]]: at temperature 0.2 the diagonal costs 1/2, the detours 1/2 + 1 = 3/2 each.
    a, b = [zoom(), ocr("text", box=AWAY)], [zoom(HALF), ocr("text", box=AWAY)]
    detour = math.exp(-1 / 0.2) / (1 + 2 * math.exp(-1 / 0.2))
    between, own = 1.5 / (2 + 2 * detour), 2 / (2 + 2 * detour)
    assert footprint_similarities([a], b)[0] == pytest.approx(between / own) == pytest.approx(0.75)
    assert similarity(a, b) == pytest.approx(0.5 + 0.375)


def test_sim_of_the_same_and_of_nothing_in_common():
    chain = [zoom(), zoom(HALF), seg(), RED, temp((0, 1)), failed(), trk([BOX, None])]
    assert similarity(chain, chain) == 1.0
    assert similarity([], []) == 1.0 and similarity([], chain) == similarity(chain, []) == 0.0
    assert similarity([zoom(AWAY)], [ocr("a"), temp()]) == 0.0
    assert similarity([zoom()], [zoom(), zoom()]) == pytest.approx(0.5 * 0.5 + 0.5)  # once more the same: the footprints agree


def test_reversed_steps_are_less_alike_than_one_that_is_missing():
    chain = [zoom(), seg(), ocr("a", box=AWAY), RED]
    assert similarity(chain, chain[::-1]) < similarity(chain, chain[1:]) < 1


# ---------------------------------------------------------------- from a trajectory


def test_evidence_of_a_trajectory():
    info = MediumInfo(kind="video", sha256="0" * 64, width=100, height=100, num_frames=50, fps=10.0, duration_s=5.0, name="v")
    found = ZoomOutput(frame=20, box=BOX, view=View(0, 0, 1, 1), width=10, height=10, image="0" * 64)
    error = CallError(kind="nothing_found", message="nothing")
    steps = (
        Step(thought="", text="", call=Call(op="ZOOM", arguments={"bbox_2d": [0, 0, 100, 100], "frame": 2.0}),
             result=Result(op="ZOOM", status="ok", engine="e", version="1", output=found), response=""),
        Step(thought="", text="", call=Call(op="OCR", arguments={"ref": 1, "frame": 2.0}),
             result=Result(op="OCR", status="error", engine="e", version="1", error=error), response=""),
        Step(thought="", text="", call=None,
             result=Result(op="", status="error", engine="none", version="", error=error), response=""),
    )  # fmt: skip
    trajectory = Trajectory(id="t", question="?", medium=info, policy=PolicyInfo(name="p", version="1"), seed=0, steps=steps,
                            stop="answered", answer="3")  # fmt: skip
    first, second, third = evidence_of(trajectory)
    assert first == Evidence(op="ZOOM", output=found, is_decisive=True, time_s=2.0)
    assert second == Evidence(op="OCR", output=None, is_decisive=False) and third.op == "" and not third.is_ok
    assert trajectory_similarity(trajectory, trajectory) == 1.0
