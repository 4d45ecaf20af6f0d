"""A newborn model: the sizes of a recipe, random weights, and a tokeniser whose words are PixelWorld's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pixelis.policy.vlm_make import make_checkpoint
from pixelis.train.vocabulary import make_vocabulary


def make_newborn(folder: str | Path, sizes: Any, *, seed: int = 0) -> Path:
    """Write a newborn checkpoint.

    Args:
        sizes: a model with the fields of `config_train.ModelTable`.
    """
    return make_checkpoint(folder, make_vocabulary(), **sizes.model_dump(), seed=seed)
