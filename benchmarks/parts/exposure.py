"""What tells a policy how bright to look: curves over exposures, from a `pixelis adapt` run whose rollouts saw at exposures of their own.

Each line is one thing that rollouts of a query differ in, fitted as `ttrl/exposure.py` fits VisFid: by how much it is higher at an exposure
than at 0, in standard deviations of what rollouts of one query differ by, with its standard error. Only the first line needs labels.

    python -m benchmarks.parts.exposure runs/nano/ttrl
    python -m benchmarks.parts.exposure runs/nano/ttrl --queries 60
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pixelis.core.store import open_run
from pixelis.policy.exposure import exposure_of
from pixelis.ttrl.adapt import TRAJECTORIES_FOLDER
from pixelis.ttrl.decide import Credit, Weighed, credit
from pixelis.ttrl.exposure import Light, after_query, curve
from pixelis.ttrl.facts import RolloutFacts
from pixelis.ttrl.fit import Record, read_records, settings_of
from pixelis.ttrl.value import ValueState

STOPS = (-0.75, -0.5, -0.25, 0.25, 0.5, 0.75, 1.0)
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
    trajectories = open_run(f"{args.run}/{TRAJECTORIES_FOLDER}").trajectories()
    stops = {one.id: exposure_of(one.tokens[0].images[0])[1] for one in trajectories}
    queries = [(record, credit(record.facts, record.decision, ValueState(), settings)[0]) for record in records]
    print(f"{len(queries)} queries, {sum(credited.is_masked for _, credited in queries)} of them abstained from")
    print(f"{'':24}{'queries':10}" + "".join(f"{one:>+15.2f}" for one in STOPS))
    print_row("right", "all", [trials_of_truth(record, stops) for record, _ in queries])
    for name in SIGNALS:
        for which, kept in (("all", queries), ("voted on", [(r, c) for r, c in queries if not c.is_masked])):
            print_row(name, which, [trials_of(record, credited, stops, name) for record, credited in kept])


def trials_of(record: Record, credited: Credit, stops: dict[str, float], name: str) -> list[tuple[float, float]]:
    """Exposure and signal of every rollout of a query."""
    facts = {one.id: one for one in record.facts.rollouts}
    parts = zip(record.decision.rollouts, credited.returns, strict=True)
    return [(stops[one.id], SIGNALS[name](facts[one.id], one, earned, record.decision.label)) for one, earned in parts]


def trials_of_truth(record: Record, stops: dict[str, float]) -> list[tuple[float, float]]:
    return [(stops[one.id], float(is_right)) for one, is_right in zip(record.facts.rollouts, record.each or (), strict=True)]


def print_row(name: str, which: str, trials: list[list[tuple[float, float]]]) -> None:
    light = Light()
    for one in trials:
        light = after_query(light, one)
    gain, error = curve(replace(light, exposure=0.0), np.array(STOPS))
    scale = np.sqrt(light.square / light.num) or 1.0
    cells = "".join(f"{f'{g / scale:+.2f} ± {e / scale:.2f}':>15}" for g, e in zip(gain, error, strict=True))
    print(f"{name:24}{which:10}{cells}")


if __name__ == "__main__":
    main()
