"""Glances: endless small views of PixelWorld scenes with what can be seen in them, for learning to see.

Half of the scenes are set up by the image and video families, half hold things of any size anywhere. Backgrounds are drawn once and
shared, because drawing them costs more than all the rest. Only what a split may use is used.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pixelis.core.geometry import Box
from pixelis.data.world.clutter import draw_clutter
from pixelis.data.world.colours import COLOURS
from pixelis.data.world.items import FAMILIES
from pixelis.data.world.layouts import Crowded, Placer
from pixelis.data.world.raster import SHAPES
from pixelis.data.world.rng import Rng
from pixelis.data.world.scene import Scene
from pixelis.data.world.studio import IMAGE_SIZES, LARGE_SIZES, LARGE_VIDEO_SIZES, VIDEO_SIZES, Sizes, Studio
from pixelis.data.world.words import draw_style, draw_words

COLOUR_NAMES = tuple(COLOURS)
KIND_NAMES = (*SHAPES, "sign", "panel", "spot")
"""What a thing can be: its shape, or what it is for."""


@dataclass(frozen=True)
class Sight:
    """One thing in a glance: its box in [0, 1] of the picture, and indices into `COLOUR_NAMES` and `KIND_NAMES`."""

    box: tuple[float, float, float, float]
    colour: int
    kind: int

    @property
    def name(self) -> str:
        return f"{COLOUR_NAMES[self.colour]} {KIND_NAMES[self.kind]}"


@dataclass(frozen=True)
class Glance:
    image_HWC: np.ndarray
    """uint8, at the scene's own size; a crop where the glance is a close look."""
    is_frame: bool
    """Shown as a video's frame is shown: smaller."""
    things: tuple[Sight, ...]


class Glances:
    """Draws glances one after another; the same seed draws the same ones.

    Args:
        backdrops: backgrounds kept per size and name.
        close: share of close looks, as a zoom shows them.
        is_cluttered: the same scenes, each over clutter instead of its background.
    """

    def __init__(self, seed: int, *, split: str = "train", backdrops: int = 2, close: float = 0.12, is_cluttered: bool = False) -> None:
        self._seed, self._split, self._num, self._close, self._is_cluttered = seed, split, backdrops, close, is_cluttered
        self._backdrops: dict[tuple, np.ndarray] = {}

    def __iter__(self) -> Iterator[Glance]:
        return (self.make(k) for k in itertools.count())

    def make(self, number: int) -> Glance:
        """Glance `number`."""
        for attempt in itertools.count():
            rng = Rng("glance", self._split, self._seed, number, attempt)
            try:
                return self._make(rng, number)
            except Crowded:
                continue
        raise AssertionError

    def _make(self, rng: Rng, place: int) -> Glance:
        family = FAMILIES[rng.choice(tuple(FAMILIES))] if rng.chance(0.5) else None
        is_video = family.length_s is not None if family else rng.chance(0.4)
        sizes: Sizes = family.sizes if family else (VIDEO_SIZES + LARGE_VIDEO_SIZES if is_video else IMAGE_SIZES + LARGE_SIZES)
        studio = self._studio(rng, sizes, is_video, family.length_s if family else None)
        if family:
            family.make(studio)
        else:
            _scatter(studio)
        scene = studio.scene
        frame = rng.choice((0, scene.num_frames - 1, rng.integer(0, scene.num_frames - 1))) if scene.num_frames > 1 else 0
        if self._is_cluttered:  # only now, so that the things are those of the plain scene
            chance = Rng("clutter", self._split, self._seed, place)
            scene.__dict__["backdrop"] = draw_clutter(chance, scene.width, scene.height)
        image = scene.draw(frame)
        seen = [(number, box) for number in range(len(scene.things)) if (box := scene.box(number, frame)) is not None]
        whole = Box(0, 0, scene.width, scene.height)
        if rng.chance(self._close) and seen:
            whole = _close_look(rng, scene, seen[rng.integer(0, len(seen) - 1)][1])
            x0, y0, x1, y1 = whole.pixels(width=scene.width, height=scene.height)
            image = image[y0:y1, x0:x1]
        things = [sight for number, box in seen if (sight := _sight(scene, number, frame, box, whole)) is not None]
        return Glance(np.ascontiguousarray(image), is_video, tuple(sorted(things, key=lambda s: (s.box[0] + s.box[2], s.box[1]))))

    def _studio(self, rng: Rng, sizes: Sizes, is_video: bool, length_s: tuple[float, float] | None) -> Studio:
        style = draw_style(rng, self._split)
        width, height = rng.choice(sizes)
        fps = rng.choice((4, 5, 6)) if is_video and length_s else 0
        num_frames = round(length_s[0] * fps) if length_s and fps else 1
        scene = Scene(width, height, (style.background, ("glance",)), num_frames, fps)
        key = (width, height, style.background, rng.integer(0, self._num - 1))
        if key not in self._backdrops:
            self._backdrops[key] = Scene(width, height, (style.background, (self._split, self._seed, *key))).backdrop
        scene.__dict__["backdrop"] = self._backdrops[key]  # a cached property: drawn once for all
        return Studio(rng, self._split, style, scene, Placer(rng, style.layout, width, height, margin_px=6))


def _scatter(studio: Studio) -> None:
    """Things of any size: mostly small ones, sometimes large ones, signs, cards with small things, spots."""
    rng = studio.rng
    if rng.chance(0.25):
        big = min(studio.scene.width, studio.scene.height)
        for pair in studio.pairs(rng.integer(1, 2)):
            studio.add_shape(*pair, rng.integer(big * 20 // 100, big * 42 // 100))
    if rng.chance(0.4):
        studio.add_signs(draw_words(rng, studio.split, rng.integer(1, 4)))
    if rng.chance(0.2):
        for colour in rng.sample(("white", "black", "brown", "grey"), rng.integer(1, 2)):
            studio.add_panel(colour, rng.integer(120, 260), rng.integer(90, 200))
    few, many = 2, 10
    try:
        for colour, shape in studio.pairs(rng.integer(few, many)):
            size = rng.integer(14, 36) if rng.chance(0.65) else rng.integer(30, 90)
            for _ in range(rng.choice((1, 1, 1, 2))):
                studio.add_shape(colour, shape, size + rng.integer(0, 4), gap_px=8)
    except Crowded:
        if len(studio.scene.things) < few:
            raise


def _close_look(rng: Rng, scene: Scene, box: Box) -> Box:
    """What a zoom at a thing would show: the thing with more or less around it."""
    side = max(box.width, box.height, 16.0)
    grown = box.grow(side * rng.uniform(0.1, 0.8))
    dx, dy = rng.uniform(-0.2, 0.2) * side, rng.uniform(-0.2, 0.2) * side
    moved = Box(grown.x0 + dx, grown.y0 + dy, grown.x1 + dx, grown.y1 + dy)
    return moved.clip(width=scene.width, height=scene.height)


def _sight(scene: Scene, number: int, frame: int, box: Box, whole: Box) -> Sight | None:
    """A thing as part of a glance; None for what has no name, or lies mostly outside."""
    thing = scene.things[number]
    look = thing.look(frame)
    kind = look.shape if thing.kind == "shape" else thing.kind
    if kind not in KIND_NAMES or look.colour not in COLOURS:
        return None
    shown = box.intersect(whole)
    if box.area <= 0 or shown.area < 0.6 * box.area:
        return None
    place = tuple(
        (value - start) / length
        for value, start, length in zip(shown.as_tuple(), (whole.x0, whole.y0) * 2, (whole.width, whole.height) * 2, strict=True)
    )
    return Sight(place, COLOUR_NAMES.index(look.colour), KIND_NAMES.index(kind))
