"""Process metrics of a stored PixelWorld evaluation: RaPR, RaCPR, VisFid, action entropy, PRC, and how they go with being right.

What is derived lies beside the trajectories: `cosines.jsonl` (neighbouring steps under a frozen encoder, which takes a while and is kept).
Source: paper §4.1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelis.core.errors import DataError
from pixelis.core.media import open_medium
from pixelis.core.trajectory import Trajectory
from pixelis.data.world.item import Item
from pixelis.data.world.items import render
from pixelis.data.world.score import score_answer
from pixelis.eval.correlate import Correlation, correlation, point_biserial, spearman
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
from pixelis.rewards.chains import adjacent_z, composite_chains, composite_share, valid_share
from pixelis.tools.execute import Executor
from pixelis.ttrl.facts import in_words

COSINES_FILE = "cosines.jsonl"
MULTI_STEP = 3
"""Steps from which an item counts as one of several steps: fewer cannot make a composite chain."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class ProcessRow:
    """One trajectory."""

    family: str
    right: float
    steps: int
    rapr: float
    racpr: float
    fidelity: float
    """NaN where nothing decisive could be compared with the truth."""


@dataclass(frozen=True, kw_only=True)
class ProcessReport:
    rapr: Rate
    racpr: CompositeReasoning
    fidelity: Rate
    entropy: ActionEntropy
    plans: PlanConsistency | None
    """PRC over the first trajectories; None where it was not asked for."""
    correlations: dict[str, dict[str, Correlation]]
    """Metric, then how: with being right over all items, over items of several steps, and with length held fixed."""
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
        rapr=rate_of_pixel_reasoning([one.is_valid for one in facts], seed=seed),
        racpr=rate_of_composite_reasoning([(one.is_valid, z) for one, z in zip(facts, scaled, strict=True)], seed=seed),
        fidelity=mean_visual_fidelity([(one.fit, one.is_decisive) for one in facts], seed=seed),
        entropy=action_entropy([one.ops for one in facts], seed=seed),
        plans=_plans(pairs[:num_plans], executor, seed) if executor is not None and num_plans else None,
        correlations=_correlations(rows, seed),
        rows=rows,
    )


def _row(pair: tuple[Item, Trajectory], facts: Any, z_P: np.ndarray) -> ProcessRow:
    item, trajectory = pair
    return ProcessRow(
        family=item.family,
        right=float(score_answer(item, trajectory.answer or "")),
        steps=len(trajectory.steps),
        rapr=valid_share(facts.is_valid),
        racpr=composite_share(len(facts.is_valid), composite_chains(facts.is_valid, z_P)),
        fidelity=visual_fidelity(facts.fit, facts.is_decisive),
    )


def _cosines(folder: str | os.PathLike, encoder: Encoder, progress: Progress | None) -> list[dict[str, Any]]:
    """Per trajectory its id, family and neighbouring cosines (NaN as null in the file); read where they lie, else made and kept."""
    run, items = open_evaluation(folder)
    path = Path(folder) / COSINES_FILE
    trajectories = list(run.trajectories())
    head = {"encoder": getattr(encoder, "version", type(encoder).__name__), "trajectories": [t.id for t in trajectories]}
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
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    plain = [head, *({**line, "cosines": [known(c) for c in line["cosines"]]} for line in found)]
    part.write_text("".join(json.dumps(line) + "\n" for line in plain), encoding="utf-8")
    os.replace(part, path)
    return found


def _plans(pairs: Sequence[tuple[Item, Trajectory]], executor: Executor, seed: int) -> PlanConsistency:
    checks = []
    for item, trajectory in pairs:
        with open_medium(render(item), name=item.medium_name) as medium:
            checks += check_plans(trajectory, medium, executor, answer=in_words(trajectory.answer, item.choices), seed=seed)
    return plan_consistency(checks, seed=seed)


def _correlations(rows: Sequence[ProcessRow], seed: int) -> dict[str, dict[str, Correlation]]:
    """Of each metric with being right."""

    def columns(chosen: Sequence[ProcessRow], name: str) -> tuple[list[float], list[float], list[float]]:
        return [row.right for row in chosen], [getattr(row, name) for row in chosen], [float(row.steps) for row in chosen]

    found = {}
    several = [row for row in rows if row.steps >= MULTI_STEP]
    for name in ("rapr", "racpr", "fidelity"):
        right, values, lengths = columns(rows, name)
        found[name] = {
            "point-biserial": point_biserial(right, values, seed=seed),
            "Spearman": spearman(right, values, seed=seed),
            "partial (length)": correlation(right, values, [lengths], seed=seed),
            f"Spearman, {MULTI_STEP}+ steps": spearman(*columns(several, name)[:2], seed=seed),
        }
    return found


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
    names = {"rapr": "RaPR", "racpr": "RaCPR", "fidelity": "VisFid"}
    with_right = [
        [
            names[metric],
            how,
            number_text(one.value, 3),
            f"[{number_text(one.low, 3)}, {number_text(one.high, 3)}]",
            number_text(one.p, 4),
            str(one.count),
        ]
        for metric, kinds in report.correlations.items()
        for how, one in kinds.items()
    ]
    head = ["metric", "correlation with being right", "value", "95 %", "p", "items"]
    return table_text(["metric", "value", ""], lines) + "\n\n" + table_text(head, with_right)


def process_json(report: ProcessReport) -> dict[str, Any]:
    """Plain JSON values."""
    plans = report.plans
    return {
        "rapr": report.rapr.to_json(),
        "racpr": report.racpr.rate.to_json(),
        "chain_z": report.racpr.chain_z.to_json(),
        "chain_length": report.racpr.chain_length.to_json(),
        "fidelity": report.fidelity.to_json(),
        "entropy": {"per_trajectory": report.entropy.per_trajectory.to_json(), "pooled": known(report.entropy.pooled)},
        "prc": None if plans is None else {"rate": plans.rate.to_json(), **{n: r.to_json() for n, r in plans.by_perturbation.items()}},
        "correlations": {metric: {how: one.to_json() for how, one in kinds.items()} for metric, kinds in report.correlations.items()},
    }
