"""Worker processes: spawned, on one core each, and gone when the process that wanted them is gone, however that ended."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager

LOOK_EVERY_S = 1.0


@contextmanager
def workers(count: int) -> Iterator[Executor]:
    """A pool of processes; work that waits is dropped when something raises.

    Spawned, not forked: engines hold threads.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=spawn, initializer=_settle, initargs=(os.getpid(),)) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _settle(parent: int) -> None:
    """In a new worker: share the machine by process, not by thread, and outlive nobody."""
    import cv2

    cv2.setNumThreads(1)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    """A killed parent leaves its workers at a queue that nobody reads, working on what nobody waits for."""
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY_S)
    os._exit(1)
