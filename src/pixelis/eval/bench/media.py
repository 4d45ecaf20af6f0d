"""From where an item's medium lies to an open medium: a file, an image inside a table, a stretch of a video, a folder of frames.

A stretch and a folder of frames become a video file of their own, so that the policy and its tools see what is asked about and nothing
else, and a run that keeps the file replays. Its bytes depend on the frames alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelis.core.errors import DataError
from pixelis.core.media import Medium, open_medium
from pixelis.data.world.encode import mp4_bytes
from pixelis.eval.bench.base import MediumRef
from pixelis.eval.bench.files import table_image

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_SLACK_S = 1e-6


@dataclass(frozen=True)
class Opened:
    """An open medium, with its bytes where no file holds them."""

    medium: Medium
    data: bytes | None


def is_there(folder: Path, ref: MediumRef) -> bool:
    return (folder / ref.path).exists()


def open_ref(folder: Path, ref: MediumRef) -> Opened:
    """Open what an item asks about.

    Raises:
        DataError: it is missing or unusable.
    """
    path = folder / ref.path
    if ref.key is not None:
        data = table_image(path, ref.key)
        return Opened(open_medium(data, name=f"{path.name} {ref.key}"), data)
    if path.is_dir():
        data = _from_frames(path, ref)
    elif ref.start_s is None and ref.end_s is None:
        return Opened(open_medium(path), None)
    else:
        with open_medium(path) as whole:
            if whole.kind == "image":
                raise DataError(f"{path}: a stretch of a video is asked for, and this is an image: download the file again")
            data = _stretch(whole, ref)
    return Opened(open_medium(data, name=path.name), data)


def _stretch(whole: Medium, ref: MediumRef) -> bytes:
    """The frames from `start_s` to `end_s`, both included; at least the one nearest to the start."""
    start_s, end_s = ref.start_s or 0.0, whole.duration_s if ref.end_s is None else ref.end_s
    wanted = np.flatnonzero((whole.times_s >= start_s - _SLACK_S) & (whole.times_s <= end_s + _SLACK_S))
    first = int(wanted[0]) if wanted.size else int(np.abs(whole.times_s - start_s).argmin())
    stop = int(wanted[-1]) + 1 if wanted.size else first + 1
    return _encode((np.asarray(frame) for frame in whole.frames(first, stop)), fps=whole.fps or 1.0)


def _from_frames(path: Path, ref: MediumRef) -> bytes:
    """A folder's images in the order of their names, the first at 0 s, cut to the stretch that is asked about."""
    fps = ref.fps or 1.0
    names = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGES)
    start, end = ref.start_s or 0.0, float("inf") if ref.end_s is None else ref.end_s
    kept = [name for number, name in enumerate(names) if start - _SLACK_S <= number / fps <= end + _SLACK_S] or names[:1]
    if not kept:
        raise DataError(f"{path}: holds no image: unpack the archive of frames there")
    return _encode(map(_image, kept), fps=fps)


def _image(path: Path) -> np.ndarray:
    with open_medium(path) as medium:
        return np.asarray(medium.frame(0))


def _encode(frames: Iterator[np.ndarray], *, fps: float) -> bytes:
    """A video file at the nearest whole frame rate; sides cut to even numbers, every frame to the first one's size."""
    first = next(frames)
    height, width = first.shape[0] // 2 * 2, first.shape[1] // 2 * 2
    if not height or not width:
        raise DataError(f"frames of {first.shape[1]}x{first.shape[0]} px are too small for a video: download the files again")

    def cut() -> Iterator[np.ndarray]:
        yield first[:height, :width]
        for frame in frames:
            if frame.shape != first.shape:
                raise DataError(f"a frame of {frame.shape[1]}x{frame.shape[0]} px among frames of {first.shape[1]}x{first.shape[0]} px")
            yield frame[:height, :width]

    return mp4_bytes(cut(), fps=max(1, round(fps)), width=width, height=height)
