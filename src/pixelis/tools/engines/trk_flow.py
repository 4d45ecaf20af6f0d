"""Views around an object, the camera's motion, and dense flow between two views.

A view is a resampled window of a frame: large objects are seen shrunk and tiny ones enlarged, so every later step works
on about the same number of pixels. Shapes: H height, W width of the view.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pixelis.tools.engines.channels import added
from pixelis.tools.engines.dense_flow import DenseFlow

CANVAS_PX = 200.0
"""Side of a square view with the area that views have."""
MAX_ZOOM = 4.0
MARGIN = 0.4
"""Ground around the object on each side, relative to the mean of its sides."""
MARGIN_PX = 14.0


class Pyramid:
    """A frame with halved copies, so that a shrunken view does not alias."""

    def __init__(self, frame: np.ndarray) -> None:
        self.levels = [frame]
        while min(self.levels[-1].shape[:2]) >= 64 and len(self.levels) < 5:
            height, width = self.levels[-1].shape[:2]
            self.levels.append(cv2.resize(self.levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA))

    @property
    def width(self) -> int:
        return self.levels[0].shape[1]

    @property
    def height(self) -> int:
        return self.levels[0].shape[0]

    def shrunk(self, scale: float) -> np.ndarray:
        """The whole frame at `scale` (at most 1)."""
        size = (max(1, round(self.width * scale)), max(1, round(self.height * scale)))
        return cv2.resize(self._level(scale)[0], size, interpolation=cv2.INTER_AREA)

    def _level(self, scale: float) -> tuple[np.ndarray, float, float]:
        index = 0
        while index + 1 < len(self.levels) and self.levels[index + 1].shape[1] >= self.width * scale:
            index += 1
        image = self.levels[index]
        return image, image.shape[1] / self.width, image.shape[0] / self.height

    def view(self, window: Window) -> np.ndarray:
        """The window's pixels, uint8 [H, W, 3]; beyond the frame its border repeats."""
        image, kx, ky = self._level(window.scale)
        # Inverse map, view to level: pixel centres sit at +0.5.
        sx, sy = kx / window.scale, ky / window.scale
        matrix = np.array(
            [[sx, 0, window.x0 * kx + 0.5 * sx - 0.5], [0, sy, window.y0 * ky + 0.5 * sy - 0.5]],
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(image, matrix, (window.width, window.height), flags=flags, borderMode=cv2.BORDER_REPLICATE)


@dataclass(frozen=True)
class Window:
    """A rectangle of the frame seen at `scale` view pixels per frame pixel."""

    x0: float
    y0: float
    width: int
    """Of the view."""
    height: int
    scale: float

    @classmethod
    def around(cls, centre: np.ndarray, size: np.ndarray) -> Window:
        """The window for an object of `size` at `centre` (frame pixels)."""
        margin = MARGIN * size.mean() + MARGIN_PX
        sides = size + 2 * margin
        scale = min(MAX_ZOOM, CANVAS_PX / float(np.sqrt(sides.prod())))
        width, height = (int(max(24, round(side * scale))) for side in sides)
        return cls(centre[0] - width / scale / 2, centre[1] - height / scale / 2, width, height, scale)

    def moved(self, shift: np.ndarray) -> Window:
        return Window(self.x0 + float(shift[0]), self.y0 + float(shift[1]), self.width, self.height, self.scale)

    def to_frame(self, xy: np.ndarray) -> np.ndarray:
        """View edge coordinates to frame coordinates."""
        return np.asarray(xy, float) / self.scale + np.array([self.x0, self.y0])

    def to_view(self, xy: np.ndarray) -> np.ndarray:
        return (np.asarray(xy, float) - np.array([self.x0, self.y0])) * self.scale

    def inside(self, frame_width: int, frame_height: int) -> np.ndarray:
        """Bool [H, W]: view pixels whose centre lies inside the frame."""
        xs = (np.arange(self.width) + 0.5) / self.scale + self.x0
        ys = (np.arange(self.height) + 0.5) / self.scale + self.y0
        return ((ys >= 0) & (ys < frame_height))[:, None] & ((xs >= 0) & (xs < frame_width))[None]

    def resample(self, image_HW: np.ndarray, target: Window) -> np.ndarray:
        """This view's map (float) seen through another window; 0 beyond it."""
        ratio = self.scale / target.scale
        shift = (np.array([target.x0, target.y0]) - np.array([self.x0, self.y0])) * self.scale + 0.5 * ratio - 0.5
        matrix = np.array([[ratio, 0, shift[0]], [0, ratio, shift[1]]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(image_HW, matrix, (target.width, target.height), flags=flags)


class Camera:
    """Global motion from frame to frame: a similarity fitted to corners outside the object.

    Source: the camera motion compensation of BoT-SORT (sparse flow + RANSAC).
    """

    def __init__(self, first: Pyramid) -> None:
        self.scale = min(1.0, 320.0 / first.width)
        self.before = self._grey(first)

    def _grey(self, pyramid: Pyramid) -> np.ndarray:
        return cv2.cvtColor(pyramid.shrunk(self.scale), cv2.COLOR_RGB2GRAY)

    def step(self, pyramid: Pyramid, centre: np.ndarray | None, size: np.ndarray) -> np.ndarray:
        """Affine [2, 3] from the last frame's pixels to this one's; identity when the ground tells nothing."""
        before, now = self.before, self._grey(pyramid)
        self.before = now
        mask = np.full(before.shape, 255, np.uint8)
        if centre is not None:
            low, high = (centre - 0.6 * size) * self.scale, (centre + 0.6 * size) * self.scale
            mask[max(0, int(low[1])) : max(0, int(high[1])), max(0, int(low[0])) : max(0, int(high[0]))] = 0
        identity = np.array([[1.0, 0, 0], [0, 1.0, 0]])
        corners = cv2.goodFeaturesToTrack(before, 150, 0.01, 7, mask=mask)
        if corners is None or len(corners) < 12:
            return identity
        there, found, _ = cv2.calcOpticalFlowPyrLK(before, now, corners, None, winSize=(15, 15), maxLevel=4)
        back, found_back, _ = cv2.calcOpticalFlowPyrLK(now, before, there, None, winSize=(15, 15), maxLevel=4)
        good = (found[:, 0] > 0) & (found_back[:, 0] > 0) & (np.abs(back - corners).reshape(-1, 2).max(1) < 0.7)
        if good.sum() < 12:
            return identity
        affine, inliers = cv2.estimateAffinePartial2D(corners[good], there[good], ransacReprojThreshold=1.5)
        if affine is None or inliers.sum() < 0.4 * good.sum() or not 0.7 < np.hypot(affine[0, 0], affine[1, 0]) < 1.4:
            return identity
        affine[:, 2] /= self.scale
        return affine


@dataclass(frozen=True)
class Match:
    """Dense correspondence between the view before and the view now."""

    prior_HW: np.ndarray
    """The old foreground probability carried to the new view."""
    trust_HW: np.ndarray
    """In [0, 1]: how consistent flow is there, forward and backward."""
    quality: float
    """Share of the old foreground that has a consistent, same-coloured place now."""
    flow_HW2: np.ndarray
    """From the new view to the old one, view pixels."""
    error_HW: np.ndarray
    """Squared colour difference to what the flow predicts, averaged over a small neighbourhood."""


class Flow:
    """Dense flow both ways; one per track."""

    def __init__(self) -> None:
        self._flow = DenseFlow()

    def match(self, before: np.ndarray, now: np.ndarray, mask_HW: np.ndarray) -> Match:
        """Carry the old view's foreground probability to the new view (both uint8 [H, W, 3], same size)."""
        grey_before, grey_now = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (before, now))
        back = self._flow.between(grey_now, grey_before)
        forth = self._flow.between(grey_before, grey_now)
        height, width = mask_HW.shape
        grid = np.stack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)), -1)
        at = grid + back
        prior = cv2.remap(mask_HW, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        trust = self._trust(back, cv2.remap(forth, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
        colour = cv2.remap(before, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        residual = cv2.blur(added(np.abs(colour.astype(np.float32) - now)) / 3, (3, 3))
        trust *= np.exp(-((residual / 30) ** 2))
        there = grid + forth
        trust_old = cv2.remap(trust, there, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        quality = float((trust_old * mask_HW).sum() / max(mask_HW.sum(), 1e-6))
        return Match(prior, trust, quality, back, _prediction_error(colour, now))

    @staticmethod
    def _trust(back: np.ndarray, forth_at: np.ndarray) -> np.ndarray:
        miss = added(np.square(back + forth_at))
        allowed = 1.0 + 0.01 * (added(np.square(back)) + added(np.square(forth_at)))
        return np.exp(-miss / (2 * allowed))


@dataclass(frozen=True)
class Layers:
    """Object and ground as two sheets, each with one affine motion from the new view to the old one."""

    carried_HW: np.ndarray
    """The old foreground probability moved rigidly with the object's sheet."""
    ratio_HW: np.ndarray
    """How much better the object's motion explains each pixel than the ground's, in [-1, 1]; 0 says nothing."""
    rigid_HW: np.ndarray
    """In [0, 1]: how far to believe the sheet rather than the dense flow; 0.5 where both predict the colours as well."""
    motion_23: np.ndarray
    """The object's affine motion, new view pixels to old ones."""

    def carry(self, box: tuple[float, float, float, float]) -> np.ndarray:
        """A box of the old view, moved and scaled as the object moved; [4] in the new view's pixels."""
        scale = self.motion_23[:, :2].diagonal().clip(0.8, 1.25)
        centre, half = (np.array(box[:2]) + box[2:]) / 2, (np.array(box[2:]) - box[:2]) / 2
        turn = self.motion_23[:, :2]
        at = np.linalg.solve(turn, centre - self.motion_23[:, 2]) if abs(np.linalg.det(turn)) > 0.3 else centre
        return np.concatenate([at - half / scale, at + half / scale])


def layers(match: Match, before: np.ndarray, view: np.ndarray, mask_HW: np.ndarray) -> Layers | None:
    """Two affine motions fitted to the flow, one on each side of the carried silhouette, and what they predict.

    Dense flow smears an object's motion over its surroundings; sheets do not. None when flow cannot fix both motions.

    Args:
        match: dense flow between the two views.
        before, view: the old and the new view, uint8 [H, W, 3].
        mask_HW: the old foreground probability.
    """
    height, width = match.prior_HW.shape
    step = 4  # a coarse grid is enough for six parameters
    ys, xs = np.mgrid[0:height:step, 0:width:step]
    design = np.stack([np.ones(xs.size), xs.ravel() / width, ys.ravel() / height], 1)
    flow, prior, trust = (item[::step, ::step] for item in (match.flow_HW2, match.prior_HW, match.trust_HW))
    trust = trust * texture(view)[::step, ::step]
    front = _fit(design, flow.reshape(-1, 2), (trust * (prior > 0.6)).ravel())
    ground = _fit(design, flow.reshape(-1, 2), (trust * (prior < 0.2)).ravel())
    if front is None or ground is None:
        return None
    wrong_front, wrong_ground = (_prediction_error(_move(model, before), view) for model in (front, ground))
    noise = 2 * float(np.median(np.minimum(wrong_front, wrong_ground))) + 8
    ratio = (wrong_ground - wrong_front) / (wrong_ground + wrong_front + noise)
    rigid = (match.error_HW + noise) / (match.error_HW + wrong_front + 2 * noise)
    return Layers(_move(front, mask_HW, cv2.BORDER_CONSTANT), ratio, rigid, _matrix(front, width, height))


def _move(model: np.ndarray, image: np.ndarray, border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
    """The image after the affine flow `model` (new view to old one)."""
    height, width = image.shape[:2]
    matrix = _matrix(model, width, height)
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=border)


def _matrix(model: np.ndarray, width: int, height: int) -> np.ndarray:
    """The affine map [2, 3], new pixels to old ones, of a fitted flow [3, 2]."""
    linear = np.stack([model[1] / width, model[2] / height], 1)
    return np.concatenate([np.eye(2) + linear, model[0][:, None]], 1)


def _prediction_error(moved: np.ndarray, view: np.ndarray) -> np.ndarray:
    """Squared colour difference, averaged over a small neighbourhood."""
    return cv2.blur(added(np.square(cv2.absdiff(moved, view).astype(np.float32))) / 3, (5, 5))


def texture(view: np.ndarray) -> np.ndarray:
    """In [0, 1]: how much grain there is for flow to hold on to."""
    grey = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY).astype(np.float32)
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=1 / 8)
    energy = cv2.blur(dx * dx + dy * dy, (7, 7))
    return energy / (energy + 4.0)


def _fit(design: np.ndarray, flow_N2: np.ndarray, weight_N: np.ndarray) -> np.ndarray | None:
    """Affine flow [3, 2] by iteratively re-weighted least squares; None when too little speaks for it."""
    if weight_N.sum() < 12:
        return None
    weight, model = weight_N, None
    for _ in range(4):
        left = design * weight[:, None]
        model = np.linalg.solve(left.T @ design + 1e-3 * np.eye(3), left.T @ flow_N2)
        error = added(np.square(flow_N2 - design @ model))
        weight = weight_N / (1 + error)
    return model
