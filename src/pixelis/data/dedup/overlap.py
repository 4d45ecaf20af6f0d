"""Do two pictures show the same thing: SSIM of thumbnails, and a local test that small objects on a plain ground cannot fool.

The paper lets an embedding-only positive stay when SSIM and "localized overlap" are low: same background, other foreground. SSIM
averages over the frame, so a plain or regular background decides it and a foreground of a few per cent does not count. The local
test lays a small crop or shift back, compares tile by tile, and goes by the worst tile that holds any structure.

Shapes: H, W thumbnail (128 x 128); h, w half of it; G tiles along a side (8); K displacements along an axis.
Source: paper §11, supplement; SSIM: Wang et al. 2004, Eq. 12 and 13.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from skimage.metrics import structural_similarity

SIDE_PX = 128
TILE_PX = 16
REACH_PX = 8
"""How far a tile is looked for, in thumbnail pixels: a crop of 6 % moves the far edge by 8."""
SCALES = np.arange(-8, 9, 2) / 100
"""Relative size of the other picture minus 1: what a crop and resizing do."""
C2 = (0.01 * 255) ** 2
"""The constant in the local terms: a tile of less variance is plain. SSIM's own, 58, would hide pale objects; the blur took the noise."""
COLOUR_MAX = 16.0
"""Largest difference of the mean colours, in levels; the local terms do not see it."""

_TILES = SIDE_PX // TILE_PX
_CENTRES = (np.arange(_TILES) + 0.5) * TILE_PX - SIDE_PX / 2
_SHIFTS = np.arange(-REACH_PX, REACH_PX + 1)
_PLAIN_VARIANCE = 0.25
WINDOW_STARTS = np.arange(_TILES) * TILE_PX + REACH_PX + TILE_PX // 2
"""Where `moving_variance` of padded planes holds each tile's own window."""


@dataclass(frozen=True)
class Sketch:
    """What is kept of a frame to compare it: 25 KB."""

    grey_HW: np.ndarray
    """uint8 thumbnail, stretched to a square."""
    chroma_hw2: np.ndarray
    """uint8 [64, 64, 2], Cr and Cb of it at half the size: a coloured thing may be as bright as its ground."""
    colour: np.ndarray
    """Mean RGB, float32 [3]."""

    def planes_HW3(self) -> np.ndarray:
        """Y, Cr and Cb with the edges repeated as far as a tile may be moved, float32."""
        chroma_HW2 = cv2.resize(self.chroma_hw2, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_LINEAR)
        planes_HW3 = np.dstack((self.grey_HW, chroma_HW2)).astype(np.float32)
        return cv2.copyMakeBorder(planes_HW3, *(REACH_PX,) * 4, cv2.BORDER_REPLICATE)


@dataclass(frozen=True)
class Overlap:
    """Local agreement after a crop was laid back; both at most 1, equal pictures give 1."""

    mean: float
    """Over tiles, weighted by how much structure either picture has there."""
    worst: float
    """Of the tiles with structure in either picture."""


def sketch(image_HWC: np.ndarray) -> Sketch:
    """The sketch of an RGB uint8 frame of any size."""
    small = cv2.resize(image_HWC, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    # A crop moves edges by fractions of a pixel. Blurred by one pixel, they still meet.
    ycc_HW3 = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb), (0, 0), 1.0)
    return Sketch(
        grey_HW=ycc_HW3[..., 0].copy(),
        chroma_hw2=cv2.resize(ycc_HW3[..., 1:], (SIDE_PX // 2, SIDE_PX // 2), interpolation=cv2.INTER_AREA),
        colour=small.reshape(-1, 3).mean(0, dtype=np.float64).astype(np.float32),
    )


def ssim(a: Sketch, b: Sketch) -> float:
    """SSIM of the two thumbnails as they lie, in [-1, 1]."""
    return float(structural_similarity(a.grey_HW, b.grey_HW, data_range=255))


def local_overlap(a: Sketch, b: Sketch) -> Overlap:
    """Tile by tile agreement of two frames, after the best small crop or shift of one of them was laid back.

    A tile's agreement is SSIM's contrast and structure term, (2 cov + C2) / (var_a + var_b + C2), covariance and variances summed over
    brightness and colour, the best within one pixel of where one shift and scale for the whole frame puts it. Of the two ways round the
    better counts: a crop lies inside the other picture.

    Returns:
        Overlap(0, 0) where the mean colours differ by more than `COLOUR_MAX`.
    """
    if np.abs(a.colour - b.colour).max() > COLOUR_MAX:
        return Overlap(0.0, 0.0)
    return max(_one_way(a, b), _one_way(b, a), key=lambda overlap: (overlap.mean, overlap.worst))


def _one_way(a: Sketch, b: Sketch) -> Overlap:
    """Agreement of a's tiles with what lies at their places in b."""
    agreement_GGKK, weight_GGKK = _tile_maps(a, b)
    weighted_GGKK = agreement_GGKK * weight_GGKK
    row, column = np.ogrid[:_TILES, :_TILES]
    best, place = -np.inf, None
    for scale in SCALES:
        move_KG = np.rint(scale * _CENTRES + _SHIFTS[:, None]).astype(int) + REACH_PX
        move_KG = move_KG[((move_KG >= 0) & (move_KG <= 2 * REACH_PX)).all(1)]
        at = (row, column, move_KG[:, None, :, None], move_KG[None, :, None, :])
        mean_KK = (weighted_GGKK[at].sum((2, 3)) + 1e-3) / (weight_GGKK[at].sum((2, 3)) + 1e-3)
        dy, dx = np.unravel_index(mean_KK.argmax(), mean_KK.shape)
        if mean_KK[dy, dx] > best:
            best, place = float(mean_KK[dy, dx]), (row, column, move_KG[dy][:, None], move_KG[dx][None, :])
    has_structure_GG = weight_GGKK[place] > 0.5
    return Overlap(best, float(agreement_GGKK[place][has_structure_GG].min(initial=1.0)))


def _tile_maps(a: Sketch, b: Sketch) -> tuple[np.ndarray, np.ndarray]:
    """For each tile of a and each displacement in b: agreement, the best within one pixel, and the weight in [0, 1]."""
    size = 2 * REACH_PX + 1
    here_HW3, there_HW3 = a.planes_HW3(), b.planes_HW3()
    windows = np.lib.stride_tricks.sliding_window_view(moving_variance(there_HW3), (size, size))
    var_b_GGKK = windows[np.ix_(WINDOW_STARTS - REACH_PX, WINDOW_STARTS - REACH_PX)]
    var_a_GG = moving_variance(here_HW3)[np.ix_(WINDOW_STARTS, WINDOW_STARTS)]
    cov_GGKK = np.zeros((_TILES, _TILES, size, size), np.float32)
    for row, column in np.argwhere(var_a_GG > _PLAIN_VARIANCE):
        y, x = row * TILE_PX, column * TILE_PX
        tile = here_HW3[y + REACH_PX : y + REACH_PX + TILE_PX, x + REACH_PX : x + REACH_PX + TILE_PX]
        field = there_HW3[y : y + TILE_PX + 2 * REACH_PX, x : x + TILE_PX + 2 * REACH_PX]
        cov_GGKK[row, column] = cv2.matchTemplate(field, tile, cv2.TM_CCOEFF) / TILE_PX**2
    var_a_GG11 = var_a_GG[:, :, None, None]
    agreement_GGKK = (2 * cov_GGKK + C2) / (var_a_GG11 + var_b_GGKK + C2)
    flat = np.ascontiguousarray(agreement_GGKK.reshape(-1, size, size).transpose(1, 2, 0))
    best = cv2.dilate(flat, np.ones((3, 3), np.uint8)).transpose(2, 0, 1).reshape(agreement_GGKK.shape)
    return best, np.minimum(np.maximum(var_a_GG11, var_b_GGKK) / C2, 1.0)


def moving_variance(planes_HW3: np.ndarray) -> np.ndarray:
    """Variance, summed over planes, of the tile-sized window centred on each pixel, float32 [H, W]."""
    exact_HW3 = planes_HW3.astype(np.float64)
    mean_HW3 = cv2.boxFilter(exact_HW3, -1, (TILE_PX, TILE_PX))
    var_HW3 = np.maximum(cv2.boxFilter(exact_HW3**2, -1, (TILE_PX, TILE_PX)) - mean_HW3**2, 0.0)
    return var_HW3.sum(2).astype(np.float32)
