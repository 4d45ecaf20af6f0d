"""One PixelWorld item: a question about one medium, its right answer, the minimal tool chain, the evidence and the exact truth.

Answers (see `score` for how they are compared): lower-case words; whole numbers in digits; seconds with one decimal; texts as they
are written on the sign, in lower case; yes or no; for a multiple-choice question the letter. A question whose premise is false has the
answer "there is no red star" (the thing is absent) or "never" (the thing is there, the event does not happen).
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import pydantic

from pixelis.core.geometry import Box, Mask, TimeSpan
from pixelis.core.ops import Args, OcrArgs, PropArgs, SegArgs, TempArgs, TrkArgs, ZoomArgs, record
from pixelis.data.world.shifts import Shift
from pixelis.data.world.words import Style

ARGS = {"SEG": SegArgs, "ZOOM": ZoomArgs, "TRK": TrkArgs, "OCR": OcrArgs, "TEMP": TempArgs, "PROP": PropArgs}
LETTERS = "ABCDEFGH"


@record
class PlannedCall:
    """One call of the minimal chain, its arguments from the truth in pixels and frames."""

    op: str
    args: Args
    uses: int | None = None
    """Place in the chain of the earlier call whose result this one builds on."""


@record
class WorldObject:
    """A thing in the world. `box` and `mask` are those of the first frame on which it is seen."""

    number: int
    kind: str
    """shape, spot, sign, panel, wall, bar, text or occluder."""
    colour: str
    shape: str
    text: str
    first_frame: int
    box: Box
    mask: Mask | None
    """None for bare text, whose extent is its box."""
    track: tuple[Box | None, ...] = ()
    """Tight box of what is seen, per frame; empty for an image."""


@record
class WorldEvent:
    """Something that happens to an object: `frame` is the first frame that shows the new state."""

    kind: str
    """appears, disappears, changes, turns, stops or text."""
    number: int
    frame: int
    time_s: float
    before: str = ""
    after: str = ""


@record
class Truth:
    objects: tuple[WorldObject, ...]
    events: tuple[WorldEvent, ...] = ()


@record
class Evidence:
    """What must be looked at: (frame, box) pairs and stretches of time."""

    boxes: tuple[tuple[int, Box], ...] = ()
    spans: tuple[TimeSpan, ...] = ()


@record
class Item:
    id: str
    split: str
    index: int
    seed: int
    family: str
    question: str
    answer: str
    answer_kind: str
    """word, text, number, time or none: how `score.score_answer` compares an open answer."""
    accept: tuple[str, ...] = ()
    """Other right answers."""
    choices: tuple[str, ...] = ()
    """Options in order, the first is A; empty for an open question. `answer` is then a letter."""
    medium_name: str
    kind: str
    """image or video."""
    width: int
    height: int
    num_frames: int
    fps: int
    difficulty: float
    """In [0, 1]: small, crowded and long-chained is hard."""
    needs: frozenset[str]
    """Ops of the chain that a coarse view (see `studio.COARSE_PX`, `studio.COARSE_FRAMES`) cannot replace."""
    chain: tuple[PlannedCall, ...]
    evidence: Evidence
    mentions: tuple[tuple[str, int], ...]
    """Phrases of the question and the one object each names."""
    absent: tuple[str, ...] = ()
    """Phrases of the question that name nothing."""
    style: Style
    shift: Shift | None = None
    variant: int = 0
    """From 1: the same medium and thing, asked in other words or with other options."""
    truth: Truth

    @property
    def prompt(self) -> str:
        """The question with its options, as it is put to the policy."""
        if not self.choices:
            return self.question
        options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, self.choices, strict=False))
        return f"{self.question}\n{options}\nAnswer with the letter."

    @property
    def plain_answer(self) -> str:
        """The answer in words, also where a letter is asked for."""
        return self.choices[LETTERS.index(self.answer)] if self.choices else self.answer


@cache
def _adapter(kind: type) -> pydantic.TypeAdapter:
    return pydantic.TypeAdapter(kind)


def item_to_json(item: Item) -> dict[str, Any]:
    """Plain JSON values; `item_from_json` is its inverse."""
    return _adapter(Item).dump_python(item, mode="json", exclude_defaults=True) | {"needs": sorted(item.needs)}


def item_from_json(values: dict[str, Any]) -> Item:
    """Raises: ValueError (pydantic's): a key is missing, unknown or of the wrong type."""
    values = dict(values)
    # The arguments of different ops share their keys: the op says which record they are.
    chain = []
    for call in values.pop("chain", ()):
        op, rest = call.get("op"), {k: v for k, v in call.items() if k != "args"}
        if op not in ARGS:
            raise ValueError(f"unknown op {op!r} in the chain")
        args = _adapter(ARGS[op]).validate_python(call.get("args", {}))
        chain.append(PlannedCall(op=rest.pop("op"), args=args, **rest))
    return dataclasses.replace(_adapter(Item).validate_python(values | {"chain": ()}), chain=tuple(chain))
