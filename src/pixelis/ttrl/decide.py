"""One query of Pixel TTRL from facts to decision, in the paper's order, and from decision to advantages. Pure.

`decide` weighs the rollouts, votes, abstains, chooses the exemplar and measures likeness to it; `credit` adds value, returns and
advantages, which need what is remembered from earlier queries. Rollouts and neighbours are taken in the order of their ids, so that the
order in which they arrive changes nothing, not even a rounding. Source: paper §3.2.3; supplement 6, pseudo-code steps 3-6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter

from pixelis.core.ops import record
from pixelis.rewards.penalty import penalty
from pixelis.ttrl.abstain import DELTA, Abstention, abstain
from pixelis.ttrl.calibrate import Calibrator, calibrated
from pixelis.ttrl.exemplar import choose_exemplar
from pixelis.ttrl.facts import NeighbourFacts, QueryFacts, RolloutFacts, load_record
from pixelis.ttrl.fidelity import Fidelity, fidelities
from pixelis.ttrl.reliability import reliabilities
from pixelis.ttrl.returns import DUPLICATE, advantages, kept, returns
from pixelis.ttrl.similarity import TEMPERATURE, similarities
from pixelis.ttrl.value import BASELINE_DECAY, VALUE_DECAY, ValueState, ema, neighbourhood_value, value_weight
from pixelis.ttrl.vote import Ballot, Voter, Weighing, hold_vote

Baseline = Literal["stream", "query"]


@record
class DecisionSettings:
    """What may be chosen."""

    vote: str = "weighted"
    """A name in `vote.WEIGHTS`."""
    weighing: Weighing = Weighing()
    reliability: str = "one_coin"
    """A name in `reliability.MODELS`."""
    calibrator: Calibrator | None = None
    """None takes confidences as they are."""
    delta: float = DELTA
    """Least margin."""
    quantile: float | None = None
    """Of `abstain.conformal_quantile`; None goes by the margin alone."""
    counts_neighbours: bool = False
    """Whether each neighbour's answer is one more voice, beside what neighbours tell of reliability and fidelity."""
    alignment_temperature: float = TEMPERATURE
    value_decay: float = VALUE_DECAY
    baseline_decay: float = BASELINE_DECAY
    duplicate: float = DUPLICATE
    baseline: Baseline = "stream"
    """What returns are measured against: the running mean of earlier queries, or the mean of the query's own rollouts that are kept."""
    negative: float = 1.0
    """What negative advantages are multiplied by, in [0, 1]."""


@record
class Weighed:
    """One rollout in a decision. None is unknown."""

    id: str
    label: str | None
    confidence: float | None
    """Calibrated."""
    fidelity: float | None
    num_scored: int
    num_unscored: int
    """Decisive steps with and without a reference."""
    worker: str
    reliability: float | None
    weight: float
    """Share of all weights, before rankings; those of neighbours are the rest."""
    similarity: float | None
    """To the exemplar; None where there is none."""


@record
class Decision:
    """What was decided on a query."""

    query: str
    rollouts: tuple[Weighed, ...]
    """In the order of their ids."""
    ballot: Ballot
    abstention: Abstention
    exemplar: str | None
    """Id of a rollout; None where no rollout gave the winning answer as its own."""
    answer: str | None
    """What the user is told, marked as unsure when abstaining: the exemplar's own words, or the winning label where there is none."""

    @property
    def label(self) -> str | None:
        return self.ballot.winner

    @property
    def is_abstaining(self) -> bool:
        return self.abstention.is_abstaining


def decide(facts: QueryFacts, settings: DecisionSettings = DecisionSettings()) -> Decision:
    """Weigh, vote, abstain, choose the exemplar, measure likeness to it."""
    rollouts = tuple(sorted(facts.rollouts, key=lambda one: one.id))
    facts = replace(facts, rollouts=rollouts, neighbours=tuple(sorted(facts.neighbours, key=lambda one: one.id)))
    labels = [one.label for one in rollouts]

    confidences = [_calibrated(one, settings.calibrator) for one in rollouts]
    references = [one.evidence for one in facts.neighbours if one.medium == facts.medium]
    found = fidelities([one.evidence for one in rollouts], labels, references)
    of_worker = reliabilities(facts.votes(), settings.reliability)
    trust = [of_worker.get(one.worker, math.nan) for one in rollouts]

    voters = [_voter(*parts) for parts in zip(rollouts, confidences, found, trust, strict=True)]
    others = [neighbour_voter(one, of_worker) for one in facts.neighbours if one.answer is not None] if settings.counts_neighbours else []
    weight_N, ballot = hold_vote([*voters, *others], settings.vote, settings.weighing)
    abstention = abstain(ballot, delta=settings.delta, quantile=settings.quantile)

    place = _exemplar(rollouts, found, ballot.winner)
    likes = _similarities(rollouts, place, settings.alignment_temperature)
    return Decision(
        query=facts.id,
        rollouts=tuple(_weighed(*parts) for parts in zip(rollouts, voters, found, weight_N[: len(rollouts)], likes, strict=True)),
        ballot=ballot,
        abstention=abstention,
        exemplar=None if place is None else rollouts[place].id,
        answer=ballot.winner if place is None else rollouts[place].answer,
    )


def _calibrated(one: RolloutFacts, calibrator: Calibrator | None) -> float:
    if one.confidence is None:
        return math.nan
    return one.confidence if calibrator is None else float(calibrated(calibrator, [one.confidence])[0])


def _voter(one: RolloutFacts, confidence: float, fidelity: Fidelity, reliability: float) -> Voter:
    entropy = math.nan if one.entropy_nats is None else one.entropy_nats
    return Voter(one.label, confidence, entropy, fidelity.value, reliability, one.ranking)


def neighbour_voter(one: NeighbourFacts, of_worker: Mapping[str, float]) -> Voter:
    """A neighbour's answer as a voice: as sure as it is alike and was united, as reliable as those who gave that answer there.

    The paper speaks of "flipped neighbor answers" that steer a vote, and does not say what a neighbour's answer weighs.
    """
    said = [vote for vote in one.votes if vote.label == one.answer]
    trust = [of_worker[vote.worker] for vote in said]
    return Voter(
        one.answer,
        confidence=max(0.0, one.similarity) * len(said) / len(one.votes) if one.votes else math.nan,
        reliability=math.fsum(trust) / len(trust) if trust else math.nan,
        similarity=one.similarity,
    )


def _exemplar(rollouts: Sequence[RolloutFacts], found: Sequence[Fidelity], winner: str | None) -> int | None:
    """Place of the exemplar. By rankings or neighbours an answer may win that no rollout gave as its own: then there is none."""
    places = [k for k, one in enumerate(rollouts) if winner is not None and one.label == winner]
    if not places:
        return None
    steps, intrinsic = [rollouts[k].num_steps for k in places], [rollouts[k].intrinsic for k in places]
    return places[choose_exemplar(steps, intrinsic, [found[k].value for k in places])]


def _similarities(rollouts: Sequence[RolloutFacts], exemplar: int | None, temperature: float) -> Sequence[float | None]:
    """To the exemplar; None for all where there is none."""
    if exemplar is None:
        return [None] * len(rollouts)
    return similarities([one.evidence for one in rollouts], rollouts[exemplar].evidence, temperature=temperature)


def _weighed(one: RolloutFacts, voter: Voter, fidelity: Fidelity, weight: float, like: float | None) -> Weighed:
    return Weighed(
        id=one.id,
        label=one.label,
        confidence=_known(voter.confidence),
        fidelity=_known(fidelity.value),
        num_scored=fidelity.num_scored,
        num_unscored=fidelity.num_unscored,
        worker=one.worker,
        reliability=_known(voter.reliability),
        weight=float(weight),
        similarity=like,
    )


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


# ---------------------------------------------------------------- what is learnt


@record
class Credit:
    """What each rollout of a query teaches, in the order of `Decision.rollouts`."""

    returns: tuple[float, ...]
    advantages: tuple[float, ...]
    """0 for rollouts left out, and for all where the query is masked."""
    is_kept: tuple[bool, ...]
    """False for one that repeats another: it is no part of the update's mean."""
    value: float | None
    """V(q)."""
    weight: float
    """omega of the query."""
    is_masked: bool
    """The decision abstained, or there is no exemplar: no policy gradient, only the KL acts."""


def credit(
    facts: QueryFacts, decision: Decision, state: ValueState, settings: DecisionSettings = DecisionSettings()
) -> tuple[Credit, ValueState]:
    """Value, returns and advantages, and what is remembered afterwards.

    An abstaining query teaches V(q), which needs no answer, but not the baseline: its returns are measured against a doubtful winner.
    """
    rollouts = tuple(sorted(facts.rollouts, key=lambda one: one.id))
    neighbours = sorted(facts.neighbours, key=lambda one: one.id)
    intrinsic_K = [math.nan if one.intrinsic is None else one.intrinsic for one in neighbours]
    value, weight, after = value_weight(
        state, neighbourhood_value([one.similarity for one in neighbours], intrinsic_K), decay=settings.value_decay
    )
    costs = [penalty(one.num_invalid, one.num_steps) for one in rollouts]
    agrees = [decision.label is not None and one.label == decision.label for one in rollouts]
    return_N = returns(agrees, [one.similarity or 0.0 for one in decision.rollouts], costs)
    first = next((k for k, one in enumerate(rollouts) if one.id == decision.exemplar), None)
    kept_N = kept([one.evidence for one in rollouts], [one.label for one in rollouts], first=first, threshold=settings.duplicate)
    is_masked = decision.is_abstaining or decision.exemplar is None
    baseline = state.baseline if settings.baseline == "stream" else math.fsum(return_N[kept_N]) / int(kept_N.sum())
    advantage_N = np.where(kept_N & (not is_masked), advantages(return_N, baseline, weight, negative=settings.negative), 0.0)
    if not is_masked:
        after = replace(after, baseline=ema(state.baseline, float(return_N.mean()), settings.baseline_decay))
    return (
        Credit(
            returns=tuple(return_N.tolist()),
            advantages=tuple(advantage_N.tolist()),
            is_kept=tuple(kept_N.tolist()),
            value=_known(value),
            weight=weight,
            is_masked=is_masked,
        ),
        after,
    )


# ---------------------------------------------------------------- JSON

_DECISION, _SETTINGS, _STATE, _CREDIT = (TypeAdapter(kind) for kind in (Decision, DecisionSettings, ValueState, Credit))
_ADAPTERS: dict[type, TypeAdapter[Any]] = {Decision: _DECISION, DecisionSettings: _SETTINGS, ValueState: _STATE, Credit: _CREDIT}


def dump(what: Decision | DecisionSettings | ValueState | Credit) -> bytes:
    """One line of JSON without its newline."""
    return _ADAPTERS[type(what)].dump_json(what)


def load(kind: type, data: bytes, *, where: str) -> Any:
    """A `Decision`, `DecisionSettings`, `ValueState` or `Credit` in a line of JSON.

    Raises:
        DataError: the line is none; names file and line.
    """
    return load_record(_ADAPTERS[kind], data, where=where)
