"""A learner that becomes surer of itself: test-time adaptation by entropy minimisation, the baseline without a vote.

Simplified against Wang et al. (2021) and Zanella et al. (2025): tokens of a generating policy stand for classes, all that learns in Pixel
TTRL learns here instead of normalisation layers or class statistics, and the anchor's KL, the corridor and the roll-back are those of the
loop, so that the two differ in what is learnt and in nothing else. Letters: N sampled tokens, V vocabulary. Source: paper supplement 8.
"""

from __future__ import annotations

from typing import Any

import torch

from pixelis.train.forward import Batch, learnt_logits
from pixelis.train.policy_learner import PolicyLearner
from pixelis.ttrl.losses import token_entropies


class EntropyLearner(PolicyLearner):
    """Keeps the entropies of its latest pass, with their gradient.

    Attributes:
        entropy_N: of the policy where each sampled token was drawn, thoughts, calls and answers alike, nats.
    """

    entropy_N: torch.Tensor

    def _logp(
        self, base: Any, batch: Batch, hidden_BTD: torch.Tensor, *, wants_entropy: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        logits, target_N, _ = learnt_logits(base, batch, hidden_BTD)
        logp_NV = self._policy.sampling.logp(logits)
        self.entropy_N = token_entropies(logp_NV)
        return logp_NV.gather(-1, target_N[:, None])[:, 0], self.entropy_N.detach() if wants_entropy else None
