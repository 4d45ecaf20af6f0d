"""Learning how bright to look: each rollout sees at a lift of its own, and what it saw is held against it. Pure.

A token's gradient says little of the light: what a policy would have said in another light it did not say. But the light comes before all
tokens, and it is one number, so it can be tried. That number is the lift, the share of a medium's headroom by which it is shown brighter
(`policy/exposure.py`): what is learnt of dark media then changes nothing in media that are not dark. What is wanted is that the evidence
holds: VisFid, by which the rollouts of a query confirm each other's boxes, texts and measurements. It needs no label, and no winner that is
right; why it and not the return is in docs/decisions/0011.

VisFid is fitted as a curve over lifts, by ridge regression on bumps (a Gaussian process in weight space): only differences between
rollouts of one query count, since queries differ in how hard they are, and older queries count less. The lift moves to where the curve
is better than at the present one by more than two standard errors. Tools always work on the medium as it is.
Letters: N rollouts, K bumps, G candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pixelis.policy.exposure import MOST_LIFT

LEAST_HEADROOM = 0.15
"""Stops. Of a medium with less, all lifts look alike, and none is tried."""
WIDTH = 0.5
"""Of a bump, and between two of them."""
_BUMPS_K = np.arange(-WIDTH, MOST_LIFT + 1.5 * WIDTH, WIDTH)
_CANDIDATES_G = np.round(np.arange(0.0, MOST_LIFT + 0.025, 0.05), 2)
PRIOR = 0.35
"""How far a bump is expected to stand from 0, in standard deviations of what rollouts of one query differ by."""
DECAY = 0.995
"""What a query still counts once another has come."""
CAUTION = 2.0
"""Standard errors by which another lift must be better than the present one. Every query looks at all candidates again, so one error would
be too little."""


def is_tried(headroom: float | None) -> bool:
    """Whether lifts are told apart on a medium with so much headroom, in stops; None where no lift is learnt."""
    return headroom is not None and headroom >= LEAST_HEADROOM


@dataclass(frozen=True, eq=False)
class Light:
    """A lift, and the sums from which its curve is fitted."""

    lift: float = 0.0
    products_KK: np.ndarray = field(default_factory=lambda: np.zeros((len(_BUMPS_K), len(_BUMPS_K))))
    gains_K: np.ndarray = field(default_factory=lambda: np.zeros(len(_BUMPS_K)))
    square: float = 0.0
    """Of what rollouts differ by from their query's mean, summed."""
    num: float = 0.0
    """Rollouts, one less per query."""


def lifts(own: float, num: int, spread: float, seed: Sequence[int]) -> tuple[float, ...]:
    """What a query's rollouts try, [N]: around the policy's own in pairs to either side, an odd one at it; none beyond 0 and `MOST_LIFT`.

    At either end one of each pair stays there, so half of the rollouts see what the policy sees.
    """
    half = np.random.default_rng(list(seed)).standard_normal(num // 2) * spread
    offsets_N = [*np.stack([half, -half], axis=1).ravel(), *[0.0] * (num % 2)]
    return tuple(round(min(max(own + offset, 0.0), MOST_LIFT), 3) for offset in offsets_N)


def after_query(light: Light, trials: Sequence[tuple[float, float]]) -> Light:
    """What is known of the light after one more query, and where the lift goes.

    Args:
        trials: lift and VisFid of every rollout; repeats of a chain are trials of their own.
    """
    lift_N, seen_N = (np.array(column, np.float64) for column in zip(*trials, strict=True))
    bumps_NK = _bumps(lift_N)
    bumps_NK, seen_N = bumps_NK - bumps_NK.mean(axis=0), seen_N - seen_N.mean()
    light = replace(
        light,
        products_KK=DECAY * light.products_KK + bumps_NK.T @ bumps_NK,
        gains_K=DECAY * light.gains_K + bumps_NK.T @ seen_N,
        square=DECAY * light.square + float(seen_N @ seen_N),
        num=DECAY * light.num + len(trials) - 1,
    )
    gain_G, error_G = curve(light, _CANDIDATES_G)
    surely_G = gain_G - CAUTION * error_G
    best = int(np.argmax(surely_G))
    return replace(light, lift=float(_CANDIDATES_G[best])) if surely_G[best] > 0 else light


def evidence(light: Light) -> float | None:
    """By how many standard errors another lift is better than the present one, at most; None while nothing is known.

    The lift moves once that is over `CAUTION`, and what is told then is against the new one.
    """
    if light.square <= 0 or light.num <= 0:
        return None
    gain_G, error_G = curve(light, _CANDIDATES_G)
    others_G = np.abs(_CANDIDATES_G - light.lift) > 1e-9
    return float(np.max(gain_G[others_G] / error_G[others_G]))


def curve(light: Light, lift_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By how much VisFid is expected to be higher at some lifts than at the present one, and its standard error, [G] each."""
    if light.square <= 0 or light.num <= 0:
        return np.zeros(len(lift_G)), np.full(len(lift_G), math.inf)
    variance = light.square / light.num
    precision_KK = light.products_KK + np.eye(len(_BUMPS_K)) / PRIOR**2
    step_GK = _bumps(lift_G) - _bumps(np.array([light.lift]))
    weight_K = np.linalg.solve(precision_KK, light.gains_K)
    spread_G = np.einsum("gk,kg->g", step_GK, np.linalg.solve(precision_KK, step_GK.T))
    return step_GK @ weight_K, np.sqrt(variance * np.maximum(spread_G, 0.0))


def _bumps(lift_N: np.ndarray) -> np.ndarray:
    """[N, K]."""
    return np.exp(-0.5 * ((lift_N[:, None] - _BUMPS_K) / WIDTH) ** 2)


def plain_light(light: Light) -> dict[str, float | list]:
    """Numbers and lists, for the disk."""
    return {
        "lift": light.lift, "products": light.products_KK.tolist(), "gains": light.gains_K.tolist(),
        "square": light.square, "num": light.num,
    }  # fmt: skip


def light_of(plain: dict) -> Light:
    """What `plain_light` gave."""
    return Light(plain["lift"], np.array(plain["products"]), np.array(plain["gains"]), plain["square"], plain["num"])
