"""The policy loss: values by hand, gradients where they belong, nothing from off the mask, and a reversed advantage does harm."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from pixelis.train.grpo import grpo_loss, kl_to_anchor, pull_to_anchor


def tensors(rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_loss_by_hand():
    old = tensors([[0.0, 0.0], [0.0, 0.0]])
    logp = torch.log(tensors([[1.5, 1.1], [0.5, 0.9]]))  # the ratios themselves
    anchor = logp + math.log(2.0)
    mask = torch.tensor([[True, True], [True, False]])
    loss, facts = grpo_loss(logp, old, anchor, tensors([1.0, -1.0]), mask, beta=0.1)
    # min(1.5, 1.28) = 1.28; 1.1; and min(-0.5, -0.8) = -0.8. KL of each: 2 - log 2 - 1.
    kl = 1 - math.log(2)
    assert float(loss) == pytest.approx(-(1.28 + 1.1 - 0.8) / 3 + 0.1 * kl)
    assert facts.kl == pytest.approx(kl) and facts.clipped == pytest.approx(2 / 3) and facts.num_tokens == 3
    assert facts.mismatch == pytest.approx((math.log(1.5) + math.log(1.1) + math.log(2)) / 3)


def test_a_clipped_token_gives_no_gradient():
    logp = torch.log(tensors([[1.5, 1.1, 0.5]])).requires_grad_()
    old = torch.zeros(1, 3, dtype=torch.float64)
    grpo_loss(logp, old, logp.detach(), tensors([1.0]), torch.ones(1, 3, dtype=torch.bool), beta=0.3)[0].backward()
    # Too likely already: nothing. Within: -r A / 3. Less likely than before, but wanted: not clipped.
    assert logp.grad[0].tolist() == pytest.approx([0, -1.1 / 3, -0.5 / 3])


def test_garbage_off_the_mask_is_not_seen():
    mask = torch.tensor([[True, False]])
    clean = grpo_loss(tensors([[-0.1, 0.0]]), tensors([[-0.2, 0.0]]), tensors([[-0.3, 0.0]]), tensors([0.5]), mask, beta=0.2)
    logp = tensors([[-0.1, 900.0]]).requires_grad_()
    dirty = grpo_loss(logp, tensors([[-0.2, -math.inf]]), tensors([[-0.3, math.inf]]), tensors([0.5]), mask, beta=0.2)
    assert float(dirty[0].detach()) == float(clean[0]) and dirty[1] == clean[1]
    dirty[0].backward()
    assert logp.grad[0, 1] == 0 and torch.isfinite(logp.grad).all()


def test_nothing_to_learn_from():
    logp = tensors([[-0.1]]).requires_grad_()
    loss, facts = grpo_loss(logp, logp.detach(), logp.detach(), tensors([1.0]), torch.zeros(1, 1, dtype=torch.bool), beta=0.1)
    loss.backward()
    assert float(loss.detach()) == 0 and float(logp.grad) == 0 and math.isnan(facts.kl)


def test_kl_is_never_negative():
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(50, 4, generator=generator), torch.randn(50, 4, generator=generator)
    assert (kl_to_anchor(one, two, torch.ones(50, 4, dtype=torch.bool)) >= 0).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_reversed_advantage_makes_the_policy_worse(sign):
    """A bandit with four arms, of which the last pays."""
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=0.5)
    generator = torch.Generator().manual_seed(1)
    before = float(logits.detach().softmax(0)[3])
    for _ in range(50):
        arm_B = torch.multinomial(logits.detach().softmax(0), 32, replacement=True, generator=generator)
        reward_B = (arm_B == 3).double()
        advantage_B = sign * (reward_B - reward_B.mean()) / (reward_B.std() + 1e-4)
        logp_B1 = logits.log_softmax(0)[arm_B][:, None]
        loss, _ = grpo_loss(logp_B1, logp_B1.detach(), logp_B1.detach(), advantage_B, torch.ones(32, 1, dtype=torch.bool), beta=0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = float(logits.detach().softmax(0)[3])
    assert after > 0.9 if sign > 0 else after < before


def test_a_fallen_token_pulls_no_harder_than_it_may():
    """Falls of 1, ln 11 and 10 nats: slopes e - 1, 10, and 10 where k3's own is e^10 - 1; the value goes on without a step."""
    falls = torch.tensor([[1.0, math.log(11.0), 10.0]], dtype=torch.float64)
    mask = torch.ones(1, 3, dtype=torch.bool)
    logp = (-falls).requires_grad_()
    pull = pull_to_anchor(logp, torch.zeros_like(falls), mask, 10.0)
    pull.sum().backward()
    assert logp.grad.tolist()[0] == pytest.approx([1 - math.e, -10.0, -10.0])
    at_bend = 11 - math.log(11) - 1
    assert pull.detach().tolist()[0] == pytest.approx([math.e - 2, at_bend, at_bend + 10 * (10 - math.log(11))])
    assert kl_to_anchor(-falls, torch.zeros_like(falls), mask)[0, 2] == pytest.approx(math.exp(10) - 11)
    loss, facts = grpo_loss(-falls, -falls, torch.zeros_like(falls), torch.zeros(1), mask, beta=1.0, most_pull=10.0)
    assert facts.fall == 10.0 and facts.kl == pytest.approx((math.e - 2 + at_bend + math.exp(10) - 11) / 3)
    assert float(loss) == pytest.approx(float(pull.detach().mean()))
