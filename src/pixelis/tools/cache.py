"""Results by content: the same medium, arguments and versions are computed once. Bounded in memory, and on disk on request."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pixelis.core.ops import Args, Result
from pixelis.core.trajectory import RESULT

_ARGS = TypeAdapter(Args)

Entry = tuple[Result, dict[str, bytes]]


def cache_key(*, medium: str, op: str, engine: str, version: str, args: Args) -> str:
    """SHA-256 over everything a result depends on."""
    text = "\x1f".join([medium, op, engine, version]).encode() + b"\x1f" + _ARGS.dump_json(args)
    return hashlib.sha256(text).hexdigest()


class ResultCache:
    """A thread-safe least-recently-used cache of results with their blobs.

    Args:
        max_bytes: bound in memory; 0 keeps nothing.
        folder: also keep entries there, across runs; None does not.
        max_disk_bytes: bound of that folder.
    """

    def __init__(self, *, max_bytes: int = 128 << 20, folder: str | os.PathLike | None = None, max_disk_bytes: int = 2 << 30) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, tuple[Entry, int]] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()
        self._disk = _DiskCache(Path(folder), max_disk_bytes) if folder is not None else None
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
    """The entry; None when the bytes are not one, as after a crash of the machine."""
    try:
        line, _, rest = data.partition(b"\n")
        header = json.loads(line)
        blobs, start = {}, 0
        for name, length in header["blobs"]:
            blobs[name] = rest[start : start + length]
            if hashlib.sha256(blobs[name]).hexdigest() != name:
                return None
            start += length
        return RESULT.validate_python(RESULT.validate_json(json.dumps(header["result"]))), blobs
    except (ValueError, KeyError, TypeError, ValidationError):
        return None


class _DiskCache:
    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._num_bytes = sum(f.stat().st_size for f in folder.iterdir() if f.is_file())

    def get(self, key: str) -> Entry | None:
        path = self._folder / key
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return _unpack(data)

    def put(self, key: str, data: bytes) -> None:
        scratch = self._folder / f".{key}.{os.getpid()}.{threading.get_ident()}"
        with self._lock:
            try:
                scratch.write_bytes(data)
                os.replace(scratch, self._folder / key)
            except OSError:  # a full disk costs the cache, not the call
                scratch.unlink(missing_ok=True)
                return
            self._num_bytes += len(data)
            if self._num_bytes > self._max_bytes:
                self._evict()

    def _evict(self) -> None:
        """Drop the longest unused until three quarters of the bound remain."""
        files = sorted((f.stat().st_mtime_ns, f.stat().st_size, f) for f in self._folder.iterdir() if f.is_file())
        self._num_bytes = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._num_bytes <= self._max_bytes * 3 // 4:
                break
            path.unlink(missing_ok=True)
            self._num_bytes -= size
