"""What is reported on: evaluations, benchmark runs and journals, found in the given folders and files. Nothing is written to them.

An evaluation is scored again from its trajectories, so that no number can be older than the rules it is scored by.
"""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelis.core.command import OUTSIDE, Command, read_commands, seen_from_here
from pixelis.core.errors import DataError
from pixelis.core.store import RUN_FILE, TRAJECTORIES_FILE, Run, sha256
from pixelis.core.trajectory import Timing, Trajectory
from pixelis.data.world.item import Item
from pixelis.eval.bench.report import EVALUATION as BENCH
from pixelis.eval.consistency_run import CONSISTENCY, CONSISTENCY_FILE, Consistencies, read_consistency
from pixelis.eval.failures import Mode, audit
from pixelis.eval.failures_run import FAILURES_FILE
from pixelis.eval.grid_pair import read_cells
from pixelis.eval.hacks import Hack, find_hacks
from pixelis.eval.necessity_run import NECESSITY, NECESSITY_FILE, Necessities, read_necessity
from pixelis.eval.pixelworld import EVALUATION, ItemSet, open_evaluation
from pixelis.eval.process_run import PROCESS_FILE
from pixelis.eval.report import Report, make_report
from pixelis.eval.robustness import CLEAN
from pixelis.eval.robustness_run import GRID_FILE, ROBUSTNESS, Robustness, read_robustness
from pixelis.eval.scores import SCORES_FILE, ItemScore, score_trajectory
from pixelis.eval.selective_run import BINS_FILE, CURVE_FILE
from pixelis.retrieval.audit import AUDIT_FILE
from pixelis.serve.report.benches import BenchRun, read_bench
from pixelis.serve.report.journals import Journal, read_journal

JOURNAL_FILES = ("metrics.jsonl", "primer.jsonl", "sight.jsonl", CURVE_FILE, BINS_FILE)
"""Names under which a run leaves its journal, and `pixelis eval selective` its curves."""

ADAPT_FILE = "adapt.json"
"""What a run of `pixelis adapt` says of itself; `pixelis.ttrl.state` writes it, and needs torch."""

NUM_EXAMPLES = 6
"""Families from which examples are taken unless another number is asked for."""

Progress = Callable[[int, int], None]
Found = Robustness | Necessities | Consistencies


@dataclass(frozen=True, kw_only=True)
class Example:
    """One item as it was answered."""

    run: Run
    item: Item
    trajectory: Trajectory
    score: ItemScore


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A stored evaluation with all that follows from it."""

    name: str
    report: Report
    hacks: tuple[Hack, ...]
    tool_s: dict[str, float]
    """Seconds in each op's calls, summed over the items that have a timing; no key for an op that was not called."""
    total_s: tuple[float, ...]
    """Wall time of each item that has a timing."""
    examples: tuple[Example, ...]
    digest: str
    """SHA-256 of its trajectories."""
    num_cut_bytes: int
    """Of a last record that was cut off while it was written."""
    path: str
    """Of its folder, as a command may name it."""
    commands: tuple[Command, ...] = ()
    """Command lines that worked on it."""
    process: Mapping[str, Any] | None = None
    """What `pixelis eval process` found in it; None where it was not asked, or of other trajectories."""
    modes: tuple[Mode, ...] = ()
    """The audit of its failures, where `pixelis eval failures` was run on it; none else."""
    gallery: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)
    """By mode, its worst failures."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What was done to a policy on purpose, and what came of it: a grid of shifts, tools taken away one by one, or votes over rollouts."""

    name: str
    file: str
    found: Found
    digest: str
    """SHA-256 of the file."""
    path: str
    """Of its folder, as a command may name it."""
    commands: tuple[Command, ...] = ()
    """Command lines that worked on it."""
    cells: Mapping[str, Sequence[ItemScore]] = field(default_factory=dict)
    """Of a grid, the scores of each cell by its folder; none where the runs do not lie there."""


@dataclass(frozen=True)
class Sources:
    evaluations: tuple[Evaluation, ...]
    journals: tuple[Journal, ...]
    probes: tuple[Probe, ...] = ()
    benches: tuple[BenchRun, ...] = ()
    command: str = ""
    """The command that reads them all."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the paths, each once."""
        return tuple(dict.fromkeys(source.name for source in (*self.evaluations, *self.probes, *self.benches, *self.journals)))


def read_sources(paths: Sequence[Path], *, examples: int, progress: Progress = lambda done, of: None) -> Sources:
    """Everything that the paths hold, in their order.

    Args:
        paths: run folders, or `.jsonl` journals.
        examples: families from which examples are taken.
        progress: called with (runs read, runs in all).

    Raises:
        DataError: no path, the same path twice, or one that holds neither an evaluation nor a journal; a record or row is damaged.
    """
    if not paths:
        raise DataError("nothing to report on: name at least one run folder or journal")
    evaluations, journals, probes, benches = [], [], [], []
    items: dict[str, Item] = {}
    names = display_names(paths)
    shown = [_shown(path, name) for path, name in zip(paths, names, strict=True)]
    for number, (path, name) in enumerate(zip(paths, names, strict=True)):
        progress(number, len(paths))
        folder = path if path.is_dir() else path.parent
        info, found = _info(folder), [path] if path.is_file() else [path / file for file in JOURNAL_FILES if (path / file).is_file()]
        of = {"path": shown[number], "commands": read_commands(folder)}
        own = shown[number] if path.is_dir() else _shown(folder, folder.name) if info else ""
        if found:
            whence = {
                "name": name,
                "info": info,
                "folder": own,
                "commands": of["commands"],
                "audit": _found_in(folder / AUDIT_FILE, "pixelis adapt --check"),
            }
            journals += [read_journal(file, **whence) for file in found]
        kind = info.get("evaluation") if path.is_dir() else None
        if kind == EVALUATION:
            evaluations.append(_evaluation(path, name, items, num_families=examples, **of))
        elif kind == BENCH:
            benches.append(read_bench(path, name=name, **of))
        elif kind in PROBES:
            probes.append(_probe(path, name, *PROBES[kind], **of))
        elif not found:
            raise DataError(_unknown(path, info))
    progress(len(paths), len(paths))
    command = shlex.join(["pixelis", "report", *shown, *(["--examples", str(examples)] if examples != NUM_EXAMPLES else [])])
    return Sources(tuple(evaluations), tuple(journals), tuple(probes), tuple(benches), command)


def _shown(path: Path, name: str) -> str:
    """A path as a command may name it from the working directory; by its name on the page where it lies apart from there."""
    shown = seen_from_here(str(path))
    return f"{OUTSIDE}/{name}" if shown.startswith(f"{OUTSIDE}/") else shown


def display_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of each path, as few as tell them apart: a page travels, and where it was made is nobody's business.

    Raises:
        DataError: a path is given twice.
    """
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    twice = next(path for number, path in enumerate(paths) if parts[number] in parts[:number])
    raise DataError(f"{twice} is named twice: name each run once")


def _unknown(path: Path, info: Mapping[str, Any]) -> str:
    if not path.exists():
        return f"{path}: there is no such folder or file"
    if info.get("evaluation"):
        return f"{path}: an evaluation on {info['evaluation']!r}; the report knows those on {', '.join((EVALUATION, BENCH, *PROBES))}"
    return (
        f"{path} holds nothing to report on: neither an evaluation ({RUN_FILE} of pixelis eval pixelworld --run) "
        f"nor a journal of training ({', '.join(JOURNAL_FILES)})"
    )


def _info(folder: Path) -> dict[str, Any]:
    """A run's own facts; empty when it has none."""
    path = next((path for path in (folder / RUN_FILE, folder / ADAPT_FILE) if path.is_file()), None)
    if path is None:
        return {}
    try:
        info = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    if not isinstance(info, dict):
        raise DataError(f"{path} holds {type(info).__name__}, not the facts of a run")
    return info


# ---------------------------------------------------------------- evaluations


def _evaluation(folder: Path, name: str, made: dict[str, Item], *, num_families: int, **of: Any) -> Evaluation:
    """Score a run again.

    Args:
        made: items that were made for other runs; making them is what takes the time.
        of: its path and commands.
    """
    run, items = open_evaluation(folder)
    timings = run.timings()
    # What the user interrupted says nothing of the policy. Of an item that was run again the last record counts.
    of_item = {t.task_id: t for t in run.trajectories() if t.stop != "interrupted"}
    pairs = [(_item(items, trajectory, made), trajectory) for trajectory in of_item.values()]
    scores = {item.id: score_trajectory(item, trajectory) for item, trajectory in pairs}
    report = make_report(run.info, list(scores.values()), timings, seed=items.seed)
    chosen = choose_examples(report.scores, num_families)
    by_id = {item.id: (item, trajectory) for item, trajectory in pairs}
    is_audited = (folder / FAILURES_FILE).is_file()
    modes = audit([(item, scores[item.id]) for item, _ in pairs], num_worst=num_families, seed=items.seed) if is_audited else ()

    def example(score: ItemScore) -> Example:
        return Example(run=run, item=by_id[score.id][0], trajectory=by_id[score.id][1], score=score)

    digest = sha256((folder / TRAJECTORIES_FILE).read_bytes())
    return Evaluation(
        name=name,
        report=report,
        hacks=find_hacks(pairs),
        tool_s=_tool_seconds(report.scores, timings),
        total_s=tuple(timings[s.trajectory].total_s for s in report.scores if s.trajectory in timings),
        examples=tuple(map(example, chosen)),
        digest=digest,
        num_cut_bytes=run.num_cut_bytes,
        process=_process(folder, digest),
        modes=modes,
        gallery={mode.name: tuple(map(example, mode.worst)) for mode in modes},
        **of,
    )


def _process(folder: Path, digest: str) -> Mapping[str, Any] | None:
    """What was found in a run; None where it was not asked, or of other trajectories than those that are there now.

    Args:
        digest: SHA-256 of the run's trajectories.

    Raises:
        DataError: the file is damaged.
    """
    found = _found_in(folder / PROCESS_FILE, "pixelis eval process")
    return found if found is not None and found.get("trajectories", digest) == digest else None


def _found_in(path: Path, command: str) -> Mapping[str, Any] | None:
    """What a command left in a run; None where it left nothing.

    Raises:
        DataError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}; make it again: {command}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} holds {type(found).__name__}, not what {command} leaves; make it again")
    return found


def _probe(folder: Path, name: str, file: str, read: Callable[[Path], Found], **of: Any) -> Probe:
    found = read(folder)
    cells = read_cells(folder) if isinstance(found, Robustness) and (folder / CLEAN / SCORES_FILE).is_file() else {}
    return Probe(name=name, file=file, found=found, digest=sha256((folder / file).read_bytes()), cells=cells, **of)


PROBES: dict[str, tuple[str, Callable[[Path], Found]]] = {
    ROBUSTNESS: (GRID_FILE, read_robustness),
    NECESSITY: (NECESSITY_FILE, read_necessity),
    CONSISTENCY: (CONSISTENCY_FILE, read_consistency),
}
"""Kind of evaluation to the file that holds its numbers, and its reader."""


def _item(items: ItemSet, trajectory: Trajectory, made: dict[str, Item]) -> Item:
    key = json.dumps(items.to_json()) + trajectory.task_id
    if key not in made:
        made[key] = items.item_of(trajectory)
    return made[key]


def _tool_seconds(scores: Iterable[ItemScore], timings: Mapping[str, Timing]) -> dict[str, float]:
    seconds: dict[str, float] = defaultdict(float)
    for score in scores:
        if score.trajectory in timings:
            for op, step in zip(score.ops, timings[score.trajectory].steps, strict=False):
                seconds[op] += step.tool_s
    return dict(seconds)


def choose_examples(scores: Sequence[ItemScore], num_families: int) -> list[ItemScore]:
    """The first right and the first wrong item of some families, evenly spread over those that there are, in the order of the items."""
    families = list(dict.fromkeys(score.family for score in scores))
    few = min(num_families, len(families))
    places = sorted({round(k * (len(families) - 1) / max(1, few - 1)) for k in range(few)})
    firsts = [[next((s for s in scores if s.family == families[k] and s.right == right), None) for right in (1, 0)] for k in places]
    return [score for pair in firsts for score in pair if score is not None]
