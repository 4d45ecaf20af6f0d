"""Pictures for the page: frames and crops of a run as data URLs, within a budget of bytes."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from pixelis.core.errors import DataError, PixelisError
from pixelis.core.media import Medium, MediumInfo, decode_png, open_medium
from pixelis.core.store import Run

IMAGE_SIDE_PX = 1600
FRAME_SIDE_PX = 720
CROP_SIDE_PX = 800
VIDEO_FRAMES = 48
"""Evenly spread frames of a video; those that steps looked at come on top, up to as many again."""
VIDEO_BYTES = 4 << 20


@dataclass
class Budget:
    """Bytes of pictures that the page may still take."""

    left: int
    refused: Counter[str] = field(default_factory=Counter, init=False)
    """How many of which kind did not fit."""

    def take(self, kind: str, num_bytes: int) -> bool:
        if num_bytes > self.left:
            self.refused[kind] += 1
            return False
        self.left -= num_bytes
        return True


def medium_entry(run: Run, info: MediumInfo, wanted: Iterable[int], budget: Budget) -> tuple[dict, Callable[[int], float]]:
    """A medium's frames for the page, and the clock of its frames.

    Args:
        wanted: frames that steps looked at.
        budget: what the page may still take.
    Returns:
        `{"frames": [{"frame", "time_s", "src"}], "problem"}`, without frames and with the reason when it cannot be shown.
    """
    clock = lambda frame: frame / info.fps if info.fps else 0.0  # noqa: E731 what to say without the medium
    try:
        path = run.blob_path(info.sha256)
        if not path.is_file():
            raise DataError(f"The run does not hold {info.name} (blob {info.sha256[:12]}…); its evidence is drawn without it.")
        with open_medium(path, name=info.name) as medium:
            if medium.sha256 != info.sha256:
                raise DataError(f"Blob {info.sha256[:12]}… is no longer {info.name}: its content has changed since the run.")
            times_s = medium.times_s.tolist()
            frames = _image(medium) if info.kind == "image" else _video(medium, wanted)
    except PixelisError as error:
        return {"frames": [], "problem": str(error)}, clock
    if not budget.take("media", sum(len(frame["src"]) for frame in frames)):
        return {"frames": [], "problem": "Left out: the page has no room for more pictures. Write it for fewer trajectories."}, clock
    problem = "" if frames else f"No frame of {info.name} can be decoded."
    return {"frames": frames, "problem": problem}, lambda frame: times_s[min(max(frame, 0), len(times_s) - 1)]


def crop_entry(run: Run, name: str, budget: Budget) -> dict:
    """A zoom's crop for the page: `{"src"}`, or `{"problem"}` in words."""
    try:
        src = _data_url(shrink(decode_png(run.blob(name)), CROP_SIDE_PX), quality=85)
    except PixelisError as error:
        return {"problem": f"The crop cannot be shown: {_without_folder(error, run)}"}
    if not budget.take("crops", len(src)):
        return {"problem": "The crop is left out: the page has no room for more pictures."}
    return {"src": src}


def _without_folder(error: Exception, run: Run) -> str:
    """An error's text without the folder it names: a page travels, and where it was made is nobody's business."""
    return str(error).replace(f" from {run.blob_path('x').parent}", " from the run").replace(f" in {run.blob_path('x').parent}", "")


def _image(medium: Medium) -> list[dict]:
    return [{"frame": 0, "time_s": 0.0, "src": _data_url(shrink(medium.frame(0), IMAGE_SIDE_PX), quality=86)}]


def _video(medium: Medium, wanted: Iterable[int]) -> list[dict]:
    """Frames in the order of time, smaller and coarser until they fit `VIDEO_BYTES`."""
    kept: list[tuple[int, np.ndarray]] = []
    for index in _choose(medium, wanted):
        try:
            kept.append((index, shrink(medium.frame(index), FRAME_SIDE_PX)))
        except DataError:
            continue  # damage took this frame; the others are still evidence
    for side_px, quality in ((FRAME_SIDE_PX, 76), (560, 66), (400, 58), (280, 50)):
        urls = [jpeg_url(shrink(array, side_px), quality) for _, array in kept]
        if sum(map(len, urls)) <= VIDEO_BYTES:
            break
    return [{"frame": index, "time_s": float(medium.times_s[index]), "src": url} for (index, _), url in zip(kept, urls, strict=True)]


def _choose(medium: Medium, wanted: Iterable[int]) -> list[int]:
    extra = sorted({index for index in wanted if 0 <= index < medium.num_frames})
    if len(extra) > VIDEO_FRAMES:
        extra = [extra[round(i * (len(extra) - 1) / (VIDEO_FRAMES - 1))] for i in range(VIDEO_FRAMES)]
    return sorted({*medium.sample(VIDEO_FRAMES), *extra})


def shrink(image_HWC: np.ndarray, side_px: int) -> np.ndarray:
    """The picture with no side longer than `side_px`; never enlarged."""
    height, width = image_HWC.shape[:2]
    scale = side_px / max(height, width)
    if scale >= 1:
        return image_HWC
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image_HWC).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))


def _data_url(image_HWC: np.ndarray, *, quality: int) -> str:
    """JPEG, or PNG where that is no larger: drawn pictures stay exact."""
    jpeg = jpeg_url(image_HWC, quality)
    if image_HWC.shape[0] * image_HWC.shape[1] > 1 << 20:
        return jpeg  # compressing a large photograph as PNG would take seconds and lose
    out = io.BytesIO()
    Image.fromarray(image_HWC).save(out, format="PNG", compress_level=6)
    png = _url("image/png", out.getvalue())
    return png if len(png) <= len(jpeg) else jpeg


def jpeg_url(image_HWC: np.ndarray, quality: int) -> str:
    """The picture as the URL that holds it; the same picture gives the same text."""
    out = io.BytesIO()
    Image.fromarray(image_HWC).save(out, format="JPEG", quality=quality, subsampling=0 if quality > 80 else 2, optimize=True)
    return _url("image/jpeg", out.getvalue())


def _url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
