"""Where things may stand: each layout says where on the unit square the next thing wants to be; the placer keeps them apart."""

from __future__ import annotations

import math

from pixelis.core.geometry import Box
from pixelis.data.world.rng import Rng

_TRIES = 120


class Crowded(Exception):
    """No room, or no clear difference, was found: the item is drawn again from the next stream."""


def _near(rng: Rng, value: float, reach: float) -> float:
    return min(max(value + rng.uniform(-reach, reach), 0.0), 1.0)


def spot(layout: str, rng: Rng) -> tuple[float, float]:
    """A position in the unit square."""
    u, v = rng.uniform(), rng.uniform()
    if layout == "rows":
        v = _near(rng, rng.choice((0.1, 0.5, 0.9)), 0.06)
    elif layout == "columns":
        u = _near(rng, rng.choice((0.08, 0.36, 0.64, 0.92)), 0.05)
    elif layout == "halves":
        u = u * 0.36 if rng.chance(0.5) else 1 - u * 0.36
    elif layout == "middle":
        u, v = 0.12 + 0.76 * u, 0.12 + 0.76 * v
    elif layout == "falling":
        v = _near(rng, u, 0.24)
    elif layout == "rising":
        v = _near(rng, 1 - u, 0.24)
    elif layout == "border":
        if rng.chance(0.5):
            u = _near(rng, rng.choice((0.0, 1.0)), 0.14)
        else:
            v = _near(rng, rng.choice((0.0, 1.0)), 0.14)
    elif layout == "corners":
        u, v = _near(rng, rng.choice((0.0, 1.0)), 0.34), _near(rng, rng.choice((0.0, 1.0)), 0.34)
    elif layout == "arc":
        angle, radius = rng.uniform(0, 2 * math.pi), rng.uniform(0.3, 0.5)
        u, v = round(0.5 + radius * math.cos(angle), 6), round(0.5 + radius * math.sin(angle), 6)
    elif layout == "zigzag":
        v = _near(rng, abs((u * 4) % 2 - 1), 0.16)
    elif layout == "vee":
        v = _near(rng, 1 - abs(2 * u - 1), 0.18)
    return u, v


class Placer:
    """Finds free places in a frame."""

    def __init__(self, rng: Rng, layout: str, width: int, height: int, *, margin_px: int) -> None:
        self._rng, self._layout = rng, layout
        self._width, self._height, self._margin = width, height, margin_px
        self.taken: list[Box] = []

    def place(self, width: int, height: int, *, gap_px: int = 12, within: Box | None = None) -> tuple[int, int]:
        """Upper left corner of a free `width` x `height` place, which is then taken.

        Args:
            within: only inside this box, anywhere in it; else where the layout wants it, and at last anywhere.

        Raises:
            Crowded: no free place was found.
        """
        area = within or Box(self._margin, self._margin, self._width - self._margin, self._height - self._margin)
        room_x, room_y = area.width - width, area.height - height
        if room_x < 0 or room_y < 0:
            raise Crowded
        for attempt in range(_TRIES):
            u, v = spot(self._layout if within is None and attempt < _TRIES * 3 // 4 else "", self._rng)
            x, y = int(area.x0 + u * room_x), int(area.y0 + v * room_y)
            box = Box(x, y, x + width, y + height)
            if self.is_free(box.grow(gap_px)):
                self.taken.append(box)
                return x, y
        raise Crowded

    def is_free(self, box: Box) -> bool:
        return all(box.x0 >= t.x1 or t.x0 >= box.x1 or box.y0 >= t.y1 or t.y0 >= box.y1 for t in self.taken)

    def take(self, box: Box) -> None:
        self.taken.append(box)
