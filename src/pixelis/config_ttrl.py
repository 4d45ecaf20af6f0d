"""Recipes of `pixelis adapt`: one TOML file, one stream."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pixelis.config_train import CorridorTable, LoraTable, Table
from pixelis.tools.settings import ToolSettings
from pixelis.ttrl.abstain import DELTA
from pixelis.ttrl.vote import Weighing


class StreamTable(Table):
    """See `pixelis.ttrl.stream.WorldStream`."""

    segments: list[str] = Field(min_length=1)
    """`"100 clean"`, `"200 lighting:3"`, one after another."""
    split: str = "test"
    seed: int = 0
    first: int = Field(default=0, ge=0)
    order_seed: int | None = None
    families: tuple[str, ...] = ()


class AdaptTable(Table):
    """See `pixelis.ttrl.state.AdaptSettings`."""

    rollouts: int = Field(default=8, ge=1)
    neighbours: int = Field(default=8, ge=0)
    omega: float = Field(default=0.5, ge=0, le=1)
    method: Literal["ttrl", "entropy", "retrieval"] = "ttrl"
    learns: bool = True
    max_accepted: int | None = Field(default=None, ge=0)
    ema: float = Field(default=0.995, ge=0, le=1)
    rate: float = Field(default=2e-5, ge=0)
    lift_spread: float = Field(default=0.0, ge=0)
    last_layers: int | None = Field(default=None, ge=1)
    beta: float = Field(default=0.3, gt=0)
    use_corridor: bool = True
    max_steps: int = Field(default=10, ge=1)
    max_mismatch: float = Field(default=0.02, gt=0)
    batch_tokens: int = Field(default=6000, ge=1)
    num_parallel: int = Field(default=8, ge=1)


class ServeTable(Table):
    """When an update serves; see `pixelis.ttrl.state.AdaptSettings`."""

    lag: int = Field(default=0, ge=0)
    deadline_s: float = Field(default=600.0, gt=0)


class VoteTable(Table):
    """See `pixelis.ttrl.decide.DecisionSettings`."""

    vote: str = "weighted"
    counts_neighbours: bool = False
    reliability: str = "one_coin"
    use_conformal: bool = True
    """False goes by the margin alone, whatever the calibration says."""
    delta: float = Field(default=DELTA, ge=0, le=1)
    power: float = Field(default=Weighing().power, ge=0)
    entropy_scale: float = Field(default=1.0, gt=0)
    baseline: Literal["stream", "query"] = "stream"
    negative: float = Field(default=1.0, ge=0, le=1)


class MemoryTable(Table):
    """See `pixelis.retrieval.index.IndexSettings` and `open_memory`."""

    kind: Literal["ivfpq", "hnsw"] = "ivfpq"
    exact_below: int = Field(default=20_000, ge=1)
    max_items: int | None = Field(default=None, ge=1)


class ExcludedTable(Table):
    """See `pixelis.ttrl.excluded.Excluded`: evaluation items, whose media the memory refuses."""

    split: str
    items: int = Field(ge=1)
    seed: int = 0
    first: int = Field(default=0, ge=0)
    shift: str | None = None


class StressTable(Table):
    """See `pixelis.ttrl.stress.Stress`."""

    flip: float = Field(default=0.0, ge=0, le=1)
    near_miss: float = Field(default=0.0, ge=0, le=1)
    jpeg: int | None = Field(default=None, ge=1, le=100)
    rescale: float = Field(default=1.0, gt=0, le=1)


class AdaptRecipe(Table):
    """Phase 3."""

    seed: int = 0
    checkpoint: str
    """A folder, a hub name, or a policy that comes with the package."""
    out: str
    adapter: str | None = None
    """A trained adapter, which learns on."""
    lora: LoraTable | None = None
    dtype: str = "auto"
    gradient_checkpointing: bool = False
    """See `pixelis.train.start.load_learner`."""
    tools: ToolSettings = ToolSettings()
    max_new_tokens: int = Field(default=256, ge=1)
    calibration: str | None = None
    """The folder of a labelled run that was fitted: calibrator, quantile and canaries; or its calibration.json, which gives no canaries.
    None does without."""
    num_canaries: int = Field(default=16, ge=0)
    stream: StreamTable
    adapt: AdaptTable = AdaptTable()
    serve: ServeTable = ServeTable()
    vote: VoteTable = VoteTable()
    corridor: CorridorTable = CorridorTable()
    stress: StressTable = StressTable()
    memory: MemoryTable = MemoryTable()
    excluded: tuple[ExcludedTable, ...] = ()
