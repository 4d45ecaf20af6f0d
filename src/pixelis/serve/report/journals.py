"""Journals: what a run of training or adaptation wrote down, a row an update."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelis.core.command import Command, commands_json, commands_of
from pixelis.core.errors import DataError
from pixelis.core.store import sha256
from pixelis.serve.report.series import Row, numbers

COUNTERS = ("update", "step", "query", "bin")
"""Keys that may number a journal's rows; the first that its first row has does."""

ABOUT = "about"
"""Only key of a first line that holds facts of the run instead of a row: what run.json or adapt.json says, `commands`, as lines of
commands.jsonl, and `audit`. So a journal that is kept by itself can say where it is from; see `kept_journal`."""


@dataclass(frozen=True, kw_only=True)
class Journal:
    """What a run wrote down, a row an update."""

    name: str
    file: str
    counter: str
    """The key that numbers the rows: one of `COUNTERS`."""
    rows: tuple[Row, ...]
    info: Mapping[str, Any]
    """The run's settings; empty when none lie beside the journal or at its head."""
    digest: str
    """SHA-256 of the file."""
    num_cut_bytes: int
    path: str = ""
    """Of the run's folder, as a command may name it; empty where the journal is kept by itself."""
    commands: tuple[Command, ...] = ()
    """Command lines that worked on the run."""
    audit: Mapping[str, Any] | None = None
    """Of a stream's memory, against the media that it was not to hold; None where there was no audit."""

    @property
    def is_stream(self) -> bool:
        """Of a run that learns while it serves."""
        return self.counter == "query"


def read_journal(
    path: Path,
    *,
    name: str,
    info: Mapping[str, Any],
    folder: str = "",
    commands: tuple[Command, ...] = (),
    audit: Mapping[str, Any] | None = None,
) -> Journal:
    """A journal's rows. A last line without its end was cut off while it was written; it is passed over and counted.

    Args:
        info, commands, audit: of the run; what the journal says of itself in its first line comes before them.
        folder: see `Journal.path`.

    Raises:
        DataError: the file cannot be read, or a whole line is no row; names file and line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot read ({error.strerror})") from None
    whole, _, rest = data.rpartition(b"\n")
    lines = [(number, line) for number, line in enumerate(whole.split(b"\n"), 1) if line.strip()]
    about = _about(lines[0][1]) if lines else None
    if about is not None:
        info, lines = {**info, **about}, lines[1:]
        commands = commands_of(about.get("commands") or (), where=f"{path}:1") or commands
        audit = about["audit"] if isinstance(about.get("audit"), dict) else audit
    rows, counter = [], ""
    for number, line in lines:
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
        path=folder,
        commands=commands,
        audit=audit,
    )


def kept_journal(journal: Journal) -> bytes:
    """The journal as it can be kept by itself, with what is known of its run in the first line."""
    about = {**journal.info, "commands": commands_json(journal.commands), **({"audit": journal.audit} if journal.audit else {})}
    return b"".join(json.dumps(line).encode() + b"\n" for line in ({ABOUT: about}, *journal.rows))


def _about(line: bytes) -> dict[str, Any] | None:
    """The facts of a first line that holds facts; None of one that is a row."""
    value = _row(line)
    about = value.get(ABOUT) if value is not None and len(value) == 1 else None
    return about if isinstance(about, dict) else None


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def seconds_of(journal: Journal, parts: tuple[str, ...]) -> Iterator[float]:
    """Of each row that was timed, the seconds that parts of it took together; a part that a row has not took none."""
    for row in journal.rows:
        found = {key: value for key, value in numbers(row).items() if key.startswith("seconds.") and math.isfinite(value)}
        if any(f"seconds.{part}" in found for part in parts):
            yield sum(found.get(f"seconds.{part}", 0.0) for part in parts)
