"""Which tool matters for which task: the same items with each tool off, and with each tool degraded, against all tools. Pure.

An item that is right with all tools and wrong without one of them is *counterfactual* for it; a subset of such items is chosen by the
very answers it would be measured with, so it says something only of later runs. Which ops an item needs by its truth (`Item.needs`) is
known without any policy; the drop on those items is the tool's necessity. Source: paper, supplement 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pixelis.core.errors import DataError
from pixelis.core.ops import OPS
from pixelis.eval.compare import OVERALL, Pair, Row, paired, paired_row
from pixelis.eval.report import make_group, number_text, rate_text, table_text
from pixelis.eval.scores import ItemScore
from pixelis.eval.stats import Rate, benjamini_hochberg, from_known, known, rate_from_json, share
from pixelis.eval.sweep import num_late

ALL = "all"
OFF, DEGRADED = "off", "degraded"
WAYS = (OFF, DEGRADED)
NEEDED, CHOSEN = "needed", "counterfactual"
"""Groups of items: those whose truth needs the op, and those of a frozen subset of an earlier run."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What one tool is worth to one group of items."""

    way: str
    """`OFF` or `DEGRADED`."""
    op: str
    group: str
    """`ALL`, `NEEDED`, `CHOSEN`, or a question family."""
    accuracy: Rate
    """Of the group with all tools."""
    without: Rate
    """With the tool off, or degraded."""
    drop: Rate
    """Accuracy with all tools minus without; above 0 the tool is needed. Its count is the number of pairs."""
    rapr_drop: Rate
    p: float
    """Two-sided, of the paired permutation test on the accuracies."""
    q: float
    """p after Benjamini-Hochberg: over tools and families for families, over the tools for each other group; each way by itself."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """How many items need an op."""

    op: str
    by_truth: Rate
    """Share of items whose truth needs it."""
    counterfactual: Rate
    """Share of the items that are right with all tools which are wrong without it."""


@dataclass(frozen=True, kw_only=True)
class Necessity:
    overall: Rate
    """Accuracy with all tools."""
    effects: tuple[Effect, ...]
    needs: tuple[Need, ...]
    num_late: int
    """Trajectories of all conditions that failed for the machine's sake."""

    def find(self, way: str, op: str, group: str) -> Effect | None:
        return next((effect for effect in self.effects if (effect.way, effect.op, effect.group) == (way, op, group)), None)

    @property
    def families(self) -> tuple[str, ...]:
        named = dict.fromkeys(effect.group for effect in self.effects)
        return tuple(group for group in named if group not in (ALL, NEEDED, CHOSEN))


def condition_name(way: str, op: str) -> str:
    return f"{way}-{op}"


def make_necessity(
    scores: Mapping[str, Sequence[ItemScore]],
    needs: Mapping[str, frozenset[str]],
    *,
    chosen: Mapping[str, frozenset[str]] | None = None,
    seed: int = 0,
) -> Necessity:
    """Every number.

    Args:
        scores: by condition: `ALL`, and `condition_name` of each way and op that was run.
        needs: by item id, the ops that its truth needs.
        chosen: by op, the item ids of a subset that an earlier run froze; None where there is none.
        seed: of bootstrap and permutations.

    Raises:
        DataError: the condition with all tools is missing, or shares no item with another.
    """
    if ALL not in scores:
        raise DataError("there is nothing to compare with: the condition with all tools is missing")
    families = sorted({score.family for score in scores[ALL]})
    effects: list[Effect] = []
    for way in WAYS:
        ops = [op for op in OPS if condition_name(way, op) in scores]
        pairs = {op: paired(scores[ALL], scores[condition_name(way, op)]) for op in ops}
        for groups in ((ALL,), (NEEDED,), *(((CHOSEN,),) if chosen is not None else ()), families):
            one = [_effect(way, op, group, _members(pairs[op], op, group, needs, chosen or {}), seed) for group in groups for op in ops]
            adjusted = benjamini_hochberg([effect.p for effect in one])
            effects += [replace(effect, q=float(q)) for effect, q in zip(one, adjusted, strict=True)]
    return Necessity(
        overall=make_group(ALL, sorted(scores[ALL], key=lambda score: score.index), seed=seed).accuracy,
        effects=tuple(effects),
        needs=tuple(_need(op, scores, needs) for op in OPS if condition_name(OFF, op) in scores),
        num_late=sum(num_late(some) for some in scores.values()),
    )


def _members(
    pairs: Sequence[Pair], op: str, group: str, needs: Mapping[str, frozenset[str]], chosen: Mapping[str, frozenset[str]]
) -> list[Pair]:
    belongs = {
        ALL: lambda score: True,
        NEEDED: lambda score: op in needs[score.id],
        CHOSEN: lambda score: score.id in chosen.get(op, ()),
    }.get(group, lambda score: score.family == group)
    return [pair for pair in pairs if belongs(pair[0])]


def _effect(way: str, op: str, group: str, pairs: list[Pair], seed: int) -> Effect:
    row: Row = paired_row(group, OVERALL["accuracy"], pairs, seed=seed)
    sides = [make_group(group, [pair[side] for pair in pairs], seed=seed).accuracy for side in (0, 1)]
    rapr = paired_row(group, OVERALL["RaPR"], pairs, seed=seed).difference
    return Effect(
        way=way, op=op, group=group, accuracy=sides[0], without=sides[1], drop=row.difference, rapr_drop=rapr, p=row.p, q=math.nan
    )


def counterfactual(scores: Mapping[str, Sequence[ItemScore]]) -> dict[str, tuple[str, ...]]:
    """By op, the ids of the items that are right with all tools and wrong with this one off, in the order of their names."""
    found = {}
    for op in OPS:
        if condition_name(OFF, op) in scores:
            pairs = paired(scores[ALL], scores[condition_name(OFF, op)])
            found[op] = tuple(one.id for one, other in pairs if one.right and not other.right)
    return found


def _need(op: str, scores: Mapping[str, Sequence[ItemScore]], needs: Mapping[str, frozenset[str]]) -> Need:
    num_right = sum(score.right for score in scores[ALL])
    return Need(
        op=op,
        by_truth=share(sum(op in needs[score.id] for score in scores[ALL]), len(scores[ALL])),
        counterfactual=share(len(counterfactual(scores)[op]), num_right),
    )


# ---------------------------------------------------------------- JSON and text


_RATES = ("accuracy", "without", "drop", "rapr_drop")


def necessity_json(found: Necessity) -> dict[str, Any]:
    """Plain JSON values; what is unknown is None."""
    return {
        "overall": found.overall.to_json(),
        "effects": [
            {
                **{name: getattr(effect, name) for name in ("way", "op", "group")},
                **{name: getattr(effect, name).to_json() for name in _RATES},
                "p": known(effect.p),
                "q": known(effect.q),
            }
            for effect in found.effects
        ],
        "needs": [
            {"op": need.op, "by_truth": need.by_truth.to_json(), "counterfactual": need.counterfactual.to_json()} for need in found.needs
        ],
        "num_late": found.num_late,
    }


def necessity_from_json(values: Mapping[str, Any]) -> Necessity:
    """The inverse of `necessity_json`.

    Raises:
        KeyError, TypeError, ValueError: the values are none.
    """
    effects = [
        Effect(
            **{name: str(row[name]) for name in ("way", "op", "group")},
            **{name: rate_from_json(row[name]) for name in _RATES},
            p=from_known(row["p"]),
            q=from_known(row["q"]),
        )
        for row in values["effects"]
    ]
    needs = [
        Need(op=str(row["op"]), by_truth=rate_from_json(row["by_truth"]), counterfactual=rate_from_json(row["counterfactual"]))
        for row in values["needs"]
    ]
    return Necessity(
        overall=rate_from_json(values["overall"]), effects=tuple(effects), needs=tuple(needs), num_late=int(values["num_late"])
    )


def necessity_text(found: Necessity) -> str:
    """For people: what each tool is worth over all items, where it is needed, and family by family."""
    ways = [way for way in WAYS if any(effect.way == way for effect in found.effects)]
    parts = [f"accuracy with all tools {rate_text(found.overall)}, {found.overall.count} items"]
    parts += [table_text(["tool", "items", "accuracy without", "drop", "p", "q (BH)", "drop of RaPR"], _lines(found, way)) for way in ways]
    parts += [_matrix_text(found, way) for way in ways]
    head = ["tool", "needed by the truth", "items", "right with all, wrong without it", "right items"]
    parts.append(table_text(head, [_need_texts(need) for need in found.needs]))
    parts.append(f"note: {found.num_late} trajectories failed for the machine's sake" if found.num_late else "")
    return "\n\n".join(part for part in parts if part)


def _lines(found: Necessity, way: str) -> list[list[str]]:
    names = {ALL: "", NEEDED: ", where the truth needs it", CHOSEN: ", on the frozen subset"}
    rows = [effect for effect in found.effects if effect.way == way and effect.group in names and effect.drop.count]
    return [
        [
            f"{effect.op} {way}{names[effect.group]}",
            str(effect.drop.count),
            rate_text(effect.without),
            rate_text(effect.drop),
            number_text(effect.p, 4),
            number_text(effect.q, 4),
            rate_text(effect.rapr_drop),
        ]
        for effect in rows
    ]


def _matrix_text(found: Necessity, way: str) -> str:
    """Families down, tools across: the drop of the accuracy, with a star where q is below 0.05."""
    ops = list(dict.fromkeys(effect.op for effect in found.effects if effect.way == way))
    rows = []
    for family in found.families:
        cells = [found.find(way, op, family) for op in ops]
        count = next((str(cell.drop.count) for cell in cells if cell), "0")
        rows.append([family, count, *(f"{number_text(c.drop.value, 2)}{'*' if c.q < 0.05 else ''}" if c else "-" for c in cells)])
    return table_text([f"drop, {way}", "items", *ops], rows)


def _need_texts(need: Need) -> list[str]:
    return [
        need.op,
        rate_text(need.by_truth),
        str(need.by_truth.count),
        rate_text(need.counterfactual),
        str(need.counterfactual.count),
    ]
