"""Tools that see badly: the same engines, their outputs made less true and less sure, the same way every time.

A policy that stands a missing tool may still be led astray by a bad one, so that the two are told apart. Source: paper, supplement 5
(fidelity floor): degraded masks and boxes, jittered tracks, noisy text, spans that are off in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pixelis.core.geometry import Box, Mask
from pixelis.core.media import Medium
from pixelis.core.ops import (
    Args,
    Attribute,
    OcrOutput,
    Output,
    PropOutput,
    Segment,
    SegOutput,
    TempOutput,
    TrackPoint,
    TrkOutput,
    ZoomArgs,
)
from pixelis.data.world.raster import SHAPES
from pixelis.data.world.rng import Rng
from pixelis.tools.base import Context, Tool, Toolbox
from pixelis.tools.cache import cache_key
from pixelis.tools.engines.prop_colour import COLOUR_NAMES

CONFIDENCE = 0.5
"""What is left of every score."""
OFF_S = 4.0
"""Seconds by which a stretch of time is moved at strength 1."""
_LETTERS, _DIGITS = "abcdefghijklmnopqrstuvwxyz", "0123456789"
_WORDS: tuple[Sequence[str], ...] = (
    COLOUR_NAMES,
    SHAPES,
    ("left", "right"),
    ("up", "down"),
    ("top", "bottom"),
    ("top-left", "top-right", "bottom-left", "bottom-right"),
    ("left of", "right of"),
    ("above", "below"),
    ("larger", "smaller"),
    ("moving", "still"),
)
"""Words that are mistaken for each other."""


@dataclass(frozen=True)
class Blur:
    """How bad.

    Attributes:
        strength: in [0, 1]: the share of its own sides by which a box, mask or view is moved; the chance that a letter or a word is
            mistaken; the relative error of a measurement; and, times `OFF_S`, the seconds by which a stretch of time is off.
        seed: of the chance in it.
    """

    strength: float = 0.25
    seed: int = 0

    def __str__(self) -> str:
        return f"degraded {self.strength:g} seed {self.seed}"


class DegradedTool:
    """A tool behind a blur. Deterministic: the same medium, arguments and version give the same output."""

    def __init__(self, tool: Tool, blur: Blur) -> None:
        self.op, self.engine = tool.op, tool.engine
        self._tool, self._blur = tool, blur

    @property
    def version(self) -> str:
        return f"{self._tool.version}; {self._blur}"

    def __call__(self, medium: Medium, args: Args, context: Context) -> Output:
        rng = Rng(cache_key(medium=medium.sha256, op=self.op, engine=self.engine, version=self.version, args=args))
        if isinstance(args, ZoomArgs):  # a view is moved before it is cut out: its picture is the evidence
            args = replace(args, box=moved_inside(args.box, self._blur.strength, medium.width, medium.height, rng))
        size = {"width": medium.width, "height": medium.height, "duration_s": medium.duration_s}
        return degraded(self._tool(medium, args, context), self._blur.strength, rng, **size)


def degrade_toolbox(tools: Toolbox, op: str, blur: Blur = Blur()) -> Toolbox:
    """The tools with one of them degraded, the others as they are."""
    return {name: DegradedTool(tool, blur) if name == op else tool for name, tool in tools.items()}


def degraded(output: Output, strength: float, rng: Rng, *, width: int, height: int, duration_s: float) -> Output:
    """An output as a worse engine would have returned it; strength 0 takes only its sureness. A view is returned as it is.

    Args:
        strength: see `Blur`.
        width, height, duration_s: of the medium; what is moved stays inside.
    """
    match output:
        case SegOutput():
            return _segment(output, strength, rng)
        case TrkOutput():
            return _track(output, strength, width, height, rng)
        case OcrOutput():
            return _read(output, strength, rng)
        case TempOutput():
            return replace(output, segments=tuple(_off(segment, strength, rng, duration_s) for segment in output.segments))
        case PropOutput():
            return replace(output, attributes=tuple(_mistaken(attribute, strength, rng) for attribute in output.attributes))
        case _:
            return output


def _sign(rng: Rng) -> int:
    return 1 if rng.chance(0.5) else -1


def moved_inside(box: Box, strength: float, width: int, height: int, rng: Rng) -> Box:
    """A box moved by a share of its sides, as far as the frame has room; what lies beyond the frame is cut off first."""
    box = box.clip(width=width, height=height)
    x0, y0 = box.x0 + _sign(rng) * strength * box.width, box.y0 + _sign(rng) * strength * box.height
    x0, y0 = min(max(x0, 0.0), width - box.width), min(max(y0, 0.0), height - box.height)
    return Box(x0, y0, x0 + box.width, y0 + box.height)


def _segment(output: SegOutput, strength: float, rng: Rng) -> SegOutput:
    """The mask is moved; what leaves the frame is lost, unless all would be."""
    score = output.score * CONFIDENCE
    dx, dy = round(_sign(rng) * strength * output.box.width), round(_sign(rng) * strength * output.box.height)
    before_HW = output.mask.to_array()
    after_HW = np.zeros_like(before_HW)
    ys, xs = np.nonzero(before_HW)
    ys, xs = ys + dy, xs + dx
    inside = (ys >= 0) & (ys < after_HW.shape[0]) & (xs >= 0) & (xs < after_HW.shape[1])
    if not inside.any():
        return replace(output, score=score)
    after_HW[ys[inside], xs[inside]] = True
    mask = Mask.from_array(after_HW)
    return replace(output, mask=mask, box=mask.box, area_share=mask.area_px / after_HW.size, score=score)


def _track(output: TrkOutput, strength: float, width: int, height: int, rng: Rng) -> TrkOutput:
    """Every box jumps by itself."""

    def jitter(point: TrackPoint) -> TrackPoint:
        box = None if point.box is None else moved_inside(point.box, strength, width, height, rng)
        return replace(point, box=box, score=point.score * CONFIDENCE)

    return replace(output, points=tuple(map(jitter, output.points)), score=output.score * CONFIDENCE)


def _read(output: OcrOutput, strength: float, rng: Rng) -> OcrOutput:
    spans = tuple(
        replace(span, text="".join(_misread(char, strength, rng) for char in span.text), confidence=span.confidence * CONFIDENCE)
        for span in output.spans
    )
    return replace(output, spans=spans)


def _misread(char: str, strength: float, rng: Rng) -> str:
    """Another letter for a letter, in its case, and another digit for a digit; anything else as it is."""
    pool = _DIGITS if char in _DIGITS else _LETTERS if char.lower() in _LETTERS else ""
    if not pool or not rng.chance(strength):
        return char
    other = rng.choice([one for one in pool if one != char.lower()])
    return other.upper() if char.isupper() else other


def _off(segment: Segment, strength: float, rng: Rng, duration_s: float) -> Segment:
    """Moved in time, as far as the medium has room."""
    wanted = segment.start_s + _sign(rng) * strength * OFF_S
    off_s = min(max(wanted, 0.0), max(duration_s - (segment.end_s - segment.start_s), 0.0)) - segment.start_s
    return Segment(start_s=segment.start_s + off_s, end_s=segment.end_s + off_s, score=segment.score * CONFIDENCE)


def _mistaken(attribute: Attribute, strength: float, rng: Rng) -> Attribute:
    """A word for another of its kind, a count off by one, a measurement off by a share of itself."""
    value: Any = attribute.value
    if isinstance(value, str):
        pool = next(([word for word in words if word != value] for words in _WORDS if value in words), [])
        value = rng.choice(pool) if pool and rng.chance(strength) else value
    elif isinstance(value, int) and not attribute.unit:
        value = max(0, value + _sign(rng)) if rng.chance(strength) else value
    else:
        off = value * (1 + _sign(rng) * strength)
        value = round(off) if isinstance(value, int) else round(off, 5)
    return replace(attribute, value=value, confidence=attribute.confidence * CONFIDENCE)
