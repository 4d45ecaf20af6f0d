"""The loss of Pixel TTRL, and that of the baseline that sharpens itself. Pure.

Letters: N sampled tokens, V vocabulary. Source: paper §3.2.3, "Objective"; supplement 6; Wang et al. (2021) for entropy minimisation.
"""

from __future__ import annotations

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

    Simplified against Wang et al. (2021) and Zanella et al. (2025): tokens of a generating policy stand for classes, all that learns in
    Pixel TTRL learns here instead of normalisation layers or class statistics, and anchor, corridor and roll-back are those of the loop, so
    that the two differ in what is learnt and in nothing else. Source: paper supplement 8.

    Args:
        entropy_N: of the policy where each token was sampled, nats, with gradient.
        num_tokens: of the whole query.
    """
    return entropy_N.sum() / max(1, num_tokens) + beta * _mean_kl(logp_N, anchor_logp_N, num_tokens)


def _mean_kl(logp_N: Tensor, anchor_logp_N: Tensor, num_tokens: int) -> Tensor:
    """k3 estimate of the KL to the anchor, a part of the mean over the query's tokens."""
    to_anchor_N = anchor_logp_N - logp_N
    return (to_anchor_N.exp() - to_anchor_N - 1).sum() / max(1, num_tokens)
