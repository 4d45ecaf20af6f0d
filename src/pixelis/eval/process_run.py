"""Process metrics of a stored PixelWorld evaluation: RaPR, RaCPR, VisFid, action entropy, PRC, and how they go with being right.

What is derived lies beside the trajectories: `cosines.jsonl` (neighbouring steps under a frozen encoder, which takes a while and is kept)
and `process.json` (every number). Source: paper §4.1, supplement 5.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelis.core.errors import DataError
from pixelis.core.media import open_medium
from pixelis.core.store import TRAJECTORIES_FILE, sha256, write_whole
from pixelis.core.trajectory import Trajectory
from pixelis.data.world.item import Item
from pixelis.data.world.items import render
from pixelis.data.world.score import score_answer
from pixelis.eval.correlate import Correlation, correlation, point_biserial, spearman, with_q
from pixelis.eval.logistic import Foretelling, foretell
from pixelis.eval.metrics.coherence_encoder import Encoder, adjacent_footprint_cosines, dev_statistics
from pixelis.eval.metrics.plan import PlanConsistency, check_plans, plan_consistency
from pixelis.eval.metrics.process import (
    ActionEntropy,
    CompositeReasoning,
    action_entropy,
    mean_visual_fidelity,
    rate_of_composite_reasoning,
    rate_of_pixel_reasoning,
    step_facts,
    visual_fidelity,
)
from pixelis.eval.pixelworld import open_evaluation
from pixelis.eval.report import number_text, rate_text, table_text
from pixelis.eval.stats import Rate, known
from pixelis.eval.sweep import write_result
from pixelis.rewards.chains import adjacent_z, composite_chains, composite_share, entropy_nats, valid_share
from pixelis.tools.execute import Executor
from pixelis.ttrl.facts import in_words

COSINES_FILE, PROCESS_FILE = "cosines.jsonl", "process.json"
MULTI_STEP = 3
"""Steps from which an item counts as one of several steps: fewer cannot make a composite chain."""
NAMES = {"rapr": "RaPR", "racpr": "RaCPR", "fidelity": "VisFid", "steps": "length", "surprisal": "surprisal"}
"""Of a row's numbers, for people."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class ProcessRow:
    """One trajectory."""

    item: str
    """The item's name without its shift."""
    family: str
    right: float
    steps: int
    invalid: int
    """Calls that are not valid."""
    entropy: float
    """Of its ops, in nats; NaN without calls."""
    rapr: float
    racpr: float
    fidelity: float
    """NaN where nothing decisive could be compared with the truth."""
    surprisal: float
    """In nats a token, see `mean_surprisal`; NaN where no token was recorded."""


@dataclass(frozen=True, kw_only=True)
class ProcessReport:
    about: dict[str, Any]
    """What it was made from."""
    rapr: Rate
    racpr: CompositeReasoning
    fidelity: Rate
    entropy: ActionEntropy
    plans: PlanConsistency | None
    """PRC over the first trajectories; None where it was not asked for."""
    correlations: dict[str, dict[str, Correlation]]
    """Metric, then how: with being right over all items, over items of several steps, and with length (and surprisal) held fixed."""
    foretellings: dict[tuple[str, ...], Foretelling]
    """By the numbers of a row that foretell being right."""
    rows: tuple[ProcessRow, ...]


def process_report(
    folder: str | os.PathLike,
    dev_folder: str | os.PathLike,
    encoder: Encoder,
    *,
    executor: Executor | None = None,
    num_plans: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> ProcessReport:
    """All process metrics of a stored evaluation.

    Args:
        dev_folder: an evaluation on the dev split, which fixes the scale of the cosines; never the one that is measured.
        executor: re-executes plans for PRC.
        num_plans: how many trajectories are re-executed, from the first.

    Raises:
        DataError: a folder holds no PixelWorld evaluation, or both are the same.
    """
    if Path(folder).resolve() == Path(dev_folder).resolve():
        raise DataError(f"{folder}: the scale must come from another run, on the dev split; a run cannot be its own yardstick")
    scale = dev_statistics((line["family"], line["cosines"]) for line in _cosines(dev_folder, encoder, progress))
    cosines = {line["id"]: line["cosines"] for line in _cosines(folder, encoder, progress)}
    run, items = open_evaluation(folder)
    pairs = [(items.item_of(trajectory), trajectory) for trajectory in run.trajectories()]
    facts = [step_facts(item, trajectory) for item, trajectory in pairs]
    scaled = [adjacent_z(cosines[t.id], scale.of(item.family)) for item, t in pairs]
    rows = tuple(_row(*parts) for parts in zip(pairs, facts, scaled, strict=True))
    return ProcessReport(
        about=_about(folder, dev_folder, encoder, num_plans if executor is not None else 0, seed),
        rapr=rate_of_pixel_reasoning([one.is_valid for one in facts], seed=seed),
        racpr=rate_of_composite_reasoning([(one.is_valid, z) for one, z in zip(facts, scaled, strict=True)], seed=seed),
        fidelity=mean_visual_fidelity([(one.fit, one.is_decisive) for one in facts], seed=seed),
        entropy=action_entropy([one.ops for one in facts], seed=seed),
        plans=_plans(pairs[:num_plans], executor, seed) if executor is not None and num_plans else None,
        correlations=_correlations(rows, seed),
        foretellings=_foretellings(rows, seed),
        rows=rows,
    )


def _about(folder: str | os.PathLike, dev_folder: str | os.PathLike, encoder: Encoder, num_plans: int, seed: int) -> dict[str, Any]:
    """Facts as plain JSON values; the dev folder's name alone, for a result travels."""
    dev, _ = open_evaluation(dev_folder)
    return {
        "trajectories": sha256((Path(folder) / TRAJECTORIES_FILE).read_bytes()),
        "dev": {"run": Path(dev_folder).resolve().name, "items": dev.info["items"]},
        "encoder": _version(encoder),
        "plans": num_plans,
        "seed": seed,
    }


def _version(encoder: Encoder) -> str:
    return getattr(encoder, "version", type(encoder).__name__)


def mean_surprisal(trajectory: Trajectory) -> float:
    """Mean -log p of the tokens that the policy sampled, by its own probabilities (at temperature 1 where it took the likeliest token).

    It stands in for the paper's token-level drift and is no KL: that needs the anchor's log-probabilities, which no trajectory holds. Of
    sampled tokens its expectation is the policy's mean entropy; of the likeliest tokens it is at most that.

    Returns:
        In nats a token, at least 0; NaN where no log-probability was recorded.
    """
    logp = [value for run in trajectory.tokens if run.role == "policy" for value in run.logp]
    return -math.fsum(logp) / len(logp) if logp else math.nan


def _row(pair: tuple[Item, Trajectory], facts: Any, z_P: np.ndarray) -> ProcessRow:
    item, trajectory = pair
    return ProcessRow(
        item=item.id.partition("@")[0],
        family=item.family,
        right=float(score_answer(item, trajectory.answer or "")),
        steps=len(trajectory.steps),
        invalid=len(facts.is_valid) - sum(facts.is_valid),
        entropy=entropy_nats(facts.ops),
        rapr=valid_share(facts.is_valid),
        racpr=composite_share(len(facts.is_valid), composite_chains(facts.is_valid, z_P)),
        fidelity=visual_fidelity(facts.fit, facts.is_decisive),
        surprisal=mean_surprisal(trajectory),
    )


def _cosines(folder: str | os.PathLike, encoder: Encoder, progress: Progress | None) -> list[dict[str, Any]]:
    """Per trajectory its id, family and neighbouring cosines (NaN as null in the file); read where they lie, else made and kept."""
    run, items = open_evaluation(folder)
    path = Path(folder) / COSINES_FILE
    trajectories = list(run.trajectories())
    head = {"encoder": _version(encoder), "trajectories": [t.id for t in trajectories]}
    if path.is_file():
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if lines and lines[0] == head:
            return [{**line, "cosines": [np.nan if c is None else c for c in line["cosines"]]} for line in lines[1:]]
    found = []
    for number, trajectory in enumerate(trajectories, 1):
        item = items.item_of(trajectory)
        values: Sequence[float] = ()
        if len(trajectory.steps) > 1:
            with open_medium(render(item), name=item.medium_name) as medium:
                values = adjacent_footprint_cosines(trajectory, medium, encoder).tolist()
        found.append({"id": trajectory.id, "family": item.family, "cosines": list(values)})
        if progress is not None:
            progress(number, len(trajectories))
    plain = [head, *({**line, "cosines": [known(c) for c in line["cosines"]]} for line in found)]
    write_whole(path, "".join(json.dumps(line) + "\n" for line in plain).encode())
    return found


def _plans(pairs: Sequence[tuple[Item, Trajectory]], executor: Executor, seed: int) -> PlanConsistency:
    checks = []
    for item, trajectory in pairs:
        with open_medium(render(item), name=item.medium_name) as medium:
            checks += check_plans(trajectory, medium, executor, answer=in_words(trajectory.answer, item.choices), seed=seed)
    return plan_consistency(checks, seed=seed)


def _correlations(rows: Sequence[ProcessRow], seed: int) -> dict[str, dict[str, Correlation]]:
    """Of each metric with being right; all of them are one table of tests."""
    found = {}
    several = [row for row in rows if row.steps >= MULTI_STEP]
    right, lengths, surprisals = _column(rows, "right"), _column(rows, "steps"), _column(rows, "surprisal")
    for name in ("rapr", "racpr", "fidelity"):
        values = _column(rows, name)
        found |= {
            (name, "point-biserial"): point_biserial(right, values, seed=seed),
            (name, "Spearman"): spearman(right, values, seed=seed),
            (name, "partial (length)"): correlation(right, values, [lengths], seed=seed),
            (name, "partial (length, surprisal)"): correlation(right, values, [lengths, surprisals], seed=seed),
            (name, f"Spearman, {MULTI_STEP}+ steps"): spearman(_column(several, "right"), _column(several, name), seed=seed),
        }
    table: dict[str, dict[str, Correlation]] = {}
    for (name, how), one in zip(found, with_q(list(found.values())), strict=True):
        table.setdefault(name, {})[how] = one
    return table


def _column(rows: Sequence[ProcessRow], name: str) -> list[float]:
    return [float(getattr(row, name)) for row in rows]


def _foretellings(rows: Sequence[ProcessRow], seed: int) -> dict[tuple[str, ...], Foretelling]:
    """Each number alone, the controls together, and the metrics beside the controls.

    VisFid comes last: items without evidence have none, and a model that reads it is judged without them. Surprisal is left out where no
    trajectory has one.
    """
    controls = ("steps", "surprisal") if any(not math.isnan(row.surprisal) for row in rows) else ("steps",)
    wanted = [("rapr",), ("racpr",), ("fidelity",), *((name,) for name in controls)]
    wanted += [controls, ("rapr", "racpr", *controls), ("rapr", "racpr", "fidelity", *controls)]
    right = _column(rows, "right")
    return {names: foretell(np.array([_column(rows, name) for name in names]).T, right, seed=seed) for names in dict.fromkeys(wanted)}


# ---------------------------------------------------------------- text and JSON


def process_text(report: ProcessReport) -> str:
    """For people."""
    chain = report.racpr
    lines = [
        ["RaPR", rate_text(report.rapr), f"{report.rapr.count} trajectories"],
        [
            "RaCPR",
            rate_text(chain.rate),
            f"{chain.chain_length.count} composite chains of {number_text(chain.chain_length.value, 2)} steps",
        ],
        ["VisFid", rate_text(report.fidelity), f"{report.fidelity.count} trajectories, {report.fidelity.num_unscored} without evidence"],
        ["AE", rate_text(report.entropy.per_trajectory), f"nats; pooled {number_text(report.entropy.pooled, 3)}"],
    ]
    if report.plans is not None:
        parts = ", ".join(f"{name} {number_text(rate.value, 3)}" for name, rate in report.plans.by_perturbation.items())
        lines.append(
            ["PRC", rate_text(report.plans.rate), f"{report.plans.rate.count} plans, {report.plans.rate.num_unscored} unscored; {parts}"]
        )
    tables = [table_text(["metric", "value", ""], lines), _correlation_text(report), _foretelling_text(report)]
    return "\n\n".join(tables)


def _correlation_text(report: ProcessReport) -> str:
    rows = [
        [
            NAMES[metric],
            how,
            number_text(one.value, 3),
            f"[{number_text(one.low, 3)}, {number_text(one.high, 3)}]",
            number_text(one.p, 4),
            number_text(one.q, 4),
            str(one.count),
            str(one.num_unscored),
        ]
        for metric, kinds in report.correlations.items()
        for how, one in kinds.items()
    ]
    return table_text(["metric", "correlation with being right", "value", "95 %", "p", "q (BH)", "items", "unscored"], rows)


def _foretelling_text(report: ProcessReport) -> str:
    rows = [
        [
            ", ".join(NAMES[name] for name in names),
            rate_text(one.auc),
            rate_text(one.average_precision),
            number_text(one.base_rate, 3),
            str(one.auc.count),
            str(one.auc.num_unscored),
        ]
        for names, one in report.foretellings.items()
    ]
    return table_text(["being right foretold by", "AUC", "AP", "AP of guessing", "items", "unscored"], rows)


def process_json(report: ProcessReport) -> dict[str, Any]:
    """Plain JSON values; what is unknown is None."""
    plans = report.plans
    return {
        **report.about,
        "rapr": report.rapr.to_json(),
        "racpr": report.racpr.rate.to_json(),
        "chain_z": report.racpr.chain_z.to_json(),
        "chain_length": report.racpr.chain_length.to_json(),
        "fidelity": report.fidelity.to_json(),
        "entropy": {"per_trajectory": report.entropy.per_trajectory.to_json(), "pooled": known(report.entropy.pooled)},
        "prc": None if plans is None else {"rate": plans.rate.to_json(), **{n: r.to_json() for n, r in plans.by_perturbation.items()}},
        "correlations": {metric: {how: one.to_json() for how, one in kinds.items()} for metric, kinds in report.correlations.items()},
        "foretellings": [one.to_json(names) for names, one in report.foretellings.items()],
    }


def write_process(folder: str | os.PathLike, report: ProcessReport) -> Path:
    """Leave every number in the run as `process.json`, whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    return write_result(Path(folder), PROCESS_FILE, process_json(report))
