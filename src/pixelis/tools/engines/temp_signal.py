"""From frames to evidence of change: a small Lab copy of the clip, the camera's motion, and per frame what changed at once.

A change between frames t-1 and t counts where the two frames before differ from the two frames from t on (also across the
outer pair), by more than either pair differs inside. That is blind to flicker, to single flashes and to most motion, and
each pixel is compared with the range of its neighbourhood, so shake below the window costs nothing. A region that was asked for is
followed where the camera shakes, so that what lies in it stays in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from pixelis.core.errors import ToolError

WORK_SIDE = 480  # long side of the working copy: a 20 px object in a 1280 px frame still has 7 px
BUDGET_BYTES = 200_000_000  # the working copy of a long clip gets smaller instead of larger than this; one that follows a shake is a second
CAMERA_SIDE = 320
STILL_SHARE = 0.0005  # of the picture's pixels: where fewer differ from one frame to the next, the camera stood still
STILL_SHARE_MOVERS = 0.02  # the same where movement is looked for
LEAST_EXTENT = 0.25  # of a side, over which what moves together must lie: what is smaller may be a thing before plain ground
SHAKE_REACH = 0.06  # of the frame's longer side: a camera that stays this close to where it began shakes, one that goes further travels
COARSE = 6  # block size of the low-frequency copy that sees faint but wide changes
WITHIN_PX = 1.0  # a camera that is said to have moved by no more may as well stand still: noise moves it as far
_FINE_KERNEL = np.ones((5, 5), np.uint8)
_COARSE_KERNEL = np.ones((3, 3), np.uint8)

Offset = tuple[int, int]
"""x and y in whole-frame pixels."""


@dataclass(frozen=True)
class Clip:
    """The working copy of a clip.

    `lab_THWC`: uint8 Lab of the region plus a margin, which follow a camera that shakes; `times_s` [T]; `end_s`: when the last frame ends;
    `camera`: per frame the 2x3 map from the frame before, in working pixels, or None where it stood still or could not be told;
    `light_T3`: Lab shift from the frame before of the whole picture (flicker); `region`: the asked-for box, x0, y0, x1, y1 in the copy.
    """

    lab_THWC: np.ndarray
    times_s: np.ndarray
    end_s: float
    camera: list[np.ndarray | None]
    light_T3: np.ndarray
    region: tuple[int, int, int, int]

    @property
    def count(self) -> int:
        return len(self.lab_THWC)

    def time_after(self, index: int) -> float:
        """Start of frame `index`, or the clip's end past the last one."""
        return float(self.times_s[index]) if index < self.count else self.end_s

    def every(self, step: int) -> Clip:
        """Each `step`-th frame only, with camera maps and light shifts chained."""
        picked = list(range(0, self.count, step))
        camera: list[np.ndarray | None] = [None]
        light = np.zeros((len(picked), 3), np.float32)
        for row, (a, b) in enumerate(pairwise(picked), 1):
            camera.append(chain(self.camera[a + 1 : b + 1]))
            light[row] = self.light_T3[a + 1 : b + 1].sum(axis=0)
        return Clip(self.lab_THWC[::step], self.times_s[::step], self.end_s, camera, light, self.region)


def chain(maps: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """One map for several steps in a row; None when all stood still."""
    total = np.eye(3)
    for step in maps:
        if step is not None:
            total = np.vstack([step, [0, 0, 1]]) @ total
    return total[:2].astype(np.float32) if any(step is not None for step in maps) else None


def read_clip(
    frames: Iterable[np.ndarray],
    times_s: Sequence[float],
    box: tuple | None,
    should_stop: Callable[[], object] | None,
    *,
    follows: bool = True,
) -> Clip:
    """One pass over the frames; nothing is kept at full size.

    Args:
        follows: whether a small shake counts and a box goes along with it. Not where movement itself is looked for: a lone thing before
            plain ground moves as the camera would.

    Raises:
        ToolError: no frames, frames of several sizes or not RGB uint8, more or fewer frames than times, times that run backwards.
    """
    times = np.asarray([float(t) for t in times_s], np.float64)
    if not len(times) or not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise ToolError("bad_arguments", "TEMP needs at least one frame, with finite times that never run backwards")
    lab = camera = None
    light = np.zeros((len(times), 3), np.float32)
    maps: list[np.ndarray | None] = []
    seen = 0
    for frame in frames:
        if should_stop is not None:
            should_stop()
        if seen == len(times):
            raise ToolError("bad_arguments", f"more frames than the {len(times)} times")
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ToolError("bad_arguments", f"frame {seen} is not RGB uint8 [height, width, 3]")
        if lab is None:
            layout = _Layout.plan(frame.shape[:2], box, len(times))
            lab = np.empty((len(times), *layout.size_hw, 3), np.uint8)
            camera = _Camera(STILL_SHARE if follows else STILL_SHARE_MOVERS)
            followed = _Followed(layout, lab) if follows and box is not None else None
        elif frame.shape[:2] != layout.frame_hw:
            raise ToolError(
                "bad_arguments", f"frame {seen} is {frame.shape[1]}x{frame.shape[0]}, the first {layout.frame_hw[1]}x{layout.frame_hw[0]}"
            )
        small, lab[seen] = layout.cut(frame)
        # Without a box the working copy shows the whole frame: the camera is read from it, which is cheaper.
        step, light[seen] = camera.step(frame if box is not None else small, frame.shape[1])
        maps.append(layout.to_working(step))
        if followed is not None:
            followed.take(frame, seen, step)
        seen += 1
    if seen != len(times):
        raise ToolError("bad_arguments", f"{len(times)} times but {seen} frames")
    if followed is not None and followed.lab_THWC is not None:
        lab, maps = followed.lab_THWC, followed.maps
    steps = np.diff(times)
    end = float(times[-1] + (np.median(steps) if len(steps) else 0.0))
    return Clip(lab, times, end, maps, light, layout.region)


@dataclass(frozen=True)
class _Layout:
    """Where the working copy lies in the frame."""

    frame_hw: tuple[int, int]
    crop: tuple[int, int, int, int]
    size_hw: tuple[int, int]
    region: tuple[int, int, int, int]

    @classmethod
    def plan(cls, frame_hw: tuple[int, int], box: tuple | None, count: int) -> _Layout:
        height, width = frame_hw
        x0, y0, x1, y1 = (0, 0, width, height) if box is None else _whole_pixels(box, width, height)
        # A margin shows what surrounds the region, which tells an object that came from one that went.
        pad = 0 if box is None else int(max(8, 0.2 * max(x1 - x0, y1 - y0)))
        cx0, cy0, cx1, cy1 = max(0, x0 - pad), max(0, y0 - pad), min(width, x1 + pad), min(height, y1 + pad)
        area_limit = BUDGET_BYTES / 3 / count
        scale = min(1.0, WORK_SIDE / max(cx1 - cx0, cy1 - cy0), (area_limit / ((cx1 - cx0) * (cy1 - cy0))) ** 0.5)
        w, h = max(8, round((cx1 - cx0) * scale)), max(8, round((cy1 - cy0) * scale))
        sx, sy = w / (cx1 - cx0), h / (cy1 - cy0)
        region = (int((x0 - cx0) * sx), int((y0 - cy0) * sy), int(np.ceil((x1 - cx0) * sx)), int(np.ceil((y1 - cy0) * sy)))
        return cls(frame_hw, (cx0, cy0, cx1, cy1), (h, w), region)

    def cut(self, frame_HWC: np.ndarray, offset: Offset = (0, 0)) -> tuple[np.ndarray, np.ndarray]:
        """The crop at working size, in RGB and as smoothed Lab; what lies beyond the frame is as its edge."""
        (x0, y0, x1, y1), (dx, dy) = self.crop, offset
        h, w = self.size_hw
        if offset == (0, 0):
            crop = frame_HWC[y0:y1, x0:x1]
        else:
            rows, columns = np.arange(y0 + dy, y1 + dy), np.arange(x0 + dx, x1 + dx)
            crop = frame_HWC[rows.clip(0, self.frame_hw[0] - 1)[:, None], columns.clip(0, self.frame_hw[1] - 1)]
        small = _shrink(crop, w, h)
        return small, cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2LAB), (3, 3), 0)

    def to_working(self, step: np.ndarray | None, before: Offset = (0, 0), now: Offset = (0, 0)) -> np.ndarray | None:
        """A camera map in whole-frame pixels, re-expressed in working pixels; None when it moves no corner by 0.5 px.

        Args:
            before, now: where the crop was in the frame before and is in this one, from its place in the first.
        """
        if step is None and before == now:
            return None
        h, w = self.size_hw
        step = np.eye(2, 3) if step is None else step
        moved = self._into(now) @ np.vstack([step, [0, 0, 1]]) @ np.linalg.inv(self._into(before))
        corners = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1]], float).T
        shift = np.abs((moved @ corners - corners)[:2]).max()
        return moved[:2].astype(np.float32) if shift >= 0.5 else None

    def _into(self, offset: Offset) -> np.ndarray:
        """[3, 3]: from whole-frame pixels to working ones."""
        (x0, y0, x1, y1), (dx, dy), (h, w) = self.crop, offset, self.size_hw
        sx, sy = w / (x1 - x0), h / (y1 - y0)
        return np.array([[sx, 0, -(x0 + dx) * sx], [0, sy, -(y0 + dy) * sy], [0, 0, 1]])


class _Followed:
    """The working copy of a region that goes along with a camera that shakes, made from the first frame on in which it moves.

    `lab_THWC` is None while the camera stands still, and from the moment on at which it has gone too far: then it travels, and the
    region stays where it was asked for.
    """

    def __init__(self, layout: _Layout, still_THWC: np.ndarray) -> None:
        self._layout, self._still = layout, still_THWC
        self._path = np.eye(3)
        x0, y0, x1, y1 = layout.crop
        self._centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2, 1.0])
        self._offset: Offset = (0, 0)
        self._travels = False
        self.lab_THWC: np.ndarray | None = None
        self.maps: list[np.ndarray | None] = []

    def take(self, frame_HWC: np.ndarray, index: int, step: np.ndarray | None) -> None:
        """The next frame, and the camera's map from the one before in whole-frame pixels."""
        if self._travels:
            return
        if step is not None:
            self._path = np.vstack([step, [0, 0, 1]]) @ self._path
        gone = (self._path @ self._centre - self._centre)[:2]
        if np.abs(gone).max() > SHAKE_REACH * max(self._layout.frame_hw):
            self._travels, self.lab_THWC = True, None
            return
        before = self._offset
        if np.abs(gone - before).max() > WITHIN_PX:
            self._offset = (round(float(gone[0])), round(float(gone[1])))
        self.maps.append(self._layout.to_working(step, before, self._offset))
        if self.lab_THWC is None and self._offset != (0, 0):
            self.lab_THWC = np.empty_like(self._still)
            self.lab_THWC[:index] = self._still[:index]
        if self.lab_THWC is not None:
            self.lab_THWC[index] = self._layout.cut(frame_HWC, self._offset)[1]


def _whole_pixels(box: tuple, width: int, height: int) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (float(v) for v in box)
    x0, x1, y0, y1 = max(x0, 0.0), min(x1, width), max(y0, 0.0), min(y1, height)
    if not (x1 > x0 and y1 > y0):
        raise ToolError("out_of_frame", f"the TEMP box misses the {width}x{height} frame or is empty")
    return int(np.floor(x0)), int(np.floor(y0)), int(np.ceil(x1)), int(np.ceil(y1))


def _shrink(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resized; area averaging only where bilinear sampling would skip pixels, for it is several times slower."""
    if image.shape[:2] == (height, width):
        return image
    half = image.shape[1] > 2 * width or image.shape[0] > 2 * height
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if half else cv2.INTER_LINEAR)


class _Camera:
    """Frame-to-frame similarity of the whole picture by sparse optical flow and RANSAC."""

    def __init__(self, still_share: float) -> None:
        self._still_share = still_share
        self._last_grey: np.ndarray | None = None
        self._last_lab: np.ndarray | None = None

    def step(self, frame_HWC: np.ndarray, width: int) -> tuple[np.ndarray | None, np.ndarray]:
        """The 2x3 map from the last frame in pixels of a frame `width` wide (None: still, or not to be told), and the light's shift."""
        h, w = frame_HWC.shape[:2]
        scale = min(1.0, CAMERA_SIDE / max(h, w))
        small = _shrink(frame_HWC, max(1, round(w * scale)), max(1, round(h * scale)))
        scale = small.shape[1] / width
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        lab = cv2.cvtColor(small[::4, ::4], cv2.COLOR_RGB2LAB).astype(np.int16)
        last_grey, last_lab = self._last_grey, self._last_lab
        self._last_grey, self._last_lab = grey, lab
        if last_grey is None:
            return None, np.zeros(3, np.float32)
        light = np.median((lab - last_lab).reshape(-1, 3), axis=0).astype(np.float32)
        return _similarity(last_grey, grey, scale, self._still_share), np.where(np.abs(light) <= 12, light, 0)


def _similarity(a_HW: np.ndarray, b_HW: np.ndarray, scale: float, still_share: float) -> np.ndarray | None:
    if min(a_HW.shape) < 32 or np.count_nonzero(cv2.absdiff(a_HW, b_HW) > 4) < still_share * a_HW.size:
        return None
    corners = cv2.goodFeaturesToTrack(a_HW, 150, 0.01, 8)
    if corners is None or len(corners) < 8:
        return None
    moved, ok, _ = cv2.calcOpticalFlowPyrLK(a_HW, b_HW, corners, None, winSize=(15, 15), maxLevel=3)
    keep = ok.ravel() == 1
    if keep.sum() < 8:
        return None
    cv2.setRNGSeed(7)
    step, inliers = cv2.estimateAffinePartial2D(corners[keep], moved[keep], ransacReprojThreshold=1.5)
    if step is None or inliers.sum() < max(8, 0.35 * len(corners)):
        return None
    if not 0.7 < np.hypot(step[0, 0], step[1, 0]) < 1.4:
        return None
    extent = np.ptp(corners[keep][inliers.ravel() == 1].reshape(-1, 2), axis=0) / a_HW.shape[::-1]
    if extent.max() < LEAST_EXTENT:
        return None
    step[:, 2] /= scale
    return step


@dataclass(frozen=True)
class Evidence:
    """What changed at once. `fine_THW`, `coarse_THW` uint8: strength at frame t against t-1;"""

    fine_THW: np.ndarray
    coarse_THW: np.ndarray
    between_THW: np.ndarray
    """Coarse, uint8: change between the pairs around each frame, whatever moves inside them."""
    noise: float
    """Noise of the clip in Lab steps, after the working copy's smoothing."""


def noise_of(clip: Clip) -> float:
    """What consecutive frames differ by, in Lab lightness, in the calmest quarter of blocks and frames: motion is elsewhere."""
    if clip.count < 2:
        return 0.0
    rows = np.linspace(1, clip.count - 1, min(24, clip.count - 1)).round().astype(int)
    size = max(1, clip.lab_THWC.shape[2] // 16), max(1, clip.lab_THWC.shape[1] // 12)
    calm = []
    for row in rows:
        gap = cv2.absdiff(clip.lab_THWC[row, ..., 0], clip.lab_THWC[row - 1, ..., 0])
        # A brightness step of the whole picture is flicker, not noise.
        blocks = (
            cv2.resize(gap, size, interpolation=cv2.INTER_AREA).astype(np.float32)
            if not np.any(clip.light_T3[row])
            else _residual(clip, row, size)
        )
        calm.append(float(np.quantile(blocks, 0.25)))
    return float(np.quantile(calm, 0.25))


def _residual(clip: Clip, row: int, size: tuple[int, int]) -> np.ndarray:
    gap = clip.lab_THWC[row, ..., 0].astype(np.float32) - clip.lab_THWC[row - 1, ..., 0] - clip.light_T3[row, 0]
    return cv2.resize(np.abs(gap), size, interpolation=cv2.INTER_AREA)


def find_evidence(clip: Clip, *, fine: bool = True, should_stop: Callable[[], object] | None = None) -> Evidence:
    """Per frame and pixel, by how many Lab steps it changed at once, beyond motion, noise and flicker; `fine` False leaves that map 0."""
    h, w = clip.lab_THWC.shape[1:3]
    ch, cw = max(4, round(h / COARSE)), max(4, round(w / COARSE))
    coarse = np.stack([cv2.resize(frame, (cw, ch), interpolation=cv2.INTER_AREA) for frame in clip.lab_THWC])
    shrink = np.array([cw / w, ch / h])
    out_coarse, between = _contrast(coarse, clip, _COARSE_KERNEL, shrink, should_stop)
    if fine:
        out_fine, _ = _contrast(clip.lab_THWC, clip, _FINE_KERNEL, np.ones(2), should_stop)
    else:
        out_fine = np.zeros((clip.count, 1, 1), np.uint8)
    return Evidence(out_fine, out_coarse, between, noise_of(clip))


def _contrast(stack_THWC: np.ndarray, clip: Clip, kernel: np.ndarray, shrink: np.ndarray, should_stop) -> tuple[np.ndarray, np.ndarray]:
    """Change between the pairs around each frame beyond change inside them; and without that subtraction."""
    count = len(stack_THWC)
    near = np.zeros(stack_THWC.shape[:3], np.uint8)
    for t in range(1, count):
        if should_stop is not None:
            should_stop()
        near[t] = _differ(stack_THWC[t - 1], stack_THWC[t], _scaled(clip.camera[t], shrink), clip.light_T3[t], kernel)
    change, plain = np.zeros_like(near), np.zeros_like(near)
    for t in range(1, count):
        between = near[t]
        if not between.any():
            continue
        a, b = max(t - 2, 0), min(t + 1, count - 1)
        if (a, b) != (t - 1, t):
            wide = _scaled(chain(clip.camera[a + 1 : b + 1]), shrink)
            between = cv2.min(between, _differ(stack_THWC[a], stack_THWC[b], wide, clip.light_T3[a + 1 : b + 1].sum(axis=0), kernel))
        plain[t] = between
        inside = cv2.max(near[t - 1], near[t + 1] if t + 1 < count else near[t - 1])
        change[t] = cv2.subtract(between, inside)
    return change, plain


def _scaled(step: np.ndarray | None, shrink: np.ndarray) -> np.ndarray | None:
    if step is None:
        return None
    out = step.copy()
    out[0, 2] *= shrink[0]
    out[1, 2] *= shrink[1]
    return out


def _differ(a_HWC: np.ndarray, b_HWC: np.ndarray, step: np.ndarray | None, light: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """How far each pixel of either lies outside the other's local range, at best with or without the camera's step."""
    if np.any(light):
        a_HWC = cv2.add(a_HWC, (*(float(v) for v in light), 0.0))
    best = _outside(a_HWC, b_HWC, kernel)
    if step is not None:
        h, w = b_HWC.shape[:2]
        moved = cv2.warpAffine(a_HWC, step, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        best = cv2.min(best, _outside(moved, b_HWC, kernel))
    return best


def _outside(a_HWC: np.ndarray, b_HWC: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    gap = None
    for x, y in ((a_HWC, b_HWC), (b_HWC, a_HWC)):
        over = cv2.max(cv2.subtract(y, cv2.dilate(x, kernel)), cv2.subtract(cv2.erode(x, kernel), y))
        gap = over if gap is None else cv2.max(gap, over)
    return cv2.max(cv2.max(gap[..., 0], gap[..., 1]), gap[..., 2])
