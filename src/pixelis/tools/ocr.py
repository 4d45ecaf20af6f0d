"""OCR: read text in a region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from pixelis.core.geometry import Box, View
from pixelis.core.media import Medium
from pixelis.core.ops import OcrArgs, OcrOutput, TextSpan
from pixelis.tools.base import Context, clip_to_frame
from pixelis.tools.engines.motion_blur import steadied


class EngineSpan(Protocol):
    text: str
    box: tuple[float, float, float, float]
    confidence: float


class OcrEngine(Protocol):
    name: str

    @property
    def version(self) -> str: ...

    def read(self, image_HWC: np.ndarray, *, image_key: str | None = None) -> Sequence[EngineSpan]:
        """Texts in reading order, boxes in pixels of the given image."""
        ...


class OcrTool:
    """Read a region of a frame, the whole frame when no region is given; no text is a result, not an error."""

    op = "OCR"

    def __init__(self, engine: OcrEngine) -> None:
        self._engine = engine
        self.engine = engine.name

    @property
    def version(self) -> str:
        return f"ocr 3; {self._engine.version}"

    def __call__(self, medium: Medium, args: OcrArgs, context: Context) -> OcrOutput:
        """Raises: ToolError: the box misses the frame."""
        region = clip_to_frame(args.box or Box(0, 0, medium.width, medium.height), medium, "OCR")
        x0, y0, x1, y1 = region.pixels(width=medium.width, height=medium.height)
        view = View(float(x0), float(y0), 1.0, 1.0)
        spans = []
        for found in read_box(self._engine, medium.frame(args.frame), (x0, y0, x1, y1)):
            box = Box(*(round(v, 2) for v in view.to_original(Box(*found.box)).as_tuple())).clip(width=medium.width, height=medium.height)
            if found.text and not box.is_empty:
                spans.append(TextSpan(text=found.text, box=box, confidence=round(float(found.confidence), 4)))
        return OcrOutput(frame=args.frame, box=Box(float(x0), float(y0), float(x1), float(y1)), spans=tuple(spans))


def read_box(engine: OcrEngine, frame_HWC: np.ndarray, box: tuple[int, int, int, int]) -> Sequence[EngineSpan]:
    """What stands in a box of a frame; where it is blurred along a line, what is read with that undone if that is surer and more.

    Args:
        frame_HWC: uint8 RGB [height, width, 3].
        box: x0, y0, x1, y1 in pixels, x1 and y1 exclusive; the spans' boxes are relative to its corner.
    """
    x0, y0, x1, y1 = box
    plain = engine.read(np.ascontiguousarray(frame_HWC[y0:y1, x0:x1]))
    steady = steadied(frame_HWC, box)
    if steady is None:
        return plain
    undone = engine.read(np.ascontiguousarray(steady[y0:y1, x0:x1]))
    (sure, num_sure), (plainly_sure, num_plainly_sure) = _sureness(undone), _sureness(plain)
    # Undoing a blur that was none makes letters out of ripples: more to count, but each of them less sure.
    return undone if sure >= plainly_sure and num_sure > num_plainly_sure else plain


def _sureness(spans: Sequence[EngineSpan]) -> tuple[float, float]:
    """How sure the characters are on average, and their number, each counted by how sure it is; 0 and 0 without any."""
    num_sure = sum(len(span.text) * span.confidence for span in spans)
    return num_sure / max(1, sum(len(span.text) for span in spans)), num_sure
