"""From rollouts to recorded facts: what a decision will be made from, and the key by which the query is remembered.

Letters: T tokens, N sampled tokens, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pixelis.core.crops import crops
from pixelis.core.grammar import ANSWER_CLOSE, ANSWER_OPEN
from pixelis.core.trajectory import Trajectory
from pixelis.retrieval.keys import pool_text
from pixelis.rollout.pack import ANSWER, PROMPT, Example
from pixelis.tools.engines.encoder_efficientnet import EfficientNetEncoder
from pixelis.train.policy_learner import Measured
from pixelis.train.step_heads import step_inputs
from pixelis.ttrl.facts import RolloutFacts, rollout_facts
from pixelis.ttrl.insight import Insight
from pixelis.ttrl.stream import Query

KEYS = 2
"""What keys are made of: keys of two kinds do not mix in one memory."""
MAX_CROPS = 12
"""Crops of one trajectory that make its pixel key."""


@dataclass(frozen=True, eq=False)
class Rolled:
    """One rollout, packed and measured."""

    trajectory: Trajectory
    example: Example
    measured: Measured


def observe(one: Rolled, query: Query, *, tokenizer: object, merge: int, insight: Insight | None, seed: int) -> RolloutFacts:
    """The facts of one rollout; confidence and entropy come from the policy's own probabilities.

    Args:
        seed: of the passes with dropout.
    """
    facts = rollout_facts(one.trajectory, choices=query.choices)  # first without numbers: which steps are decisive
    decisive = [number for number, step in enumerate(facts.evidence) if step.is_decisive]
    spans = token_spans(one.example)
    entropies = [float(one.measured.entropy_N[slice(*spans[number])].mean()) for number in decisive if spans.get(number)]
    curious = coherent = None
    if insight is not None:
        inputs = step_inputs(one.trajectory, one.example, one.measured.middle_TD, one.measured.last_TD, merge=merge)
        curious, coherent = insight.look(one.trajectory, inputs, seed=seed)
    return rollout_facts(
        one.trajectory,
        choices=query.choices,
        confidence=answer_confidence(one, tokenizer),
        entropy_nats=float(np.mean(entropies)) if entropies else None,
        curiosity=curious,
        coherence=coherent,
    )


def token_spans(example: Example) -> dict[int, tuple[int, int]]:
    """Where each turn's tokens lie among the sampled ones, by step; `ANSWER` for the last."""
    spans, start = {}, 0
    for turn in example.turns:
        spans[turn.step] = (start, start + turn.end - turn.start)
        start += turn.end - turn.start
    return spans


def answer_confidence(one: Rolled, tokenizer: object) -> float | None:
    """The policy's probability of the words between the answer's tags, given all before; None where it gave no answer."""
    span = token_spans(one.example).get(ANSWER)
    if one.trajectory.answer is None or span is None:
        return None
    turn = next(turn for turn in one.example.turns if turn.step == ANSWER)
    ids = one.example.ids_T[turn.start : turn.end].tolist()
    opened, closed = _tokens_up_to(ANSWER_OPEN, ids, tokenizer), (_tokens_up_to(ANSWER_CLOSE, ids, tokenizer) or len(ids) + 1) - 1
    if opened is None or closed < opened:
        return None
    total = float(one.measured.logp_N[span[0] + opened : span[0] + closed].sum())
    return float(min(1.0, np.exp(total)))


def _tokens_up_to(tag: str, ids: Sequence[int], tokenizer: object) -> int | None:
    """How many tokens there are up to the end of a tag; None without it."""
    return next((k for k in range(1, len(ids) + 1) if tag in tokenizer.decode(ids[:k])), None)


def text_key(one: Rolled, tokenizer: object) -> np.ndarray:
    """The text part: mean over the states of the question and of the last thought tokens, [D].

    The question is what stands in the prompt behind its images: these have a key of their own, and what stands before them is the same in
    every prompt. The thought of the turn that answers ends where the answer begins.
    """
    states_TD, example = one.measured.last_TD.cpu().numpy(), one.example
    is_prompt_T = np.asarray(example.role_T) == PROMPT
    num_prompt = int(is_prompt_T.argmin()) if not is_prompt_T.all() else len(is_prompt_T)
    start = max((placed.end for placed in example.images if placed.end <= num_prompt), default=0)
    thoughts = [states_TD[:0]]
    for turn in example.turns:
        end = turn.act_start
        if turn.step == ANSWER:
            length = _tokens_up_to(ANSWER_OPEN, example.ids_T[turn.start : turn.end].tolist(), tokenizer)
            end = turn.end if length is None else turn.start + length
        thoughts.append(states_TD[turn.start : end])
    return pool_text(states_TD[start:num_prompt], np.concatenate(thoughts))


def pixel_key(
    one: Rolled,
    facts: RolloutFacts,
    query: Query,
    encoder: EfficientNetEncoder,
    change: Callable[[np.ndarray], np.ndarray] = lambda image_HWC: image_HWC,
) -> np.ndarray:
    """The pixel part: a frozen encoder's mean over what decisive steps touched, or over the first frame where none did, [D].

    Args:
        change: what happens to each picture before it is encoded.
    """
    medium, shown = query.task.medium, []
    for step, evidence in zip(one.trajectory.steps, facts.evidence, strict=True):
        if evidence.is_decisive and step.result.output is not None:
            shown += crops(step.result.output.footprint, medium)
    return np.asarray(encoder.embed([change(image) for image in (shown or [medium.frame(0)])[:MAX_CROPS]]), np.float64).mean(0)


def first_of(rolled: Sequence[Rolled], name: str | None) -> Rolled:
    """The rollout of that trajectory, or the first."""
    return next((one for one in rolled if one.trajectory.id == name), rolled[0])
