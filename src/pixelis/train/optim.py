"""The optimisers of small models trained from scratch: Muon for matrices, AdamW for all else, one schedule for both."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

FIRST_MOMENTS = ("exp_avg", "momentum_buffer")
"""What AdamW and Muon call theirs."""


class Optimizer:
    """Muon and AdamW stepped together; their state is saved and loaded as one.

    Muon moves a matrix by its orthogonalised momentum, which in small transformers takes far fewer steps than AdamW. Embeddings,
    output heads, norms and biases stay with AdamW. Source: K. Jordan, Muon (2024), as torch.optim.Muon has it.
    """

    def __init__(self, muon: torch.optim.Optimizer | None, adamw: torch.optim.Optimizer) -> None:
        self.members = [o for o in (muon, adamw) if o is not None]
        for optimizer in self.members:
            for group in optimizer.param_groups:
                group["peak"] = group["lr"]

    def zero_grad(self) -> None:
        for optimizer in self.members:
            optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        for optimizer in self.members:
            optimizer.step()

    @contextmanager
    def by_gradient_alone(self) -> Iterator[None]:
        """In here steps do not go on along earlier gradients: first moments are put aside, and afterwards are what they were, or 0 where
        there were none."""
        aside = {id(moment): moment.clone() for moment in self._first_moments()}
        for moment in self._first_moments():
            moment.zero_()
        try:
            yield
        finally:
            for moment in self._first_moments():
                before = aside.get(id(moment))
                moment.zero_() if before is None else moment.copy_(before)

    def _first_moments(self) -> list[torch.Tensor]:
        states = [state for optimizer in self.members for state in optimizer.state.values()]
        return [state[name] for state in states for name in FIRST_MOMENTS if isinstance(state.get(name), torch.Tensor)]

    def state_dict(self) -> list[dict]:
        return [optimizer.state_dict() for optimizer in self.members]

    def load_state_dict(self, states: Sequence[dict]) -> None:
        for optimizer, state in zip(self.members, states, strict=True):
            optimizer.load_state_dict(state)


def make_optimizer(
    modules: Sequence[tuple[str, nn.Module]], *, rate: float, matrix_rate: float = 0.01, weight_decay: float = 0.01, use_muon: bool = True
) -> Optimizer:
    """An optimiser over the trainable parameters of some modules, tied ones once.

    Args:
        rate: AdamW's peak rate.
        matrix_rate: Muon's, for the matrices inside transformer blocks and mergers.
    """
    matrices, others, seen = [], [], set()
    for _, module in modules:
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            is_matrix = use_muon and parameter.ndim == 2 and any(part in name for part in ("blocks.", "layers.", "merger."))
            (matrices if is_matrix else others).append(parameter)
    muon = torch.optim.Muon(matrices, lr=matrix_rate, weight_decay=weight_decay, momentum=0.95) if matrices else None
    return Optimizer(muon, torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=weight_decay))


def share_done(step: int, steps: int, seconds: float, minutes: float) -> float:
    """How far a run is: by its steps, or by the clock where that is nearer to the end. The first step never depends on the clock."""
    return max(step / steps, seconds / 60 / minutes) if step else 0.0


def set_rate(optimizer: Optimizer, share: float, *, warm_up: float = 0.03, floor: float = 0.02) -> None:
    """Rates at a share in [0, 1] of the schedule: a short rise, then a cosine down to `floor` of the peak."""
    rise = min(1.0, (share + 1e-3) / warm_up)
    fall = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, share - warm_up) / (1 - warm_up))))
    for member in optimizer.members:
        for group in member.param_groups:
            group["lr"] = group["peak"] * rise * fall
