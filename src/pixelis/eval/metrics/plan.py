"""PRC: does a recorded plan hold when the medium has changed a little? Every call is made again, and evidence and answer are looked for.

A plan is its calls as they were written. They are executed in order on the perturbed medium, each against the results of this execution,
not the recorded ones: a region that is lost takes down what refers to it. Source: paper §4.1 (thresholds).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pixelis.core.decisive import decisive_steps, is_in_answer
from pixelis.core.media import Medium
from pixelis.core.ops import Result
from pixelis.core.trajectory import Trajectory
from pixelis.eval.metrics.agreement import agreement, is_same, rescaled
from pixelis.eval.metrics.perturb import PERTURBATIONS, Perturbation, perturbed
from pixelis.eval.stats import Rate, known_rate
from pixelis.tools.execute import Executor


@dataclass(frozen=True, kw_only=True)
class StepCheck:
    """One recorded result and its re-execution."""

    step: int
    """From 1."""
    op: str
    is_decisive: bool
    is_value: bool
    """Its text or a value stands in the answer."""
    agreement: float
    """By the tool's own metric, in [0, 1]; 0 where the call now fails, NaN where only the machine failed or nothing was recorded."""
    survives: bool | None
    """The agreement reaches the threshold of a valid step; None where it is NaN."""
    is_value_found: bool | None
    """Its text or a value still stands in the answer; None where none did, or only the machine failed."""


@dataclass(frozen=True, kw_only=True)
class PlanCheck:
    """One trajectory under one perturbation."""

    trajectory: str
    perturbation: str
    steps: tuple[StepCheck, ...]

    @property
    def evidence(self) -> bool | None:
        """All decisive steps survive; None where there is none, or one could not be executed."""
        words = [step.survives for step in self.steps if step.is_decisive]
        return None if not words or None in words else all(words)

    @property
    def answer(self) -> bool | None:
        """Every value that the answer used is found again: true of an answer that used none; None where one could not be looked for."""
        words = [step.is_value_found for step in self.steps if step.is_value]
        return None if None in words else all(words)

    @property
    def num_values(self) -> int:
        """Steps whose text or value stands in the answer."""
        return sum(step.is_value for step in self.steps)

    @property
    def survives(self) -> bool | None:
        """Evidence and answer survive; None without evidence: a plan that rests on nothing cannot be shaken."""
        return None if self.evidence is None or self.answer is None else self.evidence and self.answer


def check_plan(
    trajectory: Trajectory,
    medium: Medium,
    executor: Executor,
    perturbation: Perturbation,
    *,
    answer: str | None = None,
    seed: int = 0,
) -> PlanCheck:
    """Execute a trajectory's calls again on the perturbed medium.

    Args:
        medium: the trajectory's own.
        executor: of the engines that were recorded; other engines would be measured along with the perturbation. Check the plan under
            `Perturbation("none")` to see what they change.
        answer: the answer in words where `trajectory.answer` is not (the letter of a multiple-choice question).
        seed: of the perturbation.

    Raises:
        ValueError: it is another medium.
        DataError: the perturbation does not apply to it.
    """
    if medium.sha256 != trajectory.medium.sha256:
        raise ValueError(f"trajectory {trajectory.id} is about medium {trajectory.medium.sha256[:12]}, not {medium.sha256[:12]}")
    with perturbed(medium, perturbation, seed=seed) as changed:
        return check_plan_on(trajectory, changed, executor, name=str(perturbation), answer=answer)


def check_plan_on(trajectory: Trajectory, changed: Medium, executor: Executor, *, name: str, answer: str | None = None) -> PlanCheck:
    """Execute a trajectory's calls again on a medium that shows the same things in the same places, otherwise changed.

    Args:
        changed: as many frames as the trajectory's own medium; another size is allowed.
        executor, answer: see `check_plan`.
        name: of the change.
    """
    said = (trajectory.answer or "") if answer is None else answer
    decisive = decisive_steps(trajectory, answer=said)
    results = _execute(trajectory, changed, executor)
    size = changed.width, changed.height
    steps = tuple(
        _check(trajectory, number, result, said, is_decisive=is_decisive, size=size)
        for number, (result, is_decisive) in enumerate(zip(results, decisive, strict=True), 1)
    )
    return PlanCheck(trajectory=trajectory.id, perturbation=name, steps=steps)


def _execute(trajectory: Trajectory, medium: Medium, executor: Executor) -> list[Result]:
    """The results of all calls, in order; a turn without a call keeps its recorded error, so that steps keep their numbers."""
    results: list[Result] = []
    for step in trajectory.steps:
        results.append(step.result if step.call is None else executor.run(step.call, medium, results).result)
    return results


def _check(trajectory: Trajectory, number: int, result: Result, said: str, *, is_decisive: bool, size: tuple[int, int]) -> StepCheck:
    recorded, info = trajectory.steps[number - 1].result, trajectory.medium
    is_value = recorded.output is not None and is_in_answer(recorded.output, said, info)
    found = None if result.output is None else rescaled(result.output, from_size=size, to_size=(info.width, info.height))
    score, survives, is_value_found = math.nan, None, None
    if recorded.output is not None and not result.is_machine_failure:
        score = 0.0 if found is None else agreement(recorded.output, found)
        survives = is_same(recorded.output, found)
        is_value_found = (found is not None and is_in_answer(found, said, info)) if is_value else None
    return StepCheck(
        step=number,
        op=recorded.op,
        is_decisive=is_decisive,
        is_value=is_value,
        agreement=score,
        survives=survives,
        is_value_found=is_value_found,
    )


def check_plans(
    trajectory: Trajectory,
    medium: Medium,
    executor: Executor,
    *,
    perturbations: Sequence[Perturbation] = PERTURBATIONS,
    answer: str | None = None,
    seed: int = 0,
) -> tuple[PlanCheck, ...]:
    """One check for each perturbation that applies to the medium."""
    applying = [perturbation for perturbation in perturbations if perturbation.applies_to(medium)]
    return tuple(check_plan(trajectory, medium, executor, perturbation, answer=answer, seed=seed) for perturbation in applying)


@dataclass(frozen=True)
class PlanConsistency:
    """PRC and its parts, each averaged over trajectories: of a trajectory it is the share of its perturbations.

    Attributes:
        rate: evidence and answer survive.
        evidence, answer: each alone; `answer` over trajectories whose answer used a value.
        by_perturbation: `rate` under each.
    """

    rate: Rate
    evidence: Rate
    answer: Rate
    by_perturbation: dict[str, Rate]


def plan_consistency(checks: Iterable[PlanCheck], *, seed: int = 0) -> PlanConsistency:
    """PRC of trajectories; one without evidence, or whose calls the machine could not make, is unscored."""
    checks = list(checks)
    return PlanConsistency(
        rate=_mean([(check.trajectory, check.survives) for check in checks], seed),
        evidence=_mean([(check.trajectory, check.evidence) for check in checks], seed),
        answer=_mean([(check.trajectory, check.answer if check.num_values else None) for check in checks], seed),
        by_perturbation={
            name: _mean([(check.trajectory, check.survives) for check in checks if check.perturbation == name], seed)
            for name in sorted({check.perturbation for check in checks})
        },
    )


def _mean(words: Sequence[tuple[str, bool | None]], seed: int) -> Rate:
    """Over trajectories, of the share of each one's known words that are true."""
    by_trajectory: dict[str, list[bool]] = defaultdict(list)
    for name, word in words:
        by_trajectory[name] += [] if word is None else [word]
    return known_rate([sum(known) / len(known) if known else None for known in by_trajectory.values()], seed=seed)
