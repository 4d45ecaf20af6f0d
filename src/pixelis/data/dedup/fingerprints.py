"""What is kept of a medium so that its frames need not be held: hash bits, a sketch, and an embedding per frame.

Shapes: T frames at 1 fps (1 for an image), D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.fft import dct

from pixelis.core.errors import DataError
from pixelis.core.media import Medium
from pixelis.data.dedup.overlap import Sketch, sketch

Encoder = Callable[[Sequence[np.ndarray]], np.ndarray]
"""RGB uint8 frames -> unit rows float32 [N, D]."""

UNSURE_TERM = 25.0
"""A cosine term this near the median gives a bit that noise of 4 levels or JPEG may turn."""


@dataclass(frozen=True)
class MediaRecord:
    """A medium to compare.

    Args:
        id: unique among those compared.
        order: when it was ingested; the lowest wins, equal ones by id.
        frames: RGB uint8 [height, width, 3]; one for an image, several at 1 fps for a video.
    """

    id: str
    order: int
    frames: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Fingerprint:
    """About 25 KB a frame, and 5 KB more with an embedding of 1280."""

    id: str
    order: int
    phash_T: np.ndarray
    """uint64, the 64 bits of each frame's pHash."""
    sure_T: np.ndarray
    """uint64, 1 where a bit's cosine term is so far from the median that noise or JPEG seldom turn it."""
    sketches: tuple[Sketch, ...]
    embedding_TD: np.ndarray | None
    """Unit rows float32; None where no encoder ran."""

    @property
    def is_video(self) -> bool:
        return len(self.phash_T) > 1


def default_encoder() -> Encoder:
    """EfficientNet-Lite0, frozen: 24 ms an image on one core.

    Raises:
        NotInstalled: torch or the weights are missing.
    """
    from pixelis.tools.engines.encoder_efficientnet import EfficientNetEncoder

    return EfficientNetEncoder().embed


def frames_of(medium: Medium) -> tuple[np.ndarray, ...]:
    """What of an open medium is compared: an image, or the frames of a video that are seen at whole seconds, at least two."""
    if medium.kind != "video":
        return (medium.frame(0),)
    seconds = range(max(2, int(medium.duration_s)))
    return tuple(medium.frame(medium.frame_at(min(second, medium.duration_s))) for second in seconds)


def fingerprint(medium: MediaRecord, encoder: Encoder | None = None) -> Fingerprint:
    """The fingerprint of a medium.

    Args:
        encoder: frozen, for stage 2; None leaves the embedding out, so that only stage 1 can run.

    Raises:
        DataError: no frames, a frame that is not RGB uint8, or an encoder whose rows are not unit vectors, one a frame.
    """
    if not medium.frames:
        raise DataError(f"medium {medium.id!r} has no frames to compare: give one for an image, one a second for a video")
    for number, frame_HWC in enumerate(medium.frames):
        if not _is_rgb(frame_HWC):
            found = f"{frame_HWC.dtype} {frame_HWC.shape}" if isinstance(frame_HWC, np.ndarray) else type(frame_HWC).__name__
            raise DataError(f"medium {medium.id!r}: frame {number} is {found}; give a non-empty uint8 array [height, width, 3] in RGB")
    is_video = len(medium.frames) > 1
    hashes = [phash(_centre_square(frame) if is_video else frame) for frame in medium.frames]
    return Fingerprint(
        id=medium.id,
        order=medium.order,
        phash_T=np.array([bits for bits, _ in hashes], np.uint64),
        sure_T=np.array([sure for _, sure in hashes], np.uint64),
        sketches=tuple(sketch(f) for f in medium.frames),
        embedding_TD=None if encoder is None else _embed(medium, encoder),
    )


def phash(image_HWC: np.ndarray) -> tuple[int, int]:
    """The 64-bit perceptual hash, the bits of `imagehash.phash`, and a mask of those that are sure.

    A bit says whether one of the lowest 8 x 8 cosine terms of the 32 x 32 picture is above their median. Rounding the small picture to
    whole levels alone moves a term by about 20, so that on a plain or graded ground many bits are chance.
    """
    small_HW = np.asarray(Image.fromarray(image_HWC).convert("L").resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    low_terms = dct(dct(small_HW, axis=0), axis=1)[:8, :8]
    above = low_terms - np.median(low_terms)
    return _as_int(above > 0), _as_int(np.abs(above) > UNSURE_TERM)


def _as_int(bits: np.ndarray) -> int:
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")


def _is_rgb(frame: object) -> bool:
    return isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3 and frame.size > 0


def _centre_square(frame_HWC: np.ndarray) -> np.ndarray:
    """A video's keyframes are hashed centre-cropped (paper §11)."""
    height, width = frame_HWC.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return frame_HWC[top : top + side, left : left + side]


def _embed(medium: MediaRecord, encoder: Encoder) -> np.ndarray:
    rows_TD = np.asarray(encoder(medium.frames), np.float32)
    if rows_TD.ndim != 2 or len(rows_TD) != len(medium.frames):
        raise DataError(
            f"medium {medium.id!r}: the encoder gave {rows_TD.shape} for {len(medium.frames)} frames; it must give one row each"
        )
    lengths_T = np.linalg.norm(rows_TD, axis=1)
    if not (np.abs(lengths_T - 1) < 1e-3).all():
        raise DataError(f"medium {medium.id!r}: the encoder's rows have lengths {lengths_T.min():.3f} to {lengths_T.max():.3f}, not 1")
    return rows_TD
