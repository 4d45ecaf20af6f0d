"""Stages: commands of `pixelis` that stand on one another, run until all have left behind what they make.

A stage that takes the whole machine runs alone; others run side by side, as many as there are processors for. A killed run goes on with
the stages it was at; one whose command, recipe or ground has changed since is named, not silently kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from pixelis.config import recipe_text
from pixelis.core.errors import ConfigError, DataError

RECORD_FILE = "reproduce.json"
TAIL_LINES = 12
POLL_S, SHOW_S = 0.1, 30.0
STOP_S = 10.0
"""What a stage may take to end once it is interrupted."""


class StageTable(BaseModel):
    """One command and what it leaves behind."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(min_length=1)
    command: tuple[str, ...] = Field(min_length=1)
    """Arguments of `pixelis`."""
    makes: str
    """A file that the stage leaves behind."""
    minutes: float = Field(gt=0)
    """On two cores, with what runs beside it there; only the time left is told from it."""
    threads: int | None = Field(default=None, ge=1)
    """How many it is given, others running beside it while processors are left; None: the whole machine."""
    needs: tuple[str, ...] | None = None
    """Names of the stages that it stands on; None: all that are named before it."""


@dataclass(frozen=True)
class Done:
    """What is known of a stage that was begun."""

    stamp: str
    seconds: float | None
    """None until it is finished: what it makes may stand there by halves."""


def run_stages(
    stages: Sequence[StageTable],
    folder: Path,
    *,
    only: Sequence[str] = (),
    say: Callable[[str], None] = print,
    processors: int | None = None,
) -> Path:
    """Run the stages that are not done yet.

    Args:
        folder: of the logs and the record.
        only: names of stages; all when empty. What these stand on is taken to be there.
        processors: how many may be busy; None: those this process may use.

    Returns:
        The record: which stage was made by what, and how long it took.

    Raises:
        ConfigError: no such stage, or one that needs what is not named before it.
        DataError: a stage failed (its last lines are shown; those beside it are stopped), what stands there was made by another command or
            recipe, or what a stage stands on is missing or not finished.
    """
    _check(stages, only)
    folder.mkdir(parents=True, exist_ok=True)
    record, width, needs = folder / RECORD_FILE, processors or _num_processors(), needs_of(stages)
    wanted = [stage for stage in stages if not only or stage.name in only]
    heads = {stage.name: f"[{number}/{len(wanted)}] {stage.name}" for number, stage in enumerate(wanted, start=1)}
    known, left = _read(record), []
    _check_needs(wanted, needs, known)
    for stage in wanted:
        if _is_done(stage, known, {one.name for one in left} & set(needs[stage.name])):
            say(f"{heads[stage.name]}: done, {stage.makes} is there")
        else:
            left.append(stage)
    running: dict[str, _Running] = {}
    with _ended_by_sigterm(), _all_stopped(running):
        while left:
            for stage in startable(left, needs, list(running), width):
                known[stage.name] = Done(_stamp(stage), None)
                _write(record, known)
                time_left = _minutes_left(left, wanted, known, needs, running, width)
                about = f"(about {stage.minutes:g} min; {time_left:.0f} min left in all)"
                say(f"{heads[stage.name]}: pixelis {' '.join(stage.command)} {about}")
                running[stage.name] = _Running(stage, folder / f"{stage.name}.log")
            time.sleep(POLL_S)
            failed = []
            for name in [name for name, one in running.items() if one.has_ended(heads[name], say)]:
                one = running.pop(name)
                if error := one.error():
                    failed.append(error)
                    continue
                known[name] = replace(known[name], seconds=round(one.seconds, 1))
                _write(record, known)
                left.remove(one.stage)
                say(f"{heads[name]}: took {one.seconds / 60:.1f} min")
            if failed:
                raise DataError("\n".join(failed))
    return record


# ---------------------------------------------------------------- which may start, and how long all of it takes


def needs_of(stages: Sequence[StageTable]) -> dict[str, tuple[str, ...]]:
    """By stage, the names of those it stands on."""
    names = [stage.name for stage in stages]
    return {stage.name: tuple(names[:k]) if stage.needs is None else stage.needs for k, stage in enumerate(stages)}


def startable(left: Sequence[StageTable], needs: Mapping[str, Sequence[str]], running: Sequence[str], processors: int) -> list[StageTable]:
    """What to begin now: in order, and none before an earlier one that only waits for room.

    Args:
        left: stages that are not finished, those running included.
        needs: see `needs_of`; what is not in `left` is there.
    """
    names = {stage.name for stage in left}
    widths = {stage.name: min(stage.threads or processors, processors) for stage in left}
    free = processors - sum(widths[name] for name in running)
    chosen = []
    for stage in left:
        if stage.name in running or names & set(needs[stage.name]):
            continue
        if widths[stage.name] > free:
            break
        chosen.append(stage)
        free -= widths[stage.name]
    return chosen


def minutes_in_all(
    left: Sequence[StageTable],
    needs: Mapping[str, Sequence[str]],
    *,
    begun: Mapping[str, float] | None = None,
    speed: float = 1.0,
    processors: int = 2,
) -> float:
    """Until the last is finished, in the order in which `startable` lets them run.

    Args:
        begun: by name, the minutes for which a stage has been running.
        speed: minutes that pass for one of a stage's `minutes`.
    """
    left, now = list(left), 0.0
    lengths = {stage.name: speed * stage.minutes for stage in left}
    ends = {name: max(0.0, lengths[name] - minutes) for name, minutes in (begun or {}).items()}
    while left:
        ends |= {stage.name: now + lengths[stage.name] for stage in startable(left, needs, list(ends), processors)}
        first = min(ends, key=ends.__getitem__)
        now = ends.pop(first)
        left = [stage for stage in left if stage.name != first]
    return now


def _minutes_left(
    left: Sequence[StageTable],
    wanted: Sequence[StageTable],
    known: Mapping[str, Done],
    needs: Mapping[str, Sequence[str]],
    running: Mapping[str, _Running],
    processors: int,
) -> float:
    """At the speed of the stages that were timed."""
    timed = [(stage.minutes, known[stage.name].seconds or 0.0) for stage in wanted if stage.name in known and known[stage.name].seconds]
    speed = sum(seconds for _, seconds in timed) / 60 / sum(minutes for minutes, _ in timed) if timed else 1.0
    begun = {name: one.seconds / 60 for name, one in running.items()}
    return minutes_in_all(left, needs, begun=begun, speed=speed, processors=processors)


def _num_processors() -> int:
    """That this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(stages: Sequence[StageTable], only: Sequence[str]) -> None:
    names = [stage.name for stage in stages]
    unknown, twice = sorted(set(only) - set(names)), sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two stages have one name: {', '.join(twice)}; rename one")
    if unknown:
        raise ConfigError(f"no stage {', '.join(unknown)}: there are {', '.join(names)}")
    for number, stage in enumerate(stages):
        later = sorted(set(stage.needs or ()) - set(names[:number]))
        if later:
            raise ConfigError(f"stage {stage.name} needs {', '.join(later)}, which is not named before it; name it there, or leave it out")


def _check_needs(wanted: Sequence[StageTable], needs: Mapping[str, Sequence[str]], known: Mapping[str, Done]) -> None:
    """What stands there by halves, and is not to be finished now, is nothing to stand on."""
    names = {stage.name for stage in wanted}
    for stage in wanted:
        halves = sorted(name for name in needs[stage.name] if name not in names and name in known and known[name].seconds is None)
        if halves:
            raise DataError(f"stage {stage.name} stands on {', '.join(halves)}, which is not finished: let that run, too")


# ---------------------------------------------------------------- one that runs


class _Running:
    """A stage's command as a process of its own; what it prints goes to the log, and the last line to the screen now and then."""

    def __init__(self, stage: StageTable, log: Path) -> None:
        self.stage, self._log, self._started, self._shown = stage, log, time.monotonic(), time.monotonic()
        threads = {} if stage.threads is None else {"OMP_NUM_THREADS": str(stage.threads)}
        try:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"\n$ pixelis {' '.join(stage.command)}\n")
                file.flush()
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "pixelis.staged", str(os.getpid()), str(stage.threads or 0), *stage.command],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **threads},
                    process_group=0,  # Ctrl-C reaches it through `interrupt`, once
                )
        except OSError as error:
            raise DataError(f"stage {stage.name} cannot begin: {log}: {error.strerror}") from None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def has_ended(self, head: str, say: Callable[[str], None]) -> bool:
        if time.monotonic() - self._shown > SHOW_S:
            say(f"    {head}: {self._last_line()[:160]}")
            self._shown = time.monotonic()
        return self._process.poll() is not None

    def error(self) -> str:
        """Of one that has ended: why it failed; empty where it did not."""
        tail = "".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-TAIL_LINES:])
        if self._process.returncode:
            return f"stage {self.stage.name} failed (exit status {self._process.returncode}); the end of {self._log}:\n{tail}"
        if not Path(self.stage.makes).exists():
            return f"stage {self.stage.name} ended well and left no {self.stage.makes}; the end of {self._log}:\n{tail}"
        return ""

    def interrupt(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def end(self, within_s: float) -> None:
        """Wait for it, and kill it where that takes longer."""
        try:
            self._process.wait(timeout=max(0.0, within_s))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _last_line(self) -> str:
        """What it printed last that says something."""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - 4096))
            printed = file.read().decode("utf-8", errors="replace").splitlines()
        lines = ("".join(char for char in line if char.isprintable()).strip() for line in reversed(printed))
        return next((line for line in lines if any(char.isalnum() for char in line)), "")


@contextmanager
def _all_stopped(running: Mapping[str, _Running]) -> Iterator[None]:
    """None of them outlives the block: all are interrupted, which lets them write what there is, and killed where that takes long."""
    try:
        yield
    finally:
        until = time.monotonic() + STOP_S
        for one in running.values():
            one.interrupt()
        for one in running.values():
            one.end(until - time.monotonic())


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block like Ctrl-C does, instead of the process on the spot."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# ---------------------------------------------------------------- the record


def _is_done(stage: StageTable, known: Mapping[str, Done], made_again: Collection[str]) -> bool:
    """
    Args:
        made_again: stages that it stands on and that are to run now.
    """
    there = known.get(stage.name)
    if not Path(stage.makes).exists() or (there is not None and there.seconds is None):
        return False
    again = f"move {stage.makes} and what belongs to it away to make it again"
    if there is not None and there.stamp != _stamp(stage):
        raise DataError(f"stage {stage.name}: {stage.makes} was made by another command or recipe; {again}, or put the recipe back")
    if made_again:
        names = ", ".join(sorted(made_again))
        raise DataError(f"stage {stage.name}: {stage.makes} is there, but {names}, which it stands on, is not; {again}, or use --only")
    return True


def _stamp(stage: StageTable) -> str:
    """Of the command and of what every recipe that it names says, its bases included."""
    digest = hashlib.sha256(json.dumps(stage.command).encode())
    for word in stage.command:
        if word.endswith(".toml") and Path(word).is_file():
            digest.update(recipe_text(Path(word)).encode())
    return digest.hexdigest()[:16]


def _read(record: Path) -> dict[str, Done]:
    if not record.is_file():
        return {}
    try:
        return {name: Done(**facts) for name, facts in json.loads(record.read_text(encoding="utf-8")).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{record}: is damaged ({error}); delete it: finished stages are found by what they made") from None


def _write(record: Path, known: Mapping[str, Done]) -> None:
    part = record.with_suffix(".part")
    part.write_text(json.dumps({name: done.__dict__ for name, done in known.items()}, indent=1) + "\n", encoding="utf-8")
    os.replace(part, record)
