"""Decisive steps on hand-made trajectories."""

from __future__ import annotations

import pytest

from pixelis.core.decisive import decisive_steps, fold
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

IMAGE = MediumInfo(kind="image", sha256="0" * 64, width=1000, height=500, num_frames=1, fps=None, duration_s=0.0, name="scene.png")
VIDEO = MediumInfo(kind="video", sha256="1" * 64, width=1000, height=500, num_frames=40, fps=10.0, duration_s=4.0, name="scene.mp4")
BOX = Box(100, 50, 200, 100)  # on the wire [100, 100, 200, 200]
WIRE = [100, 100, 200, 200]


def step(op, arguments, output=None):
    result = Result(op=op, status="ok" if output else "error", engine="e", version="1", output=output,
                    error=None if output else CallError(kind="nothing_found", message="nothing"))  # fmt: skip
    return Step(thought="", text="", call=Call(op=op, arguments=arguments), result=result, response="")


def decided(steps, answer, info=IMAGE, plain=None):
    trajectory = Trajectory(
        id="t",
        question="?",
        medium=info,
        policy=PolicyInfo(name="p", version="1"),
        seed=0,
        steps=tuple(steps),
        stop="answered",
        answer=answer,
    )
    return decisive_steps(trajectory, answer=plain)


def seg(arguments=None, box=BOX, frame=0):
    mask = Mask(500, 1000, "")
    return step("SEG", arguments or {"point": [150, 150]}, SegOutput(frame=frame, box=box, mask=mask, area_share=0.01, score=0.9))


def zoom(box=BOX, frame=0):
    shown = ZoomOutput(frame=frame, box=box, view=View(box.x0, box.y0, 4, 4), width=400, height=200, image="0" * 64)
    return step("ZOOM", {"bbox_2d": WIRE}, shown)


def ocr(*texts, arguments=None, frame=0):
    spans = tuple(TextSpan(text=text, box=Box(10, 10 + 20 * i, 60, 25 + 20 * i), confidence=0.9) for i, text in enumerate(texts))
    return step("OCR", arguments or {"bbox_2d": [0, 0, 500, 500]}, OcrOutput(frame=frame, box=Box(0, 0, 500, 250), spans=spans))


def prop(value, arguments=None, name="colour", what="colour"):
    attributes = (Attribute(name=name, value=value, confidence=0.8),)
    return step("PROP", arguments or {"what": what, "bbox_2d": [600, 600, 700, 700]},
                PropOutput(what=what, frame=0, box=Box(600, 300, 700, 350), attributes=attributes))  # fmt: skip


def temp(*segments, box=BOX, arguments=None):
    found = tuple(Segment(start_s=a, end_s=b, score=0.9) for a, b in segments)
    output = TempOutput(event="appears", box=box, first_frame=0, last_frame=39, segments=found)
    return step("TEMP", arguments or {"event": "appears", "bbox_2d": WIRE}, output)


def trk(*boxes):
    points = tuple(TrackPoint(frame=i, time_s=i / 10, box=box, score=0.9) for i, box in enumerate(boxes))
    return step("TRK", {"bbox_2d": WIRE}, TrkOutput(track_id=1, points=points, score=0.9))


def test_a_ref_makes_its_step_decisive():
    assert decided([seg(), seg(), prop("red", {"what": "colour", "ref": 2})], "red") == (False, True, True)
    assert decided([ocr("a", "b"), zoom(), step("ZOOM", {"ref": "1.2"})], "no") == (True, False, False)
    assert decided([seg(), step("PROP", {"what": "relation", "bbox_2d": [800, 800, 900, 900], "other": 1})], "no") == (True, False)


@pytest.mark.parametrize("ref", [0, 2, 3, -1, True, "1.7x", "x", None])
def test_a_ref_that_names_nothing_uses_nothing(ref):
    assert decided([seg(), step("PROP", {"what": "colour", "ref": ref})], "no") == (False, False)


def test_a_ref_to_an_item_that_is_not_there_uses_nothing():
    assert decided([ocr("a", "b"), step("ZOOM", {"ref": "1.3"})], "no") == (False, False)


def test_a_failed_step_is_never_decisive():
    assert decided([step("OCR", {"bbox_2d": WIRE}), step("OCR", {"ref": 1}), ocr("exit")], "exit") == (False, False, True)


def test_overlap_needs_half():
    # The zoom shows x 100..200. A box over x 100..300 has IoU 100/200 = 0.5, over x 100..310 it has 100/210.
    half, less = [100, 100, 300, 200], [100, 100, 310, 200]
    assert decided([zoom(), ocr("x", arguments={"bbox_2d": half})], "no") == (True, False)
    assert decided([zoom(), ocr("x", arguments={"bbox_2d": less})], "no") == (False, False)


def test_a_box_given_as_other_counts():
    later = step("PROP", {"what": "relation", "bbox_2d": [800, 800, 900, 900], "other": WIRE})
    assert decided([seg(), later], "no") == (True, False)


def test_overlap_on_another_frame_does_not_count():
    assert decided([seg(frame=5), ocr("x", arguments={"bbox_2d": WIRE, "frame": 0.5}, frame=5)], "no", VIDEO) == (True, False)
    assert decided([seg(frame=5), ocr("x", arguments={"bbox_2d": WIRE, "frame": 2.0}, frame=20)], "no", VIDEO) == (False, False)
    assert decided([seg(frame=5), step("TRK", {"bbox_2d": WIRE, "from_s": 0.5})], "no", VIDEO) == (True, False)
    assert decided([seg(frame=5), step("TRK", {"bbox_2d": WIRE})], "no", VIDEO) == (False, False)


def test_word_for_word_repetition_is_no_use():
    assert decided([zoom(), zoom()], "no") == (False, False)


def test_a_segment_is_used_by_looking_there_at_a_chosen_moment():
    def looked(found, at_s, box=WIRE, region=Box(0, 0, 500, 250)):
        output = OcrOutput(frame=round(at_s * 10), box=region, spans=())
        return decided([found, step("OCR", {"bbox_2d": box, "frame": at_s}, output)], "no", VIDEO)[0]

    assert looked(temp((1.0, 2.0)), 1.5) and looked(temp((1.0, 2.0)), 3.0)  # before or after what was found: within the window
    assert not looked(temp((1.0, 2.0)), 1.5, box=[800, 800, 900, 900])
    assert not looked(temp(), 1.5)  # it found nothing
    through_ref = step("OCR", {"ref": 1, "frame": 1.5}, OcrOutput(frame=15, box=BOX, spans=()))
    assert decided([seg(frame=0), temp((1.0, 2.0)), through_ref], "no", VIDEO) == (True, True, False)
    everywhere = temp((1.0, 2.0), box=None)
    assert looked(everywhere, 1.5) and looked(everywhere, 2.0) and not looked(everywhere, 2.1) and not looked(everywhere, 0.9)


@pytest.mark.parametrize(
    ("spans", "answer", "is_used"),
    [
        (("EXIT",), "exit", True),
        (("Exit!",), "It says: EXIT.", True),
        (("EX", "IT"), "exit", True),
        (("north", "exit"), "North exit", True),
        (("gate 12",), "12", True),
        (("gate 12",), "1", False),
        (("exits",), "exit", False),
        (("\uff21\uff22",), "ab", True),  # full-width letters
        ((), "exit", False),
        (("...",), "exit", False),
        (("exit",), "", False),
    ],
)
def test_text_in_the_answer(spans, answer, is_used):
    assert decided([ocr(*spans)], answer) == (is_used,)


@pytest.mark.parametrize(
    ("value", "answer", "is_used"),
    [
        ("red", "the red one", True),
        ("red", "a reddish one", False),
        ("left of", "left of", True),
        (5, "5", True),
        (5, "15", False),
        (5.0, "there are 5.", True),
        (2.34, "2.3", True),
        (2.34, "2", False),
        (-1.5, "-1.5", True),
    ],
)
def test_a_value_in_the_answer(value, answer, is_used):
    assert decided([prop(value)], answer) == (is_used,)


def test_times_match_to_a_tenth():
    assert decided([temp((1.2, 4.0))], "1.2", VIDEO) == (True,)
    assert decided([temp((1.167, 4.0))], "at 1.2 s", VIDEO) == (True,)
    assert decided([temp((1.2, 4.0))], "1.2s", VIDEO) == (True,)
    assert decided([temp((0.4, 1.2))], "1.2", VIDEO) == (True,)
    assert decided([temp((1.3, 4.0))], "1.2", VIDEO) == (False,)


def test_a_track_ends_in_a_corner():
    path = trk(BOX, Box(800, 400, 900, 450), None)
    assert decided([path], "bottom right", VIDEO) == (True,)
    assert decided([path], "the lower right corner", VIDEO) == (True,)
    assert decided([path], "bottom left", VIDEO) == (False,)
    assert decided([trk(None, None)], "top left", VIDEO) == (False,)


def test_the_plain_answer_replaces_the_letter():
    assert decided([ocr("exit")], "B") == (False,)
    assert decided([ocr("exit")], "B", plain="exit") == (True,)


def test_no_answer_and_no_steps():
    assert decided([ocr("exit")], None) == (False,)
    assert decided([], "exit") == ()


def test_fold_by_hand():
    assert fold("It's 1.2 s, No.") == ("it", "s", "1.2", "s", "no")
    assert fold("-3.5 a-b ...") == ("-3.5", "a", "b")
