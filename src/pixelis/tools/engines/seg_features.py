"""What is measured at every pixel inside a box prompt before it is called object or background.

Four sources: where the pixel lies in the box, how its colour compares with the ring around the box, how strong an edge
separates it from that ring, and (when there is a saliency network) what the network says at seven depths.

Shapes: H, W image; h, w working grid of the window around the box; S saliency maps; F features; P pixels inside the box; K colour
clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pixelis.tools.engines.channels import added

IntBox = tuple[int, int, int, int]

MARGIN = 0.25  # of the box's side, on each side: the ring that is known to be background
MIN_MARGIN_PX = 2
GRID_PX = 160  # longest side of the working grid
MIN_GRID_PX = 16  # a thin window keeps this many rows, so that the box covers some of them
NUM_COLOURS = 32
COLOUR_WIDTH = 6.0  # Lab units that count as much the same colour
NUM_SALIENCY = 7


@dataclass(frozen=True)
class BoxFeatures:
    window: IntBox
    """Part of the image that was looked at: the box and its ring, clipped to the image."""
    inside_hw: np.ndarray
    """bool [h, w]: cells of the working grid whose centre lies in the box."""
    planes_FP: np.ndarray
    """float32 [F, P]: one column per True of `inside_hw`."""


def window_around(box: IntBox, shape: tuple[int, ...], margin: float = MARGIN) -> IntBox:
    """The box grown by `margin` of its sides (at least `MIN_MARGIN_PX`) and clipped to the image."""
    x0, y0, x1, y1 = box
    grow_x, grow_y = (max(MIN_MARGIN_PX, int(np.ceil(margin * side))) for side in (x1 - x0, y1 - y0))
    return max(0, x0 - grow_x), max(0, y0 - grow_y), min(shape[1], x1 + grow_x), min(shape[0], y1 + grow_y)


def working_copy(image_HWC: np.ndarray, window: IntBox) -> np.ndarray:
    """The window of the image, at most `GRID_PX` long: uint8 [h, w, 3]."""
    x0, y0, x1, y1 = window
    crop = image_HWC[y0:y1, x0:x1]
    scale = min(1.0, GRID_PX / max(crop.shape[:2]))
    height, width = (max(min(side, MIN_GRID_PX), round(side * scale)) for side in crop.shape[:2])
    return cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)


def measure(image_HWC: np.ndarray, box: IntBox, saliency_Shw: np.ndarray | None) -> BoxFeatures:
    """All features of the pixels inside a box.

    Args:
        image_HWC: uint8 RGB.
        box: whole pixels, exclusive, inside the image, non-empty.
        saliency_Shw: logits [7, any, any] over `window_around(box)`; None leaves their features out.
    """
    window = window_around(box, image_HWC.shape)
    rgb_hwC = working_copy(image_HWC, window)
    height, width = rgb_hwC.shape[:2]
    across_hw, down_hw = _box_coordinates(window, box, height, width)
    edge_hw = np.maximum(abs(across_hw), abs(down_hw))
    inside_hw = edge_hw < 1
    if not inside_hw.any():  # a sliver between two cell centres
        inside_hw = edge_hw == edge_hw.min()
    radius_hw = across_hw**2 + down_hw**2
    lab_hwC = cv2.cvtColor(rgb_hwC.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    background_hw = _background_weight(inside_hw, edge_hw)
    likeness_PK, colours = _colour_likeness(lab_hwC)

    first, first_gap = _colour_evidence(likeness_PK, colours, inside_hw * np.exp(-radius_hw), background_hw)
    local, whole = [], []
    belief_hw = inside_hw * np.exp(-0.5 * radius_hw)
    if saliency_Shw is not None:
        logits_Shw = np.stack(
            [cv2.resize(np.asarray(m, np.float32), (width, height), interpolation=cv2.INTER_LINEAR) for m in saliency_Shw]
        )
        belief_hw = belief_hw * _sigmoid(logits_Shw[0])
        local, whole = list(np.clip(logits_Shw, -8, 8) / 4), _saliency_summary(logits_Shw, inside_hw)
    else:
        belief_hw = belief_hw * _sigmoid(first)
    second, second_gap = _colour_evidence(likeness_PK, colours, belief_hw + 1e-6 * inside_hw, background_hw)
    barrier_hw = barrier(lab_hwC, inside_hw, edge_hw)

    local += [across_hw, down_hw, across_hw**2, down_hw**2, radius_hw, edge_hw, first, second, barrier_hw]
    aspect = np.log((box[2] - box[0]) / (box[3] - box[1]))
    whole += [first_gap, second_gap, float(first[inside_hw].mean()), float(barrier_hw[inside_hw].mean()), float(np.clip(aspect, -2, 2))]
    num = int(inside_hw.sum())
    planes = [plane[inside_hw] for plane in local] + [np.full(num, value) for value in whole]
    return BoxFeatures(window, inside_hw, np.stack(planes).astype(np.float32))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


def _box_coordinates(window: IntBox, box: IntBox, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Each cell centre relative to the box: -1 and 1 at its edges."""
    x = window[0] + (np.arange(width) + 0.5) * (window[2] - window[0]) / width
    y = window[1] + (np.arange(height) + 0.5) * (window[3] - window[1]) / height
    across = (2 * x - box[0] - box[2]) / (box[2] - box[0])
    down = (2 * y - box[1] - box[3]) / (box[3] - box[1])
    return np.broadcast_to(across[None], (height, width)), np.broadcast_to(down[:, None], (height, width))


def _background_weight(inside_hw: np.ndarray, edge_hw: np.ndarray) -> np.ndarray:
    """How much each cell tells about background: the ring; when the box fills the image, what lies near the box's edge."""
    weight_hw = (~inside_hw).astype(np.float64)
    if weight_hw.mean() < 0.02:
        weight_hw = weight_hw + 0.5 * edge_hw**8
    return weight_hw


def _colour_likeness(lab_hwC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Soft membership of every cell in the window's main colours, float32 [h*w, K], and the colours' own likeness [K, K]."""
    lab_PC = lab_hwC.reshape(-1, 3)
    sample = np.ascontiguousarray(lab_PC[:: max(1, len(lab_PC) // 4000)])
    if len(sample) == 1:  # OpenCV would read one row of three numbers as three samples
        sample = np.repeat(sample, 2, axis=0)
    num = min(NUM_COLOURS, len(sample))
    cv2.setRNGSeed(0)  # the seeding of k-means draws from OpenCV's own generator
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 10, 0.5)
    centres_KC = cv2.kmeans(sample, num, None, stop, 1, cv2.KMEANS_PP_CENTERS)[2]

    def closeness(points: np.ndarray) -> np.ndarray:
        squared = (points**2).sum(1)[:, None] - 2 * points @ centres_KC.T + (centres_KC**2).sum(1)[None]
        return np.exp(-np.maximum(squared, 0) / (2 * COLOUR_WIDTH**2))

    return closeness(lab_PC) + 1e-9, closeness(centres_KC)


def _colour_evidence(
    likeness_PK: np.ndarray, colours_KK: np.ndarray, object_hw: np.ndarray, background_hw: np.ndarray
) -> tuple[np.ndarray, float]:
    """Log ratio of object and background colour at each cell, and how far apart the two colour distributions are (0-1)."""
    nearest_P = likeness_PK.argmax(1)
    shares = []
    for weight_hw in (object_hw, background_hw):
        counts = colours_KK @ np.bincount(nearest_P, weight_hw.ravel(), len(colours_KK))
        shares.append(counts / max(counts.sum(), 1e-12))
    ratio_K = np.log((shares[0] + 0.003) / (shares[1] + 0.003))
    evidence_P = likeness_PK @ ratio_K / likeness_PK.sum(1)
    return evidence_P.reshape(object_hw.shape), float(0.5 * abs(shares[0] - shares[1]).sum())


def barrier(lab_hwC: np.ndarray, inside_hw: np.ndarray, edge_hw: np.ndarray) -> np.ndarray:
    """Log of the cheapest path from the ring to each cell of the box, where crossing an edge costs its contrast.

    Args:
        lab_hwC: float32 Lab colours of the working grid.
        inside_hw: bool, the cells of the box.
        edge_hw: how near each cell lies to the box's edge, 1 on it; paths start at the largest where the box fills the window.
    Returns:
        float64 [h, w]; outside the box it means nothing.
    """
    from skimage.graph import MCP_Geometric

    smooth = cv2.GaussianBlur(lab_hwC, (0, 0), 0.8)
    step_x, step_y = np.diff(smooth, axis=1, append=smooth[:, -1:]), np.diff(smooth, axis=0, append=smooth[-1:])
    contrast_hw = np.sqrt(added(step_x**2 + step_y**2))
    # No cheapest path runs through the ring, so it is enough to start where the ring touches the box: a fifth of the time.
    starts = np.argwhere(cv2.dilate(inside_hw.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~inside_hw)
    if not len(starts):
        starts = np.argwhere(edge_hw >= 0.9 * edge_hw.max())
    cost_hw = 0.02 * GRID_PX / max(inside_hw.shape) + contrast_hw / 10
    return np.log1p(MCP_Geometric(cost_hw).find_costs(starts)[0])


def _saliency_summary(logits_Shw: np.ndarray, inside_hw: np.ndarray) -> list[float]:
    """What the network thinks of the window as a whole: whether it is sure, and whether what it sees fits the box."""
    ring_hw = ~inside_hw
    top, deep = logits_Shw[0], logits_Shw[-1]
    share = _sigmoid(top[inside_hw])
    ring = float(top[ring_hw].mean()) if ring_hw.any() else -5.0
    summary = [float(top[inside_hw].mean()) / 5, ring / 5, float(deep[inside_hw].mean()) / 3, float(top[inside_hw].max()) / 5]
    for logit_hw in (top, logits_Shw[3]):
        summary += _fit_to_box(logit_hw > 0, inside_hw)
    return [*summary, float(abs(2 * share - 1).mean()), float(share.mean())]


def _fit_to_box(seen_hw: np.ndarray, inside_hw: np.ndarray) -> list[float]:
    """IoU of the tight box of what is seen with the prompt's box, and the share of what is seen that lies inside it."""
    if seen_hw.sum() < 5:
        return [0.0, 0.0]
    a, b = _extent(seen_hw), _extent(inside_hw)
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return [shared / union, float(seen_hw[inside_hw].sum() / seen_hw.sum())]


def _extent(mask_hw: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask_hw.any(1)), np.flatnonzero(mask_hw.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
