"""What phases 2 and 3 do to a model: log-probabilities of the policy and of its anchor, pooled states, and one guarded step.

A model trained whole keeps a frozen copy of its language model as the anchor; one with adapters switches to the anchor's adapter.
The anchor stays where it is (phase 2) or follows the policy slowly (phase 3). Letters: N sampled tokens, T tokens, D hidden size.
"""

from __future__ import annotations

import copy
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from pixelis.core.errors import ConfigError
from pixelis.core.trajectory import Trajectory
from pixelis.policy.adapters import ANCHOR, lora_parameters, update_ema, using
from pixelis.policy.vlm import VlmPolicy
from pixelis.policy.vlm_vision import Features
from pixelis.rollout.pack import Example, weights
from pixelis.train.bank import FeatureBank
from pixelis.train.forward import Batch, FeaturesOf, collate, hidden_states, learnt_logits
from pixelis.train.grpo import PolicyFacts, grpo_loss
from pixelis.train.learner import learning_of, take_learning
from pixelis.train.losses import select, token_entropies
from pixelis.train.optim import Optimizer, make_optimizer
from pixelis.train.step_heads import FROM_TOP

RECENT_NORMS, FEW_NORMS = 32, 3
"""Steps whose gradients say how long one usually is, and how many must be known."""


@dataclass(frozen=True, eq=False)
class Measured:
    """One example under the present weights; the tokens are those the policy sampled, in order."""

    logp_N: torch.Tensor
    anchor_logp_N: torch.Tensor
    entropy_N: torch.Tensor
    """Of the policy, nats."""
    middle_TD: torch.Tensor
    """On the CPU, as `last_TD`: the states of an update's rollouts would fill a GPU."""
    last_TD: torch.Tensor


@dataclass(frozen=True)
class UpdateFacts:
    """What one optimiser step did."""

    loss: float
    grad_norm: float
    policy: PolicyFacts
    is_skipped: bool
    """The loss or its gradient was not finite: weights and optimiser are as they were."""
    trajectories: tuple[str, ...] = ()
    """Ids of what the step was made from."""


class PolicyLearner:
    """The trainable side of a policy that also samples.

    Args:
        policy: its model learns; nothing may be sampled from it during a step (`VlmPolicy.paused`).
        bank: features of every image that an example shows.
        batch_tokens: padded tokens of one pass.
        clip: the largest norm of a gradient; longer ones are shortened to it.
        clip_times: and to so many times the median norm of the last steps, once a few are known; None goes by `clip` alone.
        anchor: which adapter is the anchor, where there are adapters.
        last_layers: so many decoder layers learn, from the top; None for all, with embeddings, norms and head.
        from_top: which block's output stands for what was seen, counted from the last; the first of a model that has fewer.

    Raises:
        ConfigError: the model has not so many layers.
    """

    def __init__(
        self,
        policy: VlmPolicy,
        bank: FeatureBank,
        *,
        rate: float,
        batch_tokens: int = 6000,
        clip: float = 1.0,
        clip_times: float | None = None,
        anchor: str = ANCHOR,
        last_layers: int | None = None,
        from_top: int = FROM_TOP,
    ) -> None:
        self._policy, self._batch_tokens, self._clip, self._clip_times = policy, batch_tokens, clip, clip_times
        self._from_top = from_top
        self._norms: deque[float] = deque(maxlen=RECENT_NORMS)
        self._features_of: FeaturesOf = bank.features
        self.model, self.base = policy.checkpoint.model, policy.checkpoint.base
        self.base.model.visual.requires_grad_(False)
        self._is_adapted, self._anchor_name = hasattr(self.model, "peft_config"), anchor
        if not self._is_adapted:
            self.base.model.language_model.requires_grad_(True)
            self.base.lm_head.requires_grad_(True)
        if last_layers is not None:
            _freeze_below(self.model, len(self.base.model.language_model.layers), last_layers)
        self._anchor = None if self._is_adapted else _frozen(self.base)
        self.optimizer: Optimizer = make_optimizer([("model", self.model)], rate=rate, weight_decay=0.0, use_muon=False)
        self._learning = [p for p in self.model.parameters() if p.requires_grad]

    @contextmanager
    def anchored(self) -> Iterator[Any]:
        """The anchor as a base model."""
        if self._anchor is not None:
            yield self._anchor
            return
        with using(self.model, self._anchor_name):
            yield self.base

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the anchor towards the policy: anchor = decay * anchor + (1 - decay) * policy."""
        if self._anchor is None:
            update_ema(self.model, decay=decay, target=self._anchor_name)
            return
        for old, new in self._anchor_pairs():
            old.lerp_(new.to(old.dtype), 1 - decay)

    def _anchor_pairs(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Parameters of the anchor's frozen copy with those of the policy."""
        copies = (self._anchor.model.language_model, self._anchor.lm_head)
        own = (self.base.model.language_model, self.base.lm_head)
        return [pair for one, two in zip(copies, own, strict=True) for pair in zip(one.parameters(), two.parameters(), strict=True)]

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
            layers = self.base.model.language_model.layers
            with _capturing(layers[-min(self._from_top, len(layers))]) as caught:
                hidden = hidden_states(self.base, batch, self._features_of)
            own, entropy = self._logp(self.base, batch, hidden, wants_entropy=True)
            with self.anchored() as anchor:
                anchors, _ = self._logp(anchor, batch, hidden_states(anchor, batch, self._features_of))
            parts = (values.split(_counts(batch)) for values in (own, anchors, entropy))
            for row, (k, *of_tokens) in enumerate(zip(rows, *parts, strict=True)):
                length = len(examples[k])
                found[k] = Measured(*of_tokens, caught[0][row, :length].float().cpu(), hidden[row, :length].float().cpu())
        return [found[k] for k in range(len(examples))]

    @torch.no_grad()
    def logp(self, examples: Sequence[Example]) -> list[torch.Tensor]:
        """Log-probabilities of the sampled tokens under the present weights, [N] per example."""
        self.model.eval()
        found: dict[int, torch.Tensor] = {}
        for rows in self._batches(examples):
            batch = _collated([examples[k] for k in rows])
            logp, _ = self._logp(self.base, batch, hidden_states(self.base, batch, self._features_of))
            found.update(zip(rows, logp.split(_counts(batch)), strict=True))
        return [found[k] for k in range(len(examples))]

    def step(
        self,
        examples: Sequence[Example],
        old: Sequence[torch.Tensor],
        anchor: Sequence[torch.Tensor],
        advantage: Sequence[float | np.ndarray],
        *,
        beta: float,
        most_pull: float | None = None,
    ) -> UpdateFacts:
        """One update of phase 2 over examples; the mean is over the sampled tokens of all of them.

        Args:
            old: log-probabilities of the policy that sampled, [N] each; `anchor` those of the anchor.
            advantage: one per example, or [N], one per sampled token.
            most_pull: of a token towards the anchor; see `grpo.pull_to_anchor`.
        """
        total = sum(len(part) for part in old) or 1
        sums, num, fall = np.zeros(3), 0, 0.0

        def loss_of(rows: list[int], logp_N: torch.Tensor, _: None) -> torch.Tensor:
            nonlocal sums, num, fall
            each = [np.broadcast_to(advantage[k], len(old[k])).astype(np.float32) for k in rows]
            gain = torch.from_numpy(np.concatenate(each)).to(logp_N.device)
            old_N, anchor_N = (torch.cat([part[k] for k in rows])[:, None] for part in (old, anchor))
            mask = torch.ones_like(old_N, dtype=torch.bool)
            loss, facts = grpo_loss(logp_N[:, None], old_N, anchor_N, gain, mask, beta=beta, most_pull=most_pull)
            sums, num = sums + np.nan_to_num([facts.kl, facts.clipped, facts.mismatch]) * facts.num_tokens, num + facts.num_tokens
            fall = max(fall, facts.fall)
            return loss * (facts.num_tokens / total)

        loss, norm, is_skipped = self.update(examples, loss_of)
        policy = PolicyFacts(*(sums / max(1, num)).tolist(), num, fall)
        return UpdateFacts(loss, norm, policy, is_skipped, tuple(one.trajectory_id for one in examples))

    def update(
        self,
        examples: Sequence[Example],
        loss_of: Callable[[list[int], torch.Tensor, torch.Tensor | None], torch.Tensor],
        *,
        wants_entropy: bool = False,
        by_gradient_alone: bool = False,
    ) -> tuple[float, float, bool]:
        """One optimiser step; weights and optimiser stay as they are where the loss or its gradient is not finite.

        Args:
            loss_of: a part of the loss, from places of examples, and the log-probabilities [N] of their sampled tokens, in that order, with
                the entropies [N] of the policy where each was drawn. The parts are summed.
            wants_entropy: False gives None for the entropies, which cost memory.
            by_gradient_alone: the step does not go on along earlier ones.

        Returns:
            The loss, the norm of its gradient before clipping, and whether the step was left out.
        """
        self.model.train()
        self.base.model.visual.eval()
        self.optimizer.zero_grad()
        loss_sum = 0.0
        for rows in self._batches(examples):
            batch = _collated([examples[k] for k in rows])
            scored = self._logp(self.base, batch, hidden_states(self.base, batch, self._features_of), wants_entropy=wants_entropy)
            loss = loss_of(rows, *scored)
            loss.backward()
            loss_sum += float(loss.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(self._learning, self.longest))
        is_sound = bool(np.isfinite([loss_sum, norm]).all())
        if is_sound:
            self._norms.append(norm)
            with self.optimizer.by_gradient_alone() if by_gradient_alone else nullcontext():
                self.optimizer.step()
        self.optimizer.zero_grad()
        self.model.eval()
        return loss_sum, norm, not is_sound

    @property
    def longest(self) -> float:
        """The norm to which the next gradient is shortened."""
        if self._clip_times is None or len(self._norms) < FEW_NORMS:
            return self._clip
        return min(self._clip, self._clip_times * float(np.median(self._norms)))

    def _logp(
        self, base: Any, batch: Batch, hidden_BTD: torch.Tensor, *, wants_entropy: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Of the sampled tokens, as the sampler measures them: tokens that cannot be sampled have no share. [N], and entropies [N]."""
        logits, target_N, _ = learnt_logits(base, batch, hidden_BTD)
        logp_NV = self._policy.sampling.logp(logits)
        entropy_N = token_entropies(logp_NV) if wants_entropy else None
        return logp_NV.gather(-1, target_N[:, None])[:, 0], entropy_N

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
        """What learns, and the optimiser's memory; tensors are the live ones."""
        return {"model": learning_of(self.model), "optimizer": self.optimizer.state_dict(), "norms": list(self._norms)}

    def load_state(self, state: dict[str, Any]) -> None:
        take_learning(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._norms = deque(state.get("norms", ()), maxlen=RECENT_NORMS)

    def anchor_state(self) -> dict[str, torch.Tensor]:
        """The anchor's weights, for an anchor that follows."""
        if self._anchor is None:
            return {name: value.detach() for name, value in lora_parameters(self.model, self._anchor_name).items()}
        return {str(number): old.detach() for number, (old, _) in enumerate(self._anchor_pairs())}

    @torch.no_grad()
    def load_anchor(self, state: dict[str, torch.Tensor]) -> None:
        for name, value in self.anchor_state().items():
            value.copy_(state[name])


def sampler_mismatch(trajectories: Sequence[Trajectory], measured: Sequence[Measured]) -> float:
    """Mean |log p of training - log p of the sampler|, nats per sampled token."""
    sampled = [torch.tensor([value for run in one.tokens if run.role == "policy" for value in run.logp]) for one in trajectories]
    return float(torch.cat([(m.logp_N.cpu() - s).abs() for m, s in zip(measured, sampled, strict=True)]).mean())


def _counts(batch: Batch) -> list[int]:
    """Sampled tokens of each row."""
    return np.bincount(select(batch.weight_BT)[0].numpy(), minlength=len(batch.weight_BT)).tolist()


def _collated(examples: Sequence[Example]) -> Batch:
    return collate(examples, [weights(example, w_act=1.0) for example in examples])


def _freeze_below(model: torch.nn.Module, num_layers: int, last: int) -> None:
    """Leave only the last layers of what learns."""
    if not 1 <= last <= num_layers:
        raise ConfigError(f"last_layers = {last}: the model has {num_layers}")
    for name, parameter in model.named_parameters():
        place = re.search(r"language_model\.layers\.(\d+)\.", name)
        if parameter.requires_grad and (place is None or int(place[1]) < num_layers - last):
            parameter.requires_grad_(False)


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
