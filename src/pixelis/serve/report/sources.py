"""What is reported on: evaluations and training journals, found in the given folders and files. Nothing is written to them.

An evaluation is scored again from its trajectories, so that no number can be older than the rules it is scored by.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelis.core.errors import DataError
from pixelis.core.store import RUN_FILE, TRAJECTORIES_FILE, Run, sha256
from pixelis.core.trajectory import Timing, Trajectory
from pixelis.data.world.item import Item
from pixelis.eval.consistency_run import CONSISTENCY, CONSISTENCY_FILE, Consistencies, read_consistency
from pixelis.eval.failures import Mode, audit
from pixelis.eval.failures_run import FAILURES_FILE
from pixelis.eval.hacks import Hack, find_hacks
from pixelis.eval.necessity_run import NECESSITY, NECESSITY_FILE, Necessities, read_necessity
from pixelis.eval.pixelworld import EVALUATION, ItemSet, open_evaluation
from pixelis.eval.report import Report, make_report
from pixelis.eval.robustness_run import GRID_FILE, ROBUSTNESS, Robustness, read_robustness
from pixelis.eval.scores import ItemScore, score_trajectory
from pixelis.eval.selective_run import BINS_FILE, CURVE_FILE
from pixelis.serve.report.series import Row, numbers

JOURNAL_FILES = ("metrics.jsonl", "primer.jsonl", "sight.jsonl", CURVE_FILE, BINS_FILE)
"""Names under which a run leaves its journal, and `pixelis eval selective` its curves."""

COUNTERS = ("update", "step", "query", "bin")
"""Keys that may number a journal's rows; the first that its first row has does."""

ADAPT_FILE = "adapt.json"
"""What a run of `pixelis adapt` says of itself; `pixelis.ttrl.state` writes it, and needs torch."""

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


@dataclass(frozen=True, kw_only=True)
class Journal:
    """What a training run wrote down, a row an update."""

    name: str
    file: str
    counter: str
    """The key that numbers the rows: one of `COUNTERS`."""
    rows: tuple[Row, ...]
    info: Mapping[str, Any]
    """The run's settings; empty when none lie beside the journal."""
    digest: str
    """SHA-256 of the file."""
    num_cut_bytes: int


@dataclass(frozen=True)
class Sources:
    evaluations: tuple[Evaluation, ...]
    journals: tuple[Journal, ...]
    probes: tuple[Probe, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the paths, each once."""
        return tuple(dict.fromkeys(source.name for source in (*self.evaluations, *self.probes, *self.journals)))


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
    evaluations, journals, probes = [], [], []
    items: dict[str, Item] = {}
    for number, (path, name) in enumerate(zip(paths, display_names(paths), strict=True)):
        progress(number, len(paths))
        info = _info(path if path.is_dir() else path.parent)
        found = [path] if path.is_file() else [path / file for file in JOURNAL_FILES if (path / file).is_file()]
        journals += [read_journal(file, name=name, info=info) for file in found]
        if path.is_dir() and info.get("evaluation") == EVALUATION:
            evaluations.append(_evaluation(path, name, items, num_families=examples))
        elif path.is_dir() and info.get("evaluation") in PROBES:
            probes.append(_probe(path, name, *PROBES[info["evaluation"]]))
        elif not found:
            raise DataError(_unknown(path, info))
    progress(len(paths), len(paths))
    return Sources(tuple(evaluations), tuple(journals), tuple(probes))


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
        return f"{path}: an evaluation on {info['evaluation']!r}; the report knows those on {EVALUATION!r}"
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


def _evaluation(folder: Path, name: str, made: dict[str, Item], *, num_families: int) -> Evaluation:
    """Score a run again.

    Args:
        made: items that were made for other runs; making them is what takes the time.
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

    return Evaluation(
        name=name,
        report=report,
        hacks=find_hacks(pairs),
        tool_s=_tool_seconds(report.scores, timings),
        total_s=tuple(timings[s.trajectory].total_s for s in report.scores if s.trajectory in timings),
        examples=tuple(map(example, chosen)),
        digest=sha256((folder / TRAJECTORIES_FILE).read_bytes()),
        num_cut_bytes=run.num_cut_bytes,
        modes=modes,
        gallery={mode.name: tuple(map(example, mode.worst)) for mode in modes},
    )


def _probe(folder: Path, name: str, file: str, read: Callable[[Path], Found]) -> Probe:
    return Probe(name=name, file=file, found=read(folder), digest=sha256((folder / file).read_bytes()))


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


# ---------------------------------------------------------------- journals


def read_journal(path: Path, *, name: str, info: Mapping[str, Any]) -> Journal:
    """A journal's rows. A last line without its end was cut off while it was written; it is passed over and counted.

    Raises:
        DataError: the file cannot be read, or a whole line is no row; names file and line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot read ({error.strerror})") from None
    whole, _, rest = data.rpartition(b"\n")
    rows, counter = [], ""
    for number, line in _lines(whole):
        value = _row(line)
        counter = counter or next((key for key in COUNTERS if value and key in value), "")
        if value is None or not math.isfinite(numbers(value).get(counter, math.nan)):
            wanted = f"{counter!r}" if counter else " or ".join(map(repr, COUNTERS))
            raise DataError(
                f"{path}:{number}: no row of a journal: a line is one JSON object with the number {wanted}; mend or remove the line"
            )
        rows.append(value)
    last = _row(rest) if rest.strip() else None
    counter = counter or next((key for key in COUNTERS if last and key in last), COUNTERS[0])
    is_row = last is not None and math.isfinite(numbers(last).get(counter, math.nan))
    return Journal(
        name=name,
        file=path.name,
        counter=counter,
        rows=tuple([*rows, last] if is_row and last is not None else rows),
        info=info,
        digest=sha256(data),
        num_cut_bytes=0 if is_row else len(rest.strip()),
    )


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    return ((number, line) for number, line in enumerate(data.split(b"\n"), 1) if line.strip())


def _row(line: bytes) -> Row | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
