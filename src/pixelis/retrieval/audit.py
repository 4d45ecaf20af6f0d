"""The audit of a memory against its blocklist: nothing of an evaluation medium may be found, neither by hash nor by search.

It reads what is stored, not what was checked on the way in, so it also finds what was planted behind the blocklist's back.
Shapes: P probes, F frames of all stored media. Source: paper, supplement §11 "Audit procedure".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from pixelis.core.errors import DataError
from pixelis.data.dedup import Fingerprint
from pixelis.retrieval.entry import Entry
from pixelis.retrieval.keys import make_keys
from pixelis.retrieval.memory import NUM_NEIGHBOURS, Memory
from pixelis.retrieval.whitelist import Blocked, Blocklist, whole_frame_hashes

AUDIT_FILE = "memory_audit.json"
"""Where `pixelis adapt` leaves its report."""
NUM_PROBES = 10_000
NEAR_KEY = 0.95
"""Pixel cosine from which a neighbour is a suspect: different media may show the same thing."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Probe:
    """A blocked medium, and the pixel part of its key where there is one."""

    blocked: Blocked
    pixel_D: np.ndarray | None = None


@dataclass(frozen=True)
class Hit:
    """A stored item that is or resembles a blocked medium."""

    position: int
    entry_id: str
    blocked_id: str
    route: str
    """sha256, phash, or key: the search found it and the full comparison confirmed it."""


@dataclass(frozen=True)
class AuditReport:
    num_items: int
    num_blocked: int
    num_probes: int
    num_probes_with_key: int
    """Only these put a question to the index."""
    num_items_without_hashes: int
    """Items whose media came without a fingerprint: only their SHA-256 could be compared."""
    num_suspects: int
    """Items near a blocked medium by hash under a rule that re-checks, or by key, that could not be or were not confirmed."""
    hits: tuple[Hit, ...]
    rate: float
    """Share of probes with a hit."""
    high: float
    """Upper end of the Clopper-Pearson 95 % interval of that share."""


def inspect(
    memory: Memory,
    blocklist: Blocklist,
    probes: Sequence[Probe],
    *,
    num_probes: int = NUM_PROBES,
    fingerprint_of: Callable[[Entry], Fingerprint | None] | None = None,
    seed: int = 0,
) -> AuditReport:
    """Compare a memory with its blocklist.

    All blocked SHA-256 are looked up. Of the probes a uniform draw without replacement is compared frame by frame with the stored
    frame hashes, and asks for its neighbours by pixels.

    Args:
        probes: of blocked media; all are used where there are no more than `num_probes`.
        fingerprint_of: makes the fingerprint of a stored medium again, so that suspects are compared in full, and items that came without
            one are compared at all. Without it they are only counted, except that frame hashes suffice under a rule that does not re-check.

    Raises:
        DataError: there is nothing to probe with.
    """
    if not probes:
        raise DataError("an audit without probes proves nothing: give blocked media")
    drawn = sorted(np.random.default_rng(seed).permutation(len(probes))[:num_probes].tolist())
    stored = _Stored(memory, fingerprint_of)
    hits = {(at, blocklist.sha256s[sha]): "sha256" for at, sha in enumerate(stored.media) if sha in blocklist.sha256s}
    suspects: set[tuple[int, str]] = set()
    num_with_key = 0
    for number in drawn:
        blocked = probes[number].blocked
        found = {(at, "phash") for at in stored.near(blocked, blocklist)}
        if probes[number].pixel_D is not None and memory.spec.omega > 0:
            num_with_key += 1
            found |= {(at, "key") for at in _near_by_key(memory, probes[number].pixel_D)}
        for at, route in sorted(found, reverse=True):
            pair = (at, blocked.id)
            if pair in hits:
                continue
            if _is_confirmed(memory.entry(at), route, blocklist, fingerprint_of):
                hits[pair] = route
                suspects.discard(pair)
            else:
                suspects.add(pair)
    hit_ids = {blocked_id for _, blocked_id in hits}
    num_bad = sum(probes[number].blocked.id in hit_ids for number in drawn)
    return AuditReport(
        num_items=len(stored.media),
        num_blocked=len(blocklist),
        num_probes=len(drawn),
        num_probes_with_key=num_with_key,
        num_items_without_hashes=stored.num_without,
        num_suspects=len({at for at, _ in suspects}),
        hits=tuple(Hit(at, memory.entry(at).id, blocked_id, route) for (at, blocked_id), route in sorted(hits.items())),
        rate=num_bad / len(drawn),
        high=float(binomtest(num_bad, len(drawn)).proportion_ci(CONFIDENCE, method="exact").high),
    )


def audit(memory: Memory, blocklist: Blocklist, probes: Sequence[Probe], **options) -> AuditReport:
    """`inspect`, and stop whatever is being built if anything was found.

    Raises:
        DataError: a stored item is or resembles a blocked medium.
    """
    report = inspect(memory, blocklist, probes, **options)
    if report.hits:
        first = report.hits[0]
        raise DataError(
            f"{memory.folder}: {len(report.hits)} stored items are or resemble evaluation media, the first is {first.entry_id} "
            f"(item {first.position}, {first.route} of {first.blocked_id}). Make the memory afresh with the blocklist in place"
        )
    return report


def report_text(report: AuditReport) -> str:
    """The report for a reader."""
    return "\n".join(
        (
            f"memory    {report.num_items:,} items, {report.num_items_without_hashes:,} of them without frame hashes",
            f"blocked   {report.num_blocked:,} media, every SHA-256 looked up",
            f"probes    {report.num_probes:,}, of which {report.num_probes_with_key:,} also asked the index",
            f"hits      {len(report.hits):,} items; share of probes {report.rate:.4%}, at most {report.high:.4%} (Clopper-Pearson "
            f"{CONFIDENCE:.0%})",
            f"suspects  {report.num_suspects:,} items near by hash or key and not confirmed as such a medium",
        )
    )


class _Stored:
    """Hashes of all stored media, in one pass over the entries."""

    def __init__(self, memory: Memory, fingerprint_of: Callable[[Entry], Fingerprint | None] | None) -> None:
        self.media: list[str] = []
        owners, hashes = [], []
        self.num_without = 0
        for position, entry in enumerate(memory.entries()):
            self.media.append(entry.medium)
            known = entry.frame_hashes
            if known is None and fingerprint_of is not None and (made := fingerprint_of(entry)) is not None:
                known = whole_frame_hashes(made)[:, 0].tolist()
            self.num_without += known is None
            for bits in known or ():
                owners.append(position)
                hashes.append(bits)
        self._owner_F, self._hash_F = np.array(owners, np.int64), np.array(hashes, np.uint64)

    def near(self, blocked: Blocked, blocklist: Blocklist) -> list[int]:
        """Items of which, or in which, enough frames are those of the blocked medium: of the shorter one's."""
        if blocked.fingerprint is None or not len(self._hash_F):
            return []
        hash_T = whole_frame_hashes(blocked.fingerprint)[:, 0]
        near_TF = np.bitwise_count(hash_T[:, None] ^ self._hash_F[None, :]) <= blocklist.settings.phash_max
        found = []
        for owner in np.unique(self._owner_F[near_TF.any(0)]):
            mine_TF = near_TF[:, self._owner_F == owner]
            share = mine_TF.any(1).mean() if mine_TF.shape[0] <= mine_TF.shape[1] else mine_TF.any(0).mean()
            if share >= blocklist.settings.frame_share_min - 1e-9:
                found.append(int(owner))
        return found


def _near_by_key(memory: Memory, pixel_D: np.ndarray) -> list[int]:
    query_QK = make_keys(memory.spec, None, pixel_D[None], omega=1.0)
    positions, similarities = memory.search(query_QK, NUM_NEIGHBOURS)[0]
    return positions[similarities >= NEAR_KEY].tolist()


def _is_confirmed(entry: Entry, route: str, blocklist: Blocklist, fingerprint_of: Callable[[Entry], Fingerprint | None] | None) -> bool:
    """Whether a suspect is a hit."""
    if route == "phash" and not blocklist.settings.phash_recheck:
        return True
    fingerprint = None if fingerprint_of is None else fingerprint_of(entry)
    return fingerprint is not None and blocklist.refusal(entry.medium, fingerprint) is not None
