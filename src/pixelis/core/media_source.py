"""Where a medium's bytes come from: a regular file held open, or memory; read from many places at once, hashed in a stream."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import re
import stat
import weakref
from pathlib import Path
from typing import BinaryIO

from pixelis.core.errors import DataError

MAX_SOURCE_BYTES = 16 << 30
"""Hashing more than this would look like a hang; 40 minutes at 50 Mbit/s are 15 GB."""

TIFF_WORDS = "a TIFF image with a damaged or cut header, or of a kind that is not read: save it as PNG, or with 8 or 16 bits"
BMP_WORDS = "a BMP image of an unusual kind or with a damaged or cut header: save it as PNG"

MAGIC = (
    (0, b"\x89PNG", "a PNG image with a damaged or cut header"),
    (0, b"\xff\xd8", "a JPEG image with a damaged or cut header"),
    (0, b"GIF8", "a GIF image with a damaged or cut header"),
    (4, b"ftyp", "an MP4 or MOV file with its index (moov) missing or damaged: cut, or still being written"),
    (0, b"\x1aE\xdf\xa3", "a WebM or Matroska file with a damaged or cut header"),
    (8, b"WEBP", "a WebP image with a damaged or cut header"),
    (8, b"AVI ", "an AVI file with a damaged or cut header"),
    *((0, mark, TIFF_WORDS) for mark in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (0, b"%PDF", "a PDF document: export its pages as PNG"),
    (0, b"PK\x03\x04", "a zip archive: unpack it first"),
    (0, b"\x1f\x8b", "a gzip archive: unpack it first"),
    (0, b"\x7fELF", "a program"),
    (0, b"#EXTM3U", "a playlist, which only names other files"),
    (0, b"ffconcat", "a playlist, which only names other files"),
)
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


class Source:
    """Bytes that several readers read at their own positions.

    Args:
        name: what error texts call it.
        data: the bytes, or None when `fd` holds them.
        fd: an open regular file, which this object owns.
        size: number of bytes.
    """

    def __init__(self, name: str, *, data: bytes | None = None, fd: int | None = None, size: int) -> None:
        self.name, self.size = name, size
        self._data, self._fd = data, fd
        self._finalizer = weakref.finalize(self, os.close, fd) if fd is not None else None

    def open(self) -> BinaryIO:
        """A new reader that starts at byte 0."""
        return io.BytesIO(self._data) if self._data is not None else io.BufferedReader(_Window(self), 1 << 16)

    def read_at(self, position: int, count: int) -> bytes:
        if self._finalizer is not None and not self._finalizer.alive:
            raise ValueError(f"{self.name} is closed")  # its descriptor may by now be another file's
        return os.pread(self._fd, count, position)

    def sha256(self) -> str:
        digest = hashlib.sha256()
        with self.open() as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def close(self) -> None:
        if self._finalizer is not None:
            self._finalizer()


class _Window(io.RawIOBase):
    """A file position of its own over a shared descriptor: two decoders of one medium must not move each other."""

    def __init__(self, source: Source) -> None:
        self._source, self._position = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self._source.read_at(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            raise OSError("seek before the start")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position


def open_source(source: object, name: str | None) -> tuple[Source, Path | None]:
    """Check where the bytes come from, without ever waiting for them.

    Args:
        source: path, bytes, or `data:` string.
        name: what to call it; derived from the source unless given.
    Returns:
        The bytes, and the path when there is one.
    Raises:
        DataError: it is no readable, regular, non-empty file of an acceptable size.
    """
    if isinstance(source, str) and source[:5].lower() == "data:":
        return _memory(_data_url(source, name), name), None
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _memory(bytes(source), name), None
    if not isinstance(source, (str, os.PathLike)):
        raise DataError(f"a medium is a path, bytes or a data: string, not {type(source).__name__}")
    text = os.fspath(source)
    text = os.fsdecode(text) if isinstance(text, bytes) else text
    label = _printable(name or os.path.basename(text.rstrip("/")) or text)
    if not text:
        raise DataError("the path of the medium is empty. Give a file.")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise DataError(f"{_printable(text)}: is an address, not a file. Download it first and give the path.")
    try:
        return _file(text, label), Path(text)
    except ValueError as error:  # an embedded NUL, a surrogate that no file name can hold
        raise DataError(f"{label}: no file can have this name: {error}. Give another path.") from error
    except OSError as error:
        raise DataError(f"{label}: cannot be opened: {error.strerror or error}. Check the path {_printable(text)}.") from error


def what_it_is(source: Source) -> str:
    """A guess in words at a source that nothing could decode."""
    with source.open() as file:
        head = file.read(512)
    if head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS:
        return "a HEIC image, which is not supported. Convert it to PNG or JPEG"
    for offset, magic, words in MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return f"{source.size} bytes that look like {words}"
    if head[:2] == b"BM" and head[6:10] == bytes(4):  # two letters alone begin many a text
        return f"{source.size} bytes that look like {BMP_WORDS}"
    if not any(head):
        return f"neither an image nor a video: its {source.size} bytes start with zeros"
    is_text = all(byte >= 32 or byte in b"\t\r\n" for byte in head)
    start = "are text" if is_text else "start with " + head[:8].hex(" ")
    return f"neither an image nor a video: its {source.size} bytes {start}"


def _memory(data: bytes, name: str | None) -> Source:
    name = _printable(name or f"<{len(data)} bytes>")
    if not data:
        raise DataError(f"{name}: is empty, 0 bytes. Give the whole file.")
    return Source(name, data=data, size=len(data))


def _file(path: str, name: str) -> Source:
    _refuse_special(os.stat(path), name)  # before opening: merely opening some devices does something
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        facts = os.fstat(fd)
        _refuse_special(facts, name)  # again: the name may have come to mean a pipe in between
        if not facts.st_size:
            raise DataError(f"{name}: is empty, 0 bytes. Give the whole file.")
        if facts.st_size > MAX_SOURCE_BYTES:
            raise DataError(f"{name}: {facts.st_size} bytes are more than the {MAX_SOURCE_BYTES} that are read. Cut or re-encode it.")
        return Source(name, fd=fd, size=facts.st_size)
    except BaseException:
        os.close(fd)
        raise


def _refuse_special(facts: os.stat_result, name: str) -> None:
    if stat.S_ISDIR(facts.st_mode):
        raise DataError(f"{name}: is a folder. Give one image or video file in it.")
    if not stat.S_ISREG(facts.st_mode):
        raise DataError(f"{name}: is a pipe, device or socket, not a regular file. Save its data to a file first.")


def _data_url(text: str, name: str | None) -> bytes:
    label = _printable(name or "data: string")
    header, comma, body = text.partition(",")
    if not comma or not header.lower().endswith(";base64"):
        raise DataError(f"{label}: must read data:<type>;base64,<data>, but starts with {_printable(text[:40])!r}")
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{label}: its base64 is broken after {len(body)} characters: {error}. Encode the file again.") from error


def _printable(text: str) -> str:
    """A name that every terminal and JSON file takes: cut, without control characters and lone surrogates."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text[:400])
    return text if len(text) <= 120 else text[:80] + "..." + text[-37:]
