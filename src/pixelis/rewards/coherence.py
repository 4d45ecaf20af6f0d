"""Coherence: neighbouring steps of a chain belong together. Letters: S steps, E embedding. Source: paper §3.2.2."""

from __future__ import annotations

import numpy as np

from pixelis.rewards.running import Running


def adjacent_cosines(embedding_SE: np.ndarray) -> np.ndarray:
    """Cosine of each step with the next, [S - 1]; NaN beside a step without direction."""
    embedding = np.asarray(embedding_SE, np.float64)
    if len(embedding) < 2:
        return np.zeros(0)
    length = np.linalg.norm(embedding, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = np.where(length[:, None] > 0, embedding / length[:, None], np.nan)
    return (unit[:-1] * unit[1:]).sum(-1)


def coherence(embedding_SE: np.ndarray, statistics: Running) -> float:
    """Mean over neighbours of the z value of their cosine; 0 for fewer than two steps, which have no neighbours.

    Args:
        statistics: of the trajectory's task family; running while training, frozen afterwards.
    """
    known = [statistics.z(float(cosine)) for cosine in adjacent_cosines(embedding_SE) if np.isfinite(cosine)]
    return float(np.mean(known)) if known else 0.0
