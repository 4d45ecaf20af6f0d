"""Is a candidate pair a near-duplicate? The rule for natural media and the one for worlds.

Shapes: T aligned frames, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pixelis.data.dedup.bounds import table_of, worst_at_most
from pixelis.data.dedup.candidates import Pairs
from pixelis.data.dedup.fingerprints import Fingerprint
from pixelis.data.dedup.overlap import Overlap, local_overlap, ssim
from pixelis.data.dedup.settings import DedupSettings


@dataclass(frozen=True)
class Evidence:
    """What the comparison of two media found; means over aligned frames, None where the rule did not ask."""

    is_duplicate: bool
    distance: float
    cosine: float | None
    ssim: float | None = None
    tile_worst: float | None = None


def examine(a: Fingerprint, b: Fingerprint, *, is_phash: bool, settings: DedupSettings) -> Evidence:
    """Confirm or refute a candidate pair.

    A pHash positive is a near-duplicate as it stands. An embedding-only positive is one if enough aligned frames are within the pHash
    threshold, or close in embedding and not a template overlap: SSIM high, or the same picture locally. With `phash_recheck` enough
    aligned frames must be the same picture locally, whatever flagged the pair.

    Args:
        is_phash: stage 1 flagged the pair.
    """
    num = min(len(a.phash_T), len(b.phash_T))
    distance_T = np.bitwise_count(a.phash_T[:num] ^ b.phash_T[:num])
    is_flagged_T = distance_T <= settings.phash_max
    distance, cosine = float(distance_T.mean()), None
    is_close_T = np.zeros(num, bool)
    if a.embedding_TD is not None and b.embedding_TD is not None:
        cosine_T = (a.embedding_TD[:num] * b.embedding_TD[:num]).sum(1)
        cosine = float(cosine_T.mean())
        is_close_T = cosine_T >= (settings.video_cosine_min if a.is_video else settings.cosine_min) - 1e-5
    if is_phash and not settings.phash_recheck:
        return Evidence(True, distance, cosine)
    overlaps = [local_overlap(a.sketches[t], b.sketches[t]) for t in range(num)]
    is_same_T = np.array([_is_same(overlap, settings) for overlap in overlaps])
    tile_worst = float(np.mean([overlap.worst for overlap in overlaps]))
    if settings.phash_recheck:
        return Evidence(_suffices(is_same_T, settings), distance, cosine, tile_worst=tile_worst)
    ssim_T = np.array([ssim(a.sketches[t], b.sketches[t]) for t in range(num)])
    is_positive_T = is_flagged_T | (is_close_T & ((ssim_T >= settings.ssim_min) | is_same_T))
    return Evidence(_suffices(is_positive_T, settings), distance, cosine, float(ssim_T.mean()), tile_worst)


def is_same_medium(a: Fingerprint, b: Fingerprint, settings: DedupSettings) -> bool:
    """The audit's judgement: enough aligned frames are locally the same picture, whatever hash and embedding say."""
    num = min(len(a.sketches), len(b.sketches))
    return _suffices(np.array([_is_same(local_overlap(a.sketches[t], b.sketches[t]), settings) for t in range(num)]), settings)


def may_pass(media: Sequence[Fingerprint], pairs: Pairs, settings: DedupSettings) -> np.ndarray:
    """Bool [P]: False where tile contrasts alone show that a pair fails the local test. Cheap, for many pairs at once."""
    length_N = np.array([len(medium.sketches) for medium in media], np.int64)
    aligned_P = np.minimum(length_N[pairs.first_P], length_N[pairs.second_P])
    can_agree_P = np.zeros(len(pairs), np.int64)
    for t in range(aligned_P.max(initial=0)):
        at = np.flatnonzero(aligned_P > t)
        used, row = np.unique(np.stack((pairs.first_P[at], pairs.second_P[at])), return_inverse=True)
        table = table_of([media[n].sketches[t] for n in used])
        can_agree_P[at] += worst_at_most(table, row[0], row[1]) >= settings.tile_worst_min - 1e-3
    return can_agree_P >= settings.frame_share_min * aligned_P - 1e-9


def _is_same(overlap: Overlap, settings: DedupSettings) -> bool:
    return overlap.mean >= settings.tile_mean_min and overlap.worst >= settings.tile_worst_min


def _suffices(is_positive_T: np.ndarray, settings: DedupSettings) -> bool:
    return bool(is_positive_T.mean() >= settings.frame_share_min - 1e-9)
