"""MMBench v1.1, English dev: circular evaluation. A question counts only if it is right in every rotation of its options.

The published table holds the rotations as rows of their own (index plus 1,000,000 for each turn), whose image is the index of the row
that holds it. A question without its rotations is given them here. Source: Liu et al. (2023), MMBench, §4; VLMEvalKit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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
    count_note,
    groups,
    letter,
    lettered,
    make_table,
    rate,
)
from pixelis.eval.bench.files import find, read_tsv, tsv_image_key
from pixelis.eval.bench.letters import inferred_letter

FILE = "MMBench_DEV_EN_V11.tsv"
SOURCE = Source(
    hub=None,
    files=FILE,
    patterns=(FILE,),
    count=1292,
    url=f"https://opencompass.openxlab.space/utils/benchmarks/MMBench/{FILE}",
)
RULE = "circular: every rotation right; the letter by VLMEvalKit's rule without a judge model"
TURN = 1_000_000
"""Added to the index by each rotation."""
_ABSENT = ("", "nan")
_LETTERS = "ABCDEF"


def read(folder: Path, *, seed: int = 0) -> tuple[BenchItem, ...]:
    """Every rotation of every question."""
    (path, *_) = find(SOURCE, folder, FILE)
    items = [_item(row, path.name, where) for where, row in read_tsv(path)]
    if not items:
        raise DataError(f"{path}: has no rows: download the file again")
    found = groups(items)
    for name, members in found.items():
        if len(members) not in (1, len(members[0].choices)):
            raise DataError(f"{path}: question {name} has {len(members)} rotations of {len(members[0].choices)} options: download it again")
    return tuple(item for members in found.values() for item in (members if len(members) > 1 else _rotations(members[0])))


def _item(row: Mapping[str, str], file: str, where: str) -> BenchItem:
    for column in ("index", "question", "image", "A", "B"):
        if column not in row:
            raise DataError(f"{where}: has no column {column}: is this {FILE}?")
    index, answer = row["index"].strip().removesuffix(".0"), row.get("answer", "").strip().upper()
    given = [name for name in _LETTERS if row.get(name, "").strip() not in _ABSENT]
    if not index.isdecimal() or len(given) < 2 or given != list(_LETTERS[: len(given)]):
        raise DataError(f"{where}: index {index[:20]!r} with the options {', '.join(given) or 'none'}: is this {FILE}?")
    if answer not in given:
        raise DataError(
            f"{where}: the answer {answer[:20]!r} is none of {', '.join(given)}; the test answers are not public: use the dev file {FILE}"
        )
    group = row.get("g_index", "").strip().removesuffix(".0") or str(int(index) % TURN)
    choices = tuple(row[name].strip() for name in given)
    hint = row.get("hint", "").strip()
    facts = {"l2": row.get("l2-category", "").strip(), "hint": "" if hint in _ABSENT else hint, "question": row["question"].strip()}
    return BenchItem(
        id=index,
        task=row.get("category", "").strip() or "unknown",
        group=group,
        prompt=_prompt(facts, choices),
        medium=MediumRef(path=file, key=tsv_image_key(row["image"], row["index"])),
        choices=choices,
        truth=(answer,),
        facts=facts,
    )


def _prompt(facts: Mapping[str, str], choices: Sequence[str]) -> str:
    hint = f"Hint: {facts['hint']}\n" if facts["hint"] else ""
    return f"{hint}Question: {facts['question']}\nOptions:\n{lettered(choices)}\nPlease select the correct answer from the options above."


def _rotations(item: BenchItem) -> Iterator[BenchItem]:
    """A question and its options turned by one, two, ... places."""
    count, truth = len(item.choices), ord(item.truth[0]) - ord("A")
    for turn in range(count):
        choices = item.choices[turn:] + item.choices[:turn]
        index = str(int(item.id) + turn * TURN)
        yield replace(
            item, id=index, choices=choices, truth=(letter((truth - turn) % count),), prompt=_prompt(item.facts, choices)
        )  # fmt: skip


def item_score(item: BenchItem, answer: str | None) -> float:
    """Whether one rotation is right; a question needs all of them."""
    return float(inferred_letter(answer, item.choices) in item.truth)


def score(items: Sequence[BenchItem], answers: Answers) -> Table:
    whole = {name: members for name, members in groups(items).items() if all(item.id in answers for item in members)}
    right = {name: min(item_score(item, answers[item.id]) for item in members) for name, members in whole.items()}
    first = [item_score(members[0], answers[members[0].id]) for members in whole.values()]
    rows = [Row(name="first rotation only", rate=rate(first))]
    for title, value in (("L2", lambda item: item.facts["l2"]), ("category", lambda item: item.task)):
        for name in sorted({value(members[0]) for members in whole.values()} - {""}):
            rows.append(Row(name=f"{title}: {name}", rate=rate([right[k] for k, members in whole.items() if value(members[0]) == name])))
    cut = len(groups(asked(items, answers))) - len(whole)
    notes = (f"{cut} questions were asked in some of their rotations only and are left out",) if cut else ()
    headline = Row(name="circular accuracy", rate=rate(list(right.values())))
    return make_table("MMBench v1.1 en dev", RULE, items, answers, headline=headline, rows=rows, notes=(*notes, *count_note(items, SOURCE)))
