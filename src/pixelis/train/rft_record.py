"""Phase 2: what is written down of every update."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pixelis.core.ops import OPS
from pixelis.rewards.chains import entropy_nats, valid_share
from pixelis.rewards.groups import Advantages
from pixelis.train.journal import reopened
from pixelis.train.policy_learner import UpdateFacts
from pixelis.train.rft_reward import Parts, Seen
from pixelis.train.rft_state import Progress, RftSettings

PROMPT_MEANS = ("accuracy", "steps", "RaPR", "RaCPR", "AE")


def update_row(
    seen: Sequence[Seen],
    parts: Parts,
    composite_N: Sequence[float],
    groups: Sequence[Advantages],
    facts: Sequence[UpdateFacts],
    entropy: float,
    progress: Progress,
) -> dict[str, Any]:
    """All but what the gates say.

    Args:
        composite_N: RaCPR of every rollout.
        entropy: of the policy, nats per sampled token.
        progress: learns the first update's tool rate and entropy, which the alarms compare with.
    """
    steps = [step for one in seen for step in one.trajectory.steps]
    ops = Counter(step.call.op for step in steps if step.call is not None)
    tool_rate = float(np.mean([one.num_steps > 0 for one in seen]))
    if progress.first_tool_rate is None or progress.first_entropy is None:
        progress.first_tool_rate, progress.first_entropy = tool_rate, entropy
    families: dict[str, list[float]] = {}
    for one in seen:
        families.setdefault(one.item.family, []).append(one.accuracy)
    return {
        "update": progress.update,
        "answer": float(parts.answer_N.mean()),
        "curiosity": float(parts.curiosity_N.mean()),
        "structure": float(parts.structure_N.mean()),
        "penalty": float(parts.penalty_N.mean()),
        "reward": float(parts.total_N.mean()),
        "by_family": {name: float(np.mean(values)) for name, values in sorted(families.items())},
        "prompts": prompt_means(seen, composite_N),
        "valid_share": float(np.mean([valid_share(one.valid_steps) for one in seen])),
        "composite_share": float(np.mean(composite_N)),
        "chain_length": float(np.mean([one.num_steps for one in seen])),
        "invalid": sum(one.num_failed for one in seen) / max(1, len(steps)),
        "answered": float(np.mean([one.trajectory.answer is not None for one in seen])),
        "ops": {op: ops[op] for op in OPS},
        "op_entropy": entropy_nats(ops.elements()) if ops else 0.0,
        "tool_rate": tool_rate,
        "entropy": entropy,
        "alarm": alarm_of(tool_rate, entropy, progress),
        "groups": len(groups),
        "flat_groups": sum(group.is_flat for group in groups),
        "used": int(sum(group.is_used_G.sum() for group in groups)),
        "advantage": _spread([group.advantage_G[group.is_used_G] for group in groups]),
        "rollouts": len(seen),
        "tokens": sum(f.policy.num_tokens for f in facts),
        "loss": [f.loss for f in facts],
        "grad_norm": [f.grad_norm for f in facts],
        "clipped": [f.policy.clipped for f in facts],
        "fall": [f.policy.fall for f in facts],
        "skipped": [list(f.trajectories) for f in facts if f.is_skipped],
        "mean_kl": progress.corridor.mean_kl,
    }


def _spread(advantages: Sequence[np.ndarray]) -> dict[str, float]:
    """Percentiles of the advantages of rollouts that were learnt from, and the share above 0; empty without any."""
    all_N = np.concatenate([*advantages, np.zeros(0)])
    if not len(all_N):
        return {}
    low, middle, high = np.quantile(all_N, (0.05, 0.5, 0.95)).round(4).tolist()
    return {"p5": low, "p50": middle, "p95": high, "positive": round(float((all_N > 0).mean()), 4)}


def prompt_means(seen: Sequence[Seen], composite_N: Sequence[float]) -> dict[str, dict[str, float]]:
    """Of every prompt, by its item's name, the means over its rollouts: by them policies that were given the same prompts are compared.

    `accuracy`, `steps`, `RaPR` (share of valid calls), `RaCPR` (under the run's own step embeddings), `AE` (entropy of a rollout's calls
    in nats; 0 without calls). Four decimals.
    """
    rows: dict[str, list[tuple[float, ...]]] = {}
    for one, composite in zip(seen, composite_N, strict=True):
        ops = [step.call.op for step in one.trajectory.steps if step.call is not None]
        facts = (one.accuracy, one.num_steps, valid_share(one.valid_steps), composite, entropy_nats(ops) if ops else 0.0)
        rows.setdefault(one.item.id, []).append(facts)
    return {id_: dict(zip(PROMPT_MEANS, np.mean(of, axis=0).round(4).tolist(), strict=True)) for id_, of in rows.items()}


def alarm_of(tool_rate: float, entropy: float, progress: Progress) -> str:
    """A word where the policy stops looking, or stops trying anything else."""
    words = []
    if tool_rate < 0.5 * (progress.first_tool_rate or 0.0):
        words.append("tool rate fell below half of what it was at the start")
    if entropy < 0.25 * (progress.first_entropy or 0.0):
        words.append("entropy fell below a quarter of what it was at the start")
    return "; ".join(words)


def short_row(row: dict[str, Any], settings: RftSettings) -> dict[str, Any]:
    keys = ("update", "answer", "reward", "chain_length", "invalid", "valid_share", "kl", "beta", "mismatch", "flat_groups", "alarm")
    short = {key: round(row[key], 4) if isinstance(row[key], float) else row[key] for key in keys}
    return short | {"of": settings.updates, "seconds": row["seconds"]}


@contextmanager
def journal(path: Path, first: int) -> Iterator[Callable[[dict], None]]:
    """Appends rows; those of updates that will be done again are dropped."""
    with reopened(path, lambda row: row["update"] < first) as file:

        def write(row: dict) -> None:
            file.write(json.dumps(row) + "\n")
            file.flush()

        yield write
