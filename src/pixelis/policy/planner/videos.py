"""Plans for questions about what moves: where to, which way, how fast."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

from pixelis.core.geometry import Box
from pixelis.policy.planner.base import Act, Plan, Response, Scene, absent, attribute, is_ok
from pixelis.policy.planner.question import Thing
from pixelis.policy.planner.sight import Mover, first_mover


def locate_in_time(scene: Scene, thing: Thing, rival: Thing | None = None) -> tuple[Box | None, int]:
    """Where and on which frame the thing is first seen, looking at a few frames; (None, 0) when it never is.

    What is seen to be the rival, a thing of the same colour and another shape, is not taken for it.
    """
    for frame in glances(scene, 7):
        found = [b for b in scene.find(thing, frame) if rival is None or b.shape != rival.shape]
        if found:
            return found[0].box, frame
    return None, 0


def glances(scene: Scene, count: int) -> list[int]:
    last = scene.last_frame
    return sorted({round(i * last / max(1, count - 1)) for i in range(count)})


def mover_of(scene: Scene) -> Mover | None:
    """What moves most, where it is when it starts: frames an eighth of a second to a quarter apart."""
    step = max(1, round(0.2 * (scene.medium.fps or 10)))
    frames = range(0, scene.medium.num_frames, step)
    if len(frames) > 40:
        frames = range(0, scene.medium.num_frames, -(-scene.medium.num_frames // 40))
    return first_mover((i, scene.image(i)) for i in frames)


def track(scene: Scene, box: Box, frame: int, thought: str, last: int | None = None) -> Act:
    last = scene.last_frame if last is None else last
    return Act(thought, "TRK", {"bbox_2d": scene.wire(box, 1), "from_s": scene.seconds(frame), "to_s": scene.seconds(last)})


def _final_box(scene: Scene, response: Response) -> Box | None:
    points = [p for p in response.get("track", []) if p.get("bbox_2d")]
    return scene.box(points[-1]["bbox_2d"]) if points else None


def _target(scene: Scene) -> tuple[Box | None, int, str, Thing | None]:
    thing = next((t for t in scene.question.things if t.colour or t.shape), None)
    if thing is None:
        mover = mover_of(scene)
        return (mover.box, mover.frame, "thing that moves", None) if mover else (None, 0, "thing that moves", None)
    box, frame = locate_in_time(scene, thing)
    if thing.place:
        found = scene.find(thing, 0)
        box, frame = (found[0].box, 0) if found else (box, frame)
    return box, frame, thing.words, thing


def end_place(scene: Scene) -> Plan:
    box, frame, words, thing = _target(scene)
    if box is None:
        return absent(thing) if thing else "nothing moves"
    response = yield track(scene, box, frame, f"I follow the {words} to the end.")
    final = _final_box(scene, response)
    if thing is not None and re.search(r"\b(behind|hidden|wall|hides)\b", scene.question.text):
        final = (yield from _beyond(scene, thing, box, response)) or final
    if final is None:
        return "I cannot tell: I lost it"
    return scene.place_name(*final.centre, quarters=True)


def _beyond(scene: Scene, thing: Thing, start: Box, response: Response) -> Plan:
    """The box where something ends that went behind a wall: the look-alike that comes out on the side it was heading for.

    None where the track agrees with the heading, or where nothing better is seen.
    """
    points = [scene.box(p["bbox_2d"]).centre for p in response.get("track", []) if p.get("bbox_2d")]
    early = points[1] if len(points) > 1 else start.centre
    ux, uy = early[0] - start.centre[0], early[1] - start.centre[1]
    reach = math.hypot(ux, uy)
    if reach < 0.3 * start.width:
        return None

    def ahead(x: float, y: float) -> float:
        return ((x - start.centre[0]) * ux + (y - start.centre[1]) * uy) / reach

    alike = [b.box for b in scene.find(thing, scene.last_frame) if b.shape == thing.shape] or [
        b.box for b in scene.find(thing, scene.last_frame)
    ]
    if not alike or (len(points) > 2 and all(ahead(*b) > ahead(*a) - start.width / 2 for a, b in itertools.pairwise(points))):
        return None
    best = max(alike, key=lambda b: ahead(*b.centre))
    half = scene.seconds(scene.last_frame // 2)
    end = scene.seconds(scene.last_frame)
    where = scene.place_name(*best.centre, quarters=True)
    thought = (
        f"That track turns back: behind the wall it took the twin. Mine must come out ahead; I follow the one at the {where} back in time."
    )
    yield Act(thought, "TRK", {"bbox_2d": scene.wire(best, 1), "from_s": end, "to_s": half})
    return best


def direction(scene: Scene) -> Plan:
    box, frame, words, thing = _target(scene)
    if box is None:
        return absent(thing) if thing else "nothing moves"
    response = yield track(scene, box, frame, f"I follow the {words}.")
    if not is_ok(response):
        return "I cannot tell: I could not follow it"
    measured = yield Act("Which way does it go?", "PROP", {"what": "motion", "ref": int(response["step"])})
    if attribute(measured, "moving") == "still":
        return "it does not move"
    return str(attribute(measured, "direction") or "I cannot tell")


def turn(scene: Scene) -> Plan:
    box, frame, words, thing = _target(scene)
    if box is None:
        return absent(thing) if thing else "nothing moves"
    response = yield track(scene, box, frame, f"I follow the {words} through its turn.")
    if not is_ok(response):
        return "I cannot tell: I could not follow it"
    points = [scene.box(p["bbox_2d"]).centre for p in response.get("track", []) if p.get("bbox_2d")]
    measured = yield Act("How does it turn?", "PROP", {"what": "motion", "ref": int(response["step"])})
    side = _turn_side(points)
    if scene.question.intent == "turn_after":
        (x0, y0), (x1, y1) = points[-2:] if len(points) >= 2 else ((0, 0), (0, 0))
        if abs(x1 - x0) > abs(y1 - y0):
            return "right" if x1 > x0 else "left"
        return "down" if y1 > y0 else "up"
    said = str(attribute(measured, "turns") or attribute(measured, "turning") or "")
    return "right" if "right" in said else "left" if "left" in said else side


def _turn_side(points: Sequence[tuple[float, float]]) -> str:
    """Clockwise on the screen is a right turn."""
    if len(points) < 3:
        return "right"
    ux, uy = points[1][0] - points[0][0], points[1][1] - points[0][1]
    vx, vy = points[-1][0] - points[-2][0], points[-1][1] - points[-2][1]
    return "right" if ux * vy - uy * vx > 0 else "left"


def speed(scene: Scene) -> Plan:
    """How fast the thing moves that is meant, or that moves."""
    box, frame, words, thing = _target(scene)
    if box is None:
        return absent(thing) if thing else "nothing moves"
    response = yield track(scene, box, frame, f"I follow the {words}.")
    if not is_ok(response):
        return "I cannot tell: I could not follow it"
    measured = yield Act("Its speed.", "PROP", {"what": "motion", "ref": response["step"]})
    value = attribute(measured, "speed")
    return f"about {value:.0f} pixels per second" if isinstance(value, (int, float)) else "I cannot tell"


def faster(scene: Scene) -> Plan:
    things = [t for t in scene.question.things if t.colour and t.shape][:2]
    if len(things) < 2:
        return (yield from speed(scene))
    speeds: list[float] = []
    taken: list[Box] = []
    for thing, rival in zip(things, things[::-1], strict=True):
        box, frame = locate_in_time(scene, thing, rival)
        if box is None:
            box, frame = locate_in_time(scene, thing)
        if box is not None and any(box.iou(other) > 0.5 for other in taken):
            # The two were taken for one: this one is what else has the colour.
            rest = [b.box for b in scene.blobs(frame) if b.colour == thing.colour and all(b.box.iou(o) < 0.3 for o in taken)]
            box = rest[0] if rest else box
        if box is None:
            return absent(thing)
        taken.append(box)
        response = yield track(scene, box, frame, f"I follow the {thing.words}.")
        if not is_ok(response):
            speeds.append(0.0)
            continue
        measured = yield Act("Its speed.", "PROP", {"what": "motion", "ref": int(response["step"])})
        speeds.append(float(attribute(measured, "speed") or 0.0))
    wants_slow = re.search(r"slow", scene.question.text) is not None
    return things[0].words if (speeds[0] > speeds[1]) != wants_slow else things[1].words
