"""What one optimiser step of phase 2 does: to the tokens it learnt from, and to rollouts of other prompts.

Prompts are halved; the policy takes one step on the rollouts of one half, from its start and with an optimiser that remembers nothing.
Printed are means over several ways to halve. `gain`: advantage times (p after / p before - 1), per token; `KL`: the k3 estimate between
before and after, nats per token; `fall`: the most by which a token's log p sank. On other prompts, gain is what was learnt, and KL what it
cost. Gains of words and of coordinates add up. Every setting begins from the same weights and the same rollouts. `--sharper` learns
nothing: it multiplies the last norm's gain, and so all logits, as a lower temperature would; what it does, it does to all prompts alike.

    python -m benchmarks.parts.rft_step --prompts 39 --rates 6e-4 2e-4 --credits call words
    python -m benchmarks.parts.rft_step --learns gains --rates 3e-2 1e-2 --credits call --sharper 1.05 1.1 1.2
"""

from __future__ import annotations

import argparse
import copy
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from benchmarks.parts.rft_signal import LIKELY, coordinates, credited, rolled_out

from pixelis.config_train import RftRecipe, RftTable, load_recipe_as
from pixelis.policy.shipped import located
from pixelis.train.policy_learner import PolicyLearner
from pixelis.train.rft_reward import Seen

CREDITS = {
    "call": lambda advantage, is_coordinate, old: advantage,
    "words": lambda advantage, is_coordinate, old: torch.where(is_coordinate, 0.0, advantage),
    "likely words": lambda advantage, is_coordinate, old: torch.where(is_coordinate | (old < math.log(LIKELY)), 0.0, advantage),
    "better words": lambda advantage, is_coordinate, old: torch.where(is_coordinate, 0.0, advantage.clamp(min=0.0)),
}
"""What a step learns from: everything as `rft.credit = "call"` has it, or less of it. Gains are of everything."""
LEARNS = {"all": lambda parameter: True, "gains": lambda parameter: parameter.ndim == 1}
"""Which parameters of the language model a step moves."""
MOST_RATIO = np.e
"""A token counts no more than this in the gain, so that a single one does not decide it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="recipes/nano/rft.toml")
    parser.add_argument("--prompts", type=int, default=39)
    parser.add_argument("--halvings", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[6e-4, 2e-4])
    parser.add_argument("--credits", nargs="+", choices=list(CREDITS), default=["call", "words"])
    parser.add_argument("--learns", choices=list(LEARNS), default="all")
    parser.add_argument("--sharper", type=float, nargs="*", default=[], metavar="FACTOR")
    args = parser.parse_args()
    recipe = load_recipe_as(RftRecipe, args.recipe)
    rft = recipe.rft
    with rolled_out(recipe, str(located(recipe.checkpoint)), args.prompts) as rolled:
        learner, decode = rolled.learner, rolled.policy.format.decode
        for parameter in learner.base.model.language_model.parameters():
            parameter.requires_grad_(LEARNS[args.learns](parameter))
        num = sum(p.numel() for p in learner.base.parameters() if p.requires_grad)
        print(f"{len(rolled.seen)} rollouts of {args.prompts} prompts; beta {rft.beta:g}; {num:,} numbers learn")
        print(f"{'':21}{'what was learnt from':>42}{'other prompts':>42}")
        print(f"{'credit':13}{'rate':8}" + 2 * f"{'words':>12}{'coordinates':>12}{'KL':>12}{'fall':>6}", flush=True)
        measure(learner, rolled.seen, rft, list(itertools.product(args.credits, args.rates)), args.halvings, decode, args.sharper)


def measure(
    learner: PolicyLearner,
    seen: list[Seen],
    rft: RftTable,
    settings: list[tuple[str, float]],
    num_halvings: int,
    decode: Callable[[list[int]], str],
    sharper: Sequence[float] = (),
) -> None:
    old = learner.logp([one.example for one in seen])
    start = copy.deepcopy(learner.state())
    text_of = functools.cache(lambda id_: decode([id_]))
    is_coordinate, credits = [coordinates(one, text_of) for one in seen], credited(seen, rft)
    parts = zip(is_coordinate, credits["own call's result"], credits["by turn"], strict=True)
    advantage = [torch.where(mask, own, turn) for mask, own, turn in parts]  # as `rft.credit = "call"` has it
    owner = np.array([one.group for one in seen])
    for factor in sharper:
        with scaled(learner.base.model.language_model.norm.weight, factor):
            now = learner.logp([one.example for one in seen])
        facts = change(np.arange(len(seen)), now, old, advantage, is_coordinate)
        print(f"{'sharper':13}{factor:<8g}{'':42}" + row(facts), flush=True)
    for credit, rate in settings:
        learnt = [CREDITS[credit](*parts) for parts in zip(advantage, is_coordinate, old, strict=True)]
        rows = []
        for seed in range(num_halvings):
            learner.load_state(copy.deepcopy(start))
            for member in learner.optimizer.members:
                for group in member.param_groups:
                    group["lr"] = rate
            prompts = np.random.default_rng(seed).permutation(np.unique(owner))
            is_first = np.isin(owner, prompts[: len(prompts) // 2])
            halves = np.flatnonzero(is_first), np.flatnonzero(~is_first)
            examples, before, gain = zip(*((seen[k].example, old[k], learnt[k].numpy()) for k in halves[0]), strict=True)
            learner.step(examples, before, before, gain, beta=rft.beta, most_pull=rft.most_pull)
            now = [learner.logp([seen[k].example for k in half]) for half in halves]
            rows.append([change(half, of, old, advantage, is_coordinate) for half, of in zip(halves, now, strict=True)])
        print(f"{credit:13}{rate:<8g}" + "".join(map(row, np.mean(rows, axis=0))), flush=True)


def change(
    rows: np.ndarray, now: list[torch.Tensor], old: list[torch.Tensor], advantage: list[torch.Tensor], is_coordinate: list[torch.Tensor]
) -> tuple[float, float, float, float]:
    """Gain of words and of coordinates, KL and the largest fall of some rollouts, whose log-probabilities are `now`."""
    rise = torch.cat([after - old[k] for k, after in zip(rows, now, strict=True)])
    gain = torch.cat([advantage[k] for k in rows]) * (rise.exp().clamp(max=MOST_RATIO) - 1)
    of_coordinates = float((gain * torch.cat([is_coordinate[k] for k in rows])).mean())
    return float(gain.mean()) - of_coordinates, of_coordinates, float(((-rise).exp() + rise - 1).mean()), float((-rise).max())


def row(facts: Sequence[float]) -> str:
    """What `change` gives, as columns."""
    words, coordinates, kl, fall = facts
    return f"{words:>12.5f}{coordinates:>12.5f}{kl:>12.5f}{fall:>6.1f}"


@contextmanager
def scaled(parameter: torch.nn.Parameter, factor: float) -> Iterator[None]:
    """In here a parameter is so many times itself."""
    own = parameter.data
    parameter.data = own * factor
    try:
        yield
    finally:
        parameter.data = own


if __name__ == "__main__":
    main()
