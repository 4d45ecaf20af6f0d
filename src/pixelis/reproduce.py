"""`pixelis reproduce`: everything from nothing, stage by stage, each of them one command of `pixelis`.

A killed run goes on with the stage it was at; a stage whose command or recipe has changed since is named, not silently kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from pixelis.config import recipe_text
from pixelis.core.errors import ConfigError, DataError

RECORD_FILE = "reproduce.json"
TAIL_LINES = 12


class StageTable(BaseModel):
    """One command and what it leaves behind."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(min_length=1)
    command: tuple[str, ...] = Field(min_length=1)
    """Arguments of `pixelis`."""
    makes: str
    """A file that the stage leaves behind."""
    minutes: float = Field(gt=0)
    """On two cores with nothing beside it; only the time left is told from it."""


class ReproduceRecipe(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    out: str
    """Where logs and the record of what was done lie."""
    stage: tuple[StageTable, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Done:
    """What is known of a stage that was begun."""

    stamp: str
    seconds: float | None
    """None until it is finished: what it makes may stand there by halves."""


def reproduce(recipe: ReproduceRecipe, *, only: Sequence[str] = (), say: Callable[[str], None] = print) -> Path:
    """Run the stages that are not done yet, in order.

    Args:
        only: names of stages; all when empty.

    Returns:
        The record: which stage was made by what, and how long it took.

    Raises:
        ConfigError: no such stage.
        DataError: a stage failed (its last lines are shown), or what stands there was made by another command or recipe.
    """
    return run_stages(recipe.stage, Path(recipe.out), only=only, say=say)


def run_stages(stages: Sequence[StageTable], folder: Path, *, only: Sequence[str] = (), say: Callable[[str], None] = print) -> Path:
    """See `reproduce`; logs and the record lie in the folder."""
    unknown = sorted(set(only) - {stage.name for stage in stages})
    if unknown:
        raise ConfigError(f"no stage {', '.join(unknown)}: there are {', '.join(stage.name for stage in stages)}")
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / RECORD_FILE
    wanted = [stage for stage in stages if not only or stage.name in only]
    for number, stage in enumerate(wanted):
        known = _read(record)
        head = f"[{number + 1}/{len(wanted)}] {stage.name}"
        if _is_done(stage, known):
            say(f"{head}: done, {stage.makes} is there")
            continue
        say(f"{head}: pixelis {' '.join(stage.command)} (about {stage.minutes:g} min; {_left(wanted, known):.0f} min left in all)")
        started = time.monotonic()
        known[stage.name] = Done(_stamp(stage), None)
        _write(record, known)
        _run(stage, folder / f"{stage.name}.log", say)
        known[stage.name] = Done(_stamp(stage), round(time.monotonic() - started, 1))
        _write(record, known)
        say(f"{head}: took {(time.monotonic() - started) / 60:.1f} min")
    return record


def _is_done(stage: StageTable, known: dict[str, Done]) -> bool:
    there = known.get(stage.name)
    if not Path(stage.makes).exists() or (there is not None and there.seconds is None):
        return False
    if there is not None and there.stamp != _stamp(stage):
        raise DataError(
            f"stage {stage.name}: {stage.makes} was made by another command or recipe; move its folder away to make it again, "
            "or put the recipe back"
        )
    return True


def _left(wanted: Sequence[StageTable], known: dict[str, Done]) -> float:
    """Minutes: what the undone stages were said to take, at the speed of those that were timed."""
    timed = [(stage.minutes, known[stage.name].seconds) for stage in wanted if stage.name in known and known[stage.name].seconds]
    speed = sum(seconds for _, seconds in timed) / 60 / sum(minutes for minutes, _ in timed) if timed else 1.0
    return speed * sum(stage.minutes for stage in wanted if not _is_done(stage, known))


def _stamp(stage: StageTable) -> str:
    """Of the command and of what every recipe that it names says, its bases included."""
    digest = hashlib.sha256(json.dumps(stage.command).encode())
    for word in stage.command:
        if word.endswith(".toml") and Path(word).is_file():
            digest.update(recipe_text(Path(word)).encode())
    return digest.hexdigest()[:16]


def _run(stage: StageTable, log: Path, say: Callable[[str], None]) -> None:
    """The stage's command as a process of its own; what it prints goes to the log, and the last line to the screen now and then."""
    command, last, shown = [sys.executable, "-m", "pixelis.cli", *stage.command], "", time.monotonic()
    with (
        log.open("a", encoding="utf-8") as file,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as process,
    ):
        try:
            for line in process.stdout or ():
                file.write(line)
                file.flush()
                words = "".join(char for char in line if char.isprintable()).strip()
                last = words if any(char.isalnum() for char in words) else last
                if time.monotonic() - shown > 30:
                    say(f"    {last[:160]}")
                    shown = time.monotonic()
        except BaseException:
            process.terminate()
            raise
    tail = "".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[-TAIL_LINES:])
    if process.returncode:
        raise DataError(f"stage {stage.name} failed (exit status {process.returncode}); the end of {log}:\n{tail}")
    if not Path(stage.makes).exists():
        raise DataError(f"stage {stage.name} ended well and left no {stage.makes}; the end of {log}:\n{tail}")


def _read(record: Path) -> dict[str, Done]:
    if not record.is_file():
        return {}
    try:
        return {name: Done(**facts) for name, facts in json.loads(record.read_text(encoding="utf-8")).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{record}: is damaged ({error}); delete it: finished stages are found by what they made") from None


def _write(record: Path, known: dict[str, Done]) -> None:
    part = record.with_suffix(".part")
    part.write_text(json.dumps({name: done.__dict__ for name, done in known.items()}, indent=1) + "\n", encoding="utf-8")
    os.replace(part, record)
