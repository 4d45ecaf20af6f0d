"""The policy loss against that of TRL's GRPOTrainer on the same tensors: value, gradient, KL and clipped share."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from trl.trainer.grpo_trainer import GRPOTrainer

from pixelis.train.grpo import CLIP_HIGH, CLIP_LOW, grpo_loss


def trls_loss(logp, old, anchor, advantage, mask, *, beta):
    """What TRL's loss makes of log-probabilities that are given to it: mean over tokens ("bnpo"), clip-higher, k3 to a reference."""
    accelerator = SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x, sync_gradients=True)
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (logp, torch.zeros_like(logp), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=beta,
        loss_type="bnpo",
        epsilon_low=CLIP_LOW,
        epsilon_high=CLIP_HIGH,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None),
        use_vllm=False,
        model=SimpleNamespace(training=False),
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        accelerator=accelerator,
        _metrics={"eval": defaultdict(list)},
    )
    rows = logp.shape[0]
    inputs = {
        "prompt_ids": torch.zeros(rows, 1, dtype=torch.long),
        "prompt_mask": torch.ones(rows, 1, dtype=torch.long),
        "completion_ids": torch.zeros(logp.shape, dtype=torch.long),
        "completion_mask": torch.ones(logp.shape, dtype=torch.long),
        "tool_mask": mask.long(),
        "advantages": advantage,
        "old_per_token_logps": old,
        "ref_per_token_logps": anchor,
    }
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    return loss, {name: values[-1] for name, values in trainer._metrics["eval"].items()}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_loss_equals_trls(seed, beta):
    draw = torch.Generator().manual_seed(seed)
    shape = (6, 9)
    logp = -torch.rand(shape, generator=draw, dtype=torch.float64) * 3
    old = logp + 0.4 * torch.randn(shape, generator=draw, dtype=torch.float64)  # far enough that both clips are met
    anchor = logp + 0.3 * torch.randn(shape, generator=draw, dtype=torch.float64)
    advantage = torch.randn(shape[0], generator=draw, dtype=torch.float64)
    mask = torch.rand(shape, generator=draw) < 0.6
    mask[:, 0] = True  # TRL's metrics divide by each row's tokens
    mine, theirs = (logp.clone().requires_grad_() for _ in range(2))
    loss, facts = grpo_loss(mine, old, anchor, advantage, mask, beta=beta)
    trl_loss, metrics = trls_loss(theirs, old, anchor, advantage, mask, beta=beta)
    loss.backward()
    trl_loss.backward()
    assert float(loss.detach()) == pytest.approx(float(trl_loss.detach()), abs=1e-12)
    assert torch.allclose(mine.grad, theirs.grad, atol=1e-14) and bool(mine.grad.abs().sum() > 0)
    assert facts.clipped == pytest.approx(metrics["clip_ratio/region_mean"], abs=1e-6) and facts.clipped > 0
    if beta:
        assert facts.kl == pytest.approx(metrics["kl"], abs=1e-9)
