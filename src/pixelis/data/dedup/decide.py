"""Which media go: candidates confirmed in ingest order, the earliest kept, and an audit of what stayed.

Source: paper §11 and supplement §11.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from pixelis.core.errors import DataError
from pixelis.data.dedup.candidates import Pairs, close_pairs, concatenate
from pixelis.data.dedup.confirm import examine, is_same_medium, may_pass
from pixelis.data.dedup.fingerprints import Fingerprint
from pixelis.data.dedup.report import DedupReport, Removed, Residual, residual_of
from pixelis.data.dedup.settings import DedupSettings


def deduplicate(fingerprints: Iterable[Fingerprint], settings: DedupSettings = DedupSettings()) -> DedupReport:
    """Find near-duplicates; of each pair the earlier ingest stays.

    A medium goes only if one that stays stands for it: where b resembles a, and c resembles b but not a, b goes and c stays. To keep
    evaluation media, give them the lowest order. The order of the input does not matter.

    Args:
        fingerprints: all with embeddings of one encoder, or all without: then stage 2 does not run, and the report says so.

    Raises:
        DataError: an id stands twice, or only some have embeddings, or their lengths differ.
    """
    media = sorted(fingerprints, key=lambda medium: (medium.order, medium.id))
    has_embeddings = _check(media)
    found = concatenate(close_pairs(media, settings))
    gone = _remove(media, found, settings)
    is_kept_N = np.array([n not in gone for n in range(len(media))], bool)
    return DedupReport(
        settings=settings,
        num_media=len(media),
        num_phash_candidates=int(found.is_phash_P.sum()),
        num_embedding_candidates=int((~found.is_phash_P).sum()) if has_embeddings else None,
        num_spared=int((is_kept_N[found.first_P] & is_kept_N[found.second_P]).sum()),
        removed=tuple(gone[n] for n in sorted(gone)),
        residual=audit([medium for n, medium in enumerate(media) if n not in gone], settings),
    )


def audit(kept: Sequence[Fingerprint], settings: DedupSettings) -> Residual:
    """Near-duplicates among kept media: a uniform sample, without replacement, of the pairs that look alike, judged by the local test.

    Drawn from looser thresholds than those of the removal, so that it sees what these missed, and from the spared candidates. A pair
    that neither signal brings near is out of its sight.

    Args:
        kept: in ingest order.
    """
    rng = np.random.default_rng(settings.seed)
    num_pairs, sample = 0, np.zeros((0, 3))
    loose = replace(
        settings,
        phash_max=min(settings.phash_max + settings.audit_bits, 64),
        phash_sure_max=None if settings.phash_sure_max is None else min(settings.phash_sure_max + settings.audit_bits, 64),
        cosine_min=max(settings.cosine_min - settings.audit_cosine, 0.01),
        video_cosine_min=max(settings.video_cosine_min - settings.audit_cosine, 0.01),
    )
    for pairs in close_pairs(kept, loose):
        num_pairs += len(pairs)
        # The pairs with the smallest of independent random keys are a uniform sample, however many come.
        sample = np.concatenate((sample, np.stack((rng.random(len(pairs)), pairs.first_P, pairs.second_P), axis=1)))
        sample = sample[np.argsort(sample[:, 0], kind="stable")[: settings.audit_pairs]]
    drawn = [(kept[int(i)], kept[int(j)]) for _, i, j in sample]
    confirmed = sorted((a.id, b.id) for a, b in drawn if is_same_medium(a, b, settings))
    return residual_of(num_pairs=num_pairs, num_inspected=len(drawn), confirmed=confirmed)


def _check(media: Sequence[Fingerprint]) -> bool:
    """Whether there are embeddings, all of one length."""
    seen = set()
    for medium in media:
        if medium.id in seen:
            raise DataError(f"medium {medium.id!r} was given twice among {len(media)}: give each medium its own id")
        seen.add(medium.id)
    dims = {medium.embedding_TD.shape[1] for medium in media if medium.embedding_TD is not None}
    num_without = sum(medium.embedding_TD is None for medium in media)
    if len(dims) > 1 or (dims and num_without):
        raise DataError(
            f"embeddings of {len(media)} media have lengths {sorted(dims)} and {num_without} have none: "
            "fingerprint all with one encoder, or all without"
        )
    return bool(dims)


def _remove(media: Sequence[Fingerprint], found: Pairs, settings: DedupSettings) -> dict[int, Removed]:
    """What goes, by place in ingest order."""
    if settings.phash_recheck:
        found = found.where(may_pass(media, found, settings))
    gone: dict[int, Removed] = {}
    for p in np.lexsort((found.first_P, found.second_P)):
        first, second, is_phash = int(found.first_P[p]), int(found.second_P[p]), bool(found.is_phash_P[p])
        if first in gone or second in gone:
            continue
        a, b = media[first], media[second]
        evidence = examine(a, b, is_phash=is_phash, settings=settings)
        if evidence.is_duplicate:
            gone[second] = Removed(
                id=b.id,
                kept_id=a.id,
                stage="phash" if is_phash else "embedding",
                distance=evidence.distance,
                cosine=evidence.cosine,
                ssim=evidence.ssim,
                tile_worst=evidence.tile_worst,
            )
    return gone
