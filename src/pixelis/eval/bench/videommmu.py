"""Video-MMMU: 300 lectures, three questions each (perception, comprehension, adaptation), MMMU's answer rules.

Adaptation is asked twice, after the lecture and before it (a video that shows the question's image alone), for the knowledge gained:
(after - before) / (100 - before) * 100 in percent, which as shares is (after - before) / (1 - before).
Source: Hu et al. (2025), Video-MMMU, §4; its task in lmms-eval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    by_task,
    count_note,
    lettered,
    macro_rate,
    make_table,
    rate,
)
from pixelis.eval.bench.files import find, missing, read_parquet, take, texts
from pixelis.eval.bench.letters import mmmu_letter
from pixelis.eval.bench.mmmu_open import is_right
from pixelis.eval.stats import NO_INTERVAL, Rate

TRACKS = ("Perception", "Comprehension", "Adaptation")
SOURCE = Source(
    hub="lmms-lab/VideoMMMU",
    files="Perception/, Comprehension/, Adaptation/ (parquet) and the archives of videos, question_only too",
    patterns=(*(f"{track}/*.parquet" for track in TRACKS), "*.zip"),
    count=900,
    terms="Its makers ask for a licence agreement first: ask for access on the data set's page",
)
BEFORE = "adaptation before"
RULE = "MMMU's rules for options and open answers; mean over the three tracks"
DIRECTLY = "Please directly output the option letter/data as the answer."
_LEARN = f"{DIRECTLY} You should watch and learn the video content. Then apply what you learned to answer the following"
_AT_END = "question. The image for this question is at the end of the video.\n"
CHOICE = "multiple-choice"
SUBJECTS = {
    "Art": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Engineering": (
        "Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics", "Energy_and_Power", "Materials",
        "Mechanical_Engineering",
    ),
    "Humanities": ("History", "Literature", "Psychology", "Sociology"),
    "Medicine": ("Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy", "Public_Health"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
}  # fmt: skip
"""Folder of videos to its subjects; the subject stands in the id between the first and the last underscore."""
_FOLDER_OF = {subject: folder for folder, subjects in SUBJECTS.items() for subject in subjects}


def read(folder: Path, *, seed: int = 0) -> tuple[BenchItem, ...]:
    """The three tracks; adaptation also without the lecture where the folder question_only is there."""
    find(SOURCE, folder, *(f"{track}/*.parquet" for track in TRACKS))
    has_before = (folder / "question_only").is_dir()
    items: list[BenchItem] = []
    for track in TRACKS:
        paths = sorted((folder / track).glob("**/*.parquet"))
        if not paths:
            raise missing(SOURCE, folder, f"holds no {track}/*.parquet")
        columns = ("id", "question", "options", "answer", "question_type")
        for path in paths:
            for where, row in read_parquet(path, columns):
                items.append(_item(track.lower(), row, where))
                if has_before and track == "Adaptation":
                    items.append(_before(items[-1]))
    if len({item.id for item in items}) < len(items):
        raise DataError(f"{folder}: a question stands twice: are these the files of one version?")
    return tuple(items)


def _item(track: str, row: dict, where: str) -> BenchItem:
    name, choices = take(row, "id", str, where), texts(row, "options", where)
    kind = row.get("question_type") or ""
    subject = "_".join(name.split("_")[1:-1])
    if subject not in _FOLDER_OF:
        raise DataError(f"{where}: the id {name[:60]!r} names no known subject: is this the published file?")
    if kind == CHOICE and len(choices) < 2:
        raise DataError(f"{where}: multiple-choice with {len(choices)} options: is this the published file?")
    body = "\n".join([take(row, "question", str, where), *([_options(choices)] if choices else [])])
    form = "multi-choice" if kind == CHOICE else "open-ended"
    return BenchItem(
        id=f"{track}/{name}",
        task=track,
        group=f"{track}/{name}",
        prompt=f"{_LEARN} {form} {_AT_END}{body}" if track == "adaptation" else f"{body}\n{DIRECTLY}",
        medium=MediumRef(path=f"{_FOLDER_OF[subject]}/{name}.mp4"),
        choices=choices,
        truth=(take(row, "answer", str, where),),
        facts={"kind": kind, "discipline": _FOLDER_OF[subject], "body": body},
    )


def _options(choices: Sequence[str]) -> str:
    """The options, lettered unless the file has done so."""
    is_lettered = all(choice.startswith(f"{chr(ord('A') + k)}.") for k, choice in enumerate(choices))
    return "\n".join(choices) if is_lettered else lettered(choices)


def _before(item: BenchItem) -> BenchItem:
    name = item.id.partition("/")[2]
    shown = MediumRef(path=f"question_only/{name}_image.mp4")
    return replace(item, id=f"adaptation-before/{name}", task=BEFORE, prompt=item.facts["body"], medium=shown)


def item_score(item: BenchItem, answer: str | None) -> float:
    if item.facts["kind"] == CHOICE:
        return float(mmmu_letter(answer, item.choices) in item.truth)
    return float(is_right(answer, item.truth))


def knowledge_gain(before: Sequence[float], after: Sequence[float]) -> Rate:
    """How much of what was missing before the lecture is there after it: (after - before) / (1 - before) of the mean scores.

    Args:
        before, after: scores in [0, 1] of the same questions.
    Returns:
        At most 1, negative where the lecture confused; its count is the number of questions. NaN without questions, or when all were
        right before.
    Source: Hu et al. (2025), Video-MMMU, §4.3.
    """
    if not before or min(before) == 1.0:
        return Rate(math.nan, math.nan, math.nan, len(before), NO_INTERVAL)
    mean_before, mean_after = sum(before) / len(before), sum(after) / len(after)
    return Rate((mean_after - mean_before) / (1 - mean_before), math.nan, math.nan, len(before), NO_INTERVAL)


def score(items: Sequence[BenchItem], answers: Answers) -> Table:
    there = asked(items, answers)
    values = {item.id: item_score(item, answers[item.id]) for item in there}
    tasks = by_task(there)
    tracks = {name: [values[item.id] for item in part] for name, part in tasks.items() if name != BEFORE}
    rows = [Row(name=name, rate=rate(scores)) for name, scores in tracks.items()]
    pairs = [(item.id, item.group) for item in tasks.get(BEFORE, ()) if item.group in values]
    rows.append(Row(name=BEFORE, rate=rate([values[before] for before, _ in pairs])))
    gain = knowledge_gain([values[before] for before, _ in pairs], [values[after] for _, after in pairs])
    rows.append(Row(name="knowledge gain (Δknowledge)", rate=gain))
    for name in SUBJECTS:
        part = [values[item.id] for item in there if item.task != BEFORE and item.facts["discipline"] == name]
        rows += [Row(name=f"discipline: {name}", rate=rate(part))] if part else []
    headline = Row(name="overall, mean over tracks", rate=macro_rate([(1, scores) for scores in tracks.values()]))
    return make_table("Video-MMMU", RULE, items, answers, headline=headline, rows=rows, notes=_notes(items, tracks, pairs))


def _notes(items: Sequence[BenchItem], tracks: dict, pairs: Sequence) -> tuple[str, ...]:
    lack = len(TRACKS) - len(tracks)
    return (
        *((f"{lack} of {len(TRACKS)} tracks were not asked",) if lack else ()),
        *(("no question was asked before and after the lecture: the knowledge gain is unknown",) if not pairs else ()),
        *count_note(items, SOURCE),
    )
