"""From rollouts to what is learnt from: packed trajectories, with their images in the feature bank."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pixelis.core.trajectory import Trajectory
from pixelis.policy.base import Task
from pixelis.policy.buffer import ImageRef
from pixelis.policy.exposure import exposure_of, shown
from pixelis.policy.vlm import VlmPolicy
from pixelis.policy.vlm_score import pixels_of
from pixelis.rollout.pack import Example, pack_trajectory
from pixelis.rollout.run import Rollout
from pixelis.train.bank import FeatureBank


def pack_rollouts(policy: VlmPolicy, bank: FeatureBank, task: Task, rollouts: Sequence[Rollout]) -> list[tuple[Trajectory, Example]]:
    """The rollouts of one task that can be learnt from, in order; the bank then holds all that they show.

    Left out are those on which the policy itself failed: they say nothing of what it would do.
    """
    seen = {exposure_of(name)[1] for one in rollouts for run in one.trajectory.tokens[:1] for name in run.images}
    for stops in sorted(seen):
        bank.add(list(policy.prompt_images(task, exposure=stops).items()))
    found = []
    for rollout in rollouts:
        trajectory = rollout.trajectory
        if trajectory.stop in ("policy_error", "interrupted") or not any(run.role == "policy" for run in trajectory.tokens):
            continue
        crops = {name for run in trajectory.tokens for name in run.images if name not in bank}
        there = {source: pixels_of(rollout.blobs[source]) for source in {exposure_of(name)[0] for name in crops}}
        bank.add([(name, shown(there, name)) for name in sorted(crops)])
        first = [ImageRef(name, bank.grids[name]) for name in trajectory.tokens[0].images]
        found.append((trajectory, pack_trajectory(trajectory, policy.format, first, crop_grid=bank.grids.__getitem__)))
    return found


def in_brackets(ids: Sequence[int], text_of: Callable[[int], str]) -> np.ndarray:
    """Which tokens of a turn stand between square brackets, bool [N]: coordinates, in thoughts and in arguments."""
    found, is_inside = [], False
    for id_ in ids:
        text = text_of(id_)
        is_inside = is_inside and "]" not in text
        found.append(is_inside)
        is_inside = is_inside or text.rfind("[") > text.rfind("]")
    return np.array(found, bool)
