"""MVBench: 20 tasks of 200 questions about short videos, accuracy of the letter, mean over tasks.

The number that counts is by MVBench's own rule, which knows the letter as the first word only; beside it stands one that knows a letter
however it is written. Five tasks ask about a stretch of their video; one of them gives a folder of frames, three a second, instead of a
video. Source: Li et al. (2023), MVBench; its published evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    rate,
)
from pixelis.eval.bench.files import find, missing, read_json, take, texts
from pixelis.eval.bench.letters import letter_of, says_letter

SOURCE = Source(
    hub="OpenGVLab/MVBench",
    files="json/ and video/",
    patterns=("json/*.json", "video/*.zip"),
    count=4000,
    terms="fine_grained_pose needs 320 videos of NTU RGB+D, which its makers give out themselves, in video/nturgbd",
)
RULE = "MVBench's own: the letter is the first word; mean over the tasks"
FRAMES_FPS = 3.0


@dataclass(frozen=True)
class Clips:
    """Where a task's videos lie under video/, and how they are to be shown."""

    folder: str
    has_bounds: bool = False
    """Whether `start` and `end` of the question cut the video."""
    is_frames: bool = False


TASKS = {
    "action_sequence": Clips("star/Charades_v1_480", has_bounds=True),
    "action_prediction": Clips("star/Charades_v1_480", has_bounds=True),
    "action_antonym": Clips("ssv2_video"),
    "fine_grained_action": Clips("Moments_in_Time_Raw/videos"),
    "unexpected_action": Clips("FunQA_test/test"),
    "object_existence": Clips("clevrer/video_validation"),
    "object_interaction": Clips("star/Charades_v1_480", has_bounds=True),
    "object_shuffle": Clips("perception/videos"),
    "moving_direction": Clips("clevrer/video_validation"),
    "action_localization": Clips("sta/sta_video", has_bounds=True),
    "scene_transition": Clips("scene_qa/video"),
    "action_count": Clips("perception/videos"),
    "moving_count": Clips("clevrer/video_validation"),
    "moving_attribute": Clips("clevrer/video_validation"),
    "state_change": Clips("perception/videos"),
    "fine_grained_pose": Clips("nturgbd"),
    "character_order": Clips("perception/videos"),
    "egocentric_navigation": Clips("vlnqa"),
    "episodic_reasoning": Clips("tvqa/frames_fps3_hq", has_bounds=True, is_frames=True),
    "counterfactual_inference": Clips("clevrer/video_validation"),
}
"""Task, which is also the name of its file under json/, to its videos."""


def read(folder: Path, *, seed: int = 0) -> tuple[BenchItem, ...]:
    find(SOURCE, folder, "json/*.json")
    items: list[BenchItem] = []
    for task, clips in TASKS.items():
        path = folder / "json" / f"{task}.json"
        if not path.is_file():
            raise missing(SOURCE, folder, f"holds no json/{path.name}")
        rows = read_json(path)
        if not isinstance(rows, list):
            raise DataError(f"{path}: holds a {type(rows).__name__}, not a list of questions: download the file again")
        items += [_item(folder, task, clips, number, row, f"{path}: question {number}") for number, row in enumerate(rows)]
    return tuple(items)


def _item(folder: Path, task: str, clips: Clips, number: int, row: Any, where: str) -> BenchItem:
    if not isinstance(row, dict):
        raise DataError(f"{where}: is a {type(row).__name__}, not an object: download the file again")
    choices, answer = texts(row, "candidates", where), take(row, "answer", str, where)
    if answer not in choices:
        raise DataError(f"{where}: the answer {answer[:60]!r} is none of the {len(choices)} candidates: download the file again")
    bounds = {}
    if clips.has_bounds:
        bounds = {"start_s": float(take(row, "start", (int, float), where)), "end_s": float(take(row, "end", (int, float), where))}
    name = f"{task}/{number:03d}"
    return BenchItem(
        id=name,
        task=task,
        group=name,
        prompt=f"Question: {take(row, 'question', str, where)}\nOptions:\n{lettered(choices, '({}) {}')}\nOnly give the best option.",
        medium=MediumRef(path=_video(folder, clips, take(row, "video", str, where)), fps=FRAMES_FPS if clips.is_frames else None, **bounds),
        choices=choices,
        truth=(letter(choices.index(answer)),),
    )


def _video(folder: Path, clips: Clips, name: str) -> str:
    """Its path; some videos were published later, in a folder of their own."""
    usual, later = f"video/{clips.folder}/{name}", f"video/data0613/{clips.folder}/{name}"
    return later if not (folder / usual).exists() and (folder / later).exists() else usual


def item_score(item: BenchItem, answer: str | None) -> float:
    return float(any(says_letter(answer, truth) for truth in item.truth))


def score(items: Sequence[BenchItem], answers: Answers) -> Table:
    tasks = by_task(asked(items, answers))
    scores = {name: [item_score(item, answers[item.id]) for item in part] for name, part in tasks.items()}
    written = [[float(letter_of(answers[item.id], item.choices) in item.truth) for item in part] for part in tasks.values()]
    rows = [
        Row(name="letter however written", rate=macro_rate([(1, values) for values in written])),
        Row(name="mean over items", rate=rate([value for values in scores.values() for value in values])),
    ]
    rows += [Row(name=name, rate=rate(values)) for name, values in scores.items()]
    headline = Row(name="accuracy, mean over tasks", rate=macro_rate([(1, values) for values in scores.values()]))
    lack = len(TASKS) - len(scores)
    notes = (f"{lack} of {len(TASKS)} tasks were not asked",) if lack else ()
    return make_table("MVBench", RULE, items, answers, headline=headline, rows=rows, notes=(*notes, *count_note(items, SOURCE)))
