"""The loss of Pixel TTRL. Letters: N sampled tokens. Source: paper §3.2.3, "Objective"; supplement 6."""

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
    to_anchor_N = anchor_logp_N - logp_N
    kl = (to_anchor_N.exp() - to_anchor_N - 1).sum() / max(1, num_tokens)
    policy = logp_N.new_zeros(()) if is_masked else -(share_N * logp_N).sum()
    return policy + beta * kl
