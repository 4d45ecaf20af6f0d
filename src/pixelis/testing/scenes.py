"""Drawn pictures and videos whose truth is exact: what `check_tool` and tests look at."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pixelis.core.geometry import Box
from pixelis.core.media import Medium, open_medium

WIDTH, HEIGHT = 640, 480
COLOURS = {"red": (205, 40, 40), "green": (40, 150, 60), "blue": (40, 70, 200)}


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


def polygon(image_HWC: np.ndarray, corners: Sequence[tuple[float, float]], colour: str) -> np.ndarray:
    """The image with a filled polygon; corners in pixels, the right and lower edges are drawn."""
    picture = Image.fromarray(image_HWC)
    ImageDraw.Draw(picture).polygon(list(corners), fill=COLOURS[colour])
    return np.asarray(picture)


def written(text: str, at: tuple[int, int], size: int) -> np.ndarray:
    """A pale page with one line of text."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), (240, 236, 225))
    ImageDraw.Draw(picture).text(at, text, fill=(25, 25, 30), font=ImageFont.load_default(size))
    return np.asarray(picture)
