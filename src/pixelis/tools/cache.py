"""Results by content: the same medium, arguments and versions are computed once. Bounded in memory, and on disk on request."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pixelis.core.errors import ConfigError
from pixelis.core.ops import Args, Result
from pixelis.core.trajectory import RESULT
from pixelis.tools.settings import ToolSettings

_ARGS = TypeAdapter(Args)

_ENTRY_NAME = re.compile(r"[0-9a-f]{64}|\.[0-9a-f]{64}\.\d+\.\d+")

Entry = tuple[Result, dict[str, bytes]]


def cache_key(*, medium: str, op: str, engine: str, version: str, args: Args) -> str:
    """SHA-256 over everything a result depends on."""
    text = "\x1f".join([medium, op, engine, version]).encode() + b"\x1f" + _ARGS.dump_json(args)
    return hashlib.sha256(text).hexdigest()


def cache_for(settings: ToolSettings) -> ResultCache:
    """The cache that the settings ask for.

    Raises:
        ConfigError: their folder cannot be used.
    """
    return ResultCache(folder=settings.cache_folder or None, max_disk_bytes=settings.cache_max_bytes)


class ResultCache:
    """A thread-safe least-recently-used cache of results with their blobs.

    Args:
        max_bytes: bound in memory; 0 keeps nothing.
        folder: also keep entries there, across runs; None does not.
        max_disk_bytes: bound of that folder. Each of several processes counts what was there when it began and what it wrote itself.
    Raises:
        ConfigError: the folder cannot be made or read.
    """

    def __init__(self, *, max_bytes: int = 128 << 20, folder: str | os.PathLike | None = None, max_disk_bytes: int = 2 << 30) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, tuple[Entry, int]] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()
        self._disk = _DiskCache(Path(folder).expanduser(), max_disk_bytes) if folder is not None else None
        self.num_hits = 0
        self.num_misses = 0

    def get(self, key: str) -> Entry | None:
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
                self.num_hits += 1
                return found[0]
        entry = self._disk.get(key) if self._disk else None
        with self._lock:
            self.num_hits += entry is not None
            self.num_misses += entry is None
        if entry is not None:
            self._remember(key, entry, len(_pack(entry)))
        return entry

    def put(self, key: str, entry: Entry) -> None:
        data = _pack(entry)
        self._remember(key, entry, len(data))
        if self._disk:
            self._disk.put(key, data)

    def _remember(self, key: str, entry: Entry, num_bytes: int) -> None:
        if num_bytes > self._max_bytes:
            return
        with self._lock:
            if key in self._entries:
                self._num_bytes -= self._entries.pop(key)[1]
            self._entries[key] = (entry, num_bytes)
            self._num_bytes += num_bytes
            while self._num_bytes > self._max_bytes:
                _, (_, freed) = self._entries.popitem(last=False)
                self._num_bytes -= freed


def _pack(entry: Entry) -> bytes:
    """A header line (result, blob names and lengths), then the blobs one after another."""
    result, blobs = entry
    header = {"result": json.loads(RESULT.dump_json(result)), "blobs": [[name, len(data)] for name, data in blobs.items()]}
    return json.dumps(header, ensure_ascii=True).encode() + b"\n" + b"".join(blobs.values())


def _unpack(data: bytes) -> Entry | None:
    """The entry; None when the bytes are not one, as after an update of Pixelis."""
    try:
        line, _, rest = data.partition(b"\n")
        header = json.loads(line)
        blobs, start = {}, 0
        for name, length in header["blobs"]:
            blobs[name] = rest[start : start + length]
            start += length
        return RESULT.validate_json(json.dumps(header["result"])), blobs
    except (ValueError, KeyError, TypeError, ValidationError):
        return None


def _seal(key: str, data: bytes) -> bytes:
    """SHA-256 in hex over an entry and the name it goes by."""
    return hashlib.sha256(key.encode() + b"\n" + data).hexdigest().encode()


class _DiskCache:
    """Files named by their keys: a line with the seal, then the packed entry. Nothing else in the folder is counted or removed."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._num_bytes = sum(size for _, size, _ in self._files())
        except OSError as error:
            raise ConfigError(f"results cannot be kept in {folder}: {error.strerror or error}. Name another cache_folder.") from None

    def get(self, key: str) -> Entry | None:
        """The entry; None when there is none, or not as it was written."""
        path = self._folder / key
        try:
            seal, _, data = path.read_bytes().partition(b"\n")
        except OSError:
            return None
        with contextlib.suppress(OSError):  # a folder of somebody else's
            os.utime(path)
        return _unpack(data) if seal == _seal(key, data) else None

    def put(self, key: str, data: bytes) -> None:
        data = _seal(key, data) + b"\n" + data
        if len(data) > self._max_bytes:
            return
        scratch = self._folder / f".{key}.{os.getpid()}.{threading.get_ident()}"
        with self._lock:
            try:
                if self._num_bytes + len(data) > self._max_bytes:
                    self._make_room(len(data))
                scratch.write_bytes(data)
                os.replace(scratch, self._folder / key)
            except OSError:  # a full disk costs the cache, not the call
                with contextlib.suppress(OSError):
                    scratch.unlink(missing_ok=True)
                return
            self._num_bytes += len(data)

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """When last used, size and path of every entry, and of what a killed process left of one."""
        for entry in os.scandir(self._folder):
            with contextlib.suppress(OSError):  # another process may have removed it
                if _ENTRY_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    facts = entry.stat(follow_symlinks=False)
                    yield facts.st_mtime_ns, facts.st_size, Path(entry.path)

    def _make_room(self, num_bytes: int) -> None:
        """Drop the longest unused until, with so many bytes more, at most three quarters of the bound are taken."""
        files = sorted(self._files())
        self._num_bytes = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._num_bytes + num_bytes <= self._max_bytes * 3 // 4:
                break
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
                self._num_bytes -= size
