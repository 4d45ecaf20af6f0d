"""The learner: a model, its auxiliary heads and its optimiser, and one guarded step of imitation.

It is the same for a model of three million parameters trained whole and for one of eight billion with LoRA; which parameters learn
follows from what requires a gradient. Letters: B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelis.policy.vlm_load import base_of
from pixelis.rollout.pack import Example, weights
from pixelis.train.auxiliary import AuxiliaryHeads, AuxTarget, pool_actions
from pixelis.train.forward import Batch, FeaturesOf, collate, hidden_states, learnt_logits
from pixelis.train.losses import token_ce
from pixelis.train.optim import Optimizer, make_optimizer


@dataclass(frozen=True)
class Dose:
    """What one step learns from: examples, the weight of each token, and what their calls found."""

    examples: tuple[Example, ...]
    weights: tuple[np.ndarray, ...]
    targets: tuple[tuple[tuple[int, int, AuxTarget], ...], ...] = ()
    """Per example: (first token, the one behind the last, target) of each call whose result was decisive."""

    @classmethod
    def plain(cls, examples: Sequence[Example]) -> Dose:
        """Examples with the weights of their roles, without targets."""
        return cls(tuple(examples), tuple(weights(example) for example in examples))


@dataclass(frozen=True)
class StepFacts:
    """What a step did. `ce` is each example's mean cross-entropy in nats, weighted as the loss is."""

    loss: float
    token_loss: float
    aux_loss: float
    grad_norm: float
    num_tokens: int
    num_learnt: int
    is_skipped: bool
    ce: tuple[float, ...]


class Learner:
    """Imitation of one model.

    Args:
        model: Qwen3-VL, with or without adapters; its vision tower is frozen here.
        features_of: features of images by name.
        lambda_aux: weight of the auxiliary loss; 0 leaves the heads out.
        smoothing: of the labels.
        rate, matrix_rate, use_muon: of the optimiser; see `make_optimizer`.
        mixed: matrix products of a step in bfloat16, everything else as the weights are. Measuring is never mixed.
    """

    def __init__(
        self,
        model: Any,
        features_of: FeaturesOf,
        *,
        lambda_aux: float = 0.2,
        smoothing: float = 0.05,
        clip: float = 1.0,
        rate: float = 1e-3,
        matrix_rate: float = 0.01,
        use_muon: bool = True,
        mixed: bool = False,
        seed: int = 0,
    ) -> None:
        self.model, self.base, self._features_of = model, base_of(model), features_of
        self._lambda, self._smoothing, self._clip, self._is_mixed = lambda_aux, smoothing, clip, mixed
        self.base.model.visual.requires_grad_(False)
        self.base.model.visual.eval()
        text = self.base.model.language_model
        self.device = text.embed_tokens.weight.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = AuxiliaryHeads(text.config.hidden_size).to(self.device) if lambda_aux else None
        modules = [("model", model), *([("heads", self.heads)] if self.heads else [])]
        self.optimizer: Optimizer = make_optimizer(modules, rate=rate, matrix_rate=matrix_rate, use_muon=use_muon)
        self._learning = [p for _, module in modules for p in module.parameters() if p.requires_grad]

    @property
    def num_learning(self) -> int:
        return sum(p.numel() for p in self._learning)

    def step(self, doses: Sequence[Dose]) -> StepFacts:
        """One update from one or several doses, whose gradients are added up.

        A loss or gradient that is not finite leaves the weights and the optimiser as they were; the facts say so.
        """
        self.model.train()
        self.base.model.visual.eval()
        self.optimizer.zero_grad()
        total = sum(float(w.sum()) for dose in doses for w in dose.weights) or 1.0
        num_targets = max(1, sum(len(t) for dose in doses for t in dose.targets))
        token_sum, aux_sum, ce = 0.0, 0.0, []
        num_tokens = num_learnt = 0
        for dose in doses:
            batch = collate(dose.examples, dose.weights)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._is_mixed):
                hidden = hidden_states(self.base, batch, self._features_of)
            each, weight_N, rows = self._token_ce(batch, hidden)
            loss = (each * weight_N).sum() / total
            token_sum += float((each.detach() * weight_N).sum())
            ce += _by_row(each.detach(), weight_N, rows, len(dose.examples))
            if self.heads is not None and any(dose.targets):
                aux = self._aux(dose, hidden)
                aux_sum += float(aux.detach())
                loss = loss + self._lambda * aux / num_targets
            loss.backward()
            num_tokens, num_learnt = num_tokens + batch.num_tokens, num_learnt + len(each)
        norm = float(torch.nn.utils.clip_grad_norm_(self._learning, self._clip))
        token_loss, aux_loss = token_sum / total, aux_sum / num_targets
        is_sound = bool(np.isfinite([token_loss, aux_loss, norm]).all())
        if is_sound:
            self.optimizer.step()
        self.optimizer.zero_grad()
        return StepFacts(token_loss + self._lambda * aux_loss, token_loss, aux_loss, norm, num_tokens, num_learnt, not is_sound, tuple(ce))

    def _token_ce(self, batch: Batch, hidden_BTD: torch.Tensor, *, smoothing: float | None = None) -> tuple[torch.Tensor, ...]:
        logits, target_N, weight_N = learnt_logits(self.base, batch, hidden_BTD)
        rows = torch.nonzero(batch.weight_BT > 0, as_tuple=True)[0]
        return token_ce(logits, target_N, smoothing=self._smoothing if smoothing is None else smoothing), weight_N, rows

    def _aux(self, dose: Dose, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """Sum of the auxiliary losses."""
        stretches = [(row, start, end) for row, found in enumerate(dose.targets) for start, end, _ in found]
        targets = [target for found in dose.targets for *_, target in found]
        mean, _ = self.heads(pool_actions(hidden_BTD, stretches), targets)
        return mean * len(targets)

    @torch.no_grad()
    def losses(self, dose: Dose) -> list[float]:
        """Mean cross-entropy of each example in nats, without smoothing."""
        self.model.eval()
        batch = collate(dose.examples, dose.weights)
        each, weight_N, rows = self._token_ce(batch, hidden_states(self.base, batch, self._features_of), smoothing=0.0)
        return _by_row(each, weight_N, rows, len(dose.examples))

    @torch.no_grad()
    def token_facts(self, dose: Dose) -> tuple[np.ndarray, np.ndarray]:
        """Log-probability of each learnt token and entropy of its distribution, in nats, [N] each."""
        self.model.eval()
        batch = collate(dose.examples, dose.weights)
        logits, target_N, _ = learnt_logits(self.base, batch, hidden_states(self.base, batch, self._features_of))
        logp = logits.float().log_softmax(-1)
        entropy = -(logp.exp() * logp).sum(-1)
        return logp.gather(-1, target_N[:, None])[:, 0].cpu().numpy(), entropy.cpu().numpy()

    # ------------------------------------------------------------ state

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs to go on with the same bytes."""
        learning = {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}
        return {
            "model": learning,
            "heads": self.heads.state_dict() if self.heads is not None else None,
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        own = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in state["model"].items():
                own[name].copy_(value)
        if self.heads is not None:
            self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])

    def save_heads(self, folder: str | Path) -> None:
        if self.heads is not None:
            from safetensors.torch import save_file

            save_file(self.heads.state_dict(), str(Path(folder) / "auxiliary_heads.safetensors"))


def _by_row(each_N: torch.Tensor, weight_N: torch.Tensor, rows_N: torch.Tensor, num_rows: int) -> list[float]:
    """Weighted mean per row; NaN where a row learns nothing."""
    rows_N = rows_N.to(each_N.device)
    total = each_N.new_zeros(num_rows).index_add_(0, rows_N, each_N * weight_N)
    return (total / each_N.new_zeros(num_rows).index_add_(0, rows_N, weight_N)).tolist()
