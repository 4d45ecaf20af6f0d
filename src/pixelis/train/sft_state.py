"""Phase 1: a run's settings, where it is, and how it is kept so that a killed one goes on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from pixelis.core.errors import ConfigError, DataError
from pixelis.policy.vlm_load import Checkpoint
from pixelis.train import curriculum
from pixelis.train.kept import save_state
from pixelis.train.learner import Learner
from pixelis.train.rehearsal import RehearsalSettings


@dataclass(frozen=True)
class SftSettings:
    """Values of a run; `recipes/nano/sft.toml` and `recipes/paper-8b/sft.toml` say where each comes from.

    Args:
        epochs: in all, the warm-up included.
        rounds: of each later epoch; between rounds the curriculum may advance.
        batch_tokens: padded tokens of one forward pass.
        accumulate: passes per update, of each process.
        max_tokens: longer traces are left out, and counted.
        mixed: matrix products in bfloat16; see `Learner`.
        w_act: weight of the tokens of a call.
        feedback_dropout, early_dropout: see `rollout.pack`.
        dev_every: updates between evaluations.
        dev_traces: at most, of the dev set.
        save_every_s: seconds between states from which a killed run goes on.
    """

    epochs: int = 3
    rounds: int = 4
    batch_tokens: int = 12_000
    accumulate: int = 1
    max_tokens: int = 1_400
    rate: float = 1e-3
    matrix_rate: float = 0.01
    use_muon: bool = True
    mixed: bool = False
    w_act: float = 2.0
    smoothing: float = 0.05
    feedback_dropout: float = 0.10
    early_dropout: float = 0.02
    lambda_aux: float = 0.2
    dev_every: int = 50
    dev_traces: int = 200
    ema_decay: float = 0.6
    window: int = 3
    save_every_s: float = 300.0
    seed: int = 0


@dataclass
class Progress:
    """Where a run is; with the learner's state, all that decides how it goes on."""

    epoch: int = 0
    round: int = 0
    done_batches: int = 0
    """Of the round."""
    step: int = 0
    phase: int = curriculum.WARM_UP
    dev_losses: list[float] = field(default_factory=list)
    """Since the phase began."""
    num_skipped: int = 0


@dataclass
class Hardness:
    """How hard every trace is, [N]; a round is dealt by what was known when it began, also when it is gone on with."""

    now_N: np.ndarray
    """Its last loss, nats a token."""
    dealt_N: np.ndarray
    """`now_N` when the present round began."""
    dealt_phase: int = curriculum.WARM_UP
    """Of the curriculum, when the present round began."""

    def deal(self, phase: int) -> None:
        """A round begins."""
        self.dealt_N, self.dealt_phase = self.now_N.copy(), phase


def claim(
    out: Path, settings: SftSettings, traces: Sequence, dev_traces: Sequence, checkpoint: Checkpoint, rehearsal: RehearsalSettings | None
) -> None:
    """Make the folder this run's own, or check that it is.

    Raises:
        ConfigError: it holds a run of other settings, traces or another start.
    """
    about = {
        "settings": {k: v for k, v in settings.__dict__.items() if k != "save_every_s"},
        "traces": [str(t) for t in traces],
        "dev_traces": [str(t) for t in dev_traces],
        "checkpoint": checkpoint.version,
        "rehearsal": asdict(rehearsal) if rehearsal is not None else None,
    }
    path = out / "run.json"
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != about:
            differs = [key for key in about if found.get(key) != about[key]]
            raise ConfigError(f"{out}: holds a run whose {', '.join(differs)} differ; choose a new folder, or run it with its own recipe")
        return
    path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def save(out: Path, learner: Learner, progress: Progress, hardness: Hardness) -> None:
    """The state, whole or not at all: a file of each process, and one rename."""
    part, state, ranks = out / "state.part", out / "state", learner.ranks
    if ranks.is_first:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
    ranks.wait()
    plain = {"now": torch.from_numpy(hardness.now_N), "dealt": torch.from_numpy(hardness.dealt_N), "phase": hardness.dealt_phase}
    about = {"progress": progress.__dict__, "hardness": plain, "ranks": ranks.count}
    save_state(ranks.own(part / "state.pt"), learner.state() | about)
    ranks.wait()
    if ranks.is_first:
        old = out / "state.old"
        shutil.rmtree(old, ignore_errors=True)
        if state.exists():
            os.replace(state, old)
        os.replace(part, state)
        shutil.rmtree(old, ignore_errors=True)
    ranks.wait()


def resume(out: Path, learner: Learner, num_lessons: int) -> tuple[Progress, Hardness]:
    """The last saved state, or a fresh start; a kill between two renames leaves the older one.

    Raises:
        ConfigError: it was saved by another number of processes.
        DataError: it was saved over another number of traces, or by a version that cannot be gone on with.
    """
    ranks = learner.ranks
    for folder in (out / "state", out / "state.old"):
        if not (folder / "state.pt").is_file():
            continue
        found = torch.load(ranks.own(folder / "state.pt"), weights_only=True)
        if found["ranks"] != ranks.count:
            raise ConfigError(
                f"{folder}: was saved by {found['ranks']} processes, now there are {ranks.count}; launch as many, or start anew"
            )
        plain = found["hardness"]
        if not isinstance(plain, dict):
            raise DataError(f"{folder}: does not say what its round was dealt by (an older version wrote it); choose a new folder")
        hardness = Hardness(plain["now"].numpy(), plain["dealt"].numpy(), plain["phase"])
        if len(hardness.now_N) != num_lessons:
            raise DataError(f"{folder}: was saved over {len(hardness.now_N)} traces, now there are {num_lessons}; choose a new folder")
        learner.load_state(found)
        return replace(Progress(), **found["progress"]), hardness
    return Progress(), Hardness(np.zeros(num_lessons), np.zeros(num_lessons))
