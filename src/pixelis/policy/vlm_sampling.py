"""What a policy's probabilities are: the model's logits without the banned tokens, at the sampling temperature.

Sampling and training share this one definition, so that a ratio of 1 means the same policy. Letters: N sequences, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Args:
        temperature: 0 takes the likeliest token; log-probabilities are then those at temperature 1.
        top_p: share of the probability mass that is drawn from. Log-probabilities are those before this cut, which training
            cannot follow; leave it at 1 to learn from what is sampled.
        banned_ids: never drawn; their probability is shared among the others.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    banned_ids: Sequence[int] = ()

    def logp(self, logits_NV: torch.Tensor) -> torch.Tensor:
        """Log-probabilities [N, V] in nats, float32; minus infinity for banned tokens."""
        logits = logits_NV.float()
        if self.temperature > 0 and self.temperature != 1:
            logits = logits / self.temperature
        if self.banned_ids:
            index = torch.tensor(self.banned_ids, device=logits.device)
            logits = logits.index_fill(-1, index, float("-inf"))
        return logits.log_softmax(-1)

    def draw(self, logits_NV: torch.Tensor, uniform_N: Sequence[float]) -> tuple[list[int], list[float]]:
        """One token per sequence and its log-probability.

        Args:
            uniform_N: in [0, 1), one per sequence; it alone decides, whatever else is in the batch.
        """
        logp = self.logp(logits_NV)
        if self.temperature <= 0:
            ids = logp.argmax(-1, keepdim=True)
        else:
            ids = self._invert(logp.exp(), torch.tensor(uniform_N, dtype=torch.float64, device=logp.device))
        return ids[:, 0].tolist(), logp.gather(-1, ids)[:, 0].tolist()

    def _invert(self, probability_NV: torch.Tensor, uniform_N: torch.Tensor) -> torch.Tensor:
        """The token at which the cumulated probability passes `uniform`; likeliest tokens first when there is a cut."""
        order = None
        if self.top_p < 1:
            probability_NV, order = torch.sort(probability_NV, dim=-1, descending=True, stable=True)
            before = probability_NV.cumsum(-1) - probability_NV
            probability_NV = probability_NV.masked_fill(before >= self.top_p, 0.0)
        total = probability_NV.cumsum(-1, dtype=torch.float64)
        ids = torch.searchsorted(total, uniform_N[:, None] * total[:, -1:], right=True).clamp(max=total.shape[-1] - 1)
        return ids if order is None else order.gather(-1, ids)
