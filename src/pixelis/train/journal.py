"""The journal of a run: metrics as JSON lines, which are the truth, a line on the screen, and TensorBoard where it is installed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from pixelis.core.store import write_whole
from pixelis.train.learner import StepFacts


class Journal:
    """`metrics.jsonl`, one line an update; lines behind the resumed step are dropped. TensorBoard beside it where it is installed.

    Args:
        path: None writes nothing, for the processes of a run that are not the first.
    """

    def __init__(self, path: Path | None, step: int, log: Callable[[dict], None]) -> None:
        self._log, self._started, self._tokens, self._first = log, time.monotonic(), 0, step
        self._file: IO[str] | None = None
        self._board: Any = None
        if path is None:
            return
        self._file = reopened(path, lambda row: step > 0 and row["step"] <= step)
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(path.parent / "tensorboard"))
        except ImportError:
            pass

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def step(self, progress: Any, facts: StepFacts, num_updates: int, skipped: list[str]) -> None:
        self._tokens += facts.num_tokens
        seconds = time.monotonic() - self._started
        rate = (progress.step - self._first) / seconds
        row = {
            "step": progress.step, "epoch": progress.epoch, "phase": progress.phase, "loss": facts.loss, "token_loss": facts.token_loss,
            "aux_loss": facts.aux_loss, "grad_norm": facts.grad_norm, "tokens": facts.num_tokens, "learnt": facts.num_learnt,
        }  # fmt: skip
        self._write(row | ({"skipped": skipped} if facts.is_skipped else {}))
        if progress.step % 20 == 0 or facts.is_skipped:
            left = max(0.0, (num_updates - progress.step) / rate)
            self._log(_rounded(row) | {"of": num_updates, "tokens_s": round(self._tokens / seconds), "minutes_left": round(left / 60, 1)})

    def dev(self, progress: Any, losses: dict[str, float]) -> None:
        row = {"step": progress.step, "epoch": progress.epoch, "phase": progress.phase, "dev": losses}
        self._write(row)
        self._log({"step": progress.step, "dev": _rounded(losses)})

    def _write(self, row: dict) -> None:
        if self._file is None:
            return
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._board is not None:
            for key, value in (row | {f"dev/{k}": v for k, v in row.get("dev", {}).items()}).items():
                if isinstance(value, (int, float)) and key not in ("step", "epoch"):
                    self._board.add_scalar(key, value, row["step"])


def reopened(path: Path, is_kept: Callable[[dict], bool]) -> IO[str]:
    """A file of JSON lines to append to, without its lines that are not kept; a kill leaves the old file or the new one, whole.

    A last line that was cut is dropped.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    kept = [line for line in lines if line.endswith("\n") and is_kept(json.loads(line))]
    write_whole(path, "".join(kept).encode())
    return path.open("a", encoding="utf-8")


def _rounded(row: dict) -> dict:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
