"""Log-probabilities of recorded tokens by a full forward pass: what training sees, and what the sampler must agree with."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from pixelis.core.errors import DataError
from pixelis.core.trajectory import TokenRun
from pixelis.policy.buffer import TokenBuffer
from pixelis.policy.exposure import exposure_of, shown
from pixelis.policy.vlm_load import base_of
from pixelis.policy.vlm_sampling import Sampling
from pixelis.policy.vlm_vision import Vision

CHUNK = 1024
"""Positions whose logits are held at once."""


def score(
    model: Any,
    vision: Vision,
    runs: Sequence[TokenRun],
    images: Mapping[str, np.ndarray | bytes],
    *,
    sampling: Sampling,
    image_id: int,
    merge: int,
) -> list[torch.Tensor]:
    """Log-probabilities of every `policy` run's ids, one tensor [T] per run; gradients flow where they are enabled.

    Args:
        model: a Qwen3-VL model, with or without adapters, run as transformers runs it.
        images: each image of the runs by its name, or by that of what it shows as it is: RGB uint8 [height, width, 3] or an encoded
            file's bytes.

    Raises:
        DataError: an image is missing or does not fit its place.
    """
    wanted = {name for run in runs for name in run.images}
    there = {name: pixels_of(images[name]) for name in {*wanted, *(exposure_of(name)[0] for name in wanted)} if name in images}
    prepared = {name: vision.prepare(shown(there, name)) for name in sorted(wanted) if name in there or exposure_of(name)[0] in there}
    buffer = TokenBuffer.load(runs, {name: grid for name, (grid, _) in prepared.items()}, image_id=image_id, merge=merge)
    where = np.flatnonzero(buffer.mask("policy"))
    if len(where) and where[0] == 0:
        raise DataError("the token sequence begins with the policy's own tokens: there is no prompt to condition on")
    base = base_of(model)
    device = base.lm_head.weight.device
    seen: dict[str, torch.Tensor] = {}
    if buffer.images:
        names = [placed.image.sha256 for placed in buffer.images]
        seen = {
            "pixel_values": torch.cat([prepared[name][1] for name in names]).to(device),
            "image_grid_thw": torch.tensor([prepared[name][0] for name in names], device=device),
        }
    ids = torch.tensor([buffer.ids], device=device)
    positions = torch.from_numpy(buffer.positions()).to(device)[:, None]
    hidden = base.model(input_ids=ids, position_ids=positions, use_cache=False, **seen).last_hidden_state[0]
    at = torch.from_numpy(where).to(device)
    logp = [sampling.logp(base.lm_head(hidden[part - 1])).gather(-1, ids[0, part, None])[:, 0] for part in at.split(CHUNK)]
    lengths = [len(run.ids) for run in buffer.export() if run.role == "policy"]
    return list(torch.cat(logp).split(lengths)) if lengths else []


def pixels_of(data: np.ndarray | bytes) -> np.ndarray:
    """RGB uint8 [height, width, 3] of an array or an encoded image."""
    if isinstance(data, np.ndarray):
        return data
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))
