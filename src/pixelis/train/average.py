"""The mean of two checkpoints of one model, weight by weight: what a narrow lesson taught, without what it made the model forget.

Source: Wortsman et al., "Robust fine-tuning of zero-shot models" (2022): weights between a model and its fine-tuned self often do better
than either on what both know.
"""

from __future__ import annotations

from pathlib import Path

import torch

from pixelis.core.errors import ConfigError
from pixelis.policy.vlm_load import load_checkpoint
from pixelis.train.ship import copy_kept
from pixelis.train.start import save_whole


@torch.no_grad()
def average(before: str | Path, after: str | Path, out: str | Path, *, share: float = 0.5) -> Path:
    """Write (1 - share) * before + share * after, with all else from `after`, its normalisers included.

    Args:
        before, after: checkpoints that were trained whole.
        share: of `after`, in [0, 1].

    Raises:
        ConfigError: the share is no share, or the two are not one model: an adapter, other names, other shapes.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"the share of the later checkpoint must be in [0, 1]; got {share}")
    old, new = load_checkpoint(before, dtype="float32"), load_checkpoint(after, dtype="float32")
    for name, loaded in ((before, old), (after, new)):
        if loaded.model is not loaded.base:
            raise ConfigError(f"{name} is an adapter on a base: only checkpoints that were trained whole are averaged")
    weights, target = dict(old.base.named_parameters()), dict(new.base.named_parameters())  # tied ones once
    differ = sorted(
        key for key in weights.keys() | target.keys() if key not in weights or key not in target or weights[key].shape != target[key].shape
    )
    if differ:
        raise ConfigError(f"{before} and {after} are not one model: {len(differ)} weights differ in name or shape, first {differ[0]}")
    for key, value in target.items():
        value.mul_(share).add_(weights[key], alpha=1 - share)
    save_whole(new, out, prompting=new.prompting)
    copy_kept(after, out)
    return Path(out)
