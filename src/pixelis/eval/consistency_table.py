"""How the baselines at inference time do on the same stored rollouts: a line for each, with its budget. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from pixelis.core.errors import DataError
from pixelis.eval.consistency import METHODS, Choice, Draw, Fitted, Judge, Method, Pool
from pixelis.eval.metrics.process import chain_stability
from pixelis.eval.metrics.selective import reliability, risk_coverage, selective_error
from pixelis.eval.report import number_text, rate_text, table_text
from pixelis.eval.stats import Rate, benjamini_hochberg, from_known, known, mean_rate, paired_p, rate_from_json
from pixelis.ttrl.similarity import similarity

SINGLE, ORACLE = "single", "oracle"
"""The mean of one rollout, which the others are compared with; and any rollout right, which is a ceiling and no method."""
ORACLE_NAME = "oracle (no method: knows the truth)"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to answer, over all items."""

    name: str
    """A name in `METHODS`, `SINGLE` or `ORACLE`."""
    accuracy: Rate
    """Of all answers, those that were abstained from included."""
    difference: Rate
    """Paired, to `SINGLE`; its count is the number of items."""
    p: float
    """Two-sided, of the paired permutation test."""
    q: float
    """p after Benjamini-Hochberg over the methods; NaN for the oracle."""
    coverage: Rate
    """Share of items answered; its count is 0 for a method that never abstains."""
    error: Rate
    """Err@Sel: share of errors among answered items."""
    aurc: float
    """Area under risk-coverage by the method's own confidence; NaN where it has none."""
    ece: float
    rollouts: float
    """Per item, as all that follows."""
    tokens: float
    """Sampled; NaN for a policy without tokens."""
    calls: float

    @property
    def title(self) -> str:
        return ORACLE_NAME if self.name == ORACLE else self.name


@dataclass(frozen=True, kw_only=True)
class Consistency:
    rows: tuple[Row, ...]
    stability: Rate
    """RCS of the rollouts with tools on, over items; see `stability`."""
    num_items: int
    num_rollouts: int
    """With tools on, of all items together."""
    num_confident: int
    """Rollouts whose trajectory records how probable its answer was."""
    num_ranked: int
    """Rollouts that ranked several answers."""
    num_late: int
    """Trajectories that failed for the machine's sake."""
    fitted: Mapping[str, float | None]
    """What was fitted on the other split; empty where there is none."""
    left_out: Mapping[str, str]
    """Methods that could not be run, and what they need."""

    def find(self, name: str) -> Row | None:
        return next((row for row in self.rows if row.name == name), None)


def make_consistency(pools: Sequence[Pool], judge: Judge, *, fitted: Fitted | None = None, seed: int = 0, num_late: int = 0) -> Consistency:
    """Every number.

    Args:
        pools: of the items under test; their order changes nothing.
        judge: used to score what a method has chosen, and by the oracle.
        fitted: on another split; without it the methods that need one are left out.
        seed: of bootstrap and permutations.

    Raises:
        DataError: there is no pool.
    """
    if not pools:
        raise DataError("nothing to choose from: no item has rollouts; wanted is 1 or more")
    pools = sorted(pools, key=lambda pool: pool.id)
    each = [[judge(pool.id, draw.facts.answer) for draw in pool.on] for pool in pools]
    single_N = np.array([math.fsum(some) / len(some) for some in each])
    left_out = {name: why for name, method in METHODS.items() if (why := _lacks(method, name, pools, fitted))}
    rows = [_row(SINGLE, single_N, single_N, [pool.on for pool in pools], seed=seed, is_one=True)]
    for name, method in METHODS.items():
        if name not in left_out:
            chosen = [method.choose(pool, fitted or Fitted()) for pool in pools]
            right_N = np.array([judge(pool.id, choice.answer) for pool, choice in zip(pools, chosen, strict=True)], float)
            rows.append(_row(name, right_N, single_N, [method.draws(pool) for pool in pools], chosen=chosen, seed=seed))
    adjusted = benjamini_hochberg([row.p for row in rows[1:]])
    rows[1:] = [replace(row, q=float(q)) for row, q in zip(rows[1:], adjusted, strict=True)]
    rows.append(_row(ORACLE, np.array([max(some) for some in each], float), single_N, [pool.on for pool in pools], seed=seed))
    draws = [draw for pool in pools for draw in pool.on]
    return Consistency(
        rows=tuple(rows),
        stability=stability(pools, seed=seed),
        num_items=len(pools),
        num_rollouts=len(draws),
        num_confident=sum(draw.facts.confidence is not None for draw in draws),
        num_ranked=sum(len(draw.facts.ranking) > 1 for draw in draws),
        num_late=num_late,
        fitted=_fitted_json(fitted),
        left_out=left_out,
    )


def stability(pools: Sequence[Pool], *, seed: int = 0) -> Rate:
    """RCS: the mean behavioural similarity of an item's rollouts with tools on, over all pairs, averaged over items.

    Unscored are an item with one rollout, and one on which no rollout took a step: without chains there is nothing to be stable, and a
    policy that only talks would look perfect. A rollout without steps beside one with some counts, and shares nothing with it.

    Source: paper §4.2 (RCS), §3.2.3, Eq. 4 (similarity).
    """
    chains = [[draw.facts.evidence for draw in pool.on] for pool in pools]
    return chain_stability([some if any(some) else [] for some in chains], similarity, seed=seed)


def _lacks(method: Method, name: str, pools: Sequence[Pool], fitted: Fitted | None) -> str:
    """What a method would need; empty when it can be run."""
    if name == "greedy" and any(pool.greedy is None for pool in pools):
        return "a rollout at temperature 0 for every item"
    if method.needs_off and any(len(pool.off) < max(1, len(pool.on) // 2) for pool in pools):
        return "rollouts with all tools off, half as many as with them (--fusion)"
    if method.is_fitted and (fitted is None or (method.needs_off and fitted.weight is None)):
        return "rollouts of another, labelled split (--calibration)"
    return ""


def _fitted_json(fitted: Fitted | None) -> dict[str, float | None]:
    if fitted is None:
        return {}
    return {
        "temperature of rollouts": fitted.rollout.temperature if fitted.rollout else None,
        "temperature of the vote": fitted.vote.temperature if fitted.vote else None,
        "weight of tools on": fitted.weight,
    }


def _row(
    name: str,
    right_N: np.ndarray,
    single_N: np.ndarray,
    used: Sequence[Sequence[Draw]],
    *,
    chosen: Sequence[Choice] = (),
    seed: int,
    is_one: bool = False,
) -> Row:
    """One line; its q is left NaN.

    Args:
        used: rollouts per item.
        is_one: their mean is what counts, and what it costs.
    """
    confidence_N = np.array([choice.confidence for choice in chosen], float)
    is_abstained_N = [bool(choice.is_abstaining) for choice in chosen if choice.is_abstaining is not None]
    selection = selective_error(1 - right_N, is_abstained_N) if is_abstained_N else None
    is_sure = bool(len(confidence_N)) and not np.isnan(confidence_N).any()
    tokens = math.fsum(_spent(some, "tokens", is_one) for some in used) / len(used)
    return Row(
        name=name,
        accuracy=mean_rate(right_N, seed=seed),
        difference=mean_rate([] if name == SINGLE else right_N - single_N, is_share=False, seed=seed),
        p=math.nan if name == SINGLE else paired_p(right_N, single_N, seed=seed),
        q=math.nan,
        coverage=selection.coverage if selection else mean_rate([]),
        error=selection.error if selection else mean_rate([]),
        aurc=risk_coverage(confidence_N, 1 - right_N).aurc if is_sure else math.nan,
        ece=reliability(confidence_N, right_N).ece if is_sure else math.nan,
        rollouts=1.0 if is_one else sum(map(len, used)) / len(used),
        tokens=tokens or math.nan,  # a policy without tokens sampled none: what it cost is unknown
        calls=math.fsum(_spent(some, "calls", is_one) for some in used) / len(used),
    )


def _spent(draws: Sequence[Draw], what: str, is_one: bool) -> float:
    return sum(getattr(draw, what) for draw in draws) / (len(draws) if is_one else 1)


# ---------------------------------------------------------------- JSON and text

_RATES = ("accuracy", "difference", "coverage", "error")
_NUMBERS = ("p", "q", "aurc", "ece", "rollouts", "tokens", "calls")
_REST = tuple(field.name for field in fields(Consistency) if field.name not in ("rows", "stability"))


def consistency_json(found: Consistency) -> dict[str, Any]:
    """Plain JSON values; what is unknown is None."""
    rows = [
        {
            "name": row.name,
            "is_method": row.name not in (SINGLE, ORACLE),
            **{key: getattr(row, key).to_json() for key in _RATES},
            **{key: known(getattr(row, key)) for key in _NUMBERS},
        }
        for row in found.rows
    ]
    rest = {key: dict(value) if isinstance(value := getattr(found, key), Mapping) else value for key in _REST}
    return {"methods": rows, "stability": found.stability.to_json(), **rest}


def consistency_from_json(values: Mapping[str, Any]) -> Consistency:
    """The inverse of `consistency_json`.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: a key is missing, or its value is of the wrong type.
    """
    rows = tuple(
        Row(
            name=str(row["name"]),
            **{key: rate_from_json(row[key]) for key in _RATES},
            **{key: from_known(row[key]) for key in _NUMBERS},
        )
        for row in values["methods"]
    )
    return Consistency(rows=rows, stability=rate_from_json(values["stability"]), **{key: values[key] for key in _REST})


HEAD = (
    *("method", "items", "accuracy", "difference to single", "p", "q (BH)"),
    *("coverage", "Err@Sel", "AURC", "ECE"),
    *("rollouts", "tokens", "calls"),
)
"""The budget is per item."""


def row_texts(row: Row) -> list[str]:
    """A line of the table for people, as `HEAD` names it."""
    rates = [rate_text(row.coverage), rate_text(row.error)]
    budget = [number_text(row.rollouts, 0), number_text(row.tokens, 0), number_text(row.calls, 2)]
    return [
        row.title,
        str(row.accuracy.count),
        rate_text(row.accuracy),
        rate_text(row.difference),
        number_text(row.p, 4),
        number_text(row.q, 4),
        *rates,
        number_text(row.aurc, 3),
        number_text(row.ece, 3),
        *budget,
    ]


def remarks(found: Consistency) -> list[str]:
    """What has to be said of the table."""
    stable = found.stability
    words = [
        f"RCS {rate_text(stable)}: how alike an item's rollouts are, over {stable.count} items; on {stable.num_unscored} others there was "
        "nothing to compare (fewer than two rollouts, or none with a step)",
        f"{found.num_ranked} of {found.num_rollouts} rollouts ranked several answers; the others stand for their one answer in ranked",
        f"{found.num_confident} of {found.num_rollouts} rollouts record how probable their answer was; unknown counts as the mean",
    ]
    if found.fitted:
        words.append("fitted on the other split: " + ", ".join(f"{name} {_value(value)}" for name, value in found.fitted.items()))
    words += [f"{name} is left out: it needs {what}" for name, what in found.left_out.items()]
    if found.num_late:
        words.append(f"{found.num_late} trajectories failed for the machine's sake: a busy machine looks like a weak policy")
    return words


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def consistency_text(found: Consistency) -> str:
    """The table for people."""
    return "\n".join([table_text(HEAD, [row_texts(row) for row in found.rows]), "", *remarks(found)])
