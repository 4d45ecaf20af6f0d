"""How much of phase 2's gradient is signal: the cosine of the gradients of two halves of a set of rollouts, which share no prompt.

Printed are the mean over three ways to halve the set, and each of them. With signal s and noise n per rollout, two halves of N / 2
rollouts each have the expected cosine s² / (s² + n² / (N / 2)); from it follows how many rollouts an update needs until half of its
gradient's square is signal. The weights never move.

    python benchmarks/parts/rft_signal.py --prompts 80 --temperatures 1 0.6
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import numpy as np
import torch

from pixelis.agent import make_executor
from pixelis.config_train import RftRecipe, load_recipe_as
from pixelis.core.media import open_medium
from pixelis.data.world.items import make_item, render
from pixelis.data.world.shifts import Shift, parse_shift
from pixelis.policy.base import Task
from pixelis.policy.shipped import located
from pixelis.policy.vlm import VlmPolicy
from pixelis.rewards.groups import advantages, call_advantages, turn_advantages
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
LIKELY = 0.05
"""Words that were sampled with at least this probability."""
WHOLE = {
    "group's deviation": lambda r, std: advantages(r).advantage_G,
    "batch's deviation": lambda r, std: advantages(r, scale=std).advantage_G,
    "batch's, only better ones": lambda r, std: advantages(r, scale=std, negative=0.0).advantage_G,
}
"""Advantages of whole rollouts, from the answer and the fines."""
LINES = (
    *((name, "") for name in WHOLE),
    ("batch's deviation", "coordinates"),
    ("own call's result", "coordinates"),
    ("batch's deviation", "words"),
    ("by turn", "words"),
    ("by turn", "likely words"),
)
"""Whose advantage, and which tokens count."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="recipes/nano/rft.toml")
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--prompts", type=int, default=80)
    parser.add_argument("--shift", help="of the items, such as lighting:3")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0])
    args = parser.parse_args()
    recipe = load_recipe_as(RftRecipe, args.recipe)
    print(f"{args.prompts} prompts of {recipe.rft.group} rollouts each")
    print(f"{'temperature':12}{'advantage, and of which tokens':62}{'right':>6}{'entropy':>9}{'cosine':>8}{'until half is signal':>34}")
    for temperature in args.temperatures:
        measure(
            recipe,
            str(located(args.checkpoint or recipe.checkpoint)),
            args.prompts,
            temperature,
            parse_shift(args.shift) if args.shift else None,
        )


def measure(recipe: RftRecipe, checkpoint: str, num_prompts: int, temperature: float, shift: Shift | None) -> None:
    with rolled_out(recipe, checkpoint, num_prompts, temperature=temperature, shift=shift) as rolled:
        report(rolled.learner, rolled.seen, recipe.rft, temperature, rolled.policy.format.decode)


class Rolled(NamedTuple):
    """A checkpoint that may learn and samples no more, and its rollouts."""

    policy: VlmPolicy
    bank: FeatureBank
    learner: PolicyLearner
    seen: list[Seen]


@contextmanager
def rolled_out(
    recipe: RftRecipe, checkpoint: str, num_prompts: int, *, temperature: float = 1.0, shift: Shift | None = None
) -> Iterator[Rolled]:
    """A checkpoint with its rollouts of so many prompts."""
    tools, rft = resolved(recipe.tools), recipe.rft
    policy = VlmPolicy(load_learner(checkpoint), temperature=temperature, max_new_tokens=recipe.max_new_tokens, num_slots=24)
    try:
        bank = FeatureBank(policy.vision, max_bytes=1 << 31)
        learner = PolicyLearner(policy, bank, rate=rft.rate, batch_tokens=rft.batch_tokens)
        runner = Runner(policy, make_executor(tools), settings=tools, limits=Limits(max_steps=rft.max_steps), num_parallel=24)
        begun = time.monotonic()
        seen = gather(policy, bank, runner, rft, num_prompts, shift)
        print(f"# {len(seen)} rollouts in {time.monotonic() - begun:.0f} s", flush=True)
        with policy.paused():
            yield Rolled(policy, bank, learner, seen)
    finally:
        policy.close()


def gather(policy: VlmPolicy, bank: FeatureBank, runner: Runner, rft, num_prompts: int, shift: Shift | None) -> list[Seen]:
    seen: list[Seen] = []
    for start in range(0, num_prompts, CHUNK):
        items = [make_item("train", FIRST_ITEM + k, seed=rft.world_seed, family=rft.families[k % len(rft.families)], shift=shift)
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
    right = float(np.mean([one.accuracy for one in seen]))
    entropy = -float(torch.cat(logp).mean())
    text_of = functools.cache(lambda id_: decode([id_]))
    is_coordinate = [coordinates(one, text_of) for one in seen]
    kept = {
        "": [torch.ones(len(part), dtype=torch.bool) for part in logp],
        "coordinates": is_coordinate,
        "words": [~one for one in is_coordinate],
        "likely words": [~one & (part >= math.log(LIKELY)) for one, part in zip(is_coordinate, logp, strict=True)],
    }
    credits = credited(seen, rft)
    block = np.array([one.group for one in seen]) // len(rft.families) % 4
    for name, of_tokens in LINES:
        gain = [each * mask for each, mask in zip(credits[name], kept[of_tokens], strict=True)]
        quarters = [gradient(learner, seen, gain, np.flatnonzero(block == part)) for part in range(4)]
        cosines = [halves(quarters, pair) for pair in ((0, 1), (0, 2), (0, 3))]
        cosine = float(np.mean(cosines))
        enough = len(seen) / 2 * (1 - cosine) / cosine if cosine > 0 else float("inf")
        each = " ".join(f"{value:.3f}" for value in cosines)
        what = name + (f", {of_tokens}" if of_tokens else "")
        print(f"{temperature:<12g}{what:62}{right:>6.3f}{entropy:>9.3f}{cosine:>8.3f}  ({each}){enough:>12.0f}", flush=True)


def credited(seen: list[Seen], rft) -> dict[str, list[torch.Tensor]]:
    """Advantages [N] of every rollout's sampled tokens, by the names of LINES."""
    judge = Judge(8, curiosity="none", structure="none", invalid=rft.invalid, invalid_call=rft.invalid_call, free_steps=rft.free_steps,
                  extra_step=rft.extra_step)  # fmt: skip
    right = np.array([one.accuracy for one in seen])
    fines = [judge.fines(one) for one in seen]
    reward = right - np.array([each.sum() for each in fines])
    spread, owner = float(reward.std()), np.array([one.group for one in seen])
    turns = [[len(run.ids) for run in one.trajectory.tokens if run.role == "policy"] for one in seen]
    found = {name: [torch.zeros(sum(lengths)) for lengths in turns] for name, _ in LINES}
    for group in np.unique(owner):
        rows = np.flatnonzero(owner == group)
        if len(rows) < 2:
            continue
        by_name: dict[str, list[np.ndarray]] = {}
        for name, gain_of in WHOLE.items():
            by_name[name] = [np.full(len(turns[k]), each) for k, each in zip(rows, gain_of(reward[rows], spread), strict=True)]
        by_name["by turn"] = turn_advantages(right[rows], [fines[k] for k in rows], scale=spread)
        calls = call_advantages([judge.valid(seen[k]) for k in rows], worth=1.0)
        by_name["own call's result"] = [np.append(each, 0.0) for each in calls]  # the answer's turn makes none
        for name, of_rows in by_name.items():
            for k, each in zip(rows, of_rows, strict=True):
                spread_out = np.repeat(each[: len(turns[k])], turns[k][: len(each)])
                found[name][k][: len(spread_out)] = torch.from_numpy(spread_out).float()
    return found


def halves(quarters: list[torch.Tensor], pair: tuple[int, int]) -> float:
    """The cosine between the sum of two quarters and that of the other two."""
    one = sum(quarters[k] for k in pair)
    return float(torch.nn.functional.cosine_similarity(one, sum(quarters) - one, dim=0))


def coordinates(one: Seen, text_of: Callable[[int], str]) -> torch.Tensor:
    """Which of the sampled tokens [N] are coordinates."""
    return torch.from_numpy(np.concatenate([in_brackets(run.ids, text_of) for run in one.trajectory.tokens if run.role == "policy"]))


def gradient(learner: PolicyLearner, seen: list[Seen], gain: list[torch.Tensor], rows: np.ndarray) -> torch.Tensor:
    """Of -advantage * log p, summed over the sampled tokens of some rollouts, as one vector; nothing moves."""
    rows = np.array([k for k in rows if gain[k].any()], int)
    found: list[torch.Tensor] = []

    def catch() -> None:
        parts = (torch.zeros_like(p) if p.grad is None else p.grad for p in learner._learning)
        found.append(torch.cat([part.flatten().clone() for part in parts]))

    learner.optimizer.step = catch  # type: ignore[method-assign]

    def loss_of(part: list[int], logp_N: torch.Tensor, _: None) -> torch.Tensor:
        return -(torch.cat([gain[rows[k]] for k in part]) * logp_N).sum() / len(rows)

    learner.update([seen[k].example for k in rows], loss_of)
    return found[0]


if __name__ == "__main__":
    main()
