"""What one query teaches, complete: an update can wait for its turn in memory, and on the disk while the run may be killed.

On the disk a job is made of tensors, numbers and texts only, which torch reads without running anything. Letters: N sampled tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from pixelis.policy.buffer import ImageRef, PlacedImage
from pixelis.policy.vlm_vision import Features
from pixelis.rollout.pack import Example, TurnSpan
from pixelis.ttrl.learn import Lesson


@dataclass(frozen=True, eq=False)
class Job:
    """One query's update, and the line that waits for what becomes of it."""

    number: int
    """Place of the query in the stream."""
    query: str
    """Its id."""
    answer: str | None
    """As it was given out."""
    is_masked: bool
    lessons: tuple[Lesson, ...]
    """What weights are learnt from; empty where nothing may be learnt, and the update then leaves them as they are."""
    trials: tuple[tuple[float, float], ...]
    """What the lift is learnt from: lift and VisFid (0 if not measured) of every rollout; empty as `lessons`, or where none was tried."""
    features: Mapping[str, Features]
    """Of the images that the lessons show; empty where the learner finds them itself."""
    row: Mapping[str, Any]
    """What is written down of the query; what only its update can tell is None until then."""


def plain_job(job: Job) -> dict[str, Any]:
    """As it is stored. Features go by halves, which is how they were kept before: nothing is lost."""
    return {
        "number": job.number,
        "query": job.query,
        "answer": job.answer,
        "is_masked": job.is_masked,
        "lessons": [_plain_lesson(one) for one in job.lessons],
        "trials": [list(pair) for pair in job.trials],
        "features": {name: (one.tokens_ND.half(), one.deep_LND.half()) for name, one in job.features.items()},
        "row": dict(job.row),
    }


def job_of(plain: Mapping[str, Any]) -> Job:
    """What `plain_job` stored."""
    features = {name: Features(tokens.float(), deep.float()) for name, (tokens, deep) in plain["features"].items()}
    lessons, trials = tuple(_lesson(one) for one in plain["lessons"]), tuple((lift, seen) for lift, seen in plain.get("trials", ()))
    return Job(**{**plain, "lessons": lessons, "trials": trials, "features": features})


def _plain_lesson(lesson: Lesson) -> dict[str, Any]:
    one = lesson.example
    return {
        "logp": lesson.logp_N.cpu(),
        "anchor_logp": lesson.anchor_logp_N.cpu(),
        "advantage": lesson.advantage,
        "ids": torch.from_numpy(one.ids_T),
        "role": torch.from_numpy(one.role_T),
        "positions": torch.from_numpy(one.positions_3T),
        "images": [(placed.image.sha256, list(placed.image.grid), placed.start, placed.end) for placed in one.images],
        "turns": [asdict(turn) for turn in one.turns],
        "trajectory": one.trajectory_id,
    }


def _lesson(plain: Mapping[str, Any]) -> Lesson:
    example = Example(
        ids_T=plain["ids"].numpy(),
        role_T=plain["role"].numpy(),
        positions_3T=plain["positions"].numpy(),
        images=tuple(PlacedImage(ImageRef(name, tuple(grid)), start, end) for name, grid, start, end in plain["images"]),
        turns=tuple(TurnSpan(**turn) for turn in plain["turns"]),
        trajectory_id=plain["trajectory"],
    )
    return Lesson(example, plain["logp"], plain["anchor_logp"], plain["advantage"])
