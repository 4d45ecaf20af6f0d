"""How the teacher looks for a thing: it lists what may be it, lets PROP say the shape of one after another, looks again, and gives up.

Lists are as coarse eyes write them: some leave out what a later look finds, hold a place where nothing is, or lead nowhere at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pixelis.core.geometry import Box
from pixelis.rollout.teacher.hand import Final, Hand, Part, Response, Seen, seen_on


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


LOOK_AGAIN = "I look again. "
"""What a further list begins with."""


def list_boxes(what: str, boxes: Sequence[Sequence[int]]) -> str:
    """What is seen, before any of it is tried: what follows copies from here, and knows when there is no more. `Red: [..] [..]. `"""
    return f"{what.capitalize()}: {' '.join(str(list(box)) for box in boxes)}. "


def find(hand: Hand, name: str, frame: int = 0, *, only: Sequence[int] | None = None, lead: str = "", goal: str = "") -> Part:
    """Look for a thing by colour, list what may be it, and let PROP say the shape of one after another.

    What was measured before is not measured again. A terse trace measures nothing of a thing that its eyes can tell.

    Args:
        name: "red star".
        only: numbers of the things to try, where the question says more than the name does.
        lead: what the thought begins with: what was found before.
        goal: what the thing is looked for; said before the first try, where all that follows can see it.

    Returns:
        (arguments that point at it or None, the thing or None, what the next thought should begin with).
    """
    colour, _, shape = name.partition(" ")
    possible = [seen for seen in hand.candidates(colour, shape, frame) if only is None or seen.number in only]
    for seen in possible:
        said, step = hand.shapes.get((seen.number, frame), ("", 0))
        if said == shape:
            return {"ref": step}, seen, f"{lead}{goal}Step {step} is the {name}. "
    trusted = trust(hand, possible, shape) if hand.is_terse else None
    if trusted is not None:
        places = {seen.number: hand.at(seen.box, frame) for seen in possible[:MAX_LISTED]}
        listed = list_boxes(colour, [place["bbox_2d"] for place in places.values()])
        place = places[trusted.number]
        return place, trusted, f"{lead}{goal}{listed}The {name}: {place['bbox_2d']}. "
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
                return {"ref": hand.step}, seen, f"Yes, step {hand.step} is the {name}. "
            lead = f"No, {said or 'nothing'}. "
    return None, None, lead


def trust(hand: Hand, possible: Sequence[Seen], shape: str) -> Seen | None:
    """The thing of a shape that eyes alone can tell, because it is clear or the only one that it can be; None where they cannot.

    Args:
        possible: what it may be, the likeliest first.
    """
    first = possible[0] if possible else None
    return first if first is not None and first.shape == shape and (len(possible) == 1 or hand.is_clear(first)) else None


def absent(name: str, lead: str) -> Final:
    return Final(f"{lead}I see no other {name.split()[0]} thing." if lead else f"I see no {name}.", f"there is no {name}")
