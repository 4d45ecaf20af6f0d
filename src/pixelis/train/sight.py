"""Learn to see: the vision tower is trained densely, before any language, to say what lies where.

Answers alone teach a small model from scratch nothing about pixels. Here every patch is asked: does something have its centre here, which
colour and kind is it, where exactly, how large; and every visual token must say the coordinates with which a call would point at the (at
most two) things in it, in the codes that the language model's embeddings of coordinates start from. The heads read the tokens that the
language model will get (the merger's output) and are not part of the model. Shape letters: B views, P patches, V visual tokens, N patches
that hold a centre, M things that stand in a slot of a token, S slots, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pixelis.data.world.glances import COLOUR_NAMES, KIND_NAMES
from pixelis.rollout.teacher.hand import GRID
from pixelis.train.newborn import place_codes
from pixelis.train.views import MERGE, PATCH, View, grid_of, patches_of, pointing_box

NUM_BOX = 6
"""Centre and size in [0, 1] of the picture, and the centre's place within its patch."""
_WIDTHS = (1, len(COLOUR_NAMES), len(KIND_NAMES), NUM_BOX)
NUM_SLOTS = 2
"""Things of one visual token that are pointed at, from left to right; further ones are left to the patches."""
NUM_CORNERS = 4
_SHARPNESS = 8.0
"""Length of a place's code in the heads."""
SLOT_WIDTHS = (1, len(COLOUR_NAMES), len(KIND_NAMES))
"""Use, colour and kind of a slot."""


@dataclass(frozen=True)
class Targets:
    """What each patch of a batch should say."""

    is_centre_P: torch.Tensor
    at_N: torch.Tensor
    colour_N: torch.Tensor
    kind_N: torch.Tensor
    box_N6: torch.Tensor
    slot_M: torch.Tensor
    """Index of the slot, token times `NUM_SLOTS`."""
    slot_colour_M: torch.Tensor
    slot_kind_M: torch.Tensor
    places_M4: torch.Tensor
    """Left, top, right, bottom of the pointing box, in steps of the teacher's grid."""


def targets_of(views: Sequence[View]) -> Targets:
    """Where two things have their centre in one patch, the smaller one counts: the larger is seen from its other patches."""
    found: dict[int, tuple[float, int, int, tuple[float, ...]]] = {}
    offset = 0
    slots: list[tuple[int, int, int, tuple[int, ...]]] = []
    for view in views:
        _, rows, cols = grid_of(view.pixels_HWC)
        in_token: dict[int, int] = {}
        for thing in view.things:
            x0, y0, x1, y1 = thing.box
            cx, cy, w, h = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
            col, row = min(int(cx * cols), cols - 1), min(int(cy * rows), rows - 1)
            place = offset + patch_place(row, col, cols)
            if place not in found or w * h < found[place][0]:
                found[place] = (w * h, thing.colour, thing.kind, (cx, cy, w, h, cx * cols - col, cy * rows - row))
            token = place // MERGE**2
            number = in_token.get(token, 0)
            in_token[token] = number + 1
            if number < NUM_SLOTS:
                places = tuple(value // GRID for value in pointing_box(thing, view))
                slots.append((token * NUM_SLOTS + number, thing.colour, thing.kind, places))
        offset += rows * cols
    is_centre = torch.zeros(offset)
    at = torch.tensor(sorted(found), dtype=torch.long)
    is_centre[at] = 1.0
    rows_found = [found[int(place)] for place in at]
    return Targets(
        is_centre,
        at,
        torch.tensor([r[1] for r in rows_found], dtype=torch.long),
        torch.tensor([r[2] for r in rows_found], dtype=torch.long),
        torch.tensor([r[3] for r in rows_found], dtype=torch.float32).reshape(-1, NUM_BOX),
        *(torch.tensor([slot[i] for slot in slots], dtype=torch.long) for i in range(3)),
        torch.tensor([slot[3] for slot in slots], dtype=torch.long).reshape(-1, NUM_CORNERS),
    )


def patch_place(row: int, col: int, cols: int) -> int:
    """Where the patch at (row, col) stands in the processor's order."""
    block = (row // MERGE) * (cols // MERGE) + col // MERGE
    return block * MERGE**2 + (row % MERGE) * MERGE + col % MERGE


class SightHeads(nn.Module):
    """Linear maps from a visual token to what its four patches hold, to what stands in its slots, and to where a call would point."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.patches = nn.Linear(width, MERGE**2 * sum(_WIDTHS))
        self.slots = nn.Linear(width, NUM_SLOTS * sum(SLOT_WIDTHS))
        self.corners = nn.Linear(width, NUM_SLOTS * NUM_CORNERS * width)
        self.register_buffer("codes_LD", place_codes(width)[::GRID] * _SHARPNESS)

    def forward(self, tokens_VD: torch.Tensor) -> Outputs:
        x = self.norm(tokens_VD)
        centre, colour, kind, box = self.patches(x).view(-1, sum(_WIDTHS)).split(_WIDTHS, dim=-1)
        is_used, slot_colour, slot_kind = self.slots(x).view(-1, sum(SLOT_WIDTHS)).split(SLOT_WIDTHS, dim=-1)
        corners = self.corners(x).view(-1, NUM_CORNERS, x.shape[-1])
        return Outputs(centre[:, 0], colour, kind, box, is_used[:, 0], slot_colour, slot_kind, corners, self.codes_LD)


@dataclass(frozen=True)
class Outputs:
    """Logits and boxes, patches and slots in the processor's order; S slots."""

    centre_P: torch.Tensor
    colour_PC: torch.Tensor
    kind_PC: torch.Tensor
    box_P6: torch.Tensor
    used_S: torch.Tensor
    slot_colour_SC: torch.Tensor
    slot_kind_SC: torch.Tensor
    corners_S4D: torch.Tensor
    codes_LD: torch.Tensor
    """Codes of the places that a corner is compared with."""

    def places(self, slot_M: torch.Tensor) -> torch.Tensor:
        """Logits [M, 4, L] of the corners' places."""
        return self.corners_S4D[slot_M] @ self.codes_LD.T


def sight_loss(out: Outputs, truth: Targets) -> tuple[torch.Tensor, dict[str, float]]:
    """Sum of the parts: centre (a centre weighs 4), colour, kind, the box (L1), and the slots' use, names and places."""
    at, slot = truth.at_N, truth.slot_M
    is_used_S = torch.zeros_like(out.used_S).index_fill_(0, slot, 1.0)
    weight = out.box_P6.new_tensor([8.0, 8.0, 8.0, 8.0, 1.0, 1.0])
    parts = {
        "centre": _presence(out.centre_P, truth.is_centre_P),
        "colour": _mean_ce(out.colour_PC[at], truth.colour_N),
        "kind": 0.7 * _mean_ce(out.kind_PC[at], truth.kind_N),
        "box": 2.0 * ((out.box_P6[at] - truth.box_N6).abs() * weight).sum(-1).sum() / max(1, len(at)),
        "used": _presence(out.used_S, is_used_S),
        "name": _mean_ce(out.slot_colour_SC[slot], truth.slot_colour_M) + 0.7 * _mean_ce(out.slot_kind_SC[slot], truth.slot_kind_M),
        "places": 4.0 * _mean_ce(out.places(slot).flatten(0, 1), truth.places_M4.flatten()),
    }
    return sum(parts.values()), {name: float(part.detach()) for name, part in parts.items()}


def _presence(logits: torch.Tensor, is_there: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of presence, in all, over the number of those that are there; what is there weighs 4."""
    total = F.binary_cross_entropy_with_logits(logits, is_there, pos_weight=logits.new_tensor(4.0), reduction="sum")
    return total / is_there.sum().clamp(min=1)


def _mean_ce(logits_NC: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy; 0 where there is nothing."""
    return F.cross_entropy(logits_NC, target_N, reduction="sum") / max(1, len(target_N))


@torch.no_grad()
def sight_scores(out: Outputs, truth: Targets) -> dict[str, float]:
    """Recall and precision of centres; where one is, how often colour, kind and both are right; of the places that slots point at, the
    share that is at most one step of the grid off, and the mean error in thousandths of the picture's sides."""
    said, true, at, slot = out.centre_P > 0, truth.is_centre_P > 0.5, truth.at_N, truth.slot_M
    hit = float((said & true).sum())
    is_colour, is_kind = out.colour_PC[at].argmax(-1) == truth.colour_N, out.kind_PC[at].argmax(-1) == truth.kind_N
    off = (out.places(slot).argmax(-1) - truth.places_M4).abs().float()
    return {
        "recall": hit / max(1.0, float(true.sum())),
        "precision": hit / max(1.0, float(said.sum())),
        "colour": float(is_colour.float().mean()),
        "kind": float(is_kind.float().mean()),
        "both": float((is_colour & is_kind).float().mean()),
        "near": float((off <= 1).float().mean()),
        "off": float(off.mean()) * GRID,
    }


# ---------------------------------------------------------------- the tower


def fold_time(visual: Any) -> Callable[[], None]:
    """Let the patch embedding read one frame instead of two equal ones: the kernel's halves are added. Returns how to undo it."""
    embed = visual.patch_embed
    before = embed.forward

    def forward(patches: torch.Tensor) -> torch.Tensor:
        return F.linear(patches, embed.proj.weight.sum(2).flatten(1), embed.proj.bias)

    embed.forward = forward

    def undo() -> None:
        embed.forward = before

    return undo


def start_smooth(visual: Any) -> None:
    """Start the patch embedding from the lowest cosines of each colour channel: what a coarse eye sees first."""
    weight = visual.patch_embed.proj.weight
    dim = weight.shape[0]
    x = (torch.arange(PATCH) + 0.5) * math.pi / PATCH
    waves = sorted(((u, v) for u in range(8) for v in range(8)), key=lambda p: (p[0] ** 2 + p[1] ** 2, p))
    basis = [
        torch.outer(torch.cos(v * x), torch.cos(u * x)) * channel.view(3, 1, 1)
        for u, v in waves
        for channel in (torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, 0.0, -1.0]), torch.tensor([-0.5, 1.0, -0.5]))
    ]
    with torch.no_grad():
        for k, wave in enumerate(basis[:dim]):
            weight[k] = (wave / wave.norm() / PATCH * 4).unsqueeze(1).expand(3, weight.shape[2], PATCH, PATCH) / weight.shape[2]


_PLACE_SIZE = 3.0


def start_placed(visual: Any) -> None:
    """Start the learnt positions as a code of the column plus a code of the row, all codes orthogonal.

    From random numbers each place of the grid must be learnt on its own before a column means anything. With as many positions as an
    image has patches, and ten visual tokens a side, a token's column is the first digit of what lies in it, and the second is local.
    """
    table = visual.pos_embed.weight
    side = math.isqrt(table.shape[0])
    random = torch.randn(table.shape[1], max(2 * side, 1), generator=torch.Generator().manual_seed(0))
    codes = torch.linalg.qr(random).Q.T[: 2 * side] * _PLACE_SIZE if 2 * side <= table.shape[1] else random.T / math.sqrt(table.shape[1])
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    with torch.no_grad():
        table.copy_((codes[:side][column] + codes[side:][row]).flatten(0, 1))


def tokens_of(visual: Any, views: Sequence[np.ndarray]) -> torch.Tensor:
    """Visual tokens [N, D] of views uint8 [H, W, 3], one behind the other, through a tower whose time is folded."""
    patches = torch.from_numpy(np.concatenate([patches_of(view) for view in views]))
    grids = torch.tensor([grid_of(view) for view in views])
    return visual(patches, grids).pooler_output
