"""The files of a memory: `memory.json` (what its keys are), `keys.f16` (one row an item), `entries.jsonl` (one sealed line an item).

An item exists once its line is complete; its row is on the disk before the line is written. So whatever moment a writer dies at, the
complete lines are the memory: what was acknowledged and perhaps a few more, each whole. Shapes: N items, K the width of a key.
"""

from __future__ import annotations

import json
import os
import threading
from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pixelis.core.errors import DataError
from pixelis.core.store import lock, sync_folder, write_whole
from pixelis.retrieval.entry import Entry, entry_of
from pixelis.retrieval.files import KEY_TYPE, Names, line_ends, map_rows, row_name, unseal, write_all
from pixelis.retrieval.keys import KeySpec

SPEC_FILE, KEYS_FILE, ENTRIES_FILE = "memory.json", "keys.f16", "entries.jsonl"
SCHEMA = 1
NUM_TAIL_CHECKED = 64


class EntryStore:
    """Entries and their keys in order; one writer, any number of readers in other threads and processes.

    Args:
        folder: with its `memory.json`.
        sync: brings a written file to the disk.
        is_writer: take the lock, and cut what was never acknowledged.

    Raises:
        DataError: another writer has it open, it cannot be written, or it is damaged.
    """

    def __init__(self, folder: Path, *, sync: Callable[[int], None] = os.fsync, is_writer: bool) -> None:
        self.folder, self.spec, self.notes = folder, read_spec(folder), ()
        self._keys_path, self._entries_path = folder / KEYS_FILE, folder / ENTRIES_FILE
        self._sync, self._entries_fd, self._keys_fd = sync, -1, -1
        self._rows_NK = np.zeros((0, self.spec.dim), KEY_TYPE)
        self._mapping, self._names, self._ends = threading.Lock(), Names(), array("q")
        if is_writer:
            self._open_files()
        try:
            self.refresh()
            if is_writer:
                self._cut_tails()
                for position, entry in enumerate(self.entries()):
                    self._names.add(entry.id, position)
            self._check_rows(max(0, len(self) - NUM_TAIL_CHECKED))
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def is_writer(self) -> bool:
        return self._entries_fd >= 0

    # ------------------------------------------------------------ reading

    def refresh(self) -> int:
        """Take in lines that became complete since; how many."""
        before = len(self._ends)
        if self._entries_path.exists():
            self._ends = line_ends(self._entries_path, array("q", self._ends))
        return len(self._ends) - before

    def rows(self) -> np.ndarray:
        """All keys as stored, float16 [N, K], memory-mapped; the map is renewed when the store has grown."""
        with self._mapping:
            if len(self._rows_NK) < len(self._ends):
                self._rows_NK = map_rows(self._keys_path, len(self._ends), self.spec.dim)
            return self._rows_NK

    def line(self, position: int) -> bytes:
        """Raises: DataError: there is no such item."""
        ends = self._ends
        if not 0 <= position < len(ends):
            raise DataError(f"{self.folder}: no item {position}; it holds {len(ends)}")
        start = ends[position - 1] if position else 0
        with open(self._entries_path, "rb") as file:
            return os.pread(file.fileno(), ends[position] - start, start)

    def entry(self, position: int) -> Entry:
        """Raises: DataError: there is no such item, or its line was changed after it was written."""
        return entry_of(unseal(self.line(position), where=f"{self._entries_path}:{position + 1}"))

    def entries(self) -> Iterator[Entry]:
        """All entries in order, read once from start to end."""
        return (entry_of(plain) for plain in self._lines(0))

    def find(self, name: str) -> int | None:
        """Where the entry of that id stands; only a writer knows."""
        return next((at for at in self._names.candidates(name) if self.entry(at).id == name), None)

    def verify(self) -> None:
        """Read everything and compare.

        Raises:
            DataError: a line or a row was changed after it was written; names file and number.
        """
        self._check_rows(0)

    # ------------------------------------------------------------ writing

    def append(self, lines: list[bytes], rows_NK: np.ndarray) -> None:
        """Add items; on the disk when this returns. They are not counted before `admit`.

        Raises:
            DataError: the disk cannot be written; the store is then closed.
        """
        try:
            write_all(self._keys_fd, rows_NK.tobytes())
            self._sync(self._keys_fd)  # before the first line: a complete line always has its row
            write_all(self._entries_fd, b"".join(lines))
            self._sync(self._entries_fd)
        except OSError as error:
            self.close()  # a reader may have seen complete lines, so nothing is taken back: opening again sorts it out
            raise DataError(
                f"{self.folder}: cannot write ({error.strerror}); what was acknowledged before is safe: make room, then open it again"
            ) from None

    def admit(self, lines: list[bytes], names: list[str]) -> None:
        """Count appended items."""
        for line, name in zip(lines, names, strict=True):
            self._names.add(name, len(self._ends))
            self._ends.append((self._ends[-1] if self._ends else 0) + len(line))

    def close(self) -> None:
        """Let another writer in; reading goes on."""
        for file in (self._entries_fd, self._keys_fd):
            if file >= 0:
                os.close(file)
        self._entries_fd = self._keys_fd = -1

    # ------------------------------------------------------------ inside

    def _lines(self, first: int) -> Iterator[dict]:
        num = len(self._ends)
        if num <= first:
            return
        with open(self._entries_path, "rb") as file:
            file.seek(self._ends[first - 1] if first else 0)
            for position in range(first, num):
                yield unseal(file.readline(), where=f"{self._entries_path}:{position + 1}")

    def _check_rows(self, first: int) -> None:
        rows_NK = self.rows()
        for position, plain in enumerate(self._lines(first), first):
            if row_name(rows_NK[position]) != plain["key"]:
                raise DataError(f"{self._keys_path}: key {position} is not the one that was stored; restore the file from a copy")

    def _open_files(self) -> None:
        is_new = not all(path.exists() and path.stat().st_size for path in (self._entries_path, self._keys_path))
        try:
            self._entries_fd = os.open(self._entries_path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            if not lock(self._entries_fd, self.folder):
                raise DataError(f"{self.folder}: another process adds to this memory; wait for it, or open it for reading")
            self._keys_fd = os.open(self._keys_path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            if is_new:
                sync_folder(self.folder)
        except DataError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise DataError(f"{self.folder}: cannot be written ({error.strerror}): open it for reading, or check its permissions") from None

    def _cut_tails(self) -> None:
        """Cut an unfinished line, and rows without a line."""
        for file, name, end in (
            (self._entries_fd, ENTRIES_FILE, self._ends[-1] if self._ends else 0),
            (self._keys_fd, KEYS_FILE, len(self._ends) * self.spec.dim * KEY_TYPE.itemsize),
        ):
            extra = os.fstat(file).st_size - end
            if extra > 0:
                os.ftruncate(file, end)
                self._sync(file)
                self.notes = (*self.notes, f"{name}: cut {extra} bytes of an item that was never acknowledged")


def make_folder(folder: Path, spec: KeySpec | None) -> None:
    """A folder with its `memory.json`, if it is not there.

    Raises:
        DataError: it cannot be made, holds no memory and no spec is given, or was made for other keys.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / SPEC_FILE).exists():
            if spec is None:
                raise DataError(f"{folder} holds no memory: say what its keys are to make one")
            facts = {"schema": SCHEMA, "key_type": "float16", **asdict(spec)}
            write_whole(folder / SPEC_FILE, (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode())
    except OSError as error:
        raise DataError(f"{folder}: cannot hold a memory ({error.strerror}): choose another folder") from None
    there = read_spec(folder)
    if spec is not None and spec != there:
        raise DataError(f"{folder} was made for keys {there}, not {spec}: choose another folder")


def read_spec(folder: Path) -> KeySpec:
    """Raises: DataError: the folder holds no memory, or one of another schema."""
    try:
        facts = json.loads((folder / SPEC_FILE).read_bytes())
        if facts.pop("schema") != SCHEMA or facts.pop("key_type") != "float16":
            raise DataError(f"{folder / SPEC_FILE} is of another schema; this version of Pixelis reads schema {SCHEMA} with float16 keys")
        return KeySpec(**facts)
    except OSError as error:
        raise DataError(f"{folder} is no memory: {SPEC_FILE}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / SPEC_FILE} does not describe a memory: {error}") from None
