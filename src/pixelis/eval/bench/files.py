"""Reading published benchmark files. What is missing says where to get it and where to put it; what is damaged says file and line."""

from __future__ import annotations

import base64
import binascii
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pixelis.core.errors import DataError, NotInstalled
from pixelis.eval.bench.base import Source

MAX_FIELD_CHARS = 1 << 28
"""Of a TSV; an image as base64 is far longer than the csv module's own limit."""
MAX_POINTER_CHARS = 64
"""An image field up to this long is the index of the row that holds the image."""


def missing(source: Source, folder: Path, what: str) -> DataError:
    """The error for files that are not there."""
    return DataError(f"{folder}: {what}. {how_to_get(source, folder, source.hub)}")


def how_to_get(source: Source, folder: Path, repo: str | None) -> str:
    """What to download, with the command, and where to put it; of a data set on the hub, or from `source.url` where there is none."""
    if repo is None:
        return f"Download {source.files} into {folder} (curl -fL --create-dirs -o {folder / source.patterns[0]} {source.url})"
    wanted = " ".join(f"--include '{pattern}'" for pattern in source.patterns)
    return (
        f"Download {source.files} of the hub data set {repo} (hf download {repo} --repo-type dataset {wanted} --local-dir {folder}) "
        f"and unpack its archives where they lie{f'. {source.terms}' if source.terms else ''}"
    )


def find(source: Source, folder: Path, *patterns: str) -> list[Path]:
    """Files under a folder, sorted, by the first pattern that finds any.

    Raises:
        DataError: the folder or every file is missing.
    """
    if not folder.is_dir():
        raise missing(source, folder, "is no folder")
    for pattern in patterns:
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
        if found:
            return found
    raise missing(source, folder, f"holds no {' or '.join(patterns)}")


def read_json(path: Path) -> Any:
    """Raises: DataError: not there, or not JSON; names the line."""
    try:
        return json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: is not JSON ({error.msg}): download the file again") from None


def read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file and line, object) of every line that is not blank.

    Raises:
        DataError: a line is no JSON object.
    """
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: is not JSON ({error.msg} at character {error.pos + 1}): download the file again") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: holds a {type(row).__name__}, not an object: download the file again")
        yield where, row


def read_tsv(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(file and line, columns) of every row.

    Raises:
        DataError: no header, or a row with another number of columns.
    """
    limit = csv.field_size_limit(MAX_FIELD_CHARS)  # the module has one limit for all
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t")
            head = next(reader, [])
            if not head:
                raise DataError(f"{path}: is empty: download the file again")
            for row in reader:
                if len(row) != len(head):
                    raise DataError(f"{path}:{reader.line_num}: {len(row)} columns, the header has {len(head)}: download the file again")
                yield f"{path}:{reader.line_num}", dict(zip(head, row, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as TSV ({error}): download the file again") from None
    finally:
        csv.field_size_limit(limit)


def read_parquet(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file and row from 1, wanted columns) of every row; columns that the file lacks are left out.

    Raises:
        DataError: the file is damaged.
        NotInstalled: pyarrow is missing.
    """
    file = _parquet(path)
    known = [name for name in columns if name in file.schema_arrow.names]
    number = 0
    for part in range(file.num_row_groups):
        for row in file.read_row_group(part, columns=known).to_pylist():
            number += 1
            yield f"{path}:{number}", row


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A table by its suffix: .jsonl or .parquet."""
    return read_jsonl(path) if path.suffix == ".jsonl" else read_parquet(path, columns)


def take(row: Mapping[str, Any], key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A value of a row.

    Raises:
        DataError: it is missing or of another type.
    """
    value = row.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        found = "is missing" if key not in row else f"is {type(value).__name__}"
        wanted = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise DataError(f"{where}: {key!r} {found}, wanted is {wanted}: is this the published file?")
    return value


def texts(row: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    """A list of texts; empty where the value is missing or null.

    Raises:
        DataError: it holds something else.
    """
    value = row.get(key)
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) for text in value):
        raise DataError(f"{where}: {key!r} is no list of texts: is this the published file?")
    return tuple(value)


# ---------------------------------------------------------------- images inside tables


def table_image(path: Path, key: str) -> bytes:
    """The image file in a row of a TSV (key: its index) or a parquet file (key: its row number from 0).

    Raises:
        DataError: there is no such row, or no image in it.
    """
    if path.suffix == ".tsv":
        text = _tsv_images(path).get(key)
        if text is None:
            raise DataError(f"{path}: no image for index {key}: download the file again")
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise DataError(f"{path}: the image of index {key} is no base64 ({error}): download the file again") from None
    return _parquet_image(path, int(key))


def tsv_image_key(image: str, index: str) -> str:
    """The index of the row that holds a row's image: its own, or the one it points to."""
    return image.strip() if 0 < len(image.strip()) <= MAX_POINTER_CHARS and image.strip().isdecimal() else index


@lru_cache(maxsize=1)
def _tsv_images(path: Path) -> dict[str, str]:
    rows = ((row["index"], row["image"]) for _, row in read_tsv(path) if "image" in row and "index" in row)
    return {index: image for index, image in rows if tsv_image_key(image, index) == index}


def _parquet_image(path: Path, row: int) -> bytes:
    file = _parquet(path)
    first = 0
    for part in range(file.num_row_groups):
        count = file.metadata.row_group(part).num_rows
        if first <= row < first + count:
            cell = _image_column(path, part)[row - first]
            data = cell.get("bytes") if isinstance(cell, dict) else None
            if not data:
                raise DataError(f"{path}: row {row} holds no image: download the file again")
            return data
        first += count
    raise DataError(f"{path}: there is no row {row}, the file has {first}: download the file again")


@lru_cache(maxsize=1)
def _image_column(path: Path, part: int) -> list[Any]:
    """The images of one row group: neighbours are asked for one after another."""
    file = _parquet(path)
    if "image" not in file.schema_arrow.names:
        raise DataError(f"{path}: has no column image: is this the published file?")
    return file.read_row_group(part, columns=["image"]).column("image").to_pylist()


def _parquet(path: Path) -> Any:
    try:
        import pyarrow.parquet as parquet
        from pyarrow.lib import ArrowException
    except ImportError:
        raise NotInstalled("pyarrow, which reads parquet files,", "pip install pyarrow") from None
    try:
        return parquet.ParquetFile(path)
    except (OSError, ArrowException) as error:
        raise DataError(f"{path}: cannot be read as parquet ({str(error)[:200]}): download the file again") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}): download the file again") from None
