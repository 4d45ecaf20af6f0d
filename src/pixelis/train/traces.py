"""From trace sets to what a trainer needs: each trace with the parts of its prompt, and every image it shows in the feature bank.

A PixelWorld trace names its item, and the item makes the medium again; that happens in worker processes, once, in whatever order they
finish. A trace from elsewhere brings its medium as a blob.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelis.core.decisive import decisive_steps
from pixelis.core.errors import ConfigError, DataError
from pixelis.core.media import open_medium
from pixelis.core.ops import ZoomOutput
from pixelis.core.store import open_run
from pixelis.core.trajectory import Trajectory
from pixelis.data.cota.load import Trace, read_traces
from pixelis.data.world.items import make_item, render
from pixelis.policy.base import Task
from pixelis.policy.buffer import ImageRef
from pixelis.policy.prompt import ImagePart, Prompting, question_parts, shown_frame
from pixelis.policy.vlm_score import pixels_of
from pixelis.rollout.workers import workers
from pixelis.train.bank import FeatureBank, Pixels

CHUNK = 32
"""Media encoded in one pass."""


@dataclass(frozen=True)
class Lesson:
    """One trace to learn from."""

    trace: Trace
    parts: tuple[str | tuple[str, None], ...]
    """The first message: texts, and (name, None) where an image stands."""
    decisive: tuple[bool, ...]

    @property
    def trajectory(self) -> Trajectory:
        return self.trace.trajectory

    def prompt(self, bank: FeatureBank) -> list[str | ImageRef]:
        return [part if isinstance(part, str) else ImageRef(part[0], bank.grids[part[0]]) for part in self.parts]


def read_lessons(
    folders: Sequence[str | Path],
    bank: FeatureBank,
    prompting: Prompting,
    *,
    split: str | None = None,
    num_workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    cache: Path | None = None,
) -> list[Lesson]:
    """All accepted traces of some trace sets, in order, with their images encoded.

    Args:
        progress: called with (media done, media there).
        cache: a file that remembers what is shown of each medium, so that a medium whose images the bank holds is not made again.

    Raises:
        DataError: a damaged trace set (file and line named), or a medium that cannot be had.
        ConfigError: a prompting that brightens: traces are learnt as they were recorded, of media and crops as they are.
    """
    if prompting.lift:
        raise ConfigError(
            f"traces show media as they are, the checkpoint sees at lift {prompting.lift:g}: set lift to 0 in its pixelis.json"
        )
    traces = [trace for folder in folders for trace in read_traces(folder, split=split)]
    _add_crops(folders, traces, bank)
    media: dict[str, Trace] = {}
    for trace in traces:
        media.setdefault(trace.trajectory.medium.sha256, trace)
    parts = _remembered(cache, prompting)
    known = {name for name in media if name in parts and all(isinstance(part, str) or part[0] in bank for part in parts[name])}
    fresh = [trace for name, trace in media.items() if name not in known]
    pending: list[tuple[str, np.ndarray]] = []
    for done, (sha256, shown) in enumerate(_shown(fresh, folders, prompting, num_workers), len(known) + 1):
        parts[sha256] = [part if isinstance(part, str) else (part.sha256, None) for part in shown]
        pending += [(part.sha256, part.image_HWC) for part in shown if isinstance(part, ImagePart) and part.sha256 not in bank]
        if len(pending) >= CHUNK or done == len(media):
            bank.note(pending)
            pending = []
        if progress:
            progress(done, len(media))
    if cache and fresh:
        part = cache.with_name(cache.name + ".part")
        part.write_text(json.dumps({"prompting": asdict(prompting), "media": parts}), encoding="utf-8")
        os.replace(part, cache)
    return [_lesson(trace, parts[trace.trajectory.medium.sha256]) for trace in traces]


Parts = list[str | tuple[str, None]]


def _remembered(cache: Path | None, prompting: Prompting) -> dict[str, Parts]:
    """What an earlier reading showed of each medium, if it prompted as this one does."""
    if cache is None or not cache.is_file():
        return {}
    try:
        found = json.loads(cache.read_text(encoding="utf-8"))
        if found["prompting"] != json.loads(json.dumps(asdict(prompting))):
            return {}
        return {name: [part if isinstance(part, str) else (part[0], None) for part in parts] for name, parts in found["media"].items()}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{cache}: cannot be read ({error}); delete it, and it is made again") from None


def _lesson(trace: Trace, parts: Sequence[str | tuple[str, None]]) -> Lesson:
    """The medium's parts with this trace's own question behind them."""
    decisive = decisive_steps(trace.trajectory, answer=f"{trace.answer} {trace.trajectory.final_text}")
    return Lesson(trace, (*parts[:-1], trace.trajectory.question), decisive)


def pixels_again(folders: Sequence[str | Path], lessons: Sequence[Lesson], prompting: Prompting) -> Pixels:
    """How to have an image's pixels again by its name, for a bank that holds only some: its medium is made or opened once more."""
    media = {lesson.trajectory.medium.sha256: lesson.trace for lesson in lessons}
    where = tuple(map(str, folders))

    def pixels(name: str) -> np.ndarray:
        trace = media.get(shown_frame(name)[0])
        if trace is None:
            return pixels_of(_blob(where, name))  # a crop
        _, parts = show((trace.trajectory.medium.sha256, trace.item, trace.trajectory.question, prompting, where))
        return next(part.image_HWC for part in parts if isinstance(part, ImagePart) and part.sha256 == name)

    return pixels


def _shown(
    traces: Sequence[Trace], folders: Sequence[str | Path], prompting: Prompting, num_workers: int
) -> Iterator[tuple[str, list[str | ImagePart]]]:
    """What the model is shown of each medium: (hash, parts)."""
    jobs = [(t.trajectory.medium.sha256, t.item, t.trajectory.question, prompting, tuple(map(str, folders))) for t in traces]
    if num_workers <= 1 or len(jobs) < CHUNK:
        yield from map(show, jobs)
        return
    with workers(num_workers) as pool:
        yield from pool.map(show, jobs, chunksize=8)


def show(job: tuple[str, dict[str, Any] | None, str, Prompting, tuple[str, ...]]) -> tuple[str, list[str | ImagePart]]:
    """Make or open one medium and take what is shown of it.

    Raises:
        DataError: the item makes another medium than the trace was recorded on, or there is neither item nor blob.
    """
    sha256, named, question, prompting, folders = job
    source = _remake(named) if named is not None else _blob(folders, sha256)
    with open_medium(source) as medium:
        if medium.sha256 != sha256:
            raise DataError(
                f"item {named} makes medium {medium.sha256:.12}, its trace was recorded on {sha256:.12}: "
                "the traces are of another version of PixelWorld; make them again"
            )
        parts = question_parts(Task(question=question, medium=medium), prompting)
    return sha256, parts


def _remake(named: dict[str, Any]) -> bytes:
    return render(make_item(named["split"], named["index"], seed=named["seed"], family=named["family"]))


def _blob(folders: Sequence[str], name: str) -> bytes:
    for run in _runs(folders):
        if run.blob_path(name).is_file():
            return run.blob(name)
    raise DataError(f"medium or crop {name:.16} lies in none of {', '.join(folders)}, and no trace names a PixelWorld item for it")


def _runs(folders: Sequence[str | Path]) -> Iterator[Any]:
    for folder in map(Path, folders):
        shards = sorted(p for p in (folder / "shards").glob("[0-9]*") if p.is_dir() and not p.suffix)
        yield from (open_run(path) for path in shards or [folder])


def _add_crops(folders: Sequence[str | Path], traces: Sequence[Trace], bank: FeatureBank) -> None:
    """Encode the crops that zooms showed."""
    wanted = {
        step.result.output.image
        for trace in traces
        for step in trace.trajectory.steps
        if isinstance(step.result.output, ZoomOutput) and step.result.output.image not in bank
    }
    pending: list[tuple[str, np.ndarray]] = []
    for run in _runs(folders) if wanted else ():
        for name in sorted(name for name in wanted if run.blob_path(name).is_file()):
            wanted.discard(name)
            pending.append((name, pixels_of(run.blob(name))))
            if len(pending) >= CHUNK:
                bank.note(pending)
                pending = []
    bank.note(pending)
    if wanted:
        raise DataError(f"{len(wanted)} crops lie in none of the trace sets, first {min(wanted):.16}: collect the traces again")
