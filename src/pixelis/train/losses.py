"""The losses of imitation: weighted cross-entropy of tokens, and regression of boxes and time spans. Pure functions.

Letters: B batch, T tokens, N selected items, V vocabulary, D hidden size. Source: paper §3.2.1, Eq. 1-2.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

DEGENERATE = 1e-6
"""Area (or length) in relative units below which a union counts as nothing: one cell of the 0-1000 grid. Dividing by less
would let one sliver of a box drown the gradient of all others."""


# ---------------------------------------------------------------- tokens


def select(weight_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the tokens that are learnt, int64 [N] each; token (b, t) is predicted from the state at (b, t - 1).

    Only these states are worth a row of logits:
    `row, at = select(weight_BT); logits_NV = lm_head(hidden_BTD[row, at - 1])`.

    Raises:
        ValueError: a first token is to be learnt, which nothing stands before.
    """
    row_N, at_N = torch.nonzero(weight_BT > 0, as_tuple=True)
    if (weight_BT[:, :1] > 0).any():
        raise ValueError("the first token of a sequence has a weight, but nothing stands before it to predict it from")
    return row_N, at_N


def token_ce(logits_NV: Tensor, target_N: Tensor, *, smoothing: float = 0.05) -> Tensor:
    """Cross-entropy of each token in nats, float32 [N], with `smoothing` of the target's mass spread over the whole vocabulary."""
    return F.cross_entropy(logits_NV.float(), target_N, reduction="none", label_smoothing=smoothing)


def token_entropies(logp_NV: Tensor) -> Tensor:
    """Entropy of each row in nats, [N], >= 0.

    Args:
        logp_NV: log-probabilities; minus infinity for what cannot be sampled.
    """
    # 0 * -inf is NaN, and so is the gradient of any other way to write p log p at p = 0.
    known_NV = torch.where(logp_NV.isneginf(), 0.0, logp_NV)
    return -(logp_NV.exp() * known_NV).sum(-1)


def token_loss(logits_NV: Tensor, target_N: Tensor, weight_N: Tensor, *, smoothing: float = 0.05) -> Tensor:
    """Masked imitation loss: the sum of w * CE over the sum of w; 0, with gradient 0, where nothing is learnt.

    For a loss over several chunks or batches add up `token_loss_sum` and divide once, by the weight of all.

    Source: paper §3.2.1.
    """
    return token_loss_sum(logits_NV, target_N, weight_N, smoothing=smoothing) / _or_one(weight_N.float().sum())


def token_loss_sum(logits_NV: Tensor, target_N: Tensor, weight_N: Tensor, *, smoothing: float = 0.05) -> Tensor:
    """The sum of w * CE. Rows of weight 0 are dropped before anything is computed: garbage there reaches neither loss nor gradient."""
    is_learnt_N = weight_N > 0
    if not bool(is_learnt_N.all()):
        logits_NV, target_N, weight_N = logits_NV[is_learnt_N], target_N[is_learnt_N], weight_N[is_learnt_N]
    return (weight_N.float() * token_ce(logits_NV, target_N, smoothing=smoothing)).sum()


# ---------------------------------------------------------------- boxes


def box_loss(pred_N4: Tensor, target_N4: Tensor) -> Tensor:
    """Sum of absolute differences + 1 - GIoU of each pair, [N]; x0, y0, x1, y1 in [0, 1].

    Source: paper §3.2.1, Eq. 1.
    """
    return (pred_N4 - target_N4).abs().sum(-1) + 1 - generalized_iou(pred_N4, target_N4)


def generalized_iou(a_N4: Tensor, b_N4: Tensor) -> Tensor:
    """IoU less the share of the common hull that neither covers, in [-1, 1], of each pair of x0, y0, x1, y1 boxes; [N].

    An inverted box is empty; the IoU of two empty boxes is 0.

    Source: Rezatofighi et al. 2019.
    """
    shared_N = _area(torch.maximum(a_N4[..., :2], b_N4[..., :2]), torch.minimum(a_N4[..., 2:], b_N4[..., 2:]))
    union_N = _area(a_N4[..., :2], a_N4[..., 2:]) + _area(b_N4[..., :2], b_N4[..., 2:]) - shared_N
    hull_N = _area(torch.minimum(a_N4[..., :2], b_N4[..., :2]), torch.maximum(a_N4[..., 2:], b_N4[..., 2:]))
    return _ratio(shared_N, union_N) - _ratio(hull_N - union_N, hull_N)


def _area(low_N2: Tensor, high_N2: Tensor) -> Tensor:
    return (high_N2 - low_N2).clamp(min=0).prod(-1)


# ---------------------------------------------------------------- time spans


def span_loss(pred_N2: Tensor, target_N2: Tensor) -> Tensor:
    """Sum of absolute differences + 1 - tIoU of each pair, [N]; start and end in [0, 1] of the duration.

    Source: paper §3.2.1, Eq. 1.
    """
    return (pred_N2 - target_N2).abs().sum(-1) + 1 - temporal_iou(pred_N2, target_N2)


def temporal_iou(a_N2: Tensor, b_N2: Tensor) -> Tensor:
    """Intersection over union of each pair of (start, end), in [0, 1], [N]; two equal instants count as 1, as in `TimeSpan.tiou`."""
    shared_N = (torch.minimum(a_N2[..., 1], b_N2[..., 1]) - torch.maximum(a_N2[..., 0], b_N2[..., 0])).clamp(min=0)
    union_N = (a_N2[..., 1] - a_N2[..., 0]).clamp(min=0) + (b_N2[..., 1] - b_N2[..., 0]).clamp(min=0) - shared_N
    is_equal_N = (a_N2[..., 0] - b_N2[..., 0]).abs() <= DEGENERATE
    return torch.where(union_N > DEGENERATE, _ratio(shared_N, union_N), is_equal_N.to(union_N.dtype))


def _ratio(part_N: Tensor, whole_N: Tensor) -> Tensor:
    """part / whole, and 0 without any gradient where the whole is nothing."""
    is_something_N = whole_N > DEGENERATE
    # Both branches of where() are differentiated: the divisor itself has to be harmless, or 0 * inf reaches the gradient as NaN.
    return torch.where(is_something_N, part_N / torch.where(is_something_N, whole_N, 1.0), 0.0)


def _or_one(total: Tensor) -> Tensor:
    return torch.where(total > 0, total, 1.0)
