"""The calls that `check_tool` makes of each op, and how good an answer is against the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pixelis.core.geometry import Box, TimeSpan
from pixelis.core.media import Medium
from pixelis.core.ops import (
    Args,
    OcrArgs,
    OcrOutput,
    Output,
    PropArgs,
    PropOutput,
    SegArgs,
    SegOutput,
    TempArgs,
    TempOutput,
    TrackPoint,
    TrkArgs,
    TrkOutput,
    ZoomArgs,
    ZoomOutput,
)
from pixelis.testing.scenes import COLOURS, background, disc, image_medium, polygon, video_medium, written


@dataclass(frozen=True, kw_only=True)
class Case:
    """One scene, one call, and how good its output is against the truth."""

    name: str
    medium: Medium
    args: Args
    quality: Callable[[Output], float]
    """In [0, 1]."""
    at_least: float


DISCS = (("red", Box(100, 120, 160, 180)), ("blue", Box(400, 300, 500, 400)))
CORNER = ((380, 180), (430, 180), (430, 270), (519, 270), (519, 319), (380, 319))
"""A green L; no ellipse and no box comes near it."""


def _seg_cases() -> list[Case]:
    discs = [image_medium(disc(background(i), box, colour), f"{colour} disc") for i, (colour, box) in enumerate(DISCS)]
    corner = image_medium(polygon(background(2), CORNER, "green"), "green corner")
    asked = [
        (discs[0], "red", "disc by its box", SegArgs(frame=0, box=DISCS[0][1])),
        (discs[1], "blue", "disc by its box", SegArgs(frame=0, box=DISCS[1][1])),
        (corner, "green", "corner by its box", SegArgs(frame=0, box=Box(380, 180, 520, 320))),
        (corner, "green", "corner by a point", SegArgs(frame=0, point=(405.0, 300.0))),
        (discs[0], "red", "disc by a point", SegArgs(frame=0, point=DISCS[0][1].centre)),
    ]
    cases = []
    for medium, colour, name, args in asked:
        truth = np.all(np.asarray(medium.frame(0)) == COLOURS[colour], axis=2)

        def quality(output: Output, truth=truth) -> float:
            assert isinstance(output, SegOutput)
            mask = output.mask.to_array()
            return float((mask & truth).sum() / (mask | truth).sum())

        cases.append(Case(name=f"{colour} {name}", medium=medium, args=args, quality=quality, at_least=0.8))
    return cases


def _zoom_cases() -> list[Case]:
    cases = []
    for i, (colour, box) in enumerate(DISCS):
        medium = image_medium(disc(background(i), box, colour), f"{colour} disc")

        def quality(output: Output, box=box) -> float:
            assert isinstance(output, ZoomOutput)
            back = output.view.to_original(Box(0, 0, output.width, output.height))
            return min(output.box.iou(box), back.iou(output.box))

        args = ZoomArgs(frame=0, box=box)
        cases.append(Case(name=f"zoom on the {colour} disc", medium=medium, args=args, quality=quality, at_least=0.95))
    return cases


def _ocr_cases() -> list[Case]:
    cases = []
    for text, at in (("MARKET 27", (60, 80)), ("closed", (330, 300))):
        page = written(text, at, 40)
        rows, columns = np.nonzero(page.max(axis=2) < 128)
        ink = Box(float(columns.min()), float(rows.min()), float(columns.max()) + 1, float(rows.max()) + 1)
        region = Box(at[0] - 20, at[1] - 20, at[0] + 280, at[1] + 80)

        def quality(output: Output, text=text, ink=ink) -> float:
            """The overlap of the boxes with the ink, 0 where the text is another."""
            assert isinstance(output, OcrOutput)
            boxes = [span.box for span in output.spans]
            if not boxes or "".join(span.text for span in output.spans).replace(" ", "") != text.replace(" ", ""):
                return 0.0
            whole = Box(min(b.x0 for b in boxes), min(b.y0 for b in boxes), max(b.x1 for b in boxes), max(b.y1 for b in boxes))
            return whole.iou(ink)

        args = OcrArgs(frame=0, box=region)
        cases.append(Case(name=f"read {text!r}", medium=image_medium(page, text), args=args, quality=quality, at_least=0.5))
    return cases


def _moving(seed: int, step: tuple[int, int], *, num_frames: int = 12, colour: str = "red", size: int = 48):
    """Frames of a disc that moves by `step` pixels a frame, and its box on each."""
    ground = background(seed)
    boxes = [Box(280 + step[0] * i, 210 + step[1] * i, 280 + step[0] * i + size, 210 + step[1] * i + size) for i in range(num_frames)]
    return [disc(ground, box, colour) for box in boxes], boxes


def _trk_cases() -> list[Case]:
    cases = []
    for step in ((8, 3), (-9, -4)):
        frames, boxes = _moving(3, step)

        def quality(output: Output, boxes=boxes) -> float:
            assert isinstance(output, TrkOutput)
            found = [p.box.iou(truth) if p.box else 0.0 for p, truth in zip(output.points, boxes, strict=True)]
            return float(np.mean(found))

        args = TrkArgs(box=boxes[0], first_frame=0, last_frame=len(boxes) - 1)
        cases.append(Case(name=f"follow a disc by {step}", medium=video_medium(frames, "mover"), args=args, quality=quality, at_least=0.7))
    return cases


def _temp_cases() -> list[Case]:
    cases = []
    for event, start, stop in (("appears", 6, 20), ("appears", 13, 20), ("disappears", 9, 20), ("moves", 5, 14)):
        ground, box = background(5), Box(300, 200, 360, 260)
        frames = []
        for i in range(20):
            on_the_way = 6 * (min(max(i, start), stop) - start) if event == "moves" else 0
            there = Box(box.x0 + on_the_way, box.y0, box.x1 + on_the_way, box.y1)
            is_there = event == "moves" or (start <= i) == (event == "appears")
            frames.append(disc(ground, there, "blue") if is_there else ground)
        medium = video_medium(frames, event)
        truth = TimeSpan(start / 10, medium.info.duration_s if stop == 20 else stop / 10)

        def quality(output: Output, truth=truth) -> float:
            assert isinstance(output, TempOutput)
            return output.segments[0].span.tiou(truth) if output.segments else 0.0

        args = TempArgs(event=event, first_frame=0, last_frame=19, box=box.grow(60))
        cases.append(Case(name=f"a disc {event} at {start / 10} s", medium=medium, args=args, quality=quality, at_least=0.8))
    return cases


def _prop_scenes() -> tuple[Medium, ...]:
    """A disc and a plate; a pole and a roof; three discs; five."""
    ground = background(0)
    plate, pole = ((420, 330), (539, 330), (539, 389), (420, 389)), ((100, 300), (149, 300), (149, 449), (100, 449))
    plates = polygon(disc(ground, Box(100, 120, 160, 180), "red"), plate, "blue")
    stands = polygon(polygon(ground, pole, "green"), ((460, 40), (519, 139), (400, 139)), "blue")
    crowds = [ground, ground]
    for k, num_discs in enumerate((3, 5)):
        for i in range(num_discs):
            crowds[k] = disc(crowds[k], Box(60 + 100 * i, 100 + 37 * (i % 3), 110 + 100 * i, 150 + 37 * (i % 3)), "red")
    return tuple(image_medium(picture, "things") for picture in (plates, stands, *crowds))


def _prop_cases() -> list[Case]:
    """Every property twice, with two truths: words as they are, numbers within a tenth."""
    plates, stands, *crowds = _prop_scenes()
    disc_box, plate_box = Box(95, 115, 165, 185), Box(410, 320, 550, 400)
    pole_box, roof_box, post_box = Box(90, 290, 160, 460), Box(390, 30, 530, 150), Box(420, 130, 540, 190)
    asked = [
        ("colour", plates, disc_box, {}, {"colour": "red"}),
        ("colour", plates, plate_box, {}, {"colour": "blue"}),
        ("shape", plates, disc_box, {}, {"shape": "circle"}),
        ("shape", stands, roof_box, {}, {"shape": "triangle"}),
        ("size", plates, plate_box, {}, {"width": 120, "height": 60}),
        ("size", stands, pole_box, {}, {"width": 50, "height": 150}),
        ("position", plates, disc_box, {}, {"position": "top-left"}),
        ("position", plates, plate_box, {}, {"position": "bottom-right"}),
        ("orientation", plates, plate_box, {}, {"orientation": "horizontal"}),
        ("orientation", stands, pole_box, {}, {"orientation": "vertical"}),
        ("count", crowds[0], Box(40, 60, 600, 300), {}, {"count": 3}),
        ("count", crowds[1], Box(40, 60, 600, 300), {}, {"count": 5}),
        ("motion", plates, disc_box, {"track": _track((8, 0))}, {"moving": "moving", "direction": "right", "speed": 80}),
        ("motion", plates, disc_box, {"track": _track((0, 5))}, {"moving": "moving", "direction": "down", "speed": 50}),
        ("relation", plates, disc_box, {"other_box": post_box}, {"relation": "left of"}),
        ("relation", plates, plate_box, {"other_box": post_box}, {"relation": "below"}),
    ]
    cases = []
    for what, medium, box, more, truth in asked:

        def quality(output: Output, truth=truth) -> float:
            assert isinstance(output, PropOutput)
            values = {a.name: a.value for a in output.attributes}
            return float(all(_agrees(values.get(name), value) for name, value in truth.items()))

        args = PropArgs(what=what, frame=0, box=box, **more)
        name = f"{what} is {', '.join(str(value) for value in truth.values())}"
        cases.append(Case(name=name, medium=medium, args=args, quality=quality, at_least=1.0))
    return cases


def _track(step: tuple[int, int]) -> tuple[TrackPoint, ...]:
    """A disc's boxes, ten a second."""
    boxes = _moving(0, step)[1]
    return tuple(TrackPoint(frame=i, time_s=i / 10, box=box, score=1.0) for i, box in enumerate(boxes))


def _agrees(value: object, true: str | int) -> bool:
    if isinstance(true, str) or not isinstance(value, (int, float)):
        return value == true
    return abs(value - true) <= 0.1 * abs(true)


CASES: dict[str, Callable[[], list[Case]]] = {
    "SEG": _seg_cases,
    "ZOOM": _zoom_cases,
    "TRK": _trk_cases,
    "OCR": _ocr_cases,
    "TEMP": _temp_cases,
    "PROP": _prop_cases,
}
"""Scenes with exact truth per op; two at least, with different truths."""
