"""A public benchmark as a run: the policy is asked every item with the real tools, and scored by the benchmark's own rule.

A run folder holds the items (`items.jsonl`, truth included), the trajectories, and `scores.jsonl` beside them. So a killed evaluation goes
on where it stopped, and `score_bench_run` scores again from the folder alone: neither data set, policy nor tools are needed.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pixelis.core.errors import ConfigError, DataError
from pixelis.core.store import RunWriter, open_run
from pixelis.eval.bench.base import BenchItem, Benchmark, by_task, count_note, groups
from pixelis.eval.bench.files import how_to_get
from pixelis.eval.bench.media import is_there, open_ref
from pixelis.eval.bench.report import (
    EVALUATION,
    ITEMS_FILE,
    RULES,
    BenchReport,
    benchmark_of,
    counts,
    item_lines,
    score_bench_run,
    write_file,
)
from pixelis.eval.runs import open_writer, run_facts
from pixelis.policy.base import Policy, Task
from pixelis.rollout.run import Limits, Runner
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings

log = logging.getLogger(__name__)

CHUNK = 16
"""Items whose media are open at once."""

Progress = Callable[[int, int], None]


def evaluate_bench(
    name: str,
    folder: str | os.PathLike,
    policy: Policy,
    executor: Executor,
    settings: ToolSettings,
    *,
    run_folder: str | os.PathLike,
    seed: int = 0,
    tasks: Sequence[str] = (),
    num_per_task: int | None = None,
    num_parallel: int = 8,
    num_parallel_calls: Mapping[str, int] | int = 2,
    limits: Limits = Limits(),
    keep_media: bool = False,
    progress: Progress | None = None,
) -> BenchReport:
    """Ask a policy the items of a benchmark, and score its answers. Files that are not complete are warned of before.

    Args:
        name: one of `BENCHMARKS`.
        folder: where the published files lie.
        policy: under test; it sees questions and media, never the truth.
        executor: the tools, made from `settings`; `toolbox.resolved` first, so that names and not `auto` are recorded.
        run_folder: where items, trajectories and scores are left. What stands there of this very evaluation is not run again.
        seed: of the option order, where the rule shuffles, and of the policy's sampling.
        tasks: only these kinds of question; all when empty.
        num_per_task: only the first so many questions of each kind; not part of what a run is, so a larger number extends one.
        keep_media: copy the media files into the run, so that it can be viewed and replayed by itself. Images out of tables and stretches
            of videos, which no file holds, are always kept.
        progress: called with (items done, items wanted).

    Raises:
        DataError: published files are missing or damaged, or the run folder holds something else.
        ConfigError: no such benchmark or task, or executor and settings disagree.
        NotInstalled: a package that reads the files is missing.
    """
    bench, folder = benchmark_of(name), Path(folder)
    if executor.disabled != set(settings.disabled):
        raise ConfigError(f"the executor has {sorted(executor.disabled)} switched off, the settings {sorted(settings.disabled)}")
    items = bench.read(folder, seed=seed)
    for note in count_note(items, bench.SOURCE):
        log.warning("%s: %s", folder, note)
    wanted = _wanted(items, tasks, num_per_task)
    _refuse_missing_media(bench, folder, wanted)
    digest = hashlib.sha256(item_lines(items)).hexdigest()
    own = {"evaluation": EVALUATION, "benchmark": name, "rules": RULES, "seed": seed, "items_sha256": digest}
    about = run_facts(policy, settings, limits=limits, **own)
    runner = Runner(policy, executor, settings=settings, limits=limits, num_parallel=num_parallel, num_parallel_calls=num_parallel_calls)
    with open_writer(Path(run_folder), about) as writer:
        write_file(Path(run_folder) / ITEMS_FILE, item_lines(items))
        done = {trajectory.task_id for trajectory in open_run(run_folder).trajectories() if counts(trajectory)}
        missing = [item for item in wanted if item.id not in done]
        for start in range(0, len(missing), CHUNK):
            _run_chunk(runner, writer, folder, missing[start : start + CHUNK], seed=seed, keep_media=keep_media)
            if progress is not None:
                progress(len(wanted) - max(0, len(missing) - start - CHUNK), len(wanted))
        return score_bench_run(run_folder)


# ---------------------------------------------------------------- asking


def _wanted(items: Sequence[BenchItem], tasks: Sequence[str], num_per_task: int | None) -> list[BenchItem]:
    """The items to ask: whole groups, in their published order."""
    known = by_task(items)
    unknown = [task for task in tasks if task not in known]
    if unknown:
        raise ConfigError(f"no task {', '.join(map(repr, unknown))}: they are {', '.join(known)}")
    if num_per_task is not None and num_per_task < 1:
        raise ConfigError(f"{num_per_task} questions of each task; wanted is 1 or more")
    kept: set[str] = set()
    for task, part in known.items():
        if not tasks or task in tasks:
            kept |= set(list(groups(part))[:num_per_task])
    return [item for item in items if item.group in kept and (not tasks or item.task in tasks)]


def _refuse_missing_media(bench: Benchmark, folder: Path, items: Iterable[BenchItem]) -> None:
    """Before the work: a missing archive costs no hour."""
    paths = {item.medium.path: item for item in items if not is_there(folder, item.medium)}
    if not paths:
        return
    tasks, shown = sorted({item.task for item in paths.values()}), ", ".join(sorted(paths)[:3])
    raise DataError(
        f"{folder}: {len(paths)} media files are missing ({shown}{', ...' if len(paths) > 3 else ''}), of {', '.join(tasks)}. "
        f"{how_to_get(bench.SOURCE, folder, bench.SOURCE.hub)}; or ask other tasks only"
    )


def _run_chunk(runner: Runner, writer: RunWriter, folder: Path, items: Sequence[BenchItem], *, seed: int, keep_media: bool) -> None:
    jobs = []
    with ExitStack() as stack:
        media: dict[str, Any] = {}
        for item in items:
            key = repr(item.medium)
            if key not in media:
                opened = open_ref(folder, item.medium)
                media[key] = stack.enter_context(opened.medium)
                data = (folder / item.medium.path).read_bytes() if opened.data is None and keep_media else opened.data
                if data is not None:
                    writer.put_blob(data)
            jobs.append((Task(question=item.prompt, medium=media[key], id=item.id), seed))
        runner.run(jobs, writer)
