"""Streams of queries: what is served, in order, and what an audit may know of it. Learning sees tasks only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from pixelis.core.errors import ConfigError
from pixelis.core.media import open_medium
from pixelis.data.world.item import Item
from pixelis.data.world.items import FAMILIES, make_item, render
from pixelis.data.world.score import score_answer
from pixelis.data.world.shifts import Shift, parse_shift
from pixelis.policy.base import Task


@dataclass(frozen=True)
class Query:
    """One question about an open medium."""

    task: Task
    choices: tuple[str, ...]
    """Options, where it is a question of choice."""
    data: bytes
    """The medium, for the run folder."""


class Stream(Protocol):
    """Queries in a fixed order; each can be opened again."""

    def __len__(self) -> int: ...

    def open(self, number: int) -> contextmanager[Query]: ...


class Audit(Protocol):
    """What knows the truth. It is asked after everything was decided and learnt, and its word goes nowhere but into a table."""

    def is_right(self, number: int, answer: str | None) -> bool | None:
        """None where the truth is unknown."""
        ...


@dataclass(frozen=True)
class Segment:
    """A stretch of a stream under one shift."""

    count: int
    shift: Shift | None = None


def parse_segments(texts: Sequence[str]) -> tuple[Segment, ...]:
    """`["100 clean", "100 lighting:3"]` as segments.

    Raises:
        ConfigError: not of this form.
    """
    found = []
    for text in texts:
        number, _, shift = text.partition(" ")
        if not number.isdigit() or int(number) < 1 or not shift:
            raise ConfigError(f"segment {text!r}: write a number of queries and a shift, as '100 lighting:3' or '100 clean'")
        found.append(Segment(int(number), None if shift == "clean" else parse_shift(shift)))
    return tuple(found)


@dataclass(frozen=True)
class WorldStream:
    """PixelWorld items as a stream.

    Args:
        segments: stretches, one after another: one alone, an abrupt change, or one that recurs.
        order_seed: shuffles the queries within each segment; None keeps the order of the items.
        families: all when empty.
    """

    segments: tuple[Segment, ...]
    split: str = "test"
    seed: int = 0
    first: int = 0
    order_seed: int | None = None
    families: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises: ConfigError: no segment, or an unknown family."""
        unknown = [name for name in self.families if name not in FAMILIES]
        if unknown or not self.segments:
            raise ConfigError(f"a stream needs segments and known families; unknown: {', '.join(unknown) or 'none'}")

    def __len__(self) -> int:
        return len(self._places)

    @cached_property
    def _places(self) -> tuple[tuple[int, Shift | None], ...]:
        """Item and shift of every query."""
        places, start = [], self.first
        for number, segment in enumerate(self.segments):
            indices = np.arange(start, start + segment.count)
            if self.order_seed is not None:
                indices = np.random.default_rng([self.order_seed, number]).permutation(indices)
            places += [(int(index), segment.shift) for index in indices]
            start += segment.count
        return tuple(places)

    def item(self, number: int) -> Item:
        index, shift = self._places[number]
        names = self.families or tuple(FAMILIES)
        return make_item(self.split, index, seed=self.seed, family=names[index % len(names)], shift=shift)

    @contextmanager
    def open(self, number: int) -> Iterator[Query]:
        item = self.item(number)
        data = render(item)
        with open_medium(data, name=item.medium_name) as medium:
            yield Query(Task(question=item.prompt, medium=medium, id=item.id), tuple(item.choices), data)

    def is_right(self, number: int, answer: str | None) -> bool:
        """As an audit."""
        return bool(score_answer(self.item(number), answer or ""))
