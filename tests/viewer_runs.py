"""Runs made by hand for the viewer's tests: a drawn image and a drawn video, with one step of every kind."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pixelis.core.geometry import Box, Mask, View
from pixelis.core.grammar import render_call, render_response
from pixelis.core.media import MediumInfo, open_medium, png_bytes
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
from pixelis.core.store import RunWriter, sha256
from pixelis.core.trajectory import PolicyInfo, Step, StepTiming, Timing, Trajectory
from pixelis.core.wire import result_to_wire

HOSTILE = "</script><script>document.title='owned';alert(1)</script><img src=x onerror=alert(2)>\u2028\u202e&lt;b&gt; ${1} $title <!--"
WIDTH, HEIGHT, FPS, NUM_FRAMES = 640, 480, 10, 40


def drawn_image() -> bytes:
    """A red disc of radius 80 at (200, 200), and a sign that says EXIT, as PNG."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    ground = np.stack([60 + x * 90 // WIDTH, 70 + y * 90 // HEIGHT, np.full_like(x, 120)], axis=2).astype(np.uint8)
    picture = Image.fromarray(ground)
    draw = ImageDraw.Draw(picture)
    draw.ellipse((120, 120, 280, 280), fill=(214, 48, 49))
    draw.rectangle((400, 90, 580, 170), fill=(245, 245, 245))
    draw.text((440, 105), "EXIT", fill=(20, 110, 60), font_size=40)
    return png_bytes(np.asarray(picture))


def disc_box(frame: int) -> Box:
    left = 40 + frame * 8
    return Box(left, 150, left + 100, 250)


def drawn_video(*, width: int = WIDTH, height: int = 360, num_frames: int = NUM_FRAMES) -> bytes:
    """A blue disc that moves 8 px to the right a frame, 10 frames a second, as MP4."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = 2_000_000
        stream.time_base = Fraction(1, FPS)
        for index in range(num_frames):
            picture = Image.new("RGB", (width, height), (222, 226, 232))
            ImageDraw.Draw(picture).ellipse(disc_box(index).as_tuple(), fill=(44, 90, 200))
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return out.getvalue()


def make_step(output: Output | None, arguments: dict, info: MediumInfo, number: int, *, op: str = "", thought: str = "", **result) -> Step:
    """One step whose response is what the wire says of its result."""
    op = op or output.op
    outcome = Result(**{"op": op, "status": "ok", "engine": "drawn", "version": "1", "output": output, **result})
    call = Call(op=op, arguments=arguments)
    thought = thought or f"Thinking before {op}."
    response = render_response(result_to_wire(outcome, step=number, info=info))
    return Step(thought=thought, text=f"{thought}\n{render_call(call)}", call=call, result=outcome, response=response)


def image_trajectory(info: MediumInfo, crop: str, *, id: str = "image-run", text: str = "EXIT") -> Trajectory:
    disc = np.hypot(np.arange(WIDTH) - 200, (np.arange(HEIGHT) - 200)[:, None]) <= 80
    mask = Mask.from_array(disc)
    sign = Box(400, 90, 580, 170)
    steps = [
        (SegOutput(frame=0, box=mask.box, mask=mask, area_share=float(disc.mean()), score=0.97), {"point": [312, 417], "label": text}, {}),
        (ZoomOutput(frame=0, box=sign, view=View(400, 90, 3, 3), width=540, height=240, image=crop), {"bbox_2d": [625, 188, 906, 354]}, {}),
        (OcrOutput(frame=0, box=sign, spans=(TextSpan(text=text, box=Box(438, 108, 535, 148), confidence=0.99),)), {"ref": 2}, {}),
        (
            PropOutput(what="colour", frame=0, box=mask.box, attributes=(Attribute(name="colour", value="red", confidence=0.93),)),
            {"what": "colour", "ref": 1},
            {},
        ),
        (
            None,
            {"bbox_2d": [900, 10, 100, 20]},
            {"op": "ZOOM", "status": "error", "error": CallError(kind="bad_arguments", message="bbox_2d is empty or inverted")},
        ),
        (None, {"event": "moves"}, {"op": "TEMP", "status": "disabled"}),
    ]
    made = tuple(make_step(o, a, info, i, thought=f"{text}: thought {i}", **r) for i, (o, a, r) in enumerate(steps, 1))
    return Trajectory(
        id=id,
        question=f"What does the sign beside the red disc say? {text if text != 'EXIT' else ''}",
        medium=info,
        policy=PolicyInfo(name="scripted", version="1", sampling={"temperature": 0.0}),
        seed=7,
        steps=made,
        stop="answered",
        answer=text,
        final_text=f"It says so.\n<answer>{text}</answer>",
        engines={"SEG": "drawn 1", "OCR": "drawn 1"},
    )


def video_trajectory(info: MediumInfo, *, id: str = "video-run") -> Trajectory:
    points = tuple(TrackPoint(frame=i, time_s=i / FPS, box=None if 18 <= i < 22 else disc_box(i), score=0.9) for i in range(5, 36))
    track = TrkOutput(track_id=1, points=points, score=0.9)
    temp = TempOutput(
        event="moves",
        box=None,
        first_frame=0,
        last_frame=39,
        segments=(Segment(start_s=1.0, end_s=2.5, score=0.8), Segment(start_s=3, end_s=3.6, score=0.3)),
    )
    prop = PropOutput(
        what="motion",
        frame=30,
        box=disc_box(30),
        attributes=(
            Attribute(name="direction", value="right", confidence=0.9),
            Attribute(name="speed", value=80.25, unit="px/s", confidence=0.8),
        ),
    )
    steps = [
        (track, {"bbox_2d": [125, 417, 281, 694], "from_s": 0.5, "to_s": 3.5}),
        (temp, {"event": "moves"}),
        (prop, {"what": "motion", "ref": 1, "frame": 3.0}),
    ]
    return Trajectory(
        id=id,
        question="Which way does the blue disc move, and when?",
        medium=info,
        policy=PolicyInfo(name="scripted", version="1"),
        seed=8,
        steps=tuple(make_step(o, a, info, i) for i, (o, a) in enumerate(steps, 1)),
        stop="step_limit",
        answer=None,
    )


def write_run(folder: Path, *, hostile: bool = False, with_video: bool = True, scored: bool = True) -> Path:
    """A run of an image and, unless told otherwise, a video; with hostile texts everywhere when asked."""
    image = drawn_image()
    with RunWriter(folder, {"purpose": HOSTILE if hostile else "test"}) as writer:
        with open_medium(image, name=HOSTILE if hostile else "sign.png") as medium:
            info = medium.info
            crop = png_bytes(np.asarray(Image.fromarray(medium.frame(0)[90:170, 400:580]).resize((540, 240))))
        trajectory = image_trajectory(info, sha256(crop), text=HOSTILE if hostile else "EXIT")
        timing = Timing(
            id=trajectory.id, total_s=3.25, steps=tuple(StepTiming(policy_s=0.4, tool_s=0.1, is_cached=i == 3) for i in range(6))
        )
        writer.append(trajectory, blobs={sha256(image): image, sha256(crop): crop}, timing=timing)
        if with_video:
            video = drawn_video()
            with open_medium(video, name="disc.mp4") as medium:
                info = medium.info
            writer.append(video_trajectory(info), blobs={sha256(video): video})
            writer.append(
                replace(
                    video_trajectory(info),
                    id="video-again",
                    question="Ein zweiter Versuch: wohin rollt die Scheibe?",
                    answer="nach rechts",
                    stop="answered",
                )
            )
    if scored:
        verdicts = [{"is_valid": v} for v in (True, False, True, None, False, None)]
        (folder / "scores.jsonl").write_text(json.dumps({"id": "image-run", "steps": verdicts}) + "\n")
    return folder
