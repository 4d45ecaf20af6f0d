"""The teacher's eyes and hand: what coarse eyes see of the truth, where it points, and the mistakes it makes on purpose.

The teacher must not act on what its pupil cannot see. It sees colours everywhere, shapes only of what is large on the pupil's view, and
no small print; so it tries candidates of the right colour and lets the tools say what they are. It points loosely, as coarse eyes do.
"""

from __future__ import annotations

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
        lost: share of searches that find nothing, look at the same places over again, and then give up; see `_lost`.
    """

    miss: float = 0.02
    slip: float = 0.01
    shake: float = 0.06
    blind: float = 0.3
    lost: float = 0.0


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
            is_listed: it goes to a place from a list; what a list can get wrong is the list's affair, see `listings`.
            is_flawed: the call itself, or the list before it, is a mistake on purpose.
        """
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


def value_of(response: Response, name: str) -> Any:
    """The value of a measured attribute; None where it is not there."""
    return next((a.get("value") for a in response.get("attributes", []) if a.get("name") == name), None)


MAX_LISTED = 6
"""Candidates that are listed at a time, before the first of them is tried."""
_LEFT_OUT, _GHOST, _GHOST_TRIES = 0.35, 0.5, 12


Entry = tuple[dict[str, Any], Seen | None]
"""Arguments that point at a place, and what is there; None where nothing is."""


@dataclass(frozen=True)
class Listing:
    """Places to try, as one thought lists them."""

    entries: tuple[Entry, ...]
    is_flawed: bool
    """It leaves something out, or holds a place where nothing is."""
    is_further: bool
    """Not the first of its search."""

    def said(self, what: str) -> str:
        """`Red: [..] [..]. `, after what a further list begins with."""
        return (LOOK_AGAIN if self.is_further else "") + list_boxes(what, [place["bbox_2d"] for place, _ in self.entries])

    def try_next(self, hand: Hand, number: int, thought: str) -> Part:
        """Let PROP say the shape of entry `number`; its name, or None. A try that a mistake led to is one itself."""
        place, seen = self.entries[number]
        is_flawed = seen is None or (number == 0 and self.is_flawed)
        response = yield from hand.act(thought, "PROP", {"what": "shape", **place}, is_listed=True, is_flawed=is_flawed)
        return value_of(response, "shape")


def listings(hand: Hand, things: Sequence[Seen], frame: int = 0, *, wanted: str = "", name: str = "") -> list[Listing]:
    """Candidates as coarse eyes list them: some lists leave out what a later look finds, or hold a place where nothing is.

    Args:
        wanted: the shape that is looked for; empty where all are counted.
        name: the thing that is looked for, as the question has it.
    """
    may_give_up = bool(wanted) and (hand.item.choices or name in hand.item.absent)  # else the answer would be wrong
    if may_give_up and hand.habits.lost and hand.rng.chance(hand.habits.lost):
        found = _lost(hand, [s for s in things if s.shape != wanted], frame, wanted, is_complete=all(s.shape != wanted for s in things))
        if found:
            return found
    left_out: list[Seen] = []
    ghost = None
    if things and hand.rng.chance(hand.habits.blind):
        left_out = [seen for seen in things if hand.rng.chance(_LEFT_OUT)]
        if hand.rng.chance(_GHOST) or len(left_out) == len(things):
            ghost = _ghost(hand, things, frame)
        if ghost is None and len(left_out) == len(things):
            left_out = []
    first: list[Entry] = [(hand.at(s.box, frame), s) for s in things if s not in left_out]
    is_flawed = bool(left_out) or ghost is not None
    if ghost is not None:
        first.insert(hand.rng.integer(0, len(first)), (ghost, None))
    rest: list[Entry] = [(hand.at(s.box, frame), s) for s in left_out]
    found: list[Listing] = []
    for entries, flawed in ((first, is_flawed), (rest, False)):
        for start in range(0, len(entries), MAX_LISTED):
            found.append(Listing(tuple(entries[start : start + MAX_LISTED]), flawed, is_further=bool(found)))
    return found


_PLACES, _REPEATS = 3, 3


def _lost(hand: Hand, things: Sequence[Seen], frame: int, wanted: str, *, is_complete: bool) -> list[Listing]:
    """A search that cannot end well: what it lists is not what is looked for, and further looks list the same places again.

    This is how a pupil goes astray whose eyes take one colour for another: it sees no more, and looks again for as long as it may. All
    of it is a mistake on purpose, but for a list that holds all there is. What is to be learnt is to stop.

    Args:
        things: what may be listed; where there is nothing, a thing of another colour is.
        is_complete: the thing is not there; the first list then leaves nothing out.
    """
    others = [s for s in seen_on(hand.item, frame) if s.kind == "shape" and s.shape != wanted]
    places = list(things) or ([hand.rng.choice(others)] if others else [])
    if not places:
        return []
    hand.has_given_up = True
    is_complete = is_complete and len(things) == len(places[:_PLACES])
    places = places[:_PLACES]
    entries = tuple((hand.at(s.box, frame), s if is_complete else None) for s in places)
    listed = [Listing(entries, is_flawed=not is_complete, is_further=False)]
    for _ in range(hand.rng.integer(1, _REPEATS)):
        some = [k for k in range(len(places)) if hand.rng.chance(0.6)] or [hand.rng.integer(0, len(places) - 1)]
        is_same = hand.rng.chance(0.6)  # else near it, as another look has it
        again = tuple((entries[k][0] if is_same else hand.at(places[k].box, frame), None) for k in some)
        listed.append(Listing(again, is_flawed=True, is_further=True))
    return listed


def _ghost(hand: Hand, things: Sequence[Seen], frame: int) -> dict[str, Any] | None:
    """A place with nothing there: the column of one thing and the row of another, as mixed-up eyes have it; None where there is no room."""
    everything, size = seen_on(hand.item, frame), things[0].box
    for _ in range(_GHOST_TRIES):
        x, y = hand.rng.choice(everything).box.centre[0], hand.rng.choice(everything).box.centre[1]
        box = Box(x - size.width / 2, y - size.height / 2, x + size.width / 2, y + size.height / 2)
        near = box.grow(max(size.width, size.height))
        if box.clip(width=hand.item.width, height=hand.item.height) == box and not any(near.intersect(s.box).area for s in everything):
            return hand.at(box, frame)
    return None


def quarter(box: Sequence[int]) -> str:
    """Which quarter of the picture a box on the wire lies in, by its middle."""
    x0, y0, x1, y1 = box
    return f"{'top' if y0 + y1 < 1000 else 'bottom'} {'left' if x0 + x1 < 1000 else 'right'}"


LOOK_AGAIN = "I look again. "
"""What a further list begins with."""


def list_boxes(what: str, boxes: Sequence[Sequence[int]]) -> str:
    """What is seen, before any of it is tried: what follows copies from here, and knows when there is no more. `Red: [..] [..]. `"""
    return f"{what.capitalize()}: {' '.join(str(list(box)) for box in boxes)}. "


def find(hand: Hand, name: str, frame: int = 0, *, only: Sequence[int] | None = None, lead: str = "", goal: str = "") -> Part:
    """Look for a thing by colour, list what may be it, and let PROP say the shape of one after another.

    What was measured before is not measured again.

    Args:
        name: "red star".
        only: numbers of the things to try, where the question says more than the name does.
        lead: what the thought begins with: what was found before.
        goal: what the thing is looked for; said before the first try, where all that follows can see it.

    Returns:
        (step that found it or None, the thing or None, what the next thought should begin with).
    """
    colour, _, shape = name.partition(" ")
    possible = [seen for seen in hand.candidates(colour, shape, frame) if only is None or seen.number in only]
    for seen in possible:
        said, step = hand.shapes.get((seen.number, frame), ("", 0))
        if said == shape:
            return step, seen, f"{lead}{goal}Step {step} is the {name}. "
    untried = [seen for seen in possible if (seen.number, frame) not in hand.shapes]
    for listing in listings(hand, untried, frame, wanted=shape, name=name):
        opening = ("" if listing.is_further else goal) + listing.said(colour)
        for number, (_, seen) in enumerate(listing.entries):
            said = yield from listing.try_next(hand, number, f"{lead}{opening}Is this the {name}?")
            opening = ""
            if seen is not None:
                hand.shapes[seen.number, frame] = said or "", hand.step
            if said == shape:
                hand.has_given_up = False
                return hand.step, seen, f"Yes, step {hand.step} is the {name}. "
            lead = f"No, {said or 'nothing'}. "
    return None, None, lead


def absent(name: str, lead: str) -> Final:
    return Final(f"{lead}I see no other {name.split()[0]} thing." if lead else f"I see no {name}.", f"there is no {name}")
