"""What phase 2 does to a model: log-probabilities of the policy and of its anchor, pooled states, and one guarded policy step.

A model trained whole keeps a frozen copy of its language model as the anchor; one with adapters switches to the anchor's adapter.
Letters: N sampled tokens, T tokens, D hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from pixelis.policy.adapters import ANCHOR, using
from pixelis.policy.vlm import VlmPolicy
from pixelis.policy.vlm_vision import Features
from pixelis.rollout.pack import Example, weights
from pixelis.train.bank import FeatureBank
from pixelis.train.forward import Batch, FeaturesOf, collate, hidden_states, learnt_logits
from pixelis.train.grpo import PolicyFacts, grpo_loss
from pixelis.train.learner import learning_of, take_learning
from pixelis.train.losses import select
from pixelis.train.optim import Optimizer, make_optimizer

FROM_TOP = 3
"""Which block's output stands for what was seen, counted from the last."""


@dataclass(frozen=True, eq=False)
class Measured:
    """One example under the present weights; the tokens are those the policy sampled, in order."""

    logp_N: torch.Tensor
    anchor_logp_N: torch.Tensor
    middle_TD: torch.Tensor
    last_TD: torch.Tensor


@dataclass(frozen=True)
class UpdateFacts:
    """What one optimiser step did."""

    loss: float
    grad_norm: float
    policy: PolicyFacts
    is_skipped: bool
    """The loss or its gradient was not finite: weights and optimiser are as they were."""


class PolicyLearner:
    """The trainable side of a policy that also samples.

    Args:
        policy: its model learns; nothing may be sampled from it during a step (`VlmPolicy.paused`).
        bank: features of every image that an example shows.
        batch_tokens: padded tokens of one pass.
    """

    def __init__(self, policy: VlmPolicy, bank: FeatureBank, *, rate: float, batch_tokens: int = 6000, clip: float = 1.0) -> None:
        self._policy, self._batch_tokens, self._clip = policy, batch_tokens, clip
        self._features_of: FeaturesOf = bank.features
        self.model, self.base = policy.checkpoint.model, policy.checkpoint.base
        self.base.model.visual.requires_grad_(False)
        self._is_adapted = hasattr(self.model, "peft_config")
        if not self._is_adapted:
            self.base.model.language_model.requires_grad_(True)
            self.base.lm_head.requires_grad_(True)
        self._anchor = None if self._is_adapted else _frozen(self.base)
        self.optimizer: Optimizer = make_optimizer([("model", self.model)], rate=rate, weight_decay=0.0, use_muon=False)
        self._learning = [p for p in self.model.parameters() if p.requires_grad]

    @contextmanager
    def anchored(self) -> Iterator[Any]:
        """The anchor as a base model."""
        if self._anchor is not None:
            yield self._anchor
            return
        with using(self.model, ANCHOR):
            yield self.base

    @contextmanager
    def blind(self) -> Iterator[None]:
        """In here no image has any content."""
        features_of = self._features_of
        self._features_of = lambda names: [Features(f.tokens_ND * 0, f.deep_LND * 0) for f in features_of(names)]
        try:
            yield
        finally:
            self._features_of = features_of

    @torch.no_grad()
    def measure(self, examples: Sequence[Example]) -> list[Measured]:
        """All examples, in order, under policy and anchor."""
        self.model.eval()
        found: dict[int, Measured] = {}
        for rows in self._batches(examples):
            batch = _collated([examples[k] for k in rows])
            with _capturing(self.base.model.language_model.layers[-min(FROM_TOP, len(self.base.model.language_model.layers))]) as caught:
                hidden = hidden_states(self.base, batch, self._features_of)
            own = self._logp(self.base, batch, hidden)
            with self.anchored() as anchor:
                anchors = self._logp(anchor, batch, hidden_states(anchor, batch, self._features_of))
            counts = np.bincount(select(batch.weight_BT)[0].numpy(), minlength=len(rows)).tolist()
            for row, k, logp, anchor_logp in zip(range(len(rows)), rows, own.split(counts), anchors.split(counts), strict=True):
                length = len(examples[k])
                found[k] = Measured(logp, anchor_logp, caught[0][row, :length].float(), hidden[row, :length].float())
        return [found[k] for k in range(len(examples))]

    def step(
        self,
        examples: Sequence[Example],
        old: Sequence[torch.Tensor],
        anchor: Sequence[torch.Tensor],
        advantage: Sequence[float],
        *,
        beta: float,
    ) -> UpdateFacts:
        """One update over examples; the mean is over the sampled tokens of all of them.

        Args:
            old: log-probabilities of the policy that sampled, [N] each; `anchor` those of the anchor.
            advantage: one per example.
        """
        self.model.train()
        self.base.model.visual.eval()
        self.optimizer.zero_grad()
        total = sum(len(part) for part in old) or 1
        loss_sum, sums, num = 0.0, np.zeros(3), 0
        for rows in self._batches(examples):
            batch = _collated([examples[k] for k in rows])
            logp = self._logp(self.base, batch, hidden_states(self.base, batch, self._features_of))
            gain = torch.cat([torch.full((len(old[k]),), float(advantage[k])) for k in rows]).to(logp.device)
            old_N, anchor_N = (torch.cat([part[k] for k in rows])[:, None] for part in (old, anchor))
            mask = torch.ones_like(old_N, dtype=torch.bool)
            loss, facts = grpo_loss(logp[:, None], old_N, anchor_N, gain, mask, beta=beta)
            share = facts.num_tokens / total
            (loss * share).backward()
            loss_sum, num = loss_sum + float(loss.detach()) * share, num + facts.num_tokens
            sums += np.nan_to_num([facts.kl, facts.clipped, facts.mismatch]) * facts.num_tokens
        norm = float(torch.nn.utils.clip_grad_norm_(self._learning, self._clip))
        is_sound = bool(np.isfinite([loss_sum, norm]).all())
        if is_sound:
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.model.eval()
        return UpdateFacts(loss_sum, norm, PolicyFacts(*(sums / max(1, num)).tolist(), num), not is_sound)

    def _logp(self, base: Any, batch: Batch, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """Of the sampled tokens, as the sampler measures them: tokens that cannot be sampled have no share. [N]."""
        logits, target_N, _ = learnt_logits(base, batch, hidden_BTD)
        return self._policy.sampling.logp(logits).gather(-1, target_N[:, None])[:, 0]

    def _batches(self, examples: Sequence[Example]) -> list[list[int]]:
        """Rows of similar length, as many as fit."""
        found: list[list[int]] = []
        for k in np.argsort([len(e) for e in examples], kind="stable").tolist():
            if found and (len(found[-1]) + 1) * len(examples[k]) <= self._batch_tokens:
                found[-1].append(k)
            else:
                found.append([k])
        return found

    def state(self) -> dict[str, Any]:
        return {"model": learning_of(self.model), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        take_learning(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def _collated(examples: Sequence[Example]) -> Batch:
    return collate(examples, [weights(example, w_act=1.0) for example in examples])


def _frozen(base: Any) -> Any:
    """A copy of the language model and its head, tied as they are, that `hidden_states` takes for a base model."""
    text, head = copy.deepcopy((base.model.language_model, base.lm_head))
    text.requires_grad_(False).eval()
    head.requires_grad_(False).eval()
    return SimpleNamespace(model=SimpleNamespace(language_model=text), lm_head=head)


@contextmanager
def _capturing(layer: Any) -> Iterator[list[torch.Tensor]]:
    """What a decoder layer gives, of every pass in here."""
    caught: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda _module, _args, out: caught.append((out[0] if isinstance(out, tuple) else out).detach()))
    try:
        yield caught
    finally:
        hook.remove()
