"""What curiosity pays for looking at noise, with and without its gate: a texture that no one can foresee, and nothing to be learnt from it.

The step heads are trained as a run of phase 2 trains them, on rollouts of a policy in pictures as they are. Then three chains are written
into each of some other pictures, alike but for their last step: the colour of one thing is measured, and after it a crop is taken of a
patch of noise that was put into the picture, of another thing, or of bare ground. Printed is what the last step earns, before the heads
have ever seen noise and after they have learnt from half of these chains; the other half is what is printed.

    python -m benchmarks.parts.noise_gate --prompts 64 --pictures 80
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import cv2
import numpy as np
import torch
from benchmarks.parts.rft_signal import FIRST_ITEM, Rolled, rolled_out

from pixelis.agent import make_executor
from pixelis.config_train import RftRecipe, load_recipe_as
from pixelis.core.geometry import Box
from pixelis.core.media import open_medium
from pixelis.data.world.encode import png_bytes
from pixelis.data.world.item import Item
from pixelis.data.world.items import make_item, render
from pixelis.policy.base import Task
from pixelis.policy.buffer import ImageRef
from pixelis.policy.prompt import ImagePart, question_parts
from pixelis.policy.shipped import located
from pixelis.policy.vlm_score import pixels_of
from pixelis.rewards.curiosity import curiosity, gate, surprise
from pixelis.rollout.pack import pack_trajectory
from pixelis.rollout.run import Limits, Runner
from pixelis.testing import ScriptedPolicy
from pixelis.tools.toolbox import resolved
from pixelis.train.rft_reward import Judge, Seen
from pixelis.train.step_heads import step_inputs

FAMILIES = ("attribute", "relation", "size_compare")
"""Of which the pictures are: they hold several things."""
SIDE = 0.2
"""Of a patch of noise or of bare ground, as a share of the picture's shorter side."""
PLACES = ("noise", "thing", "ground")
COLUMNS = ("surprise", "variance", "gate", "p valid", "gated", "ungated")
DOT_PX = (1, 2, 3, 4)
"""Sides of the dots of noise, one for each picture in turn."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="recipes/nano/rft.toml")
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--prompts", type=int, default=64, help="whose rollouts the heads learn from")
    parser.add_argument("--rounds", type=int, default=16, help="steps of the heads on these, and again on chains with noise")
    parser.add_argument("--pictures", type=int, default=80)
    parser.add_argument("--seeds", type=int, default=3, help="heads that are begun and trained anew")
    args = parser.parse_args()
    recipe = load_recipe_as(RftRecipe, args.recipe)
    checkpoint = str(located(args.checkpoint or recipe.checkpoint))
    with rolled_out(recipe, checkpoint, args.prompts) as rolled:
        usual = with_inputs(rolled, rolled.seen)
        chains = with_inputs(rolled, list(written(rolled, recipe, args.pictures)))
        print(f"{len(usual)} rollouts of {args.prompts} prompts; {args.pictures} pictures with {len(chains)} chains")
        hidden = usual[0].inputs.visual_SD.shape[1]
        print(f"{'heads':20}{'last step':10}" + "".join(f"{name:>10}" for name in COLUMNS) + "   noise : thing, gated and not")
        for when, rows in measured(usual, chains, hidden, args.rounds, args.seeds).items():
            table(when, rows)


# ---------------------------------------------------------------- pictures with a patch of noise


def written(rolled: Rolled, recipe: RftRecipe, num_pictures: int) -> Iterator[Seen]:
    """Three chains for each picture, packed, their images in the bank; `group` is the picture's number."""
    tools, policy, bank = resolved(recipe.tools), rolled.policy, rolled.bank
    executor = make_executor(tools)
    number = FIRST_ITEM
    for picture in range(num_pictures):
        found = None
        while found is None:
            item = make_item("train", number, seed=recipe.rft.world_seed, family=FAMILIES[number % len(FAMILIES)])
            number += 1
            found = laid_out(item, np.random.default_rng(number), dot=DOT_PX[picture % len(DOT_PX)])
        data, boxes = found
        with ExitStack() as media:
            medium = media.enter_context(open_medium(data, name=item.medium_name))
            task = Task(question=item.prompt, medium=medium, id=item.id)
            parts = question_parts(task, policy.prompting)
            bank.add([(part.sha256, part.image_HWC) for part in parts if isinstance(part, ImagePart)])
            prompt = [ImageRef(p.sha256, bank.grids[p.sha256]) if isinstance(p, ImagePart) else p for p in parts]
            for place in PLACES:
                script = ScriptedPolicy(turns(boxes["start"], boxes[place], item))
                runner = Runner(script, executor, settings=tools, limits=Limits(max_steps=3), num_parallel=1)
                (rollout,) = runner.run([(task, 0)])
                bank.add([(name, pixels_of(rollout.blobs[name])) for name in crops(rollout.trajectory)])
                example = pack_trajectory(rollout.trajectory, policy.format, prompt, crop_grid=bank.grids.__getitem__)
                yield Seen(picture, replace(item, id=f"{item.id}-{place}"), rollout.trajectory, example)


def laid_out(item: Item, rng: np.random.Generator, *, dot: int) -> tuple[bytes, dict[str, Box]] | None:
    """The picture with noise in a free place, and where the chain's first step and its three ends look; None where there is no room."""
    things = [one.box for one in item.truth.objects if one.kind == "shape"]
    side = SIDE * min(item.width, item.height)
    taken = [one.box for one in item.truth.objects]
    free = list(free_places(rng, taken, side, item.width, item.height))
    if len(things) < 2 or len(free) < 2:
        return None
    noise, ground = free
    image = cv2.cvtColor(cv2.imdecode(np.frombuffer(render(item), np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    x0, y0, n = int(noise.x0), int(noise.y0), int(side)
    dots = rng.integers(0, 256, (-(-n // dot), -(-n // dot), 3), np.uint8)
    image[y0 : y0 + n, x0 : x0 + n] = np.kron(dots, np.ones((dot, dot, 1), np.uint8))[:n, :n]
    first, second = rng.permutation(len(things))[:2]
    return png_bytes(image), {"start": things[first], "thing": things[second], "noise": noise, "ground": ground}


def free_places(rng: np.random.Generator, taken: Sequence[Box], side: float, width: int, height: int) -> Iterator[Box]:
    """Up to two squares that touch nothing, nor each other."""
    taken, num = list(taken), 0
    for _ in range(400):
        x, y = int(rng.uniform(0, width - side)), int(rng.uniform(0, height - side))
        box = Box(x, y, x + side, y + side)
        if all(box.x1 <= b.x0 or b.x1 <= box.x0 or box.y1 <= b.y0 or b.y1 <= box.y0 for b in taken):
            taken, num = [*taken, box], num + 1
            yield box
            if num == 2:
                return


def turns(start: Box, end: Box, item: Item) -> list[str]:
    def wire(box: Box) -> list[int]:
        x, y = 1000 / item.width, 1000 / item.height
        return [int(box.x0 * x), int(box.y0 * y), int(np.ceil(box.x1 * x)), int(np.ceil(box.y1 * y))]

    def call(op: str, **arguments: object) -> str:
        return f"<tool_call>\n{json.dumps({'name': op, 'arguments': arguments})}\n</tool_call>"

    return [
        f"What colour is it? {call('PROP', what='colour', bbox_2d=wire(start))}",
        f"I look closely. {call('ZOOM', bbox_2d=wire(end))}",
        "<answer>none</answer>",
    ]


def crops(trajectory) -> list[str]:
    return [step.result.output.image for step in trajectory.steps if step.call.op == "ZOOM" and step.result.is_ok]


# ---------------------------------------------------------------- what the last step earns


def with_inputs(rolled: Rolled, seen: Sequence[Seen]) -> list[Seen]:
    measured = rolled.learner.measure([one.example for one in seen])
    merge = rolled.policy.merge
    return [
        replace(one, inputs=step_inputs(one.trajectory, one.example, m.middle_TD, m.last_TD, merge=merge))
        for one, m in zip(seen, measured, strict=True)
    ]


def measured(usual: Sequence[Seen], chains: Sequence[Seen], hidden: int, rounds: int, seeds: int) -> dict[str, dict[str, np.ndarray]]:
    """Of every last step (`COLUMNS`), by when and where; pictures of odd number: [heads, pictures, columns]."""
    taught, asked = [one for one in chains if one.group % 2 == 0], [one for one in chains if one.group % 2 == 1]
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    for seed in range(seeds):
        judge = Judge(hidden, seed=seed)
        for when, lessons in (("have not seen noise", usual), ("have seen noise", [*usual, *taught])):
            for k in range(rounds):
                judge.learn(lessons, seed=1000 * seed + k)
            of_place = found.setdefault(when, {place: [] for place in PLACES})
            for one in asked:
                of_place[one.item.id.rsplit("-", 1)[1]].append(facts(judge, one, seed=seed))
    return {
        when: {place: np.array(rows).reshape(seeds, len(asked) // len(PLACES), -1) for place, rows in of_place.items()}
        for when, of_place in found.items()
    }


def facts(judge: Judge, one: Seen, *, seed: int) -> np.ndarray:
    """`COLUMNS` of one last step: variance is over its running mean, and what is earned has no cap."""
    foresight = judge.heads.foresee(one.inputs, seed=seed)
    shock = surprise(foresight.predicted_SD, judge.heads.seen(one.inputs))[-1:]
    closed, valid = gate(foresight.variance_S, judge.variance.mean)[-1:], foresight.p_valid_S[-1:]
    gated, ungated = curiosity(shock, valid, closed), curiosity(shock, valid, np.ones(1))
    return np.concatenate([shock, foresight.variance_S[-1:] / judge.variance.mean, closed, valid, gated, ungated])


def table(when: str, rows: dict[str, np.ndarray]) -> None:
    beside = {"noise": ratio(rows, COLUMNS.index("gated")), "thing": ratio(rows, COLUMNS.index("ungated"))}
    for place in PLACES:
        means = "".join(f"{value:>10.3f}" for value in rows[place].mean((0, 1)))
        print(f"{when if place == PLACES[0] else '':20}{place:10}{means}   {beside.get(place, '')}")


def ratio(rows: dict[str, np.ndarray], column: int) -> str:
    """What noise earns for each that a thing earns, and its 95 % interval over pictures (percentile bootstrap)."""
    rng, noise, thing = np.random.default_rng(0), rows["noise"][..., column].mean(0), rows["thing"][..., column].mean(0)
    drawn = rng.integers(0, len(noise), (2000, len(noise)))
    low, high = np.percentile(noise[drawn].mean(1) / thing[drawn].mean(1), [2.5, 97.5])
    return f"{noise.mean() / thing.mean():.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
