"""From a labelled stream that was only decided on, never learnt from: calibration, the conformal quantile, and canaries.

Labels are those of another split than any stream's (dev-cal). Source: paper §3.2.3; supplement 2.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from pixelis.core.errors import DataError
from pixelis.core.media import open_medium
from pixelis.core.store import Run, open_run, write_whole
from pixelis.core.trajectory import Timing, Trajectory
from pixelis.policy.base import Task
from pixelis.policy.exposure import exposure_of
from pixelis.policy.vlm import VlmPolicy
from pixelis.rollout.run import Rollout
from pixelis.train.bank import FeatureBank
from pixelis.train.packing import pack_rollouts
from pixelis.ttrl.abstain import ALPHA, conformal_quantile, nonconformity
from pixelis.ttrl.calibrate import CALIBRATORS, LEAST_PROBABILITY, confidence_logits, expected_calibration_error, fit_calibrator, report
from pixelis.ttrl.decide import Decision, DecisionSettings, decide, dump, load
from pixelis.ttrl.excluded import TRAJECTORIES_FOLDER
from pixelis.ttrl.facts import QueryFacts, load_facts
from pixelis.ttrl.learn import Canary
from pixelis.ttrl.state import ABOUT_FILE, AUDIT_FILE, QUERIES_FILE

CALIBRATION_FILE = "calibration.json"
LEAST_QUERIES = 30


@dataclass(frozen=True)
class Record:
    """One query of a stored run."""

    facts: QueryFacts
    decision: Decision
    right: bool | None
    """The answer that was given out."""
    each: tuple[bool, ...] | None
    """Every rollout's answer, in the order of the facts."""


def read_records(folder: str | Path) -> Iterator[Record]:
    """What a run recorded of each query.

    Raises:
        DataError: no such run, or a damaged line; names file and line.
    """
    folder = Path(folder)
    path = folder / QUERIES_FILE
    try:
        lines, audits = path.read_bytes().splitlines(), (folder / AUDIT_FILE).read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{folder}: no run of pixelis adapt lies there ({error.strerror})") from None
    for number, (line, audit) in enumerate(zip(lines, audits, strict=False), 1):
        try:
            parts, known = json.loads(line), json.loads(audit)
            plain = {key: json.dumps(parts[key]).encode() for key in ("facts", "decision")}
            each = None if known["each"] is None else tuple(known["each"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}:{number}: is damaged ({error})") from None
        where = f"{path}:{number}"
        yield Record(load_facts(plain["facts"], where=where), load(Decision, plain["decision"], where=where), known["right"], each)


def settings_of(folder: str | Path) -> DecisionSettings:
    """How the run decided."""
    path = Path(folder) / ABOUT_FILE
    try:
        return load(DecisionSettings, json.dumps(json.loads(path.read_text())["settings"]["decision"]).encode(), where=str(path))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: {error}; no run of pixelis adapt lies there") from None


def check_decisions(folder: str | Path) -> tuple[int, list[str]]:
    """Make every decision of a run again from its recorded facts: how many there are, and the queries where another one comes out."""
    settings, num, different = settings_of(folder), 0, []
    for record in read_records(folder):
        num += 1
        if decide(record.facts, settings) != record.decision:
            different.append(record.facts.id)
    return num, different


def fit(folder: str | Path, *, calibrator: str = "temperature", alpha: float = ALPHA) -> dict[str, Any]:
    """Fit calibrator and quantile on a labelled run, and leave them there as `calibration.json`.

    The quantile belongs to the vote as it will be held: decisions are made again with the fitted calibrator.

    Returns:
        What is in the file: the settings, how well the calibrator does on the same queries, and `held_out`: how each calibrator that there
        is does on queries that it was not fitted on.

    Raises:
        DataError: the run has no labels, or too few queries for a quantile.
    """
    folder, records = Path(folder), labelled(folder)
    settings = _fitted(records, settings_of(folder), calibrator, alpha)
    if settings.quantile is None:
        raise DataError(f"{folder}: {len(records)} queries are too few for alpha = {alpha}")
    logits_NK, label_N = _confidences(records)
    found = {
        "settings": json.loads(dump(settings)),
        "queries": len(records),
        "confidences": len(label_N),
        "alpha": alpha,
        "calibration": asdict(report(settings.calibrator, logits_NK, label_N)),
    }
    write_whole(folder / CALIBRATION_FILE, (json.dumps(found, indent=1) + "\n").encode())
    found["held_out"] = [asdict(held_out(records, settings_of(folder), name, alpha)) for name in CALIBRATORS]
    write_whole(folder / CALIBRATION_FILE, (json.dumps(found, indent=1) + "\n").encode())
    return found


def labelled(folder: str | Path) -> list[Record]:
    """The queries of a run to fit on.

    Raises:
        DataError: the run has no labels, or too few queries.
    """
    records = list(read_records(folder))
    if len(records) < LEAST_QUERIES or any(record.each is None for record in records):
        raise DataError(f"{folder}: {len(records)} queries; at least {LEAST_QUERIES} are needed, all of them with labels")
    return records


@dataclass(frozen=True)
class HeldOut:
    """What was fitted on one half of the queries, on the other half; both ways, taken together."""

    calibrator: str
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    confidences: int
    covered: int | None
    """Queries whose true answer is in the conformal set; None where half of the queries are too few for a quantile."""
    queries: int


def held_out(records: Sequence[Record], settings: DecisionSettings, calibrator: str, alpha: float = ALPHA) -> HeldOut:
    """Fit on the queries of even place and measure on those of odd place, and the other way round.

    Raises:
        DataError: a half without confidences.
        ConfigError: no calibrator has this name.
    """
    before_N, after_N, label_N, covered = [], [], [], 0
    for own, other in ((records[::2], records[1::2]), (records[1::2], records[::2])):
        fitted = _fitted(own, settings, calibrator, alpha)
        logits_NK, right_N = _confidences(other)
        before_N.append(softmax(logits_NK, axis=-1)[:, 1])
        after_N.append(fitted.calibrator.probabilities(logits_NK)[:, 1])
        label_N.append(right_N)
        if covered is not None:
            sure = fitted.quantile is not None
            covered = covered + sum(_nonconformity(record, fitted) <= fitted.quantile for record in other) if sure else None
    before, after, label = (np.concatenate(parts) for parts in (before_N, after_N, label_N))
    nll = [float(-np.log(np.maximum(np.where(label == 1, p, 1 - p), LEAST_PROBABILITY)).mean()) for p in (before, after)]
    ece = [expected_calibration_error(p, label == 1) for p in (before, after)]
    return HeldOut(calibrator, *nll, *ece, len(label), covered, len(records))


def held_out_text(fitted: dict[str, Any]) -> str:
    """What `fit` found, a row a calibrator."""
    found = [HeldOut(**one) for one in fitted["held_out"]]
    lines = [f"{'calibrator':14}{'NLL before':>12}{'after':>8}{'ECE before':>12}{'after':>8}{'confidences':>13}{'answers in the set':>22}"]
    for one in found:
        inside = "-" if one.covered is None else f"{one.covered} of {one.queries} ({one.covered / one.queries:.3f})"
        measured = f"{one.nll_before:>12.3f}{one.nll_after:>8.3f}{one.ece_before:>12.3f}{one.ece_after:>8.3f}"
        lines.append(f"{one.calibrator:14}{measured}{one.confidences:>13}{inside:>22}")
    return "\n".join(lines)


def _fitted(records: Sequence[Record], settings: DecisionSettings, calibrator: str, alpha: float) -> DecisionSettings:
    """How to decide with a calibrator and a quantile of these queries; no quantile where they are too few."""
    quantile = conformal_quantile(_scores(records, settings, calibrator), alpha)
    fitted = fit_calibrator(calibrator, *_confidences(records))
    return replace(settings, calibrator=fitted, quantile=quantile if np.isfinite(quantile) else None)


def _scores(records: Sequence[Record], settings: DecisionSettings, calibrator: str) -> list[float]:
    """Nonconformity of every true answer, each under a calibrator of the other half of the queries.

    A calibrator that had seen a query would fit it better than those to come, and the quantile would promise too much.
    """
    halves = (records[::2], records[1::2])
    found = []
    for own, other in (halves, halves[::-1]):
        fitted = replace(settings, calibrator=fit_calibrator(calibrator, *_confidences(other)), quantile=None)
        found += [_nonconformity(record, fitted) for record in own]
    return found


def _confidences(records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, 2] of all rollouts that gave a confidence, and whether each was right, int [N]."""
    pairs = [
        (one.confidence, int(is_right))
        for record in records
        for one, is_right in zip(record.facts.rollouts, record.each or (), strict=True)
        if one.confidence is not None
    ]
    return confidence_logits([c for c, _ in pairs]), np.array([r for _, r in pairs], int)


def _nonconformity(record: Record, settings: DecisionSettings) -> float:
    """Of the true answer, by whichever label the right rollouts gave it; 1 where none was right."""
    labels = {one.label for one, is_right in zip(record.facts.rollouts, record.each or (), strict=True) if is_right and one.label}
    ballot = decide(record.facts, settings).ballot
    return min((nonconformity(ballot, label) for label in labels), default=1.0)


def read_calibration(path: str | Path) -> DecisionSettings:
    """What `fit` left.

    Raises:
        DataError: there is none, or it is damaged.
    """
    path = Path(path) / CALIBRATION_FILE if Path(path).is_dir() else Path(path)
    try:
        return load(DecisionSettings, json.dumps(json.loads(path.read_text())["settings"]).encode(), where=str(path))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: {error}; make it with pixelis adapt --fit") from None


def canaries(folder: str | Path, policy: VlmPolicy, bank: FeatureBank, *, count: int = 16) -> Canary:
    """The first right rollout of each of the first queries of a labelled run, ready to be scored.

    Raises:
        DataError: none was right.
    """
    run, wanted = open_run(Path(folder) / TRAJECTORIES_FOLDER), _right_ones(folder, count)
    examples = []
    for trajectory in run.trajectories():
        if trajectory.id in wanted:
            with open_medium(run.blob(trajectory.medium.sha256), name=trajectory.medium.name) as medium:
                task = Task(question=trajectory.question, medium=medium, id=trajectory.task_id)
                examples += [example for _, example in pack_rollouts(policy, bank, task, [_as_rollout(run, trajectory)])]
    if not examples:
        raise DataError(f"{folder}: no rollout was right, so there is no canary set")
    return Canary(examples)


def _right_ones(folder: str | Path, count: int) -> set[str]:
    found: list[str] = []
    for record in read_records(folder):
        first: Sequence[str] = [one.id for one, is_right in zip(record.facts.rollouts, record.each or (), strict=False) if is_right][:1]
        found += first
        if len(found) >= count:
            break
    return set(found)


def _as_rollout(run: Run, trajectory: Trajectory) -> Rollout:
    shown = {exposure_of(name)[0] for tokens in trajectory.tokens for name in tokens.images}
    names = {name for name in shown if run.blob_path(name).is_file()}
    blobs = {name: run.blob(name) for name in names if name != trajectory.medium.sha256}
    return Rollout(trajectory=trajectory, blobs=blobs, timing=Timing(id=trajectory.id, steps=(), total_s=0.0))
