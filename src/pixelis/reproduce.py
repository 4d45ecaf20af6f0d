"""`pixelis reproduce`: everything from nothing, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from pixelis.stages import StageTable, run_stages


class ReproduceRecipe(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    out: str
    """Where logs and the record of what was done lie."""
    stage: tuple[StageTable, ...] = Field(min_length=1)


def reproduce(recipe: ReproduceRecipe, *, only: Sequence[str] = (), say: Callable[[str], None] = print) -> Path:
    """Run the stages that are not done yet; see `run_stages`, of whose arguments and errors these are."""
    return run_stages(recipe.stage, Path(recipe.out), only=only, say=say)
