"""Structure priors that can stand in for coherence, by name. Letters: S steps, A numbers of a call's arguments, E embedding.

Source: paper §4, alternatives.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def argument_l2(arguments_SA: np.ndarray) -> float:
    """Minus the mean squared jump of the arguments between neighbouring steps; 0 for fewer than two steps."""
    jumps = np.diff(np.asarray(arguments_SA, np.float64), axis=0)
    return -float((jumps**2).sum(-1).mean()) if len(jumps) else 0.0


def argument_tv(arguments_SA: np.ndarray) -> float:
    """Minus the mean total variation of the arguments between neighbouring steps; 0 for fewer than two steps."""
    jumps = np.diff(np.asarray(arguments_SA, np.float64), axis=0)
    return -float(np.abs(jumps).sum(-1).mean()) if len(jumps) else 0.0


def next_step_infonce(embedding_SE: np.ndarray, *, temperature: float = 0.1) -> float:
    """Mean log-probability with which each step picks its successor among all other steps of the trajectory, <= 0.

    0 for fewer than three steps, where there is no other to confuse it with.
    """
    embedding = np.asarray(embedding_SE, np.float64)
    if len(embedding) < 3:
        return 0.0
    unit = embedding / np.maximum(np.linalg.norm(embedding, axis=-1, keepdims=True), 1e-12)
    similarity = unit @ unit.T / temperature
    np.fill_diagonal(similarity, -np.inf)
    most = similarity.max(-1, keepdims=True)
    logp = similarity - most - np.log(np.exp(similarity - most).sum(-1, keepdims=True))
    return float(np.mean([logp[k, k + 1] for k in range(len(embedding) - 1)]))


ARGUMENT_PRIORS: dict[str, Callable[[np.ndarray], float]] = {"l2": argument_l2, "tv": argument_tv}
