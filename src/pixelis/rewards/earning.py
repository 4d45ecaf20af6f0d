"""Which steps may earn curiosity: not those that show nothing new by construction, whatever the features say.

A zoom into the whole picture and a call made before are the cheapest ways to look busy; published agents found both.
"""

from __future__ import annotations

import numpy as np

from pixelis.core.geometry import Box
from pixelis.core.grammar import render_call
from pixelis.core.ops import ZoomOutput
from pixelis.core.trajectory import Trajectory

WHOLE = 0.9
"""A crop that overlaps its parent by more than this shows the parent again."""


def earning_steps(trajectory: Trajectory) -> np.ndarray:
    """bool [S]: calls that succeeded, for the first time in these words, and do not show a whole picture again."""
    seen: set[str] = set()
    earns = []
    for step in trajectory.steps:
        words = render_call(step.call) if step.call is not None else ""
        earns.append(step.result.is_ok and bool(words) and words not in seen and not shows_all(step.result.output, trajectory))
        seen.add(words)
    return np.array(earns, bool)


def shows_all(output: object, trajectory: Trajectory) -> bool:
    """Whether an output is a crop of the whole picture."""
    if not isinstance(output, ZoomOutput):
        return False
    return output.box.iou(Box(0, 0, trajectory.medium.width, trajectory.medium.height)) > WHOLE
