"""Run folders: the only reader and writer of trajectories and blobs.

`run.json` (what the run is), `trajectories.jsonl` (one record a line, append-only), `timings.jsonl`, `blobs/<sha256>`
(crops and media, named by their content). A record is acknowledged when `append` returns: its blobs and its line are on
the disk by then, so a kill at any byte loses nothing that was acknowledged, and the reader says what was cut.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelis.core.errors import DataError
from pixelis.core.trajectory import Timing, Trajectory, dump_timing, dump_trajectory, load_timing, load_trajectory

RUN_FILE, TRAJECTORIES_FILE, TIMINGS_FILE, BLOBS_DIR = "run.json", "trajectories.jsonl", "timings.jsonl", "blobs"
_HEAD = b'{"sha256":"'
_MIDDLE = b'","trajectory":'


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ---------------------------------------------------------------- writing


class RunWriter:
    """Appends to one run folder; at most one writer at a time.

    Args:
        folder: made if absent.
        info: facts of the whole run for `run.json`: resolved config, seeds, versions.
        resume: continue a folder that already holds a run; its torn tail, if any, is moved to `torn-<offset>.bin`.

    Raises:
        DataError: the folder holds a run and `resume` is False, another writer has it open, or it cannot be written.
    """

    def __init__(self, folder: str | os.PathLike, info: Mapping[str, Any], *, resume: bool = False) -> None:
        self.folder = Path(folder)
        path = self.folder / TRAJECTORIES_FILE
        try:
            (self.folder / BLOBS_DIR).mkdir(parents=True, exist_ok=True)
            if (self.folder / RUN_FILE).exists() and not resume:
                raise DataError(f"{self.folder} already holds a run: choose another folder, or resume it")
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise DataError(f"{self.folder}: cannot write a run there ({error.strerror}): choose another folder") from None
        try:
            if not lock(self._file, self.folder):
                raise DataError(f"{self.folder}: another process is writing this run; wait for it, or choose another folder")
        except DataError:
            os.close(self._file)
            raise
        self._set_tail_aside()
        if not (self.folder / RUN_FILE).exists():
            write_whole(self.folder / RUN_FILE, (json.dumps(dict(info), indent=1, sort_keys=True) + "\n").encode())
        sync_folder(self.folder)

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def put_blob(self, data: bytes) -> str:
        """Store bytes under their SHA-256 and return it; on the disk when this returns."""
        name = sha256(data)
        path = self.folder / BLOBS_DIR / name
        if not path.exists():
            write_whole(path, data)
        return name

    def append(self, trajectory: Trajectory, *, blobs: Mapping[str, bytes] = {}, timing: Timing | None = None) -> None:
        """Add one trajectory with its blobs; acknowledged when this returns.

        Raises:
            DataError: a blob's name is not its SHA-256, or the disk is full; nothing of the record is then visible.
        """
        for name, data in blobs.items():
            if sha256(data) != name:
                raise DataError(f"blob {name[:12]} has the content of {sha256(data)[:12]}")
        try:
            for data in blobs.values():
                self.put_blob(data)
            body = dump_trajectory(trajectory)
            _append(self._file, _HEAD + sha256(body).encode() + _MIDDLE + body + b"}\n")
            if timing is not None:
                with open(self.folder / TIMINGS_FILE, "ab") as file:
                    file.write(dump_timing(timing) + b"\n")
        except OSError as error:
            raise DataError(f"{self.folder}: cannot write ({error.strerror}); what was acknowledged before is safe") from None

    def _set_tail_aside(self) -> None:
        """Cut an unfinished last line, keeping its bytes in a file of their own: evidence is never thrown away."""
        path = self.folder / TRAJECTORIES_FILE
        end = _acknowledged_bytes(path)
        size = os.fstat(self._file).st_size
        if end == size:
            return
        with open(path, "rb") as file:
            file.seek(end)
            write_whole(self.folder / f"torn-{end}.bin", file.read())
        os.ftruncate(self._file, end)
        os.fsync(self._file)


def _append(file: int, data: bytes) -> None:
    """Write all of `data` at the end and reach the disk, or leave the file as it was."""
    start = os.fstat(file).st_size
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(file, view) :]
        os.fsync(file)
    except OSError:
        os.ftruncate(file, start)
        raise


def _acknowledged_bytes(path: Path) -> int:
    """Where the last complete line ends."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        end = size
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """No other process works in a folder meanwhile: two would write over each other. The lock goes with the process that holds it, however
    that ends.

    Raises:
        DataError: another process is at work there.
    """
    with (folder / ".lock").open("w") as file:
        if not lock(file.fileno(), folder):
            raise DataError(f"{folder}: another process is at work in it; wait for it, or choose another folder")
        yield


def lock(handle: int, where: object) -> bool:
    """Lock an open file for this process, until it is closed; False where another process holds it.

    Raises:
        DataError: the file system there knows no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise DataError(f"{where}: cannot be locked ({error.strerror}): choose a folder on another file system") from None
    return True


def write_whole(path: Path, data: bytes) -> None:
    """A file that is there whole or not at all, also after a crash.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(scratch, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ---------------------------------------------------------------- reading


@dataclass(frozen=True)
class Run:
    """A run folder, read-only."""

    folder: Path
    info: dict[str, Any]
    num_cut_bytes: int
    """Bytes of an unfinished last record, which was never acknowledged; 0 when the file ends cleanly."""

    def trajectories(self) -> Iterator[Trajectory]:
        """Every acknowledged trajectory in order.

        Raises:
            DataError: a complete record is damaged; names file and line.
        """
        path = self.folder / TRAJECTORIES_FILE
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield _parse_line(line, where=f"{path}:{number}")

    def timings(self) -> dict[str, Timing]:
        """Timings by trajectory id; an unfinished last line is passed over.

        Raises:
            DataError: a complete line is damaged; names file and line.
        """
        path = self.folder / TIMINGS_FILE
        if not path.exists():
            return {}
        lines = path.read_bytes().split(b"\n")[:-1]
        timings = (load_timing(line, where=f"{path}:{number}") for number, line in enumerate(lines, 1))
        return {timing.id: timing for timing in timings}

    def blob_path(self, name: str) -> Path:
        return self.folder / BLOBS_DIR / name

    def blob(self, name: str) -> bytes:
        """The bytes with that SHA-256.

        Raises:
            DataError: the blob is missing, or its content has changed.
        """
        try:
            data = self.blob_path(name).read_bytes()
        except OSError as error:
            raise DataError(f"blob {name} is missing from {self.folder / BLOBS_DIR} ({error.strerror})") from None
        if sha256(data) != name:
            raise DataError(f"blob {name} in {self.folder / BLOBS_DIR} has changed: its content now has SHA-256 {sha256(data)}")
        return data


def open_run(folder: str | os.PathLike) -> Run:
    """Open a run folder for reading.

    Raises:
        DataError: it is no run folder.
    """
    folder = Path(folder)
    try:
        info = json.loads((folder / RUN_FILE).read_bytes())
        path = folder / TRAJECTORIES_FILE
        num_cut = path.stat().st_size - _acknowledged_bytes(path)
    except OSError as error:
        raise DataError(f"{folder} is no run folder: {Path(error.filename).name}: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{folder / RUN_FILE} is not JSON: {error}") from None
    return Run(folder, info, num_cut)


def _parse_line(line: bytes, *, where: str) -> Trajectory:
    start = len(_HEAD) + 64 + len(_MIDDLE)
    if not (line.startswith(_HEAD) and line[start - len(_MIDDLE) : start] == _MIDDLE and line.endswith(b"}\n")):
        raise DataError(f"{where}: this line is no trajectory record; restore the file from a copy, or remove the line")
    body, written = line[start:-2], line[len(_HEAD) : len(_HEAD) + 64].decode("ascii", "replace")
    if sha256(body) != written:
        raise DataError(f"{where}: the record has changed since it was written (SHA-256 {sha256(body)[:12]}, written {written[:12]})")
    return load_trajectory(body, where=where)
