"""The bank of image features: what the frozen vision tower makes of every image of a data set, computed once.

Small models keep all of it; for large ones the bank holds what fits and computes the rest again. Letters: N visual tokens, D hidden size,
L deepstack layers, H W C an image.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelis.core.errors import DataError
from pixelis.policy.buffer import Grid
from pixelis.policy.vlm_vision import Features, Vision

Pixels = Callable[[str], np.ndarray]
"""An image by name, RGB uint8 [H, W, 3], for features that the bank no longer holds."""


class FeatureBank:
    """Features by an image's name.

    Args:
        vision: the frozen tower with its image processor.
        pixels: where an image comes from that was dropped; None where everything is kept. May be set later.
        max_bytes: kept at most; the least recently used go first.
    """

    def __init__(self, vision: Vision, *, pixels: Pixels | None = None, max_bytes: int = 6 << 30) -> None:
        self._vision, self.pixels, self._max_bytes, self._num_bytes = vision, pixels, max_bytes, 0
        self._kept: OrderedDict[str, Features] = OrderedDict()
        self.grids: dict[str, Grid] = {}
        """Patch grid of every image seen."""
        self.num_encoded = 0

    def __contains__(self, name: str) -> bool:
        return name in self.grids

    def note(self, images: Sequence[tuple[str, np.ndarray]]) -> None:
        """Encode images while there is room; of further ones only the grid is noted, and they are encoded when they are asked for."""
        if self._num_bytes < self._max_bytes:
            self.add(images)
            return
        refs = [self._vision.take(name, image) for name, image in images if name not in self.grids]
        self.grids.update({ref.sha256: ref.grid for ref in refs})
        self._vision.release([ref.sha256 for ref in refs])

    def add(self, images: Sequence[tuple[str, np.ndarray]]) -> None:
        """Encode images in one pass."""
        fresh = [(name, image) for name, image in images if name not in self._kept]
        if not fresh:
            return
        refs = [self._vision.take(name, image) for name, image in fresh]
        names = [ref.sha256 for ref in refs]
        with torch.no_grad():
            features = self._vision.features(names)
        self._vision.release(names)
        self.num_encoded += len(names)
        for ref, found in zip(refs, features, strict=True):
            self.grids[ref.sha256] = ref.grid
            self._keep(ref.sha256, Features(found.tokens_ND.half().cpu(), found.deep_LND.half().cpu()))

    def features(self, names: Sequence[str]) -> list[Features]:
        """Raises: DataError: an image was never added, or was dropped and cannot be read again."""
        missing = [name for name in dict.fromkeys(names) if name not in self._kept]
        if missing and self.pixels is None:
            raise DataError(f"image {missing[0]:.24} is not in the feature bank: its trace was not prepared")
        found = {name: self._kept[name] for name in names if name in self._kept}
        for name in missing:
            self.add([(name, self.pixels(name))])
            found[name] = self._kept[name]
        for name in names:
            if name in self._kept:
                self._kept.move_to_end(name)
        return [Features(f.tokens_ND.float(), f.deep_LND.float()) for f in (found[name] for name in names)]

    def _keep(self, name: str, features: Features) -> None:
        self._kept[name] = features
        self._num_bytes += features.num_bytes
        while self._num_bytes > self._max_bytes and len(self._kept) > 1:
            self._num_bytes -= self._kept.popitem(last=False)[1].num_bytes

    # ------------------------------------------------------------ on disk

    def save(self, path: str | Path, *, tower: str, only: Sequence[str] | None = None) -> None:
        """Write what is kept, whole or not at all.

        Args:
            only: names of the images to write; all when None.
            tower: names the weights that made the features; `load` refuses others.
        """
        path = Path(path)
        names = list(self._kept if only is None else only)
        sizes = [self._kept[name].tokens_ND.shape[0] for name in names]
        tokens = torch.cat([self._kept[name].tokens_ND for name in names]) if names else torch.zeros(0, 1)
        deep = torch.cat([self._kept[name].deep_LND for name in names], dim=1) if names else torch.zeros(0, 0, 1)
        about = json.dumps({"tower": tower, "names": names, "sizes": sizes, "grids": [self.grids[name] for name in names]})
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            np.savez(file, tokens=tokens.numpy(), deep=deep.numpy(), about=np.frombuffer(about.encode(), np.uint8))
        os.replace(part, path)

    def load(self, path: str | Path, *, tower: str) -> bool:
        """Take in a saved bank; False where there is none, or one of other weights."""
        path = Path(path)
        if not path.is_file():
            return False
        try:
            with np.load(path) as data:
                about = json.loads(data["about"].tobytes())
                tokens, deep = torch.from_numpy(data["tokens"]), torch.from_numpy(data["deep"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: cannot be read ({error}); delete it, and it is made again") from None
        if about["tower"] != tower:
            return False
        sizes = about["sizes"]
        for name, grid, one, more in zip(about["names"], about["grids"], tokens.split(sizes), deep.split(sizes, dim=1), strict=True):
            self.grids[name] = tuple(grid)
            self._keep(name, Features(one, more))
        return True


def tower_name(base: Any) -> str:
    """A name for a vision tower's weights."""
    import hashlib

    digest = hashlib.sha256()
    for key, value in sorted(base.model.visual.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
