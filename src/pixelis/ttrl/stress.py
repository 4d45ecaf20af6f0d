"""What is done to a neighbourhood on purpose, to see what the vote withstands. Seeded and pure.

- flip: a share of the neighbours say another answer than was stored: one of this query's own answers where there is another, else another
  neighbour's. Whoever had given the stored answer in that neighbour's vote is taken to have given the other one, too.
- near miss: a share of the neighbours give way to the most similar entries with another answer than the query's most frequent one.
- jpeg, rescale: the pictures that the asking key is made of, before the search.

Only what a decision is made from changes, and it is recorded so. What the memory holds of earlier queries stays; of this one it takes in
the rollouts' own votes, the key without stress, and the answer that was decided.
Letters: K neighbours, HWC image. Source: paper supplement 9, "Neighborhood pathologies" and "Extended risk-coverage curves".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pixelis.core.errors import ConfigError
from pixelis.core.media_image import through_jpeg
from pixelis.ttrl.facts import NeighbourFacts

NUM_POOL = 64
"""Further entries among which near misses are looked for."""


@dataclass(frozen=True)
class Stress:
    """How much of each.

    Args:
        flip, near_miss: share of the neighbours, in [0, 1].
        jpeg: quality, from 1 to 100; None compresses nothing.
        rescale: factor of both sides, in (0, 1].

    Raises:
        ConfigError: a value out of its range.
    """

    flip: float = 0.0
    near_miss: float = 0.0
    jpeg: int | None = None
    rescale: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.flip <= 1 and 0 <= self.near_miss <= 1):
            raise ConfigError(f"flip = {self.flip}, near_miss = {self.near_miss}: give shares of the neighbours, from 0 to 1")
        if not ((self.jpeg is None or 1 <= self.jpeg <= 100) and 0 < self.rescale <= 1):
            raise ConfigError(
                f"jpeg = {self.jpeg}, rescale = {self.rescale}: give a quality from 1 to 100, and a factor above 0, at most 1"
            )

    @property
    def changes_neighbours(self) -> bool:
        return self.flip > 0 or self.near_miss > 0

    @property
    def changes_pictures(self) -> bool:
        return self.jpeg is not None or self.rescale < 1


def stressed(
    found: Sequence[NeighbourFacts], labels: Sequence[str | None], stress: Stress, seed: Sequence[int], *, num: int
) -> tuple[NeighbourFacts, ...]:
    """The neighbourhood as the decision will see it: near misses first, then flips.

    Args:
        found: best first; those behind the first `num` only serve as near misses.
        labels: of the query's rollouts.
        seed: of this query.
    """
    generator = np.random.default_rng(list(seed))
    neighbours = near_missed(found[:num], found[num:], labels, stress.near_miss, generator)
    return flipped(neighbours, labels, stress.flip, generator)


def flipped(
    neighbours: Sequence[NeighbourFacts], labels: Sequence[str | None], share: float, generator: np.random.Generator
) -> tuple[NeighbourFacts, ...]:
    """A share of the neighbours with another answer; those without an answer, or for which there is no other, stay and are not counted."""
    changed, others = list(neighbours), [_other_answers(one, neighbours, labels) for one in neighbours]
    able = [k for k, answers in enumerate(others) if answers]
    for place in _drawn(len(able), share, generator):
        k = able[place]
        one, answer = neighbours[k], others[k][generator.integers(len(others[k]))]
        votes = tuple(replace(vote, label=answer) if vote.label == one.answer else vote for vote in one.votes)
        changed[k] = replace(one, answer=answer, votes=votes, stress="flip")
    return tuple(changed)


def near_missed(
    neighbours: Sequence[NeighbourFacts],
    pool: Sequence[NeighbourFacts],
    labels: Sequence[str | None],
    share: float,
    generator: np.random.Generator,
) -> tuple[NeighbourFacts, ...]:
    """A share of the neighbours replaced by the first of the pool that have an answer, and not the query's; fewer where the pool ends."""
    own = Counter(label for label in labels if label is not None).most_common(1)  # of equals the one that comes first
    wrong = [one for one in pool if one.answer is not None and (not own or one.answer != own[0][0])]
    changed = list(neighbours)
    for place, one in zip(_drawn(len(neighbours), share, generator), wrong, strict=False):
        changed[place] = replace(one, stress="near_miss")
    return tuple(changed)


def _other_answers(one: NeighbourFacts, neighbours: Sequence[NeighbourFacts], labels: Sequence[str | None]) -> list[str]:
    if one.answer is None:
        return []
    own, theirs = ({label for label in said if label is not None} - {one.answer} for said in (labels, [n.answer for n in neighbours]))
    return sorted(own or theirs)


def _drawn(num: int, share: float, generator: np.random.Generator) -> list[int]:
    """Places of a share of `num`: as many as it makes, rounded up with the probability of what is left over."""
    count = min(num, int(share * num + generator.random()))
    return sorted(generator.choice(num, size=count, replace=False).tolist()) if count else []


def through_journey(image_HWC: np.ndarray, stress: Stress) -> np.ndarray:
    """A picture after JPEG and shrinking; each crop of a key goes through alone, so blocks begin at its corner, not at the frame's.

    Args:
        image_HWC: uint8 RGB.
    """
    import cv2

    if stress.jpeg is not None:
        image_HWC = through_jpeg(image_HWC, stress.jpeg)
    if stress.rescale < 1:
        height, width = (max(1, round(side * stress.rescale)) for side in image_HWC.shape[:2])
        image_HWC = cv2.resize(image_HWC, (width, height), interpolation=cv2.INTER_AREA)
    return image_HWC
