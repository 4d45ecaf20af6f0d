"""What the object looks like, and finding it again anywhere in a frame: masked templates and their squared difference.

Squared difference rather than correlation: it also works for objects of one flat colour. A difference is put in relation
to the one that the ground gives, so 1 is a perfect match and 0 no better than any place.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pixelis.tools.engines.channels import added
from pixelis.tools.engines.trk_flow import Pyramid, Window

PATCH_PX = 24
SEARCH_PX = 14.0
"""Geometric mean side of the object in the frame that is searched."""
NUM_RECENT = 4
SCALES = (0.87, 1.0, 1.15)


@dataclass(frozen=True)
class Patch:
    """The object stretched to PATCH_PX x PATCH_PX: colours, and its silhouette as weights."""

    colour: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class Candidate:
    """A place where the object may be, frame pixels."""

    centre: np.ndarray
    size: np.ndarray
    similarity: float
    rank: float
    """Similarity less the penalty for being far from where the object was expected."""


def cut_patch(image: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """The box's content (box in pixels of `image`), float32 [PATCH_PX, PATCH_PX, ...]."""
    sx, sy = (box[2] - box[0]) / PATCH_PX, (box[3] - box[1]) / PATCH_PX
    shrink = [max(1, round(s)) for s in (sx, sy)]
    if max(shrink) > 1:
        image = cv2.blur(image, shrink)
    matrix = np.array([[sx, 0, box[0] + 0.5 * sx - 0.5], [0, sy, box[1] + 0.5 * sy - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (PATCH_PX, PATCH_PX), flags=flags, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)


class Looks:
    """A bank of patches: the first for ever, and the latest few that differed enough to be worth keeping."""

    def __init__(self, view: np.ndarray, prob_HW: np.ndarray, box: tuple[float, float, float, float]) -> None:
        self.bank = [self._patch(view, prob_HW, box)]
        ground = view[prob_HW < 0.3].astype(np.float32)
        mean = self._mean_colour(self.bank[0])
        spread = self._error(self.bank[0].colour, Patch(np.broadcast_to(mean, self.bank[0].colour.shape), self.bank[0].weight))
        apart = float(np.square(ground - mean).mean()) if len(ground) else 0.0
        self.ground_error = max(apart + spread, 100.0)
        """Expected squared difference of the object to a place on the ground around it."""

    @staticmethod
    def _mean_colour(patch: Patch) -> np.ndarray:
        return (patch.colour * patch.weight[..., None]).sum((0, 1)) / patch.weight.sum()

    @staticmethod
    def _patch(view: np.ndarray, prob_HW: np.ndarray, box: tuple[float, float, float, float]) -> Patch:
        weight = cut_patch(prob_HW, box)
        return Patch(cut_patch(view, box), np.maximum(weight, 0.02))

    @staticmethod
    def _error(colour: np.ndarray, patch: Patch) -> float:
        error = added(np.square(colour - patch.colour)) / 3
        return float((error * patch.weight).sum() / patch.weight.sum())

    def similarity(self, image: np.ndarray, box: tuple[float, float, float, float]) -> float:
        """At most 1; about 0 on the ground. The best over the bank."""
        colour = cv2.blur(cut_patch(image, box), (3, 3))
        return max(1 - self._error(colour, Patch(cv2.blur(p.colour, (3, 3)), p.weight)) / self.ground_error for p in self.bank)

    def learn(self, view: np.ndarray, prob_HW: np.ndarray, box: tuple[float, float, float, float]) -> None:
        """Keep this look; the oldest but the first goes."""
        recent = [*self.bank[1:], self._patch(view, prob_HW, box)][-NUM_RECENT:]
        self.bank = [self.bank[0], *recent]

    def find(self, pyramid: Pyramid, size: np.ndarray, expected: np.ndarray, sigma: float, floor: float) -> list[Candidate]:
        """Places in the whole frame that look like the object, best rank first.

        Args:
            size: the object's expected size, frame pixels.
            expected: where it should be; places farther than about `sigma` pixels rank lower.
            floor: least similarity.
        """
        scale = min(1.0, SEARCH_PX / float(np.sqrt(size.prod())))
        image = pyramid.shrunk(scale)
        pad = max(2, int(0.5 * size.max() * scale))
        padded = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
        raw = []
        for patch in dict.fromkeys((0, len(self.bank) - 1)):
            for zoom in SCALES:
                raw += self._peaks(padded, self.bank[patch], size * zoom * scale, pad, expected * scale, sigma * scale)
        best = sorted(raw, key=lambda item: -item[0])[:8]
        found = []
        for _, centre, sides in best:
            at, full = centre / scale, sides / scale
            window = Window.around(at, full)
            low, high = window.to_view(at - full / 2), window.to_view(at + full / 2)
            value = self.similarity(pyramid.view(window), (*low, *high))
            if value >= floor:
                found.append(Candidate(at, full, value, value - self._penalty(np.hypot(*(at - expected)), sigma)))
        return sorted(found, key=lambda item: -item.rank)

    @staticmethod
    def _penalty(distance: float, sigma: float) -> float:
        return 0.3 * (1 - np.exp(-0.5 * (distance / sigma) ** 2))

    def _peaks(self, padded: np.ndarray, patch: Patch, sides: np.ndarray, pad: int, expected: np.ndarray, sigma: float) -> list:
        """Up to three (rank, centre, sides) in the searched image's pixels."""
        width, height = (int(max(3, round(v))) for v in sides)
        if width >= padded.shape[1] or height >= padded.shape[0]:
            return []
        template = cv2.resize(patch.colour, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
        weight = cv2.resize(patch.weight, (width, height), interpolation=cv2.INTER_AREA)
        # OpenCV squares the mask inside TM_SQDIFF, hence the root.
        mask = np.repeat(np.sqrt(weight)[..., None], 3, axis=2).astype(np.float32)
        error = cv2.matchTemplate(padded.astype(np.float32), template, cv2.TM_SQDIFF, mask=mask) / (3 * weight.sum())
        value = 1 - error / self.ground_error
        ys, xs = np.arange(value.shape[0]) + height / 2 - pad, np.arange(value.shape[1]) + width / 2 - pad
        square = np.square(xs - expected[0])[None] + np.square(ys - expected[1])[:, None]
        value -= 0.3 * (1 - np.exp(-0.5 * square / sigma**2))
        peaks = []
        for _ in range(3):
            _, top, _, (x, y) = cv2.minMaxLoc(value)
            peaks.append((top, np.array([xs[x], ys[y]]), np.array([width, height], float)))
            value[max(0, y - height // 2) : y + height // 2 + 1, max(0, x - width // 2) : x + width // 2 + 1] = -9
        return peaks
