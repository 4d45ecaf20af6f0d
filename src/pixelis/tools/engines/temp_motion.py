"""Spans in which something moves against the scene: active blobs per frame, linked through time."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from pixelis.tools.engines.channels import largest
from pixelis.tools.engines.prop_colour import COLOUR_NAMES, name_pixels
from pixelis.tools.engines.temp_changes import threshold
from pixelis.tools.engines.temp_events import Segment
from pixelis.tools.engines.temp_signal import Clip, _differ, noise_of

_KERNEL = np.ones((3, 3), np.uint8)
BRIDGE_S = 0.35  # a mover may pause or be lost this long
REACH_PX = 12  # blobs this close in consecutive frames are one mover


def find_motion(clip: Clip, colours: frozenset[str], should_stop: Callable[[], object] | None = None) -> list[Segment]:
    """The spans of all motion together, then those of single movers; of movers that bear one of the colours when given."""
    limit = threshold(noise_of(clip))
    rest = _rest(clip) if colours else None
    blobs = []
    for t in range(clip.count):
        if should_stop is not None:
            should_stop()
        blobs.append(_active(clip, t, limit, colours, rest))
    tracks = _link(clip, blobs)
    out = []
    whole = sorted((t for track in tracks for t, _ in track))
    for times, bonus in [(whole, 1.0), *((sorted(t for t, _ in track), 0.9) for track in tracks)]:
        for a, b in _runs(clip, times):
            strength = np.mean([sum(blob[1] for blob in blobs[t]) for t in range(a, b + 1)])
            length = clip.time_after(b) - clip.time_after(a - 1)
            score = bonus * (1 - np.exp(-strength / 150)) * (1 - np.exp(-(b - a + 1) / 3)) * (0.5 + 0.5 * min(1.0, length))
            out.append(Segment(clip.time_after(a - 1), clip.end_s if b == clip.count - 1 else clip.time_after(b), float(score)))
    return [s for s in out if s.score >= 0.05]


def _active(clip: Clip, t: int, limit: float, colours: frozenset[str], rest) -> list[tuple[tuple[int, int, int, int], float]]:
    """Boxes of what moved from frame t-1 to t, with their strength in pixels."""
    if t == 0:
        return []
    x0, y0, x1, y1 = clip.region
    gap = _differ(clip.lab_THWC[t - 1], clip.lab_THWC[t], clip.camera[t], clip.light_T3[t], _KERNEL)[y0:y1, x0:x1]
    hot = (gap > limit).astype(np.uint8)
    if np.count_nonzero(hot) < 6:
        return []
    joined = cv2.morphologyEx(hot, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(joined)
    out = []
    for i in range(1, count):
        x, y, w, h, _ = (int(v) for v in stats[i])
        where = (labels[y : y + h, x : x + w] == i) & (hot[y : y + h, x : x + w] > 0)
        area = int(where.sum())
        if area < 6:
            continue
        if colours and _bears(clip, t, (x0 + x, y0 + y, w, h), where, colours, rest) < 0.35:
            continue
        out.append(((x0 + x, y0 + y, x0 + x + w, y0 + y + h), float(area)))
    return out


def _bears(
    clip: Clip, t: int, box_xywh: tuple[int, int, int, int], where: np.ndarray, colours: frozenset[str], rest_HWC: np.ndarray
) -> float:
    """Share of the moved pixels whose mover bears a colour: the mover is where the picture is farther from its usual look."""
    x, y, w, h = box_xywh
    usual = rest_HWC[y : y + h, x : x + w]
    before, now = (clip.lab_THWC[s, y : y + h, x : x + w] for s in (t - 1, t))
    far_before, far_now = (largest(cv2.absdiff(look, usual)) for look in (before, now))
    mover = np.where((far_now >= far_before)[..., None], now, before)
    names = name_pixels(cv2.cvtColor(mover, cv2.COLOR_LAB2RGB))
    return float(np.isin(names, [COLOUR_NAMES.index(name) for name in colours])[where].mean())


def _rest(clip: Clip) -> np.ndarray:
    """The usual look of each pixel: the median over time; uint8 [height, width, 3]."""
    rows = np.linspace(0, clip.count - 1, min(15, clip.count)).round().astype(int)
    return np.median(clip.lab_THWC[rows], axis=0).astype(np.uint8)


def _link(clip: Clip, blobs: list[list]) -> list[list[tuple[int, int]]]:
    """Movers as lists of (frame, blob): blobs of nearby frames that come close are one mover's."""
    parent: dict[tuple[int, int], tuple[int, int]] = {}

    def root(key):
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for t, row in enumerate(blobs):
        for i, (box, _) in enumerate(row):
            parent[t, i] = (t, i)
            for s in (t - 2, t - 1):
                for j, (other, _) in enumerate(blobs[s]) if s >= 0 else ():
                    if _near(box, other):
                        parent[root((s, j))] = root((t, i))
    tracks: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for key in sorted(parent):
        tracks.setdefault(root(key), []).append(key)
    return [track for track in tracks.values() if len({t for t, _ in track}) >= 2]


def _near(a, b) -> bool:
    reach = max(REACH_PX, 0.5 * max(a[2] - a[0], a[3] - a[1]))
    return max(a[0], b[0]) - min(a[2], b[2]) < reach and max(a[1], b[1]) - min(a[3], b[3]) < reach


def _runs(clip: Clip, active: list[int]) -> list[tuple[int, int]]:
    """First and last active frame of each run, pauses under `BRIDGE_S` bridged; a lone frame is no motion."""
    runs: list[list[int]] = []
    for t in sorted(set(active)):
        if runs and (clip.times_s[t - 1] - clip.times_s[runs[-1][1]] <= BRIDGE_S or t - runs[-1][1] <= 2):
            runs[-1][1] = t
        else:
            runs.append([t, t])
    return [(a, b) for a, b in runs if b > a]
