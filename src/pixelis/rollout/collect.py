"""Collect CoTA traces: a teacher answers PixelWorld items with the real tools, in worker processes, shard by shard.

A trace set is a folder: `traces.json` (what it is) and `shards/NNNN`, each a run folder (`trajectories.jsonl`, `blobs/`) with `facts.jsonl`
(what each trace is scored by) and, once all shards are there, `scores.jsonl` (the verdicts, which need the families' statistics). A shard
is written whole under another name and then renamed, so a killed collection goes on where it stopped. A medium is not stored: its item
makes the same bytes again.
"""

from __future__ import annotations

import json
import os
import shutil
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pixelis import __version__
from pixelis.core.decisive import decisive_steps
from pixelis.core.errors import DataError
from pixelis.core.media import open_medium
from pixelis.core.store import RunWriter, alone
from pixelis.core.trajectory import Trajectory
from pixelis.data.cota.accept import Facts, accept, facts_of
from pixelis.data.stats import TraceFacts
from pixelis.data.world.item import Item
from pixelis.data.world.items import FAMILIES, make_item, render
from pixelis.data.world.score import score_answer
from pixelis.data.world.splits import VERSION as WORLD_VERSION
from pixelis.data.world.verify import verify_trajectory
from pixelis.policy.base import Policy, Task
from pixelis.rollout.run import UNHURRIED_S, Limits, Runner
from pixelis.rollout.workers import workers
from pixelis.tools.cache import cache_for
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import build_toolbox, resolved

LIMITS = Limits(max_steps=24, max_seconds=UNHURRIED_S, max_same_calls=None)
"""Of a trace. A teacher that is lost looks at the same places over and over before it gives up, so that its pupil learns to."""

ABOUT_FILE, FACTS_FILE, SCORES_FILE = "traces.json", "facts.jsonl", "scores.jsonl"


@dataclass(frozen=True)
class Share:
    """How many media of a family, and how many questions on each."""

    media: int
    questions: int = 1


@dataclass(frozen=True)
class Plan:
    """What to collect.

    Args:
        split: one of `words.SPLITS`.
        seed: of the world's items and of the teacher.
        shares: per family.
        shard_media: media of one shard.
        teacher: who answers, as the folder remembers it: traces of two teachers do not mix.
    """

    split: str
    seed: int
    shares: Mapping[str, Share]
    shard_media: int = 60
    teacher: str = "teacher"

    def media(self) -> list[tuple[str, int, int]]:
        """(family, index, questions), all families evenly mixed, so that any first part holds the same mixture."""
        unknown = sorted(set(self.shares) - set(FAMILIES))
        if unknown:
            raise DataError(f"no PixelWorld families {', '.join(unknown)}: there are {', '.join(FAMILIES)}")
        places = [
            ((k + 0.5) / share.media, family, k, share.questions) for family, share in self.shares.items() for k in range(share.media)
        ]
        return [(family, k, questions) for _, family, k, questions in sorted(places)]

    def shards(self) -> list[list[tuple[str, int, int]]]:
        media = self.media()
        return [media[i : i + self.shard_media] for i in range(0, len(media), self.shard_media)]


MakeTeacher = Callable[[], Policy]


def programmatic_teacher(lost: float = 0.0, terse: float = 0.0, careful: float = 0.0) -> Policy:
    """Args: lost, terse, careful: see `rollout.teacher.hand.Habits`."""
    from pixelis.rollout.teacher.hand import Habits
    from pixelis.rollout.teacher.policy import TeacherPolicy

    return TeacherPolicy(Habits(lost=lost, terse=terse, careful=careful))


def collect(
    folder: str | Path,
    plan: Plan,
    *,
    settings: ToolSettings = ToolSettings(),
    make_teacher: MakeTeacher = programmatic_teacher,
    num_workers: int = 2,
    max_shards: int | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> Path:
    """Write the shards that are missing, then every trace's verdict.

    Args:
        make_teacher: builds the teacher in each worker; a function that can be pickled.
        max_shards: stop after so many new shards; the verdicts are then given over what there is.
        progress: called with (shards done, shards wanted, traces written so far by this call).

    Returns:
        the folder.

    Raises:
        DataError: the folder holds another set of traces, another process collects into it,
            or a worker failed (the shard is named; finished shards are kept).
    """
    folder = Path(folder)
    settings = resolved(settings)
    shards = plan.shards()
    _claim(folder, plan, settings)
    with alone(folder):
        missing = [k for k in range(len(shards)) if not _shard(folder, k).is_dir()]
        done, num_traces = len(shards) - len(missing), 0
        missing = missing[:max_shards] if max_shards is not None else missing
        jobs = [(folder, k, plan.split, plan.seed, shards[k], settings, make_teacher) for k in missing]
        for count in _run_all(jobs, num_workers):
            done, num_traces = done + 1, num_traces + count
            if progress:
                progress(done, len(shards), num_traces)
        give_verdicts(folder)
    return folder


def _run_all(jobs: list[tuple], num_workers: int) -> Iterator[int]:
    """The number of traces of each shard, as they are done."""
    if num_workers <= 1:
        for job in jobs:
            yield write_shard(*job)
        return
    with workers(num_workers) as pool:
        for future in as_completed([pool.submit(write_shard, *job) for job in jobs]):
            yield future.result()


def write_shard(folder: Path, number: int, split: str, seed: int, media: list, settings: ToolSettings, make_teacher: MakeTeacher) -> int:
    """Collect one shard; how many traces it holds.

    Raises:
        DataError: it cannot be made; the text says where and why.
    """
    part = _shard(folder, number).with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    teacher = make_teacher()
    executor = Executor(build_toolbox(settings), disabled=settings.disabled, cache=cache_for(settings))
    runner = Runner(teacher, executor, settings=settings, limits=LIMITS, num_parallel=1, num_parallel_calls=1)
    count = 0
    try:
        with RunWriter(part, {"pixelis": __version__, "split": split, "seed": seed, "shard": number}) as writer:
            lines = []
            for family, index, questions in media:
                lines += _ask_all(runner, teacher, writer, split, seed, family, index, questions)
            (part / FACTS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            count = len(lines)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{part}: {type(error).__name__}: {error}\n{traceback.format_exc(limit=-3)}") from error
    finally:
        teacher.close()
    os.replace(part, _shard(folder, number))
    return count


def _ask_all(
    runner: Runner, teacher: Policy, writer: RunWriter, split: str, seed: int, family: str, index: int, questions: int
) -> list[dict[str, Any]]:
    """All questions on one medium; the facts of each trace."""
    items = [make_item(split, index, seed=seed, family=family, variant=v) for v in range(questions)]
    lines = []
    with open_medium(render(items[0]), name=items[0].medium_name) as medium:
        for item in {item.prompt: item for item in items}.values():
            task = Task(question=item.prompt, medium=medium, id=item.id, facts={"item": item})
            (rollout,) = runner.run([(task, seed)])
            writer.append(rollout.trajectory, blobs=rollout.blobs, timing=rollout.timing)
            hand = getattr(teacher, "hands", {}).pop(item.id, None)  # of a teacher that errs on purpose
            mistakes = hand.mistakes if hand else ()
            planned = frozenset(k for k in mistakes if k < len(rollout.trajectory.steps))  # one that was cut short stops before its call
            lines.append(fact_line(item, rollout.trajectory, planned, has_given_up=bool(hand and hand.has_given_up)))
    return lines


def fact_line(item: Item, trajectory: Trajectory, planned_errors: frozenset[int], *, has_given_up: bool = False) -> dict[str, Any]:
    """What a trace is scored by and what its statistics need, as plain JSON values."""
    checks = verify_trajectory(item, trajectory)
    facts = facts_of(item, trajectory, checks, planned_errors=planned_errors, has_given_up=has_given_up)
    return {
        "id": trajectory.id,
        "item": {"split": item.split, "index": item.index, "seed": item.seed, "family": item.family, "variant": item.variant},
        "answer": item.plain_answer,
        "is_right": bool(score_answer(item, trajectory.answer or "")),
        "difficulty": item.difficulty,
        "planned_errors": sorted(planned_errors),
        "ops": [step.call.op if step.call else "" for step in trajectory.steps],
        "ok": [step.result.is_ok for step in trajectory.steps],
        "valid": [check.is_valid for check in checks],
        "decisive": list(decisive_steps(trajectory, answer=f"{item.plain_answer} {trajectory.final_text}")),
        "facts": asdict(facts),
    }


# ---------------------------------------------------------------- verdicts


def give_verdicts(folder: Path) -> None:
    """Accept or refuse every trace, by z within its family over all shards; rewritten whenever shards are added."""
    shards = shard_folders(folder)
    lines = [read_facts(shard) for shard in shards]
    verdicts = iter(accept([Facts(**line["facts"]) for group in lines for line in group]))
    for shard, group in zip(shards, lines, strict=True):
        rows = []
        for line in group:
            verdict = next(verdicts)
            rows.append(
                {key: line[key] for key in ("id", "item", "answer", "planned_errors")}
                | {"family": line["item"]["family"], "split": line["item"]["split"], "hardness": line["difficulty"]}
                | {"accepted": verdict.is_accepted, "score": verdict.score, "reason": verdict.reason}
            )
        part = shard / f"{SCORES_FILE}.part"
        part.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        os.replace(part, shard / SCORES_FILE)


def shard_folders(folder: str | Path) -> list[Path]:
    """The finished shards of a trace set, in order.

    Raises:
        DataError: no trace set there, or none of its shards is finished.
    """
    folder = Path(folder)
    if not (folder / ABOUT_FILE).is_file():
        raise DataError(f"{folder}: no trace set ({ABOUT_FILE} is missing); make one with: pixelis data cota {folder}")
    shards = sorted(p for p in (folder / "shards").glob("[0-9]*") if p.is_dir() and not p.suffix)
    if not shards:
        raise DataError(f"{folder}: the trace set was begun, and no shard of it is finished; run pixelis data cota {folder} again")
    return shards


def read_facts(shard: Path) -> list[dict[str, Any]]:
    """Raises: DataError: a line is damaged; the text names file and line."""
    path = shard / FACTS_FILE
    found = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    found.append(json.loads(line))
                except ValueError as error:
                    raise DataError(f"{path}:{number}: not JSON ({error}); delete the folder {shard} and collect again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); delete the folder {shard} and collect again") from None
    return found


def trace_facts(folder: str | Path) -> Iterator[TraceFacts]:
    """What `data.stats` needs of every trace of a set."""
    for shard in shard_folders(folder):
        accepted = [json.loads(line)["accepted"] for line in (shard / SCORES_FILE).read_text(encoding="utf-8").splitlines()]
        for line, is_accepted in zip(read_facts(shard), accepted, strict=True):
            yield TraceFacts(
                split=line["item"]["split"],
                family=line["item"]["family"],
                ops=tuple(line["ops"]),
                ok=tuple(line["ok"]),
                is_decisive=tuple(line["decisive"]),
                is_accepted=is_accepted,
                is_valid=tuple(line["valid"]),
            )


def _shard(folder: Path, number: int) -> Path:
    return folder / "shards" / f"{number:04d}"


def _claim(folder: Path, plan: Plan, settings: ToolSettings) -> None:
    """Make the folder this plan's own, or check that it is: its shards and media must come out the same."""
    about = {
        "world": WORLD_VERSION,
        "split": plan.split,
        "seed": plan.seed,
        "shard_media": plan.shard_media,
        "teacher": plan.teacher,
        "shares": {family: asdict(share) for family, share in plan.shares.items()},
        "tools": settings.model_dump(mode="json"),
    }
    path = folder / ABOUT_FILE
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != about:
            differs = [key for key in about if found.get(key) != about[key]]
            raise DataError(f"{folder}: holds another trace set (its {', '.join(differs)} differ); choose a new folder")
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: is not an empty folder and holds no trace set; choose a new folder")
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
