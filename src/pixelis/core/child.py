"""A process that another one wanted: it takes no more threads than it was given, and is gone when the other is."""

from __future__ import annotations

import os
import threading
import time

LOOK_EVERY_S = 1.0


def keep_to(threads: int) -> None:
    """Of OpenCV, and so of the networks of the tools, which take their number from it. PyTorch and NumPy read OMP_NUM_THREADS."""
    import cv2

    cv2.setNumThreads(threads)


def leave_with(parent: int) -> None:
    """From now on, end at once when the process with that number is no longer this one's parent: what it waits for has no reader."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY_S)
    os._exit(1)
