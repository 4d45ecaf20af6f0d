"""Verifiers of steps: hand-worked scores on small worlds, and the real tools on real items."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelis.agent import make_executor
from pixelis.core.geometry import Box, Mask, TimeSpan, View, box_to_wire
from pixelis.core.media import open_medium
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
from pixelis.core.trajectory import Step
from pixelis.data.world.item import Evidence, Truth, WorldEvent, WorldObject
from pixelis.data.world.items import make_item, render
from pixelis.data.world.moment import colour_at, mask_at, text_at
from pixelis.data.world.verify import Check, fold_text, hota, verify_step
from pixelis.data.world.verify_prop import long_axis, true_counts
from pixelis.data.world.verify_time import true_segments
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import resolved

WIDTH, HEIGHT, FRAMES, FPS = 400, 200, 10, 5


def mask_of(*boxes: Box) -> Mask:
    ink = np.zeros((HEIGHT, WIDTH), bool)
    for box in boxes:
        x0, y0, x1, y1 = (int(v) for v in box.as_tuple())
        ink[y0:y1, x0:x1] = True
    return Mask.from_array(ink)


def thing(number, box, kind="shape", colour="red", shape="square", text="", track=(), first=0):
    return WorldObject(
        number=number, kind=kind, colour=colour, shape=shape, text=text, first_frame=first, box=box,
        mask=None if kind == "text" else mask_of(box), track=track,
    )  # fmt: skip


def world(*objects, events=(), mentions=(), boxes=(), is_video=False):
    base = make_item("dev", 0, family="read_sign")
    return dataclasses.replace(
        base, kind="video" if is_video else "image", width=WIDTH, height=HEIGHT, num_frames=FRAMES if is_video else 1,
        fps=FPS if is_video else 0, truth=Truth(objects=objects, events=events), mentions=mentions, evidence=Evidence(boxes=boxes),
    )  # fmt: skip


def step(output, **arguments) -> Step:
    result = Result(op=output.op, status="ok", engine="e", version="1", output=output)
    return Step(thought="", text="", call=Call(op=output.op, arguments=arguments), result=result, response="")


def check(item, output, history=(), **arguments) -> Check:
    return verify_step(item, step(output, **arguments), history)


def seg(box, frame=0):
    return SegOutput(frame=frame, box=box, mask=mask_of(box), area_share=0.1, score=0.9)


SQUARE = Box(20, 20, 60, 60)
FAR = Box(300, 120, 340, 160)


# ---------------------------------------------------------------- failures, SEG, ZOOM


@pytest.mark.parametrize("status", ["error", "disabled"])
def test_a_step_that_failed_is_not_valid(status):
    error = CallError(kind="nothing_found", message="nothing") if status == "error" else None
    failed = Step(thought="", text="", call=None, result=Result(op="SEG", status=status, engine="e", version="1", error=error), response="")
    assert verify_step(world(thing(0, SQUARE)), failed) == Check(is_valid=False, score=0.0)


@pytest.mark.parametrize(
    ("box", "score", "is_valid"),
    [
        (SQUARE, 1.0, True),
        (Box(20, 20, 60, 40), 0.5, True),  # the upper half
        (Box(20, 20, 60, 39), 19 / 40, False),
        (Box(20, 20, 100, 60), 0.5, True),  # twice as wide
        (FAR, 0.0, False),
    ],
)
def test_seg_by_hand(box, score, is_valid):
    assert check(world(thing(0, SQUARE), thing(1, Box(200, 20, 210, 30))), seg(box)) == Check(is_valid, pytest.approx(score))


def test_seg_is_judged_by_mask_not_by_box():
    ell = mask_of(Box(20, 20, 60, 30), Box(20, 20, 30, 60))  # 400 + 300 px of the box's 1600
    item = world(dataclasses.replace(thing(0, SQUARE), mask=ell))
    assert check(item, seg(SQUARE)).score == pytest.approx(700 / 1600)


def test_seg_on_a_later_frame_moves_the_mask_along():
    track = tuple(Box(20 + 10 * f, 20, 60 + 10 * f, 60) for f in range(FRAMES))
    item = world(thing(0, SQUARE, track=track), is_video=True)
    assert check(item, seg(track[7], frame=7)).score == 1.0
    assert not check(item, seg(SQUARE, frame=7)).is_valid
    # Half hidden: only its box is known there.
    hidden = (*track[:9], Box(110, 20, 130, 60))
    item = world(thing(0, SQUARE, track=hidden), is_video=True)
    assert mask_at(item.truth.objects[0], 9) is None and check(item, seg(Box(110, 20, 130, 60), frame=9)).score == 1.0


def test_bare_text_and_plates_of_the_occlusion_are_no_things():
    assert not check(world(thing(0, SQUARE, kind="text"), thing(1, SQUARE, kind="occluder")), seg(SQUARE)).is_valid


def zoom(box, frame=0):
    return ZoomOutput(frame=frame, box=box, view=View(box.x0, box.y0, 2, 2), width=100, height=100, image="0" * 64)


def test_zoom_by_hand():
    item = world(thing(0, SQUARE), thing(1, FAR), mentions=(("red square", 0),))
    assert check(item, zoom(Box(10, 10, 80, 80))) == Check(True, 1.0)
    assert check(item, zoom(Box(24, 20, 80, 80))) == Check(True, pytest.approx(0.9))  # 36 of 40 columns
    assert check(item, zoom(Box(25, 20, 80, 80))) == Check(False, pytest.approx(0.875))
    assert check(item, zoom(Box(290, 110, 350, 170))) == Check(False, 0.0)  # a thing that nobody asked for
    assert check(item, zoom(Box(0, 0, WIDTH, HEIGHT))) == Check(False, 0.0)  # everything, no larger
    assert check(world(thing(1, FAR)), zoom(Box(290, 110, 350, 170))).is_valid  # nothing is asked for: any thing
    evidence = world(thing(0, SQUARE), boxes=((0, FAR),))
    assert check(evidence, zoom(Box(290, 110, 350, 170))).is_valid and not check(evidence, zoom(SQUARE)).is_valid


# ---------------------------------------------------------------- TRK


def track_of(boxes):
    points = tuple(TrackPoint(frame=f, time_s=f / FPS, box=box, score=1.0) for f, box in enumerate(boxes))
    return TrkOutput(track_id=1, points=points, score=0.9)


def test_trk_by_hand():
    path = tuple(Box(20 + 10 * f, 20, 60 + 10 * f, 60) for f in range(FRAMES))
    item = world(thing(0, SQUARE, track=path), thing(1, FAR, track=(FAR,) * FRAMES), is_video=True)
    assert check(item, track_of(path)) == Check(True, pytest.approx(1.0))
    assert check(item, track_of((*path[:5], *[None] * 5))) == Check(True, pytest.approx(0.5))
    # Two of ten frames right, the others elsewhere: 2 / (10 + 10 - 2).
    assert check(item, track_of((*path[:2], *[Box(20, 150, 60, 190)] * 8))) == Check(False, pytest.approx(2 / 18))
    assert check(item, track_of((None,) * FRAMES)) == Check(False, 0.0)


def test_trk_is_judged_over_the_frames_it_was_asked_for():
    path = tuple(Box(20 + 10 * f, 20, 60 + 10 * f, 60) for f in range(FRAMES))
    item = world(thing(0, SQUARE, track=path), is_video=True)
    points = tuple(TrackPoint(frame=f, time_s=f / FPS, box=path[f], score=1.0) for f in (3, 4))
    assert check(item, TrkOutput(track_id=1, points=points, score=1.0)).score == pytest.approx(1.0)


def test_hota_of_a_constant_iou_by_hand():
    # IoU 0.5 passes the alphas 0.05 ... 0.5: 10 of 19.
    true, found = dict.fromkeys(range(4), Box(0, 0, 10, 10)), dict.fromkeys(range(4), Box(0, 0, 10, 5))
    assert hota(true, found) == pytest.approx(10 / 19)
    assert hota({0: None}, {0: None}) == 0.0


boxes_or_none = st.one_of(st.none(), st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), *[st.integers(1, 20)] * 4))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(boxes_or_none, boxes_or_none), min_size=1, max_size=8))
def test_hota_is_trackevals(pairs):
    trackeval = pytest.importorskip("trackeval")
    ids = [[np.zeros(int(box is not None), int) for box in frame] for frame in pairs]
    data = {
        "num_gt_dets": sum(a is not None for a, _ in pairs), "num_tracker_dets": sum(b is not None for _, b in pairs),
        "num_gt_ids": 1, "num_tracker_ids": 1, "gt_ids": [a for a, _ in ids], "tracker_ids": [b for _, b in ids],
        "similarity_scores": [np.array([[a.iou(b)]]) if a and b else np.zeros((int(a is not None), int(b is not None))) for a, b in pairs],
    }  # fmt: skip
    theirs = trackeval.metrics.HOTA().eval_sequence(data)["HOTA"].mean()
    assert hota({i: a for i, (a, _) in enumerate(pairs)}, {i: b for i, (_, b) in enumerate(pairs)}) == pytest.approx(theirs)


# ---------------------------------------------------------------- OCR


def ocr(*spans, box=Box(0, 0, WIDTH, HEIGHT), frame=0):
    return OcrOutput(frame=frame, box=box, spans=tuple(TextSpan(text=text, box=at, confidence=0.9) for text, at in spans))


PLATE = Box(100, 40, 200, 70)
INK = Box(110, 48, 190, 62)


@pytest.mark.parametrize(
    ("read", "score", "is_valid"),
    [
        ("EXIT NORTH", 1.0, True),
        ("exit-north!", 1.0, True),
        ("\uff25\uff38\uff29\uff34 north", 1.0, True),  # full width
        ("exit nor", 7 / 9, False),
        ("exit n0rth", 8 / 9, True),
        ("wholly other", 0.0, False),
    ],
)
def test_ocr_of_one_sign_by_hand(read, score, is_valid):
    item = world(thing(0, PLATE, kind="sign", text="exit north"))
    assert check(item, ocr((read, INK))) == Check(is_valid, pytest.approx(score))


def test_ocr_of_nothing():
    item = world(thing(0, PLATE, kind="sign", text="exit"))
    assert check(item, ocr()) == Check(False, 0.0)
    assert check(item, ocr(box=FAR)) == Check(True, 1.0)
    assert check(item, ocr(("o", FAR), box=FAR)) == Check(False, 0.0)
    assert check(item, ocr(("\u2605", FAR), box=FAR)).is_valid  # punctuation is no text


def test_ocr_in_any_order_and_however_lines_are_split():
    signs = thing(0, PLATE, kind="sign", text="exit north"), thing(1, Box(100, 120, 200, 150), kind="sign", text="12")
    left, right, low = Box(110, 48, 148, 62), Box(152, 48, 190, 62), Box(130, 128, 170, 142)
    assert check(world(*signs), ocr(("12", low), ("north", right), ("exit", left))).score == 1.0
    cells = thing(0, Box(100, 40, 140, 50), kind="text", text="exit"), thing(1, Box(160, 40, 200, 50), kind="text", text="12")
    assert check(world(*cells), ocr(("exit 12", Box(99, 39, 201, 51)))).score == 1.0
    # Right words at each other's place are wrong: 4 edits of 4, twice.
    assert not check(world(*cells), ocr(("12", Box(100, 40, 140, 50)), ("exit", Box(160, 40, 200, 50)))).is_valid


def test_a_missed_text_costs_its_length():
    signs = thing(0, PLATE, kind="sign", text="abcdefgh"), thing(1, Box(100, 120, 200, 150), kind="sign", text="12")
    assert check(world(*signs), ocr(("abcdefgh", INK))) == Check(False, pytest.approx(0.8))
    assert check(world(*signs), ocr(("abcdefgh", INK), box=Box(90, 30, 210, 80))) == Check(True, 1.0)  # the other lies outside


def test_a_text_cut_by_the_region_may_be_left_out_or_read():
    # The region shows 0.2 of the ink.
    item, region = world(thing(0, PLATE, kind="sign", text="exit")), Box(0, 30, 124, 80)
    assert check(item, ocr(box=region)) == Check(True, 1.0)
    assert not check(item, ocr(("e", Box(110, 48, 122, 62)), box=region)).is_valid


def test_the_text_of_the_moment():
    flash = (
        WorldEvent(kind="text", number=0, frame=4, time_s=0.8, before="", after="exit"),
        WorldEvent(kind="text", number=0, frame=6, time_s=1.2, before="exit", after=""),
    )
    item = world(thing(0, PLATE, kind="sign", text="exit", track=(PLATE,) * FRAMES), events=flash, is_video=True)
    assert [text_at(item, item.truth.objects[0], f) for f in (3, 4, 5, 6)] == ["", "exit", "exit", ""]
    assert check(item, ocr(("exit", INK), frame=5)).is_valid and not check(item, ocr(("exit", INK), frame=7)).is_valid
    assert check(item, ocr(frame=3)).is_valid and not check(item, ocr(frame=4)).is_valid


def test_fold_text():
    assert fold_text("It's\u00a0A-1_2.") == "itsa12"


# ---------------------------------------------------------------- TEMP


def temp(event, *segments, box=None, first=0, last=FRAMES - 1):
    found = tuple(Segment(start_s=a, end_s=b, score=0.9) for a, b in segments)
    return TempOutput(event=event, box=box, first_frame=first, last_frame=last, segments=found)


COMES = (None,) * 4 + (SQUARE,) * 6  # at 0.8 s; the video is 2.0 s long
GOES = (FAR,) * 7 + (None,) * 3  # at 1.4 s


def comings():
    return world(thing(0, SQUARE, track=COMES, first=4), thing(1, FAR, colour="blue", track=GOES), is_video=True)


def test_true_segments_by_hand():
    item = comings()
    assert true_segments(item, "appears", None, 0, 9) == [TimeSpan(0.8, 2.0)]
    assert true_segments(item, "disappears", None, 0, 9) == [TimeSpan(1.4, 2.0)]
    assert true_segments(item, "changes", None, 0, 9) == [TimeSpan(0.6, 0.8), TimeSpan(1.2, 1.4)]
    assert true_segments(item, "appears", FAR.grow(5), 0, 9) == []
    assert true_segments(item, "appears", None, 5, 9) == []  # it is there already
    assert true_segments(item, "appears", None, 0, 9, frozenset({"blue"})) == []
    assert true_segments(item, "cut", None, 0, 9) == [TimeSpan(0.0, 2.0)]
    assert true_segments(item, "moves", None, 0, 9) == []


@pytest.mark.parametrize(
    ("segments", "score", "is_valid"),
    [
        (((0.8, 2.0),), 1.0, True),
        (((0.8, 1.0),), 1.0, True),  # the moment is right
        (((1.3, 1.4),), 0.5, True),  # half a second late
        (((1.35, 1.4),), 0.45, False),
        (((0.2, 2.0),), 1.2 / 1.8, True),  # tIoU; the offset alone gives 0.4
        (((1.9, 2.0), (0.8, 2.0)), 0.1 / 1.2, False),  # the best segment counts
        ((), 0.0, False),
    ],
)
def test_temp_by_hand(segments, score, is_valid):
    assert check(comings(), temp("appears", *segments)) == Check(is_valid, pytest.approx(score))


def test_temp_where_nothing_happens():
    assert check(comings(), temp("appears", box=FAR.grow(5))) == Check(True, 1.0)
    assert check(comings(), temp("appears", (0.8, 2.0), box=FAR.grow(5))) == Check(False, 0.0)
    assert check(comings(), temp("a blue square appears")).is_valid
    assert check(comings(), temp("a red square appears", (0.8, 2.0))).is_valid
    assert check(comings(), temp("something wonderful", (0.8, 2.0))) == Check(False, 0.0)


def test_changes_are_told_by_their_end():
    turn = WorldEvent(kind="changes", number=0, frame=5, time_s=1.0, before="red", after="green")
    item = world(thing(0, SQUARE, track=(SQUARE,) * FRAMES), events=(turn,), is_video=True)
    assert check(item, temp("changes", (0.8, 1.0))).score == 1.0
    assert check(item, temp("changes", (0.2, 1.1))).score == pytest.approx(0.9)
    assert not check(item, temp("changes", (0.9, 1.7))).is_valid
    assert [colour_at(item, item.truth.objects[0], f) for f in (4, 5)] == ["red", "green"]


def test_a_text_that_flashes_appears_and_disappears():
    flash = (
        WorldEvent(kind="text", number=0, frame=4, time_s=0.8, before="", after="exit"),
        WorldEvent(kind="text", number=0, frame=6, time_s=1.2, before="exit", after=""),
    )
    item = world(thing(0, PLATE, kind="sign", text="exit", track=(PLATE,) * FRAMES), events=flash, is_video=True)
    assert true_segments(item, "appears", PLATE.grow(6), 0, 9) == [TimeSpan(0.8, 1.2)]
    assert true_segments(item, "disappears", PLATE.grow(6), 0, 9) == [TimeSpan(1.2, 2.0)]
    assert true_segments(item, "changes", PLATE.grow(6), 0, 9) == [TimeSpan(0.6, 0.8), TimeSpan(1.0, 1.2)]


def test_moves_from_the_last_rest_to_the_next():
    xs = (20, 20, 20, 30, 40, 50, 50, 50, 50, 50)
    track = tuple(Box(x, 20, x + 40, 60) for x in xs)
    item = world(thing(0, SQUARE, track=track), is_video=True)
    assert true_segments(item, "moves", None, 0, 9) == [TimeSpan(0.4, 1.0)]
    assert true_segments(item, "moves", None, 0, 4) == [TimeSpan(0.4, 1.0)]  # still going at the window's end
    assert true_segments(item, "moves", FAR, 0, 9) == []


# ---------------------------------------------------------------- PROP


def prop(what, box=SQUARE, frame=0, **values):
    attributes = tuple(Attribute(name=name, value=value, confidence=0.9) for name, value in values.items())
    return PropOutput(what=what, frame=frame, box=box, attributes=attributes)


def test_colour_and_shape_by_hand():
    item = world(thing(0, SQUARE), thing(1, PLATE, kind="sign", colour="blue", shape=""))
    assert check(item, prop("colour", colour="red")) == Check(True, 1.0)
    assert check(item, prop("colour", colour="blue")) == Check(False, 0.0)
    assert check(item, prop("colour", box=FAR, colour="red")) == Check(False, 0.0)  # nothing there
    assert check(item, prop("shape", shape="square")).is_valid and not check(item, prop("shape", shape="star")).is_valid
    assert check(item, prop("shape", box=PLATE, shape="rectangle")).is_valid


def test_a_small_box_means_the_spot():
    item = world(thing(0, SQUARE), thing(1, Box(37, 37, 43, 43), kind="spot", colour="white", shape="circle"))
    assert check(item, prop("colour", box=Box(35, 35, 45, 45), colour="white")).is_valid
    assert check(item, prop("colour", colour="red")).is_valid


@pytest.mark.parametrize(("room", "is_meant"), [(8, True), (11, True), (13, False)])
def test_a_loose_box_means_the_only_thing_in_it(room, is_meant):
    """8 x 8 px in 24 x 24 fit by 1/9, in 30 x 30 by 1/14, in 34 x 34 by 1/18."""
    small = Box(100, 100, 108, 108)
    spot = thing(1, Box(103, 103, 105, 105), kind="spot", colour="white", shape="circle")
    item = world(thing(0, small), spot)
    assert check(item, prop("colour", box=small.grow(room), colour="red")).is_valid is is_meant
    crowded = world(thing(0, small), thing(1, Box(110, 100, 115, 105), colour="blue"))
    assert not check(crowded, prop("colour", box=small.grow(room), colour="red")).is_valid


def test_colour_after_a_change():
    turn = WorldEvent(kind="changes", number=0, frame=5, time_s=1.0, before="red", after="green")
    item = world(thing(0, SQUARE, track=(SQUARE,) * FRAMES), events=(turn,), is_video=True)
    assert check(item, prop("colour", frame=6, colour="green")).is_valid and not check(item, prop("colour", frame=6, colour="red")).is_valid


def test_count_by_hand():
    card = thing(0, Box(100, 20, 200, 120), kind="panel", colour="white", shape="")
    dots = [thing(1 + i, Box(110 + 20 * i, 40, 120 + 20 * i, 50), colour="blue" if i < 3 else "red") for i in range(4)]
    spot = thing(9, Box(113, 43, 117, 47), kind="spot", colour="white", shape="circle")
    item = world(card, *dots, spot, thing(10, FAR))
    assert true_counts(item, card.box, 0) == (4,)
    assert check(item, prop("count", box=card.box, count=4)).is_valid and not check(item, prop("count", box=card.box, count=5)).is_valid
    like = {"other": box_to_wire(dots[0].box, width=WIDTH, height=HEIGHT)}
    assert check(item, prop("count", box=card.box, count=3), **like).is_valid
    assert true_counts(item, FAR.grow(2), 0) == (0, 1)  # one square that fills the box


def test_size_and_position_by_hand():
    item = world(thing(0, SQUARE))
    assert check(item, prop("size", width=40.0, height=40.0, area=1600.0)) == Check(True, 1.0)
    assert check(item, prop("size", width=44.0, height=40.0, area=1760.0)) == Check(True, pytest.approx(0.9))
    assert check(item, prop("size", width=40.0, height=40.0, area=1100.0)) == Check(False, pytest.approx(1 - 500 / 1600))
    # The centre is 40, 40 of 400 x 200: 100 and 200 of 1000.
    assert check(item, prop("position", centre_x=100, centre_y=200)) == Check(True, pytest.approx(1.0))
    assert check(item, prop("position", centre_x=150, centre_y=200)) == Check(True, pytest.approx(0.75))
    assert check(item, prop("position", centre_x=160, centre_y=200)) == Check(False, pytest.approx(0.7))
    assert check(item, prop("position", position="left")) == Check(False, 0.0)


def test_orientation_by_hand():
    flat = world(thing(0, PLATE, kind="sign"))
    angle, elongation = long_axis(mask_of(PLATE))
    assert min(angle, 180 - angle) == pytest.approx(0, abs=1e-6) and elongation == pytest.approx(math.sqrt((100**2 - 1) / (30**2 - 1)))
    assert check(flat, prop("orientation", box=PLATE, angle=175.0)) == Check(True, pytest.approx(1 - 5 / 60))
    assert check(flat, prop("orientation", box=PLATE, angle=90.0)) == Check(False, 0.0)
    rising = np.zeros((HEIGHT, WIDTH), bool)
    for i in range(40):
        rising[100 - i, 50 + i : 54 + i] = True
    assert long_axis(Mask.from_array(rising))[0] == pytest.approx(45, abs=3)  # counter-clockwise on screen
    assert check(world(thing(0, SQUARE)), prop("orientation", angle=33.0, elongation=1.0)).is_valid


def moving():
    # To the right by 20 px a frame until frame 5, then down: a right turn; 100 px a second.
    places = [(20 + 20 * min(f, 5), 20 + 20 * max(f - 5, 0)) for f in range(FRAMES)]
    track = tuple(Box(x, y, x + 40, y + 40) for x, y in places)
    turn = WorldEvent(kind="turns", number=0, frame=5, time_s=1.0, before="right", after="down")
    return world(thing(0, SQUARE, track=track), events=(turn,), is_video=True), track


def test_motion_by_hand():
    item, track = moving()
    right = {"moving": "moving", "direction": "down-right", "path": "turns right"}
    # Over strides of two frames the corner at frame 5 is cut: 2 * 80 + hypot(20, 20) + 20 px in 1.8 s.
    speed = (80 + math.hypot(20, 20) + 40 + 20) / 1.8
    assert check(item, prop("motion", speed=speed, **right)) == Check(True, pytest.approx(1.0))
    assert check(item, prop("motion", speed=speed * 1.2, **right)) == Check(True, pytest.approx(0.8))
    assert not check(item, prop("motion", speed=speed * 1.3, **right)).is_valid
    for wrong in ({"direction": "up"}, {"path": "turns left"}, {"moving": "still"}):
        assert check(item, prop("motion", speed=speed, **(right | wrong))) == Check(False, 0.0)
    # Of the first half alone: straight to the right at 100 px a second.
    first = step(track_of(track[:5])).result
    values = {"moving": "moving", "direction": "right", "speed": 100.0, "path": "straight"}
    assert check(item, prop("motion", **values), (first,), ref=1) == Check(True, pytest.approx(1.0))
    assert not check(item, prop("motion", **values)).is_valid


def test_motion_of_a_thing_at_rest():
    item = world(thing(0, SQUARE, track=(SQUARE,) * FRAMES), is_video=True)
    assert check(item, prop("motion", moving="still", direction="none", speed=0.0)).is_valid
    assert not check(item, prop("motion", moving="moving", direction="up", speed=9.0)).is_valid


def test_relation_by_hand():
    item = world(thing(0, SQUARE), thing(1, FAR))
    there = {"other": box_to_wire(FAR, width=WIDTH, height=HEIGHT)}
    far = math.hypot(280, 100) / WIDTH
    right = {"relation": "left of", "horizontal": "left of", "vertical": "above", "distance": far}
    assert check(item, prop("relation", **right), **there) == Check(True, pytest.approx(1.0))
    assert check(item, prop("relation", **right), (step(seg(FAR)).result,), other=1).is_valid
    assert check(item, prop("relation", **right), other=1) == Check(False, 0.0)  # no such step
    for wrong in (
        {"horizontal": "right of"},
        {"vertical": "below"},
        {"horizontal": "aligned"},
        {"distance": far / 2},
        {"relation": "inside"},
    ):
        assert not check(item, prop("relation", **(right | wrong)), **there).is_valid


def test_relation_nearly_in_line():
    # 8 px apart, sizes 40 and 40: share 0.2: either word will do.
    item = world(thing(0, SQUARE), thing(1, Box(100, 28, 140, 68)))
    there = {"other": box_to_wire(Box(100, 28, 140, 68), width=WIDTH, height=HEIGHT)}
    for word, is_valid in (("aligned", True), ("above", True), ("below", False)):
        values = {"horizontal": "left of", "vertical": word, "distance": math.hypot(80, 8) / WIDTH}
        assert check(item, prop("relation", **values), **there).is_valid == is_valid


# ---------------------------------------------------------------- the real tools on real items


@pytest.fixture(scope="module")
def executor():
    return make_executor(resolved(ToolSettings()))


def written(item, planned) -> Call:
    """A call of the minimal chain in wire units."""
    args = planned.args

    def wire(box):
        return box_to_wire(box, width=item.width, height=item.height)

    arguments: dict = {"bbox_2d": wire(args.box)} if planned.uses is None else {"ref": planned.uses + 1}
    if planned.op == "TEMP":
        arguments["event"] = args.event
    elif planned.op == "PROP":
        arguments |= {"what": args.what} | ({"other": wire(args.other_box)} if args.other_box else {})
    elif item.kind == "video" and planned.op != "TRK":
        arguments["frame"] = round(args.frame / item.fps, 1)
    return Call(op=planned.op, arguments=arguments)


def run(item, calls, executor) -> list[Step]:
    steps: list[Step] = []
    with open_medium(render(item), name=item.medium_name) as medium:
        for call in calls:
            result = executor.run(call, medium, [step.result for step in steps]).result
            steps.append(Step(thought="", text="", call=call, result=result, response=""))
    return steps


def checked(item, steps) -> list[Check]:
    return [verify_step(item, each, [earlier.result for earlier in steps[:number]]) for number, each in enumerate(steps)]


@pytest.mark.parametrize("family", ["read_sign", "attribute", "size_compare", "relation", "table", "turn", "when_changes", "timed_text"])
def test_the_minimal_chain_is_valid_with_the_real_tools(family, executor):
    item = make_item("dev", 1, seed=11, family=family)
    checks = checked(item, run(item, [written(item, planned) for planned in item.chain], executor))
    assert checks and all(c.is_valid for c in checks), checks


@pytest.mark.parametrize("family", ["read_sign", "attribute", "size_compare", "when_changes"])
def test_the_same_chain_elsewhere_is_not(family, executor):
    """Sabotage: the same calls, each in an empty place of its size."""
    item = make_item("dev", 1, seed=11, family=family)
    taken = [thing.box.grow(4) for thing in item.truth.objects]

    def moved(box):
        for x in range(0, item.width - math.ceil(box.width), 8):
            for y in range(0, item.height - math.ceil(box.height), 8):
                place = Box(x, y, x + box.width, y + box.height)
                if all(place.intersect(other).is_empty for other in taken):
                    return place
        raise AssertionError("no empty place")

    calls = []
    for planned in item.chain:
        changes = {"box": moved(planned.args.box)}
        calls.append(written(item, dataclasses.replace(planned, args=dataclasses.replace(planned.args, **changes))))
    steps = run(item, calls, executor)
    for each, found in zip(steps, checked(item, steps), strict=True):
        output = each.result.output
        is_empty = each.call.op in ("OCR", "TEMP") and not (getattr(output, "spans", ()) or getattr(output, "segments", ()))
        # Nothing read or found where nothing is: right as a step, and it says nothing.
        assert found.is_valid == is_empty


def test_a_true_output_of_another_frame_or_item_is_not_valid(executor):
    item, other = (make_item("dev", index, seed=11, family="read_sign") for index in (1, 2))
    steps = run(item, [written(item, planned) for planned in item.chain], executor)
    assert not any(c.is_valid for c in checked(other, steps))
