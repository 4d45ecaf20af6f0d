"""From the rollouts of one prompt to rewards and advantages, after grouping. Letters: G rollouts of a group, N rollouts of a batch.

Source: paper §3.2.2, §6.1; Pixel Reasoner (2025) for its curiosity rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

EPSILON = 1e-4


@dataclass(frozen=True)
class RewardWeights:
    """lambda_c and lambda_h of the paper's total reward."""

    curiosity: float = 0.10
    coherence: float = 0.10


def standardised(values_N: np.ndarray) -> np.ndarray:
    """z values over a batch [N]; all 0 where nothing varies. Unknown (NaN) stays out of the statistics and gets 0."""
    values = np.asarray(values_N, np.float64)
    known = values[np.isfinite(values)]
    if len(known) < 2 or known.std() < 1e-9:
        return np.zeros(len(values))
    return np.where(np.isfinite(values), (values - known.mean()) / known.std(), 0.0)


def total_reward(
    answer_N: np.ndarray, curiosity_N: np.ndarray, coherence_N: np.ndarray, penalty_N: np.ndarray, weights: RewardWeights = RewardWeights()
) -> np.ndarray:
    """R = R_answer + lambda_c z(mean r_cur) + lambda_h z(r_coh) - penalty, [N]; z over the batch."""
    return (
        np.asarray(answer_N, np.float64)
        + weights.curiosity * standardised(curiosity_N)
        + weights.coherence * standardised(coherence_N)
        - np.asarray(penalty_N, np.float64)
    )


def pixel_reasoner_bonus(
    uses_pixels_G: np.ndarray, num_ops_G: np.ndarray, *, least_rate: float = 0.3, most_ops: int = 1, alpha: float = 0.5, beta: float = 0.05
) -> np.ndarray:
    """Pixel Reasoner's rule, [G]: alpha * max(0, H - rate of the group) for those that use pixels, beta * min(0, N - ops) for all."""
    uses = np.asarray(uses_pixels_G, bool)
    return alpha * max(0.0, least_rate - float(uses.mean())) * uses + beta * np.minimum(0, most_ops - np.asarray(num_ops_G))


@dataclass(frozen=True)
class Advantages:
    """Of one group."""

    advantage_G: np.ndarray
    """0 for those left out."""
    is_used_G: np.ndarray
    is_flat: bool
    """All rewards are alike: nothing can be learnt from the group."""


def advantages(
    reward_G: np.ndarray, is_cut_G: np.ndarray | None = None, *, scale: float | None = None, top: int | None = None, negative: float = 1.0
) -> Advantages:
    """(R - mean) / (std + epsilon) over a group.

    Args:
        is_cut_G: rollouts that ran into a limit: what they would have come to is unknown, so they get no negative advantage.
        scale: divides instead of the group's own std, which makes as much of a group whose rewards hardly differ as of any other.
        top: keep so many, those furthest from the mean (the most informative); all when None.
        negative: weight of negative advantages; 0 leaves those rollouts out, and the others are imitated by how much better they are.

    Raises:
        ValueError: a group of one, which has no comparison, or a reward that is not finite.
    """
    reward = np.asarray(reward_G, np.float64)
    if len(reward) < 2:
        raise ValueError("a group needs at least two rollouts")
    if not np.isfinite(reward).all():
        raise ValueError(f"rewards {reward.tolist()} are not all finite")
    spread = float(reward.std())
    if spread < 1e-9:
        return Advantages(np.zeros(len(reward)), np.zeros(len(reward), bool), True)
    advantage = (reward - reward.mean()) / ((spread if scale is None else scale) + EPSILON)
    used = np.zeros(len(reward), bool)
    used[np.argsort(-np.abs(advantage), kind="stable")[: top or len(reward)]] = True
    if is_cut_G is not None:
        used &= ~(np.asarray(is_cut_G, bool) & (advantage < 0))
    if negative == 0:
        used &= advantage >= 0
    advantage = np.where(advantage < 0, negative * advantage, advantage)
    return Advantages(np.where(used, advantage, 0.0), used, False)


def turn_advantages(
    reward_G: np.ndarray, fines_GS: Sequence[np.ndarray], *, scale: float | None = None, negative: float = 1.0
) -> list[np.ndarray]:
    """Advantages of every turn of a group's rollouts, [S + 1] each: a fine counts against its own turn and those before it.

    (R - mean of R - (F_t - mean of F_t)) / (scale + epsilon), with F_t the fines from turn t on, 0 for a rollout that has ended by then.
    The first turn's is the advantage of the whole rollout; a last turn, which gives the answer, is measured by the answer.

    Args:
        reward_G: without the fines.
        fines_GS: of each rollout's steps.
        scale: the standard deviation of rewards with fines over the group when None.
        negative: weight of negative advantages.

    Raises:
        ValueError: a group of one, or a reward that is not finite.
    """
    reward = np.asarray(reward_G, np.float64)
    if len(reward) < 2 or not np.isfinite(reward).all():
        raise ValueError(f"a group needs at least two finite rewards; got {reward.tolist()}")
    num_turns = max(len(fines) for fines in fines_GS) + 1
    ahead_GT = np.zeros((len(reward), num_turns))
    for row, fines in enumerate(fines_GS):
        ahead_GT[row, : len(fines)] = np.cumsum(fines[::-1])[::-1]
    spread = float((reward - ahead_GT[:, 0]).std()) if scale is None else scale
    gain_GT = (reward - reward.mean())[:, None] - (ahead_GT - ahead_GT.mean(0))
    gain_GT = np.where(gain_GT < 0, negative * gain_GT, gain_GT) / (spread + EPSILON)
    return [gain_GT[row, : len(fines) + 1] for row, fines in enumerate(fines_GS)]


def call_advantages(is_valid_GS: Sequence[Sequence[float]], *, worth: float, scale: float = 1.0) -> list[np.ndarray]:
    """Advantages of the calls of a group's rollouts, [S] each: worth * (valid - share of valid calls at that step) / (scale + epsilon).

    Where a call points shows in its own result; what the rollout comes to in the end adds nothing to that but the luck of other turns.

    Args:
        is_valid_GS: of each rollout's steps, whether its result is true; NaN for a call that tells nothing, which gets 0 and is no part of
            the share.
        worth: what a true call counts, in units of the reward.
        scale: the deviation of rewards that the other advantages are divided by.
    """
    num_steps = max((len(each) for each in is_valid_GS), default=0)
    known_S = [[each[t] for each in is_valid_GS if t < len(each) and each[t] == each[t]] for t in range(num_steps)]
    share_S = [float(np.mean(known)) if known else 0.0 for known in known_S]
    gains = [worth * (np.asarray(each, np.float64) - share_S[: len(each)]) / (scale + EPSILON) for each in is_valid_GS]
    return [np.nan_to_num(each, nan=0.0) for each in gains]
