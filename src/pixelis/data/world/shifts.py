"""Shifted versions of a world: lighting, motion, noise, occlusion and compression, each at five severities.

A shift is drawn from its own stream of chance, so severities of one item differ in strength only. Lighting, noise and compression
leave the truth alone; motion moves the camera of a video (boxes and tracks move with it) and blurs an image along a line; occlusion
puts grey plates in front, and the truth's masks and boxes shrink to what is still seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from pixelis.core.errors import DataError
from pixelis.data.world.rng import Rng

SHIFTS = ("lighting", "motion", "noise", "occlusion", "compression")
SEVERITIES = (1, 2, 3, 4, 5)

_GAIN = (0.82, 0.68, 0.55, 0.43, 0.33)  # darkest corner over the plain picture
_BLUR_PX = (3, 5, 7, 9, 11)
_SHAKE_PX = (2, 4, 6, 9, 12)
_NOISE = (4, 8, 13, 19, 26)  # standard deviation in grey levels
_QUANT = (1.0, 1.8, 3.0, 4.6, 7.0)  # times the base table, which is about JPEG quality 50 at 1.0
_PLATES = (2, 3, 4, 5, 6)
SHAKE_MARGIN_PX = _SHAKE_PX[-1] + 4


@dataclass(frozen=True)
class Shift:
    """A kind of shift and its severity, 1 (mild) to 5.

    Raises:
        DataError: no such kind or severity.
    """

    kind: str
    severity: int

    def __post_init__(self) -> None:
        if self.kind not in SHIFTS or self.severity not in SEVERITIES:
            raise DataError(f"no shift {self.kind}:{self.severity}: kinds are {', '.join(SHIFTS)}, severities 1 to 5")

    def __str__(self) -> str:
        return f"{self.kind}:{self.severity}"


def parse_shift(text: str) -> Shift:
    """`lighting:3` as a Shift.

    Raises:
        DataError: not of this form, or unknown.
    """
    kind, _, severity = text.partition(":")
    if not severity.isdigit():
        raise DataError(f"shift {text!r}: write kind:severity, as lighting:3; kinds are {', '.join(SHIFTS)}")
    return Shift(kind, int(severity))


def shake_path(severity: int, num_frames: int, rng: Rng) -> list[tuple[int, int]]:
    """Camera offset per frame: two slow swings a side, never beyond the severity's reach."""
    reach = _SHAKE_PX[severity - 1]
    tones = [(rng.uniform(0.08, 0.22), rng.uniform(0, 1), rng.uniform(0.23, 0.45), rng.uniform(0, 1)) for _ in range(2)]

    def at(frame: int, tone: tuple[float, float, float, float]) -> int:
        slow, slow_phase, fast, fast_phase = tone
        swing = 0.6 * math.sin(2 * math.pi * (slow * frame + slow_phase)) + 0.4 * math.sin(2 * math.pi * (fast * frame + fast_phase))
        return round(round(swing, 6) * reach)

    return [(at(frame, tones[0]), at(frame, tones[1])) for frame in range(num_frames)]


def plate_plan(severity: int, width: int, height: int, rng: Rng) -> list[tuple[int, int, int, int]]:
    """Plates (x, y, width, height) to put in front; a milder severity has the first few of them, and smaller."""
    scale = 6 + 2 * severity
    plans = [(rng.uniform(), rng.uniform(), rng.uniform(0.6, 1.4), rng.uniform(0.6, 1.4)) for _ in range(_PLATES[-1] * 8)]
    plans = plans[: _PLATES[severity - 1] * 8]
    return [
        (round(u * width * 0.94), round(v * height * 0.94), max(8, round(a * width * scale / 250)), max(8, round(b * height * scale / 250)))
        for u, v, a, b in plans
    ]


def max_plates(severity: int) -> int:
    return _PLATES[severity - 1]


def apply(shift: Shift, frames: Iterator[np.ndarray], *, is_video: bool, rng: Rng) -> Iterator[np.ndarray]:
    """Frames after what a shift does to pixels; motion of a video and occlusion are in the scene already."""
    way = {"lighting": _light, "motion": _blur, "noise": _noise, "compression": _compress}.get(shift.kind)
    if way is None or (shift.kind == "motion" and is_video):
        yield from frames
        return
    drawn = way(shift.severity, rng)
    for frame in frames:
        yield drawn(frame)


def _light(severity: int, rng: Rng):
    """Darker towards one side, in fixed point, and a tint."""
    gain = round(_GAIN[severity - 1] * 256)
    to_right, to_left = rng.chance(0.5), rng.chance(0.5)
    tint = [rng.integer(0, 10) * severity // 2 for _ in range(3)]

    def change(frame: np.ndarray) -> np.ndarray:
        height, width, _ = frame.shape
        u = np.arange(width)[None, :] * 256 // width
        v = np.arange(height)[:, None] * 256 // height
        u, v = (u if to_right else 255 - u), (v if to_left else 255 - v)
        share = (256 - (256 - gain) * (384 + u + v) // 896).astype(np.int32)[..., None]
        return (((frame * share) >> 8) * (256 - np.array(tint, np.int32)) >> 8).astype(np.uint8)

    return change


def _blur(severity: int, rng: Rng):
    """The mean along a line: what a moving camera does during one exposure."""
    length = _BLUR_PX[severity - 1]
    dx, dy = rng.choice(((1, 0), (0, 1), (1, 1), (1, -1)))

    def change(frame: np.ndarray) -> np.ndarray:
        half = length // 2
        height, width, _ = frame.shape
        edge = np.pad(frame, ((half, half), (half, half), (0, 0)), mode="edge")
        total = np.zeros(frame.shape, np.int32)
        for i in range(-half, half + 1):
            total += edge[half + i * dy : half + i * dy + height, half + i * dx : half + i * dx + width]
        return ((total + length // 2) // length).astype(np.uint8)

    return change


def _noise(severity: int, rng: Rng):
    sigma = _NOISE[severity - 1]

    def change(frame: np.ndarray) -> np.ndarray:
        return np.clip(frame + (rng.bell(frame.shape).astype(np.int32) * sigma // 148), 0, 255).astype(np.uint8)

    return change


def _compress(severity: int, rng: Rng):
    """JPEG's loss: 8 x 8 cosine blocks, quantised; chroma at half the resolution."""
    scale = _QUANT[severity - 1]

    def change(frame: np.ndarray) -> np.ndarray:
        height, width, _ = frame.shape
        padded = np.pad(frame, ((0, -height % 16), (0, -width % 16), (0, 0)), mode="edge").astype(np.int32)
        r, g, b = (padded[..., c] for c in range(3))
        luma = (77 * r + 150 * g + 29 * b + 128) >> 8
        chroma = []
        for c in (b, r):
            diff = c - luma
            diff = (diff[0::2, 0::2] + diff[1::2, 0::2] + diff[0::2, 1::2] + diff[1::2, 1::2] + 2) >> 2
            chroma.append(np.repeat(np.repeat(_lossy(diff, scale * 1.6), 2, axis=0), 2, axis=1))
        luma = _lossy(luma - 128, scale) + 128
        blue, red = chroma[0] + luma, chroma[1] + luma
        green = ((luma << 8) - 77 * red - 29 * blue + 75) // 150
        return np.clip(np.stack([red, green, blue], axis=-1), 0, 255).astype(np.uint8)[:height, :width]

    return change


@cache
def _cosines() -> np.ndarray:
    """The DCT matrix times 2^12, whole numbers: products of them stay exact in float64, in whatever order they are summed."""
    rows = [[math.cos(math.pi * (2 * j + 1) * i / 16) * (math.sqrt(0.125) if i == 0 else 0.5) for j in range(8)] for i in range(8)]
    return np.array([[float(round(v * 4096)) for v in row] for row in rows])


def _lossy(plane: np.ndarray, scale: float) -> np.ndarray:
    """A plane [H, W] of whole numbers after quantising its 8 x 8 blocks; int32."""
    height, width = plane.shape
    dct = _cosines()
    blocks = plane.reshape(height // 8, 8, width // 8, 8).transpose(0, 2, 1, 3).reshape(-1, 8, 8).astype(np.float64)
    i, j = np.mgrid[0:8, 0:8]
    step = np.floor((10.0 + 5.0 * (i + j)) * scale)
    spectrum = np.matmul(np.matmul(dct, blocks), dct.T)  # times 2^24, exact
    kept = np.floor(spectrum / (step * 16777216.0) + 0.5) * step
    back = np.floor(np.matmul(np.matmul(dct.T, kept), dct) / 16777216.0 + 0.5)
    return back.reshape(height // 8, width // 8, 8, 8).transpose(0, 2, 1, 3).reshape(height, width).astype(np.int32)
