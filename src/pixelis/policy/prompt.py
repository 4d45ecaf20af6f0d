"""What every language-model policy is shown: the tools, the question, and the medium as an image or as timestamped frames."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pixelis.core import jsontext
from pixelis.core.arguments import tool_schemas
from pixelis.core.errors import ConfigError
from pixelis.core.media import Medium
from pixelis.policy.base import Task
from pixelis.policy.exposure import MOST_LIFT, at_exposure, expose, exposure_of, headroom

GUIDE = (
    "Answer the question about the image or video. Coordinates are integers from 0 to 1000 relative to the original; times are seconds. "
    'In each turn write one short thought, then exactly one tool call, and wait for its result; refer to earlier results with "ref". '
    "When you know the answer, write it as <answer>...</answer>."
)


PROMPTING_FILE = "pixelis.json"


@dataclass(frozen=True)
class Prompting:
    """How a checkpoint is prompted; one that was trained otherwise than this says so in `pixelis.json` beside its weights.

    Args:
        guide: the system message; none when empty.
        has_schemas: whether the tools' schemas are written into the system turn. A model trained on the tools alone knows them.
        max_pixels: area to which an image is scaled down.
        max_frame_pixels: area of each frame of a video; `max_pixels` when None.
        max_frames: of a video.
        image_size, frame_size: (width, height) that every image, crops too, and every frame is stretched to instead. Coordinates are
            relative to the sides, so stretching does not move them; and on one grid a place is a token, which a small model needs.
        lift: share of a medium's headroom that its images, frames and crops are brightened by, 0 to 1; see `policy/exposure.py`.

    Raises:
        ValueError: a lift out of its range.
    """

    guide: str = GUIDE
    has_schemas: bool = True
    max_pixels: int = 1024 * 1024
    max_frame_pixels: int | None = None
    max_frames: int = 16
    image_size: tuple[int, int] | None = None
    frame_size: tuple[int, int] | None = None
    lift: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.lift <= MOST_LIFT:
            raise ValueError(f"lift = {self.lift:g}: give a share of the headroom, from 0 to {MOST_LIFT:g}")

    def show(self, image_HWC: np.ndarray, *, is_frame: bool = False) -> np.ndarray:
        """An image as the model is shown it, before its processor; one that was shown before stays as it is."""
        size = self.frame_size if is_frame else self.image_size
        if size is None:
            return fit(image_HWC, (self.max_frame_pixels if is_frame else None) or self.max_pixels)
        if (image_HWC.shape[1], image_HWC.shape[0]) == tuple(size):
            return image_HWC
        return np.asarray(Image.fromarray(image_HWC).resize(tuple(size), Image.Resampling.BICUBIC, reducing_gap=2.0))

    def facts(self) -> dict:
        """What a trajectory records of it: how the medium was shown."""
        known = {key: value for key, value in asdict(self).items() if key not in ("guide", "has_schemas") and value is not None}
        if not self.lift:
            del known["lift"]
        return known

    @property
    def schemas(self) -> list[dict]:
        return tool_schemas() if self.has_schemas else []

    def save(self, folder: str | Path) -> None:
        (Path(folder) / PROMPTING_FILE).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def of(cls, folder: str | Path) -> Prompting:
        """What a checkpoint's folder says; the defaults where it says nothing.

        Raises:
            ConfigError: the file is damaged.
        """
        path = Path(folder) / PROMPTING_FILE
        if not path.is_file():
            return cls()
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path}: is no description of how to prompt the checkpoint ({error})") from None


@dataclass(frozen=True)
class ImagePart:
    """An image of the first message as it is shown, RGB uint8 [height, width, 3], and the name of that."""

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


def frames_shown(medium: Medium, prompting: Prompting) -> list[int]:
    """Which frames a first message shows: of a video, evenly spread ones."""
    return [0] if medium.kind == "image" else list(medium.sample(prompting.max_frames))


def headroom_of(medium: Medium, prompting: Prompting) -> float:
    """That of the frames that are shown, in stops."""
    return headroom(medium.frame(index) for index in frames_shown(medium, prompting))


def question_parts(task: Task, prompting: Prompting, exposure: float = 0.0) -> list[Part]:
    """The first user message: the medium, then the question.

    A video is evenly spread frames, each behind its time stamp. Coordinates stay relative to the original.

    Args:
        exposure: of all images, in stops. What a lift makes of a medium is for the caller to say, who may have the headroom already.
    """
    medium = task.medium
    if medium.kind == "image":
        return [ImagePart(expose(prompting.show(medium.frame(0)), exposure), at_exposure(medium.sha256, exposure)), task.question]
    parts: list[Part] = []
    for index in frames_shown(medium, prompting):
        parts.append(f"<{float(medium.times_s[index]):.1f} seconds>")
        frame = expose(prompting.show(medium.frame(index), is_frame=True), exposure)
        parts.append(ImagePart(frame, at_exposure(f"{medium.sha256}:{index}", exposure)))
    return [*parts, task.question]


def shown_frame(name: str) -> tuple[str, int]:
    """What an image of a first message shows, by its name: hash of the medium and number of the frame, at whatever exposure."""
    medium, _, frame = exposure_of(name)[0].partition(":")
    return medium, int(frame or 0)


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
