"""Recipes of training: trace sets, sight, primer, SFT. Each is one TOML file and one run."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pixelis.config import PolicySettings, load_recipe_as
from pixelis.policy.prompt import GUIDE, Prompting
from pixelis.tools.settings import ToolSettings

__all__ = ["CotaRecipe", "PrimerRecipe", "RftRecipe", "SftRecipe", "SightRecipe", "load_recipe_as"]


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ShareTable(Table):
    """Media of a family, and questions on each."""

    media: int = Field(ge=1)
    questions: int = Field(default=1, ge=1)


class CotaTable(Table):
    split: str = "train"
    out: str
    shard_media: int = Field(default=60, ge=1)
    shares: dict[str, ShareTable]
    lost: float = Field(default=0.0, ge=0, le=1)
    """How often the programmatic teacher's searches come to nothing, so that it gives up; see `rollout.teacher.hand.Habits`."""
    terse: float = Field(default=0.0, ge=0, le=1)
    """How often it leaves checks out; see there."""
    careful: float = Field(default=0.0, ge=0, le=1)
    """How often it looks closely before it measures or reads; see there."""
    teacher: PolicySettings | None = None
    """A policy that answers instead of the programmatic teacher, such as an endpoint; it is not told the truth."""


class CotaRecipe(Table):
    """A trace set."""

    seed: int = 0
    tools: ToolSettings = ToolSettings()
    cota: CotaTable


class PromptingTable(Table):
    """How the policy is prompted; see `pixelis.policy.prompt.Prompting`."""

    guide: str = GUIDE
    has_schemas: bool = True
    max_pixels: int = Field(default=1024 * 1024, ge=32 * 32)
    max_frame_pixels: int | None = Field(default=None, ge=32 * 32)
    max_frames: int = Field(default=16, ge=1)
    image_size: tuple[int, int] | None = None
    frame_size: tuple[int, int] | None = None

    def build(self) -> Prompting:
        return Prompting(**self.model_dump())


class ModelTable(Table):
    """Sizes of a newborn model."""

    hidden: int = 160
    intermediate: int = 400
    num_layers: int = 6
    num_heads: int = 5
    num_kv_heads: int = 5
    vision_hidden: int = 128
    vision_layers: int = 3
    num_deepstack: int = 0
    num_positions: int = 400
    max_pixels: int = 320 * 320


class ViewsTable(Table):
    """Views of glances; the first `num_dev` are kept for measuring."""

    folder: str
    count: int = Field(default=14_000, ge=1)
    num_dev: int = Field(default=400, ge=1)


class SightTable(Table):
    steps: int = Field(default=2_000, ge=1)
    batch_patches: int = Field(default=5_000, ge=1)
    rate: float = Field(default=3e-3, gt=0)
    matrix_rate: float = Field(default=0.02, gt=0)
    minutes: float = Field(default=60.0, gt=0)


class SightRecipe(Table):
    seed: int = 0
    out: str
    model: ModelTable = ModelTable()
    views: ViewsTable
    prompting: PromptingTable
    sight: SightTable = SightTable()


class ClearTable(Table):
    steps: int = Field(default=1_500, ge=1)
    batch: int = Field(default=12, ge=1)
    rate: float = Field(default=1e-3, gt=0)
    matrix_rate: float = Field(default=0.006, gt=0)
    minutes: float = Field(default=60.0, gt=0)


class ClearRecipe(Table):
    seed: int = 0
    checkpoint: str
    out: str
    views: ViewsTable
    cluttered: str
    """Folder of the same views over clutter; drawn when it is not there."""
    clear: ClearTable = ClearTable()


class PrimerTable(Table):
    steps: int = Field(default=1_500, ge=1)
    batch: int = Field(default=32, ge=1)
    rate: float = Field(default=2e-3, gt=0)
    matrix_rate: float = Field(default=0.02, gt=0)
    text_share: float | None = Field(default=None, ge=0, le=1)
    mixed: bool = False
    minutes: float = Field(default=60.0, gt=0)


class PrimerRecipe(Table):
    seed: int = 0
    checkpoint: str
    out: str
    views: ViewsTable
    prompting: PromptingTable = PromptingTable()
    primer: PrimerTable = PrimerTable()


class LoraTable(Table):
    rank: int = Field(default=16, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class SftTable(Table):
    """See `pixelis.train.sft_state.SftSettings`."""

    epochs: int = Field(default=3, ge=1)
    rounds: int = Field(default=4, ge=1)
    batch_tokens: int = Field(default=12_000, ge=1)
    accumulate: int = Field(default=1, ge=1)
    max_tokens: int = Field(default=1_400, ge=1)
    rate: float = Field(default=1e-3, gt=0)
    matrix_rate: float = Field(default=0.01, gt=0)
    use_muon: bool = True
    mixed: bool = False
    w_act: float = Field(default=2.0, ge=0)
    smoothing: float = Field(default=0.05, ge=0, lt=1)
    feedback_dropout: float = Field(default=0.10, ge=0, le=1)
    early_dropout: float = Field(default=0.02, ge=0, le=1)
    lambda_aux: float = Field(default=0.2, ge=0)
    dev_every: int = Field(default=50, ge=1)
    dev_traces: int = Field(default=200, ge=1)
    ema_decay: float = Field(default=0.6, ge=0, lt=1)
    window: int = Field(default=3, ge=1)
    save_every_s: float = Field(default=300.0, gt=0)


class RehearsalTable(Table):
    """See `pixelis.train.rehearsal.RehearsalSettings`."""

    views: str
    num_dev: int = Field(default=400, ge=0)
    dialogues: int = Field(default=4, ge=1)


class SftRecipe(Table):
    seed: int = 0
    checkpoint: str
    """A folder or hub name."""
    out: str
    traces: list[str] = Field(min_length=1)
    dev_traces: list[str] = Field(min_length=1)
    prompting: PromptingTable | None = None
    """None keeps what the checkpoint says."""
    lora: LoraTable | None = None
    """None trains the whole language model."""
    dtype: str = "auto"
    gradient_checkpointing: bool = False
    """See `pixelis.train.start.load_learner`."""
    sft: SftTable = SftTable()
    rehearsal: RehearsalTable | None = None


class CorridorTable(Table):
    """See `pixelis.train.corridor.CorridorSettings`."""

    target: float = Field(default=0.15, gt=0)
    low: float = Field(default=0.10, gt=0)
    high: float = Field(default=0.20, gt=0)


class RftTable(Table):
    """See `pixelis.train.rft_state.RftSettings`."""

    updates: int = Field(default=200, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    prompts: int = Field(default=8, ge=1)
    group: int = Field(default=6, ge=2)
    top: int | None = Field(default=None, ge=1)
    minibatches: int = Field(default=1, ge=1)
    families: tuple[str, ...] = ()
    world_seed: int = 1
    max_steps: int = Field(default=10, ge=1)
    rate: float = Field(default=1e-4, gt=0)
    batch_tokens: int = Field(default=6000, ge=1)
    beta: float = Field(default=0.3, ge=0)
    curiosity: Literal["dynamics", "pixel_reasoner", "none"] = "dynamics"
    structure: Literal["coherence", "l2", "tv", "infonce", "none"] = "coherence"
    answer: Literal["exact", "graded"] = "exact"
    curiosity_weight: float = Field(default=0.10, ge=0)
    structure_weight: float = Field(default=0.10, ge=0)
    max_mismatch: float = Field(default=0.02, gt=0)
    probe_every: int = Field(default=20, ge=1)
    save_every_s: float = Field(default=300.0, ge=0)
    num_parallel: int = Field(default=16, ge=1)
    workers: int = Field(default=0, ge=0)
    use_corridor: bool = True
    use_gate: bool = True
    num_passes: int = Field(default=4, ge=2)
    from_top: int = Field(default=3, ge=1)
    invalid: Literal["failed", "untrue"] = "failed"
    invalid_call: float = Field(default=0.30, ge=0)
    free_steps: int = Field(default=6, ge=0)
    extra_step: float = Field(default=0.02, ge=0)
    scale: Literal["group", "batch", "none"] = "group"
    negative: float = Field(default=1.0, ge=0)
    credit: Literal["rollout", "turn", "call"] = "rollout"
    most_pull: float | None = Field(default=None, gt=0)
    spares_cut: bool = True


class RftRecipe(Table):
    """Phase 2."""

    seed: int = 0
    checkpoint: str
    """A folder or hub name."""
    out: str
    adapter: str | None = None
    """The trained adapter that learns on, such as SFT's, against a copy of itself."""
    tools: ToolSettings = ToolSettings()
    lora: LoraTable | None = None
    """New adapters; where neither they nor a trained one are named, the whole language model learns, against a frozen copy of it."""
    dtype: str = "auto"
    gradient_checkpointing: bool = False
    max_new_tokens: int = Field(default=256, ge=1)
    rft: RftTable = RftTable()
    corridor: CorridorTable = CorridorTable()
