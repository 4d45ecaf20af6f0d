"""Answering from several rollouts of one item without learning anything: the baselines at inference time, by name. Pure.

A method sees the rollouts of an item, never its truth; what it was fitted with comes from another split. Letters: K rollouts of an item.

- majority: the answer that most rollouts gave.
- ranked: Borda counts over the rankings that rollouts gave (an answer written as `a > b > c`). A rollout without one stands for its single
  answer, so where nobody ranks this is the majority.
- calibrated: votes weigh their temperature-scaled confidence, and the vote abstains where its margin is thin, as Pixel TTRL's does. A
  rollout's confidence is the geometric mean of its answer turn's token probabilities: a long turn is not less sure for being long.
- steps: votes weigh `epsilon + support`, where the support of a rollout is the mean over its decisive steps of the mean over all K
  rollouts of the best agreement that a step of theirs has with it. No majority of answers is asked beforehand.
- process: the one answer whose rollout has the highest process reward, see `process_reward`; the first of equals.
- late_fusion: half of the rollouts with all tools on, half with all off; their shares are added with the weights w and 1 - w.

Source: paper §4 Table 1; Wang et al. (2022) for self-consistency, Wang et al. (2025) for ranked voting. The paper gives no formula for its
step-level, process and late-fusion baselines: those here are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pixelis.core.ops import Output, TrkOutput
from pixelis.core.trajectory import Trajectory
from pixelis.ttrl.abstain import DELTA, abstain
from pixelis.ttrl.calibrate import Temperature, calibrated, confidence_logits, fit_calibrator
from pixelis.ttrl.evidence import Evidence, agreement, is_comparable, likeness
from pixelis.ttrl.facts import RolloutFacts, label_of, rollout_facts
from pixelis.ttrl.vote import Ballot, Voter, count, hold_vote

RANKS = " > "
"""Stands between the answers of a ranking."""
COHERENCE = 0.5
"""What the coherence of a chain is worth in `process_reward`, where the share of successful calls is worth 1."""
FUSION_WEIGHTS = tuple(k / 10 for k in range(11))
"""Weights of the rollouts with tools among which late fusion chooses."""

Judge = Callable[[str, str | None], int]
"""Item id and answer to 1 for right, 0 for wrong: the truth. Only fitting, scoring and the oracle are given one."""


@dataclass(frozen=True)
class Draw:
    """One rollout, and what it cost."""

    facts: RolloutFacts
    tokens: int = 0
    """Sampled by the policy."""
    calls: int = 0
    """Executable calls it wrote."""


@dataclass(frozen=True)
class Pool:
    """All rollouts of one item, in the order of their ids."""

    id: str
    on: tuple[Draw, ...]
    """With the tools on; at least one."""
    off: tuple[Draw, ...] = ()
    """With all tools off; empty where there are none."""
    greedy: Draw | None = None

    def __post_init__(self) -> None:
        """Raises: ValueError: nothing was drawn."""
        if not self.on:
            raise ValueError(f"item {self.id}: no rollouts, nothing to choose from")
        for name in ("on", "off"):
            object.__setattr__(self, name, tuple(sorted(getattr(self, name), key=lambda draw: draw.facts.id)))


@dataclass(frozen=True)
class Choice:
    """What a method answers."""

    answer: str | None
    confidence: float = math.nan
    """In [0, 1]; NaN for a method that has none."""
    is_abstaining: bool | None = None
    """None for a method that never does."""


@dataclass(frozen=True)
class Fitted:
    """What was fitted on another split.

    Attributes:
        rollout: scales a rollout's confidence; None where no rollout has one.
        vote: scales the confidence of the calibrated vote's winner.
        weight: of the rollouts with tools in late fusion, in [0, 1]; None without rollouts without tools.
    """

    rollout: Temperature | None = None
    vote: Temperature | None = None
    weight: float | None = None


def draw_of(trajectory: Trajectory, name: str, *, choices: Sequence[str] = ()) -> Draw:
    """A stored trajectory as a draw.

    Args:
        name: of the rollout among those of its item.
        choices: the question's options.
    """
    ranking = ranking_of(trajectory.answer, choices)
    if ranking:  # its first place is what it answers
        trajectory = replace(trajectory, answer=str(trajectory.answer).split(RANKS)[0])
    facts = rollout_facts(trajectory, choices=choices, ranking=ranking, confidence=answer_confidence(trajectory))
    return Draw(
        facts=replace(facts, id=name, ranking=ranking if facts.label is not None else ()),
        tokens=sum(len(run.ids) for run in trajectory.tokens if run.role == "policy"),
        calls=sum(step.call is not None for step in trajectory.steps),
    )


def ranking_of(answer: str | None, choices: Sequence[str] = ()) -> tuple[str, ...]:
    """The labels of an answer that ranks several, best first; empty for one that does not."""
    labels = [label_of(part, choices) for part in (answer or "").split(RANKS)]
    found = tuple(label for label in labels if label is not None)
    return found if len(found) == len(labels) > 1 and len(set(found)) == len(found) else ()


def answer_confidence(trajectory: Trajectory) -> float | None:
    """exp of the mean log-probability of the last turn's tokens, in [0, 1]; None without an answer or without recorded tokens."""
    turns = [run for run in trajectory.tokens if run.role == "policy" and run.logp]
    if trajectory.stop != "answered" or trajectory.answer is None or not turns:
        return None
    return min(1.0, math.exp(math.fsum(turns[-1].logp) / len(turns[-1].logp)))


# ---------------------------------------------------------------- votes


def majority(pool: Pool, fitted: Fitted) -> Choice:
    return _vote(pool, [Voter(draw.facts.label) for draw in pool.on], "majority")


def ranked(pool: Pool, fitted: Fitted) -> Choice:
    return _vote(pool, [Voter(draw.facts.label, ranking=draw.facts.ranking) for draw in pool.on], "borda")


def steps(pool: Pool, fitted: Fitted) -> Choice:
    found = support([draw.facts.evidence for draw in pool.on])
    voters = [Voter(draw.facts.label, fidelity=value) for draw, value in zip(pool.on, found, strict=True)]
    return _vote(pool, voters, "weighted")  # unknown factors drop out: (epsilon + support) is left


def _vote(pool: Pool, voters: Sequence[Voter], kind: str) -> Choice:
    return _winner(hold_vote(voters, kind)[1], pool.on)


def _winner(ballot: Ballot, draws: Sequence[Draw]) -> Choice:
    """The winning answer in the words of the first rollout that gave it; its label where it won by rankings alone."""
    words = next((draw.facts.answer for draw in draws if draw.facts.label == ballot.winner), ballot.winner)
    return Choice(None if ballot.winner is None else words, ballot.scores[0][1] if ballot.scores else 0.0)


def support(chains: Sequence[Sequence[Evidence]]) -> list[float]:
    """How far all rollouts, each one itself included, saw what a rollout's decisive steps saw.

    Its own share is the same for everybody, and a pool in which every rollout stands twice comes to the same.

    Args:
        chains: evidence per rollout.

    Returns:
        Per rollout a value in [1 / K, 1]; NaN for one without a decisive step.
    """
    found = []
    for own in chains:
        decisive = [step for step in own if step.is_decisive and step.is_ok]
        shares = [math.fsum(_best(step, other) for other in chains) / len(chains) for step in decisive]
        found.append(math.fsum(shares) / len(shares) if shares else math.nan)
    return found


def _best(step: Evidence, chain: Sequence[Evidence]) -> float:
    return max((agreement(step, other) for other in chain if is_comparable(step, other)), default=0.0)


def calibrated_vote(pool: Pool, fitted: Fitted) -> Choice:
    ballot, confidence = _confident(pool, fitted)
    if fitted.vote is not None and ballot.winner is not None:
        confidence = float(calibrated(fitted.vote, [confidence])[0])
    choice = _winner(ballot, pool.on)
    return Choice(choice.answer, confidence, abstain(ballot, delta=DELTA).is_abstaining)


def _confident(pool: Pool, fitted: Fitted) -> tuple[Ballot, float]:
    """The vote by confidence, and what the winner's votes come to: their sum over K, so that the unsure do not look sure together."""
    given = [draw.facts.confidence for draw in pool.on]
    known = [math.nan if one is None else one if fitted.rollout is None else float(calibrated(fitted.rollout, [one])[0]) for one in given]
    _, ballot = hold_vote([Voter(draw.facts.label, one) for draw, one in zip(pool.on, known, strict=True)], "confidence")
    sure = [one for one in known if not math.isnan(one)]
    return ballot, (ballot.scores[0][1] if ballot.scores else 0.0) * (math.fsum(sure) / len(sure) if sure else 1.0)


def late_fusion(pool: Pool, fitted: Fitted) -> Choice:
    return _fused(pool, 0.5 if fitted.weight is None else fitted.weight)


def _fused(pool: Pool, weight: float) -> Choice:
    on, off = _halves(pool)
    weight_N = np.array([*(weight / len(on) for _ in on), *((1 - weight) / len(off) for _ in off)])
    return _winner(count([draw.facts.label for draw in (*on, *off)], weight_N), (*on, *off))


def _halves(pool: Pool) -> tuple[tuple[Draw, ...], tuple[Draw, ...]]:
    """The first half of the rollouts with tools, and as many without as make K in all: the budget of every other vote.

    Raises:
        ValueError: too few were drawn.
    """
    num = len(pool.on)
    on, off = pool.on[: num - num // 2], pool.off[: num // 2]
    if not off or len(off) < num // 2:
        raise ValueError(f"item {pool.id}: late fusion of {num} rollouts needs {max(1, num // 2)} with all tools off; there are {len(off)}")
    return on, off


# ---------------------------------------------------------------- one rollout


def greedy(pool: Pool, fitted: Fitted) -> Choice:
    """Raises: ValueError: no rollout was made at temperature 0."""
    if pool.greedy is None:
        raise ValueError(f"item {pool.id}: there is no greedy rollout")
    return Choice(pool.greedy.facts.answer)


def process(pool: Pool, fitted: Fitted) -> Choice:
    answered = [draw.facts for draw in pool.on if draw.facts.label is not None]
    best = max(answered, key=lambda facts: round(process_reward(facts.evidence), 12), default=None)
    return Choice(None if best is None else best.answer)


def process_reward(evidence: Sequence[Evidence]) -> float:
    """success + coherence / 2 - repeats, in [-1, 1.5]; 0 for a rollout without steps, which has no process to reward.

    - success: share of steps whose call showed something.
    - coherence: mean likeness of what neighbouring steps touched, over the pairs that both showed something and of which the later is no
      repeat; 0 without such a pair.
    - repeats: share of steps that showed exactly what an earlier one did.
    """
    if not evidence:
        return 0.0
    repeats = [_is_repeat(evidence, place) for place in range(len(evidence))]
    pairs = [(a, b) for a, b, again in zip(evidence, evidence[1:], repeats[1:], strict=False) if a.is_ok and b.is_ok and not again]
    coherence = math.fsum(likeness(a, b) for a, b in pairs) / len(pairs) if pairs else 0.0
    return (sum(step.is_ok for step in evidence) - sum(repeats)) / len(evidence) + COHERENCE * coherence


def _is_repeat(evidence: Sequence[Evidence], place: int) -> bool:
    own = evidence[place]
    return own.is_ok and any(step.op == own.op and _shown(step.output) == _shown(own.output) for step in evidence[:place])


def _shown(output: Output | None) -> object:
    """An output without the number that its track was given."""
    return output.points if isinstance(output, TrkOutput) else output


# ---------------------------------------------------------------- by name


@dataclass(frozen=True)
class Method:
    """A way to answer from a pool."""

    choose: Callable[[Pool, Fitted], Choice]
    draws: Callable[[Pool], tuple[Draw, ...]]
    """The rollouts that it needs: what it costs."""
    is_fitted: bool = False
    """It is worth nothing without another, labelled split."""
    needs_off: bool = False


METHODS: dict[str, Method] = {
    "greedy": Method(greedy, lambda pool: (pool.greedy,) if pool.greedy else ()),
    "majority": Method(majority, lambda pool: pool.on),
    "ranked": Method(ranked, lambda pool: pool.on),
    "calibrated": Method(calibrated_vote, lambda pool: pool.on, is_fitted=True),
    "steps": Method(steps, lambda pool: pool.on),
    "process": Method(process, lambda pool: pool.on),
    "late_fusion": Method(late_fusion, lambda pool: (*_halves(pool)[0], *_halves(pool)[1]), is_fitted=True, needs_off=True),
}


def fit(pools: Sequence[Pool], judge: Judge) -> Fitted:
    """Temperatures and the weight of late fusion, from a split that is not the one under test.

    The weight is the one with the most right answers; of equals the one nearest to 1/2, then the larger.

    Args:
        pools: labelled; their order changes nothing.

    Raises:
        DataError: there is no pool.
    """
    pools = sorted(pools, key=lambda pool: pool.id)
    known = [(draw.facts, pool.id) for pool in pools for draw in pool.on if draw.facts.confidence is not None]
    rollout = _temperature([facts.confidence or 0.0 for facts, _ in known], [judge(item, facts.answer) for facts, item in known])
    votes = [(pool, *_confident(pool, Fitted(rollout=rollout))) for pool in pools]
    votes = [(pool, ballot, confidence) for pool, ballot, confidence in votes if ballot.winner is not None]
    won = [judge(pool.id, _winner(ballot, pool.on).answer) for pool, ballot, _ in votes]
    vote = _temperature([confidence for *_, confidence in votes], won)
    return Fitted(rollout=rollout, vote=vote, weight=_best_weight(pools, judge) if pools and all(pool.off for pool in pools) else None)


def _temperature(confidence_N: Sequence[float], is_right_N: Sequence[int]) -> Temperature | None:
    if not confidence_N:
        return None
    found = fit_calibrator("temperature", confidence_logits(confidence_N), is_right_N)
    assert isinstance(found, Temperature)
    return found


def _best_weight(pools: Sequence[Pool], judge: Judge) -> float:
    num_right = {weight: sum(judge(pool.id, _fused(pool, weight).answer) for pool in pools) for weight in FUSION_WEIGHTS}
    return max(FUSION_WEIGHTS, key=lambda weight: (num_right[weight], -round(abs(weight - 0.5), 6), weight))
