"""Drills: dialogues without a picture, for what traces think aloud: sums, comparisons, choosing a letter, copying, looking up.

Everything follows from the generator that is given; words and numbers are those that the train split may use.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from pixelis.data.world.glances import COLOUR_NAMES
from pixelis.data.world.raster import SHAPES
from pixelis.data.world.words import numbers_of, words_of
from pixelis.rollout.teacher.hand import quarter
from pixelis.rollout.teacher.search import list_boxes
from pixelis.rollout.teacher.sums import add_aloud, best_aloud, choose_aloud, subtract_aloud

Ask = Callable[[np.random.Generator], tuple[str, str]]
"""Draws a question and its answer."""


def without_picture(rng: np.random.Generator, *, num_questions: int = 4) -> list[tuple[str, str]]:
    """Questions and answers, in turn; each drill as often as chance has it. Four take as many tokens as eight about a view, and a
    batch is padded to its longest."""
    asks: tuple[Ask, ...] = (
        _sum,
        _sum,
        _difference,
        *[_compare] * 5,  # a quarter of all families decide by it
        *[_most] * 2,
        *[_best] * 2,
        _letter,
        _small,
        _span,
        _nearest,
        _repeat,
        _cell,
        _place,
        _way,
        _way,
        _same,
        _next,
    )
    return [asks[rng.integers(len(asks))](rng) for _ in range(num_questions)]


def _numbers(rng: np.random.Generator, count: int, high: int = 999) -> list[int]:
    pool = numbers_of("train", 1 if high < 30 else 10, high)
    return [int(pool[k]) for k in rng.choice(len(pool), count, replace=False)]


def _sum(rng: np.random.Generator) -> tuple[str, str]:
    a, b = _numbers(rng, 2)
    return f"Add {a} and {b}.", f"{add_aloud(a, b)}\n<answer>{a + b}</answer>"


def _difference(rng: np.random.Generator) -> tuple[str, str]:
    a, b = _numbers(rng, 2)
    return f"By how much do {a} and {b} differ?", f"{subtract_aloud(a, b)}\n<answer>{abs(a - b)}</answer>"


def _compare(rng: np.random.Generator) -> tuple[str, str]:
    """Two or three measured values, as traces compare areas, distances, speeds, times and numbers."""
    form = int(rng.integers(5))
    draw = {
        0: lambda: str(_numbers(rng, 1)[0]),
        1: lambda: f"{rng.uniform(2e-4, 4e-3):.5f}".rstrip("0"),
        2: lambda: f"{rng.uniform(5, 320):.1f}",
        3: lambda: f"{rng.uniform(0.1, 9.9):.1f}",
        4: lambda: f"{rng.uniform(0.02, 1.0):.4f}".rstrip("0"),
    }[form]
    names = list(dict.fromkeys(_name_of(rng) for _ in range(3 if rng.random() < 0.25 else 2)))
    values = [draw() for _ in names]
    if len(names) < 2 or len(set(values)) < len(values):
        return _compare(rng)
    word, wants_large = _WHICH[rng.integers(len(_WHICH))]
    asked = ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))
    thought, _ = choose_aloud(list(zip(values, names, strict=True)), wants_large=wants_large)
    return f"{asked}. Which is {word}?", f"Which is {word}? {thought}."


_WHICH = (("larger", True), ("faster", True), ("last", True), ("smaller", False), ("slower", False), ("closer", False), ("first", False))


def _same(rng: np.random.Generator) -> tuple[str, str]:
    """Whether what was found is what was asked for."""
    words = ("left", "right", "above", "below")
    side = words[rng.integers(4)]
    asked = side if rng.random() < 0.5 else words[rng.integers(4)]
    return f"Found {side}, asked {asked}.", f"It is {side}; asked: {asked}: {'yes' if side == asked else 'no'}."


def _next(rng: np.random.Generator) -> tuple[str, str]:
    """One thing of a list after another, and knowing when there is no more."""
    colour = COLOUR_NAMES[rng.integers(len(COLOUR_NAMES))]
    boxes = [_box(rng) for _ in range(int(rng.integers(1, 6)))]
    at = int(rng.integers(len(boxes)))
    said = f"{list_boxes(colour, boxes)}Tried: {boxes[at]}. The next?"
    return said, json.dumps({"bbox_2d": boxes[at + 1]}) if at + 1 < len(boxes) else f"There is no other {colour} thing."


def _name_of(rng: np.random.Generator) -> str:
    """A colour, or a thing of that colour."""
    colour = COLOUR_NAMES[rng.integers(len(COLOUR_NAMES))]
    return colour if rng.random() < 0.3 else f"{colour} {SHAPES[rng.integers(len(SHAPES))]}"


def _box(rng: np.random.Generator) -> list[int]:
    x, y = int(rng.integers(0, 900)), int(rng.integers(0, 950))
    return [x, y, x + int(rng.integers(20, 90)), y + int(rng.integers(8, 40))]


def _cell(rng: np.random.Generator) -> tuple[str, str]:
    """Where a row and a column cross."""
    row, column = _box(rng), _box(rng)
    crossing = {"bbox_2d": [column[0], row[1], column[2], row[3]]}
    said = f"Row {_word(rng)} {row}, column {_word(rng)} {column}."
    return f"{said} Where do they cross?", json.dumps(crossing)


def _place(rng: np.random.Generator) -> tuple[str, str]:
    """Which quarter of the picture a box lies in."""
    box = _box(rng)
    return f"It ends at {box}.", f"It ends at {box}: {quarter(box)}."


def _way(rng: np.random.Generator) -> tuple[str, str]:
    """Which way a track went between two of its boxes."""
    x0, y0, x1, y1 = box = _box(rng)
    far, aside = int(rng.integers(20, 300)) * int(rng.choice([-1, 1])), int(rng.integers(-8, 9))
    is_across = rng.random() < 0.5
    dx, dy = (far, aside) if is_across else (aside, far)
    then = [x0 + dx, y0 + dy, x1 + dx, y1 + dy]
    if min(then) < 0 or max(then) > 999:
        return _way(rng)
    way = ("right" if far > 0 else "left") if is_across else ("down" if far > 0 else "up")
    return f"Then {box}, then {then}. Which way?", f"From {box} to {then}: {way}."


def _most(rng: np.random.Generator) -> tuple[str, str]:
    values, word = _numbers(rng, int(rng.integers(2, 7))), _extreme(rng)
    return f"Which is the {word} of {' '.join(map(str, values))}?", f"{best_aloud(values, word)}."


def _extreme(rng: np.random.Generator) -> str:
    return "most" if rng.random() < 0.6 else "least"


def _best(rng: np.random.Generator) -> tuple[str, str]:
    """The largest or smallest number of what was read on a card, and where it stands."""
    values = _numbers(rng, int(rng.integers(3, 6)), 199)
    spans = []
    for value in values:
        if rng.random() < 0.8:
            spans.append({"text": _word(rng).upper(), "bbox_2d": _box(rng), "score": 1.0})
        spans.append({"text": str(value), "bbox_2d": _box(rng), "score": 1.0})
    word = _extreme(rng)
    best = max(values) if word == "most" else min(values)
    at = next(span["bbox_2d"] for span in spans if span["text"] == str(best))
    return f"{json.dumps({'spans': spans})} Which is the {word}?", f"{best_aloud(values, word)} {at}."


def _word(rng: np.random.Generator) -> str:
    """A word of the split, or letters in any order: what is spelt must be copied whatever it is."""
    words = words_of("train")
    if rng.random() < 0.5:
        return words[rng.integers(len(words))]
    return "".join(chr(97 + k) for k in rng.integers(0, 26, int(rng.integers(3, 9))))


def _repeat(rng: np.random.Generator) -> tuple[str, str]:
    """Words or numbers said again: where attention learns to copy soonest."""
    count = int(rng.integers(3, 9))
    said = " ".join(_word(rng) for _ in range(count)) if rng.random() < 0.6 else " ".join(map(str, rng.integers(0, 1000, count)))
    return f"Repeat {said}", said


def _letter(rng: np.random.Generator) -> tuple[str, str]:
    kind = rng.integers(3)
    pool = {0: lambda: _word(rng), 1: lambda: str(_numbers(rng, 1)[0]), 2: lambda: COLOUR_NAMES[rng.integers(len(COLOUR_NAMES))]}[int(kind)]
    options = list(dict.fromkeys(pool() for _ in range(4)))
    k = int(rng.integers(len(options)))
    listed = "".join(f"\n{'ABCD'[i]}. {option}" for i, option in enumerate(options))
    return f"It is {options[k]}.{listed}\nAnswer with the letter.", f"It is {options[k]}. So {'ABCD'[k]}.\n<answer>{'ABCD'[k]}</answer>"


def _small(rng: np.random.Generator) -> tuple[str, str]:
    word = _word(rng)
    return f'It says "{word.upper()}".', f"It says {word}.\n<answer>{word}</answer>"


def _span(rng: np.random.Generator) -> tuple[str, str]:
    """Where a word stands in a list of what was read."""
    words = list(dict.fromkeys(_word(rng) for _ in range(int(rng.integers(2, 6)))))
    spans = []
    for word in words:
        spans.append({"text": word.upper(), "bbox_2d": _box(rng), "score": 1.0})
    k = int(rng.integers(len(words)))
    return f"{json.dumps({'spans': spans})} Where is {words[k]}?", json.dumps({"bbox_2d": spans[k]["bbox_2d"]})


def _nearest(rng: np.random.Generator) -> tuple[str, str]:
    """The option whose time is nearest to a measured one."""
    truth = rng.uniform(0.5, 9.0)
    options = [f"{truth + d:.1f}" for d in rng.choice([-2.4, -1.2, 1.2, 2.4, 3.6], 3, replace=False) if truth + d > 0]
    options.insert(int(rng.integers(len(options) + 1)), f"{truth:.1f}")
    k = options.index(f"{truth:.1f}")
    said = f"{max(0.0, truth + rng.choice([-0.1, 0.0, 0.0, 0.1])):.1f}"
    listed = "".join(f"\n{'ABCD'[i]}. {option}" for i, option in enumerate(options))
    return f"At {said}.{listed}\nAnswer with the letter.", f"At {said}. So {'ABCD'[k]}.\n<answer>{'ABCD'[k]}</answer>"
