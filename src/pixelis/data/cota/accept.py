"""Which traces are good enough to learn from: the acceptance score and its hard gates.

`S = w_l z(S_logic) + w_s z(S_struct) + w_v z(S_vis)`, each z within its task family; a trace is accepted when `S >= threshold`, its
answer is right and every call parses.

- `S_logic = (r + o) / 2`: r is 1 for a right answer, o the share of the item's evidence that a valid step looked at ("every value it uses
  was observed"): 1 where the item needs none.
- `S_struct = (v + u + l) / 3`: v the share of valid steps, deliberate mistakes left out (1 where no step is left); u the share of steps
  that do not repeat an earlier call word for word, deliberate mistakes counting as new; l = min(1, L / steps) with the allowance
  L = max(6, minimal chain + 2).
- `S_vis`: the mean verifier score of the decisive steps; None where there is none, which counts as the family's mean (z = 0).

Source: paper §3.1 (the weighted z-scores); forms and numbers are ours.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pixelis.core.decisive import decisive_steps
from pixelis.core.errors import DataError
from pixelis.core.geometry import Box
from pixelis.core.ops import TempOutput, TrkOutput
from pixelis.core.trajectory import Step, Trajectory
from pixelis.data.world.item import Item
from pixelis.data.world.moment import share_inside
from pixelis.data.world.score import score_answer
from pixelis.data.world.verify import Check
from pixelis.data.world.verify_prop import other_box

WEIGHTS = (0.4, 0.3, 0.3)
THRESHOLD = -0.5
ALLOWED_STEPS = 6
_FLAT = 1e-9
"""A spread no larger than this is rounding: z is then 0."""


@dataclass(frozen=True)
class Facts:
    """What one trace is scored by."""

    family: str
    is_right: bool
    is_parsed: bool
    """Every call parses; a typed error of a call that parses is no matter."""
    s_logic: float
    s_struct: float
    s_vis: float | None
    """None where no step is decisive."""


@dataclass(frozen=True)
class Verdict:
    score: float
    is_accepted: bool
    reason: str
    """Why not; empty when accepted."""


def accept(facts: Sequence[Facts], *, weights: tuple[float, float, float] = WEIGHTS, threshold: float = THRESHOLD) -> list[Verdict]:
    """Judge traces against all traces of their family, those that the gates refuse included.

    Args:
        facts: of all traces, in any order; z-scores use the mean and the population standard deviation of each family, and are 0 where
            a family has no spread.
        weights: of logic, structure and vision.

    Returns:
        One verdict per trace, in the same order.

    Raises:
        DataError: a score is not finite.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row, fact in enumerate(facts):
        if not all(math.isfinite(v) for v in (fact.s_logic, fact.s_struct, fact.s_vis or 0.0)):
            raise DataError(f"trace {row} of family {fact.family}: a score is not finite: {fact}; score it again")
        rows[fact.family].append(row)
    scores_N = np.zeros(len(facts))
    for members in rows.values():
        for weight, name in zip(weights, ("s_logic", "s_struct", "s_vis"), strict=True):
            scores_N[members] += weight * _z([getattr(facts[row], name) for row in members])
    return [_verdict(fact, float(score), threshold) for fact, score in zip(facts, scores_N, strict=True)]


def _z(values: Sequence[float | None]) -> np.ndarray:
    """z-scores [N]; None counts as the mean of the others."""
    known = np.array([value for value in values if value is not None])
    if not known.size or known.std() <= _FLAT:
        return np.zeros(len(values))
    return np.array([0.0 if value is None else (value - known.mean()) / known.std() for value in values])


def _verdict(fact: Facts, score: float, threshold: float) -> Verdict:
    reason = ""
    if not fact.is_parsed:
        reason = "a call does not parse"
    elif not fact.is_right:
        reason = "the answer is wrong"
    elif score < threshold - _FLAT:
        reason = f"score {score:.2f} is below {threshold:.2f}"
    return Verdict(score=score, is_accepted=not reason, reason=reason)


# ---------------------------------------------------------------- facts of one trace


def facts_of(
    item: Item, trajectory: Trajectory, checks: Sequence[Check], *, planned_errors: frozenset[int] = frozenset(), has_given_up: bool = False
) -> Facts:
    """Facts of one trace.

    Args:
        checks: the verifier's word on each step, in order.
        planned_errors: places (from 0) of steps that are deliberate mistakes: they lower neither the share of valid steps nor that of new
            ones.
        has_given_up: the answer stands on nothing that was looked at, and says so: no evidence is missed, and no step is decisive.

    Raises:
        DataError: not one check per step, or a planned error where there is no step.
    """
    steps = trajectory.steps
    if len(checks) != len(steps) or not all(0 <= place < len(steps) for place in planned_errors):
        raise DataError(f"{item.id}: {len(steps)} steps, {len(checks)} checks, planned errors at {sorted(planned_errors)}: verify it again")
    is_right = score_answer(item, trajectory.answer or "") == 1.0
    decisive = decisive_steps(trajectory, answer=item.plain_answer if is_right else None)
    seen = [check.score for check, is_decisive in zip(checks, decisive, strict=True) if is_decisive and not has_given_up]
    return Facts(
        family=item.family,
        is_right=is_right,
        is_parsed=all(step.call is not None for step in steps),
        s_logic=(is_right + (1.0 if has_given_up else observed_share(item, trajectory, checks))) / 2,
        s_struct=_structure(item, steps, checks, planned_errors),
        s_vis=sum(seen) / len(seen) if seen else None,
    )


def _structure(item: Item, steps: Sequence[Step], checks: Sequence[Check], planned_errors: frozenset[int]) -> float:
    if not steps:
        return 1.0
    judged = [check.is_valid for place, check in enumerate(checks) if place not in planned_errors]
    valid = sum(judged) / len(judged) if judged else 1.0
    fresh = sum(
        place in planned_errors or step.call is None or all(step.call != other.call for other in steps[:place])
        for place, step in enumerate(steps)
    )
    allowed = max(ALLOWED_STEPS, len(item.chain) + 2)
    return (valid + fresh / len(steps) + min(1.0, allowed / len(steps))) / 3


def observed_share(item: Item, trajectory: Trajectory, checks: Sequence[Check]) -> float:
    """Share of the item's evidence boxes that a valid step looked at, in [0, 1]; 1 where there is none.

    Looked at: at least half of the box lies in the region of the step, on the evidence's frame, on another frame of the same stretch of
    evidence, or, for TRK and TEMP, among the frames that were watched.
    """
    places = item.evidence.boxes
    if not places:
        return 1.0
    looks = [
        look
        for number, (step, check) in enumerate(zip(trajectory.steps, checks, strict=True))
        if check.is_valid
        for look in _looks(item, step, trajectory, number)
    ]
    return sum(any(_is_seen(item, frame, box, look) for look in looks) for frame, box in places) / len(places)


def _looks(item: Item, step: Step, trajectory: Trajectory, number: int) -> Iterator[tuple[int, int, Box]]:
    """First and last frame and box of what a step looked at."""
    output = step.result.output
    if isinstance(output, TrkOutput):
        yield from ((point.frame, point.frame, point.box) for point in output.visible)
        return
    if isinstance(output, TempOutput):
        yield output.first_frame, output.last_frame, output.box or Box(0, 0, item.width, item.height)
        return
    yield output.frame, output.frame, output.box
    other = other_box(item, step, output.frame, trajectory.results[:number])
    if other is not None:
        yield output.frame, output.frame, other


def _is_seen(item: Item, frame: int, box: Box, look: tuple[int, int, Box]) -> bool:
    first, last, region = look
    if share_inside(box, region) < 0.5:
        return False
    if first <= frame <= last or item.kind == "image":
        return True
    return any(
        span.start_s - _FLAT <= frame / item.fps < span.end_s and span.start_s - _FLAT <= first / item.fps < span.end_s
        for span in item.evidence.spans
    )
