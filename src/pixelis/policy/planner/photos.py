"""Plans for pictures of anything: what a question's noun means is unknown, so what stands out stands for it, and the answer says so."""

from __future__ import annotations

import re
import statistics

from pixelis.core.geometry import Box
from pixelis.policy.planner.base import Act, Plan, Response, Scene, absent, attribute, is_ok, seen_at
from pixelis.policy.planner.question import Thing
from pixelis.policy.planner.sight import Blob, patch_of

MOST = [60, 60, 940, 940]
CENTRE = [500, 500]
SURE = 0.5
UNKNOWN = "I cannot tell"
CANNOT_NAME = "I cannot tell: I find things by colour and shape, and these I cannot find"


def subject(text: str) -> str:
    """The noun a question is about, for the thought; `thing` when none is found."""
    found = re.search(r"\b(?:is|are|does|do|of|many) (?:the |a |an )?([a-z]+)\b", text)
    return found[1] if found and found[1] not in ("there", "it", "this", "in", "the", "largest", "biggest", "you") else "thing"


def named(scene: Scene) -> Thing | None:
    return next((t for t in scene.question.things if t.colour or t.shape), None)


def salient(scene: Scene) -> Plan:
    """Segment what is meant; returns through `yield from` the last response that is worth a measurement, or the last failure."""
    thing, text = named(scene), scene.question.text
    box = _box_of(scene, thing)
    if box is not None:
        return (
            yield Act(f"I see something {thing.colour or thing.shape}; I take its exact extent.", "SEG", {"bbox_2d": scene.wire(box, 2)})
        )
    wants_largest = re.search(r"bigg|larg", text) is not None
    many = [b for b in _alike(scene.blobs()) if b.area_px > 0.005 * scene.medium.width * scene.medium.height] if wants_largest else []
    if len(many) >= 5:
        largest = max(many, key=lambda b: b.area_px).box
        return (yield Act("There are many things alike; I take the largest.", "SEG", {"bbox_2d": scene.wire(largest, 2)}))
    noun = "largest thing" if wants_largest else subject(text)
    first = yield Act(f"The {noun} should be what stands out most; I segment that.", "SEG", {"bbox_2d": MOST})
    if is_ok(first) and first.get("score", 0) >= SURE:
        return first
    why = "That is not sure" if is_ok(first) else "Nothing there"
    second = yield Act(f"{why}; I try what lies in the middle.", "SEG", {"point": CENTRE})
    if not is_ok(second):
        return first
    return second if not is_ok(first) or second.get("score", 0) > first.get("score", 0) else first


def _box_of(scene: Scene, thing: Thing | None) -> Box | None:
    if thing is None:
        return None
    found = scene.find(thing)
    if found:
        return found[0].box
    return patch_of(scene.image(), thing.colour) if thing.colour and not thing.shape else None


def most_salient(scene: Scene, what: str) -> Plan:
    """A property of whatever stands out most, or of the named colour or shape."""
    thing = named(scene)
    if thing is not None and _box_of(scene, thing) is None:
        return absent(thing)
    response = yield from salient(scene)
    target = {"ref": response["step"]} if is_ok(response) else {"bbox_2d": [250, 250, 750, 750]}
    measured = yield Act(f"Now its {what}.", "PROP", {"what": what, **target})
    if not is_ok(measured) or not measured.get("attributes"):
        return UNKNOWN
    return _extent(measured, response) if what == "size" else str(measured["attributes"][0].get("value", UNKNOWN))


def _extent(measured: Response, response: Response) -> str:
    width, height, area = attribute(measured, "width"), attribute(measured, "height"), response.get("area")
    if not isinstance(width, (int, float)) or not isinstance(height, (int, float)):
        return UNKNOWN
    share = f", {100 * float(area):.1f} % of the picture" if isinstance(area, (int, float)) else ""
    return f"about {width:.0f} by {height:.0f} pixels{share}"


def where(scene: Scene) -> Plan:
    thing = named(scene)
    if thing is not None and _box_of(scene, thing) is None:
        return absent(thing)
    response = yield from salient(scene)
    if not is_ok(response):
        return f"{UNKNOWN}: nothing stands out"
    box = scene.box(response["bbox_2d"])
    return scene.place_name(*box.centre, quarters=False)


def describe(scene: Scene) -> Plan:
    """What can be said without knowing nouns: the most prominent thing's colour, place and size, and any text."""
    response = yield from salient(scene)
    parts = []
    if is_ok(response):
        measured = yield Act("What colour is it?", "PROP", {"what": "colour", "ref": response["step"]})
        colour = attribute(measured, "colour") or "not clearly coloured"
        place = scene.place_name(*scene.box(response["bbox_2d"]).centre, quarters=False)
        parts.append(f"something mostly {colour} at the {place}, {100 * float(response.get('area', 0)):.0f} % of the picture")
    read = yield Act("Is there anything to read?", "OCR", {})
    words = " ".join([s["text"] for s in read.get("spans", []) if s["score"] > 0.8][:12]) if is_ok(read) else ""
    if words:
        parts.append(f"text that reads {words}")
    return " and ".join(parts) if parts else f"{UNKNOWN}: nothing stands out"


def count_things(scene: Scene) -> Plan:
    """How many separate things: measured; where the ground defeats the measurement, counted by eye among things of like size."""
    noun = subject(scene.question.text)
    response = yield Act(
        f"I count the separate things; the {noun} should be those.", "PROP", {"what": "count", "bbox_2d": [0, 0, 1000, 1000]}
    )
    number = attribute(response, "count") if is_ok(response) else None
    if isinstance(number, int) and number > 0:
        return str(number)
    alike = _alike(scene.blobs() + [b for b in scene.blobs(is_keen=True) if not seen_at(b.box, scene.blobs())])
    if not alike:
        return "0" if number == 0 else UNKNOWN
    checked = yield Act(
        f"None measured, though I see about {len(alike)}; I check one of them.", "SEG", {"bbox_2d": scene.wire(alike[0].box, 2)}
    )
    return str(len(alike)) if is_ok(checked) or number is None else "0"


def _alike(blobs: list[Blob]) -> list[Blob]:
    """Compact patches of about the usual size."""
    compact = [b for b in blobs if b.fill > 0.55 and 0.4 < b.box.width / b.box.height < 2.5]
    if not compact:
        return []
    usual = statistics.median(b.area_px for b in compact)
    return [b for b in compact if 0.4 * usual < b.area_px < 2.5 * usual]


def unknown(scene: Scene) -> Plan:
    """A yes or no about things that cannot be named."""
    return CANNOT_NAME
    yield  # a plan without a call
