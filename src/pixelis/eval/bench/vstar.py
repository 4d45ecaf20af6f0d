"""V* Bench: small things in large photos, two or four options, accuracy of the letter.

The published JSON files put the truth first, so a policy that always says A would be perfect. Every item is therefore asked twice: in an
order of its own (the number that counts) and in the published order (printed beside it). Source: Wu and Xie (2023), V*.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pixelis.core.errors import DataError
from pixelis.eval.bench.base import (
    Answers,
    BenchItem,
    MediumRef,
    Row,
    Source,
    Table,
    asked,
    by_task,
    count_note,
    letter,
    lettered,
    macro_rate,
    make_table,
    order_of,
    rate,
)
from pixelis.eval.bench.files import find, missing, read_json, read_jsonl, take, texts
from pixelis.eval.bench.letters import letter_of
from pixelis.eval.bench.media import IMAGES

CATEGORIES = ("direct_attributes", "relative_position")
SOURCE = Source(
    hub="craigwu/vstar_bench",
    files="direct_attributes/, relative_position/ and test_questions.jsonl",
    patterns=(*(f"{name}/*" for name in CATEGORIES), "test_questions.jsonl"),
    count=191,
)
RULE = "accuracy of the letter, options shuffled by item; mean over all items"
SHUFFLED, RAW = "shuffled", "raw"
INSTRUCTION = "Answer with the option's letter from the given choices directly."
_OPTION = re.compile(r"\s*\(([A-F])\)\s*")


def read(folder: Path, *, seed: int = 0) -> tuple[BenchItem, ...]:
    """Two items a question: one in its shuffled order, one in the published order.

    Read from the JSON file beside every image; where there is none, from test_questions.jsonl, whose order is published too.
    """
    find(SOURCE, folder, *(f"{name}/*.json" for name in CATEGORIES), "test_questions.jsonl")
    has_json = any(next((folder / name).glob("*.json"), None) for name in CATEGORIES)
    questions = _from_json(folder) if has_json else _from_jsonl(folder / "test_questions.jsonl")
    return tuple(item for facts in questions for item in _items(*facts, seed=seed))


def _from_json(folder: Path) -> Iterator[tuple[str, str, str, tuple[str, ...], int, str]]:
    """(category, image, question, options, number of the truth, where) of every question."""
    for category in CATEGORIES:
        for path in sorted((folder / category).glob("*.json")):
            row: Any = read_json(path)
            if not isinstance(row, dict):
                raise DataError(f"{path}: holds a {type(row).__name__}, not an object: download the file again")
            image = next((file for suffix in IMAGES if (file := path.with_suffix(suffix)).exists()), None)
            if image is None:
                raise missing(SOURCE, folder, f"holds no image beside {category}/{path.name}")
            yield (
                category,
                f"{category}/{image.name}",
                take(row, "question", str, str(path)),
                texts(row, "options", str(path)),
                0,
                str(path),
            )


def _from_jsonl(path: Path) -> Iterator[tuple[str, str, str, tuple[str, ...], int, str]]:
    for where, row in read_jsonl(path):
        text, label = take(row, "text", str, where), take(row, "label", str, where).strip().upper()
        body = text.rpartition("\nAnswer with")[0] or text
        question, *parts = _OPTION.split(body.strip())
        options = tuple(part.strip() for part in parts[1::2])
        if label not in map(letter, range(len(options))):
            raise DataError(f"{where}: the label {label!r} is none of {len(options)} options: is this the published file?")
        yield take(row, "category", str, where), take(row, "image", str, where), question, options, ord(label) - ord("A"), where


def _items(category: str, image: str, question: str, options: tuple[str, ...], truth: int, where: str, *, seed: int) -> list[BenchItem]:
    if len(options) < 2:
        raise DataError(f"{where}: {len(options)} options; wanted are 2 or more: is this the published file?")
    name = str(Path(image).with_suffix(""))
    items = []
    for order, places in ((SHUFFLED, order_of(name, len(options), seed=seed)), (RAW, tuple(range(len(options))))):
        choices = tuple(options[place] for place in places)
        items.append(
            BenchItem(
                id=name if order == SHUFFLED else f"{name}#{RAW}",
                task=category,
                group=name,
                prompt=f"{question.strip()}\n{lettered(choices, '({}) {}')}\n{INSTRUCTION}",
                medium=MediumRef(path=image),
                choices=choices,
                truth=(letter(places.index(truth)),),
                facts={"order": order},
            )
        )
    return items


def item_score(item: BenchItem, answer: str | None) -> float:
    return float(letter_of(answer, item.choices) in item.truth)


def score(items: Sequence[BenchItem], answers: Answers) -> Table:
    there = asked(items, answers)
    shuffled, raw = ([item for item in there if item.facts["order"] == order] for order in (SHUFFLED, RAW))
    tasks = by_task(shuffled)

    def values(part: Sequence[BenchItem]) -> list[float]:
        return [item_score(item, answers[item.id]) for item in part]

    rows = [Row(name=name, rate=rate(values(part))) for name, part in tasks.items()]
    rows.append(Row(name="mean over categories", rate=macro_rate([(1, values(part)) for part in tasks.values()])))
    rows.append(Row(name="published option order", rate=rate(values(raw))))
    return make_table(
        "V* Bench", RULE, items, answers, headline=Row(name="accuracy", rate=rate(values(shuffled))), rows=rows,
        notes=count_note(items, SOURCE),
    )  # fmt: skip
