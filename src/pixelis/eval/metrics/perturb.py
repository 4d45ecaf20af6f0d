"""Media as they come after a journey: compressed, resized, with frames dropped and shown twice.

A perturbed medium changes the frames of another one when they are asked for; nothing is encoded or written but what the perturbation
itself encodes. It has an identity of its own, so that no cached result of the original answers for it. Letters: HWC image.
Source: paper, supplement 9 (JPEG and rescaling as shifts).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pixelis.core.errors import DataError
from pixelis.core.media import Medium
from pixelis.core.media_image import through_jpeg
from pixelis.core.media_source import Source
from pixelis.tools.engines.encoder_common import resize

KINDS = ("none", "jpeg", "resize", "jitter")


@dataclass(frozen=True)
class Perturbation:
    """What happens to a medium.

    Attributes:
        kind: `none` (to see what re-execution alone changes), `jpeg`, `resize` or `jitter`.
        amount: JPEG quality from 1 to 100; the factor of both sides; how many frames a frame may be off.

    Raises:
        DataError: no such kind or amount.
    """

    kind: str
    amount: float = 0

    def __post_init__(self) -> None:
        fine = {
            "none": self.amount == 0,
            "jpeg": 1 <= self.amount <= 100 and self.amount == int(self.amount),
            "resize": 0.05 <= self.amount <= 8,
            "jitter": self.amount >= 1 and self.amount == int(self.amount),
        }
        if not fine.get(self.kind, False):
            raise DataError(
                f"no perturbation {self.kind!r} by {self.amount:g}: use none, jpeg with a quality of 1 to 100, resize with a factor of "
                "0.05 to 8, or jitter by 1 frame or more"
            )

    def __str__(self) -> str:
        return self.kind if self.kind == "none" else f"{self.kind} {self.amount:g}"

    def applies_to(self, medium: Medium) -> bool:
        """An image has no frames to jitter."""
        return self.kind != "jitter" or medium.num_frames > 1


PERTURBATIONS = (Perturbation("jpeg", 30), Perturbation("resize", 0.75), Perturbation("jitter", 1))
"""Those that PRC is reported for: what a chat application does to a picture, and a video call to a stream."""


def perturbed(medium: Medium, perturbation: Perturbation, *, seed: int = 0) -> Medium:
    """The medium after a perturbation: same number of frames, same times.

    Args:
        medium: stays open, and must while the result is used.
        seed: of the jitter.

    Raises:
        DataError: it does not apply to this medium.
    """
    if not perturbation.applies_to(medium):
        raise DataError(f"{medium.info.name} has one frame: {perturbation} needs a video")
    order: Sequence[int] = range(medium.num_frames)
    if perturbation.kind == "jitter":
        order = jittered_order(medium.num_frames, int(perturbation.amount), f"{medium.sha256} {seed}")
    width, height = medium.width, medium.height
    if perturbation.kind == "resize":
        width, height = (max(1, round(side * perturbation.amount)) for side in (width, height))
    change = _changer(perturbation, width, height)
    words = [medium.sha256, str(perturbation), str(seed) if perturbation.kind == "jitter" else ""]
    name = medium.sha256 if perturbation.kind == "none" else hashlib.sha256("\x1f".join(words).encode()).hexdigest()
    info = replace(medium.info, sha256=name, width=width, height=height, name=f"{medium.info.name} ({perturbation})")
    reader = _ChangedReader(medium, order, change, width=width, height=height)
    return Medium(info, None, reader, Source(info.name, data=b"", size=0))  # type: ignore[arg-type]


def jittered_order(count: int, reach: int, key: str) -> list[int]:
    """Which of `count` original frames each frame shows: at most `reach` off, never going backwards; the same key gives the same order."""
    generator = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))
    shown = np.arange(count) + generator.integers(-reach, reach + 1, count)
    # Sorting keeps every frame within reach: the k-th smallest of numbers that are each within reach of 0, 1, 2, ... is within reach of k.
    return np.sort(shown.clip(0, count - 1)).tolist()


def _changer(perturbation: Perturbation, width: int, height: int) -> Callable[[np.ndarray], np.ndarray]:
    if perturbation.kind == "jpeg":
        return lambda image_HWC: through_jpeg(image_HWC, int(perturbation.amount))
    if perturbation.kind == "resize":
        return lambda image_HWC: np.rint(resize(image_HWC, width=width, height=height)).astype(np.uint8)
    return lambda image_HWC: image_HWC.copy()


class _ChangedReader:
    """What `Medium` needs of a decoder, on top of another medium."""

    first = None

    def __init__(
        self, medium: Medium, order: Sequence[int], change: Callable[[np.ndarray], np.ndarray], *, width: int, height: int
    ) -> None:
        self._medium, self._order, self._change = medium, order, change
        self.kind, self.width, self.height = medium.kind, width, height
        self.times_s, self.duration_s = medium.times_s.copy(), medium.duration_s

    def restart(self, index: int) -> int:
        return index

    def walk(self, start: int) -> Iterator[tuple[int, np.ndarray | None]]:
        for index in range(start, len(self._order)):
            try:
                yield index, self._medium.frame(self._order[index])
            except DataError:  # damage took the original frame
                yield index, None

    def to_rgb(self, raw: np.ndarray) -> np.ndarray:
        return self._change(raw)

    def close(self) -> None:
        """The original stays open: it is not ours."""
