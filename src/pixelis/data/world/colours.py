"""Twelve colour names, each with variants of which no one would doubt the name."""

from __future__ import annotations

from pixelis.data.world.rng import Rng

Rgb = tuple[int, int, int]

COLOURS: dict[str, tuple[Rgb, ...]] = {
    "red": ((214, 30, 36), (190, 20, 30), (228, 40, 48)),
    "orange": ((240, 132, 20), (250, 150, 30)),
    "yellow": ((244, 220, 40), (248, 228, 84)),
    "green": ((40, 160, 60), (30, 130, 50), (76, 186, 70)),
    "cyan": ((40, 205, 215), (84, 218, 226)),
    "blue": ((36, 80, 210), (50, 100, 230), (30, 60, 170)),
    "purple": ((130, 50, 190), (150, 72, 206)),
    "pink": ((245, 130, 180), (240, 112, 168)),
    "brown": ((120, 72, 36), (116, 70, 40)),
    "black": ((16, 16, 18), (26, 26, 26)),
    "grey": ((128, 128, 130), (140, 140, 142)),
    "white": ((244, 244, 242), (238, 240, 240)),
}
VIVID = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
JITTER = 8
_MIN_CONTRAST = 70  # summed over the channels, against what lies behind


def draw_rgb(rng: Rng, name: str) -> Rgb:
    """One shade of a named colour; greys shift all channels together."""
    base = rng.choice(COLOURS[name])
    if name in ("black", "grey", "white"):
        shift = rng.integer(-6, 6)
        return tuple(min(max(v + shift, 0), 255) for v in base)
    return tuple(min(max(v + rng.integer(-JITTER, JITTER), 0), 255) for v in base)


def stands_out(rgb: Rgb, behind: tuple[float, ...]) -> bool:
    """Whether a colour is easy to see before a background's mean colour."""
    return sum(abs(a - b) for a, b in zip(rgb, behind, strict=True)) >= _MIN_CONTRAST


def names_before(behind: tuple[float, ...], *, vivid_only: bool = False) -> list[str]:
    """Colour names whose every shade stands out before a mean background colour; brown, grey and black hide before dark ones."""
    names = VIVID if vivid_only else tuple(COLOURS)
    return [name for name in names if all(sum(abs(a - b) for a, b in zip(c, behind, strict=True)) >= 130 for c in COLOURS[name])]
