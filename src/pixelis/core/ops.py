"""The six ops: what may be asked (typed arguments), what comes back (typed outputs), and what a step touched (footprint).

Everything here is in pixels of the original frame, frame indices and seconds. `pixelis.core.wire` converts from and to
what the policy reads and writes. Source: paper §3.2 and supplement 5.1, 10.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

from pydantic import ConfigDict, Discriminator

from pixelis.core.errors import MACHINE_ERRORS
from pixelis.core.geometry import Box, Mask, TimeSpan, View

OPS = ("SEG", "ZOOM", "TRK", "OCR", "TEMP", "PROP")
ALIASES = {"READ": "OCR", "CROP": "ZOOM", "TEMPORAL": "TEMP", "IMAGE_ZOOM_IN_TOOL": "ZOOM"}
EVENTS = ("appears", "disappears", "changes", "moves", "cut")
PROPERTIES = ("colour", "size", "shape", "position", "orientation", "count", "motion", "relation")

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """A frozen keyword-only dataclass that loads from JSON strictly: an unknown key is an error."""
    cls.__pydantic_config__ = ConfigDict(extra="forbid", ser_json_inf_nan="constants")  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(cls)


# ---------------------------------------------------------------- arguments


@record
class SegArgs:
    frame: int
    box: Box | None = None
    point: tuple[float, float] | None = None
    """At least one of box and point; pixels."""
    label: str = ""


@record
class ZoomArgs:
    frame: int
    box: Box
    """What to show; x1 and y1 are exclusive."""
    scale: float | None = None
    """Enlargement of the crop's sides; None lets the tool choose."""
    label: str = ""


@record
class TrkArgs:
    box: Box
    """Where the object is on `first_frame`."""
    first_frame: int
    last_frame: int
    """Inclusive; before `first_frame` to track backwards."""


@record
class OcrArgs:
    frame: int
    box: Box | None = None
    """Where to read; None reads the whole frame."""


@record
class TempArgs:
    event: str
    first_frame: int
    last_frame: int
    box: Box | None = None


@record
class PropArgs:
    what: str
    frame: int
    box: Box
    mask: Mask | None = None
    track: tuple[TrackPoint, ...] = ()
    other_box: Box | None = None
    other_mask: Mask | None = None


# ---------------------------------------------------------------- outputs


@record
class TrackPoint:
    frame: int
    time_s: float
    box: Box | None
    """None while the object is not visible."""
    score: float


@record
class TextSpan:
    text: str
    box: Box
    confidence: float


@record
class Segment:
    start_s: float
    end_s: float
    score: float

    @property
    def span(self) -> TimeSpan:
        return TimeSpan(self.start_s, self.end_s)


@record
class Attribute:
    name: str
    value: str | int | float
    confidence: float
    unit: str = ""


@record
class Footprint:
    """What a step really touched."""

    frames: tuple[int, ...] = ()
    boxes: tuple[tuple[int, Box], ...] = ()
    """(frame, box) pairs."""
    mask: Mask | None = None
    span: TimeSpan | None = None


@record
class SegOutput:
    op: Literal["SEG"] = "SEG"
    frame: int
    box: Box
    mask: Mask
    area_share: float
    score: float

    @property
    def footprint(self) -> Footprint:
        return Footprint(frames=(self.frame,), boxes=((self.frame, self.box),), mask=self.mask)


@record
class ZoomOutput:
    op: Literal["ZOOM"] = "ZOOM"
    frame: int
    box: Box
    """What was shown, after clipping; not what was asked."""
    view: View
    width: int
    height: int
    image: str
    """SHA-256 of the crop's PNG among the blobs."""

    @property
    def footprint(self) -> Footprint:
        return Footprint(frames=(self.frame,), boxes=((self.frame, self.box),))


@record
class TrkOutput:
    op: Literal["TRK"] = "TRK"
    track_id: int
    points: tuple[TrackPoint, ...]
    """In the order of time."""
    score: float

    @property
    def visible(self) -> tuple[TrackPoint, ...]:
        return tuple(p for p in self.points if p.box is not None)

    @property
    def footprint(self) -> Footprint:
        seen = self.visible
        return Footprint(
            frames=tuple(p.frame for p in seen),
            boxes=tuple((p.frame, p.box) for p in seen if p.box is not None),
            span=TimeSpan(self.points[0].time_s, self.points[-1].time_s) if self.points else None,
        )


@record
class OcrOutput:
    op: Literal["OCR"] = "OCR"
    frame: int
    box: Box
    """The region that was read, after clipping."""
    spans: tuple[TextSpan, ...]
    """In reading order."""

    @property
    def footprint(self) -> Footprint:
        boxes = tuple((self.frame, s.box) for s in self.spans) or ((self.frame, self.box),)
        return Footprint(frames=(self.frame,), boxes=boxes)


@record
class TempOutput:
    op: Literal["TEMP"] = "TEMP"
    event: str
    box: Box | None
    first_frame: int
    last_frame: int
    segments: tuple[Segment, ...]
    """Best first."""

    @property
    def footprint(self) -> Footprint:
        best = self.segments[0].span if self.segments else None
        return Footprint(boxes=((self.first_frame, self.box),) if self.box else (), span=best)


@record
class PropOutput:
    op: Literal["PROP"] = "PROP"
    what: str
    frame: int
    box: Box
    attributes: tuple[Attribute, ...]

    @property
    def footprint(self) -> Footprint:
        return Footprint(frames=(self.frame,), boxes=((self.frame, self.box),))


Args = SegArgs | ZoomArgs | TrkArgs | OcrArgs | TempArgs | PropArgs
Output = Annotated[SegOutput | ZoomOutput | TrkOutput | OcrOutput | TempOutput | PropOutput, Discriminator("op")]


@record
class Call:
    """One call as the policy wrote it: `arguments` are wire values, unchecked."""

    op: str
    arguments: dict[str, Any]


@record
class CallError:
    kind: str
    """One of `pixelis.core.errors.ERROR_KINDS`."""
    message: str


@record
class Result:
    """What one call returned. Exactly one of `output` and `error` is set, neither when the tool is disabled."""

    op: str
    status: Literal["ok", "error", "disabled"]
    engine: str
    version: str
    output: Output | None = None
    error: CallError | None = None

    @property
    def is_ok(self) -> bool:
        return self.status == "ok"

    @property
    def is_machine_failure(self) -> bool:
        """Failed for the machine's sake: another time it may succeed."""
        return self.error is not None and self.error.kind in MACHINE_ERRORS

    @property
    def is_excused(self) -> bool:
        """Failed, and it was no mistake of whoever asked: the machine's failure, or a tool that is switched off."""
        return self.status == "disabled" or self.is_machine_failure
