"""DINOv2 as a frozen encoder, through transformers, with preprocessing that needs no torchvision."""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pixelis.core.errors import NotInstalled
from pixelis.tools.engines.encoder_common import embed_each, to_square

if TYPE_CHECKING:
    import torch

PIP_COMMAND = "pip install torch==2.13.0 transformers"
ALGORITHM = "1"
"""Raise when the same image may now give another embedding."""
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)
TARGET_SIDE_PX = 224


class DinoV2Encoder:
    """DINOv2's class token after the last norm; safe to share between threads.

    Args:
        checkpoint: a name on the hub, or a folder with config.json and weights.
        fit: how a crop becomes a square, "stretch" or "pad".
        device: where the network runs, as torch names it.
    Raises:
        NotInstalled: torch, transformers, or the checkpoint is missing.
    """

    name = "dinov2"

    def __init__(self, checkpoint: str = "facebook/dinov2-base", *, fit: str = "stretch", device: str = "cpu") -> None:
        for package in ("torch", "transformers"):
            if importlib.util.find_spec(package) is None:
                raise NotInstalled(f"the DINOv2 encoder ({package})", PIP_COMMAND)
        self.checkpoint, self.fit, self.device = checkpoint, fit, device
        self._lock = threading.Lock()
        self._network: torch.nn.Module | None = None
        self._digest: str | None = None

    @property
    def dim(self) -> int:
        return self._loaded().config.hidden_size

    @property
    def version(self) -> str:
        """Changes whenever the same image may give another embedding; holds a digest of the weights, not where they lie."""
        import torch
        import transformers

        network = self._loaded()
        with self._lock:
            if self._digest is None:
                self._digest = _digest(network)
        return f"{self.name}+{self._digest}+torch-{torch.__version__}+transformers-{transformers.__version__}+{self.fit}+{ALGORITHM}"

    def embed(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Unit-length embeddings float32 [N, dim]; each image's is the same in any company.

        Args:
            images: uint8 RGB [height, width, 3], any sizes.
        """
        return embed_each(images, self.dim, self._embed_one)

    def _embed_one(self, image_HWC: np.ndarray) -> np.ndarray:
        import torch

        network = self._loaded()
        patch = network.config.patch_size
        side = max(1, TARGET_SIDE_PX // patch) * patch
        square = to_square(image_HWC, side, fit=self.fit, fill=tuple(float(v) for v in MEAN * 255))
        x_1CHW = torch.from_numpy(((square / 255 - MEAN) / STD).transpose(2, 0, 1)[None].copy()).to(self.device)
        with torch.inference_mode():
            return network(pixel_values=x_1CHW).last_hidden_state[0, 0].float().cpu().numpy()

    def _loaded(self) -> torch.nn.Module:
        with self._lock:
            if self._network is None:
                self._network = _load(self.checkpoint).to(self.device)
            return self._network


def _load(checkpoint: str) -> torch.nn.Module:
    import torch
    from transformers import AutoModel

    try:
        network = AutoModel.from_pretrained(checkpoint, dtype=torch.float32)
    except OSError as error:  # what transformers raises for an absent folder, an unknown name and an unreachable hub alike
        raise NotInstalled(f"the checkpoint {checkpoint}", f"hf download {checkpoint}") from error
    if network.config.model_type not in ("dinov2", "dinov2_with_registers"):
        raise ValueError(f"{checkpoint} is a {network.config.model_type} checkpoint, not DINOv2")
    return network.eval().requires_grad_(False)


def _digest(network: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]
