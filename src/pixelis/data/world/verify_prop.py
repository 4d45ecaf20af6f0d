"""PROP against the truth: each property of the thing that the box means best, measured on the truth itself.

Names (colour, shape, relation) match or do not: 1 or 0. Numbers score 1 - relative error. A property with several attributes scores the
least of those that the truth can judge; from `MIN_SCORE` on, the property matches.

- colour: the thing's on that frame. shape: its shape; plates (signs, panels, walls, bars) are squares or rectangles,
  a thin bar a line, a sign of the style "pill" an ellipse too.
- count: the things in the box, without one that fills more than half of it (a shape that does may count), and without spots on a thing
  that counts; only those like `other` in colour and shape where there is one. It must be equal.
- size: width, height and, where the mask is known, area. position: the centre; an error of 5 % of the frame scores 0.75.
- orientation: the long axis of the mask; an error of 15 degrees scores 0.75. A thing with no long axis (elongation under 1.2) has its
  elongation compared instead.
- motion: still or not, the direction within 37.5 degrees of the named one, the speed, and the turn where the truth has one, over the
  frames of the track that was measured (all of them where it is not known).
- relation: left or right, above or below (either word or "aligned" where the centres are nearly in line), inside or containing, and the
  distance.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from pixelis.core.arguments import Target, parse_ref
from pixelis.core.errors import ToolError
from pixelis.core.geometry import Box, Mask, box_from_wire
from pixelis.core.ops import PropOutput, Result
from pixelis.core.trajectory import Step
from pixelis.data.world.item import Item, WorldObject
from pixelis.data.world.moment import best_thing, box_at, colour_at, mask_at, share_inside, things

MIN_SCORE = 0.75
MIN_FIT = 0.2
"""Least IoU of the box with a thing for the box to mean it: a tight box around a spot, grown by a few pixels, still does."""
MIN_FIT_ALONE = 1 / 16
"""The same where no other thing lies in the box: room of a hundredth of the picture on each side is little, and much for a small thing."""
MAX_OFF_DEG = 37.5
"""Half a sector of 45 degrees, and 15 degrees for the truth's whole pixels."""
_PLATES = ("sign", "panel", "wall", "bar")
_DIRECTIONS = {name: 45.0 * i for i, name in enumerate(("right", "up-right", "up", "up-left", "left", "down-left", "down", "down-right"))}
_VECTORS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}


def prop_score(item: Item, step: Step, output: PropOutput, history: Sequence[Result]) -> float:
    """How far the measured property agrees with the truth, in [0, 1]; 0 where the box means no thing."""
    values = {attribute.name: attribute.value for attribute in output.attributes}
    if output.what == "count":
        like = other_box(item, step, output.frame, history)
        return float(values.get("count") in true_counts(item, output.box, output.frame, like))
    thing = meant_thing(item, output.box, output.frame)
    if thing is None:
        return 0.0
    match output.what:
        case "colour":
            return float(values.get("colour") == colour_at(item, thing, output.frame))
        case "shape":
            return float(values.get("shape") in _shape_names(item, thing))
        case "size":
            return _size_score(thing, output.frame, values)
        case "position":
            return _position_score(item, thing, output.frame, values)
        case "orientation":
            return _orientation_score(thing, output.frame, values)
        case "motion":
            return _motion_score(item, thing, _track_frames(item, step, history), values)
        case "relation":
            return _relation_score(item, thing, other_box(item, step, output.frame, history), output.frame, values)
    return 0.0


def meant_thing(item: Item, box: Box, frame: int) -> WorldObject | None:
    """The thing that a box means best on a frame; None where it means none."""
    thing, fit = best_thing(item, box, frame)
    if thing is None or fit >= MIN_FIT:
        return thing
    held = [(one, seen) for one in things(item) if (seen := box_at(one, frame)) and share_inside(seen, box) >= 0.5]
    alone = [one for one, seen in held if one.kind != "spot" or not _has_host(seen, held)]
    return thing if alone == [thing] and fit >= MIN_FIT_ALONE else None


def _closeness(value: object, true: float, floor: float = 0.0) -> float:
    """1 - relative error, at least 0; errors of a small truth count relative to `floor`. 0 for what is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0.0
    scale = max(abs(true), floor)
    return max(0.0, 1 - abs(value - true) / scale) if scale > 0 else float(value == 0)


# ---------------------------------------------------------------- what else a call names


def _target(step: Step, name: str, history: Sequence[Result], item: Item) -> Target | None:
    value = step.call.arguments.get(name) if step.call else None
    if value is None:
        return None
    try:
        if isinstance(value, list):
            return Target(box=box_from_wire(value, width=item.width, height=item.height))
        return parse_ref(value, history)
    except ToolError:
        return None


def other_box(item: Item, step: Step, frame: int, history: Sequence[Result]) -> Box | None:
    """The box that a call's `other` means on a frame; None where there is none, or a ref names nothing."""
    target = _target(step, "other", history, item)
    return target.at(frame).box if target else None


def _track_frames(item: Item, step: Step, history: Sequence[Result]) -> list[int]:
    target = _target(step, "ref", history, item)
    if target is None or not target.track:
        return list(range(item.num_frames))
    return [point.frame for point in target.track if point.box is not None]


# ---------------------------------------------------------------- names and counts


def _shape_names(item: Item, thing: WorldObject) -> tuple[str, ...]:
    if thing.kind not in _PLATES:
        return (thing.shape,)
    rounded = ("ellipse",) if thing.kind == "sign" and item.style.plate == "pill" else ()
    return ("square", "rectangle", *(("line",) if thing.kind == "bar" else rounded))


def true_counts(item: Item, region: Box, frame: int, like: Box | None = None) -> tuple[int, ...]:
    """How many things lie in a region (see the module); with `like`, of those that look like the thing in that box.

    Returns:
        One number; two where a shape fills the region: it may be counted itself, or as the ground that others stand on.
    """
    seen = [(thing, box) for thing in things(item) if (box := box_at(thing, frame)) and share_inside(box, region) >= 0.5]
    inside = [(thing, box) for thing, box in seen if share_inside(region, box) <= 0.5]
    filling = sum(thing.kind == "shape" for thing, box in seen if share_inside(region, box) > 0.5)
    counted = [thing for thing, box in inside if thing.kind != "spot" or not _has_host(box, inside)]
    if like is None:
        return tuple(range(len(counted), len(counted) + min(filling, 1) + 1))
    example, _ = best_thing(item, like, frame)
    if example is None:
        return (0,)
    look = example.shape, colour_at(item, example, frame)
    return (sum((thing.shape, colour_at(item, thing, frame)) == look for thing in counted),)


def _has_host(spot: Box, inside: list[tuple[WorldObject, Box]]) -> bool:
    return any(thing.kind != "spot" and share_inside(spot, box) > 0.9 for thing, box in inside)


# ---------------------------------------------------------------- one thing on one frame


def _size_score(thing: WorldObject, frame: int, values: dict) -> float:
    box, mask = box_at(thing, frame), mask_at(thing, frame)
    scores = [_closeness(values.get("width"), box.width, 8), _closeness(values.get("height"), box.height, 8)]
    if mask is not None:
        scores.append(_closeness(values.get("area"), mask.area_px, 64))
    return min(scores)


def _position_score(item: Item, thing: WorldObject, frame: int, values: dict) -> float:
    x, y = box_at(thing, frame).centre
    try:
        off = max(abs(values["centre_x"] / 1000 - x / item.width), abs(values["centre_y"] / 1000 - y / item.height))
    except (KeyError, TypeError):
        return 0.0
    return max(0.0, 1 - 5 * off)


def _orientation_score(thing: WorldObject, frame: int, values: dict) -> float:
    mask = mask_at(thing, frame)
    if mask is None:
        box = box_at(thing, frame)
        angle, elongation = (0.0 if box.width >= box.height else 90.0), max(box.width, box.height) / max(min(box.width, box.height), 1.0)
    else:
        angle, elongation = long_axis(mask)
    if elongation < 1.2:
        return _closeness(values.get("elongation"), elongation)
    value = values.get("angle")
    if not isinstance(value, (int, float)):
        return 0.0
    off = abs(value - angle) % 180
    return max(0.0, 1 - min(off, 180 - off) / 60)


def long_axis(mask: Mask) -> tuple[float, float]:
    """Angle of the long axis in [0, 180) degrees, counter-clockwise from the right on screen, and long over short spread."""
    rows, cols = np.nonzero(mask.to_array())
    spread, axes = np.linalg.eigh(np.cov(np.stack([cols, -rows]).astype(float), bias=True))
    angle = math.degrees(math.atan2(axes[1, 1], axes[0, 1])) % 180
    return angle, math.sqrt(spread[1] / max(spread[0], 1 / 12))


# ---------------------------------------------------------------- motion, relation


def _motion_score(item: Item, thing: WorldObject, frames: list[int], values: dict) -> float:
    seen = [(f, box) for f in frames if (box := box_at(thing, f)) is not None]
    if len(seen) < 2:
        return 0.0
    # Whole pixels make a slow slanting path longer than it is: measure it in strides of a third of a second.
    stride = max(1, round(0.3 * item.fps))
    knots = seen[::stride] + ([seen[-1]] if (len(seen) - 1) % stride else [])
    points = [box.centre for _, box in knots]
    go = (points[-1][0] - points[0][0], points[-1][1] - points[0][1])
    span = max(max(p[axis] for p in points) - min(p[axis] for p in points) for axis in (0, 1))
    floor = max(2.0, 0.12 * math.sqrt(seen[0][1].area))
    if span < floor / 2:
        return float(values.get("moving") == "still")
    if values.get("moving") != "moving":
        return float(span < 2 * floor)  # so little that both words will do
    path = sum(math.dist(a, b) for a, b in itertools.pairwise(points))
    speed = _closeness(values.get("speed"), path / ((seen[-1][0] - seen[0][0]) / item.fps))
    return speed * _is_direction(values.get("direction"), go, floor) * _is_turn(item, thing, seen, values.get("path"))


def _is_direction(name: object, go: tuple[float, float], floor: float) -> bool:
    distance = math.hypot(*go)
    if name not in _DIRECTIONS:
        return name == "back and forth" and distance < 2 * floor
    off = abs(_DIRECTIONS[name] - math.degrees(math.atan2(-go[1], go[0]))) % 360
    return distance < floor or min(off, 360 - off) <= MAX_OFF_DEG


def _is_turn(item: Item, thing: WorldObject, seen: list[tuple[int, Box]], path: object) -> bool:
    """Whether the turn is named rightly; True where the truth knows of none on these frames."""
    turns = [e for e in item.truth.events if e.kind == "turns" and e.number == thing.number and seen[0][0] < e.frame < seen[-1][0]]
    if not turns:
        return True
    (ux, uy), (vx, vy) = _VECTORS[turns[0].before], _VECTORS[turns[0].after]
    return path == ("turns right" if ux * vy - uy * vx > 0 else "turns left")  # y grows downwards


def _relation_score(item: Item, thing: WorldObject, other_box: Box | None, frame: int, values: dict) -> float:
    other = meant_thing(item, other_box, frame) if other_box else None
    if other is None:
        return 0.0
    a, b = box_at(thing, frame), box_at(other, frame)
    (ax, ay), (bx, by) = a.centre, b.centre
    sides = (
        (values.get("horizontal"), ax - bx, (a.width + b.width) / 2, ("right of", "left of")),
        (values.get("vertical"), ay - by, (a.height + b.height) / 2, ("below", "above")),
    )
    is_right = all(_is_side(*side) for side in sides)
    if values.get("relation") in ("inside", "contains"):
        is_right = is_right and share_inside(*((a, b) if values["relation"] == "inside" else (b, a))) >= 0.9
    return is_right * _closeness(values.get("distance"), math.dist(a.centre, b.centre) / item.width, 0.02)


def _is_side(name: object, gap: float, reach: float, words: tuple[str, str]) -> bool:
    """The word of the gap's sign, or "aligned" where the gap is small; both in between (0.05 to 0.3 of the two sizes)."""
    share = abs(gap) / reach
    return (name == "aligned" and share <= 0.3) or (name == words[gap < 0] and share >= 0.05)
