"""The object's silhouette inside a view: a first mask from a box, a colour model, refinement, and the box around it.

Shapes: H height, W width of the view. Probabilities are of the foreground.
"""

from __future__ import annotations

import cv2
import numpy as np

BINS = 16
SEED = 20250511


def log_odds(prob_HW: np.ndarray) -> np.ndarray:
    """Within about [-4.6, 4.6]."""
    prob = prob_HW.clip(0.01, 0.99)
    return np.log(prob / (1 - prob))


def mix_odds(one_HW: np.ndarray, other_HW: np.ndarray, share_HW: np.ndarray) -> np.ndarray:
    """The probability between two, `share_HW` of the way to the second: undecided where they contradict each other."""
    return 1 / (1 + np.exp(-((1 - share_HW) * log_odds(one_HW) + share_HW * log_odds(other_HW))))


def agreeing_motion(ratio_HW: np.ndarray, colour_HW: np.ndarray) -> np.ndarray:
    """Motion evidence, faded where the colours speak against it: a foot on the ground moves with the ground."""
    return ratio_HW / (1 + np.exp(-1.5 * np.sign(ratio_HW) * colour_HW))


def blend(prob_HW: np.ndarray, mask_HW: np.ndarray, share: float) -> np.ndarray:
    """The probability with `share` of its log-odds replaced by a fresh mask's."""
    odds = (1 - share) * log_odds(prob_HW) + share * 6 * (mask_HW - 0.5)
    return (1 / (1 + np.exp(-odds))).astype(np.float32)


def is_plausible(mask_HW: np.ndarray, box: tuple[float, float, float, float]) -> bool:
    """Whether a mask may be what a box around it meant: it spans half of the box and fills some of it."""
    tight, area = mask_box(mask_HW), (box[2] - box[0]) * (box[3] - box[1])
    if tight is None:
        return False
    return (tight[2] - tight[0]) * (tight[3] - tight[1]) >= 0.5 * area and float((mask_HW > 0.5).sum()) >= 0.15 * area


def first_mask(view: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Foreground probability [H, W] from a box (view pixels) by GrabCut; the box's ellipse when GrabCut finds nothing fit.

    Source: Rother et al., GrabCut (2004).
    """
    height, width = view.shape[:2]
    x0, y0, x1, y1 = (round(v) for v in box)
    x0, y0, x1, y1 = max(0, x0), max(0, y0), min(width, max(x1, x0 + 1)), min(height, max(y1, y0 + 1))
    ellipse = np.zeros((height, width), np.float32)
    centre, axes = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), (max(1.0, box[2] - box[0]), max(1.0, box[3] - box[1]))
    cv2.ellipse(ellipse, (centre, axes, 0), 1.0, -1)
    labels = np.full((height, width), cv2.GC_BGD, np.uint8)
    labels[y0:y1, x0:x1] = cv2.GC_PR_FGD
    if (labels == cv2.GC_BGD).sum() < 32 or (labels == cv2.GC_PR_FGD).sum() < 32:
        return ellipse
    cv2.setRNGSeed(SEED)
    try:
        cv2.grabCut(view, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # one colour everywhere: its mixture model has nothing to fit
        return ellipse
    mask = (labels == cv2.GC_PR_FGD).astype(np.uint8)
    mask = keep_main(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)), mask.astype(np.float32))
    if not is_plausible(mask, box):
        return ellipse
    return cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0)


def keep_main(mask: np.ndarray, prior_HW: np.ndarray) -> np.ndarray:
    """Only the pieces of a binary mask that are large, or that the prior knew."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count <= 2:
        return mask
    support = np.bincount(labels.ravel(), weights=prior_HW.ravel(), minlength=count)
    support[0] = 0
    keep = support >= 0.06 * support.max()
    keep[0] = False
    keep &= stats[:, cv2.CC_STAT_AREA] >= 4
    return keep[labels].astype(np.uint8)


def mask_box(prob_HW: np.ndarray, tail: float = 0.003) -> tuple[float, float, float, float] | None:
    """The box (view pixels) that holds all but `tail` of the silhouette on each side; None when there is none."""
    solid = prob_HW > 0.5
    total = int(solid.sum())
    if total < 4:
        return None
    edges = []
    for axis in (0, 1):
        heap = np.cumsum(solid.sum(axis))
        first, last = int(np.searchsorted(heap, tail * total, side="right")), int(np.searchsorted(heap, (1 - tail) * total, side="left"))
        edges.append((float(first), float(min(last, len(heap) - 1) + 1)))
    (x0, x1), (y0, y1) = edges
    return x0, y0, x1, y1


class ColourModel:
    """How much likelier each colour is on the object than around it: smoothed RGB histograms that follow slowly.

    Half of the model stays anchored to the first frame, so that a leak cannot repaint the object.
    """

    def __init__(self, view: np.ndarray, prob_HW: np.ndarray, valid_HW: np.ndarray) -> None:
        self.anchor = self._histograms(view, prob_HW, valid_HW)
        self.recent = self.anchor

    @staticmethod
    def _index(view: np.ndarray) -> np.ndarray:
        coarse = (view >> 4).astype(np.int32)
        return (coarse[..., 0] * BINS + coarse[..., 1]) * BINS + coarse[..., 2]

    def _histograms(self, view: np.ndarray, prob_HW: np.ndarray, valid_HW: np.ndarray) -> np.ndarray:
        """[2, BINS^3] foreground and background, each summing to 1, spread over neighbouring colours."""
        index, weight = self._index(view).ravel(), prob_HW.ravel()
        both = []
        for share in (weight * valid_HW.ravel(), (1 - weight) * valid_HW.ravel()):
            cube = np.bincount(index, weights=share, minlength=BINS**3).reshape(BINS, BINS, BINS)
            for axis in range(3):  # binomial smoothing: neighbours in colour are neighbours in meaning
                padded = np.pad(cube, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
                low, mid, high = (np.take(padded, range(k, k + BINS), axis) for k in range(3))
                cube = 0.25 * low + 0.5 * mid + 0.25 * high
            both.append(cube.ravel() / max(cube.sum(), 1e-6))
        return np.stack(both)

    def update(self, view: np.ndarray, prob_HW: np.ndarray, valid_HW: np.ndarray, rate: float) -> None:
        self.recent = (1 - rate) * self.recent + rate * self._histograms(view, prob_HW, valid_HW)

    def log_ratio(self, view: np.ndarray) -> np.ndarray:
        """log p(colour | object) / p(colour | ground), float32 [H, W], within [-3, 3]."""
        front = 0.5 * self.anchor[0] + 0.5 * self.recent[0]
        ground = 0.3 * self.anchor[1] + 0.7 * self.recent[1]
        table = np.log((front + 2e-5) / (ground + 2e-5)).clip(-3, 3).astype(np.float32)
        return table[self._index(view)]


def guided(guide_HW: np.ndarray, image_HW: np.ndarray, radius: int, softness: float) -> np.ndarray:
    """Smooth a map along the guide's edges. Source: He et al., guided image filtering (2010)."""
    size = (2 * radius + 1, 2 * radius + 1)
    mean_g, mean_i = cv2.blur(guide_HW, size), cv2.blur(image_HW, size)
    cov = cv2.blur(guide_HW * image_HW, size) - mean_g * mean_i
    slope = cov / (cv2.blur(guide_HW * guide_HW, size) - mean_g * mean_g + softness)
    offset = mean_i - slope * mean_g
    return cv2.blur(slope, size) * guide_HW + cv2.blur(offset, size)


def refine(
    view: np.ndarray, prior_HW: np.ndarray, trust_HW: np.ndarray, colour_HW: np.ndarray, motion_HW: np.ndarray, band_px: float
) -> np.ndarray:
    """Foreground probability from the carried mask and this frame's evidence, smooth along edges.

    Args:
        view: uint8 [H, W, 3].
        prior_HW: carried foreground probability.
        trust_HW: in [0, 1], how far the prior can be believed.
        colour_HW, motion_HW: this frame's log-odds.
        band_px: how far from the prior's silhouette the new one may reach.
    """
    odds, doubt = log_odds(prior_HW), 1 - trust_HW
    # Where flow contradicts itself something was uncovered: mostly ground, so the carried mask yields to colour there.
    carried = (MEMORY * odds + SETTLE * np.tanh(odds)) * (1 - DOUBT_PRIOR * doubt)
    logit = carried + motion_HW + colour_HW * (1 + DOUBT_GAIN * doubt) - DOUBT_BIAS * doubt
    grey = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    smooth = guided(grey, logit.astype(np.float32), 3, 1e-3)
    prob = 1 / (1 + np.exp(-smooth))
    solid = (prior_HW > 0.5).astype(np.uint8)
    far = cv2.distanceTransform(1 - solid, cv2.DIST_L2, 3) > band_px
    prob[far] = np.minimum(prob[far], 0.02)
    keep = keep_main((prob > 0.5).astype(np.uint8), prior_HW)
    prob[(prob > 0.5) & (keep == 0)] = 0.2
    return prob.astype(np.float32)


MEMORY = 0.95
"""Share of the old log-odds that a new frame keeps."""
SETTLE = 0.15
"""Pull towards a decision: faint colour evidence, however long it lasts, does not turn a decided pixel."""
DOUBT_PRIOR, DOUBT_GAIN, DOUBT_BIAS = 0.9, 10.0, 0.8
