"""What `benchmarks/rft.py` measures, and its page: the split of an update's seconds, ratios, the table. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pixelis.core.grammar import RESPONSE_OPEN
from pixelis.eval.stats import Rate, mean_rate

Interval = tuple[float, float]
"""When something began and ended, in seconds of one clock."""

NO_OP = re.compile(r'"op": ?""')
AIM_RATIO, AIM_IDLE = 2.0, 0.20


@dataclass(frozen=True)
class Options:
    """What both sides do; the defaults are those of `recipes/nano/rft.toml`.

    Args:
        updates: that each side does, those that warm it up included.
        groups, size: prompts of an update, and rollouts of each.
        max_new_tokens: of one turn.
        max_steps: calls of one rollout.
        families: of PixelWorld; all when empty.
        threads: of torch, on each side; only one side works at a time.
        trl_rows: rollouts of one pass of TRL's training; `size` when None, which is about as much as one of ours.
    """

    checkpoint: str
    updates: int
    groups: int = 8
    size: int = 6
    max_new_tokens: int = 200
    max_steps: int = 10
    rate: float = 1e-4
    beta: float = 0.3
    world_seed: int = 1
    seed: int = 0
    families: tuple[str, ...] = ()
    threads: int = 1
    trl_rows: int | None = None


@dataclass(frozen=True, kw_only=True)
class Update:
    """One update of one side."""

    seconds: float
    rollout_s: float
    """From the first prompt to the last answer, tools included."""
    idle_s: float
    """Of it: a tool ran, and the model wrote nothing."""
    tool_s: float
    """Of it: some tool ran, whatever the model did."""
    score_s: float
    """Log-probabilities that rewards and the KL need, and rewards."""
    train_s: float
    """Forward with gradient, backward, the optimiser's step; ours also trains its step heads."""
    num_rollouts: int
    num_answered: int
    num_turns: int
    num_calls: int
    """That a tool answered, with a result or with an error."""
    sampled_tokens: int
    learnt_tokens: int
    prompts: tuple[int, ...]
    """A checksum of each prompt's ids, sorted: what the update was about."""
    cpu_s: float = math.nan
    """Of all threads of the side: what the update costs, also on a busy machine."""
    peak_mib: float = math.nan
    """Of the process since it began; on a GPU, of the memory that torch took there."""

    def split(self) -> dict[str, float]:
        """Seconds by part; they add up to `seconds`."""
        parts = {"generate": self.rollout_s - self.idle_s, "tools": self.idle_s, "score": self.score_s, "train": self.train_s}
        return {**parts, "the rest": self.seconds - sum(parts.values())}


class Gate(Protocol):
    """Lets the sides work in turns."""

    def wait(self) -> None: ...
    def done(self, update: Update) -> None: ...


Side = Callable[[Options, Gate], None]


# ---------------------------------------------------------------- seconds


def covered_s(spans: Sequence[Interval]) -> float:
    """Seconds in which at least one of the intervals runs."""
    total, reached = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def uncovered_s(spans: Sequence[Interval], cover: Sequence[Interval]) -> float:
    """Seconds in which one of `spans` runs and none of `cover` does."""
    return max(0.0, covered_s([*spans, *cover]) - covered_s(cover))


def idle_before(conversation: str) -> int:
    """How many turns without a call stand at its end: their results name no op."""
    results = conversation.split(RESPONSE_OPEN)[1:]
    return next((k for k, result in enumerate(reversed(results)) if not NO_OP.search(result)), len(results))


def ratio_of(above_N: Sequence[float], below_N: Sequence[float]) -> Rate:
    """Geometric mean of the ratios of pairs, with its interval; NaN without pairs. All values are above 0."""
    found = mean_rate(np.log(np.asarray(above_N, float) / np.asarray(below_N, float)), is_share=False)
    value, low, high = np.exp([found.value, found.low, found.high]).tolist()
    return Rate(value, low, high, found.count, found.method)


# ---------------------------------------------------------------- the page


def page(command: str, about: str, ours: Sequence[Update], trl: Sequence[Update]) -> str:
    """Markdown: the two sides beside each other, the ratios, and what was aimed at.

    Raises:
        ValueError: the sides did not do the same updates.
    """
    if len(ours) != len(trl) or any(one.prompts != two.prompts for one, two in zip(ours, trl, strict=False)):
        raise ValueError("the two sides did not read the same prompts: the comparison means nothing")
    faster = ratio_of([u.seconds for u in trl], [u.seconds for u in ours])
    per_token = ratio_of([u.seconds / max(1, u.sampled_tokens) for u in trl], [u.seconds / max(1, u.sampled_tokens) for u in ours])
    cpu = ratio_of([u.cpu_s for u in trl], [u.cpu_s for u in ours])
    idle = sum(u.idle_s for u in ours) / sum(u.seconds for u in ours)
    return "\n".join(
        [
            "# CC-RFT: seconds per update beside TRL's GRPOTrainer",
            "",
            f"`{command}`: {about}",
            "",
            "| per update | ours | TRL |",
            "|---|---|---|",
            *(f"| {name} | {one} | {two} |" for (name, one), (_, two) in zip(_rows(ours), _rows(trl), strict=True)),
            "",
            f"- Seconds per update, TRL / ours: {_shown(faster)}; aimed at: at least {AIM_RATIO:g}.",
            f"- Seconds per sampled token, TRL / ours: {_shown(per_token)}. Longer or shorter chains of one side do not move this one.",
            f"- CPU seconds per update, TRL / ours: {_shown(cpu)}. Other work on the machine moves this one less.",
            f"- Tools left our model idle {idle:.1%} of the time; aimed at: at most {AIM_IDLE:.0%}.",
            "",
        ]
    )


def _rows(updates: Sequence[Update]) -> list[tuple[str, str]]:
    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values)) if values else math.nan

    seconds = mean([u.seconds for u in updates])
    splits = [u.split() for u in updates]
    rows = [("seconds", f"{seconds:.2f}")]
    rows += [(f"- {name}", f"{(s := mean([split[name] for split in splits])):.2f} ({s / seconds:.1%})") for name in splits[0]]
    rollouts, sampled = sum(u.num_rollouts for u in updates), sum(u.sampled_tokens for u in updates)
    return [
        *rows,
        ("tools at work, overlapped or not", f"{mean([u.tool_s for u in updates]):.2f}"),
        ("CPU seconds", f"{mean([u.cpu_s for u in updates]):.2f}"),
        ("rollouts", f"{mean([u.num_rollouts for u in updates]):.1f}"),
        ("answered", f"{sum(u.num_answered for u in updates) / rollouts:.1%}"),
        ("turns of a rollout", f"{sum(u.num_turns for u in updates) / rollouts:.2f}"),
        ("calls of a rollout", f"{sum(u.num_calls for u in updates) / rollouts:.2f}"),
        ("sampled tokens", f"{sampled / len(updates):.0f}"),
        ("tokens learnt from", f"{mean([u.learnt_tokens for u in updates]):.0f}"),
        ("sampled tokens/s of the rollouts", f"{sampled / sum(u.rollout_s for u in updates):.0f}"),
        ("sampled tokens/s of the update", f"{sampled / sum(u.seconds for u in updates):.0f}"),
        ("peak memory, MiB", f"{max(u.peak_mib for u in updates):.0f}"),
    ]


def _shown(ratio: Rate) -> str:
    interval = f" (95 %: {ratio.low:.2f} to {ratio.high:.2f})" if math.isfinite(ratio.low) else " (no interval)"
    return f"{ratio.value:.2f}{interval}, {ratio.count} paired update{'s' if ratio.count != 1 else ''}"
