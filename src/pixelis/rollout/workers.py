"""Worker processes: spawned, on one core each, and gone when the process that wanted them is gone, however that ended."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager

from pixelis.core.child import keep_to, leave_with


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
    keep_to(1)
    leave_with(parent)
