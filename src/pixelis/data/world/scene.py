"""A scene: a background and things before it, each with its coverage, colours, path and what changes; drawn frame by frame.

A thing's mask on a frame is what its coverage shows there (at least half a pixel) less what later things hide. Positions are whole
pixels, so a sprite is drawn once and pasted often. Shape letters: H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pixelis.core.geometry import Box, Mask
from pixelis.data.world.backgrounds import draw_background
from pixelis.data.world.colours import Rgb
from pixelis.data.world.raster import INK, paste
from pixelis.data.world.rng import Rng


@dataclass(frozen=True)
class Layer:
    """One coverage in one colour, at an offset from its thing's upper left corner."""

    cover: np.ndarray
    rgb: Rgb
    dx: int = 0
    dy: int = 0


@dataclass(frozen=True)
class Look:
    """How a thing looks from a frame on."""

    layers: tuple[Layer, ...]
    """The first layer is the thing's extent."""
    colour: str
    shape: str = ""
    text: str = ""


@dataclass
class Thing:
    """Something that the truth knows by number.

    Args:
        path: upper left corner per frame, None where the thing is not there; one entry for all frames when it rests.
        looks: (first frame, look), in order.
    """

    kind: str
    looks: list[tuple[int, Look]]
    path: list[tuple[int, int] | None]
    rest: bool = True

    def at(self, frame: int) -> tuple[int, int] | None:
        return self.path[min(frame, len(self.path) - 1)]

    def look(self, frame: int) -> Look:
        return next(look for first, look in reversed(self.looks) if first <= frame)

    @property
    def first_look(self) -> Look:
        return self.looks[0][1]

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.first_look.layers[0].cover.shape
        return width, height

    def box_at(self, frame: int) -> Box | None:
        """Tight box of the ink, whether hidden or not; None when the thing is not there."""
        place = self.at(frame)
        if place is None:
            return None
        x0, y0, x1, y1 = ink_box(self.look(frame).layers[0].cover)
        return Box(float(place[0] + x0), float(place[1] + y0), float(place[0] + x1), float(place[1] + y1))


def ink_box(cover: np.ndarray) -> tuple[int, int, int, int]:
    ink = cover >= INK
    rows, cols = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1


@dataclass
class Scene:
    """Everything needed to draw a medium.

    Args:
        num_frames: 1 for an image.
        fps: frames a second; 0 for an image.
        background: name and seed material.
        shake: offset of the whole picture per frame, in pixels.
    """

    width: int
    height: int
    background: tuple[str, tuple]
    num_frames: int = 1
    fps: int = 0
    things: list[Thing] = field(default_factory=list)
    shake: list[tuple[int, int]] = field(default_factory=list)

    def add(self, thing: Thing) -> int:
        self.things.append(thing)
        return len(self.things) - 1

    @cached_property
    def backdrop(self) -> np.ndarray:
        name, material = self.background
        return draw_background(name, Rng("background", *material), self.width, self.height)

    def behind(self, box: Box | None = None) -> tuple[float, ...]:
        """Mean colour of the background, in a box or everywhere (on every eighth pixel)."""
        x0, y0, x1, y1 = box.pixels(width=self.width, height=self.height) if box else (0, 0, self.width, self.height)
        step = 1 if box else 8
        return tuple(float(v) for v in self.backdrop[y0:y1:step, x0:x1:step].reshape(-1, 3).mean(axis=0))

    def time_s(self, frame: int) -> float:
        return frame / self.fps if self.fps else 0.0

    def draw(self, frame: int) -> np.ndarray:
        """Frame `frame` as uint8 [H, W, 3]."""
        canvas = self.backdrop.copy()
        for thing in self.things:
            place = thing.at(frame)
            if place is not None:
                for layer in thing.look(frame).layers:
                    paste(canvas, layer.cover, layer.rgb, place[0] + layer.dx, place[1] + layer.dy)
        return _shift(canvas, *self.shake[frame]) if self.shake else canvas

    def frames(self) -> Iterator[np.ndarray]:
        return (self.draw(frame) for frame in range(self.num_frames))

    def visible_ink(self, number: int, frame: int) -> tuple[np.ndarray, int, int] | None:
        """What is seen of a thing: bool [h, w] with its upper left corner on the drawn frame; None when nothing is."""
        thing = self.things[number]
        place = thing.at(frame)
        if place is None:
            return None
        ink = thing.look(frame).layers[0].cover >= INK
        for other in self.things[number + 1 :]:
            ink = _hide(ink, place, other, frame)
        dx, dy = self.shake[frame] if self.shake else (0, 0)
        x, y = place[0] + dx, place[1] + dy
        x0, y0 = max(-x, 0), max(-y, 0)
        ink = ink[y0 : max(y0, self.height - y), x0 : max(x0, self.width - x)]
        return (ink, x + x0, y + y0) if ink.any() else None

    def mask(self, number: int, frame: int) -> Mask | None:
        """Exact visible mask of thing `number`; None when nothing of it is seen."""
        seen = self.visible_ink(number, frame)
        if seen is None:
            return None
        ink, x, y = seen
        full = np.zeros((self.height, self.width), np.uint8, order="F")
        full[y : y + ink.shape[0], x : x + ink.shape[1]] = ink
        return Mask.from_array(full)

    def box(self, number: int, frame: int) -> Box | None:
        """Tight box of what is seen of thing `number`."""
        seen = self.visible_ink(number, frame)
        if seen is None:
            return None
        ink, x, y = seen
        rows, cols = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
        return Box(float(x + cols[0]), float(y + rows[0]), float(x + cols[-1] + 1), float(y + rows[-1] + 1))


def _hide(ink: np.ndarray, place: tuple[int, int], other: Thing, frame: int) -> np.ndarray:
    """Ink less what another thing, drawn later, covers."""
    there = other.at(frame)
    if there is None or other.kind == "part":
        return ink
    cover = other.look(frame).layers[0].cover
    x0, y0 = max(place[0], there[0]), max(place[1], there[1])
    x1 = min(place[0] + ink.shape[1], there[0] + cover.shape[1])
    y1 = min(place[1] + ink.shape[0], there[1] + cover.shape[0])
    if x0 >= x1 or y0 >= y1:
        return ink
    ink = ink.copy()
    hidden = cover[y0 - there[1] : y1 - there[1], x0 - there[0] : x1 - there[0]] >= INK
    ink[y0 - place[1] : y1 - place[1], x0 - place[0] : x1 - place[0]] &= ~hidden
    return ink


def _shift(image_HWC: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """The picture moved by whole pixels, its edge repeated."""
    height, width = image_HWC.shape[:2]
    rows = np.clip(np.arange(height) - dy, 0, height - 1)
    cols = np.clip(np.arange(width) - dx, 0, width - 1)
    return image_HWC[rows][:, cols]
