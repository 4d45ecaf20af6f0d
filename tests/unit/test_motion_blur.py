"""Straight motion blur is found where there is some, only there, and undone; OCR reads what was blurred."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pixelis.core.errors import ToolError
from pixelis.core.geometry import Box
from pixelis.core.ops import OcrArgs, PropArgs
from pixelis.data.world.items import frames, make_item
from pixelis.data.world.shifts import parse_shift
from pixelis.testing.scenes import background, image_medium, written
from pixelis.tools.base import Context
from pixelis.tools.engines.motion_blur import LEAST_TILE_PX, MotionBlur, find_motion_blur, steadied, undone
from pixelis.tools.engines.ocr_rapid import RapidOcr
from pixelis.tools.engines.prop_default import DefaultProp
from pixelis.tools.ocr import OcrTool, read_box
from pixelis.tools.prop import PropTool

BOX = (60, 60, 180, 120)
WAYS = [(5, 0), (0, 7), (9, 9), (7, -7), (11, 4), (-6, 11), (13, -3)]


def picture() -> np.ndarray:
    """Words on a photograph's noise, uint8 [240, 320, 3]."""
    image = background(4)
    image = cv2.resize(image, (320, 240))
    for text, at in (("EXIT 42", (70, 70)), ("north", (80, 100)), ("7:30", (150, 95))):
        cv2.putText(image, text, (at[0], at[1] + 16), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (250, 250, 240), 2, cv2.LINE_AA)
    return image


def along(image: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """The mean over a line, drawn in another way than the engine's own kernel: as a mean of moved pictures."""
    height, width = image.shape[:2]
    moves = [np.float32([[1, 0, t * dx], [0, 1, t * dy]]) for t in np.linspace(-0.5, 0.5, 61)]
    frames = [cv2.warpAffine(image.astype(np.float32), m, (width, height), borderMode=cv2.BORDER_REPLICATE) for m in moves]
    return np.rint(np.mean(frames, axis=0)).astype(np.uint8)


def test_the_kernel_is_the_mean_of_evenly_spaced_points():
    assert MotionBlur(3, 0).kernel() == pytest.approx(np.pad(np.full((1, 3), 1 / 3), ((2, 2), (1, 1))))
    assert np.diag(MotionBlur(3, 3).kernel())[1:4] == pytest.approx([1 / 3] * 3)
    even = MotionBlur(0, 4).kernel()  # between pixels, half to each: 1/8, 1/4, 1/4, 1/4, 1/8
    assert even[:, 3] == pytest.approx([0, 1 / 8, 1 / 4, 1 / 4, 1 / 4, 1 / 8, 0]) and even.sum() == pytest.approx(1)
    for way in WAYS:
        kernel = MotionBlur(*way).kernel()
        assert kernel.sum() == pytest.approx(1) and kernel == pytest.approx(kernel[::-1, ::-1])


@pytest.mark.parametrize("way", WAYS)
def test_a_blur_is_found_and_undone(way):
    sharp = picture()
    blurred = along(sharp, *way)
    found = find_motion_blur(blurred, BOX)
    assert found is not None
    sign = 1 if found.dx * way[0] + found.dy * way[1] > 0 else -1  # a line has no direction of travel
    assert abs(sign * found.dx - way[0]) <= 1 and abs(sign * found.dy - way[1]) <= 1
    x0, y0, x1, y1 = BOX
    before = np.abs(blurred[y0:y1, x0:x1].astype(int) - sharp[y0:y1, x0:x1]).mean()
    after = np.abs(undone(blurred, BOX, found).astype(int) - sharp[y0:y1, x0:x1]).mean()
    assert after < 0.6 * before  # half of the picture is white noise, which no filter brings back


@pytest.mark.parametrize("kind", ["sharp", "gaussian", "noise", "ramp", "flat", "blocks"])
def test_what_is_no_straight_blur_is_left(kind):
    image, rng = picture(), np.random.default_rng(0)
    match kind:
        case "gaussian":
            image = cv2.GaussianBlur(image, (0, 0), 2.0)
        case "noise":
            image = rng.integers(0, 256, image.shape).astype(np.uint8)
        case "ramp":
            image = np.broadcast_to(np.linspace(20, 200, 320)[None, :, None], image.shape).astype(np.uint8)
        case "flat":
            image = np.full_like(image, 90)
        case "blocks":
            image = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 20])[1], cv2.IMREAD_COLOR)
    assert find_motion_blur(image, BOX) is None


@pytest.mark.parametrize("word", ["closed", "billing", "illicit", "total", "HHHH", "Hello", "river", "lilac"])
def test_the_strokes_of_sharp_letters_are_no_blur(word):
    """On plain ground their spectrum has a line's stripes; what the blur would have been of is no picture."""
    for size in (18, 24, 32, 40):
        assert find_motion_blur(written(word, (200, 200), size), (180, 180, 480, 280)) is None


def test_any_box_of_any_picture_gives_an_answer():
    image = along(picture(), 9, 0)
    assert find_motion_blur(image[: LEAST_TILE_PX - 1], (0, 0, 320, LEAST_TILE_PX - 1)) is None  # too few pixels to tell
    found = find_motion_blur(image, (0, 0, 320, 240))  # larger than a tile: the busiest part
    assert found is not None and (abs(found.dx), found.dy) == (9, 0)
    for box in ((0, 0, 1, 1), (319, 239, 320, 240), (0, 0, 320, 1), (318, 0, 320, 240)):
        assert undone(image, box, found).shape == (box[3] - box[1], box[2] - box[0], 3)
    assert undone(image[:3, :2], (0, 0, 2, 3), found).shape == (3, 2, 3)


def test_only_what_is_around_the_box_is_steadied():
    blurred = along(picture(), 9, 0)
    steady = steadied(blurred, (100, 60, 140, 80))
    changed = np.argwhere((steady != blurred).any(axis=2))
    assert steadied(picture(), BOX) is None
    assert changed.min(axis=0).tolist() >= [60 - 44, 100 - 44] and changed.max(axis=0).tolist() <= [80 + 44, 140 + 44]  # 40 / 2 + 24 px


def test_restoring_is_the_same_bytes_every_time():
    image = along(picture(), 7, -7)
    assert np.array_equal(undone(image, BOX, MotionBlur(7, -7)), undone(image.copy(), BOX, MotionBlur(7, -7)))


def test_ocr_reads_what_the_camera_smeared():
    sharp = written("EXIT 4217", (90, 90), 18)
    blurred = along(sharp, 9, 0)
    box = Box(80, 80, 240, 120)
    engine = RapidOcr()
    tool = OcrTool(engine)

    def texts(image: np.ndarray) -> list[str]:
        with image_medium(image, "page.png") as medium:
            return [span.text for span in tool(medium, OcrArgs(frame=0, box=box), Context()).spans]

    x0, y0, x1, y1 = (int(v) for v in box.as_tuple())
    assert [span.text for span in engine.read(np.ascontiguousarray(blurred[y0:y1, x0:x1]))] != ["EXIT 4217"]
    assert texts(blurred) == ["EXIT 4217"] == texts(sharp)


@pytest.mark.parametrize(("word", "size"), [("closed", 40), ("Hello", 24), ("illicit", 40)])
def test_a_sharp_word_on_a_plain_page_is_read_as_it_is(word, size):
    """Letters that ripples make are many: eight read by half are no more than six that are sure."""
    with image_medium(written(word, (330, 300), size), "page.png") as medium:
        for region in (Box(310, 280, 610, 380), Box(0, 0, 640, 480)):
            spans = OcrTool(RapidOcr())(medium, OcrArgs(frame=0, box=region), Context()).spans
            assert [span.text for span in spans] == [word] and spans[0].confidence > 0.9


def test_of_two_readings_the_surer_is_kept():
    class Span:
        box = (0.0, 0.0, 4.0, 4.0)

        def __init__(self, text: str, confidence: float) -> None:
            self.text, self.confidence = text, confidence

    class Engine:
        def __init__(self, *readings: list[Span]) -> None:
            self.readings, self.seen = iter(readings), []

        def read(self, image: np.ndarray, *, image_key: str | None = None) -> list[Span]:
            self.seen.append(image)
            return next(self.readings)

    blurred = along(picture(), 9, 0)
    engine = Engine([Span("EX", 0.9)], [Span("EXIT", 0.9)])
    assert [span.text for span in read_box(engine, blurred, BOX)] == ["EXIT"] and not np.array_equal(*engine.seen)
    engine = Engine([Span("EXIT", 0.9)], [Span("EXI", 0.9)])
    assert [span.text for span in read_box(engine, blurred, BOX)] == ["EXIT"]
    engine = Engine([Span("closed", 1.0)], [Span("apllosed", 0.77)])  # 6 characters and 6.2
    assert [span.text for span in read_box(engine, blurred, BOX)] == ["closed"]
    engine = Engine([Span("north", 0.9), Span("gate", 0.8)], [Span("north", 1.0)])  # surer, and half of it
    assert [span.text for span in read_box(engine, blurred, BOX)] == ["north", "gate"]
    engine = Engine([], [Span("EXIT", 0.6)])
    assert [span.text for span in read_box(engine, blurred, BOX)] == ["EXIT"]
    engine = Engine([Span("EXIT", 0.9)])
    assert [span.text for span in read_box(engine, picture(), BOX)] == ["EXIT"]  # not blurred: read once


def test_prop_names_shapes_that_the_camera_smeared():
    """Under motion:5, 11 px, every thing of ten items: with the blur undone at least twice as many shapes are right."""
    tool, engine = PropTool(DefaultProp()), DefaultProp()
    plain, steady, count = 0, 0, 0
    for index in range(10):
        item = make_item("test", index, family="count", shift=parse_shift("motion:5"))
        image = next(frames(item))
        with image_medium(image, "picture.png") as medium:
            for thing in item.truth.objects:
                if thing.kind != "shape":
                    continue
                room = thing.box.width / 4
                box = Box(thing.box.x0 - room, thing.box.y0 - room, thing.box.x1 + room, thing.box.y1 + room)
                box = box.clip(width=item.width, height=item.height)
                plain += engine.measure("shape", image_HWC=image, box=box.as_tuple())[0].value == thing.shape
                steady += tool(medium, PropArgs(what="shape", frame=0, box=box), Context()).attributes[0].value == thing.shape
                count += 1
    assert count > 40 and steady >= 0.75 * count and steady >= 2 * plain


def test_a_false_alarm_does_no_harm_to_shapes():
    """Some place of sharp pictures looks blurred; what is measured there stays as it was."""
    tool, engine, alarms = PropTool(DefaultProp()), DefaultProp(), 0
    for index in range(12):
        item = make_item("dev", index, family="relation")
        image = next(frames(item))
        with image_medium(image, "picture.png") as medium:
            for thing in item.truth.objects:
                x0, y0, x1, y1 = thing.box.pixels(width=item.width, height=item.height)
                alarms += find_motion_blur(image, (x0, y0, x1, y1)) is not None
                found = tool(medium, PropArgs(what="shape", frame=0, box=thing.box), Context()).attributes[0].value
                assert found == engine.measure("shape", image_HWC=image, box=thing.box.as_tuple())[0].value
    assert alarms  # else this shows nothing


@pytest.mark.parametrize(("name", "colour"), [("red", (205, 40, 40)), ("orange", (240, 120, 20))])
def test_stripes_keep_their_colour(name, colour):
    """Upright stripes look as if they were blurred over their width; with that undone red ones were brown, and surer so."""
    image = np.full((480, 640, 3), (40, 44, 52), np.uint8)
    for x in range(102, 150, 6):
        image[138:206, x : x + 3] = colour
    with image_medium(image, "stripes.png") as medium:
        found = PropTool(DefaultProp())(medium, PropArgs(what="colour", frame=0, box=Box(94, 130, 158, 214)), Context())
    assert found.attributes[0].value == name


def test_what_cannot_be_measured_once_steadied_stays_as_it_was():
    class Attribute:
        name, value, confidence, unit = "shape", "circle", 0.4, ""

    class Engine:
        name, version = "once", "1"
        calls = 0

        def measure(self, what: str, **given: object) -> list[Attribute]:
            self.calls += 1
            if self.calls == 2:
                raise ToolError("bad_arguments", "nothing stands out there")
            return [Attribute()]

    tool = PropTool(Engine())
    with image_medium(along(picture(), 9, 0), "picture.png") as medium:
        found = tool(medium, PropArgs(what="shape", frame=0, box=Box(*BOX)), Context())
    assert found.attributes[0].value == "circle" and tool._engine.calls == 2
