"""What a set of scores says, as numbers with intervals, as text and as JSON. Pure.

Shares of calls take every call as one observation; calls of one trajectory resemble each other, so their intervals are a little narrow.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pixelis.core.errors import MACHINE_ERRORS
from pixelis.core.ops import OPS
from pixelis.core.trajectory import Timing
from pixelis.eval.scores import DISABLED, NO_CALL, ItemScore
from pixelis.eval.stats import Rate, known, mean_rate, share


@dataclass(frozen=True, kw_only=True)
class Group:
    """Items taken together: all of them, or one family."""

    name: str
    accuracy: Rate
    rapr: Rate
    """Valid visual steps over steps, averaged over trajectories; one without steps counts as 0. Source: paper §4.1."""
    parses: Rate
    """Share of steps whose text is one well-formed call."""
    valid: Rate
    """Share of steps whose call succeeded and passes its verifier."""
    steps: Rate
    """Mean number of steps."""
    chain: float
    """Mean length of the items' minimal chains."""


@dataclass(frozen=True, kw_only=True)
class ToolRow:
    """All calls of one op; of `NO_CALL` the steps without a well-formed call."""

    op: str
    failed: Rate
    """Share of calls that ended in an error; its count is the number of calls."""
    valid: Rate
    num_disabled: int
    errors: dict[str, int]
    """Kind of error to how often."""


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Means per item, over the `count` items that have a timing; NaN when none has.

    `total` is wall time while other items ran beside, waiting included; `policy` leaves out the turn with the answer.
    """

    count: int
    total: float
    policy: float
    tools: float
    cached_share: float
    """Calls that were answered from the cache."""


@dataclass(frozen=True, kw_only=True)
class Report:
    about: dict[str, Any]
    """What was evaluated: items, policy, tools, limits, versions."""
    overall: Group
    families: tuple[Group, ...]
    tools: tuple[ToolRow, ...]
    stops: dict[str, int]
    seconds: Seconds
    budget: dict[str, float]
    scores: tuple[ItemScore, ...]
    """In the order of the items."""

    @property
    def accuracy(self) -> Rate:
        return self.overall.accuracy


def make_report(about: dict[str, Any], scores: Sequence[ItemScore], timings: Mapping[str, Timing] = {}, *, seed: int = 0) -> Report:
    """Everything that follows from the scores.

    Args:
        timings: by trajectory id; one may be missing.
        seed: of the bootstrap.
    """
    scores = tuple(sorted(scores, key=lambda score: score.index))
    families = sorted({score.family for score in scores})
    return Report(
        about=about,
        overall=make_group("all", scores, seed=seed),
        families=tuple(make_group(name, [s for s in scores if s.family == name], seed=seed) for name in families),
        tools=_tool_rows(scores),
        stops=dict(sorted(Counter(score.stop for score in scores).items())),
        seconds=_seconds([timings[s.trajectory] for s in scores if s.trajectory in timings]),
        budget={
            "items": len(scores),
            "rollouts_per_item": 1,
            "steps": sum(s.steps for s in scores),
            "tokens": sum(s.tokens for s in scores),
            "seconds": round(sum(timings[s.trajectory].total_s for s in scores if s.trajectory in timings), 3),
        },
        scores=scores,
    )


def make_group(name: str, scores: Sequence[ItemScore], *, seed: int = 0) -> Group:
    """The rates of some items; NaN where nothing was counted."""
    num_steps = sum(score.steps for score in scores)
    return Group(
        name=name,
        accuracy=mean_rate([score.right for score in scores], seed=seed),
        rapr=mean_rate([score.valid_share for score in scores], seed=seed),
        parses=share(sum(op != NO_CALL for score in scores for op in score.ops), num_steps),
        valid=share(sum(sum(score.valid) for score in scores), num_steps),
        steps=mean_rate([score.steps for score in scores], is_share=False, seed=seed),
        chain=sum(score.chain for score in scores) / len(scores) if scores else math.nan,
    )


def _tool_rows(scores: Sequence[ItemScore]) -> tuple[ToolRow, ...]:
    """One row for each op that was called, in the order of `OPS`."""
    rows = []
    for op in (*OPS, NO_CALL):
        calls = [(error, valid) for s in scores for name, error, valid in zip(s.ops, s.errors, s.valid, strict=True) if name == op]
        if not calls:
            continue
        errors = Counter(error for error, _ in calls if error)
        num_disabled = errors.pop(DISABLED, 0)
        rows.append(
            ToolRow(
                op=op,
                failed=share(errors.total(), len(calls)),
                valid=share(sum(valid for _, valid in calls), len(calls)),
                num_disabled=num_disabled,
                errors=dict(sorted(errors.items())),
            )
        )
    return tuple(rows)


def _seconds(timings: Sequence[Timing]) -> Seconds:
    count, steps = len(timings), [step for timing in timings for step in timing.steps]

    def mean(total: float, over: int) -> float:
        return total / over if over else math.nan

    return Seconds(
        count=count,
        total=mean(sum(timing.total_s for timing in timings), count),
        policy=mean(sum(step.policy_s for step in steps), count),
        tools=mean(sum(step.tool_s for step in steps), count),
        cached_share=mean(sum(step.is_cached for step in steps), len(steps)),
    )


# ---------------------------------------------------------------- JSON and text


def report_json(report: Report) -> dict[str, Any]:
    """Plain JSON values without the single scores; what is unknown is None."""
    seconds = report.seconds
    return {
        **report.about,
        "budget": report.budget,
        **{key: value for key, value in _group_json(report.overall).items() if key != "name"},
        "families": [_group_json(group) for group in report.families],
        "tools": [
            {
                "op": row.op,
                "calls": row.failed.count,
                "failed": row.failed.to_json(),
                "valid": row.valid.to_json(),
                "disabled": row.num_disabled,
                "errors": row.errors,
            }
            for row in report.tools
        ],
        "stops": report.stops,
        "seconds_per_item": {
            "count": seconds.count,
            **{name: known(getattr(seconds, name)) for name in ("total", "policy", "tools", "cached_share")},
        },
    }


def _group_json(group: Group) -> dict[str, Any]:
    rates = {name: getattr(group, name).to_json() for name in ("accuracy", "rapr", "parses", "valid", "steps")}
    return {"name": group.name, **rates, "chain": known(group.chain)}


def report_text(report: Report) -> str:
    """The report for people: plain text, one table a part."""
    overall, seconds = report.overall, report.seconds
    summary = [
        ["accuracy", rate_text(overall.accuracy), f"{overall.accuracy.count} items, {overall.accuracy.method}"],
        ["RaPR", rate_text(overall.rapr), f"{overall.rapr.count} trajectories, {overall.rapr.method}"],
        ["calls that parse", rate_text(overall.parses), f"{overall.parses.count} steps, {overall.parses.method}"],
        ["calls that are valid", rate_text(overall.valid), f"{overall.valid.count} steps, {overall.valid.method}"],
        ["steps per item", rate_text(overall.steps, 2), f"minimal chain {number_text(overall.chain, 2)}"],
    ]
    stops = ", ".join(f"{reason} {count}" for reason, count in report.stops.items())
    late = sum(row.errors.get(kind, 0) for row in report.tools for kind in MACHINE_ERRORS)
    slow = report.stops.get("time_limit", 0)
    note = f"note: {late} calls and {slow} trajectories failed for the machine's sake ({', '.join(MACHINE_ERRORS)}, time_limit)"
    times = ", ".join(f"{part} {number_text(getattr(seconds, part), 2)}" for part in ("total", "policy", "tools"))
    parts = [
        "\n".join(_headlines(report.about)),
        table_text([], summary),
        table_text(["family", "items", "accuracy", "RaPR", "valid", "steps", "chain"], [_family_cells(group) for group in report.families]),
        table_text(["tool", "calls", "failed", "valid", "off", "errors"], [_tool_cells(row) for row in report.tools]),
        f"stopped: {stops or 'nothing was run'}" + (f"\n{note}" if late or slow else ""),
        f"seconds per item: {times}; calls from the cache: {number_text(seconds.cached_share, 3)} ({seconds.count} items timed)",
        "budget: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in report.budget.items()),
    ]
    return "\n\n".join(part for part in parts if part)


def _family_cells(group: Group) -> list[str]:
    rates = [rate_text(group.accuracy), rate_text(group.rapr), number_text(group.valid.value, 3)]
    return [group.name, str(group.accuracy.count), *rates, number_text(group.steps.value, 2), number_text(group.chain, 2)]


def _tool_cells(row: ToolRow) -> list[str]:
    errors = ", ".join(f"{kind} {count}" for kind, count in row.errors.items())
    return [row.op, str(row.failed.count), rate_text(row.failed), rate_text(row.valid), str(row.num_disabled), errors]


def _headlines(about: Mapping[str, Any]) -> list[str]:
    items, policy, tools = about.get("items", {}), about.get("policy", {}), about.get("tool_settings", {})
    families = f", families {' '.join(items['families'])}" if items.get("families") else ""
    off = f"off: {' '.join(tools['disabled'])}" if tools.get("disabled") else "all on"
    return [
        f"PixelWorld {items.get('split')}, seed {items.get('seed')}, shift {items.get('shift') or 'none'}{families}, "
        f"{items.get('count')} items wanted, from number {items.get('first')}",
        f"policy {policy.get('name')} {policy.get('version')}; tools {off}",
        "versions: " + ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items()),
    ]


def number_text(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def rate_text(rate: Rate, digits: int = 3) -> str:
    if not math.isfinite(rate.low):
        return number_text(rate.value, digits)
    return f"{rate.value:.{digits}f} [{rate.low:.{digits}f}, {rate.high:.{digits}f}]"


def table_text(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, two blanks apart; empty without rows."""
    lines = [*([head] if head else []), *rows]
    if not rows:
        return ""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
