"""SAM 2.1 on images through transformers, with our own preprocessing: its processor wants torchvision, this does not.

Source: Ravi et al., "SAM 2: Segment Anything in Images and Videos" (arXiv 2408.00714).
Shapes: H, W image; h, w the decoder's grid, a quarter of the input's side.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pixelis.tools.engines import sam2
from pixelis.tools.engines.seg_common import (
    EncodingCache,
    FloatBox,
    FloatPoint,
    as_rgb,
    check_prompt,
    cut_to_box,
    paste_logits,
)

if TYPE_CHECKING:
    import torch

ALGORITHM = 1


class Sam2Seg:
    """Promptable segmentation with SAM 2.1.

    Args:
        checkpoint: a local folder in transformers' layout, or a hub id whose files were fetched before.
        device: where torch runs it, for example "cpu" or "cuda".
        cache_size: how many images' encodings to keep (about 20 MB each at full size).
    Raises:
        NotInstalled: torch or transformers is missing, or the checkpoint cannot be had.
    """

    name = "sam2"

    def __init__(self, checkpoint: str | Path = sam2.DEFAULT_CHECKPOINT, *, device: str = "cpu", cache_size: int = 4) -> None:
        self._checkpoint, self._device = str(checkpoint), device
        self._model = sam2.load_model("Sam2Model", self._checkpoint, device)
        self._input_hw = sam2.input_hw(self._model.config.vision_config.backbone_config.image_size)
        self._cache: EncodingCache[list[torch.Tensor]] = EncodingCache(cache_size)

    @cached_property
    def version(self) -> str:
        return f"{self.name} {ALGORITHM}; {sam2.runtime_version(self._checkpoint, self._device)}"

    def segment(
        self, image_HWC: np.ndarray, *, box: FloatBox | None, point: FloatPoint | None, image_key: str | None = None
    ) -> tuple[np.ndarray, float]:
        """The object that the prompt means.

        A lone point is ambiguous: the network then offers three masks and the one it trusts most is taken.

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
        import torch

        check_prompt(image_HWC.shape, box, point)
        height, width = image_HWC.shape[:2]
        scale_y, scale_x = self._input_hw[0] / height, self._input_hw[1] / width
        to_input = torch.tensor([scale_x, scale_y], dtype=torch.float32)
        prompts = {}
        if point is not None:
            prompts["input_points"] = (torch.tensor(point, dtype=torch.float32) * to_input).view(1, 1, 1, 2).to(self._device)
            prompts["input_labels"] = torch.ones((1, 1, 1), dtype=torch.int64, device=self._device)
        if box is not None:
            prompts["input_boxes"] = (torch.tensor(box, dtype=torch.float32) * to_input.repeat(2)).view(1, 1, 4).to(self._device)
        with torch.inference_mode():
            embeddings = self._cache.get(image_key, lambda: self._encode(as_rgb(image_HWC)))
            out = self._model(image_embeddings=list(embeddings), multimask_output=box is None, **prompts)
        iou = out.iou_scores[0, 0].float().cpu().numpy()
        best = int(np.argmax(iou))
        logit_hw = out.pred_masks[0, 0, best].float().cpu().numpy()
        mask_HW = paste_logits(logit_hw, logit_hw.shape[1] / width, logit_hw.shape[0] / height, image_HWC.shape)
        if box is not None:
            mask_HW = cut_to_box(mask_HW, box)
        return mask_HW, float(np.clip(iou[best], 0.0, 1.0)) if mask_HW.any() else 0.0

    def _encode(self, image_HWC: np.ndarray) -> list[torch.Tensor]:
        return self._model.get_image_embeddings(sam2.pixels(image_HWC, self._input_hw, self._device))
