"""Where the tools break: failing trajectories sorted into modes by exact facts of their items. Pure.

An item may have several traits; one without any is "other". A trait and a question family go together (only videos have movers), so that
beside the rate on all items without the trait stands the rate that items without it would have in the same families.
Source: paper, supplement 9 (four recurring modes); the limits are ours.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy import stats

from pixelis.data.world.fonts import FONTS
from pixelis.data.world.item import Item, WorldObject
from pixelis.eval.report import number_text, rate_text, table_text
from pixelis.eval.scores import ItemScore
from pixelis.eval.stats import Rate, benjamini_hochberg, known, mean_rate, share

SMALL_AREA = 3e-4
"""Share of the frame below which evidence is small: 14 pixels square of 960 x 720."""
THIN_SIDE = 1 / 128
"""Shorter side of evidence over the longer side of the frame below which it is thin: 7.5 of 960 pixels."""
FAST = 1.0
"""Mean way per frame of a thing that the question names, in its own sides, above which it is fast: its boxes in two frames no longer
overlap."""
DENSE = 12
"""Things to be seen from which a layout is dense."""
MIN_SLANT, MAX_CONTRAST = 0.1, 0.25
"""A hand is stylised from this slant, with this much difference between level and upright strokes, or with serifs."""
OTHER = "other"

Pair = tuple[Item, ItemScore]


def is_thin_or_small(item: Item) -> bool:
    """Whether the smallest region that must be looked at is small, or narrow."""
    frame, side = item.width * item.height, max(item.width, item.height)
    return any(box.area < SMALL_AREA * frame or min(box.width, box.height) < THIN_SIDE * side for _, box in item.evidence.boxes)


def is_stylised(item: Item) -> bool:
    """Whether a text must be read, and its hand is slanted, has serifs, or strokes of different weight."""
    hands = [FONTS[name] for name in item.style.fonts]
    odd = any(hand.has_serifs or abs(hand.slant) >= MIN_SLANT or abs(hand.level - 1) >= MAX_CONTRAST for hand in hands)
    return odd and any(call.op == "OCR" for call in item.chain)


def is_fast(item: Item) -> bool:
    """Whether a thing that the question names moves by more than its own size between two frames, on average."""
    asked = {number for _, number in item.mentions}
    return any(speed(thing) > FAST for thing in item.truth.objects if thing.number in asked)


def speed(thing: WorldObject) -> float:
    """Mean way of a thing's centre from one frame to the next, in its own sides; 0 for one that is never seen in two frames running."""
    ways = [
        math.dist(one.centre, two.centre) / math.sqrt(one.area)
        for one, two in zip(thing.track, thing.track[1:], strict=False)
        if one is not None and two is not None and not one.is_empty
    ]
    return sum(ways) / len(ways) if ways else 0.0


def is_dense(item: Item) -> bool:
    """Whether many things are to be seen; plates in front and walls are none."""
    return sum(thing.kind not in ("occluder", "wall") for thing in item.truth.objects) >= DENSE


MODES: dict[str, tuple[str, Callable[[Item], bool]]] = {
    "thin or small": (
        f"evidence of less than {SMALL_AREA:.2%} of the frame, or narrower than 1/{1 / THIN_SIDE:.0f} of it",
        is_thin_or_small,
    ),
    "stylised text": ("text to be read in a slanted hand, with serifs, or with strokes of different weight", is_stylised),
    "fast motion": ("a thing of the question moves by more than its own size from frame to frame", is_fast),
    "dense layout": (f"{DENSE} things or more", is_dense),
}


@dataclass(frozen=True, kw_only=True)
class Mode:
    """One way in which items are hard."""

    name: str
    meaning: str
    failed: Rate
    """Share of its items that are answered wrongly; its count is the number of items with the trait."""
    without: Rate
    """The same of all items without the trait."""
    same_families: float
    """Failure rate of items without the trait, weighted by how many of the mode's items each family has; over the families that have items
    of both sorts. NaN where none has."""
    num_same: int
    """Items with the trait in those families."""
    p: float
    """Two-sided, of Fisher's exact test of failing with and without the trait."""
    q: float
    """p after Benjamini-Hochberg over the modes."""
    rapr: Rate
    """RaPR of its items; valid steps fall away where tools break."""
    rapr_without: Rate
    broke_at: dict[str, int]
    """Of its failures: the op of the first step that is not valid to how often; "none" where every step was valid."""
    worst: tuple[ItemScore, ...]
    """Failures with the smallest share of valid steps, then the longest, first."""


def audit(pairs: Sequence[Pair], *, num_worst: int = 6, seed: int = 0) -> tuple[Mode, ...]:
    """Every mode, then `OTHER`: items without any trait.

    Args:
        pairs: items with their scores.
        num_worst: failures kept of each mode.
        seed: of the bootstrap.
    """
    pairs = sorted(pairs, key=lambda pair: pair[0].index)
    has = {name: {item.id for item, _ in pairs if test(item)} for name, (_, test) in MODES.items()}
    has[OTHER] = {item.id for item, _ in pairs} - set().union(*has.values())
    meanings = {**{name: meaning for name, (meaning, _) in MODES.items()}, OTHER: "none of these"}
    modes = [_mode(name, meanings[name], pairs, has[name], num_worst, seed) for name in has]
    adjusted = benjamini_hochberg([mode.p for mode in modes])
    return tuple(replace(mode, q=float(q)) for mode, q in zip(modes, adjusted, strict=True))


def _mode(name: str, meaning: str, pairs: Sequence[Pair], members: set[str], num_worst: int, seed: int) -> Mode:
    inside = [score for item, score in pairs if item.id in members]
    outside = [score for item, score in pairs if item.id not in members]
    failures = [score for score in inside if not score.right]
    expected, num_same = _same_families(inside, outside)
    return Mode(
        name=name,
        meaning=meaning,
        failed=share(len(failures), len(inside)),
        without=share(sum(not score.right for score in outside), len(outside)),
        same_families=expected,
        num_same=num_same,
        p=_fisher(inside, outside),
        q=math.nan,
        rapr=mean_rate([score.valid_share for score in inside], seed=seed),
        rapr_without=mean_rate([score.valid_share for score in outside], seed=seed),
        broke_at=dict(sorted(Counter(map(first_invalid, failures)).items())),
        worst=tuple(sorted(failures, key=lambda score: (score.valid_share, -score.steps, score.index))[:num_worst]),
    )


def _same_families(inside: Sequence[ItemScore], outside: Sequence[ItemScore]) -> tuple[float, int]:
    """Direct standardisation over the families that have items of both sorts: the rate, and the items that weigh it."""
    rates: dict[str, list[bool]] = defaultdict(list)
    for score in outside:
        rates[score.family].append(not score.right)
    expected = [sum(rates[score.family]) / len(rates[score.family]) for score in inside if score.family in rates]
    return (sum(expected) / len(expected) if expected else math.nan), len(expected)


def _fisher(inside: Sequence[ItemScore], outside: Sequence[ItemScore]) -> float:
    if not inside or not outside:
        return math.nan
    table = [[sum(not score.right for score in side), sum(score.right for score in side)] for side in (inside, outside)]
    return float(stats.fisher_exact(table).pvalue)


def first_invalid(score: ItemScore) -> str:
    """The op of the first step that is not valid; "none" where there is no such step, "no call" where its text held no call."""
    op = next((op for op, is_valid in zip(score.ops, score.valid, strict=True) if not is_valid), "")
    return {"": "none", "none": "no call"}.get(op, op)


# ---------------------------------------------------------------- JSON and text


def audit_json(modes: Sequence[Mode]) -> list[dict[str, Any]]:
    """Plain JSON values; what is unknown is None. Of the worst only the ids."""
    return [
        {
            "name": mode.name,
            "meaning": mode.meaning,
            **{name: getattr(mode, name).to_json() for name in ("failed", "without", "rapr", "rapr_without")},
            **{name: known(getattr(mode, name)) for name in ("same_families", "p", "q")},
            "num_same": mode.num_same,
            "broke_at": mode.broke_at,
            "worst": [{"item": score.id, "trajectory": score.trajectory} for score in mode.worst],
        }
        for mode in modes
    ]


AUDIT_HEAD = (
    "mode",
    "items",
    "failed",
    "failed without",
    "same families, without",
    "p",
    "q (BH)",
    "RaPR",
    "RaPR without",
    "broke first at",
)


def audit_texts(modes: Sequence[Mode]) -> list[list[str]]:
    """A line a mode, under `AUDIT_HEAD`."""
    return [
        [
            mode.name,
            str(mode.failed.count),
            rate_text(mode.failed),
            rate_text(mode.without),
            f"{number_text(mode.same_families, 3)} ({mode.num_same})",
            number_text(mode.p, 4),
            number_text(mode.q, 4),
            rate_text(mode.rapr),
            rate_text(mode.rapr_without),
            ", ".join(f"{op} {count}" for op, count in sorted(mode.broke_at.items(), key=lambda one: (-one[1], one[0]))) or "-",
        ]
        for mode in modes
    ]


def audit_text(modes: Sequence[Mode]) -> str:
    """For people."""
    meanings = "\n".join(f"{mode.name}: {mode.meaning}" for mode in modes)
    return f"{table_text(AUDIT_HEAD, audit_texts(modes))}\n\n{meanings}"
