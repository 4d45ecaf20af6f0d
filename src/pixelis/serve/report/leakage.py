"""Whether anything that a policy is examined on lies in the memory that it learnt from. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pixelis.eval.report import number_text
from pixelis.retrieval.audit import AUDIT_FILE
from pixelis.serve.report.journals import Journal
from pixelis.serve.report.table import Table, cells


def leakage_tables(journals: Sequence[Journal]) -> list[Table]:
    """A row a stream; none where no stream is among the runs."""
    streams = [journal for journal in journals if journal.is_stream]
    if not streams:
        return []
    rows = tuple(cells(stream.name, *(_found(stream.audit) if stream.audit else ("not audited", *["-"] * 4))) for stream in streams)
    note = "After a stream, its whole memory is compared with the media that its recipe excludes: every SHA-256, then all frames by hash, "
    note += "and what is near by hash in full (SSIM). Share: of the excluded media, at most (Clopper-Pearson 95 %)."
    head = ("run", "media in memory", "excluded media", "near by hash, not the same", "found", "share")
    of = tuple(stream.name for stream in streams)
    return [Table(key="leakage", title="Leakage", head=head, rows=rows, note=note, source=AUDIT_FILE, of=of)]


def _found(audit: Mapping[str, Any]) -> tuple[str, ...]:
    """Read as far as it is known."""
    counts = (str(audit.get(key, "-")) for key in ("num_items", "num_blocked", "num_suspects"))
    hits, rate, high = audit.get("hits"), audit.get("rate", math.nan), audit.get("high", math.nan)
    share = f"{number_text(rate, 4)} (at most {number_text(high, 4)})"
    return *counts, str(len(hits)) if isinstance(hits, list) else "-", share
