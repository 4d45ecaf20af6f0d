"""What tells a policy how bright to look: curves over lifts, from a `pixelis adapt` run whose rollouts saw at lifts of their own.

Each line is one thing that rollouts of a query differ in, fitted as `ttrl/lift.py` fits VisFid: by how much it is higher at a lift than
at 0, in standard deviations of what rollouts of one query differ by, with its standard error. Only the first line needs labels.

    python -m benchmarks.parts.lift runs/nano/ttrl
    python -m benchmarks.parts.lift runs/nano/ttrl --queries 60
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from pixelis.core.store import open_run
from pixelis.policy.exposure import exposure_of
from pixelis.ttrl.adapt import TRAJECTORIES_FOLDER
from pixelis.ttrl.decide import Credit, Weighed, credit
from pixelis.ttrl.facts import RolloutFacts
from pixelis.ttrl.fit import Record, read_records, settings_of
from pixelis.ttrl.lift import Light, after_query, curve, is_tried
from pixelis.ttrl.state import METRICS_FILE
from pixelis.ttrl.value import ValueState

LIFTS = (0.25, 0.5, 0.75, 1.0)
SIGNALS: dict[str, Callable[[RolloutFacts, Weighed, float, str | None], float]] = {
    "VisFid": lambda facts, weighed, earned, winner: weighed.fidelity or 0.0,
    "agrees with the vote": lambda facts, weighed, earned, winner: float(winner is not None and weighed.label == winner),
    "return": lambda facts, weighed, earned, winner: earned,
    "confidence": lambda facts, weighed, earned, winner: facts.confidence or 0.0,
    "- entropy": lambda facts, weighed, earned, winner: -(facts.entropy_nats or 0.0),
    "- failed calls": lambda facts, weighed, earned, winner: -float(facts.num_invalid),
    "- steps": lambda facts, weighed, earned, winner: -float(facts.num_steps),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--queries", type=int, help="only the first so many")
    args = parser.parse_args()
    settings, records = settings_of(args.run), list(read_records(args.run))[: args.queries]
    lifts = lifts_of(args.run)
    queries = [(record, credit(record.facts, record.decision, ValueState(), settings)[0]) for record in records]
    queries = [(record, credited) for record, credited in queries if record.facts.rollouts[0].id in lifts]
    if not queries:
        raise SystemExit(
            f"{args.run}: none of {len(records)} queries tried lifts; its recipe needs [adapt] lift_spread, its media headroom"
        )
    print(f"{len(queries)} of {len(records)} queries tried lifts, {sum(credited.is_masked for _, credited in queries)} abstained")
    print(f"{'':24}{'queries':10}" + "".join(f"{one:>+15.2f}" for one in LIFTS))
    print_row("right", "all", [trials_of_truth(record, lifts) for record, _ in queries])
    for name in SIGNALS:
        for which, kept in (("all", queries), ("voted on", [(r, c) for r, c in queries if not c.is_masked])):
            print_row(name, which, [trials_of(record, credited, lifts, name) for record, credited in kept])


def lifts_of(run: str) -> dict[str, float]:
    """By rollout; those of queries whose medium has too little headroom are left out."""
    lines = (Path(run) / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    room = {}
    for record, line in zip(read_records(run), lines, strict=False):  # the last queries of a stopped run have no line yet
        room |= dict.fromkeys((one.id for one in record.facts.rollouts), json.loads(line)["headroom"])
    found = {}
    for one in open_run(f"{run}/{TRAJECTORIES_FOLDER}").trajectories():
        if is_tried(room.get(one.id)):
            found[one.id] = exposure_of(one.tokens[0].images[0])[1] / room[one.id]
    return found


def trials_of(record: Record, credited: Credit, lifts: dict[str, float], name: str) -> list[tuple[float, float]]:
    """Lift and signal of every rollout of a query."""
    facts = {one.id: one for one in record.facts.rollouts}
    parts = zip(record.decision.rollouts, credited.returns, strict=True)
    return [(lifts[one.id], SIGNALS[name](facts[one.id], one, earned, record.decision.label)) for one, earned in parts]


def trials_of_truth(record: Record, lifts: dict[str, float]) -> list[tuple[float, float]]:
    return [(lifts[one.id], float(is_right)) for one, is_right in zip(record.facts.rollouts, record.each or (), strict=True)]


def print_row(name: str, which: str, trials: list[list[tuple[float, float]]]) -> None:
    light = Light()
    for one in trials:
        light = after_query(light, one)
    gain, error = curve(replace(light, lift=0.0), np.array(LIFTS))
    scale = np.sqrt(light.square / light.num) or 1.0
    cells = "".join(f"{f'{g / scale:+.2f} ± {e / scale:.2f}':>15}" for g, e in zip(gain, error, strict=True))
    print(f"{name:24}{which:10}{cells}")


if __name__ == "__main__":
    main()
