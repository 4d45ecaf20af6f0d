"""Who takes the updates: the answering thread itself, between answers, or a worker beside it, on a copy of the model.

Which weights answer which query is fixed by the lag, not by who is faster: with lag L the answer to query k is given by the weights after
the updates of queries 0 to k - 1 - L. So a run with a worker gives the same bytes as one that takes the same updates one after another.

It is a thread, not a process: torch lets go of the interpreter inside its kernels, frozen weights are shared instead of copied, and a
result is handed over without being written out. The worker touches nothing that serving touches: its learner has weights, anchor and
optimiser of its own, a job brings the image features that it needs, and the weights that it hands back are copies. Source: paper §3.2.3.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import torch

from pixelis.core.errors import ConfigError, DataError, PixelisError
from pixelis.policy.vlm import VlmPolicy
from pixelis.policy.vlm_load import Checkpoint
from pixelis.policy.vlm_sampling import Sampling
from pixelis.policy.vlm_vision import Features
from pixelis.train.corridor import CorridorSettings, CorridorState, regulate
from pixelis.train.policy_learner import PolicyLearner
from pixelis.ttrl.job import Job
from pixelis.ttrl.learn import Canary, Outcome, copied, learn
from pixelis.ttrl.lift import Light, after_query


@dataclass(frozen=True, eq=False)
class Weights:
    """What learns, after some update: copies, which no later update moves."""

    learner: dict[str, Any]
    """As `PolicyLearner.state`."""
    anchor: dict[str, torch.Tensor]
    light: Light = Light()
    """At which lift media are shown, and why."""


@dataclass(frozen=True, eq=False)
class Done:
    """What became of a job."""

    job: Job
    outcome: Outcome | None
    """None where there was nothing to learn."""
    corridor: CorridorState
    weights: Weights | None
    """After the job; None while nothing has been learnt at all."""
    seconds: float


class UpdateFailed(RuntimeError):
    """An update ended in a mistake of ours; the text names the query, the cause says where."""


# ---------------------------------------------------------------- the side that learns


class Student:
    """Takes one update after another.

    Args:
        learner: moved in place by nobody else while a job is taken.
        ema: decay of the anchor per update that was not taken back.
        corridor_settings: None keeps beta as it is.
        alone: entered while the learner moves: keeps whoever shares its model away.
        shelf: where the learner finds features, when it is not serving's own bank.
        minimises_entropy: see `learn`.
        light: the start's.
    """

    def __init__(
        self,
        learner: PolicyLearner,
        *,
        corridor: CorridorState,
        corridor_settings: CorridorSettings | None,
        ema: float,
        canary: Canary | None,
        alone: Callable[[], AbstractContextManager] = nullcontext,
        shelf: Shelf | None = None,
        minimises_entropy: bool = False,
        light: Light = Light(),
    ) -> None:
        self.learner, self.corridor, self.weights, self.light = learner, corridor, None, light
        self._corridor_settings, self._ema, self._canary, self._alone, self._shelf = corridor_settings, ema, canary, alone, shelf
        self._minimises_entropy = minimises_entropy

    def take(self, job: Job) -> Done:
        """Learn, let the anchor follow unless it was taken back, and move beta."""
        started, outcome = time.monotonic(), None
        if job.lessons:
            with self._alone():
                if self._shelf is not None:
                    self._shelf.shown = job.features
                outcome = learn(
                    self.learner, job.lessons, is_masked=job.is_masked, beta=self.corridor.beta, canary=self._canary,
                    minimises_entropy=self._minimises_entropy,
                )  # fmt: skip
                if not outcome.rolled_back:
                    self.learner.follow(self._ema)
                self.weights = self._copy()
            if self._corridor_settings is not None:
                self.corridor = regulate(self.corridor, outcome.reached_kl, self._corridor_settings)
        if job.trials:
            self.light = after_query(self.light, job.trials)
            self.weights = replace(self.weights or self._copy(), light=self.light)
        return Done(job, outcome, self.corridor, self.weights, time.monotonic() - started)

    def restore(self, weights: Weights | None, corridor: CorridorState) -> None:
        """Go on from there; without weights, from where it is."""
        self.corridor = corridor
        if weights is not None:
            self.learner.load_state(weights.learner)
            self.learner.load_anchor(weights.anchor)
            self.light = weights.light
            self.weights = self._copy()

    def _copy(self) -> Weights:
        anchor = {name: value.clone() for name, value in self.learner.anchor_state().items()}
        return Weights(copied(self.learner.state()), anchor, self.light)


class Shelf:
    """Features that a learner beside serving looks up.

    Args:
        always: of the canary set.
    """

    def __init__(self, always: Mapping[str, Features]) -> None:
        self._always = always
        self.shown: Mapping[str, Features] = {}
        """Of the job under way."""

    def features(self, names: Sequence[str]) -> list[Features]:
        return [self.shown[name] if name in self.shown else self._always[name] for name in names]


@dataclass(frozen=True)
class Twin:
    """A policy's model a second time, as far as a learner needs it: nothing is sampled from it."""

    checkpoint: Checkpoint
    sampling: Sampling

    @classmethod
    def of(cls, policy: VlmPolicy) -> Twin:
        """The copy begins as the policy is. What never moves, such as the vision tower or the base under adapters, is shared."""
        model = policy.checkpoint.model
        fixed = {id(p): p for name, p in model.named_parameters() if not p.requires_grad and ".lora_" not in name}
        return cls(replace(policy.checkpoint, model=copy.deepcopy(model, fixed)), policy.sampling)


def without_dropout(model: torch.nn.Module) -> None:
    """Turn dropout off: it would draw from torch's one generator, which threads share and a killed run forgets."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


# ---------------------------------------------------------------- who takes the updates


class Updates(Protocol):
    """Jobs go in and come out in their order; `len` is how many are inside."""

    student: Student

    def __len__(self) -> int: ...

    def submit(self, job: Job) -> None: ...

    def collect(self) -> Done:
        """The oldest job, done."""
        ...

    def close(self) -> None: ...


class Inline:
    """Takes a job when it is collected, in the thread that collects."""

    def __init__(self, student: Student) -> None:
        self.student, self._jobs = student, deque[Job]()

    def __len__(self) -> int:
        return len(self._jobs)

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def collect(self) -> Done:
        return self.student.take(self._jobs.popleft())

    def close(self) -> None:
        """Nothing to end."""


class Worker:
    """Takes jobs in a thread of its own, as soon as they come.

    Args:
        student: over a `Twin`; nobody else may touch it before `close` has returned.
        deadline_s: how long `collect` waits for a job.
    """

    def __init__(self, student: Student, *, deadline_s: float) -> None:
        self.student, self._deadline_s = student, deadline_s
        self._inside: deque[Job] = deque()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._done: SimpleQueue[Done | BaseException] = SimpleQueue()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="pixelis-update", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._inside)

    def submit(self, job: Job) -> None:
        self._inside.append(job)
        self._jobs.put(job)

    def collect(self) -> Done:
        """Wait for the oldest job.

        Raises:
            ConfigError: it is not done within the deadline.
            DataError, UpdateFailed: it failed; no later job is taken, and every further call says so again.
        """
        if self._failure is None:
            query = self._inside[0].query
            try:
                found = self._done.get(timeout=self._deadline_s)
            except Empty:
                self._failure = ConfigError(
                    f"the update of query {query} is not done after {self._deadline_s:g} s; adapt again with a larger deadline_s in [serve]"
                )
            else:
                if isinstance(found, Done):
                    self._inside.popleft()
                    return found
                self._failure = _failure_of(query, found)
        raise self._failure

    def close(self) -> None:
        """Take what is inside, then end the thread; after a failure nothing more is taken. Safe to call twice."""
        self._jobs.put(None)
        if self._failure is None:
            self._thread.join(self._deadline_s)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._done.put(self.student.take(job))
            except BaseException as error:  # noqa: BLE001 - whatever it is, whoever collects the job hears of it
                self._done.put(error)
                return


def _failure_of(query: str, error: BaseException) -> Exception:
    kind = DataError if isinstance(error, PixelisError) else UpdateFailed
    failure = kind(f"the update of query {query} failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
