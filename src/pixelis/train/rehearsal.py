"""Rehearsal: dialogues about views between traces, so that a small model goes on learning to point while it learns to act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelis.policy.buffer import ChatFormat, ImageRef
from pixelis.train.bank import FeatureBank, tower_name
from pixelis.train.learner import Dose
from pixelis.train.primer import Lessons
from pixelis.train.views import View, grid_of, read_views


@dataclass(frozen=True)
class RehearsalSettings:
    """Which views, and how much.

    Args:
        views: a folder of views; see `pixelis.train.views`.
        num_dev: views at the front that are kept for measuring.
        dialogues: of each pass, beside its traces.
    """

    views: str
    num_dev: int = 400
    dialogues: int = 4


class Rehearsal:
    """Doses of dialogues; the same number gives the same dose."""

    def __init__(self, settings: RehearsalSettings, bank: FeatureBank, base: Any, chat: ChatFormat, cache: Path, *, seed: int) -> None:
        views = read_views(settings.views)[settings.num_dev :]
        self._count = settings.dialogues
        self._lessons = Lessons(views, encode_views(bank, base, views, cache), chat, seed + 1)  # others than the primer's

    def dose(self, number: int) -> Dose:
        return Dose.plain([self._lessons.example(number * self._count + k) for k in range(self._count)])


def encode_views(bank: FeatureBank, base: Any, views: Sequence[View], cache: Path | None = None) -> list[ImageRef]:
    """Features of all views, from the cache where it is of the same tower; their names are their places."""
    names = [f"view-{k}" for k in range(len(views))]
    tower = tower_name(base) if cache else ""
    if not cache or not bank.load(cache, tower=tower):
        for start in range(0, len(views), 64):
            bank.add([(names[k], views[k].pixels_HWC) for k in range(start, min(start + 64, len(views)))])
        if cache:
            bank.save(cache, tower=tower, only=names)
    return [ImageRef(name, grid_of(view.pixels_HWC)) for name, view in zip(names, views, strict=True)]
