"""BoT-SORT over per-frame proposals: from a YOLOX-style ONNX detector, or, without one, blobs that move against the ground.

Camera motion compensation is on, re-identification by looks is off. The track that the given box starts is the answer;
frames in which BoT-SORT gives it no detection count as not visible.
Source: Aharon et al., BoT-SORT (2022); Ge et al., YOLOX (2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from importlib.metadata import version as package_version
from pathlib import Path

import cv2
import numpy as np

from pixelis.core.errors import NotInstalled
from pixelis.tools.engines.onnx_session import onnx_session
from pixelis.tools.engines.seg_common import file_tag
from pixelis.tools.engines.trk_base import BoxTuple, SteadySize, TrackedBox, as_rgb, box_iou
from pixelis.tools.engines.trk_flow import Camera, Pyramid

ALGORITHM = 1
GIVEN_SCORE = 0.95
GAP_PX = 25
"""Changed pieces this near, at half of 480p, are one blob: a plain object only changes at its two ends."""
SAME_IOU = 0.3
"""A first-frame proposal that overlaps the given box by this much is the same object."""


class BotSortTrk:
    """Multi-object tracking by detection, of which one track is kept.

    Args:
        detector: an ONNX file with a YOLOX head (raw grid outputs); None for motion blobs.
        min_score: proposals below it are dropped.
    Raises:
        NotInstalled: the package `trackers` or the detector file is missing.
    """

    name = "botsort"

    def __init__(self, detector: str | Path | None = None, *, min_score: float = 0.1) -> None:
        try:
            import supervision  # noqa: F401  (comes with trackers)
            import trackers  # noqa: F401
        except ImportError as error:
            raise NotInstalled("BoT-SORT (package trackers)", "pip install 'pixelis[botsort]'") from error
        self._path = None if detector is None else Path(detector)
        if self._path is not None and not self._path.is_file():
            raise NotInstalled(f"the detector {self._path}", "put a YOLOX ONNX file there, or name none to follow motion blobs")
        self._session = None if self._path is None else onnx_session(self._path)
        self._min_score = min_score

    @cached_property
    def version(self) -> str:
        source = "motion blobs" if self._path is None else f"yolox {file_tag(self._path)}"
        return f"{self.name} {ALGORITHM}; {source}; trackers {package_version('trackers')}; opencv {cv2.__version__}"

    def track(self, frames: Iterable[np.ndarray], box: BoxTuple, *, should_stop: Callable[[], None] | None = None) -> list[TrackedBox]:
        """Follow what the box of the first frame shows.

        Args:
            frames: RGB uint8 [height, width, 3], consumed one by one.
            box: in the first frame's pixels, x1 and y1 exclusive, clipped and not empty.
            should_stop: called before every frame; what it raises passes through.
        Returns:
            One TrackedBox per frame; the first is the given box with score 1.
        """
        from trackers import BoTSORTTracker

        tracker, steady, wanted = BoTSORTTracker(enable_cmc=True), SteadySize(), None
        propose = _Motion() if self._session is None else self._detect
        found: list[TrackedBox] = []
        last = box
        for frame in frames:
            if should_stop is not None:
                should_stop()
            image = steady.enter(as_rgb(frame))
            boxes_N4, score_N = propose(image, last)
            if wanted is None:
                boxes_N4, score_N = _with_given(boxes_N4, score_N, box)
            tracks = _update(tracker, boxes_N4, score_N, image)
            if wanted is None:
                wanted = next((key for key, (at, _) in tracks.items() if box_iou(at, box) > 0.99), -1)
                found.append(TrackedBox(tuple(float(v) for v in box), 1.0))
                continue
            at, score = tracks.get(wanted, (None, 0.0))
            last = at or last
            found.append(TrackedBox(steady.leave(at, frame), float(min(max(score, 0.0), 1.0))))
        return found

    def _detect(self, image: np.ndarray, last: BoxTuple) -> tuple[np.ndarray, np.ndarray]:
        """Boxes [N, 4] and scores [N] of objects of any class, wherever the object was last."""
        entry = self._session.get_inputs()[0]
        height, width = (side if isinstance(side, int) else 416 for side in entry.shape[2:])
        scale = min(height / image.shape[0], width / image.shape[1])
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        canvas = np.full((height, width, 3), 114, np.uint8)  # YOLOX pads with this grey
        canvas[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        # YOLOX reads BGR in 0-255, not normalised.
        pixels = np.ascontiguousarray(canvas[..., ::-1].transpose(2, 0, 1)[None], dtype=np.float32)
        raw = self._session.run(None, {entry.name: pixels})[0][0]
        return decode_yolox(raw, height, width, scale, self._min_score)


def decode_yolox(raw: np.ndarray, height: int, width: int, scale: float, min_score: float) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores from YOLOX's raw grid outputs.

    Args:
        raw: [cells, 5 + classes] over strides 8, 16, 32: centre offset and log size in cells, objectness, class scores.
        height, width: of the network's input.
        scale: input pixels per image pixel.
        min_score: least objectness times class score.
    Returns:
        [N, 4] boxes in image pixels and [N] scores, best first, overlaps above IoU 0.6 suppressed.
    """
    cells, strides = [], []
    for stride in (8, 16, 32):
        ys, xs = np.mgrid[0 : height // stride, 0 : width // stride]
        cells.append(np.stack([xs.ravel(), ys.ravel()], 1))
        strides.append(np.full(xs.size, stride))
    cell_N2, stride_N1 = np.concatenate(cells), np.concatenate(strides)[:, None]
    score_N = raw[:, 4] * raw[:, 5:].max(1)
    keep = score_N >= min_score
    centre = (raw[keep, :2] + cell_N2[keep]) * stride_N1[keep] / scale
    size = np.exp(raw[keep, 2:4].clip(max=8)) * stride_N1[keep] / scale
    boxes = np.concatenate([centre - size / 2, size], 1)
    chosen = cv2.dnn.NMSBoxes(boxes.tolist(), score_N[keep].tolist(), min_score, 0.6)
    chosen = np.asarray(chosen, int).ravel()
    boxes = boxes[chosen]
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1).reshape(-1, 4), score_N[keep][chosen]


class _Motion:
    """Proposals without a detector: connected blobs of what differs from the last frame after the camera's motion."""

    def __init__(self) -> None:
        self.camera, self.before = None, None

    def __call__(self, image: np.ndarray, last: BoxTuple) -> tuple[np.ndarray, np.ndarray]:
        pyramid = Pyramid(image)
        scale = min(1.0, 427 / image.shape[1])
        small = cv2.GaussianBlur(pyramid.shrunk(scale), (5, 5), 0)
        camera, before, self.before = self.camera, self.before, small
        self.camera = camera or Camera(pyramid)
        if camera is None:
            return np.zeros((0, 4)), np.zeros(0)
        # On a plain ground the object has the only corners: without leaving it out, it would be the camera that moves.
        low, high = np.array(last[:2]), np.array(last[2:])
        affine = camera.step(pyramid, (low + high) / 2, high - low)
        affine[:, 2] *= scale
        dims = (small.shape[1], small.shape[0])
        moved = cv2.warpAffine(before, affine, dims, borderMode=cv2.BORDER_REPLICATE)
        change = cv2.absdiff(small, moved).max(-1)
        level = max(20.0, 3.0 * float(np.median(change)))
        blobs = cv2.morphologyEx((change > level).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((GAP_PX, GAP_PX), np.uint8))
        _, _, stats, _ = cv2.connectedComponentsWithStats(blobs)
        stats = stats[1:][stats[1:, cv2.CC_STAT_AREA] >= 12]
        stats = stats[np.argsort(-stats[:, cv2.CC_STAT_AREA], kind="stable")][:30]
        low = stats[:, :2] / scale
        boxes = np.concatenate([low, low + stats[:, 2:4] / scale], 1).reshape(-1, 4)
        return boxes, np.full(len(boxes), 0.8)


def _with_given(boxes_N4: np.ndarray, score_N: np.ndarray, box: BoxTuple) -> tuple[np.ndarray, np.ndarray]:
    """The proposals with the given box in the place of those that show the same object."""
    apart = np.array([box_iou(tuple(other), box) < SAME_IOU for other in boxes_N4], bool)
    return np.concatenate([[box], boxes_N4[apart]]), np.concatenate([[GIVEN_SCORE], score_N[apart]])


def _update(tracker, boxes_N4: np.ndarray, score_N: np.ndarray, image: np.ndarray) -> dict[int, tuple[BoxTuple, float]]:
    """One BoT-SORT step: box and score per track id."""
    import supervision as sv

    detections = sv.Detections(
        xyxy=boxes_N4.astype(np.float32).reshape(-1, 4), confidence=score_N.astype(np.float32), class_id=np.zeros(len(score_N), int)
    )
    out = tracker.update(detections, frame=np.ascontiguousarray(image[..., ::-1]))
    if out.tracker_id is None:
        return {}
    rows = zip(out.tracker_id, out.xyxy, out.confidence, strict=True)
    return {int(key): (tuple(float(v) for v in at), float(score)) for key, at, score in rows if key >= 0}
