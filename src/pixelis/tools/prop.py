"""PROP: measure a property of a region."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

import numpy as np

from pixelis.core.errors import ToolError
from pixelis.core.media import Medium
from pixelis.core.ops import Attribute, PropArgs, PropOutput
from pixelis.tools.base import Context, clip_to_frame
from pixelis.tools.engines.motion_blur import steadied

ON_PIXELS = ("colour", "shape", "orientation", "count")
"""Properties that are also measured with a straight blur undone, the surer measurement kept. How sure a size or a position is does not tell
blurred from sharp, and motion and relation look at boxes and masks alone."""


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
    """Measure colour, size, shape, position, orientation, count, motion (of a track) or relation (to another region).

    Where the picture is blurred along a line, what is measured on pixels is measured with that undone too, and the surer measurement kept.
    """

    op = "PROP"

    def __init__(self, engine: PropEngine) -> None:
        self._engine = engine
        self.engine = engine.name

    @property
    def version(self) -> str:
        return f"prop 3; {self._engine.version}"

    def __call__(self, medium: Medium, args: PropArgs, context: Context) -> PropOutput:
        """Raises: ToolError: the box misses the frame, or the property cannot be measured there."""
        box = clip_to_frame(args.box, medium, "PROP")
        other = clip_to_frame(args.other_box, medium, "PROP") if args.other_box else None
        measure = partial(
            self._engine.measure,
            args.what,
            box=box.as_tuple(),
            mask_HW=args.mask.to_array() if args.mask else None,
            track=[(p.time_s, p.box.as_tuple()) for p in args.track if p.box is not None] or None,
            other_box=other.as_tuple() if other else None,
            other_mask=args.other_mask.to_array() if args.other_mask else None,
        )
        frame = medium.frame(args.frame)
        found = measure(image_HWC=frame)
        if args.what in ON_PIXELS and (steady := steadied(frame, box.pixels(width=medium.width, height=medium.height))) is not None:
            with suppress(ToolError):  # what cannot be measured in the steadied picture is as it was in the other
                found = max(found, measure(image_HWC=steady), key=lambda attributes: attributes[0].confidence if attributes else 0.0)
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
