"""How well controllers of beta keep a policy's KL inside its corridor: ours, constant ones, and the proportional one of common trainers.

    python benchmarks/corridor.py                 # the table
    python benchmarks/corridor.py --choose        # the gains: the best of a grid over all plants

The plant is the smallest that behaves as a policy does. Reward pulls a deviation x from the anchor with a force a, the penalty holds it
back: x grows by rate * (a - beta * x), and KL = x^2 / 2, so at rest x = a / beta. What is measured is that KL times log-normal noise,
some updates late. Plants differ in force, delay, noise, and in whether the force drifts, doubles at once, or comes and goes.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pixelis.train.corridor import CorridorSettings, CorridorState, regulate

NUM_UPDATES = 1200
WARM_UP = 200
START_BETA = 0.3
SEEDS = range(5)


@dataclass(frozen=True)
class Plant:
    name: str
    force: Callable[[int], float]
    rate: float = 0.25
    delay: int = 0
    noise: float = 0.15


PLANTS = (
    Plant("steady", lambda t: 0.05),
    Plant("strong", lambda t: 0.3, rate=0.1),
    Plant("weak", lambda t: 0.01, rate=0.6),
    Plant("drift", lambda t: 0.03 + 0.12 * t / NUM_UPDATES),
    Plant("late", lambda t: 0.05, delay=10),
    Plant("noisy", lambda t: 0.05, noise=0.6),
    Plant("step", lambda t: 0.05 if t < 600 else 0.10),
    Plant("waves", lambda t: 0.06 * (1 + 0.4 * math.sin(t / 80))),
)

Controller = Callable[[float], float]
"""From a measured KL to the next beta."""


def ours(settings: CorridorSettings = CorridorSettings()) -> Controller:
    state = CorridorState.start(START_BETA)

    def step(kl: float) -> float:
        nonlocal state
        state = regulate(state, kl, settings)
        return state.beta

    return step


def constant(beta: float) -> Controller:
    return lambda kl: beta


def proportional(horizon: int = 10_000, num_samples: int = 64) -> Controller:
    """Ziegler et al. (2019), as OpenRLHF and verl have it: beta grows by at most 20 % of samples / horizon an update."""
    beta, target = START_BETA, CorridorSettings().target

    def step(kl: float) -> float:
        nonlocal beta
        beta *= 1 + float(np.clip(kl / target - 1, -0.2, 0.2)) * num_samples / horizon
        return beta

    return step


CONTROLLERS: dict[str, Callable[[], Controller]] = {
    "PID in log beta (ours)": ours,
    "constant 0.05": lambda: constant(0.05),
    "constant 0.04 (TRL's habit)": lambda: constant(0.04),
    "proportional, horizon 10,000": proportional,
    "proportional, horizon 1,000": lambda: proportional(1_000),
}


@dataclass(frozen=True)
class Outcome:
    inside: float
    """Share of updates after warm-up whose true KL lies in the corridor."""
    rise: float
    """Updates until it first does; NaN if never."""
    overshoot: float
    """Largest true KL over the target before update 600, as a share of the target, >= 0."""


def simulate(plant: Plant, controller: Controller, seed: int) -> Outcome:
    rng, settings = np.random.default_rng(seed), CorridorSettings()
    x, beta, kls = 0.0, START_BETA, []
    for t in range(NUM_UPDATES):
        x = max(0.0, x + plant.rate * (plant.force(t) - beta * x))
        kls.append(x * x / 2)
        late = kls[max(0, t - plant.delay)]
        beta = controller(late * math.exp(plant.noise * rng.standard_normal() - plant.noise**2 / 2))
    kl = np.array(kls)
    is_inside = (kl >= settings.low) & (kl <= settings.high)
    return Outcome(
        inside=float(is_inside[WARM_UP:].mean()),
        rise=float(np.argmax(is_inside)) if is_inside.any() else math.nan,
        overshoot=max(0.0, float(kl[:600].max()) / settings.target - 1),
    )


def measured(plant: Plant, make: Callable[[], Controller]) -> Outcome:
    """Means over seeds; a rise that never came makes the mean NaN."""
    found = [simulate(plant, make(), seed) for seed in SEEDS]
    return Outcome(*(float(np.mean([getattr(o, name) for o in found])) for name in ("inside", "rise", "overshoot")))


def choose() -> None:
    grid = itertools.product((0.003, 0.01, 0.02, 0.05), (0.0, 1e-5, 1e-4), (0.5, 1.0, 2.0, 4.0))
    rows = []
    for p, i, d in grid:
        settings = replace(CorridorSettings(), proportional=p, integral=i, derivative=d)
        found = [measured(plant, lambda s=settings: ours(s)) for plant in PLANTS]
        rows.append((np.mean([o.inside for o in found]), min(o.inside for o in found), max(o.overshoot for o in found), p, i, d))
    print("| inside, mean | inside, worst | overshoot, worst | K_P | K_I | K_D |\n|---|---|---|---|---|---|")
    for mean, worst, overshoot, p, i, d in sorted(rows, reverse=True)[:12]:
        print(f"| {mean:.3f} | {worst:.3f} | {overshoot:.2f} | {p} | {i} | {d} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", action="store_true", help="search the gains instead")
    if parser.parse_args().choose:
        choose()
        return
    print("| controller | " + " | ".join(plant.name for plant in PLANTS) + " |\n|---|" + "---|" * len(PLANTS))
    for name, make in CONTROLLERS.items():
        found = [measured(plant, make) for plant in PLANTS]
        cells = " | ".join(f"{o.inside:.2f} / {o.rise:.0f} / {o.overshoot:.2f}" for o in found)
        print(f"| {name} | {cells} |")
    print(f"\nshare of updates {WARM_UP} to {NUM_UPDATES} inside / updates until inside / overshoot; means of {len(SEEDS)} seeds")


if __name__ == "__main__":
    main()
