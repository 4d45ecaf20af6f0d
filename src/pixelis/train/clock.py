"""Where the time of an update or a query goes."""

from __future__ import annotations

import time


class Clock:
    """Seconds between laps, by name; monotonic."""

    def __init__(self) -> None:
        self._last, self.laps = time.monotonic(), {}

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name], self._last = round(now - self._last, 4), now
