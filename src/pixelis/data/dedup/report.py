"""What a de-duplication did, as facts and as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.stats import binomtest

from pixelis.data.dedup.settings import DedupSettings

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Removed:
    """A medium that goes, the earlier one that stands for it, and why."""

    id: str
    kept_id: str
    stage: Literal["phash", "embedding"]
    """Which stage flagged the pair: the first that did."""
    distance: float
    """Differing pHash bits, mean over aligned frames."""
    cosine: float | None
    """Mean over aligned frames; None without embeddings."""
    ssim: float | None
    """Mean over aligned frames; None where the rule did not ask."""
    tile_worst: float | None
    """Worst tile, mean over aligned frames; None where the rule did not ask."""


@dataclass(frozen=True)
class Residual:
    """Near-duplicates among a uniform sample of the kept pairs that look alike."""

    num_pairs: int
    """Kept pairs within the audit's thresholds."""
    num_inspected: int
    confirmed: tuple[tuple[str, str], ...]
    """Ids of the pairs that the audit found to be near-duplicates, earlier first."""
    rate: float
    """NaN where nothing was inspected."""
    low: float
    """Clopper-Pearson 95 % interval; 0 to 1 where nothing was inspected."""
    high: float


@dataclass(frozen=True)
class DedupReport:
    """The outcome of one de-duplication."""

    settings: DedupSettings
    num_media: int
    num_phash_candidates: int
    """Pairs that stage 1 flagged."""
    num_embedding_candidates: int | None
    """Pairs that stage 2 flagged and stage 1 did not; None where it did not run."""
    num_spared: int
    """Candidate pairs of which both media stay."""
    removed: tuple[Removed, ...]
    """In ingest order."""
    residual: Residual

    @property
    def num_candidates(self) -> int:
        return self.num_phash_candidates + (self.num_embedding_candidates or 0)

    @property
    def blocklist(self) -> tuple[str, ...]:
        """Ids to refuse from now on, in ingest order."""
        return tuple(entry.id for entry in self.removed)


def residual_of(*, num_pairs: int, num_inspected: int, confirmed: Sequence[tuple[str, str]]) -> Residual:
    """The residual rate with its exact interval.

    Source: supplement §11, Clopper and Pearson 1934.
    """
    if num_inspected == 0:
        return Residual(num_pairs, 0, (), math.nan, 0.0, 1.0)
    interval = binomtest(len(confirmed), num_inspected).proportion_ci(CONFIDENCE, method="exact")
    return Residual(num_pairs, num_inspected, tuple(confirmed), len(confirmed) / num_inspected, float(interval.low), float(interval.high))


def report_text(report: DedupReport) -> str:
    """The report for a reader."""
    settings, residual, num_first = report.settings, report.residual, report.num_phash_candidates
    stages = [entry.stage for entry in report.removed]
    by_phash, by_embedding = stages.count("phash"), stages.count("embedding")
    sure = "" if settings.phash_sure_max is None else f", or {settings.phash_sure_max} of sure bits"
    second = (
        "stage 2 did not run: no encoder"
        if report.num_embedding_candidates is None
        else f"stage 2 alone {report.num_embedding_candidates:,} (cosine >= {settings.cosine_min:g}, videos {settings.video_cosine_min:g})"
    )
    rule = "every positive re-checked locally" if settings.phash_recheck else "pHash positives removed without re-check"
    rate = "n/a" if residual.num_inspected == 0 else f"{residual.rate:.4f}"
    return "\n".join(
        (
            f"media       {report.num_media:,}",
            f"candidates  {report.num_candidates:,} pairs: stage 1 {num_first:,} (pHash <= {settings.phash_max}{sure}), {second}",
            f"rule        {rule}; {report.num_spared:,} candidate pairs stay",
            f"removed     {len(stages):,}: {by_phash:,} by pHash, {by_embedding:,} by embedding alone",
            f"residual    {rate} [{residual.low:.4f}, {residual.high:.4f}] (Clopper-Pearson {CONFIDENCE:.0%}): "
            f"{len(residual.confirmed)} of {residual.num_inspected} inspected of {residual.num_pairs:,} kept pairs that look alike",
        )
    )
