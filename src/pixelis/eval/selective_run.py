"""What a run of `pixelis adapt` selected and what that was worth: coverage, Err@Sel, risk against coverage, calibration, drift, acceptance.

Everything is read from the run's own records; the truth is what its audit wrote down. Source: paper §4 (Table 4), supplement 8 (Table S11)
and 9 (risk-coverage curves by the margin).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelis.core.errors import DataError
from pixelis.core.store import write_whole
from pixelis.eval.metrics.selective import Reliability, RiskCoverage, Selection, reliability, risk_coverage, selective_error
from pixelis.eval.report import number_text, rate_text, table_text
from pixelis.eval.stats import Rate, known, share
from pixelis.eval.stretches import Stretch, stretches_json, stretches_of, stretches_text

CURVE_FILE, BINS_FILE = "risk_coverage.jsonl", "reliability.jsonl"
HEAD = ("run", "queries", "coverage", "Err@Sel", "error of all", "AURC", "ECE", "accepted", "taken back", "KL P50 / P95", "updates")


@dataclass(frozen=True, kw_only=True)
class Selective:
    """One run.

    Attributes:
        selection: by what the run itself abstained from.
        curve: by the vote's margin, over all queries.
        answers: reliability of the winner's share of the vote, one a query.
        rollouts: reliability of calibrated confidences, one a rollout that gave one.
        accepted: share of queries whose update was accepted; its numerator is `num_accepted`.
        kl_median, kl_p95: of the updates, nats a token to the anchor; NaN without any.
        stretches: of its stream; none where the run does not say what it served.
    """

    name: str
    is_finished: bool
    selection: Selection
    curve: RiskCoverage
    answers: Reliability
    rollouts: Reliability
    accepted: Rate
    num_accepted: int
    num_rolled_back: int
    kl_median: float
    kl_p95: float
    num_updates: int
    stretches: tuple[Stretch, ...]


def read_selective(folder: str | os.PathLike) -> Selective:
    """What the records of a run say.

    Raises:
        DataError: no such run, a damaged line, or no audit.
    """
    from pixelis.ttrl.adapt import POLICY_FOLDER
    from pixelis.ttrl.fit import read_records

    folder, records = Path(folder), list(read_records(folder))
    if not any(record.right is not None for record in records):
        raise DataError(f"{folder}: {len(records)} queries, and no audit of any; adapt with --audit, else nobody knows what was right")
    wrong_N = [_wrong(record.right) for record in records]
    share_N = [record.decision.ballot.scores[0][1] if record.decision.ballot.scores else math.nan for record in records]
    rows = _journal(folder)
    kls = [row["kl"] for row in rows if row["kl"] is not None]
    last = rows[-1] if rows else {"accepted": 0, "num_rolled_back": 0}
    return Selective(
        name=folder.name,
        is_finished=(folder / POLICY_FOLDER).is_dir(),
        selection=selective_error(wrong_N, [record.decision.is_abstaining for record in records]),
        curve=risk_coverage([record.decision.ballot.margin for record in records], wrong_N),
        answers=reliability(_within_one(share_N), [1 - wrong for wrong in wrong_N]),
        rollouts=reliability(*_confidences(records)),
        accepted=share(last["accepted"], len(rows)),
        num_accepted=last["accepted"],
        num_rolled_back=last["num_rolled_back"],
        kl_median=float(np.median(kls)) if kls else math.nan,
        kl_p95=float(np.percentile(kls, 95)) if kls else math.nan,
        num_updates=len(kls),
        stretches=stretches_of(_segments(folder), records, [row["lift"] for row in rows]),
    )


def least_accepted(runs: Sequence[Selective]) -> int:
    """The budget that all of them can be held to: `max_accepted` for every arm. Arms that accept nothing learn nothing, and do not count.

    Raises:
        DataError: a run is not finished, or none learns.
    """
    unfinished = [run.name for run in runs if not run.is_finished]
    if unfinished:
        raise DataError(f"{', '.join(unfinished)}: not finished, so nobody knows how many updates it will accept; let it end first")
    counts = [run.num_accepted for run in runs if run.num_accepted]
    if not counts:
        raise DataError(f"none of {len(runs)} runs accepted an update: there is no budget to match")
    return min(counts)


def write_curves(folder: str | os.PathLike, found: Selective) -> tuple[Path, Path]:
    """Both curves beside the run's records, as journals that `pixelis report` draws.

    Risk against coverage has a row for each threshold, whose `query` says how many queries are answered; the reliability diagram one for
    each `bin` of the winner's share that holds any.

    Raises:
        DataError: one cannot be written.
    """
    written = []
    for name, rows in ((CURVE_FILE, curve_rows(found.curve)), (BINS_FILE, bin_rows(found.answers))):
        path = Path(folder) / name
        try:
            write_whole(path, b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        except OSError as error:
            raise DataError(f"{path}: cannot write ({error.strerror}); the run is safe: make room, then run the command again") from None
        written.append(path)
    return written[0], written[1]


def curve_rows(curve: RiskCoverage) -> list[dict[str, Any]]:
    return [{"query": one.count, "coverage": one.coverage, "risk": one.risk, "margin": one.threshold} for one in curve.points]


def bin_rows(found: Reliability) -> list[dict[str, Any]]:
    filled = [(number, one) for number, one in enumerate(found.bins) if one.accuracy.count]
    return [{"bin": n, "confidence": one.confidence, "right": one.accuracy.value, "answers": one.accuracy.count} for n, one in filled]


def selective_text(runs: Sequence[Selective]) -> str:
    """A row a run; and where a run's stream has several stretches, a row for each of them."""
    apart = stretches_text([(run.name, run.stretches) for run in runs])
    return "\n\n".join(part for part in (table_text(HEAD, [_cells(run) for run in runs]), apart) if part)


def selective_json(runs: Sequence[Selective]) -> list[dict[str, Any]]:
    return [
        {
            "run": run.name,
            "finished": run.is_finished,
            "coverage": run.selection.coverage.to_json(),
            "error_selected": run.selection.error.to_json(),
            "error_all": run.selection.full_error.to_json(),
            "aurc": {"value": known(run.curve.aurc), "excess": known(run.curve.excess), "count": run.curve.count},
            "ece": {"value": known(run.answers.ece), "count": run.answers.count},
            "ece_rollouts": {"value": known(run.rollouts.ece), "count": run.rollouts.count},
            "accepted": {**run.accepted.to_json(), "updates": run.num_accepted, "rolled_back": run.num_rolled_back},
            "kl": {"p50": known(run.kl_median), "p95": known(run.kl_p95), "updates": run.num_updates},
            "curve": curve_rows(run.curve),
            "stretches": stretches_json(run.stretches),
        }
        for run in runs
    ]


def _cells(run: Selective) -> tuple[str, ...]:
    return (
        run.name,
        str(run.selection.coverage.count),
        rate_text(run.selection.coverage),
        rate_text(run.selection.error),
        rate_text(run.selection.full_error),
        number_text(run.curve.aurc, 3),
        number_text(run.answers.ece, 3),
        f"{run.num_accepted} ({number_text(run.accepted.value, 3)})",
        str(run.num_rolled_back),
        f"{number_text(run.kl_median, 3)} / {number_text(run.kl_p95, 3)}",
        str(run.num_updates),
    )


def _wrong(right: bool | None) -> float:
    return math.nan if right is None else float(not right)


def _within_one(share_N: Iterable[float]) -> list[float]:
    """Shares are sums of weights, and may miss 1 by a rounding."""
    return [min(1.0, value) if value == value else value for value in share_N]


def _confidences(records: Sequence[Any]) -> tuple[list[float], list[float]]:
    """Calibrated confidence of every rollout that has one, and whether it was right; decisions list rollouts by id."""
    pairs = []
    for record in records:
        right = {} if record.each is None else dict(zip((one.id for one in record.facts.rollouts), record.each, strict=True))
        pairs += [
            (one.confidence, math.nan if right.get(one.id) is None else float(right[one.id]))
            for one in record.decision.rollouts
            if one.confidence is not None
        ]
    return [confidence for confidence, _ in pairs], [outcome for _, outcome in pairs]


def _journal(folder: Path) -> list[dict[str, Any]]:
    from pixelis.ttrl.state import METRICS_FILE

    path = folder / METRICS_FILE
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot read ({error.strerror})") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.append({**{key: row[key] for key in ("kl", "accepted", "num_rolled_back")}, "lift": row.get("lift")})
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}:{number}: is damaged ({error})") from None
    return rows


def _segments(folder: Path) -> list[str]:
    from pixelis.ttrl.state import ABOUT_FILE

    path = folder / ABOUT_FILE
    if not path.is_file():
        return []
    try:
        return json.loads(path.read_bytes())["stream"]["segments"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is damaged ({type(error).__name__}: {error})") from None
