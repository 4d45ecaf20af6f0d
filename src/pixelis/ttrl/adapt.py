"""Phase 3, Pixel TTRL: the loop, query by query, in the paper's order.

Answer, log, then learn: sample rollouts, note the facts, retrieve neighbours, decide by pure functions, give the answer out, and only then
take a step within the KL corridor; the anchor follows slowly, the state is kept, the memory takes the query in. What an audit knows of the
truth is asked last and goes nowhere but into its own file. Source: paper §3.2.3; supplement 6.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pixelis import __version__
from pixelis.core.errors import ConfigError, DataError
from pixelis.core.store import RUN_FILE, RunWriter, open_run
from pixelis.core.trajectory import Timing, Trajectory
from pixelis.policy.adapters import EMA
from pixelis.policy.vlm import VlmPolicy
from pixelis.retrieval.entry import Entry, Item, Neighbour
from pixelis.retrieval.keys import KeySpec
from pixelis.retrieval.memory import Memory, open_memory
from pixelis.rollout.run import Limits, Runner
from pixelis.tools.engines.encoder_efficientnet import EfficientNetEncoder
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.train.bank import FeatureBank
from pixelis.train.corridor import regulate
from pixelis.train.packing import pack_rollouts
from pixelis.train.policy_learner import PolicyLearner, sampler_mismatch
from pixelis.train.start import save_policy
from pixelis.ttrl.decide import Credit, Decision, credit, decide, dump
from pixelis.ttrl.facts import NeighbourFacts, QueryFacts, dump_facts
from pixelis.ttrl.insight import Insight
from pixelis.ttrl.learn import Canary, Outcome, learn
from pixelis.ttrl.observe import Rolled, first_of, observe, pixel_key, text_key
from pixelis.ttrl.remember import entry_facts, neighbour_facts
from pixelis.ttrl.state import AUDIT_FILE, LINES_FILES, METRICS_FILE, QUERIES_FILE, AdaptSettings, Lines, Log, Progress, claim, resume, save
from pixelis.ttrl.stream import Audit, Query, Stream

BANK_BYTES = 512 << 20
MEMORY_FOLDER, TRAJECTORIES_FOLDER, POLICY_FOLDER = "memory", "rollouts", "policy"


@dataclass(frozen=True, eq=False)
class Served:
    """What stands once a query was answered."""

    facts: QueryFacts
    decision: Decision
    rolled: tuple[Rolled, ...]
    """In the order of the decision's rollouts."""
    text_D: np.ndarray
    pixel_D: np.ndarray | None
    seconds: dict[str, float]


class Adapter:
    """A policy that learns while it serves.

    Args:
        policy: samples at temperature 1 without top-p; its model learns in place.
        executor: the tools, made from `tool_settings`.
        memory: of earlier queries; this run's own, which grows.
        insight: curiosity and coherence; None leaves both unknown.
        canary: trajectories whose probability must not fall; None looks at none.
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
    ) -> None:
        if policy.sampling.temperature != 1.0 or policy.sampling.top_p != 1.0:
            raise ConfigError("learning takes what the policy itself would say: set temperature = 1 and top_p = 1")
        self.policy, self.settings, self.memory, self.insight = policy, settings, memory, insight
        limits = Limits(max_steps=settings.max_steps)
        self._runner = Runner(policy, executor, settings=tool_settings, limits=limits, num_parallel=settings.num_parallel)
        self._encoder = EfficientNetEncoder() if settings.omega > 0 else None
        self.bank = FeatureBank(policy.vision, max_bytes=BANK_BYTES)
        self.learner = PolicyLearner(policy, self.bank, rate=settings.rate, batch_tokens=settings.batch_tokens, anchor=EMA)
        self.canary = canary(self.bank) if canary is not None and settings.learns else None
        if self.canary is not None and self.canary.start is None:
            with policy.paused():
                self.canary.start = self.canary.score(self.learner)

    # ------------------------------------------------------------ answer

    def serve(self, query: Query, number: int, writer: RunWriter | None = None) -> Served:
        """Sample, observe, retrieve, decide.

        Raises:
            DataError: every rollout failed in the policy itself.
        """
        settings, started = self.settings, time.monotonic()
        if writer is not None:
            writer.put_blob(query.data)
        seeds = [settings.seed + 1 + k for k in range(settings.rollouts)]
        rollouts = self._runner.run([(query.task, seed) for seed in seeds], writer)
        sampled = time.monotonic()
        packed = pack_rollouts(self.policy, self.bank, query.task, rollouts)
        if not packed:
            raise DataError(f"query {query.task.id}: all {len(rollouts)} rollouts failed; {rollouts[0].trajectory.stop_detail}")
        with self.policy.paused():
            measured = self.learner.measure([example for _, example in packed])
        rolled = sorted((Rolled(t, e, m) for (t, e), m in zip(packed, measured, strict=True)), key=lambda one: one.trajectory.id)
        scored = time.monotonic()
        facts, text_D, pixel_D = self.facts(query, rolled, number)
        decision = decide(facts, settings.decision)
        seconds = {"sample": sampled - started, "score": scored - sampled, "decide": time.monotonic() - scored}
        return Served(facts, decision, tuple(rolled), text_D, pixel_D, seconds)

    def facts(self, query: Query, rolled: Sequence[Rolled], number: int) -> tuple[QueryFacts, np.ndarray, np.ndarray | None]:
        """What a decision will be made from, and the two parts of the query's key."""
        tokenizer, merge, medium = self.policy.checkpoint.tokenizer, self.policy.merge, query.task.medium.sha256
        seed = self.settings.seed + 1000 * number
        found = [observe(one, query, tokenizer=tokenizer, merge=merge, insight=self.insight, seed=seed + k) for k, one in enumerate(rolled)]
        text_D = text_key(rolled[0])
        pixel_D = pixel_key(rolled[0], found[0], query, self._encoder) if self._encoder is not None else None
        neighbours: tuple[NeighbourFacts, ...] = ()
        if self.settings.neighbours and len(self.memory):
            near: tuple[Neighbour, ...] = self.memory.neighbours(
                text_D if self.settings.omega < 1 else None, pixel_D, num=self.settings.neighbours
            )
            neighbours = tuple(neighbour_facts(one) for one in near)
        return QueryFacts(id=f"{number}:{query.task.id}", medium=medium, rollouts=tuple(found), neighbours=neighbours), text_D, pixel_D

    # ------------------------------------------------------------ learn

    def learn(self, served: Served, progress: Progress) -> tuple[Credit, Outcome | None, Progress]:
        """One step on what was served, unless nothing may be learnt from it; the progress after it."""
        settings, tally = self.settings, progress.tally
        earned, value = credit(served.facts, served.decision, progress.value, settings.decision)
        tally = replace(tally, abstained=tally.abstained + earned.is_masked, accepted=tally.accepted + (not earned.is_masked))
        outcome, corridor = None, progress.corridor
        if settings.learns and _mismatch(served) > settings.max_mismatch:
            tally = replace(tally, held=tally.held + 1)
        elif settings.learns:
            with self.policy.paused():
                outcome = learn(self.learner, served.rolled, earned, beta=corridor.beta, canary=self.canary)
                if outcome.rolled_back:
                    tally = replace(tally, rolled_back=tally.rolled_back + 1)
                else:
                    self.learner.follow(settings.ema)
            if settings.use_corridor:
                corridor = regulate(corridor, outcome.kl, settings.corridor)
        return earned, outcome, replace(progress, value=value, tally=tally, corridor=corridor)

    def item(self, served: Served, query: Query) -> Item:
        """What the memory takes in: the exemplar, or the first rollout where there is none."""
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
        return Item(entry, served.text_D if self.settings.omega < 1 else None, served.pixel_D)


def run_adapt(
    adapter: Callable[[Memory], Adapter],
    stream: Stream,
    out: str | Path,
    about: dict[str, Any],
    settings: AdaptSettings,
    *,
    spec: KeySpec,
    audit: Audit | None = None,
    log: Log = print,
) -> Path:
    """Serve a stream and learn from it; a run that was cut short goes on.

    Args:
        adapter: made over the run's memory.
        out: new, or the folder of this very run.
        about: what else makes the run what it is: stream, start, tools.
        spec: of the memory's keys.
        audit: knows the truth, for the table only.

    Raises:
        ConfigError: the folder holds another run.
        DataError: a file of it is damaged.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    claim(out, {"pixelis": __version__, "settings": settings.to_json(), **about})
    with ExitStack() as stack:
        memory = stack.enter_context(open_memory(out / MEMORY_FOLDER, spec))
        serving = adapter(memory)
        progress = resume(out, serving.learner if settings.learns else None, settings.beta)
        if progress.pending is not None:
            memory.add(progress.pending)
        lines = {name: stack.enter_context(closing(Lines(out / name, progress.position))) for name in LINES_FILES}
        writer = stack.enter_context(_Once(out / TRAJECTORIES_FOLDER, about))
        while progress.position < len(stream):
            with stream.open(progress.position) as query:
                progress = _one_query(serving, query, progress, out, writer, lines, audit, log, len(stream))
    save_policy(serving.policy, out / POLICY_FOLDER)
    if serving.insight is not None:
        serving.insight.save(out / POLICY_FOLDER)
    return out


class _Once(RunWriter):
    """Takes every trajectory once: a query that was cut short is sampled again, to the same trajectories."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        is_new = not (folder / RUN_FILE).exists()
        self._known = set() if is_new else {trajectory.id for trajectory in open_run(folder).trajectories()}
        super().__init__(folder, about, resume=not is_new)

    def append(self, trajectory: Trajectory, *, blobs: Mapping[str, bytes] = {}, timing: Timing | None = None) -> None:
        if trajectory.id not in self._known:
            super().append(trajectory, blobs=blobs, timing=timing)
            self._known.add(trajectory.id)


def _one_query(
    adapter: Adapter, query: Query, progress: Progress, out: Path, writer: RunWriter, lines: dict, audit: Audit | None, log: Log, num: int
) -> Progress:
    """Answer, log, learn, keep."""
    number, started = progress.position, time.monotonic()
    served = adapter.serve(query, number, writer)
    lines[QUERIES_FILE].write(_query_line(served))
    answered = time.monotonic()
    earned, outcome, progress = adapter.learn(served, progress)
    progress = replace(progress, position=number + 1, pending=adapter.item(served, query))
    learnt = time.monotonic()
    right = audit.is_right(number, served.decision.answer) if audit is not None else None
    each = [audit.is_right(number, one.answer) for one in served.facts.rollouts] if audit is not None else None
    lines[AUDIT_FILE].write(json.dumps({"query": served.facts.id, "right": right, "each": each}).encode())
    row = metrics_row(served, earned, outcome, progress, {**served.seconds, "learn": learnt - answered, "total": learnt - started})
    lines[METRICS_FILE].write(json.dumps(row).encode())
    save(out, adapter.learner if adapter.settings.learns else None, progress)
    adapter.memory.add(progress.pending)
    log({**row, "right": right, "of": num})
    return progress


def _mismatch(served: Served) -> float:
    return sampler_mismatch([one.trajectory for one in served.rolled], [one.measured for one in served.rolled])


def _query_line(served: Served) -> bytes:
    return b'{"facts":' + dump_facts(served.facts) + b',"decision":' + dump(served.decision) + b"}"


def metrics_row(served: Served, earned: Credit, outcome: Outcome | None, progress: Progress, seconds: dict[str, float]) -> dict[str, Any]:
    """What is written down of one query beside its decision."""
    decision, tally = served.decision, progress.tally
    return {
        "query": progress.position - 1,
        "margin": decision.ballot.margin,
        "abstained": decision.is_abstaining,
        "masked": earned.is_masked,
        "value": earned.value,
        "weight": earned.weight,
        "return": float(np.mean(earned.returns)),
        "kept": sum(earned.is_kept),
        "neighbours": len(served.facts.neighbours),
        "steps": float(np.mean([one.num_steps for one in served.facts.rollouts])),
        "kl": None if outcome is None else outcome.kl,
        "beta": progress.corridor.beta,
        "loss": None if outcome is None else outcome.loss,
        "grad_norm": None if outcome is None else outcome.grad_norm,
        "canary": None if outcome is None else outcome.canary,
        "rolled_back": "" if outcome is None else outcome.rolled_back,
        "accepted": tally.accepted,
        "coverage": 1 - tally.abstained / progress.position,
        "num_rolled_back": tally.rolled_back,
        "num_held": tally.held,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
