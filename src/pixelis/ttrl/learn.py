"""One update of Pixel TTRL, and when it is taken back."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pixelis.rollout.pack import Example
from pixelis.train.grpo import kl_of
from pixelis.train.policy_learner import PolicyLearner
from pixelis.ttrl.losses import entropy_loss, token_shares, ttrl_loss

MOST_KL = 0.4
"""Token-KL to the anchor, nats, beyond which an update is taken back."""
MOST_DROP = 0.1
"""Nats per token that the canary set may lose against the start."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What one rollout teaches."""

    example: Example
    logp_N: torch.Tensor
    """Of its sampled tokens under the weights that answered."""
    anchor_logp_N: torch.Tensor
    """Under the anchor of that time."""
    advantage: float


@dataclass(frozen=True)
class Outcome:
    """What became of an update."""

    loss: float
    grad_norm: float
    kl: float
    """After the update, or of the weights that answered where it was taken back; nats per token to the anchor of that time."""
    reached_kl: float
    """After the update, also where it was taken back: what beta is steered by. A wild one counts as twice the bound; NaN without a step."""
    canary: float | None
    """Mean log p of the canary set after the update, nats per token."""
    rolled_back: str
    """Empty, or why the update was taken back."""


@dataclass(eq=False)
class Canary:
    """Trajectories that were right on labelled items of another split: their probability must not fall.

    Args:
        examples: packed; their images lie in the learner's bank.
        start: mean log p before anything was learnt; measured when None.
    """

    examples: Sequence[Example]
    start: float | None = None

    def score(self, learner: PolicyLearner) -> float:
        return float(torch.cat(learner.logp(self.examples)).mean())


def learn(
    learner: PolicyLearner,
    lessons: Sequence[Lesson],
    *,
    is_masked: bool,
    beta: float,
    canary: Canary | None,
    most_kl: float = MOST_KL,
    minimises_entropy: bool = False,
) -> Outcome:
    """Take one step on a query's rollouts; weights and optimiser are put back where it does harm.

    Args:
        lessons: of the rollouts that repeat no other; at least one.
        is_masked: only the KL acts: the optimiser does not go on along what earlier queries taught, either.
        minimises_entropy: become surer instead, whatever the advantages and the mask say.
    """
    device = next(learner.model.parameters()).device  # lessons of a run that was resumed come from the disk
    examples, anchors = [one.example for one in lessons], [one.anchor_logp_N.to(device) for one in lessons]
    sampled, lengths = [one.logp_N.to(device) for one in lessons], [len(part) for part in anchors]
    shares = token_shares(lengths, [one.advantage for one in lessons])

    def loss_of(rows: list[int], logp_N: torch.Tensor, entropy_N: torch.Tensor | None) -> torch.Tensor:
        anchor_N = torch.cat([anchors[k] for k in rows])
        if entropy_N is not None:
            return entropy_loss(entropy_N, logp_N, anchor_N, beta=beta, num_tokens=sum(lengths))
        share_N = torch.cat([torch.full((lengths[k],), shares[k]) for k in rows]).to(logp_N.device)
        return ttrl_loss(logp_N, anchor_N, share_N, is_masked=is_masked, beta=beta, num_tokens=sum(lengths))

    before = copied(learner.state())
    loss, norm, is_skipped = learner.update(examples, loss_of, wants_entropy=minimises_entropy, by_gradient_alone=is_masked)
    if is_skipped:
        return Outcome(loss, norm, kl_of(sampled, anchors), math.nan, None, "the loss or its gradient was not finite")
    kl = kl_of(learner.logp(examples), anchors)
    reached = min(kl, 2 * most_kl) if kl == kl else 2 * most_kl
    score = canary.score(learner) if canary is not None else None
    reason = ""
    if not kl <= most_kl:
        reason = f"token-KL {kl:.3f} is over {most_kl}"
    elif score is not None and canary.start is not None and not score >= canary.start - MOST_DROP:
        reason = f"the canary set fell from {canary.start:.3f} to {score:.3f} nats per token"
    if reason:
        learner.load_state(before)
        kl = kl_of(sampled, anchors)
    return Outcome(loss, norm, kl, reached, score, reason)


def copied(state: dict[str, Any]) -> dict[str, Any]:
    """A learner's state that stays as it is."""
    return {"model": {name: value.clone() for name, value in state["model"].items()}, "optimizer": copy.deepcopy(state["optimizer"])}
