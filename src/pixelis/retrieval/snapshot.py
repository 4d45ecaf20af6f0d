"""A trained index on the disk: `index-<num>.faiss` and `index.json`, which names it; replaced in an order that a crash cannot spoil."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from pixelis.core.errors import DataError
from pixelis.core.store import write_whole
from pixelis.retrieval.files import row_name
from pixelis.retrieval.index import Approximate, IndexSettings

POINTER_FILE = "index.json"
_TRIES = 5


def save_snapshot(folder: Path, index: Approximate, rows_NK: np.ndarray, settings: IndexSettings) -> None:
    """Write the index under a new name, then point to it, then remove older ones.

    Raises:
        DataError: the disk cannot be written; the older snapshot stays in force.
    """
    num = len(index)
    name = f"index-{num:012d}.faiss"
    scratch = folder / f".{name}.{os.getpid()}.part"
    try:
        index.save(scratch)
        digest = _file_sha256(scratch)
        name = f"index-{num:012d}-{digest[:12]}.faiss"
        with open(scratch, "rb") as file:
            os.fsync(file.fileno())
        os.replace(scratch, folder / name)
        facts = {"file": name, "num": num, "kind": settings.kind, "sha256": digest, "last_key": row_name(rows_NK[num - 1]) if num else ""}
        write_whole(folder / POINTER_FILE, (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode())
    except (OSError, RuntimeError) as error:
        scratch.unlink(missing_ok=True)
        raise DataError(f"{folder}: cannot save the index ({error}); nothing is lost, opening takes longer: make room") from None
    for old in folder.glob("index-*.faiss"):
        if old.name != name:
            old.unlink(missing_ok=True)


def load_snapshot(folder: Path, rows_NK: np.ndarray, settings: IndexSettings) -> tuple[Approximate | None, list[str]]:
    """The index of all these keys, caught up from the rows where it is behind, and notes; None without a usable one.

    Raises:
        NotInstalled: there is an index, and faiss is missing.
    """
    for _ in range(_TRIES):
        try:
            facts = json.loads((folder / POINTER_FILE).read_bytes())
        except FileNotFoundError:
            return None, []
        except ValueError:
            return None, [f"{POINTER_FILE} is not JSON: the exact scan is used; train the index again"]
        try:
            if _file_sha256(folder / facts["file"]) != facts["sha256"]:
                return None, [f"{facts['file']} has changed since it was written: the exact scan is used; train the index again"]
            if facts["kind"] != settings.kind:
                return None, [f"{facts['file']} is of kind {facts['kind']}, not {settings.kind}: the exact scan is used"]
            index = Approximate.load(folder / facts["file"], settings)
        except FileNotFoundError:
            continue  # a writer replaced it in between
        if index.dim != rows_NK.shape[1]:
            return None, [f"{facts['file']} is for keys of width {index.dim}, not {rows_NK.shape[1]}: the exact scan is used"]
        return index, _agree(index, rows_NK, facts)
    return None, [f"{POINTER_FILE} names a file that is not there: the exact scan is used; train the index again"]


def clear_scratch(folder: Path) -> None:
    """Remove what a writer that died had not finished."""
    for path in folder.glob(".*.part"):
        path.unlink(missing_ok=True)


def _agree(index: Approximate, rows_NK: np.ndarray, facts: dict) -> list[str]:
    """Make the index hold exactly these rows."""
    num, notes = len(index), []
    if num != facts["num"] or num > len(rows_NK) or (num and row_name(rows_NK[num - 1]) != facts["last_key"]):
        index.empty()
        notes.append(f"the index held {num} keys that are not those of the memory: all {len(rows_NK)} were added afresh")
    elif num < len(rows_NK):
        notes.append(f"the index was {len(rows_NK) - num} items behind and was caught up")
    index.add(rows_NK[len(index) :])
    return notes


def _file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
