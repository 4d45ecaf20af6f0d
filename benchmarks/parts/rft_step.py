"""What one optimiser step of phase 2 does: to the tokens it learnt from, and to rollouts of other prompts.

Prompts are halved; the policy takes one step on the rollouts of one half, from its start and with an optimiser that remembers nothing.
Printed are means over several ways to halve. `gain`: advantage times (p after / p before - 1), per token; `KL`: the k3 estimate between
before and after, nats per token; `fall`: the most by which a token's log p sank. On other prompts, gain is what was learnt, and KL what it
cost. Every setting begins from the same weights and the same rollouts.

    python -m benchmarks.parts.rft_step --prompts 39 --rates 6e-4 4e-4 2e-4
"""

from __future__ import annotations

import argparse
import copy
import functools

import numpy as np
import torch
from benchmarks.parts.rft_signal import coordinates, credited, gather

from pixelis.agent import make_executor
from pixelis.config_train import RftRecipe, load_recipe_as
from pixelis.policy.shipped import located
from pixelis.policy.vlm import VlmPolicy
from pixelis.rollout.run import Limits, Runner
from pixelis.tools.toolbox import resolved
from pixelis.train.bank import FeatureBank
from pixelis.train.policy_learner import PolicyLearner
from pixelis.train.rft_reward import Seen
from pixelis.train.start import load_learner

MOST_RATIO = np.e
"""A token counts no more than this in the gain, so that a single one does not decide it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="recipes/nano/rft.toml")
    parser.add_argument("--prompts", type=int, default=39)
    parser.add_argument("--halvings", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[6e-4, 4e-4, 2e-4])
    args = parser.parse_args()
    recipe = load_recipe_as(RftRecipe, args.recipe)
    tools, rft = resolved(recipe.tools), recipe.rft
    policy = VlmPolicy(load_learner(str(located(recipe.checkpoint))), max_new_tokens=recipe.max_new_tokens, num_slots=24)
    try:
        bank = FeatureBank(policy.vision, max_bytes=1 << 31)
        learner = PolicyLearner(policy, bank, rate=args.rates[0], batch_tokens=rft.batch_tokens)
        limits = Limits(max_steps=rft.max_steps)
        runner = Runner(policy, make_executor(tools), settings=tools, limits=limits, num_parallel=24)
        seen = gather(policy, bank, runner, rft, args.prompts, None)
        print(f"{len(seen)} rollouts of {args.prompts} prompts; beta {rft.beta:g}")
        print(f"{'':8}{'what was learnt from':>32}{'other prompts':>32}")
        print(f"{'rate':8}" + 2 * f"{'gain':>12}{'KL':>12}{'fall':>8}", flush=True)
        with policy.paused():
            measure(learner, seen, rft, args.rates, args.halvings, policy.format.decode)
    finally:
        policy.close()


def measure(learner: PolicyLearner, seen: list[Seen], rft, rates: list[float], num_halvings: int, decode) -> None:
    old = learner.logp([one.example for one in seen])
    start, advantage = copy.deepcopy(learner.state()), by_call(seen, rft, decode)
    owner = np.array([one.group for one in seen])
    for rate in rates:
        rows = []
        for seed in range(num_halvings):
            learner.load_state(copy.deepcopy(start))
            for member in learner.optimizer.members:
                for group in member.param_groups:
                    group["lr"] = rate
            prompts = np.random.default_rng(seed).permutation(np.unique(owner))
            is_first = np.isin(owner, prompts[: len(prompts) // 2])
            halves = np.flatnonzero(is_first), np.flatnonzero(~is_first)
            examples, before, gain = zip(*((seen[k].example, old[k], advantage[k].numpy()) for k in halves[0]), strict=True)
            learner.step(examples, before, before, gain, beta=rft.beta, most_pull=rft.most_pull)
            rows.append([change(learner, seen, old, advantage, half) for half in halves])
        parts = np.mean(rows, axis=0)
        print(f"{rate:<8g}" + "".join(f"{gain:>12.5f}{kl:>12.5f}{fall:>8.1f}" for gain, kl, fall in parts), flush=True)


def by_call(seen: list[Seen], rft, decode) -> list[torch.Tensor]:
    """Advantages [N] of every rollout's sampled tokens as `rft.credit = "call"` gives them."""
    credits, text_of = credited(seen, rft), functools.cache(lambda id_: decode([id_]))
    return [
        torch.where(coordinates(one, text_of), own, turn)
        for one, own, turn in zip(seen, credits["own call's result"], credits["by turn"], strict=True)
    ]


def change(
    learner: PolicyLearner, seen: list[Seen], old: list[torch.Tensor], advantage: list[torch.Tensor], rows: np.ndarray
) -> tuple[float, float, float]:
    """Gain, KL and the largest fall over some rollouts since `old`."""
    now = learner.logp([seen[k].example for k in rows])
    rise = torch.cat([after - old[k] for k, after in zip(rows, now, strict=True)])
    gain = torch.cat([advantage[k] for k in rows]) * (rise.exp().clamp(max=MOST_RATIO) - 1)
    return float(gain.mean()), float(((-rise).exp() + rise - 1).mean()), float((-rise).max())


if __name__ == "__main__":
    main()
