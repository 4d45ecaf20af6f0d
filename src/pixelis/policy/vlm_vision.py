"""Images on their way into the model: resized and cut into patches once, encoded once, shared by every session that shows them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pixelis.policy.buffer import ImageRef
from pixelis.policy.prompt import Prompting


@dataclass(frozen=True)
class Features:
    """What the language model gets of one image.

    Args:
        tokens_ND: replaces the embeddings of its N image tokens.
        deep_LND: added to the hidden states of the first L layers at these tokens.
    """

    tokens_ND: torch.Tensor
    deep_LND: torch.Tensor

    @property
    def num_bytes(self) -> int:
        return (self.tokens_ND.numel() + self.deep_LND.numel()) * self.tokens_ND.element_size()


class Vision:
    """Patches and features by an image's name.

    Args:
        base: the Qwen3-VL model.
        processor: its image processor.
        prompting: how large images are shown; what comes in the size of neither an image nor a frame is a crop, and shown as an image.
        cache_bytes: features kept for later sessions; those in use by an open session are never dropped.
    """

    def __init__(self, base: Any, processor: Any, prompting: Prompting, *, cache_bytes: int = 1 << 29) -> None:
        self._base, self._processor, self._prompting, self._limit = base, processor, prompting, cache_bytes
        self._lock = threading.Lock()
        self._patches: dict[str, tuple[ImageRef, torch.Tensor]] = {}
        self._features: OrderedDict[str, Features] = OrderedDict()
        self._users: dict[str, int] = {}
        self.num_encoded = 0
        """Images that went through the vision tower so far."""

    def prepare(self, image_HWC: np.ndarray) -> tuple[tuple[int, int, int], torch.Tensor]:
        """An RGB uint8 image as its patch grid and its patches [patches, pixels of one]."""
        image = np.ascontiguousarray(image_HWC)
        if (image.shape[1], image.shape[0]) != self._prompting.frame_size:
            image = self._prompting.show(image)
        batch = self._processor(images=[image], input_data_format="channels_last", return_tensors="pt")
        return tuple(batch["image_grid_thw"][0].tolist()), batch["pixel_values"]

    def take(self, sha256: str, image_HWC: np.ndarray) -> ImageRef:
        """Hold an image for a session until `release`; the same name is prepared once."""
        with self._lock:
            self._users[sha256] = self._users.get(sha256, 0) + 1
            held = self._patches.get(sha256)
        if held is not None:
            return held[0]
        try:
            grid, patches = self.prepare(image_HWC)
        except Exception:
            self.release([sha256])
            raise
        with self._lock:
            return self._patches.setdefault(sha256, (ImageRef(sha256, grid), patches))[0]

    def hold(self, names: Sequence[str]) -> bool:
        """Hold images that another session still holds; False, and nothing held, when one of them is gone."""
        with self._lock:
            if any(name not in self._patches for name in names):
                return False
            for name in names:
                self._users[name] = self._users.get(name, 0) + 1
            return True

    def release(self, names: Sequence[str]) -> None:
        """Let go of images; what nobody holds stays only as far as the cache reaches."""
        with self._lock:
            for name in names:
                self._users[name] -= 1
                if not self._users[name]:
                    del self._users[name]
                    self._patches.pop(name, None)
            total = sum(f.num_bytes for f in self._features.values())
            for name in list(self._features):
                if total <= self._limit:
                    break
                if name not in self._users:
                    total -= self._features.pop(name).num_bytes

    def forget(self) -> None:
        """Drop all features: the weights have changed."""
        with self._lock:
            self._features.clear()

    def features(self, names: Sequence[str]) -> list[Features]:
        """Features of held images, in order; those not known yet are encoded in one pass."""
        with self._lock:
            missing = [n for n in dict.fromkeys(names) if n not in self._features]
            waiting = [self._patches[n] for n in missing]
        if missing:
            fresh = self._encode(waiting)
            with self._lock:
                self._features.update(zip(missing, fresh, strict=True))
            self.num_encoded += len(missing)
        with self._lock:
            for name in names:
                self._features.move_to_end(name)
            return [self._features[name] for name in names]

    def _encode(self, waiting: Sequence[tuple[ImageRef, torch.Tensor]]) -> list[Features]:
        visual = self._base.model.visual
        device = visual.patch_embed.proj.weight.device
        grids = torch.tensor([ref.grid for ref, _ in waiting], device=device)
        patches = torch.cat([p for _, p in waiting]).to(device)
        out = self._base.model.get_image_features(patches, grids, return_dict=True)
        tokens = _whole(out.pooler_output)
        deep = (
            torch.stack([_whole(layer) for layer in out.deepstack_features])
            if out.deepstack_features
            else tokens.new_empty(0, *tokens.shape)
        )
        sizes = (grids.prod(-1) // visual.spatial_merge_size**2).tolist()
        if sum(sizes) != tokens.shape[0]:
            raise RuntimeError(f"{tokens.shape[0]} image features for {sum(sizes)} image tokens")
        return [Features(t.clone(), d.clone()) for t, d in zip(tokens.split(sizes), deep.split(sizes, dim=1), strict=True)]


def _whole(parts: Any) -> torch.Tensor:
    """One tensor, whether this transformers returns features whole or split by image."""
    return torch.cat(list(parts)) if isinstance(parts, (tuple, list)) else parts
