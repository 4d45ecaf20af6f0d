"""Settle a tower that has learnt to see: turn its tokens so that a language model reads them soonest, and start words where they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from pixelis.data.world.glances import COLOUR_NAMES, KIND_NAMES
from pixelis.train.newborn import FREQUENCIES
from pixelis.train.sight import NUM_CORNERS, NUM_SLOTS, SLOT_WIDTHS, SightHeads, tokens_of
from pixelis.train.views import View

_SHARE_OF_THINGS = 0.05
"""Of all tokens, those that hold something, about."""


@torch.no_grad()
def settle(visual: Any, heads: SightHeads, views: Sequence[View]) -> None:
    """Turn the tokens so that each number of a token is one thing that the heads read: use, colour, kind, corners, of unit spread.

    What a tower learns under a linear head is spread over directions of very unequal length around a large common mean, and a language
    model learns to read it slowly. An affine map of the tokens mends that, and the merger's last layer takes it in: the model keeps its
    shape. The heads fit the turned tokens no longer.
    """
    tokens_ND = torch.cat([tokens_of(visual, [v.pixels_HWC for v in views[k : k + 32]]) for k in range(0, len(views), 32)])
    width, size = tokens_ND.shape[1], sum(SLOT_WIDTHS)
    slots, corners = heads.slots.weight.view(NUM_SLOTS, size, width), heads.corners.weight.view(NUM_SLOTS, NUM_CORNERS, width, width)
    basis = torch.linalg.svd(heads.codes_LD, full_matrices=False).Vh[: 2 * len(FREQUENCIES)]
    read = [slots[0], *(basis @ corners[0, c] for c in range(NUM_CORNERS)), slots[1, : 1 + len(COLOUR_NAMES)]]
    rows = (torch.cat(read) * heads.norm.weight)[:width]
    rows = rows - rows.mean(1, keepdim=True)
    # What the heads do not read is kept too, at half the size: the largest directions of the rest.
    spread_DD = torch.cov(tokens_ND.T)
    known = torch.linalg.qr(rows.T).Q
    rest = torch.eye(width) - known @ known.T
    others = torch.linalg.eigh(rest @ spread_DD @ rest).eigenvectors.flip(1).T[: width - len(rows)]
    used_N = tokens_ND @ rows[0]
    things_ND = tokens_ND[used_N > used_N.quantile(1 - _SHARE_OF_THINGS)]
    turn = torch.cat([_scaled(part, things_ND, size) for part, size in ((rows, 1.0), (others, 0.5)) if len(part)])
    last = visual.merger.linear_fc2
    last.bias.copy_(turn @ (last.bias - things_ND.mean(0)))
    last.weight.copy_(turn @ last.weight)


@torch.no_grad()
def name_what_is_seen(embedding: Any, tokenizer: Any) -> None:
    """Start the words for colours and kinds where settled tokens say them, so that asking for red and seeing red are alike at once."""
    for first, names in ((1, COLOUR_NAMES), (1 + len(COLOUR_NAMES), KIND_NAMES)):
        for number, name in enumerate(names):
            for word in (name, f" {name}"):
                ids = tokenizer.encode(word, add_special_tokens=False)
                if len(ids) == 1 and first + number < embedding.weight.shape[1]:
                    embedding.weight[ids[0]] = F.one_hot(torch.tensor(first + number), embedding.weight.shape[1])


def _scaled(rows_RD: torch.Tensor, tokens_ND: torch.Tensor, size: float) -> torch.Tensor:
    return rows_RD * (size / (tokens_ND @ rows_RD.T).std(0, correction=0).clamp(min=1e-6))[:, None]
