"""A newborn model: the sizes of a recipe, random weights, and a tokeniser whose words are PixelWorld's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from pixelis.policy.vlm_load import load_checkpoint
from pixelis.policy.vlm_make import make_checkpoint
from pixelis.train.vocabulary import MAX_COORDINATE, make_vocabulary

FREQUENCIES = (0.5, 1, 2, 4, 8, 16, 32)
"""Periods per picture of the waves that make up the code of a place, the fine ones weaker."""


CODE_LENGTH = 2.0
"""Of a coordinate's embedding at the start: long enough that near places can be told apart at the output."""


def place_codes(width: int, *, seed: int = 0) -> torch.Tensor:
    """Codes [1001, width] of the coordinates 0 to 1000, of unit length on average: near places have near codes.

    With such codes as embeddings, whoever learns to say one coordinate has half learnt to say its neighbours.
    """
    place = torch.arange(MAX_COORDINATE + 1) / MAX_COORDINATE
    waves = [wave(math.pi * 2 * f * place) / math.sqrt(1 + f / 4) for f in FREQUENCIES for wave in (torch.cos, torch.sin)]
    plain = torch.stack(waves, dim=1)
    directions = torch.linalg.qr(torch.randn(width, plain.shape[1], generator=torch.Generator().manual_seed(seed))).Q.T
    codes = plain @ directions
    return codes / codes.norm(dim=1).mean()


def make_newborn(folder: str | Path, sizes: Any, *, seed: int = 0) -> Path:
    """Write a newborn checkpoint; the embeddings of its coordinates start as `place_codes`.

    Args:
        sizes: a model with the fields of `config_train.ModelTable`.
    """
    folder = make_checkpoint(folder, make_vocabulary(), **sizes.model_dump(), seed=seed)
    loaded = load_checkpoint(folder)
    table = loaded.base.get_input_embeddings().weight
    ids = loaded.tokenizer.convert_tokens_to_ids([str(k) for k in range(10, MAX_COORDINATE + 1)])  # below ten, they are digits too
    with torch.no_grad():
        table[ids] = place_codes(table.shape[1], seed=seed)[10:] * CODE_LENGTH
    loaded.base.save_pretrained(folder)
    return folder
