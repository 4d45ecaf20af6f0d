"""PROP's engine: properties measured on pixels, masks, tracks and boxes, each with a confidence."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pixelis.core.errors import ToolError
from pixelis.tools.engines.prop_colour import COLOUR_NAMES, Attribute, name_pixels, names_lit
from pixelis.tools.engines.prop_count import count_things
from pixelis.tools.engines.prop_motion import motion_of, relation_of
from pixelis.tools.engines.prop_shape import orientation_of, position_of, shape_of, size_of
from pixelis.tools.engines.ranks import counts_of, middle_two, quantile
from pixelis.tools.engines.region import Region, cut_out

WHATS = ("colour", "size", "shape", "position", "orientation", "count", "motion", "relation")
DIM_PEAK = 165  # a picture whose brightest half per cent stays below this is badly lit


def colour(image_HWC: np.ndarray, mask_HW: np.ndarray | None, box: tuple) -> list[Attribute]:
    """The main colour's name of the thing in the box, and a second one where a clear share of it has another."""
    return _colours(cut_out(image_HWC, mask_HW, box), _exposure(image_HWC))


def size(image_HWC: np.ndarray, mask_HW: np.ndarray | None, box: tuple) -> list[Attribute]:
    """Width, height, area in pixels, and the share of the frame."""
    return size_of(cut_out(image_HWC, mask_HW, box), image_HWC.shape[:2])


def shape(image_HWC: np.ndarray, mask_HW: np.ndarray | None, box: tuple) -> list[Attribute]:
    """Circle, square, rectangle, triangle, star, pentagon, hexagon, cross, diamond, ring, ellipse, line or irregular."""
    return shape_of(cut_out(image_HWC, mask_HW, box, is_fine=True))


def position(image_HWC: np.ndarray, mask_HW: np.ndarray | None, box: tuple) -> list[Attribute]:
    """One of nine cells of the frame, and the centre in 0-1000."""
    return position_of(cut_out(image_HWC, mask_HW, box), image_HWC.shape[:2])


def orientation(image_HWC: np.ndarray, mask_HW: np.ndarray | None, box: tuple) -> list[Attribute]:
    """The long axis: degrees in [0, 180), counter-clockwise from the right, and a word."""
    return orientation_of(cut_out(image_HWC, mask_HW, box))


def count(image_HWC: np.ndarray, mask_HW: np.ndarray | None, box: tuple, like: tuple | None = None) -> list[Attribute]:
    """How many things lie in the box, or on the surface that the mask is; with `like`, how many that look like the thing in that box."""
    return count_things(image_HWC, box, like, mask_HW)


def motion(track: Sequence[tuple[float, tuple]], frame_hw: tuple[int, int]) -> list[Attribute]:
    """Direction, speed, distance and turning of (time, box) pairs."""
    return motion_of(track, frame_hw)


def relation(
    box_a: tuple, box_b: tuple, mask_a_HW: np.ndarray | None, mask_b_HW: np.ndarray | None, frame_hw: tuple[int, int]
) -> list[Attribute]:
    """How the first region lies to the second."""
    return relation_of(box_a, box_b, mask_a_HW, mask_b_HW, frame_hw)


class DefaultProp:
    """Measured properties of a region, a track or a pair of regions; one call a property."""

    name = "measure"
    version = f"5; opencv {cv2.__version__}"  # results move with OpenCV

    def measure(
        self,
        what: str,
        *,
        image_HWC: np.ndarray,
        box: tuple,
        mask_HW: np.ndarray | None = None,
        track: Sequence[tuple[float, tuple]] | None = None,
        other_box: tuple | None = None,
        other_mask: np.ndarray | None = None,
    ) -> list[Attribute]:
        """Measure one property; the first attribute is the answer, the rest are details.

        Args:
            what: one of `WHATS`, or "color".
            image_HWC: RGB uint8 [height, width, 3].
            box: x0, y0, x1, y1 in pixels; clipped to the image.
            mask_HW: bool [height, width] of the thing; without it, it is separated from what surrounds it.
            track: (time in seconds, box in pixels) pairs, for motion.
            other_box: the second region of a relation, or the example that counted things must resemble.
            other_mask: bool [height, width] of the second region.

        Returns:
            Attributes with a confidence in [0, 1] each.

        Raises:
            ToolError: unknown property, a box outside the image, or a missing track or second box.
        """
        word = {"color": "colour", "colours": "colour", "colors": "colour"}.get(str(what).strip().lower(), str(what).strip().lower())
        if word not in WHATS:
            raise ToolError("bad_arguments", f"PROP cannot measure {str(what)[:40]!r}: write one of {', '.join(WHATS)}")
        if image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or image_HWC.dtype != np.uint8:
            raise ToolError("bad_arguments", "PROP needs an RGB uint8 image [height, width, 3]")
        if word == "motion":
            return motion(track, image_HWC.shape[:2])
        if word == "relation":
            if other_box is None:
                raise ToolError("bad_arguments", "relation needs a second region")
            return relation(box, other_box, mask_HW, other_mask, image_HWC.shape[:2])
        if word == "count":
            return count(image_HWC, mask_HW, box, other_box)
        one = {"colour": colour, "size": size, "shape": shape, "position": position, "orientation": orientation}[word]
        return one(image_HWC, mask_HW, box)


def _exposure(image_HWC: np.ndarray) -> float:
    """A gain that brings the brightest parts of a clearly dim picture up to normal; 1 for any other."""
    if not image_HWC.size:
        return 1.0
    red, green, blue = (image_HWC[::4, ::4, channel] for channel in range(3))
    peak = quantile(counts_of(np.maximum(np.maximum(red, green), blue)), 0.995)
    return min(225 / max(peak, 1.0), 1.45) if peak < DIM_PEAK else 1.0


def _lit(gain: float) -> np.ndarray:
    """What each value of a channel is in more light, uint8 [256]."""
    return np.clip(np.arange(256, dtype=np.float32) * gain, 0, 255).astype(np.uint8)


def _shares(channels_3N: np.ndarray, counts_3V: np.ndarray, gain: float) -> np.ndarray:
    """Share of each colour name among the pixels, the median colour having a fifth of the votes.

    Args:
        channels_3N: the pixels, channel by channel, uint8 [3, pixels].
        counts_3V: how often each value stands in each channel, [3, 256].
    """
    lit = _lit(gain)
    shares = np.bincount(names_lit(channels_3N, lit), minlength=len(COLOUR_NAMES)) / channels_3N.shape[1]
    # Noise throws single pixels over a border between two names; the median colour stays.
    centre = [round((int(lit[low]) + int(lit[high])) / 2) for low, high in map(middle_two, counts_3V)]
    shares[int(name_pixels(np.array(centre, np.uint8)))] += 0.25
    return shares / shares.sum()


def _colours(region: Region, gain: float) -> list[Attribute]:
    mask = region.mask_HW
    core = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    core = core if np.count_nonzero(core) >= 8 else mask
    patch = cv2.medianBlur(region.patch_HWC, 3) if min(mask.shape) >= 5 else region.patch_HWC
    channels = np.stack([plane[core] for plane in cv2.split(patch)])
    counts = np.stack([counts_of(channel) for channel in channels])
    most = 255 / max(1.0, quantile(counts.sum(axis=0), 0.98))  # past the limit of one channel a gain would turn the hue
    gains = [max(1.0, min(g, most)) for g in (gain, 1.0, 1.35)]
    shares = _shares(channels, counts, gains[0])
    order = np.argsort(-shares, kind="stable")
    first, second = (float(shares[i]) for i in order[:2])
    sure = (0.35 + 0.65 * region.clear) * min(max(0.4 + (first - second), 0.2), 0.98)
    if any(int(np.argmax(_shares(channels, counts, g))) != order[0] for g in gains[1:] if g != gains[0]):
        sure *= 0.75  # in other light it would bear another name
    out = [Attribute("colour", COLOUR_NAMES[order[0]], sure), Attribute("share", round(first, 2), sure)]
    if second > 0.22:
        out.append(Attribute("second_colour", COLOUR_NAMES[order[1]], min(max(second * 1.5, 0.0), 0.9) * (0.35 + 0.65 * region.clear)))
    return out
