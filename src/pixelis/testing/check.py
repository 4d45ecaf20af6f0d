"""`check_tool`: the contract that any tool must pass, on scenes whose truth is exact. A tool that returns a constant fails it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pixelis.core.errors import AgentError
from pixelis.core.geometry import Box, TimeSpan
from pixelis.core.media import Medium, open_medium
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
    TrkArgs,
    TrkOutput,
    ZoomArgs,
    ZoomOutput,
)
from pixelis.core.store import sha256
from pixelis.tools.base import Context, Tool

WIDTH, HEIGHT = 640, 480
COLOURS = {"red": (205, 40, 40), "green": (40, 150, 60), "blue": (40, 70, 200)}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One scene, one call, and how good its output is against the truth."""

    name: str
    medium: Medium
    args: Args
    quality: Callable[[Output], float]
    """In [0, 1]."""
    at_least: float


class ContractBroken(AssertionError):
    """A tool does not keep the contract; the text says which clause, on which scene."""


def check_tool(tool: Tool) -> list[str]:
    """Check a tool against the contract and return one line per clause passed.

    The clauses: it answers with its op's own output type; its outputs are right on scenes with exact truth, and differ where the truth
    does; the same call gives the same output; footprints lie inside the frame; blobs are named by their content; what misses the
    frame is a typed error; name and version are texts.

    Raises:
        ContractBroken: the first clause that fails.
    """
    passed = []
    for name in ("op", "engine", "version"):
        _require(isinstance(getattr(tool, name), str) and getattr(tool, name), f"{name} must be a text that is not empty")
    cases = CASES[tool.op]()
    outputs = []
    for case in cases:
        output, blobs = _call(tool, case)
        again, _ = _call(tool, case)
        _require(output == again, f"{case.name}: two equal calls gave two outputs")
        _require(output.op == tool.op, f"{case.name}: {tool.op} returned an output of {output.op}")
        _check_footprint(output, case)
        _require(all(sha256(data) == key for key, data in blobs.items()), f"{case.name}: a blob is not named by its SHA-256")
        quality = case.quality(output)
        _require(quality >= case.at_least, f"{case.name}: quality {quality:.3f}, at least {case.at_least} is required")
        outputs.append(output)
        passed.append(f"{case.name}: quality {quality:.3f} (at least {case.at_least}), deterministic, footprint inside")
    _require(any(o != outputs[0] for o in outputs[1:]), "all scenes gave the same output: a constant is no measurement")
    passed.append(_check_miss(tool, cases[0]))
    return passed


def _call(tool: Tool, case: Case) -> tuple[Output, dict[str, bytes]]:
    context = Context()
    try:
        return tool(case.medium, case.args, context), context.blobs
    except AgentError as error:
        raise ContractBroken(f"{case.name}: {error.kind}: {error.message}") from error


def _check_footprint(output: Output, case: Case) -> None:
    footprint, medium = output.footprint, case.medium
    _require(all(0 <= f < medium.num_frames for f in footprint.frames), f"{case.name}: a footprint frame is outside the medium")
    for _, box in footprint.boxes:
        inside = 0 <= box.x0 < box.x1 <= medium.width and 0 <= box.y0 < box.y1 <= medium.height
        _require(inside, f"{case.name}: footprint box {box} leaves the frame")
    if footprint.span is not None:
        _require(0 <= footprint.span.start_s <= footprint.span.end_s, f"{case.name}: footprint span {footprint.span} is no span")


def _check_miss(tool: Tool, case: Case) -> str:
    """A box beside the frame is the agent's mistake and must come back as one."""
    fields = {name: getattr(case.args, name) for name in case.args.__dataclass_fields__}
    aside = type(case.args)(**{**fields, "box": Box(5000, 5000, 5050, 5050), **({"point": None} if "point" in fields else {})})
    try:
        tool(case.medium, aside, Context())
    except AgentError as error:
        _require(error.kind == "out_of_frame", f"a box beside the frame gave the error {error.kind!r}, not 'out_of_frame'")
        return "a box beside the frame is a typed error"
    raise ContractBroken("a box beside the frame was accepted")


def _require(holds: object, text: str) -> None:
    if not holds:
        raise ContractBroken(text)


# ---------------------------------------------------------------- scenes


def background(seed: int) -> np.ndarray:
    """A grey texture, RGB uint8 [HEIGHT, WIDTH, 3]."""
    noise = np.random.Generator(np.random.PCG64(seed)).normal(150, 6, (HEIGHT, WIDTH, 1))
    return np.repeat(np.clip(noise, 0, 255), 3, axis=2).astype(np.uint8)


def image_medium(image_HWC: np.ndarray, name: str) -> Medium:
    data = io.BytesIO()
    Image.fromarray(image_HWC).save(data, "PNG")
    return open_medium(data.getvalue(), name=name)


def video_medium(frames: list[np.ndarray], name: str, *, fps: int = 10, crf: int | None = None) -> Medium:
    """A video of RGB frames [height, width, 3], even sizes, at a constant rate.

    Args:
        crf: x264's constant rate factor; 23 is its own default. Nearly without loss unless given, and slow to decode then.
    """
    import av

    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"qp": "8"} if crf is None else {"crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return open_medium(data.getvalue(), name=name)


def disc(image_HWC: np.ndarray, box: Box, colour: str) -> np.ndarray:
    """The image with a filled ellipse in `box`."""
    picture = Image.fromarray(image_HWC)
    ImageDraw.Draw(picture).ellipse((box.x0, box.y0, box.x1 - 1, box.y1 - 1), fill=COLOURS[colour])
    return np.asarray(picture)


def written(text: str, at: tuple[int, int], size: int) -> np.ndarray:
    """A pale page with one line of text."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), (240, 236, 225))
    ImageDraw.Draw(picture).text(at, text, fill=(25, 25, 30), font=ImageFont.load_default(size))
    return np.asarray(picture)


DISCS = (("red", Box(100, 120, 160, 180)), ("blue", Box(400, 300, 500, 400)))


def _seg_cases() -> list[Case]:
    cases = []
    for i, (colour, box) in enumerate(DISCS):
        medium = image_medium(disc(background(i), box, colour), f"{colour} disc")
        truth = np.all(np.asarray(medium.frame(0)) == COLOURS[colour], axis=2)

        def quality(output: Output, truth=truth) -> float:
            assert isinstance(output, SegOutput)
            mask = output.mask.to_array()
            return float((mask & truth).sum() / (mask | truth).sum())

        cases.append(Case(name=f"{colour} disc by its box", medium=medium, args=SegArgs(frame=0, box=box), quality=quality, at_least=0.8))
    return cases


def _zoom_cases() -> list[Case]:
    cases = []
    for i, (colour, box) in enumerate(DISCS):
        medium = image_medium(disc(background(i), box, colour), f"{colour} disc")

        def quality(output: Output, box=box) -> float:
            assert isinstance(output, ZoomOutput)
            back = output.view.to_original(Box(0, 0, output.width, output.height))
            return min(output.box.iou(box), back.iou(output.box))

        cases.append(
            Case(name=f"zoom on the {colour} disc", medium=medium, args=ZoomArgs(frame=0, box=box), quality=quality, at_least=0.95)
        )
    return cases


def _ocr_cases() -> list[Case]:
    cases = []
    for text, at in (("MARKET 27", (60, 80)), ("closed", (330, 300))):
        medium = image_medium(written(text, at, 40), text)
        region = Box(at[0] - 20, at[1] - 20, at[0] + 280, at[1] + 80)

        def quality(output: Output, text=text) -> float:
            assert isinstance(output, OcrOutput)
            return float(" ".join(s.text for s in output.spans).replace(" ", "") == text.replace(" ", ""))

        cases.append(Case(name=f"read {text!r}", medium=medium, args=OcrArgs(frame=0, box=region), quality=quality, at_least=1.0))
    return cases


def _moving(seed: int, step: tuple[int, int], colour: str = "red", size: int = 48) -> tuple[list[np.ndarray], list[Box]]:
    """20 frames of a disc that moves by `step` pixels a frame."""
    ground = background(seed)
    boxes = [Box(280 + step[0] * i, 210 + step[1] * i, 280 + step[0] * i + size, 210 + step[1] * i + size) for i in range(20)]
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
    for start in (6, 13):
        box = Box(300, 200, 360, 260)
        frames = [disc(background(5), box, "blue") if i >= start else background(5) for i in range(20)]
        medium = video_medium(frames, "arrival")
        truth = TimeSpan(start / 10, float(medium.times_s[-1]) + 0.1)

        def quality(output: Output, truth=truth) -> float:
            assert isinstance(output, TempOutput)
            return output.segments[0].span.tiou(truth) if output.segments else 0.0

        args = TempArgs(event="appears", first_frame=0, last_frame=19, box=box.grow(30))
        cases.append(Case(name=f"a disc appears at {start / 10} s", medium=medium, args=args, quality=quality, at_least=0.8))
    return cases


def _prop_cases() -> list[Case]:
    cases = []
    for i, (colour, box) in enumerate(DISCS):
        medium = image_medium(disc(background(i), box, colour), f"{colour} disc")

        def quality(output: Output, colour=colour) -> float:
            assert isinstance(output, PropOutput)
            return float(output.attributes[0].value == colour)

        args = PropArgs(what="colour", frame=0, box=box)
        cases.append(Case(name=f"colour of the {colour} disc", medium=medium, args=args, quality=quality, at_least=1.0))
    return cases


CASES: dict[str, Callable[[], list[Case]]] = {
    "SEG": _seg_cases,
    "ZOOM": _zoom_cases,
    "TRK": _trk_cases,
    "OCR": _ocr_cases,
    "TEMP": _temp_cases,
    "PROP": _prop_cases,
}
"""Scenes with exact truth per op; two at least, with different truths."""
