"""Phase 2: a run's settings, where it is, and how it is kept so that a killed one goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from pixelis.core.command import note_command
from pixelis.core.errors import ConfigError
from pixelis.policy.vlm import VlmPolicy
from pixelis.rewards.groups import RewardWeights
from pixelis.rewards.penalty import FREE_STEPS, PER_EXTRA_STEP, PER_INVALID_CALL
from pixelis.rewards.running import FamilyStatistics
from pixelis.tools.settings import OF_THE_MACHINE, ToolSettings
from pixelis.train.corridor import CorridorSettings, CorridorState
from pixelis.train.kept import save_state
from pixelis.train.policy_learner import PolicyLearner
from pixelis.train.rft_reward import Answer, Curiosity, Invalid, Judge, Structure
from pixelis.train.start import save_policy
from pixelis.train.step_heads import FROM_TOP, NUM_PASSES, StepHeads

HEADS_FILE, STATISTICS_FILE = "step_heads.safetensors", "step_statistics.json"
"""The step heads of a finished run, and the statistics that go with them: later phases judge by both, frozen."""


MAY_DIFFER = ("save_every_s", "minutes")
"""A run may go on with other values of these."""

Scale = Literal["group", "batch", "none"]


@dataclass(frozen=True)
class RftSettings:
    """Values of a run; `recipes/nano/rft.toml` says where each comes from.

    Args:
        minutes: the run ends after so many, if that is sooner; the schedule of rates follows the clock then, and bytes may differ.
        prompts, group: prompts of an update, and rollouts of each.
        top: rollouts of a group that are learnt from, those furthest from its mean; all when None.
        minibatches: optimiser steps over one set of rollouts.
        families: of PixelWorld; all when empty.
        world_seed: of the items, another than that of the traces.
        max_steps: of a rollout.
        max_mismatch: mean |log p of training - log p of the sampler| in nats beyond which an update is not taken.
        probe_every: updates between looks at what the policy says without pixels.
        num_parallel: rollouts under way at once.
        workers: processes that roll out, one prompt each at a time; 0 does it in this one, all prompts at once.
        curiosity, structure, answer: see `Judge`.
        use_corridor: False keeps beta as it is; then 0 is no KL term at all.
        use_gate: False lets curiosity count however unsure the dynamics head is.
        num_passes: with dropout, by which that is measured.
        from_top: which block's output stands for what was seen, counted from the last.
        invalid, invalid_call, free_steps, extra_step: what the penalty counts; see `Judge`.
        scale: what advantages are divided by: the standard deviation of rewards in the group, that of the batch, or nothing.
        negative: weight of negative advantages.
        credit: "rollout" gives all tokens the advantage of their rollout, "turn" does not charge a turn with the fines of turns before it,
            and "call" besides judges coordinates by their own call's result alone.
        most_pull: the hardest pull of one token towards the SFT policy, in units of beta; None lets it grow with the exponential of the
            token's fall.
        spares_cut: rollouts that ran into a limit get no negative advantage; False compares them like any other.
    """

    updates: int = 200
    minutes: float | None = None
    prompts: int = 8
    group: int = 6
    top: int | None = None
    minibatches: int = 1
    families: tuple[str, ...] = ()
    world_seed: int = 1
    max_steps: int = 10
    rate: float = 1e-4
    batch_tokens: int = 6000
    beta: float = 0.3
    curiosity: Curiosity = "dynamics"
    structure: Structure = "coherence"
    answer: Answer = "exact"
    weights: RewardWeights = RewardWeights()
    corridor: CorridorSettings = CorridorSettings()
    max_mismatch: float = 0.02
    probe_every: int = 20
    save_every_s: float = 300.0
    num_parallel: int = 16
    workers: int = 0
    use_corridor: bool = True
    use_gate: bool = True
    num_passes: int = NUM_PASSES
    from_top: int = FROM_TOP
    invalid: Invalid = "failed"
    invalid_call: float = PER_INVALID_CALL
    free_steps: int = FREE_STEPS
    extra_step: float = PER_EXTRA_STEP
    scale: Scale = "group"
    negative: float = 1.0
    credit: Literal["rollout", "turn", "call"] = "rollout"
    most_pull: float | None = None
    spares_cut: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises: ConfigError: the corridor cannot steer a beta of 0."""
        if self.use_corridor and self.beta <= 0:
            raise ConfigError(f"rft.beta = {self.beta:g} cannot be steered: give one above 0, or rft.use_corridor = false")


@dataclass
class Progress:
    """Where a run is; with learner and judge, all that decides how it goes on."""

    update: int = 0
    corridor: CorridorState = field(default_factory=CorridorState.start)
    first_tool_rate: float | None = None
    first_entropy: float | None = None
    seconds: float = 0.0
    """Spent so far."""
    num_blocked: int = 0
    """Updates in a row that the mismatch gate held back."""


def claim(out: Path, policy: VlmPolicy, settings: RftSettings, tools: ToolSettings) -> None:
    """Take the folder for this run, or go on with it.

    Raises:
        ConfigError: it holds a run of other settings, tools, or start.
    """
    own = {key: value for key, value in asdict(settings).items() if key not in MAY_DIFFER}
    own_tools = {key: value for key, value in tools.model_dump(mode="json").items() if key not in OF_THE_MACHINE}
    about = json.loads(json.dumps({"settings": own, "start": policy.info.version, "tools": own_tools}))
    path = out / "run.json"
    if not path.is_file():
        path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    elif (there := json.loads(path.read_text(encoding="utf-8"))) != about:
        differs = ", ".join(key for key in about if there.get(key) != about[key])
        raise ConfigError(f"{out}: holds another run (its {differs} differ); choose a new folder, or run it with its own recipe")
    note_command(out)


def save(out: Path, learner: PolicyLearner, judge: Judge, progress: Progress) -> None:
    """The state, whole or not at all."""
    save_state(out / "state.pt", {"learner": learner.state(), "judge": judge.state(), "progress": asdict(progress)})


def resume(out: Path, learner: PolicyLearner, judge: Judge, settings: RftSettings) -> Progress:
    if not (out / "state.pt").is_file():
        return Progress(corridor=CorridorState.start(settings.beta or 1.0))  # without corridor its own beta is not used
    found = torch.load(out / "state.pt", weights_only=True)
    learner.load_state(found["learner"])
    judge.load_state(found["judge"])
    return Progress(**{**found["progress"], "corridor": CorridorState(**found["progress"]["corridor"])})


def finish(out: Path, policy: VlmPolicy, judge: Judge, settings: RftSettings) -> None:
    save_policy(policy, out)
    facts = {"mean_variance": judge.variance.mean, "cap": judge.cap, "num_passes": judge.num_passes, "from_top": settings.from_top}
    save_heads(out, judge.heads, judge.neighbours, facts)
    (out / "state.part").unlink(missing_ok=True)
    (out / "state.pt").unlink(missing_ok=True)


def save_heads(out: Path, heads: StepHeads, neighbours: FamilyStatistics, facts: Mapping[str, Any]) -> None:
    """The step heads with the statistics that they are judged by.

    Args:
        facts: mean_variance, cap, num_passes, from_top.
    """
    from safetensors.torch import save_file

    save_file(heads.state_dict(), str(out / HEADS_FILE))
    text = json.dumps({"neighbours": neighbours.to_json(), **facts}, indent=1)
    (out / STATISTICS_FILE).write_text(text + "\n", encoding="utf-8")
