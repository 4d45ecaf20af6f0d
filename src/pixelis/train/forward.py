"""From packed examples to hidden states: one padded batch, one pass of the language model over features of a frozen tower.

The vision tower does not learn here (small models learnt to see before; large ones adapt their language model only), so an image's
features are computed once and looked up. Padding stands behind, where causal attention never looks, so no mask is needed.
Letters: B batch, T tokens, N selected items, D hidden size, V vocabulary, L deepstack layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pixelis.policy.vlm_vision import Features
from pixelis.rollout.pack import Example
from pixelis.train.losses import select

FeaturesOf = Callable[[Sequence[str]], list[Features]]
"""Features of images by name, in order."""


@dataclass(frozen=True)
class Batch:
    ids_BT: torch.Tensor
    weight_BT: torch.Tensor
    positions_3BT: torch.Tensor
    images: tuple[tuple[int, int, int, str], ...]
    """(row, start, end, name) of every image, rows ascending, starts ascending within a row."""
    num_tokens: int
    """Without padding."""


def collate(examples: Sequence[Example], weights: Sequence[np.ndarray], *, pad_id: int = 0) -> Batch:
    """Examples padded behind to the longest.

    Args:
        weights: float32 [T] per example, from `rollout.pack.weights`.
    """
    longest = max(len(example) for example in examples)
    ids = np.full((len(examples), longest), pad_id, np.int64)
    weight = np.zeros((len(examples), longest), np.float32)
    positions = np.zeros((3, len(examples), longest), np.int64)
    images = []
    for row, (example, weight_T) in enumerate(zip(examples, weights, strict=True)):
        length = len(example)
        ids[row, :length], weight[row, :length], positions[:, row, :length] = example.ids_T, weight_T, example.positions_3T
        images += [(row, placed.start, placed.end, placed.image.sha256) for placed in example.images]
    return Batch(torch.from_numpy(ids), torch.from_numpy(weight), torch.from_numpy(positions), tuple(images), sum(len(e) for e in examples))


def hidden_states(base: Any, batch: Batch, features_of: FeaturesOf) -> torch.Tensor:
    """Last hidden states [B, T, D] of a Qwen3-VL model.

    A batch without images runs as it is: the tower takes no part in the gradient, so no dummy image is needed for it.

    Raises:
        RuntimeError: an image's features do not fill its place.
    """
    text = base.model.language_model
    device = text.embed_tokens.weight.device
    embeds = text.embed_tokens(batch.ids_BT.to(device))
    extra: dict[str, Any] = {}
    if batch.images:
        found = features_of([name for *_, name in batch.images])
        for (row, start, end, name), features in zip(batch.images, found, strict=True):
            if features.tokens_ND.shape[0] != end - start:
                raise RuntimeError(f"image {name:.16} has {features.tokens_ND.shape[0]} features for {end - start} tokens in row {row}")
        at_B, at_T = _places(batch)
        tokens = torch.cat([f.tokens_ND for f in found]).to(device, embeds.dtype)
        embeds = embeds.index_put((at_B.to(device), at_T.to(device)), tokens)
        deep = torch.cat([f.deep_LND for f in found], dim=1)
        if deep.shape[0]:
            mask = torch.zeros(batch.ids_BT.shape, dtype=torch.bool, device=device)
            mask[at_B, at_T] = True
            extra = {"visual_pos_masks": mask, "deepstack_visual_embeds": list(deep.to(device, embeds.dtype))}
    return text(inputs_embeds=embeds, position_ids=batch.positions_3BT.to(device), use_cache=False, **extra).last_hidden_state


def _places(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.cat([torch.full((end - start,), row) for row, start, end, _ in batch.images])
    return rows, torch.cat([torch.arange(start, end) for _, start, end, _ in batch.images])


def learnt_logits(base: Any, batch: Batch, hidden_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits [N, V], targets [N] and weights [N] of the tokens that are learnt, and of no others."""
    row_N, at_N = select(batch.weight_BT)
    logits = base.lm_head(hidden_BTD[row_N.to(hidden_BTD.device), at_N.to(hidden_BTD.device) - 1])
    return logits, batch.ids_BT[row_N, at_N].to(logits.device), batch.weight_BT[row_N, at_N].to(logits.device)
