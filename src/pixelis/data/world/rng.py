"""The one source of chance: raw 64-bit words of PCG64, turned into numbers by code of our own.

numpy's distributions may change between versions, and some use the platform's `log` and `exp`; the raw stream of PCG64 and the
mixing of `SeedSequence` do not change, so the same seed draws the same world on any machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
_WORDS = 64  # raw words fetched at a time


class Rng:
    """A stream of chance named by its seed material.

    Args:
        material: anything with an exact `str`; the same material gives the same stream.
    """

    def __init__(self, *material: object) -> None:
        digest = hashlib.sha256("/".join(str(part) for part in material).encode()).digest()
        self._bits = np.random.PCG64(int.from_bytes(digest[:16], "big"))
        self._words: list[int] = []

    def _word(self) -> int:
        if not self._words:
            self._words = self._bits.random_raw(_WORDS).tolist()[::-1]
        return self._words.pop()

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A float in [low, high) with 53 random bits."""
        return low + (high - low) * ((self._word() >> 11) / (1 << 53))

    def integer(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return low + (self._word() * (high - low + 1) >> 64)

    def chance(self, probability: float) -> bool:
        return self.uniform() < probability

    def choice(self, items: Sequence[T]) -> T:
        return items[self.integer(0, len(items) - 1)]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        out = list(items)
        for i in range(len(out) - 1, 0, -1):
            j = self.integer(0, i)
            out[i], out[j] = out[j], out[i]
        return out

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """`count` different places of `items`, in random order."""
        return self.shuffled(items)[:count]

    def bytes_array(self, shape: tuple[int, ...]) -> np.ndarray:
        """Uniform uint8 of any shape."""
        count = int(np.prod(shape))
        raw = self._bits.random_raw(-(-count // 8)).astype("<u8")
        return raw.view(np.uint8)[:count].reshape(shape)

    def bell(self, shape: tuple[int, ...]) -> np.ndarray:
        """Noise of mean 0 and standard deviation about 148 as int16: the sum of four uniform bytes, centred."""
        four = self.bytes_array((4, *shape)).astype(np.int16)
        return four[0] + four[1] + four[2] + four[3] - 510
