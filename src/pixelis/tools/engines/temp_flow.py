"""What motion explains: each frame predicted from another by dense optical flow, and what is left over.

A mover, a panning camera or parallax carries old pixels to new places, so the flow accounts for them; a thing that comes from
nowhere has no source in the frame before, and one that is gone has none in the frame after.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from pixelis.tools.engines.channels import largest
from pixelis.tools.engines.dense_flow import DenseFlow
from pixelis.tools.engines.temp_changes import Change, came_of, find_changes, merge
from pixelis.tools.engines.temp_signal import Clip, Evidence

FLOW_SIDE = 240  # long side for the flow, which needs no detail
USUAL_SAMPLES = 12
FLOOR = 4.0  # Lab steps that noise and resampling leave in any prediction


class Leftover:
    """Mean change of a region between two frames that motion cannot explain, in Lab steps; maps are made when first asked for."""

    def __init__(self, clip: Clip, should_stop: Callable[[], object] | None = None) -> None:
        self._should_stop = should_stop
        h, w = clip.lab_THWC.shape[1:3]
        scale = min(1.0, FLOW_SIDE / max(h, w))
        # Below 16 px the flow has no pyramid to work with.
        self._size = max(16, round(w * scale)), max(16, round(h * scale))
        self._clip = clip
        self._flow = DenseFlow()
        y, x = np.mgrid[0 : self._size[1], 0 : self._size[0]].astype(np.float32)
        self._grid = np.stack([x, y], axis=-1)
        self._small: dict[int, np.ndarray] = {}
        self._maps: dict[tuple[int, int], np.ndarray] = {}

    def share(self, change: Change) -> float:
        """In [0, 1]: how much of a change no motion explains, against the frames next to it and the same lapse elsewhere."""
        count, last, first = self._clip.count, change.last, change.first
        where = self._where(change)
        across = min(self._mean(last, first, where), self._mean(max(0, last - 1), min(count - 1, first + 1), where))
        lag = first - last
        near = [self._mean(t - 1, t, where) for t in (last - 1, last, first + 1, first + 2) if 0 < t < count]
        starts = np.unique(np.linspace(0, count - 1 - lag, min(USUAL_SAMPLES, count - lag)).round().astype(int))
        far = [self._mean(t, t + lag, where) for t in starts if t + lag <= last or t >= first]
        usual = float(np.quantile(far, 0.75)) if far else 0.0
        alone = np.clip(1 - max(near, default=0.0) / max(across, 1e-3), 0, 1)
        return float(alone * across / (across + usual + FLOOR))

    def changes(self, noise: float, cuts: list[int]) -> list[Change]:
        """Sudden changes that motion does not explain, in working pixels."""
        count, clip = self._clip.count, self._clip
        near = [None, *(self._least(t - 1, t) for t in range(1, count))]
        evidence = np.zeros((count, *self._size[::-1]), np.uint8)
        for t in range(1, count):
            between = near[t]
            for other in (t - 1, t + 1):
                if 0 < other < count:
                    between = cv2.min(between, cv2.subtract(near[t], near[other]))
            if between.max() > 2 * FLOOR:  # below that no threshold is met, and the wider pair is not worth its flow
                between = cv2.min(between, self._least(max(0, t - 2), min(count - 1, t + 1)))
            evidence[t] = between
        pictures = np.stack([self._picture(t) for t in range(count)])
        small = Clip(pictures, clip.times_s, clip.end_s, clip.camera, clip.light_T3, (0, 0, *self._size))
        nothing = np.zeros((count, 4, 4), np.uint8)
        return [self._enlarged(c) for c in merge(find_changes(small, Evidence(evidence, nothing, nothing, noise), cuts, self._should_stop))]

    def bracket(self, change: Change, other: Change) -> float:
        """In [0, 1]: whether the new look lasts until `other` and ends there, or the old look is back right after it."""
        where = self._where(change)

        def closer(look: int, near: int, far: int) -> float:
            return 1 - (self._mean(look, near, where) + FLOOR) / (self._mean(look, far, where) + FLOOR)

        return float(np.clip(max(closer(change.first, other.last, other.first), closer(change.last, other.first, other.last)), 0, 1))

    def fades(self, box: tuple[int, int, int, int], lapse_s: float) -> list[Change]:
        """Gradual changes inside a box: lapses across which much more is left over than across others of the same length."""
        clip, count = self._clip, self._clip.count
        fps = (count - 1) / max(1e-6, float(clip.times_s[-1] - clip.times_s[0]))
        lag = round(lapse_s * fps)
        if lag < 2 or count < 2.5 * lag:
            return []
        whole = np.ones((box[3] - box[1], box[2] - box[0]), bool)
        rows, columns, _ = self._where(Change(0, 1, box, whole, 0.0, 0.0, 0.0))
        starts = np.arange(0, count - lag, max(1, lag // 4))
        # Blocks, for the thing may be small in its box: the strongest ninth decides.
        maps = np.stack([cv2.resize(self._least(t, t + lag)[rows, columns], (6, 6), interpolation=cv2.INTER_AREA) for t in starts])
        left = np.sort(np.maximum(maps - np.median(maps, axis=0), 0).reshape(len(starts), -1), axis=1)[:, -9:].mean(axis=1)
        out = []
        for row in np.argsort(-left, kind="stable")[:3]:
            near = np.abs(starts - starts[row]) <= 2 * lag
            plateau = (np.abs(starts - starts[row]) <= lag) & (left >= 0.75 * left[row])
            if any(c.last <= starts[row] + lag and starts[row] <= c.first for c in out):
                continue
            middle = float((starts[plateau] + lag / 2).mean())
            last, first = max(0, round(middle - lag / 2)), min(count - 1, round(middle + lag / 2))
            usual = float(np.quantile(left[~near], 0.9)) if (~near).any() else 0.0
            clear = float(np.clip(1 - usual / max(left[row], 1e-3), 0, 1) * left[row] / (left[row] + 2 * FLOOR))
            gap = largest(cv2.absdiff(clip.lab_THWC[last], clip.lab_THWC[first])[box[1] : box[3], box[0] : box[2]])
            mask = gap >= 0.5 * np.quantile(gap, 0.95)
            came = came_of(clip.lab_THWC[last], clip.lab_THWC[first], box, mask)
            out.append(Change(last, first, box, mask, clear, came, float(left[row]) * mask.size))
        return out

    def _enlarged(self, change: Change) -> Change:
        h, w = self._clip.lab_THWC.shape[1:3]
        sx, sy = w / self._size[0], h / self._size[1]
        x0, y0, x1, y1 = (round(v * s) for v, s in zip(change.box, (sx, sy, sx, sy), strict=True))
        mask = cv2.resize(change.mask_HW.astype(np.uint8), (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST) > 0
        box = (x0, y0, x1, y1)
        came = came_of(self._clip.lab_THWC[change.last], self._clip.lab_THWC[change.first], box, mask)
        return Change(change.last, change.first, box, mask, change.score, came, change.mass * sx * sy)

    def _least(self, a: int, b: int) -> np.ndarray:
        return cv2.min(self._map(a, b), self._map(b, a))

    def _where(self, change: Change) -> tuple[slice, slice, np.ndarray]:
        h, w = self._clip.lab_THWC.shape[1:3]
        sx, sy = self._size[0] / w, self._size[1] / h
        x0, y0, x1, y1 = change.box
        left, top = min(int(x0 * sx), self._size[0] - 1), min(int(y0 * sy), self._size[1] - 1)
        right, bottom = min(self._size[0], max(left + 1, round(x1 * sx))), min(self._size[1], max(top + 1, round(y1 * sy)))
        weight = cv2.resize(change.mask_HW.astype(np.float32), (right - left, bottom - top), interpolation=cv2.INTER_AREA)
        return slice(top, bottom), slice(left, right), weight / max(float(weight.sum()), 1e-3)

    def _mean(self, a: int, b: int, where: tuple[slice, slice, np.ndarray]) -> float:
        rows, columns, weight = where
        # Disocclusion is unexplained in one direction only.
        return min(float((self._map(*pair)[rows, columns] * weight).sum()) for pair in ((a, b), (b, a)))

    def _map(self, source: int, target: int) -> np.ndarray:
        if (source, target) not in self._maps:
            if self._should_stop is not None:
                self._should_stop()
            a, b = self._picture(source), self._picture(target)
            flow = self._flow.between(b[..., 0], a[..., 0])
            predicted = cv2.remap(a, self._grid + flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            gap = largest(cv2.blur(cv2.absdiff(predicted, b), (3, 3)))
            light = self._clip.light_T3[min(source, target) + 1 : max(source, target) + 1].sum(axis=0)
            self._maps[source, target] = cv2.subtract(gap, float(np.abs(light).max()))
        return self._maps[source, target]

    def _picture(self, t: int) -> np.ndarray:
        if t not in self._small:
            self._small[t] = cv2.resize(self._clip.lab_THWC[t], self._size, interpolation=cv2.INTER_AREA)
        return self._small[t]
