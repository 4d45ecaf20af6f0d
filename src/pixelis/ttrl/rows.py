"""The journal of a run: what is written down of a query when it was answered, and what its update adds to it."""

from __future__ import annotations

from typing import Any

import numpy as np

from pixelis.ttrl.decide import Credit, Decision
from pixelis.ttrl.facts import QueryFacts
from pixelis.ttrl.lift import evidence
from pixelis.ttrl.state import Tally
from pixelis.ttrl.worker import Done


def answered_row(
    facts: QueryFacts,
    decision: Decision,
    earned: Credit,
    tally: Tally,
    number: int,
    seconds: dict[str, float],
    *,
    headroom: float | None = None,
) -> dict[str, Any]:
    """What is written down of one query beside its decision; None stands for what its update will tell.

    Args:
        headroom: of the medium, in stops; None where no lift is learnt.
    """
    return {
        "query": number,
        "margin": decision.ballot.margin,
        "abstained": decision.is_abstaining,
        "masked": earned.is_masked,
        "value": earned.value,
        "weight": earned.weight,
        "return": float(np.mean(earned.returns)),
        "kept": sum(earned.is_kept),
        "neighbours": len(facts.neighbours),
        "steps": float(np.mean([one.num_steps for one in facts.rollouts])),
        "kl": None,
        "reached_kl": None,
        "beta": None,
        "loss": None,
        "grad_norm": None,
        "canary": None,
        "headroom": None if headroom is None else round(headroom, 3),
        "lift": None,
        "lift_evidence": None,
        "rolled_back": "",
        "accepted": tally.accepted,
        "coverage": 1 - tally.abstained / (number + 1),
        "num_rolled_back": None,
        "num_held": tally.held,
        "seconds": seconds,
    }


def learnt_row(done: Done, tally: Tally, waited_s: float) -> dict[str, Any]:
    """The same once its update serves.

    Args:
        waited_s: for the update: all of it at lag 0, else what serving did not cover.
    """
    seconds = {**done.job.row["seconds"], "learn": done.seconds}
    seconds["total"] += waited_s
    light = None if done.weights is None else done.weights.light
    row = {
        **done.job.row,
        "beta": done.corridor.beta,
        "lift": None if light is None else light.lift,
        "lift_evidence": None if light is None or (sure := evidence(light)) is None else round(sure, 3),
        "num_rolled_back": tally.rolled_back,
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
    }
    if done.outcome is not None:
        row |= {name: getattr(done.outcome, name) for name in ("kl", "reached_kl", "loss", "grad_norm", "canary", "rolled_back")}
    return row
