"""What every language-model policy is shown: the tools, the question, and the medium as an image or as timestamped frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pixelis.core import jsontext
from pixelis.core.arguments import tool_schemas
from pixelis.core.media import Medium
from pixelis.policy.base import Task

GUIDE = (
    "Answer the question about the image or video. Coordinates are integers from 0 to 1000 relative to the original; times are seconds. "
    'In each turn write one short thought, then exactly one tool call, and wait for its result; refer to earlier results with "ref". '
    "When you know the answer, write it as <answer>...</answer>."
)


@dataclass(frozen=True)
class ImagePart:
    """An image of the first message: RGB uint8 [height, width, 3] and the hash that names it."""

    image_HWC: np.ndarray
    sha256: str


Part = str | ImagePart


def system_text() -> str:
    """The system message, for a server or template that does not render tool schemas itself (Hermes form, as Qwen3-VL's)."""
    tools = "\n".join(jsontext.dumps(schema) for schema in tool_schemas())
    return (
        f"{GUIDE}\n\n# Tools\n\nYou may call these functions:\n<tools>\n{tools}\n</tools>\n\n"
        'Write a call as <tool_call>\n{"name": "ZOOM", "arguments": {"bbox_2d": [0, 0, 500, 500]}}\n</tool_call>'
    )


def question_parts(task: Task, *, max_pixels: int, max_frames: int) -> list[Part]:
    """The first user message: the medium, then the question.

    Args:
        max_pixels: area an image (or each frame of a video) is scaled down to; coordinates stay relative to the original.
        max_frames: how many evenly spread frames of a video are shown, each behind its time stamp.
    """
    medium = task.medium
    if medium.kind == "image":
        return [ImagePart(fit(medium.frame(0), max_pixels), medium.sha256), task.question]
    parts: list[Part] = []
    for index in medium.sample(max_frames):
        parts.append(f"<{float(medium.times_s[index]):.1f} seconds>")
        parts.append(ImagePart(fit(medium.frame(index), max_pixels), f"{medium.sha256}:{index}"))
    return [*parts, task.question]


def fit(image_HWC: np.ndarray, max_pixels: int) -> np.ndarray:
    """The image scaled down to at most `max_pixels`, its aspect kept; untouched when it is small enough."""
    height, width = image_HWC.shape[:2]
    scale = math.sqrt(max_pixels / (height * width))
    if scale >= 1:
        return image_HWC
    size = (max(1, math.floor(width * scale)), max(1, math.floor(height * scale)))
    return np.asarray(Image.fromarray(image_HWC).resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0))


def describe_medium(medium: Medium) -> str:
    """One line about the medium, in words."""
    if medium.kind == "image":
        return f"image, {medium.width}x{medium.height} px"
    return f"video, {medium.width}x{medium.height} px, {medium.num_frames} frames, {medium.duration_s:.1f} s"
