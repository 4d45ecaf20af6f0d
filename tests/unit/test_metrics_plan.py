"""PRC and the cosines of footprint crops: perturbed media, agreement of outputs by hand, and real tools that hold or do not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pixelis.core.crops import crop_places
from pixelis.core.errors import DataError, ToolError
from pixelis.core.geometry import Box, Mask, TimeSpan, View
from pixelis.core.media import Medium
from pixelis.core.ops import (
    Attribute,
    Call,
    Footprint,
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
from pixelis.eval.metrics.agreement import agreement, is_same, rescaled
from pixelis.eval.metrics.coherence_encoder import adjacent_footprint_cosines, dev_statistics, step_embeddings
from pixelis.eval.metrics.perturb import Perturbation, perturbed
from pixelis.eval.metrics.plan import PlanCheck, StepCheck, check_plan, check_plans, plan_consistency
from pixelis.testing.scenes import HEIGHT, WIDTH, background, disc, image_medium, video_medium
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import build_toolbox

RED, BLUE = Box(100, 120, 160, 180), Box(400, 300, 500, 400)
JPEG, HALF, NONE, JITTER = Perturbation("jpeg", 30), Perturbation("resize", 0.5), Perturbation("none"), Perturbation("jitter", 1)


@pytest.fixture(scope="module")
def picture() -> Medium:
    return image_medium(disc(disc(background(0), RED, "red"), BLUE, "blue"), "discs")


@pytest.fixture(scope="module")
def video() -> Medium:
    """A disc appears on frame 8 of 20, at 0.8 s."""
    box = Box(300, 200, 360, 260)
    return video_medium([disc(background(5), box, "blue") if i >= 8 else background(5) for i in range(20)], "arrival")


def run(medium: Medium, executor: Executor, calls: list[tuple[str, dict]], answer: str | None) -> Trajectory:
    results: list[Result] = []
    for op, arguments in calls:
        results.append(executor.run(Call(op=op, arguments=arguments), medium, results).result)
    steps = tuple(
        Step(thought="", text="", call=Call(op=op, arguments=arguments), result=result, response="")
        for (op, arguments), result in zip(calls, results, strict=True)
    )
    info = PolicyInfo(name="by hand", version="1")
    return Trajectory(id="t", question="?", medium=medium.info, policy=info, seed=0, steps=steps, stop="answered", answer=answer)


def executor() -> Executor:
    return Executor(build_toolbox(ToolSettings(seg="classical")))


# ---------------------------------------------------------------- perturbed media


def test_a_resized_medium_keeps_frames_and_times(video):
    half = perturbed(video, HALF)
    assert (half.width, half.height, half.num_frames, half.sha256 != video.sha256) == (WIDTH // 2, HEIGHT // 2, 20, True)
    assert (half.times_s == video.times_s).all() and half.frame(7).shape == (HEIGHT // 2, WIDTH // 2, 3)
    assert (half.frame(7) == next(half.frames(7, 8))).all()
    # each pixel is the mean of four, to rounding
    four = video.frame(7).astype(float).reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean((1, 3))
    assert np.abs(half.frame(7) - four).max() <= 0.51


def test_jpeg_changes_pixels_a_little_and_always_the_same(picture):
    one, two = (perturbed(picture, JPEG).frame(0) for _ in range(2))
    off = np.abs(one.astype(int) - picture.frame(0)).mean()
    assert (one == two).all() and 0 < off < 12
    assert off < np.abs(perturbed(picture, Perturbation("jpeg", 3)).frame(0).astype(int) - picture.frame(0)).mean()


def test_jitter_shows_neighbouring_frames(video):
    counting = video_medium([np.full((48, 64, 3), 10 * k + 20, np.uint8) for k in range(20)], "counting")
    shaken = perturbed(counting, JITTER, seed=1)
    shown = [next(k for k in range(20) if (frame == counting.frame(k)).all()) for frame in shaken.frames(0, 20)]
    assert all(abs(k - i) <= 1 for i, k in enumerate(shown)) and shown == sorted(shown) != list(range(20))
    assert (shaken.frame(11) == counting.frame(shown[11])).all()  # out of order, too
    assert shaken.sha256 == perturbed(counting, JITTER, seed=1).sha256 != perturbed(counting, JITTER, seed=2).sha256
    # unperturbed, it is the medium itself under its own name
    same = perturbed(video, NONE)
    assert same.sha256 == video.sha256 and (same.frame(3) == video.frame(3)).all()


def test_perturbations_that_make_no_sense_say_so(picture):
    for kind, amount in (("jpeg", 0), ("jpeg", 101), ("resize", 0), ("jitter", 0.5), ("blur", 1), ("none", 1)):
        with pytest.raises(DataError, match="no perturbation"):
            Perturbation(kind, amount)
    with pytest.raises(DataError, match="needs a video"):
        perturbed(picture, JITTER)
    assert not JITTER.applies_to(picture) and str(JPEG) == "jpeg 30"


# ---------------------------------------------------------------- agreement by hand


def prop(what: str, *values: tuple) -> PropOutput:
    return PropOutput(
        what=what, frame=0, box=RED, attributes=tuple(Attribute(name=n, value=v, confidence=1.0, unit=u) for n, v, u in values)
    )


def seg(x: int) -> SegOutput:
    ink = np.zeros((40, 60), bool)
    ink[10:20, x : x + 10] = True
    mask = Mask.from_array(ink)
    return SegOutput(frame=0, box=mask.box, mask=mask, area_share=mask.area_px / 2400, score=1.0)


def read(*texts: str) -> OcrOutput:
    return OcrOutput(frame=0, box=RED, spans=tuple(TextSpan(text=t, box=RED, confidence=1.0) for t in texts))


def temp(event: str, *segments: tuple[float, float]) -> TempOutput:
    found = tuple(Segment(start_s=a, end_s=b, score=1.0) for a, b in segments)
    return TempOutput(event=event, box=None, first_frame=0, last_frame=9, segments=found)


def zoom(x: float) -> ZoomOutput:
    return ZoomOutput(frame=0, box=Box(x, 0, x + 100, 50), view=View(x, 0, 2, 2), width=200, height=100, image="")


def track(x: float) -> TrkOutput:
    points = tuple(TrackPoint(frame=f, time_s=f / 5, box=Box(x, 0, x + 20, 20), score=1.0) for f in range(4))
    return TrkOutput(track_id=1, points=points, score=1.0)


@pytest.mark.parametrize(
    ("one", "two", "score", "survives"),
    [
        (seg(10), seg(13), 7 / 13, True),
        (seg(10), seg(15), 1 / 3, False),
        (zoom(0), zoom(10), 0.9, True),
        (zoom(0), zoom(11), 0.89, False),
        # IoU 1/3 on every frame: reaches .05 ... .30, 6 of 19 thresholds
        (track(0), track(10), 6 / 19, True),
        (track(0), track(17), 1 / 19, False),  # 3 of 37: only .05
        (read("MARKET 27"), read("market", "27"), 1.0, True),
        (read("MARKET 27"), read("MARKET 2"), 7 / 8, True),
        (read("27"), read("72"), 0.0, False),
        (read(), read(), 1.0, True),
        (temp("appears", (1.0, 3.0)), temp("appears", (1.4, 9.0)), 0.6, True),  # the start is 0.4 s off
        (temp("changes", (1.0, 1.2)), temp("changes", (0.2, 1.3)), 0.9, True),  # of a change the end counts
        (temp("appears", (1.0, 3.0)), temp("appears", (2.0, 9.0)), 1 / 8, False),
        (temp("appears"), temp("appears"), 1.0, True),
        (temp("appears", (1.0, 3.0)), temp("appears"), 0.0, False),
        (prop("colour", ("colour", "red", ""), ("share", 0.9, "")), prop("colour", ("colour", "red", ""), ("share", 0.1, "")), 1.0, True),
        (prop("colour", ("colour", "red", "")), prop("colour", ("colour", "blue", "")), 0.0, False),
        (prop("count", ("count", 3, "")), prop("count", ("count", 4, "")), 0.0, False),
        (prop("size", ("width", 40, "px"), ("height", 20, "px")), prop("size", ("width", 45, "px"), ("height", 18, "px")), 1.0, True),
        (prop("size", ("width", 40, "px"), ("height", 20, "px")), prop("size", ("width", 40, "px"), ("height", 10, "px")), 0.0, False),
        (prop("colour", ("colour", "red", "")), prop("shape", ("shape", "circle", "")), 0.0, False),
        (prop("colour", ("colour", "red", "")), read("red"), 0.0, False),
    ],
)
def test_agreement_by_hand(one, two, score, survives):
    assert agreement(one, two) == pytest.approx(score) and is_same(one, two) is survives
    assert agreement(one, one) == 1.0 and is_same(one, one) and not is_same(one, None)


def test_outputs_come_back_to_the_pixels_of_the_original():
    back = {"from_size": (60, 40), "to_size": (120, 80)}
    found = rescaled(seg(10), **back)
    assert found.mask.box == found.box == Box(20, 20, 40, 40) and (found.mask.width, found.mask.height) == (120, 80)
    assert rescaled(zoom(10), **back).box == Box(20, 0, 220, 100)
    inner = Box(0, 0, 50, 20)  # of the crop
    assert rescaled(zoom(10), **back).view.to_original(inner) == Box(20, 0, 70, 20)  # twice [10, 0, 35, 10]
    assert rescaled(track(5), **back).points[0].box == Box(10, 0, 50, 40)
    assert rescaled(read("a"), **back).spans[0].box == Box(200, 240, 320, 360)
    size = rescaled(prop("size", ("width", 7, "px"), ("area", 10, "px2"), ("share", 0.1, "of frame")), **back)
    assert [a.value for a in size.attributes] == [14, 40, 0.1]
    assert rescaled(temp("cut", (0, 1)), **back) == temp("cut", (0, 1))
    assert rescaled(seg(3), from_size=(60, 40), to_size=(60, 40)) == seg(3)


# ---------------------------------------------------------------- plans


def test_a_plan_of_real_tools_holds(picture):
    calls = [("SEG", {"bbox_2d": [150, 240, 260, 385]}), ("PROP", {"what": "colour", "ref": 1})]
    trajectory = run(picture, executor(), calls, "It is red.")
    for perturbation in (NONE, JPEG, HALF):
        check = check_plan(trajectory, picture, executor(), perturbation)
        assert [step.is_decisive for step in check.steps] == [True, True] and check.num_values == 1
        assert check.evidence and check.answer and check.survives, check
    assert [step.agreement for step in check_plan(trajectory, picture, executor(), NONE).steps] == [1.0, 1.0]
    # an image has no frames to shake: two perturbations apply
    consistency = plan_consistency(check_plans(trajectory, picture, executor()))
    assert (consistency.rate.value, consistency.rate.count) == (1.0, 1)
    assert sorted(consistency.by_perturbation) == ["jpeg 30", "resize 0.75"]


class Brittle:
    """PROP that reads the last bit of one pixel: true of this file, and of nothing in the world."""

    op, engine, version = "PROP", "brittle", "1"

    def __call__(self, medium, args, context):
        bits = int(np.asarray(medium.frame(args.frame))[:8, :8].astype(int).sum())
        return PropOutput(what=args.what, frame=args.frame, box=args.box, attributes=(Attribute(name="count", value=bits, confidence=1.0),))


class Lost:
    """PROP that finds the thing in the original only."""

    op, engine, version = "PROP", "lost", "1"

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name

    def __call__(self, medium, args, context):
        if medium.sha256 != self.name:
            raise ToolError(self.kind, "not here")
        return PropOutput(what="count", frame=0, box=args.box, attributes=(Attribute(name="count", value=3, confidence=1.0),))


COUNT = [("PROP", {"what": "count", "bbox_2d": [0, 0, 500, 500]})]


def test_a_brittle_plan_does_not_survive(picture):
    tools = Executor({"PROP": Brittle()})
    value = run(picture, tools, COUNT, None).steps[0].result.output.attributes[0].value
    trajectory = run(picture, tools, COUNT, str(value))
    assert check_plan(trajectory, picture, tools, NONE).survives is True
    check = check_plan(trajectory, picture, tools, JPEG)
    assert (check.evidence, check.answer, check.survives) == (False, False, False)
    assert plan_consistency(check_plans(trajectory, picture, tools)).rate.value == 0.0


def test_what_fails_later_does_not_survive_but_a_late_machine_is_unknown(picture):
    for kind, survives in (("nothing_found", False), ("deadline", None)):
        tools = Executor({"PROP": Lost(kind, picture.sha256)})
        check = check_plan(run(picture, tools, COUNT, "3"), picture, tools, JPEG)
        assert (check.evidence, check.answer, check.survives) == (survives,) * 3
        assert plan_consistency([check]).rate.num_unscored == (survives is None)


def test_a_lost_region_takes_down_what_refers_to_it(picture):
    # step 1 is found in the original only, step 2 zooms where it was
    tools = Executor({**build_toolbox(ToolSettings()), "PROP": Lost("nothing_found", picture.sha256)})
    trajectory = run(picture, tools, [*COUNT, ("ZOOM", {"ref": 1}), ("ZOOM", {"bbox_2d": [0, 0, 500, 500]})], "3")
    check = check_plan(trajectory, picture, tools, JPEG)
    assert [step.agreement for step in check.steps] == [0.0, 0.0, 1.0]
    assert check.steps[2].survives is True and check.survives is False


def test_a_plan_without_evidence_is_unscored(picture):
    talk = run(picture, executor(), [], "red")
    glance = run(picture, executor(), [("ZOOM", {"bbox_2d": [0, 0, 300, 300]})], "red")  # used by nothing
    checks = [check_plan(t, picture, executor(), JPEG) for t in (talk, replace(glance, id="u"))]
    assert [check.survives for check in checks] == [None, None]
    rate = plan_consistency(checks).rate
    assert math.isnan(rate.value) and (rate.count, rate.num_unscored) == (0, 2)
    with pytest.raises(ValueError, match="not"):
        check_plan(talk, image_medium(background(9), "other"), executor(), JPEG)


def test_time_evidence_bears_a_frame_of_jitter(video):
    trajectory = run(video, executor(), [("TEMP", {"event": "appears", "bbox_2d": [450, 380, 580, 570]})], "at 0.8 s")
    check = check_plan(trajectory, video, executor(), JITTER, seed=3)
    assert check.num_values == 1 and check.evidence is True and check.steps[0].agreement >= 0.8


def test_consistency_is_a_mean_over_trajectories():
    def checked(name: str, perturbation: str, survives: bool | None, is_value: bool = True) -> PlanCheck:
        found = survives if is_value else None
        step = StepCheck(
            step=1, op="OCR", is_decisive=True, is_value=is_value, agreement=1.0, survives=survives, is_value_found=found
        )  # fmt: skip
        return PlanCheck(trajectory=name, perturbation=perturbation, steps=(step,))

    # a: one of two; b: its only one; c: unknown; d: holds, and its answer used no value
    checks = [
        checked("a", "x", True),
        checked("a", "y", False),
        checked("b", "x", True),
        checked("c", "x", None),
        checked("d", "x", True, False),
    ]
    found = plan_consistency(checks)
    assert (found.rate.value, found.rate.count, found.rate.num_unscored) == (pytest.approx(2.5 / 3), 3, 1)
    assert (found.answer.value, found.answer.count) == (0.75, 2)
    assert found.by_perturbation["y"].value == 0.0 and found.by_perturbation["x"].count == 3


# ---------------------------------------------------------------- footprint crops


class MeanColour:
    """An encoder whose directions can be worked out by hand."""

    def embed(self, images):
        rows = np.array([image.reshape(-1, 3).mean(0) for image in images], float)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_adjacent_cosines_by_hand(picture):
    zooms = [[150, 240, 260, 385], [600, 600, 800, 850], [600, 600, 800, 850], [2000, 0, 3000, 10], [150, 240, 260, 385]]
    trajectory = run(picture, executor(), [("ZOOM", {"bbox_2d": box}) for box in zooms], None)
    found = adjacent_footprint_cosines(trajectory, picture, MeanColour())
    rows = []
    for x0, y0, x1, y1 in zooms[:2]:
        pixels = picture.frame(0)[math.floor(y0 * 0.48) : math.ceil(y1 * 0.48), math.floor(x0 * 0.64) : math.ceil(x1 * 0.64)]
        rows.append(pixels.reshape(-1, 3).mean(0))
    cosine = rows[0] @ rows[1] / np.linalg.norm(rows[0]) / np.linalg.norm(rows[1])
    # red to blue, blue to itself, and a zoom beside the frame, which has no pixels, on both sides of it
    assert found == pytest.approx([cosine, 1.0, math.nan, math.nan], nan_ok=True) and 0.5 < cosine < 0.999
    statistics = dev_statistics([("f", found), ("f", [0.5]), ("g", [0.1])])
    assert statistics.of("f").count == 3 and statistics.of("f").mean == pytest.approx((cosine + 1.5) / 3)


def test_trajectories_without_pixels_have_no_cosines(picture):
    assert adjacent_footprint_cosines(run(picture, executor(), [], "x"), picture, MeanColour()).size == 0
    missed = run(picture, executor(), [("ZOOM", {"bbox_2d": [2000, 0, 3000, 10]})] * 3, "x")
    assert (
        np.isnan(adjacent_footprint_cosines(missed, picture, MeanColour())).all()
        and len(step_embeddings(missed, picture, MeanColour())) == 3
    )
    with pytest.raises(ValueError, match="about medium"):
        step_embeddings(missed, image_medium(background(9), "other"), MeanColour())


def test_where_a_footprint_is_looked_at(video):
    whole = Box(0, 0, WIDTH, HEIGHT)
    assert crop_places(temp("appears", (0.4, 1.0)).footprint, video) == ((7, whole),)  # the middle, 0.7 s
    assert crop_places(replace(temp("appears"), box=RED).footprint, video) == ((0, RED),)
    assert crop_places(temp("appears").footprint, video) == crop_places(Footprint(), video) == ()
    # two texts on one frame are one place
    both = Footprint(frames=(2,), boxes=((2, Box(0, 0, 10, 10)), (2, Box(50, 5, 60, 30))))
    assert crop_places(both, video) == ((2, Box(0, 0, 60, 30)),)
    # a long track is looked at four times, first and last included
    long = Footprint(frames=tuple(range(10)), boxes=tuple((f, Box(f, 0, f + 9, 9)) for f in range(10)), span=TimeSpan(0, 0.9))
    assert [frame for frame, _ in crop_places(long, video)] == [0, 3, 6, 9]


def test_a_frozen_encoder_tells_the_same_thing_from_another(picture):
    pytest.importorskip("efficientnet_lite_pytorch")
    from pixelis.tools.engines.encoder_efficientnet import EfficientNetEncoder

    zooms = [[150, 240, 260, 385], [155, 245, 265, 390], [600, 600, 800, 850]]
    trajectory = run(picture, executor(), [("ZOOM", {"bbox_2d": box}) for box in zooms], None)
    near, far = adjacent_footprint_cosines(trajectory, picture, EfficientNetEncoder())
    assert near > 0.9 and far < near
