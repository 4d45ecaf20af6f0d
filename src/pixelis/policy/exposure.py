"""Exposure: how bright a policy is shown its images, in stops; +1 doubles what reaches its eyes, 0 shows an image as it is.

A policy has a lift: the share of a medium's headroom, the stops by which its brightest spot is darker than white, that its images are
brightened by. At lift 1 every medium's brightest spot is shown white; at 0 all media are shown as they are. So one number brightens a
dark medium and leaves one that is not dark alone.

Tools work on the medium itself, whatever the exposure. An image that is shown otherwise than it is has a name of its own,
`<name>@+0.250`, so that features, token runs and whoever scores them later know one showing from another. Letters: H W C an image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

_MARK = "@"
MOST_LIFT = 1.0
"""The brightest spot is white then; beyond, what is bright would be lost."""
SPECKS = 1e-4
"""Share of an image's pixels that may be brighter than its brightest spot: 8 of 320 x 240. A medium's light is not that of a speck."""
MOST_HEADROOM = 3.0
"""Stops. A medium that is darker yet is taken to be as dark as this: of eight grey levels and less, brightening makes steps."""


def headroom(images: Iterable[np.ndarray]) -> float:
    """By how many stops images, uint8 [H, W, C] each, could be brightened together until the brightest spot is white; at least 0.

    A pixel is as bright as its brightest channel.
    """
    level = max((_brightest(image) for image in images), default=255)
    return min(math.log2(255 / max(level, 1)), MOST_HEADROOM)


def _brightest(image_HWC: np.ndarray) -> int:
    counts = np.bincount(image_HWC.max(axis=2).ravel(), minlength=256)
    return int(np.searchsorted(np.cumsum(counts), counts.sum() * (1 - SPECKS)))


def at_exposure(name: str, stops: float) -> str:
    """The name of an image as it is shown at an exposure."""
    return f"{name}{_MARK}{stops:+.3f}" if rounded(stops) else name


def rounded(stops: float) -> float:
    """As it stands in names: a thousandth of a stop moves no pixel by a whole grey level."""
    return round(float(stops), 3) + 0.0


def exposure_of(name: str) -> tuple[str, float]:
    """What is shown, and at which exposure."""
    source, _, stops = name.partition(_MARK)
    return source, float(stops or 0)


def expose(image_HWC: np.ndarray, stops: float) -> np.ndarray:
    """An image, uint8 [H, W, C], at an exposure; what would be brighter than white is white."""
    stops = rounded(stops)
    if not stops:
        return image_HWC
    return np.clip(np.rint(np.arange(256) * 2.0**stops), 0, 255).astype(np.uint8)[image_HWC]


def shown(images: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """An image by the name under which it was shown, from images that are named so, or from those as they are.

    Raises:
        KeyError: neither is there.
    """
    if name in images:
        return images[name]
    source, stops = exposure_of(name)
    return expose(images[source], stops)
