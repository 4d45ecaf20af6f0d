"""Keys: one unit vector whose inner product with another is the hybrid similarity of text and pixels.

Shapes: N keys, T tokens, H W a token grid, D features, K the width of a key. Source: paper §3.2.3 "Hybrid retrieval", supplement §3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pixelis.core.errors import ConfigError, DataError

LAST_THOUGHT_TOKENS = 32
LEAST_WEIGHT = 0.01


@dataclass(frozen=True)
class KeySpec:
    """What the keys of one memory are made of.

    Args:
        text_dim: width of the text part; 768 at scale.
        pixel_dim: width of the pixel part; 1,024 at scale.
        omega: weight of the pixel cosine. 0 is text only and 1 pixels only: the other part is then not stored. Else from 0.01 to 0.99:
            what half precision keeps of a part with less is not worth its space.

    Raises:
        ConfigError: a value out of its range.
    """

    text_dim: int = 768
    pixel_dim: int = 1024
    omega: float = 0.5

    def __post_init__(self) -> None:
        if not (self.omega in (0, 1) or LEAST_WEIGHT <= self.omega <= 1 - LEAST_WEIGHT):
            raise ConfigError(f"omega = {self.omega}: give the weight of the pixel cosine: 0 (text only), 1 (pixels only), or 0.01 to 0.99")
        if min(self.text_dim, self.pixel_dim) < 1:
            raise ConfigError(f"text_dim = {self.text_dim}, pixel_dim = {self.pixel_dim}: a part needs at least one number")

    @property
    def dim(self) -> int:
        return (self.pixel_dim if self.omega > 0 else 0) + (self.text_dim if self.omega < 1 else 0)


def make_keys(spec: KeySpec, text_ND: np.ndarray | None, pixel_ND: np.ndarray | None, *, omega: float | None = None) -> np.ndarray:
    """[sqrt(omega) pixel; sqrt(1 - omega) text] of unit parts, to store or to ask with.

    The inner product of two of them is `omega * cos_pixel + (1 - omega) * cos_text`, in [-1, 1].

    Args:
        text_ND: [N, text_dim], any length but zero; may be None where its weight is 0.
        pixel_ND: [N, pixel_dim], the same.
        omega: another weight, for a question only: its inner product with a stored key is the similarity at that weight. The result is
            then no unit vector.

    Returns:
        float32 [N, K].

    Raises:
        DataError: a part is missing, has another width, holds what is not finite, or has no direction.
        ConfigError: `omega` asks for a part that the memory does not store.
    """
    omega = spec.omega if omega is None else omega
    _check_weight(spec, omega)
    parts = []
    if spec.omega > 0:
        parts.append(_weighted("pixel", pixel_ND, spec.pixel_dim, omega / math.sqrt(spec.omega)))
    if spec.omega < 1:
        parts.append(_weighted("text", text_ND, spec.text_dim, (1 - omega) / math.sqrt(1 - spec.omega)))
    known = [part for part in parts if not isinstance(part, int)]
    if len({len(part) for part in known}) > 1:
        raise DataError(f"{len(known[0])} pixel parts and {len(known[1])} text parts: give one of each per key")
    return np.concatenate([np.zeros((len(known[0]), part)) if isinstance(part, int) else part for part in parts], 1, dtype=np.float32)


def pool_text(prompt_TD: np.ndarray, thoughts_TD: np.ndarray) -> np.ndarray:
    """The text part, [D]: mean over the token states of the prompt and of the last 32 thought tokens.

    Raises:
        DataError: there is not one token.
    """
    states_TD = np.concatenate((np.asarray(prompt_TD, np.float64), np.asarray(thoughts_TD, np.float64)[-LAST_THOUGHT_TOKENS:]))
    if not len(states_TD):
        raise DataError("a text key needs at least one token of prompt or thought")
    return states_TD.mean(0).astype(np.float32)


def pool_pixels(features: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> np.ndarray:
    """The pixel part, [D]: a frozen encoder's features, averaged over each decisive footprint, then over these.

    Args:
        features: float [H, W, D] per frame of a footprint; frames of one tracklet or segment each count once.
        weights: how much of each cell the footprint covers, [H, W], in [0, 1].

    Raises:
        DataError: no footprint covers a cell: pool over the whole frame instead, with weights of 1.
    """
    pooled = []
    for features_HWD, weight_HW in zip(features, weights, strict=True):
        weight_HW = np.asarray(weight_HW, np.float64)
        if weight_HW.sum() > 0:
            pooled.append((features_HWD * weight_HW[..., None]).sum((0, 1)) / weight_HW.sum())
    if not pooled:
        raise DataError(f"none of {len(weights)} footprints covers a cell of the token grid: give the whole frame, weights of 1, instead")
    return np.mean(pooled, 0).astype(np.float32)


def _check_weight(spec: KeySpec, omega: float) -> None:
    if not 0 <= omega <= 1:
        raise ConfigError(f"omega = {omega}: give the weight of the pixel cosine, from 0 (text only) to 1 (pixels only)")
    if (spec.omega == 0 and omega > 0) or (spec.omega == 1 and omega < 1):
        part = "pixel" if spec.omega == 0 else "text"
        raise ConfigError(f"omega = {omega}: this memory was made with omega = {spec.omega:g} and stores no {part} part; ask with that")


def _weighted(name: str, rows_ND: np.ndarray | None, dim: int, weight: float) -> np.ndarray | int:
    """Unit rows times a weight; the bare width where the weight is 0."""
    if weight == 0:
        return dim
    if rows_ND is None:
        raise DataError(f"the key has no {name} part, and omega gives it weight")
    rows_ND = np.asarray(rows_ND, np.float64)
    if rows_ND.ndim != 2 or rows_ND.shape[1] != dim:
        raise DataError(f"the {name} part has shape {rows_ND.shape}; this memory takes [N, {dim}]")
    bad = np.flatnonzero(~np.isfinite(rows_ND).all(1))
    if len(bad):
        raise DataError(f"{len(bad)} of {len(rows_ND)} {name} parts hold NaN or infinity, the first is number {bad[0]}: leave these out")
    largest_N1 = np.abs(rows_ND).max(1, initial=0.0, keepdims=True)  # first to size 1: the square of 1e-200 is 0
    if not largest_N1.all():
        zero = np.flatnonzero(largest_N1[:, 0] == 0)
        raise DataError(f"{len(zero)} of {len(rows_ND)} {name} parts are all zero and have no direction, the first is number {zero[0]}")
    scaled_ND = rows_ND / largest_N1
    return scaled_ND * (weight / np.linalg.norm(scaled_ND, axis=1, keepdims=True))
