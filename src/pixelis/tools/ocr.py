"""OCR: read text in a region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from pixelis.core.geometry import Box, View
from pixelis.core.media import Medium
from pixelis.core.ops import OcrArgs, OcrOutput, TextSpan
from pixelis.tools.base import Context, clip_to_frame


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
        return f"ocr 1; {self._engine.version}"

    def __call__(self, medium: Medium, args: OcrArgs, context: Context) -> OcrOutput:
        """Raises: ToolError: the box misses the frame."""
        region = clip_to_frame(args.box or Box(0, 0, medium.width, medium.height), medium, "OCR")
        x0, y0, x1, y1 = region.pixels(width=medium.width, height=medium.height)
        crop = np.ascontiguousarray(medium.frame(args.frame)[y0:y1, x0:x1])
        view = View(float(x0), float(y0), 1.0, 1.0)
        spans = []
        for found in self._engine.read(crop):
            box = Box(*(round(v, 2) for v in view.to_original(Box(*found.box)).as_tuple())).clip(width=medium.width, height=medium.height)
            if found.text and not box.is_empty:
                spans.append(TextSpan(text=found.text, box=box, confidence=round(float(found.confidence), 4)))
        return OcrOutput(frame=args.frame, box=Box(float(x0), float(y0), float(x1), float(y1)), spans=tuple(spans))
