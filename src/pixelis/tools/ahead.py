"""Frames decoded in a thread of their own while an engine works on the ones before.

Close what `read_ahead` gives (`with contextlib.closing(read_ahead(...)) as frames`): an engine that raises keeps its frames alive in the
traceback, and with them the thread, until the garbage is collected.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any

import cv2

DEPTH = 3
"""Frames that wait; each is a whole picture."""
POLL_S = 0.05
"""How long a full queue is waited for before the reader looks whether anyone still wants its frames."""
LEAVE_S = 2.0
"""How long a reader may take to end; one that is stuck in native code is left to itself."""


def read_ahead(frames: Iterator[Any]) -> Generator[Any, None, None]:
    """The same items in the same order, made up to `DEPTH` ahead; what making them raises is raised in its place.

    Closed early, it stops the reader, which then closes `frames`, and waits for that, at most `LEAVE_S`. Where this process is to work on
    one core (OpenCV has one thread there), nothing is made ahead.
    """
    if cv2.getNumThreads() < 2:
        yield from frames
        return
    waiting: queue.Queue[tuple[bool, Any]] = queue.Queue(DEPTH)
    is_left = threading.Event()
    reader = threading.Thread(target=_read, args=(frames, waiting, is_left), daemon=True, name="pixelis-read-ahead")
    reader.start()
    try:
        while True:
            is_item, value = waiting.get()
            if not is_item:
                if value is not None:
                    raise value
                return
            yield value
    finally:
        is_left.set()
        reader.join(LEAVE_S)


def _read(frames: Iterator[Any], waiting: queue.Queue[tuple[bool, Any]], is_left: threading.Event) -> None:
    """Every item as (True, item), then (False, None) or (False, the error)."""
    try:
        for item in frames:
            if not _put(waiting, (True, item), is_left):
                return
        _put(waiting, (False, None), is_left)
    except BaseException as error:  # noqa: BLE001 - raised where the items are used
        _put(waiting, (False, error), is_left)
    finally:
        if isinstance(frames, Generator):
            frames.close()


def _put(waiting: queue.Queue[tuple[bool, Any]], what: tuple[bool, Any], is_left: threading.Event) -> bool:
    """Whether it was put; False once the items are no longer wanted."""
    while not is_left.is_set():
        try:
            waiting.put(what, timeout=POLL_S)
        except queue.Full:
            continue
        return True
    return False
