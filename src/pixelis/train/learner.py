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
from torch import nn

from pixelis.core.errors import ConfigError
from pixelis.policy.vlm_load import base_of
from pixelis.rollout.pack import Example, weights
from pixelis.train.auxiliary import AuxiliaryHeads, AuxTarget, pool_actions
from pixelis.train.forward import Batch, FeaturesOf, collate, hidden_states, learnt_logits
from pixelis.train.losses import select, token_ce
from pixelis.train.optim import Optimizer, make_optimizer
from pixelis.train.ranks import Ranks, gathered


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

    def silent(self) -> Dose:
        """The same, with nothing to learn."""
        return Dose(self.examples, tuple(np.zeros_like(w) for w in self.weights))


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


class Imitation(nn.Module):
    """One pass over a dose, so that whatever spreads a model over processes sees all of it from one door."""

    def __init__(self, model: Any, heads: AuxiliaryHeads | None, features_of: FeaturesOf) -> None:
        super().__init__()
        self.model, self.heads, self._features_of = model, heads, features_of

    def forward(self, dose: Dose, batch: Batch, *, is_mixed: bool = False) -> tuple[torch.Tensor, ...]:
        """Logits [N, V], targets [N] and weights [N] of the learnt tokens, and the sum of the auxiliary losses."""
        base = base_of(self.model)
        device = base.model.language_model.embed_tokens.weight.device
        with torch.autocast(device.type, torch.bfloat16, enabled=is_mixed):
            hidden_BTD = hidden_states(base, batch, self._features_of)
        learnt = learnt_logits(base, batch, hidden_BTD)
        if self.heads is None:
            return *learnt, hidden_BTD.new_zeros(())
        stretches = [(row, start, end) for row, found in enumerate(dose.targets) for start, end, _ in found]
        targets = [target for found in dose.targets for *_, target in found]
        mean, _ = self.heads(pool_actions(hidden_BTD, stretches), targets)
        return *learnt, mean * max(1, len(targets))


class Learner:
    """Imitation of one model.

    Args:
        model: Qwen3-VL, with or without adapters; its vision tower is frozen here.
        features_of: features of images by name.
        lambda_aux: weight of the auxiliary loss; 0 leaves the heads out.
        smoothing: of the labels.
        rate, matrix_rate, use_muon: of the optimiser; see `make_optimizer`.
        mixed: matrix products of a step in bfloat16, everything else as the weights are. Measuring is never mixed.
        ranks: the processes that learn together.

    Raises:
        ConfigError: Muon over shards.
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
        ranks: Ranks = Ranks(),
    ) -> None:
        self.model, self.base, self.ranks = model, base_of(model), ranks
        self._lambda, self._smoothing, self._clip, self._is_mixed = lambda_aux, smoothing, clip, mixed
        visual, text = self.base.model.visual, self.base.model.language_model
        visual.requires_grad_(False)
        visual.eval()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = AuxiliaryHeads(text.config.hidden_size).to(text.embed_tokens.weight.device) if lambda_aux else None
        if use_muon and ranks.is_sharded:
            raise ConfigError("Muon orthogonalises whole matrices, and FSDP cuts them: set use_muon = false, or launch without --use_fsdp")
        self._imitation = ranks.prepare(Imitation(model, self.heads, features_of), blocks=text.layers, whole=visual)
        modules = [("model", model), *([("heads", self.heads)] if self.heads else [])]
        self.optimizer: Optimizer = make_optimizer(modules, rate=rate, matrix_rate=matrix_rate, use_muon=use_muon)
        self._learning = [p for _, module in modules for p in module.parameters() if p.requires_grad]
        self.num_learning = sum(p.numel() for p in self._learning)

    def step(self, doses: Sequence[Dose]) -> StepFacts:
        """One update from one or several doses, whose gradients are added up, over all processes.

        A loss or gradient that is not finite leaves the weights and the optimiser as they were; the facts say so. `ce` is of this
        process's examples, all else of all.
        """
        self._imitation.train()
        self.base.model.visual.eval()
        self.optimizer.zero_grad()
        count = self.ranks.total(
            [sum(float(w.sum()) for dose in doses for w in dose.weights), sum(len(t) for d in doses for t in d.targets)]
        )
        total, num_targets = count[0] or 1.0, max(1.0, count[1])
        token_sum, aux_sum, ce = 0.0, 0.0, []
        num_tokens = num_learnt = 0
        for number, dose in enumerate(doses, 1):
            with self.ranks.gathering(self._imitation, is_last=number == len(doses)):
                batch = collate(dose.examples, dose.weights)
                logits, target_N, weight_N, aux = self._imitation(dose, batch, is_mixed=self._is_mixed)
                each = token_ce(logits, target_N, smoothing=self._smoothing)
                loss = (each * weight_N).sum() / total + self._lambda * aux / num_targets
                # Gradients of several processes are averaged; the totals above are of all of them.
                (loss * self.ranks.count).backward()
            token_sum, aux_sum = token_sum + float((each.detach() * weight_N).sum()), aux_sum + float(aux.detach())
            ce += _by_row(each.detach(), weight_N, batch)
            num_tokens, num_learnt = num_tokens + batch.num_tokens * bool(len(each)), num_learnt + len(each)
        norm = float(gathered(torch.nn.utils.clip_grad_norm_(self._learning, self._clip)))
        token_sum, aux_sum, num_tokens, num_learnt = self.ranks.total([token_sum, aux_sum, num_tokens, num_learnt])
        token_loss, aux_loss = token_sum / total, aux_sum / num_targets
        is_sound = bool(np.isfinite([token_loss, aux_loss, norm]).all())
        if is_sound:
            self.optimizer.step()
        self.optimizer.zero_grad()
        loss_value = token_loss + self._lambda * aux_loss
        return StepFacts(loss_value, token_loss, aux_loss, norm, int(num_tokens), int(num_learnt), not is_sound, tuple(ce))

    @torch.no_grad()
    def losses(self, dose: Dose) -> list[float]:
        """Mean cross-entropy of each example in nats, without smoothing. All processes must call it alike, as `token_facts`."""
        self._imitation.eval()
        batch = collate(dose.examples, dose.weights)
        logits, target_N, weight_N, _ = self._imitation(Dose(dose.examples, dose.weights), batch)
        return _by_row(token_ce(logits, target_N, smoothing=0.0), weight_N, batch)

    @torch.no_grad()
    def token_facts(self, dose: Dose) -> tuple[np.ndarray, np.ndarray]:
        """Log-probability of each learnt token and entropy of its distribution, in nats, [N] each."""
        self._imitation.eval()
        logits, target_N, *_ = self._imitation(Dose(dose.examples, dose.weights), collate(dose.examples, dose.weights))
        logp = logits.float().log_softmax(-1)
        entropy = -(logp.exp() * logp).sum(-1)
        return logp.gather(-1, target_N[:, None])[:, 0].cpu().numpy(), entropy.cpu().numpy()

    # ------------------------------------------------------------ state

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs to go on with the same bytes."""
        return {
            "model": learning_of(self.model),
            "heads": self.heads.state_dict() if self.heads is not None else None,
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        take_learning(self.model, state["model"])
        if self.heads is not None:
            self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])

    def save(self, folder: str | Path) -> None:
        """Write the model, or its adapters, and the heads. All processes must call it; the first one writes."""
        from safetensors.torch import save_file

        weights_of = {name: gathered(value) for name, value in self.model.state_dict().items()}
        heads = {name: gathered(value) for name, value in self.heads.state_dict().items()} if self.heads is not None else {}
        if self.ranks.is_first:
            self.model.save_pretrained(folder, state_dict=weights_of)
            if heads:
                save_file(heads, str(Path(folder) / "auxiliary_heads.safetensors"))


def learning_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """What learns in a model, by name."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def take_learning(model: nn.Module, values: dict[str, torch.Tensor]) -> None:
    """Put back what `learning_of` gave."""
    own = dict(model.named_parameters())
    for name, value in values.items():
        own[name].copy_(value)


def _by_row(each_N: torch.Tensor, weight_N: torch.Tensor, batch: Batch) -> list[float]:
    """Weighted mean per example; NaN where one learns nothing."""
    row_N = select(batch.weight_BT)[0].to(each_N.device)
    total = each_N.new_zeros(len(batch.weight_BT)).index_add_(0, row_N, each_N * weight_N)
    return (total / each_N.new_zeros(len(total)).index_add_(0, row_N, weight_N)).tolist()
