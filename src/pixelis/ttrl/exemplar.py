"""The exemplar: the rollout with the winning answer that is short, was curious and coherent, and whose evidence others confirm.

Letters: N rollouts. Source: paper §3.2.3, "Successful set and exemplar".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixelis.rewards.groups import standardised

LENGTH_SCALE = 6.0
LENGTH_WEIGHT, INTRINSIC_WEIGHT, FIDELITY_WEIGHT = 1.0, 0.5, 1.0


def exemplar_scores(num_steps_N: Sequence[int], intrinsic_N: Sequence[float], fidelity_N: Sequence[float]) -> np.ndarray:
    """-steps / 6 + 0.5 z(intrinsic) + VisFid, [N], among the rollouts with the winning answer.

    Args:
        intrinsic_N: curiosity + coherence; NaN where unknown, which counts as the mean.
        fidelity_N: VisFid in [0, 1]; NaN where unknown, which counts as the mean of the known; where none is known it drops out.
    """
    fidelity = np.asarray(fidelity_N, np.float64)
    known = fidelity[np.isfinite(fidelity)]
    fidelity = np.where(np.isfinite(fidelity), fidelity, known.mean() if len(known) else 0.0)
    return (
        -LENGTH_WEIGHT * np.asarray(num_steps_N, np.float64) / LENGTH_SCALE
        + INTRINSIC_WEIGHT * standardised(np.asarray(intrinsic_N, np.float64))
        + FIDELITY_WEIGHT * fidelity
    )


def choose_exemplar(num_steps_N: Sequence[int], intrinsic_N: Sequence[float], fidelity_N: Sequence[float]) -> int:
    """Place of the best; of equals the shorter, then the first.

    Raises:
        ValueError: there is none to choose from.
    """
    if not len(num_steps_N):
        raise ValueError("no rollout has the winning answer: there is no exemplar")
    scores = exemplar_scores(num_steps_N, intrinsic_N, fidelity_N)
    return min(range(len(scores)), key=lambda k: (-round(float(scores[k]), 12), num_steps_N[k], k))
