"""What the truth says of one frame: where a thing is seen, its mask, colour and text there, and which thing a box means."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from pixelis.core.geometry import Box, Mask
from pixelis.data.world.item import Item, WorldObject

THINGS = ("shape", "spot", "sign", "panel", "wall", "bar")
"""Kinds with an extent of their own; not bare text, nor the plates of the occlusion shift."""


def things(item: Item) -> list[WorldObject]:
    return [thing for thing in item.truth.objects if thing.kind in THINGS]


def box_at(thing: WorldObject, frame: int) -> Box | None:
    """Tight box of what is seen of a thing on a frame; None when nothing is."""
    if not thing.track:
        return thing.box
    return thing.track[frame] if 0 <= frame < len(thing.track) else None


def mask_at(thing: WorldObject, frame: int) -> Mask | None:
    """Visible mask on a frame: that of the first frame, moved along. None where the box has another size: then it is not known."""
    box = box_at(thing, frame)
    if box is None or thing.mask is None or (box.width, box.height) != (thing.box.width, thing.box.height):
        return None
    return thing.mask if box == thing.box else _moved(thing.mask, round(box.x0 - thing.box.x0), round(box.y0 - thing.box.y0))


@lru_cache(maxsize=64)
def _moved(mask: Mask, dx: int, dy: int) -> Mask:
    ink = mask.to_array()
    rows, cols = np.nonzero(ink)
    rows, cols = rows + dy, cols + dx
    keep = (rows >= 0) & (rows < mask.height) & (cols >= 0) & (cols < mask.width)
    moved = np.zeros_like(ink)
    moved[rows[keep], cols[keep]] = True
    return Mask.from_array(moved)


def colour_at(item: Item, thing: WorldObject, frame: int) -> str:
    """A thing's colour on a frame, after the changes so far."""
    changes = [e for e in item.truth.events if e.kind == "changes" and e.number == thing.number and e.frame <= frame]
    return max(changes, key=lambda e: e.frame).after if changes else thing.colour


def text_at(item: Item, thing: WorldObject, frame: int) -> str:
    """The text that can be read on a sign, or that a bare text is, on a frame; empty when there is none."""
    if thing.kind not in ("sign", "text") or box_at(thing, frame) is None:
        return ""
    changes = sorted((e for e in item.truth.events if e.kind == "text" and e.number == thing.number), key=lambda e: e.frame)
    if not changes:
        return thing.text
    done = [e for e in changes if e.frame <= frame]
    return done[-1].after if done else changes[0].before


def share_inside(box: Box, region: Box) -> float:
    """Share of a box that lies in a region, in [0, 1]."""
    return region.intersect(box).area / box.area if box.area > 0 else 0.0


def best_thing(item: Item, box: Box, frame: int) -> tuple[WorldObject | None, float]:
    """The thing whose box fits a box best on a frame, and the IoU; None and 0 where no thing is touched."""
    best, best_iou = None, 0.0
    for thing in things(item):
        seen = box_at(thing, frame)
        iou = seen.iou(box) if seen else 0.0
        if iou > best_iou:
            best, best_iou = thing, iou
    return best, best_iou
