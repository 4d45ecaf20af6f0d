"""SEG: the exact extent of the object at a point or in a box."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from pixelis.core.errors import ToolError
from pixelis.core.geometry import Mask
from pixelis.core.media import Medium
from pixelis.core.ops import SegArgs, SegOutput
from pixelis.tools.base import Context, clip_to_frame


class SegEngine(Protocol):
    name: str

    @property
    def version(self) -> str: ...

    def segment(
        self,
        image_HWC: np.ndarray,
        *,
        box: tuple[float, float, float, float] | None,
        point: tuple[float, float] | None,
        image_key: str | None = None,
    ) -> tuple[np.ndarray, float]:
        """A bool mask [H, W] and a confidence in [0, 1]."""
        ...


class SegTool:
    """Segment one object; its box is the mask's own, not the prompt's."""

    op = "SEG"

    def __init__(self, engine: SegEngine) -> None:
        self._engine = engine
        self.engine = engine.name

    @property
    def version(self) -> str:
        return f"seg 1; {self._engine.version}"

    def __call__(self, medium: Medium, args: SegArgs, context: Context) -> SegOutput:
        """Raises: ToolError: the prompt misses the frame, or nothing stands out there."""
        box = clip_to_frame(args.box, medium, "SEG").as_tuple() if args.box else None
        mask_HW, score = self._engine.segment(
            medium.frame(args.frame), box=box, point=args.point, image_key=f"{medium.sha256}:{args.frame}"
        )
        area = int(mask_HW.sum())
        if area == 0:
            raise ToolError("nothing_found", "SEG: nothing stands out there: give a tighter box, or a point on the object")
        mask = Mask.from_array(mask_HW)
        return SegOutput(frame=args.frame, box=mask.box, mask=mask, area_share=area / mask_HW.size, score=round(float(score), 4))
