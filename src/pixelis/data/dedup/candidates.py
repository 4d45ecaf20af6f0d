"""All pairs whose hashes or embeddings are close, found block by block: no Python loop over pairs.

20,000 images are 2 * 10^8 pairs: one XOR and one population count each (6 s on one core), one row of a matrix product (7 s).

Shapes: N media in ingest order, P pairs, B rows of a block, T frames, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pixelis.data.dedup.fingerprints import Fingerprint
from pixelis.data.dedup.settings import DedupSettings

BLOCK_ROWS = 512


@dataclass(frozen=True)
class Pairs:
    """Pairs of media, by their places in the sequence that was searched; first before second."""

    first_P: np.ndarray
    second_P: np.ndarray
    is_phash_P: np.ndarray
    """Stage 1 flagged it; else stage 2 alone did."""

    def __len__(self) -> int:
        return len(self.first_P)

    def where(self, is_wanted_P: np.ndarray) -> Pairs:
        return Pairs(self.first_P[is_wanted_P], self.second_P[is_wanted_P], self.is_phash_P[is_wanted_P])


def close_pairs(media: Sequence[Fingerprint], settings: DedupSettings, *, block_rows: int = BLOCK_ROWS) -> Iterator[Pairs]:
    """Pairs that a stage flags, a block of rows at a time.

    Images meet images and videos meet videos. Frames are aligned by time stamp: frame t with frame t, as far as the shorter goes.
    Stage 1 flags a pair if enough frames are near by hash, stage 2 by the mean cosine.

    Args:
        block_rows: media that are compared with all later ones at once; memory grows with it, the outcome is the same.
    """
    for is_video in (False, True):
        places_N = np.array([n for n, medium in enumerate(media) if medium.is_video == is_video], dtype=np.int64)
        cosine_min = settings.video_cosine_min if is_video else settings.cosine_min
        for found in _search([media[n] for n in places_N], cosine_min, settings, block_rows):
            yield Pairs(places_N[found.first_P], places_N[found.second_P], found.is_phash_P)


def concatenate(blocks: Iterable[Pairs]) -> Pairs:
    """All blocks as one."""
    empty = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool))
    columns = zip(*((block.first_P, block.second_P, block.is_phash_P) for block in (empty, *blocks)), strict=True)
    return Pairs(*(np.concatenate(column) for column in columns))


@dataclass(frozen=True)
class _Instant:
    """What the media that reach a time stamp have there."""

    reach: np.ndarray
    """Their places, ascending."""
    phash: np.ndarray
    sure: np.ndarray
    embedding: np.ndarray | None


def _instants(kind: list[Fingerprint], length_N: np.ndarray) -> list[_Instant]:
    instants = []
    for t in range(length_N.max(initial=0)):
        reach = np.flatnonzero(length_N > t)
        phash = np.array([kind[n].phash_T[t] for n in reach], np.uint64)
        sure = np.array([kind[n].sure_T[t] for n in reach], np.uint64)
        embedding = None if kind[0].embedding_TD is None else np.stack([kind[n].embedding_TD[t] for n in reach])
        instants.append(_Instant(reach, phash, sure, embedding))
    return instants


def _search(kind: list[Fingerprint], cosine_min: float, settings: DedupSettings, block_rows: int) -> Iterator[Pairs]:
    """Blocks of pairs among media of one kind."""
    length_N = np.array([len(m.phash_T) for m in kind], np.int64)
    instants = _instants(kind, length_N)
    for start in range(0, len(kind), block_rows):
        stop = min(start + block_rows, len(kind))
        aligned_BN = np.minimum(length_N[start:stop, None], length_N[None, :])
        close_BN = np.zeros(aligned_BN.shape, np.int32)
        cosine_BN = np.zeros(aligned_BN.shape, np.float32)
        for instant in instants:
            low, high = np.searchsorted(instant.reach, (start, stop))
            at = np.ix_(instant.reach[low:high] - start, instant.reach[low:])
            close_BN[at] += _is_near(instant, low, high, settings)
            if instant.embedding is not None:
                cosine_BN[at] += instant.embedding[low:high] @ instant.embedding[low:].T
        is_phash_BN = close_BN >= settings.frame_share_min * aligned_BN - 1e-9
        # The last digits of a matrix product depend on its shape: equal pictures may come out a little below 1.
        is_close_BN = cosine_BN >= (cosine_min - 1e-6) * aligned_BN  # without embeddings all are 0
        is_later_BN = np.arange(len(kind))[None, :] > np.arange(start, stop)[:, None]
        first_P, second_P = np.nonzero((is_phash_BN | is_close_BN) & is_later_BN)
        yield Pairs(first_P + start, second_P, is_phash_BN[first_P, second_P])


def _is_near(instant: _Instant, low: int, high: int, settings: DedupSettings) -> np.ndarray:
    """Which frames low to high are near which from low on, by hash."""
    differing = instant.phash[low:high, None] ^ instant.phash[None, low:]
    is_near = np.bitwise_count(differing) <= settings.phash_max
    if settings.phash_sure_max is not None:
        is_sure = instant.sure[low:high, None] & instant.sure[None, low:]
        is_near |= np.bitwise_count(differing & is_sure) <= settings.phash_sure_max
    return is_near
