"""Records and messages of the PixelReasoner SFT format, checked: each fault names file and line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from json.decoder import WHITESPACE
from pathlib import Path
from typing import Any

from pixelis.core.errors import DataError

_ROLES = {"system", "user", "assistant", "tool"}
_MEDIA = ("image", "video")


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message: its texts joined, its pictures in order, its videos as lists of frame files."""

    role: str
    text: str
    images: tuple[str, ...] = ()
    videos: tuple[tuple[str, ...], ...] = ()

    @property
    def media(self) -> tuple[str, ...]:
        """Every file that the message names."""
        return (*self.images, *(name for video in self.videos for name in video))


def read_records(path: Path) -> Iterator[tuple[int, Any]]:
    """The records of a JSON list, or of a file with one record a line, each with the line on which it starts.

    Raises:
        DataError: the file cannot be read, or is no JSON from some line on (a cut file ends inside a record).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is no UTF-8: the file is damaged, or no JSON; download it again") from None
    at = _skip(text, 0)
    is_list = text.startswith("[", at)
    at = _skip(text, at + is_list)
    line, counted, num_read, decoder = 1, 0, 0, json.JSONDecoder()
    while at < len(text) and not (is_list and text[at] == "]"):
        line, counted = line + text.count("\n", counted, at), at
        try:
            record, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            fault = f"line {error.lineno}, column {error.colno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise DataError(f"{path}:{line}: record {num_read + 1} is no JSON ({fault}): the file is cut or damaged") from None
        num_read += 1
        yield line, record
        at = _skip(text, at)
        if is_list and text.startswith(",", at):
            at = _skip(text, at + 1)
        elif is_list and not text.startswith("]", at):
            break
    line += text.count("\n", counted)
    if is_list and not text.startswith("]", at):
        raise DataError(f"{path}:{line}: the list does not end after record {num_read}: the file is cut or damaged; download it again")
    if is_list and _skip(text, at + 1) < len(text):
        raise DataError(f"{path}:{line}: something stands behind the end of the list: the file is damaged; download it again")


def _skip(text: str, at: int) -> int:
    return WHITESPACE.match(text, at).end()


def read_messages(record: Any, *, where: str) -> tuple[Message, ...]:
    """The messages of a record without the system's: user and assistant in turn, from a question to an answer.

    Args:
        where: file and line, for the error.

    Raises:
        DataError: a missing, mistyped or unknown part, or roles out of turn.
    """
    if not isinstance(record, dict) or not isinstance(record.get("message_list"), list):
        keys = ", ".join(map(str, record))[:80] if isinstance(record, dict) else type(record).__name__
        raise DataError(f"{where}: a record is an object with the list message_list; this is {keys or 'empty'}")
    found = [_read_message(value, where=f"{where}: message_list[{i}]") for i, value in enumerate(record["message_list"])]
    messages = tuple(message for message in found if message.role != "system")
    if len(messages) < 2 or len(messages) % 2:
        raise DataError(f"{where}: {len(messages)} messages besides the system's: a question and its answer, or more pairs of the kind")
    for number, message in enumerate(messages):
        if (message.role == "assistant") != bool(number % 2):
            raise DataError(f"{where}: message {number + 1} besides the system's is the {message.role}'s: user and assistant take turns")
    return messages


def _read_message(value: Any, *, where: str) -> Message:
    if not isinstance(value, dict) or not isinstance(value.get("role"), str) or value["role"] not in _ROLES:
        raise DataError(f"{where}: a message is an object with a role, one of {', '.join(sorted(_ROLES))}")
    content = value.get("content")
    parts = [{"text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list):
        raise DataError(f"{where}: content is {type(content).__name__}: it is a list of parts, or a text")
    texts: list[str] = []
    images: list[str] = []
    videos: list[tuple[str, ...]] = []
    for number, part in enumerate(parts):
        _read_part(part, texts, images, videos, where=f"{where}.content[{number}]")
    return Message(role=value["role"], text="\n".join(texts), images=tuple(images), videos=tuple(videos))


def _read_part(part: Any, texts: list[str], images: list[str], videos: list[tuple[str, ...]], *, where: str) -> None:
    """Add what a part holds; keys that are null stand for nothing, as tables with one column a key write them."""
    filled = {key: part[key] for key in ("text", *_MEDIA) if part.get(key) is not None} if isinstance(part, dict) else {}
    if len(filled) != 1:
        raise DataError(f"{where}: a part holds one of text, {', '.join(_MEDIA)}; this one has {', '.join(filled) or 'none'}")
    ((kind, value),) = filled.items()
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and (name or kind == "text") for name in names):
        raise DataError(f"{where}: {kind} is a {'text' if kind == 'text' else 'path or a list of paths'}; got {str(value)[:40]!r}")
    if kind == "text":
        texts += names
    elif kind == "image":
        images += names
    else:
        videos.append(tuple(names))


def last_boxed(text: str) -> tuple[int, int, str] | None:
    """Where the last `\\boxed{...}` starts and stops, and what it holds, braces inside it included; None when it does not close."""
    start = text.rfind("\\boxed{")
    depth = 0
    for at in range(start + len("\\boxed"), len(text)) if start >= 0 else ():
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if not depth:
            content = text[start + len("\\boxed{") : at].strip()
            plain = re.fullmatch(r"\\text\s*\{([^{}]*)\}", content)
            return start, at + 1, plain.group(1).strip() if plain else content
    return None
