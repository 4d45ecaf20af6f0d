"""How a tracked box moves, and how two regions lie to each other; all directions as seen on screen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixelis.core.errors import ToolError
from pixelis.core.geometry import Box
from pixelis.tools.engines.prop_colour import Attribute

# Counter-clockwise from the right, 45 degrees each.
_DIRECTIONS = ("right", "up-right", "up", "up-left", "left", "down-left", "down", "down-right")


def motion_of(track: Sequence[tuple[float, tuple]], frame_hw: tuple[int, int]) -> list[Attribute]:
    """Direction, speed, distance and turning of a track.

    Args:
        track: (time in seconds, box in pixels), in order of time.
        frame_hw: height and width of the frame in pixels.

    Raises:
        ToolError: fewer than two boxes, or times that do not advance.
    """
    if track is None or len(track) < 2:
        raise ToolError("bad_arguments", "motion needs a track of at least two boxes: track the thing first and refer to it")
    times = np.array([t for t, _ in track], float)
    boxes = np.array([tuple(b) for _, b in track], float)
    if not (np.isfinite(times).all() and np.isfinite(boxes).all() and (np.diff(times) >= 0).all() and times[-1] > times[0]):
        raise ToolError("bad_arguments", "motion needs finite boxes at times that advance")
    points = np.stack([(boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2], axis=-1)
    side = float(np.sqrt(np.median((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clip(1)))
    smooth = _smooth(points)
    jitter = float(np.median(np.linalg.norm(points - smooth, axis=1)))
    path = np.linalg.norm(np.diff(smooth, axis=0), axis=1).sum()
    go = smooth[-1] - smooth[0]
    distance = float(np.hypot(*go))
    duration = float(times[-1] - times[0])
    floor = max(2.0, 0.12 * side, 3 * jitter)
    span = float(np.ptp(smooth, axis=0).max())
    still = span < floor
    speed = 0.0 if still else float(path / duration)
    sure = float(np.clip(abs(np.log(max(span, 0.1) / floor)) / 0.7, 0.3, 0.98))
    return [
        Attribute("moving", "still" if still else "moving", sure),
        Attribute("direction", "none" if still else _direction(go, distance, floor), sure),
        Attribute("speed", round(speed, 1), sure, "px/s"),
        Attribute("speed_widths", round(speed / frame_hw[1], 4), sure, "frame widths/s"),
        Attribute("distance", round(0.0 if still else distance, 1), sure, "px"),
        _turning(smooth, times, still, sure, floor),
    ]


def _smooth(points_T2: np.ndarray) -> np.ndarray:
    """A median of three and a mean of three: single slips of the tracker vanish, ends stay."""
    if len(points_T2) < 5:
        return points_T2
    padded = np.concatenate([points_T2[:1], points_T2, points_T2[-1:]])
    middle = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    # Linear continuation at the ends, so that steady motion keeps its length.
    padded = np.concatenate([2 * middle[:1] - middle[1:2], middle, 2 * middle[-1:] - middle[-2:-1]])
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


def _direction(go: np.ndarray, distance: float, floor: float) -> str:
    if distance < floor:
        return "back and forth"
    angle = np.degrees(np.arctan2(-go[1], go[0]))  # image rows grow downward
    return _DIRECTIONS[int(np.round(angle / 45)) % 8]


def _turning(points_T2: np.ndarray, times: np.ndarray, still: bool, sure: float, floor: float) -> Attribute:
    """Left means counter-clockwise on screen, as a driver seen from above would turn."""
    if still or len(points_T2) < 4:
        return Attribute("path", "still" if still else "straight", sure if still else 0.4)
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points_T2, axis=0), axis=1))])
    if along[-1] <= 0:
        return Attribute("path", "still", sure)
    knots = np.linspace(0, along[-1], 5)
    even = np.stack([np.interp(knots, along, points_T2[:, k]) for k in range(2)], axis=-1)
    legs = np.diff(even, axis=0)
    heading = np.unwrap(np.arctan2(-legs[:, 1], legs[:, 0]))
    turn = float(np.degrees(heading[-1] - heading[0]))
    bow = _bow(even) / max(along[-1], 1e-6)
    # A turn is told from jitter by how far the path leaves its chord.
    if abs(turn) < 22 or bow * along[-1] < 0.5 * floor:
        return Attribute("path", "straight", sure * float(np.clip(1 - abs(turn) / 44, 0.5, 1)))
    word = "turns left" if turn > 0 else "turns right"
    return Attribute("path", word, sure * float(np.clip(abs(turn) / 44, 0.5, 1)))


def _bow(points_K2: np.ndarray) -> float:
    chord = points_K2[-1] - points_K2[0]
    length = float(np.hypot(*chord))
    offset = points_K2 - points_K2[0]
    if length < 1e-6:
        return float(np.linalg.norm(offset, axis=1).max())
    return float(np.abs(chord[0] * offset[:, 1] - chord[1] * offset[:, 0]).max() / length)


def relation_of(
    box_a: tuple, box_b: tuple, mask_a_HW: np.ndarray | None, mask_b_HW: np.ndarray | None, frame_hw: tuple[int, int]
) -> list[Attribute]:
    """How the first region lies to the second: contact, side, distance, relative size ("a is ... b")."""
    a, b = Box(*(float(v) for v in box_a)), Box(*(float(v) for v in box_b))
    if a.is_empty or b.is_empty:
        raise ToolError("bad_arguments", "relation needs two boxes that are not empty")
    area_a = float(mask_a_HW.sum()) if mask_a_HW is not None and mask_a_HW.any() else a.area
    area_b = float(mask_b_HW.sum()) if mask_b_HW is not None and mask_b_HW.any() else b.area
    (ax, ay), (bx, by) = a.centre, b.centre
    dx, dy = ax - bx, ay - by
    out = [_contact(a, b, mask_a_HW, mask_b_HW)]
    reach_x, reach_y = (a.width + b.width) / 2, (a.height + b.height) / 2
    for name, value, reach, words in (("horizontal", dx, reach_x, ("right of", "left of")), ("vertical", dy, reach_y, ("below", "above"))):
        share = abs(value) / reach
        word = words[0] if value > 0 else words[1]
        if share < 0.15:
            out.append(Attribute(name, "aligned", float(np.clip(1 - share / 0.3, 0.5, 0.95))))
        else:
            out.append(Attribute(name, word, float(np.clip(0.4 + share * 0.55, 0.5, 0.98))))
    main = out[1] if abs(dx) / reach_x >= abs(dy) / reach_y else out[2]
    out.insert(
        0,
        Attribute(
            "relation", out[0].value if out[0].value in ("inside", "contains") or main.value == "aligned" else main.value, main.confidence
        ),
    )
    out.append(Attribute("distance", round(float(np.hypot(dx, dy)) / frame_hw[1], 4), 0.9, "frame widths"))
    ratio = area_a / area_b
    word = "larger" if ratio > 1.2 else "smaller" if ratio < 1 / 1.2 else "same size"
    out.append(Attribute("size", word, float(np.clip(abs(abs(np.log(ratio)) - np.log(1.2)) / 0.2 + 0.5, 0.5, 0.95))))
    out.append(Attribute("size_ratio", round(ratio, 3), 0.8))
    return out


def _contact(a: Box, b: Box, mask_a_HW: np.ndarray | None, mask_b_HW: np.ndarray | None) -> Attribute:
    """Inside, contains, overlaps, touching (within 2 px) or apart; by masks where both are there."""
    shared = a.intersect(b).area
    gap = max(max(a.x0, b.x0) - min(a.x1, b.x1), max(a.y0, b.y0) - min(a.y1, b.y1))
    if shared >= 0.95 * a.area and a.area < 0.9 * b.area:
        return Attribute("contact", "inside", 0.9)
    if shared >= 0.95 * b.area and b.area < 0.9 * a.area:
        return Attribute("contact", "contains", 0.9)
    if mask_a_HW is not None and mask_b_HW is not None and mask_a_HW.any() and mask_b_HW.any():
        if (mask_a_HW & mask_b_HW).any():
            return Attribute("contact", "overlaps", 0.9)
        import cv2

        near = cv2.dilate(mask_a_HW.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        return Attribute("contact", "touching" if (near & mask_b_HW.astype(bool)).any() else "apart", 0.9)
    if gap <= -2:
        return Attribute("contact", "overlaps", float(np.clip(0.6 + shared / min(a.area, b.area), 0.6, 0.95)))
    return Attribute("contact", "touching" if gap <= 2 else "apart", 0.7 if gap <= 4 else 0.95)
