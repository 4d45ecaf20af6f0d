"""How the teacher answers questions about videos: who moves where, what happens when."""

from __future__ import annotations

import re

from pixelis.rollout.teacher.hand import Final, Hand, Part, Plan, quarter
from pixelis.rollout.teacher.search import absent, find, value_of
from pixelis.rollout.teacher.stills import in_question, plain
from pixelis.rollout.teacher.sums import choose_aloud
from pixelis.rollout.teacher.texts import joined

_PLACES = ("top left", "top right", "bottom left", "bottom right")


def _track(hand: Hand, name: str, goal: str, *, lead: str = "", only: tuple[int, ...] | None = None) -> Part:
    """Find a thing on the first frame, take its extent, follow it; (step, response), or a final turn when it is not there."""
    place, seen, lead = yield from find(hand, name, only=only, lead=lead, goal=goal)
    if seen is None:
        return absent(name, lead)
    yield from hand.act(f"{lead}I take its extent.", "SEG", place)
    response = yield from hand.act("I follow it.", "TRK", {"ref": hand.step})
    return hand.step, response


def where_it_ends(hand: Hand) -> Plan:
    """One of several that look the same, named by where it starts."""
    phrase, number = hand.item.mentions[0]
    name = " ".join(phrase.removeprefix("the ").split()[:2])
    start = phrase.rsplit(" in the " if " in the " in phrase else " on the ", 1)[1]
    only = tuple(s.number for s in hand.candidates(*name.split(), 0) if start in _side(hand, s.box.centre))
    found = yield from _track(hand, name, f"Where does the {name} in the {start} end? ", only=only or (number,))
    if isinstance(found, Final):
        return found
    last = next((p["bbox_2d"] for p in reversed(found[1].get("track", [])) if p.get("bbox_2d")), None)
    if last is None:
        return Final("I lost it.", "I cannot tell")
    return Final(f"It ends at {last}: {quarter(last)}.", quarter(last))


def _side(hand: Hand, centre: tuple[float, float]) -> str:
    x, y = round(centre[0] * 1000 / hand.item.width), round(centre[1] * 1000 / hand.item.height)
    return quarter([x, y, x, y])


def turn(hand: Hand) -> Plan:
    name = hand.item.mentions[0][0]
    is_after = re.search(r"after (it has turned|its turn|turning)", hand.item.question, re.IGNORECASE) is not None
    goal = f"Which way does the {name} go after its turn? " if is_after else f"How does the {name} turn? "
    found = yield from _track(hand, name, goal)
    if isinstance(found, Final):
        return found
    step, response = found
    if is_after:
        points = [p["bbox_2d"] for p in response.get("track", []) if p.get("bbox_2d")]
        if len(points) < 2:
            return Final("I lost it.", "I cannot tell")
        (ax, ay), (bx, by) = points[-2][:2], points[-1][:2]
        way = ("right" if bx > ax else "left") if abs(bx - ax) > abs(by - ay) else ("down" if by > ay else "up")
        return Final(f"From {points[-2]} to {points[-1]}: {way}.", way)
    measured = yield from hand.act("How does it turn?", "PROP", {"what": "motion", "ref": step})
    said = str(value_of(measured, "path") or "")
    return Final(f"It {said or 'goes straight'}.", next((w for w in ("left", "right") if w in said), "I cannot tell"))


def faster(hand: Hand) -> Plan:
    speeds: list[tuple[str, str]] = []
    lead = ""
    for name in in_question(hand):
        found = yield from _track(hand, name, f"How fast is the {name}? ", lead=lead)
        if isinstance(found, Final):
            return found
        measured = yield from hand.act("Its speed.", "PROP", {"what": "motion", "ref": found[0]})
        speeds.append((plain(value_of(measured, "speed") or 0.0), name))
        lead = f"{speeds[-1][0]}. "
    is_slow = "slow" in hand.item.question
    thought, won = choose_aloud(speeds, wants_large=not is_slow)
    return Final(f"{lead}Which is {'slower' if is_slow else 'faster'}? {thought}.", won)


# ---------------------------------------------------------------- moments

_KINDS = (("disappear", "disappears"), ("vanish", "disappears"), ("gone", "disappears"), ("appear", "appears"), ("show up", "appears"),
          ("first visible", "appears"), ("change", "changes"), ("another colour", "changes"))  # fmt: skip


def kind_in(text: str) -> str:
    return next(kind for mark, kind in _KINDS if mark in text)


def _moment(hand: Hand, name: str, kind: str, lead: str = "") -> Part:
    """When a thing does something: the time as text, None for never; or a final turn when the thing is not there."""
    goal = f"When does the {name} {kind.removesuffix('s')}? "
    place, seen, lead = yield from find(hand, name, hand.last_frame if kind == "appears" else 0, lead=lead, goal=goal)
    if seen is None:
        return absent(name, lead)
    where = {key: value for key, value in place.items() if key != "frame"}  # TEMP looks at all of them
    response = yield from hand.act(f"{lead}When does it {kind.removesuffix('s')}?", "TEMP", {"event": kind, **where})
    segments = response.get("segments", [])
    if not segments:
        return None
    return f"{float(segments[0]['to_s' if kind == 'changes' else 'from_s']):.1f}"


def when(hand: Hand) -> Plan:
    name, kind = hand.item.mentions[0][0], kind_in(hand.item.question)
    found = yield from _moment(hand, name, kind)
    if isinstance(found, Final):
        return found
    return Final(f"At {found}.", found) if found else Final("It does not.", "never")


def order(hand: Hand) -> Plan:
    question = hand.item.question
    said = re.findall(r"the (\w+ \w+) (appears|disappears|changes colour)", question)
    times: list[tuple[str, str]] = []
    lead = ""
    for name, does in said:
        found = yield from _moment(hand, name, does.split()[0], lead)
        if isinstance(found, Final):
            return found
        times.append((found or "99.0", name))
        lead = f"At {found}. " if found else "Never. "
    does_of = dict(said)
    if "true that" in question or "in this order" in question:
        thought, won = choose_aloud(times, wants_large=False)
        answer = "yes" if won == times[0][1] else "no"
        return Final(f"{lead}In this order? First: {times[0][1]}. {thought}: {answer}.", answer)
    is_last = " last" in question
    thought, won = choose_aloud(times, wants_large=is_last)
    return Final(f"{lead}Which is {'last' if is_last else 'first'}? {thought}.", f"{won} {does_of[won]}")


def timed_text(hand: Hand) -> Plan:
    phrase, number = hand.item.mentions[0]
    question = hand.item.question
    box = hand.thing(number).box
    is_flash = hand.item.chain[0].args.event == "appears"
    kind = "appears" if is_flash else "changes"
    args = hand.at(box, margin=0.3, side=min(box.width, box.height))
    is_old = not is_flash and not ("after" in question or "new text" in question)
    wanted = "text" if is_flash else "old text" if is_old else "new text"
    thought = f"The {wanted} of the {phrase}: when does it {kind.removesuffix('s')}?"
    response = yield from hand.act(thought, "TEMP", {"event": kind, **args})
    segments = response.get("segments", [])
    if not segments:
        return Final("I saw no text.", "nothing")
    moment = segments[0]["from_s" if is_flash or is_old else "to_s"]
    response = yield from hand.act(f"The {wanted}, at {moment}.", "OCR", {"ref": hand.step, "frame": moment})
    text = joined(response)
    return Final(f"It says {text or 'nothing'}.", text or "nothing")
