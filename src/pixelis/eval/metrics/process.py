"""How answers were obtained: RaPR, RaCPR, VisFid, RCS, action entropy. Pure.

Letters: N trajectories, S steps of one trajectory, P = S - 1 pairs of neighbouring steps. Source: paper §4.1 ("Process metrics"), §4.3.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pixelis.core.decisive import decisive_steps
from pixelis.core.trajectory import Trajectory
from pixelis.data.world.item import Item
from pixelis.data.world.verify import verify_trajectory
from pixelis.eval.stats import Rate, known_rate
from pixelis.rewards.chains import LEAST_CHAIN, TAU_ADJACENT, Chain, composite_chains, composite_share, entropy_nats, valid_share
from pixelis.ttrl.facts import in_words

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class StepFacts:
    """What the metrics of this module need of one trajectory; one entry per step. Made again from the trajectory whenever it is wanted."""

    ops: tuple[str | None, ...]
    """None for a step without a well-formed call."""
    is_valid: tuple[bool, ...]
    fit: tuple[float, ...]
    """The verifier's own metric; 0 for a step that failed."""
    is_decisive: tuple[bool, ...]


def step_facts(item: Item, trajectory: Trajectory) -> StepFacts:
    """The facts of a trajectory about an item whose truth is known."""
    checks = verify_trajectory(item, trajectory)
    return StepFacts(
        ops=tuple(step.call.op if step.call else None for step in trajectory.steps),
        is_valid=tuple(check.is_valid for check in checks),
        fit=tuple(check.score for check in checks),
        is_decisive=decisive_steps(trajectory, answer=in_words(trajectory.answer, item.choices)),
    )


# ---------------------------------------------------------------- RaPR


def rate_of_pixel_reasoning(is_valid_NS: Iterable[Sequence[bool] | None], *, seed: int = 0) -> Rate:
    """RaPR: share of a trajectory's steps that are valid visual steps, averaged over trajectories.

    Args:
        is_valid_NS: per trajectory one flag a step, without padding; None where there was no verifier, which leaves it unscored.

    Source: paper §4.1, Eq. 8.
    """
    return known_rate([None if valid is None else valid_share(valid) for valid in is_valid_NS], seed=seed)


# ---------------------------------------------------------------- RaCPR


@dataclass(frozen=True)
class CompositeReasoning:
    """RaCPR, and how tightly its chains hold together.

    Attributes:
        rate: share of a trajectory's steps in composite chains, averaged over trajectories.
        chain_z: mean z of a chain, averaged over all chains; its count is the number of chains.
        chain_length: mean number of steps of a chain.
    """

    rate: Rate
    chain_z: Rate
    chain_length: Rate


def rate_of_composite_reasoning(
    facts_N: Iterable[tuple[Sequence[bool], Sequence[float]] | None],
    *,
    least_z: float = TAU_ADJACENT,
    least_length: int = LEAST_CHAIN,
    seed: int = 0,
) -> CompositeReasoning:
    """RaCPR over trajectories.

    Args:
        facts_N: per trajectory its steps' validity [S] and its neighbours' z values [P]; None where they could not be made (no verifier,
            no medium, no statistics), which leaves it unscored.

    Source: paper §4.1, Eq. 9; the paper's numbers for both gates.
    """
    shares: list[float | None] = []
    chains: list[Chain] = []
    for facts in facts_N:
        if facts is None:
            shares.append(None)
            continue
        found = composite_chains(*facts, least_z=least_z, least_length=least_length)
        shares.append(composite_share(len(facts[0]), found))
        chains += found
    return CompositeReasoning(
        rate=known_rate(shares, seed=seed),
        chain_z=known_rate([chain.mean_z for chain in chains], is_share=False, seed=seed),
        chain_length=known_rate([chain.length for chain in chains], is_share=False, seed=seed),
    )


# ---------------------------------------------------------------- VisFid


def visual_fidelity(fit_S: Sequence[float | None], is_decisive_S: Sequence[bool]) -> float:
    """VisFid of one trajectory against the truth: the mean verifier score of its decisive steps, in [0, 1]; NaN where none has one."""
    pairs = zip(fit_S, is_decisive_S, strict=True)
    seen = [fit for fit, is_decisive in pairs if is_decisive and fit is not None and not math.isnan(fit)]
    return float(np.mean(seen)) if seen else math.nan


def mean_visual_fidelity(facts_N: Iterable[tuple[Sequence[float | None], Sequence[bool]]], *, seed: int = 0) -> Rate:
    """VisFid averaged over trajectories; one without a decisive step is unscored: it rests on no evidence that could be faithful."""
    return known_rate([visual_fidelity(*facts) for facts in facts_N], seed=seed)


# ---------------------------------------------------------------- RCS


def run_to_run_similarity(rollouts: Sequence[T], similarity: Callable[[T, T], float]) -> float:
    """RCS of one task: the mean similarity of its independent rollouts, over all pairs, each taken both ways round.

    Returns:
        In the range of `similarity`; NaN for fewer than two rollouts, or where no pair has a similarity.
    """
    found = [similarity(one, two) for one, two in itertools.permutations(rollouts, 2)]
    known = [value for value in found if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def chain_stability(groups: Iterable[Sequence[T]], similarity: Callable[[T, T], float], *, seed: int = 0) -> Rate:
    """RCS averaged over tasks; a task with fewer than two rollouts is unscored."""
    return known_rate([run_to_run_similarity(rollouts, similarity) for rollouts in groups], seed=seed)


# ---------------------------------------------------------------- action entropy


@dataclass(frozen=True)
class ActionEntropy:
    """AE: entropy of the distribution of ops, in nats.

    Attributes:
        per_trajectory: averaged over trajectories; one without a call is unscored.
        pooled: of all calls together, at most ln 6 for six ops; NaN without calls.
        num_calls: behind `pooled`.
    """

    per_trajectory: Rate
    pooled: float
    num_calls: int


def action_entropy(ops_NS: Sequence[Sequence[Hashable | None]], *, seed: int = 0) -> ActionEntropy:
    """AE of trajectories, each by itself and all together; a failed call was an action too."""
    calls = [op for ops in ops_NS for op in ops if op is not None]
    return ActionEntropy(known_rate([entropy_nats(ops) for ops in ops_NS], is_share=False, seed=seed), entropy_nats(calls), len(calls))
