"""VSI-Bench: space seen in videos of rooms. Options by exact match of the first word, numbers by mean relative accuracy.

The overall number is the mean over eight tasks; relative direction is first averaged over its three levels.
Source: Yang et al. (2024), Thinking in Space, §3.3; its published evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
    macro_rate,
    make_table,
    rate,
)
from pixelis.eval.bench.files import find, read_rows, take, texts
from pixelis.eval.bench.letters import first_word
from pixelis.eval.metrics.answers import mean_relative_accuracy

SOURCE = Source(
    hub="nyu-visionx/VSI-Bench",
    files="test-00000-of-00001.parquet and the three archives of videos",
    patterns=("test-00000-of-00001.parquet", "*.zip"),
    count=5130,
)
RULE = "first word equal (options) or mean relative accuracy (numbers); mean over 8 tasks, direction over its levels first"
DIRECTION = "object_rel_direction"
CHOICE_TASKS = (
    f"{DIRECTION}_easy", f"{DIRECTION}_medium", f"{DIRECTION}_hard", "object_rel_distance", "route_planning", "obj_appearance_order",
)  # fmt: skip
NUMBER_TASKS = ("object_abs_distance", "object_counting", "object_size_estimation", "room_size_estimation")
NUM_TASKS = 8
_COLUMNS = ("id", "dataset", "scene_name", "question_type", "question", "ground_truth", "options")


def read(folder: Path, *, seed: int = 0) -> tuple[BenchItem, ...]:
    (path, *_) = find(SOURCE, folder, "test-*.parquet", "test.jsonl")
    items = tuple(_item(row, where) for where, row in read_rows(path, _COLUMNS))
    if len({item.id for item in items}) < len(items):
        raise DataError(f"{path}: an id stands twice: download the file again")
    return items


def _item(row: dict, where: str) -> BenchItem:
    task, choices, truth = take(row, "question_type", str, where), texts(row, "options", where), str(row.get("ground_truth") or "").strip()
    if task not in (*CHOICE_TASKS, *NUMBER_TASKS):
        raise DataError(f"{where}: unknown question_type {task!r}: is this the published file?")
    if (task in CHOICE_TASKS) != bool(choices) or not truth or (task in NUMBER_TASKS and _number(truth) is None):
        raise DataError(f"{where}: {task} with {len(choices)} options and the truth {truth[:20]!r}: is this the published file?")
    options = "Options:\n" + "\n".join(choices) + "\nAnswer with the option's letter from the given choices directly."
    ending = options if choices else "Please answer the question using a single word or phrase."
    name = str(take(row, "id", (int, str), where))
    return BenchItem(
        id=name,
        task=task,
        group=name,
        prompt=f"These are frames of a video.\n{take(row, 'question', str, where)}\n{ending}",
        medium=MediumRef(path=f"{take(row, 'dataset', str, where)}/{take(row, 'scene_name', str, where)}.mp4"),
        choices=choices,
        truth=(truth,),
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def item_score(item: BenchItem, answer: str | None) -> float:
    """Only the first word is read: as a number by MRA, else as the option's letter."""
    word, truth = first_word(answer), item.truth[0]
    if item.task in NUMBER_TASKS:
        return mean_relative_accuracy(_number(word), float(truth))
    return float(word.lower() == truth.lower())


def score(items: Sequence[BenchItem], answers: Answers) -> Table:
    scores = {name: [item_score(item, answers[item.id]) for item in part] for name, part in by_task(asked(items, answers)).items()}
    levels = [name for name in scores if name.startswith(DIRECTION)]
    others = [name for name in (*CHOICE_TASKS, *NUMBER_TASKS) if name in scores and name not in levels]
    strata = [(1 / len(levels), scores[name]) for name in levels] + [(1.0, scores[name]) for name in others]
    rows = [Row(name=name, rate=rate(scores[name])) for name in others]
    if levels:
        rows.append(Row(name=f"{DIRECTION}, mean over levels", rate=macro_rate([(1, scores[name]) for name in levels])))
    rows += [Row(name=name, rate=rate(scores[name])) for name in levels]
    rows.append(Row(name="mean over items", rate=rate([value for values in scores.values() for value in values])))
    lack = NUM_TASKS - len(others) - bool(levels)
    notes = (f"{lack} of {NUM_TASKS} tasks were not asked",) if lack else ()
    headline = Row(name="overall, mean over tasks", rate=macro_rate(strata))
    return make_table("VSI-Bench", RULE, items, answers, headline=headline, rows=rows, notes=(*notes, *count_note(items, SOURCE)))
