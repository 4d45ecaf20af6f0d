"""From evidence maps to events: which region changed when, whether a thing came, went or changed, and whether it is moving."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from pixelis.tools.engines.prop_colour import COLOUR_NAMES, name_pixels
from pixelis.tools.engines.temp_signal import Clip, Evidence, chain

CUT_COVER = 0.55  # share of the picture that must change at once
BORDER_PX = 2  # what comes so close to the picture's border touches it
NEARER = 3  # so many times the camera's own step goes what is nearer than the ground it is told from (parallax)


@dataclass(frozen=True)
class Change:
    """A region that changed at frame `last + 1 .. first`: `last` is the last frame of the old look, `first` the first of the new."""

    last: int
    first: int
    box: tuple[int, int, int, int]
    mask_HW: np.ndarray
    """bool, of the box only."""
    score: float
    came: float
    """In [-1, 1]: 1 when only the new look stands out from what surrounds it, -1 when only the old one does."""
    mass: float
    """Strength summed over the region."""


def threshold(noise: float) -> float:
    """How many Lab steps count, given the clip's noise."""
    return float(np.clip(7 + 2.5 * noise, 8, 40))


def find_cuts(evidence: Evidence) -> list[tuple[int, float]]:
    """Frames that begin a new shot, with the clarity of each cut."""
    count = len(evidence.between_THW)
    limit = max(6.0, 0.6 * threshold(evidence.noise))
    cover = (evidence.between_THW > limit).reshape(count, -1).mean(axis=1)
    size = evidence.between_THW.reshape(count, -1).mean(axis=1)
    cuts = []
    for t in range(1, count):
        around = np.delete(size[max(1, t - 3) : t + 4], min(t - 1, 3))
        clear = 1 - float(around.max(initial=1.0)) / max(1.0, float(size[t]))
        # A hard cut replaces nearly everything and stands alone; motion, however fast, has neighbours like itself.
        if clear > 0.4 and cover[t] >= (CUT_COVER if clear < 0.8 else 0.65 * CUT_COVER):
            cuts.append((t, float(np.clip(clear * min(1.0, cover[t] + 0.2), 0, 1))))
    return cuts


def find_changes(clip: Clip, evidence: Evidence, cuts: list[int], should_stop: Callable[[], object] | None = None) -> list[Change]:
    """Sudden regional changes of a clip, cuts left out."""
    limit = threshold(evidence.noise)
    h, w = clip.lab_THWC.shape[1:3]
    # Coarse maps are averaged over many pixels, so a fainter step there means as much.
    gain = limit / max(4.0, 0.5 * limit)
    found: list[Change] = []
    sums = evidence.fine_THW.reshape(clip.count, -1).max(axis=1)
    for t in range(1, clip.count):
        if should_stop is not None:
            should_stop()
        if t in cuts or (sums[t] < limit and evidence.coarse_THW[t].max() * gain < limit):
            continue
        strength = _strength(evidence, t, gain, (h, w))
        for box, mask in _blobs(strength > limit, w):
            change = _judge(clip, evidence, strength, t, box, mask, limit, gain)
            if change is not None:
                found.append(change)
    return _ranked(found)


def whole_changes(clip: Clip, cuts: list[int]) -> list[Change]:
    """Steps in the overall look of the region: 4 x 4 mean colours, which texture that moves about leaves as they are."""
    x0, y0, x1, y1 = clip.region
    looks = np.stack([cv2.resize(f[y0:y1, x0:x1].astype(np.float32), (4, 4), interpolation=cv2.INTER_AREA) for f in clip.lab_THWC])
    looks = (looks - np.cumsum(clip.light_T3, axis=0)[:, None, None]).reshape(clip.count, -1)

    def gap(a: int, b: int) -> float:
        return float(np.sqrt(np.mean((looks[a] - looks[b]) ** 2)))

    near = np.array([0.0, *(gap(t - 1, t) for t in range(1, clip.count))])
    usual = float(np.quantile(near[1:], 0.75)) if clip.count > 2 else 0.0
    out = []
    for t in range(1, clip.count):
        between = min(near[t], gap(max(0, t - 2), min(clip.count - 1, t + 1)))
        around = max(near[max(1, t - 3) : t].max(initial=0.0), near[t + 1 : t + 4].max(initial=0.0), usual)
        clear = 1 - around / max(between, 1e-6)
        if t in cuts or between < 4 or clear < 0.4:
            continue
        mask = np.ones((y1 - y0, x1 - x0), bool)
        came = came_of(clip.lab_THWC[t - 1], clip.lab_THWC[t], clip.region, mask)
        out.append(Change(t - 1, t, clip.region, mask, clear * (1 - np.exp(-between / 6)), came, between * mask.size))
    return out


def _ranked(changes: list[Change]) -> list[Change]:
    """Scores weighed by mass: what comes from motion comes often, so a true event outweighs the usual change of its clip."""
    masses = np.array([c.mass for c in changes])
    out = []
    for row, change in enumerate(changes):
        others = np.delete(masses, row)
        usual = float(np.sort(others)[::-1][: max(4, len(others) // 4)].mean()) if len(others) >= 4 else 0.0
        out.append(replace(change, score=change.score * change.mass / (change.mass + 0.5 * usual)))
    return out


def _strength(evidence: Evidence, t: int, gain: float, size_hw: tuple[int, int]) -> np.ndarray:
    wide = cv2.resize(evidence.coarse_THW[t], size_hw[::-1], interpolation=cv2.INTER_LINEAR).astype(np.float32) * gain
    return np.maximum(evidence.fine_THW[t], wide)


def _blobs(hot_HW: np.ndarray, width: int, keep: int = 6) -> list[tuple[tuple[int, int, int, int], np.ndarray]]:
    """Largest connected regions after closing small gaps: box and the mask inside it."""
    hot = hot_HW.astype(np.uint8)
    reach = 5 if width < 240 else 9
    joined = cv2.morphologyEx(hot, cv2.MORPH_CLOSE, np.ones((reach, reach), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(joined)
    order = sorted(range(1, count), key=lambda i: (-stats[i, cv2.CC_STAT_AREA], i))[:keep]
    out = []
    for i in order:
        x, y, bw, bh, area = (int(v) for v in stats[i])
        if area < 14 or min(bw, bh) < 3:
            continue
        out.append(((x, y, x + bw, y + bh), labels[y : y + bh, x : x + bw] == i))
    return out


def _judge(clip: Clip, evidence: Evidence, strength: np.ndarray, t: int, box, mask, limit: float, gain: float) -> Change | None:
    """Score a blob: how strong against the threshold, how compact, how alone in time."""
    x0, y0, x1, y1 = box
    own = float(strength[y0:y1, x0:x1][mask].sum())
    mean = own / max(1, mask.sum())
    h, w = strength.shape
    pad = max(4, int(0.4 * max(x1 - x0, y1 - y0)))
    gx0, gy0, gx1, gy1 = max(0, x0 - pad), max(0, y0 - pad), min(w, x1 + pad), min(h, y1 + pad)
    other = 0.0
    for s in (t - 3, t - 2, t - 1, t + 1, t + 2, t + 3):
        if 0 < s < clip.count:
            near = evidence.fine_THW[s, gy0:gy1, gx0:gx1]
            other = max(other, float(near[near > limit].sum()))
    alone = float(np.clip(1.15 - other / own, 0, 1)) if own > 0 else 0.0
    thickness = 2 * cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3).max() / max(1.0, np.sqrt(mask.sum()))
    compact = float(np.clip((thickness - 0.15) / 0.35, 0, 1))
    score = alone * compact * (1 - np.exp(-mean / (0.8 * limit))) * (1 - np.exp(-mask.sum() / 20))
    if score < 0.08:
        return None
    came = came_of(clip.lab_THWC[t - 1], clip.lab_THWC[t], box, mask)
    return Change(t - 1, t, box, mask, float(score), came, own)


def came_of(before_HWC: np.ndarray, after_HWC: np.ndarray, box, mask) -> float:
    """Compare how much the region stands out from its ring, before and after: by colour, and by an edge along its outline."""
    h, w = before_HWC.shape[:2]
    x0, y0, x1, y1 = box
    pad = max(4, int(0.25 * max(x1 - x0, y1 - y0)))
    gx0, gy0, gx1, gy1 = max(0, x0 - pad), max(0, y0 - pad), min(w, x1 + pad), min(h, y1 + pad)
    inside = np.zeros((gy1 - gy0, gx1 - gx0), np.uint8)
    inside[y0 - gy0 : y1 - gy0, x0 - gx0 : x1 - gx0] = mask
    ring = (cv2.dilate(inside, np.ones((2 * pad + 1, 2 * pad + 1), np.uint8)) & ~cv2.dilate(inside, np.ones((3, 3), np.uint8)) & 1) > 0
    core = inside > 0
    if ring.sum() < 8:
        return 0.0
    outline = (cv2.dilate(inside, np.ones((3, 3), np.uint8)) - cv2.erode(inside, np.ones((3, 3), np.uint8))) > 0
    marks = []
    for frame in (before_HWC, after_HWC):
        patch = frame[gy0:gy1, gx0:gx1]
        marks.append((_histogram_gap(patch, core, ring), _edge(patch, outline)))
    (colour_a, edge_a), (colour_b, edge_b) = marks
    by_colour = (colour_b - colour_a) / max(colour_a + colour_b, 0.25)
    by_edge = (edge_b - edge_a) / max(edge_a + edge_b, 8.0)
    return float(np.clip(0.6 * by_colour + 0.8 * by_edge, -1, 1))


def _histogram_gap(patch_HWC: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """1 - intersection of coarse Lab histograms, smoothed so that a bin's border costs nothing."""
    hists = []
    for where in (a, b):
        hist = cv2.calcHist([patch_HWC], [0, 1, 2], where.astype(np.uint8), [12, 16, 16], [0, 256, 64, 192, 64, 192])
        for axis in range(3):
            hist = 0.5 * hist + 0.25 * np.roll(hist, 1, axis) + 0.25 * np.roll(hist, -1, axis)
        hists.append(hist / max(1.0, hist.sum()))
    return float(1 - np.minimum(hists[0], hists[1]).sum())


def _edge(patch_HWC: np.ndarray, outline: np.ndarray) -> float:
    gx = cv2.Sobel(patch_HWC, cv2.CV_32F, 1, 0)
    gy = cv2.Sobel(patch_HWC, cv2.CV_32F, 0, 1)
    return float(np.sqrt((gx**2 + gy**2).max(axis=-1))[outline].mean() / 4)


def colour_share(clip: Clip, change: Change, colours: frozenset[str], *, after: bool) -> float:
    """Share of the changed region that bears one of the colours, in the new look or the old."""
    x0, y0, x1, y1 = change.box
    frame = clip.lab_THWC[change.first if after else change.last, y0:y1, x0:x1]
    core = cv2.erode(np.pad(change.mask_HW, 1).astype(np.uint8), np.ones((3, 3), np.uint8))[1:-1, 1:-1] > 0
    core = core if core.sum() >= 6 else change.mask_HW
    names = name_pixels(cv2.cvtColor(frame, cv2.COLOR_LAB2RGB))[core]
    wanted = [COLOUR_NAMES.index(name) for name in colours]
    return float(np.isin(names, wanted).mean()) if names.size else 0.0


def presence(clip: Clip, change: Change) -> np.ndarray:
    """Per frame: 0 where the region looks as before the change, 1 where it looks as after; off the line is NaN."""
    x0, y0, x1, y1 = change.box
    old = clip.lab_THWC[change.last, y0:y1, x0:x1][change.mask_HW].astype(np.float32)
    new = clip.lab_THWC[change.first, y0:y1, x0:x1][change.mask_HW].astype(np.float32)
    axis = new - old
    size = float((axis**2).sum())
    out = np.empty(clip.count, np.float32)
    for t in range(clip.count):
        look = clip.lab_THWC[t, y0:y1, x0:x1][change.mask_HW].astype(np.float32) - old
        out[t] = float((look * axis).sum()) / size if size else 0.0
    return out


def crosses_border(clip: Clip, change: Change) -> bool:
    """Whether a change is a strip along the picture's border no deeper than what a moving camera brings into view there, or takes out."""
    step = chain(clip.camera[change.last + 1 : change.first + 1])
    if step is None:
        return False
    height, width = clip.lab_THWC.shape[1:3]
    x0, y0, x1, y1 = change.box
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2, 1.0])
    reach = NEARER * np.abs(step @ middle - middle[:2]) + BORDER_PX

    def depth(low: int, high: int, size: int) -> float:
        return min(high if low <= BORDER_PX else math.inf, size - low if high >= size - BORDER_PX else math.inf)

    return bool(depth(x0, x1, width) <= reach[0] or depth(y0, y1, height) <= reach[1])


def merge(changes: list[Change]) -> list[Change]:
    """Blobs of one moment that lie close together are one thing."""
    out: list[Change] = []
    for change in sorted(changes, key=lambda c: (c.first, -c.score)):
        for row, other in enumerate(out):
            if other.first == change.first and _gap(other.box, change.box) < 0.3 * _side(other.box):
                x0, y0 = min(other.box[0], change.box[0]), min(other.box[1], change.box[1])
                x1, y1 = max(other.box[2], change.box[2]), max(other.box[3], change.box[3])
                mask = np.zeros((y1 - y0, x1 - x0), bool)
                for part in (other, change):
                    bx0, by0, bx1, by1 = part.box
                    mask[by0 - y0 : by1 - y0, bx0 - x0 : bx1 - x0] |= part.mask_HW
                out[row] = replace(other, box=(x0, y0, x1, y1), mask_HW=mask)
                break
        else:
            out.append(change)
    return out


def _side(box) -> int:
    return max(box[2] - box[0], box[3] - box[1])


def _gap(a, b) -> float:
    return max(max(a[0], b[0]) - min(a[2], b[2]), max(a[1], b[1]) - min(a[3], b[3]), 0)


def agree(a: Change, b: Change) -> float:
    """Intersection over union of the boxes."""
    w = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
    h = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
    shared = max(0, w) * max(0, h)
    return shared / (sum((c.box[2] - c.box[0]) * (c.box[3] - c.box[1]) for c in (a, b)) - shared)


def overlap(a: Change, b: Change) -> float:
    """Intersection over the smaller box."""
    w = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
    h = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
    areas = [(c.box[2] - c.box[0]) * (c.box[3] - c.box[1]) for c in (a, b)]
    return max(0, w) * max(0, h) / min(areas)
