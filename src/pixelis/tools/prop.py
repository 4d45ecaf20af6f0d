"""PROP: measure a property of a region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from pixelis.core.media import Medium
from pixelis.core.ops import Attribute, PropArgs, PropOutput
from pixelis.tools.base import Context, clip_to_frame


class EngineAttribute(Protocol):
    name: str
    value: str | int | float
    confidence: float
    unit: str


class PropEngine(Protocol):
    name: str

    @property
    def version(self) -> str: ...

    def measure(
        self,
        what: str,
        *,
        image_HWC: np.ndarray,
        box: tuple[float, float, float, float],
        mask_HW: np.ndarray | None = None,
        track: Sequence[tuple[float, tuple[float, float, float, float]]] | None = None,
        other_box: tuple[float, float, float, float] | None = None,
        other_mask: np.ndarray | None = None,
    ) -> Sequence[EngineAttribute]: ...


class PropTool:
    """Measure colour, size, shape, position, orientation, count, motion (of a track) or relation (to another region)."""

    op = "PROP"

    def __init__(self, engine: PropEngine) -> None:
        self._engine = engine
        self.engine = engine.name

    @property
    def version(self) -> str:
        return f"prop 1; {self._engine.version}"

    def __call__(self, medium: Medium, args: PropArgs, context: Context) -> PropOutput:
        """Raises: ToolError: the box misses the frame, or the property cannot be measured there."""
        box = clip_to_frame(args.box, medium, "PROP")
        other = clip_to_frame(args.other_box, medium, "PROP") if args.other_box else None
        found = self._engine.measure(
            args.what,
            image_HWC=medium.frame(args.frame),
            box=box.as_tuple(),
            mask_HW=args.mask.to_array() if args.mask else None,
            track=[(p.time_s, p.box.as_tuple()) for p in args.track if p.box is not None] or None,
            other_box=other.as_tuple() if other else None,
            other_mask=args.other_mask.to_array() if args.other_mask else None,
        )
        attributes = tuple(
            Attribute(
                name=a.name,
                value=round(a.value, 4) if isinstance(a.value, float) else a.value,
                confidence=round(float(a.confidence), 4),
                unit=a.unit,
            )
            for a in found
        )
        return PropOutput(what=args.what, frame=args.frame, box=box, attributes=attributes)
