"""The studio in which a family sets up one item: a scene, places for things, the things themselves, and the finished item.

A family function gets a `Studio`, builds its scene through it and returns a `Draft`; `items.make_item` turns both into an `Item`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pixelis.core.geometry import Box, TimeSpan
from pixelis.core.ops import OcrArgs, PropArgs, SegArgs, TempArgs, TrackPoint, TrkArgs
from pixelis.data.world.colours import COLOURS, VIVID, Rgb, draw_rgb, names_before, stands_out
from pixelis.data.world.fonts import text_cover
from pixelis.data.world.item import PlannedCall, WorldEvent
from pixelis.data.world.layouts import Crowded, Placer
from pixelis.data.world.raster import SHAPES, plate_cover, shape_cover
from pixelis.data.world.rng import Rng
from pixelis.data.world.scene import Layer, Look, Scene, Thing
from pixelis.data.world.shifts import SHAKE_MARGIN_PX
from pixelis.data.world.words import Style

COARSE_PX = 256
"""Longer side of the coarse view: what is claimed to need a tool cannot be told there."""
COARSE_FRAMES = 8
"""Frames of the coarse view of a video."""
COARSE_CAP_PX = 2.25
"""Capitals no higher than this on the coarse view cannot be read (PP-OCR on the view enlarged again: 5 % at 2.25 px, 74 % at 3.2 px)."""
COARSE_SHAPE_PX = 5.0
"""Shapes smaller than this on the coarse view cannot be told apart."""

IMAGE_SIZES = ((640, 480), (640, 640), (720, 540), (800, 600), (800, 450), (900, 600))
LARGE_SIZES = ((960, 640), (960, 720), (1024, 640), (1024, 768), (1280, 720), (1280, 800))
"""Where small print and small shapes are lost on the coarse view."""
VIDEO_SIZES = ((640, 360), (640, 360), (640, 480), (720, 404), (800, 450))
LARGE_VIDEO_SIZES = ((960, 540), (1024, 576))
SMALL_SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "ring")
"""Shapes that also at 16 px are nothing else."""
_TILTS = {"square": 5, "diamond": 5, "cross": 8, "triangle": 10, "star": 12, "pentagon": 8, "hexagon": 8}


Sizes = tuple[tuple[int, int], ...]


@dataclass
class Draft:
    """What a family decided. `wrong` are the wrong options should it become a multiple-choice question."""

    question: str
    answer: str
    answer_kind: str
    wrong: tuple[str, ...]
    chain: tuple[PlannedCall, ...] = ()
    needs: frozenset[str] = frozenset()
    boxes: tuple[tuple[int, Box], ...] = ()
    spans: tuple[TimeSpan, ...] = ()
    accept: tuple[str, ...] = ()
    mentions: tuple[tuple[str, int], ...] = ()
    absent: tuple[str, ...] = ()
    hideable: float = 0.4
    """Share of a thing of the question that the occlusion shift may hide; nothing of a text."""
    hardness: float = 0.5
    """Of what must be seen, in [0, 1]; chain length and clutter are added."""


@dataclass
class Studio:
    rng: Rng
    split: str
    style: Style
    scene: Scene
    placer: Placer
    events: list[WorldEvent] = field(default_factory=list)
    used_pairs: set[tuple[str, str]] = field(default_factory=set)
    rewording: Rng | None = None
    """Chance for the words of a variant; None where the item's own stream words the question."""

    # ------------------------------------------------------------ chance

    def wording(self, *forms: str) -> str:
        """One of several ways to ask. The item's stream moves on all the same, so that every variant has the same scene."""
        worded = self.rng.choice(forms)
        return worded if self.rewording is None else self.rewording.choice(forms)

    @property
    def font(self) -> str:
        return self.style.fonts[0]

    @property
    def long_side(self) -> int:
        return max(self.scene.width, self.scene.height)

    def coarse(self, length_px: float) -> float:
        """A length on the coarse view."""
        return length_px * COARSE_PX / self.long_side

    def cap_px(self, low: int = 8, high: int = 16) -> int:
        """A height of capitals that can be read up close and not on the coarse view."""
        return self.rng.integer(low, max(low, min(high, int(COARSE_CAP_PX * self.long_side / COARSE_PX))))

    def small_size(self, low: int = 16, high: int = 60) -> int:
        """A size of shapes that cannot be told on the coarse view."""
        return self.rng.integer(low, max(low, min(high, int(COARSE_SHAPE_PX * self.long_side / COARSE_PX) - 1)))

    def colours(self, count: int, *, vivid: bool = False) -> list[str]:
        """Different colour names that stand out before this background."""
        names = names_before(self.scene.behind(), vivid_only=vivid)
        if len(names) < count:
            raise Crowded
        return self.rng.sample(names, count)

    def pairs(self, count: int, *, shapes: tuple[str, ...] = SHAPES, colours: list[str] | None = None) -> list[tuple[str, str]]:
        """Different (colour, shape) pairs, none used before in this scene."""
        names = colours or names_before(self.scene.behind())
        free = [(c, s) for c in names for s in shapes if (c, s) not in self.used_pairs]
        if len(free) < count:
            raise Crowded
        chosen = self.rng.sample(free, count)
        self.used_pairs.update(chosen)
        return chosen

    # ------------------------------------------------------------ things

    def shape_look(self, colour: str, shape: str, size: int, rgb: Rgb | None = None) -> Look:
        tilt = _TILTS.get(shape, 0)
        cover = shape_cover(shape, size, self.rng.integer(-tilt, tilt) if tilt else 0)
        return Look((Layer(cover, rgb or draw_rgb(self.rng, colour)),), colour, shape)

    def add_shape(self, colour: str, shape: str, size: int, *, gap_px: int = 14, within: Box | None = None) -> int:
        """A resting shape at a free place where its colour stands out."""
        look = self.shape_look(colour, shape, size)
        height, width = look.layers[0].cover.shape
        for _ in range(4):
            x, y = self.placer.place(width, height, gap_px=gap_px, within=within)
            if within is not None or stands_out(look.layers[0].rgb, self.scene.behind(Box(x, y, x + width, y + height))):
                return self.scene.add(Thing("shape", [(0, look)], [(x, y)]))
        raise Crowded

    def add_distractors(self, count: int, low: int, high: int, *, shapes: tuple[str, ...] = SHAPES) -> None:
        """Resting shapes, each unlike everything else; fewer where there is no room."""
        for colour, shape in self.pairs(count, shapes=shapes):
            try:
                self.add_shape(colour, shape, self.rng.integer(low, high))
            except Crowded:
                return

    def plate_layers(self, width: int, height: int, rgb: Rgb) -> tuple[Layer, ...]:
        """A sign's plate in the split's manner."""
        ink = _ink_on(rgb)
        soft = tuple((3 * a + b) // 4 for a, b in zip(rgb, ink, strict=True))
        manner = self.style.plate
        corner = {"rounded": 6, "pill": height // 2, "inset": 3}.get(manner, 0)
        base = Layer(plate_cover(width, height, corner), rgb)
        if manner == "framed":
            return base, Layer(plate_cover(width, height, 0, 2), ink)
        if manner == "double":
            return base, Layer(plate_cover(width - 4, height - 4, 0, 1), ink, 2, 2)
        if manner == "inset":
            return base, Layer(plate_cover(width - 4, height - 4, 2, 1), soft, 2, 2)
        if manner == "banner":
            return base, Layer(plate_cover(width, 2), soft, 0, 2), Layer(plate_cover(width, 2), soft, 0, height - 4)
        return (base,)

    def sign_look(self, colour: str, text: str, cap: int, *, size: tuple[int, int] | None = None, rgb: Rgb | None = None) -> Look:
        """A plate with one line of text in its middle; `size` fixes the plate's."""
        rgb = rgb or draw_rgb(self.rng, colour)
        ink = text_cover(text, self.font, cap) if text else None
        if size is None:
            pad_x, pad_y = self.rng.integer(8, 14), self.rng.integer(7, 11)
            size = (ink.shape[1] + 2 * pad_x + (cap if self.style.plate == "pill" else 0), ink.shape[0] + 2 * pad_y)
        layers = self.plate_layers(*size, rgb)
        if ink is not None:
            layers += (Layer(ink, _ink_on(rgb), (size[0] - ink.shape[1]) // 2, (size[1] - ink.shape[0]) // 2),)
        return Look(layers, colour, "", text.lower())

    def add_sign(self, colour: str, text: str, cap: int, *, gap_px: int = 14) -> int:
        look = self.sign_look(colour, text, cap)
        height, width = look.layers[0].cover.shape
        return self.scene.add(Thing("sign", [(0, look)], [self.placer.place(width, height, gap_px=gap_px)]))

    def add_signs(self, texts: list[str], *, low: int = 8, high: int = 16) -> tuple[list[int], list[str], int]:
        """Signs of different colours; their numbers, colours and the height of capitals."""
        colours = self.rng.sample([c for c in COLOURS if c in (*VIVID, "white", "black", "brown")], len(texts))
        cap = self.cap_px(low, high)
        return [self.add_sign(c, t, cap) for c, t in zip(colours, texts, strict=True)], colours, cap

    def add_panel(self, colour: str, width: int, height: int, *, lines: tuple[Layer, ...] = ()) -> tuple[int, Box]:
        """A plain card for other things to stand on."""
        x, y = self.placer.place(width, height)
        rgb = draw_rgb(self.rng, colour)
        look = Look((Layer(plate_cover(width, height, 4), rgb), *lines), colour)
        return self.scene.add(Thing("panel", [(0, look)], [(x, y)])), Box(x, y, x + width, y + height)

    def add_text(self, text: str, cap: float, x: int, y: int, rgb: Rgb) -> int:
        """Bare text with its upper left corner at x, y."""
        cover = text_cover(text, self.font, cap)
        return self.scene.add(Thing("text", [(0, Look((Layer(cover, rgb),), "", "", text.lower()))], [(x, y)]))

    # ------------------------------------------------------------ truth for chains

    def name(self, number: int) -> str:
        """ "red star", or "red sign"."""
        thing = self.scene.things[number]
        return f"{thing.first_look.colour} {thing.first_look.shape or thing.kind}"

    def box(self, number: int, frame: int = 0) -> Box:
        found = self.scene.box(number, frame)
        if found is None:
            raise Crowded
        return found

    @property
    def last_frame(self) -> int:
        return self.scene.num_frames - 1

    def seg(self, number: int, frame: int = 0) -> PlannedCall:
        return PlannedCall(op="SEG", args=SegArgs(frame=frame, box=self.box(number, frame), label=self.name(number)))

    def ocr(self, box: Box, frame: int = 0) -> PlannedCall:
        box = box.grow(3).clip(width=self.scene.width, height=self.scene.height)
        return PlannedCall(op="OCR", args=OcrArgs(frame=frame, box=box))

    def prop(self, what: str, number: int, *, frame: int = 0, other: int | None = None, box: Box | None = None) -> PlannedCall:
        args = PropArgs(
            what=what, frame=frame, box=box or self.box(number, frame), other_box=None if other is None else self.box(other, frame)
        )
        return PlannedCall(op="PROP", args=args)

    def trk(self, number: int, first: int = 0, last: int | None = None) -> PlannedCall:
        last = self.last_frame if last is None else last
        return PlannedCall(op="TRK", args=TrkArgs(box=self.box(number, first), first_frame=first, last_frame=last))

    def motion(self, number: int, uses: int) -> PlannedCall:
        points = []
        for frame in range(self.scene.num_frames):
            points.append(TrackPoint(frame=frame, time_s=self.scene.time_s(frame), box=self.scene.box(number, frame), score=1.0))
        args = PropArgs(what="motion", frame=0, box=self.box(number, 0), track=tuple(points))
        return PlannedCall(op="PROP", args=args, uses=uses)

    def temp(self, event: str, box: Box) -> PlannedCall:
        box = box.grow(6).clip(width=self.scene.width, height=self.scene.height)
        return PlannedCall(op="TEMP", args=TempArgs(event=event, first_frame=0, last_frame=self.last_frame, box=box))

    def happen(self, kind: str, number: int, frame: int, before: str = "", after: str = "") -> WorldEvent:
        event = WorldEvent(kind=kind, number=number, frame=frame, time_s=round(self.scene.time_s(frame), 6), before=before, after=after)
        self.events.append(event)
        return event

    def instant(self, frame: int) -> TimeSpan:
        """The stretch of one frame."""
        return TimeSpan(self.scene.time_s(frame), self.scene.time_s(frame + 1))


def _ink_on(rgb: Rgb) -> Rgb:
    """Black or white, whichever reads better."""
    bright = (77 * rgb[0] + 150 * rgb[1] + 29 * rgb[2]) >> 8
    return (18, 18, 20) if bright > 110 else (248, 248, 246)


def open_image(rng: Rng, split: str, style: Style, material: tuple, *, sizes: Sizes) -> Studio:
    width, height = rng.choice(sizes)
    scene = Scene(width, height, (style.background, material))
    return Studio(rng, split, style, scene, Placer(rng, style.layout, width, height, margin_px=14))


def open_video(rng: Rng, split: str, style: Style, material: tuple, *, min_s: float, max_s: float, sizes: Sizes) -> Studio:
    width, height = rng.choice(sizes)
    fps = rng.choice((4, 5, 6, 8, 10))
    num_frames = min(round(rng.uniform(min_s, max_s) * fps), 72)
    num_frames = max(num_frames, round(min_s * fps))
    scene = Scene(width, height, (style.background, material), num_frames, fps)
    return Studio(rng, split, style, scene, Placer(rng, style.layout, width, height, margin_px=SHAKE_MARGIN_PX))
