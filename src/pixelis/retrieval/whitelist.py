"""The blocklist of evaluation media: what resembles one is refused before it reaches a memory.

The paper calls it the whitelist mask. Frames are not aligned by time here as de-duplication does it: a clip that starts elsewhere in the
same source must be refused too. Shapes: T frames of a candidate, F frames of all blocked media, D embedding. Source: supplement §11.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pixelis.core.errors import DataError
from pixelis.data.dedup import DedupSettings, Fingerprint
from pixelis.data.dedup.confirm import examine
from pixelis.data.dedup.fingerprints import phash

TRIES = 3
"""Blocked frames of one medium that a frame is compared with in full, the closest first."""


@dataclass(frozen=True)
class Blocked:
    """An evaluation medium.

    Args:
        id: its name in reports.
        sha256: of its bytes.
        fingerprint: frames at 1 fps; None blocks exact copies only.
        pixel_D: the pixel part of a key, for an audit's questions to an index; None asks none.
    """

    id: str
    sha256: str
    fingerprint: Fingerprint | None = None
    pixel_D: np.ndarray | None = None


@dataclass(frozen=True)
class Refusal:
    """Why a medium is refused."""

    blocked_id: str
    route: Literal["sha256", "phash", "embedding"]
    share: float
    """Of the shorter medium's frames that were found in the other."""


class Blocklist:
    """Evaluation media, and the question whether a medium is or resembles one of them.

    Args:
        media: each with its own id and SHA-256; all fingerprints with embeddings of one encoder, or all without.
        settings: thresholds of de-duplication: the paper's, or `WORLD` for procedural media.

    Raises:
        DataError: an id stands twice, or embeddings differ in length or are missing for some.
    """

    def __init__(self, media: Iterable[Blocked], settings: DedupSettings = DedupSettings()) -> None:
        self.media = tuple(sorted(media, key=lambda medium: medium.id))
        self.settings = settings
        if len({medium.id for medium in self.media}) < len(self.media):
            raise DataError(f"of {len(self.media)} blocked media some have the same id: give each its own")
        self._by_sha256 = {medium.sha256: medium.id for medium in self.media}
        shown = [medium for medium in self.media if medium.fingerprint is not None]
        widths = {medium.fingerprint.embedding_TD.shape[1] for medium in shown if medium.fingerprint.embedding_TD is not None}
        has_none = any(medium.fingerprint.embedding_TD is None for medium in shown)
        if len(widths) > 1 or (widths and has_none):
            raise DataError(f"fingerprints of blocked media have embeddings of lengths {sorted(widths)}, or none: use one encoder for all")
        self.has_fingerprints, self.embedding_dim = bool(shown), next(iter(widths), None)
        self._images = _Frames([m for m in shown if not m.fingerprint.is_video], settings)
        self._videos = _Frames([m for m in shown if m.fingerprint.is_video], settings)

    def __len__(self) -> int:
        return len(self.media)

    @property
    def sha256s(self) -> Mapping[str, str]:
        """SHA-256 to id."""
        return self._by_sha256

    def refusal(self, sha256: str, fingerprint: Fingerprint | None) -> Refusal | None:
        """Why this medium may not be stored; None when it may.

        Args:
            fingerprint: made as those of the blocked media were, with the same encoder; may be None where only hashes are blocked.

        Raises:
            DataError: near-duplicates are blocked and the fingerprint is missing, or has other embeddings.
        """
        if sha256 in self._by_sha256:
            return Refusal(self._by_sha256[sha256], "sha256", 1.0)
        if not self.has_fingerprints:
            return None
        self._check(sha256, fingerprint)
        return self._images.refusal(fingerprint) or self._videos.refusal(fingerprint)

    def _check(self, sha256: str, fingerprint: Fingerprint | None) -> None:
        if fingerprint is None:
            raise DataError(f"medium {sha256[:12]} came without a fingerprint, and {len(self)} media block what resembles them: make one")
        dim = None if fingerprint.embedding_TD is None else fingerprint.embedding_TD.shape[1]
        if dim != self.embedding_dim:
            raise DataError(
                f"medium {sha256[:12]} has embeddings of length {dim}, the blocked media of {self.embedding_dim}: use one encoder"
            )


class _Frames:
    """All frames of the blocked media of one kind."""

    def __init__(self, media: list[Blocked], settings: DedupSettings) -> None:
        self._media, self._settings = media, settings
        prints = [medium.fingerprint for medium in media]
        self._is_video = bool(media) and prints[0].is_video
        self._owner_F = np.repeat(np.arange(len(media)), [len(one.phash_T) for one in prints])
        self._phash_F = np.concatenate([np.zeros(0, np.uint64), *(one.phash_T for one in prints)])
        self._sure_F = np.concatenate([np.zeros(0, np.uint64), *(one.sure_T for one in prints)])
        self._whole_F = np.concatenate([np.zeros((0, 2), np.uint64), *(whole_frame_hashes(one) for one in prints)])
        has_embeddings = bool(prints) and prints[0].embedding_TD is not None
        self._embedding_FD = np.concatenate([one.embedding_TD for one in prints]) if has_embeddings else None

    def refusal(self, candidate: Fingerprint) -> Refusal | None:
        """The first blocked medium, by id, that the candidate resembles."""
        if not self._media:
            return None
        settings = self._settings
        cosine_min = settings.video_cosine_min if self._is_video or candidate.is_video else settings.cosine_min
        near_TF = self._near(candidate)
        cosine_TF = None
        flagged_TF = near_TF
        if self._embedding_FD is not None:
            cosine_TF = candidate.embedding_TD @ self._embedding_FD.T
            flagged_TF = near_TF | (cosine_TF >= cosine_min - 1e-6)
        for owner in np.unique(self._owner_F[flagged_TF.any(0)]):
            columns = np.flatnonzero(self._owner_F == owner)
            found = self._compare(
                candidate,
                self._media[owner],
                near_TF[:, columns],
                flagged_TF[:, columns],
                None if cosine_TF is None else cosine_TF[:, columns],
                replace(settings, cosine_min=cosine_min),
            )
            if found is not None:
                return found
        return None

    def _near(self, candidate: Fingerprint) -> np.ndarray:
        """Bool [T, F]: near by hash. A video's keyframes are hashed centre-cropped, so an image and a video compare whole frames."""
        if candidate.is_video == self._is_video:
            phash_T, sure_T, phash_F, sure_F = candidate.phash_T, candidate.sure_T, self._phash_F, self._sure_F
        else:
            (phash_T, sure_T), (phash_F, sure_F) = whole_frame_hashes(candidate).T, self._whole_F.T
        differing_TF = phash_T[:, None] ^ phash_F[None, :]
        near_TF = np.bitwise_count(differing_TF) <= self._settings.phash_max
        if self._settings.phash_sure_max is not None:
            near_TF |= np.bitwise_count(differing_TF & sure_T[:, None] & sure_F[None, :]) <= self._settings.phash_sure_max
        return near_TF

    def _compare(
        self,
        candidate: Fingerprint,
        blocked: Blocked,
        near_TF: np.ndarray,
        flagged_TF: np.ndarray,
        cosine_TF: np.ndarray | None,
        settings: DedupSettings,
    ) -> Refusal | None:
        """Enough frames of the shorter one stand in the other; those that hashes do not settle are compared in full."""
        is_turned = near_TF.shape[0] > near_TF.shape[1]
        one, other = (blocked.fingerprint, candidate) if is_turned else (candidate, blocked.fingerprint)
        if is_turned:
            near_TF, flagged_TF, cosine_TF = near_TF.T, flagged_TF.T, None if cosine_TF is None else cosine_TF.T
        needed = int(np.ceil(settings.frame_share_min * len(near_TF) - 1e-9))
        if flagged_TF.any(1).sum() < needed:
            return None
        by_phash = by_embedding = 0
        for t in range(len(near_TF)):
            if near_TF[t].any() and not settings.phash_recheck:
                by_phash += 1
                continue
            closeness_F = near_TF[t].astype(float) if cosine_TF is None else cosine_TF[t]
            places = np.flatnonzero(flagged_TF[t])
            for f in places[np.argsort(-closeness_F[places], kind="stable")][:TRIES]:
                if examine(_frame(one, t), _frame(other, f), is_phash=bool(near_TF[t, f]), settings=settings).is_duplicate:
                    by_phash, by_embedding = by_phash + bool(near_TF[t, f]), by_embedding + (not near_TF[t, f])
                    break
        if by_phash + by_embedding < needed:
            return None
        return Refusal(blocked.id, "embedding" if by_embedding > by_phash else "phash", (by_phash + by_embedding) / len(near_TF))


def whole_frame_hashes(fingerprint: Fingerprint) -> np.ndarray:
    """pHash bits and the mask of sure ones of each whole frame, uint64 [T, 2], from its sketch: one basis for images and videos."""
    return np.array([phash(np.repeat(sketch.grey_HW[..., None], 3, axis=2)) for sketch in fingerprint.sketches], np.uint64).reshape(-1, 2)


def _frame(fingerprint: Fingerprint, t: int) -> Fingerprint:
    """One frame as an image."""
    embedding_TD = fingerprint.embedding_TD
    return Fingerprint(
        id=fingerprint.id,
        order=fingerprint.order,
        phash_T=fingerprint.phash_T[t : t + 1],
        sure_T=fingerprint.sure_T[t : t + 1],
        sketches=fingerprint.sketches[t : t + 1],
        embedding_TD=None if embedding_TD is None else embedding_TD[t : t + 1],
    )
