"""Running mean and variance that can be merged, frozen and stored: z statistics per task family."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Running:
    """Count, mean and sum of squared deviations (Welford; Chan's rule to merge)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: Iterable[float]) -> Running:
        """With more values; those that are not finite are unknown and left out."""
        fresh = np.array([v for v in values if math.isfinite(v)], np.float64)
        if not len(fresh):
            return self
        return self.merge(Running(len(fresh), float(fresh.mean()), float(((fresh - fresh.mean()) ** 2).sum())))

    def merge(self, other: Running) -> Running:
        if not other.count or not self.count:
            return other if other.count else self
        count, gap = self.count + other.count, other.mean - self.mean
        mean = self.mean + gap * other.count / count
        return Running(count, mean, self.squares + other.squares + gap**2 * self.count * other.count / count)

    @property
    def std(self) -> float:
        """Of the population; NaN of nothing."""
        return math.sqrt(self.squares / self.count) if self.count else math.nan

    def z(self, value: float, *, least_std: float = 1e-6) -> float:
        """Distance from the mean in standard deviations; 0 where nothing varies or was seen, so that nothing is rewarded for it."""
        if self.count < 2 or self.std < least_std:
            return 0.0
        return (value - self.mean) / self.std


@dataclass(frozen=True)
class FamilyStatistics:
    """One `Running` per task family; a family never seen is judged by all of them together."""

    families: Mapping[str, Running] = field(default_factory=dict)

    def add(self, family: str, values: Iterable[float]) -> FamilyStatistics:
        return FamilyStatistics({**self.families, family: self.families.get(family, Running()).add(values)})

    def of(self, family: str, *, least: int = 2) -> Running:
        """A family's own; those of all families together while it has fewer than `least` values.

        The deviation of a few values that happen to be alike is next to nothing, and whatever comes after them is thousands of it away.
        """
        found = self.families.get(family)
        if found is not None and found.count >= least:
            return found
        everything = Running()
        for running in self.families.values():
            everything = everything.merge(running)
        return everything

    def to_json(self) -> dict[str, list[float]]:
        return {name: [r.count, r.mean, r.squares] for name, r in self.families.items()}

    @classmethod
    def from_json(cls, facts: Mapping[str, list[float]]) -> FamilyStatistics:
        return cls({name: Running(int(count), float(mean), float(squares)) for name, (count, mean, squares) in facts.items()})
