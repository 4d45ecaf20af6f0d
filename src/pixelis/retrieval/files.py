"""The two append-only files of a memory: rows of float16 and sealed lines; what is whole in them, and where a torn tail begins.

Shapes: N items, K the width of a key.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from pixelis.core.errors import DataError
from pixelis.core.store import sha256

KEY_TYPE = np.dtype("<f2")
"""Half precision moves a similarity by 1e-4 at most and halves the disk; what that costs in recall is in docs/results/retrieval.md."""
_HEAD, _MIDDLE = b'{"sha256":"', b'","item":'
_BLOCK_BYTES = 1 << 20


def write_all(file: int, data: bytes) -> None:
    """Write at the end, whatever the number of calls it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def map_rows(path: Path, num: int, dim: int) -> np.ndarray:
    """The first `num` rows as they lie on disk, float16 [num, dim]; memory-mapped, so that only what is touched is read.

    Raises:
        DataError: the file holds fewer rows.
    """
    if num == 0:
        return np.zeros((0, dim), KEY_TYPE)
    size = path.stat().st_size
    if size < num * dim * KEY_TYPE.itemsize:
        raise DataError(f"{path} ends after {size // (dim * KEY_TYPE.itemsize)} of {num} keys: it was cut; restore it from a copy")
    return np.memmap(path, KEY_TYPE, "r", shape=(num, dim))


def widened(rows_NK: np.ndarray) -> np.ndarray:
    """Finite float16 as float32, exactly: four times as fast as numpy's own conversion where that is not vectorised."""
    bits_NK = np.ascontiguousarray(rows_NK).view(np.uint16).astype(np.uint32)
    shifted_NK = ((bits_NK & 0x8000) << 16) | ((bits_NK & 0x7FFF) << 13)  # sign; exponent and mantissa, the exponent 112 too low
    return shifted_NK.view(np.float32) * np.float32(2.0**112)


def row_name(row_K: np.ndarray) -> str:
    """What ties a stored line to its row: the first half of the SHA-256 of the row's bytes."""
    return hashlib.sha256(np.ascontiguousarray(row_K, KEY_TYPE).tobytes()).hexdigest()[:32]


def line_ends(path: Path, known: array | None = None) -> array:
    """Byte offsets behind each complete line, in order.

    Args:
        known: offsets found earlier, which are extended: the file only grows.
    """
    ends = array("q") if known is None else known
    position = ends[-1] if ends else 0
    with open(path, "rb") as file:
        file.seek(position)
        while block := file.read(_BLOCK_BYTES):
            newlines = np.flatnonzero(np.frombuffer(block, np.uint8) == 10) + (position + 1)
            ends.frombytes(newlines.astype(np.int64).tobytes())
            position += len(block)
    return ends


def seal(item: dict[str, Any]) -> bytes:
    """One line that carries the SHA-256 of its content.

    Raises:
        ValueError, TypeError: not JSON, NaN or infinity.
    """
    body = json.dumps(item, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    return _HEAD + sha256(body).encode() + _MIDDLE + body + b"}\n"


def unseal(line: bytes, *, where: str) -> dict[str, Any]:
    """Raises: DataError: the line is none of ours, or was changed after it was written."""
    start = len(_HEAD) + 64 + len(_MIDDLE)
    if not (line.startswith(_HEAD) and line[start - len(_MIDDLE) : start] == _MIDDLE and line.endswith(b"}\n")):
        raise DataError(f"{where}: this line is no item of a memory; restore the file from a copy")
    body, written = line[start:-2], line[len(_HEAD) : len(_HEAD) + 64].decode("ascii", "replace")
    if sha256(body) != written:
        raise DataError(f"{where}: the item has changed since it was written (SHA-256 {sha256(body)[:12]}, written {written[:12]})")
    return json.loads(body)


class Names:
    """At which positions an id may stand, by a 64-bit hash: 16 bytes an item instead of a dictionary of strings."""

    def __init__(self) -> None:
        self._hash_N, self._at_N = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        self._fresh: dict[int, list[int]] = {}

    def add(self, name: str, position: int) -> None:
        self._fresh.setdefault(_hash(name), []).append(position)
        if len(self._fresh) >= 65_536:
            self._merge()

    def candidates(self, name: str) -> list[int]:
        """Positions whose id has this hash: nearly always none or one."""
        key = np.uint64(_hash(name))
        low, high = np.searchsorted(self._hash_N, key), np.searchsorted(self._hash_N, key, side="right")
        return [*self._at_N[low:high].tolist(), *self._fresh.get(int(key), ())]

    def _merge(self) -> None:
        pairs = [(key, at) for key, places in self._fresh.items() for at in places]
        hashes = np.concatenate((self._hash_N, np.array([key for key, _ in pairs], np.uint64)))
        places = np.concatenate((self._at_N, np.array([at for _, at in pairs], np.int64)))
        order = np.argsort(hashes, kind="stable")
        self._hash_N, self._at_N, self._fresh = hashes[order], places[order], {}


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
