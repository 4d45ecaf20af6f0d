"""The command line behind a run, kept in its folder, so that whoever reads its numbers can have them made again.

It lies beside what a run says of itself, never in it: no run is told from another by how it was asked for, or from where.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pixelis.core.errors import DataError
from pixelis.core.ops import record
from pixelis.core.store import write_whole
from pixelis.core.versions import versions

COMMANDS_FILE = "commands.jsonl"
OUTSIDE = "PATH"
"""Stands for a folder that has nothing in common with the working directory: where it lies is nobody's business."""


@record
class Command:
    """A command line that worked on a run."""

    words: tuple[str, ...]
    """As given, `pixelis` first, but for paths: see `seen_from_here`."""
    recipes: dict[str, str] = field(default_factory=dict)
    """Path of each recipe among the words, and the SHA-256 of what it said, its bases included."""
    checkpoint: str | None = None
    """The policy or checkpoint as words or recipe name it; None where neither does."""
    versions: dict[str, str] = field(default_factory=dict)
    """See `core.versions`."""


_COMMAND = TypeAdapter(Command)
_UNDER_WAY: ContextVar[Command | None] = ContextVar("command", default=None)


@contextmanager
def under_way(command: Command) -> Iterator[None]:
    """Every run that is begun meanwhile was asked for by this command line. Without one, as in Python, none is noted."""
    token = _UNDER_WAY.set(command)
    try:
        yield
    finally:
        _UNDER_WAY.reset(token)


def note_command(folder: str | os.PathLike, earlier: Iterable[Command] = ()) -> None:
    """Note the command line under way as one that worked on a run; once, however often the run goes on by it.

    Args:
        folder: the run's, known to be its own by now.
        earlier: that made what the run is put together from.

    Raises:
        DataError: it cannot be written.
    """
    command = _UNDER_WAY.get()
    if command is None:
        return
    path = Path(folder) / COMMANDS_FILE
    try:
        known = path.read_bytes().splitlines() if path.is_file() else []
        lines = dict.fromkeys([*known, *map(_COMMAND.dump_json, [*earlier, replace(command, versions=versions())])])
        if len(lines) > len(known):
            write_whole(path, b"".join(line + b"\n" for line in lines))
    except OSError as error:
        raise DataError(f"{path}: cannot write ({error.strerror}): make room, or choose another folder") from None


def read_commands(folder: str | os.PathLike) -> tuple[Command, ...]:
    """The command lines that worked on a run, the first first; none where none was noted.

    Raises:
        DataError: the file is damaged; names the line.
    """
    path = Path(folder) / COMMANDS_FILE
    lines = path.read_bytes().splitlines() if path.is_file() else []
    return tuple(_load(_COMMAND.validate_json, line, f"{path}:{number}") for number, line in enumerate(lines, 1))


def commands_json(commands: Iterable[Command]) -> list[dict[str, Any]]:
    """As plain JSON values."""
    return [_COMMAND.dump_python(command, mode="json") for command in commands]


def commands_of(values: Sequence[Any], *, where: str) -> tuple[Command, ...]:
    """The inverse of `commands_json`.

    Raises:
        DataError: one of them is no command line; names `where` it stands.
    """
    return tuple(_load(_COMMAND.validate_python, value, where) for value in values)


def _load(read: Any, value: Any, where: str) -> Command:
    try:
        return read(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the line"
        raise DataError(f"{where}: no command line: {key}: {first['msg'].lower()}; mend or remove it") from None


def seen_from_here(word: str) -> str:
    """A word of a command line without an absolute path in it, and without the name and password of a server's user, or its query.

    An absolute path becomes one from the working directory, or its last part behind `PATH` where it lies outside of it.
    """
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    value = re.sub(r"(?<=://)[^/@\s]*@", "", value)
    value = value.partition("?")[0] if "://" in value else value  # what a server is asked with may be a secret, too
    if os.path.isabs(value):
        relative = os.path.relpath(value)
        value = f"{OUTSIDE}/{Path(value).name}" if relative.startswith(os.pardir) else relative
    return option + equals + value
