"""What the plans share: the act, the scene as the planner sees it, and how to find what a question names."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pixelis.core.geometry import Box, box_to_wire
from pixelis.core.media import Medium
from pixelis.policy.planner.question import Question, Thing
from pixelis.policy.planner.sight import Blob, look

Response = dict[str, Any]


@dataclass(frozen=True)
class Act:
    """One call with its thought; arguments as on the wire."""

    thought: str
    op: str
    arguments: dict[str, Any]


Plan = Generator[Act, Response, str]
"""Yields acts, receives each act's response as the policy reads it, returns the answer."""


@dataclass
class Scene:
    """The medium through the planner's eyes, and the question."""

    medium: Medium
    question: Question
    _looks: dict[tuple[int, bool], list[Blob]] = field(default_factory=dict)

    @property
    def last_frame(self) -> int:
        return self.medium.num_frames - 1

    def image(self, frame: int = 0) -> np.ndarray:
        return self.medium.frame(frame)

    def blobs(self, frame: int = 0, *, is_keen: bool = False) -> list[Blob]:
        key = (frame, is_keen)
        if key not in self._looks:
            self._looks[key] = look(self.image(frame), is_keen=is_keen)
        return self._looks[key]

    def wire(self, box: Box, grow_px: float = 0.0) -> list[int]:
        clipped = box.grow(grow_px).clip(width=self.medium.width, height=self.medium.height)
        return box_to_wire(clipped, width=self.medium.width, height=self.medium.height)

    def box(self, wire: list[int]) -> Box:
        sx, sy = self.medium.width / 1000, self.medium.height / 1000
        return Box(wire[0] * sx, wire[1] * sy, wire[2] * sx, wire[3] * sy)

    def seconds(self, frame: int) -> float:
        return round(float(self.medium.times_s[frame]), 1)

    def find(self, thing: Thing, frame: int = 0) -> list[Blob]:
        """Blobs that may be the thing, best first; every one fits what was said of colour and shape.

        What is not seen at a glance is looked for once more with keen eyes, which must then see just that colour and shape.
        """
        found = self._fitting(thing, self.blobs(frame))
        if not found and thing.colour and thing.shape:
            keen = self._fitting(thing, self.blobs(frame, is_keen=True))
            found = [b for b in keen if b.shape == thing.shape and b.shape_confidence > 0.3]
        return found

    def _fitting(self, thing: Thing, blobs: list[Blob]) -> list[Blob]:
        if thing.is_sign or thing.noun == "card":
            fits = [b for b in blobs if b.is_panel and (not thing.colour or b.colour == thing.colour)]
            return sorted(fits, key=lambda b: -b.area_px)
        fits = [b for b in blobs if b.area_px < 0.2 * self.medium.width * self.medium.height]
        if thing.colour:
            fits = [b for b in fits if b.colour == thing.colour]
        if thing.shape:
            fits = [b for b in fits if _may_be(b, thing.shape)]
            fits.sort(key=lambda b: (b.shape != thing.shape, -b.shape_confidence))
        else:
            fits.sort(key=lambda b: -b.contrast * b.area_px**0.5)
        if thing.place and fits:
            fits.sort(key=lambda b: _distance(b.box.centre, self.corner(thing.place)))
        return fits

    def corner(self, place: str) -> tuple[float, float]:
        x = 0.0 if "left" in place else self.medium.width if "right" in place else self.medium.width / 2
        y = 0.0 if "top" in place else self.medium.height if "bottom" in place else self.medium.height / 2
        return x, y

    def place_name(self, x: float, y: float, *, quarters: bool) -> str:
        """`top left` and so on; with quarters only the four corners, else also the middle rows and columns."""
        u, v = x / self.medium.width, y / self.medium.height
        if quarters:
            return f"{'top' if v < 0.5 else 'bottom'} {'left' if u < 0.5 else 'right'}"
        row = "top" if v < 0.34 else "bottom" if v > 0.66 else ""
        column = "left" if u < 0.34 else "right" if u > 0.66 else ""
        return f"{row} {column}".strip() or "centre"


UNSURE, SURE, SMALL_PX = 0.25, 0.8, 28.0
"""A guess at a shape below the first excludes no other; below the second, on a small thing, only what is not easily taken for it."""
_EASILY_TAKEN = {
    ("rectangle", "square"), ("square", "rectangle"), ("ellipse", "circle"), ("circle", "ellipse"), ("circle", "ring"),
    ("diamond", "square"), ("square", "diamond"), ("hexagon", "circle"), ("pentagon", "circle"), ("circle", "hexagon"),
    ("circle", "pentagon"), ("hexagon", "pentagon"), ("pentagon", "hexagon"), ("irregular", "star"), ("irregular", "cross"),
    ("star", "cross"), ("cross", "star"),
}  # fmt: skip
"""(guess, truth) pairs that a coarse eye takes for each other."""


def _may_be(blob: Blob, shape: str) -> bool:
    if blob.shape == shape or blob.shape_confidence < UNSURE:
        return True
    is_doubtful = blob.shape_confidence < SURE and max(blob.box.width, blob.box.height) < SMALL_PX
    return is_doubtful and (blob.shape, shape) in _EASILY_TAKEN


def _distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    return ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) ** 0.5


def distance(a: Box, b: Box) -> float:
    """Between the centres, in pixels."""
    return _distance(a.centre, b.centre)


def seen_at(box: Box, blobs: list[Blob]) -> bool:
    """Whether one of the blobs lies where the box is."""
    return any(b.box.intersect(box).area > 0.3 * min(b.box.area, box.area) for b in blobs)


def region(scene: Scene, response: Response, box: Box) -> dict[str, Any]:
    """What a step produced, by its number; the box itself when that step failed."""
    return {"ref": response["step"]} if is_ok(response) else {"bbox_2d": scene.wire(box, 1)}


def is_ok(response: Response) -> bool:
    return "error" not in response and "disabled" not in response


def attribute(response: Response, name: str) -> Any:
    """The value of a measured attribute; None when it is not there."""
    return next((a.get("value") for a in response.get("attributes", []) if a.get("name") == name), None)


def absent(thing: Thing) -> str:
    return f"there is no {thing.words or thing.noun}"
