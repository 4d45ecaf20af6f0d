"""What the rollouts of one update are worth: the parts of the reward, made from recorded facts and the step heads.

The judge holds the heads and their running statistics; everything else is a pure function in `pixelis.rewards`. Statistics are updated
after the rewards are given, so that no rollout is measured by a scale that it has moved itself.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch

from pixelis.core.trajectory import Trajectory
from pixelis.data.world.item import Item
from pixelis.data.world.score import score_answer
from pixelis.data.world.verify import verify_trajectory
from pixelis.rewards.answer import anls, is_flood, relative_accuracy
from pixelis.rewards.chains import adjacent_z, composite_chains, composite_share
from pixelis.rewards.coherence import adjacent_cosines, coherence
from pixelis.rewards.curiosity import curiosity, gate, mean_curiosity, surprise
from pixelis.rewards.earning import earning_steps
from pixelis.rewards.groups import RewardWeights, pixel_reasoner_bonus, total_reward
from pixelis.rewards.penalty import FREE_STEPS, PER_EXTRA_STEP, PER_INVALID_CALL, fines, penalty
from pixelis.rewards.priors import ARGUMENT_PRIORS, next_step_infonce
from pixelis.rewards.running import FamilyStatistics, Running
from pixelis.rollout.pack import Example
from pixelis.train.step_heads import NUM_PASSES, Foresight, StepHeads, StepInputs

Curiosity = Literal["dynamics", "pixel_reasoner", "none"]
Structure = Literal["coherence", "l2", "tv", "infonce", "none"]
Invalid = Literal["failed", "untrue"]
Answer = Literal["exact", "graded"]

LEAST_PAIRS = 32
"""Cosines of neighbouring steps that a family must have shown before it is judged by its own statistics."""
RECENT = 2000
"""Step rewards over which the 95th percentile is taken."""
CUT = ("step_limit", "token_limit", "time_limit")


@dataclass(frozen=True, eq=False)
class Seen:
    """One rollout with all that is known of it."""

    group: int
    item: Item
    trajectory: Trajectory
    example: Example
    inputs: StepInputs | None = None
    """Set once the model has been run over it."""

    @property
    def said(self) -> str | None:
        """The answer of the last turn; a flood is none."""
        return None if is_flood(self.trajectory.final_text) else self.trajectory.answer

    @property
    def accuracy(self) -> float:
        """1 for a right answer, 0 for a wrong one or none."""
        return 0.0 if self.said is None else score_answer(self.item, self.said)

    @property
    def graded(self) -> float:
        """By the kind of answer: a text read off a sign by ANLS, a number by its relative accuracy (MRA), all others right or wrong.

        In [0, 1]; a right answer is worth 1.
        """
        if self.accuracy or self.said is None or self.item.choices:
            return self.accuracy
        match self.item.answer_kind:
            case "text":
                return anls(self.said, [self.item.answer, *self.item.accept])
            case "number":
                return relative_accuracy(self.said, float(self.item.answer))
        return 0.0

    @property
    def num_steps(self) -> int:
        return len(self.trajectory.steps)

    @property
    def num_failed(self) -> int:
        """Calls that no tool answered: malformed, with bad arguments, or failed; not those that the machine failed."""
        return sum(not step.result.is_ok and not step.result.is_excused for step in self.trajectory.steps)

    @property
    def num_untrue(self) -> int:
        """Those, and calls whose result is not true in the world, such as the shape of an empty place."""
        return sum(not valid and not step.result.is_excused for valid, step in zip(self.valid_steps, self.trajectory.steps, strict=True))

    @property
    def is_cut(self) -> bool:
        return self.trajectory.stop in CUT

    @cached_property
    def valid_steps(self) -> tuple[bool, ...]:
        """Per step, whether its result is true in the world."""
        return tuple(check.is_valid for check in verify_trajectory(self.item, self.trajectory))


@dataclass(frozen=True)
class Parts:
    """Per rollout, [N]."""

    answer_N: np.ndarray
    curiosity_N: np.ndarray
    structure_N: np.ndarray
    penalty_N: np.ndarray
    bonus_N: np.ndarray
    """Pixel Reasoner's rule, where it is chosen; else 0."""
    total_N: np.ndarray


@dataclass
class Judge:
    """The reward of phase 2.

    Args:
        hidden: size of the model's states.
        curiosity, structure: which term, by name.
        answer: whether an answer is right or wrong, or by degree where its kind has degrees; see `Seen.graded`.
        use_gate: whether uncertainty closes curiosity's gate.
        num_passes: with dropout, by which uncertainty is measured.
        invalid: which calls are fined `invalid_call` each: those that failed, or also those whose result is not true.
        free_steps: that cost nothing; each further one costs `extra_step`.
    """

    hidden: int
    curiosity: Curiosity = "dynamics"
    structure: Structure = "coherence"
    weights: RewardWeights = RewardWeights()
    answer: Answer = "exact"
    rate: float = 1e-3
    use_gate: bool = True
    num_passes: int = NUM_PASSES
    invalid: Invalid = "failed"
    invalid_call: float = PER_INVALID_CALL
    free_steps: int = FREE_STEPS
    extra_step: float = PER_EXTRA_STEP
    seed: int = 0
    neighbours: FamilyStatistics = field(default_factory=FamilyStatistics)
    variance: Running = Running()
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))

    def __post_init__(self) -> None:
        self.heads = StepHeads(self.hidden, seed=self.seed)
        self._optimizer = torch.optim.Adam(self.heads.parameters(), lr=self.rate)

    def judge(self, seen: Sequence[Seen], *, seed: int) -> Parts:
        """The parts and the total; z values are over this batch. Heads and statistics stay as they are."""
        answer = np.array([one.graded if self.answer == "graded" else one.accuracy for one in seen])
        curious = np.array([self._curious(one, seed=seed + k) for k, one in enumerate(seen)])
        structured = np.array([self._structured(one) for one in seen])
        cost = np.array([self._cost(one) for one in seen])
        bonus = self._bonus(seen)
        weights = self.weights if self.curiosity == "dynamics" else RewardWeights(0.0, self.weights.coherence)
        return Parts(answer, curious, structured, cost, bonus, total_reward(answer, curious, structured, cost, weights) + bonus)

    def composite_share(self, one: Seen) -> float:
        """RaCPR of one rollout under this run's step embeddings, in [0, 1]; evaluation has an encoder that never learns."""
        z_P = adjacent_z(adjacent_cosines(self.heads.embed(one.inputs)), self._pairs_of(one.item.family))
        return composite_share(one.num_steps, composite_chains(one.valid_steps, z_P))

    def learn(self, seen: Sequence[Seen], *, seed: int) -> float:
        """Train the heads on what these rollouts saw, and let the statistics take them in. Returns the loss of the heads, per rollout."""
        for one in seen:
            cosines = adjacent_cosines(self.heads.embed(one.inputs))
            self.neighbours = self.neighbours.add(one.item.family, cosines)
            foresight = self._foresee(one, seed=seed)
            self.variance = self.variance.add(foresight.variance_S)
            self.recent.extend(float(v) for v in self._step_rewards(one, seed=seed, cap=np.inf) if np.isfinite(v))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads.train()
            self._optimizer.zero_grad()
            loss = torch.stack([self.heads.loss(one.inputs) for one in seen]).mean()
            loss.backward()
            self._optimizer.step()
            self.heads.eval()
        return float(loss.detach())

    @property
    def cap(self) -> float | None:
        """95th percentile of recent step rewards; None before the first."""
        return float(np.percentile(self.recent, 95)) if self.recent else None

    def _step_rewards(self, one: Seen, *, seed: int, cap: float) -> np.ndarray:
        """Of each step but the first."""
        foresight = self._foresee(one, seed=seed)
        return curiosity(
            surprise(foresight.predicted_SD, self.heads.seen(one.inputs)),
            foresight.p_valid_S,
            gate(foresight.variance_S, self.variance.mean) if self.use_gate else np.ones_like(foresight.p_valid_S),
            cap=cap,
            earns_S=earning_steps(one.trajectory)[1:],
        )

    def _foresee(self, one: Seen, *, seed: int) -> Foresight:
        return self.heads.foresee(one.inputs, num_passes=self.num_passes, seed=seed)

    def _curious(self, one: Seen, *, seed: int) -> float:
        if self.curiosity != "dynamics":
            return 0.0
        return mean_curiosity(self._step_rewards(one, seed=seed, cap=np.inf if self.cap is None else self.cap))

    def _pairs_of(self, family: str) -> Running:
        return self.neighbours.of(family, least=LEAST_PAIRS)

    def _structured(self, one: Seen) -> float:
        match self.structure:
            case "coherence":
                return coherence(self.heads.embed(one.inputs), self._pairs_of(one.item.family))
            case "infonce":
                return next_step_infonce(self.heads.embed(one.inputs))
            case "none":
                return 0.0
        return ARGUMENT_PRIORS[self.structure](one.inputs.arguments_SA.numpy())

    def _cost(self, one: Seen) -> float:
        num_invalid = one.num_untrue if self.invalid == "untrue" else one.num_failed
        return penalty(num_invalid, one.num_steps, **self._rates())

    def fines(self, one: Seen) -> np.ndarray:
        """What each step of a rollout costs, [S]."""
        return fines([valid == 0 for valid in self.valid(one)], **self._rates())

    def valid(self, one: Seen) -> tuple[float, ...]:
        """Per step, 1 for a valid call and 0 for one that is not; NaN for one that was no mistake, and tells nothing."""
        results = [step.result for step in one.trajectory.steps]
        valid = one.valid_steps if self.invalid == "untrue" else [result.is_ok for result in results]
        return tuple(math.nan if result.is_excused else float(right) for right, result in zip(valid, results, strict=True))

    def _rates(self) -> dict[str, Any]:
        return {"per_invalid": self.invalid_call, "per_extra": self.extra_step, "free_steps": self.free_steps}

    def _bonus(self, seen: Sequence[Seen]) -> np.ndarray:
        bonus = np.zeros(len(seen))
        if self.curiosity != "pixel_reasoner":
            return bonus
        groups = np.array([one.group for one in seen])
        for group in np.unique(groups):
            rows = np.flatnonzero(groups == group)
            uses = np.array([bool(earning_steps(seen[k].trajectory).any()) for k in rows])
            bonus[rows] = pixel_reasoner_bonus(uses, np.array([seen[k].num_steps for k in rows]))
        return bonus

    # ------------------------------------------------------------ state

    def state(self) -> dict[str, Any]:
        return {
            "heads": self.heads.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "neighbours": self.neighbours.to_json(),
            "variance": [self.variance.count, self.variance.mean, self.variance.squares],
            "recent": list(self.recent),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.heads.load_state_dict(state["heads"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.neighbours = FamilyStatistics.from_json(state["neighbours"])
        self.variance = Running(*state["variance"])
        self.recent = deque(state["recent"], maxlen=RECENT)
