"""Phase 3, Pixel TTRL: the loop, query by query, in the paper's order.

Answer, log, then learn: sample rollouts, note the facts, retrieve neighbours, decide by pure functions, give the answer out, and only then
hand in a step within the KL corridor, after which the anchor follows slowly. The weights that serve are swapped between answers, as many
queries later as the lag says; the state is kept, the memory takes the query in. What an audit knows of the truth is asked last and goes
nowhere but into its own file. Source: paper §3.2.3; supplement 6.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pixelis import __version__
from pixelis.core.store import RUN_FILE, RunWriter, open_run
from pixelis.core.trajectory import Timing, Trajectory
from pixelis.retrieval.entry import Item
from pixelis.retrieval.index import IndexSettings
from pixelis.retrieval.keys import KeySpec
from pixelis.retrieval.memory import Memory, open_memory
from pixelis.retrieval.whitelist import Blocklist
from pixelis.train.start import save_policy
from pixelis.ttrl.decide import dump
from pixelis.ttrl.excluded import TRAJECTORIES_FOLDER, assert_clean, stored_fingerprint
from pixelis.ttrl.facts import dump_facts
from pixelis.ttrl.observe import KEYS
from pixelis.ttrl.rows import learnt_row
from pixelis.ttrl.serving import Adapter, Served
from pixelis.ttrl.state import (
    AUDIT_FILE,
    LINES_FILES,
    METRICS_FILE,
    QUERIES_FILE,
    AdaptSettings,
    Lines,
    Log,
    Progress,
    claim,
    resume,
    save,
)
from pixelis.ttrl.stream import Audit, Query, Stream

log = logging.getLogger(__name__)

MEMORY_FOLDER, POLICY_FOLDER = "memory", "policy"


def run_adapt(
    adapter: Callable[[Memory], Adapter],
    stream: Stream,
    out: str | Path,
    about: dict[str, Any],
    settings: AdaptSettings,
    *,
    spec: KeySpec,
    blocklist: Blocklist | None = None,
    index: IndexSettings = IndexSettings(),
    max_items: int | None = None,
    audit: Audit | None = None,
    log: Log = print,
) -> Path:
    """Serve a stream and learn from it; a run that was cut short goes on.

    Args:
        adapter: made over the run's memory.
        out: new, or the folder of this very run.
        about: what else makes the run what it is: stream, start, tools.
        spec: of the memory's keys.
        blocklist: evaluation media, which the memory refuses; it is audited against them when an index is trained, and at the end.
        index: how the memory searches.
        max_items: of the memory.
        audit: knows the truth, for the table only.

    Raises:
        ConfigError: the folder holds another run.
        DataError: a file of it is damaged, or the memory holds an evaluation medium at the end.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    claim(out, {"pixelis": __version__, "keys": KEYS, "settings": settings.to_json(), **about})
    with ExitStack() as stack:
        memory = stack.enter_context(open_memory(out / MEMORY_FOLDER, spec, blocklist=blocklist, settings=index, max_items=max_items))
        serving = stack.enter_context(closing(adapter(memory)))
        progress = resume(out, settings.beta)
        serving.restore(progress)
        if progress.pending is not None:
            _remember(memory, _with_fingerprint(progress.pending, memory, out / TRAJECTORIES_FOLDER), out)
        num_lines = {name: progress.position - (len(progress.jobs) if name == METRICS_FILE else 0) for name in LINES_FILES}
        lines = {name: stack.enter_context(closing(Lines(out / name, num))) for name, num in num_lines.items()}
        writer = stack.enter_context(_Once(out / TRAJECTORIES_FOLDER, about))
        run = _Run(serving, out, writer, lines, audit, log, len(stream))
        while progress.position < len(stream):
            with stream.open(progress.position) as query:
                progress = run.one_query(query, progress)
        run.settle(progress, lag=0)
        if blocklist is not None:
            assert_clean(memory, blocklist, out)
    save_policy(serving.policy, out / POLICY_FOLDER)
    if serving.insight is not None:
        serving.insight.save(out / POLICY_FOLDER)
    return out


def _remember(memory: Memory, item: Item, out: Path) -> None:
    """Add an item, unless there are as many as there may be. Once there are as many as an index is made for, train it, between answers, and
    audit it before it serves. When that is hangs on nothing else, so a run that was cut short goes on to the same decisions.

    Raises:
        DataError: the memory holds an evaluation medium.
    """
    if memory.is_full:
        return
    memory.add(item)
    if memory.is_full:
        log.warning("%s: the memory is full with %d items; what comes is answered, and not remembered", out, len(memory))
    if memory.kind == "exact" and len(memory) >= memory.settings.exact_below:
        blocked = memory.blocklist
        memory.train_index(audit=None if blocked is None else partial(assert_clean, blocklist=blocked, folder=out))


def _with_fingerprint(item: Item, memory: Memory, folder: Path) -> Item:
    """An item of the stored state with its medium's fingerprint, which the state does not keep."""
    if memory.blocklist is None:
        return item
    return replace(item, fingerprint=stored_fingerprint(open_run(folder), item.entry.medium))


class _Once(RunWriter):
    """Takes every trajectory once: a query that was cut short is sampled again, to the same trajectories."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        is_new = not (folder / RUN_FILE).exists()
        self._known = set() if is_new else {trajectory.id for trajectory in open_run(folder).trajectories()}
        super().__init__(folder, about, resume=not is_new)

    def append(self, trajectory: Trajectory, *, blobs: Mapping[str, bytes] = {}, timing: Timing | None = None) -> None:
        if trajectory.id not in self._known:
            super().append(trajectory, blobs=blobs, timing=timing)
            self._known.add(trajectory.id)


@dataclass(frozen=True)
class _Run:
    """Where a run writes."""

    adapter: Adapter
    out: Path
    writer: RunWriter
    lines: Mapping[str, Lines]
    audit: Audit | None
    log: Log
    num_queries: int

    def one_query(self, query: Query, progress: Progress) -> Progress:
        """Answer, log, hand in what is learnt, let earlier updates serve, keep."""
        adapter, number, started = self.adapter, progress.position, time.monotonic()
        served = adapter.serve(query, number, self.writer)
        self.lines[QUERIES_FILE].write(_query_line(served))
        job, progress = adapter.lesson(served, progress, time.monotonic() - started)
        progress = replace(progress, pending=adapter.item(served, query))
        adapter.updates.submit(job)
        return self.settle(progress, served)

    def settle(self, progress: Progress, served: Served | None = None, *, lag: int | None = None) -> Progress:
        """Let updates serve until only as many wait as the lag allows; the state is on the disk before anyone hears of it.

        Args:
            served: the query that was just answered, which the audit is asked of; None at the end of the stream.
            lag: other than that of the settings.
        """
        adapter, rows = self.adapter, []
        while len(adapter.updates) > (adapter.settings.lag if lag is None else lag):
            row, progress = self._serve_next(progress)
            rows.append(row)
        if served is not None:
            self.lines[AUDIT_FILE].write(self._audit_line(served, progress.position - 1))
        for row, _ in rows:
            self.lines[METRICS_FILE].write(json.dumps(row).encode())
        save(self.out, progress)
        if served is not None and progress.pending is not None:
            _remember(adapter.memory, progress.pending, self.out)
        for row, right in rows:
            self.log({**row, "right": right, "of": self.num_queries})
        return progress

    def _serve_next(self, progress: Progress) -> tuple[tuple[dict[str, Any], bool | None], Progress]:
        """Wait for the oldest update and let it serve: its row, whether its answer was right, and the progress."""
        started = time.monotonic()
        done = self.adapter.updates.collect()
        self.adapter.swap(done.weights)
        tally = progress.tally
        if done.outcome is not None and done.outcome.rolled_back:
            tally = replace(tally, rolled_back=tally.rolled_back + 1)
        row = learnt_row(done, tally, time.monotonic() - started)
        right = None if self.audit is None else self.audit.is_right(done.job.number, done.job.answer)
        return (row, right), replace(progress, tally=tally, corridor=done.corridor, weights=done.weights, jobs=progress.jobs[1:])

    def _audit_line(self, served: Served, number: int) -> bytes:
        right = each = None
        if self.audit is not None:
            right = self.audit.is_right(number, served.decision.answer)
            each = [self.audit.is_right(number, one.answer) for one in served.facts.rollouts]
        return json.dumps({"query": served.facts.id, "right": right, "each": each}).encode()


def _query_line(served: Served) -> bytes:
    return b'{"facts":' + dump_facts(served.facts) + b',"decision":' + dump(served.decision) + b"}"
