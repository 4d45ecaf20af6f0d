"""What the two SAM 2.1 engines share: loading through transformers, the weights' tag, and preprocessing without torchvision.

Source: Ravi et al., "SAM 2: Segment Anything in Images and Videos" (arXiv 2408.00714).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from pixelis.core.errors import NotInstalled
from pixelis.tools.engines.seg_common import file_tag

if TYPE_CHECKING:
    import torch

DEFAULT_CHECKPOINT = "facebook/sam2.1-hiera-large"
MEAN_C = np.array([0.485, 0.456, 0.406], np.float32)
STD_C = np.array([0.229, 0.224, 0.225], np.float32)
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def load_model(class_name: str, checkpoint: str, device: str) -> Any:
    """A SAM 2.1 model in float32, ready to run.

    Args:
        class_name: `Sam2Model` or `Sam2VideoModel`.
        checkpoint: a local folder in transformers' layout, or a hub id whose files were fetched before.
    Raises:
        NotInstalled: torch or transformers is missing, or the checkpoint is not on this disk.
    """
    try:
        import torch
        import transformers

        model_class = getattr(transformers, class_name)
    except (ImportError, AttributeError) as error:
        raise NotInstalled(f"SAM 2.1's runtime (torch, and transformers with {class_name})", "pip install 'pixelis[vlm]'") from error
    try:
        # Only what is already on disk: a gigabyte fetched, or a minute of retries offline, has no place inside a call.
        model = model_class.from_pretrained(checkpoint, dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError) as error:
        raise NotInstalled(f"the SAM 2.1 checkpoint {checkpoint}", _how_to_get(checkpoint)) from error
    return model.to(device).eval()


def runtime_version(checkpoint: str, device: str) -> str:
    """Weights, libraries and device: what decides a SAM 2.1 result beside our own algorithm."""
    import torch
    import transformers
    from transformers.utils import cached_file

    found = (cached_file(checkpoint, name, local_files_only=True, _raise_exceptions_for_missing_entries=False) for name in WEIGHT_FILES)
    path = next((p for p in found if p is not None), None)
    tag = "unknown" if path is None else file_tag(Path(path))
    return f"weights {tag}; torch {torch.__version__}; transformers {transformers.__version__}; {device}"


def input_hw(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    """Height and width of the network's input from a config entry that may be one number."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def pixels(image_HWC: np.ndarray, height_width: tuple[int, int], device: str) -> torch.Tensor:
    """The network's input [1, 3, height, width]: squashed to its square (coordinates scale by side), normalised."""
    import torch

    height, width = height_width
    interpolation = cv2.INTER_AREA if max(image_HWC.shape[:2]) > max(height, width) else cv2.INTER_LINEAR
    small_HWC = cv2.resize(image_HWC, (width, height), interpolation=interpolation).astype(np.float32) / 255
    return torch.from_numpy(((small_HWC - MEAN_C) / STD_C).transpose(2, 0, 1)[None].copy()).to(device)


def _how_to_get(checkpoint: str) -> str:
    if Path(checkpoint).exists() or checkpoint.startswith((".", "/", "~")):
        return f"put a transformers SAM 2.1 checkpoint (config.json and model.safetensors) into {checkpoint}, or name a fetched hub id"
    return f"hf download {checkpoint}"
