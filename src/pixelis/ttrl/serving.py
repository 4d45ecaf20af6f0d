"""A policy that learns while it serves: how one query is answered, what it teaches, and when what was learnt serves.

Source: paper §3.2.3; supplement 6.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pixelis.core.errors import ConfigError
from pixelis.core.store import RunWriter
from pixelis.core.trajectory import PolicyInfo, Trajectory
from pixelis.policy.adapters import EMA
from pixelis.policy.base import Task
from pixelis.policy.exposure import exposure_of
from pixelis.policy.vlm import VlmPolicy, VlmSession
from pixelis.policy.vlm_vision import Features
from pixelis.retrieval.entry import Entry, Item
from pixelis.retrieval.memory import Memory
from pixelis.rollout.pack import Example
from pixelis.rollout.run import UNHURRIED_S, Limits, Runner
from pixelis.tools.engines.encoder_efficientnet import EfficientNetEncoder
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.train.bank import FeatureBank
from pixelis.train.clock import Clock
from pixelis.train.corridor import CorridorState
from pixelis.train.learner import learning_of, take_learning
from pixelis.train.packing import pack_rollouts
from pixelis.train.policy_learner import PolicyLearner, sampler_mismatch
from pixelis.train.step_heads import FROM_TOP
from pixelis.ttrl.decide import Credit, Decision, credit, decide
from pixelis.ttrl.excluded import fingerprint_of
from pixelis.ttrl.facts import NeighbourFacts, QueryFacts, rollout_facts
from pixelis.ttrl.insight import Insight
from pixelis.ttrl.job import Job
from pixelis.ttrl.learn import Canary, Lesson
from pixelis.ttrl.lift import Light, is_tried, lifts
from pixelis.ttrl.observe import Rolled, first_of, observe, pixel_key, text_key
from pixelis.ttrl.remember import entry_facts, neighbour_facts
from pixelis.ttrl.rows import answered_row
from pixelis.ttrl.state import AdaptSettings, Progress
from pixelis.ttrl.stream import Query
from pixelis.ttrl.stress import NUM_POOL, stressed, through_journey
from pixelis.ttrl.worker import Inline, Shelf, Student, Twin, Updates, Weights, Worker, without_dropout

log = logging.getLogger(__name__)

BANK_BYTES = 512 << 20


@dataclass(frozen=True, eq=False)
class Served:
    """What stands once a query was answered."""

    facts: QueryFacts
    decision: Decision
    rolled: tuple[Rolled, ...]
    """In the order of the decision's rollouts; empty where the policy failed in all of them."""
    text_D: np.ndarray | None
    pixel_D: np.ndarray | None
    headroom: float | None
    """Of the medium, in stops; None where no lift is learnt."""
    seconds: dict[str, float]


class Adapter:
    """A policy that learns while it serves.

    Args:
        policy: samples at temperature 1 without top-p; its model serves, and at lag 0 it also learns in place.
        executor: the tools, made from `tool_settings`.
        memory: of earlier queries; this run's own, which grows.
        insight: curiosity and coherence; None leaves both unknown.
        canary: trajectories whose probability must not fall; None looks at none.
        updates: who takes the updates from lag 1 on; a worker unless given.
    """

    def __init__(
        self,
        policy: VlmPolicy,
        executor: Executor,
        tool_settings: ToolSettings,
        settings: AdaptSettings,
        *,
        memory: Memory,
        insight: Insight | None = None,
        canary: Callable[[FeatureBank], Canary] | None = None,
        updates: Callable[[Student], Updates] | None = None,
    ) -> None:
        if policy.sampling.temperature != 1.0 or policy.sampling.top_p != 1.0:
            raise ConfigError("learning takes what the policy itself would say: set temperature = 1 and top_p = 1")
        self.policy, self.settings, self.memory, self.insight = policy, settings, memory, insight
        limits = Limits(max_steps=settings.max_steps, max_seconds=UNHURRIED_S)
        self._eyes = Eyes(policy)
        self._runner = Runner(self._eyes, executor, settings=tool_settings, limits=limits, num_parallel=settings.num_parallel)
        self._encoder = EfficientNetEncoder() if settings.omega > 0 else None
        self.bank = FeatureBank(policy.vision, max_bytes=BANK_BYTES)
        self.learner = self._learner(policy, self.bank)
        """Over the model that serves: measures what it says."""
        self.canary = canary(self.bank) if canary is not None and settings.learns else None
        if self.canary is not None and self.canary.start is None:
            with policy.paused():
                self.canary.start = self.canary.score(self.learner)
        self._has_twin = settings.learns and settings.lag > 0
        student = self._student()
        worker = updates or (lambda student: Worker(student, deadline_s=settings.deadline_s))
        self.updates: Updates = worker(student) if self._has_twin else Inline(student)

    def _learner(self, policy: VlmPolicy | Twin, bank: FeatureBank | Shelf) -> PolicyLearner:
        without_dropout(policy.checkpoint.model)
        return PolicyLearner(
            policy,
            bank,
            rate=self.settings.rate,
            batch_tokens=self.settings.batch_tokens,
            anchor=EMA,
            last_layers=self.settings.last_layers,
            from_top=FROM_TOP if self.insight is None else self.insight.from_top,
        )

    def _student(self) -> Student:
        """Learns on the model that serves, or on a copy of it."""
        settings = self.settings
        about = {
            "corridor": CorridorState.start(settings.beta),
            "corridor_settings": settings.corridor if settings.use_corridor else None,
            "ema": settings.ema,
            "canary": self.canary,
            "minimises_entropy": settings.method == "entropy",
            "light": Light(self.policy.prompting.lift),
        }
        if not self._has_twin:
            return Student(self.learner, alone=self.policy.paused, **about)
        shelf = Shelf({} if self.canary is None else self._features(self.canary.examples))
        return Student(self._learner(Twin.of(self.policy), shelf), shelf=shelf, **about)

    def _features(self, examples: Sequence[Example]) -> dict[str, Features]:
        names = list(dict.fromkeys(placed.image.sha256 for example in examples for placed in example.images))
        return dict(zip(names, self.bank.features(names), strict=True))

    def restore(self, progress: Progress) -> None:
        """Go on from a stored state; what had not served yet is handed in again."""
        self.updates.student.restore(progress.weights, progress.corridor)
        self.swap(progress.weights)
        for job in progress.jobs:
            self.updates.submit(job)

    def swap(self, weights: Weights | None) -> None:
        """Let these weights serve, whole, while nothing is sampled; None lets those go on that serve.

        Weights that have not changed are written, too: the sampler then reads shared beginnings again, as a resumed run must.
        """
        if weights is not None:
            self.policy.look(weights.light.lift)
        if self._has_twin:
            with self.policy.paused() as model:
                take_learning(model, learning_of(model) if weights is None else weights.learner["model"])
                if weights is not None:
                    self.learner.load_anchor(weights.anchor)

    def close(self) -> None:
        """Take the updates that were handed in, and end the worker."""
        self.updates.close()

    # ------------------------------------------------------------ answer

    def serve(self, query: Query, number: int, writer: RunWriter | None = None) -> Served:
        """Sample, observe, retrieve, decide. A query on which the policy fails in every rollout has no answer, and teaches nothing."""
        settings, clock = self.settings, Clock()
        if writer is not None:
            writer.put_blob(query.data)
        seeds = [settings.seed + 1 + k for k in range(settings.rollouts)]
        headroom = self.policy.headroom(query.task.medium) if settings.learns_lift else None
        self._eyes.lifts = {}
        if is_tried(headroom):
            tried = lifts(self.policy.prompting.lift, len(seeds), settings.lift_spread, (settings.seed, number))
            self._eyes.lifts = dict(zip(seeds, tried, strict=True))
        rollouts = self._runner.run([(query.task, seed) for seed in seeds], writer)
        clock.lap("sample")
        packed = pack_rollouts(self.policy, self.bank, query.task, rollouts)
        if not packed:
            first = rollouts[0].trajectory
            log.warning("query %s: all %d rollouts failed (%s: %s)", query.task.id, len(rollouts), first.stop, first.stop_detail)
            return self._failed(query, number, [one.trajectory for one in rollouts], headroom, clock)
        with self.policy.paused():
            measured = self.learner.measure([example for _, example in packed])
        rolled = sorted((Rolled(t, e, m) for (t, e), m in zip(packed, measured, strict=True)), key=lambda one: one.trajectory.id)
        clock.lap("score")
        facts, text_D, pixel_D = self.facts(query, rolled, number, clock)
        decision = decide(facts, settings.decision)
        clock.lap("decide")
        return Served(facts, decision, tuple(rolled), text_D, pixel_D, headroom, clock.laps)

    def _failed(self, query: Query, number: int, trajectories: Sequence[Trajectory], headroom: float | None, clock: Clock) -> Served:
        """What stands where no rollout can be measured: nobody answered, so the vote abstains."""
        found = sorted((rollout_facts(one, choices=query.choices) for one in trajectories), key=lambda one: one.id)
        facts = QueryFacts(id=f"{number}:{query.task.id}", medium=query.task.medium.sha256, rollouts=tuple(found))
        decision = decide(facts, self.settings.decision)
        for lap in ("score", "observe", "key", "retrieve", "decide"):
            clock.lap(lap)
        return Served(facts, decision, (), None, None, headroom, clock.laps)

    def facts(self, query: Query, rolled: Sequence[Rolled], number: int, clock: Clock) -> tuple[QueryFacts, np.ndarray, np.ndarray | None]:
        """What a decision will be made from, and the two parts of the query's key, [D] each.

        Args:
            clock: takes the laps observe, key and retrieve.
        """
        tokenizer, merge, medium = self.policy.checkpoint.tokenizer, self.policy.merge, query.task.medium.sha256
        seed = self.settings.seed + 1000 * number
        found = [observe(one, query, tokenizer=tokenizer, merge=merge, insight=self.insight, seed=seed + k) for k, one in enumerate(rolled)]
        clock.lap("observe")
        text_D = text_key(rolled[0], tokenizer)
        pixel_D = pixel_key(rolled[0], found[0], query, self._encoder) if self._encoder is not None else None
        asked_D = pixel_D
        if pixel_D is not None and self.settings.stress.changes_pictures:
            asked_D = pixel_key(rolled[0], found[0], query, self._encoder, lambda image: through_journey(image, self.settings.stress))
        clock.lap("key")
        neighbours = self._neighbours(text_D, asked_D, [one.label for one in found], number)
        clock.lap("retrieve")
        return QueryFacts(id=f"{number}:{query.task.id}", medium=medium, rollouts=tuple(found), neighbours=neighbours), text_D, pixel_D

    def _neighbours(
        self, text_D: np.ndarray, asked_D: np.ndarray | None, labels: Sequence[str | None], number: int
    ) -> tuple[NeighbourFacts, ...]:
        """What the memory finds, or what stress makes of it."""
        settings, stress = self.settings, self.settings.stress
        if not (settings.neighbours and len(self.memory)):
            return ()
        num = settings.neighbours + (NUM_POOL if stress.near_miss else 0)
        near = self.memory.neighbours(text_D if settings.omega < 1 else None, asked_D, num=num)
        found = tuple(neighbour_facts(one) for one in near)
        return stressed(found, labels, stress, (settings.seed, number), num=settings.neighbours) if stress.changes_neighbours else found

    # ------------------------------------------------------------ learn

    def lesson(self, served: Served, progress: Progress, seconds: float) -> tuple[Job, Progress]:
        """What an answered query teaches, and the progress after it.

        It teaches nothing where every rollout failed, where training and sampler saw different things, or once `max_accepted` updates
        were accepted.

        Args:
            seconds: that the answer took.
        """
        settings, tally = self.settings, progress.tally
        earned, value = credit(served.facts, served.decision, progress.value, settings.decision)
        if settings.method == "entropy":
            earned = replace(earned, is_masked=False, is_kept=(True,) * len(earned.is_kept))  # unconditional
        has_room = settings.max_accepted is None or tally.accepted < settings.max_accepted
        is_learning = settings.learns and bool(served.rolled) and has_room
        is_held = is_learning and _mismatch(served) > settings.max_mismatch
        is_learning = is_learning and not is_held
        tally = replace(
            tally,
            abstained=tally.abstained + earned.is_masked,
            accepted=tally.accepted + (is_learning and not earned.is_masked),
            held=tally.held + is_held,
        )
        lessons = _lessons(served, earned) if is_learning and settings.rate else ()
        job = Job(
            number=progress.position,
            query=served.facts.id,
            answer=served.decision.answer,
            is_masked=earned.is_masked,
            lessons=lessons,
            trials=_trials(served) if is_learning else (),
            features=self._features([one.example for one in lessons]) if self._has_twin else {},
            row=answered_row(
                served.facts,
                served.decision,
                earned,
                tally,
                progress.position,
                {**served.seconds, "learn": 0.0, "total": seconds},
                headroom=served.headroom,
            ),
        )
        return job, replace(progress, value=value, tally=tally, position=progress.position + 1, jobs=(*progress.jobs, job))

    def item(self, served: Served, query: Query) -> Item | None:
        """What the memory takes in: the exemplar, or the first rollout where there is none; nothing where every rollout failed."""
        if not served.rolled:
            return None
        one = first_of(served.rolled, served.decision.exemplar)
        own = next(facts for facts in served.facts.rollouts if facts.id == one.trajectory.id)
        value = own.intrinsic
        entry = Entry(
            id=served.facts.id,
            medium=query.task.medium.sha256,
            trajectory=one.trajectory.id,
            answer=served.decision.label,
            value=None if np.isnan(value) else value,
            facts=entry_facts(served.facts, own),
        )
        seen = None if self.memory.blocklist is None else fingerprint_of(query.task.medium)
        return Item(entry, served.text_D if self.settings.omega < 1 else None, served.pixel_D, seen)


class Eyes:
    """A policy whose conversations see at lifts of their own.

    Args:
        policy: gives everything else.
    """

    def __init__(self, policy: VlmPolicy) -> None:
        self._policy = policy
        self.lifts: dict[int, float] = {}
        """By the seed of a conversation; the policy's own for those not named."""

    @property
    def info(self) -> PolicyInfo:
        return self._policy.info

    def open(self, task: Task, *, seed: int) -> VlmSession:
        return self._policy.open(task, seed=seed, lift=self.lifts.get(seed))

    def close(self) -> None:
        self._policy.close()


def _trials(served: Served) -> tuple[tuple[float, float], ...]:
    """At which lift each rollout saw, and how far others confirm what it saw; whether the vote abstained does not matter.

    None where the medium has too little headroom: there all saw alike.
    """
    if not is_tried(served.headroom):
        return ()
    stops = [exposure_of(one.trajectory.tokens[0].images[0])[1] for one in served.rolled]
    seen = [one.fidelity or 0.0 for one in served.decision.rollouts]
    return tuple((one / served.headroom, fidelity) for one, fidelity in zip(stops, seen, strict=True))


def _mismatch(served: Served) -> float:
    return sampler_mismatch([one.trajectory for one in served.rolled], [one.measured for one in served.rolled])


def _lessons(served: Served, earned: Credit) -> tuple[Lesson, ...]:
    """Of the rollouts that repeat no other."""
    return tuple(
        Lesson(one.example, one.measured.logp_N, one.measured.anchor_logp_N, advantage)
        for one, is_kept, advantage in zip(served.rolled, earned.is_kept, earned.advantages, strict=True)
        if is_kept
    )
