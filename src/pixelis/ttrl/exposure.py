"""Learning how bright to look: each rollout sees at an exposure of its own, and the exposure moves to where rollouts earned more. Pure.

A token's gradient says little of the light: what a policy would have said in another light it did not say, and the log-probabilities of
what it did say fall whichever way the light moves. But the light comes before all that, and it is one number, so it can be tried: the
rollouts of a query are shown the medium at `exposure + spread * n`, n drawn in pairs of n and -n, and returns are set against n. This is
REINFORCE over a parameter instead of over tokens (Sehnke et al., 2010, parameter-exploring policy gradients). No label is in it: returns
are those of the vote. Tools work on the medium as it is. Letters: N rollouts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

MOST_EXPOSURE = 2.0
"""Stops, either way, beyond which the exposure does not go."""


def offsets(num: int, spread: float, seed: Sequence[int]) -> tuple[float, ...]:
    """Of the rollouts' exposures from the policy's own, stops, [N]; in pairs that cancel out, an odd one being 0."""
    half = np.random.default_rng(list(seed)).standard_normal(num // 2) * spread
    pairs = np.stack([half, -half], axis=1).ravel().tolist()
    return tuple(round(value, 3) for value in [*pairs, *[0.0] * (num % 2)])


def exposure_gradient(trials: Sequence[tuple[float, float]], spread: float) -> float:
    """By how much returns grow per stop: mean of (R - mean R) * offset / spread².

    Args:
        trials: offset in stops, and return, of every rollout of a query; repeats of a chain are trials of their own.
    """
    mean = math.fsum(earned for _, earned in trials) / len(trials)
    return math.fsum((earned - mean) * offset for offset, earned in trials) / len(trials) / spread**2


def moved(exposure: float, trials: Sequence[tuple[float, float]], *, spread: float, rate: float) -> float:
    """The exposure after a query."""
    after = exposure + rate * exposure_gradient(trials, spread)
    return min(MOST_EXPOSURE, max(-MOST_EXPOSURE, after))
