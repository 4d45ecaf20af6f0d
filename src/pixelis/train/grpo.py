"""The policy loss of phase 2: clipped surrogate and KL to an anchor, averaged over action tokens. Letters: B rollouts, T tokens.

Source: paper §3.2.2; Shao et al. (2024) for GRPO, Yu et al. (2025) for the wider upper clip and the mean over tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CLIP_LOW, CLIP_HIGH = 0.2, 0.28


@dataclass(frozen=True)
class PolicyFacts:
    """What a batch looked like; NaN where it has no action token."""

    kl: float
    """Mean k3 estimate to the anchor, nats per action token."""
    clipped: float
    """Share of action tokens whose clip was active, so that they gave no gradient."""
    mismatch: float
    """Mean |log p now - log p of the sampler|, nats."""
    num_tokens: int
    fall: float = 0.0
    """The most by which a token's log p lies below the anchor's, nats."""


def kl_to_anchor(logp_BT: Tensor, anchor_logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """k3 estimator per token [B, T], never negative, 0 off the mask."""
    # Off the mask these gaps mean nothing. Zeroed before exp(): an overflow there would reach the loss as inf * 0 = NaN.
    to_anchor_BT = torch.where(mask_BT, anchor_logp_BT - logp_BT, torch.zeros_like(logp_BT))
    return to_anchor_BT.exp() - to_anchor_BT - 1


def pull_to_anchor(logp_BT: Tensor, anchor_logp_BT: Tensor, mask_BT: Tensor, most_pull: float) -> Tensor:
    """k3 per token [B, T] as a loss: from where its slope in log p reaches `most_pull` it goes on as a straight line.

    The slope of k3 is 1 - exp(gap). A token that one step has made e^10 times as unlikely, as happens to a sampled one with a negative
    advantage, would pull twenty thousand times as hard as one that has lost half of its chance, and decide the next step alone.
    """
    gap_BT = torch.where(mask_BT, anchor_logp_BT - logp_BT, torch.zeros_like(logp_BT))
    near_BT = gap_BT.clamp(max=math.log1p(most_pull))
    return near_BT.exp() - near_BT - 1 + most_pull * (gap_BT - near_BT)


def grpo_loss(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    anchor_logp_BT: Tensor,
    advantage_B: Tensor,
    mask_BT: Tensor,
    *,
    beta: float,
    clip_low: float = CLIP_LOW,
    clip_high: float = CLIP_HIGH,
    most_pull: float | None = None,
) -> tuple[Tensor, PolicyFacts]:
    """Mean over action tokens of -min(r A, clip(r, 1 - low, 1 + high) A) + beta * KL, with r = p now / p of the sampler.

    Args:
        logp_BT: of the policy that learns, with gradient; the others without.
        mask_BT: bool, True on action tokens.
        most_pull: see `pull_to_anchor`; None is k3 itself.

    Returns:
        The loss, 0 (still with a gradient of 0) when no token is an action's.
    """
    zero = torch.zeros_like(logp_BT)
    gap_BT = torch.where(mask_BT, logp_BT - old_logp_BT, zero)
    ratio_BT, gain_B1 = gap_BT.exp(), advantage_B.to(logp_BT.dtype)[:, None]
    free, clipped = ratio_BT * gain_B1, ratio_BT.clamp(1 - clip_low, 1 + clip_high) * gain_B1
    kl_BT = kl_to_anchor(logp_BT, anchor_logp_BT, mask_BT)
    pull_BT = kl_BT if most_pull is None else pull_to_anchor(logp_BT, anchor_logp_BT, mask_BT, most_pull)
    each_BT = torch.where(mask_BT, -torch.minimum(free, clipped) + beta * pull_BT, zero)
    count = int(mask_BT.sum())
    loss = each_BT.sum() / max(1, count)
    if not count:
        return loss, PolicyFacts(float("nan"), float("nan"), float("nan"), 0)
    is_clipped_BT = mask_BT & (clipped < free)
    return loss, PolicyFacts(
        kl=float(kl_BT.detach().sum()) / count,
        clipped=float(is_clipped_BT.sum()) / count,
        mismatch=float(gap_BT.detach().abs().sum()) / count,
        num_tokens=count,
        fall=float((anchor_logp_BT - logp_BT.detach())[mask_BT].max()),
    )


def kl_of(logp: Sequence[Tensor], anchor_logp: Sequence[Tensor]) -> float:
    """k3 estimate of the token-KL to the anchor, nats per token; NaN without tokens."""
    gap_N = torch.cat(tuple(anchor_logp)) - torch.cat(tuple(logp))
    return float((gap_N.exp() - gap_N - 1).mean())
