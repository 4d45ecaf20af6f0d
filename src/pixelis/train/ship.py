"""Make a trained checkpoint small enough to come with the package: half precision, and nothing that only training needs."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from pixelis.core.errors import ConfigError
from pixelis.policy.vlm_load import load_checkpoint
from pixelis.train.normalisers import FILE as NORMALISERS
from pixelis.train.rft_state import HEADS_FILE, STATISTICS_FILE
from pixelis.train.start import save_whole

KEPT = (NORMALISERS, HEADS_FILE, STATISTICS_FILE)
"""What belongs to a checkpoint beside its weights, where there is some."""


def ship(checkpoint: str | Path, out: str | Path) -> int:
    """Write a checkpoint's weights in float16 beside its tokenizer and prompting; bytes of the folder.

    Raises:
        ConfigError: the checkpoint has adapters, which are small already, or a weight that float16 cannot hold.
    """
    loaded, out = load_checkpoint(checkpoint), Path(out)
    if loaded.model is not loaded.base:
        raise ConfigError(f"{checkpoint} is an adapter on a base: ship its folder as it is")
    largest = max(float(p.detach().abs().max()) for p in loaded.model.parameters())
    if not largest < torch.finfo(torch.float16).max:
        raise ConfigError(f"{checkpoint}: its largest weight {largest:g} does not fit into float16")
    shutil.rmtree(out, ignore_errors=True)
    loaded.base.half()
    save_whole(loaded, out, prompting=loaded.prompting)
    copy_kept(checkpoint, out)
    return sum(path.stat().st_size for path in out.iterdir())


def copy_kept(checkpoint: str | Path, out: str | Path) -> None:
    """Copy the files that belong to a checkpoint beside its weights, those that are there."""
    for name in KEPT:
        if (Path(checkpoint) / name).is_file():
            shutil.copy(Path(checkpoint) / name, Path(out) / name)
