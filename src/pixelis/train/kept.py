"""What a stage without a curriculum keeps on disk while it trains, so that a killed one goes on to the same weights."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from pixelis.core.errors import ConfigError, DataError

STATE_FILE = "state.pt"
SAVE_EVERY_S = 120.0
MAY_DIFFER = ("minutes",)
"""A run may go on with other values of these."""

Part = tuple[Callable[[], Any], Callable[[Any], Any]]
"""Gives a part's state, and takes it."""


def part(of: Any) -> Part:
    """Of a module or an optimiser."""
    return of.state_dict, of.load_state_dict


class Kept:
    """The state of a run in one process: found again after a kill, saved now and then, deleted when the run is over.

    Args:
        out: the run's folder, in which nobody else is at work.
        settings: a dataclass of the run's values; a state of others is refused.
        start: what the run begins from, such as a checkpoint's version and the number of views; refused likewise.
        parts: all that training changes, by name.
        every_s: seconds between two states.

    Raises:
        ConfigError: the folder holds the state of another run.
        DataError: its state cannot be read.
    """

    def __init__(self, out: Path, settings: Any, start: list[Any], parts: Mapping[str, Part], *, every_s: float = SAVE_EVERY_S) -> None:
        self.path, self.parts, self.every_s = out / STATE_FILE, parts, every_s
        own = {key: value for key, value in asdict(settings).items() if key not in MAY_DIFFER}
        self.about = json.dumps({"settings": own, "start": start}, sort_keys=True)
        self.step, self.recent, self._before = 0, [], 0.0
        """The next step, losses since the last line of the journal, seconds before this process."""
        if self.path.is_file():
            self._load()
        self._begun = self._saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """Spent so far, by all processes of the run."""
        return self._before + time.monotonic() - self._begun

    def keep(self, step: int, recent: list[float] | None = None) -> None:
        """After a step, `step` being the next: save, if it is time; whole or not at all."""
        if time.monotonic() - self._saved < self.every_s:
            return
        state = {"about": self.about, "step": step, "seconds": self.seconds, "recent": list(recent or [])}
        state |= {"rng": torch.get_rng_state(), "parts": {name: give() for name, (give, _) in self.parts.items()}}
        torch.save(state, self.path.with_suffix(".part"))
        os.replace(self.path.with_suffix(".part"), self.path)
        self._saved = time.monotonic()

    def done(self) -> None:
        self.path.with_suffix(".part").unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _load(self) -> None:
        try:
            found = torch.load(self.path, weights_only=True)
            about, parts = found["about"], found["parts"]
        except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, UnpicklingError) as error:
            raise DataError(f"{self.path}: cannot be read ({type(error).__name__}: {error}); delete it and train anew") from None
        if about != self.about:
            raise ConfigError(
                f"{self.path.parent}: holds a run of other settings, of another start or of other views; choose a new folder, or delete "
                f"{self.path.name} there"
            )
        for name, (_, take) in self.parts.items():
            take(parts[name])
        torch.set_rng_state(found["rng"])
        self.step, self._before, self.recent = found["step"], found["seconds"], found["recent"]
