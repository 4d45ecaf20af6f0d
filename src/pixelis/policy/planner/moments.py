"""Plans for questions about moments: when something happens, what comes first, and text that is there for a while."""

from __future__ import annotations

import re

from pixelis.core.geometry import Box
from pixelis.policy.planner.base import Act, Plan, Scene, absent, attribute, is_ok
from pixelis.policy.planner.question import Thing, things_in
from pixelis.policy.planner.texts import find_sign, reads
from pixelis.policy.planner.videos import glances, mover_of, track

_KIND = {"when_appears": "appears", "when_disappears": "disappears", "when_changes": "changes", "when_moves": "moves", "when_cut": "cut"}


def _place_of(scene: Scene, thing: Thing) -> Box | None:
    """Where a resting thing is, on whichever frame it is seen."""
    frames = glances(scene, 9)
    order = sorted(frames, key=lambda f: abs(f - scene.last_frame / 2), reverse=True)  # the ends first: one of them shows it
    for frame in order:
        found = scene.find(thing, frame)
        if found and found[0].shape == thing.shape:
            return found[0].box
    for frame in order:
        found = scene.find(thing, frame)
        if found:
            return found[0].box
    return None


def _moment(scene: Scene, kind: str, thing: Thing | None) -> Plan:
    """The time of an event as a text with one decimal; `never` when there is none."""
    place = _place_of(scene, thing) if thing is not None else None
    if thing is not None and place is None:
        return absent(thing)
    where = {"bbox_2d": scene.wire(place, 4)} if place is not None else {}
    words = f"the {thing.words}" if thing is not None else "something"
    response = yield Act(f"When is it that {words} {kind}?", "TEMP", {"event": kind, **where})
    segments = response.get("segments", []) if is_ok(response) else []
    if not segments and kind != "moves" and place is not None:
        response = yield Act(
            "Nothing found; I look at a wider region.", "TEMP", {"event": kind, "bbox_2d": scene.wire(place, 0.5 * place.width)}
        )
        segments = response.get("segments", []) if is_ok(response) else []
    if not segments:
        return "never"
    best = segments[0]
    start, end = float(best["from_s"]), float(best["to_s"])
    if kind == "changes":  # from the last frame before to the first after
        return f"{end if end - start < 0.6 else (start + end) / 2:.1f}"
    return f"{start:.1f}"


def when(scene: Scene) -> Plan:
    thing = next((t for t in scene.question.things if t.colour or t.shape), None)
    return (yield from _moment(scene, _KIND[scene.question.intent], thing))


def order(scene: Scene) -> Plan:
    """Two events in a text such as `the red star appears, or the blue ring changes colour`."""
    events = re.findall(r"the ((?:\w+ )?\w+) (appears|disappears|changes colour|changes|moves|starts to move)", scene.question.text)
    if len(events) < 2:
        return (yield from _first_of_all(scene))
    times: list[float] = []
    for words, does in events[:2]:
        things = things_in(words)
        kind = "changes" if "changes" in does else "moves" if "move" in does else does
        said = yield from _moment(scene, kind, things[0] if things else None)
        times.append(float(said) if re.fullmatch(r"\d+\.\d", said) else float("inf"))
    is_earlier = times[0] <= times[1]
    if scene.question.intent == "order_true":
        return "yes" if is_earlier else "no"
    wants_last = re.search(r"\blast\b", scene.question.text) is not None
    words, does = events[0] if is_earlier != wants_last else events[1]
    return f"{words} {does}"


def _first_of_all(scene: Scene) -> Plan:
    found: list[tuple[float, str]] = []
    for kind in ("appears", "moves", "changes"):
        response = yield Act(f"What {kind}, and when?", "TEMP", {"event": kind})
        found += [(float(s["from_s"]), kind) for s in response.get("segments", [])[:1]]
    return f"something {min(found)[1]} at {min(found)[0]:.1f} s" if found else "nothing happens"


def timed_text(scene: Scene) -> Plan:
    """Text that is there only for a while, or that changes: find the moment, then read there."""
    sign = next((t for t in scene.question.things if t.is_sign), Thing(noun="sign", words="sign"))
    box = next((b for f in glances(scene, 5) if (b := find_sign(scene, sign, [], f)) is not None), None)
    where = {"bbox_2d": scene.wire(box, -2)} if box is not None else {}
    intent = scene.question.intent
    kind = "appears" if intent == "timed_text" else "changes"
    response = yield Act(
        f"When does text on the {sign.words} {'appear' if kind == 'appears' else 'change'}?", "TEMP", {"event": kind, **where}
    )
    segments = response.get("segments", []) if is_ok(response) else []
    last = scene.medium.duration_s
    if segments:
        start, end = float(segments[0]["from_s"]), float(segments[0]["to_s"])
    else:
        start, end = 0.5 * last, 0.5 * last
    moment = {"timed_text": (start + end) / 2, "timed_text_before": start / 2, "timed_text_after": (end + last) / 2}[intent]
    for offset in (0.0, 0.2, -0.2):
        time_s = min(max(0.0, moment + offset), scene.seconds(scene.last_frame))
        response = yield Act(
            "I read it at that moment." if not offset else "Nothing; a moment aside.", "OCR", {"frame": round(time_s, 1), **where}
        )
        spans = reads(scene, response)
        if spans:
            return " ".join(s.text for s in spans).lower()
    return "nothing"


def describe_video(scene: Scene) -> Plan:
    response = yield Act("I look for what moves.", "TEMP", {"event": "moves"})
    segments = response.get("segments", []) if is_ok(response) else []
    if not segments:
        return "nothing moves"
    spans = ", ".join(f"{s['from_s']:.1f}-{s['to_s']:.1f} s" for s in segments[:3])
    mover = mover_of(scene)
    if mover is None:
        return f"something moves at {spans}"
    tracked = yield track(scene, mover.box, mover.frame, "I follow what moves.")
    if not is_ok(tracked):
        return f"something moves at {spans}"
    measured = yield Act("Which way?", "PROP", {"what": "motion", "ref": int(tracked["step"])})
    return f"something {mover.colour} moves {attribute(measured, 'direction') or ''} at {spans}".replace("  ", " ")
