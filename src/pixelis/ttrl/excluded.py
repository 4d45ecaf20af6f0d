"""Evaluation media that a stream's memory must never hold: who they are, and the audit that none got in.

Source: supplement 11.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from pixelis.core.errors import DataError
from pixelis.core.media import Medium, open_medium
from pixelis.core.store import Run, open_run, write_whole
from pixelis.data.dedup import WORLD, Encoder, Fingerprint, MediaRecord, fingerprint, frames_of
from pixelis.data.world.items import FAMILIES, make_item, render
from pixelis.data.world.shifts import parse_shift
from pixelis.retrieval.audit import AUDIT_FILE, AuditReport, Probe, inspect
from pixelis.retrieval.memory import Memory
from pixelis.retrieval.whitelist import Blocked, Blocklist
from pixelis.ttrl.state import ABOUT_FILE

TRAJECTORIES_FOLDER = "rollouts"


@dataclass(frozen=True)
class Excluded:
    """PixelWorld items that a policy is examined on, their families in turn."""

    split: str
    items: int
    seed: int = 0
    first: int = 0
    shift: str | None = None


def excluded_by(folder: Path) -> list[Excluded]:
    """The sets that a run of `pixelis adapt` was made with; none where it says nothing of any.

    Raises:
        DataError: what it says of itself cannot be read.
    """
    path = folder / ABOUT_FILE
    try:
        return [Excluded(**one) for one in json.loads(path.read_bytes()).get("excluded", [])]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: {error}; no run of pixelis adapt lies there, or it is damaged") from None


def blocklist_of(sets: Sequence[Excluded], embed: Encoder | None = None) -> Blocklist | None:
    """The media of some sets of items, by bytes and by what they look like; None where there is no set. About 0.1 s a medium, and 24 ms
    more with an encoder.

    Args:
        embed: of the memory's pixel keys; None leaves an audit without questions to the index.

    Raises:
        ConfigError: no such shift.
    """
    media: dict[str, Blocked] = {}
    for one in sets:
        shift = parse_shift(one.shift) if one.shift else None
        for index in range(one.first, one.first + one.items):
            item = make_item(one.split, index, seed=one.seed, family=tuple(FAMILIES)[index % len(FAMILIES)], shift=shift)
            with open_medium(render(item), name=item.medium_name) as medium:
                name = f"{item.id} {one.shift or 'clean'}"
                if medium.sha256 not in media:
                    pixel_D = None if embed is None else np.asarray(embed([medium.frame(0)])[0], np.float64)
                    media[medium.sha256] = Blocked(name, medium.sha256, fingerprint_of(medium), pixel_D)
    return Blocklist(media.values(), WORLD) if media else None


def fingerprint_of(medium: Medium) -> Fingerprint:
    """Without an embedding: an encoder's would cost 24 ms a frame."""
    return fingerprint(MediaRecord(medium.sha256, 0, frames_of(medium)))


def audited(memory: Memory, blocklist: Blocklist, folder: Path) -> AuditReport:
    """Compare all that a run's memory holds with evaluation media, each of them a probe; what is near one by hash is compared in full.

    The report is left in the folder.

    Args:
        folder: of the run; the media that it answered lie beside its trajectories.

    Raises:
        DataError: such a medium is missing or has changed.
    """
    run = open_run(folder / TRAJECTORIES_FOLDER)
    look = cache(lambda medium: stored_fingerprint(run, medium))
    probes = [Probe(blocked, blocked.pixel_D) for blocked in blocklist.media]
    report = inspect(memory, blocklist, probes, fingerprint_of=lambda entry: look(entry.medium))
    write_whole(folder / AUDIT_FILE, (json.dumps(asdict(report), indent=1) + "\n").encode())
    return report


def assert_clean(memory: Memory, blocklist: Blocklist, folder: Path) -> None:
    """`audited`, and stop where anything was found.

    Raises:
        DataError: the memory holds an evaluation medium, or one that resembles it.
    """
    report = audited(memory, blocklist, folder)
    if report.hits:
        first = report.hits[0]
        raise DataError(
            f"{folder}: {len(report.hits)} remembered media are or resemble evaluation media, the first is {first.entry_id} "
            f"({first.route} of {first.blocked_id}); what was measured on them does not count: adapt into a new folder"
        )


def stored_fingerprint(run: Run, medium: str) -> Fingerprint:
    """Of a medium that a run answered, by its SHA-256."""
    with open_medium(run.blob(medium)) as opened:
        return fingerprint_of(opened)
