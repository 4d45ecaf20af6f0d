"""Accuracy of the planner per PixelWorld family, with steps, errors and seconds.

python benchmarks/planner.py --split dev --items 100 [--family count] [--shift noise:3] [--seed 0] [--wrong]
"""

from __future__ import annotations

import argparse
import collections
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pixelis.agent import make_executor
from pixelis.core.media import open_medium
from pixelis.data.world.items import FAMILIES, make_item, render
from pixelis.data.world.score import score_answer
from pixelis.data.world.shifts import Shift
from pixelis.policy.base import Task
from pixelis.policy.planner import PlannerPolicy
from pixelis.rollout.run import Runner
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import resolved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="index of the first item")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", action="append", choices=list(FAMILIES))
    parser.add_argument("--shift", help="kind:severity")
    parser.add_argument("--wrong", action="store_true", help="print every wrong answer")
    args = parser.parse_args()
    kind, _, severity = (args.shift or "").partition(":")
    shift = Shift(kind=kind, severity=int(severity)) if args.shift else None
    settings = resolved(ToolSettings())
    runner = Runner(PlannerPolicy(), make_executor(settings), settings=settings)
    names = args.family or list(FAMILIES)
    right, steps, seconds = collections.defaultdict(list), collections.defaultdict(list), collections.defaultdict(list)
    calls: collections.Counter = collections.Counter()
    errors: collections.Counter = collections.Counter()
    for i in range(args.items):
        family = names[i % len(names)]
        item = make_item(args.split, args.first + i, seed=args.seed, family=family, shift=shift)
        with open_medium(render(item), name=item.medium_name) as medium:
            start = time.perf_counter()
            (rollout,) = runner.run([(Task(question=item.prompt, medium=medium, id=item.id), 0)])
            seconds[family].append(time.perf_counter() - start)
        trajectory = rollout.trajectory
        score = score_answer(item, trajectory.answer or "")
        right[family].append(score)
        steps[family].append(len(trajectory.steps))
        for step in trajectory.steps:
            calls[step.call.op if step.call else "none"] += 1
            errors[step.call.op if step.call else "none"] += not step.result.is_ok
        if args.wrong and not score:
            truth = f"{item.answer!r} {item.plain_answer!r}"
            print(f"WRONG {item.id} {item.prompt!r} -> {trajectory.answer!r} ({trajectory.stop} {trajectory.stop_detail}), truth {truth}")
            for step in trajectory.steps:
                print("     ", step.call and (step.call.op, step.call.arguments), step.response[16:-17][:300])
    print(f"{'family':18} {'items':>5} {'right':>6} {'steps':>6} {'s':>6}")
    for family in names:
        if right[family]:
            n = len(right[family])
            print(f"{family:18} {n:5} {sum(right[family]) / n:6.2f} {sum(steps[family]) / n:6.1f} {sum(seconds[family]) / n:6.1f}")
    total = [s for scores in right.values() for s in scores]
    print(f"{'all':18} {len(total):5} {sum(total) / len(total):6.3f}")
    print("errors per call: " + ", ".join(f"{op} {errors[op]}/{calls[op]}" for op in sorted(calls)))


if __name__ == "__main__":
    main()
