"""How the teacher answers questions about shapes in one picture, and those that need no tool."""

from __future__ import annotations

from typing import Any

from pixelis.data.world.asides import NUMBER_WORDS
from pixelis.data.world.raster import SHAPES
from pixelis.rollout.teacher.hand import CARD_MARGIN, Final, Hand, Part, Plan, seen_on
from pixelis.rollout.teacher.search import absent, find, listings, trust, value_of
from pixelis.rollout.teacher.sums import choose_aloud


def attribute(hand: Hand) -> Plan:
    """The spot on a shape, the shape of a colour, or the colour of a shape."""
    phrase, number = hand.item.mentions[0]
    if "spot" in hand.item.question or "dot" in hand.item.question:
        return (yield from spot(hand, phrase))
    if phrase.endswith(" object"):
        seen = hand.thing(number)
        response = yield from hand.act(f"I measure the {phrase}.", "PROP", {"what": "shape", **hand.at(seen.box)})
        return Final(f"It is a {value_of(response, 'shape')}.", str(value_of(response, "shape")))
    return (yield from _colour_of(hand, phrase))


def _colour_of(hand: Hand, shape: str) -> Plan:
    """The one thing of a shape, whatever its colour."""
    things = [s for s in seen_on(hand.item, 0) if s.kind == "shape"]
    chosen = sorted(things, key=lambda s: not (s.shape == shape and hand.is_clear(s)))
    lead = f"What colour is the {shape}? "
    trusted = trust(hand, chosen, shape) if hand.is_terse else None
    if trusted is not None:
        response = yield from hand.act(f"{lead}I see the {shape}.", "PROP", {"what": "colour", **hand.at(trusted.box)})
        return Final(f"It is {value_of(response, 'colour')}.", str(value_of(response, "colour")))
    for listing in listings(hand, chosen, wanted=shape, name=shape):
        lead += listing.said("things")
        for number in range(len(listing.entries)):
            said = yield from listing.try_next(hand, number, f"{lead}Is this the {shape}?")
            if said == shape:
                found, hand.has_given_up = hand.step, False
                response = yield from hand.act("Yes. Now its colour.", "PROP", {"what": "colour", "ref": found})
                return Final(f"It is {value_of(response, 'colour')}.", str(value_of(response, "colour")))
            lead = f"No, {said or 'nothing'}. "
    return Final(f"{lead}There is no other.", f"there is no {shape}")


def spot(hand: Hand, name: str) -> Plan:
    place, seen, lead = yield from find(hand, name, goal=f"Which spot is on the {name}? ")
    if seen is None:
        return absent(name, lead)
    yield from hand.act(f"{lead}I look closely.", "ZOOM", place)
    inner = [t for t in hand.item.truth.objects if t.kind == "spot" and seen.box.intersect(t.box).area > 0]
    if not inner:
        return Final("I see no spot on it.", "there is no spot")
    return Final(f"The spot is {inner[0].colour}.", inner[0].colour)


def count(hand: Hand) -> Plan:
    if hand.item.mentions:
        phrase, number = hand.item.mentions[0]
        card = hand.thing(number)
        args = hand.at(card.box, margin=CARD_MARGIN, side=min(card.box.width, card.box.height))
        yield from hand.act(f"I take the {phrase}.", "SEG", args)
        response = yield from hand.act("I count what lies on it.", "PROP", {"what": "count", "ref": hand.step})
        return Final(f"There are {value_of(response, 'count')}.", str(value_of(response, "count")))
    words = hand.item.question.replace("?", " ").replace(".", " ").split()
    shape = next(s for w in words for s in SHAPES if w in (f"{s}s", f"{s}es"))
    colour = words[next(i for i, w in enumerate(words) if w.startswith(shape)) - 1]
    things = [s for s in seen_on(hand.item, 0) if s.kind == "shape" and s.colour == colour]
    num, lead = 0, f"I count each {colour} {shape}. "
    for listing in listings(hand, things):
        lead += listing.said(colour)
        for number in range(len(listing.entries)):
            said = yield from listing.try_next(hand, number, f"{lead}Is this a {shape}?")
            num += said == shape
            lead = f"Yes: {num}. " if said == shape else f"No: {num}. "
    return Final(f"{lead}There is no other {colour} thing.", str(num))


def size_compare(hand: Hand) -> Plan:
    names = in_question(hand)
    areas: list[tuple[str, str]] = []
    lead = still_to_measure(names)
    for number, name in enumerate(names, start=1):
        place, seen, lead = yield from find(hand, name, lead=lead, goal=f"How large is the {name}? ")
        if seen is None:
            return absent(name, lead)
        response = yield from hand.act(f"{lead}I take its extent.", "SEG", place)
        areas.append((plain(response.get("area", 0.0)), name))
        lead = f"{areas[-1][0]}. {still_to_measure(names, number)}"
    is_small = "small" in hand.item.question
    if "larger or smaller" in hand.item.question:
        thought, won = choose_aloud(areas, wants_large=True)
        answer = "larger" if won == areas[0][1] else "smaller"
        return Final(f"{lead}Is it larger or smaller? {thought}: {answer}.", answer)
    thought, won = choose_aloud(areas, wants_large=not is_small)
    return Final(f"{lead}Which is {'smaller' if is_small else 'larger'}? {thought}.", won)


def still_to_measure(names: list[str], done: int = 0) -> str:
    """Said where there are three or more things: else the last is forgotten."""
    return f"Left: {', '.join(names[done:]) or 'none'}. " if len(names) > 2 else ""


def plain(number: float) -> str:
    """A measured number in plain decimals, as results show it."""
    text = f"{float(number):.5f}".rstrip("0")
    return text + "0" if text.endswith(".") else text


def in_question(hand: Hand) -> list[str]:
    """The names of the question, in its order; what is absent too."""
    names = [name for name, _ in hand.item.mentions] + list(hand.item.absent)
    return sorted(names, key=hand.item.question.find)


def relation(hand: Hand) -> Plan:
    question, names = hand.item.question, in_question(hand)
    found = yield from _find_all(hand, names)
    if isinstance(found, Final):
        return found
    places, lead = found
    if "closer" in question or "nearer" in question:
        return (yield from _closer(hand, names, places, lead))
    response = yield from hand.act(f"{lead}How do they lie?", "PROP", _between(*places))
    level = "left" in question or "right" in question
    said = str(value_of(response, "horizontal" if level else "vertical") or "")
    side = next((w for w in ("left", "right", "above", "below") if said.startswith(w)), "level")
    is_open = any(w in question for w in ("left or", "above or"))
    if is_open:
        return Final(f"It is {side}.", side)
    asked = next(w for w in ("left", "right", "above", "below") if f" {w} " in question)
    answer = "yes" if side == asked else "no"
    return Final(f"It is {side}; asked: {asked}: {answer}.", answer)


def _find_all(hand: Hand, names: list[str]) -> Part:
    places, lead = [], ""
    for name in names:
        place, seen, lead = yield from find(hand, name, lead=lead, goal=f"Where is the {name}? ")
        if seen is None:
            return absent(name, lead)
        places.append(place)
    return places, lead


def _between(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Arguments that ask how two places lie to each other."""
    return {"what": "relation", **one, "other": other["ref"] if "ref" in other else other["bbox_2d"]}


def _closer(hand: Hand, names: list[str], places: list[dict[str, Any]], lead: str) -> Plan:
    """Both wordings name the anchor behind "closer to the" or "nearer to the"."""
    question = hand.item.question
    mark = question.find("closer to the") + question.find("nearer to the") + 1
    anchor = min(range(3), key=lambda i: question.find(names[i]) if question.find(names[i]) > mark else len(question))
    reach: list[tuple[str, str]] = []
    for i in (k for k in range(3) if k != anchor):
        asked = f"{lead}How far is the {names[i]} from the {names[anchor]}?"
        response = yield from hand.act(asked, "PROP", _between(places[i], places[anchor]))
        reach.append((plain(value_of(response, "distance") or 9.0), names[i]))
        lead = f"{reach[-1][0]}. "
    thought, won = choose_aloud(reach, wants_large=False)
    return Final(f"{lead}Which is closer? {thought}.", won)


def no_tool(hand: Hand) -> Plan:
    """What is seen at a glance, or needs no picture; said in words before a letter is chosen."""
    question, answer = hand.item.question, hand.item.plain_answer
    words = question.replace("?", " ").replace(".", " ").split()
    numbers = [NUMBER_WORDS.index(w) if w in NUMBER_WORDS else int(w) for w in words if w in NUMBER_WORDS or w.isdigit()]
    if len(numbers) == 2:
        return Final(f"{numbers[0]}+{numbers[1]}={answer}.", answer)
    if answer in ("dark", "light"):
        return Final(f"The background is {answer}.", answer)
    if answer.isdigit():
        return Final(f"I see {answer} at once.", answer)
    if answer not in SHAPES:
        return Final(f"I see at once that it is {answer}.", answer)
    # Coarse eyes know a large thing's shape in half of the cases only: it is measured.
    response = yield from hand.act(
        "I measure the large thing.", "PROP", {"what": "shape", **hand.at(hand.thing(hand.item.mentions[0][1]).box)}
    )
    return Final(f"It is a {value_of(response, 'shape')}.", str(value_of(response, "shape")))


def false_premise(hand: Hand) -> Plan:
    """Something that is not there: tried like anything else."""
    name = hand.item.absent[0]
    if name.endswith(" sign"):
        return Final(f"I see no {name}.", f"there is no {name}")
    question = hand.item.question
    if "spot" in question or "dot" in question:
        return (yield from spot(hand, name))
    return (yield from (relation(hand) if "left" in question else size_compare(hand)))
