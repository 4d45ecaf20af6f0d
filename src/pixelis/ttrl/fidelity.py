"""VisFid without ground truth: a rollout's decisive evidence against what other rollouts with the majority answer, and neighbours, saw.

A step is scored against the best matching step of the pool that is comparable (same op, same property, same event). Where the pool holds no
such step there is no reference, and the step is not scored: nothing speaks for it or against it. A rollout is never its own reference; that
two rollouts made the same calls is agreement, and counts. Source: paper §3.2.3, "Pixel fidelity and pseudo-references".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pixelis.ttrl.evidence import Evidence, agreement, is_comparable


@dataclass(frozen=True)
class Fidelity:
    """VisFid of one rollout."""

    value: float
    """Mean over the scored steps, in [0, 1]; NaN where none could be scored."""
    num_scored: int
    num_unscored: int
    """Decisive steps without a reference."""


def visual_fidelity(evidence: Iterable[Evidence], references: Sequence[Evidence]) -> Fidelity:
    """VisFid of one rollout.

    Args:
        references: steps of the pool; those that showed nothing are passed over.
    """
    scores = []
    num_unscored = 0
    for own in evidence:
        if own.is_decisive and own.is_ok:
            found = [agreement(own, other) for other in references if is_comparable(own, other)]
            scores += [max(found)] if found else []
            num_unscored += not found
    return Fidelity(math.fsum(scores) / len(scores) if scores else math.nan, len(scores), num_unscored)


def majority(labels: Sequence[str | None]) -> frozenset[str]:
    """The answers that most rollouts gave: several where they are equally frequent, none where nobody answered."""
    counts = Counter(label for label in labels if label is not None)
    most = max(counts.values(), default=0)
    return frozenset(label for label, count in counts.items() if count == most)


def fidelities(
    rollouts: Sequence[Sequence[Evidence]], labels: Sequence[str | None], neighbours: Sequence[Sequence[Evidence]] = ()
) -> tuple[Fidelity, ...]:
    """VisFid of every rollout of a query, against the others with the majority answer and against neighbours.

    The majority is of plain votes: the weighted vote itself is made from VisFid.

    Args:
        labels: the rollouts' answers as they are voted on; None for a rollout without one, which is no reference.
        neighbours: evidence of neighbours whose medium has the same pixels.
    """
    winners = majority(labels)
    shared = [step for evidence in neighbours for step in evidence]
    pool = [k for k, label in enumerate(labels) if label in winners]
    return tuple(
        visual_fidelity(own, [step for k in pool if k != number for step in rollouts[k]] + shared) for number, own in enumerate(rollouts)
    )
