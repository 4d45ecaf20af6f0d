"""Valid steps, the composite chains that they make, and how varied they are.

Letters: S steps of one trajectory, P = S - 1 pairs of neighbouring steps.

Evaluation measures by them under a frozen encoder (RaPR, RaCPR); reinforcement watches the same under its own step embeddings.
Source: paper §4.1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pixelis.rewards.running import Running

TAU_ADJACENT = 0.30
"""Least z value of the cosine of two neighbouring steps of a composite chain."""
LEAST_CHAIN = 3
"""Least number of steps of one."""


def valid_share(is_valid_S: Sequence[bool]) -> float:
    """Share of steps that are valid visual steps; 0 without steps: who only talks has not looked."""
    return sum(map(bool, is_valid_S)) / len(is_valid_S) if len(is_valid_S) else 0.0


def entropy_nats(ops: Iterable[Hashable | None]) -> float:
    """Entropy of how often each op occurs, in nats, >= 0; None (no call) is left out. NaN without calls."""
    counts = np.array(sorted(Counter(op for op in ops if op is not None).values()), float)
    if not counts.size:
        return math.nan
    shares = counts / counts.sum()
    return max(0.0, -float(np.sum(shares * np.log(shares))))


@dataclass(frozen=True)
class Chain:
    """A composite chain: steps `first` to `last`, from 0, both included."""

    first: int
    last: int
    mean_z: float
    """Of the cosines between its steps."""

    @property
    def length(self) -> int:
        return self.last - self.first + 1


def adjacent_z(cosine_P: Sequence[float], statistics: Running) -> np.ndarray:
    """z values [P] of neighbouring steps' cosines under fixed statistics of the dev split; NaN where there is no cosine.

    Args:
        statistics: of the trajectory's task family. Where they hold fewer than two values, or values that do not differ, nothing can be
            said: all NaN.
    """
    if statistics.count < 2 or not statistics.std > 0:
        return np.full(len(cosine_P), math.nan)
    return (np.asarray(cosine_P, float) - statistics.mean) / statistics.std


def composite_chains(
    is_valid_S: Sequence[bool], z_P: Sequence[float], *, least_z: float = TAU_ADJACENT, least_length: int = LEAST_CHAIN
) -> tuple[Chain, ...]:
    """Maximal runs of consecutive valid steps, each with its neighbour at `least_z` or above, of `least_length` steps or more.

    A step without pixels (it failed, or touched nothing) has no cosine with either neighbour. NaN passes no gate, so such a step ends a
    run and begins none; it is not stepped over.

    Args:
        z_P: z_P[k] is that of steps k and k + 1.

    Raises:
        ValueError: not one z value for each pair of neighbours.
    """
    if len(z_P) != max(0, len(is_valid_S) - 1):
        raise ValueError(f"{len(is_valid_S)} steps have {max(0, len(is_valid_S) - 1)} pairs of neighbours; got {len(z_P)} z values")
    chains, first = [], 0
    for place in range(len(is_valid_S)):
        goes_on = place + 1 < len(is_valid_S) and is_valid_S[place] and is_valid_S[place + 1] and z_P[place] >= least_z
        if goes_on:
            continue
        if place - first + 1 >= max(2, least_length):
            chains.append(Chain(first, place, float(np.mean(np.asarray(z_P, float)[first:place]))))
        first = place + 1
    return tuple(chains)


def composite_share(num_steps: int, chains: Sequence[Chain]) -> float:
    """Share of a trajectory's steps that belong to a composite chain; 0 without steps."""
    return sum(chain.length for chain in chains) / num_steps if num_steps else 0.0
