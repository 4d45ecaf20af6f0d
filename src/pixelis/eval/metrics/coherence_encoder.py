"""Neighbouring steps as a frozen encoder sees them: cosines of footprint crops, which RaCPR gates.

The encoder is not the one whose embeddings were trained: coherence is judged from outside. The paper takes DINOv2; whatever has its
`embed` will do (`DinoV2Encoder`, or `EfficientNetEncoder`, which needs no hub). Letters: S steps, D embedding, HWC image.
Source: paper §4.1 ("a frozen external encoder on footprint crops").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from pixelis.core.crops import crops
from pixelis.core.media import Medium
from pixelis.core.trajectory import Trajectory
from pixelis.rewards.coherence import adjacent_cosines
from pixelis.rewards.running import FamilyStatistics


class Encoder(Protocol):
    """A frozen image encoder."""

    def embed(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Unit rows float32 [N, D] of uint8 RGB images of any sizes."""
        ...


def step_embeddings(trajectory: Trajectory, medium: Medium, encoder: Encoder) -> np.ndarray:
    """A unit vector for each step, the mean over its crops, float64 [S, D]; NaN for a step without pixels. [0, 0] without steps.

    A step has no pixels when it failed, was disabled, held no call, or touched nothing.

    Args:
        medium: the trajectory's own.

    Raises:
        ValueError: it is another medium.
    """
    if medium.sha256 != trajectory.medium.sha256:
        raise ValueError(f"trajectory {trajectory.id} is about medium {trajectory.medium.sha256[:12]}, not {medium.sha256[:12]}")
    images = [crops(step.result.output.footprint, medium) if step.result.output is not None else [] for step in trajectory.steps]
    every = [image for step in images for image in step]
    if not every:
        return np.full((len(images), 0 if not images else 1), math.nan)
    rows = np.asarray(encoder.embed(every), np.float64)
    ends = np.cumsum([len(step) for step in images])
    means = [
        rows[end - len(step) : end].mean(0) if step else np.full(rows.shape[1], math.nan) for step, end in zip(images, ends, strict=True)
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([mean / np.linalg.norm(mean) for mean in means])


def adjacent_footprint_cosines(trajectory: Trajectory, medium: Medium, encoder: Encoder) -> np.ndarray:
    """Cosine of each step's crops with those of the next, in [-1, 1], [S - 1]; NaN beside a step without pixels.

    Raises:
        DataError: damage took a frame of the medium.
    """
    return adjacent_cosines(step_embeddings(trajectory, medium, encoder))


def dev_statistics(cosines: Iterable[tuple[str, Sequence[float]]]) -> FamilyStatistics:
    """Mean and deviation of the cosines per task family, to be fixed on the dev split and used for every other; NaN is left out.

    Args:
        cosines: (family, cosines of one trajectory) pairs.
    """
    found = FamilyStatistics()
    for family, values in cosines:
        found = found.add(family, [float(value) for value in values])
    return found
