"""How far a long command is, for a terminal and for a log alike."""

from __future__ import annotations

import sys
import time


class Progress:
    """One line on standard error: how many of how many, how fast, how long still."""

    def __init__(self, what: str) -> None:
        self._what, self._started, self._first, self._last, self._shown = what, 0.0, 0, 0, 0.0

    def __call__(self, done: int, of: int, more: str = "") -> None:
        now = time.monotonic()
        if done <= self._last or not self._last:  # the first, or another count has begun
            self._started, self._first = now, done
        self._last = done
        if done < of and now - self._shown < 2.0:
            return
        self._shown = now
        rate = (done - self._first) / max(now - self._started, 1e-9)
        speed = f"{rate:.1f}/s, {(of - done) / rate / 60:.1f} min left" if now > self._started else ""
        print(f"{done}/{of} {self._what} {more} {speed}".rstrip(), file=sys.stderr, flush=True)
