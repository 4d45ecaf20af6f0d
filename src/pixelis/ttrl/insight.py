"""Curiosity and coherence while serving: by the step heads of an earlier phase and its statistics, both frozen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelis.core.errors import DataError
from pixelis.core.trajectory import Trajectory
from pixelis.policy.adapters import beside
from pixelis.rewards.coherence import coherence
from pixelis.rewards.curiosity import curiosity, gate, mean_curiosity, surprise
from pixelis.rewards.earning import earning_steps
from pixelis.rewards.running import FamilyStatistics
from pixelis.train.rft_state import HEADS_FILE, STATISTICS_FILE, save_heads
from pixelis.train.step_heads import FROM_TOP, NUM_PASSES, StepHeads, StepInputs


@dataclass(frozen=True, eq=False)
class Insight:
    """What judges a chain without its answer. Task families are unknown while serving: one scale serves all."""

    heads: StepHeads
    neighbours: FamilyStatistics
    mean_variance: float
    cap: float | None
    num_passes: int = NUM_PASSES
    from_top: int = FROM_TOP

    @classmethod
    def of(cls, checkpoint: str | Path, hidden: int) -> Insight | None:
        """The heads that lie with a checkpoint or an adapter; None where no earlier phase left any.

        Args:
            checkpoint: a folder; of an adapter its own, such as `runs/paper-8b/rft/policy`, above which phase 2 leaves its heads.
            hidden: size of the model's states.

        Raises:
            DataError: the files are damaged, or of another model.
        """
        folder = beside(checkpoint, HEADS_FILE) if (Path(checkpoint) / "adapter_config.json").is_file() else Path(checkpoint)
        if folder is None or not ((folder / HEADS_FILE).is_file() and (folder / STATISTICS_FILE).is_file()):
            return None
        from safetensors.torch import load_file

        heads = StepHeads(hidden)
        try:
            heads.load_state_dict(load_file(str(folder / HEADS_FILE)))
            facts = json.loads((folder / STATISTICS_FILE).read_text(encoding="utf-8"))
            neighbours = FamilyStatistics.from_json(facts.pop("neighbours"))
            return cls(heads.eval(), neighbours, **facts | {"mean_variance": float(facts["mean_variance"])})
        except (RuntimeError, OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder}: its step heads do not fit ({error}); train phase 2 again, or delete {HEADS_FILE}") from None

    def look(self, trajectory: Trajectory, inputs: StepInputs, *, seed: int) -> tuple[float, float]:
        """Curiosity and coherence of a trajectory; both 0 for fewer than two steps."""
        foresight = self.heads.foresee(inputs, num_passes=self.num_passes, seed=seed)
        rewards = curiosity(
            surprise(foresight.predicted_SD, self.heads.seen(inputs)),
            foresight.p_valid_S,
            gate(foresight.variance_S, self.mean_variance),
            cap=np.inf if self.cap is None else self.cap,
            earns_S=earning_steps(trajectory)[1:],
        )
        return mean_curiosity(rewards), coherence(self.heads.embed(inputs), self.neighbours.of(""))

    def save(self, folder: str | Path) -> None:
        """Beside a policy that goes on from here."""
        names = ("mean_variance", "cap", "num_passes", "from_top")
        save_heads(Path(folder), self.heads, self.neighbours, {name: getattr(self, name) for name in names})
