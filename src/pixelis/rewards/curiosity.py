"""Curiosity: what a call showed that could have been predicted from what was known, and was not. Letters: S steps, D features.

Source: paper §3.2.2 and §6.1.
"""

from __future__ import annotations

import numpy as np

KAPPA = 1.0
"""How fast uncertainty closes the gate."""
LEAST_VALID = 0.5
"""Below this predicted validity the reward is halved."""


def gate(variance_S: np.ndarray, mean_variance: float, *, kappa: float = KAPPA) -> np.ndarray:
    """exp(-kappa * variance / mean_variance), in (0, 1] [S]: a large error counts only where the model knows what it does not know.

    Args:
        variance_S: over the dynamics head's passes with dropout, >= 0.
        mean_variance: running mean of the same; where it is not positive, variance is taken as it is.
    """
    scale = mean_variance if mean_variance > 0 else 1.0
    return np.exp(-kappa * np.asarray(variance_S, np.float64) / scale)


def surprise(predicted_SD: np.ndarray, seen_SD: np.ndarray) -> np.ndarray:
    """1 - cosine of what was predicted and what was seen, in [0, 2] [S]; NaN where either has no direction."""
    predicted, seen = np.asarray(predicted_SD, np.float64), np.asarray(seen_SD, np.float64)
    length = np.linalg.norm(predicted, axis=-1) * np.linalg.norm(seen, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(length > 0, 1 - np.clip((predicted * seen).sum(-1) / length, -1, 1), np.nan)


def curiosity(
    surprise_S: np.ndarray, p_valid_S: np.ndarray, gate_S: np.ndarray, *, cap: float = np.inf, earns_S: np.ndarray | None = None
) -> np.ndarray:
    """min(cap, gate * p_valid * surprise) per step, >= 0 [S]; halved where `p_valid` is below 0.5, 0 where a step may not earn.

    Args:
        cap: the 95th percentile of earlier rewards.
        earns_S: False for steps that show nothing new by construction (see `earning.py`); all earn when None.
    """
    p_valid = np.asarray(p_valid_S, np.float64)
    reward = np.minimum(cap, gate_S * np.where(p_valid < LEAST_VALID, 0.5, 1.0) * p_valid * surprise_S)
    return reward if earns_S is None else np.where(earns_S, reward, 0.0)


def mean_curiosity(reward_S: np.ndarray) -> float:
    """Of a trajectory: over its known steps; 0 for one without steps, which has not been curious."""
    known = np.asarray(reward_S, np.float64)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else 0.0
