"""A split on disk: `world.json` (what it is), `items.jsonl` (one item a line) and `media/` beside it.

A killed run goes on where it stopped: a medium is written whole or not at all, an item's line follows its medium, and a line cut short
is dropped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pixelis.core.errors import DataError
from pixelis.data.world.item import Item, item_from_json, item_to_json
from pixelis.data.world.items import FAMILIES, make_item, render
from pixelis.data.world.shifts import Shift
from pixelis.data.world.words import check_split

VERSION = 2
"""Of the world: another version draws other pixels or asks other questions from the same seed."""


def make_split(
    folder: str | Path,
    split: str,
    num_items: int,
    *,
    seed: int = 0,
    shift: Shift | None = None,
    families: tuple[str, ...] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a split, or what is missing of it.

    Args:
        folder: new, empty, or one in which this very split was begun.
        num_items: items 0 to `num_items - 1`; more than before extends the split.
        families: only these, in turn; all when empty.
        progress: called with (items done, items wanted) after each item.

    Returns:
        the folder.

    Raises:
        DataError: unknown split or family, a number below 1, a folder that holds something else, or a damaged file in it.
    """
    folder = Path(folder)
    check_split(split)
    unknown = [name for name in families if name not in FAMILIES]
    if unknown or num_items < 1:
        raise DataError(
            f"nothing to make: {f'unknown families {unknown}' if unknown else f'{num_items} items'}; families are {', '.join(FAMILIES)}"
        )
    about = {"world": VERSION, "split": split, "seed": seed, "shift": str(shift) if shift else None, "families": list(families)}
    _claim(folder, about)
    names = families or tuple(FAMILIES)
    path = folder / "items.jsonl"
    done = _mend(path)
    with path.open("a", encoding="utf-8") as lines:
        for index in range(done, num_items):
            item = make_item(split, index, seed=seed, family=names[index % len(names)], shift=shift)
            data = render(item)
            _write(folder / "media" / item.medium_name, data)
            line = item_to_json(item) | {"sha256": hashlib.sha256(data).hexdigest()}
            lines.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
            lines.flush()
            if progress:
                progress(index + 1, num_items)
    return folder


def read_items(folder: str | Path) -> Iterator[Item]:
    """The items of a split in order.

    Raises:
        DataError: no split there, or a line that is damaged or of another version; the text names file and line.
    """
    folder = Path(folder)
    _about(folder)
    path = folder / "items.jsonl"
    if not path.is_file():
        raise DataError(f"{path}: missing; the split was begun and holds no item yet")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                values = json.loads(line)
                values.pop("sha256", None)
                yield item_from_json(values)
            except (ValueError, AttributeError, TypeError) as error:
                first = str(error).splitlines()[0]
                raise DataError(
                    f"{path}:{number}: not a PixelWorld item ({first}); make the split again, or cut the file before this line"
                ) from error


def medium_path(folder: str | Path, item: Item) -> Path:
    """Where an item's medium lies.

    Raises:
        DataError: it is not there.
    """
    path = Path(folder) / "media" / item.medium_name
    if not path.is_file():
        raise DataError(f"{path}: the medium of item {item.id} is missing; make the split again")
    return path


def _claim(folder: Path, about: dict) -> None:
    """Make the folder this split's own, or check that it is."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file, not a folder")
    if (folder / "world.json").exists():
        found = _about(folder)
        if found != about:
            raise DataError(f"{folder}: holds another split ({_differences(found, about)}); choose a new folder")
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder}: is not empty and holds no PixelWorld split; choose a new folder")
    try:
        (folder / "media").mkdir(parents=True, exist_ok=True)
        _write(folder / "world.json", json.dumps(about, indent=1).encode() + b"\n")
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error})") from error


def _about(folder: Path) -> dict:
    path = folder / "world.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder}: no PixelWorld split (world.json is missing)") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if not isinstance(about, dict) or about.get("world") != VERSION:
        raise DataError(f"{path}: of another version of PixelWorld (wanted {VERSION}); make the split again")
    return about


def _differences(found: dict, wanted: dict) -> str:
    return (
        ", ".join(f"{key} {found.get(key)!r} instead of {wanted[key]!r}" for key in wanted if found.get(key) != wanted[key])
        or "unknown keys"
    )


def _mend(path: Path) -> int:
    """How many whole lines there are; a last line without its end is cut off."""
    if not path.exists():
        return 0
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)
    return data.count(b"\n", 0, whole)


def _write(path: Path, data: bytes) -> None:
    """A whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)
