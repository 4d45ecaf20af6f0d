"""The loss of Pixel TTRL, and that of the baseline that sharpens itself. Pure.

Letters: N sampled tokens, V vocabulary. Source: paper §3.2.3, "Objective"; supplement 6; Wang et al. (2021) for entropy minimisation.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_shares(lengths: list[int], advantages: list[float]) -> list[float]:
    """What each token of a rollout weighs in the policy term: advantage / (rollouts * own tokens), one per rollout.

    So the term is the mean over rollouts of A times the rollout's mean log-probability.
    """
    return [advantage / (len(lengths) * length) if length else 0.0 for length, advantage in zip(lengths, advantages, strict=True)]


def ttrl_loss(logp_N: Tensor, anchor_logp_N: Tensor, share_N: Tensor, *, is_masked: bool, beta: float, num_tokens: int) -> Tensor:
    """-(1 - m) sum share * log pi + beta * (k3 estimate of KL to the anchor, mean over the query's tokens); a part of the query's loss.

    Args:
        logp_N: of the policy, with gradient.
        share_N: of `token_shares`, spread over the tokens.
        is_masked: m: the vote abstained; only the KL acts then, whatever the shares say.
        num_tokens: of the whole query, of which this may be a part.
    """
    policy = logp_N.new_zeros(()) if is_masked else -(share_N * logp_N).sum()
    return policy + beta * _mean_kl(logp_N, anchor_logp_N, num_tokens)


def entropy_loss(entropy_N: Tensor, logp_N: Tensor, anchor_logp_N: Tensor, *, beta: float, num_tokens: int) -> Tensor:
    """Mean token entropy + the same KL term; a part of the query's loss.

    Args:
        entropy_N: of the policy where each token was sampled, nats, with gradient.
        num_tokens: of the whole query.
    """
    return entropy_N.sum() / max(1, num_tokens) + beta * _mean_kl(logp_N, anchor_logp_N, num_tokens)


def token_entropies(logp_NV: Tensor) -> Tensor:
    """Entropy of each row in nats, [N], >= 0.

    Args:
        logp_NV: log-probabilities; minus infinity for what cannot be sampled.
    """
    # 0 * -inf is NaN, and so is the gradient of any other way to write p log p at p = 0.
    known_NV = torch.where(logp_NV.isneginf(), 0.0, logp_NV)
    return -(logp_NV.exp() * known_NV).sum(-1)


def _mean_kl(logp_N: Tensor, anchor_logp_N: Tensor, num_tokens: int) -> Tensor:
    """k3 estimate of the KL to the anchor, a part of the mean over the query's tokens."""
    to_anchor_N = anchor_logp_N - logp_N
    return (to_anchor_N.exp() - to_anchor_N - 1).sum() / max(1, num_tokens)
