"""The teacher's eyes and hand: what coarse eyes see of the truth, where it points, and the mistakes it makes on purpose.

The teacher must not act on what its pupil cannot see. It sees colours everywhere, shapes only of what is large on the pupil's view, and
no small print; so it tries candidates of the right colour and lets the tools say what they are. It points loosely, as coarse eyes do.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pixelis.core.geometry import Box
from pixelis.data.world.item import Item
from pixelis.data.world.rng import Rng

Response = dict[str, Any]


@dataclass(frozen=True)
class Act:
    """One call with its thought; arguments as on the wire."""

    thought: str
    op: str
    arguments: dict[str, Any]
    is_mistake: bool = False


@dataclass(frozen=True)
class Final:
    """The last turn: what was concluded, and the answer in words (a letter is chosen by the session)."""

    thought: str
    answer: str


Plan = Generator[Act, Response, Final]
Part = Generator[Act, Response, Any]

GRID = 10
"""Coordinates the teacher writes are multiples of this: finer is beyond coarse eyes."""
MARGIN = 0.25
"""Room around a thing on each side, in its longer side."""
SIGN_MARGIN, CARD_MARGIN = 0.5, 0.3
"""The same around a sign and a card, in the shorter side: what is cut off cannot be read, and coarse eyes miss a card's edge by as much."""
MAX_LOOKS, _LOOK, _EXTENT = 6, 0.9, 0.5
"""Looks before a call in one careful trace, how often such a call has one, and how often that is an extent before a measurement."""
_LOOKED_BEFORE = ("PROP", "OCR", "SEG")
"""Calls that a careful trace looks before."""
VIEW_PX = 320
"""Longer side of the pupil's view."""
BLUR_PX, CLEAR_PX = 6.0, 14.0
"""Sizes on the view between which a shape goes from unseen to seen."""


@dataclass(frozen=True)
class Habits:
    """How often the teacher errs on purpose, to show how errors are mended.

    Args:
        miss: share of pointing calls that first point beside the thing.
        slip: share of calls that are first written wrongly, so that a typed error comes back.
        shake: jitter of what it points at, in the thing's longer side.
        blind: share of lists of candidates that leave some out or hold a place where nothing is, as coarse eyes write them.
        lost: share of searches that find nothing, look at the same places over again, and then give up; see `search._lost`.
        terse: share of traces that leave checks out: they trust their eyes where those can tell, and read nothing twice.
        careful: share of the other traces that look at a place closely, or take its extent, before they measure or read there.
    """

    miss: float = 0.02
    slip: float = 0.01
    shake: float = 0.06
    blind: float = 0.3
    lost: float = 0.0
    terse: float = 0.0
    careful: float = 0.0


@dataclass(frozen=True)
class Seen:
    """A thing as it looks on one frame."""

    number: int
    kind: str
    colour: str
    shape: str
    box: Box
    frame: int

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape or self.kind}"


def seen_on(item: Item, frame: int) -> list[Seen]:
    """Shapes, signs and panels on a frame, from left to right."""
    found = []
    for thing in item.truth.objects:
        box = thing.track[frame] if thing.track else thing.box
        if box is None or thing.kind not in ("shape", "sign", "panel"):
            continue
        after = [e.after for e in item.truth.events if e.kind == "changes" and e.number == thing.number and e.frame <= frame]
        found.append(Seen(thing.number, thing.kind, after[-1] if after else thing.colour, thing.shape, box, frame))
    return sorted(found, key=lambda s: (s.box.centre[0], s.box.centre[1]))


def grid_box(box: Box, *, width: float, height: float) -> list[int]:
    """A box in pixels on the wire: grown to multiples of `GRID`, inside the frame, never empty."""
    left, top, right, bottom = (
        round(v, 6) for v in (box.x0 * 1000 / width, box.y0 * 1000 / height, box.x1 * 1000 / width, box.y1 * 1000 / height)
    )
    low = [min(int(max(0.0, v) // GRID * GRID), 1000 - GRID) for v in (left, top)]
    high = [int(min(1000.0, -(-v // GRID) * GRID)) for v in (right, bottom)]
    return [*low, max(high[0], low[0] + GRID), max(high[1], low[1] + GRID)]


@dataclass
class Hand:
    """Writes the calls of one trace and counts its steps."""

    item: Item
    rng: Rng
    habits: Habits = Habits()
    step: int = 0
    mistakes: list[int] = field(default_factory=list)
    """Places (from 0) of the steps that are mistakes on purpose."""
    shapes: dict[tuple[int, int], tuple[str, int]] = field(default_factory=dict)
    """Shapes that were measured and the steps that did it, by a thing's number and the frame."""
    has_given_up: bool = False
    """A search came to nothing, on purpose."""
    is_terse: bool = field(init=False)
    """This trace leaves checks out."""
    is_careful: bool = field(init=False)
    """This trace looks before it measures."""
    num_looks: int = 0

    def __post_init__(self) -> None:
        self.is_terse = bool(self.habits.terse) and self.rng.chance(self.habits.terse)
        self.is_careful = not self.is_terse and bool(self.habits.careful) and self.rng.chance(self.habits.careful)

    # ------------------------------------------------------------ seeing

    @property
    def last_frame(self) -> int:
        return self.item.num_frames - 1

    def thing(self, number: int, frame: int = 0) -> Seen:
        return next(s for s in seen_on(self.item, frame) if s.number == number)

    def is_clear(self, seen: Seen) -> bool:
        """Whether the pupil can make the shape out; by chance in between."""
        size = max(seen.box.width, seen.box.height) * VIEW_PX / max(self.item.width, self.item.height)
        return self.rng.uniform(BLUR_PX, CLEAR_PX) < size

    def candidates(self, colour: str, shape: str, frame: int) -> list[Seen]:
        """Things of that colour, what is clearly of that shape first, else from left to right."""
        alike = [s for s in seen_on(self.item, frame) if s.kind == "shape" and s.colour == colour]
        return sorted(alike, key=lambda s: not (s.shape == shape and self.is_clear(s)))

    # ------------------------------------------------------------ pointing

    def at(self, box: Box, frame: int = 0, *, margin: float = MARGIN, side: float | None = None) -> dict[str, Any]:
        """Arguments that point at a box, loosely.

        Args:
            margin: room on each side, in the box's longer side; `side` in pixels instead of that side.
        """
        reach = side if side is not None else max(box.width, box.height)
        shake = self.habits.shake * reach
        dx, dy = self.rng.uniform(-shake, shake), self.rng.uniform(-shake, shake)
        grown = box.grow(margin * reach)
        moved = Box(grown.x0 + dx, grown.y0 + dy, grown.x1 + dx, grown.y1 + dy)
        return {"bbox_2d": self.wire(moved), **self.moment(frame)}

    def wire(self, box: Box) -> list[int]:
        """A box on the wire, out to the grid and inside the frame."""
        return grid_box(box, width=self.item.width, height=self.item.height)

    def moment(self, frame: int) -> dict[str, Any]:
        return {"frame": round(frame / self.item.fps, 1)} if self.item.fps and frame else {}

    # ------------------------------------------------------------ acting

    def act(self, thought: str, op: str, arguments: dict[str, Any], *, is_listed: bool = False, is_flawed: bool = False) -> Part:
        """A call, perhaps with a mistake before it; the response of the right one.

        Args:
            is_listed: it goes to a place from a list; what a list can get wrong is the list's affair, see `search.listings`.
            is_flawed: the call itself, or the list before it, is a mistake on purpose.
        """
        if self.is_careful and op in _LOOKED_BEFORE and "bbox_2d" in arguments and self.num_looks < MAX_LOOKS and self.rng.chance(_LOOK):
            thought = yield from self._look(thought, op, arguments, is_listed=is_listed, is_flawed=is_flawed)
        mistake = self._mistake(op, arguments, may_miss=not is_listed)
        if mistake is not None:
            self.mistakes.append(self.step)
            self.step += 1
            wrong_op, wrong = mistake
            response = yield Act(thought, wrong_op, wrong, is_mistake=True)
            lead = "That call was wrong" if "error" in response else "That missed"
            thought = f"{lead}. {thought}"
        if is_flawed:
            self.mistakes.append(self.step)
        self.step += 1
        return (yield Act(thought, op, arguments, is_mistake=is_flawed))

    def _look(self, thought: str, op: str, arguments: dict[str, Any], *, is_listed: bool, is_flawed: bool) -> Part:
        """A closer look at a place, or its extent, before the call that needs it; what is thought before that call.

        The last sentence is said once more: what the call is for would else lie a turn back. A place from a list is not zoomed into: such
        a view counts only where it shows what is asked for.
        """
        first = "SEG" if op == "PROP" and (is_listed or self.rng.chance(_EXTENT)) else "ZOOM"
        at = self.step
        self.step += 1
        self.num_looks += 1
        said = "First its extent." if first == "SEG" else "First I look closely."
        place = {key: arguments[key] for key in ("bbox_2d", "frame") if key in arguments}
        response = yield Act(f"{thought} {said}", first, place, is_mistake=is_flawed)
        again = re.split(r"(?<=[.?]) ", thought.strip())[-1]
        if is_flawed or "error" in response:
            self.mistakes.append(at)
        return f"That call was wrong. {again}" if "error" in response else again

    def _mistake(self, op: str, arguments: dict[str, Any], *, may_miss: bool) -> tuple[str, dict[str, Any]] | None:
        box = arguments.get("bbox_2d")
        if box is not None and may_miss and self.rng.chance(self.habits.miss):
            return op, arguments | {"bbox_2d": self._beside(box)}
        if self.rng.chance(self.habits.slip):
            if box is not None:
                return op, arguments | {"bbox_2d": [box[2], box[3], box[0], box[1]]}
            if "ref" in arguments:
                return op, arguments | {"ref": self.step + self.rng.integer(2, 6)}
        return None

    def _beside(self, box: Sequence[int]) -> list[int]:
        """A box of the same size that does not touch the right one."""
        width, height = box[2] - box[0], box[3] - box[1]
        dx = width + self.rng.integer(10, 60)
        x0 = box[0] + dx if box[2] + dx <= 1000 else max(0, box[0] - dx)
        y0 = min(max(0, box[1] + self.rng.integer(-30, 30)), 1000 - height)
        return [x0, y0, min(1000, x0 + width), y0 + height]


def quarter(box: Sequence[int]) -> str:
    """Which quarter of the picture a box on the wire lies in, by its middle."""
    x0, y0, x1, y1 = box
    return f"{'top' if y0 + y1 < 1000 else 'bottom'} {'left' if x0 + x1 < 1000 else 'right'}"
