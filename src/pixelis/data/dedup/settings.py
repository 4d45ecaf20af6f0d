"""The thresholds of de-duplication: the paper's for natural media, and others for procedural worlds."""

from __future__ import annotations

from dataclasses import dataclass

from pixelis.core.errors import ConfigError


@dataclass(frozen=True)
class DedupSettings:
    """Thresholds; the defaults are the paper's rule, for natural media.

    Args:
        phash_max: stage 1, most differing bits of 64.
        cosine_min: stage 2, least cosine of two images.
        video_cosine_min: stage 2, mean over aligned frames, and the least of a frame that is to count.
        ssim_min: an embedding-only positive goes with at least this SSIM, or if the local test finds the same picture.
        frame_share_min: least share of a video's aligned frames that must be positive.
        phash_recheck: True puts every positive, of either stage, to the local test; False removes pHash positives without (paper §11).
        tile_mean_min: the local test: least mean agreement of tiles (`overlap.local_overlap`).
        tile_worst_min: the local test: least agreement of the worst tile.
        phash_sure_max: stage 1 also flags by at most so many differing bits of those sure in both frames; None: it does not.
        audit_pairs: kept pairs that the audit inspects, at most.
        audit_bits: the audit draws from pairs within so many bits more than `phash_max`,
        audit_cosine: or so much less cosine than stage 2 asks for.
        seed: of that draw.

    Raises:
        ConfigError: a value out of its range.
    """

    phash_max: int = 6
    phash_sure_max: int | None = None
    cosine_min: float = 0.95
    video_cosine_min: float = 0.93
    ssim_min: float = 0.90
    frame_share_min: float = 0.60
    phash_recheck: bool = False
    tile_mean_min: float = 0.80
    tile_worst_min: float = 0.77
    audit_pairs: int = 300
    audit_bits: int = 2
    audit_cosine: float = 0.03
    seed: int = 0

    def __post_init__(self) -> None:
        if self.phash_sure_max is not None and not self.phash_recheck:
            raise ConfigError(f"dedup setting phash_sure_max = {self.phash_sure_max} flags loosely: it needs phash_recheck = True")
        for name, (low, high) in _RANGES.items():
            if getattr(self, name) is not None and not low <= getattr(self, name) <= high:
                raise ConfigError(f"dedup setting {name} = {getattr(self, name)}: give a value from {low} to {high}")


_RANGES = {
    "phash_max": (0, 64),
    "phash_sure_max": (0, 64),
    "cosine_min": (0.01, 1.0),
    "video_cosine_min": (0.01, 1.0),
    "ssim_min": (-1.0, 1.0),
    "frame_share_min": (0.01, 1.0),
    "tile_mean_min": (-1.0, 1.0),
    "tile_worst_min": (-1.0, 1.0),
    "audit_pairs": (0, 1_000_000),
    "audit_bits": (0, 64),
    "audit_cosine": (0.0, 1.0),
    "seed": (0, 2**63),
}

WORLD = DedupSettings(phash_max=14, phash_sure_max=6, cosine_min=0.88, video_cosine_min=0.88, phash_recheck=True)
"""For procedural worlds: a wide net, and the local test on everything in it.

On a plain or graded ground small objects weigh little in a hash: many of its bits are signs of terms near zero. So other scenes come
near by chance, the more the more scenes there are, and noise or JPEG move a scene away from itself. Measured on PixelWorld images
(`benchmarks/dedup.py --scenes 300 --plain 4000 --seed 21`, 95 % Clopper-Pearson intervals):

- 4,000 scenes without duplicates, stage 1 alone: the paper's rule removes 312 (7.0 to 8.7 %), this one 0 (to 0.1 %) of 15,214
  candidate pairs.
- 300 scenes with 7 edits each (copy, JPEG 50, half size, two 3 % crops, brightness +8, noise): the paper's rule finds 2,067 of 2,100
  and removes 3 scenes (0.2 to 2.9 %), this one finds all and removes none (to 1.2 %).

Without an encoder some 3 % crops towards a corner are missed, 2 % of images and 6 of 40 videos. The thresholds were chosen on images
of other seeds: there the worst tile was at least 0.82 for edits and at most 0.74 for candidate pairs of other scenes.
"""
