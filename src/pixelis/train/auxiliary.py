"""Auxiliary argument heads: from the states at a call and the tool's confidence to what the call found.

They make the states in which a call is written hold where and when its object is. Only decisive steps have targets, and only the
head of the op that ran learns from one. Letters: B batch, T tokens, S steps, N targets, D hidden size, C classes.
Source: paper §3.2.1, Eq. 1-2; supplement S2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelis.core.arguments import target_of
from pixelis.core.geometry import Box
from pixelis.core.media import MediumInfo
from pixelis.core.ops import OcrOutput, Output, PropOutput, SegOutput, TempOutput, TrkOutput, ZoomOutput
from pixelis.core.trajectory import Trajectory
from pixelis.data.world.raster import SHAPES
from pixelis.tools.engines.prop_colour import COLOUR_NAMES
from pixelis.train.losses import box_loss, span_loss
from pixelis.train.normalisers import confidence_of

LAMBDA_AUX = 0.2
"""L_SFT = L_tok + LAMBDA_AUX * mean(L_aux)."""

OTHER = "other"
CLASSES = (*(f"colour:{name}" for name in COLOUR_NAMES), *(f"shape:{name}" for name in SHAPES), OTHER)
"""What PROP's head tells apart."""

Kind = Literal["box", "track", "span", "attribute"]
KINDS: tuple[Kind, ...] = ("box", "track", "span", "attribute")


@dataclass(frozen=True, eq=False)
class AuxTarget:
    """What one call found, in relative units."""

    kind: Kind
    value: np.ndarray
    """float32: box [4] of SEG, ZOOM, OCR; first and last visible box [8] of TRK; start and end [2] of TEMP; class index [1] of PROP.
    Boxes are x0, y0, x1, y1 in [0, 1] of the frame, times in [0, 1] of the duration."""
    confidence: float
    """The tool's own, in [0, 1]; 1 for ZOOM, which cannot err."""


# ---------------------------------------------------------------- targets


def aux_targets(trajectory: Trajectory, decisive_S: Sequence[bool], *, classes: Sequence[str] = CLASSES) -> list[AuxTarget | None]:
    """The target of each step; None where it is not decisive, failed, or found nothing that can be told.

    Args:
        decisive_S: one flag per step.
        classes: of PROP, `what:value`; must hold `OTHER`, the class of everything else.
    """
    if len(decisive_S) != len(trajectory.steps):
        raise ValueError(f"{len(decisive_S)} flags for the {len(trajectory.steps)} steps of trajectory {trajectory.id}")
    return [
        _target(step.result.output, trajectory.medium, classes) if is_decisive and step.result.is_ok and step.result.output else None
        for step, is_decisive in zip(trajectory.steps, decisive_S, strict=True)
    ]


def _target(output: Output, medium: MediumInfo, classes: Sequence[str]) -> AuxTarget | None:
    match output:
        case SegOutput() | ZoomOutput() | OcrOutput():
            region = target_of(output, None).box  # of a text: where it stands, the region that a later `ref` means
            return _made("box", _relative(region, medium), certainty_of(output)) if region else None
        case TrkOutput():
            seen = [point.box for point in output.visible if point.box]
            return _made("track", [*_relative(seen[0], medium), *_relative(seen[-1], medium)], certainty_of(output)) if seen else None
        case TempOutput():
            if not output.segments or medium.duration_s <= 0:
                return None
            best = output.segments[0]
            return _made("span", np.clip([best.start_s / medium.duration_s, best.end_s / medium.duration_s], 0, 1), certainty_of(output))
        case PropOutput():
            if not output.attributes:
                return None
            first = output.attributes[0]
            name = f"{output.what}:{first.value}"
            return _made("attribute", [classes.index(name if name in classes else OTHER)], certainty_of(output))
    raise AssertionError(output)


def certainty_of(output: Output | None) -> float:
    """A tool's confidence in what it returned as a number in [0, 1]: 1 for ZOOM, which cannot err, 0 where nothing was found."""
    if isinstance(output, ZoomOutput):
        return 1.0
    return (confidence_of(output) if output is not None else None) or 0.0


def _relative(box: Box, medium: MediumInfo) -> list[float]:
    return np.clip(np.array(box.as_tuple()) / ([medium.width, medium.height] * 2), 0, 1).tolist()


def _made(kind: Kind, value: Sequence[float] | np.ndarray, confidence: float) -> AuxTarget | None:
    """None where a tool reported something that is no number: one NaN would end the training of everything."""
    if not np.isfinite([*value, confidence]).all():
        return None
    return AuxTarget(kind, np.array(value, np.float32), float(np.clip(confidence, 0, 1)))


# ---------------------------------------------------------------- heads


def pool_actions(hidden_BTD: Tensor, stretches: Sequence[tuple[int, int, int]]) -> Tensor:
    """Mean state over each call's tokens, [N, D].

    Args:
        stretches: row, first token and the one behind the last, as `TurnSpan.act_start` and `act_end` have them.
    """
    if any(start >= end for _, start, end in stretches):
        raise ValueError("a turn without a call has no states of a call to pool")
    if not stretches:
        return hidden_BTD.new_zeros(0, hidden_BTD.shape[-1])
    return torch.stack([hidden_BTD[row, start:end].mean(0) for row, start, end in stretches])


class AuxiliaryHeads(nn.Module):
    """One small head per kind of target, with one hidden layer.

    Args:
        hidden: size of the states.
        classes: of PROP, as `aux_targets` was given.
        width: of the hidden layer.
    """

    def __init__(self, hidden: int, classes: Sequence[str] = CLASSES, *, width: int = 256) -> None:
        super().__init__()
        self.classes = tuple(classes)
        sizes = {"box": 4, "track": 8, "span": 2, "attribute": len(self.classes)}
        self.heads = nn.ModuleDict(
            {kind: nn.Sequential(nn.Linear(hidden + 1, width), nn.GELU(), nn.Linear(width, sizes[kind])) for kind in KINDS}
        )

    def forward(self, pooled_ND: Tensor, targets: Sequence[AuxTarget]) -> tuple[Tensor, dict[Kind, int]]:
        """Mean loss over all targets, and how many of each kind there were; 0 without any.

        All parameters take part in every call, with gradient 0 where nothing asks for them, so that distributed training, which
        waits for the gradient of each, does not hang on a batch without calls.
        """
        if len(pooled_ND) != len(targets):
            raise ValueError(f"{len(pooled_ND)} pooled states for {len(targets)} targets")
        total = sum(parameter.sum() for parameter in self.parameters()).float() * 0.0
        counts: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        for kind in KINDS:
            rows = [index for index, target in enumerate(targets) if target.kind == kind]
            counts[kind] = len(rows)
            if rows:
                total = total + self._losses(kind, pooled_ND[rows], [targets[index] for index in rows]).sum()
        return total / max(1, len(targets)), counts

    def predict(self, kind: Kind, pooled_ND: Tensor, confidence_N: Tensor) -> Tensor:
        """Boxes [N, 4], first and last box [N, 8], spans [N, 2] in relative units, or logits of classes [N, C]; float32.

        Boxes and spans are told as centre and extent, so that none can be inverted.
        """
        head = self.heads[kind]
        dtype = next(head.parameters()).dtype
        raw = head(torch.cat([pooled_ND.to(dtype), confidence_N.to(dtype)[:, None]], dim=-1)).float()
        if kind == "attribute":
            return raw
        centre, extent = raw.sigmoid().unflatten(-1, (-1, 2, 1 if kind == "span" else 2)).unbind(-2)
        return torch.cat([centre - extent / 2, centre + extent / 2], dim=-1).flatten(-2)

    def _losses(self, kind: Kind, pooled_ND: Tensor, targets: Sequence[AuxTarget]) -> Tensor:
        value = torch.from_numpy(np.stack([target.value for target in targets])).to(pooled_ND.device)
        confidence_N = torch.tensor([target.confidence for target in targets], device=pooled_ND.device)
        predicted = self.predict(kind, pooled_ND, confidence_N)
        match kind:
            case "box":
                return box_loss(predicted, value)
            case "track":
                return box_loss(predicted.unflatten(-1, (2, 4)), value.unflatten(-1, (2, 4))).mean(-1)
            case "span":
                return span_loss(predicted, value)
            case "attribute":
                return F.cross_entropy(predicted, value[:, 0].long(), reduction="none")
