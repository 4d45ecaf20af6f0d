"""How much of phase 2's gradient is signal: the cosine of the gradients of two halves of a set of rollouts, which share no prompt.

With signal s and noise n per rollout, two halves of N / 2 rollouts each have the expected cosine s² / (s² + n² / (N / 2)); from it follows
how many rollouts an update needs until half of its gradient's square is signal. The weights never move.

    python benchmarks/parts/rft_signal.py --prompts 80 --temperatures 1 0.6
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import torch

from pixelis.agent import make_executor
from pixelis.config_train import RftRecipe, load_recipe_as
from pixelis.core.media import open_medium
from pixelis.data.world.items import make_item, render
from pixelis.policy.base import Task
from pixelis.policy.shipped import located
from pixelis.policy.vlm import VlmPolicy
from pixelis.rewards.groups import advantages
from pixelis.rollout.run import Limits, Runner
from pixelis.tools.toolbox import resolved
from pixelis.train.bank import FeatureBank
from pixelis.train.packing import in_brackets, pack_rollouts
from pixelis.train.policy_learner import PolicyLearner
from pixelis.train.rft_reward import Judge, Seen
from pixelis.train.start import load_learner

CHUNK = 10
"""Prompts whose media are open at once."""
FIRST_ITEM = 500_000
"""Items that no training has seen."""
VARIANTS = {
    "group's deviation": lambda r, std: advantages(r).advantage_G,
    "batch's deviation": lambda r, std: advantages(r, scale=std).advantage_G,
    "batch's, only better ones": lambda r, std: advantages(r, scale=std, negative=0.0).advantage_G,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="recipes/nano/rft.toml")
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--prompts", type=int, default=80)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0])
    args = parser.parse_args()
    recipe = load_recipe_as(RftRecipe, args.recipe)
    print(f"{args.prompts} prompts of {recipe.rft.group} rollouts each")
    print(f"{'temperature':12}{'reward and advantage':62}{'right':>6}{'entropy':>9}{'cosine':>8}{'rollouts until half is signal':>32}")
    for temperature in args.temperatures:
        measure(recipe, str(located(args.checkpoint or recipe.checkpoint)), args.prompts, temperature)


def measure(recipe: RftRecipe, checkpoint: str, num_prompts: int, temperature: float) -> None:
    tools, rft = resolved(recipe.tools), recipe.rft
    policy = VlmPolicy(load_learner(checkpoint), temperature=temperature, max_new_tokens=recipe.max_new_tokens, num_slots=24)
    try:
        bank = FeatureBank(policy.vision, max_bytes=1 << 31)
        learner = PolicyLearner(policy, bank, rate=0.0, batch_tokens=rft.batch_tokens)
        begun = time.monotonic()
        seen = gather(policy, bank, Runner(policy, make_executor(tools), settings=tools, limits=Limits(max_steps=rft.max_steps),
                                           num_parallel=24), rft, num_prompts)  # fmt: skip
        seconds = time.monotonic() - begun
        with policy.paused():
            report(learner, seen, rft, temperature, policy.format.decode)
        print(f"# {len(seen)} rollouts in {seconds:.0f} s", flush=True)
    finally:
        policy.close()


def gather(policy: VlmPolicy, bank: FeatureBank, runner: Runner, rft, num_prompts: int) -> list[Seen]:
    seen: list[Seen] = []
    for start in range(0, num_prompts, CHUNK):
        items = [make_item("train", FIRST_ITEM + k, seed=rft.world_seed, family=rft.families[k % len(rft.families)])
                 for k in range(start, min(num_prompts, start + CHUNK))]  # fmt: skip
        with ExitStack() as media:
            opened = [media.enter_context(open_medium(render(item), name=item.medium_name)) for item in items]
            tasks = [Task(question=item.prompt, medium=medium, id=item.id) for item, medium in zip(items, opened, strict=True)]
            rollouts = runner.run([(task, 1 + g) for task in tasks for g in range(rft.group)])
            for k, (item, task) in enumerate(zip(items, tasks, strict=True)):
                packed = pack_rollouts(policy, bank, task, rollouts[k * rft.group : (k + 1) * rft.group])
                seen += [Seen(start + k, item, trajectory, example) for trajectory, example in packed]
    return seen


def report(learner: PolicyLearner, seen: list[Seen], rft, temperature: float, decode: Callable[[list[int]], str]) -> None:
    logp = learner.logp([one.example for one in seen])
    judge = Judge(8, curiosity="none", structure="none", invalid=rft.invalid, invalid_call=rft.invalid_call, free_steps=rft.free_steps,
                  extra_step=rft.extra_step)  # fmt: skip
    right = np.array([one.answer_reward for one in seen])
    reward = right - np.array([judge.fines(one).sum() for one in seen])
    entropy = -float(torch.cat(logp).mean())
    owner = np.array([one.group for one in seen])
    everything = [torch.ones(len(part)) for part in logp]
    outside = [1.0 - coordinates(one, decode).float() for one in seen]
    for rewards, name in ((reward, "answer and fines"), (right, "answer alone")):
        for variant, gain_of in VARIANTS.items():
            gain = np.zeros(len(seen))
            for group in np.unique(owner):
                rows = np.flatnonzero(owner == group)
                if len(rows) > 1:
                    gain[rows] = gain_of(rewards[rows], float(rewards.std()))
            for tokens, kept in (("", everything), (", no coordinates", outside)):
                one, two = (gradient(learner, seen, kept, gain, np.flatnonzero(owner // len(rft.families) % 2 == half)) for half in (0, 1))
                cosine = float(torch.nn.functional.cosine_similarity(one, two, dim=0))
                enough = len(seen) / 2 * (1 - cosine) / cosine if cosine > 0 else float("inf")
                what = f"{name}, {variant}{tokens}"
                print(f"{temperature:<12g}{what:62}{right.mean():>6.3f}{entropy:>9.3f}{cosine:>8.4f}{enough:>16.0f}", flush=True)
                print("#  " + by_part(learner, one, two), flush=True)


def by_part(learner: PolicyLearner, one: torch.Tensor, two: torch.Tensor) -> str:
    """Cosine, and share of the squared norm, of every kind of parameter."""
    sums: dict[str, list[float]] = {}
    names = [name for name, p in learner.model.named_parameters() if p.requires_grad]
    sizes = [p.numel() for p in learner._learning]
    for name, a, b in zip(names, one.split(sizes), two.split(sizes), strict=True):
        layer = next((part for part in name.split(".") if part.isdigit()), "")
        kind = next((kind for kind in ("self_attn", "mlp", "norm", "embed", "head") if kind in name), "other") + layer
        for k, value in enumerate((float(a @ b), float(a @ a), float(b @ b))):
            sums.setdefault(kind, [0.0] * 3)[k] += value
    whole = float(one @ one)
    return "  ".join(f"{kind} {ab / max((aa * bb) ** 0.5, 1e-12):.3f} ({aa / whole:.2f})" for kind, (ab, aa, bb) in sums.items())


def coordinates(one: Seen, decode: Callable[[list[int]], str]) -> torch.Tensor:
    """Which of the sampled tokens [N] are coordinates."""
    return torch.from_numpy(np.concatenate([in_brackets(run.ids, decode) for run in one.trajectory.tokens if run.role == "policy"]))


def gradient(learner: PolicyLearner, seen: list[Seen], kept: list[torch.Tensor], gain: np.ndarray, rows: np.ndarray) -> torch.Tensor:
    """Of -advantage * log p of some rollouts' tokens that are kept, as one vector; nothing moves."""
    rows = rows[gain[rows] != 0]
    found: list[torch.Tensor] = []

    def catch() -> None:
        parts = (torch.zeros_like(p) if p.grad is None else p.grad for p in learner._learning)
        found.append(torch.cat([part.flatten().clone() for part in parts]))

    learner.optimizer.step = catch  # type: ignore[method-assign]

    def loss_of(part: list[int], logp_N: torch.Tensor, _: None) -> torch.Tensor:
        weight = torch.cat([kept[rows[k]] * float(gain[rows[k]]) for k in part])
        return -(weight * logp_N).sum() / len(rows)

    learner.update([seen[k].example for k in rows], loss_of)
    return found[0]


if __name__ == "__main__":
    main()
