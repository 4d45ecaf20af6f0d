"""InfographicVQA, validation: a short text about an infographic, ANLS.

The answers of the test set are not public: its answers are scored by the challenge's server only. Source: Mathew et al. (2021),
InfographicVQA, §5; Biten et al. (2019) for ANLS.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pixelis.core.errors import DataError
from pixelis.eval.bench.base import Answers, BenchItem, MediumRef, Row, Source, Table, asked, count_note, make_table, rate
from pixelis.eval.bench.files import find, read_parquet, take, texts
from pixelis.eval.metrics.answers import official_anls

SOURCE = Source(
    hub="lmms-lab-encoder/DocVQA",
    files="InfographicVQA/validation-*.parquet",
    patterns=("InfographicVQA/validation-*.parquet",),
    count=2801,
)
RULE = "ANLS: best similarity over the answers, 0 below 0.5; mean over the questions"
INSTRUCTION = "Answer the question using a single word or phrase."
SEPARATOR = "|"


def read(folder: Path, *, seed: int = 0) -> tuple[BenchItem, ...]:
    if folder.is_dir() and not any(folder.glob("**/validation-*.parquet")) and any(folder.glob("**/test-*.parquet")):
        raise DataError(
            f"{folder}: holds the test set only, whose answers are not public (the challenge's server scores it): "
            f"download {SOURCE.files} of {SOURCE.hub}"
        )
    paths = find(SOURCE, folder, "InfographicVQA/validation-*.parquet", "validation-*.parquet")
    items = [_item(folder, path, number, row, where) for path in paths for number, (where, row) in enumerate(_rows(path))]
    if len({item.id for item in items}) < len(items):
        raise DataError(f"{folder}: a question stands twice: are these the files of one version?")
    return tuple(items)


def _rows(path: Path):
    return read_parquet(path, ("questionId", "question", "answers", "answer_type"))


def _item(folder: Path, path: Path, number: int, row: dict, where: str) -> BenchItem:
    answers, kinds = texts(row, "answers", where), texts(row, "answer_type", where)
    if not answers:
        raise DataError(f"{where}: has no answers; those of the test set are not public: use {SOURCE.files} of {SOURCE.hub}")
    name = str(row.get("questionId") or "")
    if not name:
        raise DataError(f"{where}: has no questionId: is this the published file?")
    return BenchItem(
        id=name,
        task=kinds[0] if kinds else "unknown",
        group=name,
        prompt=f"{take(row, 'question', str, where)}\n{INSTRUCTION}",
        medium=MediumRef(path=path.relative_to(folder).as_posix(), key=str(number)),
        truth=answers,
        facts={"kinds": SEPARATOR.join(kinds)},
    )


def item_score(item: BenchItem, answer: str | None) -> float:
    return official_anls(answer or "", item.truth)


def score(items: Sequence[BenchItem], answers: Answers) -> Table:
    there = asked(items, answers)
    values = {item.id: item_score(item, answers[item.id]) for item in there}
    kinds = {item.id: item.facts["kinds"].split(SEPARATOR) for item in there}
    names = sorted({kind for found in kinds.values() for kind in found} - {""})
    rows = [Row(name=f"answer type: {name}", rate=rate([values[key] for key in values if name in kinds[key]])) for name in names]
    headline = Row(name="ANLS", rate=rate(list(values.values())))
    return make_table("InfographicVQA validation", RULE, items, answers, headline=headline, rows=rows, notes=count_note(items, SOURCE))
