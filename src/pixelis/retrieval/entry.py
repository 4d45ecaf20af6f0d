"""What a memory keeps of a trajectory, beside its key: references and summary facts, one sealed line each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelis.core.errors import DataError
from pixelis.retrieval.files import seal

if TYPE_CHECKING:  # comparing pictures takes seconds to import, and a memory without fingerprints needs none of it
    from pixelis.data.dedup import Fingerprint
    from pixelis.retrieval.whitelist import Refusal

MAX_LINE_BYTES = 65_536
"""Of an entry without its frame hashes, which grow with the video."""
HASH_BYTES = 19
"""Of one frame hash in a line: sixteen digits, quotes and a comma."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One remembered trajectory.

    Args:
        id: of the trajectory; once per memory.
        medium: SHA-256 of the medium.
        trajectory: where the whole of it lies, as the caller names run folders.
        answer: normalised; None when it has none.
        value: summary of curiosity and coherence; None when unknown. NaN is stored as None.
        facts: more that is worth knowing without opening the trajectory; JSON.
        frame_hashes: pHash of each whole frame of the medium, for audits; filled in from the fingerprint. None when unknown.
    """

    id: str
    medium: str
    trajectory: str
    answer: str | None = None
    value: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    frame_hashes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Item:
    """What is offered to a memory.

    Args:
        text_D, pixel_D: the parts of the key; a part that the memory does not store may be None.
        fingerprint: of the medium; needed where near-duplicates of evaluation media are blocked.
    """

    entry: Entry
    text_D: np.ndarray | None
    pixel_D: np.ndarray | None
    fingerprint: Fingerprint | None = None


@dataclass(frozen=True)
class Added:
    """What became of an item."""

    position: int | None
    """Where it stands; None when it was refused."""
    is_new: bool
    """False for a repetition of what was there already: adding again after a crash is safe."""
    refusal: Refusal | None = None


@dataclass(frozen=True)
class Neighbour:
    position: int
    similarity: float
    entry: Entry


def with_hashes(item: Item) -> Entry:
    """The entry with the frame hashes of its fingerprint, if it has one."""
    entry = item.entry
    if item.fingerprint is None or entry.frame_hashes is not None:
        return entry
    from pixelis.retrieval.whitelist import whole_frame_hashes

    hashes = tuple(int(bits) for bits in whole_frame_hashes(item.fingerprint)[:, 0])
    return replace(entry, frame_hashes=hashes)


def entry_line(entry: Entry, key_name: str) -> bytes:
    """The sealed line of an entry and the row it belongs to.

    Raises:
        DataError: no id, facts that are not JSON, or too much of them.
    """
    if not entry.id or not entry.medium:
        raise DataError(f"an entry needs the trajectory's id and the medium's SHA-256, not {entry.id!r} and {entry.medium!r}")
    value = None if entry.value is None or not math.isfinite(entry.value) else float(entry.value)
    hashes = None if entry.frame_hashes is None else [f"{bits:016x}" for bits in entry.frame_hashes]
    plain: dict[str, Any] = {
        "id": entry.id,
        "medium": entry.medium,
        "trajectory": entry.trajectory,
        "answer": entry.answer,
        "value": value,
        "facts": dict(entry.facts),
        "frames": hashes,
        "key": key_name,
    }
    try:
        line = seal(plain)
    except (TypeError, ValueError) as error:
        raise DataError(f"entry {entry.id}: its facts are not JSON ({error}); give plain values, None for what is unknown") from None
    own_bytes = len(line) - HASH_BYTES * len(hashes or ())
    if own_bytes > MAX_LINE_BYTES:
        raise DataError(f"entry {entry.id}: {own_bytes} bytes, at most {MAX_LINE_BYTES}; the trajectory itself belongs in its run folder")
    return line


def entry_of(plain: Mapping[str, Any]) -> Entry:
    """The entry in an unsealed line."""
    frames = plain["frames"]
    return Entry(
        id=plain["id"],
        medium=plain["medium"],
        trajectory=plain["trajectory"],
        answer=plain["answer"],
        value=plain["value"],
        facts=plain["facts"],
        frame_hashes=None if frames is None else tuple(int(bits, 16) for bits in frames),
    )
