"""Plans for questions about one picture: things."""

from __future__ import annotations

from pixelis.core.geometry import Box
from pixelis.policy.planner.base import UNSURE, Act, Plan, Scene, absent, attribute, distance, is_ok, region
from pixelis.policy.planner.photos import CANNOT_NAME, count_things, most_salient
from pixelis.policy.planner.question import Thing, number_of
from pixelis.policy.planner.sight import Blob


def locate(scene: Scene, thing: Thing, frame: int = 0) -> tuple[Blob | None, str]:
    """The blob most likely meant, and a phrase for the thought."""
    found = scene.find(thing, frame)
    return (found[0] if found else None), thing.words or thing.noun


def name_of(blob: Blob) -> str:
    return f"{blob.colour} {blob.shape}"


def frame_args(scene: Scene, frame: int) -> dict:
    return {"frame": scene.seconds(frame)} if scene.medium.kind == "video" and frame else {}


def segment(scene: Scene, blob: Blob, thought: str, frame: int = 0) -> Act:
    return Act(thought, "SEG", {"bbox_2d": scene.wire(blob.box, 2), **frame_args(scene, frame)})


def spot(scene: Scene) -> Plan:
    host = next((t for t in scene.question.things if (t.shape and t.shape != "circle") or t.colour), None)
    if host is None:
        return (yield from most_salient(scene, "colour"))
    blob, words = locate(scene, host)
    if blob is None:
        return absent(host)
    cx, cy = blob.box.centre
    inner = [b for b in scene.blobs() if b.area_px < 0.3 * blob.area_px and distance(b.box, blob.box) < 0.25 * blob.box.width]
    if inner:
        target = min(inner, key=lambda b: distance(b.box, blob.box)).box
    else:
        side = 0.11 * max(blob.box.width, blob.box.height)
        target = Box(cx - side, cy - side, cx + side, cy + side)
    response = yield Act(
        f"The spot is in the middle of the {words}; I measure its colour.", "PROP", {"what": "colour", "bbox_2d": scene.wire(target)}
    )
    colour = attribute(response, "colour")
    if colour == blob.colour:
        side = 0.07 * max(blob.box.width, blob.box.height)
        tight = Box(cx - side, cy - side, cx + side, cy + side)
        response = yield Act(
            f"That is the {words} itself; I look at its very centre.", "PROP", {"what": "colour", "bbox_2d": scene.wire(tight)}
        )
        colour = attribute(response, "colour") or colour
    return str(colour or "I cannot tell")


def shape(scene: Scene) -> Plan:
    thing = next((t for t in scene.question.things if t.colour), None)
    if thing is None:
        return (yield from most_salient(scene, "shape"))
    blob, words = locate(scene, Thing(colour=thing.colour, words=thing.words))
    if blob is None:
        return (yield from most_salient(scene, "shape"))
    found = yield segment(scene, blob, f"I see something {thing.colour}; I take its exact extent.")
    response = yield Act(f"Now the shape of the {words}.", "PROP", {"what": "shape", **region(scene, found, blob.box)})
    measured = attribute(response, "shape")
    # A segmented ring may come back filled: its hole shows only in the picture itself.
    if is_ok(found) and (measured in (None, "irregular") or (blob.shape == "ring" and measured != "ring")):
        response = yield Act(
            "Its outline is unclear; once more, from its box.", "PROP", {"what": "shape", "bbox_2d": scene.wire(blob.box, 2)}
        )
    return str(attribute(response, "shape") or blob.shape)


def colour(scene: Scene) -> Plan:
    thing = next((t for t in scene.question.things if t.shape), None)
    if thing is None:
        return (yield from most_salient(scene, "colour"))
    blob, words = locate(scene, Thing(shape=thing.shape, words=thing.words))
    if blob is None:
        return absent(thing)
    found = yield segment(scene, blob, f"This looks like the {words}; I take its exact extent.")
    response = yield Act(f"Now the colour of the {words}.", "PROP", {"what": "colour", **region(scene, found, blob.box)})
    return str(attribute(response, "colour") or blob.colour)


def count(scene: Scene) -> Plan:
    thing = next((t for t in scene.question.things if t.colour or t.shape), None)
    if thing is None:
        return (yield from count_things(scene))
    num, step, seen = 0, 0, 0
    candidates = scene.find(thing)[:8]
    if not candidates:
        return "0"
    for blob in candidates:
        step += 1
        seen += 1
        response = yield segment(scene, blob, f"Candidate {seen}: I take its exact extent.")
        if not thing.shape:
            num += is_ok(response)
            continue
        step += 1
        # A segmented ring may come back filled: its hole shows only in the picture itself.
        region = {"bbox_2d": scene.wire(blob.box, 2)} if thing.shape == "ring" or not is_ok(response) else {"ref": step - 1}
        response = yield Act(f"Is it a {thing.shape}?", "PROP", {"what": "shape", **region})
        attributes = response.get("attributes", []) if is_ok(response) else []
        is_measured = bool(attributes) and attributes[0].get("score", 0) > UNSURE
        num += (attribute(response, "shape") if is_measured else blob.shape) == thing.shape
        if step >= 13:
            num += sum(b.shape == thing.shape for b in candidates[seen:])
            break
    return str(num)


def count_card(scene: Scene) -> Plan:
    card = next((t for t in scene.question.things if t.noun == "card"), Thing(noun="card", words="card"))
    blob, words = locate(scene, card)
    if blob is None:
        return (yield from count(scene))
    response = yield Act(f"I count what lies on the {words}.", "PROP", {"what": "count", "bbox_2d": scene.wire(blob.box, -4)})
    return str(attribute(response, "count") if is_ok(response) else "I cannot tell")


def count_big(scene: Scene) -> Plan:
    side = min(scene.medium.width, scene.medium.height)
    return str(sum(max(b.box.width, b.box.height) > 0.2 * side for b in scene.blobs()))
    yield  # a plan without a call: it is seen at a glance


def size_which(scene: Scene) -> Plan:
    things = [t for t in scene.question.things if t.colour and t.shape]
    if len(things) < 2:
        return (yield from most_salient(scene, "size"))
    areas: list[tuple[float, Thing]] = []
    for thing in things[:4]:
        blob, words = locate(scene, thing)
        if blob is None:
            return absent(thing)
        response = yield segment(scene, blob, f"The exact extent of the {words}.")
        areas.append(
            (float(response.get("area", 0)) if is_ok(response) else blob.area_px / (scene.medium.width * scene.medium.height), thing)
        )
    text = scene.question.text
    if "larger or smaller" in text:
        return "larger" if areas[0][0] > areas[1][0] else "smaller"
    wants_small = "small" in text
    return (min if wants_small else max)(areas, key=lambda a: a[0])[1].words


def relation(scene: Scene) -> Plan:
    things = [t for t in scene.question.things if t.colour and t.shape][:2]
    if len(things) < 2:
        return CANNOT_NAME
        yield  # a plan without a call
    boxes, regions = [], []
    for thing in things:
        blob, words = locate(scene, thing)
        if blob is None:
            return absent(thing)
        found = yield segment(scene, blob, f"I find the {words}.")
        boxes.append(blob.box)
        regions.append(region(scene, found, blob.box))
    other = next(iter(regions[1].values()))
    response = yield Act("How do they lie to each other?", "PROP", {"what": "relation", **regions[0], "other": other})
    (ax, ay), (bx, by) = boxes[0].centre, boxes[1].centre
    across, down = (str(attribute(response, name) or "") for name in ("horizontal", "vertical"))
    level = next((w for w in ("left", "right") if across.startswith(w)), "left" if ax < bx else "right")
    upright = next((w for w in ("above", "below") if down.startswith(w)), "above" if ay < by else "below")
    text = scene.question.text
    if scene.question.intent == "relation_true":
        asked = next(w for w in ("left", "right", "above", "below") if w in text)
        return "yes" if asked in (level, upright) else "no"
    return level if "left" in text else upright


def closer(scene: Scene) -> Plan:
    things = [t for t in scene.question.things if t.colour and t.shape]
    if len(things) < 3:
        return CANNOT_NAME
        yield  # a plan without a call
    # "Which is closer to the C, the A or the B?" or "Is the A or the B nearer to the C?"
    text = scene.question.text
    order = sorted(things[:3], key=lambda t: text.find(t.words))
    anchor = next((t for t in order if text.find(t.words) > text.find(" to the ")), order[0])
    pair = [t for t in order if t is not anchor]
    blob, words = locate(scene, anchor)
    if blob is None:
        return absent(anchor)
    found = yield segment(scene, blob, f"First the {words}.")
    to = next(iter(region(scene, found, blob.box).values()))
    reach = []
    for thing in pair:
        near, name = locate(scene, thing)
        if near is None:
            return absent(thing)
        act = Act(f"How far is the {name} from it?", "PROP", {"what": "relation", "bbox_2d": scene.wire(near.box, 1), "other": to})
        far = attribute((yield act), "distance")
        reach.append(float(far) if isinstance(far, (int, float)) else distance(near.box, blob.box))
    return pair[0].words if reach[0] < reach[1] else pair[1].words


def light(scene: Scene) -> Plan:
    return "dark" if float(scene.image().mean()) < 128 else "light"
    yield  # seen at a glance


def total(scene: Scene) -> Plan:
    words = scene.question.text.replace("plus", " plus ").split()
    numbers = [n for n in (number_of(w) for w in words) if n is not None]
    return str(sum(numbers[:2])) if len(numbers) >= 2 else "I cannot tell"
    yield  # needs no picture
